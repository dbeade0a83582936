//! A ledger whose days pass: closed, published, archived and detached, and the service on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltran_api::audit::v1::VerifyReport;
use deltran_audit::archive::{Archive, Archiver};
use deltran_audit::checkpoints::Publisher;
use deltran_audit::config::Settings;
use deltran_audit::consume::Sequencer;
use deltran_audit::domain::books::Said;
use deltran_audit::domain::retention::Archived;
use deltran_audit::grpc::Audit;
use deltran_audit::reconcile::Reconciler;
use deltran_audit::retention::{Oldest, Retention};
use deltran_audit::store::{Archives, ClosedDay, Cuts, Days, Detaching, Tree, day_name};
use deltran_audit::verify::Verifier;
use deltran_events::data::audit::AccessGranted;
use deltran_events::{Context, Event, Stamp};
use deltran_kernel::{Clock, EventId, IdSource, SeededIds, Timestamp};
use deltran_messaging::{Broker, Delivery, Door};
use deltran_runtime::lease::{Epoch, RoundError};
use deltran_runtime::{Caller, Role};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Request;

use crate::bucket::Bucket;
use crate::kept::Kept;
use crate::place::{DAY, Keys, NOON, Place, SUBJECT};

/// 2020-01-01T12:00:00Z: hundreds of days later is still before any clock of a database.
pub const START: i64 = 1_577_880_000_000_000;

/// The ledger.
pub struct Aged {
    pub place: Place,
    pub settings: Settings,
    pub sequencer: Sequencer,
    pub retention: Retention,
    pub publisher: Publisher,
    pub closed: Vec<ClosedDay>,
    pub epoch: Epoch,
    /// Where the archive is, if not in a folder.
    pub bucket: Option<Bucket>,
    door: Door,
    seq: u64,
    pub folder: TempDir,
    _lease: DropGuard,
}

impl Aged {
    /// An empty ledger whose days may go after `retention_days`; the database lets them go after one.
    pub async fn new(retention_days: i32) -> Self {
        Self::with(retention_days, None).await
    }

    /// Its archive is in a bucket, where there is one.
    pub async fn with(retention_days: i32, bucket: Option<Bucket>) -> Self {
        let mut place = Place::new().await;
        place.clock.advance_micros(START - NOON);
        place.by_root("UPDATE retention_floor SET days = 1").await.unwrap();
        let keys = Keys::new();
        let settings = Settings { retention_days, detach: true, ..keys.settings() };
        let settings = match &bucket {
            None => Settings { archive_directory: keys.file("archive").display().to_string(), ..settings },
            Some(bucket) => bucket.settings(settings),
        };
        let (door, publisher) = (place.door(), place.publisher(&settings));
        let retention = Retention::new(place.context.clone(), door.clone(), None, &settings);
        let (epoch, lease) = lease(&place).await;
        let sequencer = place.sequencer();
        Self {
            place,
            settings,
            sequencer,
            retention,
            publisher,
            closed: Vec::new(),
            epoch,
            bucket,
            door,
            seq: 0,
            folder: keys.folder,
            _lease: lease,
        }
    }

    /// The next event, of a participant and with a correlation id.
    pub fn event(&mut self, participant: Option<&str>, correlation: &str) -> Delivery {
        self.seq += 1;
        self.place.message(SUBJECT, line(self.seq, participant, correlation), false)
    }

    /// An access whose query is this text.
    pub fn asking(&mut self, query: &str) -> Delivery {
        self.seq += 1;
        self.place.message(SUBJECT, crate::place::line(self.seq, query), false)
    }

    pub async fn append(&mut self, events: u64) {
        let batch: Vec<Delivery> = (0..events).map(|_| self.event(None, "c1")).collect();
        if !batch.is_empty() {
            self.place.apply(&self.sequencer, &batch).await.unwrap();
        }
    }

    /// Lets a day end: it is closed, and its checkpoint published.
    pub async fn end_day(&mut self) -> Vec<ClosedDay> {
        self.place.clock.advance_micros(DAY);
        let days = Days::new(self.place.context.db.clone());
        let mut tx = self.place.context.db.begin().await.unwrap();
        let closed = days.close(&mut tx, self.place.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        for day in closed.iter().filter(|day| day.to > 0) {
            self.publisher.publish(day.to, "daily", "test").await.unwrap();
        }
        self.closed.extend(&closed);
        closed
    }

    /// Says that a day is archived and verified now.
    pub async fn archive(&self, day: &ClosedDay) {
        let now = self.place.clock.now();
        let archived = Archived {
            day: day.start,
            from: day.from,
            to: day.to,
            place: format!("test/{}", day.name()),
            manifest_sha256: [7; 32],
            archived_at: now,
            verified_at: now,
        };
        let mut tx = self.place.context.db.begin().await.unwrap();
        if !Archives::record(&mut tx, &archived).await.unwrap() {
            Archives::verified(&mut tx, day.start, now).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// One try to detach a day, as the worker does it, but without its own questions.
    pub async fn try_detach(&self, start: Timestamp, to: u64, retention_days: i32) -> Detaching {
        let frontier = Tree::new(self.place.context.db.clone()).frontier_at(to).await.unwrap().unwrap_or_default();
        let mut tx = self.place.context.db.begin().await.unwrap();
        let now = self.place.clock.now();
        let outcome = Archives::detach(&mut tx, start, retention_days, &frontier, now).await.unwrap();
        if outcome == Detaching::Done {
            tx.commit().await.unwrap();
        }
        outcome
    }

    /// Where the archive is.
    pub fn kept(&self) -> Kept<'_> {
        match &self.bucket {
            None => Kept::Folder(self.settings.archive_directory.clone().into()),
            Some(bucket) => Kept::Bucket(bucket),
        }
    }

    fn stored(&self) -> Archive {
        let found = |name: &str| self.bucket.as_ref()?.environment.get(name).cloned();
        Archive::open(&self.settings, &found, CancellationToken::new()).unwrap().unwrap()
    }

    /// A round of the worker as it runs, which archives days by itself.
    pub async fn round(&self) -> Result<(), RoundError> {
        let (context, door) = (self.place.context.clone(), self.door.clone());
        let archiver = Archiver::new(context.clone(), door.clone(), self.publisher.clone(), self.stored());
        Retention::new(context, door, Some(archiver), &self.settings).round(&self.epoch).await
    }

    pub async fn detach_oldest(&self) -> Result<Oldest, RoundError> {
        self.retention.detach_oldest(&self.epoch).await
    }

    /// Days of these many leaves each, all archived; returns how many were detached.
    pub async fn days(&mut self, leaves: &[u64]) -> usize {
        for events in leaves {
            self.append(*events).await;
            self.end_day().await;
        }
        for day in self.closed.clone() {
            self.archive(&day).await;
        }
        let mut gone = 0;
        while let Oldest::Detached(_) = self.detach_oldest().await.unwrap() {
            gone += 1;
        }
        gone
    }

    pub async fn cut(&self) -> u64 {
        Cuts::new(self.place.context.db.clone()).leaf().await.unwrap()
    }

    pub async fn verify(&self) -> VerifyReport {
        self.place.verify_with(&self.settings).await
    }

    /// Verifies the database against what a token ledger says, with or without the archive.
    pub async fn verify_against(&self, said: &Result<Said, String>, with_archive: bool) -> VerifyReport {
        let broker = Broker::connect("nats://127.0.0.1:1", "test").await.unwrap();
        let archive = with_archive.then(|| self.stored());
        let with = (self.publisher.notary().clone(), archive);
        let verifier = Verifier::new(self.place.context.clone(), broker, with, Arc::new(Notify::new()));
        let (sender, _receiver) = mpsc::channel(1000);
        verifier.database(said, &sender).await.unwrap()
    }

    /// The service, without the archive.
    pub async fn service(&self) -> Audit {
        self.service_with(None).await
    }

    /// The service.
    pub async fn service_with_archive(&self) -> Audit {
        self.service_with(Some(self.stored())).await
    }

    async fn service_with(&self, archive: Option<Archive>) -> Audit {
        let broker = Broker::connect("nats://127.0.0.1:1", "test").await.unwrap();
        let (context, door, appended) = (self.place.context.clone(), self.door.clone(), Arc::new(Notify::new()));
        let notary = self.publisher.notary().clone();
        let verifier = Verifier::new(context.clone(), broker.clone(), (notary, archive.clone()), appended.clone());
        let reconciler = Reconciler::new(context.clone(), broker, door.clone(), appended);
        Audit::new(context, door, verifier, self.publisher.clone(), reconciler, (&self.settings, archive))
    }

    /// Types of the events that were published, in order.
    pub async fn published(&self, entity: &str) -> Vec<(String, serde_json::Value)> {
        let rows: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT subject, envelope FROM outbox WHERE subject LIKE $1 ORDER BY seq")
                .bind(format!("events.audit.{entity}.%"))
                .fetch_all(self.place.context.db.pool())
                .await
                .unwrap();
        let data = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["data"].clone();
        rows.iter().map(|(subject, envelope)| (subject.replace("events.audit.", ""), data(envelope))).collect()
    }

    /// Leaves, tiles and partitions in the database.
    pub async fn counts(&mut self) -> (i64, i64, i64) {
        sqlx::query_as(
            "SELECT (SELECT count(*) FROM leaf), (SELECT count(*) FROM tile),
                    (SELECT count(*) FROM pg_inherits WHERE inhparent = 'leaf'::regclass)",
        )
        .fetch_one(&mut self.place.root)
        .await
        .unwrap()
    }
}

/// Holds the lease of the worker for a test.
async fn lease(place: &Place) -> (Epoch, DropGuard) {
    let stop = CancellationToken::new();
    let (sender, receiver) = oneshot::channel();
    let (lease, stopped) = (place.context.lease("retention"), stop.clone());
    tokio::spawn(async move {
        let mut sender = Some(sender);
        lease
            .run(stopped, move |epoch, term| {
                let _kept = sender.take().map(|sender| sender.send(epoch));
                async move { term.cancelled().await }
            })
            .await;
    });
    (receiver.await.unwrap(), stop.drop_guard())
}

pub fn line(seq: u64, participant: Option<&str>, correlation: &str) -> Vec<u8> {
    let at = Timestamp::from_micros(START);
    let event_id = EventId::new(SeededIds::new(seq).next_id(at));
    let stamp = Stamp { event_id, at, producer: "audit-engine/1", producer_seq: seq };
    let event = Event::from(AccessGranted { user: "ada".into(), role: "auditor".into(), query: "q".into() });
    let context = Context {
        correlation_id: Some(correlation.to_owned()),
        participant_id: participant.map(|p| p.parse().unwrap()),
        ..Context::default()
    };
    deltran_events::encode(&event, &context, &stamp).unwrap().to_vec()
}

/// A request of an auditor.
pub fn asked<T>(message: T) -> Request<T> {
    asked_by("ada", message)
}

pub fn asked_by<T>(user: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller {
        participant: None,
        role: Role::Auditor,
        user: user.to_owned(),
        trace: None,
    });
    request
}

/// What did not pass.
pub fn failed(report: &VerifyReport) -> Vec<String> {
    report.checks.iter().filter(|c| !c.ok).map(|c| format!("{}: {}", c.check, c.detail)).collect()
}

/// The reason of a refusal, and its values.
pub fn reason(status: &tonic::Status) -> (String, BTreeMap<String, String>) {
    use tonic_types::StatusExt as _;
    let info = status.get_details_error_info().unwrap();
    (info.reason, info.metadata.into_iter().collect())
}

/// The name of a day, counted from the first.
pub fn day(n: i64) -> String {
    day_name(Timestamp::from_micros(START + n * DAY))
}
