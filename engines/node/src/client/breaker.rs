//! `deltran breaker`: stops business of a currency, a participant or everybody.

use clap::{Args, Subcommand};
use deltran_api::risk::v1::{
    Breaker, CloseBreakerRequest, ListBreakersRequest, ListBreakersResponse, TripBreakerRequest,
};
use deltran_runtime::Role;

use super::{ClientArgs, Session, id_or_fresh};
use crate::output::{Output, table, time};
use crate::problem::Problem;

/// Breakers: list, trip, close
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran breaker trip currency:USD --reason \"reference rate missing\"
  deltran breaker close currency:USD --reason \"rate is back\"

Role risk is assumed, user \"risk\".")]
pub struct BreakerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists breakers
    #[command(after_help = "Examples:\n  deltran breaker list --json")]
    List,
    /// Opens a breaker: transactions of its scope are refused
    #[command(after_help = "Examples:
  deltran breaker trip global --reason \"incident 12\"
  deltran breaker trip participant:ALFAAEXX --reason \"suspicious burst\"")]
    Trip(Change),
    /// Closes a breaker: transactions of its scope pass again
    #[command(after_help = "Examples:\n  deltran breaker close global --reason \"incident 12 is over\"")]
    Close(Change),
}

#[derive(Debug, Args)]
struct Change {
    /// global, currency:USD or participant:ALFAAEXX
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
    match args.command {
        Command::List => {
            let answer = client.list_breakers(ListBreakersRequest {}).await?.into_inner();
            show(&session, answer.breakers);
        }
        Command::Trip(change) => {
            let Change { scope, reason, id } = change;
            let request = TripBreakerRequest { command_id: id_or_fresh(&id), scope, reason };
            let answer = client.trip_breaker(request).await?.into_inner();
            show(&session, answer.breaker.into_iter().collect());
        }
        Command::Close(change) => {
            let Change { scope, reason, id } = change;
            let request = CloseBreakerRequest { command_id: id_or_fresh(&id), scope, reason };
            let answer = client.close_breaker(request).await?.into_inner();
            show(&session, answer.breaker.into_iter().collect());
        }
    }
    Ok(())
}

fn show(session: &Session, breakers: Vec<Breaker>) {
    let answer = ListBreakersResponse { breakers };
    session.out.show("deltran.risk.v1.ListBreakersResponse", &answer, |a| {
        let rows = a
            .breakers
            .iter()
            .map(|b| [b.scope.clone(), b.state.clone(), b.reason.clone(), b.changed_by.clone(), time(&b.changed_at)]);
        table(["scope", "state", "reason", "changed by", "changed at"], rows)
    });
}
