//! `deltran report download` and `verify`: files of reports, and whether they are what they were.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use deltran_api::reporting::v1::{DownloadReportRequest, GetReportRequest, Report, ReportFile};
use deltran_reporting::domain::manifest::{self, Manifest, is_file_name};
use deltran_runtime::files::hash_of_file;
use serde_json::json;

use super::Session;
use crate::output::Output;
use crate::problem::Problem;

/// The help after the options of download.
pub const DOWNLOAD_HELP: &str =
    "Each file is written as NAME.part and renamed when its SHA-256 is what the platform says. \
The same command goes on where it broke off.

Examples:
  deltran report download 0190c3d5-0000-7000-8000-000000000001 --out reports
  deltran report download 0190c3d5-0000-7000-8000-000000000001 --file statement.csv
  deltran report download 0190c3d5-0000-7000-8000-000000000001 --role bank --participant ALFAAEXX";

/// The help after the options of verify.
pub const VERIFY_HELP: &str =
    "Reads manifest.json in the folder: every file must be there with its size and SHA-256, nothing \
else may be there, and the totals must add up. Exit code 1 otherwise.

Examples:
  deltran report verify reports/0190c3d5-0000-7000-8000-000000000001";

/// What downloading takes.
#[derive(Debug, Args)]
pub struct DownloadArgs {
    /// The report
    id: String,
    /// Into a folder of its own in this one
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Only this file
    #[arg(long, value_name = "NAME")]
    file: Option<String>,
    /// With --role bank: the bank that asks
    #[arg(long, value_name = "BIC")]
    participant: Option<String>,
}

/// What verifying takes.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The folder with manifest.json
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Downloads the files of a report.
///
/// # Errors
/// What the platform answers, and a file that cannot be written or is not what it should be.
pub async fn download(session: &Session, args: &DownloadArgs) -> Result<(), Problem> {
    let participant = args.participant.as_deref();
    let mut client = session.reporting(session.operator_or_bank(participant)?);
    let request = GetReportRequest { report_id: args.id.clone() };
    let report = client.get_report(request).await?.into_inner().report.unwrap_or_default();
    let written = fetch(session, &report, participant, &args.out, args.file.as_deref()).await?;
    let shown: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    session.out.value_or(&json!({ "report_id": report.report_id, "files": shown }), || shown.join("\n"));
    Ok(())
}

/// Downloads files of a report into a folder of its own in `folder`; where they are.
///
/// # Errors
/// As [`download`].
pub async fn fetch(
    session: &Session,
    report: &Report,
    participant: Option<&str>,
    folder: &Path,
    only: Option<&str>,
) -> Result<Vec<PathBuf>, Problem> {
    let wanted: Vec<&ReportFile> = report.files.iter().filter(|f| only.is_none_or(|name| f.name == name)).collect();
    if wanted.is_empty() {
        let names: Vec<&str> = report.files.iter().map(|f| f.name.as_str()).collect();
        let has = if names.is_empty() { report.state().as_str_name().to_owned() } else { names.join(", ") };
        return Err(Problem::refused(format!("report {} has no such file to download: {has}", report.report_id)));
    }
    // The names come from elsewhere: none of them may lead out of the folder.
    if let Some(odd) = wanted.iter().map(|f| &f.name).chain([&report.report_id]).find(|name| !is_file_name(name)) {
        return Err(Problem::refused(format!("{odd:?} is no name of a file")));
    }
    let folder = folder.join(&report.report_id);
    std::fs::create_dir_all(&folder).map_err(|e| failed(&folder, &e))?;
    let mut written = Vec::new();
    for file in wanted {
        written.push(one(session, report, participant, &folder, file).await?);
    }
    Ok(written)
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Problem {
    Problem::refused(format!("{}: {error}", path.display()))
}

async fn one(
    session: &Session,
    report: &Report,
    participant: Option<&str>,
    folder: &Path,
    file: &ReportFile,
) -> Result<PathBuf, Problem> {
    let (whole, part) = (folder.join(&file.name), folder.join(format!("{}.part", file.name)));
    if whole.is_file() && digest(&whole)? == (file.size, file.sha256.clone()) {
        return Ok(whole);
    }
    let mut target = OpenOptions::new().create(true).append(true).open(&part).map_err(|e| failed(&part, &e))?;
    let mut offset = target.metadata().map_err(|e| failed(&part, &e))?.len();
    if offset > file.size {
        target.set_len(0).map_err(|e| failed(&part, &e))?;
        offset = 0;
    }
    let bar = session.out.bar_like("{msg} {bar:40} {bytes}/{total_bytes}", file.size);
    bar.set_message(file.name.clone());
    let request = DownloadReportRequest { report_id: report.report_id.clone(), file: file.name.clone(), offset };
    let caller = session.operator_or_bank(participant)?.patient();
    let mut chunks = session.reporting(caller).download_report(request).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        if chunk.offset != offset {
            return Err(Problem::refused(format!("{}: bytes from {offset} on are missing", file.name)));
        }
        target.write_all(&chunk.data).map_err(|e| failed(&part, &e))?;
        offset += chunk.data.len() as u64;
        bar.set_position(offset);
    }
    target.sync_all().map_err(|e| failed(&part, &e))?;
    bar.finish_and_clear();
    if offset < file.size {
        let what = format!("{} broke off at byte {offset} of {}: the same command goes on there", file.name, file.size);
        return Err(Problem::unavailable(what));
    }
    let (_, found) = digest(&part)?;
    if found != file.sha256 {
        std::fs::remove_file(&part).map_err(|e| failed(&part, &e))?;
        let what = format!("{} is not what it should be: its SHA-256 is {found}, not {}", file.name, file.sha256);
        return Err(Problem::refused(what));
    }
    std::fs::rename(&part, &whole).map_err(|e| failed(&whole, &e))?;
    Ok(whole)
}

/// Size and SHA-256 of a file.
fn digest(path: &Path) -> Result<(u64, String), Problem> {
    hash_of_file(path).map_err(|e| failed(path, &e))
}

/// Checks a folder against its manifest.
///
/// # Errors
/// Every file that is not what it was, and totals that do not add up.
pub fn verify(args: &VerifyArgs, out: Output) -> Result<(), Problem> {
    let path = args.folder.join(manifest::NAME);
    let bytes = std::fs::read(&path).map_err(|e| failed(&path, &e))?;
    let manifest = Manifest::read(&bytes).map_err(|e| failed(&args.folder, &e))?;
    let mut there = BTreeMap::new();
    for entry in std::fs::read_dir(&args.folder).map_err(|e| failed(&args.folder, &e))? {
        let entry = entry.map_err(|e| failed(&args.folder, &e))?;
        let found = if entry.path().is_file() { digest(&entry.path())? } else { (0, String::new()) };
        there.insert(entry.file_name().to_string_lossy().into_owned(), found);
    }
    let mut faults: Vec<String> =
        manifest.check(&there).into_iter().map(|(name, fault)| format!("{name} {fault}")).collect();
    faults.extend(manifest.check_totals().err());
    if !faults.is_empty() {
        return Err(Problem::refused(format!("{}: {}", args.folder.display(), faults.join("; "))));
    }
    let sizes: u64 = manifest.files.iter().map(|f| f.size).sum();
    let value = json!({ "verified": true, "manifest": manifest });
    out.value_or(&value, || {
        format!(
            "{} of {}: {} files with {sizes} bytes are what the manifest says{}",
            manifest.kind,
            manifest.generated_at,
            manifest.files.len(),
            if manifest.interim { " (so far: the day was not over)" } else { "" }
        )
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn folder(files: &[(&str, &str)], totals: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut listed = Vec::new();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
            let sha256 = hex::encode(Sha256::digest(content));
            listed.push(json!({"name": name, "size": content.len(), "sha256": sha256, "entries": 1}));
        }
        let totals: BTreeMap<&str, &str> = totals.iter().copied().collect();
        let manifest = json!({
            "version": 1, "report_id": "r", "kind": "STATEMENT", "subject": {}, "deployment": "local",
            "generated_at": "2026-04-01T00:15:00.000000Z", "interim": false, "totals": totals, "positions": {},
            "files": listed,
        });
        std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
        folder
    }

    fn check(folder: &Path) -> Result<(), String> {
        verify(&VerifyArgs { folder: folder.to_owned() }, Output { json: true }).map_err(|e| e.message)
    }

    #[test]
    fn a_folder_is_verified_without_the_platform() {
        let files = [("statement.csv", "a,b\r\n"), ("statement.html", "<p>")];
        let whole = folder(
            &files,
            &[("opening_minor", "1"), ("received_minor", "2"), ("paid_minor", "0"), ("closing_minor", "3")],
        );
        check(whole.path()).unwrap();
        std::fs::write(whole.path().join("statement.csv"), "a,c\r\n").unwrap();
        assert!(check(whole.path()).unwrap_err().contains("statement.csv was changed"));
        std::fs::remove_file(whole.path().join("statement.csv")).unwrap();
        assert!(check(whole.path()).unwrap_err().contains("statement.csv is not there"));
        let more = folder(&files, &[]);
        std::fs::write(more.path().join("other.csv"), "").unwrap();
        assert!(check(more.path()).unwrap_err().contains("other.csv is not in the manifest"));
        let wrong = folder(&files, &[("USD_debit_minor", "1"), ("USD_credit_minor", "2")]);
        assert!(check(wrong.path()).unwrap_err().contains("debits and credits of USD differ"));
        assert!(check(tempfile::tempdir().unwrap().path()).is_err(), "no manifest");
    }
}
