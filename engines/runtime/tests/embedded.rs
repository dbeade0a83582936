//! The private servers for real: started, used, killed, left behind, found again and stopped.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use deltran_runtime::embedded::{Embedded, EmbeddedError, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const HOLD: &str = "DELTRAN_TEST_HOLD_DATA";
const OWN_MOUNTS: &str = "DELTRAN_TEST_OWN_MOUNTS";

#[derive(serde::Deserialize)]
struct Child {
    pid: i32,
}

fn options(data: &Path) -> Options {
    Options {
        data: data.to_owned(),
        nats_port: Some(0),
        nats_monitor_port: Some(0),
        postgres_port: Some(0),
        ..Options::default()
    }
}

/// A folder that the user of Postgres may pass through when the tests run as root.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn children(data: &Path) -> BTreeMap<String, i32> {
    let Ok(text) = std::fs::read(data.join("run.json")) else {
        return BTreeMap::new();
    };
    let children: BTreeMap<String, Child> = serde_json::from_slice(&text).unwrap();
    children.into_iter().map(|(name, child)| (name, child.pid)).collect()
}

fn alive(pid: i32) -> bool {
    // Dead ones that nobody collected do not count.
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')),
        Err(_) => !Path::new("/proc/self").exists() && kill(Pid::from_raw(pid), None).is_ok(),
    }
}

async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(25)).await;
    }
}

async fn greeting(nats_url: &str) -> Option<String> {
    let stream = TcpStream::connect(nats_url.strip_prefix("nats://").unwrap()).await.ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.ok()?;
    line.starts_with("INFO ").then_some(line)
}

async fn setting(database: &mut PgConnection, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(database).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_serve_come_back_and_leave() {
    let folder = folder();
    let data = folder.path().join("data");
    let embedded = Embedded::start(options(&data)).await.unwrap();

    let info = greeting(embedded.nats_url()).await.unwrap();
    assert!(info.contains(r#""max_payload":8388608"#) && info.contains(r#""jetstream":true"#), "{info}");
    let mut database = PgConnection::connect(embedded.database_url()).await.unwrap();
    for (name, value) in [
        ("server_encoding", "UTF8"),
        ("data_checksums", "on"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("max_connections", "400"),
        ("idle_in_transaction_session_timeout", "2500ms"),
        ("TimeZone", "UTC"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
    ] {
        assert_eq!(setting(&mut database, name).await, value, "{name}");
    }
    let wrong = PgConnectOptions::from_str(embedded.database_url()).unwrap().password("wrong");
    assert!(PgConnection::connect_with(&wrong).await.is_err(), "a wrong password must not do");
    sqlx::query("CREATE TABLE kept (n int)").execute(&mut database).await.unwrap();

    let second = Embedded::start(options(&data)).await.unwrap_err();
    assert!(matches!(second, EmbeddedError::Locked { .. }), "{second}");

    let before = children(&data);
    for name in ["nats", "postgres"] {
        kill(Pid::from_raw(before[name]), Signal::SIGKILL).unwrap();
    }
    let after = until("both servers to come back", async || {
        let now = children(&data);
        let back = ["nats", "postgres"].iter().all(|name| now.get(*name).is_some_and(|pid| *pid != before[*name]));
        back.then_some(now)
    })
    .await;
    until("the broker to greet again on its port", async || greeting(embedded.nats_url()).await).await;
    let mut database = until("Postgres to answer again on its port", async || {
        PgConnection::connect(embedded.database_url()).await.ok()
    })
    .await;
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(&mut database).await.unwrap();
    assert_eq!(kept, 0);

    // Postgres may have needed more than one start.
    let last = children(&data);
    embedded.stop().await;
    for pid in before.values().chain(after.values()).chain(last.values()) {
        assert!(!alive(*pid), "process {pid} is still there");
    }
    assert!(!data.join("run.json").exists());
    assert!(!data.join("postgres/cluster/postmaster.pid").exists(), "Postgres was not shut down cleanly");
}

/// Nothing by itself; with the variable set, the process that the next test starts and kills.
#[tokio::test]
async fn hold() {
    let Some(data) = std::env::var_os(HOLD) else {
        return;
    };
    let embedded = Embedded::start(options(Path::new(&data))).await.unwrap();
    std::fs::write(Path::new(&data).join("held"), embedded.database_url()).unwrap();
    std::future::pending::<()>().await;
}

/// The servers of a run that was killed while it was up, and the url of its database.
async fn hold_and_kill(data: &Path) -> String {
    let held = data.join("held");
    let _ = std::fs::remove_file(&held);
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hold"])
        .env(HOLD, data)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let url = until("the other run to be up", async || {
        assert!(holder.try_wait().unwrap().is_none(), "the other run ended by itself");
        std::fs::read_to_string(&held).ok().filter(|url| !url.is_empty())
    })
    .await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_run_left_is_stopped_first() {
    let folder = folder();
    let data = folder.path().join("data");
    // By the list of the killed run; and without it, by the pid files of the servers.
    for (round, listed) in [true, false].into_iter().enumerate() {
        let url = hold_and_kill(&data).await;
        let left = children(&data);
        assert!(left.len() == 2 && left.values().all(|pid| alive(*pid)), "{left:?}");
        let mut database = PgConnection::connect(&url).await.unwrap();
        sqlx::query("CREATE TABLE IF NOT EXISTS kept (n int)").execute(&mut database).await.unwrap();
        sqlx::query("INSERT INTO kept VALUES (1)").execute(&mut database).await.unwrap();
        if !listed {
            std::fs::remove_file(data.join("run.json")).unwrap();
        }

        let embedded = Embedded::start(options(&data)).await.unwrap();
        assert!(left.values().all(|pid| !alive(*pid)), "{left:?}");
        let told = embedded.notes().iter().filter(|note| note.contains("an earlier run had left")).count();
        assert_eq!(told, 2, "{:?}", embedded.notes());
        let mut database = PgConnection::connect(embedded.database_url()).await.unwrap();
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(&mut database).await.unwrap();
        assert_eq!(usize::try_from(kept).unwrap(), round + 1);
        embedded.stop().await;
    }

    // Dropped without a stop, as after a panic: the folder is free again when the servers have left.
    let embedded = Embedded::start(options(&data)).await.unwrap();
    let own = children(&data);
    drop(embedded);
    let embedded =
        until("the dropped servers to leave the folder", async || match Embedded::start(options(&data)).await {
            Err(EmbeddedError::Locked { .. }) => None,
            other => Some(other.unwrap()),
        })
        .await;
    assert!(own.len() == 2 && own.values().all(|pid| !alive(*pid)), "{own:?}");
    let own = children(&data);
    embedded.stop().await;
    assert!(own.len() == 2 && own.values().all(|pid| !alive(*pid)), "{own:?}");
}

#[tokio::test]
async fn a_given_server_is_not_started_and_a_taken_port_is_named() {
    let folder = folder();
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = holder.local_addr().unwrap().port();
    let only_nats = Options {
        database_url: Some("postgres://elsewhere/deltran".into()),
        nats_port: Some(port),
        ..options(&folder.path().join("data"))
    };
    let error = Embedded::start(only_nats.clone()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::PortTaken { port: named, .. } if named == port), "{error}");

    let embedded = Embedded::start(Options { nats_port: Some(0), ..only_nats }).await.unwrap();
    assert_eq!(embedded.database_url(), "postgres://elsewhere/deltran");
    assert_eq!(children(&folder.path().join("data")).len(), 1);
    greeting(embedded.nats_url()).await.unwrap();
    embedded.stop().await;
}

/// A small file system of its own. Dropped, it is taken away.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, megabytes: u32) -> Result<Self, String> {
        std::fs::create_dir_all(path).unwrap();
        let size = format!("size={megabytes}m");
        match Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output() {
            Ok(ran) if ran.status.success() => Ok(Self(path.to_owned())),
            Ok(ran) => Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned()),
            Err(error) => Err(format!("mount: {error}")),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        let piece = vec![1; 1 << 20];
        let mut size = piece.len();
        while size > 0 {
            // Full: smaller pieces.
            if file.write_all(&piece[..size]).is_err() {
                size /= 2;
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: who still has files open there ends by himself.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Whether this process may mount file systems. An ordinary user does so in a namespace of his own: there the test is run
/// again, and this one is done.
fn mounts_here(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() || std::env::var_os(OWN_MOUNTS).is_some() {
        return true;
    }
    let own = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-current-user", "--mount", "--keep-caps"]);
        command
    };
    if !own().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        println!("left out: no file system can be mounted by this user, and there are no namespaces of users");
        return false;
    }
    let again = own()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(OWN_MOUNTS, "1")
        .status();
    assert!(again.unwrap().success(), "it failed in a namespace of its own");
    false
}

/// As much of the broker's protocol as asking JetStream takes.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(nats_url: &str) -> std::io::Result<Self> {
        let mut client = Self(BufReader::new(TcpStream::connect(nats_url.strip_prefix("nats://").unwrap()).await?));
        client.send(b"CONNECT {\"verbose\":false}\r\nSUB answers 1\r\n").await?;
        Ok(client)
    }

    async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes).await
    }

    async fn publish(&mut self, subject: &str, payload: &[u8]) -> std::io::Result<()> {
        self.send(format!("PUB {subject} {}\r\n", payload.len()).as_bytes()).await?;
        self.send(payload).await?;
        self.send(b"\r\n").await
    }

    async fn ask(&mut self, subject: &str, payload: &[u8]) -> std::io::Result<String> {
        self.publish(&format!("{subject} answers"), payload).await?;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.starts_with("PING") {
                self.send(b"PONG\r\n").await?;
            } else if line.starts_with("MSG answers ") {
                let length: usize = line.split_ascii_whitespace().last().unwrap().parse().unwrap();
                let mut answer = vec![0; length + 2];
                self.0.read_exact(&mut answer).await?;
                return Ok(String::from_utf8(answer).unwrap());
            }
        }
    }
}

/// What the broker's monitoring says: 200 where every stream is well, 503 where one is given up. The file that fills the disk is
/// no account, which it complains of as well.
async fn jetstream(monitor_port: u16) -> Option<u16> {
    let mut monitor = TcpStream::connect(("127.0.0.1", monitor_port)).await.ok()?;
    monitor.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    monitor.read_to_string(&mut answer).await.ok()?;
    let status = answer.split_ascii_whitespace().nth(1)?.parse().ok()?;
    (status == 200 || answer.contains("write error")).then_some(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_ran_out_of_space_is_started_again_once_there_is_room() {
    if !mounts_here("a_broker_that_ran_out_of_space_is_started_again_once_there_is_room") {
        return;
    }
    let folder = folder();
    let data = folder.path().join("data");
    let disk = match Disk::mount(&data.join("nats/jetstream"), 64) {
        Ok(disk) => disk,
        Err(why) => return println!("left out: no file system can be mounted: {why}"),
    };
    let only_nats = Options { database_url: Some("postgres://elsewhere/deltran".into()), ..options(&data) };
    let embedded = Embedded::start(only_nats).await.unwrap();
    let port_of = |note: &String| note.strip_prefix("the broker's monitoring listens on port ")?.parse::<u16>().ok();
    let monitor = embedded.notes().iter().find_map(port_of).unwrap();
    let first = children(&data)["nats"];

    let mut client = Client::connect(embedded.nats_url()).await.unwrap();
    let config = br#"{"name":"FULL","subjects":["full"],"storage":"file"}"#;
    let made = client.ask("$JS.API.STREAM.CREATE.FULL", config).await.unwrap();
    assert!(!made.contains("\"error\""), "{made}");
    let kept = client.ask("full", b"kept").await.unwrap();
    assert!(kept.contains("\"seq\":1"), "{kept}");

    disk.fill();
    let message = vec![b'x'; 64 << 10];
    until("the stream to be given up", async || {
        client.publish("full", &message).await.unwrap();
        jetstream(monitor).await.filter(|status| *status == 503)
    })
    .await;
    assert_eq!(children(&data)["nats"], first, "nothing is started while the disk is full");

    std::fs::remove_file(disk.ballast()).unwrap();
    until("another broker", async || children(&data).get("nats").copied().filter(|pid| *pid != first)).await;
    until("the streams to be well", async || jetstream(monitor).await.filter(|status| *status == 200)).await;
    let known = until("the stream to be there", async || {
        let mut client = Client::connect(embedded.nats_url()).await.ok()?;
        client.ask("$JS.API.STREAM.INFO.FULL", b"").await.ok().filter(|answer| !answer.contains("\"error\""))
    })
    .await;
    assert!(known.contains("\"name\":\"FULL\""), "{known}");
    let mut client = Client::connect(embedded.nats_url()).await.unwrap();
    let stored = client.ask("full", b"after").await.unwrap();
    assert!(stored.contains("\"stream\":\"FULL\"") && !stored.contains("\"error\""), "{stored}");
    embedded.stop().await;
}
