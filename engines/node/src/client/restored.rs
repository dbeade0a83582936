//! `deltran restored`: what a restored database does not know of any more, and going on.

use clap::{Args, Subcommand};
use deltran_api::platform::v1::{ListBeyondRequest, ListBeyondResponse};
use deltran_api::token::v1::{ResumeLedgerRequest, ResumeLedgerResponse};

use super::{ClientArgs, Rows, Session, id_or_fresh, pages};
use crate::output::{Output, shown, table};
use crate::problem::Problem;

/// After a restore: list what the database does not know of, let the ledger go on
#[derive(Debug, Args)]
#[command(
    after_help = "Where the database was restored to an earlier moment than the broker, the ledger takes nothing until an operator \
has seen what is missing. The order of steps is in ops/runbooks/backup-restore.md.

Examples:
  deltran restored list
  deltran restored resume --reason \"compared with the banks, incident 31\"

Role operator is assumed, user \"operator\"."
)]
pub struct RestoredArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists events that the streams have and the restored database never gave out
    #[command(
        after_help = "Examples:\n  deltran restored list --limit 0 --json\n  deltran audit events --correlation 0190c3d5-0000-7000-8000-0000000000a1   # \
one of them, with its data"
    )]
    List {
        #[command(flatten)]
        rows: Rows,
    },
    /// Ends the wait: the ledger takes submissions again
    #[command(after_help = "Examples:\n  deltran restored resume --reason \"compared with the banks, incident 31\"")]
    Resume {
        /// What was decided about the missing events, for the record
        #[arg(long)]
        reason: String,
        /// Idempotency key [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        id: Option<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: RestoredArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let caller = session.operator()?;
    match args.command {
        Command::List { rows } => {
            let client = session.platform(caller);
            let (events, more) = pages(&rows, async |page| {
                let answer = client.clone().list_beyond(ListBeyondRequest { page }).await?.into_inner();
                Ok((answer.events, answer.next_page_token))
            })
            .await?;
            let answer = ListBeyondResponse { events, next_page_token: String::new() };
            session.out.show("deltran.platform.v1.ListBeyondResponse", &answer, |a| list(a, more));
        }
        Command::Resume { reason, id } => {
            let request = ResumeLedgerRequest { command_id: id_or_fresh(&id), reason };
            let answer = session.token(caller).resume_ledger(request).await?.into_inner();
            session.out.show("deltran.token.v1.ResumeLedgerResponse", &answer, |_: &ResumeLedgerResponse| {
                "the ledger takes submissions".to_owned()
            });
        }
    }
    Ok(())
}

fn list(answer: &ListBeyondResponse, more: bool) -> String {
    let rows = answer.events.iter().map(|e| {
        [
            format!("{} {}", e.producer, e.producer_seq),
            e.subject.clone(),
            e.correlation_id.clone(),
            e.participant_id.clone(),
            format!("{} {}", e.stream, e.stream_sequence),
        ]
    });
    let head = ["producer and number", "subject", "belongs to", "participant", "stands in"];
    format!("{}\n{}", table(head, rows), shown(answer.events.len(), "events", more))
}
