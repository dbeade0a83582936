//! What stands beside each event: a line of `leaves.jsonl`.

use std::borrow::Cow;

use deltran_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::check::StoredLeaf;
use crate::domain::leaf::CONFLICT;

/// A leaf without its bytes. What the envelope does not say is the platform's own statement; the hash can be computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beside<'a> {
    /// Its place in the ledger.
    pub leaf_index: u64,
    /// SHA-256(0x00 ‖ line), hexadecimal.
    #[serde(borrow)]
    pub leaf_hash: Cow<'a, str>,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Where it was published.
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
    /// The stream that stored it first.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// Its sequence there.
    pub sequence: u64,
    /// Why it is no valid event; absent where it is one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<Cow<'a, str>>,
    /// The producer's number for which an invalid event stands nevertheless.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub number: Option<(Cow<'a, str>, u64)>,
    /// Whether the line stands for bytes that are in `raw/<leaf_index>`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wrapped: bool,
}

impl<'a> Beside<'a> {
    /// What stands beside a stored leaf.
    pub fn of(leaf: &'a StoredLeaf) -> Self {
        let reason = leaf.columns.invalid_reason.as_deref();
        // A conflict does not stand for its number: an earlier leaf does.
        let stands = reason.is_some_and(|reason| !reason.starts_with(CONFLICT));
        let number = leaf.columns.producer.as_ref().filter(|_| stands);
        Self {
            leaf_index: u64::try_from(leaf.leaf_index).unwrap_or(u64::MAX),
            leaf_hash: hex::encode(&leaf.leaf_hash).into(),
            recorded_at: leaf.recorded_at,
            subject: leaf.subject.as_str().into(),
            stream: leaf.source_stream.as_str().into(),
            sequence: leaf.source_sequence,
            invalid: reason.map(Cow::Borrowed),
            number: number.map(|(producer, number)| (producer.as_str().into(), *number)),
            wrapped: leaf.wrapped,
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Where it is none.
    pub fn read(line: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|e| format!("its line in leaves.jsonl: {e}"))
    }

    /// The number that counts for an event that is not valid.
    pub fn number(&self) -> Option<(&str, u64)> {
        self.number.as_ref().map(|(producer, number)| (&**producer, *number))
    }
}
