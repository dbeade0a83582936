//! Two engines on streams that can be broken, and what a person would ask them.

use std::sync::Arc;
use std::time::Duration;

use deltran_api::audit::v1::audit_service_client::AuditServiceClient;
use deltran_api::audit::v1::reconcile_response::Part;
use deltran_api::audit::v1::{
    Difference, ListEventsRequest, ReconcileRequest, ReconcileSummary, VerifyReport, VerifyRequest,
};
use deltran_events::Domain;
use deltran_events::data::risk::LimitRejected;
use deltran_kernel::{Clock, CommandId, IdSource, SystemClock, SystemIds};
use deltran_messaging::{Door, Outbox, Outgoing};
use deltran_runtime::Db;
use deltran_runtime::db::DbOptions;
use deltran_runtime::metrics::Metrics;
use deltran_tests::{Stack, api, eventually};
use sqlx::PgPool;
use tonic::Code;

pub const STREAM: &str = "RISK";
pub const PRODUCER: &str = "risk-engine/1";
pub struct World {
    pub stack: Stack,
    pub door: Door,
    pub root: PgPool,
}

impl World {
    /// Engines of two producers on streams that let messages be deleted and forget ids at once, and `n` events.
    pub async fn with(n: usize, config: &str) -> Self {
        let stack = Stack::of(&["risk", "audit"]).config(config).loose_streams().start().await;
        let options = DbOptions {
            url: stack.postgres.url().to_owned(),
            max_connections: 2,
            acquire_timeout: Duration::from_secs(5),
        };
        let db = Db::open("risk", &options, Metrics::new().unwrap()).unwrap();
        let outbox = Outbox::new(Domain::Risk, Arc::new(SystemClock), Arc::new(SystemIds::new()));
        let root = stack.postgres.pool().await;
        let world = Self { stack, door: Door::new(db, outbox), root };
        world.write(n).await;
        world.standing().await;
        world
    }

    /// Writes events; the engine's relay publishes them.
    pub async fn write(&self, n: usize) {
        let ids = SystemIds::new();
        for _ in 0..n {
            let limit_id = CommandId::new(ids.next_id(SystemClock.now()));
            let event = LimitRejected { limit_id, rejected_by: "ada".into(), reason: "a test".into() };
            let outgoing = Outgoing::new(event, limit_id, "ada");
            self.door.begin("test").await.unwrap().commit(&[outgoing]).await.unwrap();
        }
    }

    /// Waits until everything that was written stands in the ledger and has left the outbox.
    pub async fn standing(&self) {
        eventually("everything in the ledger", async || {
            let (assigned, confirmed): (i64, i64) =
                sqlx::query_as("SELECT c.assigned, m.confirmed FROM risk.outbox_counter c, risk.outbox_mark m")
                    .fetch_one(&self.root)
                    .await
                    .unwrap();
            (assigned == confirmed).then_some(())
        })
        .await;
    }

    pub async fn reconcile(&self, repair: bool) -> (Vec<Difference>, ReconcileSummary) {
        let client = AuditServiceClient::new(self.stack.role("auditor", "eve"));
        let request = ReconcileRequest { repair, limit: 50 };
        // One at a time, and a stream that is made anew has its turn as well: whoever comes meanwhile is told to come again.
        let answers = eventually("a turn", async || match client.clone().reconcile(request).await {
            Err(refused) if refused.code() == Code::ResourceExhausted => None,
            answered => Some(answered.unwrap()),
        });
        let mut answers = answers.await.into_inner();
        let mut differences = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            match answer.part {
                Some(Part::Difference(difference)) => differences.push(difference),
                Some(Part::Summary(summary)) => return (differences, summary),
                _ => {}
            }
        }
        panic!("no summary");
    }

    /// Kind, place and number of each difference, in their order.
    pub async fn found(&self, repair: bool) -> (Vec<(String, String, u64, bool)>, ReconcileSummary) {
        let (differences, summary) = self.reconcile(repair).await;
        let rows = differences.into_iter().map(|d| (d.kind, d.place, d.producer_seq, d.repaired));
        (rows.collect(), summary)
    }

    pub async fn equal(&self) {
        let (differences, summary) = self.reconcile(false).await;
        assert!(summary.ok && differences.is_empty(), "{summary:?} {differences:?}");
    }

    pub async fn verify(&self) -> VerifyReport {
        let mut client = AuditServiceClient::new(self.stack.role("auditor", "eve"));
        let request = VerifyRequest { database_only: false };
        let mut answers = client.verify(request).await.unwrap().into_inner();
        let mut report = None;
        while let Some(answer) = answers.message().await.unwrap() {
            report = answer.report.or(report);
        }
        report.unwrap()
    }

    /// Whether rows, numbers and streams verify; the token ledger does not run here.
    pub async fn verifies(&self) -> Result<(), String> {
        let report = self.verify().await;
        let bad: Vec<_> = report.checks.iter().filter(|c| !c.ok && c.check != "ledger").collect();
        if bad.is_empty() { Ok(()) } else { Err(format!("{bad:?}")) }
    }

    pub async fn messages(&self, stream: &str) -> u64 {
        self.stack.broker.stream_info(stream).await.unwrap().unwrap().messages
    }

    /// Numbers of the producer that stand as leaves, as often as they stand.
    pub async fn leaves(&self) -> Vec<i64> {
        sqlx::query_scalar("SELECT producer_seq FROM audit.leaf WHERE producer = $1 ORDER BY leaf_index")
            .bind(PRODUCER)
            .fetch_all(&self.root)
            .await
            .unwrap()
    }

    pub async fn api(&self, subject: &str, body: serde_json::Value) -> serde_json::Value {
        api(&self.stack.broker, subject, &body).await
    }

    pub async fn events_of(&self, event_type: &str) -> usize {
        let mut client = AuditServiceClient::new(self.stack.role("auditor", "eve"));
        let request = ListEventsRequest { event_type: event_type.into(), ..Default::default() };
        client.list_events(request).await.unwrap().into_inner().events.len()
    }
}
