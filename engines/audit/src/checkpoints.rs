//! When checkpoints are signed and published: at most one a second while the ledger grows, one at the end of each day,
//! and those that exports ask for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltran_events::data::audit::CheckpointSigned;
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::files::write_whole;
use deltran_runtime::lease::{Epoch, Pace, RoundError};
use deltran_runtime::{EngineContext, Failure};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::checkpoint::Checkpoint;
use crate::notary::{Notary, NotaryError};
use crate::store::{Checkpoints, Days, Kept};
use crate::{NAME, config::Settings};

/// Checkpoints that never left the system are let go of after this long.
const PASSING: i64 = 24 * 3600;
/// Between two looks whether a day is over.
const DAY_PACE: Pace =
    Pace { every: Duration::from_secs(20), longest: Duration::from_secs(60), alert: "audit_days_wait" };

/// Publishes checkpoints: then they are kept for ever.
#[derive(Clone)]
pub struct Publisher {
    context: EngineContext,
    door: Door,
    notary: Arc<Notary>,
    directory: Option<PathBuf>,
}

impl Publisher {
    /// A publisher.
    pub fn new(context: EngineContext, door: Door, notary: Arc<Notary>, settings: &Settings) -> Self {
        let directory = (!settings.publish_directory.is_empty()).then(|| settings.publish_directory.clone().into());
        Self { context, door, notary, directory }
    }

    /// Who signs.
    pub fn notary(&self) -> &Arc<Notary> {
        &self.notary
    }

    /// Signs the checkpoint of a size and publishes it, as an event and as a file. Doing so again is harmless, and
    /// causes no second event.
    ///
    /// # Errors
    /// Where it is not signed, or not written.
    pub async fn publish(&self, size: u64, reason: &str, user: &str) -> Result<Kept, Failure> {
        let kept = self.notary.sign(size, self.context.clock.now()).await?;
        if let Some(directory) = self.directory.clone() {
            let note = kept.note.clone();
            let written = tokio::task::spawn_blocking(move || write_files(&directory, size, &note)).await;
            written.map_err(Failure::internal)?.map_err(|e| {
                Failure::unavailable(format!("audit.publish_directory: the checkpoint of size {size}: {e}"))
            })?;
        }
        let mut tx = self.door.begin("publish_checkpoint").await?;
        let mut events = Vec::new();
        if Checkpoints::publish(&mut tx, size).await? {
            let event = CheckpointSigned {
                origin: self.notary.origin().to_owned(),
                size,
                root: STANDARD.encode(kept.root),
                reason: reason.to_owned(),
            };
            events.push(Outgoing::new(event, format!("checkpoint-{size}"), user.to_owned()));
        }
        tx.commit(&events).await?;
        Ok(Kept { published: true, ..kept })
    }

    /// Hands a checkpoint out: it is kept for ever from then on, and no event tells of it.
    ///
    /// # Errors
    /// Where it cannot be marked.
    pub async fn hand_out(&self, kept: Kept) -> Result<Kept, Failure> {
        if kept.published {
            return Ok(kept);
        }
        let mut tx = self.context.db.begin().await?;
        Checkpoints::publish(&mut tx, kept.size).await?;
        tx.commit().await?;
        Ok(Kept { published: true, ..kept })
    }
}

/// `checkpoint` is the latest one, `checkpoints/<size>` are all of them.
fn write_files(directory: &std::path::Path, size: u64, note: &str) -> std::io::Result<()> {
    let all = directory.join("checkpoints");
    std::fs::create_dir_all(&all)?;
    write_whole(&all.join(size.to_string()), note.as_bytes(), 0o644)?;
    let latest = directory.join("checkpoint");
    let newer = std::fs::read_to_string(&latest)
        .is_ok_and(|text| Checkpoint::unchecked(&text).is_ok_and(|there| there.size > size));
    if newer { Ok(()) } else { write_whole(&latest, note.as_bytes(), 0o644) }
}

/// Signs while the ledger grows.
#[derive(Clone)]
pub struct Signing {
    context: EngineContext,
    notary: Arc<Notary>,
    pace: Pace,
}

impl Signing {
    /// The worker.
    pub fn new(context: EngineContext, notary: Arc<Notary>, settings: &Settings) -> Self {
        let every = settings.checkpoint_every();
        Self { context, notary, pace: Pace { every, longest: every * 30, alert: "audit_checkpoints_wait" } }
    }

    /// Works while this process holds the lease `signer`, until shutdown. Without a key it has nothing to do.
    pub async fn run(self, shutdown: CancellationToken) {
        if !self.notary.can_sign() {
            tracing::warn!("no checkpoint is signed: audit.key_files names no key");
            return shutdown.cancelled().await;
        }
        let (lease, pace) = (self.context.lease("signer"), self.pace);
        // Its pace is the least time between two checkpoints, so nothing wakes it.
        lease
            .rounds(shutdown, pace, Arc::new(Notify::new()), move |epoch| {
                let signing = self.clone();
                async move { signing.round(&epoch).await }
            })
            .await;
    }

    async fn round(&self, epoch: &Epoch) -> Result<(), RoundError> {
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        tx.commit().await?;
        let now = self.context.clock.now();
        let signed = self.notary.sign_growth(now).await.map_err(later)?;
        if signed.is_some() {
            Checkpoints::new(self.context.db.clone()).thin(now.plus_seconds(-PASSING)).await?;
        }
        Ok(())
    }
}

fn later(error: NotaryError) -> RoundError {
    match error {
        NotaryError::Db(error) => error.into(),
        other => RoundError::Later(other.to_string()),
    }
}

/// Closes days that are over and publishes the last checkpoint of each.
#[derive(Clone)]
pub struct Calendar {
    context: EngineContext,
    publisher: Publisher,
}

impl Calendar {
    /// The worker.
    pub fn new(context: EngineContext, publisher: Publisher) -> Self {
        Self { context, publisher }
    }

    /// Works while this process holds the lease `days`, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let lease = self.context.lease("days");
        lease
            .rounds(shutdown, DAY_PACE, Arc::new(Notify::new()), move |epoch| {
                let calendar = self.clone();
                async move { calendar.round(&epoch).await }
            })
            .await;
    }

    /// One look. What was not done in an earlier one is done in this one.
    ///
    /// # Errors
    /// What waits for the next round.
    pub async fn round(&self, epoch: &Epoch) -> Result<(), RoundError> {
        let days = Days::new(self.context.db.clone());
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        let closed = days.close(&mut tx, self.context.clock.now()).await?;
        tx.commit().await?;
        for day in &closed {
            tracing::info!(day = day.name(), from = day.from, to = day.to, "a day of the audit ledger is over");
        }
        if !self.publisher.notary().can_sign() {
            return Ok(());
        }
        let Some(size) = days.last_end().await?.filter(|size| *size > 0) else { return Ok(()) };
        let kept = Checkpoints::new(self.context.db.clone()).at(size).await?;
        if kept.is_none_or(|kept| !kept.published) {
            self.publisher.publish(size, "daily", &format!("{NAME}-engine")).await?;
        }
        Ok(())
    }
}
