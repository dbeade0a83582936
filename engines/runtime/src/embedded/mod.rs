//! The private servers of `deltran up`: a Postgres cluster and a broker, children of this process, with everything they
//! keep in one data folder.
//!
//! ```text
//! data/lock                 held by the run that uses the folder
//! data/run.json             the children of this run, by process number and start time
//! data/postgres.password    the superuser's password
//! data/postgres/            cluster/, deltran.conf, postgres.log
//! data/nats/                jetstream/, nats-jetstream.conf, nats.pid, nats.log
//! ```
//!
//! A child that dies is started again on the same port and the same data, and so is a broker that gave up a stream for
//! want of space, once there is room. A run that was killed leaves its children alive;
//! the next start on the folder finds them in `run.json` and stops them first. No engine knows whether its servers are these.

mod error;
mod find;
mod left;
mod nats;
mod place;
mod ports;
mod postgres;
mod process;
mod storage;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::EmbeddedError;
pub use nats::find_nats_server;
pub use postgres::find_postgres;

use error::At;
use process::{Registry, Supervised};

/// Where the private servers live and how they are reached. Ports not given are the usual ones, or free ones where those
/// are taken; 0 asks for a free one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub data: PathBuf,
    /// A broker that runs already: none is started.
    pub nats_url: Option<String>,
    /// A Postgres that runs already: none is started.
    pub database_url: Option<String>,
    pub nats_port: Option<u16>,
    pub nats_monitor_port: Option<u16>,
    pub postgres_port: Option<u16>,
    /// Another configuration file for the broker. Address, ports and storage are still decided here.
    pub nats_conf: Option<PathBuf>,
}

/// The running servers. Dropped without [`Embedded::stop`], they are told to stop, but nobody waits for it.
#[derive(Debug)]
pub struct Embedded {
    nats_url: String,
    database_url: String,
    notes: Vec<String>,
    children: Vec<Supervised>,
    registry: Option<Arc<Registry>>,
}

struct Started {
    supervised: Supervised,
    url: String,
    notes: Vec<String>,
}

impl Embedded {
    /// Starts what no url was given for, and returns when it can be used.
    pub async fn start(options: Options) -> Result<Self, EmbeddedError> {
        if let (Some(nats_url), Some(database_url)) = (&options.nats_url, &options.database_url) {
            let (nats_url, database_url) = (nats_url.clone(), database_url.clone());
            return Ok(Self { nats_url, database_url, notes: Vec::new(), children: Vec::new(), registry: None });
        }
        let data = std::path::absolute(&options.data).at("find the data folder", &options.data)?;
        make_folder(&data, 0o711)?;
        let data = data.canonicalize().at("find the data folder", &data)?;
        let lock = Lock::take(&data)?;
        let (registry, earlier) = Registry::open(data.join("run.json"), lock)?;
        let registry = Arc::new(registry);

        let mut notes = Vec::new();
        for (name, recorded) in &earlier {
            let steps = if name == "postgres" { postgres::STEPS } else { nats::STEPS };
            if left::stop_left(recorded, steps).await {
                notes.push(format!("stopped {name} (process {}), which an earlier run had left", recorded.pid));
            }
        }

        let wish =
            nats::Wish { port: options.nats_port, monitor_port: options.nats_monitor_port, conf: options.nats_conf };
        let postgres = async {
            match options.database_url {
                Some(url) => Ok((url, None)),
                None => postgres::start(&data, options.postgres_port, &registry).await.map(split),
            }
        };
        let nats = async {
            match options.nats_url {
                Some(url) => Ok((url, None)),
                None => nats::start(&data, wish, &registry).await.map(split),
            }
        };
        let ((database_url, postgres), (nats_url, nats)) = match tokio::join!(postgres, nats) {
            (Ok(postgres), Ok(nats)) => (postgres, nats),
            (Err(error), Ok((_, other))) | (Ok((_, other)), Err(error)) => {
                if let Some((supervised, _)) = other {
                    supervised.stop().await;
                }
                return Err(error);
            }
            (Err(error), Err(other)) => {
                tracing::error!(error = %other, "the broker was not started either");
                return Err(error);
            }
        };
        let mut children = Vec::new();
        for (supervised, found) in postgres.into_iter().chain(nats) {
            children.push(supervised);
            notes.extend(found);
        }
        Ok(Self { nats_url, database_url, notes, children, registry: Some(registry) })
    }

    /// The superuser's url of the private cluster, database `deltran`; or the one that was given.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    pub fn nats_url(&self) -> &str {
        &self.nats_url
    }

    /// What a person who starts this should know: other ports than usual, another user, what was left behind and stopped.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Stops the servers in an orderly way and returns when they are gone.
    pub async fn stop(mut self) {
        // The broker before the database, as the engines stop before both.
        while let Some(child) = self.children.pop() {
            child.stop().await;
        }
        if let Some(registry) = &self.registry {
            registry.close();
        }
    }
}

fn split(started: Started) -> (String, Option<(Supervised, Vec<String>)>) {
    (started.url, Some((started.supervised, started.notes)))
}

/// Makes a folder with exactly these rights; one that exists keeps its own.
fn make_folder(folder: &Path, mode: u32) -> Result<(), EmbeddedError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).at("create", parent)?;
    }
    DirBuilder::new().mode(mode).create(folder).at("create", folder)?;
    // Whatever the umask took away: the user of Postgres must be able to pass.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).at("open", folder)
}

/// Two runs on one folder would stop each other's servers.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn take(data: &Path) -> Result<Self, EmbeddedError> {
        let path = data.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).at("open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).at("read", &path)?;
                let holder = holder.trim().to_owned();
                let data = data.to_owned();
                return Err(EmbeddedError::Locked { data, holder });
            }
            Err(TryLockError::Error(source)) => return Err(source).at("lock", &path),
        }
        file.set_len(0).at("write", &path)?;
        file.seek(SeekFrom::Start(0)).at("write", &path)?;
        writeln!(file, "{}", std::process::id()).at("write", &path)?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave it to whatever child is just between fork and exec.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn with_both_urls_given_nothing_is_started_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let options = Options {
            data: data.clone(),
            nats_url: Some("nats://broker:4222".into()),
            database_url: Some("postgres://db/deltran".into()),
            ..Options::default()
        };
        let embedded = Embedded::start(options).await.unwrap();
        assert_eq!((embedded.nats_url(), embedded.database_url()), ("nats://broker:4222", "postgres://db/deltran"));
        embedded.stop().await;
        assert!(!data.exists());
    }

    #[test]
    fn a_second_run_on_the_same_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let error = Lock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        Lock::take(folder.path()).unwrap();
    }
}
