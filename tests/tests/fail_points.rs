//! Every consumer and every relay is broken off at each of the places where something may be lost or done twice: by an
//! error, by a panic, and by the end of the process. Afterwards everything was received once, and the books agree.

#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{PullConsumer, pull};
use deltran_api::clearing::v1::CloseWindowRequest;
use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::common::v1::Page;
use deltran_api::notification::v1::ListNotificationsRequest;
use deltran_api::notification::v1::notification_service_client::NotificationServiceClient;
use deltran_api::token::v1::submit_item::Result::Outcome;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{TransactionInstruction, TransactionOutcome};
use deltran_events::topology::{CONSUMERS, ConsumerSpec};
use deltran_events::{Domain, topology};
use deltran_kernel::{Clock, SystemClock};
use deltran_messaging::{Broker, points};
use deltran_tests::node::{PATIENCE, id, pay, submit_many};
use deltran_tests::tie_out::tie_out;
use deltran_tests::{As, Fleet, within};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

const BANKS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
const AT: &str = "token";
/// Payments of each bank in a round.
const PAYMENTS: usize = 5;
const SCHEDULE: &str = "[[clearing.schedules]]\nname = \"manual\"\nmode = \"manual\"\ncurrencies = [\"USD\"]\n";
const CONSUMER_PLACES: [&str; 4] = ["before_commit", "after_commit", "before_ack", "after_ack"];
const RELAY_PLACES: [&str; 3] = ["before_commit", "after_commit", "after_publish"];
/// What is valid for nobody.
const NO_EVENT: &str = r#"{"not":"an event"}"#;

/// The points of all consumers and relays, those of one together.
fn all_points(engines: &[&str]) -> Vec<Vec<String>> {
    let consumers =
        CONSUMERS.iter().map(|spec| CONSUMER_PLACES.map(|place| format!("{}::{place}", spec.name)).to_vec());
    let relays = engines.iter().map(|engine| RELAY_PLACES.map(|place| format!("{engine}.relay::{place}")).to_vec());
    consumers.chain(relays).collect()
}

/// The points that a log names, by what they did. A panic writes its words to the same place piece by piece, so that a line
/// may begin behind some of them.
fn reached(log: &str) -> BTreeSet<(String, String)> {
    let lines = log.lines().filter(|line| line.contains("fail point"));
    let lines = lines.filter_map(|line| line.get(line.find("{\"timestamp\"")?..));
    let read = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    read.map(|line| (line["name"].as_str().unwrap().to_owned(), line["word"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_point_is_read_behind_the_words_of_a_panic() {
    let line = r#"{"timestamp":"2026-11-28T05:28:06Z","level":"WARN","message":"fail point","name":"a::after_ack","word":"panic"}"#;
    let found = BTreeSet::from([("a::after_ack".to_owned(), "panic".to_owned())]);
    for before in ["", "  ", "   3: tokio::runtime::", "fail point "] {
        assert_eq!(reached(&format!("x\n{before}{line}\ny\n")), found, "{before:?}");
    }
    assert!(reached("fail point\n{\"timestamp\":\"fail point\n").is_empty());
}

/// A platform, and what it was asked to do.
struct Day {
    fleet: Fleet,
    broker: Broker,
    /// What the points do, as the variable FAILPOINTS says it; those that did it are not set again.
    word: &'static str,
    points: BTreeSet<String>,
    rounds: usize,
    told: Vec<TransactionOutcome>,
    starts: usize,
}

impl Day {
    async fn begin() -> Self {
        let mut fleet = Fleet::prepare(SCHEDULE).await;
        fleet.start_together(AT).await;
        fleet.banks(AT, &BANKS.map(|bank| (bank, "1000000.00", "500000.00"))).await;
        let kinds = ["--kind", "payment.received,settlement.completed,limit.changed"];
        for bank in BANKS {
            fleet.must(AT, &[&["subscription", "add", "--participant", bank][..], &kinds[..]].concat()).await;
        }
        fleet.open_window(AT, window(0)).await;
        let broker = Broker::connect(&fleet.nats().url(), "test").await.unwrap();
        let (points, told) = (BTreeSet::new(), Vec::new());
        Self { fleet, broker, word: "", points, rounds: 0, told, starts: 0 }
    }

    /// The points that have done what they were set to, by what they did.
    fn done(&self) -> BTreeSet<(String, String)> {
        reached(&self.fleet.log_of(AT))
    }

    fn left(&self) -> BTreeSet<String> {
        let done = self.done();
        self.points.iter().filter(|point| !done.contains(&((*point).clone(), self.word.to_owned()))).cloned().collect()
    }

    /// Starts it anew with the points that are left.
    async fn start(&mut self) {
        let what: Vec<String> = self.left().iter().map(|point| format!("{point}=1*return({})", self.word)).collect();
        let environment = [("FAILPOINTS", what.join(";"))];
        self.starts += 1;
        // Where it ends on its way, it is started anew when it is needed.
        self.fleet.try_start_together(AT, &environment).await;
    }

    /// Sets points, and works until all of them have done it.
    async fn break_off(&mut self, word: &'static str, points: BTreeSet<String>) {
        let began = Instant::now();
        (self.word, self.points, self.starts) = (word, points, 0);
        self.fleet.kill(AT);
        self.start().await;
        let first = self.rounds;
        while !self.left().is_empty() {
            assert!(
                began.elapsed() < 4 * PATIENCE,
                "{word}: not reached in {} rounds: {:?}",
                self.rounds - first,
                self.left()
            );
            self.round().await;
        }
        println!(
            "{word}: {} points in {} rounds, {} starts of the process, {} s",
            self.points.len(),
            self.rounds - first,
            self.starts,
            began.elapsed().as_secs()
        );
    }

    /// Asks until there is an answer; starts the process wherever it has ended.
    async fn ask<T>(&mut self, what: &str, ask: impl AsyncFn(&Fleet) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.fleet.has_ended(AT) {
                self.start().await;
            }
            if let Ok(Some(answer)) = timeout(Duration::from_secs(5), ask(&self.fleet)).await {
                return answer;
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn command(&mut self, args: &[&str]) {
        // 3 is "try again", and so is a connection that the end of the process cut.
        let (code, error) = self
            .ask(&args.join(" "), async |fleet| {
                let ran = fleet.run(AT, args).await;
                let cut = ran.code != 0 && ran.error.contains("transport error");
                (ran.code != 3 && !cut).then_some((ran.code, ran.error))
            })
            .await;
        assert_eq!(code, 0, "{args:?}: {error}");
    }

    /// Something for every consumer and every relay.
    async fn round(&mut self) {
        let round = self.rounds;
        self.rounds += 1;
        for from in 0..BANKS.len() {
            let message: Vec<TransactionInstruction> = (0..PAYMENTS)
                .map(|n| pay(&format!("{from} {round} {n}"), BANKS[from], BANKS[1 - from], "1.25"))
                .collect();
            let outcomes = self
                .ask("payments to be decided", async |fleet| {
                    let mut bank = TokenServiceClient::new(fleet.to(AT, As::bank(BANKS[from])));
                    let items = submit_many(&mut bank, message.clone()).await.ok()?;
                    let outcomes = items.into_iter().map(|item| match item.result? {
                        Outcome(outcome) => Some(outcome),
                        _ => None,
                    });
                    outcomes.collect::<Option<Vec<_>>>()
                })
                .await;
            self.told.extend(outcomes);
        }
        self.close(round, true).await;
        let (limit, hold) = (id(&format!("limit {round}")).to_string(), id(&format!("hold {round}")).to_string());
        let of =
            ["limit", "propose", "--kind", "single-transaction-maximum", "--amount", "1000.00", "--currency", "USD"];
        self.command(&[&of[..], &["--reason", "review", "--id", &limit]].concat()).await;
        let most = (100 + round).to_string();
        let rule =
            ["rule", "set", "burst", "--kind", "velocity", "--window", "5m", "--scope", "pair", "--mode", "shadow"];
        self.command(&[&rule[..], &["--max-count", &most]].concat()).await;
        self.command(&["report", "create", "trial-balance"]).await;
        self.command(&["audit", "hold", "place", "--participant", BANKS[0], "--reason", "case", "--id", &hold]).await;
        self.command(&["audit", "hold", "release", &hold, "--reason", "closed"]).await;
        // One that is no event becomes a dead letter, and one that is terminated an advisory.
        let jetstream = self.broker.jetstream();
        jetstream.publish("events.notifications.x.y", NO_EVENT.into()).await.unwrap().await.unwrap();
        self.terminate(round).await;
        self.deliver_again().await;
    }

    async fn close(&mut self, number: usize, next: bool) {
        let next_window_id = if next { window(number + 1) } else { String::new() };
        let request = CloseWindowRequest { window_id: window(number), next_window_id };
        self.ask("the window to be closed", async |fleet| {
            let mut clearing = ClearingServiceClient::new(fleet.to(AT, As::role("operator", "ada")));
            match clearing.close_window(request.clone()).await {
                Ok(_) => Some(()),
                Err(status) => (status.code() == tonic::Code::FailedPrecondition).then_some(()),
            }
        })
        .await;
    }

    /// A consumer of the test's own gives a message up, which the broker tells.
    async fn terminate(&self, round: usize) {
        let stream = self.broker.jetstream().get_stream("CLEARING").await.unwrap();
        let config = pull::Config { name: Some(format!("test-{round}")), ..pull::Config::default() };
        let consumer: PullConsumer = stream.create_consumer(config).await.unwrap();
        let mut taken = consumer.fetch().max_messages(1).messages().await.unwrap();
        taken.next().await.unwrap().unwrap().ack_with(AckKind::Term).await.unwrap();
    }

    /// The broker waits before it delivers again what was not acknowledged; asked, it does so at once.
    async fn deliver_again(&self) {
        for spec in CONSUMERS.iter().filter(|spec| !spec.strict) {
            let info = self.info(spec).await;
            if info["num_ack_pending"] != 0 {
                self.api(format!("CONSUMER.RESET.{}.{}", spec.stream, spec.name)).await;
            }
        }
    }

    async fn info(&self, spec: &ConsumerSpec) -> Value {
        self.api(format!("CONSUMER.INFO.{}.{}", spec.stream, spec.name)).await
    }

    async fn api(&self, subject: String) -> Value {
        deltran_tests::api(&self.broker, &subject, &json!({})).await
    }

    /// Waits until every consumer has acknowledged everything.
    async fn at_rest(&self) {
        self.fleet.audited().await;
        for spec in CONSUMERS {
            within(PATIENCE, &format!("{} to be at rest", spec.name), async || {
                let info = self.info(spec).await;
                (info["num_pending"] == 0 && info["num_ack_pending"] == 0).then_some(())
            })
            .await;
        }
    }

    /// What consumers have received of producers, and how far these have come.
    async fn nothing_is_missing(&self) {
        let pool = self.fleet.postgres().pool().await;
        let mut assigned: BTreeMap<&str, (String, i64)> = BTreeMap::new();
        for domain in Domain::ALL {
            let engine =
                self.fleet.engines().into_iter().find(|engine| Domain::of_engine(engine) == Some(domain)).unwrap();
            let (epoch, last): (i64, i64) =
                sqlx::query_as(sqlx::AssertSqlSafe(format!("SELECT epoch, assigned FROM {engine}.outbox_counter")))
                    .fetch_one(&pool)
                    .await
                    .unwrap();
            assigned.insert(domain.stream(), (format!("{}/{epoch}", domain.source()), last));
        }
        let mut compared = 0;
        for spec in CONSUMERS {
            let from: Vec<&(String, i64)> = match spec.stream {
                "AUDIT" => assigned.values().collect(),
                stream => assigned.get(stream).into_iter().collect(),
            };
            for (producer, last) in from {
                let ranges: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                    "SELECT ranges FROM {}.received WHERE consumer = $1 AND producer = $2",
                    spec.engine
                )))
                .bind(spec.name)
                .bind(producer)
                .fetch_one(&pool)
                .await
                .unwrap_or_else(|e| panic!("{} of {producer}: {e}", spec.name));
                // Meanwhile there may be more.
                let whole = ranges.len() == 2 && ranges[0] == 1 && ranges[1] >= *last;
                assert!(whole, "{} of {producer}, which has come to {last}: {ranges:?}", spec.name);
                compared += 1;
            }
        }
        let letters: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM audit.dead_letter WHERE consumer = 'notification-engine-consumer'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(letters, self.rounds as i64, "each message that is no event, once");
        println!("{compared} times a consumer has received everything of a producer, once; {letters} dead letters");
    }

    /// Each bank was told of each payment that it received, once.
    async fn banks_were_told_once(&self) {
        for bank in BANKS {
            let mut feed = NotificationServiceClient::new(self.fleet.to(AT, As::bank(bank)));
            let (mut told, mut token) = (Vec::new(), String::new());
            loop {
                let page = Some(Page { size: 1000, token });
                let request =
                    ListNotificationsRequest { page, participant: bank.into(), kinds: vec!["payment.received".into()] };
                let answer = feed.list_notifications(request).await.unwrap().into_inner();
                told.extend(answer.notifications);
                token = answer.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            let of = |body: &str| -> String {
                let body: Value = serde_json::from_str(body).unwrap();
                body["data"]["transaction_id"].as_str().unwrap().to_owned()
            };
            let ids: BTreeSet<String> = told.iter().map(|notification| of(&notification.body)).collect();
            assert_eq!((told.len(), ids.len()), (self.rounds * PAYMENTS, self.rounds * PAYMENTS), "{bank}");
        }
    }
}

fn window(number: usize) -> String {
    id(&format!("window {number}")).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_off_where_nothing_is_lost_and_nothing_done_twice() {
    let places: BTreeSet<&str> = CONSUMER_PLACES.into_iter().chain(RELAY_PLACES).collect();
    assert_eq!(places, BTreeSet::from(points::PLACES), "every place is exercised");
    assert!(CONSUMERS.iter().all(|spec| topology::stream(spec.stream).is_some()));
    let mut day = Day::begin().await;
    let all = all_points(&day.fleet.engines());
    let every: BTreeSet<String> = all.iter().flatten().cloned().collect();
    day.break_off("error", every.clone()).await;
    day.break_off("panic", every).await;
    // Each end of the process costs a start: one place of each consumer and relay, and all places among them.
    let some: BTreeSet<String> = all.iter().enumerate().map(|(n, own)| own[n % own.len()].clone()).collect();
    let taken: BTreeSet<&str> = some.iter().filter_map(|point| point.rsplit("::").next()).collect();
    assert_eq!(taken, places);
    day.break_off("abort", some).await;

    day.fleet.kill(AT);
    day.fleet.start_together(AT).await;
    let rounds = day.rounds;
    day.close(rounds, false).await;
    day.deliver_again().await;
    day.fleet.adds_up(AT, &day.told, rounds + 1).await;
    day.at_rest().await;
    day.nothing_is_missing().await;
    day.banks_were_told_once().await;
    let tied = tie_out(&day.fleet.channel(AT), SystemClock.now()).await;
    println!("{} payments, {tied:?}", day.told.len());
}
