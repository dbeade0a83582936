//! Requests in the words of the domain.

use std::fmt;
use std::str::FromStr;

use deltran_api::risk::v1 as pb;
use deltran_events::data::risk::LimitKind;
use deltran_kernel::{Currency, ParticipantId};
use deltran_runtime::{Failure, wire};

use crate::domain::assess::Subject;
use crate::domain::breaker::{BreakerState, SetBreaker};
use crate::domain::limit::{LimitState, Proposal, Rate, Value};
use crate::domain::turn::Turn;

/// The longest reason, in characters.
const MAX_REASON: usize = 300;

/// A participant and a currency as a page token: `ALFAAEXX/USD`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair(pub ParticipantId, pub Currency);

impl FromStr for Pair {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{:?} is no token of this list", text.chars().take(64).collect::<String>());
        let (participant, currency) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self(participant.parse().map_err(|_| wrong())?, currency.parse().map_err(|_| wrong())?))
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

pub(super) fn subject(subject: &pb::AssessSubject) -> Result<Subject, Failure> {
    Ok(Subject {
        id: wire::parse("transaction_id", &subject.transaction_id)?,
        payer: wire::parse("payer", &subject.payer)?,
        payee: wire::parse("payee", &subject.payee)?,
        amount: wire::money("amount", subject.amount.as_ref())?,
        gross: subject.gross,
        two_phase: subject.two_phase,
        release: subject.release,
    })
}

pub(super) fn turn(turn: pb::Turn) -> Turn {
    let pb::Turn { term, number, producer, last_event, call, done, .. } = turn;
    Turn { term, number, producer, last_event, call, done }
}

pub(super) fn reason(text: &str) -> Result<String, Failure> {
    wire::required_text("reason", text, MAX_REASON)
}

/// The kind that a filter names, none where it names none.
pub(super) fn kind_filter(kind: pb::LimitKind) -> Result<Option<LimitKind>, Failure> {
    Ok(match kind {
        pb::LimitKind::Unspecified => None,
        pb::LimitKind::NetDebitCap => Some(LimitKind::NetDebitCap),
        pb::LimitKind::SingleTransactionMaximum => Some(LimitKind::SingleTransactionMaximum),
        pb::LimitKind::Bilateral => Some(LimitKind::Bilateral),
        pb::LimitKind::CorridorMaximum => Some(LimitKind::CorridorMaximum),
        pb::LimitKind::CorridorGross => Some(LimitKind::CorridorGross),
        pb::LimitKind::Rate => Some(LimitKind::Rate),
    })
}

pub(super) fn proposal(request: pb::ProposeLimitRequest) -> Result<Proposal, Failure> {
    let Some(kind) = kind_filter(request.kind())? else {
        let words: Vec<&str> = LimitKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let message = format!("{} is not understood: expected one of {}", request.kind, words.join(", "));
        return Err(Failure::malformed("kind", message));
    };
    let value = match (kind, &request.rate) {
        (LimitKind::Rate, None) => return Err(Failure::malformed("rate", "is missing")),
        (LimitKind::Rate, Some(_)) if request.amount.is_some() => {
            return Err(Failure::malformed("amount", "is not for a limit of kind RATE"));
        }
        (LimitKind::Rate, Some(rate)) => {
            Value::Rate(Rate { transactions: rate.transactions, window_seconds: rate.window_seconds })
        }
        (_, Some(_)) => return Err(Failure::malformed("rate", format!("is not for a limit of kind {kind}"))),
        (_, None) => Value::Amount(wire::money("amount", request.amount.as_ref())?),
    };
    Ok(Proposal {
        limit_id: wire::parse("limit_id", &request.limit_id)?,
        kind,
        participant: wire::parse_optional("participant", &request.participant)?,
        counterparty: wire::parse_optional("counterparty", &request.counterparty)?,
        corridor: wire::parse_optional("corridor", &request.corridor)?,
        value,
        effective_from: wire::timestamp("effective_from", request.effective_from.as_ref())?,
        reason: wire::text("reason", &request.reason, MAX_REASON)?,
    })
}

fn state_of<T>(word: &str, known: Option<T>, words: &[&str]) -> Result<Option<T>, Failure> {
    match known {
        None if word.is_empty() => Ok(None),
        None => {
            let message = format!("{word:?} is no state: expected one of {}", words.join(", "));
            Err(Failure::malformed("state", message))
        }
        state => Ok(state),
    }
}

pub(super) fn limit_state(word: &str) -> Result<Option<LimitState>, Failure> {
    state_of(word, LimitState::from_word(word), &LimitState::ALL.map(LimitState::as_str))
}

pub(super) fn breaker_state(word: &str) -> Result<Option<BreakerState>, Failure> {
    state_of(word, BreakerState::from_word(word), &BreakerState::ALL.map(BreakerState::as_str))
}

pub(super) fn set_breaker(id: &str, scope: &str, text: &str, to: BreakerState) -> Result<SetBreaker, Failure> {
    Ok(SetBreaker {
        command_id: wire::parse("command_id", id)?,
        scope: wire::parse("scope", scope)?,
        to,
        reason: reason(text)?,
    })
}

/// A calendar day, none where none is named.
pub(super) fn day(text: &str) -> Result<Option<String>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let day: Result<jiff::civil::Date, _> = text.parse();
    match day {
        Ok(day) if day.to_string() == text => Ok(Some(text.to_owned())),
        _ => {
            let given: String = text.chars().take(32).collect();
            Err(Failure::malformed("day", format!("{given:?} is no day such as 2026-11-20")))
        }
    }
}
