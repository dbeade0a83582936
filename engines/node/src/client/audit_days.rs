//! `deltran audit days`: where the days of the ledger stand.

use clap::Args;
use deltran_api::audit::v1::{ListDaysRequest, ListDaysResponse};

use super::{Caller, Rows, Session, pages};
use crate::output::{count, shown, table, time};
use crate::problem::Problem;

/// What `days` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "A day (UTC, of recording) is ONLINE: in the database; ARCHIVED: in the archive too; or DETACHED: in the
archive only. Newest first.

Examples:
  deltran audit days
  deltran audit days --state detached --limit 0
  deltran audit days --json"
)]
pub struct DaysArgs {
    /// Only those in this state: online, archived, detached
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    rows: Rows,
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(session: &Session, caller: Caller, args: DaysArgs) -> Result<(), Problem> {
    let client = session.audit(caller);
    let state = args.state.unwrap_or_default().to_ascii_uppercase();
    let (days, more) = pages(&args.rows, async |page| {
        let request = ListDaysRequest { page, state: state.clone() };
        let answer = client.clone().list_days(request).await?.into_inner();
        Ok((answer.days, answer.next_page_token))
    })
    .await?;
    let answer = ListDaysResponse { days, next_page_token: String::new() };
    session.out.show("deltran.audit.v1.ListDaysResponse", &answer, |answer| {
        let rows = answer.days.iter().map(|d| {
            let leaves = d.to_leaf.saturating_sub(d.from_leaf);
            let range =
                if leaves == 0 { String::new() } else { format!("{} to {}", d.from_leaf, d.to_leaf.saturating_sub(1)) };
            let note = if d.detached_at.is_some() {
                format!("detached {}", time(&d.detached_at))
            } else {
                d.stays_because.clone()
            };
            [d.day.clone(), d.state.clone(), count(leaves), range, d.archive.clone(), time(&d.archived_at), note]
        });
        let head = ["day", "state", "leaves", "leaf range", "archive", "archived at", "note"];
        format!("{}\n{}", table(head, rows), shown(answer.days.len(), "days", more))
    });
    Ok(())
}
