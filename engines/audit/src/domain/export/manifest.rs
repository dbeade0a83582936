//! The manifest: what the files of an export must be, and what they say in sum.

use std::collections::BTreeMap;

use deltran_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::tally::Summary;
use crate::domain::note::{Note, NoteError, Verifier};

/// The form that this program writes and reads.
const VERSION: u32 = 1;

/// A file with its size in bytes and its SHA-256, hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Below the export's folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
}

/// What an export was limited to. What is given must all be so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only this domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Only events that name this participant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    /// Only events with this correlation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

impl Filter {
    /// Whether it lets everything pass.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// In words, such as `domain=clearing participant=ALFAAEXX`.
    pub fn words(&self) -> String {
        let named =
            [("domain", &self.domain), ("participant", &self.participant), ("correlation", &self.correlation_id)];
        let words: Vec<String> =
            named.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}"))).collect();
        words.join(" ")
    }
}

/// Which leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The first leaf.
    pub from_leaf: u64,
    /// The leaf after the last one.
    pub to_leaf: u64,
    /// Recorded at or after, where the range was given by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Recorded before, where the range was given by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
}

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form: 1.
    pub version: u32,
    /// Which ledger: `deltran/<deployment>/audit`.
    pub origin: String,
    /// What wrote it, such as `deltran 0.1.0`.
    pub software: String,
    /// When: RFC 3339, UTC.
    pub generated_at: Timestamp,
    /// Who asked for it.
    pub requested_by: String,
    /// In which role.
    pub role: String,
    /// Which leaves.
    pub range: Range,
    /// What it was limited to; absent where it holds every leaf of the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// What it proves, in words.
    pub proves: String,
    /// What the events say in sum.
    pub summary: Summary,
    /// Numbers of producers within the range that are not in the files, as ranges with both ends; of a filtered export.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, Vec<(u64, u64)>>,
    /// Size of the checkpoint that the receiver held, where its consistency is proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Every file but this one, its signature, `raw/` and `proofs/`, which prove themselves.
    pub files: Vec<FileEntry>,
}

/// What a whole export proves.
pub const COMPLETE: &str = "the files hold every leaf of the range, and the ledger at the end of the range begins with the ledger at its beginning";
/// What a filtered export proves.
pub const INCLUDED: &str = "every event in the files stands in the ledger; not that no other event passes the filter: the numbers in left_out are those of events of the range that are not in the files";

impl Manifest {
    /// The version that this program writes.
    pub const fn version() -> u32 {
        VERSION
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let version: Version =
            serde_json::from_slice(bytes).map_err(|e| format!("it is no manifest of an export: {e}"))?;
        if version.version != VERSION {
            return Err(format!("it has version {}: this program reads version {VERSION}", version.version));
        }
        serde_json::from_slice(bytes).map_err(|e| format!("it cannot be read: {e}"))
    }

    /// As the bytes of its file.
    ///
    /// # Errors
    /// Where it cannot be written as JSON: a defect.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// The text that is signed for a manifest. Its second line is no number, so that it is never taken for a checkpoint.
pub fn signed_text(origin: &str, manifest: &[u8]) -> String {
    format!("{origin}\nexport {}\n", hex::encode(Sha256::digest(manifest)))
}

/// Checks the signature of a manifest.
///
/// # Errors
/// Where it is not signed by one of the keys, or is the signature of another one.
pub fn verify_signature(signature: &str, origin: &str, manifest: &[u8], keys: &[Verifier]) -> Result<(), String> {
    let words = |e: NoteError| e.to_string();
    let note = Note::parse(signature).map_err(words)?;
    if note.text != signed_text(origin, manifest) {
        return Err("it signs another manifest".to_owned());
    }
    let own: Vec<Verifier> = keys.iter().filter(|key| key.name() == origin).cloned().collect();
    if own.is_empty() {
        let given: Vec<&str> = keys.iter().map(Verifier::name).collect();
        return Err(format!("the export is of the ledger {origin:?}, the keys are those of {given:?}"));
    }
    note.verify(&own).map_err(words)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::note::{Kind, Signer};

    #[test]
    fn a_signature_is_of_one_manifest_by_the_ledgers_own_key() {
        let origin = "deltran/test/audit";
        let signer = Signer::new(origin, Kind::Ed25519, &[7; 32]).unwrap();
        let stranger = Signer::new(origin, Kind::Ed25519, &[8; 32]).unwrap();
        let elsewhere = Signer::new("deltran/other/audit", Kind::Ed25519, &[7; 32]).unwrap();
        let signature = signer.note(&signed_text(origin, b"{}"));
        let key = |signer: &Signer| [signer.verifier().clone()];
        assert_eq!(verify_signature(&signature, origin, b"{}", &key(&signer)), Ok(()));
        for (wrong, manifest, keys) in [
            ("another manifest", &b"{ }"[..], key(&signer)),
            ("another key", b"{}", key(&stranger)),
            ("another ledger", b"{}", key(&elsewhere)),
        ] {
            assert!(verify_signature(&signature, origin, manifest, &keys).is_err(), "{wrong}");
        }
        assert!(crate::domain::checkpoint::Checkpoint::unchecked(&signature).is_err(), "it is no checkpoint");
    }

    #[test]
    fn a_manifest_of_another_form_is_refused_by_name() {
        assert!(Manifest::read(b"{\"version\":2}").unwrap_err().contains("version 2"));
        assert!(Manifest::read(b"[]").unwrap_err().contains("no manifest"));
    }
}
