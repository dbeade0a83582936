//! The worker: writes reports that were asked for as soon as everything that they say has arrived. One process works
//! at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deltran_events::data::reporting::{ReportCompleted, ReportFailed, ReportFile, ReportRequested};
use deltran_kernel::ReportId;
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::DbError;
use deltran_runtime::lease::Epoch;
use futures::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::USER;
use crate::domain::job::{Report, State, Subject, gives_up};
use crate::produce::{Halt, Producer, Proofs};
use crate::store::{self, Outcome};

const LEASE: &str = "reports";
/// Reports cannot be written because an invariant does not hold.
const BREACH_ALERT: &str = "report_contradiction";
/// Looks for reports that another process accepted, where no signal arrives.
const POLL: Duration = Duration::from_secs(1);
/// Reports that are written at once.
const AT_ONCE: usize = 2;
/// Reports that are read at once.
const PAGE: i64 = 500;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The event that asks for a report.
pub fn requested(id: ReportId, subject: &Subject, schedule: Option<&str>, user: &str) -> Outgoing {
    let fields = subject.about.fields();
    let event = ReportRequested {
        report_id: id,
        kind: subject.about.kind(),
        formats: subject.formats.clone(),
        participant: fields.participant,
        currency: fields.currency,
        day: fields.day.map(|day| day.to_string()),
        window_id: fields.window,
        netting_set_id: fields.set,
        schedule: schedule.map(str::to_owned),
    };
    about(Outgoing::new(event, id, user), subject)
}

fn about(outgoing: Outgoing, subject: &Subject) -> Outgoing {
    match subject.about.participant() {
        Some(participant) => outgoing.of(participant),
        None => outgoing,
    }
}

/// Writes reports.
#[derive(Clone)]
pub struct Worker {
    /// Makes their files.
    pub producer: Producer,
    /// The engine's database and outbox.
    pub door: Door,
    /// Told when reports were accepted.
    pub wake: Arc<Notify>,
}

/// When a report has its next turn.
struct Next {
    tries: u32,
    due: Instant,
}

enum Turn {
    Ended,
    Again,
    NotLeader,
}

impl Worker {
    /// Works while this process holds the lease, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let lease = self.producer.context.lease(LEASE);
        lease
            .run(shutdown, move |epoch, term| {
                let worker = self.clone();
                async move { worker.term(epoch, term).await }
            })
            .await;
    }

    async fn term(self, epoch: Epoch, term: CancellationToken) {
        let part = format!("{}.{LEASE}", self.producer.context.engine);
        let health = self.producer.context.health.clone();
        self.producer.context.metrics.alert(BREACH_ALERT, false);
        let proofs = Proofs::default();
        let mut turns: BTreeMap<ReportId, Next> = BTreeMap::new();
        while !term.is_cancelled() {
            match self.pass(&epoch, &term, &proofs, &mut turns).await {
                Ok(true) => health.ready(&part),
                Ok(false) | Err(DbError::NotLeader) => return,
                Err(error) => health.not_ready(&part, error.to_string()),
            }
            let poll = Instant::now() + POLL;
            let due = turns.values().map(|next| next.due).min().map_or(poll, |due| due.min(poll));
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
                () = term.cancelled() => return,
            }
        }
    }

    /// A turn for every report that is due; false where another process leads.
    async fn pass(
        &self,
        epoch: &Epoch,
        term: &CancellationToken,
        proofs: &Proofs,
        turns: &mut BTreeMap<ReportId, Next>,
    ) -> Result<bool, DbError> {
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let reports = store::open(self.door.db().pool(), after, PAGE).await?;
            let Some(last) = reports.last() else { break };
            after = last.number;
            seen.extend(reports.iter().map(|report| report.id));
            let now = Instant::now();
            let due: Vec<(Report, u32)> = reports
                .into_iter()
                .filter_map(|report| match turns.get(&report.id) {
                    None => Some((report, 0)),
                    Some(next) => (next.due <= now).then_some((report, next.tries)),
                })
                .collect();
            let outcomes: Vec<(ReportId, Result<Turn, DbError>)> = futures::stream::iter(due)
                .map(|(report, tries)| {
                    let worker = self.clone();
                    let (epoch, term) = (epoch.clone(), term.clone());
                    async move {
                        let turn = tokio::select! {
                            turn = worker.turn(&report, tries, &epoch, proofs) => turn,
                            () = term.cancelled() => Ok(Turn::Again),
                        };
                        (report.id, turn)
                    }
                    .boxed()
                })
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            for (id, outcome) in outcomes {
                match outcome? {
                    Turn::Ended => drop(turns.remove(&id)),
                    Turn::NotLeader => return Ok(false),
                    Turn::Again => {
                        let next = turns.entry(id).or_insert(Next { tries: 0, due: now });
                        let delay = FIRST_DELAY.saturating_mul(1 << next.tries.min(16)).min(LONGEST_DELAY);
                        *next = Next { tries: next.tries + 1, due: Instant::now() + delay };
                    }
                }
            }
        }
        turns.retain(|id, _| seen.contains(id));
        Ok(true)
    }

    /// Takes one report as far as it goes at present, after so many turns before.
    async fn turn(&self, report: &Report, tries: u32, epoch: &Epoch, proofs: &Proofs) -> Result<Turn, DbError> {
        // Nobody else works on it: one that is being written was left by a process that is gone.
        if report.state == State::Writing
            && !self.step(report.id, epoch, State::Writing, State::Waiting, &report.note).await?
        {
            return Ok(Turn::Again);
        }
        let written = async {
            let plan = self.producer.gather(report, proofs).await?;
            if !self.step(report.id, epoch, State::Waiting, State::Writing, "").await? {
                return Err(Halt::Later("it is in another state meanwhile".to_owned()));
            }
            self.producer.put(report, &plan, epoch).await
        }
        .await;
        match written {
            Ok(outcome) => self.completed(report, outcome, epoch).await,
            Err(halt) => self.halted(report, halt, tries, epoch).await,
        }
    }

    async fn step(&self, id: ReportId, epoch: &Epoch, from: State, to: State, note: &str) -> Result<bool, DbError> {
        let mut tx = self.door.begin("report_step").await?;
        epoch.check(&mut tx).await?;
        let done = store::set_state(&mut tx, id, from, to, note).await?;
        tx.commit(&[]).await?;
        Ok(done)
    }

    async fn completed(&self, report: &Report, outcome: Outcome, epoch: &Epoch) -> Result<Turn, DbError> {
        let mut tx = self.door.begin("report_completed").await?;
        epoch.check(&mut tx).await?;
        if !store::finish(&mut tx, report.id, &outcome).await? {
            return Ok(Turn::Again);
        }
        let files = outcome.files.iter().map(|file| ReportFile {
            name: file.name.clone(),
            size: file.size,
            sha256: file.sha256.clone(),
            entries: file.entries,
        });
        let event = ReportCompleted {
            report_id: report.id,
            kind: report.subject.about.kind(),
            participant: report.subject.about.participant(),
            files: files.collect(),
        };
        tx.commit(&[about(Outgoing::new(event, report.id, USER), &report.subject)]).await?;
        tracing::info!(report.id = %report.id, report.kind = report.subject.about.kind().as_str(), "report completed");
        Ok(Turn::Ended)
    }

    async fn halted(&self, report: &Report, halt: Halt, tries: u32, epoch: &Epoch) -> Result<Turn, DbError> {
        let waited = self.producer.context.clock.now().micros() - report.requested_at.micros();
        let hours = self.producer.checked.settings.give_up_hours;
        let why = match halt {
            Halt::NotLeader => return Ok(Turn::NotLeader),
            Halt::Breach(invariant, what) => {
                self.producer.context.metrics.breach(invariant, &what);
                self.producer.context.metrics.alert(BREACH_ALERT, true);
                format!("{invariant}: {what}")
            }
            Halt::Never(what) => what,
            Halt::Waits(what) | Halt::Later(what) if gives_up(waited, hours, tries) => {
                format!("given up after {hours} h: {what}")
            }
            Halt::Waits(what) | Halt::Later(what) => {
                self.wait(report, &what, epoch).await?;
                return Ok(Turn::Again);
            }
        };
        self.failed(report, &why, epoch).await
    }

    /// Notes what a report waits for, where that is news.
    async fn wait(&self, report: &Report, what: &str, epoch: &Epoch) -> Result<(), DbError> {
        let mut tx = self.door.begin("report_waits").await?;
        epoch.check(&mut tx).await?;
        let stored = store::report(&mut *tx, report.id).await?;
        let Some(stored) = stored.filter(|stored| stored.state == State::Writing || stored.note != what) else {
            return Ok(());
        };
        store::set_state(&mut tx, report.id, stored.state, State::Waiting, what).await?;
        tx.commit(&[]).await
    }

    async fn failed(&self, report: &Report, why: &str, epoch: &Epoch) -> Result<Turn, DbError> {
        let mut tx = self.door.begin("report_failed").await?;
        epoch.check(&mut tx).await?;
        let Some(stored) = store::report(&mut *tx, report.id).await? else { return Ok(Turn::Ended) };
        if !stored.state.may_become(State::Failed)
            || !store::set_state(&mut tx, report.id, stored.state, State::Failed, why).await?
        {
            return Ok(Turn::Again);
        }
        let event = ReportFailed {
            report_id: report.id,
            kind: report.subject.about.kind(),
            participant: report.subject.about.participant(),
            reason: why.chars().take(500).collect(),
        };
        tx.commit(&[about(Outgoing::new(event, report.id, USER), &report.subject)]).await?;
        tracing::warn!(report.id = %report.id, reason = why, "report failed");
        Ok(Turn::Ended)
    }
}
