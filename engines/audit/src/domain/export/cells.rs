//! A leaf flattened into columns: for people as CSV, for analysis as Parquet.

use std::borrow::Cow;

use deltran_kernel::Timestamp;
use deltran_runtime::csv::{Row, header};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::check::StoredLeaf;

/// Digits after the point of an amount at the most.
pub const SCALE: usize = 4;

/// The columns that an export's tables have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cells {
    /// Its place in the ledger.
    pub leaf_index: u64,
    /// Its hash.
    pub leaf_hash: Vec<u8>,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// When it happened.
    pub occurred_at: Option<Timestamp>,
    /// `transactions`, `clearing`, …
    pub domain: String,
    /// `<entity>.<action>`.
    pub event_type: String,
    /// Its id.
    pub event_id: Option<String>,
    /// Who published it.
    pub source: String,
    /// `<source>/<epoch>` and the number within it.
    pub producer: Option<(String, u64)>,
    /// The participant that it concerns first.
    pub participant: Option<String>,
    /// What it belongs to.
    pub correlation_id: Option<String>,
    /// A decimal number with at most [`SCALE`] digits after the point.
    pub amount: Option<String>,
    /// Of the amount.
    pub currency: Option<String>,
    /// Of a transaction.
    pub payer: Option<String>,
    /// Of a transaction.
    pub payee: Option<String>,
    /// What became of it.
    pub state: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Why it is no valid event.
    pub invalid: Option<String>,
    /// The subject that it was published under.
    pub subject: String,
    /// The stream that stored it first, and its sequence there.
    pub stream: (String, u64),
    /// The event's own data, or the whole line where it has none, as JSON.
    pub data: String,
}

#[derive(Default, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    amount: Option<&'a RawValue>,
    #[serde(borrow, default)]
    currency: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payee: Option<&'a RawValue>,
    #[serde(borrow, default)]
    state: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reason: Option<&'a RawValue>,
}

impl Cells {
    /// Flattens a leaf. What an invalid event does not say stays empty.
    pub fn of(leaf: &StoredLeaf) -> Self {
        let envelope: Envelope<'_> = serde_json::from_slice(&leaf.envelope).unwrap_or_default();
        let data: Data<'_> = envelope.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
        let whole = || String::from_utf8_lossy(&leaf.envelope).into_owned();
        let columns = &leaf.columns;
        Self {
            leaf_index: u64::try_from(leaf.leaf_index).unwrap_or(u64::MAX),
            leaf_hash: leaf.leaf_hash.clone(),
            recorded_at: leaf.recorded_at,
            occurred_at: columns.occurred_at,
            domain: columns.domain.clone(),
            event_type: columns.event_type.clone(),
            event_id: columns.event_id.map(|id| id.to_string()),
            source: columns.source.clone(),
            producer: columns.producer.clone(),
            participant: columns.participant_id.clone(),
            correlation_id: columns.correlation_id.clone(),
            amount: data.amount.and_then(text_of).filter(|text| is_amount(text)),
            currency: data.currency.and_then(text_of),
            payer: data.payer.and_then(text_of),
            payee: data.payee.and_then(text_of),
            state: data.state.and_then(text_of),
            reason: data.reason.and_then(text_of),
            invalid: columns.invalid_reason.clone(),
            subject: leaf.subject.clone(),
            stream: (leaf.source_stream.clone(), leaf.source_sequence),
            data: envelope.data.map_or_else(whole, |data| data.get().to_owned()),
        }
    }

    /// The amount times ten to the power of [`SCALE`].
    pub fn scaled(&self) -> Option<i128> {
        let text = self.amount.as_deref()?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}{fraction:0<SCALE$}").parse().ok()
    }
}

/// A text, or a number as it stands.
fn text_of(value: &RawValue) -> Option<String> {
    let json = value.get();
    if json.starts_with('"') {
        return serde_json::from_str::<Cow<'_, str>>(json).ok().map(Cow::into_owned);
    }
    json.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then(|| json.to_owned())
}

/// At most 27 digits before and [`SCALE`] after the point, as events have it.
fn is_amount(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    all(whole, 27) && all(fraction, SCALE)
}

const HEADER: [&str; 23] = [
    "leaf_index",
    "recorded_at",
    "occurred_at",
    "domain",
    "event_type",
    "participant",
    "payer",
    "payee",
    "amount",
    "currency",
    "state",
    "reason",
    "correlation_id",
    "event_id",
    "source",
    "producer",
    "producer_seq",
    "invalid",
    "subject",
    "stream",
    "stream_sequence",
    "leaf_hash",
    "data",
];

/// Writes the header of the CSV.
pub fn csv_header(out: &mut String) {
    header(out, &HEADER);
}

/// Writes a leaf's line of the CSV (RFC 4180). What others chose cannot become a formula; numbers stay numbers.
pub fn csv_row(out: &mut String, cells: &Cells) {
    let producer = cells.producer.as_ref().map_or("", |(producer, _)| producer);
    let number = cells.producer.as_ref().map(|(_, number)| number.to_string());
    Row::new(out)
        .plain(cells.leaf_index)
        .plain(cells.recorded_at)
        .plain(cells.occurred_at.map(|at| at.to_string()).unwrap_or_default())
        .text(&cells.domain)
        .text(&cells.event_type)
        .text(text(&cells.participant))
        .text(text(&cells.payer))
        .text(text(&cells.payee))
        .plain(text(&cells.amount))
        .text(text(&cells.currency))
        .text(text(&cells.state))
        .text(text(&cells.reason))
        .text(text(&cells.correlation_id))
        .plain(text(&cells.event_id))
        .text(&cells.source)
        .text(producer)
        .plain(text(&number))
        .text(text(&cells.invalid))
        .text(&cells.subject)
        .text(&cells.stream.0)
        .plain(cells.stream.1)
        .plain(hex::encode(&cells.leaf_hash))
        .text(&cells.data)
        .end();
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::leaf::Columns;

    pub(crate) fn stored(index: i64, envelope: &str) -> StoredLeaf {
        StoredLeaf {
            leaf_index: index,
            leaf_hash: crate::domain::leaf_hash(envelope.as_bytes()).to_vec(),
            envelope: envelope.as_bytes().to_vec(),
            wrapped: false,
            raw: None,
            subject: "events.transactions.deposit.confirmed".into(),
            columns: Columns {
                domain: "transactions".into(),
                event_type: "deposit.confirmed".into(),
                ..Columns::default()
            },
            source_stream: "TRANSACTIONS".into(),
            source_sequence: 7,
            recorded_at: Timestamp::from_micros(1_762_430_400_000_000),
            valid: true,
        }
    }

    #[test]
    fn amounts_are_exact_and_only_amounts() {
        for (json, amount, scaled) in [
            (r#""1000.00""#, Some("1000.00"), Some(10_000_000)),
            (r#""-0.5""#, Some("-0.5"), Some(-5_000)),
            (r#""7""#, Some("7"), Some(70_000)),
            ("12.5", Some("12.5"), Some(125_000)),
            (
                r#""999999999999999999999999999.9999""#,
                Some("999999999999999999999999999.9999"),
                Some(9_999_999_999_999_999_999_999_999_999_999),
            ),
            (r#""1e9""#, None, None),
            (r#""1.23456""#, None, None),
            (r#""=1+1""#, None, None),
            (r#"{"a":1}"#, None, None),
            ("null", None, None),
        ] {
            let cells = Cells::of(&stored(0, &format!(r#"{{"data":{{"amount":{json}}}}}"#)));
            assert_eq!((cells.amount.as_deref(), cells.scaled()), (amount, scaled), "{json}");
        }
    }

    #[test]
    fn a_spreadsheet_runs_nothing() {
        let leaf = stored(
            3,
            r#"{"data":{"reason":"=HYPERLINK(\"http://x\")","amount":"-5.00","payer":"+1","payee":"a,\"b\"\n"}}"#,
        );
        let mut out = String::new();
        csv_header(&mut out);
        csv_row(&mut out, &Cells::of(&leaf));
        let mut reader = csv::Reader::from_reader(out.as_bytes());
        let head = reader.headers().unwrap().clone();
        let row = reader.records().next().unwrap().unwrap();
        let cell = |name: &str| row.get(head.iter().position(|h| h == name).unwrap()).unwrap();
        assert_eq!(cell("reason"), "'=HYPERLINK(\"http://x\")");
        assert_eq!((cell("amount"), cell("payer"), cell("payee")), ("-5.00", "'+1", "a,\"b\"\n"));
        assert_eq!((cell("leaf_index"), cell("stream_sequence")), ("3", "7"));
    }

    #[test]
    fn what_is_no_envelope_stands_as_it_is() {
        let cells = Cells::of(&stored(1, "-not json"));
        assert_eq!((cells.data.as_str(), cells.amount), ("-not json", None));
    }
}
