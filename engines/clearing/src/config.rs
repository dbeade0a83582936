//! The section `[clearing]` of the configuration: schedules.

use std::collections::BTreeMap;

use croner::Cron;
use deltran_kernel::{BusinessCalendar, Currency, Timestamp};
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::domain::schedule::{Mode, Schedule, Timetable};

/// The section as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The schedules; without any, one that is manual.
    pub schedules: Vec<ScheduleSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        let currencies = ["USD", "EUR", "AED", "GBP"].map(str::to_owned).to_vec();
        let manual = ScheduleSettings {
            name: "manual".to_owned(),
            currencies,
            mode: ModeWord::Manual,
            cron: None,
            open_cron: None,
            time_zone: None,
            grace_seconds: default_grace(),
            calendar: CalendarSettings::default(),
        };
        Self { schedules: vec![manual] }
    }
}

/// `[[clearing.schedules]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSettings {
    /// Its name: 1 to 32 letters, digits, `-` and `_`.
    pub name: String,
    /// ISO 4217 codes. A currency stands in one schedule only.
    pub currencies: Vec<String>,
    /// `manual` or `cron`.
    pub mode: ModeWord,
    /// Closing times, for mode `cron`: five fields, or six with seconds first.
    pub cron: Option<String>,
    /// Opening times; without them a window opens when the one before closes.
    pub open_cron: Option<String>,
    /// IANA name of the time zone of both, such as `Europe/Zurich`; UTC where absent.
    pub time_zone: Option<String>,
    /// Seconds after sealing until missing obligations raise an alert: 0 to 86,400.
    #[serde(default = "default_grace")]
    pub grace_seconds: u32,
    /// The days on which the times count; every day where absent.
    #[serde(default)]
    pub calendar: CalendarSettings,
}

fn default_grace() -> u32 {
    60
}

/// Who opens and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeWord {
    /// An operator.
    Manual,
    /// A timetable.
    Cron,
}

/// Business days.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CalendarSettings {
    /// Weekdays that are closed, such as `saturday`.
    pub weekend: Vec<String>,
    /// Dates that are closed, such as `2026-12-25`.
    pub holidays: Vec<String>,
}

/// The schedules, checked.
#[derive(Debug, Clone)]
pub struct Schedules {
    all: Vec<Schedule>,
    by_currency: BTreeMap<Currency, usize>,
}

impl Schedules {
    /// Reads the settings. `now` is only used to see that every timetable has a closing ahead.
    ///
    /// # Errors
    /// The first thing that is wrong, with the schedule, the key and the value.
    pub fn new(settings: &Settings, now: Timestamp) -> Result<Self, String> {
        let mut all: Vec<Schedule> = Vec::new();
        let mut by_currency = BTreeMap::new();
        for settings in &settings.schedules {
            let schedule =
                schedule(settings, now).map_err(|e| format!("clearing.schedules {:?}: {e}", settings.name))?;
            if all.iter().any(|other| other.name == schedule.name) {
                return Err(format!("clearing.schedules {:?}: the name stands twice", schedule.name));
            }
            for currency in &schedule.currencies {
                if let Some(other) = by_currency.insert(*currency, all.len()) {
                    let other = all.get(other).map_or(schedule.name.as_str(), |s| s.name.as_str());
                    return Err(format!(
                        "clearing.schedules {:?}: currency {currency} stands in {other:?} already: the ledger has one open window per currency",
                        schedule.name
                    ));
                }
            }
            all.push(schedule);
        }
        Ok(Self { all, by_currency })
    }

    /// The schedule of a name.
    pub fn named(&self, name: &str) -> Option<&Schedule> {
        self.all.iter().find(|s| s.name == name)
    }

    /// The schedule of a currency.
    pub fn of(&self, currency: Currency) -> Option<&Schedule> {
        self.by_currency.get(&currency).and_then(|&at| self.all.get(at))
    }

    /// The timetable of a currency, where it has one.
    pub fn timetable(&self, currency: Currency) -> Option<&Timetable> {
        match &self.of(currency)?.mode {
            Mode::Cron(timetable) => Some(timetable),
            Mode::Manual => None,
        }
    }

    /// Every currency.
    pub fn currencies(&self) -> impl Iterator<Item = Currency> + '_ {
        self.by_currency.keys().copied()
    }

    /// Names of all schedules, for messages.
    pub fn names(&self) -> String {
        self.all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

fn schedule(settings: &ScheduleSettings, now: Timestamp) -> Result<Schedule, String> {
    let name_fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=32).contains(&settings.name.len()) || !settings.name.chars().all(name_fits) {
        return Err("name takes 1 to 32 letters, digits, - and _".to_owned());
    }
    if settings.currencies.is_empty() {
        return Err("currencies is empty".to_owned());
    }
    let currencies = settings
        .currencies
        .iter()
        .map(|code| Currency::new(code).map_err(|e| format!("currencies: {e}")))
        .collect::<Result<Vec<_>, _>>()?;
    if settings.grace_seconds > 86_400 {
        return Err(format!("grace_seconds {} is more than 86400", settings.grace_seconds));
    }
    let mode = match settings.mode {
        ModeWord::Cron => Mode::Cron(Box::new(timetable(settings, now)?)),
        ModeWord::Manual => {
            let idle = [
                ("cron", settings.cron.is_some()),
                ("open_cron", settings.open_cron.is_some()),
                ("time_zone", settings.time_zone.is_some()),
                ("calendar", !settings.calendar.weekend.is_empty() || !settings.calendar.holidays.is_empty()),
            ];
            if let Some((key, _)) = idle.into_iter().find(|(_, given)| *given) {
                return Err(format!("{key} has no meaning with mode \"manual\""));
            }
            Mode::Manual
        }
    };
    Ok(Schedule { name: settings.name.clone(), currencies, mode, grace_seconds: settings.grace_seconds })
}

fn timetable(settings: &ScheduleSettings, now: Timestamp) -> Result<Timetable, String> {
    let cron = |key: &str, text: &str| text.parse::<Cron>().map_err(|e| format!("{key} {text:?} is not valid: {e}"));
    let text = settings.cron.as_deref().ok_or("mode \"cron\" needs cron, the closing times, such as \"0 17 * * *\"")?;
    let close = cron("cron", text)?;
    let open = settings.open_cron.as_deref().map(|text| cron("open_cron", text)).transpose()?;
    let zone = match settings.time_zone.as_deref().unwrap_or("UTC") {
        "UTC" => TimeZone::UTC,
        name => TimeZone::get(name).map_err(|e| format!("time_zone {name:?} is not known: {e}"))?,
    };
    let weekend = settings.calendar.weekend.iter().map(|day| weekday(day)).collect::<Result<Vec<_>, _>>()?;
    let holidays = settings
        .calendar
        .holidays
        .iter()
        .map(|day| day.parse::<Date>().map_err(|e| format!("calendar.holidays {day:?} is no date: {e}")))
        .collect::<Result<Vec<_>, _>>()?;
    let timetable = Timetable { close, open, zone, calendar: BusinessCalendar::new(weekend, holidays) };
    let never = |key: &str| format!("{key}: there is no such time on a business day within two years");
    timetable.next_close(now).ok_or_else(|| never("cron"))?;
    if timetable.open.is_some() {
        timetable.next_open(now).ok_or_else(|| never("open_cron"))?;
    }
    Ok(timetable)
}

fn weekday(name: &str) -> Result<Weekday, String> {
    match name.to_ascii_lowercase().as_str() {
        "monday" => Ok(Weekday::Monday),
        "tuesday" => Ok(Weekday::Tuesday),
        "wednesday" => Ok(Weekday::Wednesday),
        "thursday" => Ok(Weekday::Thursday),
        "friday" => Ok(Weekday::Friday),
        "saturday" => Ok(Weekday::Saturday),
        "sunday" => Ok(Weekday::Sunday),
        _ => Err(format!("calendar.weekend {name:?} is no weekday such as \"saturday\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Schedules, String> {
        let settings: Settings = toml::from_str(text).map_err(|e| e.to_string())?;
        Schedules::new(&settings, "2026-03-02T09:00:00Z".parse().unwrap())
    }

    #[test]
    fn without_settings_there_is_one_manual_schedule() {
        let schedules = read("").unwrap();
        let usd = Currency::new("USD").unwrap();
        assert_eq!(schedules.of(usd).unwrap().name, "manual");
        assert!(schedules.timetable(usd).is_none());
        assert_eq!(schedules.currencies().map(|c| c.to_string()).collect::<Vec<_>>(), ["AED", "EUR", "GBP", "USD"]);
    }

    #[test]
    fn a_whole_schedule_is_read() {
        let schedules = read(
            r#"
            [[schedules]]
            name = "intraday"
            currencies = ["EUR", "USD"]
            mode = "cron"
            cron = "0 11,14,17 * * *"
            open_cron = "0 7 * * *"
            time_zone = "Europe/Zurich"
            grace_seconds = 30
            calendar = { weekend = ["saturday", "Sunday"], holidays = ["2026-12-25"] }
            [[schedules]]
            name = "by-hand"
            currencies = ["AED"]
            mode = "manual"
            "#,
        )
        .unwrap();
        assert!(schedules.timetable(Currency::new("EUR").unwrap()).is_some());
        assert_eq!(schedules.named("by-hand").unwrap().currencies.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cron = |rest: &str| format!("[[schedules]]\nname = \"a\"\ncurrencies = [\"USD\"]\nmode = \"cron\"\n{rest}");
        for (text, named) in [
            (cron("cron = \"61 * * * *\""), "61 * * * *"),
            (cron(""), "needs cron"),
            (cron("cron = \"0 17 * * *\"\ntime_zone = \"Mars/Base\""), "Mars/Base"),
            (cron("cron = \"0 17 * * *\"\ncolour = 1"), "colour"),
            (cron("cron = \"0 17 * * *\"\ncalendar = { weekend = [\"funday\"] }"), "funday"),
            (cron("cron = \"0 17 * * *\"\ncalendar = { holidays = [\"2026-02-30\"] }"), "2026-02-30"),
            (cron("cron = \"0 17 * * 6\"\ncalendar = { weekend = [\"saturday\"] }"), "no such time"),
            (cron("cron = \"0 17 * * *\"\ngrace_seconds = 86401"), "86401"),
            ("[[schedules]]\nname = \"a\"\ncurrencies = [\"XXX\"]\nmode = \"manual\"".to_owned(), "XXX"),
            ("[[schedules]]\nname = \"a\"\ncurrencies = []\nmode = \"manual\"".to_owned(), "empty"),
            ("[[schedules]]\nname = \"a b\"\ncurrencies = [\"USD\"]\nmode = \"manual\"".to_owned(), "name"),
            ("[[schedules]]\nname = \"a\"\ncurrencies = [\"USD\"]\nmode = \"manual\"\ncron = \"0 17 * * *\"".to_owned(), "no meaning"),
            ("[[schedules]]\nname = \"a\"\ncurrencies = [\"USD\", \"USD\"]\nmode = \"manual\"".to_owned(), "USD"),
            (
                "[[schedules]]\nname = \"a\"\ncurrencies = [\"USD\"]\nmode = \"manual\"\n[[schedules]]\nname = \"b\"\ncurrencies = [\"USD\"]\nmode = \"manual\"".to_owned(),
                "one open window per currency",
            ),
            (
                "[[schedules]]\nname = \"a\"\ncurrencies = [\"USD\"]\nmode = \"manual\"\n[[schedules]]\nname = \"a\"\ncurrencies = [\"EUR\"]\nmode = \"manual\"".to_owned(),
                "twice",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(named), "{text}\n{error}");
        }
    }
}
