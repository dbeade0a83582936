//! Days into the archive, and out of the database: the oldest first, each in a transaction of its own, as far as the
//! database lets them.

use std::sync::Arc;
use std::time::Duration;

use deltran_events::data::audit::PartitionDetached;
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::EngineContext;
use deltran_runtime::lease::{Epoch, Pace, RoundError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::NAME;
use crate::archive::Archiver;
use crate::config::Settings;
use crate::store::{Archives, ClosedDay, Detaching, READ_AGAIN, Tree};

/// Between two looks whether a day may go.
const PACE: Pace =
    Pace { every: Duration::from_secs(60), longest: Duration::from_secs(900), alert: "audit_retention_waits" };
/// How often a day is tried in one round where somebody works on the tables.
const TRIES: u32 = 10;
/// Between two tries, so that those who wait for the locks come first.
const PAUSE: Duration = Duration::from_millis(500);

/// What became of the oldest day in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Oldest {
    /// There is none that is over.
    None,
    /// It left.
    Detached(ClosedDay),
    /// It stays, and why.
    Stays(ClosedDay, String),
}

/// Takes days to the archive and out of the database.
#[derive(Clone)]
pub struct Retention {
    context: EngineContext,
    door: Door,
    archives: Archives,
    tree: Tree,
    archiver: Option<Archiver>,
    retention_days: i32,
    detach: bool,
}

impl Retention {
    /// The worker; without an archiver nothing is archived.
    pub fn new(context: EngineContext, door: Door, archiver: Option<Archiver>, settings: &Settings) -> Self {
        let (archives, tree) = (Archives::new(context.db.clone()), Tree::new(context.db.clone()));
        let (retention_days, detach) = (settings.retention_days, settings.detach);
        Self { context, door, archives, tree, archiver, retention_days, detach }
    }

    /// Works while this process holds the lease `retention`, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.archiver.is_none() && !self.detach {
            return shutdown.cancelled().await;
        }
        let (lease, stop) = (self.context.lease("retention"), shutdown.clone());
        lease
            .rounds(shutdown, PACE, Arc::new(Notify::new()), move |epoch| {
                let (retention, stop) = (self.clone(), stop.clone());
                async move {
                    tokio::select! {
                        done = retention.round(&epoch) => done,
                        () = stop.cancelled() => Ok(()),
                    }
                }
            })
            .await;
    }

    /// Archives what is over, and lets go what may go.
    ///
    /// # Errors
    /// What waits for the next round.
    pub async fn round(&self, epoch: &Epoch) -> Result<(), RoundError> {
        if let Some(archiver) = &self.archiver {
            while let Some(day) = archiver.archive_next(epoch).await? {
                tracing::info!(day = day.name(), from = day.from, to = day.to, "a day is archived");
            }
        }
        if !self.detach {
            return Ok(());
        }
        let mut read = None;
        loop {
            match self.detach_oldest(epoch).await? {
                Oldest::Detached(day) => {
                    tracing::info!(day = day.name(), from = day.from, to = day.to, "a day left the database");
                }
                Oldest::Stays(day, reason) => {
                    if let (true, Some(archiver)) = (reason.starts_with(READ_AGAIN), &self.archiver) {
                        // Once is enough, unless the clock is days behind the ledger.
                        if read == Some(day.start) {
                            return Err(RoundError::Later(reason));
                        }
                        archiver.read_again(epoch, day.start).await?;
                        read = Some(day.start);
                        continue;
                    }
                    tracing::debug!(day = day.name(), reason, "the oldest day stays in the database");
                    return Ok(());
                }
                Oldest::None => return Ok(()),
            }
        }
    }

    /// Takes the oldest day out of the database where every rule allows it.
    ///
    /// # Errors
    /// Where the lease is lost, or somebody works on the tables all the time.
    pub async fn detach_oldest(&self, epoch: &Epoch) -> Result<Oldest, RoundError> {
        let Some(day) = self.archives.oldest_online().await? else { return Ok(Oldest::None) };
        if let Some(reason) = self.archives.stays(day.start, self.retention_days).await? {
            return Ok(Oldest::Stays(day, reason));
        }
        let frontier = self.tree.frontier_at(day.to).await?;
        let frontier =
            frontier.ok_or_else(|| RoundError::Later(format!("the hashes of size {} are not there", day.to)))?;
        for _ in 0..TRIES {
            let mut tx = self.door.begin("detach_day").await?;
            epoch.check(&mut tx).await?;
            let now = self.context.clock.now();
            match Archives::detach(&mut tx, day.start, self.retention_days, &frontier, now).await? {
                Detaching::Done => {
                    let event = PartitionDetached { day: day.name(), from_leaf: day.from, to_leaf: day.to };
                    let correlation = format!("day-{}", day.name());
                    tx.commit(&[Outgoing::new(event, correlation, format!("{NAME}-engine"))]).await?;
                    return Ok(Oldest::Detached(day));
                }
                Detaching::Stays(reason) => return Ok(Oldest::Stays(day, reason)),
                Detaching::Busy => drop(tx),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(RoundError::Later(format!("day {} waits: the tables of the leaves are in use", day.name())))
    }
}
