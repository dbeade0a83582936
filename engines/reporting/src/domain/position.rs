//! Places in the order of a producer's events.

use std::fmt;

/// The number of an event within its producer: the epoch in `<source>/<epoch>`, then `producer_seq`. A restored
/// producer begins a new epoch, so that later is always greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The epoch.
    pub epoch: i64,
    /// The number within it, from 1.
    pub seq: u64,
}

impl Position {
    /// After every event.
    pub const LAST: Self = Self { epoch: i64::MAX, seq: i64::MAX as u64 };

    /// From a producer such as `token-engine/1` and its number; `None` where that is not `source`'s.
    pub fn of(source: &str, producer: &str, seq: u64) -> Option<Self> {
        let epoch = producer.strip_prefix(source)?.strip_prefix('/')?.parse().ok()?;
        Some(Self { epoch, seq })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_comes_before_a_number() {
        let of = |producer, seq| Position::of("token-engine", producer, seq);
        assert!(of("token-engine/1", 900) < of("token-engine/2", 1));
        assert!(of("token-engine/2", 1) < of("token-engine/2", 2));
        assert!(of("token-engine/2", u64::MAX >> 1).unwrap() < Position::LAST);
        for foreign in ["risk-engine/1", "token-engine", "token-engine/x", "token-engine2/1"] {
            assert_eq!(of(foreign, 1), None, "{foreign}");
        }
    }
}
