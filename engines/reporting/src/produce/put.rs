//! Writing the files of a report, and its manifest.

use std::collections::BTreeMap;

use deltran_events::data::reporting::ReportFormat;
use deltran_kernel::Minor;
use deltran_runtime::lease::Epoch;
use sqlx::PgConnection;

use super::{Halt, Plan, Producer, Segment};
use crate::domain::day::Day;
use crate::domain::job::{File, Report};
use crate::domain::manifest::{self, Manifest};
use crate::domain::settled::Settled;
use crate::domain::statement::{Head, Line, Sum};
use crate::domain::trial::{BROKEN, Trial};
use crate::files::Sink;
use crate::store::{self, Outcome};
use crate::write::{self, StatementWriter};

/// Entries that are read at once.
const PAGE: i64 = 2_000;
/// Text that is gathered before it is handed to the file.
const FLUSH: usize = 256 << 10;

type Totals = BTreeMap<String, String>;

/// A statement's file under construction.
struct Target {
    writer: Box<dyn StatementWriter>,
    sink: Sink,
    text: String,
}

impl Producer {
    /// Writes everything that was gathered. Nothing is there under its name before it is whole, and nothing comes there
    /// once somebody else may write the report.
    ///
    /// # Errors
    /// Why it could not be written; files under construction are given up.
    pub async fn put(&self, report: &Report, plan: &Plan, epoch: &Epoch) -> Result<Outcome, Halt> {
        let (files, totals, note, interim) = match plan {
            Plan::Statement(head, segments) => {
                let files = self.statement(report, head, segments, epoch).await?;
                let note = if head.scope.interim() { "so far: the day is not over" } else { "" };
                (files, statement_totals(head), note.to_owned(), head.scope.interim())
            }
            Plan::Settlement(settled, asked) => {
                let made = self.made();
                let mut files = Vec::new();
                for format in &report.subject.formats {
                    let mut text = String::new();
                    let breach = |e: crate::domain::Contradiction| Halt::Breach("P4", e.0);
                    if *format == ReportFormat::Csv {
                        let rows = write::settlement_csv(&mut text, settled).map_err(breach)?;
                        files.push(self.one(report, "settlement.csv", &mut text, rows, epoch).await?);
                        let rows = write::summary_csv(&mut text, settled);
                        files.push(self.one(report, "legs.csv", &mut text, rows, epoch).await?);
                    } else {
                        let rows = write::settlement_html(&mut text, settled, *asked, &made).map_err(breach)?;
                        files.push(self.one(report, "settlement.html", &mut text, rows, epoch).await?);
                    }
                }
                (files, settlement_totals(settled), String::new(), false)
            }
            Plan::Trial(trials, checked) => {
                let made = self.made();
                let mut files = Vec::new();
                for format in &report.subject.formats {
                    let mut text = String::new();
                    if *format == ReportFormat::Csv {
                        let rows = write::trial_csv(&mut text, trials);
                        files.push(self.one(report, "trial-balance.csv", &mut text, rows, epoch).await?);
                    } else {
                        let rows = write::trial_html(&mut text, trials, checked, &made)
                            .map_err(|e| Halt::Breach("P5", e.0))?;
                        files.push(self.one(report, "trial-balance.html", &mut text, rows, epoch).await?);
                    }
                }
                let (totals, note) = trial_totals(trials, checked)?;
                (files, totals, note, false)
            }
        };
        self.finish(report, files, totals, (note, interim), epoch).await
    }

    fn made(&self) -> String {
        format!("{}, made at {}", self.context.config.deployment, self.context.clock.now())
    }

    async fn one(
        &self,
        report: &Report,
        name: &str,
        text: &mut String,
        rows: u64,
        epoch: &Epoch,
    ) -> Result<File, Halt> {
        let mut sink = self.files.create(report, name)?;
        sink.write(text).await?;
        finished(sink, rows, epoch).await
    }

    async fn statement(
        &self,
        report: &Report,
        head: &Head,
        segments: &[Segment],
        epoch: &Epoch,
    ) -> Result<Vec<File>, Halt> {
        let mut targets = Vec::new();
        for format in &report.subject.formats {
            let (name, writer) = write::statement(*format);
            targets.push(Target { writer, sink: self.files.create(report, name)?, text: String::new() });
        }
        match self.entries(head, segments, &mut targets).await {
            Ok(entries) => {
                let mut files = Vec::new();
                for target in targets {
                    files.push(finished(target.sink, entries, epoch).await?);
                }
                Ok(files)
            }
            Err(halt) => {
                for target in targets {
                    target.sink.abort().await;
                }
                Err(halt)
            }
        }
    }

    /// Writes the entries into every target, a page at a time; how many there are.
    async fn entries(&self, head: &Head, segments: &[Segment], targets: &mut [Target]) -> Result<u64, Halt> {
        let cannot = |e: crate::domain::Contradiction| Halt::Never(e.0);
        for target in &mut *targets {
            target.writer.begin(&mut target.text, head).map_err(cannot)?;
        }
        let mut sum = Sum::default();
        let mut db = self.context.db.pool().acquire().await?;
        for segment in segments {
            let mut segment = *segment;
            let mut place = 0;
            loop {
                let (entries, booked_at) = page(&mut db, head, &segment, place).await?;
                let more = entries.len() as i64 == PAGE;
                if let Some(last) = entries.last() {
                    place = last.window.map_or(0, |(_, seq)| seq);
                    if let Segment::Direct(direct) = &mut segment {
                        direct.after = last.position;
                    }
                }
                for entry in entries {
                    let line = Line::of(sum.count() + 1, entry, head.participant, booked_at)?;
                    sum.take(&line)?;
                    for target in &mut *targets {
                        target.writer.line(&mut target.text, head, &line).map_err(cannot)?;
                    }
                }
                for target in targets.iter_mut().filter(|target| target.text.len() >= FLUSH) {
                    target.sink.write(&mut target.text).await?;
                }
                if !more {
                    break;
                }
            }
        }
        drop(db);
        sum.check(head)?;
        for target in targets {
            target.writer.end(&mut target.text, head);
            target.sink.write(&mut target.text).await?;
        }
        Ok(sum.count())
    }

    async fn finish(
        &self,
        report: &Report,
        mut files: Vec<File>,
        totals: Totals,
        (note, interim): (String, bool),
        epoch: &Epoch,
    ) -> Result<Outcome, Halt> {
        let now = self.context.clock.now();
        let manifest = Manifest {
            version: 1,
            report_id: report.id.to_string(),
            kind: report.subject.about.kind().as_str().to_owned(),
            subject: subject(report),
            deployment: self.context.config.deployment.clone(),
            generated_at: now.to_string(),
            interim,
            totals,
            positions: store::positions(self.context.db.pool()).await?,
            files: files.clone(),
        };
        let bytes = manifest.to_bytes().map_err(|e| Halt::Never(e.to_string()))?;
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        files.push(self.one(report, manifest::NAME, &mut text, 0, epoch).await?);
        let days = i64::from(self.checked.settings.retention_days);
        let expires_at = (days > 0).then(|| now.plus_seconds(days * 86_400));
        Ok(Outcome { at: now, expires_at, files, note })
    }
}

/// Moves a file to its place, as long as this process leads: one that was stopped would put what it wrote over the file
/// whose digest the next one has told.
async fn finished(sink: Sink, entries: u64, epoch: &Epoch) -> Result<File, Halt> {
    if let Err(over) = epoch.current() {
        sink.abort().await;
        return Err(over.into());
    }
    Ok(sink.finish(entries).await?)
}

/// A page of a segment, and when its entries were booked where that is not when they were committed.
async fn page(
    db: &mut PgConnection,
    head: &Head,
    segment: &Segment,
    place: u64,
) -> Result<(Vec<crate::domain::book::Entry>, Option<deltran_kernel::Timestamp>), Halt> {
    Ok(match segment {
        Segment::Direct(direct) => (store::lines_of_day(db, direct, PAGE).await?, None),
        Segment::Window(window, final_at) => {
            (store::lines_of_window(db, head.participant, *window, place, PAGE).await?, Some(*final_at))
        }
    })
}

/// What a report is about, as the manifest says it.
fn subject(report: &Report) -> BTreeMap<String, String> {
    let fields = report.subject.about.fields();
    let all = [
        ("participant", fields.participant.map(|p| p.to_string())),
        ("currency", fields.currency.map(|c| c.to_string())),
        ("day", fields.day.map(|d: Day| d.to_string())),
        ("window_id", fields.window.map(|w| w.to_string())),
        ("netting_set_id", fields.set.map(|s| s.to_string())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn units(minor: Minor) -> String {
    minor.units().to_string()
}

fn statement_totals(head: &Head) -> Totals {
    let flow = &head.flow;
    [
        ("opening_minor", units(head.opening)),
        ("closing_minor", units(head.closing)),
        ("received_minor", units(flow.received)),
        ("received_count", flow.received_count.to_string()),
        ("paid_minor", units(flow.paid)),
        ("paid_count", flow.paid_count.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn settlement_totals(settled: &Settled) -> Totals {
    let mut totals: Totals = [
        ("currency", settled.set.currency.to_string()),
        ("netting_set_id", settled.set.id.to_string()),
        ("batch_id", settled.batch.id.to_string()),
        ("count", settled.set.count.to_string()),
        ("gross_minor", units(settled.set.gross)),
        ("moved_minor", units(settled.set.moved)),
        ("efficiency_ten_thousandths", settled.set.efficiency.to_string()),
        ("participants", settled.set.participants.to_string()),
        ("final_at", settled.batch.final_at.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for (participant, leg) in &settled.legs {
        totals.insert(format!("net_{participant}_minor"), units(leg.net));
    }
    totals
}

/// The totals, and the note: invariants of the ledger that are broken, then the verdicts.
fn trial_totals(trials: &[Trial], checked: &[write::Checked]) -> Result<(Totals, String), Halt> {
    let (mut totals, mut said) = (Totals::new(), Vec::new());
    for check in checked {
        totals.insert(check.invariant.clone(), if check.holds { "holds" } else { "broken" }.to_owned());
        if !check.holds {
            said.push(format!("{} {BROKEN}: {}", check.invariant, check.detail));
        }
    }
    for trial in trials {
        let total = units(trial.total().map_err(|e| Halt::Breach("P5", e.0))?);
        let currency = trial.currency;
        totals.insert(format!("{currency}_debit_minor"), total.clone());
        totals.insert(format!("{currency}_credit_minor"), total);
        totals.insert(format!("{currency}_ledger_event"), trial.position.to_string());
        let ties = if trial.difference.is_none() { "yes" } else { "no" };
        totals.insert(format!("{currency}_ties"), ties.to_owned());
        said.push(trial.verdict());
    }
    Ok((totals, said.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Position;
    use crate::domain::trial::{Balances, tells_of_trouble};
    use deltran_kernel::Currency;

    #[test]
    fn a_broken_invariant_of_the_ledger_stands_in_the_note() {
        let position = Position { epoch: 1, seq: 42 };
        let tie = Trial::new(Currency::new("USD").unwrap(), position, Balances::new(), &Balances::new()).unwrap();
        let check = |holds| write::Checked {
            invariant: "L3".into(),
            statement: "s".into(),
            holds,
            detail: "ALFAAEXX is below".into(),
        };
        let (totals, note) = trial_totals(std::slice::from_ref(&tie), &[check(true)]).unwrap();
        assert_eq!((totals["L3"].as_str(), note.as_str()), ("holds", "USD ties to the ledger at event 1/42"));
        assert!(!tells_of_trouble(&note));
        let (totals, note) = trial_totals(&[tie], &[check(false)]).unwrap();
        assert_eq!(totals["L3"], "broken");
        assert_eq!(note, "L3 does not hold: ALFAAEXX is below; USD ties to the ledger at event 1/42");
        assert!(tells_of_trouble(&note));
    }
}
