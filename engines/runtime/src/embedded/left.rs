//! Processes that are not our children: found by number and start time, recognised by their command line, and stopped.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::process::{KILLED, POLL, Steps};

/// A process as a run writes it down: its number alone may be reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recorded {
    pub(super) pid: i32,
    pub(super) started: String,
}

/// Stops a process that is not our child: one that an earlier run left behind.
pub(super) async fn stop_left(recorded: &Recorded, steps: Steps) -> bool {
    let alive = || identity(recorded.pid).is_some_and(|started| started == recorded.started);
    if !alive() {
        return false;
    }
    let kill_at_last = [(Signal::SIGKILL, KILLED)];
    for (signal, patience) in steps.iter().chain(&kill_at_last) {
        let _ = kill(Pid::from_raw(recorded.pid), *signal);
        let deadline = Instant::now() + *patience;
        while alive() && Instant::now() < deadline {
            sleep(POLL).await;
        }
        if !alive() {
            break;
        }
    }
    true
}

/// The process a file names in its first line, if it lives and its command line mentions `mention`.
pub(super) fn named_in(file: &Path, mention: &Path) -> Option<Recorded> {
    let pid = first_number(file)?;
    let mention = mention.to_str()?;
    let started = identity(pid)?;
    command_line(pid)?.contains(mention).then_some(Recorded { pid, started })
}

pub(super) fn first_number(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0)
}

/// What makes a process this one and not a later one with its number. None when it is gone, or dead and not yet collected.
pub(super) fn identity(pid: i32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        started(&stat).map(|ticks| format!("{}/{ticks}", boot.trim()))
    } else {
        ps(pid, "lstart=")
    }
}

/// Field 22 of `/proc/<pid>/stat`. The second field is the program's name in brackets, and may hold anything.
fn started(stat: &str) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18) }
}

fn command_line(pid: i32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let raw = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(String::from_utf8_lossy(&raw).replace('\0', " "))
    } else {
        ps(pid, "command=")
    }
}

fn ps(pid: i32, column: &str) -> Option<String> {
    let output = std::process::Command::new("ps").args(["-o", column, "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Whether any process works in this folder, as far as the system tells.
pub(super) fn anyone_in(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return false;
    };
    entries.flatten().any(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STEPS: Steps = &[(Signal::SIGTERM, Duration::from_millis(200))];

    #[test]
    fn the_start_time_is_found_behind_an_odd_name() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 8 9";
        assert_eq!(started(stat), Some("4711"));
        assert_eq!(started(&stat.replace(" S ", " Z ")), None);
        assert!(identity(std::process::id().cast_signed()).is_some());
    }

    #[tokio::test]
    async fn what_another_run_left_is_stopped_and_a_later_process_with_its_number_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = tokio::process::Command::new("/bin/sh")
            .args(["-c", "exec sleep 600"])
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        let pid = child.id().unwrap().cast_signed();
        let left = Recorded { pid, started: identity(pid).unwrap() };

        assert!(!stop_left(&Recorded { started: "earlier".into(), ..left.clone() }, STEPS).await);
        assert!(anyone_in(&folder.path().canonicalize().unwrap()) || !cfg!(target_os = "linux"));
        assert!(stop_left(&left, STEPS).await);
        assert_eq!(identity(pid), None);
        child.wait().await.unwrap();
    }
}
