//! `deltran audit export`: a range of the ledger as files that prove themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use age::x25519::Recipient;
use clap::Args;
use deltran_api::audit::v1::{ExportEventsRequest, ExportOutcome, ExportPlan, export_events_response::Part};
use deltran_audit::domain::export::MANIFEST;
use deltran_audit::domain::export::manifest::Manifest;
use deltran_kernel::Timestamp;
use deltran_runtime::wire::to_timestamp;
use serde_json::json;

use super::export_folder::{ExportFolder, Mark, problem};
use super::{Caller, Session};
use crate::output::count;
use crate::problem::Problem;

/// What `export` takes.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "Writes the exact bytes of every event of the range, signed checkpoints of its two ends, and a signed manifest with
counts, control totals and the SHA-256 of every file. README.txt in the folder tells in ten lines how to check it with standard
tools; `deltran audit verify DIR --key KEY` does it. Times are those of recording; --to is not included. Without --from it begins
with the first event, without --to it ends with the last.

With --domain, --participant or --correlation only events that pass are written, each with a proof that it stands in the
ledger; what was left out is said in numbers. --participant takes every event that names the bank.

An export that broke off goes on with the same command; until then export.unfinished in the folder says that it is not whole.
With --recipient every file is encrypted for that age key (`age --decrypt -i KEY FILE.age`).

Examples:
  deltran audit export --from 2025-11-06 --to 2025-11-07 --out november-6
  deltran audit export --from 2025-11-06T08:00:00Z --format jsonl,csv,parquet --out today
  deltran audit export --since checkpoint --out since-last-time
  deltran audit export --participant ALFAAEXX --out alfa --recipient age1…
  deltran audit export --leaves 1000..2000 --out some"
)]
pub struct ExportArgs {
    /// Recorded at or after this day or time (UTC)
    #[arg(long, value_name = "DATE|TIME", value_parser = moment)]
    from: Option<Timestamp>,
    /// Recorded before this day or time (UTC)
    #[arg(long, value_name = "DATE|TIME", value_parser = moment)]
    to: Option<Timestamp>,
    /// By leaf instead: from the first up to but without the second
    #[arg(long, value_name = "FROM..TO", value_parser = leaves, conflicts_with_all = ["from", "to"])]
    leaves: Option<(u64, u64)>,
    /// A file with a checkpoint that the receiver holds: proves that the ledger continues it
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Only this domain's, such as transactions or clearing
    #[arg(long)]
    domain: Option<String>,
    /// Only events that name this participant
    #[arg(long, value_name = "BIC")]
    participant: Option<String>,
    /// Only those with this correlation id
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Tables beside the exact bytes
    #[arg(long = "format", value_name = "jsonl,csv,parquet", value_delimiter = ',', value_parser = ["jsonl", "csv", "parquet"])]
    formats: Vec<String>,
    /// Encrypt for this age key, such as age1…
    #[arg(long, value_name = "AGE_KEY")]
    recipient: Option<String>,
    /// The folder: a new or empty one, or one with the same export unfinished
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// A day (its first moment) or a moment.
fn moment(text: &str) -> Result<Timestamp, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    whole.parse().map_err(|_| format!("{text:?} is neither a day like 2025-11-06 nor a time like 2025-11-06T08:00:00Z"))
}

fn leaves(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    match parsed {
        Some((from, to)) if from < to => Ok((from, to)),
        _ => Err(format!("{text:?} is no range of leaves like 1000..2000")),
    }
}

impl ExportArgs {
    /// Of these leaves, as exact bytes alone.
    pub fn leaves_of(from: u64, to: u64, out: PathBuf) -> Self {
        Self { leaves: Some((from, to)), out, ..Self::default() }
    }

    /// What an unfinished export must have been asked for as well.
    fn asked(&self, since: &str) -> BTreeMap<String, String> {
        let text = |value: &Option<String>| value.clone();
        let time = |value: Option<Timestamp>| value.map(|at| at.to_string());
        let mut formats = self.formats.clone();
        formats.sort();
        formats.dedup();
        let given = [
            ("from", time(self.from)),
            ("to", time(self.to)),
            ("leaves", self.leaves.map(|(from, to)| format!("{from}..{to}"))),
            ("since", (!since.is_empty()).then(|| since.to_owned())),
            ("domain", text(&self.domain)),
            ("participant", text(&self.participant)),
            ("correlation", text(&self.correlation)),
            ("format", (!formats.is_empty()).then(|| formats.join(","))),
            ("recipient", text(&self.recipient)),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// Runs `export`.
///
/// # Errors
/// What the platform answers, and files that cannot be read or written.
pub async fn export(session: &Session, caller: Caller, args: ExportArgs) -> Result<(), Problem> {
    let (manifest, outcome) = write(session, caller, &args).await?;
    let range = &manifest.range;
    let value = json!({
        "directory": args.out.display().to_string(), "from_leaf": range.from_leaf, "to_leaf": range.to_leaf,
        "events": outcome.events, "manifest_sha256": outcome.manifest_sha256, "proves": manifest.proves,
        "totals": manifest.summary.totals, "files": manifest.files,
    });
    session.out.value_or(&value, || {
        let next = if args.recipient.is_some() {
            "the holder of the key decrypts every file: age --decrypt -i KEY -o FILE FILE.age".to_owned()
        } else {
            format!("check with: deltran audit verify {} --key KEY", args.out.display())
        };
        let which = manifest.filter.as_ref().map(|filter| format!(", only {}", filter.words())).unwrap_or_default();
        format!(
            "{} events of leaves {} up to {}{which} in {}\nmanifest SHA-256 {}\n{next}",
            count(outcome.events),
            range.from_leaf,
            range.to_leaf,
            args.out.display(),
            outcome.manifest_sha256,
        )
    });
    Ok(())
}

/// Writes the folder of an export.
///
/// # Errors
/// What the platform answers, and files that cannot be read or written.
pub async fn write(session: &Session, caller: Caller, args: &ExportArgs) -> Result<(Manifest, ExportOutcome), Problem> {
    let recipient = args.recipient.as_deref().map(|key| {
        Recipient::from_str(key)
            .map_err(|e| Problem::usage(format!("--recipient {key:?}: {e}: an age key begins with age1")))
    });
    let recipient = recipient.transpose()?;
    let since = match &args.since {
        Some(file) => std::fs::read_to_string(file).map_err(|e| problem(file, &e))?,
        None => String::new(),
    };
    let asked = args.asked(&since);
    let mut request = ExportEventsRequest {
        from: args.from.map(to_timestamp),
        to: args.to.map(to_timestamp),
        since,
        domain: args.domain.clone().unwrap_or_default(),
        participant: args.participant.clone().unwrap_or_default(),
        correlation_id: args.correlation.clone().unwrap_or_default(),
        formats: args.formats.clone(),
        ..Default::default()
    };
    let (mut folder, before) = ExportFolder::open(&args.out, &asked, recipient)?;
    (request.from_leaf, request.to_leaf) = match (&before, args.leaves) {
        (Some(mark), _) if mark.to_leaf > 0 => (mark.from_leaf, mark.to_leaf),
        (_, Some(leaves)) => leaves,
        _ => (0, 0),
    };
    if before.is_some() {
        request.have = folder.have()?;
    }
    let mut parts = session.audit(caller.patient()).export_events(request).await?.into_inner();
    let bar = session.out.bar("leaves");
    let (mut manifest, mut outcome): (Vec<u8>, Option<ExportOutcome>) = (Vec::new(), None);
    while let Some(answer) = parts.message().await.map_err(|status| {
        bar.finish_and_clear();
        let problem = Problem::from(status);
        Problem { message: format!("{}; the same command goes on", problem.message), ..problem }
    })? {
        match answer.part {
            Some(Part::Plan(ExportPlan { from_leaf, to_leaf, .. })) => {
                bar.set_length(to_leaf - from_leaf.min(to_leaf));
                folder.mark(&Mark { asked: asked.clone(), from_leaf, to_leaf })?;
            }
            Some(Part::Piece(piece)) => {
                if piece.file == MANIFEST {
                    manifest.extend_from_slice(&piece.data);
                }
                folder.write(&piece.file, piece.offset, &piece.data)?;
                bar.set_position(piece.leaves_done);
            }
            Some(Part::Outcome(last)) => outcome = Some(last),
            None => {}
        }
    }
    bar.finish_and_clear();
    let outcome = outcome
        .ok_or_else(|| Problem::unavailable("the export ended before it was whole: the same command goes on"))?;
    let manifest = ExportFolder::manifest(&manifest)?;
    folder.finish(&manifest, &outcome.manifest_sha256)?;
    Ok((manifest, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_named() {
        assert_eq!(moment("2025-11-06").unwrap(), moment("2025-11-06T00:00:00Z").unwrap());
        for bad in ["2025-13-01", "yesterday", "2025-11-06T08:00"] {
            assert!(moment(bad).unwrap_err().contains(bad));
        }
        assert_eq!(leaves("0..5"), Ok((0, 5)));
        for bad in ["5", "5..5", "6..5", "a..b", "-1..5"] {
            assert!(leaves(bad).is_err(), "{bad}");
        }
    }
}
