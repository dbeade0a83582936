//! A desk on a database of its own, and events of the ledger as the consumer would hand them over.
#![allow(clippy::unwrap_used, dead_code, reason = "a test that fails here says where; not every test uses all")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deltran_compliance::domain::screening::Thresholds;
use deltran_compliance::handle::{By, Desk};
use deltran_compliance::lists::Lists;
use deltran_compliance::{MIGRATOR, NAME};
use deltran_events::data::transactions::{SettlementModel, TransactionCommitted};
use deltran_events::{Context, Domain, Envelope, Event, Stamp};
use deltran_kernel::{
    CommandId, Currency, EventId, IdSource, ManualClock, Money, ParticipantId, SystemIds, Timestamp, TransactionId,
};
use deltran_messaging::{Delivery, Door, Outbox, SHARED_TABLES, producer_of};
use deltran_runtime::config::Config;
use deltran_runtime::db::{DbOptions, migrate};
use deltran_runtime::health::Health;
use deltran_runtime::metrics::Metrics;
use deltran_runtime::peers::Peers;
use deltran_runtime::{Db, EngineContext};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

pub const NOON: Timestamp = Timestamp::from_micros(1_762_430_400_000_000);

/// A database of its own, the engine's desk on it, and a superuser's way.
pub struct Place {
    pub context: EngineContext,
    pub clock: Arc<ManualClock>,
    pub desk: Arc<Desk>,
    pub outbox: Outbox,
    pub root: PgConnection,
    server: String,
    name: String,
}

impl Place {
    pub async fn new() -> Self {
        let server = std::env::var("DELTRAN_TEST_DATABASE_URL").expect(
            "DELTRAN_TEST_DATABASE_URL is not set: it names a superuser's way to a private Postgres; `make test` provides one",
        );
        let name = format!("t_{}", SystemIds::new().next_id(NOON).simple());
        let (base, query) = server.split_once('?').map_or((server.as_str(), ""), |(base, query)| (base, query));
        let scheme = base.find("://").map_or(0, |n| n + 3);
        let host = base[scheme..].find('/').map_or(base, |n| &base[..scheme + n]);
        let url = format!("{host}/{name}{}{query}", if query.is_empty() { "" } else { "?" });
        let mut admin = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
        migrate(NAME, &url, &SHARED_TABLES, &MIGRATOR).await.unwrap();
        let metrics = Metrics::new().unwrap();
        let options = DbOptions { url: url.clone(), max_connections: 8, acquire_timeout: Duration::from_secs(20) };
        let clock = Arc::new(ManualClock::at(NOON));
        let context = EngineContext {
            engine: NAME,
            config: Arc::new(Config::default()),
            db: Db::open(NAME, &options, metrics.clone()).unwrap(),
            clock: clock.clone(),
            ids: Arc::new(SystemIds::new()),
            peers: Peers::new(vec![NAME], &BTreeMap::new()).unwrap(),
            metrics,
            health: Health::default(),
            holder: "test".into(),
            closing: Default::default(),
        };
        let outbox = Outbox::new(Domain::Compliance, context.clock.clone(), context.ids.clone());
        let door = Door::new(context.db.clone(), outbox.clone());
        let lists = Lists::new(context.db.clone(), clock.clone(), Duration::from_secs(60), Thresholds::default());
        lists.reload().await.unwrap();
        let desk = Arc::new(Desk::new(&context, door, lists, Duration::ZERO));
        let mut root = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("SET search_path = compliance").execute(&mut root).await.unwrap();
        Self { context, clock, desk, outbox, root, server, name }
    }

    /// The events that wait for the broker, of one type, or of all.
    pub async fn published(&mut self, event_type: &str) -> Vec<Value> {
        let rows: Vec<Vec<u8>> = sqlx::query_scalar("SELECT envelope FROM outbox WHERE subject LIKE $1 ORDER BY seq")
            .bind(format!("events.compliance.{event_type}%"))
            .fetch_all(&mut self.root)
            .await
            .unwrap();
        rows.iter().map(|row| serde_json::from_slice(row).unwrap()).collect()
    }

    pub async fn count(&mut self, what: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {what}")))
            .fetch_one(&mut self.root)
            .await
            .unwrap()
    }

    /// The result of a statement by the engine's role, in words.
    pub async fn by_engine(&self, statement: &'static str) -> Result<(), String> {
        let mut tx = self.context.db.begin().await.unwrap();
        sqlx::raw_sql(statement).execute(&mut *tx).await.map(|_| ()).map_err(|e| e.to_string())
    }

    /// Drops the database.
    pub async fn end(self) {
        self.context.db.pool().close().await;
        drop(self.root);
        let mut admin = PgConnection::connect(&self.server).await.unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
    }
}

pub fn by(user: &str) -> By {
    By { user: user.into(), trace: None }
}

pub fn command() -> CommandId {
    CommandId::new(SystemIds::new().next_id(NOON))
}

pub fn bank(n: usize) -> ParticipantId {
    let known = ["ALFAAEXX", "BRAVINXX", "CHRLGB2L", "DELTFRXX"];
    known.get(n).map_or_else(|| format!("B{n:03}AEXX"), |id| (*id).to_owned()).parse().unwrap()
}

pub fn money(text: &str, code: &str) -> Money {
    Money::parse(text, Currency::new(code).unwrap()).unwrap()
}

pub fn transaction(n: u64) -> TransactionId {
    TransactionId::new(Uuid::from_u128(0x0190_c3d5 << 96 | u128::from(n)))
}

/// `transaction.committed` number `seq` of the ledger, as the consumer hands it over.
pub fn committed(seq: u64, payer: usize, payee: usize, amount: Money, at: Timestamp) -> Delivery {
    let data = TransactionCommitted {
        transaction_id: transaction(seq),
        payer: bank(payer),
        payee: bank(payee),
        amount: amount.into(),
        currency: amount.currency(),
        settlement_model: SettlementModel::NetMultilateral,
        window_id: None,
        window_seq: None,
    };
    let event_id = EventId::new(Uuid::from_u128(0x0190_c3d6 << 96 | u128::from(seq)));
    let stamp = Stamp { event_id, at, producer: "token-engine/1", producer_seq: seq };
    let payload = deltran_events::encode(&Event::from(data), &Context::default(), &stamp).unwrap();
    let subject = "events.transactions.transaction.committed";
    let envelope = Envelope::decode(subject, &payload);
    let producer = producer_of(subject, &payload, envelope.as_ref().ok().map(|(e, _)| e));
    Delivery {
        subject: subject.to_owned(),
        stream: "TRANSACTIONS".to_owned(),
        stream_sequence: seq,
        origin: ("TRANSACTIONS".to_owned(), seq),
        attempt: 1,
        payload,
        envelope: Arc::new(envelope),
        producer,
        headers: BTreeMap::new(),
        duplicate: false,
        prepared: None,
    }
}
