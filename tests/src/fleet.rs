//! The real program, a process per engine: `deltran serve ENGINE` on servers that run already.

mod books;
mod day;

pub use books::compare;

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use crate::node::{Connection, PATIENCE, Ran, command, folder, run};
use crate::ports::lasting;
use crate::{As, Nats, Postgres, parts};

/// Engines as processes of their own. Dropped, they are killed.
#[derive(Debug)]
pub struct Fleet {
    folder: TempDir,
    nats: Nats,
    postgres: Postgres,
    /// gRPC and HTTP port by engine; the same over restarts.
    ports: BTreeMap<&'static str, [u16; 2]>,
    channels: BTreeMap<&'static str, Channel>,
    running: BTreeMap<&'static str, Child>,
}

impl Fleet {
    /// A broker with its streams, a database, and the addresses of engines; none runs yet. `toml` is added to the
    /// configuration of each.
    pub async fn prepare(toml: &str) -> Self {
        let (nats, postgres, folder) = (Nats::start().await, Postgres::fresh().await, folder());
        let ports: BTreeMap<_, [u16; 2]> = parts().iter().map(|part| (part.name, lasting())).collect();
        let peers: String =
            ports.iter().map(|(name, [grpc, _])| format!("{name} = \"{}\"\n", address(*grpc))).collect();
        std::fs::write(folder.path().join("deltran.toml"), format!("{toml}\n[peers]\n{peers}"))
            .expect("the configuration is written");
        let channels = ports
            .iter()
            .map(|(name, [grpc, _])| (*name, Endpoint::from_shared(address(*grpc)).expect("an address").connect_lazy()))
            .collect();
        let fleet = Self { folder, nats, postgres, ports, channels, running: BTreeMap::new() };
        let applied = fleet.run("token", &["topology", "apply"]).await;
        assert_eq!(applied.code, 0, "{}{}", applied.error, applied.out);
        fleet
    }

    /// The names of all engines.
    pub fn engines(&self) -> Vec<&'static str> {
        self.ports.keys().copied().collect()
    }

    /// Starts a process that serves one engine; returns when it takes requests.
    pub async fn start(&mut self, engine: &'static str) {
        self.serve(engine, &[engine]).await;
    }

    /// Starts one process that serves every engine, at the address of `at`.
    pub async fn start_together(&mut self, at: &'static str) {
        let all = self.engines();
        self.serve(at, &all).await;
    }

    /// As [`Fleet::start_together`], with variables of its environment; whether it came up, and did not end before.
    pub async fn try_start_together(&mut self, at: &'static str, environment: &[(&str, String)]) -> bool {
        let all = self.engines();
        self.try_serve(at, &all, environment).await
    }

    /// Whether the process at the address of an engine has ended by itself; it may be started again then.
    pub fn has_ended(&mut self, at: &str) -> bool {
        let ended = match self.running.get_mut(at) {
            Some(child) => child.try_wait().expect("its state").is_some(),
            None => true,
        };
        if ended {
            self.running.remove(at);
        }
        ended
    }

    async fn serve(&mut self, at: &'static str, engines: &[&str]) {
        let ready = self.try_serve(at, engines, &[]).await;
        assert!(ready, "{at} did not become ready:\n{}", self.last_words(at));
    }

    async fn try_serve(&mut self, at: &'static str, engines: &[&str], environment: &[(&str, String)]) -> bool {
        assert!(!self.running.contains_key(at), "{at} runs already");
        let [grpc, http] = self.ports[at].map(|port| port.to_string());
        let log = File::options().create(true).append(true).open(self.log(at)).expect("a log file");
        let mut child = command()
            .args(["--json", "serve"])
            .args(engines)
            .args(["--config", "deltran.toml", "--grpc-port", &grpc, "--http-port", &http])
            .env("DELTRAN_NATS_URL", self.nats.url())
            .env("DELTRAN_DATABASE_URL", self.postgres.url())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("deltran starts");
        let stdout = child.stdout.take().expect("its output");
        self.running.insert(at, child);
        let ready = tokio::task::spawn_blocking(move || {
            serde_json::Deserializer::from_reader(stdout).into_iter::<Value>().next()
        });
        matches!(tokio::time::timeout(PATIENCE, ready).await, Ok(Ok(Some(Ok(_)))))
    }

    /// Kills the process of an engine as a crash would.
    pub fn kill(&mut self, engine: &'static str) {
        if let Some(mut child) = self.running.remove(engine) {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }

    /// The id of the process at the address of an engine.
    pub fn pid(&self, engine: &str) -> i32 {
        self.running
            .get(engine)
            .map(|child| child.id().cast_signed())
            .unwrap_or_else(|| panic!("{engine} does not run"))
    }

    /// Whether a process runs at the address of an engine, as far as it was not killed.
    pub fn is_running(&self, engine: &str) -> bool {
        self.running.contains_key(engine)
    }

    /// Stops the process of an engine where it stands, as a machine that hangs would: its connections stay.
    pub fn freeze(&self, engine: &str) {
        kill(Pid::from_raw(self.pid(engine)), Signal::SIGSTOP).expect("it can be stopped");
    }

    /// Lets a stopped process go on.
    pub fn thaw(&self, engine: &str) {
        kill(Pid::from_raw(self.pid(engine)), Signal::SIGCONT).expect("it can go on");
    }

    /// The database of all engines.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The broker.
    pub fn nats(&self) -> &Nats {
        &self.nats
    }

    /// Where the process at the address of an engine takes requests.
    pub fn address(&self, engine: &str) -> String {
        address(self.ports[engine][0])
    }

    /// What the process at the address of an engine wrote to its log.
    pub fn log_of(&self, engine: &str) -> String {
        std::fs::read_to_string(self.log(engine)).unwrap_or_default()
    }

    /// A connection without identity to the process of an engine.
    pub fn channel(&self, engine: &str) -> Channel {
        self.channels[engine].clone()
    }

    /// A connection of a caller to the process of an engine.
    pub fn to(&self, engine: &str, caller: As) -> Connection {
        InterceptedService::new(self.channels[engine].clone(), caller)
    }

    /// Runs a command of the program against the process of an engine.
    pub async fn run(&self, engine: &str, args: &[&str]) -> Ran {
        let endpoint = address(self.ports[engine][0]);
        run(|command| {
            command.arg("--json").args(args).args(["--endpoint", &endpoint]).current_dir(self.folder.path());
            command.env("DELTRAN_NATS_URL", self.nats.url());
        })
        .await
    }

    /// Runs a command that must succeed.
    pub async fn must(&self, engine: &str, args: &[&str]) -> Value {
        let ran = self.run(engine, args).await;
        assert_eq!(ran.code, 0, "deltran {}: {}{}", args.join(" "), ran.error, ran.out);
        ran.json
    }

    /// Writes a file into its folder; the path as an argument.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("the file is written");
        path.display().to_string()
    }

    fn log(&self, engine: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("{engine}.log"))
    }

    fn last_words(&self, engine: &str) -> String {
        let log = std::fs::read_to_string(self.log(engine)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (engine, mut child) in std::mem::take(&mut self.running) {
            if std::thread::panicking() {
                eprintln!("the last words of {engine}:\n{}", self.last_words(engine));
            }
            // Failing means that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn address(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}
