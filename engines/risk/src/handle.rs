//! The commands: each reads, lets the domain decide, and writes the result with its events in one
//! transaction.

use std::sync::Arc;
use std::time::Duration;

use deltran_events::data::risk::{
    LimitChanged, LimitProposed, LimitRejected, LimitWithdrawn, RateLimitChanged, RateLimitProposed,
};
use deltran_kernel::{Clock, CommandId, IdSource, Timestamp};
use deltran_messaging::{Door, DoorTx, Outgoing};
use deltran_runtime::{DbError, EngineContext, Failure, FailureKind};
use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Checked;
use crate::domain::Outcome;
use crate::domain::breaker::{self, Breaker, BreakerError, SetBreaker};
use crate::domain::limit::{self, End, Ledger, Limit, LimitError, LimitState, Proposal, Value};
use crate::gate::Gate;
use crate::store;

/// In whose name the engine acts by itself.
pub const USER: &str = "risk-engine";

/// Looks whether another process has brought a limit to the ledger, where no signal arrives.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The limit does not allow it.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The breaker does not allow it.
    #[error(transparent)]
    Breaker(#[from] BreakerError),
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        let text = error.to_string();
        match error {
            CommandError::Db(error) => error.into(),
            CommandError::Limit(error) => match error {
                LimitError::Malformed { field, message } => Self::malformed(field, message),
                LimitError::Conflict(id) => Self::conflict("limit", id),
                LimitError::NotFound(id) => Self::not_found("limit", id),
                LimitError::SameUser { proposed_by, approved_by, .. } => {
                    Self::unauthorised(text).with("proposed_by", proposed_by).with("approved_by", approved_by)
                }
                LimitError::WrongUser { proposed_by, .. } => Self::unauthorised(text).with("proposed_by", proposed_by),
                LimitError::WrongState { state, .. } => Self::wrong_state(text, state.as_str()),
                LimitError::Refused { refusal, .. } => {
                    Self::wrong_state(text, LimitState::Proposed.as_str()).with("refusal", refusal)
                }
            },
            CommandError::Breaker(error) => match error {
                BreakerError::Conflict(id) => Self::conflict("command", id),
                BreakerError::WrongState { state, .. } => Self::wrong_state(text, state.as_str()),
            },
        }
    }
}

/// The caller of a command, as far as it goes on record.
#[derive(Debug, Clone)]
pub struct By {
    /// The user.
    pub user: String,
    /// W3C `traceparent` of the call.
    pub trace: Option<String>,
}

/// Carries out the commands of the engine.
pub struct Desk {
    /// The way to write.
    pub door: Door,
    /// The gate's memory.
    pub gate: Gate,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) settings: Checked,
    /// A limit was approved: the driver has work.
    pub(crate) approved: Arc<Notify>,
    /// The driver has an answer of the ledger.
    pub(crate) answered: Notify,
}

impl Desk {
    /// The desk of an engine.
    pub fn new(context: &EngineContext, door: Door, gate: Gate, settings: Checked) -> Self {
        Self {
            door,
            gate,
            clock: context.clock.clone(),
            ids: context.ids.clone(),
            settings,
            approved: Arc::default(),
            answered: Notify::new(),
        }
    }

    /// Proposes a limit.
    ///
    /// # Errors
    /// `malformed`, `conflict`.
    pub async fn propose(&self, proposal: &Proposal, by: &By) -> Result<Outcome<Limit>, CommandError> {
        let at = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        let existing = store::lock_limit(&mut tx, proposal.limit_id).await?;
        let outcome = limit::propose(existing.as_ref(), proposal, &by.user, at)?;
        let Outcome::Executed(new) = &outcome else { return Ok(outcome) };
        // Somebody proposed under the same id at the same moment: that one is stored, this is judged by it.
        if !store::insert_limit(&mut tx, new).await? {
            let stored = store::lock_limit(&mut tx, proposal.limit_id).await?;
            return Ok(limit::propose(stored.as_ref(), proposal, &by.user, at)?);
        }
        tx.commit(&[proposed(new, by)]).await?;
        Ok(outcome)
    }

    /// Approves a limit. It is in force when this returns where it is due; a cap is once the ledger took it,
    /// for which this waits a while. The answer shows the state so far.
    ///
    /// # Errors
    /// `not_found`, `unauthorised` for the proposer, `wrong_state`, also where the ledger refuses the cap.
    pub async fn approve(&self, id: CommandId, by: &By) -> Result<Limit, Failure> {
        let limit = self.approve_now(id, by).await?.into_inner();
        let on_its_way = limit.due_at.is_some_and(|due| due <= self.clock.now());
        if limit.state != LimitState::Approved || !on_its_way {
            self.gate.reload().await?;
            return Ok(limit);
        }
        self.approved.notify_one();
        Ok(self.wait(limit).await?)
    }

    async fn approve_now(&self, id: CommandId, by: &By) -> Result<Outcome<Limit>, CommandError> {
        let at = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        let approval = store::lock_version(&mut tx).await? + 1;
        // What was due before comes before.
        let mut events = activate_due(&mut tx, at).await?;
        let limit = store::lock_limit(&mut tx, id).await?.ok_or(LimitError::NotFound(id))?;
        let outcome = limit::approve(&limit, &by.user, at, approval)?;
        if let Outcome::Executed(next) = &outcome {
            store::set_version(&mut tx, approval).await?;
            store::save_limit(&mut tx, next, &by.user, "", at).await?;
            events.extend(changed(next, by.trace.clone()));
            tx.commit(&events).await?;
        }
        Ok(outcome)
    }

    /// Turns a proposal down or takes it back. One that waited for its time never takes effect in this process
    /// when this returns, in others a second later.
    ///
    /// # Errors
    /// `not_found`, `unauthorised` where it is not that user's to do, `wrong_state`.
    pub async fn end(&self, id: CommandId, how: End, reason: &str, by: &By) -> Result<Outcome<Limit>, Failure> {
        let outcome = self.end_now(id, how, reason, by).await?;
        self.gate.reload().await?;
        Ok(outcome)
    }

    async fn end_now(&self, id: CommandId, how: End, reason: &str, by: &By) -> Result<Outcome<Limit>, CommandError> {
        let at = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        let version = store::lock_version(&mut tx).await? + 1;
        let limit = store::lock_limit(&mut tx, id).await?.ok_or(LimitError::NotFound(id))?;
        let outcome = limit::end(&limit, how, &by.user, reason, at)?;
        if let Outcome::Executed(next) = &outcome {
            // One that waited for its time is known to every process.
            if limit.state == LimitState::Approved {
                store::set_version(&mut tx, version).await?;
            }
            store::save_limit(&mut tx, next, &by.user, reason, at).await?;
            let (user, reason) = (by.user.clone(), reason.to_owned());
            let event = match how {
                End::Reject => {
                    let event = LimitRejected { limit_id: id, rejected_by: user.clone(), reason };
                    Outgoing::new(event, id, user)
                }
                End::Withdraw => {
                    let event = LimitWithdrawn { limit_id: id, withdrawn_by: user.clone(), reason };
                    Outgoing::new(event, id, user)
                }
            };
            tx.commit(&[of(next, event).traced(by.trace.clone())]).await?;
        }
        Ok(outcome)
    }

    /// Brings approved limits into force whose time has come, in a transaction of the driver that begins with
    /// the check of its lease. Processes that know them have done so by themselves at that time.
    pub async fn activate(&self, mut tx: DoorTx, at: Timestamp) -> Result<(), DbError> {
        let version = store::lock_version(&mut tx).await? + 1;
        let events = activate_due(&mut tx, at).await?;
        if !events.is_empty() {
            store::set_version(&mut tx, version).await?;
            tx.commit(&events).await?;
        }
        Ok(())
    }

    /// Waits until the ledger has answered, at most for the configured time.
    async fn wait(&self, mut limit: Limit) -> Result<Limit, CommandError> {
        let (id, approval) = (limit.proposal.limit_id, limit.approval);
        let deadline = Instant::now() + self.settings.approve_wait;
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            // From here on a signal is not missed.
            answered.as_mut().enable();
            match store::find_limit(self.door.db(), id).await {
                Ok(Some(found)) => limit = found,
                Ok(None) => return Err(LimitError::NotFound(id).into()),
                // The approval stands; the ledger will be told when the database is back.
                Err(error) => {
                    tracing::warn!(%error, "an approved limit cannot be read back");
                    return Ok(limit);
                }
            }
            match (&limit.refusal, limit.state) {
                (Some(refusal), LimitState::Proposed) if limit.approval == approval => {
                    return Err(LimitError::Refused { limit_id: id, refusal: refusal.clone() }.into());
                }
                (_, LimitState::Approved) if Instant::now() < deadline => {}
                _ => return Ok(limit),
            }
            tokio::select! {
                () = answered => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// Records what the ledger answered about a cap, in a transaction of the driver that begins with the
    /// check of its lease.
    pub(crate) async fn ledger_answered(&self, mut tx: DoorTx, asked: &Limit, ledger: &Ledger) -> Result<(), DbError> {
        let at = self.clock.now();
        let version = store::lock_version(&mut tx).await? + 1;
        let Some(limit) = store::lock_limit(&mut tx, asked.proposal.limit_id).await? else { return Ok(()) };
        if limit.approval != asked.approval {
            return Ok(());
        }
        let Some(next) = limit::answered(&limit, ledger, at) else { return Ok(()) };
        store::set_version(&mut tx, version).await?;
        store::save_limit(&mut tx, &next, USER, next.refusal.as_deref().unwrap_or_default(), at).await?;
        tx.commit(&changed(&next, None)).await?;
        self.answered.notify_waiters();
        Ok(())
    }

    /// Trips or closes a breaker. It has its effect in this process when this returns, in others within
    /// about a second.
    ///
    /// # Errors
    /// `conflict`, `wrong_state`.
    pub async fn set_breaker(&self, command: &SetBreaker, by: &By) -> Result<Breaker, Failure> {
        let breaker = self.set_breaker_now(command, by).await?.into_inner();
        self.gate.reload().await?;
        Ok(breaker)
    }

    async fn set_breaker_now(&self, command: &SetBreaker, by: &By) -> Result<Outcome<Breaker>, CommandError> {
        let at = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        let version = store::lock_version(&mut tx).await? + 1;
        let earlier = store::find_breaker_command(&mut tx, command.command_id).await?;
        let present = store::lock_breaker(&mut tx, command.scope).await?;
        let outcome = breaker::set(earlier.as_ref(), present.as_ref(), command, &by.user, at)?;
        if let Outcome::Executed(next) = &outcome {
            store::set_version(&mut tx, version).await?;
            store::save_breaker(&mut tx, command.command_id, next).await?;
            let event = crate::watch::breaker_event(next, self.settings.recovery.probes, command.command_id);
            tx.commit(&[event.traced(by.trace.clone())]).await?;
        }
        Ok(outcome)
    }
}

/// Brings approved limits into force whose time has come; what is published of it. The gate's version must be
/// locked.
async fn activate_due(tx: &mut PgConnection, at: Timestamp) -> Result<Vec<Outgoing>, DbError> {
    let mut events = Vec::new();
    for limit in store::due_limits(tx, at).await? {
        let Some(next) = limit::activate(&limit, at) else { continue };
        store::save_limit(tx, &next, USER, "", at).await?;
        events.extend(changed(&next, None));
    }
    Ok(events)
}

fn of(limit: &Limit, event: Outgoing) -> Outgoing {
    match limit.proposal.participant {
        Some(participant) => event.of(participant),
        None => event,
    }
}

fn proposed(new: &Limit, by: &By) -> Outgoing {
    let Proposal { limit_id, kind, participant, counterparty, corridor, value, effective_from, reason } =
        new.proposal.clone();
    let proposed_by = by.user.clone();
    let event = match value {
        Value::Amount(amount) => {
            let event = LimitProposed {
                limit_id,
                kind,
                participant,
                amount: amount.into(),
                currency: amount.currency(),
                proposed_by,
                reason,
                counterparty,
                corridor: corridor.map(|c| c.to_string()),
                effective_at: effective_from,
            };
            Outgoing::new(event, limit_id, &by.user)
        }
        Value::Rate(rate) => {
            let event = RateLimitProposed {
                limit_id,
                participant,
                transactions: rate.transactions,
                window_seconds: rate.window_seconds,
                proposed_by,
                reason,
                effective_at: effective_from,
            };
            Outgoing::new(event, limit_id, &by.user)
        }
    };
    of(new, event).traced(by.trace.clone())
}

/// What is published about a limit that has come into force; nothing before.
fn changed(limit: &Limit, trace: Option<String>) -> Vec<Outgoing> {
    let (LimitState::Active, Some(effective_at)) = (limit.state, limit.effective_at) else { return Vec::new() };
    let Proposal { limit_id, kind, participant, counterparty, corridor, value, .. } = limit.proposal.clone();
    let proposed_by = limit.proposed_by.clone();
    let approved_by = limit.approved_by.clone().unwrap_or_default();
    let event = match value {
        Value::Amount(amount) => {
            let event = LimitChanged {
                limit_id,
                kind,
                participant,
                amount: amount.into(),
                currency: amount.currency(),
                proposed_by,
                approved_by: approved_by.clone(),
                counterparty,
                corridor: corridor.map(|c| c.to_string()),
                effective_at: Some(effective_at),
            };
            Outgoing::new(event, limit_id, approved_by)
        }
        Value::Rate(rate) => {
            let event = RateLimitChanged {
                limit_id,
                participant,
                transactions: rate.transactions,
                window_seconds: rate.window_seconds,
                proposed_by,
                approved_by: approved_by.clone(),
                effective_at,
            };
            Outgoing::new(event, limit_id, approved_by)
        }
    };
    vec![of(limit, event).traced(trace)]
}

/// A failure of the ledger that will be the same however often it is asked.
pub(crate) fn is_definite(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Malformed | FailureKind::NotFound | FailureKind::WrongState | FailureKind::Conflict)
}
