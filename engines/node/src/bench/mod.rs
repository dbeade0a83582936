//! `deltran bench`: what the platform does in a second on this machine, measured on real servers.

mod audit;
mod bulk;
mod calibrate;
mod check;
mod exports;
mod figure;
mod file;
mod ground;
mod idle;
mod ledger;
mod load;
mod machine;
mod netting;
mod platform;
mod proofs;
mod report;
mod screening;
mod stream;
mod unary;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use deltran_runtime::boot::stop_signal;

use audit::AuditBench;
use bulk::BulkBench;
use check::{AllBench, CheckBench};
use file::FileBench;
use idle::IdleBench;
use ledger::LedgerBench;
use netting::NettingBench;
use report::Report;
use screening::ScreeningBench;
use unary::UnaryBench;

use crate::output::Output;
use crate::problem::Problem;

/// Measure the platform on this machine
#[derive(Debug, Args)]
#[command(
    after_help = "Each measurement starts private servers of its own, with fsync on, in a folder that it empties first and \
removes at the
end; netting and screening need no server. The first part of each run warms up; the median of the runs counts. Figures
depend on the machine, and on what else it does: the report says how loaded it was. Build with --release.

Examples:
  deltran bench audit
  deltran bench audit --runs 3 --keep-results bench --json"
)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Bench,
    #[command(flatten)]
    setting: Setting,
}

/// What every measurement is given.
#[derive(Debug, Clone, Args)]
pub struct Setting {
    /// Timed runs
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// The seed of the load
    #[arg(long, global = true, default_value_t = 20_261_120)]
    pub seed: u64,
    /// Where the servers live; emptied first
    #[arg(long, global = true, value_name = "DIR", default_value = "./data/bench")]
    pub data: PathBuf,
    /// Leave the servers' folder for a look
    #[arg(long, global = true)]
    pub keep_data: bool,
    /// Add the report to RESULTS.md and results.json of this folder
    #[arg(long, global = true, value_name = "DIR")]
    pub keep_results: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Bench {
    #[command(flatten)]
    Measure(Measurement),
    Check(CheckBench),
}

#[derive(Debug, Subcommand)]
enum Measurement {
    Audit(AuditBench),
    Bulk(BulkBench),
    Unary(UnaryBench),
    File(FileBench),
    Idle(IdleBench),
    Ledger(LedgerBench),
    Netting(NettingBench),
    Screening(ScreeningBench),
    All(AllBench),
}

/// Makes one measurement.
async fn measure(what: &Measurement, setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    match what {
        Measurement::Audit(args) => audit::run(args, setting, report).await,
        Measurement::Bulk(args) => bulk::run(args, setting, report).await,
        Measurement::Unary(args) => unary::run(args, setting, report).await,
        Measurement::File(args) => file::run(args, setting, report).await,
        Measurement::Idle(args) => idle::run(args, setting, report).await,
        Measurement::Ledger(args) => ledger::run(args, setting, report).await,
        Measurement::Netting(args) => netting::run(args, setting, report),
        Measurement::Screening(args) => screening::run(args, setting, report),
        Measurement::All(AllBench {}) => check::everything(&[], setting, report).await,
    }
}

/// Measures, prints, and keeps the report where that is wanted.
///
/// # Errors
/// Where a measurement cannot be made.
pub async fn run(args: BenchArgs, out: Output) -> Result<(), Problem> {
    let stop = stop_signal().map_err(|e| Problem::refused(format!("signals: {e}")))?;
    let setting = &args.setting;
    let mut report = Report::begin();
    if cfg!(debug_assertions) {
        report.set("build", "debug: figures say little, build with --release");
    }
    let keep = |report: &Report| setting.keep_results.as_ref().map_or(Ok(()), |folder| report.keep(folder));
    let done = async {
        match &args.command {
            Bench::Measure(what) => {
                measure(what, setting, &mut report).await?;
                keep(&report)?;
                report.show(out);
                Ok(())
            }
            // It prints what it compared.
            Bench::Check(against) => {
                check::check(against, setting, &mut report, out).await?;
                keep(&report)
            }
        }
    };
    tokio::select! {
        done = done => done,
        () = stop => {
            // What was under way has let go of its servers, and they stop.
            ground::until("the servers to stop", Duration::from_millis(50), async || {
                (machine::processes(std::process::id()).len() <= 1).then_some(())
            })
            .await?;
            Err(Problem::refused("stopped"))
        }
    }
}
