//! Breakers: CLOSED lets transactions of a scope pass, OPEN lets none.

use std::fmt;
use std::str::FromStr;

use deltran_kernel::{CommandId, Currency, ParticipantId, Timestamp};

use super::Outcome;

/// What a breaker stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Every transaction.
    Global,
    /// Transactions of a currency.
    Currency(Currency),
    /// Transactions that a participant pays or receives.
    Participant(ParticipantId),
}

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope: expected \"global\", \"currency:USD\" or \"participant:ALFAAEXX\"")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;
    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let unknown = || UnknownScope(text.chars().take(64).collect());
        match text.split_once(':') {
            None if text == "global" => Ok(Self::Global),
            Some(("currency", code)) => Currency::new(code).map(Self::Currency).map_err(|_| unknown()),
            Some(("participant", id)) => id.parse().map(Self::Participant).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Currency(currency) => write!(f, "currency:{currency}"),
            Self::Participant(participant) => write!(f, "participant:{participant}"),
        }
    }
}

/// A breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// Transactions pass.
    Closed,
    /// None passes.
    Open,
}

impl BreakerState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Open => "OPEN",
        }
    }

    /// The state of a word; `None` where there is no such word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Closed, Self::Open].into_iter().find(|state| state.as_str() == word)
    }
}

/// A breaker as it was set last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// What it stands for.
    pub scope: Scope,
    /// Its state.
    pub state: BreakerState,
    /// Why it was set.
    pub reason: String,
    /// Who set it.
    pub changed_by: String,
    /// When.
    pub changed_at: Timestamp,
}

/// A command that sets a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetBreaker {
    /// Its idempotency key.
    pub command_id: CommandId,
    /// What the breaker stands for.
    pub scope: Scope,
    /// OPEN to trip, CLOSED to close.
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

/// Sets a breaker. `earlier` is what was stored under the command's id, with the breaker that it led to;
/// `present` is the breaker of the scope, none where it was never set.
///
/// # Errors
/// A conflict first, then a breaker that is in that state already.
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
    if state == command.to {
        return Err(BreakerError::WrongState { scope: command.scope, state });
    }
    // ---- nothing fails below ----
    Ok(Outcome::Executed(Breaker {
        scope: command.scope,
        state: command.to,
        reason: command.reason.clone(),
        changed_by: by.to_owned(),
        changed_at: at,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn scopes_read_back() {
        for text in ["global", "currency:USD", "participant:ALFAAEXX"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for bad in
            ["", "Global", "global:", "currency:", "currency:XXX", "currency:usd", "participant:alfa", "corridor:AE-IN"]
        {
            assert!(bad.parse::<Scope>().unwrap_err().to_string().contains(&format!("{bad:?}")), "{bad}");
        }
    }

    fn command(n: u128, to: BreakerState, reason: &str) -> SetBreaker {
        SetBreaker { command_id: CommandId::new(Uuid::from_u128(n)), scope: Scope::Global, to, reason: reason.into() }
    }

    #[test]
    fn every_transition_and_refusal() {
        use BreakerState::{Closed, Open};
        let at = Timestamp::from_micros(7);
        let set_to = |state| Breaker {
            scope: Scope::Global,
            state,
            reason: "why".into(),
            changed_by: "ada".into(),
            changed_at: Timestamp::from_micros(1),
        };
        for (present, to, allowed) in [
            (None, Open, true),
            (Some(Closed), Open, true),
            (Some(Open), Closed, true),
            (None, Closed, false),
            (Some(Closed), Closed, false),
            (Some(Open), Open, false),
        ] {
            let present = present.map(set_to);
            let result = set(None, present.as_ref(), &command(1, to, "r"), "bob", at);
            match result {
                Ok(Outcome::Executed(next)) => {
                    assert!(allowed);
                    assert_eq!((next.state, next.changed_by.as_str(), next.changed_at), (to, "bob", at));
                }
                other => {
                    assert!(!allowed);
                    assert_eq!(other, Err(BreakerError::WrongState { scope: Scope::Global, state: to }));
                }
            }
        }
    }

    /// R5: a command takes effect once; its answer stays, whatever happened since.
    #[test]
    fn a_command_again_is_not_a_second_one() {
        use BreakerState::{Closed, Open};
        let at = Timestamp::from_micros(7);
        let Ok(Outcome::Executed(opened)) = set(None, None, &command(1, Open, "r"), "ada", at) else { panic!() };
        let earlier = (command(1, Open, "r"), opened.clone());
        let closed = Breaker { state: Closed, ..opened.clone() };
        let again = set(Some(&earlier), Some(&closed), &command(1, Open, "r"), "ada", at);
        assert_eq!(again, Ok(Outcome::AlreadyApplied(opened)));
        for other in [command(1, Open, "other"), command(1, Closed, "r")] {
            let result = set(Some(&earlier), Some(&closed), &other, "ada", at);
            assert_eq!(result, Err(BreakerError::Conflict(other.command_id)));
        }
    }
}
