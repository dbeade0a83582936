//! Two workers: one keeps the list in memory current, the other tells the ledger what officers decided.

use std::sync::Arc;
use std::time::Duration;

use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{GetTransactionRequest, ReleaseTransactionRequest, TransactionState, TransactionView};
use deltran_events::data::compliance::{AlertRaised, HoldRejected, HoldReleased};
use deltran_kernel::TransactionId;
use deltran_messaging::Outgoing;
use deltran_runtime::lease::{Epoch, Pace, RoundError};
use deltran_runtime::{DbError, EngineContext, Failure, FailureKind};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::domain::hold::{Finished, Hold, HoldState, Ledger, finish};
use crate::handle::{Desk, PLATFORM};
use crate::store;

const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Looks for decisions that another process wrote, and asks again about what was not definite.
const HOLDS: Pace =
    Pace { every: Duration::from_millis(500), longest: Duration::from_secs(5), alert: "compliance_holds_wait" };
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls to the ledger under way at once.
const AT_ONCE: usize = 8;

/// Keeps the list current until shutdown. Where none was ever loaded, the one that ships is put in use
/// first, so that nobody is held for want of a list that is about to be there.
pub async fn keep_list(context: EngineContext, desk: Arc<Desk>, bundled: bool, stop: CancellationToken) {
    let part = "compliance.list";
    let mut first = bundled;
    let mut ticks = tokio::time::interval(COMPARE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let loaded = async {
            if first {
                desk.load_bundled().await?;
            }
            Ok::<_, Failure>(desk.lists.reload().await?)
        };
        let loaded = loaded.await;
        context.metrics.alert("compliance_lists_stale", desk.lists.current().is_err());
        match loaded {
            Ok(snapshot) => {
                first = false;
                context.metrics.alert("compliance_no_list", snapshot.matcher.is_none());
                context.health.ready(part);
            }
            Err(failure) => context.health.not_ready(part, failure.message),
        }
    }
}

/// Tells the ledger what becomes of decided holds while this process holds the lease.
pub async fn drive_holds(context: EngineContext, desk: Arc<Desk>, stop: CancellationToken) {
    let wake = desk.decided.clone();
    let lease = context.lease("holds");
    lease
        .rounds(stop, HOLDS, wake, move |epoch| {
            let driver = Driver { context: context.clone(), desk: desk.clone(), epoch };
            async move { driver.round().await }
        })
        .await;
}

struct Driver {
    context: EngineContext,
    desk: Arc<Desk>,
    epoch: Epoch,
}

impl Driver {
    /// One round over all decided holds; not whole where the ledger did not answer about one of them.
    async fn round(&self) -> Result<(), RoundError> {
        let holds = store::holds_under_way(self.desk.door.db()).await?;
        let mut answers = futures::stream::iter(holds)
            .map(|hold| async move { (self.ask(&hold).await, hold) })
            .buffer_unordered(AT_ONCE);
        let mut unknown = None;
        while let Some((answer, hold)) = answers.next().await {
            match answer {
                Ok(ledger) => self.end(&hold, &ledger).await?,
                Err(failure) => {
                    tracing::debug!(hold_id = %hold.hold_id, error = %failure, "the ledger's answer about a hold is not known");
                    unknown = Some(RoundError::Later(format!("hold {}: {failure}", hold.hold_id)));
                }
            }
        }
        unknown.map_or(Ok(()), Err)
    }

    /// Asks the ledger to release or reject. Whatever it answers, asking again is harmless.
    async fn ask(&self, hold: &Hold) -> Result<Ledger, Failure> {
        let mut client = TokenServiceClient::new(self.context.peers.to(crate::NAME, "token")?);
        let request = ReleaseTransactionRequest {
            transaction_id: hold.transaction_id.to_string(),
            release: hold.state == HoldState::Releasing,
            reason: hold.reference(),
        };
        let answer = bounded(client.release_transaction(request)).await.map(|answer| answer.transaction);
        match answer {
            Ok(view) => ledger_of(view),
            Err(failure) if failure.kind == FailureKind::NotFound => Ok(Ledger::NotFound),
            // Not held: by our own call whose answer was lost, or never. Its state tells.
            Err(failure) if failure.kind == FailureKind::WrongState => self.look(hold.transaction_id).await,
            Err(failure) => Err(failure),
        }
    }

    async fn look(&self, id: TransactionId) -> Result<Ledger, Failure> {
        let mut client = TokenServiceClient::new(self.context.peers.to(crate::NAME, "token")?);
        let request = GetTransactionRequest { transaction_id: id.to_string() };
        match bounded(client.get_transaction(request)).await {
            Ok(answer) => ledger_of(answer.transaction),
            Err(failure) if failure.kind == FailureKind::NotFound => Ok(Ledger::NotFound),
            Err(failure) => Err(failure),
        }
    }

    async fn end(&self, asked: &Hold, ledger: &Ledger) -> Result<(), DbError> {
        let now = self.desk.clock.now();
        let mut tx = self.desk.door.begin("hold_ended").await?;
        self.epoch.check(&mut tx).await?;
        let Some(hold) = store::lock_hold(&mut tx, asked.hold_id).await? else { return Ok(()) };
        let Some(finished) = finish(&hold, ledger, now) else { return Ok(()) };
        store::save_hold(&mut tx, &finished.hold, PLATFORM, now).await?;
        let mut events = vec![ended(&finished)];
        if finished.surprise {
            events.push(surprised(&finished.hold));
        }
        tx.commit(&events).await?;
        self.desk.finished.notify_waiters();
        Ok(())
    }
}

/// A call to another engine that ends: no answer in time is not known.
async fn bounded<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Failure::unavailable("the token engine does not answer in time")),
    }
}

fn ledger_of(view: Option<TransactionView>) -> Result<Ledger, Failure> {
    let view = view.ok_or_else(|| Failure::unavailable("the token engine's answer has no transaction"))?;
    Ok(match view.state() {
        TransactionState::Held => Ledger::Held,
        TransactionState::Reserved => Ledger::WentOn("RESERVED"),
        TransactionState::Committed => Ledger::WentOn("COMMITTED"),
        TransactionState::Cancelled => Ledger::WentOn("CANCELLED"),
        TransactionState::Expired => Ledger::WentOn("EXPIRED"),
        TransactionState::Rejected => Ledger::Rejected(view.refusal.map(|r| r.code).unwrap_or_default()),
        TransactionState::Unspecified => {
            return Err(Failure::unavailable("the token engine's answer has no state that is known"));
        }
    })
}

fn ended(Finished { hold, told, .. }: &Finished) -> Outgoing {
    let Hold { hold_id, transaction_id, payer, .. } = *hold;
    let proposed_by = hold.proposed_by.clone().unwrap_or_default();
    let decided_by = hold.decided_by.clone().unwrap_or_default();
    let (user, reason) = (decided_by.clone(), told.clone());
    let event = if hold.state == HoldState::Released {
        Outgoing::new(HoldReleased { hold_id, transaction_id, proposed_by, decided_by, reason }, transaction_id, user)
    } else {
        Outgoing::new(HoldRejected { hold_id, transaction_id, proposed_by, decided_by, reason }, transaction_id, user)
    };
    match payer {
        Some(payer) => event.of(payer),
        None => event,
    }
}

fn surprised(hold: &Hold) -> Outgoing {
    let event = AlertRaised::new(
        "hold_outcome",
        format!(
            "hold {} of transaction {} ended {}, other than the officers agreed",
            hold.hold_id,
            hold.transaction_id,
            hold.state.as_str()
        ),
    );
    Outgoing::new(event, hold.transaction_id, PLATFORM)
}
