//! The commands on endpoints: each reads, lets the domain decide, and writes the result with its event in one
//! transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use deltran_events::data::notifications::{DisabledReason, EndpointDisabled};
use deltran_kernel::{Clock, CommandId, EndpointId, EventId, ParticipantId, Timestamp};
use deltran_messaging::{Door, DoorTx, Outgoing};
use deltran_runtime::{Caller, DbError, EngineContext, Failure, FailureKind, Role};
use serde_json::json;
use tokio::sync::Notify;

use super::vault::{Vault, VaultError};
use crate::domain::Kind;
use crate::domain::address::Policy;
use crate::domain::breaker::Health;
use crate::domain::endpoint::{
    self, Actor, Cause, Change, Endpoint, EndpointError, EndpointState, SecretVersion, Wish,
};
use crate::store::deliveries::{self, Replay};
use crate::store::endpoints::{self, Done, StoredSecret, Whole};

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The endpoint does not allow it.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No secret can be made.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The endpoint never got such a notification, or that is long ago.
    #[error("endpoint {0} was never sent notification {1}, or that is no longer kept")]
    NeverSent(EndpointId, EventId),
}

impl From<DeskError> for Failure {
    fn from(error: DeskError) -> Self {
        let text = error.to_string();
        match error {
            DeskError::Db(error) => error.into(),
            DeskError::Endpoint(error) => match error {
                EndpointError::Malformed { field, message } => Self::malformed(field, message),
                EndpointError::NotFound(id) => Self::not_found("endpoint", id),
                EndpointError::Conflict(id) => Self::conflict("command", id),
                EndpointError::TooMany { .. } => Self::wrong_state(text, "TOO_MANY_ENDPOINTS"),
                EndpointError::WrongState { state, .. } => Self::wrong_state(text, state),
                EndpointError::OperatorsOnly(_) => Self::unauthorised(text).with("state", EndpointState::Disabled),
                EndpointError::TooManySecrets { until } => {
                    Self::wrong_state(text, "TOO_MANY_SECRETS").with("until", until)
                }
            },
            DeskError::Vault(VaultError::NoKey) => Self::new(FailureKind::WrongState, "no_master_key", text),
            DeskError::Vault(error) => Self::internal(error),
            DeskError::NeverSent(..) => Self::new(FailureKind::NotFound, "not_found", text),
        }
    }
}

/// What an owner is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `whsec_…`.
    pub shared: String,
    /// `whpk_…`.
    pub public_key: String,
}

/// What an owner changes; the rest stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edit {
    /// Another URL.
    pub url: Option<String>,
    /// Other kinds.
    pub kinds: Option<BTreeSet<Kind>>,
    /// Whether in order.
    pub in_order: Option<bool>,
}

/// Who does something, and for which participant: none for an operator, who acts on all.
#[derive(Debug, Clone)]
pub struct By {
    /// The user.
    pub user: String,
    /// The bank that calls.
    pub participant: Option<ParticipantId>,
    /// W3C `traceparent` of the call.
    pub trace: Option<String>,
}

impl From<Caller> for By {
    fn from(caller: Caller) -> Self {
        let participant = caller.participant.filter(|_| caller.role == Role::Bank);
        Self { user: caller.user, participant, trace: caller.trace }
    }
}

impl By {
    fn actor(&self) -> Actor {
        if self.participant.is_some() { Actor::Owner } else { Actor::Operator }
    }
}

/// Carries out the commands on endpoints.
pub struct Desk {
    /// The database and its outbox.
    pub door: Door,
    vault: Arc<Vault>,
    policy: Arc<Policy>,
    overlap: i64,
    clock: Arc<dyn Clock>,
    /// Told after each change, so that the sender looks.
    changed: Arc<Notify>,
}

/// The command was carried out before: how many deliveries it concerned.
struct AlreadyDone(u64);

impl Desk {
    /// The desk of the engine. `overlap` is what a rotation has that does not say, in microseconds.
    pub fn new(
        context: &EngineContext,
        door: Door,
        vault: Arc<Vault>,
        policy: Arc<Policy>,
        overlap: i64,
        changed: Arc<Notify>,
    ) -> Self {
        Self { door, vault, policy, overlap, clock: context.clock.clone(), changed }
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Registers an endpoint. Told is the secret, where the call is not a repeated one.
    ///
    /// # Errors
    /// `malformed`, `conflict`, `wrong_state`, `no_master_key`.
    pub async fn create(
        &self,
        id: EndpointId,
        participant: ParticipantId,
        wish: Wish,
        by: &By,
    ) -> Result<(Whole, Option<Told>), DeskError> {
        let wish = wish.checked(&self.policy)?;
        let command = CommandId::new(id.uuid());
        let kinds: Vec<&str> = wish.kinds.iter().map(|kind| kind.as_str()).collect();
        let body = json!(["create", participant, wish.url, kinds, wish.in_order]).to_string();
        let conflict = || DeskError::from(EndpointError::Conflict(id.to_string()));
        let at = self.clock.now();
        let mut tx = self.door.begin("endpoint").await?;
        endpoints::lock_participant(&mut tx, participant).await?;
        if let Some(done) = endpoints::find_command(&mut tx, command).await? {
            if done.body != body {
                return Err(conflict());
            }
            drop(tx);
            return Ok((self.read(id).await?, None));
        }
        let present = endpoints::count(&mut tx, participant).await?;
        let new = endpoint::create(id, participant, wish, present, &by.user, at)?;
        let (secret, sealed) = self.vault.fresh(id, 1)?;
        let told = Told { shared: secret.shared(), public_key: secret.signer().public_key() };
        // Another participant's, or made at this moment by another one.
        if !endpoints::insert(&mut tx, &new).await? {
            return Err(conflict());
        }
        let version = SecretVersion { number: 1, expires_at: None };
        let stored = StoredSecret { endpoint_id: id, version, sealed, public_key: told.public_key.clone() };
        endpoints::add_secret(&mut tx, &stored, at, at).await?;
        let done = Done { endpoint_id: id, body, deliveries: 0 };
        if !endpoints::record_command(&mut tx, command, &done, &by.user, at).await? {
            return Err(conflict());
        }
        tx.commit(&[]).await?;
        self.changed.notify_one();
        Ok((self.read(id).await?, Some(told)))
    }

    /// Changes what is set in `edit`. Another URL is a new start: how the endpoint fared is forgotten.
    ///
    /// # Errors
    /// `malformed`, `not_found`, `conflict`, `wrong_state`.
    pub async fn update(&self, command: CommandId, id: EndpointId, edit: Edit, by: &By) -> Result<Whole, DeskError> {
        let kinds = edit.kinds.as_ref().map(|kinds| kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>());
        let body = json!(["update", edit.url, kinds, edit.in_order]).to_string();
        let Some((mut tx, endpoint)) = self.begin(command, id, &body, by).await?.ok() else {
            return self.read(id).await;
        };
        let before = &endpoint.wish;
        let wish = Wish {
            url: edit.url.unwrap_or_else(|| before.url.clone()),
            kinds: edit.kinds.unwrap_or_else(|| before.kinds.clone()),
            in_order: edit.in_order.unwrap_or(before.in_order),
        };
        let wish = wish.checked(&self.policy)?;
        let moved = wish.url != before.url;
        let change = Change::Update(wish);
        let next = endpoint.change(&change, by.actor(), &endpoint.note, &by.user, self.clock.now())?;
        endpoints::save(&mut tx, &next, change.as_str()).await?;
        if moved {
            endpoints::save_health(&mut tx, &[(id, Health::default())]).await?;
        }
        self.finish(tx, command, &next, body, 0, &[], by).await?;
        self.read(id).await
    }

    /// Disables, enables or deletes an endpoint.
    ///
    /// # Errors
    /// `not_found`, `conflict`, `wrong_state`; `unauthorised` where a bank enables what an operator disabled.
    pub async fn switch(
        &self,
        command: CommandId,
        id: EndpointId,
        change: &Change,
        reason: &str,
        by: &By,
    ) -> Result<Whole, DeskError> {
        let body = json!([change.as_str(), reason]).to_string();
        let Some((mut tx, endpoint)) = self.begin(command, id, &body, by).await?.ok() else {
            return self.read(id).await;
        };
        let at = self.clock.now();
        let next = endpoint.change(change, by.actor(), reason, &by.user, at)?;
        endpoints::save(&mut tx, &next, change.as_str()).await?;
        let given_up = match next.state {
            EndpointState::Enabled => {
                endpoints::save_health(&mut tx, &[(id, Health::default())]).await?;
                0
            }
            EndpointState::Disabled | EndpointState::Deleted => deliveries::give_up(&mut tx, id, at).await?,
        };
        let event = next.cause.map(|cause| disabled(&next, cause, &by.user).traced(by.trace.clone()));
        self.finish(tx, command, &next, body, given_up, event.as_slice(), by).await?;
        self.read(id).await
    }

    /// Gives an endpoint a new secret; earlier ones sign for `overlap` microseconds more.
    ///
    /// # Errors
    /// `malformed`, `not_found`, `conflict`, `wrong_state`, `no_master_key`.
    pub async fn rotate(
        &self,
        command: CommandId,
        id: EndpointId,
        overlap: Option<i64>,
        by: &By,
    ) -> Result<(Whole, Option<Told>), DeskError> {
        let body = json!(["rotate", overlap]).to_string();
        let Some((mut tx, endpoint)) = self.begin(command, id, &body, by).await?.ok() else {
            return Ok((self.read(id).await?, None));
        };
        let at = self.clock.now();
        let next = endpoint.change(&Change::Rotate, by.actor(), &endpoint.note, &by.user, at)?;
        let secrets = endpoints::secrets(&mut tx, id).await?;
        let versions: Vec<SecretVersion> = secrets.iter().map(|secret| secret.version).collect();
        let rotation = endpoint::rotate(&versions, overlap.unwrap_or(self.overlap), at)?;
        let (secret, sealed) = self.vault.fresh(id, rotation.number)?;
        let told = Told { shared: secret.shared(), public_key: secret.signer().public_key() };
        let version = SecretVersion { number: rotation.number, expires_at: None };
        let stored = StoredSecret { endpoint_id: id, version, sealed, public_key: told.public_key.clone() };
        endpoints::add_secret(&mut tx, &stored, rotation.others_until, at).await?;
        endpoints::save(&mut tx, &next, Change::Rotate.as_str()).await?;
        self.finish(tx, command, &next, body, 0, &[], by).await?;
        Ok((self.read(id).await?, Some(told)))
    }

    /// Sends again; how many deliveries that are.
    ///
    /// # Errors
    /// `not_found`, `conflict`, `wrong_state`.
    pub async fn replay(&self, command: CommandId, id: EndpointId, what: Replay, by: &By) -> Result<u64, DeskError> {
        let body = match what {
            Replay::One(notification) => json!(["replay", "one", notification]),
            Replay::FailedSince(since) => json!(["replay", "since", since]),
            Replay::FailedFrom(position) => json!(["replay", "from", position]),
        };
        let body = body.to_string();
        let (mut tx, endpoint) = match self.begin(command, id, &body, by).await? {
            Ok(begun) => begun,
            Err(AlreadyDone(deliveries)) => return Ok(deliveries),
        };
        let at = self.clock.now();
        let next = endpoint.change(&Change::Replay, by.actor(), &endpoint.note, &by.user, at)?;
        let deliveries = match (deliveries::replay(&mut tx, id, what, at).await?, what) {
            (Some(deliveries), _) => deliveries,
            (None, Replay::One(notification)) => return Err(DeskError::NeverSent(id, notification)),
            (None, _) => 0,
        };
        endpoints::save(&mut tx, &next, Change::Replay.as_str()).await?;
        self.finish(tx, command, &next, body, deliveries, &[], by).await?;
        Ok(deliveries)
    }

    /// Begins a command: its transaction, and the endpoint as it is, locked.
    async fn begin(
        &self,
        command: CommandId,
        id: EndpointId,
        body: &str,
        by: &By,
    ) -> Result<Result<(DoorTx, Endpoint), AlreadyDone>, DeskError> {
        let mut tx = self.door.begin("endpoint").await?;
        let endpoint = endpoints::lock(&mut tx, id).await?.ok_or(EndpointError::NotFound(id))?;
        if by.participant.is_some_and(|own| own != endpoint.participant) {
            return Err(EndpointError::NotFound(id).into());
        }
        match endpoints::find_command(&mut tx, command).await? {
            Some(done) if done.endpoint_id == id && done.body == body => Ok(Err(AlreadyDone(done.deliveries))),
            Some(_) => Err(EndpointError::Conflict(command.to_string()).into()),
            None => Ok(Ok((tx, endpoint))),
        }
    }

    /// Records the command, commits, and wakes the sender.
    #[expect(clippy::too_many_arguments, reason = "all of it is one row")]
    async fn finish(
        &self,
        mut tx: DoorTx,
        command: CommandId,
        next: &Endpoint,
        body: String,
        deliveries: u64,
        events: &[Outgoing],
        by: &By,
    ) -> Result<(), DeskError> {
        let done = Done { endpoint_id: next.endpoint_id, body, deliveries };
        if !endpoints::record_command(&mut tx, command, &done, &by.user, next.changed_at).await? {
            return Err(EndpointError::Conflict(command.to_string()).into());
        }
        tx.commit(events).await?;
        self.changed.notify_one();
        Ok(())
    }

    async fn read(&self, id: EndpointId) -> Result<Whole, DeskError> {
        let found = endpoints::whole(self.door.db(), &[id]).await?;
        found.into_iter().next().ok_or_else(|| EndpointError::NotFound(id).into())
    }
}

/// The event that an endpoint is disabled.
pub fn disabled(endpoint: &Endpoint, cause: Cause, by: &str) -> Outgoing {
    let reason = match cause {
        Cause::Owner => DisabledReason::Owner,
        Cause::Operator => DisabledReason::Operator,
        Cause::Gone => DisabledReason::Gone,
        Cause::Failing => DisabledReason::Failing,
    };
    let event = EndpointDisabled { participant: endpoint.participant, endpoint_id: endpoint.endpoint_id, reason };
    Outgoing::new(event, endpoint.endpoint_id, by).of(endpoint.participant)
}
