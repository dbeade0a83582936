//! `deltran audit hold`: legal holds, which keep days of the ledger in the database.

use clap::{Args, Subcommand};
use deltran_api::audit::v1::{LegalHold, ListHoldsRequest, ListHoldsResponse, PlaceHoldRequest, ReleaseHoldRequest};
use deltran_kernel::Timestamp;
use deltran_runtime::wire::to_timestamp;

use super::{Caller, Rows, Session, id_or_fresh, pages};
use crate::output::{shown, table, time};
use crate::problem::Problem;

/// What `hold` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "A hold keeps every day that has an event to which all its conditions apply, and the days after it: days
leave the database in order.

Examples:
  deltran audit hold place --participant ALFAAEXX --reason \"case 2026-17\"
  deltran audit hold list --active
  deltran audit hold release 0190c3d5-0000-7000-8000-0000000000d1 --reason \"case closed\""
)]
pub struct HoldArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Places a hold: by participant, correlation id, time of recording, or several of them together
    #[command(after_help = "With --id the command can be repeated without harm.

Examples:
  deltran audit hold place --participant ALFAAEXX --reason \"case 2026-17\"
  deltran audit hold place --correlation 0190c3d5-0000-7000-8000-000000000001 --reason \"dispute\"
  deltran audit hold place --from 2025-11-06T00:00:00Z --to 2025-11-08T00:00:00Z --reason \"inspection\" --json")]
    Place {
        /// Days with events of this participant
        #[arg(long, value_name = "BIC", required_unless_present_any = ["correlation", "from", "to"])]
        participant: Option<String>,
        /// Days with events with this correlation id
        #[arg(long, value_name = "ID")]
        correlation: Option<String>,
        /// Recorded from this time on, RFC 3339
        #[arg(long, value_name = "TIME")]
        from: Option<Timestamp>,
        /// Recorded before this time, RFC 3339
        #[arg(long, value_name = "TIME")]
        to: Option<Timestamp>,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        /// The hold's id [default: a fresh one]
        #[arg(long)]
        id: Option<String>,
    },
    /// Releases a hold: what it kept may go then
    #[command(
        after_help = "Examples:\n  deltran audit hold release 0190c3d5-0000-7000-8000-0000000000d1 --reason \"case closed\""
    )]
    Release {
        /// The hold
        id: String,
        /// Why, for the record
        #[arg(long)]
        reason: String,
    },
    /// Lists holds, newest first
    #[command(after_help = "Examples:\n  deltran audit hold list --active\n  deltran audit hold list --limit 0 --json")]
    List {
        /// Only those that are not released
        #[arg(long)]
        active: bool,
        #[command(flatten)]
        rows: Rows,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(session: &Session, caller: Caller, args: HoldArgs) -> Result<(), Problem> {
    let mut client = session.audit(caller);
    match args.command {
        Command::Place { participant, correlation, from, to, reason, id } => {
            let request = PlaceHoldRequest {
                hold_id: id_or_fresh(&id),
                participant: participant.unwrap_or_default(),
                correlation_id: correlation.unwrap_or_default(),
                from: from.map(to_timestamp),
                to: to.map(to_timestamp),
                reason,
            };
            let answer = client.place_hold(request).await?.into_inner();
            show(session, answer.hold.into_iter().collect(), false);
        }
        Command::Release { id, reason } => {
            let answer = client.release_hold(ReleaseHoldRequest { hold_id: id, reason }).await?.into_inner();
            show(session, answer.hold.into_iter().collect(), false);
        }
        Command::List { active, rows } => {
            let (holds, more) = pages(&rows, async |page| {
                let request = ListHoldsRequest { page, active_only: active };
                let answer = client.clone().list_holds(request).await?.into_inner();
                Ok((answer.holds, answer.next_page_token))
            })
            .await?;
            show(session, holds, more);
        }
    }
    Ok(())
}

fn show(session: &Session, holds: Vec<LegalHold>, more: bool) {
    let answer = ListHoldsResponse { holds, next_page_token: String::new() };
    session.out.show("deltran.audit.v1.ListHoldsResponse", &answer, |answer| {
        let rows = answer.holds.iter().map(|h| {
            let ended = match &h.released_at {
                Some(_) => format!("{} {}: {}", time(&h.released_at), h.released_by, h.release_reason),
                None => String::new(),
            };
            [
                h.hold_id.clone(),
                h.participant.clone(),
                h.correlation_id.clone(),
                time(&h.from),
                time(&h.to),
                h.reason.clone(),
                format!("{} {}", time(&h.placed_at), h.placed_by),
                ended,
            ]
        });
        let head = ["hold", "participant", "correlation", "from", "to", "reason", "placed", "released"];
        format!("{}\n{}", table(head, rows), shown(answer.holds.len(), "holds", more))
    });
}
