//! The private broker: nats-server with the platform's own configuration file, its storage in the data folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::{At, EmbeddedError};
use super::find::{self, Version};
use super::left;
use super::process::{self, Plan, Readiness, Registry, Steps, Supervised};
use super::{Started, ports, storage};

const SERVER: &str = "the broker";
const PROGRAM: &str = "nats-server";
const VARIABLE: &str = "DELTRAN_NATS_SERVER";
const NEEDED: &str = "2.12.7 or a later 2.12, or 2.14 or later";
const CONFIGURATION: &str = include_str!("../../../../nats-jetstream.conf");
/// Time to read back the streams after an unclean end.
const PATIENCE: Duration = Duration::from_secs(120);
const ANSWER: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;
/// Not the lame-duck signal: nobody can move to another node, so waiting for clients to leave only costs time.
pub(super) const STEPS: Steps = &[(Signal::SIGTERM, Duration::from_secs(30))];

/// What the caller asked for.
pub(super) struct Wish {
    pub(super) port: Option<u16>,
    pub(super) monitor_port: Option<u16>,
    pub(super) conf: Option<PathBuf>,
}

/// An adequate nats-server: the one `DELTRAN_NATS_SERVER` names, else the first one on PATH, in the usual places or among the
/// project's own tools.
pub fn find_nats_server() -> Result<PathBuf, EmbeddedError> {
    if let Some(value) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        return match find::version(&value) {
            Some(version) if adequate(version) => Ok(value),
            Some(version) => Err(EmbeddedError::Override {
                variable: VARIABLE,
                value,
                problem: format!("is {version}, but needed is {NEEDED}"),
            }),
            None => Err(EmbeddedError::Override {
                variable: VARIABLE,
                value,
                problem: "does not run as a nats-server".into(),
            }),
        };
    }
    let mut usual: Vec<PathBuf> =
        ["/usr/local/bin", "/usr/sbin", "/usr/bin", "/opt/homebrew/bin"].map(PathBuf::from).into();
    usual.extend(find::home("go/bin"));
    let folders = find::folders(&usual);
    let mut inadequate = Vec::new();
    for program in folders.iter().map(|folder| folder.join(PROGRAM)).filter(|program| find::is_program(program)) {
        match find::version(&program) {
            Some(version) if adequate(version) => return Ok(program),
            Some(version) => inadequate.push(format!("{version} at {}", program.display())),
            None => {}
        }
    }
    if inadequate.is_empty() {
        let looked = "PATH, /usr/local/bin, /usr/sbin, ~/go/bin, .tools/bin of this folder and those above".into();
        Err(EmbeddedError::NotFound { program: PROGRAM, looked, variable: VARIABLE })
    } else {
        Err(EmbeddedError::TooOld {
            program: PROGRAM,
            found: inadequate.join(", "),
            needed: NEEDED,
            variable: VARIABLE,
        })
    }
}

/// Earlier ones let a user pass over the permissions that keep each engine to its own subjects.
fn adequate(version: Version) -> bool {
    version >= Version::new(2, 14, 0) || (version >= Version::new(2, 12, 7) && version < Version::new(2, 13, 0))
}

pub(super) async fn start(data: &Path, wish: Wish, registry: &Arc<Registry>) -> Result<Started, EmbeddedError> {
    let program = tokio::task::spawn_blocking(find_nats_server).await??;
    let folder = data.join("nats");
    super::make_folder(&folder, 0o700)?;
    let pid_file = folder.join("nats.pid");
    let mut notes = Vec::new();
    if let Some(left) = left::named_in(&pid_file, &pid_file)
        && left::stop_left(&left, STEPS).await
    {
        notes.push(format!("stopped a broker (process {}) that an earlier run had left", left.pid));
    }
    let conf = configuration(&folder, wish.conf.as_deref())?;

    let mut attempt = 1;
    loop {
        let client = ports::choose(SERVER, wish.port, 4222)?;
        let mut monitor = ports::choose("the broker's monitoring", wish.monitor_port, 8222)?;
        while monitor.port == client.port && monitor.chosen {
            monitor = ports::choose("the broker's monitoring", Some(0), 8222)?;
        }
        let mut args =
            vec!["-c".into(), conf.path.clone().into_os_string(), "-P".into(), pid_file.clone().into_os_string()];
        args.extend(
            ["-a", "127.0.0.1", "-p", &client.port.to_string(), "-m", &monitor.port.to_string()].map(Into::into),
        );
        if let Some(store) = &conf.store {
            args.extend(["-sd".into(), store.clone().into_os_string()]);
        }
        let plan = Plan {
            name: "nats",
            program: program.clone(),
            args,
            folder: folder.clone(),
            owner: None,
            log: folder.join("nats.log"),
            steps: STEPS,
        };
        let check = || ready(client.port, monitor.port);
        match process::launch(plan, registry, PATIENCE, check).await {
            Ok(running) => {
                notes.extend(client.note);
                notes.extend(monitor.note);
                let url = format!("nats://127.0.0.1:{}", client.port);
                let (monitor_port, store) = (monitor.port, folder.join("jetstream"));
                let useless = move || {
                    let store = store.clone();
                    storage::switched_off(monitor_port, storage::EVERY, move || storage::free_bytes(&store))
                };
                return Ok(Started { supervised: Supervised::watch_over(running, useless), url, notes });
            }
            // Somebody else was quicker to take a port that was free when it was chosen.
            Err(EmbeddedError::Exited { .. })
                if attempt < ATTEMPTS
                    && (ports::taken(client.port).is_some() || ports::taken(monitor.port).is_some()) =>
            {
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

struct Configuration {
    path: PathBuf,
    /// The storage folder, where the file leaves it to the flags: the server refuses to have it from both.
    store: Option<PathBuf>,
}

fn configuration(folder: &Path, given: Option<&Path>) -> Result<Configuration, EmbeddedError> {
    let text = match given {
        Some(path) => std::fs::read_to_string(path).at("read the broker's configuration", path)?,
        None => CONFIGURATION.to_owned(),
    };
    match (with_store(&text, folder), given) {
        (Some(text), _) => {
            let path = folder.join("nats-jetstream.conf");
            std::fs::write(&path, text).at("write", &path)?;
            Ok(Configuration { path, store: None })
        }
        (None, Some(given)) => {
            let path = std::path::absolute(given).at("find", given)?;
            Ok(Configuration { path, store: Some(folder.to_owned()) })
        }
        (None, None) => {
            let path = folder.join("nats-jetstream.conf");
            std::fs::write(&path, text).at("write", &path)?;
            Ok(Configuration { path, store: Some(folder.to_owned()) })
        }
    }
}

/// The configuration with its storage moved to `folder`; None where it names no storage.
fn with_store(text: &str, folder: &Path) -> Option<String> {
    let is_store = |line: &str| {
        let key = line.trim_start().split([':', '=', ' ', '\t']).next().unwrap_or_default();
        ["store_dir", "storedir", "store"].iter().any(|name| key.eq_ignore_ascii_case(name))
    };
    if !text.lines().any(is_store) {
        return None;
    }
    let quoted = folder.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    let lines = text
        .lines()
        .map(|line| if is_store(line) { format!("    store_dir: \"{quoted}\"\n") } else { format!("{line}\n") });
    Some(lines.collect())
}

/// It greets clients, and its monitoring says that JetStream has read its streams back.
async fn ready(port: u16, monitor_port: u16) -> Readiness {
    let check = async {
        let mut greeting = String::new();
        BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?).read_line(&mut greeting).await?;
        if !greeting.starts_with("INFO ") {
            return Ok(format!("port {port} answers {greeting:?}"));
        }
        let health = health(monitor_port).await?;
        let good = health.split_ascii_whitespace().nth(1) == Some("200");
        Ok::<_, std::io::Error>(if good { String::new() } else { format!("/healthz answers {health:?}") })
    };
    match timeout(ANSWER, check).await {
        Ok(Ok(problem)) if problem.is_empty() => Readiness::Ready,
        Ok(Ok(problem)) => Readiness::NotYet(problem),
        Ok(Err(error)) => Readiness::NotYet(error.to_string()),
        Err(_) => Readiness::NotYet(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// What the monitoring answers to how the server is: the whole response.
pub(super) async fn health(monitor_port: u16) -> std::io::Result<String> {
    let mut monitor = TcpStream::connect(("127.0.0.1", monitor_port)).await?;
    monitor.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = String::new();
    monitor.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_the_authorization_fixes_are_adequate() {
        let rows = [
            ((2, 10, 27), false),
            ((2, 12, 6), false),
            ((2, 12, 7), true),
            ((2, 13, 9), false),
            ((2, 14, 0), true),
            ((3, 0, 0), true),
        ];
        for ((major, minor, patch), expected) in rows {
            let version = Version::new(major, minor, patch);
            assert_eq!(adequate(version), expected, "{version}");
        }
    }

    #[test]
    fn only_the_storage_of_the_projects_own_file_is_moved() {
        let moved = with_store(CONFIGURATION, Path::new("/somewhere/na\"ts")).unwrap();
        let differing: Vec<_> = CONFIGURATION.lines().zip(moved.lines()).filter(|(old, new)| old != new).collect();
        assert_eq!(differing, [("    store_dir: \"data/nats\"", "    store_dir: \"/somewhere/na\\\"ts\"")]);
        assert_eq!(CONFIGURATION.lines().count(), moved.lines().count());
    }

    #[test]
    fn a_file_without_storage_stays_where_it_is_and_gets_a_flag() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("mine.conf");
        std::fs::write(&given, "# store_dir is not set here\njetstream: enabled\n").unwrap();
        let conf = configuration(folder.path(), Some(&given)).unwrap();
        assert_eq!((conf.path, conf.store), (given, Some(folder.path().to_owned())));
    }
}
