//! `deltran report`: statements, settlement reports, trial balances; their files and schedules.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use deltran_api::reporting::v1::{
    CreateReportRequest, GetReportRequest, GetReportResponse, ListReportsRequest, ListReportsResponse,
    ListSchedulesRequest, ListSchedulesResponse, Report, ReportFormat, ReportKind, ReportState, ReportSubject,
    Schedule, SetScheduleRequest,
};
use deltran_reporting::domain::trial::tells_of_trouble;
use indicatif::ProgressBar;
use tokio::time::Instant;

use super::report_files::{self, DownloadArgs, VerifyArgs};
use super::{ClientArgs, Rows, Session, id_or_fresh, pages, word_parser};
use crate::output::{Output, sheet, shown, table, time};
use crate::problem::{Kind, Problem};

word_parser!(kind, ReportKind);
word_parser!(state, ReportState);
word_parser!(format, ReportFormat);

const POLL: Duration = Duration::from_millis(150);

/// Statements and reports: create, show, list, download, verify, schedule
#[derive(Debug, Args)]
#[command(
    after_help = "A report is written as soon as every event that it needs has arrived, and until then it is WAITING and says \
for what. Its files come with a manifest of their SHA-256, which `deltran report verify` checks without the platform.

Examples:
  deltran report create statement --participant ALFAAEXX --currency USD --day 2026-03-31 --wait
  deltran report create settlement --window 0190c3d5-0000-7000-8000-000000000001 --wait --out reports
  deltran report create trial-balance --wait
  deltran report list --kind statement --day 2026-03-31

Role operator is assumed, user \"operator\". A bank gets statements of its own: --role bank --participant ALFAAEXX."
)]
pub struct ReportArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks for a report
    #[command(after_help = "Examples:
  deltran report create statement --participant ALFAAEXX --currency USD --day 2026-03-31")]
    Create {
        #[command(subcommand)]
        what: Create,
    },
    /// Shows one report with its files
    #[command(after_help = "Examples:\n  deltran report show 0190c3d5-0000-7000-8000-000000000001")]
    Show {
        /// The report
        id: String,
        /// With --role bank: the bank that asks
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
    },
    /// Lists reports, the newest first
    #[command(after_help = "Examples:
  deltran report list --state waiting,failed
  deltran report list --participant ALFAAEXX --day 2026-03-31")]
    List(ListArgs),
    /// Downloads the files of a report, and goes on where it broke off
    #[command(after_help = report_files::DOWNLOAD_HELP)]
    Download(DownloadArgs),
    /// Checks downloaded files against their manifest, without the platform
    #[command(after_help = report_files::VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Reports that are made by themselves
    #[command(after_help = "Examples:\n  deltran report schedule list")]
    Schedule {
        #[command(subcommand)]
        what: ScheduleCommand,
    },
}

#[derive(Debug, Subcommand)]
enum Create {
    /// What a participant had, received and paid, over a business day or in a settled window
    #[command(after_help = "The present day gives a statement so far.

Examples:
  deltran report create statement --participant ALFAAEXX --currency USD --day 2026-03-31 --format camt053 --wait
  deltran report create statement --participant ALFAAEXX --currency USD --window 0190c3d5-0000-7000-8000-000000000001")]
    Statement {
        /// Whose
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// Of which currency
        #[arg(long)]
        currency: String,
        /// Of this business day: YYYY-MM-DD
        #[arg(long, conflicts_with = "window", required_unless_present = "window")]
        day: Option<String>,
        /// Of this window
        #[arg(long, value_name = "UUID")]
        window: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// A settled window or netting set: gross, count, nets, legs, finality
    #[command(after_help = "Examples:
  deltran report create settlement --window 0190c3d5-0000-7000-8000-000000000001 --wait --out .")]
    Settlement {
        /// Of this window
        #[arg(long, value_name = "UUID", conflicts_with = "netting_set", required_unless_present = "netting_set")]
        window: Option<String>,
        /// Of this netting set
        #[arg(long, value_name = "UUID")]
        netting_set: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Every account, debits and credits, compared with the ledger
    #[command(
        after_help = "Exit code 1 with --wait where it does not tie to the ledger, or an invariant does not hold.

Examples:
  deltran report create trial-balance --wait
  deltran report create trial-balance --currency USD --verify-ledger --wait --out ."
    )]
    TrialBalance {
        /// Of this currency only
        #[arg(long)]
        currency: Option<String>,
        /// Have the ledger check its invariants L1 to L8 as well
        #[arg(long)]
        verify_ledger: bool,
        #[command(flatten)]
        how: How,
    },
}

/// How a report is made and waited for.
#[derive(Debug, Args)]
struct How {
    /// Forms: csv, html, camt053 [default: all that the report has]
    #[arg(long, value_parser = format, value_delimiter = ',')]
    format: Vec<ReportFormat>,
    /// Its id, so that the same request can be sent again [default: a fresh one]
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
    /// Wait until it is written
    #[arg(long)]
    wait: bool,
    /// With --wait: seconds to wait
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
    /// With --wait: download its files into this folder
    #[arg(long, value_name = "DIR", requires = "wait")]
    out: Option<PathBuf>,
}

/// Which reports are listed.
#[derive(Debug, Args)]
struct ListArgs {
    /// Only this kind: statement, settlement, trial-balance
    #[arg(long, value_parser = kind)]
    kind: Option<ReportKind>,
    /// Only those in these states
    #[arg(long, value_parser = state, value_delimiter = ',')]
    state: Vec<ReportState>,
    /// Only this participant's
    #[arg(long, value_name = "BIC")]
    participant: Option<String>,
    /// Only this currency's
    #[arg(long)]
    currency: Option<String>,
    /// Only this day's: YYYY-MM-DD
    #[arg(long)]
    day: Option<String>,
    /// Only this window's
    #[arg(long, value_name = "UUID")]
    window: Option<String>,
    /// Only those of this schedule
    #[arg(long, value_name = "NAME")]
    schedule: Option<String>,
    #[command(flatten)]
    rows: Rows,
}

#[derive(Debug, Subcommand)]
enum ScheduleCommand {
    /// Creates a schedule or changes it
    #[command(after_help = "A schedule that was created or changed begins now. Times that were missed are made up for.

Examples:
  deltran report schedule set daily-statements --kind statement --cron \"15 0 * * *\" --time-zone Europe/Zurich
  deltran report schedule set daily-statements --kind statement --cron \"15 0 * * *\" --disable")]
    Set {
        /// Its name: 1 to 32 letters, digits, - and _
        name: String,
        /// statement: one for every participant and currency, of the day before; or trial-balance
        #[arg(long, value_parser = kind)]
        kind: ReportKind,
        /// Five fields, or six with seconds first
        #[arg(long)]
        cron: String,
        /// Time zone of the times
        #[arg(long, default_value = "UTC", value_name = "NAME")]
        time_zone: String,
        /// Forms: csv, html, camt053 [default: all that the report has]
        #[arg(long, value_parser = format, value_delimiter = ',')]
        format: Vec<ReportFormat>,
        /// Keep it, but do not run it
        #[arg(long)]
        disable: bool,
    },
    /// Lists schedules
    #[command(after_help = "Examples:\n  deltran report schedule list --json")]
    List {
        #[command(flatten)]
        rows: Rows,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers, and with --wait a report that failed.
pub async fn run(args: ReportArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    if let Command::Verify(args) = &args.command {
        return report_files::verify(args, out);
    }
    let session = Session::open(&client, out).await?;
    match args.command {
        Command::Create { what } => create(&session, what).await,
        Command::Show { id, participant } => {
            let mut client = session.reporting(session.operator_or_bank(participant.as_deref())?);
            let answer = client.get_report(GetReportRequest { report_id: id }).await?.into_inner();
            show(&session, answer.report.unwrap_or_default());
            Ok(())
        }
        Command::List(args) => list(&session, args).await,
        Command::Download(args) => report_files::download(&session, &args).await,
        Command::Verify(_) => Ok(()),
        Command::Schedule { what: ScheduleCommand::Set { name, kind, cron, time_zone, format, disable } } => {
            let schedule = Schedule {
                name,
                kind: kind.into(),
                cron,
                time_zone,
                formats: format.into_iter().map(Into::into).collect(),
                enabled: !disable,
                ..Schedule::default()
            };
            let request = SetScheduleRequest { schedule: Some(schedule) };
            let answer = session.reporting(session.operator()?).set_schedule(request).await?.into_inner();
            session
                .out
                .show("deltran.reporting.v1.SetScheduleResponse", &answer, |a| schedules_table(a.schedule.as_slice()));
            Ok(())
        }
        Command::Schedule { what: ScheduleCommand::List { rows } } => {
            let client = session.reporting(session.operator()?);
            let (schedules, more) = pages(&rows, async |page| {
                let answer = client.clone().list_schedules(ListSchedulesRequest { page }).await?.into_inner();
                Ok((answer.schedules, answer.next_page_token))
            })
            .await?;
            let answer = ListSchedulesResponse { schedules, next_page_token: String::new() };
            session.out.show("deltran.reporting.v1.ListSchedulesResponse", &answer, |a| {
                format!("{}\n{}", schedules_table(&a.schedules), shown(a.schedules.len(), "schedules", more))
            });
            Ok(())
        }
    }
}

async fn create(session: &Session, what: Create) -> Result<(), Problem> {
    let (subject, how) = match what {
        Create::Statement { participant, currency, day, window, how } => {
            let subject = ReportSubject {
                kind: ReportKind::Statement.into(),
                participant,
                currency,
                day: day.unwrap_or_default(),
                window_id: window.unwrap_or_default(),
                ..ReportSubject::default()
            };
            (subject, how)
        }
        Create::Settlement { window, netting_set, how } => {
            let subject = ReportSubject {
                kind: ReportKind::Settlement.into(),
                window_id: window.unwrap_or_default(),
                netting_set_id: netting_set.unwrap_or_default(),
                ..ReportSubject::default()
            };
            (subject, how)
        }
        Create::TrialBalance { currency, verify_ledger, how } => {
            let kind = ReportKind::TrialBalance.into();
            let currency = currency.unwrap_or_default();
            (ReportSubject { kind, currency, verify_ledger, ..ReportSubject::default() }, how)
        }
    };
    let participant = Some(subject.participant.clone()).filter(|p| !p.is_empty());
    let subject = ReportSubject { formats: how.format.iter().map(|f| (*f).into()).collect(), ..subject };
    let request = CreateReportRequest { report_id: id_or_fresh(&how.id), subject: Some(subject) };
    let mut client = session.reporting(session.operator_or_bank(participant.as_deref())?);
    let answer = client.create_report(request).await?.into_inner();
    let mut report = answer.report.unwrap_or_default();
    if !how.wait {
        show(session, report);
        return Ok(());
    }
    report = written(session, report, participant.as_deref(), how.timeout).await?;
    if report.state() != ReportState::Completed {
        let why = format!("report {} is {}: {}", report.report_id, report.state().as_str_name(), report.note);
        return Err(Problem::refused(why));
    }
    if let Some(folder) = &how.out {
        report_files::fetch(session, &report, participant.as_deref(), folder, None).await?;
    }
    let is_trial = report.subject.as_ref().is_some_and(|subject| subject.kind() == ReportKind::TrialBalance);
    let trouble = (is_trial && tells_of_trouble(&report.note)).then(|| report.note.clone());
    show(session, report);
    trouble.map_or(Ok(()), |note| Err(Problem::refused(note)))
}

/// Waits until a report is written or has failed.
async fn written(
    session: &Session,
    mut report: Report,
    participant: Option<&str>,
    timeout: u64,
) -> Result<Report, Problem> {
    let deadline = Instant::now() + Duration::from_secs(timeout);
    let bar = if session.out.watched() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let mut client = session.reporting(session.operator_or_bank(participant)?);
    while matches!(report.state(), ReportState::Requested | ReportState::Waiting | ReportState::Writing) {
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            return Err(Problem::unavailable(format!(
                "report {} is {} after {timeout} s{}{}: `deltran report show` tells how it goes on",
                report.report_id,
                report.state().as_str_name(),
                if report.note.is_empty() { "" } else { ", " },
                report.note
            )));
        }
        bar.set_message(format!("{} {}", report.state().as_str_name(), report.note));
        bar.tick();
        tokio::time::sleep(POLL).await;
        match client.get_report(GetReportRequest { report_id: report.report_id.clone() }).await {
            Ok(answer) => report = answer.into_inner().report.unwrap_or_default(),
            // A restart in between is no reason to give up before the deadline.
            Err(status) if Problem::from(status.clone()).kind == Kind::Unavailable => {}
            Err(status) => return Err(status.into()),
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

async fn list(session: &Session, args: ListArgs) -> Result<(), Problem> {
    let client = session.reporting(session.operator_or_bank(args.participant.as_deref())?);
    let filter = ListReportsRequest {
        page: None,
        kind: args.kind.map_or(0, Into::into),
        states: args.state.into_iter().map(Into::into).collect(),
        participant: args.participant.unwrap_or_default(),
        currency: args.currency.unwrap_or_default(),
        day: args.day.unwrap_or_default(),
        window_id: args.window.unwrap_or_default(),
        schedule: args.schedule.unwrap_or_default(),
    };
    let (reports, more) = pages(&args.rows, async |page| {
        let request = ListReportsRequest { page, ..filter.clone() };
        let answer = client.clone().list_reports(request).await?.into_inner();
        Ok((answer.reports, answer.next_page_token))
    })
    .await?;
    let answer = ListReportsResponse { reports, next_page_token: String::new() };
    session.out.show("deltran.reporting.v1.ListReportsResponse", &answer, |a| {
        let rows = a.reports.iter().map(|r| {
            [
                r.report_id.clone(),
                about(r),
                r.state().as_str_name().to_owned(),
                time(&r.requested_at),
                time(&r.completed_at),
                r.requested_by.clone(),
                r.note.clone(),
            ]
        });
        let header = ["report", "about", "state", "requested at", "completed at", "requested by", "note"];
        format!("{}\n{}", table(header, rows), shown(a.reports.len(), "reports", more))
    });
    Ok(())
}

/// What a report is about, in a few words.
fn about(report: &Report) -> String {
    let Some(subject) = &report.subject else { return String::new() };
    let named = |name: &str, value: &str| if value.is_empty() { String::new() } else { format!("{name}{value}") };
    let parts = [
        subject.kind().as_str_name().to_ascii_lowercase().replace('_', " "),
        subject.participant.clone(),
        subject.currency.clone(),
        subject.day.clone(),
        named("window ", &subject.window_id),
        named("netting set ", &subject.netting_set_id),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn show(session: &Session, report: Report) {
    let answer = GetReportResponse { report: Some(report) };
    session.out.show("deltran.reporting.v1.GetReportResponse", &answer, |a| {
        let Some(r) = &a.report else { return String::new() };
        let facts = sheet([
            ("report", r.report_id.clone()),
            ("about", about(r)),
            ("state", r.state().as_str_name().to_owned()),
            ("note", r.note.clone()),
            ("requested by", r.requested_by.clone()),
            ("schedule", r.schedule.clone()),
            ("requested at", time(&r.requested_at)),
            ("completed at", time(&r.completed_at)),
            ("kept until", time(&r.expires_at)),
        ]);
        if r.files.is_empty() {
            return facts;
        }
        let rows =
            r.files.iter().map(|f| [f.name.clone(), f.size.to_string(), f.entries.to_string(), f.sha256.clone()]);
        format!("{facts}\n{}", table(["file", "bytes", "entries", "SHA-256"], rows))
    });
}

fn schedules_table(schedules: &[Schedule]) -> String {
    let rows = schedules.iter().map(|s| {
        let formats: Vec<String> = s.formats().map(|f| f.as_str_name().to_ascii_lowercase()).collect();
        [
            s.name.clone(),
            s.kind().as_str_name().to_ascii_lowercase().replace('_', " "),
            s.cron.clone(),
            s.time_zone.clone(),
            formats.join(" "),
            if s.enabled { time(&s.next_at) } else { "disabled".to_owned() },
            time(&s.last_at),
            s.changed_by.clone(),
        ]
    });
    table(["schedule", "kind", "cron", "time zone", "formats", "next at", "done up to", "changed by"], rows)
}
