//! Schedules of reports: when one is due, and what it asks for then.

use croner::Cron;
use deltran_events::data::reporting::{ReportFormat, ReportKind};
use deltran_kernel::{Currency, ParticipantId, ReportId, Timestamp};
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::day::{self, Day};
use super::job::{About, Subject, formats};

/// The most times that are made up for at once.
const MOST: usize = 62;

/// A schedule as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// What it asks for.
    pub kind: ReportKind,
    /// When: five fields, or six with seconds first.
    pub cron: String,
    /// IANA name of the time zone of that.
    pub time_zone: String,
    /// In which forms.
    pub formats: Vec<ReportFormat>,
    /// Whether it runs.
    pub enabled: bool,
    /// Who changed it last.
    pub changed_by: String,
    /// Times up to this one are done.
    pub last_at: Timestamp,
}

impl Schedule {
    /// Whether two schedules ask for the same at the same times.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let said = |s: &Self| (s.kind, s.cron.clone(), s.time_zone.clone(), s.formats.clone(), s.enabled);
        self.name == other.name && said(self) == said(other)
    }
}

/// A schedule that was read.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

/// Checks a schedule: its name, kind, times and formats. The formats come back complete.
///
/// # Errors
/// The first field that does not fit.
pub fn read(schedule: &Schedule, now: Timestamp) -> Result<(Timetable, Vec<ReportFormat>), (&'static str, String)> {
    let name_fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=32).contains(&schedule.name.len()) || !schedule.name.chars().all(name_fits) {
        return Err(("name", format!("{:?} takes 1 to 32 letters, digits, - and _", schedule.name)));
    }
    if schedule.kind == ReportKind::Settlement {
        let what = "settlement reports come after each settlement by themselves: reporting.settlement_reports";
        return Err(("kind", what.to_owned()));
    }
    let formats = formats(schedule.kind, &schedule.formats)?;
    let cron: Cron = schedule.cron.parse().map_err(|e| ("cron", format!("{:?} is not valid: {e}", schedule.cron)))?;
    let zone = day::zone(&schedule.time_zone).map_err(|e| ("time_zone", e))?;
    let timetable = Timetable { cron, zone };
    if timetable.next(now).is_none() {
        return Err(("cron", format!("{:?} has no time ahead", schedule.cron)));
    }
    Ok((timetable, formats))
}

impl Timetable {
    /// The first time after a moment.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let zoned = after.to_jiff().to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&zoned, false).ok()?;
        Some(Timestamp::from_jiff(next.timestamp()))
    }

    /// The times after `last` and up to `now`, oldest first; not more than are made up for at once.
    pub fn due(&self, last: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        std::iter::successors(self.next(last), |at| self.next(*at)).take_while(|at| *at <= now).take(MOST).collect()
    }
}

/// The business day of which statements are asked for at a time: the one before.
pub fn day_before(at: Timestamp, zone: &TimeZone) -> Day {
    Day::of(at, zone).before()
}

/// The reports that a schedule asks for at one of its times. `members` are the participants that have a statement, with
/// their currencies, `zone` is that of business days. Ids follow from what is asked for, so that a time that is worked on
/// again asks for nothing twice.
pub fn reports(
    schedule: &Schedule,
    at: Timestamp,
    zone: &TimeZone,
    members: &[(ParticipantId, Currency)],
) -> Vec<(ReportId, Subject)> {
    let id = |what: &str| {
        let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, b"deltran.reporting.schedule");
        ReportId::new(Uuid::new_v5(&namespace, format!("{}/{what}", schedule.name).as_bytes()))
    };
    let subject = |about| Subject { about, formats: schedule.formats.clone() };
    match schedule.kind {
        ReportKind::Statement => {
            let day = day_before(at, zone);
            let statement = |(who, currency): &(ParticipantId, Currency)| {
                (id(&format!("{day}/{who}/{currency}")), subject(About::Day(*who, *currency, day)))
            };
            members.iter().map(statement).collect()
        }
        ReportKind::TrialBalance => {
            vec![(id(&at.to_string()), subject(About::Trial { currency: None, verify_ledger: false }))]
        }
        ReportKind::Settlement => Vec::new(),
    }
}

/// The id of the settlement report that follows a settled batch.
pub fn settlement_report(batch: deltran_kernel::BatchId) -> ReportId {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, b"deltran.reporting.settlement");
    ReportId::new(Uuid::new_v5(&namespace, batch.uuid().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(cron: &str, time_zone: &str) -> Schedule {
        Schedule {
            name: "daily".into(),
            kind: ReportKind::Statement,
            cron: cron.into(),
            time_zone: time_zone.into(),
            formats: vec![ReportFormat::Csv],
            enabled: true,
            changed_by: "ada".into(),
            last_at: at("2026-03-01T00:00:00Z"),
        }
    }

    fn due(cron: &str, zone: &str, last: &str, now: &str) -> Vec<String> {
        let (timetable, _) = read(&schedule(cron, zone), at(last)).unwrap();
        timetable.due(at(last), at(now)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn missed_times_are_made_up_for_once() {
        let none: [&str; 0] = [];
        assert_eq!(due("15 0 * * *", "UTC", "2026-03-01T00:15:00Z", "2026-03-02T00:14:59Z"), none);
        assert_eq!(
            due("15 0 * * *", "UTC", "2026-03-01T00:15:00Z", "2026-03-04T12:00:00Z"),
            ["2026-03-02T00:15:00.000000Z", "2026-03-03T00:15:00.000000Z", "2026-03-04T00:15:00.000000Z"]
        );
        assert_eq!(due("* * * * *", "UTC", "2026-03-01T00:00:00Z", "2026-03-04T00:00:00Z").len(), MOST);
    }

    #[test]
    fn times_are_read_in_their_zone_across_the_change_of_clocks() {
        assert_eq!(
            due("30 2 * * *", "Europe/Zurich", "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z"),
            // On the 29th 02:30 does not exist: it comes right after.
            ["2026-03-28T01:30:00.000000Z", "2026-03-29T01:00:00.000000Z", "2026-03-30T00:30:00.000000Z"]
        );
        // On the 25th there are two of 02:30: it comes once.
        assert_eq!(
            due("30 2 * * *", "Europe/Zurich", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
            ["2026-10-25T00:30:00.000000Z", "2026-10-26T01:30:00.000000Z"]
        );
        let quarters = due("*/15 * * * *", "Europe/Zurich", "2026-10-24T23:59:59Z", "2026-10-25T02:00:00Z");
        assert!(quarters.is_sorted_by(|a, b| a < b), "{quarters:?}");
        assert_eq!((quarters.len(), quarters.last().unwrap().as_str()), (9, "2026-10-25T02:00:00.000000Z"));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let now = at("2026-03-01T00:00:00Z");
        let with = |change: fn(&mut Schedule)| {
            let mut schedule = schedule("15 0 * * *", "UTC");
            change(&mut schedule);
            read(&schedule, now).unwrap_err().0
        };
        assert_eq!(with(|s| s.name = "a b".into()), "name");
        assert_eq!(with(|s| s.name = "../x".into()), "name");
        assert_eq!(with(|s| s.kind = ReportKind::Settlement), "kind");
        assert_eq!(with(|s| s.cron = "61 * * * *".into()), "cron");
        assert_eq!(with(|s| s.cron = "0 0 30 2 *".into()), "cron");
        assert_eq!(with(|s| s.time_zone = "Mars/Base".into()), "time_zone");
        assert_eq!(
            with(|s| {
                s.kind = ReportKind::TrialBalance;
                s.formats = vec![ReportFormat::Camt053];
            }),
            "formats"
        );
    }

    #[test]
    fn a_statement_is_of_the_business_day_before_and_asked_for_once() {
        let members = [("ALFAAEXX".parse().unwrap(), Currency::new("USD").unwrap())];
        let zurich = day::zone("Europe/Zurich").unwrap();
        let asked = |time: &str| reports(&schedule("15 0 * * *", "UTC"), at(time), &zurich, &members);
        // 23:30 in UTC is the next day in Zurich, so that the day before is the day of UTC.
        let [(id, subject)] = &asked("2026-03-31T23:30:00Z")[..] else { panic!() };
        let About::Day(_, _, day) = subject.about else { panic!("{subject:?}") };
        assert_eq!(day.to_string(), "2026-03-31");
        assert_eq!(asked("2026-04-01T12:00:00Z")[0].0, *id, "the same day again is the same report");
        assert_ne!(asked("2026-04-02T12:00:00Z")[0].0, *id);
        let trial = Schedule { kind: ReportKind::TrialBalance, ..schedule("15 0 * * *", "UTC") };
        let one = |time: &str| reports(&trial, at(time), &zurich, &members)[0].0;
        assert_ne!(one("2026-04-01T12:00:00Z"), one("2026-04-01T13:00:00Z"));
    }
}
