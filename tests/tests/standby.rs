//! Two processes of everything on one broker and one database, one active and one standing by: the active one is
//! killed, and stopped in the middle of a transaction, with payments on their way and windows settling. The other takes
//! over, what was told stays, and the one that was stopped writes nothing when it wakes. And two processes that hold
//! leases of one platform apart.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{SubmitTransactionRequest, TransactionInstruction, TransactionOutcome, TransactionState};
use deltran_tests::node::{Connection, PATIENCE, decided, detail, id, pay, submit_many};
use deltran_tests::{As, Fleet, within};
use sqlx::postgres::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt;

const BANKS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
/// The addresses of the two processes.
const PLACES: [&str; 2] = ["token", "risk"];
/// Payments of one message.
const MESSAGE: usize = 20;
/// Messages that are decided between two events.
const BETWEEN: usize = 25;
/// A client that hears nothing for so long asks at the other address.
const SILENT: Duration = Duration::from_millis(700);
/// Before it asks again.
const PAUSE: Duration = Duration::from_millis(30);
const SCHEDULE: &str = "[[clearing.schedules]]\nname = \"manual\"\nmode = \"manual\"\ncurrencies = [\"USD\"]\n";

/// What clients were told: every outcome, and when each message was decided.
#[derive(Debug, Default)]
struct Told {
    outcomes: Vec<TransactionOutcome>,
    at: Vec<Instant>,
}

/// Two processes of everything, and a look into their database.
struct Pair {
    fleet: Fleet,
    pool: PgPool,
}

/// Clients that pay until they are stopped.
struct Load {
    told: Arc<watch::Sender<Told>>,
    stop: CancellationToken,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(fleet: &Fleet) -> Self {
        let (told, stop) = (Arc::new(watch::Sender::new(Told::default())), CancellationToken::new());
        let client = |from: usize| {
            let banks = PLACES.map(|place| TokenServiceClient::new(fleet.to(place, As::bank(BANKS[from]))));
            tokio::spawn(pays(banks, from, stop.clone(), told.clone()))
        };
        let clients = (0..BANKS.len()).map(client).collect();
        Self { told, stop, clients }
    }

    /// Waits until so many more messages are decided.
    async fn goes_on(&self, messages: usize) {
        let mut seen = self.told.subscribe();
        let from = seen.borrow().at.len();
        let more = timeout(PATIENCE, seen.wait_for(|told| told.at.len() >= from + messages));
        assert!(matches!(more.await, Ok(Ok(_))), "no payments are decided");
    }

    /// The longest time without a decision that ended after `from`.
    fn longest_pause(&self, from: Instant) -> Duration {
        let told = self.told.borrow();
        let pauses = told.at.windows(2).filter(|two| two[1] >= from).map(|two| two[1] - two[0]);
        pauses.max().unwrap_or_default()
    }

    async fn end(self) -> Vec<TransactionOutcome> {
        self.stop.cancel();
        for client in self.clients {
            client.await.unwrap();
        }
        self.told.send_replace(Told::default()).outcomes
    }
}

fn message(from: usize, number: usize) -> Vec<TransactionInstruction> {
    let (payer, payee) = (BANKS[from], BANKS[1 - from]);
    (0..MESSAGE).map(|n| pay(&format!("{payer} {number} {n}"), payer, payee, "1.25")).collect()
}

/// One message after another, each under the same ids until all of it is decided, at the other address wherever one
/// refuses or is silent.
async fn pays(
    mut banks: [TokenServiceClient<Connection>; 2],
    from: usize,
    stop: CancellationToken,
    told: Arc<watch::Sender<Told>>,
) {
    let mut place = 0;
    for number in 0.. {
        let deadline = Instant::now() + PATIENCE;
        let outcomes = loop {
            let answer = timeout(SILENT, submit_many(&mut banks[place], message(from, number))).await;
            if let Some(outcomes) = answer.ok().and_then(Result::ok).and_then(|items| decided(items).ok()) {
                break outcomes;
            }
            assert!(Instant::now() < deadline, "a message of {} is not decided", BANKS[from]);
            place = 1 - place;
            sleep(PAUSE).await;
        };
        for outcome in &outcomes {
            assert_eq!(outcome.state(), TransactionState::Committed, "{outcome:?}");
        }
        told.send_modify(|told| {
            told.outcomes.extend(outcomes);
            told.at.push(Instant::now());
        });
        if stop.is_cancelled() {
            return;
        }
    }
}

fn window(number: usize) -> String {
    id(&format!("window {number}")).to_string()
}

/// Every statement that writes in a schema of an engine leaves a row: where, whose process, whether that process held a
/// lease of the schema, and of the ledger the epoch of the batch. Rolled back, it leaves none.
const NOTES: &str = "
CREATE SCHEMA seen;
CREATE TABLE seen.written (
    id bigserial PRIMARY KEY, place text NOT NULL, process integer, held boolean NOT NULL, epoch bigint
);
CREATE FUNCTION seen.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    who integer := nullif(split_part(current_setting('application_name'), '/', 2), '')::integer;
    held boolean;
    last bigint;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.lease WHERE holder LIKE $1)', TG_TABLE_SCHEMA)
        INTO held USING '%-' || coalesce(who, 0) || '-%';
    IF TG_TABLE_NAME = 'writer_state' THEN SELECT epoch INTO last FROM token.writer_state; END IF;
    INSERT INTO seen.written (place, process, held, epoch)
        VALUES (TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, who, held, last);
    RETURN NULL;
END $$;
DO $$
DECLARE t record;
BEGIN
    FOR t IN SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname NOT IN ('lease', '_sqlx_migrations')
            AND EXISTS (SELECT FROM pg_class l WHERE l.relnamespace = n.oid AND l.relname = 'lease')
    LOOP
        EXECUTE format('CREATE TRIGGER seen AFTER INSERT OR UPDATE OR DELETE ON %I.%I
            FOR EACH STATEMENT EXECUTE FUNCTION seen.note()', t.nspname, t.relname);
    END LOOP;
END $$;";

impl Pair {
    /// Both run, banks are there and the first window is open; the process at the first address came first.
    async fn start(toml: &str) -> Self {
        let mut fleet = Fleet::prepare(&format!("{toml}\n{SCHEDULE}")).await;
        fleet.start_together(PLACES[0]).await;
        fleet.banks(PLACES[0], &BANKS.map(|bank| (bank, "1000000.00", "500000.00"))).await;
        fleet.open_window(PLACES[0], window(0)).await;
        fleet.start_together(PLACES[1]).await;
        let pool = fleet.postgres().pool().await;
        Self { fleet, pool }
    }

    /// Who holds each lease of each engine, as the id of its process.
    async fn leases(&self) -> BTreeMap<String, i32> {
        let mut all = BTreeMap::new();
        for engine in self.fleet.engines() {
            let rows: Vec<(String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
                "SELECT name, holder FROM {engine}.lease WHERE expires_at >= clock_timestamp()"
            )))
            .fetch_all(&self.pool)
            .await
            .unwrap();
            // Host, process and a random part.
            let process = |holder: &str| holder.rsplit('-').nth(1).and_then(|id| id.parse().ok()).unwrap();
            all.extend(rows.into_iter().map(|(name, holder)| (format!("{engine}.{name}"), process(&holder))));
        }
        all
    }

    /// The address whose process writes the ledger.
    async fn active(&self) -> usize {
        within(PATIENCE, "a writer", async || {
            let holder = *self.leases().await.get("token.writer")?;
            (0..2).find(|place| self.fleet.is_running(PLACES[*place]) && self.fleet.pid(PLACES[*place]) == holder)
        })
        .await
    }

    /// Stops a process while it has a transaction of the ledger's writer open; how many of its connections have one
    /// under a lease.
    async fn freeze_in_a_transaction(&self, place: usize) -> usize {
        let process = self.fleet.pid(PLACES[place]);
        within(PATIENCE, "a transaction to be stopped in", async || {
            self.fleet.freeze(PLACES[place]);
            let open = within(PATIENCE, "what runs to end", async || {
                let rows: Vec<(String, bool, bool)> = sqlx::query_as(
                    "SELECT a.application_name, a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Client',
                         EXISTS (SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                             WHERE l.pid = a.pid AND c.relname = 'lease' AND l.mode = 'RowShareLock')
                     FROM pg_stat_activity a WHERE a.datname = current_database() AND a.application_name LIKE $1",
                )
                .bind(format!("deltran-%/{process}"))
                .fetch_all(&self.pool)
                .await
                .unwrap();
                let busy = rows.iter().any(|(_, busy, _)| *busy);
                let open: Vec<String> = rows.into_iter().filter(|(_, _, open)| *open).map(|(name, ..)| name).collect();
                (!busy).then_some(open)
            })
            .await;
            if open.iter().any(|name| name.starts_with("deltran-token/")) {
                return Some(open.len());
            }
            self.fleet.thaw(PLACES[place]);
            None
        })
        .await
    }

    /// Closes a window and opens the next, at a process that serves.
    async fn close(&self, place: usize, number: usize, next: bool) {
        self.fleet.close_window(PLACES[place], window(number), next.then(|| window(number + 1))).await;
    }

    /// The number of the last statement that wrote.
    async fn written(&self) -> i64 {
        sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM seen.written").fetch_one(&self.pool).await.unwrap()
    }

    /// The process at this address refuses a payment and names the one that decides it.
    async fn stands_by(&self, place: usize) {
        let mut bank = TokenServiceClient::new(self.fleet.to(PLACES[place], As::bank(BANKS[0])));
        let other = self.fleet.address(PLACES[1 - place]);
        let transaction = Some(pay("on stand-by", BANKS[0], BANKS[1], "1.25"));
        within(PATIENCE, "a refusal that names the leader", async || {
            let request = SubmitTransactionRequest { transaction: transaction.clone() };
            let status = bank.submit_transaction(request).await.err()?;
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
            (detail(&status, "leader") == other).then(|| assert!(after.is_some_and(|delay| !delay.is_zero())))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_stands_by_takes_over_and_the_one_that_was_stopped_writes_nothing() {
    let mut pair = Pair::start("").await;
    sqlx::raw_sql(NOTES).execute(&pair.pool).await.unwrap();
    let load = Load::start(&pair.fleet);
    let mut stopped = 0;
    for (round, what) in ["killed", "stopped", "killed", "stopped"].into_iter().enumerate() {
        load.goes_on(BETWEEN).await;
        let active = pair.active().await;
        let other = 1 - active;
        pair.stands_by(other).await;
        let (old, new) = (pair.fleet.pid(PLACES[active]), pair.fleet.pid(PLACES[other]));
        // It settles while one takes over from the other.
        pair.close(active, round, true).await;
        let (at, open) = if what == "killed" {
            pair.fleet.kill(PLACES[active]);
            (Instant::now(), None)
        } else {
            let open = pair.freeze_in_a_transaction(active).await;
            (Instant::now(), Some(open))
        };
        within(PATIENCE, "every lease to be taken over", async || {
            let leases = pair.leases().await;
            leases.values().all(|process| *process == new).then_some(())
        })
        .await;
        let moved = at.elapsed();
        load.goes_on(BETWEEN).await;
        let pause = load.longest_pause(at);
        let open = open.map(|n| format!(", {n} transactions open under leases")).unwrap_or_default();
        println!(
            "{what}{open}: payments go on after {} ms, the last lease is taken over after {} ms",
            pause.as_millis(),
            moved.as_millis()
        );
        if what == "killed" {
            pair.fleet.start_together(PLACES[active]).await;
        } else {
            let before = pair.written().await;
            pair.fleet.thaw(PLACES[active]);
            pair.stands_by(active).await;
            load.goes_on(BETWEEN).await;
            let wrote: Vec<(String, i64)> = sqlx::query_as(
                // A checkpoint of a size is the same whoever signs it, and kept once.
                "SELECT place, count(*) FROM seen.written
                 WHERE process = $1 AND id > $2 AND NOT held AND place <> 'audit.checkpoint' GROUP BY place",
            )
            .bind(old)
            .bind(before)
            .fetch_all(&pair.pool)
            .await
            .unwrap();
            assert!(wrote.is_empty(), "the one that was stopped wrote {wrote:?}");
            stopped += pair.fleet.log_of(PLACES[active]).matches("lease lost to another process").count();
            println!("  woken, it stands by; {stopped} of its leases, so far, are noted as lost in its log");
        }
    }
    let told = load.end().await;
    assert!(stopped > 0, "one that was stopped found its leases taken");
    let active = pair.active().await;
    pair.close(active, 4, false).await;
    pair.fleet.adds_up(PLACES[active], &told, 5).await;

    // Whoever writes later has a higher epoch: nothing of an earlier one comes after it.
    let epochs: Vec<i64> = sqlx::query_scalar("SELECT epoch FROM seen.written WHERE epoch IS NOT NULL ORDER BY id")
        .fetch_all(&pair.pool)
        .await
        .unwrap();
    assert!(epochs.is_sorted(), "{epochs:?}");
    let terms: BTreeSet<i64> = epochs.iter().copied().collect();
    assert!(terms.len() > 4, "{terms:?}");
    println!("{} payments told and there, {} batches in {} terms of the writer", told.len(), epochs.len(), terms.len());
}

/// The ledger's writer in one process and all else in the other: leases do not move together, and calls find the one
/// that leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_one_platform_may_be_held_apart() {
    // Few events may wait for the broker, and the relay is in the other process.
    let mut pair = Pair::start("[messaging]\nmax_outbox_backlog = 500").await;
    let (first, second) = (pair.fleet.pid(PLACES[0]), pair.fleet.pid(PLACES[1]));
    within(PATIENCE, "the writer's lease to move", async || {
        sqlx::query("UPDATE token.lease SET expires_at = '-infinity' WHERE name = 'writer' AND holder NOT LIKE $1")
            .bind(format!("%-{second}-%"))
            .execute(&pair.pool)
            .await
            .unwrap();
        (pair.leases().await.get("token.writer") == Some(&second)).then_some(())
    })
    .await;
    pair.stands_by(0).await;
    let load = Load::start(&pair.fleet);
    load.goes_on(2 * BETWEEN).await;

    // Orders are taken at either; their drivers are in the first process, and ask the ledger in the second.
    pair.close(0, 0, true).await;
    load.goes_on(BETWEEN).await;
    let limit = id("limit").to_string();
    let of = ["limit", "propose", "--kind", "net-debit-cap", "--participant", BANKS[0], "--id", &limit];
    let words = ["--amount", "400000.00", "--currency", "USD", "--reason", "review"];
    pair.fleet.must(PLACES[0], &[&of[..], &words[..]].concat()).await;
    pair.fleet.must(PLACES[1], &["limit", "approve", &limit]).await;
    within(PATIENCE, "the limit to be in force", async || {
        let listed = pair.fleet.must(PLACES[0], &["limit", "list", "--state", "ACTIVE"]).await;
        listed["limits"].as_array()?.iter().any(|l| l["limit_id"] == limit.as_str()).then_some(())
    })
    .await;
    pair.fleet.settled_one(PLACES[1], &window(0)).await;
    let leases = pair.leases().await;
    let apart: BTreeSet<i32> = leases.values().copied().collect();
    assert_eq!(apart, BTreeSet::from([first, second]), "{leases:?}");
    assert_eq!(leases.iter().filter(|(_, process)| **process == second).count(), 1, "{leases:?}");

    pair.fleet.kill(PLACES[0]);
    let at = Instant::now();
    within(PATIENCE, "every lease to be taken over", async || {
        pair.leases().await.values().all(|process| *process == second).then_some(())
    })
    .await;
    println!(
        "killed with all leases but the writer's: the last one is taken over after {} ms",
        at.elapsed().as_millis()
    );
    load.goes_on(BETWEEN).await;
    let told = load.end().await;
    pair.close(1, 1, false).await;
    pair.fleet.adds_up(PLACES[1], &told, 2).await;
}
