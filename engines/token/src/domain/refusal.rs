//! Refusals: fixed codes in a fixed order.

use std::collections::BTreeMap;

use deltran_kernel::{Money, ParticipantId};
use serde::{Deserialize, Serialize};

/// Why a transaction was refused. The order of the variants is the order of precedence; `malformed`,
/// `unauthorised` and idempotency come before and are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Payer or payee is not registered.
    UnknownParticipant,
    /// Payer or payee is not active.
    Suspended,
    /// Payer or payee does not take part in the currency.
    CurrencyNotEnabled,
    /// Zero, negative, or more than a transaction may carry.
    AmountOutOfRange,
    /// Both ends are the same.
    PayerIsPayee,
    /// What is to be returned was not committed, or less is left of it.
    Return,
    /// Compliance declined.
    Compliance,
    /// A breaker is open.
    BreakerOpen,
    /// A limit of risk.
    Limit,
    /// The net debit cap.
    Cap,
    /// The liquidity cover.
    Cover,
    /// No window of the currency is open.
    WindowClosed,
    /// The payer has not the tokens.
    Liquidity,
}

impl RefusalCode {
    /// Every code, in order of precedence.
    pub const ALL: [Self; 13] = [
        Self::UnknownParticipant,
        Self::Suspended,
        Self::CurrencyNotEnabled,
        Self::AmountOutOfRange,
        Self::PayerIsPayee,
        Self::Return,
        Self::Compliance,
        Self::BreakerOpen,
        Self::Limit,
        Self::Cap,
        Self::Cover,
        Self::WindowClosed,
        Self::Liquidity,
    ];

    /// The fixed word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownParticipant => "unknown_participant",
            Self::Suspended => "suspended",
            Self::CurrencyNotEnabled => "currency_not_enabled",
            Self::AmountOutOfRange => "amount_out_of_range",
            Self::PayerIsPayee => "payer_is_payee",
            Self::Return => "return",
            Self::Compliance => "compliance",
            Self::BreakerOpen => "breaker_open",
            Self::Limit => "limit",
            Self::Cap => "cap",
            Self::Cover => "cover",
            Self::WindowClosed => "window_closed",
            Self::Liquidity => "liquidity",
        }
    }

    /// The code of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }
}

/// A refusal with what a person and a program need to act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The fixed code.
    pub code: RefusalCode,
    /// In words, with the value.
    pub message: String,
    /// Machine-readable values, such as `headroom`.
    pub details: BTreeMap<String, String>,
}

impl Refusal {
    /// A refusal with a message.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: BTreeMap::new() }
    }

    /// Adds a machine-readable value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.details.insert(key.to_owned(), value.to_string());
        self
    }

    pub(crate) fn of_participant(code: RefusalCode, participant: ParticipantId, what: &str) -> Self {
        Self::new(code, format!("participant {participant} {what}")).with("participant", participant)
    }

    pub(crate) fn of_headroom(code: RefusalCode, what: &str, amount: Money, headroom: Money) -> Self {
        Self::new(code, format!("{what}: {amount} asked, {headroom} left")).with("headroom", headroom.amount())
    }
}

/// Why a command other than a submission was not carried out. Nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no such thing.
    #[error("there is no {what} {id}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The id was used before with another body.
    #[error("{what} {id} was used before with another body: use a new id, or send the first body")]
    Conflict {
        /// What the id names.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// Its state does not allow it.
    #[error("{message}")]
    WrongState {
        /// In words.
        message: String,
        /// The present state.
        state: String,
    },
    /// It belongs to somebody else, or four eyes are missing.
    #[error("{0}")]
    Unauthorised(String),
    /// A check of the ledger fails, with the same codes as submissions.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The gates could not be asked, and the id is not known: nothing was decided.
    #[error("{0}")]
    Undecided(String),
    /// An invariant would break: a defect, or tampering.
    #[error("invariant {invariant}: {detail}")]
    Breach {
        /// Its name.
        invariant: &'static str,
        /// What would break it.
        detail: String,
    },
}

impl Denied {
    pub(crate) fn not_found(what: &'static str, id: impl std::fmt::Display) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }
    pub(crate) fn conflict(what: &'static str, id: impl std::fmt::Display) -> Self {
        Self::Conflict { what, id: id.to_string() }
    }
    pub(crate) fn wrong_state(message: impl Into<String>, state: impl std::fmt::Display) -> Self {
        Self::WrongState { message: message.into(), state: state.to_string() }
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
