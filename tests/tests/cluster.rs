//! Three brokers and two Postgres servers, of which one fails at a time under load: nothing that was acknowledged is lost,
//! and the platform goes on without a restart. It prints how long submissions were refused for each fault.
//!
//! A short form by default, which compares everything at its end; with `DELTRAN_CHAOS_MINUTES` every fault, again and again
//! for as long, each followed by the comparison.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deltran_api::clearing::v1::WindowState;
use deltran_api::token::v1::{TransactionInstruction, TransactionOutcome, TransactionState};
use deltran_messaging::{Broker, stored};
use deltran_runtime::Db;
use deltran_runtime::db::DbOptions;
use deltran_runtime::metrics::Metrics;
use deltran_tests::cluster::{Brokers, PostgresPair, replicas};
use deltran_tests::node::{Deltran, PATIENCE, decided, id, pay, run, submit_many};
use deltran_tests::{api, made_anew, within};
use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

const BANKS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
/// Payments of one message, and the time between two messages of a bank.
const MESSAGE: usize = 5;
const PACE: Duration = Duration::from_millis(60);
/// A message without an answer is sent again after this.
const ANSWER: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(50);
/// Messages that count as "it goes on".
const GOES_ON: usize = 40;

const PRODUCTION: &str = "[nats]\nprofile = \"production\"\n";

/// What a fault does.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The broker at this place dies at once and comes back.
    Broker(usize),
    /// The broker that the platform is connected to does.
    Connected,
    /// The broker that leads a stream does.
    Leader(&'static str),
    /// Each broker in turn is stopped in an orderly way, and comes back.
    RollingRestart,
    /// The broker at this place comes back on an empty disk.
    Wiped(usize),
    /// A stream is deleted.
    Deleted(&'static str),
    /// The standby dies at once and comes back.
    Standby,
    /// The primary dies at once; the standby is promoted, and the old primary joins it.
    FailOver,
    /// The primary freezes with all its connections; the standby is promoted, and then the old primary dies.
    FrozenPrimary,
}

const SHORT: [Fault; 3] = [Fault::Connected, Fault::Deleted("TRANSACTIONS"), Fault::FailOver];
const LONG: [Fault; 14] = [
    Fault::Broker(0),
    Fault::Broker(1),
    Fault::Broker(2),
    Fault::Connected,
    Fault::Leader("TRANSACTIONS"),
    Fault::Leader("AUDIT"),
    Fault::RollingRestart,
    Fault::Wiped(0),
    Fault::Deleted("TRANSACTIONS"),
    Fault::Deleted("AUDIT"),
    Fault::Standby,
    Fault::FailOver,
    Fault::FrozenPrimary,
    Fault::Wiped(1),
];

/// What one fault cost.
#[derive(Debug, Default)]
struct Cost {
    /// Answers that were none: refused as unavailable, broken off, or late.
    refusals: usize,
    /// The longest time from the first attempt to the answer, among messages that were refused at least once.
    refused_for: Duration,
    /// Among the others.
    answered_in: Duration,
}

/// Payments under way, and what was told about each.
struct Load<'a> {
    node: &'a Deltran,
    messages: AtomicUsize,
    decided: AtomicUsize,
    told: Mutex<BTreeMap<String, TransactionOutcome>>,
    cost: Mutex<Cost>,
}

impl<'a> Load<'a> {
    fn of(node: &'a Deltran, told: BTreeMap<String, TransactionOutcome>) -> Self {
        // No number of a message is used twice.
        let messages = AtomicUsize::new(told.len());
        Self { node, messages, decided: AtomicUsize::new(0), told: Mutex::new(told), cost: Mutex::default() }
    }

    /// Sends payments of one bank until `stop`; each message until it is decided.
    async fn pay(&self, from: usize, stop: &CancellationToken) {
        let (payer, payee) = (BANKS[from], BANKS[1 - from]);
        let mut pace = interval(PACE);
        while !stop.is_cancelled() {
            pace.tick().await;
            let number = self.messages.fetch_add(1, Ordering::Relaxed);
            let message: Vec<TransactionInstruction> =
                (0..MESSAGE).map(|n| pay(&format!("{number} {n}"), payer, payee, "1.25")).collect();
            let (began, mut refusals) = (Instant::now(), 0);
            let outcomes = loop {
                match self.once(payer, &message).await {
                    Ok(outcomes) => break outcomes,
                    Err(why) => {
                        refusals += 1;
                        assert!(began.elapsed() < PATIENCE, "message {number} was never decided: {why}");
                        sleep(AGAIN).await;
                    }
                }
            };
            let waited = began.elapsed();
            let mut cost = self.cost.lock().unwrap();
            let longest = if refusals > 0 { &mut cost.refused_for } else { &mut cost.answered_in };
            *longest = waited.max(*longest);
            cost.refusals += refusals;
            drop(cost);
            let mut told = self.told.lock().unwrap();
            for outcome in outcomes {
                assert_eq!(outcome.state(), TransactionState::Committed, "{outcome:?}");
                let twice = told.insert(outcome.transaction_id.clone(), outcome);
                assert!(twice.is_none(), "{twice:?}");
            }
            self.decided.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends a message once.
    async fn once(&self, payer: &str, message: &[TransactionInstruction]) -> Result<Vec<TransactionOutcome>, String> {
        let mut bank = self.node.bank(payer);
        let items = timeout(ANSWER, submit_many(&mut bank, message.to_vec())).await;
        let items = items.map_err(|_| "no answer".to_owned())?.map_err(|status| status.to_string())?;
        decided(items)
    }

    /// Waits until more messages were decided.
    async fn goes_on(&self) {
        let aim = self.decided.load(Ordering::Relaxed) + GOES_ON;
        within(PATIENCE, "payments to go on", async || (self.decided.load(Ordering::Relaxed) >= aim).then_some(()))
            .await;
    }

    fn count(&self) -> usize {
        self.told.lock().unwrap().len()
    }
}

/// The servers; the platform that runs on them is beside them, since payments go on meanwhile.
struct Servers {
    brokers: Brokers,
    postgres: PostgresPair,
    /// Which of the two takes writes.
    primary: usize,
    nats: Broker,
    /// Whether there is time for everything.
    long: bool,
}

impl Servers {
    async fn strike(&mut self, fault: Fault, load: &Load<'_>) {
        match fault {
            Fault::Broker(n) => self.broker_dies(n, load).await,
            Fault::Connected => {
                let connected = self.brokers.connected("deltran").await;
                self.broker_dies(connected, load).await;
            }
            Fault::Leader(stream) => {
                let leader = self.brokers.leader_of(&self.nats, stream).await;
                self.broker_dies(leader, load).await;
            }
            Fault::RollingRestart => {
                for n in 0..3 {
                    self.brokers.stop(n).await;
                    self.brokers.start_again(n).await;
                }
            }
            Fault::Wiped(n) => {
                self.brokers.kill(n);
                self.brokers.wipe(n);
                self.brokers.start_again(n).await;
            }
            Fault::Deleted(stream) => {
                let last = stored::state(&self.nats, stream).await.unwrap().unwrap().last_sequence;
                api(&self.nats, &format!("STREAM.DELETE.{stream}"), &json!({})).await;
                made_anew(PATIENCE, &self.nats, &[(stream, last)]).await;
                assert_eq!(replicas(&self.nats, stream).await, 3);
            }
            Fault::Standby => {
                self.postgres.kill(1 - self.primary);
                self.postgres.run(1 - self.primary).await;
                self.postgres.followed(self.primary).await;
            }
            Fault::FailOver => self.fail_over(load, false).await,
            Fault::FrozenPrimary => self.fail_over(load, true).await,
        }
    }

    /// Waits until risk has counted every event that is in the stream by now; what was lost on the way to it would come again
    /// after half a minute only.
    async fn counted(&self) {
        let mut last = None;
        within(PATIENCE, "risk to count what was published", async || {
            if last.is_none() {
                last = Some(stored::state(&self.nats, "TRANSACTIONS").await.ok()??.last_sequence);
            }
            let subject = "CONSUMER.INFO.TRANSACTIONS.events_transactions_risk";
            let info: Value = self.nats.jetstream().request(subject, &json!({})).await.ok()?;
            (info["ack_floor"]["stream_seq"].as_u64() >= last).then_some(())
        })
        .await;
    }

    async fn broker_dies(&mut self, n: usize, load: &Load<'_>) {
        self.brokers.kill(n);
        // Two go on, in what the third has led too.
        for stream in ["TRANSACTIONS", "AUDIT"] {
            self.brokers.leader_of(&self.nats, stream).await;
        }
        load.goes_on().await;
        self.brokers.start_again(n).await;
    }

    /// As `ops/runbooks/cluster.md` says, and what must not be harmful on the way.
    async fn fail_over(&mut self, load: &Load<'_>, frozen: bool) {
        let (old, new) = (self.primary, 1 - self.primary);
        if frozen {
            self.postgres.freeze(old);
        } else {
            self.postgres.kill(old);
        }
        self.postgres.script(new, "promote", &["--fenced", "--alone"]).await;
        self.primary = new;
        load.goes_on().await;
        self.postgres.kill(old);

        // The old primary comes back and believes that it is one. The platform does not write to it, not even one that
        // has just started and finds it first; and what others write there is not acknowledged.
        self.postgres.run(old).await;
        assert_eq!(self.postgres.ask(old, "SELECT pg_is_in_recovery()::text").await.unwrap(), "false");
        assert_eq!(port_of_a_new_process(&self.postgres.url()).await, self.postgres.port(new));
        load.goes_on().await;
        let of_platform = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name LIKE 'deltran-%'";
        assert_eq!(self.postgres.ask(old, of_platform).await.unwrap(), "0");
        let mut lonely = self.postgres.connect(old).await.unwrap();
        let lonely = tokio::spawn(async move { sqlx::raw_sql("CREATE TABLE lonely ()").execute(&mut lonely).await });
        within(PATIENCE, "the old primary to wait for a standby", async || {
            let waiting = "SELECT 'it waits' FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            self.postgres.ask(old, waiting).await
        })
        .await;
        self.postgres.script(old, "fence", &[]).await;
        self.postgres.stopped(old).await;
        assert!(lonely.await.unwrap().is_err(), "nothing was acknowledged");

        // Fenced, it never comes back as a primary.
        if self.long {
            self.postgres.run(old).await;
            assert_eq!(self.postgres.ask(old, "SELECT pg_is_in_recovery()::text").await.unwrap(), "true");
            self.postgres.script(old, "fence", &[]).await;
            self.postgres.stopped(old).await;
        }

        // It joins as the standby.
        self.postgres.join(old, new, &["--rewind"]).await;
        self.postgres.run(old).await;
        within(PATIENCE, "the old primary to follow", async || {
            self.postgres.ask(new, "SELECT 'it does' FROM pg_stat_replication WHERE state = 'streaming'").await
        })
        .await;
        self.postgres.script(new, "pair", &[]).await;
        self.postgres.followed(new).await;
        println!("{}", self.postgres.script(new, "status", &[]).await);
    }
}

/// The port of the server that a process finds which has just started.
async fn port_of_a_new_process(url: &str) -> u16 {
    let options = DbOptions { url: url.to_owned(), max_connections: 1, acquire_timeout: Duration::from_secs(20) };
    let db = Db::open("token", &options, Metrics::new().unwrap()).unwrap();
    let port: i32 = sqlx::query_scalar("SELECT inet_server_port()").fetch_one(db.pool()).await.unwrap();
    u16::try_from(port).unwrap()
}

/// Every payment that was told is there once, in the place that was told; and everything agrees with everything.
async fn whole(load: &Load<'_>, closed: usize) {
    let node = load.node;
    let began = Instant::now();
    node.audited().await;
    let audited = began.elapsed();
    node.must(&["window", "close", "--currency", "USD", "--and-open", "--wait"]).await;
    let listed = node.transactions().await;
    {
        let told = load.told.lock().unwrap();
        assert_eq!(listed.len(), told.len());
        for (id, told) in told.iter() {
            let view = listed.get(id).unwrap_or_else(|| panic!("{told:?} was lost"));
            assert_eq!((&view.window_id, view.window_seq), (&told.window_id, told.window_seq), "{view:?}");
        }
    }
    let windows = node.windows().await;
    let settled: Vec<_> = windows.iter().filter(|window| window.state() == WindowState::Settled).collect();
    assert_eq!((settled.len(), windows.len()), (closed, closed + 1), "{windows:?}");
    let mut places: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for view in listed.values() {
        assert!(places.entry(&view.window_id).or_default().insert(view.window_seq), "a place taken twice: {view:?}");
    }
    for window in settled {
        let dense: BTreeSet<u64> = (1..=window.count).collect();
        assert_eq!(places.remove(window.window_id.as_str()).unwrap_or_default(), dense, "{window:?}");
    }
    assert!(places.is_empty(), "payments of no window: {places:?}");
    // The broker copies a stream that was made anew again after a while of its own.
    within(PATIENCE, "AUDIT to go on", async || (node.run(&["audit", "verify"]).await.code == 0).then_some(())).await;
    node.verify().await;
    let summary = node.must(&["audit", "reconcile"]).await;
    assert_eq!((summary["ok"].as_bool(), summary["differences"].as_u64()), (Some(true), Some(0)), "{summary:#}");
    node.must(&["topology", "check", "--profile", "production"]).await;
    println!(
        "    all {} payments are there once, in {closed} settled windows; ledger, audit ledger and streams agree; the audit ledger was \
         complete {:.0} s after the load",
        listed.len(),
        audited.as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_at_a_time_fails_under_load() {
    let minutes: Option<u64> = std::env::var("DELTRAN_CHAOS_MINUTES").ok().map(|text| text.parse().unwrap());
    let long = minutes.is_some();
    let (brokers, postgres) = tokio::join!(Brokers::start(), PostgresPair::start());
    let nats = Broker::connect(&brokers.urls(), "test").await.unwrap();
    within(PATIENCE, "a connection", async || nats.is_connected().then_some(())).await;
    let mut servers = Servers { brokers, postgres, primary: 0, nats, long };

    let urls = servers.brokers.urls();
    let applied = run(|command| {
        command.args(["topology", "apply", "--profile", "production"]).env("DELTRAN_NATS_URL", &urls);
    })
    .await;
    assert_eq!(applied.code, 0, "{}{}", applied.error, applied.out);
    let mut node = Deltran::serve(PRODUCTION, &urls, &servers.postgres.url()).await;
    for stream in ["TRANSACTIONS", "AUDIT", "DEADLETTERS"] {
        assert_eq!(replicas(&servers.nats, stream).await, 3, "{stream}");
    }
    node.banks(&[(BANKS[0], "1000000.00", "500000.00"), (BANKS[1], "1000000.00", "500000.00")]).await;
    // With these, what counts against limits must be current, or nothing passes.
    for (payer, payee) in [(BANKS[0], BANKS[1]), (BANKS[1], BANKS[0])] {
        let limit = id(&format!("limit of {payer}")).to_string();
        let between = ["--participant", payer, "--counterparty", payee, "--amount", "400000.00", "--currency", "USD"];
        let propose = ["limit", "propose", "--kind", "bilateral", "--reason", "test", "--id", &limit];
        node.must(&[propose.as_slice(), between.as_slice()].concat()).await;
        node.must(&["limit", "approve", &limit]).await;
    }
    node.open_window(id("window 0")).await;

    let load = Load::of(&node, BTreeMap::new());
    let end = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let faults = if long { LONG.as_slice() } else { SHORT.as_slice() };
    let mut closed = 0;
    loop {
        for fault in faults {
            *load.cost.lock().unwrap() = Cost::default();
            let (stop, before, began) = (CancellationToken::new(), load.count(), Instant::now());
            let striking = async {
                load.goes_on().await;
                servers.strike(*fault, &load).await;
                servers.counted().await;
                load.goes_on().await;
                stop.cancel();
            };
            tokio::join!(load.pay(0, &stop), load.pay(1, &stop), striking);
            let took = began.elapsed();
            let Cost { refusals, refused_for, answered_in } = std::mem::take(&mut *load.cost.lock().unwrap());
            println!(
                "{fault:?}: {refusals} answers were refusals; a payment was refused for at most {:.2} s, one that was not took at most \
                 {:.2} s; {} payments committed in {:.0} s",
                refused_for.as_secs_f64(),
                answered_in.as_secs_f64(),
                load.count() - before,
                took.as_secs_f64(),
            );
            if long {
                closed += 1;
                whole(&load, closed).await;
            }
        }
        if end.is_none_or(|end| Instant::now() >= end) {
            break;
        }
    }
    whole(&load, closed + 1).await;

    // A platform that is started anew takes the promoted standby for what it is: nothing is missing, nobody is waited for.
    let told = load.told.into_inner().unwrap();
    assert!(node.stop().is_some_and(|status| status.success()));
    node.start_again().await;
    let (load, stop) = (Load::of(&node, told), CancellationToken::new());
    let going_on = async {
        load.goes_on().await;
        stop.cancel();
    };
    tokio::join!(load.pay(0, &stop), load.pay(1, &stop), going_on);
    whole(&load, closed + 2).await;
}
