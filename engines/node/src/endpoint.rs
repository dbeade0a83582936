//! Where a running `deltran up` is: a small file in its data folder, found by commands run from the same folder.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The data folder where none is named.
pub const DEFAULT_DATA: &str = "./data";
const FILE: &str = "endpoint.json";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address of the gRPC server, such as `http://127.0.0.1:50051`.
    pub grpc: String,
    /// Address of the operator's pages.
    pub http: String,
    /// Address of the broker.
    pub nats: String,
    /// The process that serves them.
    pub pid: i32,
}

impl Endpoint {
    /// The endpoint of a data folder, where its process lives.
    pub fn find(data: &Path) -> Option<Self> {
        let text = std::fs::read(data.join(FILE)).ok()?;
        let endpoint: Self = serde_json::from_slice(&text).ok()?;
        is_alive(endpoint.pid).then_some(endpoint)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn write(&self, data: &Path) -> io::Result<Written> {
        std::fs::create_dir_all(data)?;
        let path = data.join(FILE);
        let next = data.join(format!("{FILE}.tmp"));
        std::fs::write(&next, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&next, &path)?;
        Ok(Written(path))
    }
}

/// The file; goes with this.
#[derive(Debug)]
pub struct Written(PathBuf);

impl Drop for Written {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the endpoint file was not removed");
        }
    }
}

/// Whether the process lives and is this program: a number may have been given to another one since.
fn is_alive(pid: i32) -> bool {
    use nix::errno::Errno;
    // Another user's process may not be signalled, but it lives.
    let exists = matches!(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM));
    let same_program = match (name_of(&pid.to_string()), name_of("self")) {
        (Some(name), Some(own)) => name == own,
        // No /proc on this system: the number has to do.
        (_, None) => true,
        (None, Some(_)) => false,
    };
    pid > 0 && exists && same_program
}

/// The name of a process that has not ended; one that ended and was not collected yet has state Z.
fn name_of(process: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let ended = matches!(after.trim_start().chars().next(), Some('Z' | 'X') | None);
    let (_, name) = before.split_once('(')?;
    (!ended).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_process_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::process::id().cast_signed();
        let endpoint = Endpoint { grpc: "http://g".into(), http: "http://h".into(), nats: "nats://n".into(), pid: own };
        let written = endpoint.write(folder.path()).unwrap();
        assert_eq!(Endpoint::find(folder.path()), Some(endpoint.clone()));
        drop(written);
        assert_eq!(Endpoint::find(folder.path()), None);
        // No process has the largest number.
        let _written = Endpoint { pid: i32::MAX, ..endpoint }.write(folder.path()).unwrap();
        assert_eq!(Endpoint::find(folder.path()), None);
    }
}
