//! The router: events of other domains become notifications where somebody has subscribed.
//!
//! What was received and what is told stand in one transaction, so an event tells each participant once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deltran_api::clearing::v1::GetNettingSetRequest;
use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_events::Domain;
use deltran_kernel::{NettingSetId, ParticipantId};
use deltran_messaging::{ApplyError, Delivery, Handler, Outgoing};
use deltran_runtime::peers::Peers;
use deltran_runtime::{Failure, wire};
use sqlx::PgConnection;

use crate::domain::Kind;
use crate::domain::route::{PAYMENTS, Positions, positions_needed, route};
use crate::domain::subscription::Audience;
use crate::subscriptions::Subscriptions;

/// What concerns funds, standing and finality, and is rare; single payments are not, and nobody may want to hear of
/// them.
const FUNDS: &[&str] = &[
    "events.transactions.deposit.confirmed",
    "events.transactions.withdrawal.confirmed",
    "events.transactions.withdrawal.failed",
    "events.transactions.participant.suspended",
    "events.transactions.participant.reinstated",
    "events.transactions.participant.defaulted",
    "events.transactions.settlement.posted",
];

/// Below the time after which Postgres ends a transaction that does nothing.
const CALL: Duration = Duration::from_secs(2);

/// Routes what one consumer reads.
pub struct Router {
    /// Who is told.
    pub subscriptions: Arc<Subscriptions>,
    /// The way to clearing, which knows positions.
    pub peers: Peers,
    /// Whose events it reads.
    pub domain: Domain,
}

#[async_trait]
impl Handler for Router {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let audience = self.subscriptions.audience(tx).await?;
        let mut outgoing = Vec::new();
        for delivery in events {
            outgoing.extend(self.routed(delivery, &audience).await?);
        }
        Ok(outgoing)
    }

    async fn reads(&self) -> Option<&'static [&'static str]> {
        if self.domain != Domain::Transactions {
            return None;
        }
        match self.subscriptions.audience_now().await {
            Ok(audience) if !audience.has(PAYMENTS) => Some(FUNDS),
            // Also where it is not known whether anybody wants to hear of payments: the transaction waits for it.
            _ => None,
        }
    }
}

impl Router {
    async fn routed(&self, delivery: &Delivery, audience: &Audience) -> Result<Vec<Outgoing>, ApplyError> {
        let Some(event) = delivery.engine_event() else { return Ok(Vec::new()) };
        let positions = match positions_needed(event, audience) {
            Some(netting_set) => self.positions(netting_set).await?,
            None => Positions::new(),
        };
        let told = route(event, &positions, audience).map_err(|e| ApplyError::Permanent(e.to_string()))?;
        let Ok((envelope, _)) = &*delivery.envelope else { return Ok(Vec::new()) };
        let correlation = envelope.metadata.correlation_id.clone().unwrap_or_else(|| envelope.event_id.to_string());
        let outgoing = told.into_iter().map(|told| {
            let participant = Kind::of(&told).map(|(_, participant)| participant);
            let mut outgoing = Outgoing::new(told, &correlation, crate::USER).caused_by(envelope.event_id);
            outgoing.context.participant_id = participant;
            outgoing
        });
        Ok(outgoing.collect())
    }

    /// The net positions of a netting set; they are frozen, so it does not matter when they are read.
    async fn positions(&self, netting_set: NettingSetId) -> Result<Positions, Failure> {
        let mut clearing = ClearingServiceClient::new(self.peers.to(crate::NAME, "clearing")?);
        let request = GetNettingSetRequest { netting_set_id: netting_set.to_string() };
        let answer = tokio::time::timeout(CALL, clearing.get_netting_set(request))
            .await
            .map_err(|_| Failure::unavailable("clearing does not answer in time"))??
            .into_inner();
        let set = answer.netting_set.ok_or_else(|| Failure::internal("clearing answered without a netting set"))?;
        set.positions
            .iter()
            .map(|position| {
                let participant: ParticipantId = wire::parse("participant", &position.participant)?;
                Ok((participant, wire::money("net", position.net.as_ref())?.minor()))
            })
            .collect()
    }
}
