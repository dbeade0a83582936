//! What a run did, what died, and the counts; as lines and as the table of `tests/RESULTS.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use deltran_kernel::{Clock, SystemClock};

use crate::check::Checked;
use crate::faults::text;
use crate::journal::Journal;
use crate::plan::Kind;
use crate::rig::version;

/// The heading of this table among others.
const HEADING: &str = "## Faults under load";

/// What faults of a kind did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stat {
    /// How many were made.
    pub count: u32,
    /// The longest time that one lasted.
    pub lasted: Duration,
    /// The longest time without a committed payment, from the fault's beginning until all was well.
    pub unavailable: Duration,
    /// The longest time from a fault's end until everything stood in the audit ledger.
    pub audited: Duration,
}

/// A run.
#[derive(Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How long it was to be.
    pub minutes: Option<u64>,
    /// How long faults and load lasted.
    pub took: Duration,
    /// The faults.
    pub stats: BTreeMap<Kind, Stat>,
    /// The longest time without a committed payment while there was no fault.
    pub quiet: Duration,
    /// Kinds that could not be made, and why.
    pub without: BTreeMap<Kind, String>,
}

impl Report {
    /// The lines that are printed and kept.
    pub fn text(&self, journal: &Journal, checked: &Checked) -> String {
        let (entries, counts, breaches) = (journal.entries(), journal.counts(), journal.breaches());
        let minutes = self.minutes.map_or_else(String::new, |minutes| format!("DELTRAN_CHAOS_MINUTES={minutes} "));
        let mut out = format!("{HEADING}\n`{minutes}DELTRAN_CHAOS_SEED={} make chaos`\n\n", self.seed);
        let broker = deltran_runtime::embedded::find_nats_server()
            .map_or_else(|e| e.to_string(), |p| version(&mut Command::new(p)));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let total: u32 = self.stats.values().map(|stat| stat.count).sum();
        let mut line = |words: String| writeln!(out, "{words}").expect("a text");
        line(format!(
            "{}: {total} faults in {} of load on {cores} cores, {broker}; one process of every engine behind proxies,\nbroker and Postgres on file systems in memory where they are filled.\n",
            &SystemClock.now().to_string()[..10],
            text(self.took)
        ));
        line(
            "| fault | made | lasted at most | longest without a committed payment | until all was audited again |"
                .into(),
        );
        line("|---|---:|---:|---:|---:|".into());
        line(format!("| none | | | {} | |", text(self.quiet)));
        for (kind, stat) in &self.stats {
            line(format!(
                "| {} | {} | {} | {} | {} |",
                kind.name(),
                stat.count,
                text(stat.lasted),
                text(stat.unavailable),
                text(stat.audited)
            ));
        }
        for (kind, why) in &self.without {
            line(format!("| {} | left out: {} | | | |", kind.name(), why.replace(['\n', '|'], " ")));
        }
        line("\nFrom the beginning of a fault; what lasted is in the time without a committed payment. A payment of a probe is sent every\ntenth of a second. The last column counts from the end of the fault.\n".into());
        line("| count | |\n|---|---:|".into());
        let mut row = |what: &str, n: String| line(format!("| {what} | {n} |"));
        row("transactions sent", entries.len().to_string());
        for (state, n) in &checked.states {
            row(&format!("in the ledger: {}", state.to_lowercase()), n.to_string());
        }
        for (reason, n) in &checked.refused {
            row(&format!("refused: {reason}"), n.to_string());
        }
        for (why, n) in &counts.unknown {
            row(&format!("calls without an outcome: {}", why.to_lowercase()), n.to_string());
        }
        row("sent again, had been decided: the same outcome", counts.replayed.to_string());
        row("sent again, had not been decided: decided then", counts.decided_late.to_string());
        row("unknown to their banks at the end, in the ledger", checked.unknown_there.to_string());
        row("unknown to their banks at the end, not in the ledger", checked.unknown_not_there.to_string());
        row("windows settled, each equal to its transactions", checked.windows.to_string());
        row("settlement batches final", checked.batches.to_string());
        row("leaves of the audit ledger, verified and reconciled", checked.leaves.to_string());
        row("notifications in feeds, each told once by its stream", checked.heard.notifications.to_string());
        let (hooks, deliveries) = (checked.heard.webhooks, checked.heard.deliveries);
        row("notifications by webhook (deliveries)", format!("{hooks} ({deliveries})"));
        row("**lost**", format!("**{}**", checked.lost));
        row("**doubled**", format!("**{}**", checked.doubled));
        row("**breaches of any kind**", format!("**{}**", breaches.len()));
        out
    }
}

/// Writes a run into the file of results, in place of the one before; other sections stay.
pub fn keep(file: &Path, section: &str) {
    let before = std::fs::read_to_string(file).unwrap_or_else(|_| "# Results of the long tests\n\n".to_owned());
    let text = match before.find(HEADING) {
        Some(at) => {
            let rest = &before[at + HEADING.len()..];
            let after = rest.find("\n## ").map_or("", |end| &rest[end..]);
            format!("{}{section}{after}", &before[..at])
        }
        None => format!("{}\n\n{section}", before.trim_end()),
    };
    std::fs::write(file, text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}
