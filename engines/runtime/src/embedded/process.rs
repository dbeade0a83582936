//! Children: started in a group of their own, written down so that a later start finds what a killed one left behind,
//! started again when they die, and stopped by signal with a deadline.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Lock;
use super::error::{At, EmbeddedError};
use super::left::{Recorded, identity};

pub(super) const POLL: Duration = Duration::from_millis(20);
/// SIGKILL works unless the process hangs in the kernel.
pub(super) const KILLED: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(10);
/// A child that ran this long is well again: its next death starts the backoff anew.
const STEADY: Duration = Duration::from_secs(60);
const LOG_LIMIT: u64 = 64 << 20;

/// Another user to run a child as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Signals in the order they are tried, each with the time it is given; SIGKILL follows by itself.
pub(super) type Steps = &'static [(Signal, Duration)];

/// How a child is run, again and again.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) folder: PathBuf,
    pub(super) owner: Option<Owner>,
    pub(super) log: PathBuf,
    pub(super) steps: Steps,
}

impl Plan {
    fn spawn(&self) -> Result<Child, EmbeddedError> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log).at("open", &self.log)?;
        let errors = log.try_clone().at("open", &self.log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.folder).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        // A terminal's Ctrl-C goes to the whole foreground group; the children are to be stopped after the engines.
        command.process_group(0);
        run_as(&mut command, self.owner.as_ref());
        command.spawn().map_err(|source| EmbeddedError::Spawn { program: self.program.clone(), source })
    }
}

pub(super) fn run_as(command: &mut Command, owner: Option<&Owner>) {
    if let Some(owner) = owner {
        command.uid(owner.uid).gid(owner.gid);
    }
}

/// The children of this run, as `run.json`: who they are and when they started, because a number alone may be reused.
#[derive(Debug)]
pub(super) struct Registry {
    path: PathBuf,
    children: Mutex<BTreeMap<String, Recorded>>,
    /// Held by every watch over a child, so that the folder is free only when nothing runs in it any more.
    _lock: Lock,
}

impl Registry {
    /// The registry of a new run, and what the last one left in it.
    pub(super) fn open(path: PathBuf, lock: Lock) -> Result<(Self, BTreeMap<String, Recorded>), EmbeddedError> {
        let left = match std::fs::read(&path) {
            // Half a file cannot be there, since it is renamed into place: another content is not ours to act on.
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).at("read", &path),
        };
        Ok((Self { path, children: Mutex::default(), _lock: lock }, left))
    }

    fn born(&self, name: &str, child: &Child) -> Result<(), EmbeddedError> {
        let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) else {
            return Ok(());
        };
        let Some(started) = identity(pid) else {
            return Ok(());
        };
        let mut children = self.children();
        children.insert(name.to_owned(), Recorded { pid, started });
        self.write(&children)
    }

    fn gone(&self, name: &str) {
        let mut children = self.children();
        children.remove(name);
        if let Err(error) = self.write(&children) {
            tracing::warn!(child.name = name, error = %error, "the list of private servers was not written");
        }
    }

    /// After a clean stop there is nothing to find.
    pub(super) fn close(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %error, "the list of private servers was not removed");
        }
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<String, Recorded>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, children: &BTreeMap<String, Recorded>) -> Result<(), EmbeddedError> {
        let text = serde_json::to_vec_pretty(children).map_err(std::io::Error::other).at("write", &self.path)?;
        let next = self.path.with_extension("json.tmp");
        std::fs::write(&next, text).at("write", &next)?;
        std::fs::rename(&next, &self.path).at("write", &self.path)
    }
}

/// A child that is not yet, or no longer, watched: dropped, it is told to stop, so that a start broken off leaves nothing.
pub(super) struct Running {
    plan: Plan,
    child: Child,
    registry: Arc<Registry>,
}

impl Running {
    fn start(plan: Plan, registry: Arc<Registry>) -> Result<Self, EmbeddedError> {
        let child = plan.spawn()?;
        let running = Self { plan, child, registry };
        running.registry.born(running.plan.name, &running.child)?;
        Ok(running)
    }

    fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
    }

    pub(super) async fn stop(&mut self) {
        let kill_at_last = [(Signal::SIGKILL, KILLED)];
        for (signal, patience) in self.plan.steps.iter().chain(&kill_at_last) {
            let Some(pid) = self.pid() else { break };
            // Failing means that it is gone, which the wait sees as well.
            let _ = kill(pid, *signal);
            if timeout(*patience, self.child.wait()).await.is_ok() {
                break;
            }
            tracing::warn!(child.name = self.plan.name, child.pid = pid.as_raw(), signal = %signal, "did not stop in time");
        }
        self.registry.gone(self.plan.name);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (Some(pid), Some((signal, _))) = (self.pid(), self.plan.steps.first()) {
            let _ = kill(pid, *signal);
        }
    }
}

/// Whether a child that was just started can be used.
pub(super) enum Readiness {
    Ready,
    NotYet(String),
    Never(EmbeddedError),
}

/// Starts the plan and waits until it can be used; what does not come up is stopped again.
pub(super) async fn launch<C, F>(
    plan: Plan,
    registry: &Arc<Registry>,
    patience: Duration,
    check: C,
) -> Result<Running, EmbeddedError>
where
    C: Fn() -> F,
    F: Future<Output = Readiness>,
{
    roll(&plan.log)?;
    let (server, log) = (plan.name, plan.log.clone());
    let mut running = Running::start(plan, Arc::clone(registry))?;
    let deadline = Instant::now() + patience;
    loop {
        let state = check().await;
        // Asked after the check: an answer may have come from somebody else on the same port.
        if let Some(status) = running.child.try_wait().at("wait for", &running.plan.program)? {
            registry.gone(server);
            return Err(EmbeddedError::Exited { server, status, tail: tail(&log), log });
        }
        let error = match state {
            Readiness::Ready => return Ok(running),
            Readiness::NotYet(_) if Instant::now() < deadline => {
                sleep(POLL).await;
                continue;
            }
            Readiness::NotYet(last) => {
                EmbeddedError::NotReady { server, seconds: patience.as_secs(), last, tail: tail(&log), log }
            }
            Readiness::Never(error) => error,
        };
        running.stop().await;
        return Err(error);
    }
}

/// A child that is started again whenever it dies or is of no use any more, until it is stopped. Dropped, it is stopped in
/// the background.
#[derive(Debug)]
pub(super) struct Supervised {
    cancel: DropGuard,
    task: JoinHandle<()>,
}

impl Supervised {
    pub(super) fn watch(running: Running) -> Self {
        Self::watch_over(running, std::future::pending::<String>)
    }

    /// Also over a child that lives: `useless` is begun anew with each of them, and returns, in words, why it is to be
    /// stopped and started again.
    pub(super) fn watch_over<U, F>(running: Running, useless: U) -> Self
    where
        U: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = String> + Send + 'static,
    {
        let cancel = CancellationToken::new();
        let task = tokio::spawn(supervise(running, cancel.clone(), useless));
        Self { cancel: cancel.drop_guard(), task }
    }

    pub(super) async fn stop(self) {
        drop(self.cancel);
        if let Err(error) = self.task.await {
            tracing::error!(error = %error, "the watch over a private server broke off");
        }
    }
}

async fn supervise<U, F>(mut running: Running, cancel: CancellationToken, useless: U)
where
    U: Fn() -> F,
    F: Future<Output = String>,
{
    let mut backoff = FIRST_BACKOFF;
    loop {
        let since = Instant::now();
        let ended = tokio::select! {
            status = running.child.wait() => Ok(status),
            why = useless() => Err(why),
            () = cancel.cancelled() => return running.stop().await,
        };
        match ended {
            Ok(status) => {
                running.registry.gone(running.plan.name);
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::warn!(child.name = running.plan.name, status, log = %running.plan.log.display(), "a private server died and is started again");
            }
            Err(why) => {
                tracing::warn!(child.name = running.plan.name, why, log = %running.plan.log.display(), "a private server is stopped and started again");
                running.stop().await;
            }
        }
        if since.elapsed() > STEADY {
            backoff = FIRST_BACKOFF;
        }
        loop {
            tokio::select! {
                () = sleep(backoff) => {}
                () = cancel.cancelled() => return,
            }
            backoff = (backoff * 2).min(LAST_BACKOFF);
            match Running::start(running.plan.clone(), Arc::clone(&running.registry)) {
                Ok(next) => {
                    running = next;
                    break;
                }
                Err(error) => {
                    tracing::error!(child.name = running.plan.name, error = %error, "a private server was not started again")
                }
            }
        }
    }
}

/// Keeps one older log when the present one has grown large.
fn roll(log: &Path) -> Result<(), EmbeddedError> {
    if log.metadata().is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        std::fs::rename(log, log.with_extension("log.1")).at("move away", log)?;
    }
    Ok(())
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Steps = &[(Signal::SIGTERM, Duration::from_millis(200))];

    fn plan(folder: &Path, script: &str) -> Plan {
        Plan {
            name: "script",
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            folder: folder.to_owned(),
            owner: None,
            log: folder.join("script.log"),
            steps: TERM,
        }
    }

    fn registry(folder: &Path) -> Arc<Registry> {
        let lock = Lock::take(folder).unwrap();
        Arc::new(Registry::open(folder.join("run.json"), lock).unwrap().0)
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            sleep(POLL).await;
        }
    }

    #[tokio::test]
    async fn a_child_that_dies_is_started_again_and_one_that_is_deaf_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        let deaf = plan(folder.path(), "trap '' TERM; while :; do sleep 1; done");
        let running = launch(deaf, &registry, KILLED, || async { Readiness::Ready }).await.unwrap();
        let first = running.pid().unwrap();
        let supervised = Supervised::watch(running);

        kill(first, Signal::SIGKILL).unwrap();
        let pid = || registry.children().get("script").map(|recorded| recorded.pid);
        until("a second child", || pid().is_some_and(|pid| pid != first.as_raw())).await;
        let second = pid().unwrap();

        supervised.stop().await;
        assert_eq!(identity(second), None);
        assert!(registry.children().is_empty());
    }

    #[tokio::test]
    async fn a_child_that_lives_and_is_of_no_use_is_stopped_and_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        let script = plan(folder.path(), "while :; do sleep 1; done");
        let running = launch(script, &registry, KILLED, || async { Readiness::Ready }).await.unwrap();
        let first = running.pid().unwrap().as_raw();
        // Of no use is the first one only.
        let (of_no_use, begun) = (folder.path().join("of-no-use"), Arc::new(Mutex::new(0)));
        let (sign, counted) = (of_no_use.clone(), Arc::clone(&begun));
        let useless = move || {
            let mut begun = counted.lock().unwrap();
            *begun += 1;
            let (sign, first) = (sign.clone(), *begun == 1);
            async move {
                while !(first && sign.exists()) {
                    sleep(POLL).await;
                }
                "it said so".to_owned()
            }
        };
        let supervised = Supervised::watch_over(running, useless);
        until("the watch over the first one", || *begun.lock().unwrap() == 1).await;
        let pid = || registry.children().get("script").map(|recorded| recorded.pid);
        assert_eq!(pid(), Some(first));

        std::fs::write(&of_no_use, "").unwrap();
        until("a second child", || pid().is_some_and(|pid| pid != first)).await;
        assert_eq!(identity(first), None);
        let second = pid().unwrap();
        until("the watch over the second one", || *begun.lock().unwrap() == 2).await;
        assert_eq!(pid(), Some(second));

        supervised.stop().await;
        assert_eq!(identity(second), None);
        assert!(registry.children().is_empty());
    }

    #[tokio::test]
    async fn a_child_that_stops_at_once_is_reported_with_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        let failing = plan(folder.path(), "echo the disk is full >&2; exit 3");
        let not_yet = || async { Readiness::NotYet("nobody answers".into()) };
        let error = launch(failing, &registry, KILLED, not_yet).await.err().unwrap().to_string();
        assert!(error.contains("exit status: 3") && error.contains("the disk is full"), "{error}");
    }
}
