//! `deltran topology`: streams and consumers against their configuration.

pub mod streams;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use deltran_messaging::topology;
use serde_json::json;

use crate::boot;
use crate::endpoint::{DEFAULT_DATA, Endpoint};
use crate::output::Output;
use crate::problem::Problem;

const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// Streams and consumers: plan, apply, check
#[derive(Debug, Args)]
#[command(
    after_help = "The broker is the one of DELTRAN_NATS_URL or nats.url in deltran.toml, else the one that ./data/endpoint.json \
names, else \
nats://127.0.0.1:4222. Exit code 3 where it does not answer.

Examples:
  deltran topology plan
  deltran topology apply --dir setup --profile production
  deltran topology check || echo drift"
)]
pub struct TopologyArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what apply would change
    #[command(after_help = "Examples:\n  deltran topology plan --json")]
    Plan(Wanted),
    /// Brings streams and consumers into line
    #[command(
        after_help = "A change that keeps or reads less (max_age, max_bytes, subjects, replicas) is refused without --allow-narrowing.

Examples:
  deltran topology apply
  deltran topology apply --dir setup --profile production --allow-narrowing"
    )]
    Apply {
        #[command(flatten)]
        wanted: Wanted,
        /// Also make changes that keep or read less
        #[arg(long)]
        allow_narrowing: bool,
    },
    /// Exit code 1 where anything differs
    #[command(after_help = "Examples:\n  deltran topology check")]
    Check(Wanted),
}

#[derive(Debug, Args)]
struct Wanted {
    /// Folder with streams/, consumers/ and overlays/ [default: the catalog of this program]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// development or production [default: nats.profile of the configuration]
    #[arg(long)]
    profile: Option<String>,
    /// The configuration file [default: ./deltran.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Where the broker does not answer or refuses, and drift for `check`.
pub async fn run(args: TopologyArgs, out: Output) -> Result<(), Problem> {
    let (wanted, apply, check) = match args.command {
        Command::Plan(wanted) => (wanted, None, false),
        Command::Apply { wanted, allow_narrowing } => (wanted, Some(allow_narrowing), false),
        Command::Check(wanted) => (wanted, None, true),
    };
    let config = boot::load(wanted.config.as_deref())?;
    let profile = boot::profile(wanted.profile.as_deref().unwrap_or(&config.nats.profile))?;
    let url = match config.nats.url.as_str() {
        "" => Endpoint::find(Path::new(DEFAULT_DATA)).map_or_else(|| DEFAULT_URL.to_owned(), |endpoint| endpoint.nats),
        url => url.to_owned(),
    };
    let broker = boot::connect(&url, "deltran-topology").await?;
    let plan = topology::plan(&broker, profile, wanted.dir.as_deref()).await?;
    let changes: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
    match apply {
        Some(allow_narrowing) => {
            let done = topology::apply(&broker, &plan, allow_narrowing).await?;
            out.value_or(&json!({ "done": done }), || {
                if done.is_empty() {
                    "nothing to do: streams and consumers are as configured".to_owned()
                } else {
                    done.join("\n")
                }
            });
        }
        None => out.value_or(&json!({ "profile": profile.name(), "changes": changes }), || plan.to_string()),
    }
    if check && !plan.is_empty() {
        let what = if changes.len() == 1 { "one stream or consumer is" } else { "streams and consumers are" };
        return Err(Problem::refused(format!(
            "{what} not as configured ({}): `deltran topology apply` brings them into line",
            changes.len()
        )));
    }
    Ok(())
}
