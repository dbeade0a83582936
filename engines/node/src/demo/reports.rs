//! The papers of the day: settlement reports, a statement, the trial balance; downloaded, checked, compared.

use std::collections::BTreeMap;
use std::path::Path;

use deltran_api::clearing::v1::Window;
use deltran_kernel::{Money, ParticipantId};
use serde_json::Value;

use super::check::{Checks, Expected};
use super::day::CURRENCIES;
use super::node::Node;
use crate::output::{say, table};
use crate::problem::Problem;

/// Has the reports made, leaves them in `folder`, and compares their totals with what the files of the day say.
///
/// # Errors
/// Where a report is not made.
pub async fn write(
    node: &Node,
    folder: &Path,
    windows: &[Window],
    bank: ParticipantId,
    expected: &BTreeMap<String, Expected>,
    checks: &mut Checks,
) -> Result<(), Problem> {
    let out = folder.display().to_string();
    let mut rows = Vec::new();
    for window in windows {
        let Some(expected) = expected.get(&window.currency) else { continue };
        let settlement = ["settlement", "--window", &window.window_id];
        let (totals, files) = create(node, &settlement, &out).await?;
        let nets = expected.net.iter().all(|(bank, net)| {
            let reported = totals[format!("net_{bank}_minor")].as_str().and_then(|t| t.parse::<i128>().ok());
            reported == Some(net.units())
        });
        let gross = totals["gross_minor"].as_str().and_then(|t| t.parse::<i128>().ok()) == Some(expected.gross.units());
        checks.check(
            &format!("{}: the settlement report has the gross and every net position", window.currency),
            nets && gross,
            format!("{} banks", expected.net.len()),
        );
        rows.extend(files);

        let who = bank.to_string();
        let statement =
            ["statement", "--participant", &who, "--currency", &window.currency, "--window", &window.window_id];
        let (totals, files) = create(node, &statement, &out).await?;
        let closing = totals["closing_minor"].as_str().and_then(|t| t.parse::<i128>().ok());
        let net = expected.net.get(&bank).copied().unwrap_or_default();
        checks.check(
            &format!("{}: the statement of {bank} ends at its net position", window.currency),
            closing == Some(net.units()),
            Money::new(net, window.currency.parse().map_err(|e| Problem::refused(format!("{e}")))?).to_string(),
        );
        rows.extend(files);
    }
    let (totals, files) = create(node, &["trial-balance", "--verify-ledger"], &out).await?;
    let ties = CURRENCIES.iter().filter(|currency| totals[format!("{currency}_ties")] == "yes").count();
    checks.same("the trial balance ties to the ledger, currency by currency", ties, CURRENCIES.len());
    rows.extend(files);
    say(&format!("\nReports in {out}\n{}", table(["file", "bytes", "SHA-256"], rows)));
    Ok(())
}

/// Has a report made and downloaded, and checks its files against their manifest; its totals and files.
async fn create(node: &Node, what: &[&str], out: &str) -> Result<(Value, Vec<[String; 3]>), Problem> {
    let mut args = vec!["report", "create"];
    args.extend(what);
    args.extend(["--wait", "--out", out]);
    let answer = node.must(&args).await?;
    let report = if answer["report"].is_object() { &answer["report"] } else { &answer };
    let id = report["report_id"].as_str().unwrap_or_default();
    let folder = Path::new(out).join(id);
    node.must(&["report", "verify", &folder.display().to_string()]).await?;
    let manifest = std::fs::read(folder.join("manifest.json"))
        .map_err(|e| Problem::refused(format!("{}: {e}", folder.join("manifest.json").display())))?;
    let manifest: Value =
        serde_json::from_slice(&manifest).map_err(|e| Problem::refused(format!("manifest.json: {e}")))?;
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let files = manifest["files"].as_array().into_iter().flatten().map(|file| {
        let sha: String = word(&file["sha256"]).chars().take(16).collect();
        [format!("{id}/{}", word(&file["name"])), word(&file["size"]), format!("{sha}…")]
    });
    Ok((manifest["totals"].clone(), files.collect()))
}
