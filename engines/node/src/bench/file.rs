//! `deltran bench file`: a CSV file of payments, from the command to the last event audited.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use tokio::time::Instant;

use super::Setting;
use super::figure::Figure;
use super::load::Load;
use super::platform::Platform;
use super::report::Report;
use crate::problem::Problem;

/// Measure a file of payments
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The file goes through `deltran transaction submit --file`, a process of its own beside the platform. All-in is the \
time until
clearing has counted every payment, and every event stands in the audit ledger under a signed checkpoint.

Examples:
  deltran bench file
  deltran bench file --runs 1 --count 1000 --json"
)]
pub struct FileBench {
    /// Payments of the file
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    count: u32,
    /// Banks that pay each other
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=5000))]
    banks: u16,
}

/// Measures.
///
/// # Errors
/// Where something does not start or a line is refused.
pub async fn run(args: &FileBench, setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    report.set("file.count", args.count);
    report.set("file.banks", args.banks);
    let folder = setting.data.join("file");
    let mut load = Load::new(setting.seed, args.banks.into(), false)?;
    let platform = Platform::start(&folder, load.banks()).await?;
    let done = measure(args, setting, &mut load, &platform, &folder, report).await;
    platform.describe(report);
    platform.stop(setting.keep_data).await?;
    done
}

async fn measure(
    args: &FileBench,
    setting: &Setting,
    load: &mut Load,
    platform: &Platform,
    folder: &Path,
    report: &mut Report,
) -> Result<(), Problem> {
    let (mut answered, mut all_in) = (Vec::new(), Vec::new());
    // The first round warms up.
    for run in 0..=setting.runs {
        let count = if run == 0 { args.count.div_ceil(4) } else { args.count };
        let file = folder.join("payments.csv");
        std::fs::write(&file, lines(load, count)).map_err(|e| Problem::refused(format!("{}: {e}", file.display())))?;
        let started = Instant::now();
        let done = platform.node().must(&["transaction", "submit", "--file", &file.display().to_string()]).await?;
        let seconds = started.elapsed().as_secs_f64();
        let number = |key: &str| done[key].as_u64().unwrap_or_default();
        let committed = number("accepted") - number("held");
        let all = (platform.all_in(committed).await? - started).as_secs_f64();
        if run > 0 {
            answered.push(f64::from(count) / seconds);
            all_in.push(f64::from(count) / all);
        }
    }
    report.add(Figure::rate("file.answered", "file: every line answered", "payments/s", answered));
    report.add(Figure::rate("file.all_in", "file: all-in", "payments/s", all_in));
    Ok(())
}

fn lines(load: &mut Load, count: u32) -> String {
    let mut text = String::from("end_to_end_id,payer,payee,amount,currency,originator_name,beneficiary_name\n");
    for _ in 0..count {
        let payment = load.anybody();
        let name = |party: &Option<deltran_api::token::v1::Party>| party.as_ref().map(|p| p.name.clone());
        let amount = payment.amount.unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{}",
            payment.end_to_end_id,
            payment.payer,
            payment.payee,
            amount.amount,
            amount.currency,
            name(&payment.originator).unwrap_or_default(),
            name(&payment.beneficiary).unwrap_or_default()
        );
    }
    text
}
