//! Workers: two keep the gate's memory current, two are singletons by lease that bring limits into force and
//! watch over breakers and alarms.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use deltran_api::platform::v1::GetStatusRequest;
use deltran_api::platform::v1::platform_service_client::PlatformServiceClient;
use deltran_api::token::v1::SetLimitRequest;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_runtime::lease::{Epoch, Pace, RoundError};
use deltran_runtime::{DbError, EngineContext, Failure, wire};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::limit::{Ledger, Limit, Value};
use crate::handle::{Desk, is_definite};
use crate::store;
use crate::watch::Watch;

const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Looks for approvals that another process wrote, and for limits whose time has come.
const LIMITS: Pace =
    Pace { every: Duration::from_millis(500), longest: Duration::from_secs(5), alert: "risk_limits_wait" };
const WATCH: Pace = Pace { every: Duration::from_secs(1), longest: Duration::from_secs(5), alert: "risk_watch_stands" };
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps the memory of the gate current until shutdown.
pub async fn keep_gate(context: EngineContext, desk: Arc<Desk>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(COMPARE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = desk.gate.behind.notified() => {}
            () = stop.cancelled() => return,
        }
        match desk.gate.reload().await {
            Ok(()) => context.health.ready(crate::GATE),
            Err(error) => context.health.not_ready(crate::GATE, error.to_string()),
        }
        context.metrics.alert("risk_rules_stale", desk.gate.current().is_err());
        let needed = !desk.gate.counted_scopes().is_empty();
        context.metrics.alert("risk_positions_stale", needed && desk.gate.is_known().is_err());
        context.metrics.queue_depth.with_label_values(&["risk_under_way"]).set(desk.gate.under_way() as i64);
    }
}

/// Asks the ledger for the number of its last event until shutdown, so that it is known when everything up
/// to that moment is counted.
pub async fn keep_marks(context: EngineContext, desk: Arc<Desk>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(COMPARE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let asked = Instant::now();
        match last_event(&context).await {
            Ok((producer, number)) => desk.gate.mark(asked, producer, number),
            // How far behind this leaves counted data is told by the gate.
            Err(failure) => tracing::debug!(error = %failure, "the ledger does not tell its last event"),
        }
    }
}

async fn last_event(context: &EngineContext) -> Result<(String, u64), Failure> {
    let mut client = PlatformServiceClient::new(context.peers.to(crate::NAME, "token")?);
    let answer = tokio::time::timeout(CALL_TIMEOUT, client.get_status(GetStatusRequest {})).await;
    let status = answer.map_err(|_| Failure::unavailable("the token engine does not answer in time"))??.into_inner();
    let token = status.engines.into_iter().find(|engine| engine.engine == "token");
    let token = token.ok_or_else(|| Failure::unavailable("peers.token is no token engine"))?;
    Ok((token.producer, token.assigned))
}

/// Brings approved limits into force while this process holds the lease: caps at the ledger, others here.
pub async fn drive_limits(context: EngineContext, desk: Arc<Desk>, stop: CancellationToken) {
    let wake = desk.approved.clone();
    let lease = context.lease("limits");
    lease
        .rounds(stop, LIMITS, wake, move |epoch| {
            let driver = Driver { context: context.clone(), desk: desk.clone(), epoch };
            async move { driver.round().await }
        })
        .await;
}

/// Watches over breakers, alarms and snapshots while this process holds the lease.
pub async fn keep_watch(context: EngineContext, desk: Arc<Desk>, stop: CancellationToken) {
    let watch = Arc::new(Watch::new(desk.clone()));
    let lease = context.lease("watch");
    lease
        .rounds(stop, WATCH, Arc::default(), move |epoch| {
            let (watch, desk) = (watch.clone(), desk.clone());
            async move { Ok(watch.round(Some(&epoch), desk.clock.now(), desk.gate.behind_for()).await?) }
        })
        .await;
}

struct Driver {
    context: EngineContext,
    desk: Arc<Desk>,
    epoch: Epoch,
}

impl Driver {
    async fn begin(&self, name: &'static str) -> Result<deltran_messaging::DoorTx, DbError> {
        let mut tx = self.desk.door.begin(name).await?;
        self.epoch.check(&mut tx).await?;
        Ok(tx)
    }

    /// One round over all approved limits whose time has come. A later cap of a participant and currency never
    /// overtakes an earlier one (R5).
    async fn round(&self) -> Result<(), RoundError> {
        let at = self.desk.clock.now();
        self.desk.activate(self.begin("limits_due").await?, at).await?;
        let mut waiting = BTreeSet::new();
        let mut unknown = None;
        for limit in store::caps_on_their_way(self.desk.door.db(), at).await? {
            let key = limit.proposal.key();
            if waiting.contains(&key) {
                continue;
            }
            match self.ask(&limit).await {
                Ok(ledger) => {
                    let tx = self.begin("limit_answered").await?;
                    self.desk.ledger_answered(tx, &limit, &ledger).await?;
                }
                Err(failure) => {
                    waiting.insert(key);
                    unknown = Some(failure);
                }
            }
        }
        match unknown {
            Some(failure) => Err(RoundError::Later(format!("the ledger's answer is not known: {failure}"))),
            None => Ok(()),
        }
    }

    /// Asks the ledger to enforce a cap. Asking again under the limit's id is harmless.
    async fn ask(&self, limit: &Limit) -> Result<Ledger, Failure> {
        let Value::Amount(cap) = limit.proposal.value else {
            return Ok(Ledger::Refused("a net debit cap is an amount".to_owned()));
        };
        let mut client = TokenServiceClient::new(self.context.peers.to(crate::NAME, "token")?);
        let request = SetLimitRequest {
            command_id: limit.proposal.limit_id.to_string(),
            participant: limit.proposal.participant.map(|p| p.to_string()).unwrap_or_default(),
            net_debit_cap: Some(wire::to_money(cap)),
        };
        match tokio::time::timeout(CALL_TIMEOUT, client.set_limit(request)).await {
            Ok(Ok(_)) => Ok(Ledger::Taken),
            Ok(Err(status)) => {
                let failure = Failure::from(status);
                if is_definite(failure.kind) { Ok(Ledger::Refused(failure.message)) } else { Err(failure) }
            }
            Err(_) => Err(Failure::unavailable("the token engine does not answer in time")),
        }
    }
}
