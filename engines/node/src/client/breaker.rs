//! `deltran breaker`: stops business of a currency, a corridor, a participant or everybody.

use clap::{Args, Subcommand};
use deltran_api::risk::v1::{
    Breaker, BreakerMode, CloseBreakerRequest, ListBreakersRequest, ListBreakersResponse, TripBreakerRequest,
};
use deltran_runtime::Role;

use super::{ClientArgs, Rows, Session, id_or_fresh, pages};
use crate::output::{Output, shown, table, time};
use crate::problem::Problem;

/// Breakers: list, trip, reduce, close
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran breaker trip currency:USD --reason \"reference rate missing\"
  deltran breaker reduce participant:ALFAAEXX --reason \"downgraded\"
  deltran breaker close currency:USD --reason \"rate is back\"

Role risk is assumed, user \"risk\".")]
pub struct BreakerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists breakers
    #[command(after_help = "Examples:\n  deltran breaker list --json\n  deltran breaker list --state OPEN")]
    List {
        /// Only those in this state: CLOSED, OPEN, HALF_OPEN, REDUCING
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Opens a breaker: transactions of its scope are refused
    #[command(after_help = "Examples:
  deltran breaker trip global --reason \"incident 12\"
  deltran breaker trip corridor:AE-IN --reason \"correspondent is down\"
  deltran breaker trip participant:ALFAAEXX --reason \"suspicious burst\"")]
    Trip(Change),
    /// Lets only pass what lowers the net positions of those whom the scope covers
    #[command(after_help = "Examples:\n  deltran breaker reduce participant:ALFAAEXX --reason \"downgraded\"")]
    Reduce(Change),
    /// Closes a breaker: transactions of its scope pass again
    #[command(after_help = "Examples:\n  deltran breaker close global --reason \"incident 12 is over\"")]
    Close(Change),
}

#[derive(Debug, Args)]
struct Change {
    /// global, currency:USD, corridor:AE-IN or participant:ALFAAEXX
    scope: String,
    /// Why, for the record
    #[arg(long)]
    reason: String,
    /// Idempotency key [default: a fresh one]
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: BreakerArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let mut client = session.risk(session.caller(Role::Risk, "risk", None)?);
    let (change, mode) = match args.command {
        Command::List { state, rows } => {
            let (breakers, more) = pages(&rows, async |page| {
                let state = state.clone().unwrap_or_default().to_ascii_uppercase().replace('-', "_");
                let answer = client.clone().list_breakers(ListBreakersRequest { page, state }).await?.into_inner();
                Ok((answer.breakers, answer.next_page_token))
            })
            .await?;
            show(&session, breakers, more);
            return Ok(());
        }
        Command::Close(Change { scope, reason, id }) => {
            let request = CloseBreakerRequest { command_id: id_or_fresh(&id), scope, reason };
            let answer = client.close_breaker(request).await?.into_inner();
            show(&session, answer.breaker.into_iter().collect(), false);
            return Ok(());
        }
        Command::Trip(change) => (change, BreakerMode::Open),
        Command::Reduce(change) => (change, BreakerMode::Reducing),
    };
    let Change { scope, reason, id } = change;
    let request = TripBreakerRequest { command_id: id_or_fresh(&id), scope, reason, mode: mode.into() };
    let answer = client.trip_breaker(request).await?.into_inner();
    show(&session, answer.breaker.into_iter().collect(), false);
    Ok(())
}

fn show(session: &Session, breakers: Vec<Breaker>, more: bool) {
    let answer = ListBreakersResponse { breakers, next_page_token: String::new() };
    session.out.show("deltran.risk.v1.ListBreakersResponse", &answer, |a| {
        let rows = a.breakers.iter().map(|b| {
            [
                b.scope.clone(),
                b.state.clone(),
                b.trigger.clone(),
                b.reason.clone(),
                b.changed_by.clone(),
                time(&b.changed_at),
                time(&b.open_until),
            ]
        });
        let head = ["scope", "state", "trigger", "reason", "changed by", "changed at", "open until"];
        format!("{}\n{}", table(head, rows), shown(a.breakers.len(), "breakers", more))
    });
}
