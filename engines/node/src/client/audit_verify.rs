//! `deltran audit verify`: the ledger by the platform, or an export by its files alone.

use std::path::{Path, PathBuf};

use clap::Args;
use deltran_api::audit::v1::{LedgerSums, VerifyReport, VerifyRequest};
use deltran_audit::domain::note::Verifier;
use deltran_audit::export::check::{Folder, check};
use serde_json::json;

use super::{Caller, Session};
use crate::output::{Output, amount, count, table};
use crate::problem::Problem;

/// What `verify` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "Without a folder the platform re-checks its stored ledger and compares it with producers and streams, and what the
leaves say was committed, minted and burnt in each currency with the token ledger at the same event; days that were archived
count by their signed manifests. What cannot be compared yet is said in `ledger totals`, and is no difference. With the folder
of an export its files are checked, by themselves: no platform is asked. Exit code 1 where something differs; the first leaf,
or the currency, that does is named.

Examples:
  deltran audit verify
  deltran audit verify --database --json
  deltran audit verify november-6 --key audit.pub
  deltran audit verify november-6 --key deltran/frankfurt-1/audit+1f0e0d0c+AbCd… --since checkpoint"
)]
pub struct VerifyArgs {
    /// The folder of an export
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Check the stored rows and the token ledger's totals only, without asking producers and broker
    #[arg(long, alias = "database-only", conflicts_with = "folder")]
    pub database: bool,
    /// With a folder: a verifier key of the ledger, or a file with some, a line each
    #[arg(long = "key", value_name = "KEY|FILE", requires = "folder")]
    keys: Vec<String>,
    /// With a folder: a file with a checkpoint that you hold
    #[arg(long, value_name = "FILE", requires = "folder")]
    since: Option<PathBuf>,
}

/// Checks the folder of an export.
///
/// # Errors
/// Where there is no key, no export, or something in it differs.
pub fn verify_folder(folder: &Path, args: &VerifyArgs, out: Output) -> Result<(), Problem> {
    if args.keys.is_empty() {
        let message = "--key is missing: a verifier key of the ledger, obtained from its operator by another way than this export";
        return Err(Problem::usage(message));
    }
    let keys = args.keys.iter().map(|key| verifiers(key)).collect::<Result<Vec<_>, _>>()?.concat();
    let read = |file: &PathBuf| {
        std::fs::read_to_string(file).map_err(|e| Problem::refused(format!("{}: {e}", file.display())))
    };
    let since = args.since.as_ref().map(read).transpose()?;
    if folder.join(super::export_folder::UNFINISHED).exists() {
        let message = format!("{} is unfinished: the same `deltran audit export` goes on with it", folder.display());
        return Err(Problem::refused(message));
    }
    let bar = out.bar("events checked");
    let report = check(&Folder(folder.to_owned()), &keys, since.as_deref(), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report.map_err(|why| Problem::refused(format!("{}: {why}", folder.display())))?;
    let (range, ok) = (&report.manifest.range, report.ok());
    let checks: Vec<_> =
        report.checks.iter().map(|c| json!({ "check": c.name, "ok": c.ok, "detail": c.detail })).collect();
    let value = json!({
        "ok": ok, "origin": report.manifest.origin, "from_leaf": range.from_leaf, "to_leaf": range.to_leaf,
        "events": report.manifest.summary.events, "first_difference": report.first, "proves": report.manifest.proves,
        "checks": checks,
    });
    out.value_or(&value, || {
        let rows = report.checks.iter().map(|c| [c.name.clone(), verdict(c.ok), c.detail.clone()]);
        let outcome = if ok { format!("verified: {}", report.manifest.proves) } else { "NOT verified".to_owned() };
        format!("{}\n{outcome}", table(["check", "verdict", "detail"], rows))
    });
    if ok {
        return Ok(());
    }
    let failed: Vec<String> =
        report.checks.iter().filter(|c| !c.ok).map(|c| format!("{}: {}", c.name, c.detail)).collect();
    Err(Problem::refused(format!("{} does not verify: {}", folder.display(), failed.join("; "))))
}

/// A key, or those in a file.
fn verifiers(text: &str) -> Result<Vec<Verifier>, Problem> {
    let read = |line: &str| Verifier::parse(line.trim()).map_err(|e| Problem::refused(format!("--key {text}: {e}")));
    if text.contains('+') && !Path::new(text).exists() {
        return Ok(vec![read(text)?]);
    }
    let file = std::fs::read_to_string(text).map_err(|e| Problem::refused(format!("--key {text}: {e}")))?;
    let lines: Vec<&str> = file.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err(Problem::refused(format!("--key {text}: the file has no key")));
    }
    lines.into_iter().map(read).collect()
}

fn verdict(ok: bool) -> String {
    if ok { "ok".to_owned() } else { "FAILED".to_owned() }
}

/// Runs `verify` without a folder: the platform checks its own ledger.
///
/// # Errors
/// What the platform answers, and a ledger that does not verify.
pub async fn verify(session: &Session, caller: Caller, database_only: bool) -> Result<(), Problem> {
    let mut answers = session.audit(caller.patient()).verify(VerifyRequest { database_only }).await?.into_inner();
    let bar = session.out.bar("events checked");
    let mut report = None;
    while let Some(answer) = answers.message().await? {
        bar.set_length(answer.total);
        bar.set_position(answer.checked);
        report = answer.report.or(report);
    }
    bar.finish_and_clear();
    let report = report.ok_or_else(|| Problem::unavailable("the verification ended without a result: try again"))?;
    session.out.show("deltran.audit.v1.VerifyReport", &report, verify_tables);
    if report.ok {
        return Ok(());
    }
    let failed = report.checks.iter().filter(|c| !c.ok).map(|c| c.check.clone());
    let failed = failed.chain(report.producers.iter().filter(|p| !p.ok).map(|p| format!("producer {}", p.producer)));
    let failed = failed.chain(report.totals.iter().filter(|t| !t.ok).map(|t| format!("totals in {}", t.detail)));
    let failed: Vec<_> =
        failed.chain(report.streams.iter().filter(|s| !s.ok).map(|s| format!("stream {}", s.stream))).collect();
    Err(Problem::refused(format!("the audit ledger does not verify: {}", failed.join(", "))))
}

/// What `verify` shows.
pub fn verify_tables(report: &VerifyReport) -> String {
    let checks = report.checks.iter().map(|c| [c.check.clone(), verdict(c.ok), c.detail.clone()]);
    let mut text = table(["check", "verdict", "detail"], checks);
    if !report.producers.is_empty() {
        let rows = report.producers.iter().map(|p| {
            [
                p.producer.clone(),
                p.assigned.to_string(),
                p.confirmed.to_string(),
                p.recorded.to_string(),
                verdict(p.ok),
                p.detail.clone(),
            ]
        });
        text.push('\n');
        text.push_str(&table(["producer", "assigned", "confirmed", "recorded", "verdict", "detail"], rows));
    }
    if !report.streams.is_empty() {
        let rows = report.streams.iter().map(|s| {
            [
                s.stream.clone(),
                s.messages.to_string(),
                s.last_sequence.to_string(),
                s.recorded.to_string(),
                verdict(s.ok),
                s.detail.clone(),
            ]
        });
        text.push('\n');
        text.push_str(&table(["stream", "messages", "last sequence", "recorded", "verdict", "detail"], rows));
    }
    if !report.totals.is_empty() {
        let none = LedgerSums::default();
        let rows = report.totals.iter().map(|t| {
            let sums = t.recorded.as_ref().unwrap_or(&none);
            [
                t.currency.clone(),
                count(sums.committed),
                amount(&sums.committed_amount),
                amount(&sums.minted),
                amount(&sums.burnt),
                verdict(t.ok),
                t.detail.clone(),
            ]
        });
        text.push('\n');
        text.push_str(&table(["currency", "committed", "amount", "minted", "burnt", "verdict", "detail"], rows));
    }
    let outcome = if report.ok { "verified" } else { "NOT verified" };
    format!("{text}\n{outcome}: {} events, {} of them invalid", count(report.leaves), count(report.invalid_events))
}
