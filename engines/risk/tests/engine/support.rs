//! A database of its own per test, processes on it, and the ledger's events as the consumer hands them over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deltran_events::data::transactions::{
    Evidence, SettlementModel, SettlementPosted, TransactionCancelled, TransactionCommitted, TransactionCreated,
    TransactionRejected, TransactionReleased, TransactionState, WindowSealed,
};
use deltran_events::{Context, Domain, Envelope, Event, Stamp};
use deltran_kernel::{
    Clock, CommandId, Currency, EventId, IdSource, ManualClock, Money, ParticipantId, PostingGroupId, SeededIds,
    SystemIds, Timestamp, TransactionId, WindowId,
};
use deltran_messaging::{ApplyError, Delivery, Handler, Outbox, SHARED_TABLES, producer_of};
use deltran_risk::config::Settings;
use deltran_risk::consume::Transactions;
use deltran_risk::domain::assess::{Subject, Verdict};
use deltran_risk::domain::limit::{Limit, Proposal, Value};
use deltran_risk::domain::turn::Turn;
use deltran_risk::handle::{By, Desk};
use deltran_risk::watch::Watch;
use deltran_risk::{MIGRATOR, NAME};
use deltran_runtime::config::Config;
use deltran_runtime::db::{DbOptions, migrate};
use deltran_runtime::health::Health;
use deltran_runtime::metrics::Metrics;
use deltran_runtime::peers::Peers;
use deltran_runtime::{Db, EngineContext};
use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::Instant;
use uuid::Uuid;

pub const NOON: i64 = 1_762_430_400_000_000;
pub const PRODUCER: &str = "token-engine/1";
const CONSUMER: &str = "events_transactions_risk";

/// A database of its own and a superuser's way into it.
pub struct Place {
    url: String,
    pub clock: Arc<ManualClock>,
    pub root: PgConnection,
    number: AtomicU64,
    settings: String,
}

/// One process of the engine.
pub struct Process {
    pub desk: Arc<Desk>,
    pub handler: Transactions,
    pub watch: Watch,
    context: EngineContext,
}

impl Place {
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// With settings in TOML.
    pub async fn with(settings: &str) -> Self {
        let server = std::env::var("DELTRAN_TEST_DATABASE_URL")
            .expect("DELTRAN_TEST_DATABASE_URL is not set: it names a private Postgres; `make test` provides one");
        let at = Timestamp::from_micros(NOON);
        let name = format!("t_{}", SystemIds::new().next_id(at).simple());
        let (base, query) = server.split_once('?').map_or((server.as_str(), ""), |(base, query)| (base, query));
        let scheme = base.find("://").map_or(0, |n| n + 3);
        let host = base[scheme..].find('/').map_or(base, |n| &base[..scheme + n]);
        let url = format!("{host}/{name}{}{query}", if query.is_empty() { "" } else { "?" });
        let mut admin = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
        migrate(NAME, &url, &SHARED_TABLES, &MIGRATOR).await.unwrap();
        let mut root = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("SET search_path = risk").execute(&mut root).await.unwrap();
        let clock = Arc::new(ManualClock::at(at));
        let settings = settings.to_owned();
        Self { url, clock, root, number: AtomicU64::new(0), settings }
    }

    /// A process that has just started and compared its memory with the database.
    pub async fn process(&self) -> Process {
        let process = self.starting();
        process.desk.gate.reload().await.unwrap();
        process
    }

    /// A process that has just started.
    pub fn starting(&self) -> Process {
        let metrics = Metrics::new().unwrap();
        let options = DbOptions { url: self.url.clone(), max_connections: 4, acquire_timeout: Duration::from_secs(5) };
        let context = EngineContext {
            engine: NAME,
            config: Arc::new(Config::default()),
            db: Db::open(NAME, &options, metrics.clone()).unwrap(),
            clock: self.clock.clone(),
            ids: Arc::new(SystemIds::new()),
            peers: Peers::new(vec![NAME], &BTreeMap::new()).unwrap(),
            metrics,
            health: Health::default(),
            holder: "test".into(),
            closing: Default::default(),
        };
        let outbox = Outbox::new(Domain::Risk, context.clock.clone(), context.ids.clone());
        let settings: Settings = toml::from_str(&self.settings).unwrap();
        let desk = Arc::new(deltran_risk::desk(&context, &outbox, settings.checked().unwrap()));
        Process { handler: Transactions::new(desk.clone()), watch: Watch::new(desk.clone()), desk, context }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn wait(&self, seconds: i64) {
        self.clock.advance_micros(seconds * 1_000_000);
    }

    /// The ledger's next event as the consumer would hand it over.
    pub fn event(&self, event: impl Into<Event>) -> Delivery {
        let event: Event = event.into();
        let seq = self.number.fetch_add(1, Ordering::SeqCst) + 1;
        let at = self.now();
        let event_id = EventId::new(SeededIds::new(seq).next_id(at));
        let stamp = Stamp { event_id, at, producer: PRODUCER, producer_seq: seq };
        let payload = deltran_events::encode(&event, &Context::default(), &stamp).unwrap();
        let subject = event.spec().subject();
        let envelope = Envelope::decode(&subject, &payload);
        let producer = producer_of(&subject, &payload, envelope.as_ref().ok().map(|(e, _)| e));
        Delivery {
            stream: "TRANSACTIONS".into(),
            stream_sequence: seq,
            origin: ("TRANSACTIONS".into(), seq),
            attempt: 1,
            subject,
            payload,
            envelope: Arc::new(envelope),
            producer,
            headers: BTreeMap::new(),
            duplicate: false,
            prepared: None,
        }
    }

    /// The number of the ledger's last event.
    pub fn last(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// What the engine published, by type, in order.
    pub async fn published(&mut self) -> Vec<(String, Json)> {
        let rows: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT schema, envelope FROM outbox ORDER BY seq").fetch_all(&mut self.root).await.unwrap();
        rows.into_iter()
            .map(|(schema, envelope)| {
                let envelope: Json = serde_json::from_slice(&envelope).unwrap();
                (schema.split('/').next().unwrap().to_owned(), envelope["data"].clone())
            })
            .collect()
    }

    /// The types of what was published.
    pub async fn types(&mut self) -> Vec<String> {
        self.published().await.into_iter().map(|(schema, _)| schema).collect()
    }
}

impl Process {
    /// Applies a batch as the consumer does: in one transaction with what was received, then handed over.
    pub async fn consume(&self, batch: &[Delivery]) -> Result<(), ApplyError> {
        self.apply(batch).await?;
        self.handler.committed();
        Ok(())
    }

    /// The same, and the process dies right after COMMIT.
    pub async fn apply(&self, batch: &[Delivery]) -> Result<(), ApplyError> {
        let mut tx = self.desk.door.begin("consume").await?;
        let events = self.handler.apply(&mut tx, batch).await?;
        let last = batch.iter().filter_map(|d| Some(d.producer.as_ref()?.1)).max().unwrap_or(0);
        sqlx::query(
            "INSERT INTO received VALUES ($1, $2, ARRAY[1, $3])
             ON CONFLICT (consumer, producer) DO UPDATE SET ranges = ARRAY[1, GREATEST(received.ranges[2], $3)]",
        )
        .bind(CONSUMER)
        .bind(PRODUCER)
        .bind(last as i64)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit(&events).await?)
    }

    /// Asks the ledger for its last event, and compares memory with the database.
    pub async fn mark(&self, number: u64) {
        self.desk.gate.mark(Instant::now(), PRODUCER.to_owned(), number);
        self.desk.gate.reload().await.unwrap();
    }

    /// What the gate answers the ledger in a turn that began when nothing was decided yet.
    pub async fn admit(&self, subject: &Subject) -> Verdict {
        self.asked(&turn(1, 0, 1), subject).await
    }

    pub async fn asked(&self, turn: &Turn, subject: &Subject) -> Verdict {
        self.desk.gate.admit(turn, std::slice::from_ref(subject)).await.unwrap().1.remove(0)
    }

    pub async fn passes(&self, subject: &Subject) -> bool {
        matches!(self.admit(subject).await, Verdict::Pass { .. })
    }

    pub async fn round(&self) {
        self.round_behind(0).await;
    }

    pub async fn round_behind(&self, seconds: u64) {
        self.watch.round(None, self.context.clock.now(), Duration::from_secs(seconds)).await.unwrap();
    }

    /// Proposes by ada and approves by bob.
    pub async fn agree(&self, proposal: Proposal) -> Limit {
        self.desk.propose(&proposal, &by("ada")).await.unwrap();
        self.desk.approve(proposal.limit_id, &by("bob")).await.unwrap()
    }

    pub fn db(&self) -> &Db {
        &self.context.db
    }
}

/// A call in the turn `number`, of which everything before is in events up to `last_event`; all earlier calls
/// are done.
pub fn turn(number: u64, last_event: u64, call: u64) -> Turn {
    Turn { term: 1, number, producer: PRODUCER.into(), last_event, call, done: call - 1 }
}

pub fn by(user: &str) -> By {
    By { user: user.into(), trace: None }
}

pub fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

pub fn bank(id: &str) -> ParticipantId {
    id.parse().unwrap()
}

pub fn money(amount: &str) -> Money {
    Money::parse(amount, usd()).unwrap()
}

pub fn id(n: u128) -> TransactionId {
    TransactionId::new(Uuid::from_u128(n))
}

pub fn command(n: u128) -> CommandId {
    CommandId::new(Uuid::from_u128(n))
}

pub fn window(n: u128) -> WindowId {
    WindowId::new(Uuid::from_u128(1_000 + n))
}

pub fn subject(n: u128, payer: &str, payee: &str, amount: &str) -> Subject {
    Subject {
        id: id(n),
        payer: bank(payer),
        payee: bank(payee),
        amount: money(amount),
        gross: false,
        two_phase: false,
        release: false,
    }
}

/// `transaction.created` in a state: NET, in a window where it is committed.
pub fn created(s: &Subject, state: TransactionState, window: Option<WindowId>) -> TransactionCreated {
    let evidence = Evidence {
        screening: "APPROVE".into(),
        screening_evidence: "no_parties".into(),
        list_versions: Vec::new(),
        rule_version: "1".into(),
        screening_score: None,
        risk_version: 1,
        cap_headroom: None,
        cover_headroom: None,
    };
    TransactionCreated {
        transaction_id: s.id,
        payer: s.payer,
        payee: s.payee,
        amount: s.amount.into(),
        currency: s.amount.currency(),
        settlement_model: if s.gross { SettlementModel::Gross } else { SettlementModel::NetMultilateral },
        state,
        window_id: window,
        window_seq: window.map(|_| 1),
        end_to_end_id: None,
        uetr: None,
        return_of: None,
        expires_at: None,
        evidence,
    }
}

pub fn committed(s: &Subject, n: u128) -> TransactionCreated {
    created(s, TransactionState::Committed, Some(window(n)))
}

pub fn later_committed(s: &Subject, n: u128) -> TransactionCommitted {
    TransactionCommitted {
        transaction_id: s.id,
        payer: s.payer,
        payee: s.payee,
        amount: s.amount.into(),
        currency: s.amount.currency(),
        settlement_model: SettlementModel::NetMultilateral,
        window_id: Some(window(n)),
        window_seq: Some(1),
    }
}

pub fn rejected(s: &Subject, reason: &str, was_held: bool) -> TransactionRejected {
    TransactionRejected {
        transaction_id: s.id,
        payer: s.payer,
        payee: s.payee,
        amount: s.amount.into(),
        currency: s.amount.currency(),
        reason: reason.into(),
        message: "no".into(),
        was_held,
    }
}

pub fn cancelled(s: &Subject) -> TransactionCancelled {
    TransactionCancelled {
        transaction_id: s.id,
        payer: s.payer,
        payee: s.payee,
        amount: s.amount.into(),
        currency: s.amount.currency(),
        reason: "no".into(),
    }
}

pub fn released(s: &Subject, state: TransactionState) -> TransactionReleased {
    TransactionReleased { transaction_id: s.id, state, reason: "reviewed".into() }
}

pub fn sealed(n: u128) -> WindowSealed {
    WindowSealed {
        window_id: window(n),
        currency: usd(),
        count: 0,
        gross: money("0.00").into(),
        digest: "0".repeat(64),
        next_window_id: Some(window(n + 1)),
    }
}

pub fn settled(n: u128) -> SettlementPosted {
    SettlementPosted {
        group_id: PostingGroupId::new(Uuid::from_u128(n)),
        window_ids: vec![window(n)],
        currency: usd(),
        part: 1,
        parts: 1,
        legs: Vec::new(),
        posted_at: Timestamp::from_micros(NOON),
    }
}

pub fn proposal(n: u128, kind: deltran_events::data::risk::LimitKind, amount: &str) -> Proposal {
    Proposal {
        limit_id: command(n),
        kind,
        participant: None,
        counterparty: None,
        corridor: None,
        value: Value::Amount(money(amount)),
        effective_from: None,
        reason: "policy".into(),
    }
}

/// ALFA towards BRAVO.
pub fn bilateral(n: u128, amount: &str) -> Proposal {
    Proposal {
        participant: Some(bank("ALFAAEXX")),
        counterparty: Some(bank("BRAVINXX")),
        ..proposal(n, deltran_events::data::risk::LimitKind::Bilateral, amount)
    }
}
