//! The section `[reporting]` of the configuration.

use std::path::PathBuf;

use deltran_events::data::reporting::{ReportFormat, ReportKind};
use deltran_kernel::Timestamp;
use deltran_runtime::boot::BootError;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::domain::day;
use crate::domain::timetable::{self, Schedule};

/// How reports are made and kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The folder of all reports.
    pub directory: PathBuf,
    /// IANA name of the time zone of business days. It cannot change once something was counted.
    pub time_zone: String,
    /// Whether every settlement is followed by its report.
    pub settlement_reports: bool,
    /// Days that files are kept, 1 to 36,500; 0 keeps them for ever.
    pub retention_days: u32,
    /// Hours that a report waits for events before it fails, 1 to 8,760.
    pub give_up_hours: u32,
    /// Schedules that are created where there is none of their name. `SetSchedule` changes them from then on.
    pub schedules: Vec<ScheduleSettings>,
}

/// `[[reporting.schedules]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSettings {
    /// Its name: 1 to 32 letters, digits, `-` and `_`.
    pub name: String,
    /// `statement` or `trial_balance`.
    pub kind: KindWord,
    /// Five fields, or six with seconds first.
    pub cron: String,
    /// IANA name; that of business days where absent.
    pub time_zone: Option<String>,
    /// `csv`, `html`, `camt053`; all that the kind has where absent.
    #[serde(default)]
    pub formats: Vec<FormatWord>,
}

/// What a schedule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of ReportKind")]
pub enum KindWord {
    Statement,
    TrialBalance,
}

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words of ReportFormat")]
pub enum FormatWord {
    Csv,
    Html,
    Camt053,
}

impl Default for Settings {
    fn default() -> Self {
        let daily = |name: &str, kind, cron: &str| ScheduleSettings {
            name: name.to_owned(),
            kind,
            cron: cron.to_owned(),
            time_zone: None,
            formats: Vec::new(),
        };
        Self {
            directory: PathBuf::from("data/reports"),
            time_zone: "UTC".to_owned(),
            settlement_reports: true,
            retention_days: 400,
            give_up_hours: 72,
            schedules: vec![
                daily("daily-statements", KindWord::Statement, "15 0 * * *"),
                daily("daily-trial-balance", KindWord::TrialBalance, "30 0 * * *"),
            ],
        }
    }
}

/// The section, checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// As it is written.
    pub settings: Settings,
    /// The time zone of business days.
    pub zone: TimeZone,
    /// The schedules, complete, begun at the start.
    pub schedules: Vec<Schedule>,
}

impl Settings {
    /// Checks ranges, zones and schedules.
    ///
    /// # Errors
    /// Names the key that does not fit, with its value.
    pub fn checked(self, now: Timestamp) -> Result<Checked, BootError> {
        let wrong = |what: String| BootError::Other(format!("reporting.{what}"));
        let in_range = |key: &str, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(wrong(format!("{key} = {value} is out of range: it takes {least} to {most}")))
        };
        in_range("retention_days", self.retention_days, 0, 36_500)?;
        in_range("give_up_hours", self.give_up_hours, 1, 8_760)?;
        let zone = day::zone(&self.time_zone).map_err(|e| wrong(format!("time_zone: {e}")))?;
        let mut schedules: Vec<Schedule> = Vec::new();
        for given in &self.schedules {
            let mut schedule = Schedule {
                name: given.name.clone(),
                kind: match given.kind {
                    KindWord::Statement => ReportKind::Statement,
                    KindWord::TrialBalance => ReportKind::TrialBalance,
                },
                cron: given.cron.clone(),
                time_zone: given.time_zone.clone().unwrap_or_else(|| self.time_zone.clone()),
                formats: given.formats.iter().map(|f| format_of(*f)).collect(),
                enabled: true,
                changed_by: crate::USER.to_owned(),
                last_at: now,
            };
            let (_, formats) = timetable::read(&schedule, now)
                .map_err(|(key, what)| wrong(format!("schedules {:?}: {key}: {what}", given.name)))?;
            schedule.formats = formats;
            if schedules.iter().any(|other| other.name == schedule.name) {
                return Err(wrong(format!("schedules {:?}: the name stands twice", given.name)));
            }
            schedules.push(schedule);
        }
        Ok(Checked { settings: self, zone, schedules })
    }
}

const fn format_of(word: FormatWord) -> ReportFormat {
    match word {
        FormatWord::Csv => ReportFormat::Csv,
        FormatWord::Html => ReportFormat::Html,
        FormatWord::Camt053 => ReportFormat::Camt053,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Checked, String> {
        let settings: Settings = toml::from_str(text).map_err(|e| e.to_string())?;
        settings.checked("2026-03-01T00:00:00Z".parse().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_daily_statements_and_a_daily_trial_balance() {
        let names: Vec<String> = read("").unwrap().schedules.into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["daily-statements", "daily-trial-balance"]);
        let own = read(
            "time_zone = \"Europe/Zurich\"\n[[schedules]]\nname = \"a\"\nkind = \"statement\"\ncron = \"0 6 * * *\"\nformats = [\"camt053\"]",
        )
        .unwrap();
        assert_eq!(own.schedules[0].time_zone, "Europe/Zurich");
        assert_eq!(own.schedules[0].formats, [ReportFormat::Camt053]);
        assert!(read("schedules = []").unwrap().schedules.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let schedule = |rest: &str| format!("[[schedules]]\nname = \"a\"\nkind = \"trial_balance\"\n{rest}");
        for (text, named) in [
            ("retention_days = 40000".to_owned(), "retention_days = 40000"),
            ("give_up_hours = 0".to_owned(), "give_up_hours = 0"),
            ("time_zone = \"Mars/Base\"".to_owned(), "Mars/Base"),
            ("colour = 1".to_owned(), "colour"),
            (schedule("cron = \"61 * * * *\""), "61 * * * *"),
            (schedule("cron = \"0 1 * * *\"\nformats = [\"camt053\"]"), "CAMT053"),
            (schedule("cron = \"0 1 * * *\"\nformats = [\"pdf\"]"), "pdf"),
            (schedule("cron = \"0 1 * * *\"") + "\n" + &schedule("cron = \"0 1 * * *\""), "twice"),
            ("[[schedules]]\nname = \"a\"\nkind = \"settlement\"\ncron = \"0 1 * * *\"".to_owned(), "settlement"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(named), "{text}\n{error}");
        }
    }
}
