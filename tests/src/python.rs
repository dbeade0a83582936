//! Python programs of examples/ as their users run them. They need python3 and a package index; without them a test fails
//! and says so.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::node::{PATIENCE, Ran, id};

/// A folder of examples.
pub fn examples(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples").join(name)
}

/// Runs a program to its end.
///
/// # Errors
/// Where it cannot be run, or does not end in time.
pub async fn run(command: &mut Command) -> Result<Ran, String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE * 2, command.output()).await.map_err(|_| "no end in time".to_owned())?;
    let output = output.map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    Ok(Ran { json: Value::Null, out, error, code: output.status.code().unwrap_or(-1) })
}

/// A Python with the packages of requirements.txt, below the target folder; made once for each content of that file.
pub async fn with(requirements: &Path) -> PathBuf {
    let name = id(&std::fs::read_to_string(requirements).unwrap()).simple().to_string();
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(3).unwrap().join("python-client");
    let (venv, program) = (folder.join(&name), folder.join(&name).join("bin/python"));
    let complete = venv.join("complete");
    if complete.is_file() {
        return program;
    }
    // An unfinished one of a run that was ended; where there is none, there is nothing to do.
    let _ = std::fs::remove_dir_all(&venv);
    std::fs::create_dir_all(&folder).unwrap();
    let mut making = Command::new("python3");
    making.args(["-m", "venv"]).arg(&venv);
    let mut installing = Command::new(&program);
    installing.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements);
    for (what, command) in [("python3 -m venv", &mut making), ("pip install -r requirements.txt", &mut installing)] {
        match run(command).await {
            Ok(ran) if ran.code == 0 => {}
            Ok(ran) => {
                panic!("{what} failed; python3 with venv and a package index are needed:\n{}{}", ran.out, ran.error)
            }
            Err(error) => panic!("{what} cannot be run; python3 with venv and a package index are needed: {error}"),
        }
    }
    std::fs::write(complete, "").unwrap();
    program
}
