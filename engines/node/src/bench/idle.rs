//! `deltran bench idle`: what a platform costs that has nothing to do.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::Setting;
use super::figure::Figure;
use super::load::Load;
use super::machine::{self, Part};
use super::platform::Platform;
use super::report::Report;
use crate::problem::Problem;

const BANKS: usize = 2;

/// Measure a platform that has nothing to do
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "An open window, two banks and no payment: what is left are leases, looks at the clock and at the broker, and \
checkpoints.
Ten milliseconds of processor time a second are one hundredth of a core.

Examples:
  deltran bench idle
  deltran bench idle --runs 1 --seconds 60 --json"
)]
pub struct IdleBench {
    /// How long a run is
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
}

/// Measures.
///
/// # Errors
/// Where something does not start.
pub async fn run(args: &IdleBench, setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    report.set("idle.seconds", args.seconds);
    let load = Load::new(setting.seed, BANKS, false)?;
    let platform = Platform::start(&setting.data.join("idle"), load.banks()).await?;
    let done = measure(args, setting, &platform).await;
    platform.describe(report);
    platform.stop(setting.keep_data).await?;
    let (costs, memory) = done?;
    for (part, name) in
        [(Part::Node, "idle.cpu"), (Part::Postgres, "idle.cpu_postgres"), (Part::Broker, "idle.cpu_broker")]
    {
        let what = format!("idle: processor time of {}", part.name());
        let used = costs.iter().map(|cost| cost.get(&part).copied().unwrap_or_default() / 1e3).collect();
        let figure = Figure::cost(name, &what, "ms/s", used);
        report.add(if part == Part::Node { figure.target(10.0) } else { figure });
    }
    report.add(
        Figure::cost("idle.memory", "idle: memory of the process of all engines", "MiB", vec![memory]).target(150.0),
    );
    Ok(())
}

/// The processor time of each part in each run, in microseconds a second, and the memory after them in mebibytes.
async fn measure(
    args: &IdleBench,
    setting: &Setting,
    platform: &Platform,
) -> Result<(Vec<BTreeMap<Part, f64>>, f64), Problem> {
    // What the start left to do.
    platform.all_in(0).await?;
    let mut costs = Vec::new();
    for _ in 0..setting.runs {
        let (before, started) = (platform.processes(), Instant::now());
        tokio::time::sleep(Duration::from_secs(args.seconds.into())).await;
        let seconds = started.elapsed().as_secs_f64();
        costs.push(machine::cost(&before, &platform.processes(), seconds));
    }
    Ok((costs, platform.memory()))
}
