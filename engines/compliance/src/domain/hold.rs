//! Holds: what becomes of a transaction that screening did not let pass.
//!
//! ```text
//! PLACED → RELEASE_PROPOSED → RELEASING → RELEASED | REJECTED
//!        → REJECT_PROPOSED  → REJECTING → REJECTED | RELEASED
//!        (either proposal goes back to PLACED where the second officer disagrees)
//! ```

use deltran_kernel::{HoldId, ParticipantId, Timestamp, TransactionId};

use super::Outcome;

/// A hold's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldState {
    /// Nobody has looked yet, or two officers disagreed.
    Placed,
    /// One officer wants to release it.
    ReleaseProposed,
    /// One officer wants to reject it.
    RejectProposed,
    /// Two officers agreed; the ledger is being told.
    Releasing,
    /// Two officers agreed; the ledger is being told.
    Rejecting,
    /// The ledger let it go on.
    Released,
    /// The ledger rejected it, or never had it.
    Rejected,
}

impl HoldState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Placed,
        Self::ReleaseProposed,
        Self::RejectProposed,
        Self::Releasing,
        Self::Rejecting,
        Self::Released,
        Self::Rejected,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "PLACED",
            Self::ReleaseProposed => "RELEASE_PROPOSED",
            Self::RejectProposed => "REJECT_PROPOSED",
            Self::Releasing => "RELEASING",
            Self::Rejecting => "REJECTING",
            Self::Released => "RELEASED",
            Self::Rejected => "REJECTED",
        }
    }

    /// The state of a word; `None` where there is no such word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether two officers agreed and the ledger has not answered.
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Releasing | Self::Rejecting)
    }

    /// Whether nothing can happen to the hold any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Released | Self::Rejected)
    }
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its id.
    pub hold_id: HoldId,
    /// The transaction that is held.
    pub transaction_id: TransactionId,
    /// The payer, where known.
    pub payer: Option<ParticipantId>,
    /// Its state.
    pub state: HoldState,
    /// What led to it.
    pub evidence: String,
    /// The party's name that led to it. Personal data.
    pub matched_name: String,
    /// The officer who proposed what becomes of it.
    pub proposed_by: Option<String>,
    /// The officer who decided.
    pub decided_by: Option<String>,
    /// What the officers wrote, and what the ledger answered.
    pub reason: String,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// When the transaction was screened last.
    pub screened_at: Timestamp,
    /// The state of the transaction in the ledger, once it answered.
    pub outcome: Option<String>,
}

/// What a hold was placed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// 0 to 10,000.
    pub score: u32,
    /// The lists that were in use.
    pub list_versions: Vec<String>,
    /// The version of the rules that were applied.
    pub rule_version: String,
    /// The best matches, as JSON. Personal data.
    pub matches: String,
}

/// Names that are kept with a hold, in characters; further ones are left out.
const KEPT_NAMES: usize = 2_000;

/// The transaction of a hold was screened again and did not pass again; returns the hold where that says more.
///
/// Whoever sends an id again may send other parties with it: the ledger refuses that, but only after they were
/// screened. So what officers see only ever grows: names are added, and the worst screening stays. A release that was
/// proposed on less is to be proposed anew; what was decided stays as it was decided.
pub fn screened_again(known: (&Hold, &Basis), found: (&Hold, &Basis)) -> Option<(Hold, Basis)> {
    let ((hold, basis), (other, more)) = (known, found);
    if hold.state.is_under_way() || hold.state.is_final() {
        return None;
    }
    let listed = |names: &str| format!("; {names}; ");
    let named = listed(&hold.matched_name).contains(&listed(&other.matched_name));
    let adds = !named && hold.matched_name.chars().count() < KEPT_NAMES;
    let worse = more.score > basis.score;
    if !adds && !worse {
        return None;
    }
    let (mut next, mut next_basis) = (hold.clone(), basis.clone());
    if adds {
        next.matched_name = format!("{}; {}", hold.matched_name, other.matched_name);
    }
    if worse {
        next.evidence = other.evidence.clone();
        next_basis = more.clone();
    }
    if hold.state == HoldState::ReleaseProposed {
        next.state = HoldState::Placed;
        next.proposed_by = None;
        next.reason = "screened again with more to see: to be proposed anew".to_owned();
    }
    Some((next, next_basis))
}

/// Why a hold was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// There is no such hold.
    #[error("there is no hold {0}")]
    NotFound(HoldId),
    /// The proposer may not decide.
    #[error("hold {hold_id} was proposed by {proposed_by}: {decided_by} cannot decide it, another officer must")]
    SameOfficer {
        /// The hold.
        hold_id: HoldId,
        /// Who proposed.
        proposed_by: String,
        /// Who wanted to decide.
        decided_by: String,
    },
    /// The hold is in a state that does not allow it.
    #[error("hold {hold_id} is {}: {expected}", .state.as_str())]
    WrongState {
        /// The hold.
        hold_id: HoldId,
        /// Its state.
        state: HoldState,
        /// What would be needed.
        expected: &'static str,
    },
}

/// An officer proposes to release or to reject.
///
/// # Errors
/// Unless the hold is PLACED.
pub fn propose(hold: &Hold, by: &str, release: bool, reason: &str) -> Result<Outcome<Hold>, HoldError> {
    let proposed = if release { HoldState::ReleaseProposed } else { HoldState::RejectProposed };
    if hold.state == proposed && hold.proposed_by.as_deref() == Some(by) && hold.reason == reason {
        return Ok(Outcome::AlreadyApplied(hold.clone()));
    }
    if hold.state != HoldState::Placed {
        return Err(wrong_state(hold, "only a hold that is PLACED can be proposed on"));
    }
    // ---- nothing fails below ----
    let mut next = hold.clone();
    next.state = proposed;
    next.proposed_by = Some(by.to_owned());
    next.decided_by = None;
    next.reason = reason.to_owned();
    Ok(Outcome::Executed(next))
}

/// Another officer agrees with the proposal, or disagrees, which puts the hold back to PLACED.
///
/// # Errors
/// Unless there is a proposal by somebody else (K4).
pub fn decide(hold: &Hold, by: &str, approve: bool, reason: &str) -> Result<Outcome<Hold>, HoldError> {
    if let Some(proposer) = &hold.proposed_by
        && is_same_user(proposer, by)
    {
        return Err(HoldError::SameOfficer {
            hold_id: hold.hold_id,
            proposed_by: proposer.clone(),
            decided_by: by.to_owned(),
        });
    }
    let decided = hold.state.is_under_way() || hold.state.is_final();
    if decided && approve && hold.decided_by.as_deref() == Some(by) {
        return Ok(Outcome::AlreadyApplied(hold.clone()));
    }
    let agreed = match hold.state {
        HoldState::ReleaseProposed => HoldState::Releasing,
        HoldState::RejectProposed => HoldState::Rejecting,
        HoldState::Placed => return Err(wrong_state(hold, "an officer must propose what becomes of it first")),
        _ => return Err(wrong_state(hold, "it is decided already")),
    };
    // ---- nothing fails below ----
    let mut next = hold.clone();
    next.decided_by = Some(by.to_owned());
    if !reason.is_empty() {
        next.reason = reason.to_owned();
    }
    if approve {
        next.state = agreed;
    } else {
        next.state = HoldState::Placed;
        next.proposed_by = None;
    }
    Ok(Outcome::Executed(next))
}

/// Users are told apart without case, so that one person is not two.
fn is_same_user(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn wrong_state(hold: &Hold, expected: &'static str) -> HoldError {
    HoldError::WrongState { hold_id: hold.hold_id, state: hold.state, expected }
}

impl Hold {
    /// What the ledger is told with the decision, and tells the payer and everybody who reads its events: where to
    /// ask. What officers wrote stays here (K9): it may name people, and it may warn them.
    pub fn reference(&self) -> String {
        format!("hold {}", self.hold_id)
    }
}

/// What the ledger says about the transaction of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ledger {
    /// It is still held.
    Held,
    /// It went on: committed, reserved, or what followed from that. The word is the ledger's.
    WentOn(&'static str),
    /// It is rejected, with the code of the refusal.
    Rejected(String),
    /// There is no such transaction.
    NotFound,
}

/// The outcome that is stored where the ledger has no such transaction.
pub const NOT_FOUND: &str = "NOT_FOUND";

/// A submission that was screened may still be on its way into the ledger for so long; until then a
/// missing transaction says nothing.
pub const ARRIVAL_MICROS: i64 = 30_000_000;

/// The end of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The hold as it ends: its state is what became of the transaction (K5).
    pub hold: Hold,
    /// What others are told about it. What officers wrote stays here (K9).
    pub told: String,
    /// The ledger did other than the officers agreed.
    pub surprise: bool,
}

/// Ends a hold by what the ledger says, or returns `None` where that is not definite.
pub fn finish(hold: &Hold, ledger: &Ledger, now: Timestamp) -> Option<Finished> {
    let release = match hold.state {
        HoldState::Releasing => true,
        HoldState::Rejecting => false,
        _ => return None,
    };
    let (state, outcome, note) = match ledger {
        Ledger::Held => return None,
        Ledger::NotFound if now.micros().saturating_sub(hold.screened_at.micros()) < ARRIVAL_MICROS => return None,
        Ledger::NotFound => (HoldState::Rejected, NOT_FOUND, Some("the ledger has no such transaction".to_owned())),
        Ledger::Rejected(code) if release => {
            let code = if code.is_empty() { "no code given" } else { code };
            (HoldState::Rejected, "REJECTED", Some(format!("the ledger rejected it: {code}")))
        }
        Ledger::Rejected(_) => (HoldState::Rejected, "REJECTED", None),
        Ledger::WentOn(word) if release => (HoldState::Released, *word, None),
        Ledger::WentOn(word) => (HoldState::Released, *word, Some(format!("the ledger did not hold it: it is {word}"))),
    };
    let told = note.clone().unwrap_or_else(|| format!("the transaction is {outcome}"));
    let mut next = hold.clone();
    next.state = state;
    next.outcome = Some(outcome.to_owned());
    if let Some(note) = note {
        next.reason = if hold.reason.is_empty() { note } else { format!("{}; {note}", hold.reason) };
    }
    Some(Finished { surprise: release != (state == HoldState::Released), told, hold: next })
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
