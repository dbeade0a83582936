//! A database of its own, the engine's way into it, a clock that is moved by hand, and senders.

use std::collections::BTreeMap;
use std::ops::AsyncFnMut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use deltran_events::Domain;
use deltran_kernel::{
    Clock, CommandId, EndpointId, EventId, IdSource, ManualClock, ParticipantId, SeededIds, SystemClock, SystemIds,
    Timestamp,
};
use deltran_messaging::{Door, Outbox, SHARED_TABLES};
use deltran_notification::config::Settings;
use deltran_notification::domain::endpoint::Wish;
use deltran_notification::domain::{Kind, Notification};
use deltran_notification::store::deliveries;
use deltran_notification::store::endpoints::Whole;
use deltran_notification::webhook::Webhooks;
use deltran_notification::webhook::connector::{Resolve, SystemResolver};
use deltran_notification::webhook::desk::{By, Desk, DeskError, Told};
use deltran_notification::webhook::random::SystemRandom;
use deltran_notification::webhook::settings::Webhooks as Own;
use deltran_notification::webhook::vault::KeyText;
use deltran_notification::{MIGRATOR, NAME};
use deltran_runtime::config::Config;
use deltran_runtime::db::{DbOptions, migrate};
use deltran_runtime::health::Health;
use deltran_runtime::metrics::Metrics;
use deltran_runtime::peers::Peers;
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Db, EngineContext};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what should come soon.
pub const DEADLINE: Duration = Duration::from_secs(40);
pub const ALFA: &str = "ALFAAEXX";
pub const BRAVO: &str = "BRAVINXX";

/// Asks until the answer is there.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = check().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A sender that runs.
pub struct Running {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    /// Ends in good order.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

pub struct Place {
    pub context: EngineContext,
    pub clock: Arc<ManualClock>,
    pub door: Door,
    pub settings: Settings,
    pub desk: Arc<Desk>,
    url: String,
    webhooks: Mutex<Option<Webhooks>>,
    wake: Arc<Notify>,
    positions: Mutex<BTreeMap<ParticipantId, u64>>,
    fresh: AtomicU64,
}

/// Settings that let a test wait for nothing.
pub fn settings() -> Settings {
    Settings {
        master_key: KeyText::new(BASE64_STANDARD.encode([7; 32])),
        allow_loopback: true,
        webhooks: Own { poll_ms: 10, jitter_percent: 0, ..Own::default() },
        ..Settings::default()
    }
}

impl Place {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::over(settings, Arc::new(SystemResolver)).await
    }

    pub async fn over(settings: Settings, resolver: Arc<dyn Resolve>) -> Self {
        let server = std::env::var("DELTRAN_TEST_DATABASE_URL").expect(
            "DELTRAN_TEST_DATABASE_URL is not set: it names a superuser's way to a private Postgres; `make test` provides one",
        );
        // Receivers compare the time of a signature with theirs, so the clock begins at the real time.
        let at = SystemClock.now();
        let name = format!("t_{}", SystemIds::new().next_id(at).simple());
        let (base, query) = server.split_once('?').map_or((server.as_str(), ""), |(base, query)| (base, query));
        let scheme = base.find("://").map_or(0, |n| n + 3);
        let host = base[scheme..].find('/').map_or(base, |n| &base[..scheme + n]);
        let url = format!("{host}/{name}{}{query}", if query.is_empty() { "" } else { "?" });
        let mut admin = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
        migrate(NAME, &url, &SHARED_TABLES, &MIGRATOR).await.unwrap();
        Self::on(url, Arc::new(ManualClock::at(at)), settings, resolver, "one").await
    }

    async fn on(
        url: String,
        clock: Arc<ManualClock>,
        settings: Settings,
        resolver: Arc<dyn Resolve>,
        holder: &str,
    ) -> Self {
        let context = context(&url, clock.clone(), holder);
        let outbox = Outbox::new(Domain::Notifications, clock.clone(), context.ids.clone());
        let door = Door::new(context.db.clone(), outbox);
        let webhooks = Webhooks::over(&context, &door, &settings, resolver, Arc::new(SystemRandom::default())).unwrap();
        Self {
            desk: webhooks.desk.clone(),
            wake: webhooks.wake.clone(),
            webhooks: Mutex::new(Some(webhooks)),
            context,
            clock,
            door,
            settings,
            url,
            positions: Mutex::default(),
            fresh: AtomicU64::new(1),
        }
    }

    /// Starts the sender that belongs to the desk.
    pub fn send(&self) -> Running {
        let webhooks = self.webhooks.lock().unwrap().take().expect("it was not started before");
        run(webhooks)
    }

    /// Starts a sender as another process would: nobody wakes it.
    pub fn send_elsewhere(&self, holder: &str) -> Running {
        let context = context(&self.url, self.clock.clone(), holder);
        let outbox = Outbox::new(Domain::Notifications, self.clock.clone(), context.ids.clone());
        let door = Door::new(context.db.clone(), outbox);
        let webhooks = Webhooks::new(&context, &door, &self.settings).unwrap();
        run(webhooks)
    }

    /// Another process on the same database, with settings of its own.
    pub async fn beside(&self, settings: Settings) -> Self {
        Self::on(self.url.clone(), self.clock.clone(), settings, Arc::new(SystemResolver), "beside").await
    }

    pub fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn db(&self) -> &Db {
        self.door.db()
    }

    pub fn command(&self) -> CommandId {
        CommandId::new(self.context.ids.next_id(self.clock.now()))
    }

    pub fn endpoint_id(&self) -> EndpointId {
        EndpointId::new(self.context.ids.next_id(self.clock.now()))
    }

    pub fn pass(&self, seconds: i64) {
        self.clock.advance_micros(seconds * 1_000_000);
        self.wake();
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Registers an endpoint, as its owner.
    pub async fn create(
        &self,
        id: EndpointId,
        participant: &str,
        wish: Wish,
    ) -> Result<(Whole, Option<Told>), DeskError> {
        self.desk.create(id, participant.parse().unwrap(), wish, &bank(participant)).await
    }

    /// Registers an endpoint of ALFA.
    pub async fn endpoint(&self, url: &str, in_order: bool) -> (EndpointId, Told) {
        let id = self.endpoint_id();
        let wish = Wish { url: url.to_owned(), kinds: Default::default(), in_order };
        let (whole, told) = self.create(id, ALFA, wish).await.unwrap();
        assert_eq!(whole.endpoint.endpoint_id, id);
        (id, told.expect("a new endpoint's secret is told"))
    }

    /// Files so many notifications for ALFA, and wakes the sender.
    pub async fn file(&self, count: u64) -> Vec<Notification> {
        self.file_of(ALFA, Kind::PaymentReceived, count).await
    }

    pub async fn file_of(&self, participant: &str, kind: Kind, count: u64) -> Vec<Notification> {
        let participant: ParticipantId = participant.parse().unwrap();
        let first = {
            let mut positions = self.positions.lock().unwrap();
            let last = positions.entry(participant).or_insert(0);
            *last += count;
            *last - count + 1
        };
        let at = self.clock.now();
        let notifications: Vec<Notification> = (first..first + count)
            .map(|position| {
                let n = self.fresh.fetch_add(1, Ordering::Relaxed);
                Notification {
                    id: EventId::new(self.context.ids.next_id(at)),
                    participant,
                    kind,
                    position,
                    at,
                    body: format!(r#"{{"type":"{kind}","timestamp":"{at}","data":{{"n":{n}}}}}"#),
                }
            })
            .collect();
        let mut tx = self.context.db.begin().await.unwrap();
        deliveries::file(&mut tx, &notifications).await.unwrap();
        tx.commit().await.unwrap();
        self.wake();
        notifications
    }

    /// The words of how the attempts of an endpoint ended, the first one first.
    pub async fn errors(&self, id: EndpointId) -> Vec<String> {
        let page = PageOf { size: 1000, after: None };
        let attempts = deliveries::attempts(self.db(), &page, id, None, false).await.unwrap();
        attempts.into_iter().rev().map(|attempt| attempt.error).collect()
    }

    /// Waits until so many attempts are stored: what follows from them is decided.
    pub async fn attempted(&self, id: EndpointId, count: usize) {
        eventually(&format!("{count} attempts"), async || (self.errors(id).await.len() == count).then_some(())).await;
    }

    pub async fn read(&self, id: EndpointId) -> Whole {
        deltran_notification::store::endpoints::whole(self.db(), &[id]).await.unwrap().remove(0)
    }

    /// A superuser's connection.
    pub async fn root(&self) -> PgConnection {
        let mut root = PgConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql("SET search_path = notification").execute(&mut root).await.unwrap();
        root
    }

    /// Types and data of the events in the outbox.
    pub async fn events(&self) -> Vec<(String, serde_json::Value)> {
        let rows: Vec<(Vec<u8>,)> =
            sqlx::query_as("SELECT envelope FROM outbox ORDER BY seq").fetch_all(&mut self.root().await).await.unwrap();
        rows.into_iter()
            .map(|(bytes,)| {
                let envelope: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(envelope["metadata"]["participant_id"], ALFA, "the participant is told");
                (envelope["event_type"].as_str().unwrap().to_owned(), envelope["data"].clone())
            })
            .collect()
    }

    /// Waits until so many deliveries of an endpoint stand there.
    pub async fn standing(&self, id: EndpointId, state: deltran_notification::domain::delivery::DeliveryState, n: u64) {
        eventually(&format!("{n} deliveries are {}", state.as_str()), async || {
            self.wake();
            (deliveries::standing(self.db(), id, state).await.unwrap() == n).then_some(())
        })
        .await;
    }
}

fn run(webhooks: Webhooks) -> Running {
    let stop = CancellationToken::new();
    Running { task: tokio::spawn(webhooks.sender.run(stop.clone())), stop }
}

fn context(url: &str, clock: Arc<ManualClock>, holder: &str) -> EngineContext {
    let metrics = Metrics::new().unwrap();
    let options = DbOptions { url: url.to_owned(), max_connections: 6, acquire_timeout: Duration::from_secs(5) };
    EngineContext {
        engine: NAME,
        config: Arc::new(Config::default()),
        db: Db::open(NAME, &options, metrics.clone()).unwrap(),
        clock,
        ids: Arc::new(SeededIds::new(holder.len() as u64)),
        peers: Peers::new(vec![NAME], &BTreeMap::new()).unwrap(),
        metrics,
        health: Health::default(),
        holder: holder.into(),
        closing: CancellationToken::new(),
    }
}

pub fn bank(participant: &str) -> By {
    By { user: participant.to_lowercase(), participant: Some(participant.parse().unwrap()), trace: None }
}

pub fn operator() -> By {
    By { user: "ops".into(), participant: None, trace: None }
}
