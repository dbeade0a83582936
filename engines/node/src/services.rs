//! `deltran services`: a private Postgres and the broker's program beside a command, for tests.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use clap::Args;
use deltran_runtime::embedded::{self, Embedded, find_nats_server};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::problem::Problem;

/// Run a command beside a private Postgres, for tests
#[derive(Debug, Args)]
#[command(
    after_help = "The command finds the superuser's URL of the Postgres in DELTRAN_TEST_DATABASE_URL and the broker's program in \
DELTRAN_TEST_NATS_SERVER. Its exit code is that of this command. SIGINT and SIGTERM are handed on to it \
and to all that it started; a second one ends them at once.

Examples:
  deltran services --data /tmp/services -- cargo test --workspace"
)]
pub struct ServicesArgs {
    /// Where the Postgres is kept
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The command, after --
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command; its exit code.
///
/// # Errors
/// Where Postgres or the broker's program is missing, or the command cannot be started.
pub async fn run(args: ServicesArgs) -> Result<u8, Problem> {
    let signals = |kind| signal(kind).map_err(|e| Problem::refused(format!("signals: {e}")));
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut terminate = signals(SignalKind::terminate())?;
    let broker = tokio::task::spawn_blocking(find_nats_server)
        .await
        .map_err(|e| Problem::refused(format!("looking for the broker: {e}")))??;
    let options = embedded::Options {
        data: args.data,
        // No broker is wanted here: each test starts its own.
        nats_url: Some(String::new()),
        postgres_port: Some(0),
        ..embedded::Options::default()
    };
    let servers = tokio::select! {
        servers = Embedded::start(options) => servers?,
        _ = interrupt.recv() => return Ok(exit_code_of(Signal::SIGINT)),
        _ = terminate.recv() => return Ok(exit_code_of(Signal::SIGTERM)),
    };
    let (program, arguments) = args.command.split_first().ok_or_else(|| Problem::usage("name a command after --"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("DELTRAN_TEST_DATABASE_URL", servers.database_url())
        .env("DELTRAN_TEST_NATS_SERVER", &broker)
        // Of its own, so that signals reach all that it starts and nothing else.
        .process_group(0);
    let outcome = match command.spawn() {
        Ok(mut child) => {
            let status = tokio::select! {
                status = child.wait() => status,
                _ = interrupt.recv() => hand_on(&mut child, Signal::SIGINT, &mut interrupt, &mut terminate).await,
                _ = terminate.recv() => hand_on(&mut child, Signal::SIGTERM, &mut interrupt, &mut terminate).await,
            };
            status.map(exit_code).map_err(|e| Problem::refused(format!("{program}: {e}")))
        }
        Err(e) => Err(Problem::refused(format!("cannot start {program}: {e}"))),
    };
    servers.stop().await;
    outcome
}

/// Hands a signal on to the command and all it started, and waits; a second signal ends them at once.
async fn hand_on(
    child: &mut Child,
    first: Signal,
    interrupt: &mut tokio::signal::unix::Signal,
    terminate: &mut tokio::signal::unix::Signal,
) -> std::io::Result<ExitStatus> {
    let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) else {
        return child.wait().await;
    };
    tell(group, first);
    let status = tokio::select! {
        status = child.wait() => status,
        _ = interrupt.recv() => { tell(group, Signal::SIGKILL); child.wait().await }
        _ = terminate.recv() => { tell(group, Signal::SIGKILL); child.wait().await }
    };
    // What the command left behind; where nothing is left there is no such group.
    tell(group, Signal::SIGTERM);
    status
}

fn tell(group: Pid, what: Signal) {
    match killpg(group, what) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => eprintln!("warning: {what} did not reach the command: {error}"),
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let by_signal = status.signal().and_then(|s| Signal::try_from(s).ok()).map(exit_code_of);
    by_signal.or_else(|| status.code().and_then(|code| u8::try_from(code).ok())).unwrap_or(1)
}

/// As shells put it.
fn exit_code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(1)
}
