//! The commands.

use clap::{Args, Parser, Subcommand};

use crate::client::{
    ClientArgs,
    account::{self, AccountArgs},
    audit::{self, AuditArgs},
    breaker::{self, BreakerArgs},
    dlq::{self, DlqArgs},
    hold::{self, HoldArgs},
    limit::{self, LimitArgs},
    list::{self, ListArgs},
    participant::{self, ParticipantArgs},
    settlement::{self, SettlementArgs},
    status::{self, StatusArgs},
    transaction::{self, TransactionArgs},
    window::{self, WindowArgs},
};
use crate::demo::{self, DemoArgs};
use crate::generate::{self, GenArgs};
use crate::output::Output;
use crate::problem::Problem;
use crate::serve::{self, ServeArgs};
use crate::services::{self, ServicesArgs};
use crate::topology::{self, TopologyArgs};
use crate::up::{self, UpArgs};

/// Clearing and settlement for banks.
#[derive(Debug, Parser)]
#[command(
    name = "deltran",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 refused or a check failed, 2 wrong usage, 3 a dependency is unavailable.

Examples:
  deltran up
  deltran participant import --file participants.csv
  deltran window open --currency USD,EUR
  deltran transaction submit --file day.csv
  deltran window close --all --wait
  deltran account verify && deltran audit verify"
)]
pub struct Cli {
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(UpArgs),
    Serve(ServeArgs),
    Topology(TopologyArgs),
    Services(ServicesArgs),
    Gen(GenArgs),
    Demo(DemoArgs),
    Status(StatusArgs),
    Participant(ParticipantArgs),
    Account(AccountArgs),
    Transaction(TransactionArgs),
    Window(WindowArgs),
    Settlement(SettlementArgs),
    Limit(LimitArgs),
    Breaker(BreakerArgs),
    List(ListArgs),
    Hold(HoldArgs),
    Audit(AuditArgs),
    Dlq(DlqArgs),
    #[command(hide = true)]
    Bench(Later),
    #[command(hide = true)]
    Case(Later),
    #[command(hide = true)]
    Report(Later),
    #[command(hide = true)]
    Certs(Later),
}

/// A command of the product that this release does not have.
#[derive(Debug, Args)]
struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<String>,
}

impl Cli {
    /// Runs the command; its exit code.
    ///
    /// # Errors
    /// What stopped it.
    pub async fn run(self) -> Result<u8, Problem> {
        let out = Output { json: self.json };
        let client = self.client;
        match self.command {
            Command::Up(args) => up::run(args, out).await?,
            Command::Serve(args) => serve::run(args, out).await?,
            Command::Topology(args) => topology::run(args, out).await?,
            Command::Services(args) => return services::run(args).await,
            Command::Gen(args) => generate::run(&args, out)?,
            Command::Demo(args) => demo::run(args, out).await?,
            Command::Status(args) => status::run(args, client, out).await?,
            Command::Participant(args) => participant::run(args, client, out).await?,
            Command::Account(args) => account::run(args, client, out).await?,
            Command::Transaction(args) => transaction::run(args, client, out).await?,
            Command::Window(args) => window::run(args, client, out).await?,
            Command::Settlement(args) => settlement::run(args, client, out).await?,
            Command::Limit(args) => limit::run(args, client, out).await?,
            Command::Breaker(args) => breaker::run(args, client, out).await?,
            Command::List(args) => list::run(args, client, out).await?,
            Command::Hold(args) => hold::run(args, client, out).await?,
            Command::Audit(args) => audit::run(args, client, out).await?,
            Command::Dlq(args) => dlq::run(args, client, out).await?,
            Command::Bench(_) => return Err(Problem::not_in_this_release("`deltran bench`")),
            Command::Case(_) => return Err(Problem::not_in_this_release("`deltran case`")),
            Command::Report(_) => return Err(Problem::not_in_this_release("`deltran report`")),
            Command::Certs(_) => return Err(Problem::not_in_this_release("`deltran certs`")),
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_sound() {
        Cli::command().debug_assert();
    }

    /// Walks every command: each one that a person may type shows how.
    #[test]
    fn every_command_has_examples() {
        fn walk(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:"), "{path} has no examples");
                assert!(sub.get_about().is_some(), "{path} says nothing about itself");
                walk(sub, &path);
            }
        }
        walk(&Cli::command(), "deltran");
    }

    #[test]
    fn wrong_usage_is_told_by_the_parser() {
        for line in [
            "deltran",
            "deltran serve",
            "deltran transaction submit",
            "deltran transaction submit --file a.csv --payer ALFAAEXX",
            "deltran transaction submit --file a.csv --batch 0",
            "deltran window close",
            "deltran window close --all --currency USD",
            "deltran window list --state ajar",
            "deltran hold propose x --reason y",
            "deltran account deposit --participant ALFAAEXX",
            "deltran status --role king",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        for line in [
            "deltran up --data d --grpc-port 0",
            "deltran transaction submit --file a.csv --json",
            "deltran transaction submit --payer A --payee B --amount 1 --currency USD --gross --two-phase --expires 5",
            "deltran window close --currency USD,EUR --and-open --wait",
            "deltran services --data d -- cargo test --workspace",
            "deltran bench transfers --seconds 5",
            "deltran audit export --from x",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }
}
