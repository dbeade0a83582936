//! Transactions whose beginning is given up.

use std::time::Duration;

use deltran_runtime::Db;
use deltran_runtime::db::DbOptions;
use deltran_runtime::metrics::Metrics;
use deltran_tests::{Backbone, Flow, Proxy, Way};

/// A caller that goes away between BEGIN and its answer leaves no connection behind in which the work of others is never
/// committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_beginning_is_given_up_is_ended() {
    let backbone = Backbone::start("token").await;
    let (proxy, url) = Proxy::before(backbone.postgres.url()).await;
    let options = DbOptions { url, max_connections: 1, acquire_timeout: Duration::from_secs(30) };
    let db = Db::open("token", &options, Metrics::new().unwrap()).unwrap();
    let other = backbone.postgres.pool().await;
    for n in 0..8_i64 {
        db.begin().await.unwrap().commit().await.unwrap();
        // A connection is tried before it is lent: the second answer is that to BEGIN.
        proxy.set(Way::Back, Flow::Late(Duration::from_millis(100)));
        let waited = Duration::from_millis(50 * n.unsigned_abs());
        // Whether it had begun or not: both are well.
        drop(tokio::time::timeout(waited, db.begin()).await);
        proxy.set(Way::Back, Flow::Open);
        let row = "INSERT INTO received_event (consumer, event_id, digest) VALUES ('begin', gen_random_uuid(), 'x')";
        sqlx::query(row).execute(db.pool()).await.unwrap();
        let rows = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM token.received_event");
        assert_eq!(rows.fetch_one(&other).await.unwrap(), n + 1, "what was written is there, after {waited:?}");
    }
}
