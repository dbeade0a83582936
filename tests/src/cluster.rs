//! Three brokers as one cluster, and two Postgres servers of which one is the other's synchronous standby, with the
//! configuration and the script of `ops/cluster`.

use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use deltran_messaging::Broker;
use deltran_runtime::embedded::{find_nats_server, find_postgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

use crate::nats::{api, healthy, monitored};
use crate::node::{PATIENCE, folder};
use crate::ports::lasting;
use crate::wait::within;

const NATS: &str = include_str!("../../ops/cluster/nats.conf");
const POSTGRES: &str = include_str!("../../ops/cluster/postgresql.conf");
const SCRIPT: &str = include_str!("../../ops/cluster/postgres.sh");
/// Of servers that only this test reaches.
const PASSWORD: &str = "of-this-test";

/// Three brokers. Dropped, they are killed.
#[derive(Debug)]
pub struct Brokers {
    folder: TempDir,
    program: PathBuf,
    routes: String,
    members: [Member; 3],
}

#[derive(Debug)]
struct Member {
    name: String,
    ports: [u16; 3],
    child: Option<Child>,
}

impl Brokers {
    /// Starts them on free ports and returns when JetStream answers on each.
    pub async fn start() -> Self {
        let program = std::env::var_os("DELTRAN_TEST_NATS_SERVER").map(PathBuf::from);
        let program = program.unwrap_or_else(|| find_nats_server().unwrap_or_else(|e| panic!("{e}")));
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("nats.conf"), NATS).expect("the configuration is written");
        let ports = lasting::<9>();
        let members = [0, 1, 2].map(|n| {
            let ports = [ports[3 * n], ports[3 * n + 1], ports[3 * n + 2]];
            Member { name: format!("broker-{}", n + 1), ports, child: None }
        });
        let routes: Vec<String> = members.iter().map(|m| format!("nats://127.0.0.1:{}", m.ports[1])).collect();
        let mut brokers = Self { folder, program, routes: format!("[{}]", routes.join(", ")), members };
        (0..3).for_each(|n| brokers.spawn(n));
        brokers.healthy().await;
        brokers
    }

    /// The URLs of all three, as the platform takes them.
    pub fn urls(&self) -> String {
        let urls: Vec<String> = self.members.iter().map(|m| format!("nats://127.0.0.1:{}", m.ports[0])).collect();
        urls.join(",")
    }

    /// The broker that leads a stream, by its place among the three; it waits while none does.
    pub async fn leader_of(&self, broker: &Broker, stream: &str) -> usize {
        within(PATIENCE, &format!("a leader of {stream}"), async || {
            let subject = format!("STREAM.INFO.{stream}");
            let answer: serde_json::Value = broker.jetstream().request(subject, &json!({})).await.ok()?;
            let leader = answer["cluster"]["leader"].as_str()?;
            self.members.iter().position(|m| m.name == leader && m.child.is_some())
        })
        .await
    }

    /// The broker that a client of this name is connected to, by its place among the three.
    pub async fn connected(&self, name: &str) -> usize {
        within(PATIENCE, &format!("a connection of {name}"), async || {
            for (n, member) in self.members.iter().enumerate() {
                let page = monitored(member.ports[2], "/connz").await.unwrap_or_default();
                let page: serde_json::Value = serde_json::from_str(&page).unwrap_or_default();
                if page["connections"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == name)) {
                    return Some(n);
                }
            }
            None
        })
        .await
    }

    /// Ends one at once, as a crash of its host would.
    pub fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.members[n].child.take() {
            // Failing means that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends one as the runbook says: it hands over what it leads, lets its clients go, and stops.
    pub async fn stop(&mut self, n: usize) {
        let mut child = self.members[n].child.take().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGUSR2).expect("it can be told");
        within(PATIENCE, "the broker to stop", async || child.try_wait().expect("it can be waited for")).await;
    }

    /// Removes everything that a stopped one has stored.
    pub fn wipe(&self, n: usize) {
        std::fs::remove_dir_all(self.store(n)).expect("its storage goes");
    }

    /// Starts one again on the same ports; returns when it has everything that the others have.
    pub async fn start_again(&mut self, n: usize) {
        self.spawn(n);
        self.healthy().await;
    }

    fn store(&self, n: usize) -> PathBuf {
        self.folder.path().join(&self.members[n].name)
    }

    fn spawn(&mut self, n: usize) {
        let (store, folder) = (self.store(n), self.folder.path());
        let member = &mut self.members[n];
        let log = File::options().create(true).append(true).open(folder.join(format!("{}.log", member.name)));
        let [client, route, monitor] = member.ports;
        let child = Command::new(&self.program)
            .args(["-c", "nats.conf"])
            .env("BROKER_NAME", &member.name)
            .env("BROKER_HOST", "127.0.0.1")
            .env("BROKER_PORT", client.to_string())
            .env("BROKER_ROUTE", route.to_string())
            .env("BROKER_MONITOR", format!("127.0.0.1:{monitor}"))
            .env("BROKER_ROUTES", &self.routes)
            .env("BROKER_STORE", store)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"))
            .spawn();
        member.child = Some(child.unwrap_or_else(|e| panic!("{}: {e}", self.program.display())));
    }

    /// Waits until each one that runs says that it is well, which includes that it has caught up.
    async fn healthy(&mut self) {
        let folder = self.folder.path();
        for member in &mut self.members {
            let Some(child) = &mut member.child else { continue };
            within(PATIENCE, &format!("{} to be well", member.name), async || {
                if let Ok(Some(status)) = child.try_wait() {
                    let log = std::fs::read_to_string(folder.join(format!("{}.log", member.name)));
                    panic!("{} ended with {status}:\n{}", member.name, log.unwrap_or_default());
                }
                healthy(member.ports[2]).await.then_some(())
            })
            .await;
        }
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        (0..3).for_each(|n| self.kill(n));
    }
}

/// How often each stream is kept.
pub async fn replicas(broker: &Broker, stream: &str) -> u64 {
    let info = api(broker, &format!("STREAM.INFO.{stream}"), &json!({})).await;
    info["config"]["num_replicas"].as_u64().expect("a number of replicas")
}

/// Two Postgres servers, at first a primary and its synchronous standby. Dropped, they are killed.
#[derive(Debug)]
pub struct PostgresPair {
    folder: TempDir,
    programs: PathBuf,
    /// Whom they run as, where that is not who runs this.
    owner: Option<User>,
    servers: [Server; 2],
}

#[derive(Debug)]
struct Server {
    name: &'static str,
    port: u16,
    child: Option<Child>,
    /// Its processes that were killed: the next start waits for their end.
    killed: Vec<i32>,
}

impl PostgresPair {
    /// Makes both and returns when every COMMIT of the first waits for the second.
    pub async fn start() -> Self {
        let programs = find_postgres().unwrap_or_else(|e| panic!("{e}"));
        let users = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let owner = geteuid().is_root().then(|| users.expect("a user that Postgres can run as"));
        let folder = folder();
        let ports = lasting::<2>();
        let servers = [("a", ports[0]), ("b", ports[1])].map(|(name, port)| Server {
            name,
            port,
            child: None,
            killed: Vec::new(),
        });
        let mut pair = Self { folder, programs, owner, servers };
        let place = pair.folder.path();
        let passwords = format!("*:*:*:postgres:{PASSWORD}\n*:*:*:deltran_replication:{PASSWORD}\n");
        for (name, text, mode) in
            [("postgresql.conf", POSTGRES, 0o644), ("postgres.sh", SCRIPT, 0o755), ("pgpass", &passwords, 0o600)]
        {
            std::fs::write(place.join(name), text).expect("a file is written");
            std::fs::set_permissions(place.join(name), Permissions::from_mode(mode)).expect("its mode is set");
        }
        if let Some(owner) = &pair.owner {
            for path in [place.to_owned(), place.join("pgpass")] {
                chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).expect("it is handed over");
            }
        }
        pair.script(0, "init", &["--name", "a", "--port", &ports[0].to_string()]).await;
        pair.run(0).await;
        pair.join(1, 0, &[]).await;
        pair.run(1).await;
        pair.followed(0).await;
        pair
    }

    /// The URL of both, as the platform takes it.
    pub fn url(&self) -> String {
        let [a, b] = self.servers.each_ref().map(|server| server.port);
        format!(
            "postgres://postgres:{PASSWORD}@127.0.0.1:{a},127.0.0.1:{b}/deltran?sslmode=disable&target_session_attrs=read-write"
        )
    }

    /// Where one listens.
    pub fn port(&self, n: usize) -> u16 {
        self.servers[n].port
    }

    /// The data folder of one.
    pub fn data(&self, n: usize) -> PathBuf {
        self.folder.path().join(self.servers[n].name)
    }

    /// Runs `postgres.sh COMMAND` for one, which must do it; what it printed.
    pub async fn script(&self, n: usize, command: &str, args: &[&str]) -> String {
        let mut script = self.as_owner(self.folder.path().join("postgres.sh"));
        script.arg(command).arg("--data").arg(self.data(n)).args(args);
        script.env("PG_BIN", &self.programs).env("PGPASSFILE", self.folder.path().join("pgpass"));
        // Servers that it starts for a moment must not hold this test's pipes.
        let output = tokio::process::Command::from(script).output();
        let output = tokio::time::timeout(PATIENCE, output).await.expect("postgres.sh ends").expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "postgres.sh {command}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Makes one the standby of another, with what else `postgres.sh join` takes.
    pub async fn join(&self, n: usize, primary: usize, args: &[&str]) {
        let (server, primary) = (&self.servers[n], format!("127.0.0.1:{}", self.port(primary)));
        let port = server.port.to_string();
        let common = ["--name", server.name, "--port", &port, "--primary", &primary];
        self.script(n, "join", &[&common, args].concat()).await;
    }

    /// Starts the server of one and returns when it answers.
    pub async fn run(&mut self, n: usize) {
        assert!(self.servers[n].child.is_none(), "{} runs already", self.servers[n].name);
        let killed = std::mem::take(&mut self.servers[n].killed);
        within(PATIENCE, "killed processes to be gone", async || killed.iter().all(|pid| is_gone(*pid)).then_some(()))
            .await;
        let log = self.folder.path().join(format!("{}.log", self.servers[n].name));
        let output = File::options().create(true).append(true).open(&log).expect("a log file");
        let mut command = self.as_owner(self.programs.join("postgres"));
        command.arg("-D").arg(self.data(n)).stdout(Stdio::null()).stderr(output);
        let mut child = command.spawn().expect("postgres starts");
        within(PATIENCE, &format!("Postgres {} to answer", self.servers[n].name), async || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("it ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            self.ask(n, "SELECT 'yes'").await.map(drop)
        })
        .await;
        self.servers[n].child = Some(child);
    }

    /// Ends one and all its processes at once, as a crash of its host would.
    pub fn kill(&mut self, n: usize) {
        self.servers[n].killed = self.signal(n, Signal::SIGKILL);
        if let Some(mut child) = self.servers[n].child.take() {
            let _ = child.wait();
        }
    }

    /// Stops one and all its processes where they are: connections stay, and nothing is answered, as by a host without
    /// power or with a disk that hangs.
    pub fn freeze(&self, n: usize) {
        self.signal(n, Signal::SIGSTOP);
    }

    fn signal(&self, n: usize, signal: Signal) -> Vec<i32> {
        let Some(child) = &self.servers[n].child else { return Vec::new() };
        let head = child.id();
        // They have groups of their own.
        let others = std::fs::read_to_string(format!("/proc/{head}/task/{head}/children")).unwrap_or_default();
        let others = others.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
        let all: Vec<i32> = std::iter::once(head.cast_signed()).chain(others).collect();
        for pid in &all {
            // Each may be gone already.
            let _ = kill(Pid::from_raw(*pid), signal);
        }
        all
    }

    /// Reaps one that a script has stopped.
    pub async fn stopped(&mut self, n: usize) {
        let mut child = self.servers[n].child.take().expect("it ran");
        within(PATIENCE, "Postgres to stop", async || child.try_wait().expect("it can be waited for")).await;
    }

    /// Waits until every COMMIT of one waits for the other.
    pub async fn followed(&self, n: usize) {
        within(PATIENCE, "a synchronous standby", async || {
            let question = "SELECT string_agg(application_name, ',') FROM pg_stat_replication
                WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')";
            self.ask(n, question).await
        })
        .await;
    }

    /// What a server answers to a question after one text; `None` where it is NULL, or does not answer.
    pub async fn ask(&self, n: usize, question: &str) -> Option<String> {
        let mut connection = self.connect(n).await.ok()?;
        sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(&mut connection).await.ok()?
    }

    /// A connection to one as the superuser.
    ///
    /// # Errors
    /// Where it does not take one.
    pub async fn connect(&self, n: usize) -> Result<PgConnection, sqlx::Error> {
        let url = format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/postgres?sslmode=disable", self.port(n));
        PgConnection::connect_with(&PgConnectOptions::from_str(&url)?.application_name("test")).await
    }

    fn as_owner(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(self.folder.path()).stdin(Stdio::null()).env("LC_ALL", "C").process_group(0);
        if let Some(owner) = &self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command
    }
}

/// Whether a process has ended, waited for by its parent or not.
fn is_gone(pid: i32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

impl Drop for PostgresPair {
    fn drop(&mut self) {
        for n in 0..2 {
            if std::thread::panicking() {
                let name = self.servers[n].name;
                let log = std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("the last words of Postgres {name}:\n{}", lines[lines.len().saturating_sub(12)..].join("\n"));
            }
            self.kill(n);
        }
    }
}
