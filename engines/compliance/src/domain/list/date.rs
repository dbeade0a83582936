//! Dates of birth, as exact as they are known.

use std::fmt;

use serde::{Deserialize, Serialize};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// When somebody was born, from the first to the last day that it may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BirthDate {
    /// The first day.
    pub from: Day,
    /// The last day.
    pub to: Day,
    /// The list says "about".
    pub about: bool,
}

/// A day of the calendar, from 1800-01-01 to 2199-12-31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day {
    /// The year.
    pub year: u16,
    /// The month, from 1.
    pub month: u8,
    /// The day, from 1.
    pub day: u8,
}

impl Day {
    /// A day; `None` where the calendar has none such.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let fits = (1800..=2199).contains(&year) && day >= 1 && day <= length_of(year, month)?;
        fits.then_some(Self { year, month, day })
    }
}

fn length_of(year: u16, month: u8) -> Option<u8> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        _ => None,
    }
}

/// What two dates of birth say about whether two people are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agreement {
    /// They cannot be one date.
    Differ,
    /// They are not the same, but close enough for a slip of the pen or of memory.
    Near,
    /// One lies within the other.
    Within,
    /// Both are the same day.
    Same,
}

impl BirthDate {
    /// One day.
    pub fn day(year: u16, month: u8, day: u8) -> Option<Self> {
        Day::new(year, month, day).map(|day| Self { from: day, to: day, about: false })
    }

    /// Some day of a month.
    pub fn month(year: u16, month: u8) -> Option<Self> {
        let from = Day::new(year, month, 1)?;
        Some(Self { from, to: Day::new(year, month, length_of(year, month)?)?, about: false })
    }

    /// Some day of a year.
    pub fn year(year: u16) -> Option<Self> {
        Self::years(year, year)
    }

    /// Some day of some years.
    pub fn years(first: u16, last: u16) -> Option<Self> {
        let (from, to) = (Day::new(first, 1, 1)?, Day::new(last, 12, 31)?);
        (from <= to).then_some(Self { from, to, about: false })
    }

    /// The same, but the list is not sure.
    #[must_use]
    pub fn about(self) -> Self {
        Self { about: true, ..self }
    }

    /// Reads `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
    pub fn iso(text: &str) -> Option<Self> {
        let number = |part: &str, length: usize| -> Option<u16> {
            (part.len() == length && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok())?
        };
        let parts: Vec<&str> = text.split('-').collect();
        match parts[..] {
            [year] => Self::year(number(year, 4)?),
            [year, month] => Self::month(number(year, 4)?, u8::try_from(number(month, 2)?).ok()?),
            [year, month, day] => {
                Self::day(number(year, 4)?, u8::try_from(number(month, 2)?).ok()?, u8::try_from(number(day, 2)?).ok()?)
            }
            _ => None,
        }
    }

    /// Reads what stands in OFAC's remarks: `08 Jan 1965`, `Jan 1965`, `1965`, `circa 1965`, `1963 to 1965`,
    /// `01 Jan 1963 to 31 Dec 1965`, `circa 1979-1982`.
    pub fn remark(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if let Some(rest) = text.strip_prefix("circa ") {
            return Self::remark(rest).map(Self::about);
        }
        let range = text.split_once(" to ").or_else(|| text.split_once('-'));
        if let Some((first, last)) = range {
            let (first, last) = (Self::remark(first)?, Self::remark(last)?);
            let both = Self { from: first.from, to: last.to, about: first.about || last.about };
            return (both.from <= both.to).then_some(both);
        }
        let parts: Vec<&str> = text.split_whitespace().collect();
        let year = |text: &str| -> Option<u16> {
            text.parse().ok().filter(|_| text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit()))
        };
        let month = |text: &str| (1u8..).zip(MONTHS).find(|(_, name)| text.starts_with(name)).map(|(number, _)| number);
        match parts[..] {
            [y] => Self::year(year(y)?),
            [m, y] => Self::month(year(y)?, month(m)?),
            [d, m, y] => Self::day(year(y)?, month(m)?, d.parse().ok()?),
            _ => None,
        }
    }

    /// What two dates say about whether two people are one. What the list calls "about" may be two years off.
    pub fn agrees(&self, other: &Self) -> Agreement {
        let one_day = |date: &Self| date.from == date.to && !date.about;
        if one_day(self) && one_day(other) {
            if self.from == other.from {
                return Agreement::Same;
            }
            let (a, b) = (self.from, other.from);
            let swapped = a.year == b.year && a.month == b.day && a.day == b.month;
            let one_part = [a.year != b.year, a.month != b.month, a.day != b.day].iter().filter(|d| **d).count() == 1;
            let close = a.year.abs_diff(b.year) <= 1;
            return if swapped || (one_part && close) { Agreement::Near } else { Agreement::Differ };
        }
        if self.from <= other.to && other.from <= self.to {
            return Agreement::Within;
        }
        let slack = if self.about || other.about { 2 } else { 1 };
        let apart = other.from.year.saturating_sub(self.to.year).max(self.from.year.saturating_sub(other.to.year));
        if apart <= slack { Agreement::Near } else { Agreement::Differ }
    }
}

impl fmt::Display for BirthDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.about {
            f.write_str("about ")?;
        }
        let (from, to) = (self.from, self.to);
        let whole_years = (from.month, from.day, to.month, to.day) == (1, 1, 12, 31);
        let whole_month = from.year == to.year
            && from.month == to.month
            && from.day == 1
            && length_of(to.year, to.month) == Some(to.day);
        if whole_years && from.year == to.year {
            write!(f, "{}", from.year)
        } else if whole_years {
            write!(f, "{} to {}", from.year, to.year)
        } else if whole_month {
            write!(f, "{}-{:02}", from.year, from.month)
        } else if from == to {
            write!(f, "{}-{:02}-{:02}", from.year, from.month, from.day)
        } else {
            write!(f, "{}-{:02}-{:02} to {}-{:02}-{:02}", from.year, from.month, from.day, to.year, to.month, to.day)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_remarks_are_read() {
        for (text, shown) in [
            ("08 Jan 1965", "1965-01-08"),
            ("Jan 1965", "1965-01"),
            ("1965", "1965"),
            ("circa 1965", "about 1965"),
            ("1963 to 1965", "1963 to 1965"),
            ("01 Jan 1963 to 31 Mar 1965", "1963-01-01 to 1965-03-31"),
            ("circa 1979-1982", "about 1979 to 1982"),
            ("29 Feb 1964", "1964-02-29"),
        ] {
            assert_eq!(BirthDate::remark(text).unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", "29 Feb 1965", "32 Jan 1965", "Foo 1965", "65", "1965 to 1963", "1 2 3 4"] {
            assert_eq!(BirthDate::remark(bad), None, "{bad}");
        }
    }

    #[test]
    fn iso_dates_are_read() {
        for good in ["1965", "1965-01", "1965-01-08"] {
            assert_eq!(BirthDate::iso(good).unwrap().to_string(), good);
        }
        for bad in ["", "65", "1965-1", "1965-13", "1965-02-30", "1965-01-08-", "+965", "1700"] {
            assert_eq!(BirthDate::iso(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_agree_more_or_less() {
        use Agreement::{Differ, Near, Same, Within};
        for (a, b, agreement) in [
            ("1965-01-08", "1965-01-08", Same),
            ("1965-01-08", "1965", Within),
            ("1965-01-08", "1965-08-01", Near),
            ("1965-01-08", "1966-01-08", Near),
            ("1965-01-08", "1965-03-09", Differ),
            ("1965-01-08", "1967-01-08", Differ),
            ("1965", "1966", Near),
            ("1965", "1967", Differ),
            ("1965", "1965", Within),
        ] {
            let (a, b) = (BirthDate::iso(a).unwrap(), BirthDate::iso(b).unwrap());
            assert_eq!((a.agrees(&b), b.agrees(&a)), (agreement, agreement), "{a} {b}");
        }
        let about = BirthDate::year(1965).unwrap().about();
        assert_eq!(about.agrees(&BirthDate::year(1967).unwrap()), Near);
    }
}
