//! A whole measurement: its figures with everything that they depend on; printed, and kept.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use deltran_kernel::{Clock, SystemClock};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::calibrate::calibrate;
use super::figure::{Figure, number};
use super::machine;
use crate::output::{Output, table};
use crate::problem::Problem;

/// The file for people and the one for machines.
const FILES: [&str; 2] = ["RESULTS.md", "results.json"];

/// A measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// When it began.
    pub at: String,
    /// The command.
    pub command: String,
    /// The commit that was built.
    pub commit: String,
    /// The machine.
    pub machine: String,
    /// Load of the minute before.
    pub load: String,
    /// Rounds a second of the calibration loop.
    pub calibration: f64,
    /// Versions and settings.
    pub settings: Map<String, Value>,
    /// What was measured.
    pub figures: Vec<Figure>,
}

impl Report {
    /// A measurement that begins now.
    pub fn begin() -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        Self {
            at: SystemClock.now().to_string(),
            command: format!("deltran {}", words.join(" ")),
            commit: machine::commit(),
            machine: machine::machine(),
            load: machine::load(),
            calibration: calibrate(),
            settings: Map::new(),
            figures: Vec::new(),
        }
    }

    /// Notes a setting or a version.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// Adds a figure.
    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// The figures that miss their target, in words; nothing where none does.
    pub fn missed(&self) -> String {
        let missed = self.figures.iter().filter(|f| f.met() == Some(false));
        let words: Vec<String> = missed
            .map(|f| format!("{}: {} {}, target {}", f.what, number(f.median()), f.unit, f.target_words()))
            .collect();
        if words.is_empty() { String::new() } else { format!("TARGET MISSED\n  {}", words.join("\n  ")) }
    }

    /// Prints it.
    pub fn show(&self, out: Output) {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        for (figure, shown) in self.figures.iter().zip(value["figures"].as_array_mut().into_iter().flatten()) {
            shown["median"] = json!(figure.median());
            shown["met"] = json!(figure.met());
        }
        out.value_or(&value, || {
            let header = ["figure", "median", "least – most", "unit", "runs", "target", ""];
            let shown = table(header, self.figures.iter().map(cells));
            let missed = self.missed();
            let missed = if missed.is_empty() { missed } else { format!("\n{missed}") };
            format!("{}\n{shown}{missed}", self.origin())
        });
    }

    fn origin(&self) -> String {
        let settings: Vec<String> =
            self.settings.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
        format!(
            "{} at {}, commit {}\n{}; load before {}, calibration {}\n{}",
            self.command,
            self.at,
            self.commit,
            self.machine,
            self.load,
            number(self.calibration),
            settings.join(", ")
        )
    }

    /// Keeps it in a folder: added to the file for people, and instead of the figures of the same names in the file for
    /// machines.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn keep(&self, folder: &Path) -> Result<(), Problem> {
        let failed = |e: &dyn std::fmt::Display| Problem::refused(format!("{}: {e}", folder.display()));
        fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        let [people, machines] = FILES.map(|name| folder.join(name));
        let mut text = fs::read_to_string(&people).unwrap_or_else(|_| "# Measurements\n".to_owned());
        text.push_str(&self.markdown());
        fs::write(&people, text).map_err(|e| failed(&e))?;
        let mut kept = if machines.exists() { Self::read(&machines)? } else { Vec::new() };
        for earlier in &mut kept {
            earlier.figures.retain(|f| !self.figures.iter().any(|new| new.name == f.name));
        }
        kept.retain(|report| !report.figures.is_empty());
        kept.push(self.clone());
        let text = serde_json::to_string_pretty(&kept).map_err(|e| failed(&e))?;
        fs::write(&machines, text + "\n").map_err(|e| failed(&e))
    }

    /// Reads the measurements of a file for machines.
    ///
    /// # Errors
    /// Where it is none.
    pub fn read(file: &Path) -> Result<Vec<Self>, Problem> {
        let failed = |e: &dyn std::fmt::Display| Problem::refused(format!("{}: {e}", file.display()));
        let text = fs::read(file).map_err(|e| failed(&e))?;
        serde_json::from_slice(&text).map_err(|e| failed(&e))
    }

    fn markdown(&self) -> String {
        let mut text = format!("\n## {}\n", self.at);
        for line in self.origin().lines() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}  ");
        }
        text.push_str(
            "\n| figure | median | least – most | unit | runs | target | |\n|---|---:|---:|---|---:|---|---|\n",
        );
        for f in &self.figures {
            let _ = writeln!(text, "| {} |", cells(f).join(" | "));
        }
        text
    }
}

/// A figure as a row of a table.
fn cells(f: &Figure) -> [String; 7] {
    let (low, high) = f.range();
    [
        f.what.clone(),
        number(f.median()),
        format!("{} – {}", number(low), number(high)),
        f.unit.clone(),
        f.values.len().to_string(),
        f.target_words(),
        f.verdict().to_owned(),
    ]
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(value: f64) -> Report {
        let [at, commit, machine, load] = ["2025", "c0ffee", "one", "0.1"].map(str::to_owned);
        let figures = vec![Figure::rate("a.b", "things", "things/s", vec![value]).target(10.0)];
        let command = "deltran bench x".to_owned();
        Report { at, command, commit, machine, load, calibration: 1.0, settings: Map::new(), figures }
    }

    #[test]
    fn a_missed_target_is_said() {
        assert!(report(9.0).missed().contains("things: 9.00 things/s, target ≥ 10.0"), "{}", report(9.0).missed());
        assert_eq!(report(10.0).missed(), "");
    }

    #[test]
    fn what_is_kept_replaces_the_figure_and_adds_to_the_story() {
        let folder = tempfile::tempdir().unwrap();
        report(9.0).keep(folder.path()).unwrap();
        report(12.0).keep(folder.path()).unwrap();
        let kept = Report::read(&folder.path().join("results.json")).unwrap();
        assert_eq!(kept.iter().flat_map(|r| &r.figures).map(Figure::median).collect::<Vec<_>>(), [12.0]);
        let story = fs::read_to_string(folder.path().join("RESULTS.md")).unwrap();
        assert!(story.contains("| 9.00 |") && story.contains("| 12.0 |") && story.contains("MISSED"), "{story}");
    }
}
