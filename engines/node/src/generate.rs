//! `deltran gen`: the files that are generated from the catalog of events, streams and consumers.

use std::path::PathBuf;

use clap::Args;
use deltran_events::artefacts;
use serde_json::json;

use crate::output::Output;
use crate::problem::Problem;

/// Write schemas, the AsyncAPI document and the broker's configuration files anew
#[derive(Debug, Args)]
#[command(after_help = "A schema is not replaced by one of the same major version that would break readers.

Examples:
  deltran gen
  deltran gen --check   # exit code 1 where a file differs; nothing is written")]
pub struct GenArgs {
    /// Only compare; exit code 1 where a file differs
    #[arg(long)]
    check: bool,
    /// The project's folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Where files cannot be written, a schema would break its readers, or (with --check) a file differs.
pub fn run(args: &GenArgs, out: Output) -> Result<(), Problem> {
    if !args.root.join("Cargo.toml").is_file() {
        return Err(Problem::usage(format!(
            "{} is not the project's folder: run it there, or name the folder with --root",
            args.root.display()
        )));
    }
    let nothing = || "everything is up to date".to_owned();
    if args.check {
        let differences = artefacts::differences(&args.root);
        out.value_or(&json!({ "differences": differences }), || {
            if differences.is_empty() { nothing() } else { differences.join("\n") }
        });
        return match differences.len() {
            0 => Ok(()),
            count => Err(Problem::refused(format!("{count} generated files differ: `make gen` writes them anew"))),
        };
    }
    let done = artefacts::write(&args.root).map_err(|e| Problem::refused(e.to_string()))?;
    out.value_or(&json!({ "done": done }), || if done.is_empty() { nothing() } else { done.join("\n") });
    Ok(())
}
