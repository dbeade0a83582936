//! `deltran case`: what compliance looks into.

use clap::{ArgGroup, Args, Subcommand};
use deltran_api::compliance::v1::{
    AssignCaseRequest, Case, CaseResponse, CloseCaseRequest, EscalateCaseRequest, GetCaseRequest, GetCaseResponse,
    ListCasesRequest, ListCasesResponse, NoteCaseRequest, OpenCaseRequest, ReopenCaseRequest,
};
use deltran_kernel::Timestamp;
use deltran_runtime::Role;
use deltran_runtime::wire::to_timestamp;
use tonic::{Response, Status};

use super::{ClientArgs, Rows, Session, alert, id_or_fresh, pages};
use crate::output::{Output, sheet, shown, table, time};
use crate::problem::Problem;

/// Compliance cases: open, assign, note, escalate, close, reopen, show, list
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran case list --state OPEN
  deltran case assign 0190c3d5-0000-7000-8000-000000000001 --to ada --due 2026-01-31T17:00:00Z
  deltran case close 0190c3d5-0000-7000-8000-000000000001 --outcome false-positive --reason \"payroll run\"

Role compliance is assumed, user \"compliance\".")]
pub struct CaseArgs {
    #[command(subcommand)]
    command: Command,
}

/// The command's id, its idempotency key.
#[derive(Debug, Args)]
struct CommandId {
    /// The command's id: the same command under the same id is carried out once [default: a fresh one]
    #[arg(long, value_name = "UUID")]
    command_id: Option<String>,
}

impl CommandId {
    fn take(&self) -> String {
        id_or_fresh(&self.command_id)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Opens a case about a participant or a transaction
    #[command(
        group(ArgGroup::new("subject").required(true).args(["participant", "transaction"])),
        after_help = "Examples:\n  deltran case open --participant ALFAAEXX --reason \"tip from the branch\""
    )]
    Open {
        /// About this participant
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// About this transaction
        #[arg(long, value_name = "UUID")]
        transaction: Option<String>,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        /// Until when it should be closed, such as 2026-01-31T17:00:00Z
        #[arg(long, value_name = "TIME")]
        due: Option<Timestamp>,
        #[command(flatten)]
        id: CommandId,
    },
    /// Gives a case to an officer; the first time begins the investigation
    #[command(after_help = "Examples:\n  deltran case assign 0190c3d5-0000-7000-8000-000000000001 --to ada")]
    Assign {
        /// The case
        case: String,
        /// The officer
        #[arg(long, value_name = "USER")]
        to: String,
        /// Until when it should be closed [default: as it is]
        #[arg(long, value_name = "TIME")]
        due: Option<Timestamp>,
        #[command(flatten)]
        id: CommandId,
    },
    /// Writes something down
    #[command(
        after_help = "Examples:\n  deltran case note 0190c3d5-0000-7000-8000-000000000001 --text \"asked the bank\""
    )]
    Note {
        /// The case
        case: String,
        /// What
        #[arg(long)]
        text: String,
        #[command(flatten)]
        id: CommandId,
    },
    /// Brings a case to somebody with more to say
    #[command(
        after_help = "Examples:\n  deltran case escalate 0190c3d5-0000-7000-8000-000000000001 --to grace --reason \"large\""
    )]
    Escalate {
        /// The case
        case: String,
        /// To whom
        #[arg(long, value_name = "USER")]
        to: String,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        id: CommandId,
    },
    /// Ends a case that somebody looked into
    #[command(
        after_help = "Examples:\n  deltran case close 0190c3d5-0000-7000-8000-000000000001 --outcome confirmed --reason \"reported\""
    )]
    Close {
        /// The case
        case: String,
        /// What it came to: confirmed, false-positive, valuable
        #[arg(long)]
        outcome: String,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        id: CommandId,
    },
    /// Goes on with a case that was closed
    #[command(after_help = "Examples:\n  deltran case reopen 0190c3d5-0000-7000-8000-000000000001 --reason \"news\"")]
    Reopen {
        /// The case
        case: String,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        /// Until when it should be closed [default: no due date]
        #[arg(long, value_name = "TIME")]
        due: Option<Timestamp>,
        #[command(flatten)]
        id: CommandId,
    },
    /// Shows a case with its steps and its latest alerts
    #[command(after_help = "Examples:\n  deltran case show 0190c3d5-0000-7000-8000-000000000001 --role auditor")]
    Show {
        /// The case
        case: String,
        #[command(flatten)]
        rows: Rows,
    },
    /// Lists cases
    #[command(after_help = "Examples:\n  deltran case list --assignee ada --state INVESTIGATING")]
    List {
        /// Only those in this state: OPEN, INVESTIGATING, CLOSED
        #[arg(long)]
        state: Option<String>,
        /// Only this officer's
        #[arg(long, value_name = "USER")]
        assignee: Option<String>,
        /// Only those about this participant
        #[arg(long, value_name = "BIC", conflicts_with = "transaction")]
        participant: Option<String>,
        /// Only those about this transaction
        #[arg(long, value_name = "UUID")]
        transaction: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: CaseArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let mut client = session.compliance(session.caller(Role::Compliance, "compliance", None)?);
    let changed = |answer: Result<Response<CaseResponse>, Status>| {
        let answer = answer?.into_inner();
        session.out.show("deltran.compliance.v1.CaseResponse", &answer, |a| one(a.case.as_ref()));
        Ok(())
    };
    match args.command {
        Command::Open { participant, transaction, reason, due, id } => {
            let request = OpenCaseRequest {
                command_id: id.take(),
                participant: participant.unwrap_or_default(),
                transaction_id: transaction.unwrap_or_default(),
                reason,
                due_at: due.map(to_timestamp),
            };
            changed(client.open_case(request).await)
        }
        Command::Assign { case, to, due, id } => {
            let (command_id, due_at) = (id.take(), due.map(to_timestamp));
            changed(client.assign_case(AssignCaseRequest { command_id, case_id: case, assignee: to, due_at }).await)
        }
        Command::Note { case, text, id } => {
            changed(client.note_case(NoteCaseRequest { command_id: id.take(), case_id: case, text }).await)
        }
        Command::Escalate { case, to, reason, id } => {
            let request = EscalateCaseRequest { command_id: id.take(), case_id: case, to_user: to, reason };
            changed(client.escalate_case(request).await)
        }
        Command::Close { case, outcome, reason, id } => {
            let outcome = outcome.to_ascii_lowercase().replace('-', "_");
            changed(client.close_case(CloseCaseRequest { command_id: id.take(), case_id: case, outcome, reason }).await)
        }
        Command::Reopen { case, reason, due, id } => {
            let (command_id, due_at) = (id.take(), due.map(to_timestamp));
            changed(client.reopen_case(ReopenCaseRequest { command_id, case_id: case, reason, due_at }).await)
        }
        Command::Show { case, rows } => {
            let mut answer = GetCaseResponse::default();
            let (steps, more) = pages(&rows, async |page| {
                let request = GetCaseRequest { case_id: case.clone(), page };
                let mut part = client.clone().get_case(request).await?.into_inner();
                let (steps, next) = (std::mem::take(&mut part.steps), std::mem::take(&mut part.next_page_token));
                answer = part;
                Ok((steps, next))
            })
            .await?;
            answer.steps = steps;
            session.out.show("deltran.compliance.v1.GetCaseResponse", &answer, |a| whole(a, more));
            Ok(())
        }
        Command::List { state, assignee, participant, transaction, rows } => {
            let request = ListCasesRequest {
                page: None,
                state: state.unwrap_or_default().to_ascii_uppercase(),
                assignee: assignee.unwrap_or_default(),
                participant: participant.unwrap_or_default(),
                transaction_id: transaction.unwrap_or_default(),
            };
            let (cases, more) = pages(&rows, async |page| {
                let request = ListCasesRequest { page, ..request.clone() };
                let answer = client.clone().list_cases(request).await?.into_inner();
                Ok((answer.cases, answer.next_page_token))
            })
            .await?;
            let answer = ListCasesResponse { cases, next_page_token: String::new() };
            session.out.show("deltran.compliance.v1.ListCasesResponse", &answer, |a| list_table(&a.cases, more));
            Ok(())
        }
    }
}

fn subject(case: &Case) -> String {
    if case.participant.is_empty() { case.transaction_id.clone() } else { case.participant.clone() }
}

fn state(case: &Case) -> String {
    if case.outcome.is_empty() { case.state.clone() } else { format!("{} {}", case.state, case.outcome) }
}

fn one(case: Option<&Case>) -> String {
    let Some(c) = case else { return String::new() };
    sheet([
        ("case", c.case_id.clone()),
        ("participant", c.participant.clone()),
        ("transaction", c.transaction_id.clone()),
        ("state", state(c)),
        ("assignee", c.assignee.clone()),
        ("due at", time(&c.due_at)),
        ("escalated to", c.escalated_to.clone()),
        ("opened", format!("{} by {} ({})", time(&c.opened_at), c.opened_by, c.cause)),
        ("closed at", time(&c.closed_at)),
    ])
}

fn list_table(cases: &[Case], more: bool) -> String {
    let rows = cases.iter().map(|c| {
        [
            c.case_id.clone(),
            subject(c),
            state(c),
            c.assignee.clone(),
            time(&c.due_at),
            c.escalated_to.clone(),
            c.cause.clone(),
            time(&c.opened_at),
        ]
    });
    let head = ["case", "subject", "state", "assignee", "due at", "escalated to", "cause", "opened at"];
    format!("{}\n{}", table(head, rows), shown(cases.len(), "cases", more))
}

fn whole(answer: &GetCaseResponse, more: bool) -> String {
    let rows = answer.steps.iter().map(|s| {
        let what = [&s.to_user, &s.outcome, &s.reference].into_iter().find(|text| !text.is_empty());
        [time(&s.at), s.action.clone(), s.by_user.clone(), what.cloned().unwrap_or_default(), s.text.clone()]
    });
    let steps = table(["at", "step", "by", "to, outcome, id", "text"], rows);
    let mut text = format!("{}\n{steps}\n{}", one(answer.case.as_ref()), shown(answer.steps.len(), "steps", more));
    if !answer.alerts.is_empty() {
        text.push('\n');
        text.push_str(&alert::list_table(&answer.alerts, false));
    }
    text
}
