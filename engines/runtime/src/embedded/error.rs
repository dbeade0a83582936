//! What can go wrong with the private servers: every message says what was wrong, with the value, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why the private servers could not be found, started or prepared.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },

    #[error("the data folder {} is in use by process {holder}: stop that one, or give another folder with --data", data.display())]
    Locked { data: PathBuf, holder: String },

    #[error(
        "port {port}, which was asked for, cannot be used by {server}: {source}; free it, or ask for another (0 picks a free one)"
    )]
    PortTaken { server: &'static str, port: u16, source: io::Error },

    #[error("no free port on 127.0.0.1: {0}")]
    NoFreePort(io::Error),

    #[error("{program} was not found; looked in {looked}; run setup/install.sh, or name it with {variable}")]
    NotFound { program: &'static str, looked: String, variable: &'static str },

    #[error(
        "no adequate {program}: found {found}, needed is {needed}; run setup/install.sh, or name another with {variable}"
    )]
    TooOld { program: &'static str, found: String, needed: &'static str, variable: &'static str },

    #[error("{variable} is {}, which {problem}", value.display())]
    Override { variable: &'static str, value: PathBuf, problem: String },

    #[error(
        "Postgres refuses to run as root, and neither the user `postgres` nor `nobody` exists: add one, or run as an ordinary user"
    )]
    NoUser,

    #[error("the user `{user}` cannot reach the cluster {} because {} is closed to it: chmod o+x that folder, or move the data folder", cluster.display(), closed.display())]
    Unreachable { user: String, cluster: PathBuf, closed: PathBuf },

    #[error("{} is not a folder of this user, so it cannot hold a cluster: remove it, or give another data folder with --data", .0.display())]
    Foreign(PathBuf),

    #[error("the password file {} is missing, but the cluster {} exists: restore the file, or remove the cluster to start empty", password.display(), cluster.display())]
    NoPassword { password: PathBuf, cluster: PathBuf },

    #[error("the cluster {} was made by Postgres {cluster_version}, but only {found} is installed: install Postgres {cluster_version}, or name its folder with DELTRAN_POSTGRES_BIN", cluster.display())]
    ClusterVersion { cluster: PathBuf, cluster_version: String, found: String },

    #[error("initdb could not make the cluster {}: {output}", cluster.display())]
    Initdb { cluster: PathBuf, output: String },

    #[error("cannot start {}: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },

    #[error("{server} stopped at once ({status}); the end of {} says:\n{tail}", log.display())]
    Exited { server: &'static str, status: ExitStatus, log: PathBuf, tail: String },

    #[error("{server} was not ready after {seconds} s ({last}); the end of {} says:\n{tail}", log.display())]
    NotReady { server: &'static str, seconds: u64, last: String, log: PathBuf, tail: String },

    #[error("cannot {action} in the private Postgres: {source}")]
    Database { action: &'static str, source: sqlx::Error },

    #[error("the operating system gives no random numbers: {0}")]
    Random(String),

    #[error("a task of the private servers broke off: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Names the file and the deed in an input or output error.
pub(super) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, EmbeddedError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, EmbeddedError> {
        self.map_err(|source| EmbeddedError::File { action, path: path.to_owned(), source })
    }
}
