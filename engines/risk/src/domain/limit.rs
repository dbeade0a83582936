//! Limits: proposed by one user, approved by another, in force from a time on.
//!
//! ```text
//! PROPOSED → ACTIVE → SUPERSEDED              what is approved and due
//! PROPOSED → APPROVED → ACTIVE → SUPERSEDED   what waits for its time; every net debit cap, for the ledger
//! APPROVED → PROPOSED                         where the ledger refuses a cap
//! PROPOSED | APPROVED before its time → REJECTED | WITHDRAWN
//! ```

use deltran_events::data::risk::LimitKind;
use deltran_kernel::{CommandId, Currency, Money, ParticipantId, Timestamp};

use super::scope::Corridor;
use super::{BUCKET_SECONDS, Outcome};

/// The shortest and the longest time that a rate limit counts over, in seconds.
const RATE_WINDOW: std::ops::RangeInclusive<u32> = 10..=3_600;

/// A limit's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitState {
    /// It has no effect yet.
    Proposed,
    /// Two users agreed; it waits for its time or is on its way to the ledger.
    Approved,
    /// It is in force.
    Active,
    /// A later one took its place.
    Superseded,
    /// It was turned down.
    Rejected,
    /// Its proposer took it back.
    Withdrawn,
}

impl LimitState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Proposed, Self::Approved, Self::Active, Self::Superseded, Self::Rejected, Self::Withdrawn];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "PROPOSED",
            Self::Approved => "APPROVED",
            Self::Active => "ACTIVE",
            Self::Superseded => "SUPERSEDED",
            Self::Rejected => "REJECTED",
            Self::Withdrawn => "WITHDRAWN",
        }
    }

    /// The state of a word; `None` where there is no such word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// How many transactions may pass within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    /// Number of transactions.
    pub transactions: u64,
    /// Seconds: 10 to 3,600, a multiple of 5.
    pub window_seconds: u32,
}

/// How much a limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Money.
    Amount(Money),
    /// Transactions within a time.
    Rate(Rate),
}

impl Value {
    /// The currency of money.
    pub fn currency(&self) -> Option<Currency> {
        match self {
            Self::Amount(money) => Some(money.currency()),
            Self::Rate(_) => None,
        }
    }
}

/// What a proposal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The limit's id and the idempotency key.
    pub limit_id: CommandId,
    /// What it limits.
    pub kind: LimitKind,
    /// Whom it limits; all where none.
    pub participant: Option<ParticipantId>,
    /// Towards whom.
    pub counterparty: Option<ParticipantId>,
    /// From where to where.
    pub corridor: Option<Corridor>,
    /// How much.
    pub value: Value,
    /// When it shall take effect; with its approval where none.
    pub effective_from: Option<Timestamp>,
    /// Why.
    pub reason: String,
}

/// What only one limit can be in force for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What it limits.
    pub kind: LimitKind,
    /// Whom it limits; all where none.
    pub participant: Option<ParticipantId>,
    /// Towards whom.
    pub counterparty: Option<ParticipantId>,
    /// From where to where.
    pub corridor: Option<Corridor>,
    /// The currency, where it has one.
    pub currency: Option<Currency>,
}

impl Proposal {
    /// What it would be in force for.
    pub fn key(&self) -> Key {
        Key {
            kind: self.kind,
            participant: self.participant,
            counterparty: self.counterparty,
            corridor: self.corridor,
            currency: self.value.currency(),
        }
    }
}

/// Who ended a proposal, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The user.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What was proposed.
    pub proposal: Proposal,
    /// Its state.
    pub state: LimitState,
    /// Who proposed it.
    pub proposed_by: String,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// When it takes effect, once approved: when it was to, or when it was approved if that was later.
    pub due_at: Option<Timestamp>,
    /// Since when it is in force.
    pub effective_at: Option<Timestamp>,
    /// Its place in the order of approvals; 0 before.
    pub approval: u64,
    /// Why the ledger refused it last, where it did.
    pub refusal: Option<String>,
    /// Who turned it down or took it back.
    pub ended: Option<Ended>,
}

/// Why a limit was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The proposal makes no sense.
    #[error("{field}: {message}")]
    Malformed {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The id was used with another body.
    #[error("limit {0} was proposed before with another body")]
    Conflict(CommandId),
    /// There is no such limit.
    #[error("there is no limit {0}")]
    NotFound(CommandId),
    /// The proposer may not approve.
    #[error("limit {limit_id} was proposed by {proposed_by}: {approved_by} cannot approve it, another user must")]
    SameUser {
        /// The limit.
        limit_id: CommandId,
        /// Who proposed it.
        proposed_by: String,
        /// Who tried to approve it.
        approved_by: String,
    },
    /// Only others reject, only the proposer withdraws.
    #[error("limit {limit_id} was proposed by {proposed_by}: {by} cannot {what}")]
    WrongUser {
        /// The limit.
        limit_id: CommandId,
        /// Who proposed it.
        proposed_by: String,
        /// Who tried.
        by: String,
        /// What is not for that user, and what is.
        what: &'static str,
    },
    /// Its state does not allow it.
    #[error("limit {limit_id} is {}", .state.as_str())]
    WrongState {
        /// The limit.
        limit_id: CommandId,
        /// Its state.
        state: LimitState,
    },
    /// The ledger refused the limit for good; it can be approved again when the cause is gone.
    #[error("limit {limit_id} was not taken by the ledger and is PROPOSED again: {refusal}")]
    Refused {
        /// The limit.
        limit_id: CommandId,
        /// What the ledger said.
        refusal: String,
    },
}

fn malformed(field: &'static str, message: impl Into<String>) -> LimitError {
    LimitError::Malformed { field, message: message.into() }
}

/// Whether the fields of a proposal are those of its kind, in range.
fn check(proposal: &Proposal) -> Result<(), LimitError> {
    use LimitKind::{Bilateral, CorridorGross, CorridorMaximum, NetDebitCap, Rate as Number, SingleTransactionMaximum};
    let kind = proposal.kind;
    let whose = matches!(kind, NetDebitCap | Bilateral);
    if whose && proposal.participant.is_none() {
        return Err(malformed("participant", format!("is missing: a limit of kind {kind} is a participant's")));
    }
    let corridor = matches!(kind, CorridorMaximum | CorridorGross);
    if corridor && proposal.participant.is_some() {
        return Err(malformed("participant", "a corridor's limit is in force for all: leave it out"));
    }
    match (kind == Bilateral, proposal.counterparty) {
        (true, None) => return Err(malformed("counterparty", "is missing: towards whom?")),
        (false, Some(_)) => return Err(malformed("counterparty", format!("is not for a limit of kind {kind}"))),
        (true, counterparty) if counterparty == proposal.participant => {
            return Err(malformed("counterparty", "is the participant itself"));
        }
        _ => {}
    }
    match (corridor, proposal.corridor) {
        (true, None) => return Err(malformed("corridor", "is missing: from which country to which, such as AE-IN?")),
        (false, Some(_)) => return Err(malformed("corridor", format!("is not for a limit of kind {kind}"))),
        _ => {}
    }
    match (kind, proposal.value) {
        (Number, Value::Amount(_)) => Err(malformed("rate", "is missing: a rate has no amount")),
        (Number, Value::Rate(rate)) => {
            if rate.transactions == 0 || i64::try_from(rate.transactions).is_err() {
                let message = format!("{} is not 1 or more: to stop all, trip a breaker", rate.transactions);
                return Err(malformed("rate.transactions", message));
            }
            if !RATE_WINDOW.contains(&rate.window_seconds) || i64::from(rate.window_seconds) % BUCKET_SECONDS != 0 {
                let message = format!("{} is not 10 to 3600 and a multiple of 5", rate.window_seconds);
                return Err(malformed("rate.window_seconds", message));
            }
            Ok(())
        }
        (_, Value::Rate(_)) => Err(malformed("amount", format!("is missing: a limit of kind {kind} is an amount"))),
        (SingleTransactionMaximum | CorridorMaximum, Value::Amount(amount)) if !amount.minor().is_positive() => {
            Err(malformed("amount", format!("{amount} is not above 0: to stop all transactions, trip a breaker")))
        }
        (_, Value::Amount(amount)) if amount.minor().is_negative() => {
            Err(malformed("amount", format!("{amount} is negative: a limit of kind {kind} is 0 or more")))
        }
        _ => Ok(()),
    }
}

/// Proposes a limit. `existing` is what is stored under its id.
///
/// # Errors
/// Malformed first, then a conflict, then a time that has passed.
pub fn propose(
    existing: Option<&Limit>,
    proposal: &Proposal,
    by: &str,
    at: Timestamp,
) -> Result<Outcome<Limit>, LimitError> {
    check(proposal)?;
    if let Some(stored) = existing {
        return if stored.proposal == *proposal {
            Ok(Outcome::AlreadyApplied(stored.clone()))
        } else {
            Err(LimitError::Conflict(proposal.limit_id))
        };
    }
    if let Some(from) = proposal.effective_from.filter(|from| *from <= at) {
        return Err(malformed("effective_from", format!("{from} is not in the future: leave it out for at once")));
    }
    // ---- nothing fails below ----
    Ok(Outcome::Executed(Limit {
        proposal: proposal.clone(),
        state: LimitState::Proposed,
        proposed_by: by.to_owned(),
        approved_by: None,
        proposed_at: at,
        due_at: None,
        effective_at: None,
        approval: 0,
        refusal: None,
        ended: None,
    }))
}

/// Users are told apart without case, so that one person is not two.
fn same_user(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Another user approves a limit; `approval` is its place in the order of approvals. It is in force at once
/// where it is due, but a cap only when the ledger has taken it.
///
/// # Errors
/// The proposer first (R1), then a limit that somebody else has approved or that was ended.
pub fn approve(limit: &Limit, by: &str, at: Timestamp, approval: u64) -> Result<Outcome<Limit>, LimitError> {
    let limit_id = limit.proposal.limit_id;
    if same_user(&limit.proposed_by, by) {
        return Err(LimitError::SameUser {
            limit_id,
            proposed_by: limit.proposed_by.clone(),
            approved_by: by.to_owned(),
        });
    }
    if limit.state != LimitState::Proposed {
        return if limit.ended.is_none() && limit.approved_by.as_deref() == Some(by) {
            Ok(Outcome::AlreadyApplied(limit.clone()))
        } else {
            Err(LimitError::WrongState { limit_id, state: limit.state })
        };
    }
    // ---- nothing fails below ----
    let due_at = limit.proposal.effective_from.map_or(at, |from| from.max(at));
    let approved = Limit {
        state: LimitState::Approved,
        approved_by: Some(by.to_owned()),
        approval,
        refusal: None,
        due_at: Some(due_at),
        ..limit.clone()
    };
    Ok(Outcome::Executed(activate(&approved, at).unwrap_or(approved)))
}

/// Brings an approved limit into force whose time has come; `None` where it has not, or where the ledger
/// decides (a cap).
pub fn activate(limit: &Limit, at: Timestamp) -> Option<Limit> {
    let due_at = limit.due_at.filter(|due| *due <= at)?;
    if limit.state != LimitState::Approved || limit.proposal.kind == LimitKind::NetDebitCap {
        return None;
    }
    Some(Limit { state: LimitState::Active, effective_at: Some(due_at), ..limit.clone() })
}

/// How a proposal is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Another user than the proposer turns it down.
    Reject,
    /// The proposer takes it back.
    Withdraw,
}

/// Ends a proposal, or an approved limit before its time.
///
/// # Errors
/// The wrong user first, then a state that does not allow it, also where it was ended otherwise.
pub fn end(limit: &Limit, end: End, by: &str, reason: &str, at: Timestamp) -> Result<Outcome<Limit>, LimitError> {
    let limit_id = limit.proposal.limit_id;
    let (state, for_proposer, what) = match end {
        End::Reject => (LimitState::Rejected, false, "reject it: withdraw it instead"),
        End::Withdraw => (LimitState::Withdrawn, true, "withdraw it: reject it instead"),
    };
    if same_user(&limit.proposed_by, by) != for_proposer {
        let (proposed_by, by) = (limit.proposed_by.clone(), by.to_owned());
        return Err(LimitError::WrongUser { limit_id, proposed_by, by, what });
    }
    let ended = Ended { by: by.to_owned(), reason: reason.to_owned() };
    if limit.state == state && limit.ended.as_ref() == Some(&ended) {
        return Ok(Outcome::AlreadyApplied(limit.clone()));
    }
    let waits = limit.state == LimitState::Approved && limit.due_at.is_some_and(|due| due > at);
    if limit.state != LimitState::Proposed && !waits {
        return Err(LimitError::WrongState { limit_id, state: limit.state });
    }
    // ---- nothing fails below ----
    Ok(Outcome::Executed(Limit { state, ended: Some(ended), ..limit.clone() }))
}

/// What the ledger said about a cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ledger {
    /// It enforces it.
    Taken,
    /// It will not, and says why.
    Refused(String),
}

/// Ends the way of a cap to the ledger; `None` where the limit is not on its way.
pub fn answered(limit: &Limit, ledger: &Ledger, at: Timestamp) -> Option<Limit> {
    if limit.state != LimitState::Approved || limit.proposal.kind != LimitKind::NetDebitCap {
        return None;
    }
    let mut next = limit.clone();
    match ledger {
        Ledger::Taken => {
            next.state = LimitState::Active;
            next.effective_at = Some(at);
        }
        Ledger::Refused(why) => {
            next.state = LimitState::Proposed;
            next.approved_by = None;
            next.due_at = None;
            next.refusal = Some(why.clone());
        }
    }
    Some(next)
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
