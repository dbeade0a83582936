//! Business days: weekends and holidays of one place.

use std::collections::BTreeSet;

use jiff::civil::{Date, Weekday};

/// The days on which a system is open.
#[derive(Debug, Clone, Default)]
pub struct BusinessCalendar {
    weekend: Vec<Weekday>,
    holidays: BTreeSet<Date>,
}

impl BusinessCalendar {
    /// A calendar that is closed on these weekdays and dates.
    pub fn new(weekend: Vec<Weekday>, holidays: impl IntoIterator<Item = Date>) -> Self {
        Self { weekend, holidays: holidays.into_iter().collect() }
    }

    /// Whether the system is open on `day`.
    pub fn is_business_day(&self, day: Date) -> bool {
        !self.weekend.contains(&day.weekday()) && !self.holidays.contains(&day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn weekends_and_holidays_are_closed() {
        let gulf = BusinessCalendar::new(vec![Weekday::Saturday, Weekday::Sunday], [date(2026, 12, 2)]);
        assert!(gulf.is_business_day(date(2026, 11, 20)));
        assert!(!gulf.is_business_day(date(2026, 11, 21)));
        assert!(!gulf.is_business_day(date(2026, 12, 2)));
        assert!(BusinessCalendar::default().is_business_day(date(2026, 11, 21)));
    }
}
