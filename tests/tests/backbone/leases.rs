//! Leases: one leads, and one that was frozen cannot write.

use std::sync::Arc;
use std::time::Duration;

use deltran_runtime::DbError;
use deltran_runtime::lease::{Epoch, LEASE_TIME, Leader};
use deltran_tests::{Backbone, Node, eventually};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Runs for the lease `test` and tells each epoch.
fn candidate(node: &Node) -> (JoinHandle<()>, mpsc::UnboundedReceiver<Epoch>) {
    candidate_for(node, "test")
}

fn candidate_for(node: &Node, name: &'static str) -> (JoinHandle<()>, mpsc::UnboundedReceiver<Epoch>) {
    let (tell, told) = mpsc::unbounded_channel();
    let lease = node.context.lease(name);
    let task = tokio::spawn(async move {
        let work = move |epoch, term: CancellationToken| {
            // Nobody listens any more at the end of a test.
            let _ = tell.send(epoch);
            async move { term.cancelled().await }
        };
        lease.run(CancellationToken::new(), work).await;
    });
    (task, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_holder_cannot_commit_after_a_take_over() {
    let backbone = Backbone::start("token").await;
    let (first, second) = (backbone.node("a").await, backbone.node("b").await);
    let (frozen, mut epochs) = candidate(&first);
    let old = epochs.recv().await.unwrap();
    let (_other, mut others) = candidate(&second);
    let mut tx = first.context.db.begin().await.unwrap();
    old.check(&mut tx).await.unwrap();
    tx.commit().await.unwrap();

    // It renews no more, as a process that was stopped.
    frozen.abort();
    let new = tokio::time::timeout(LEASE_TIME * 4, others.recv()).await.unwrap().unwrap();
    assert!(new.number() > old.number());
    let mut tx = first.context.db.begin().await.unwrap();
    assert!(matches!(old.check(&mut tx).await, Err(DbError::NotLeader)));
    drop(tx);
    let mut tx = second.context.db.begin().await.unwrap();
    new.check(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_longer_than_the_lease_does_not_lose_it_and_holds_a_take_over_up() {
    let backbone = Backbone::start("token").await;
    let (first, second) = (Arc::new(backbone.node("a").await), backbone.node("b").await);
    let (leader, mut epochs) = candidate(&first);
    let epoch = epochs.recv().await.unwrap();
    let (_other, mut others) = candidate(&second);
    let long = |seconds: f64| {
        let (node, epoch) = (first.clone(), epoch.clone());
        tokio::spawn(async move {
            let mut tx = node.context.db.begin().await.unwrap();
            epoch.check(&mut tx).await.unwrap();
            sqlx::query("SELECT pg_sleep($1)").bind(seconds).execute(&mut *tx).await.unwrap();
            tx.commit().await.map(|()| Instant::now())
        })
    };
    let busy = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    let pool = backbone.postgres.pool().await;
    let expires = async || -> f64 {
        let expires = "SELECT extract(epoch FROM expires_at)::float8 FROM token.lease WHERE name = 'test'";
        sqlx::query_scalar(expires).fetch_one(&pool).await.unwrap()
    };

    // Renewed all the while.
    let task = long(LEASE_TIME.as_secs_f64() + 1.0);
    eventually("the transaction", async || sqlx::query(busy).fetch_optional(&pool).await.unwrap()).await;
    let before = expires().await;
    eventually("a renewal", async || (expires().await > before).then_some(())).await;
    assert!(!task.is_finished(), "renewal waits for no transaction");
    task.await.unwrap().unwrap();
    assert!(others.try_recv().is_err(), "nobody took over");
    let mut tx = first.context.db.begin().await.unwrap();
    epoch.check(&mut tx).await.unwrap();
    tx.commit().await.unwrap();

    // Renewed no more: whoever takes over waits for the transaction.
    let last = long(LEASE_TIME.as_secs_f64() + 3.0);
    eventually("the transaction", async || sqlx::query(busy).fetch_optional(&pool).await.unwrap()).await;
    leader.abort();
    let new = tokio::time::timeout(LEASE_TIME * 5, others.recv()).await.unwrap().unwrap();
    let taken = Instant::now();
    let committed = tokio::time::timeout(Duration::from_secs(1), last).await.unwrap().unwrap().unwrap();
    assert!(taken >= committed || committed.duration_since(taken) < Duration::from_millis(200));
    assert!(new.number() > epoch.number());
}

/// Whatever a process was stopped in, its connections do not hold up the one that takes over, and nothing that they had
/// under way is there afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_stopped_inside_a_transaction_holds_no_take_over_up() {
    let backbone = Backbone::start("token").await;
    let (first, second) = (backbone.node("a").await, backbone.node("b").await);
    let (leader, mut epochs) = candidate(&first);
    let old = epochs.recv().await.unwrap();
    let (_other, mut others) = candidate(&second);
    // Postgres itself would end none of these.
    let open = async || {
        let mut tx = first.context.db.begin().await.unwrap();
        sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(&mut *tx).await.unwrap();
        old.check(&mut tx).await.unwrap();
        tx
    };
    let (mut idle, mut copying) = (open().await, open().await);
    let row = "INSERT INTO received_event (consumer, event_id, digest) VALUES ('idle', gen_random_uuid(), 'x')";
    sqlx::query(row).execute(&mut *idle).await.unwrap();
    let mut copy = copying.copy_in_raw("COPY received_event (consumer, event_id, digest) FROM STDIN").await.unwrap();
    copy.send("copying\t0190c3d5-0000-7000-8000-000000000001\t\\\\x00\n".as_bytes()).await.unwrap();

    leader.abort();
    let new = tokio::time::timeout(LEASE_TIME * 4, others.recv()).await.unwrap().unwrap();
    assert!(new.number() > old.number());
    assert!(matches!(old.current(), Err(DbError::NotLeader)), "nothing outside the database is done either");
    assert!(copy.finish().await.is_err(), "its connection was ended");
    assert!(idle.commit().await.is_err(), "its connection was ended");
    let pool = backbone.postgres.pool().await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM token.received_event").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0);
    let mut tx = second.context.db.begin().await.unwrap();
    new.check(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
}

/// Who does not lead knows who does, where it asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_stands_by_knows_where_the_leader_is() {
    let backbone = Backbone::start("token").await;
    let (first, second) = (backbone.node("a").await, backbone.node("b").await);
    let know = |node: &Node, address: &str| {
        let (told, knows) = watch::channel(Leader::Unknown);
        let mut lease = node.context.lease("test");
        (lease.address, lease.leader) = (address.to_owned(), Some(Arc::new(told)));
        let work = |_, term: CancellationToken| async move { term.cancelled().await };
        let task = tokio::spawn(async move { lease.run(CancellationToken::new(), work).await });
        (task, knows)
    };
    let (leader, mut here) = know(&first, "http://127.0.0.1:1");
    here.wait_for(|leader| *leader == Leader::Here).await.unwrap();
    let (_other, mut there) = know(&second, "http://127.0.0.1:2");
    there.wait_for(|leader| *leader == Leader::At("http://127.0.0.1:1".into())).await.unwrap();
    leader.abort();
    tokio::time::timeout(LEASE_TIME * 4, there.wait_for(|leader| *leader == Leader::Here)).await.unwrap().unwrap();
}

/// The database was away when the lease was to be taken; then it is there, and the part says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_could_not_take_its_lease_is_ready_once_it_has_taken_it() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    let pool = backbone.postgres.pool().await;
    sqlx::raw_sql("ALTER TABLE token.lease RENAME TO away").execute(&pool).await.unwrap();
    let (_leader, mut epochs) = candidate(&node);
    let problems = || node.context.health.problems();
    eventually("the reason", async || problems().contains_key("token.test").then_some(())).await;
    sqlx::raw_sql("ALTER TABLE token.away RENAME TO lease").execute(&pool).await.unwrap();
    epochs.recv().await.unwrap();
    assert!(problems().is_empty(), "{:?}", problems());
}

/// Those that are due together are renewed together, and one that was lost takes no other along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_an_engine_are_renewed_by_one_statement() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    let (_one, mut ones) = candidate_for(&node, "test");
    let (_other, mut others) = candidate_for(&node, "other");
    let epoch = ones.recv().await.unwrap();
    others.recv().await.unwrap();
    let pool = backbone.postgres.pool().await;
    let together = "SELECT count(DISTINCT xmin::text) = 1 FROM token.lease WHERE name IN ('test', 'other')";
    eventually("one statement for both", async || {
        sqlx::query_scalar::<_, bool>(together).fetch_one(&pool).await.unwrap().then_some(())
    })
    .await;

    let taken = "UPDATE token.lease SET epoch = epoch + 1, expires_at = 'infinity' WHERE name = 'other' RETURNING 1";
    sqlx::query(taken).fetch_one(&pool).await.unwrap();
    let held = |label| node.context.metrics.lease_held.with_label_values(&[label]).get();
    eventually("the loss", async || (held("token.other") == 0).then_some(())).await;
    assert_eq!(held("token.test"), 1);
    let renewed = "SELECT 1 FROM token.lease l, token.lease o WHERE l.name = 'test' AND o.name = 'other'
        AND l.expires_at > clock_timestamp() + interval '1 s' AND l.xmin::text::bigint > o.xmin::text::bigint";
    eventually("the next renewal", async || sqlx::query(renewed).fetch_optional(&pool).await.unwrap()).await;
    let mut tx = node.context.db.begin().await.unwrap();
    epoch.check(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
}
