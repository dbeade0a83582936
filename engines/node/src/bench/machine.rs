//! What a figure depends on: the machine, the versions, and who used how much of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

/// Ticks of `/proc/<pid>/stat` a second: the same on every Linux that this runs on.
const TICKS: f64 = 100.0;

/// The machine in one line.
pub fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |m| m.1);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse().ok());
    let gib = kib.unwrap_or(0u64) / (1024 * 1024);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, {gib} GiB, Linux {}", kernel.trim())
}

/// Load over the last minute.
pub fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or("?").to_owned()
}

/// The commit that this was built from, as far as this is a working copy.
pub fn commit() -> String {
    words(Command::new("git").args(["rev-parse", "--short", "HEAD"])).unwrap_or_else(|| "?".to_owned())
}

/// The version of a server by the program that one of these processes runs.
pub fn version(of: &[Process], part: Part) -> String {
    let program = of.iter().find(|p| p.part == part).and_then(|p| fs::read_link(format!("/proc/{}/exe", p.pid)).ok());
    program.and_then(|path| words(Command::new(path).arg("--version"))).unwrap_or_else(|| "?".to_owned())
}

fn words(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.lines().next()?.trim().to_owned())
}

/// Which part of the platform a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The process that was named: engines.
    Node,
    /// The database.
    Postgres,
    /// The broker.
    Broker,
}

impl Part {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "engines",
            Self::Postgres => "Postgres",
            Self::Broker => "broker",
        }
    }
}

/// A process of the platform.
#[derive(Debug, Clone)]
pub struct Process {
    pid: u32,
    part: Part,
    seconds: f64,
}

/// The processes of a platform: `root` and the servers that it started.
pub fn processes(root: u32) -> Vec<Process> {
    let stats: Vec<(u32, u32, String, Vec<f64>)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .collect();
    let mut inside = vec![root];
    let mut at = 0;
    while let Some(parent) = inside.get(at).copied() {
        inside.extend(stats.iter().filter(|(_, of, ..)| *of == parent).map(|(pid, ..)| *pid));
        at += 1;
    }
    let found = stats.into_iter().filter(|(pid, ..)| inside.contains(pid)).filter_map(|(pid, _, name, times)| {
        let own = times[0] + times[1];
        let with_ended = own + times[2] + times[3];
        let (part, ticks) = match name.as_str() {
            _ if pid == root => (Part::Node, own),
            name if name.starts_with("postgres") => (Part::Postgres, with_ended),
            name if name.starts_with("nats-server") => (Part::Broker, own),
            _ => return None,
        };
        Some(Process { pid, part, seconds: ticks / TICKS })
    });
    found.collect()
}

/// Process, parent, name, and user and system time of itself and of its ended children.
fn stat(pid: u32) -> Option<(u32, u32, String, Vec<f64>)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split(' ').collect();
    let times = fields.get(11..15)?.iter().map(|t| t.parse().unwrap_or(0.0)).collect();
    Some((pid, fields.get(1)?.parse().ok()?, name, times))
}

/// Processor time by part, in seconds.
fn seconds(of: &[Process]) -> BTreeMap<Part, f64> {
    let mut sums = BTreeMap::new();
    for process in of {
        *sums.entry(process.part).or_insert(0.0) += process.seconds;
    }
    sums
}

/// Bytes of a process in memory.
pub fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// Begins the next peak with what is in memory now.
pub fn forget_peak() {
    // Where the kernel does not allow it, the peak is that of the whole run, and a figure is too high rather than too low.
    let _allowed = fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that a process ever had, in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// What the kernel says of a process's memory, in bytes.
fn status(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Processor time that `work` units cost each part, in microseconds a unit.
pub fn cost(before: &[Process], after: &[Process], work: f64) -> BTreeMap<Part, f64> {
    let before = seconds(before);
    seconds(after)
        .into_iter()
        .map(|(part, after)| (part, (after - before.get(&part).copied().unwrap_or_default()) * 1e6 / work))
        .collect()
}

/// Costs by name.
pub fn costs_json(costs: &BTreeMap<Part, f64>) -> Value {
    costs.iter().map(|(part, micros)| (part.name(), json!((micros * 100.0).round() / 100.0))).collect()
}

/// How long this machine needs for one fsync of a small write, the median of some.
pub fn fsync(folder: &Path) -> Option<Duration> {
    use std::io::Write as _;
    let mut file = tempfile::tempfile_in(folder).ok()?;
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let started = tokio::time::Instant::now();
            file.write_all(&[0; 8192]).and_then(|()| file.sync_data()).ok().map(|()| started.elapsed())
        })
        .collect::<Option<_>>()?;
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let of = processes(std::process::id());
        assert_eq!(of.iter().filter(|p| p.part == Part::Node).count(), 1);
        assert!(peak_memory(std::process::id()) > 1 << 20);
        assert!(machine().contains("cores"));
    }
}
