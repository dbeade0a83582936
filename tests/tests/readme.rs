//! README.md and deltran.example.toml say what is true: every command runs in order against the real program with the exit
//! code that is written beside it, and every configuration is one that the engines take.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends here")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use deltran_kernel::Timestamp;
use deltran_runtime::config::Config;
use deltran_tests::node::{Deltran, PATIENCE, folder};
use deltran_tests::{Nats, Postgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// What is not run: it runs this test, or builds everything for minutes.
const SKIPPED: [&str; 2] = ["make demo", "make test"];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn readme() -> String {
    std::fs::read_to_string(project().join("README.md")).unwrap()
}

/// Fenced blocks of a language: their lines with numbers.
fn blocks(text: &str, language: &str) -> Vec<Vec<(usize, String)>> {
    let (mut all, mut open) = (Vec::new(), None::<(bool, Vec<_>)>);
    for (number, line) in (1..).zip(text.lines()) {
        open = match (line.strip_prefix("```"), open) {
            (Some(fence), None) => Some((fence == language, Vec::new())),
            (Some(_), Some((wanted, lines))) => {
                if wanted {
                    all.push(lines);
                }
                None
            }
            (None, Some((wanted, mut lines))) => {
                lines.push((number, line.to_owned()));
                Some((wanted, lines))
            }
            (None, None) => None,
        };
    }
    assert!(open.is_none(), "a block is not closed");
    all
}

/// The exit code that stands beside a command: `# exits 1`.
fn expected(line: &str) -> i32 {
    let code =
        line.split_once("# exits ").map_or("0", |(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap());
    code.parse().unwrap_or_else(|_| panic!("{line}: no exit code"))
}

/// A folder to run commands in, as a reader would.
struct Shell {
    folder: PathBuf,
    variables: BTreeMap<String, String>,
}

impl Shell {
    fn command(&self, line: &str) -> Command {
        let test = std::env::current_exe().unwrap();
        let programs = test.parent().and_then(Path::parent).unwrap().display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DELTRAN_")) {
            command.env_remove(name);
        }
        command.args(["-c", line]).env("PATH", path).envs(&self.variables).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, line: &str) -> (i32, String, String) {
        let output = timeout(PATIENCE, self.command(line).output()).await.unwrap_or_else(|_| panic!("{line}: no end"));
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// Starts a command that does not end by itself and waits for a line of output.
    async fn start(&self, line: &str, wanted: impl Fn(&str) -> bool) -> Lasting {
        // Without a shell between, so that a signal reaches the program.
        let mut command = self.command(&format!("exec {line}"));
        let log = self.folder.join("started.log");
        command.stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let found = timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if wanted(&line) {
                    return true;
                }
            }
            false
        });
        let found = found.await.unwrap_or(false);
        assert!(found, "{line}: not the output that was waited for\n{}", std::fs::read_to_string(log).unwrap());
        Lasting { child, _lines: lines }
    }
}

/// A command that runs until it is told to stop.
struct Lasting {
    child: Child,
    // Closed output would end the program by itself.
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Lasting {
    async fn stop(mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed());
        kill(pid, signal).unwrap();
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().code()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A command of the day. Waits for output where it goes on until Ctrl-C, keeps what it assigns.
async fn step(shell: &mut Shell, number: usize, line: &str) {
    if SKIPPED.iter().any(|skipped| line.starts_with(skipped)) {
        return;
    }
    if line.split_whitespace().nth(2) == Some("watch") {
        shell.start(line, |_| true).await.stop(Signal::SIGINT).await;
        return;
    }
    let assigned = line.split_once("=$(").map(|(name, _)| name);
    let whole = assigned.map_or(line.to_owned(), |name| format!("{line}; printf %s \"${name}\""));
    assert!(
        assigned.is_some() || line.starts_with("deltran "),
        "README.md:{number}: {line}: not known how to check this"
    );
    let (code, out, error) = shell.run(&whole).await;
    assert_eq!(code, expected(line), "README.md:{number}: {line}\n{out}{error}");
    if let Some(name) = assigned {
        assert!(!out.trim().is_empty(), "README.md:{number}: {line}: nothing was found");
        shell.variables.insert(name.to_owned(), out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_day_of_the_readme_is_true() {
    let blocks = blocks(&readme(), "sh");
    let (mut node, mut ran) = (None::<(Deltran, Shell)>, 0);
    for (number, line) in blocks.iter().filter(|lines| !is_apart(lines)).flatten() {
        match &mut node {
            None if line == "deltran up" => {
                let started = Deltran::start("").await;
                copy(&project().join("examples/day"), &started.path().join("examples/day"));
                let shell = Shell { folder: started.path().to_owned(), variables: BTreeMap::new() };
                node = Some((started, shell));
            }
            None => {
                assert!(SKIPPED.iter().any(|s| line.starts_with(s)), "README.md:{number}: {line}: before the start")
            }
            Some((_, shell)) => {
                step(shell, *number, line).await;
                ran += 1;
            }
        }
    }
    assert!(ran >= 40, "only {ran} commands were found");
    let (mut node, _) = node.unwrap();
    assert!(node.stop().is_some_and(|status| status.success()), "deltran up ends in order");
}

/// Whether a block runs against servers of its own.
fn is_apart(lines: &[(usize, String)]) -> bool {
    lines.iter().any(|(_, line)| line.starts_with("export "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_run_in_processes_of_their_own_as_the_readme_says() {
    let folder = folder();
    let (postgres, nats) = (Postgres::fresh().await, Nats::start().await);
    let listeners: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let free: Vec<u16> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
    drop(listeners);
    let ports: Vec<_> = ["50051", "50052", "8080", "8081"].into_iter().zip(free.iter().map(u16::to_string)).collect();
    let on_free_ports =
        |text: &str| ports.iter().fold(text.to_owned(), |text, (usual, free)| text.replace(usual, free));
    for lines in blocks(&readme(), "toml") {
        let file = lines.first().and_then(|(_, line)| line.strip_prefix("# ")).filter(|name| name.ends_with(".toml"));
        if let Some(file) = file {
            std::fs::write(folder.path().join(file), on_free_ports(&text_of(&lines))).unwrap();
        }
    }
    let variables = BTreeMap::from([
        ("DELTRAN_NATS_URL".to_owned(), nats.url()),
        ("DELTRAN_DATABASE_URL".to_owned(), postgres.url().to_owned()),
    ]);
    let mut shell = Shell { folder: folder.path().to_owned(), variables };
    let mut serving = Vec::new();
    let apart: Vec<_> = blocks(&readme(), "sh").into_iter().filter(|lines| is_apart(lines)).collect();
    for (number, line) in apart.iter().flatten().map(|(number, line)| (*number, on_free_ports(line))) {
        if let Some(settings) = line.strip_prefix("export ") {
            for setting in settings.split(' ') {
                let name = setting.split('=').next().unwrap();
                assert!(shell.variables.contains_key(name), "README.md:{number}: {name} has no value here");
            }
        } else if line.starts_with("deltran serve ") {
            serving.push(shell.start(&line, |line| line == "ready").await);
        } else {
            step(&mut shell, number, &line).await;
        }
    }
    assert_eq!(serving.len(), 2);
    for endpoint in ["50051", "50052"].map(on_free_ports) {
        let line = format!("deltran status --endpoint http://127.0.0.1:{endpoint}");
        deltran_tests::within(PATIENCE, &line, async || (shell.run(&line).await.0 == 0).then_some(())).await;
    }
    for process in serving {
        assert_eq!(process.stop(Signal::SIGTERM).await, Some(0));
    }
}

fn text_of(lines: &[(usize, String)]) -> String {
    lines.iter().map(|(_, line)| format!("{line}\n")).collect()
}

fn load(text: &str) -> Config {
    let folder = folder();
    let file = folder.path().join("deltran.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), []).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn section<T: DeserializeOwned>(config: &Config, engine: &str) -> T {
    config.section(engine).unwrap_or_else(|e| panic!("{e}"))
}

/// Every section as its engine reads it, with its ranges; as text, to compare.
fn taken(config: &Config) -> Vec<String> {
    let token: deltran_token::config::Settings = section(config, "token");
    token.check().unwrap();
    let compliance: deltran_compliance::config::Settings = section(config, "compliance");
    compliance.check().unwrap();
    let risk: deltran_risk::config::Settings = section(config, "risk");
    risk.check().unwrap();
    let clearing: deltran_clearing::config::Settings = section(config, "clearing");
    let now: Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
    deltran_clearing::config::Schedules::new(&clearing, now).unwrap();
    let settlement = section::<deltran_settlement::config::Settings>(config, "settlement").checked().unwrap();
    let notification = section::<deltran_notification::config::Settings>(config, "notification").checked().unwrap();
    let reporting: deltran_reporting::config::Settings = section(config, "reporting");
    reporting.clone().checked(now).unwrap();
    let audit = section::<deltran_audit::config::Settings>(config, "audit").checked().unwrap();
    let common: [&dyn Debug; 8] = [
        &config.deployment,
        &config.database,
        &config.nats,
        &config.grpc,
        &config.http,
        &config.peers,
        &config.telemetry,
        &config.messaging,
    ];
    let engines: [&dyn Debug; 8] =
        [&token, &compliance, &risk, &clearing, &settlement, &notification, &reporting, &audit];
    common.iter().chain(&engines).map(|settings| format!("{settings:?}")).collect()
}

#[test]
fn configurations_of_the_readme_are_taken() {
    let blocks = blocks(&readme(), "toml");
    assert!(blocks.len() >= 3);
    for lines in blocks {
        taken(&load(&text_of(&lines)));
    }
}

#[test]
fn the_example_configuration_has_every_key_with_its_default() {
    let text = std::fs::read_to_string(project().join("deltran.example.toml")).unwrap();
    let defaults = taken(&load(""));
    assert_eq!(taken(&load(&text)), defaults);
    for word in defaults.iter().flat_map(|settings| settings.split_whitespace()) {
        let Some(key) = word.strip_suffix(':').filter(|key| *key != "engines" && *key != "schedules") else { continue };
        let stands = text.contains(&format!("{key} = ")) || text.contains(&format!(".{key}]"));
        assert!(stands, "{key} does not stand in deltran.example.toml");
    }
    // With what is commented out they are still configurations.
    let whole: String = text.lines().map(|line| uncommented(line) + "\n").collect();
    let manual = "mode = \"manual\"";
    assert!(whole.contains(manual));
    taken(&load(&whole.replace(manual, "mode = \"cron\"")));
}

/// `# key = value` without its mark.
fn uncommented(line: &str) -> String {
    let setting = line.strip_prefix("# ").filter(|rest| {
        rest.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    });
    setting.unwrap_or(line).to_owned()
}
