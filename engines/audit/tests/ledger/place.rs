//! A ledger on a real Postgres, and messages for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use deltran_audit::checkpoints::Publisher;
use deltran_audit::config::Settings;
use deltran_audit::consume::Sequencer;
use deltran_audit::domain::note::{Kind, Signer, Verifier as Key};
use deltran_audit::domain::sequence::AUDIT;
use deltran_audit::notary::Notary;
use deltran_audit::store::Ledger;
use deltran_audit::verify::Verifier;
use deltran_audit::{MIGRATOR, NAME};
use deltran_events::data::audit::AccessGranted;
use deltran_events::{Context, Domain, Envelope, Event, Stamp};
use deltran_kernel::{EventId, IdSource, ManualClock, SeededIds, SystemIds, Timestamp};
use deltran_messaging::{ApplyError, Broker, Delivery, Door, Handler, Outbox, SHARED_TABLES, producer_of};
use deltran_runtime::config::Config;
use deltran_runtime::db::{DbOptions, migrate};
use deltran_runtime::health::Health;
use deltran_runtime::metrics::Metrics;
use deltran_runtime::peers::Peers;
use deltran_runtime::{Db, EngineContext};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};

pub const NOON: i64 = 1_762_430_400_000_000;
pub const DAY: i64 = 86_400_000_000;
pub const SUBJECT: &str = "events.audit.access.granted";

pub const ORIGIN: &str = "deltran/test/audit";

/// A folder with a key in it.
pub struct Keys {
    pub folder: TempDir,
}

impl Keys {
    pub fn new() -> Self {
        let keys = Self { folder: tempfile::tempdir().unwrap() };
        keys.add("audit.key", ORIGIN, 1);
        keys
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn add(&self, name: &str, origin: &str, seed: u8) -> Key {
        let signer = Signer::new(origin, Kind::Ed25519, &[seed; 32]).unwrap();
        std::fs::write(self.file(name), signer.secret_text() + "\n").unwrap();
        signer.verifier().clone()
    }

    pub fn settings(&self) -> Settings {
        Settings { key_files: vec![self.file("audit.key").display().to_string()], ..Settings::default() }
    }
}

/// A database of its own, the engine's way into it, and a superuser's.
pub struct Place {
    pub context: EngineContext,
    pub clock: Arc<ManualClock>,
    pub url: String,
    pub root: PgConnection,
    read: AtomicU64,
}

impl Place {
    pub async fn new() -> Self {
        let server = std::env::var("DELTRAN_TEST_DATABASE_URL").expect(
            "DELTRAN_TEST_DATABASE_URL is not set: it names a superuser's way to a private Postgres; `make test` provides one",
        );
        let at = Timestamp::from_micros(NOON);
        let name = format!("t_{}", SystemIds::new().next_id(at).simple());
        let (base, query) = server.split_once('?').map_or((server.as_str(), ""), |(base, query)| (base, query));
        let scheme = base.find("://").map_or(0, |n| n + 3);
        let host = base[scheme..].find('/').map_or(base, |n| &base[..scheme + n]);
        let url = format!("{host}/{name}{}{query}", if query.is_empty() { "" } else { "?" });
        let mut admin = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
        migrate(NAME, &url, &SHARED_TABLES, &MIGRATOR).await.unwrap();
        let metrics = Metrics::new().unwrap();
        let options = DbOptions { url: url.clone(), max_connections: 4, acquire_timeout: Duration::from_secs(5) };
        let clock = Arc::new(ManualClock::at(at));
        let context = EngineContext {
            engine: NAME,
            config: Arc::new(Config::default()),
            db: Db::open(NAME, &options, metrics.clone()).unwrap(),
            clock: clock.clone(),
            ids: Arc::new(SeededIds::new(1)),
            peers: Peers::new(vec![NAME], &BTreeMap::new()).unwrap(),
            metrics,
            health: Health::default(),
            holder: "test".into(),
            closing: Default::default(),
        };
        let mut root = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("SET search_path = audit").execute(&mut root).await.unwrap();
        Self { context, clock, url, root, read: AtomicU64::new(0) }
    }

    pub fn sequencer(&self) -> Sequencer {
        Sequencer::new(&self.context, Arc::new(Notify::new()))
    }

    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.context.db.clone())
    }

    /// A message as the consumer would hand it over, at the next place of AUDIT.
    pub fn message(&self, subject: &str, payload: impl Into<Bytes>, duplicate: bool) -> Delivery {
        let payload = payload.into();
        let envelope = Envelope::decode(subject, &payload);
        let producer = producer_of(subject, &payload, envelope.as_ref().ok().map(|(e, _)| e));
        let sequence = self.read.fetch_add(1, Ordering::Relaxed) + 1;
        Delivery {
            subject: subject.to_owned(),
            stream: AUDIT.to_owned(),
            stream_sequence: sequence,
            origin: ("RISK".to_owned(), sequence + 100),
            attempt: 1,
            payload,
            envelope: Arc::new(envelope),
            producer,
            headers: BTreeMap::new(),
            duplicate,
            prepared: None,
        }
    }

    pub fn event(&self, seq: u64, query: &str) -> Delivery {
        self.message(SUBJECT, line(seq, query), false)
    }

    pub async fn apply(&self, sequencer: &Sequencer, batch: &[Delivery]) -> Result<(), ApplyError> {
        self.apply_in(&self.context, sequencer, batch).await
    }

    /// As a process with this context does it.
    pub async fn apply_in(
        &self,
        context: &EngineContext,
        sequencer: &Sequencer,
        batch: &[Delivery],
    ) -> Result<(), ApplyError> {
        let mut tx = context.db.begin().await?;
        sequencer.apply(&mut tx, batch).await?;
        // As the consumer does in the same transaction.
        let mut highest = BTreeMap::new();
        for (producer, seq) in batch.iter().filter_map(|delivery| delivery.producer.as_ref()) {
            highest.entry(producer).and_modify(|last: &mut u64| *last = (*last).max(*seq)).or_insert(*seq);
        }
        for (producer, seq) in highest {
            sqlx::query(
                "INSERT INTO received VALUES ('audit-engine-consumer', $1, ARRAY[1, $2])
                 ON CONFLICT (consumer, producer) DO UPDATE SET ranges = ARRAY[1, GREATEST(received.ranges[2], $2)]",
            )
            .bind(producer)
            .bind(seq as i64)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        sequencer.committed();
        Ok(())
    }

    pub async fn verify(&self) -> deltran_api::audit::v1::VerifyReport {
        self.verify_with(&Settings::default()).await
    }

    pub async fn verify_with(&self, settings: &Settings) -> deltran_api::audit::v1::VerifyReport {
        let broker = Broker::connect("nats://127.0.0.1:1", "test").await.unwrap();
        let notary = Arc::new(self.notary(settings));
        let verifier = Verifier::new(self.context.clone(), broker, (notary, None), Arc::new(Notify::new()));
        let (sender, _receiver) = mpsc::channel(1000);
        verifier.run(true, &sender).await.unwrap()
    }

    /// The size of the ledger once nothing is under way any more.
    pub async fn settled(&mut self) -> u64 {
        // What a lost connection left is ended by the server when it notices; its locks are gone then.
        let mut tx = self.root.begin().await.unwrap();
        let size: i64 = sqlx::query_scalar("SELECT size FROM log_head FOR UPDATE").fetch_one(&mut *tx).await.unwrap();
        tx.rollback().await.unwrap();
        size as u64
    }

    pub fn notary(&self, settings: &Settings) -> Notary {
        self.notary_in(&self.context, settings)
    }

    pub fn notary_in(&self, context: &EngineContext, settings: &Settings) -> Notary {
        Notary::new(settings, "test", context.db.clone(), context.metrics.clone()).unwrap()
    }

    pub fn door(&self) -> Door {
        self.door_in(&self.context)
    }

    pub fn door_in(&self, context: &EngineContext) -> Door {
        let outbox = Outbox::new(Domain::Audit, self.clock.clone(), self.context.ids.clone());
        Door::new(context.db.clone(), outbox)
    }

    pub fn publisher(&self, settings: &Settings) -> Publisher {
        Publisher::new(self.context.clone(), self.door(), Arc::new(self.notary(settings)), settings)
    }

    /// The result of a statement by the engine's role, in words.
    pub async fn by_engine(&self, statement: &'static str) -> Result<(), String> {
        let mut tx = self.context.db.begin().await.unwrap();
        sqlx::raw_sql(statement).execute(&mut *tx).await.map(|_| ()).map_err(|e| e.to_string())
    }

    pub async fn by_root(&mut self, statement: &'static str) -> Result<(), String> {
        sqlx::raw_sql(statement).execute(&mut self.root).await.map(|_| ()).map_err(|e| e.to_string())
    }
}

pub fn line(seq: u64, query: &str) -> Vec<u8> {
    let at = Timestamp::from_micros(NOON);
    let event_id = EventId::new(SeededIds::new(seq).next_id(at));
    let stamp = Stamp { event_id, at, producer: "audit-engine/1", producer_seq: seq };
    let event = Event::from(AccessGranted { user: "ada".into(), role: "auditor".into(), query: query.into() });
    let context = Context { correlation_id: Some("c1".into()), ..Context::default() };
    deltran_events::encode(&event, &context, &stamp).unwrap().to_vec()
}
