//! Business days: calendar days in the platform's reporting time zone.

use std::fmt;
use std::str::FromStr;

use deltran_kernel::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{ToSpan, Unit};

const EPOCH: Date = Date::constant(1970, 1, 1);

/// A calendar day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

/// A text that is no day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a day such as 2026-03-31")]
pub struct InvalidDay(String);

impl Day {
    /// The day on which a moment falls.
    pub fn of(at: Timestamp, zone: &TimeZone) -> Self {
        Self(at.to_jiff().to_zoned(zone.clone()).date())
    }

    /// Days since 1970-01-01.
    pub fn number(self) -> i32 {
        self.0.since((Unit::Day, EPOCH)).map_or(0, |span| span.get_days())
    }

    /// From days since 1970-01-01.
    pub fn from_number(number: i32) -> Option<Self> {
        EPOCH.checked_add(i64::from(number).days()).ok().map(Self)
    }

    /// The first moment of the day.
    pub fn begins(self, zone: &TimeZone) -> Timestamp {
        // A date that jiff has is within its range, except for the last days before its year 10,000.
        self.0.to_zoned(zone.clone()).map_or(Timestamp::from_micros(i64::MAX), |z| Timestamp::from_jiff(z.timestamp()))
    }

    /// The first moment of the next day.
    pub fn ends(self, zone: &TimeZone) -> Timestamp {
        self.next().begins(zone)
    }

    /// The day after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1.day()))
    }

    /// The day before.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1.day()))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Day {
    type Err = InvalidDay;
    fn from_str(text: &str) -> Result<Self, InvalidDay> {
        let invalid = || InvalidDay(text.chars().take(32).collect());
        if text.len() != 10 {
            return Err(invalid());
        }
        text.parse().map(Self).map_err(|_| invalid())
    }
}

/// The time zone of a name; `UTC` needs no database of zones.
///
/// # Errors
/// Names the zone that is not known.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "" | "UTC" => Ok(TimeZone::UTC),
        name => TimeZone::get(name).map_err(|e| format!("time zone {name:?} is not known: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_day_belongs_to_its_time_zone() {
        let zurich = zone("Europe/Zurich").unwrap();
        let late = at("2026-03-31T22:30:00Z");
        assert_eq!(Day::of(late, &TimeZone::UTC).to_string(), "2026-03-31");
        assert_eq!(Day::of(late, &zurich).to_string(), "2026-04-01");
        let day: Day = "2026-04-01".parse().unwrap();
        assert_eq!((day.begins(&zurich), day.ends(&zurich)), (at("2026-03-31T22:00:00Z"), at("2026-04-01T22:00:00Z")));
    }

    #[test]
    fn the_days_on_which_clocks_change_have_23_and_25_hours() {
        let zurich = zone("Europe/Zurich").unwrap();
        for (day, hours) in [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)] {
            let day: Day = day.parse().unwrap();
            assert_eq!((day.ends(&zurich).micros() - day.begins(&zurich).micros()) / 3_600_000_000, hours, "{day}");
        }
    }

    #[test]
    fn numbers_and_texts_are_read_back() {
        for text in ["1970-01-01", "1969-12-31", "2024-02-29", "2026-11-21"] {
            let day: Day = text.parse().unwrap();
            assert_eq!(Day::from_number(day.number()), Some(day));
            assert_eq!((day.to_string().as_str(), day.before().next()), (text, day));
        }
        assert_eq!("1970-01-03".parse::<Day>().unwrap().number(), 2);
        for bad in ["", "2026-02-30", "2026-2-3", "20260203", "2026-02-03T", "../../etc"] {
            assert!(bad.parse::<Day>().is_err(), "{bad}");
        }
    }
}
