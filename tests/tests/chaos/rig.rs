//! The platform under test: one process of every engine behind proxies, on a broker and a Postgres of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::notification::v1::notification_service_client::NotificationServiceClient;
use deltran_api::platform::v1::platform_service_client::PlatformServiceClient;
use deltran_api::platform::v1::{EngineStatus, GetStatusRequest};
use deltran_api::settlement::v1::settlement_service_client::SettlementServiceClient;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_events::topology::{Profile, STREAMS};
use deltran_messaging::topology::{self, Kind};
use deltran_messaging::{Broker, stored};
use deltran_runtime::embedded::{Embedded, Options};
use deltran_tests::node::{Connection, PATIENCE, Ran, command, folder, run};
use deltran_tests::ports::lasting;
use deltran_tests::{As, Nats, Proxy, api, parts, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use crate::means::{Disk, FalseClock};
use crate::plan;
use crate::random::Random;

/// Sizes of the file systems that are filled, in megabytes.
const BROKER_DISK: u32 = 1536;
const POSTGRES_DISK: u32 = 3072;

const CONFIGURATION: &str = r#"
[[clearing.schedules]]
name = "manual"
mode = "manual"
currencies = ["USD", "EUR"]

[audit]
key_files = ["audit.key"]

[notification]
allow_loopback = true
master_key_file = "notification.key"

[notification.webhooks]
timeout_ms = 3000
connect_timeout_ms = 1000
retry_ms = [100, 200, 200, 200, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500]
breaker_pause_ms = 100
breaker_longest_pause_ms = 500
"#;

/// Everything that runs. Dropped, it is ended.
pub struct Rig {
    node: Mutex<Option<Child>>,
    /// The broker.
    pub nats: tokio::sync::Mutex<Nats>,
    servers: Mutex<Option<Embedded>>,
    /// Between the banks and the node.
    pub to_node: Proxy,
    /// Between the node and the broker.
    pub to_broker: Proxy,
    /// Between the node and Postgres.
    pub to_postgres: Proxy,
    /// A connection to the broker that no proxy is between.
    pub broker: Broker,
    ports: [u16; 2],
    environment: [(&'static str, String); 2],
    /// The clock of the node, where it can be moved.
    pub clock: Option<FalseClock>,
    /// Where the broker stores, where that can be filled.
    pub broker_disk: tokio::sync::Mutex<Option<Disk>>,
    /// Where Postgres stores, where that can be filled.
    pub postgres_disk: tokio::sync::Mutex<Option<Disk>>,
    /// Kinds of faults that cannot be made here, and why.
    pub without: BTreeMap<plan::Kind, String>,
    folder: TempDir,
}

impl Rig {
    /// Starts everything but the node. With `means`, disks are made that can be filled, and a clock that can be moved.
    pub async fn prepare(seed: u64, means: bool) -> Self {
        let folder = folder();
        let data = folder.path().join("servers");
        let mut without = BTreeMap::new();
        let (mut broker_disk, mut postgres_disk, mut clock) = (None, None, None);
        if means {
            let mut disk = |path: PathBuf, size, kind| match Disk::mount(&path, size) {
                Ok(disk) => Some(disk),
                Err(why) => {
                    without.insert(kind, format!("no file system can be mounted: {why}"));
                    None
                }
            };
            broker_disk = disk(folder.path().join("broker"), BROKER_DISK, plan::Kind::BrokerDiskFull);
            postgres_disk = disk(data.join("postgres"), POSTGRES_DISK, plan::Kind::PostgresDiskFull);
            match FalseClock::make(folder.path()) {
                Ok(made) => clock = Some(made),
                Err(why) => {
                    for kind in [plan::Kind::ClockForward, plan::Kind::ClockBack] {
                        without.insert(kind, why.clone());
                    }
                }
            }
        }
        let options = Options { data, nats_url: Some(String::new()), postgres_port: Some(0), ..Options::default() };
        let store = folder.path().join("broker/store");
        let (servers, nats) = tokio::join!(Embedded::start(options), Nats::start_on(store));
        let servers = servers.unwrap_or_else(|e| panic!("{e}"));
        let (to_broker, broker_url) = Proxy::before(&nats.url()).await;
        let (to_postgres, database_url) = Proxy::before(servers.database_url()).await;
        let environment = [("DELTRAN_NATS_URL", broker_url), ("DELTRAN_DATABASE_URL", database_url)];
        let ports = lasting();
        let to_node = Proxy::to(SocketAddr::from(([127, 0, 0, 1], ports[0]))).await;
        let broker = Broker::connect(&nats.url(), "chaos").await.unwrap_or_else(|e| panic!("{e}"));
        within(PATIENCE, "the broker", async || broker.is_connected().then_some(())).await;
        let rig = Self {
            node: Mutex::default(),
            nats: tokio::sync::Mutex::new(nats),
            servers: Mutex::new(Some(servers)),
            to_node,
            to_broker,
            to_postgres,
            broker,
            ports,
            environment,
            clock,
            broker_disk: tokio::sync::Mutex::new(broker_disk),
            postgres_disk: tokio::sync::Mutex::new(postgres_disk),
            without,
            folder,
        };
        rig.configure(seed).await;
        rig
    }

    async fn configure(&self, seed: u64) {
        let write = |name: &str, text: &str| {
            std::fs::write(self.folder.path().join(name), text).expect("a file is written");
        };
        write("deltran.toml", CONFIGURATION);
        write("notification.key", &key(seed));
        let key = run(|command| {
            command.args(["audit", "key", "new", "--out", "audit.key"]).current_dir(self.folder.path());
        })
        .await;
        assert_eq!(key.code, 0, "{key:?}");
        // As the catalog has them, but streams may be purged. Those that are sourced come first.
        let (sourcing, plain): (Vec<_>, Vec<_>) = STREAMS.iter().partition(|spec| !spec.sources.is_empty());
        for spec in plain.into_iter().chain(sourcing) {
            let mut config = spec.config_json(Profile::Development);
            config["deny_purge"] = false.into();
            api(&self.broker, &format!("STREAM.CREATE.{}", spec.name), &config).await;
        }
        let mut plan = topology::plan(&self.broker, Profile::Development, None).await.unwrap_or_else(|e| panic!("{e}"));
        plan.changes.retain(|change| change.kind == Kind::Create);
        topology::apply(&self.broker, &plan, false).await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Starts the node.
    pub fn start_node(&self) {
        let mut node = self.node.lock().expect("no panic");
        assert!(node.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let mut command = command();
        if let Some(clock) = &self.clock {
            clock.over(&mut command);
        }
        let [grpc, http] = self.ports.map(|port| port.to_string());
        command
            .args(["--json", "serve"])
            .args(parts().iter().map(|part| part.name))
            .args(["--config", "deltran.toml", "--grpc-port", &grpc, "--http-port", &http])
            .envs(self.environment.clone())
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(log);
        *node = Some(command.spawn().expect("deltran starts"));
    }

    /// Kills the node as a crash would.
    pub fn kill_node(&self) {
        if let Some(mut node) = self.node.lock().expect("no panic").take() {
            // Failing means that it is gone already.
            let _ = node.kill();
            let _ = node.wait();
        }
    }

    /// Stops the node in order; how it ended.
    pub async fn stop_node(&self) -> Option<ExitStatus> {
        let mut node = self.node.lock().expect("no panic").take()?;
        signal(node.id().cast_signed(), Signal::SIGTERM);
        Some(within(PATIENCE, "the node to stop", async || node.try_wait().expect("its state")).await)
    }

    /// How the node ended, where it ended by itself; it is started again then.
    pub fn ended_by_itself(&self) -> Option<String> {
        let status = {
            let mut node = self.node.lock().expect("no panic");
            let status = node.as_mut()?.try_wait().expect("its state")?;
            *node = None;
            status
        };
        let words = self.last_words();
        self.start_node();
        Some(format!("{status}\n{words}"))
    }

    /// The node's process.
    pub fn node_pid(&self) -> i32 {
        self.node.lock().expect("no panic").as_ref().map(|node| node.id().cast_signed()).expect("it runs")
    }

    /// Where Postgres' processes are, its head first.
    pub fn postgres_pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.folder.path().join("servers/run.json")).unwrap_or_default();
        let run: Value = serde_json::from_str(&text).unwrap_or_default();
        let Some(head) = run["postgres"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) else {
            return Vec::new();
        };
        let mut all = vec![head];
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            // The name in brackets may hold anything; behind it come state and parent.
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
            if parent == Some(head) {
                all.push(pid);
            }
        }
        all
    }

    /// A connection of its own to the node, through the proxy.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.to_node.port()))
            .expect("an address")
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .connect_lazy()
    }

    /// The ledger, called by a bank.
    pub fn bank_on(&self, channel: &Channel, bank: &str) -> TokenServiceClient<Connection> {
        TokenServiceClient::new(InterceptedService::new(channel.clone(), As::bank(bank)))
    }

    /// Notifications, called by a bank.
    pub fn notifications(&self, bank: &str) -> NotificationServiceClient<Connection> {
        NotificationServiceClient::new(InterceptedService::new(self.channel(), As::bank(bank)))
    }

    fn operator(&self) -> Connection {
        InterceptedService::new(self.channel(), As::role("operator", "ada"))
    }

    /// The ledger, called by an operator.
    pub fn ledger(&self) -> TokenServiceClient<Connection> {
        TokenServiceClient::new(self.operator())
    }

    /// Clearing, called by an operator.
    pub fn clearing(&self) -> ClearingServiceClient<Connection> {
        ClearingServiceClient::new(self.operator())
    }

    /// Settlement, called by an operator.
    pub fn settlement(&self) -> SettlementServiceClient<Connection> {
        SettlementServiceClient::new(self.operator())
    }

    /// What the engines say of themselves.
    pub async fn status(&self) -> Option<Vec<EngineStatus>> {
        let mut platform = PlatformServiceClient::new(self.operator());
        let asked = tokio::time::timeout(Duration::from_secs(5), platform.get_status(GetStatusRequest {})).await;
        asked.ok()?.ok().map(|answer| answer.into_inner().engines)
    }

    /// Whether every stream is there and published to.
    pub async fn streams_stand(&self) -> bool {
        for spec in STREAMS {
            match stored::state(&self.broker, spec.name).await {
                Ok(Some(state)) if state.mark.is_none() => {}
                _ => return false,
            }
        }
        true
    }

    /// Runs a command of the program against the node.
    pub async fn run(&self, args: &[&str]) -> Ran {
        let endpoint = format!("http://127.0.0.1:{}", self.ports[0]);
        run(|command| {
            command.arg("--json").args(args).args(["--endpoint", &endpoint]).current_dir(self.folder.path());
        })
        .await
    }

    /// Runs a command that must succeed.
    pub async fn must(&self, args: &[&str]) -> Value {
        let ran = self.run(args).await;
        assert_eq!(ran.code, 0, "deltran {}: {}{}", args.join(" "), ran.error, ran.out);
        ran.json
    }

    /// Writes a file into the folder; the path as an argument.
    pub fn write(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("the file is written");
        path.display().to_string()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("node.log")
    }

    /// The end of the node's log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Panics and the like that the node wrote down.
    pub fn panics(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
    }

    /// Keeps the logs where a run went wrong.
    pub fn keep_logs(&self, folder: &std::path::Path) {
        std::fs::create_dir_all(folder).expect("a folder for logs");
        for (log, name) in
            [(self.log(), "node.log"), (self.folder.path().join("servers/postgres/postgres.log"), "postgres.log")]
        {
            // One that is not there says nothing.
            let _ = std::fs::copy(log, folder.join(name));
        }
    }

    /// Ends everything in order; the node must end well.
    pub async fn close(self) {
        let ended = self.stop_node().await;
        assert!(ended.is_some_and(|status| status.success()), "the node ended with {ended:?}:\n{}", self.last_words());
        let servers = self.servers.lock().expect("no panic").take();
        if let Some(servers) = servers {
            servers.stop().await;
        }
        self.nats.lock().await.kill();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last words of the node:\n{}", self.last_words());
        }
        self.kill_node();
        if let Ok(Some(servers)) = self.servers.lock().map(|mut servers| servers.take()) {
            drop(servers);
            // Nobody waits for them: without their head the sessions end by themselves.
            for pid in self.postgres_pids() {
                signal(pid, Signal::SIGKILL);
            }
        }
    }
}

/// Sends a signal; who is gone already needs none.
pub fn signal(pid: i32, what: Signal) {
    let _ = kill(Pid::from_raw(pid), what);
}

/// Runs a program of the system that says what it is, such as `nats-server --version`.
pub fn version(program: &mut Command) -> String {
    let output = program.arg("--version").output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Base64 of 32 bytes.
fn key(seed: u64) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = Random::of(seed, "key");
    let letters: String = (0..42).map(|_| char::from(random.pick(LETTERS))).collect();
    format!("{letters}A=")
}
