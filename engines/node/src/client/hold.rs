//! `deltran hold`: transactions that compliance holds; four eyes decide.

use clap::{ArgGroup, Args, Subcommand};
use deltran_api::compliance::v1::{
    DecideHoldRequest, GetHoldRequest, GetHoldResponse, Hold, ListHoldsRequest, ListHoldsResponse, ProposeHoldRequest,
};
use deltran_runtime::Role;

use super::{ClientArgs, Rows, Session, list, pages};
use crate::output::{Output, sheet, shown, table, time};
use crate::problem::Problem;

/// Compliance holds: list, show, propose, decide
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran hold list --state PLACED
  deltran hold propose 0190c3d5-0000-7000-8000-000000000001 --release --reason \"another person\"
  deltran hold decide 0190c3d5-0000-7000-8000-000000000001 --approve

Role compliance is assumed, user \"compliance\" to propose and \"compliance-approver\" to decide: it takes two people.")]
pub struct HoldArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists holds
    #[command(after_help = "Examples:\n  deltran hold list --state RELEASE_PROPOSED")]
    List {
        /// Only those in this state: PLACED, RELEASE_PROPOSED, REJECT_PROPOSED, RELEASING, REJECTING, RELEASED, REJECTED
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Shows a hold with the matches that led to it, and why
    #[command(after_help = "Examples:\n  deltran hold show 0190c3d5-0000-7000-8000-000000000001")]
    Show {
        /// The hold
        id: String,
    },
    /// Proposes what becomes of a hold
    #[command(
        group(ArgGroup::new("what").required(true).args(["release", "reject"])),
        after_help = "Examples:\n  deltran hold propose 0190c3d5-0000-7000-8000-000000000001 --reject --reason \"listed person\""
    )]
    Propose {
        /// The hold
        id: String,
        /// Release the transaction
        #[arg(long)]
        release: bool,
        /// Reject the transaction
        #[arg(long)]
        reject: bool,
        /// Why, for the record
        #[arg(long)]
        reason: String,
    },
    /// Decides a proposal of another officer
    #[command(
        group(ArgGroup::new("what").required(true).args(["approve", "disagree"])),
        after_help = "Examples:\n  deltran hold decide 0190c3d5-0000-7000-8000-000000000001 --approve --user grace"
    )]
    Decide {
        /// The hold
        id: String,
        /// Do as proposed
        #[arg(long)]
        approve: bool,
        /// Leave the hold in place
        #[arg(long)]
        disagree: bool,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: HoldArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    match args.command {
        Command::List { state, rows } => {
            let client = session.compliance(session.caller(Role::Compliance, "compliance", None)?);
            let state = state.unwrap_or_default().to_ascii_uppercase().replace('-', "_");
            let (holds, more) = pages(&rows, async |page| {
                let request = ListHoldsRequest { page, state: state.clone() };
                let answer = client.clone().list_holds(request).await?.into_inner();
                Ok((answer.holds, answer.next_page_token))
            })
            .await?;
            show(&session, holds, more);
        }
        Command::Show { id } => {
            let mut client = session.compliance(session.caller(Role::Compliance, "compliance", None)?);
            let answer = client.get_hold(GetHoldRequest { hold_id: id }).await?.into_inner();
            out.show("deltran.compliance.v1.GetHoldResponse", &answer, one);
        }
        Command::Propose { id, release, reject: _, reason } => {
            let mut client = session.compliance(session.caller(Role::Compliance, "compliance", None)?);
            let request = ProposeHoldRequest { hold_id: id, release, reason };
            let answer = client.propose_hold(request).await?.into_inner();
            show(&session, answer.hold.into_iter().collect(), false);
        }
        Command::Decide { id, approve, disagree: _, reason } => {
            let mut client = session.compliance(session.caller(Role::Compliance, "compliance-approver", None)?);
            let request = DecideHoldRequest { hold_id: id, approve, reason };
            let answer = client.decide_hold(request).await?.into_inner();
            show(&session, answer.hold.into_iter().collect(), false);
        }
    }
    Ok(())
}

fn one(answer: &GetHoldResponse) -> String {
    let hold = answer.hold.clone().unwrap_or_default();
    let mut parts = vec![sheet([
        ("hold", hold.hold_id),
        ("transaction", hold.transaction_id),
        ("state", hold.state),
        ("evidence", hold.evidence),
        ("named", hold.matched_name),
        ("lists", hold.list_versions.join(", ")),
        ("rules", hold.rule_version),
        ("proposed by", hold.proposed_by),
        ("decided by", hold.decided_by),
        ("reason", hold.reason),
        ("placed at", time(&hold.placed_at)),
    ])];
    if !hold.matches.is_empty() {
        parts.push(list::matches(&hold.matches));
        parts.extend(hold.matches.iter().map(list::reasons));
    }
    parts.join("\n")
}

fn show(session: &Session, holds: Vec<Hold>, more: bool) {
    let answer = ListHoldsResponse { holds, next_page_token: String::new() };
    session.out.show("deltran.compliance.v1.ListHoldsResponse", &answer, |a| {
        let rows = a.holds.iter().map(|h| {
            [
                h.hold_id.clone(),
                h.transaction_id.clone(),
                h.state.clone(),
                h.evidence.clone(),
                h.matched_name.clone(),
                h.proposed_by.clone(),
                h.decided_by.clone(),
                time(&h.placed_at),
            ]
        });
        let head = ["hold", "transaction", "state", "evidence", "matched", "proposed by", "decided by", "placed at"];
        format!("{}\n{}", table(head, rows), shown(a.holds.len(), "holds", more))
    });
}
