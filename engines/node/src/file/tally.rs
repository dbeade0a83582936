//! The count of what became of a file's lines.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::report::{RefusedLine, Report};
use crate::output::{count, sheet, table};
use crate::problem::Problem;

/// Refused lines that are shown and not only counted; a report has them all.
const SHOWN: usize = 20;

/// What the tally is told.
pub enum Message {
    /// A line that could not be used.
    Malformed(RefusedLine),
    /// Answers of the platform.
    Answers(Answers),
}

/// Answers to the transactions of one message.
#[derive(Debug, Default)]
pub struct Answers {
    /// Accepted, held ones too.
    pub accepted: u64,
    /// Of these, held for review.
    pub held: u64,
    /// Of all, answered before with the same answer.
    pub replayed: u64,
    /// Refused.
    pub refused: Vec<RefusedLine>,
}

impl Answers {
    /// Lines that are decided by it.
    pub fn lines(&self) -> u64 {
        self.accepted + self.refused.len() as u64
    }
}

/// Counts, and writes the report.
pub struct Tally {
    report: Option<(PathBuf, Report<std::fs::File>)>,
    summary: Summary,
}

/// What became of a file's lines.
#[derive(Debug)]
pub struct Summary {
    /// What the items of the file are called.
    pub items: &'static str,
    /// Accepted, held ones too.
    pub accepted: u64,
    /// Of these, held for review.
    pub held: u64,
    /// Of all that the platform decided, answered before with the same answer.
    pub replayed: u64,
    /// Refused by the platform, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Could not be used.
    pub malformed: u64,
    /// The first refused lines.
    pub first: Vec<RefusedLine>,
    /// How long it took.
    pub elapsed: Duration,
    report_error: Option<String>,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            items: "lines",
            accepted: 0,
            held: 0,
            replayed: 0,
            refused: BTreeMap::new(),
            malformed: 0,
            first: Vec::new(),
            elapsed: Duration::ZERO,
            report_error: None,
        }
    }
}

impl Tally {
    /// A tally that writes refused lines to `report`.
    ///
    /// # Errors
    /// Where the report cannot be written.
    pub fn new(report: Option<PathBuf>) -> Result<Self, Problem> {
        let report = report
            .map(|path| match Report::create(&path) {
                Ok(report) => Ok((path, report)),
                Err(e) => Err(Problem::refused(format!("--report {}: {e}", path.display()))),
            })
            .transpose()?;
        Ok(Self { report, summary: Summary::default() })
    }

    /// Counts until nobody has anything to tell any more.
    pub async fn run(mut self, mut from: mpsc::Receiver<Message>) -> Summary {
        while let Some(message) = from.recv().await {
            match message {
                Message::Malformed(line) => {
                    self.summary.malformed += 1;
                    self.note(line);
                }
                Message::Answers(answers) => {
                    self.summary.accepted += answers.accepted;
                    self.summary.held += answers.held;
                    self.summary.replayed += answers.replayed;
                    for line in answers.refused {
                        *self.summary.refused.entry(line.reason.clone()).or_default() += 1;
                        self.note(line);
                    }
                }
            }
        }
        if let Some((path, mut report)) = self.report
            && let Err(error) = report.finish()
        {
            self.summary.report_error.get_or_insert(format!("{}: {error}", path.display()));
        }
        self.summary.first.sort_by_key(|line| line.line);
        self.summary
    }

    fn note(&mut self, line: RefusedLine) {
        if let Some((path, report)) = &mut self.report
            && let Err(error) = report.add(&line)
        {
            self.summary.report_error.get_or_insert(format!("{}: {error}", path.display()));
        }
        if self.summary.first.len() < SHOWN {
            self.summary.first.push(line);
        }
    }
}

impl Summary {
    fn refused_lines(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Lines that are decided.
    pub fn lines(&self) -> u64 {
        self.accepted + self.refused_lines() + self.malformed
    }

    fn per_second(&self) -> u64 {
        let millis = self.elapsed.as_millis().max(1);
        u64::try_from(u128::from(self.accepted + self.refused_lines()) * 1000 / millis).unwrap_or(u64::MAX)
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let first: Vec<_> = self
            .first
            .iter()
            .map(
                |l| json!({"line": l.line, "end_to_end_id": l.end_to_end_id, "reason": l.reason, "message": l.message}),
            )
            .collect();
        json!({
            "lines": self.lines(), "accepted": self.accepted, "held": self.held, "replayed": self.replayed,
            "refused": self.refused_lines(), "refused_by_reason": self.refused, "malformed": self.malformed,
            "elapsed_ms": u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX), "per_second": self.per_second(),
            "first_refused": first,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut rows =
            vec![(self.items.to_owned(), count(self.lines())), ("accepted".to_owned(), count(self.accepted))];
        if self.held > 0 {
            rows.push(("  of these held for review".to_owned(), count(self.held)));
        }
        rows.extend(self.refused.iter().map(|(reason, lines)| (format!("refused: {reason}"), count(*lines))));
        rows.push(("could not be used".to_owned(), count(self.malformed)));
        rows.push(("answered before".to_owned(), count(self.replayed)));
        let millis = self.elapsed.as_millis();
        rows.push(("time".to_owned(), format!("{}.{:03} s", millis / 1000, millis % 1000)));
        rows.push(("throughput".to_owned(), format!("{} transactions/s", count(self.per_second()))));
        let mut text = sheet(rows.iter().map(|(name, value)| (name.as_str(), value.clone())));
        if !self.first.is_empty() {
            let rows = self
                .first
                .iter()
                .map(|l| [l.line.to_string(), l.end_to_end_id.clone(), l.reason.clone(), l.message.clone()]);
            text.push('\n');
            text.push_str(&table(["line", "end-to-end id", "reason", "message"], rows));
            let unshown = self.refused_lines() + self.malformed - self.first.len() as u64;
            if unshown > 0 {
                text.push_str(&format!("\n… and {} more: --report FILE writes them all", count(unshown)));
            }
        }
        text
    }

    /// Whether the report has every refused line.
    ///
    /// # Errors
    /// Where it could not be written.
    pub fn report_written(&self) -> Result<(), Problem> {
        match &self.report_error {
            None => Ok(()),
            Some(error) => Err(Problem::refused(format!("the report is incomplete: {error}"))),
        }
    }

    /// Success only where every line was accepted.
    ///
    /// # Errors
    /// Where lines were refused or could not be used.
    pub fn verdict(&self, file: &str) -> Result<(), Problem> {
        match (self.refused_lines(), self.malformed) {
            (0, 0) => Ok(()),
            (refused, malformed) => Err(Problem::refused(format!(
                "{file}: {refused} {} were refused and {malformed} could not be used; {} were accepted",
                self.items, self.accepted
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, reason: &str) -> RefusedLine {
        let (reason, message) = (reason.to_owned(), "why".to_owned());
        RefusedLine { line: number, end_to_end_id: format!("E{number}"), reason, message }
    }

    #[tokio::test]
    async fn lines_are_counted_once_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refused.csv");
        let (to, from) = mpsc::channel(8);
        let tally = tokio::spawn(Tally::new(Some(path.clone())).unwrap().run(from));
        to.send(Message::Malformed(line(9, "malformed"))).await.unwrap();
        let answers = Answers { accepted: 3, held: 1, replayed: 2, refused: vec![line(4, "cap"), line(5, "cover")] };
        to.send(Message::Answers(answers)).await.unwrap();
        drop(to);
        let summary = tally.await.unwrap();
        assert_eq!((summary.lines(), summary.accepted, summary.held, summary.malformed), (6, 3, 1, 1));
        assert_eq!(summary.json()["refused_by_reason"], json!({"cap": 1, "cover": 1}));
        assert_eq!(summary.first.iter().map(|l| l.line).collect::<Vec<_>>(), [4, 5, 9]);
        assert!(summary.verdict("f").unwrap_err().message.contains("2 lines were refused and 1 could not be used"));
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 4);
    }
}
