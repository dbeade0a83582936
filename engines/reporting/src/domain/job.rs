//! Reports as jobs: what one is about, and its states.
//!
//! ```text
//! REQUESTED → WAITING ⇄ WRITING → COMPLETED → EXPIRED        REQUESTED | WAITING | WRITING → FAILED
//! ```

use std::collections::BTreeSet;

use deltran_events::data::reporting::{ReportFormat, ReportKind};
use deltran_kernel::{Currency, NettingSetId, ParticipantId, ReportId, Timestamp, WindowId};

use super::day::Day;

/// Where a report stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Stored; its event is on the way.
    Requested,
    /// Events that it needs have not all arrived.
    Waiting,
    /// Its files are being written.
    Writing,
    /// Its files are there.
    Completed,
    /// It cannot be written.
    Failed,
    /// Its files were removed.
    Expired,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Requested, Self::Waiting, Self::Writing, Self::Completed, Self::Failed, Self::Expired];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::Waiting => "WAITING",
            Self::Writing => "WRITING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Expired => "EXPIRED",
        }
    }

    /// The state of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether a report may go from here to `next`.
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Requested, Self::Waiting)
                | (Self::Waiting, Self::Writing)
                | (Self::Writing, Self::Waiting | Self::Completed)
                | (Self::Requested | Self::Waiting | Self::Writing, Self::Failed)
                | (Self::Completed, Self::Expired)
        )
    }
}

/// Turns that a process takes at a report before it gives it up, a few seconds: after a long stop the events that the
/// report waits for may be on their way.
const LEAST_TRIES: u32 = 6;

/// Whether a report that has waited so long, and had so many turns in this process, is given up.
pub fn gives_up(waited_micros: i64, give_up_hours: u32, tries: u32) -> bool {
    waited_micros > i64::from(give_up_hours) * 3_600_000_000 && tries >= LEAST_TRIES
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A statement of a business day.
    Day(ParticipantId, Currency, Day),
    /// A statement of a window.
    Window(ParticipantId, Currency, WindowId),
    /// The settlement of a window.
    SettledWindow(WindowId),
    /// The settlement of a netting set.
    SettledSet(NettingSetId),
    /// A trial balance, of one currency or of all.
    Trial {
        /// The currency; none is all.
        currency: Option<Currency>,
        /// Whether the ledger checks its invariants as well.
        verify_ledger: bool,
    },
}

/// A report that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What it is about.
    pub about: About,
    /// Its files, in order, each once.
    pub formats: Vec<ReportFormat>,
}

/// The fields of a request, before they are found to fit together.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// What it is.
    pub kind: Option<ReportKind>,
    /// Whose.
    pub participant: Option<ParticipantId>,
    /// Of which currency.
    pub currency: Option<Currency>,
    /// Of which day.
    pub day: Option<Day>,
    /// Of which window.
    pub window: Option<WindowId>,
    /// Of which netting set.
    pub set: Option<NettingSetId>,
    /// In which forms; none means all that the kind has.
    pub formats: Vec<ReportFormat>,
    /// Whether the ledger checks its invariants.
    pub verify_ledger: bool,
}

/// A field that does not fit, and what to do.
pub type Unfit = (&'static str, String);

impl About {
    /// What kind of report it is.
    pub const fn kind(&self) -> ReportKind {
        match self {
            Self::Day(..) | Self::Window(..) => ReportKind::Statement,
            Self::SettledWindow(_) | Self::SettledSet(_) => ReportKind::Settlement,
            Self::Trial { .. } => ReportKind::TrialBalance,
        }
    }

    /// Whose it is; none is the operator's.
    pub const fn participant(&self) -> Option<ParticipantId> {
        match *self {
            Self::Day(who, ..) | Self::Window(who, ..) => Some(who),
            _ => None,
        }
    }

    /// Its fields again.
    pub fn fields(&self) -> Fields {
        let mut fields = Fields { kind: Some(self.kind()), participant: self.participant(), ..Fields::default() };
        match *self {
            Self::Day(_, currency, day) => (fields.currency, fields.day) = (Some(currency), Some(day)),
            Self::Window(_, currency, window) => (fields.currency, fields.window) = (Some(currency), Some(window)),
            Self::SettledWindow(window) => fields.window = Some(window),
            Self::SettledSet(set) => fields.set = Some(set),
            Self::Trial { currency, verify_ledger } => {
                (fields.currency, fields.verify_ledger) = (currency, verify_ledger);
            }
        }
        fields
    }
}

/// The forms that a kind of report has.
pub const fn formats_of(kind: ReportKind) -> &'static [ReportFormat] {
    match kind {
        ReportKind::Statement => &[ReportFormat::Csv, ReportFormat::Html, ReportFormat::Camt053],
        ReportKind::Settlement | ReportKind::TrialBalance => &[ReportFormat::Csv, ReportFormat::Html],
    }
}

/// Reads formats: each once, in their order; none means all of the kind.
///
/// # Errors
/// A format that the kind does not have.
pub fn formats(kind: ReportKind, asked: &[ReportFormat]) -> Result<Vec<ReportFormat>, Unfit> {
    let has = formats_of(kind);
    if let Some(format) = asked.iter().find(|format| !has.contains(format)) {
        return Err(("formats", format!("a report of kind {kind} has no format {format}")));
    }
    let chosen: BTreeSet<ReportFormat> = if asked.is_empty() { has } else { asked }.iter().copied().collect();
    Ok(chosen.into_iter().collect())
}

impl Subject {
    /// A subject from the fields of a request. `today` is the present business day.
    ///
    /// # Errors
    /// The first field that is missing, has no meaning with the kind, or lies ahead.
    pub fn new(fields: Fields, today: Day) -> Result<Self, Unfit> {
        let Fields { kind, participant, currency, day, window, set, verify_ledger, .. } = fields;
        let kind = kind.ok_or(("kind", "is missing".to_owned()))?;
        let no_meaning = |field: &'static str| (field, format!("has no meaning for a report of kind {kind}"));
        let idle = match kind {
            ReportKind::Statement => [("netting_set_id", set.is_some()), ("verify_ledger", verify_ledger)].to_vec(),
            ReportKind::Settlement => vec![
                ("participant", participant.is_some()),
                ("currency", currency.is_some()),
                ("day", day.is_some()),
                ("verify_ledger", verify_ledger),
            ],
            ReportKind::TrialBalance => vec![
                ("participant", participant.is_some()),
                ("day", day.is_some()),
                ("window_id", window.is_some()),
                ("netting_set_id", set.is_some()),
            ],
        };
        if let Some((field, _)) = idle.into_iter().find(|(_, given)| *given) {
            return Err(no_meaning(field));
        }
        let missing = |field: &'static str| (field, format!("is missing: a report of kind {kind} needs it"));
        let about = match kind {
            ReportKind::Statement => {
                let participant = participant.ok_or_else(|| missing("participant"))?;
                let currency = currency.ok_or_else(|| missing("currency"))?;
                match (day, window) {
                    (Some(day), None) if day > today => {
                        return Err(("day", format!("{day} lies ahead: today is {today}")));
                    }
                    (Some(day), None) => About::Day(participant, currency, day),
                    (None, Some(window)) => About::Window(participant, currency, window),
                    _ => return Err(("day", "a statement takes either a day or a window_id".to_owned())),
                }
            }
            ReportKind::Settlement => match (window, set) {
                (Some(window), None) => About::SettledWindow(window),
                (None, Some(set)) => About::SettledSet(set),
                _ => {
                    let what = "a settlement report takes either a window_id or a netting_set_id".to_owned();
                    return Err(("window_id", what));
                }
            },
            ReportKind::TrialBalance => About::Trial { currency, verify_ledger },
        };
        Ok(Self { about, formats: formats(kind, &fields.formats)? })
    }
}

/// A report as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its id.
    pub id: ReportId,
    /// Its place in the order of requests.
    pub number: i64,
    /// What it is about.
    pub subject: Subject,
    /// Where it stands.
    pub state: State,
    /// What it waits for, or why it failed.
    pub note: String,
    /// Who asked for it.
    pub requested_by: String,
    /// The schedule that asked for it.
    pub schedule: Option<String>,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it was completed.
    pub completed_at: Option<Timestamp>,
    /// When its files are removed.
    pub expires_at: Option<Timestamp>,
    /// Its files, the manifest last.
    pub files: Vec<File>,
}

/// A file of a report.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct File {
    /// Its name, without a folder.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Rows of entries, legs or accounts.
    pub entries: u64,
}

impl Report {
    /// The folder of its files, relative to that of all reports. Made of typed values only, so that it cannot lead
    /// elsewhere.
    pub fn folder(&self) -> String {
        let id = self.id;
        match self.subject.about {
            About::Day(who, currency, day) => format!("statement/{day}/{who}-{currency}-{id}"),
            About::Window(who, currency, window) => format!("statement/window-{window}/{who}-{currency}-{id}"),
            About::SettledWindow(window) => format!("settlement/window-{window}-{id}"),
            About::SettledSet(set) => format!("settlement/netting-set-{set}-{id}"),
            About::Trial { currency: Some(currency), .. } => format!("trial-balance/{currency}-{id}"),
            About::Trial { currency: None, .. } => format!("trial-balance/{id}"),
        }
    }
}

/// The type of a file's content, by its name.
pub fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("csv") => "text/csv; charset=utf-8; header=present",
        Some("html") => "text/html; charset=utf-8",
        Some("xml") => "application/xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today() -> Day {
        "2026-03-31".parse().unwrap()
    }

    fn statement() -> Fields {
        Fields {
            kind: Some(ReportKind::Statement),
            participant: Some("ALFAAEXX".parse().unwrap()),
            currency: Some(Currency::new("USD").unwrap()),
            day: Some(today()),
            ..Fields::default()
        }
    }

    fn window() -> Option<WindowId> {
        Some("0190c3d5-0000-7000-8000-000000000001".parse().unwrap())
    }

    fn set() -> Option<NettingSetId> {
        Some("0190c3d5-0000-7000-8000-000000000002".parse().unwrap())
    }

    #[test]
    fn fields_fit_together_or_the_first_that_does_not_is_named() {
        let settlement = Fields { kind: Some(ReportKind::Settlement), ..Fields::default() };
        let trial = Fields { kind: Some(ReportKind::TrialBalance), ..Fields::default() };
        for (fields, field) in [
            (Fields::default(), "kind"),
            (Fields { participant: None, ..statement() }, "participant"),
            (Fields { currency: None, ..statement() }, "currency"),
            (Fields { day: None, ..statement() }, "day"),
            (Fields { window: window(), ..statement() }, "day"),
            (Fields { day: Some(today().next()), ..statement() }, "day"),
            (Fields { set: set(), ..statement() }, "netting_set_id"),
            (Fields { verify_ledger: true, ..statement() }, "verify_ledger"),
            (settlement.clone(), "window_id"),
            (Fields { window: window(), set: set(), ..settlement.clone() }, "window_id"),
            (Fields { window: window(), day: Some(today()), ..settlement.clone() }, "day"),
            (Fields { window: window(), formats: vec![ReportFormat::Camt053], ..settlement.clone() }, "formats"),
            (Fields { window: window(), ..trial.clone() }, "window_id"),
        ] {
            assert_eq!(Subject::new(fields.clone(), today()).unwrap_err().0, field, "{fields:?}");
        }
        for fields in [
            statement(),
            Fields { day: None, window: window(), ..statement() },
            Fields { window: window(), ..settlement.clone() },
            Fields { set: set(), ..settlement },
            Fields { verify_ledger: true, ..trial },
        ] {
            let subject = Subject::new(fields.clone(), today()).unwrap();
            let again = Subject::new(Fields { formats: subject.formats.clone(), ..subject.about.fields() }, today());
            assert_eq!(again.as_ref(), Ok(&subject), "{fields:?}");
        }
    }

    #[test]
    fn a_report_is_given_up_after_its_time_and_not_at_the_first_turn_after_a_long_stop() {
        let hour = 3_600_000_000;
        assert!(!gives_up(hour, 1, 99));
        assert!(!gives_up(hour * 100, 1, 0) && !gives_up(hour * 100, 1, LEAST_TRIES - 1));
        assert!(gives_up(hour + 1, 1, LEAST_TRIES));
    }

    #[test]
    fn formats_stand_once_and_in_order() {
        use ReportFormat::{Camt053, Csv, Html};
        assert_eq!(formats(ReportKind::Statement, &[]).unwrap(), [Csv, Html, Camt053]);
        assert_eq!(formats(ReportKind::Statement, &[Camt053, Csv, Camt053]).unwrap(), [Csv, Camt053]);
        assert_eq!(formats(ReportKind::TrialBalance, &[]).unwrap(), [Csv, Html]);
    }

    #[test]
    fn what_ended_stays_and_what_is_not_drawn_is_refused() {
        use State::*;
        let drawn = [
            (Requested, Waiting),
            (Waiting, Writing),
            (Writing, Waiting),
            (Writing, Completed),
            (Requested, Failed),
            (Waiting, Failed),
            (Writing, Failed),
            (Completed, Expired),
        ];
        for from in State::ALL {
            for to in State::ALL {
                assert_eq!(from.may_become(to), drawn.contains(&(from, to)), "{from:?} {to:?}");
            }
            assert_eq!(State::from_word(from.as_str()), Some(from));
        }
    }
}
