//! The commands.

use clap::{Args, Parser, Subcommand};

use crate::bench::{self, BenchArgs};
use crate::client::{
    ClientArgs,
    account::{self, AccountArgs},
    alert::{self, AlertArgs},
    audit::{self, AuditArgs},
    breaker::{self, BreakerArgs},
    case::{self, CaseArgs},
    dlq::{self, DlqArgs},
    endpoint::{self, EndpointArgs},
    exposure::{self, ExposureArgs},
    hold::{self, HoldArgs},
    limit::{self, LimitArgs},
    list::{self, ListArgs},
    notification::{self, NotificationArgs},
    participant::{self, ParticipantArgs},
    report::{self, ReportArgs},
    restored::{self, RestoredArgs},
    rule::{self, RuleArgs},
    settlement::{self, SettlementArgs},
    status::{self, StatusArgs},
    subscription::{self, SubscriptionArgs},
    transaction::{self, TransactionArgs},
    window::{self, WindowArgs},
};
use crate::demo::{self, DemoArgs};
use crate::generate::{self, GenArgs};
use crate::output::Output;
use crate::problem::Problem;
use crate::serve::{self, ServeArgs};
use crate::services::{self, ServicesArgs};
use crate::topology::streams::{self, StreamsArgs};
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
    Exposure(ExposureArgs),
    List(ListArgs),
    Hold(HoldArgs),
    Case(CaseArgs),
    Alert(AlertArgs),
    Rule(RuleArgs),
    Subscription(SubscriptionArgs),
    Notification(NotificationArgs),
    Endpoint(EndpointArgs),
    Report(ReportArgs),
    Audit(AuditArgs),
    Dlq(DlqArgs),
    Streams(StreamsArgs),
    Restored(RestoredArgs),
    Bench(BenchArgs),
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
            Command::Exposure(args) => exposure::run(args, client, out).await?,
            Command::List(args) => list::run(args, client, out).await?,
            Command::Hold(args) => hold::run(args, client, out).await?,
            Command::Case(args) => case::run(args, client, out).await?,
            Command::Alert(args) => alert::run(args, client, out).await?,
            Command::Rule(args) => rule::run(args, client, out).await?,
            Command::Subscription(args) => subscription::run(args, client, out).await?,
            Command::Notification(args) => notification::run(args, client, out).await?,
            Command::Endpoint(args) => endpoint::run(args, client, out).await?,
            Command::Report(args) => report::run(args, client, out).await?,
            Command::Audit(args) => audit::run(args, client, out).await?,
            Command::Dlq(args) => dlq::run(args, client, out).await?,
            Command::Streams(args) => streams::run(args, out).await?,
            Command::Restored(args) => restored::run(args, client, out).await?,
            Command::Bench(args) => bench::run(args, out).await?,
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
            "deltran transaction submit --file a.csv --format pain001",
            "deltran transaction submit --payer A --payee B --amount 1 --currency USD --format csv",
            "deltran transaction submit --payer A --payee B --amount 1 --currency USD --report r.csv",
            "deltran window close",
            "deltran window close --all --currency USD",
            "deltran window list --state ajar",
            "deltran hold propose x --reason y",
            "deltran case open --reason y",
            "deltran case open --participant A --transaction B --reason y",
            "deltran rule set r --kind velocity --window 1w",
            "deltran account deposit --participant ALFAAEXX",
            "deltran limit propose --kind rate --transactions 4 --window-seconds 10 --currency USD --reason r",
            "deltran limit propose --kind rate --transactions 4 --window-seconds 10 --amount 1.00 --currency USD --reason r",
            "deltran status --role king",
            "deltran report create statement --participant A --currency USD",
            "deltran report create statement --participant A --currency USD --day d --window w",
            "deltran report create settlement",
            "deltran report create trial-balance --out d",
            "deltran report list --kind invoice",
            "deltran report schedule set x --kind statement",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        for line in [
            "deltran up --data d --grpc-port 0",
            "deltran transaction submit --file a.csv --json",
            "deltran transaction submit --file - --format pacs008",
            "deltran transaction submit --payer A --payee B --amount 1 --currency USD --gross --two-phase --expires 5",
            "deltran window close --currency USD,EUR --and-open --wait",
            "deltran services --data d -- cargo test --workspace",
            "deltran limit propose --kind rate --transactions 4 --window-seconds 10 --reason r",
            "deltran limit propose --kind bilateral --amount -5.00 --currency USD --reason r",
            "deltran bench audit --runs 1 --count 1000 --json",
            "deltran report create settlement --window w --wait --out d --format csv,html",
            "deltran report create trial-balance --verify-ledger",
            "deltran audit export --from 2025-11-06 --out d",
            "deltran audit verify d --key k",
            "deltran audit verify --database-only",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }
}
