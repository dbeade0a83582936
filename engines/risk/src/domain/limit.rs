//! Limits: proposed by one user, approved by another.
//!
//! ```text
//! net debit cap:               PROPOSED → APPROVED → ACTIVE → SUPERSEDED
//!                              APPROVED → PROPOSED where the ledger refuses it
//! single transaction maximum:  PROPOSED → ACTIVE → SUPERSEDED
//! ```

use deltran_events::data::risk::LimitKind;
use deltran_kernel::{CommandId, Currency, Money, ParticipantId, Timestamp};

use super::Outcome;

/// A limit's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitState {
    /// It has no effect yet.
    Proposed,
    /// Two users agreed; it is on its way to the ledger.
    Approved,
    /// It is in force.
    Active,
    /// A later one took its place.
    Superseded,
}

impl LimitState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Proposed, Self::Approved, Self::Active, Self::Superseded];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "PROPOSED",
            Self::Approved => "APPROVED",
            Self::Active => "ACTIVE",
            Self::Superseded => "SUPERSEDED",
        }
    }

    /// The state of a word; `None` where there is no such word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
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
    /// How much.
    pub amount: Money,
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
    /// The currency.
    pub currency: Currency,
}

impl Proposal {
    /// What it would be in force for.
    pub fn key(&self) -> Key {
        Key { kind: self.kind, participant: self.participant, currency: self.amount.currency() }
    }
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
    /// Since when it is in force.
    pub effective_at: Option<Timestamp>,
    /// Its place in the order of approvals; 0 before.
    pub approval: u64,
    /// Why the ledger refused it, where it did.
    pub refusal: Option<String>,
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
        /// Who proposed.
        proposed_by: String,
        /// Who wanted to approve.
        approved_by: String,
    },
    /// The limit is in a state that does not allow it.
    #[error("limit {limit_id} is {} already", .state.as_str())]
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

/// Proposes a limit. `existing` is what is stored under its id.
///
/// # Errors
/// Malformed first, then a conflict.
pub fn propose(
    existing: Option<&Limit>,
    proposal: &Proposal,
    by: &str,
    at: Timestamp,
) -> Result<Outcome<Limit>, LimitError> {
    let malformed = |field, message: String| Err(LimitError::Malformed { field, message });
    let amount = proposal.amount;
    match proposal.kind {
        LimitKind::NetDebitCap if proposal.participant.is_none() => {
            return malformed("participant", "is missing: a net debit cap is a participant's".to_owned());
        }
        LimitKind::NetDebitCap if amount.minor().is_negative() => {
            return malformed("amount", format!("{amount} is negative: a net debit cap is 0 or more"));
        }
        LimitKind::SingleTransactionMaximum if !amount.minor().is_positive() => {
            return malformed("amount", format!("{amount} is not above 0: to stop all transactions, trip a breaker"));
        }
        _ => {}
    }
    if let Some(stored) = existing {
        return if stored.proposal == *proposal {
            Ok(Outcome::AlreadyApplied(stored.clone()))
        } else {
            Err(LimitError::Conflict(proposal.limit_id))
        };
    }
    // ---- nothing fails below ----
    Ok(Outcome::Executed(Limit {
        proposal: proposal.clone(),
        state: LimitState::Proposed,
        proposed_by: by.to_owned(),
        approved_by: None,
        proposed_at: at,
        effective_at: None,
        approval: 0,
        refusal: None,
    }))
}

/// Another user approves a limit; `approval` is its place in the order of approvals. A maximum is in force
/// at once, a cap when the ledger has taken it.
///
/// # Errors
/// The proposer first (R1), then a limit that somebody else has approved.
pub fn approve(limit: &Limit, by: &str, at: Timestamp, approval: u64) -> Result<Outcome<Limit>, LimitError> {
    let limit_id = limit.proposal.limit_id;
    // Users are told apart without case, so that one person is not two.
    if limit.proposed_by.eq_ignore_ascii_case(by) {
        return Err(LimitError::SameUser {
            limit_id,
            proposed_by: limit.proposed_by.clone(),
            approved_by: by.to_owned(),
        });
    }
    if limit.state != LimitState::Proposed {
        return if limit.approved_by.as_deref() == Some(by) {
            Ok(Outcome::AlreadyApplied(limit.clone()))
        } else {
            Err(LimitError::WrongState { limit_id, state: limit.state })
        };
    }
    // ---- nothing fails below ----
    let mut next = limit.clone();
    next.approved_by = Some(by.to_owned());
    next.approval = approval;
    next.refusal = None;
    match limit.proposal.kind {
        LimitKind::NetDebitCap => next.state = LimitState::Approved,
        LimitKind::SingleTransactionMaximum => {
            next.state = LimitState::Active;
            next.effective_at = Some(at);
        }
    }
    Ok(Outcome::Executed(next))
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
    if limit.state != LimitState::Approved {
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
            next.refusal = Some(why.clone());
        }
    }
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    const AT: Timestamp = Timestamp::from_micros(5);

    fn proposal(kind: LimitKind, participant: Option<&str>, amount: &str) -> Proposal {
        Proposal {
            limit_id: CommandId::new(Uuid::from_u128(1)),
            kind,
            participant: participant.map(|p| p.parse().unwrap()),
            amount: Money::parse(amount, Currency::new("USD").unwrap()).unwrap(),
            reason: "why".into(),
        }
    }

    fn proposed(kind: LimitKind) -> Limit {
        propose(None, &proposal(kind, Some("ALFAAEXX"), "100.00"), "ada", AT).unwrap().into_inner()
    }

    #[test]
    fn proposals_that_make_no_sense_are_refused() {
        use LimitKind::{NetDebitCap, SingleTransactionMaximum};
        for (kind, participant, amount, bad_field) in [
            (NetDebitCap, Some("ALFAAEXX"), "100.00", None),
            (NetDebitCap, Some("ALFAAEXX"), "0.00", None),
            (NetDebitCap, Some("ALFAAEXX"), "-0.01", Some("amount")),
            (NetDebitCap, None, "100.00", Some("participant")),
            (SingleTransactionMaximum, None, "100.00", None),
            (SingleTransactionMaximum, Some("ALFAAEXX"), "0.01", None),
            (SingleTransactionMaximum, None, "0.00", Some("amount")),
            (SingleTransactionMaximum, None, "-1.00", Some("amount")),
        ] {
            match propose(None, &proposal(kind, participant, amount), "ada", AT) {
                Ok(Outcome::Executed(limit)) => {
                    assert_eq!((bad_field, limit.state), (None, LimitState::Proposed));
                    assert_eq!((limit.proposed_by.as_str(), limit.effective_at), ("ada", None));
                }
                Err(LimitError::Malformed { field, .. }) => assert_eq!(Some(field), bad_field),
                other => panic!("{other:?}"),
            }
        }
    }

    /// R5: the id is the key, the whole body is compared.
    #[test]
    fn the_same_proposal_again_is_the_stored_one() {
        let stored = proposed(LimitKind::NetDebitCap);
        let same = stored.proposal.clone();
        assert_eq!(propose(Some(&stored), &same, "bob", AT), Ok(Outcome::AlreadyApplied(stored.clone())));
        let usd_101 = proposal(LimitKind::NetDebitCap, Some("ALFAAEXX"), "101.00").amount;
        for other in [
            Proposal { amount: usd_101, ..same.clone() },
            Proposal { kind: LimitKind::SingleTransactionMaximum, ..same.clone() },
            Proposal { participant: Some("BRAVINXX".parse().unwrap()), ..same.clone() },
            Proposal { reason: "other".into(), ..same.clone() },
        ] {
            assert_eq!(propose(Some(&stored), &other, "ada", AT), Err(LimitError::Conflict(same.limit_id)));
        }
    }

    /// R1: four eyes, with both names.
    #[test]
    fn the_proposer_does_not_approve() {
        for by in ["ada", "Ada"] {
            let error = approve(&proposed(LimitKind::NetDebitCap), by, AT, 1).unwrap_err();
            assert!(matches!(error, LimitError::SameUser { .. }));
            assert!(error.to_string().contains("by ada") && error.to_string().contains(by));
        }
    }

    #[test]
    fn a_maximum_is_in_force_at_once_and_a_cap_when_the_ledger_took_it() {
        let Ok(Outcome::Executed(maximum)) = approve(&proposed(LimitKind::SingleTransactionMaximum), "bob", AT, 3)
        else {
            panic!()
        };
        assert_eq!((maximum.state, maximum.effective_at, maximum.approval), (LimitState::Active, Some(AT), 3));
        let Ok(Outcome::Executed(cap)) = approve(&proposed(LimitKind::NetDebitCap), "bob", AT, 4) else { panic!() };
        assert_eq!((cap.state, cap.effective_at), (LimitState::Approved, None));
        let later = AT.plus_seconds(1);
        let active = answered(&cap, &Ledger::Taken, later).unwrap();
        assert_eq!((active.state, active.effective_at), (LimitState::Active, Some(later)));
        assert_eq!(answered(&active, &Ledger::Taken, later), None, "an answer that comes again changes nothing");
        assert_eq!(answered(&maximum, &Ledger::Refused("x".into()), later), None);
    }

    #[test]
    fn a_cap_that_the_ledger_refused_can_be_approved_again() {
        let cap = approve(&proposed(LimitKind::NetDebitCap), "bob", AT, 1).unwrap().into_inner();
        let back = answered(&cap, &Ledger::Refused("unknown participant".into()), AT).unwrap();
        assert_eq!((back.state, back.approved_by.as_deref()), (LimitState::Proposed, None));
        assert_eq!(back.refusal.as_deref(), Some("unknown participant"));
        let Ok(Outcome::Executed(again)) = approve(&back, "cyd", AT, 2) else { panic!() };
        assert_eq!((again.state, again.refusal), (LimitState::Approved, None));
    }

    #[test]
    fn an_approval_again_is_not_a_second_one() {
        for kind in [LimitKind::NetDebitCap, LimitKind::SingleTransactionMaximum] {
            let approved = approve(&proposed(kind), "bob", AT, 1).unwrap().into_inner();
            for state in [approved.state, LimitState::Active, LimitState::Superseded] {
                let limit = Limit { state, ..approved.clone() };
                assert_eq!(approve(&limit, "bob", AT, 9), Ok(Outcome::AlreadyApplied(limit.clone())));
                assert!(
                    matches!(approve(&limit, "cyd", AT, 9), Err(LimitError::WrongState { state: s, .. }) if s == state)
                );
            }
        }
    }

    #[test]
    fn words_read_back() {
        for state in LimitState::ALL {
            assert_eq!(LimitState::from_word(state.as_str()), Some(state));
        }
        assert_eq!(LimitState::from_word("active"), None);
    }

    proptest! {
        /// R1 along every path: what has effect was proposed and approved by two different users.
        #[test]
        fn two_users_always(steps in prop::collection::vec((0..3usize, 0..3u8), 0..20), maximum in any::<bool>()) {
            let users = ["ada", "bob", "cyd"];
            let mut limit = proposed(if maximum { LimitKind::SingleTransactionMaximum } else { LimitKind::NetDebitCap });
            for (user, step) in steps {
                match step {
                    0 => if let Ok(outcome) = approve(&limit, users[user], AT, 1) { limit = outcome.into_inner() },
                    1 => if let Some(next) = answered(&limit, &Ledger::Taken, AT) { limit = next },
                    _ => if let Some(next) = answered(&limit, &Ledger::Refused("no".into()), AT) { limit = next },
                }
                if limit.state == LimitState::Proposed {
                    prop_assert!(limit.approved_by.is_none());
                } else {
                    prop_assert!(limit.approved_by.as_deref().is_some_and(|by| by != limit.proposed_by));
                }
            }
        }
    }
}
