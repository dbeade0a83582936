//! The one list of typed ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::Text;

/// An id that does not have the form its kind requires.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: expected {expected}")]
pub struct InvalidId {
    /// What the id was meant to name.
    pub kind: &'static str,
    /// The text as given, cut to 64 characters.
    pub value: String,
    /// The form it should have had.
    pub expected: &'static str,
}

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident => $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID.
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }
            /// The UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId {
                    kind: $kind,
                    value: text.chars().take(64).collect(),
                    expected: "a UUID such as 0190c3d5-0000-7000-8000-000000000001",
                };
                if text.len() != 36 {
                    return Err(invalid());
                }
                let id = Uuid::try_parse(text).map_err(|_| invalid())?;
                if id.is_nil() { Err(invalid()) } else { Ok(Self(id)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
                    "description": $kind
                })
            }
        }
    )*};
}

uuid_ids! {
    /// A transaction: supplied by the client, the one idempotency key, unique over all participants.
    TransactionId => "transaction id";
    /// A command other than a transaction: its idempotency key.
    CommandId => "command id";
    /// A clearing window.
    WindowId => "window id";
    /// A netting set: the frozen net positions of one or more sealed windows.
    NettingSetId => "netting set id";
    /// A settlement batch.
    BatchId => "batch id";
    /// A group of postings that stand or fall together.
    PostingGroupId => "posting group id";
    /// A withdrawal of tokens to fiat.
    WithdrawalId => "withdrawal id";
    /// A compliance hold.
    HoldId => "hold id";
    /// A compliance case.
    CaseId => "case id";
    /// An alert of transaction monitoring.
    AlertId => "alert id";
    /// An event, from its publisher.
    EventId => "event id";
    /// A webhook endpoint of a participant: supplied by who registers it.
    EndpointId => "endpoint id";
    /// A report: supplied by who asks for it.
    ReportId => "report id";
    /// A reviewed false positive: a name that may pass although it is like an entry of a list.
    AllowanceId => "allowance id";
    /// What a participant wants to be told: supplied by who subscribes.
    SubscriptionId => "subscription id";
}

impl TransactionId {
    /// The id that a line of a file gets: UUIDv5 of the end-to-end id in a namespace of its payer,
    /// so that importing the same file again is harmless.
    pub fn of_file_line(payer: ParticipantId, end_to_end_id: &str) -> Self {
        let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, payer.as_str().as_bytes());
        Self(Uuid::new_v5(&namespace, end_to_end_id.as_bytes()))
    }
}

/// A participant, by its business identifier code (ISO 9362: four characters, two letters of the
/// country, two characters, and optionally three of the branch), in capitals. The branch `XXX` is the head office: such a
/// code is read as the one without it, so that a participant has one id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParticipantId {
    text: [u8; 11],
    len: u8,
}

impl ParticipantId {
    /// The code as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.len)]).unwrap_or("")
    }

    /// The two-letter country of the code.
    pub fn country(&self) -> &str {
        &self.as_str()[4..6]
    }
}

impl FromStr for ParticipantId {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let bytes = s.as_bytes();
        let capital_or_digit = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        let valid = matches!(bytes.len(), 8 | 11)
            && bytes.iter().all(capital_or_digit)
            && bytes[4..6].iter().all(u8::is_ascii_uppercase);
        if !valid {
            return Err(InvalidId {
                kind: "participant id",
                value: s.chars().take(64).collect(),
                expected: "a BIC of 8 or 11 capitals and digits, such as ALFAAEXX",
            });
        }
        let bytes = bytes.strip_suffix(b"XXX").filter(|office| office.len() == 8).unwrap_or(bytes);
        let mut text = [0; 11];
        text[..bytes.len()].copy_from_slice(bytes);
        Ok(Self { text, len: bytes.len() as u8 })
    }
}

impl fmt::Display for ParticipantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ParticipantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ParticipantId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ParticipantId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for ParticipantId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ParticipantId".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?$",
            "description": "business identifier code (ISO 9362) of a participant"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn participants_are_bics() {
        for good in ["ALFAAEXX", "DEUTDEFF500", "A1B2US33"] {
            assert_eq!(good.parse::<ParticipantId>().unwrap().as_str(), good);
        }
        for (code, id) in [("ALFAAEXXXXX", "ALFAAEXX"), ("DEUTDEXX", "DEUTDEXX"), ("DEUTDXXX", "DEUTDXXX")] {
            assert_eq!(code.parse::<ParticipantId>().unwrap().as_str(), id, "the head office has one id");
        }
        for bad in ["", "alfaaexx", "ALFAAEX", "ALFAAEXXX", "ALFA1EXX", "ALFAAEXX5000", "ÄLFAAEX"] {
            assert!(bad.parse::<ParticipantId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn uuids_are_read_in_the_hyphenated_form_only() {
        let id = "0190c3d5-0000-7000-8000-000000000001";
        assert_eq!(id.parse::<TransactionId>().unwrap().to_string(), id);
        for bad in ["", "0190c3d5000070008000000000000001", "not-a-uuid", "00000000-0000-0000-0000-000000000000"] {
            assert!(bad.parse::<TransactionId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_line_keeps_its_id() {
        let (a, b): (ParticipantId, ParticipantId) = ("ALFAAEXX".parse().unwrap(), "BRAVINXX".parse().unwrap());
        assert_eq!(TransactionId::of_file_line(a, "E1"), TransactionId::of_file_line(a, "E1"));
        assert_ne!(TransactionId::of_file_line(a, "E1"), TransactionId::of_file_line(b, "E1"));
        assert_ne!(TransactionId::of_file_line(a, "E1"), TransactionId::of_file_line(a, "E2"));
    }
}
