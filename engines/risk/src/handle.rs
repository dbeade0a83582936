//! The commands: each reads, lets the domain decide, and writes the result with its events in one
//! transaction.

use std::sync::Arc;
use std::time::Duration;

use deltran_events::data::risk::{BreakerClosed, BreakerOpened, LimitChanged, LimitProposed};
use deltran_kernel::{Clock, CommandId};
use deltran_messaging::{Door, DoorTx, Outgoing};
use deltran_runtime::{DbError, EngineContext, Failure, FailureKind};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::Outcome;
use crate::domain::breaker::{self, Breaker, BreakerError, BreakerState, SetBreaker};
use crate::domain::limit::{self, Ledger, Limit, LimitError, LimitState, Proposal};
use crate::gate::Gate;
use crate::store;

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
    pub(crate) door: Door,
    pub(crate) gate: Gate,
    pub(crate) clock: Arc<dyn Clock>,
    approve_wait: Duration,
    /// A limit was approved: the driver has work.
    pub(crate) approved: Notify,
    /// The driver has an answer of the ledger.
    pub(crate) answered: Notify,
}

impl Desk {
    /// The desk of an engine.
    pub fn new(context: &EngineContext, door: Door, gate: Gate, approve_wait: Duration) -> Self {
        Self {
            door,
            gate,
            clock: context.clock.clone(),
            approve_wait,
            approved: Notify::new(),
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
        let event = LimitProposed {
            limit_id: proposal.limit_id,
            kind: proposal.kind,
            participant: proposal.participant,
            amount: proposal.amount.into(),
            currency: proposal.amount.currency(),
            proposed_by: by.user.clone(),
            reason: proposal.reason.clone(),
        };
        let event = of(new, Outgoing::new(event, proposal.limit_id, &by.user).traced(by.trace.clone()));
        tx.commit(&[event]).await?;
        Ok(outcome)
    }

    /// Approves a limit. A maximum is in force when this returns; a cap is once the ledger took it, for
    /// which this waits a while. The answer shows the state so far.
    ///
    /// # Errors
    /// `not_found`, `unauthorised` for the proposer, `wrong_state`, also where the ledger refuses the cap.
    pub async fn approve(&self, id: CommandId, by: &By) -> Result<Limit, Failure> {
        let limit = self.approve_now(id, by).await?.into_inner();
        if limit.state != LimitState::Approved {
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
        let limit = store::lock_limit(&mut tx, id).await?.ok_or(LimitError::NotFound(id))?;
        let outcome = limit::approve(&limit, &by.user, at, approval)?;
        if let Outcome::Executed(next) = &outcome {
            store::set_version(&mut tx, approval).await?;
            store::save_limit(&mut tx, next, &by.user, at).await?;
            let events = changed(next, by.trace.clone());
            tx.commit(&events).await?;
        }
        Ok(outcome)
    }

    /// Waits until the ledger has answered, at most for the configured time.
    async fn wait(&self, mut limit: Limit) -> Result<Limit, CommandError> {
        let (id, approval) = (limit.proposal.limit_id, limit.approval);
        let deadline = Instant::now() + self.approve_wait;
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
        let Some(limit) = store::lock_limit(&mut tx, asked.proposal.limit_id).await? else { return Ok(()) };
        if limit.approval != asked.approval {
            return Ok(());
        }
        let Some(next) = limit::answered(&limit, ledger, at) else { return Ok(()) };
        store::save_limit(&mut tx, &next, "risk-engine", at).await?;
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
        let present = store::find_breaker(&mut tx, command.scope).await?;
        let outcome = breaker::set(earlier.as_ref(), present.as_ref(), command, &by.user, at)?;
        if let Outcome::Executed(next) = &outcome {
            store::set_version(&mut tx, version).await?;
            store::save_breaker(&mut tx, command.command_id, next).await?;
            let Breaker { scope, reason, changed_by, .. } = next.clone();
            let scope = scope.to_string();
            let event = match next.state {
                BreakerState::Open => {
                    Outgoing::new(BreakerOpened { scope, reason, changed_by }, command.command_id, &by.user)
                }
                BreakerState::Closed => {
                    Outgoing::new(BreakerClosed { scope, reason, changed_by }, command.command_id, &by.user)
                }
            };
            let event = match next.scope {
                breaker::Scope::Participant(participant) => event.of(participant),
                _ => event,
            };
            tx.commit(&[event.traced(by.trace.clone())]).await?;
        }
        Ok(outcome)
    }
}

fn of(limit: &Limit, event: Outgoing) -> Outgoing {
    match limit.proposal.participant {
        Some(participant) => event.of(participant),
        None => event,
    }
}

/// What is published about a limit that has come into force; nothing before.
fn changed(limit: &Limit, trace: Option<String>) -> Vec<Outgoing> {
    if limit.state != LimitState::Active {
        return Vec::new();
    }
    let proposal = &limit.proposal;
    let approved_by = limit.approved_by.clone().unwrap_or_default();
    let event = LimitChanged {
        limit_id: proposal.limit_id,
        kind: proposal.kind,
        participant: proposal.participant,
        amount: proposal.amount.into(),
        currency: proposal.amount.currency(),
        proposed_by: limit.proposed_by.clone(),
        approved_by: approved_by.clone(),
    };
    vec![of(limit, Outgoing::new(event, proposal.limit_id, approved_by).traced(trace))]
}

/// A failure of the ledger that will be the same however often it is asked.
pub(crate) fn is_definite(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Malformed | FailureKind::NotFound | FailureKind::WrongState | FailureKind::Conflict)
}
