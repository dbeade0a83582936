//! A broker per test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use deltran_messaging::{Broker, stored};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::{eventually, within};

const CONFIGURATION: &str = include_str!("../../nats-jetstream.conf");

/// A private nats-server with the project's configuration and storage of its own. Dropped, it is killed.
#[derive(Debug)]
pub struct Nats {
    folder: TempDir,
    store: PathBuf,
    program: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Nats {
    /// Starts one on a free port and returns when JetStream answers.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = folder.path().join("store");
        Self::begin(folder, store).await
    }

    /// Starts one whose streams are stored in this folder, such as one of a file system of its own.
    pub async fn start_on(store: PathBuf) -> Self {
        Self::begin(tempfile::tempdir().expect("a temporary folder"), store).await
    }

    async fn begin(folder: TempDir, store: PathBuf) -> Self {
        let program = match std::env::var_os("DELTRAN_TEST_NATS_SERVER") {
            Some(program) => PathBuf::from(program),
            None => deltran_runtime::embedded::find_nats_server().unwrap_or_else(|e| panic!("{e}")),
        };
        std::fs::write(folder.path().join("nats.conf"), configuration(&store)).expect("the configuration is written");
        let mut nats = Self { folder, store, program, port: 0, child: None };
        nats.run().await;
        nats
    }

    /// Where it listens; stays the same over a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process, where it runs.
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.id().cast_signed())
    }

    /// Where its streams are stored.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Failing means that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port and storage.
    pub async fn restart(&mut self) {
        self.kill();
        self.run().await;
    }

    /// Keeps a copy of its storage as it is now, for [`Nats::roll_back`].
    pub async fn keep(&mut self) {
        self.kill();
        let kept = self.folder.path().join("kept");
        if kept.exists() {
            std::fs::remove_dir_all(&kept).expect("an earlier copy goes");
        }
        copy(&self.store, &kept);
        self.run().await;
    }

    /// Ends it and starts it on the copy: what it acknowledged since is forgotten.
    pub async fn roll_back(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.store).expect("its storage goes");
        copy(&self.folder.path().join("kept"), &self.store);
        self.run().await;
    }

    /// As [`Nats::roll_back`], and before it listens on its port again it does so on another, where only `meanwhile` knows of
    /// it, by its address.
    pub async fn roll_back_unseen(&mut self, meanwhile: impl AsyncFnOnce(String)) {
        let port = std::mem::take(&mut self.port);
        self.roll_back().await;
        meanwhile(self.url()).await;
        self.kill();
        self.port = port;
        self.run().await;
    }

    /// Ends it and starts it on nothing.
    pub async fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.store).expect("its storage goes");
        self.run().await;
    }

    async fn run(&mut self) {
        let log = self.folder.path().join("nats.log");
        let output = File::options().create(true).append(true).open(&log).expect("a log file");
        // -1 is a free port, which the server writes into a file.
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(self.folder.path().join("nats.conf"))
            .args(["-a", "127.0.0.1", "-p", &port, "-m", "-1"])
            .arg("--ports_file_dir")
            .arg(self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", self.program.display()));
        let ports = self.folder.path().join(format!("nats-server_{}.ports", child.id()));
        self.child = Some(child);
        let child = self.child.as_mut().expect("just started");
        let (port, monitor) = eventually("the broker to be ready", async || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("nats-server ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let (port, monitor) = ports_in(&ports)?;
            healthy(monitor).await.then_some((port, monitor))
        })
        .await;
        assert_ne!(port, monitor);
        self.port = port;
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A request to the broker's API that must succeed.
pub async fn api(broker: &Broker, subject: &str, body: &Value) -> Value {
    let answer: Value = broker.jetstream().request(subject.to_owned(), body).await.expect("the broker answers");
    assert!(answer.get("error").is_none(), "{subject}: {answer}");
    answer
}

/// Waits until streams that began at what was known of them or below begin above it, and are published to again.
pub async fn made_anew(time: Duration, broker: &Broker, streams: &[(&str, u64)]) {
    within(time, &format!("to be made anew: {streams:?}"), async || {
        for (stream, known) in streams {
            let state = stored::state(broker, stream).await.ok()??;
            if state.begins_at <= *known || state.mark.is_some() {
                return None;
            }
        }
        Some(())
    })
    .await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder to copy") {
        let path = entry.expect("an entry").path();
        let other = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &other);
        } else {
            std::fs::copy(&path, &other).expect("a file is copied");
        }
    }
}

fn configuration(store: &Path) -> String {
    let store = format!("    store_dir: {:?}", store.display().to_string());
    let lines =
        CONFIGURATION.lines().map(|line| if line.trim_start().starts_with("store_dir") { &store } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// Client and monitoring port that a server has written down.
fn ports_in(file: &Path) -> Option<(u16, u16)> {
    let ports: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let port = |kind: &str| ports[kind][0].as_str()?.rsplit(':').next()?.trim_end_matches('/').parse().ok();
    Some((port("nats")?, port("monitoring")?))
}

/// Whether the server's own check says that it serves JetStream.
pub(crate) async fn healthy(monitor: u16) -> bool {
    monitored(monitor, "/healthz").await.is_some()
}

/// A page of the server's monitoring; none where it does not answer with 200.
pub(crate) async fn monitored(monitor: u16, page: &str) -> Option<String> {
    let ask = async {
        let mut socket = TcpStream::connect(("127.0.0.1", monitor)).await?;
        socket.write_all(format!("GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), ask).await.ok()?.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.split_ascii_whitespace().nth(1) == Some("200")).then(|| body.to_owned())
}
