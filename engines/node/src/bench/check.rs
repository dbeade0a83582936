//! `deltran bench all` and `deltran bench check`: everything in a row, and against what was measured before.

use std::path::{Path, PathBuf};

use clap::{Args, Parser};

use super::figure::{Better, Figure, number};
use super::report::Report;
use super::{Measurement, Setting, measure};
use crate::output::{Output, table};
use crate::problem::Problem;

/// A figure below this share of what it was fails.
const LEAST_SHARE: f64 = 0.7;
/// Every measurement, in the order in which they are made.
const EVERYTHING: [&str; 8] = ["netting", "screening", "idle", "audit", "ledger", "bulk", "unary", "file"];

/// Measure everything
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  deltran bench all --keep-results bench")]
pub struct AllBench {}

/// Compare with what was measured before
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Measures everything again and compares with the results of another day, each divided by what the calibration loop \
reached in
the same run, so that a slower machine is no slower platform. Exit code 1 where a figure has come down to less than 70 % of
what it was.

Examples:
  deltran bench check
  deltran bench check --against bench/results.json --runs 3"
)]
pub struct CheckBench {
    /// The results to compare with
    #[arg(long, value_name = "FILE", default_value = "bench/results.json")]
    against: PathBuf,
    /// Only figures of these measurements, such as netting,audit
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
}

/// A command line of measurements, as clap reads it.
#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    what: Measurement,
}

/// Measures everything with its usual settings, or what is named.
///
/// # Errors
/// Where a measurement cannot be made.
pub async fn everything(only: &[String], setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    if let Some(unknown) = only.iter().find(|name| !EVERYTHING.contains(&name.as_str())) {
        let words = EVERYTHING.join(", ");
        return Err(Problem::usage(format!("there is no measurement {unknown:?}: expected one of {words}")));
    }
    for name in EVERYTHING.iter().filter(|name| only.is_empty() || only.iter().any(|o| o == *name)) {
        let line = Line::try_parse_from(["bench", name]).map_err(|e| Problem::usage(e.to_string()))?;
        eprintln!("measuring {name}");
        Box::pin(measure(&line.what, setting, report)).await?;
    }
    Ok(())
}

/// A figure against what it was.
struct Compared<'a> {
    new: &'a Figure,
    before: f64,
    share: f64,
}

/// Measures again and compares.
///
/// # Errors
/// Where a figure has become worse than it may.
pub async fn check(args: &CheckBench, setting: &Setting, report: &mut Report, out: Output) -> Result<(), Problem> {
    let before = Report::read(&args.against)?;
    everything(&args.only, setting, report).await?;
    let compared: Vec<Compared<'_>> = report.figures.iter().filter_map(|new| compare(new, report, &before)).collect();
    let rows = compared.iter().map(|c| {
        let verdict = if c.share < LEAST_SHARE { "FAILED" } else { "" };
        let share = format!("{:.0} %", c.share * 100.0);
        [c.new.what.clone(), number(c.before), number(c.new.median()), share, verdict.to_owned()]
    });
    let rows: Vec<[String; 5]> = rows.collect();
    let failed = compared.iter().filter(|c| c.share < LEAST_SHARE).count();
    let value = serde_json::json!({ "compared": rows, "failed": failed, "calibration": report.calibration });
    out.value_or(&value, || table(["figure", "before", "now", "calibrated share", ""], rows.clone()));
    match (failed, compared.len()) {
        (_, 0) => Err(nothing(&args.against)),
        (0, _) => Ok(()),
        (failed, _) => Err(Problem::refused(format!(
            "{failed} figures are below {:.0} % of what {} says",
            LEAST_SHARE * 100.0,
            args.against.display()
        ))),
    }
}

fn nothing(against: &Path) -> Problem {
    Problem::refused(format!("{} has none of the figures that were measured", against.display()))
}

/// The share of what it was that a figure has reached, both calibrated; above 1 where it is better.
fn compare<'a>(new: &'a Figure, report: &Report, before: &[Report]) -> Option<Compared<'a>> {
    let (then, old) = before.iter().find_map(|then| Some((then, then.figures.iter().find(|f| f.name == new.name)?)))?;
    let machine = report.calibration / then.calibration;
    let ratio = match (new.unit.as_str(), new.better) {
        // Shares and sizes do not depend on how fast the machine is.
        ("%", _) => new.median() / old.median(),
        ("MiB", _) => old.median() / new.median(),
        (_, Better::Higher) => new.median() / old.median() / machine,
        (_, Better::Lower) => old.median() / new.median() / machine,
    };
    Some(Compared { new, before: old.median(), share: ratio })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(calibration: f64, figures: &[Figure]) -> Report {
        let value = json!({
            "at": "", "command": "", "commit": "", "machine": "", "load": "", "calibration": calibration, "settings": {},
            "figures": figures,
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_slower_machine_is_no_slower_platform() {
        let rate = |value| Figure::rate("a", "a", "x/s", vec![value]);
        let time = |value| Figure::cost("b", "b", "ms", vec![value]);
        let before = [report(100.0, &[rate(1000.0), time(4.0)])];
        let half = report(50.0, &[rate(500.0), time(8.0)]);
        let shares: Vec<f64> = half.figures.iter().map(|f| compare(f, &half, &before).unwrap().share).collect();
        assert_eq!(shares, [1.0, 1.0]);
        let slow = report(100.0, &[rate(600.0), time(8.0)]);
        let shares: Vec<f64> = slow.figures.iter().map(|f| compare(f, &slow, &before).unwrap().share).collect();
        assert_eq!(shares, [0.6, 0.5]);
    }

    #[test]
    fn every_measurement_has_usual_settings() {
        for name in EVERYTHING {
            Line::try_parse_from(["bench", name]).unwrap();
        }
    }
}
