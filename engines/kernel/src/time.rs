//! Time and ids as parameters: the traits that stand for the clock and for randomness, the real
//! ones, and deterministic ones for tests and simulations.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::Text;

/// A moment: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// A text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("time {0:?} is not RFC 3339, such as 2025-11-06T12:00:00Z")]
pub struct InvalidTimestamp(pub String);

impl Timestamp {
    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// This moment, later by so many microseconds (earlier where negative).
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// This moment, later by so many seconds.
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        self.plus_micros(seconds.saturating_mul(1_000_000))
    }

    /// As a calendar instant.
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// From a calendar instant, cut to the microsecond.
    pub fn from_jiff(at: jiff::Timestamp) -> Self {
        Self(at.as_microsecond())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.to_jiff())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse::<jiff::Timestamp>().map(Self::from_jiff).map_err(|_| InvalidTimestamp(s.chars().take(64).collect()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?Z$",
            "description": "RFC 3339, UTC"
        })
    }
}

/// Where the present time comes from.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one real clock")]
    fn now(&self) -> Timestamp {
        Timestamp::from_jiff(jiff::Timestamp::now())
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::atomic::AtomicI64);

impl ManualClock {
    /// A clock that shows `at`.
    pub fn at(at: Timestamp) -> Self {
        Self(std::sync::atomic::AtomicI64::new(at.micros()))
    }

    /// Moves the clock forward (or back, where negative).
    pub fn advance_micros(&self, micros: i64) {
        self.0.fetch_add(micros, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

/// Where fresh ids come from: UUIDv7 (RFC 9562), ordered by the time that is given.
pub trait IdSource: Send + Sync {
    /// A fresh id that carries the moment `at` to the millisecond.
    fn next_id(&self, at: Timestamp) -> Uuid;
}

fn v7(at: Timestamp, random: [u8; 10]) -> Uuid {
    let millis = u64::try_from(at.micros() / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// Ids with random bits from a generator seeded by the operating system.
pub struct SystemIds(Mutex<StdRng>);

impl SystemIds {
    /// A generator with a seed of its own.
    #[expect(clippy::disallowed_methods, reason = "the one real source of randomness for ids")]
    pub fn new() -> Self {
        Self(Mutex::new(StdRng::from_rng(&mut rand::rng())))
    }
}

impl Default for SystemIds {
    fn default() -> Self {
        Self::new()
    }
}

/// Ids from a seed: the same seed and the same moments give the same ids.
pub struct SeededIds(Mutex<StdRng>);

impl SeededIds {
    /// A generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

fn draw(generator: &Mutex<StdRng>) -> [u8; 10] {
    let mut random = [0; 10];
    // A poisoned generator is still a generator: its state is valid after any panic elsewhere.
    generator.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fill_bytes(&mut random);
    random
}

impl IdSource for SystemIds {
    fn next_id(&self, at: Timestamp) -> Uuid {
        v7(at, draw(&self.0))
    }
}

impl IdSource for SeededIds {
    fn next_id(&self, at: Timestamp) -> Uuid {
        v7(at, draw(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_microseconds_and_reads_what_it_prints() {
        let at: Timestamp = "2025-11-06T12:00:00Z".parse().unwrap();
        assert_eq!(at.to_string(), "2025-11-06T12:00:00.000000Z");
        assert_eq!(at.plus_micros(1).to_string().parse::<Timestamp>().unwrap().micros(), at.micros() + 1);
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn ids_are_version_7_and_repeat_with_their_seed() {
        let at: Timestamp = "2025-11-06T12:00:00Z".parse().unwrap();
        let id = SeededIds::new(7).next_id(at);
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id, SeededIds::new(7).next_id(at));
        assert_ne!(id, SeededIds::new(8).next_id(at));
        let system = SystemIds::new();
        assert_ne!(system.next_id(at), system.next_id(at));
    }
}
