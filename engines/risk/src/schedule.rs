//! Two workers: one keeps the limits and breakers in memory current, the other brings approved caps to
//! the ledger.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use deltran_api::token::v1::SetLimitRequest;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_runtime::lease::Epoch;
use deltran_runtime::{DbError, EngineContext, Failure, wire};
use tokio_util::sync::CancellationToken;

use crate::domain::limit::{Ledger, Limit};
use crate::handle::{Desk, is_definite};
use crate::store;

const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Looks for approvals that another process wrote.
const POLL: Duration = Duration::from_millis(500);
/// The longest pause while the ledger does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps the limits and breakers current until shutdown.
pub async fn keep_gate(context: EngineContext, desk: Arc<Desk>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(COMPARE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        match desk.gate.reload().await {
            Ok(()) => context.health.ready(crate::GATE),
            Err(error) => context.health.not_ready(crate::GATE, error.to_string()),
        }
        let stale = desk.gate.current().is_err();
        context.metrics.alert("risk_rules_stale", stale);
    }
}

/// Brings approved caps to the ledger while this process holds the lease.
pub async fn drive_limits(context: EngineContext, desk: Arc<Desk>, stop: CancellationToken) {
    let lease = context.lease("limits");
    lease
        .run(stop, move |epoch, term| {
            let driver = Driver { context: context.clone(), desk: desk.clone(), epoch };
            async move { driver.run(term).await }
        })
        .await;
}

struct Driver {
    context: EngineContext,
    desk: Arc<Desk>,
    epoch: Epoch,
}

impl Driver {
    async fn run(self, term: CancellationToken) {
        let mut failures = 0u32;
        while !term.is_cancelled() {
            match self.round().await {
                Ok(()) => failures = 0,
                Err(RoundError::Db(DbError::NotLeader)) => return,
                Err(error) => {
                    failures += 1;
                    if failures.is_power_of_two() {
                        tracing::warn!(%error, failures, "approved limits wait");
                    }
                }
            }
            self.context.metrics.alert("risk_limits_wait", failures > 3);
            let pause = POLL.saturating_mul(1 << failures.min(4)).min(LONGEST_PAUSE);
            tokio::select! {
                () = self.desk.approved.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = term.cancelled() => {}
            }
        }
    }

    /// One round over all approved caps, in the order of their approvals: a later cap of a participant and
    /// currency never overtakes an earlier one (R4).
    async fn round(&self) -> Result<(), RoundError> {
        let mut waiting = BTreeSet::new();
        let mut unknown = None;
        for limit in store::limits_on_their_way(self.desk.door.db()).await? {
            let key = limit.proposal.key();
            if waiting.contains(&key) {
                continue;
            }
            match self.ask(&limit).await {
                Ok(ledger) => {
                    let mut tx = self.desk.door.begin("limit_answered").await?;
                    self.epoch.check(&mut tx).await?;
                    self.desk.ledger_answered(tx, &limit, &ledger).await?;
                }
                Err(failure) => {
                    waiting.insert(key);
                    unknown = Some(failure);
                }
            }
        }
        unknown.map_or(Ok(()), |failure| Err(RoundError::Ledger(failure)))
    }

    /// Asks the ledger to enforce a cap. Asking again under the limit's id is harmless.
    async fn ask(&self, limit: &Limit) -> Result<Ledger, Failure> {
        let mut client = TokenServiceClient::new(self.context.peers.to(crate::NAME, "token")?);
        let request = SetLimitRequest {
            command_id: limit.proposal.limit_id.to_string(),
            participant: limit.proposal.participant.map(|p| p.to_string()).unwrap_or_default(),
            net_debit_cap: Some(wire::to_money(limit.proposal.amount)),
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

/// Why a round was not whole.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("the ledger's answer is not known: {0}")]
    Ledger(Failure),
}
