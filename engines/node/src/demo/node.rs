//! The platform as a process of its own, and the commands that are typed against it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::problem::Problem;

const START: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(60);

/// A process that is asked to stop when nobody holds it any more: killed, it would leave its servers behind.
struct Held(Child);

impl Held {
    fn ask_to_stop(&self) -> Result<(), nix::Error> {
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok());
        pid.map_or(Ok(()), |pid| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Failing means that it is gone.
        let _ = self.ask_to_stop();
    }
}

/// A running `deltran up`. Dropped, it is asked to stop.
pub struct Node {
    program: PathBuf,
    child: Held,
    /// Its gRPC address.
    pub endpoint: String,
    /// Its HTTP address.
    pub http: String,
    /// What it says of ports and folders.
    pub notes: Vec<String>,
}

impl Node {
    /// Starts the platform in a folder and waits until it is ready.
    ///
    /// # Errors
    /// Where it does not start; its last words are in `up.log`.
    pub async fn start(folder: &Path, config: &Path) -> Result<Self, Problem> {
        let program = std::env::current_exe().map_err(|e| Problem::refused(format!("this program: {e}")))?;
        let log_path = folder.join("up.log");
        let failed = |what: String| {
            Problem::unavailable(format!("the platform did not start: {what}; see {}", log_path.display()))
        };
        let log = std::fs::File::create(&log_path).map_err(|e| failed(e.to_string()))?;
        let mut child = Command::new(&program)
            .args(["--json", "up", "--data"])
            .arg(folder)
            .arg("--config")
            .arg(config)
            .args(["--grpc-port", "0", "--http-port", "0", "--nats-port", "0", "--postgres-port", "0"])
            .env_remove("DELTRAN_NATS_URL")
            .env_remove("DELTRAN_DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // A Ctrl-C is for this program; it stops the platform in order.
            .process_group(0)
            .spawn()
            .map(Held)
            .map_err(|e| failed(e.to_string()))?;
        let stdout = child.0.stdout.take().ok_or_else(|| failed("it has no output".into()))?;
        let mut text = String::new();
        let read = read_value(BufReader::new(stdout), &mut text);
        let ready = tokio::time::timeout(START, read).await.map_err(|_| failed("it took too long".into()))?;
        let Some(ready) = ready else {
            let log = std::fs::read_to_string(&log_path).unwrap_or_default();
            return Err(failed(log.lines().last().unwrap_or("it said nothing").to_owned()));
        };
        let word = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        let notes =
            ready["notes"].as_array().into_iter().flatten().filter_map(|n| n.as_str().map(str::to_owned)).collect();
        Ok(Self { program, child, endpoint: word("grpc"), http: word("http"), notes })
    }

    /// Its process; 0 once it has ended.
    pub fn pid(&self) -> u32 {
        self.child.0.id().unwrap_or_default()
    }

    async fn output(&self, args: &[&str]) -> Result<Output, Problem> {
        Command::new(&self.program)
            .arg("--json")
            .args(args)
            .args(["--endpoint", &self.endpoint])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| Problem::refused(format!("deltran {}: {e}", args.join(" "))))
    }

    /// Runs a command of this program against the platform; its JSON and its exit code.
    ///
    /// # Errors
    /// Where it cannot be run or prints no JSON.
    pub async fn run(&self, args: &[&str]) -> Result<(Value, i32), Problem> {
        let output = self.output(args).await?;
        let code = output.status.code().unwrap_or(-1);
        let value = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>().next();
        match value {
            Some(Ok(value)) => Ok((value, code)),
            _ => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(Problem::refused(format!("deltran {} ended with {code}: {said}", args.join(" "))))
            }
        }
    }

    /// Runs a command that the platform is expected to refuse: whether it did, and its words.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub async fn refused(&self, args: &[&str]) -> Result<(bool, String), Problem> {
        let output = self.output(args).await?;
        let error: Value = serde_json::from_slice(&output.stderr).unwrap_or_default();
        let said = error["error"]["message"].as_str().unwrap_or_default().to_owned();
        Ok((output.status.code() == Some(1) && !said.is_empty(), said))
    }

    /// Runs a command that must succeed.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn must(&self, args: &[&str]) -> Result<Value, Problem> {
        match self.run(args).await? {
            (value, 0) => Ok(value),
            (value, code) => Err(Problem::refused(format!("deltran {} ended with {code}: {value}", args.join(" ")))),
        }
    }

    /// Stops the platform and waits for its end.
    ///
    /// # Errors
    /// Where it does not end well.
    pub async fn stop(mut self) -> Result<(), Problem> {
        self.child.ask_to_stop().map_err(|e| Problem::refused(format!("the platform cannot be stopped: {e}")))?;
        let ended = tokio::time::timeout(STOP, self.child.0.wait()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Problem::refused(format!("the platform ended with {status}"))),
            Ok(Err(error)) => Err(Problem::refused(format!("the platform: {error}"))),
            Err(_) => Err(Problem::refused(format!("the platform did not end within {} s", STOP.as_secs()))),
        }
    }
}

/// The first whole JSON value of an output.
async fn read_value(mut from: impl AsyncBufReadExt + AsyncReadExt + Unpin, text: &mut String) -> Option<Value> {
    while from.read_line(text).await.is_ok_and(|read| read > 0) {
        if let Ok(value) = serde_json::from_str(text) {
            return Some(value);
        }
    }
    None
}
