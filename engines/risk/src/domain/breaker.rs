//! Breakers: a pure state machine.
//!
//! ```text
//! CLOSED → OPEN → HALF_OPEN → CLOSED      by themselves, and any of them by hand
//! HALF_OPEN → OPEN                        where the trouble is still there
//! any → OPEN | REDUCING → CLOSED          by hand only; what a person set only a person changes
//! ```

use deltran_events::data::risk::{BreakerMode, BreakerTrigger};
use deltran_kernel::{CommandId, Timestamp};

use super::scope::Scope;
use super::{Outcome, WHOLE};

/// A breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// Transactions pass.
    Closed,
    /// None passes.
    Open,
    /// A few pass, to see what becomes of them.
    HalfOpen,
    /// Only what lowers positions passes.
    Reducing,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Open, Self::HalfOpen, Self::Reducing];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Open => "OPEN",
            Self::HalfOpen => "HALF_OPEN",
            Self::Reducing => "REDUCING",
        }
    }

    /// The state of a word; `None` where there is no such word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl From<BreakerMode> for BreakerState {
    fn from(mode: BreakerMode) -> Self {
        match mode {
            BreakerMode::Open => Self::Open,
            BreakerMode::Reducing => Self::Reducing,
        }
    }
}

/// A breaker as it was set last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// What it stands for.
    pub scope: Scope,
    /// Its state.
    pub state: BreakerState,
    /// What made it trip last. Only what tripped by itself moves by itself.
    pub trigger: BreakerTrigger,
    /// Why it was set.
    pub reason: String,
    /// Who set it.
    pub changed_by: String,
    /// When.
    pub changed_at: Timestamp,
    /// Until when it stays OPEN at least, where it tripped by itself.
    pub open_until: Option<Timestamp>,
}

/// A command that sets a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetBreaker {
    /// Its idempotency key.
    pub command_id: CommandId,
    /// What the breaker stands for.
    pub scope: Scope,
    /// OPEN or REDUCING to trip, CLOSED to close.
    pub to: BreakerState,
    /// Why.
    pub reason: String,
}

/// Why a breaker was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BreakerError {
    /// The command id was used with another body.
    #[error("command {0} was used before with another body")]
    Conflict(CommandId),
    /// The breaker is in that state already.
    #[error("the breaker of {scope} is {} already", .state.as_str())]
    WrongState {
        /// The scope.
        scope: Scope,
        /// Its state.
        state: BreakerState,
    },
}

/// A person sets a breaker. `earlier` is what was stored under the command's id, with the breaker that it
/// led to; `present` is the breaker of the scope, none where it was never set.
///
/// # Errors
/// A conflict first, then a breaker that a person has put into that state already.
pub fn set(
    earlier: Option<&(SetBreaker, Breaker)>,
    present: Option<&Breaker>,
    command: &SetBreaker,
    by: &str,
    at: Timestamp,
) -> Result<Outcome<Breaker>, BreakerError> {
    if let Some((stored, led_to)) = earlier {
        return if stored == command {
            Ok(Outcome::AlreadyApplied(led_to.clone()))
        } else {
            Err(BreakerError::Conflict(command.command_id))
        };
    }
    let state = present.map_or(BreakerState::Closed, |breaker| breaker.state);
    let by_hand = present.is_none_or(|breaker| breaker.trigger == BreakerTrigger::Manual);
    if state == command.to && (by_hand || state == BreakerState::Closed) {
        return Err(BreakerError::WrongState { scope: command.scope, state });
    }
    // ---- nothing fails below ----
    Ok(Outcome::Executed(Breaker {
        scope: command.scope,
        state: command.to,
        trigger: BreakerTrigger::Manual,
        reason: command.reason.clone(),
        changed_by: by.to_owned(),
        changed_at: at,
        open_until: None,
    }))
}

/// How a breaker that tripped by itself recovers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Microseconds that it stays OPEN.
    pub cool_down: i64,
    /// How many transactions pass while it is HALF_OPEN.
    pub probes: u32,
    /// The share of them, in ten-thousandths, that may be refused.
    pub refused_share: u32,
}

/// Why a breaker should trip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What noticed it.
    pub trigger: BreakerTrigger,
    /// What it noticed, with the values.
    pub reason: String,
}

/// What is known of a scope since its breaker changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What is wrong, if anything is.
    pub trouble: Option<Trouble>,
    /// Decisions that let a transaction pass.
    pub accepted: u64,
    /// Decisions that refused one, other than for a breaker.
    pub refused: u64,
}

/// A step that a breaker takes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It changes its state.
    Changed(Breaker),
    /// It stays OPEN for another cool-down, because the trouble is still there.
    Extended(Breaker),
}

/// What a breaker does by itself, if anything. `present` is none where it was never set.
pub fn automatic(
    scope: Scope,
    present: Option<&Breaker>,
    seen: &Seen,
    recovery: &Recovery,
    by: &str,
    at: Timestamp,
) -> Option<Step> {
    let open_until = Some(at.plus_micros(recovery.cool_down));
    let to = |state, trigger, reason: String, open_until| {
        let (changed_by, changed_at) = (by.to_owned(), at);
        Step::Changed(Breaker { scope, state, trigger, reason, changed_by, changed_at, open_until })
    };
    let trip = |trouble: &Trouble| to(BreakerState::Open, trouble.trigger, trouble.reason.clone(), open_until);
    let Some(present) = present.filter(|breaker| breaker.state != BreakerState::Closed) else {
        return seen.trouble.as_ref().map(trip);
    };
    if present.trigger == BreakerTrigger::Manual {
        return None;
    }
    match (present.state, &seen.trouble) {
        (BreakerState::Open, _) if present.open_until.is_some_and(|until| at < until) => None,
        (BreakerState::Open, Some(_)) => Some(Step::Extended(Breaker { open_until, ..present.clone() })),
        (BreakerState::Open, None) => {
            let reason = format!("{} may pass to try", recovery.probes);
            Some(to(BreakerState::HalfOpen, present.trigger, reason, None))
        }
        (BreakerState::HalfOpen, Some(trouble)) => Some(trip(trouble)),
        (BreakerState::HalfOpen, None) => {
            let allowed = i128::from(recovery.probes) * i128::from(recovery.refused_share) / WHOLE;
            let decided = seen.accepted.saturating_add(seen.refused);
            if i128::from(seen.refused) > allowed {
                let reason = format!("{} of {decided} that were let through were refused", seen.refused);
                Some(to(BreakerState::Open, BreakerTrigger::Probes, reason, open_until))
            } else if decided >= u64::from(recovery.probes) {
                let reason = format!("{} of {decided} that were let through were accepted", seen.accepted);
                Some(to(BreakerState::Closed, present.trigger, reason, None))
            } else {
                None
            }
        }
        (BreakerState::Closed | BreakerState::Reducing, _) => None,
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
