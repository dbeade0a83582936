//! Dead letters: what may be decided about one.

use deltran_messaging::dead_letter as header;
use std::collections::BTreeMap;

use super::wrapper::storable;

/// The longest text kept of a letter's headers, in characters.
const MAX_TEXT: usize = 512;
const MAX_REASON: usize = 1000;

/// The state of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterState {
    /// Nobody decided yet.
    Open,
    /// Published again.
    Replayed,
    /// Dealt with otherwise.
    Dropped,
}

impl LetterState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Open, Self::Replayed, Self::Dropped];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Replayed => "REPLAYED",
            Self::Dropped => "DROPPED",
        }
    }

    /// The state of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Whether a decision was carried out or had been before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It is carried out.
    Executed(T),
    /// It was already so.
    AlreadyApplied,
}

/// Why a decision is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A dropped letter stays dropped.
    #[error("it was dropped: a dropped dead letter is not replayed")]
    Dropped,
    /// It was published again before.
    #[error("it was replayed: a replayed dead letter is not dropped")]
    Replayed,
    /// Its stream had let it go before its bytes were fetched.
    #[error("its bytes are gone: there is nothing to publish")]
    NoBytes,
    /// It never was an event.
    #[error("its subject {0:?} is no event's: only events are published again")]
    NoEvent(String),
}

/// Decides on publishing a letter again: gives the number of the replay, from 1. One that was replayed
/// may be so once more, since a consumer may have failed otherwise meanwhile.
///
/// # Errors
/// In this order: dropped, without bytes, no event.
pub fn replay(state: LetterState, replays: u32, subject: &str, bytes: usize) -> Result<u32, Refused> {
    if state == LetterState::Dropped {
        return Err(Refused::Dropped);
    }
    if bytes == 0 {
        return Err(Refused::NoBytes);
    }
    let is_event = subject.strip_prefix("events.").is_some_and(|rest| !rest.is_empty())
        && !subject.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'))
        && subject.split('.').all(|token| !token.is_empty());
    if !is_event {
        return Err(Refused::NoEvent(subject.to_owned()));
    }
    // ---
    Ok(replays.saturating_add(1))
}

/// Decides on dropping a letter.
///
/// # Errors
/// Where it was replayed.
pub fn discard(state: LetterState) -> Result<Outcome<LetterState>, Refused> {
    match state {
        LetterState::Replayed => Err(Refused::Replayed),
        LetterState::Dropped => Ok(Outcome::AlreadyApplied),
        LetterState::Open => Ok(Outcome::Executed(LetterState::Dropped)),
    }
}

/// What the headers of a dead letter say. Whoever may publish to `dlq.>` can leave any of them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The stream it came from.
    pub stream: String,
    /// Its sequence there; 0 where unknown.
    pub sequence: u64,
    /// The consumer that gave up.
    pub consumer: String,
    /// The subject it was published on.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// Deliveries.
    pub attempts: u32,
}

impl Origin {
    /// Reads the headers; stream and consumer stand in the subject `dlq.<stream>.<consumer>` as well.
    pub fn read(subject: &str, headers: &BTreeMap<String, String>) -> Self {
        let text = |name: &str, most: usize| headers.get(name).map(|value| storable(value, most).into_owned());
        let number = |name: &str| headers.get(name).and_then(|value| value.parse::<u64>().ok());
        let token = |n: usize| storable(subject.split('.').nth(n).unwrap_or_default(), MAX_TEXT).into_owned();
        Self {
            stream: text(header::STREAM, MAX_TEXT).unwrap_or_else(|| token(1)),
            sequence: number(header::SEQUENCE).filter(|n| *n <= i64::MAX as u64).unwrap_or(0),
            consumer: text(header::CONSUMER, MAX_TEXT).unwrap_or_else(|| token(2)),
            subject: text(header::SUBJECT, MAX_TEXT).unwrap_or_default(),
            reason: text(header::REASON, MAX_REASON).unwrap_or_else(|| "no reason was given".to_owned()),
            attempts: number(header::ATTEMPTS).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LetterState::{Dropped, Open, Replayed};

    const SUBJECT: &str = "events.risk.limit.changed";

    #[test]
    fn every_state_meets_every_decision() {
        assert_eq!(replay(Open, 0, SUBJECT, 9), Ok(1));
        assert_eq!(replay(Replayed, 1, SUBJECT, 9), Ok(2));
        assert_eq!(replay(Dropped, 0, SUBJECT, 9), Err(Refused::Dropped));
        assert_eq!(discard(Open), Ok(Outcome::Executed(Dropped)));
        assert_eq!(discard(Dropped), Ok(Outcome::AlreadyApplied));
        assert_eq!(discard(Replayed), Err(Refused::Replayed));
    }

    #[test]
    fn refusals_come_in_their_order() {
        assert_eq!(replay(Dropped, 0, "x", 0), Err(Refused::Dropped));
        assert_eq!(replay(Open, 0, "x", 0), Err(Refused::NoBytes));
        for subject in ["$JS.API.STREAM.DELETE.AUDIT", "events.", "events.>", "events.a b", "events..a", "dlq.X.y", ""]
        {
            assert_eq!(replay(Open, 0, subject, 1), Err(Refused::NoEvent(subject.to_owned())));
        }
    }

    #[test]
    fn headers_may_be_missing_or_nonsense() {
        let bare = Origin::read("dlq.RISK.some_consumer", &BTreeMap::new());
        assert_eq!((bare.stream.as_str(), bare.consumer.as_str(), bare.sequence), ("RISK", "some_consumer", 0));
        let headers =
            [(header::SEQUENCE, "18446744073709551615"), (header::ATTEMPTS, "many"), (header::REASON, "a\0b")];
        let headers = headers.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let odd = Origin::read("dlq", &headers);
        assert_eq!((odd.sequence, odd.attempts, odd.reason.as_str()), (0, 0, "a\u{FFFD}b"));
    }
}
