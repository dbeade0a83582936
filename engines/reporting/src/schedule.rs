//! Timers: schedules ask for their reports when their time has come, and for those that were missed; files go when theirs
//! is over.

use std::sync::Arc;
use std::time::Duration;

use deltran_events::data::reporting::ScheduleChanged;
use deltran_kernel::Timestamp;
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::lease::{Epoch, Pace, RoundError};
use deltran_runtime::{DbError, EngineContext};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::USER;
use crate::config::Checked;
use crate::domain::timetable::{self, Schedule};
use crate::files::Files;
use crate::store;
use crate::worker::requested;

/// How often schedules are looked at: they may be changed, and clocks may be set.
const TICK: Duration = Duration::from_secs(1);
/// Reports that are asked for in one transaction.
const CHUNK: usize = 200;
/// Schedules that are looked at; there are a handful.
const MOST: i64 = 10_000;
const LONGEST: Duration = Duration::from_secs(30);
/// A request whose event has not come back for so long is taken from its row.
const LATE_SECONDS: i64 = 120;
/// How often files whose time is over are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// The event of a schedule that was created or changed.
pub fn changed(schedule: &Schedule, user: &str) -> Outgoing {
    let event = ScheduleChanged {
        name: schedule.name.clone(),
        kind: schedule.kind,
        cron: schedule.cron.clone(),
        time_zone: schedule.time_zone.clone(),
        formats: schedule.formats.clone(),
        enabled: schedule.enabled,
        changed_by: schedule.changed_by.clone(),
    };
    Outgoing::new(event, &schedule.name, user)
}

/// Runs schedules, and removes files whose time is over.
#[derive(Clone)]
pub struct Timer {
    /// The engine's context.
    pub context: EngineContext,
    /// Its database and outbox.
    pub door: Door,
    /// Its settings.
    pub checked: Arc<Checked>,
    /// Where files are.
    pub files: Files,
    /// Told when a schedule was set.
    pub wake: Arc<Notify>,
}

impl Timer {
    /// Runs schedules while this process holds the lease, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let pace = Pace { every: TICK, longest: LONGEST, alert: "report_schedules_late" };
        let (lease, wake) = (self.context.lease("schedules"), self.wake.clone());
        let round = move |epoch| {
            let timer = self.clone();
            async move { timer.round(&epoch).await }
        };
        lease.rounds(shutdown, pace, wake, round).await;
    }

    /// Removes files while this process holds the lease, until shutdown.
    pub async fn run_retention(self, shutdown: CancellationToken) {
        let pace = Pace { every: SWEEP, longest: SWEEP, alert: "report_files_not_removed" };
        let lease = self.context.lease("retention");
        let round = move |epoch| {
            let timer = self.clone();
            async move { timer.sweep(&epoch).await }
        };
        lease.rounds(shutdown, pace, Arc::new(Notify::new()), round).await;
    }

    /// Creates the schedules of the configuration that are not there.
    async fn plant(&self, epoch: &Epoch) -> Result<(), DbError> {
        let known = store::schedules(self.door.db().pool(), "", MOST).await?;
        if self.checked.schedules.iter().all(|planned| known.iter().any(|schedule| schedule.name == planned.name)) {
            return Ok(());
        }
        let mut tx = self.door.begin("schedules").await?;
        epoch.check(&mut tx).await?;
        let mut events = Vec::new();
        for schedule in &self.checked.schedules {
            if store::plant(&mut tx, schedule).await? {
                events.push(changed(schedule, USER));
            }
        }
        tx.commit(&events).await
    }

    async fn round(&self, epoch: &Epoch) -> Result<(), RoundError> {
        self.plant(epoch).await?;
        let now = self.context.clock.now();
        self.accept_late(now, epoch).await?;
        let mut unreadable = Vec::new();
        for schedule in store::schedules(self.door.db().pool(), "", MOST).await? {
            if !schedule.enabled {
                continue;
            }
            let Ok((timetable, _)) = timetable::read(&schedule, now) else {
                unreadable.push(schedule.name);
                continue;
            };
            for at in timetable.due(schedule.last_at, now) {
                self.ask(&schedule, at, epoch).await?;
            }
        }
        if unreadable.is_empty() {
            return Ok(());
        }
        Err(RoundError::Later(format!("schedules {} cannot be read: set them again", unreadable.join(", "))))
    }

    /// The stream of requests drops its oldest messages when it is full; the rows are the truth.
    async fn accept_late(&self, now: Timestamp, epoch: &Epoch) -> Result<(), DbError> {
        let mut tx = self.door.begin("late_reports").await?;
        epoch.check(&mut tx).await?;
        let late = store::accept_late(&mut tx, now.plus_seconds(-LATE_SECONDS)).await?;
        if late > 0 {
            tracing::warn!(
                reports = late,
                "requests did not come back as events: their reports are written all the same"
            );
        }
        tx.commit(&[]).await
    }

    /// Asks for the reports of one time of a schedule. Ids follow from what is asked for: breaking off in between and
    /// beginning again asks for nothing twice.
    async fn ask(&self, schedule: &Schedule, at: Timestamp, epoch: &Epoch) -> Result<(), DbError> {
        let day = timetable::day_before(at, &self.checked.zone);
        let members = store::members(self.door.db().pool(), day).await?;
        let reports = timetable::reports(schedule, at, &self.checked.zone, &members);
        let now = self.context.clock.now();
        for chunk in reports.chunks(CHUNK) {
            let mut tx = self.door.begin("scheduled_reports").await?;
            epoch.check(&mut tx).await?;
            let new = store::insert_many(&mut tx, chunk, USER, Some(&schedule.name), now).await?;
            let new = chunk.iter().filter(|(id, _)| new.contains(id));
            let events: Vec<Outgoing> =
                new.map(|(id, subject)| requested(*id, subject, Some(&schedule.name), USER)).collect();
            tx.commit(&events).await?;
        }
        let mut tx = self.door.begin("schedule_ran").await?;
        epoch.check(&mut tx).await?;
        store::ran(&mut tx, &schedule.name, at).await?;
        tx.commit(&[]).await?;
        tracing::info!(schedule.name, reports = reports.len(), slot = %at, "scheduled reports are asked for");
        Ok(())
    }

    async fn sweep(&self, epoch: &Epoch) -> Result<(), RoundError> {
        let now = self.context.clock.now();
        let mut left = None;
        for report in store::expired(self.door.db().pool(), now, MOST).await? {
            if let Err(error) = self.files.remove(&report).await {
                left = Some(RoundError::Later(format!("report {}: {error}", report.id)));
                continue;
            }
            let mut tx = self.door.begin("report_expired").await?;
            epoch.check(&mut tx).await?;
            store::expire(&mut tx, report.id).await?;
            tx.commit(&[]).await?;
        }
        left.map_or(Ok(()), Err)
    }
}
