//! Exporting what the audit ledger holds, and verifying the export by its files alone.

use std::path::Path;

use deltran_audit::domain::note::Signer;
use deltran_audit::export::check::{Folder, check};
use deltran_runtime::identity::Role;
use tokio::time::Instant;

use super::Setting;
use super::figure::Figure;
use super::ground::Running;
use super::machine;
use super::report::Report;
use crate::client::audit_export::{ExportArgs, write};
use crate::client::{ClientArgs, Session};
use crate::output::Output;
use crate::problem::Problem;

/// Measures; `leaves` is how many the ledger has.
///
/// # Errors
/// Where something does not answer, or does not verify.
pub async fn run(
    running: &Running,
    folder: &Path,
    leaves: u64,
    setting: &Setting,
    report: &mut Report,
) -> Result<(), Problem> {
    let session = Session::open(&ClientArgs::at(&running.grpc), Output { json: false }).await?;
    let key = folder.join("audit.key");
    let failed = |path: &Path, e: &dyn std::fmt::Display| Problem::refused(format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(&key).map_err(|e| failed(&key, &e))?;
    let keys = [Signer::parse(&text).map_err(|e| failed(&key, &e))?.verifier().clone()];
    let (mut written, mut checked, mut grown) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..setting.runs {
        let out = folder.join(format!("export-{run}"));
        let caller = session.caller_named(Role::Auditor, "bench")?;
        let before = machine::resident(std::process::id());
        machine::forget_peak();
        let started = Instant::now();
        write(&session, caller, &ExportArgs::leaves_of(0, leaves, out.clone())).await?;
        written.push(leaves as f64 / started.elapsed().as_secs_f64());
        grown.push((machine::peak_memory(std::process::id()).saturating_sub(before)) as f64 / 1e6);
        let (place, keys) = (out.clone(), keys.clone());
        let verify = move || {
            let started = Instant::now();
            let verdict = check(&Folder(place), &keys, None, &mut |_, _| {});
            (verdict, started.elapsed())
        };
        let (verdict, took) = tokio::task::spawn_blocking(verify).await.map_err(|e| Problem::refused(e.to_string()))?;
        let verdict = verdict.map_err(Problem::refused)?;
        if !verdict.ok() {
            return Err(Problem::refused(format!("the export does not verify: {:?}", verdict.checks)));
        }
        checked.push(verdict.manifest.summary.events as f64 / took.as_secs_f64());
        std::fs::remove_dir_all(&out).map_err(|e| failed(&out, &e))?;
    }
    report.set("audit.exported", leaves);
    report.add(Figure::rate("audit.export", "export: written as exact bytes", "events/s", written));
    let what = "export: memory that platform and client need above what they had";
    report.add(Figure::cost("audit.export_memory", what, "MB", grown).target(300.0));
    report.add(
        Figure::rate("audit.verify_export", "export: verified by its files", "events/s", checked).target(300_000.0),
    );
    Ok(())
}
