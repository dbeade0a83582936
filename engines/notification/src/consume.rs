//! `notification-engine-consumer`: files each notification in its participant's feed under the next position, and
//! hands it to webhooks in the same transaction. That is all it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use deltran_events::Envelope;
use deltran_kernel::{Clock, EventId};
use deltran_messaging::{ApplyError, Delivery, Handler, Outgoing};
use serde_json::Value;
use sqlx::PgConnection;
use tokio::sync::Notify;

use crate::domain::notification::body;
use crate::domain::{Kind, Notification};
use crate::feed::Pulse;
use crate::store;

/// Files notifications.
pub struct Filing {
    /// The present time.
    pub clock: Arc<dyn Clock>,
    /// Wakes readers of feeds.
    pub pulse: Arc<Pulse>,
    /// Wakes the sender of webhooks.
    pub sender: Arc<Notify>,
}

#[async_trait]
impl Handler for Filing {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let mut arrived = BTreeSet::new();
        let mut notifications = Vec::with_capacity(events.len());
        for delivery in events {
            let Some(notification) = read(delivery)? else { continue };
            // Its place is given below; the same id within a batch counts once.
            if arrived.insert(notification.0.id) {
                notifications.push(notification);
            }
        }
        let ids: Vec<EventId> = arrived.into_iter().collect();
        let known = store::feed::known(&mut *tx, &ids).await?;
        notifications.retain(|(notification, _)| !known.contains(&notification.id));
        if notifications.is_empty() {
            return Ok(Vec::new());
        }
        let mut counts = BTreeMap::new();
        for (notification, _) in &notifications {
            *counts.entry(notification.participant).or_insert(0) += 1;
        }
        let mut next = store::feed::advance(&mut *tx, &counts).await?;
        let mut placed = Vec::with_capacity(notifications.len());
        for (mut n, data) in notifications {
            let position = next
                .get_mut(&n.participant)
                .ok_or_else(|| ApplyError::Permanent(format!("no position was given to {}", n.participant)))?;
            n.position = *position;
            *position += 1;
            n.body = body(n.id, n.kind, n.position, n.at, n.participant, &data)
                .map_err(|e| ApplyError::Permanent(e.to_string()))?;
            placed.push(n);
        }
        store::feed::file(&mut *tx, &placed, self.clock.now()).await?;
        store::deliveries::file(tx, &placed).await?;
        Ok(Vec::new())
    }

    fn committed(&self) {
        self.pulse.filed();
        self.sender.notify_one();
    }
}

/// The notification of a message, without its place, and its data as it was published; none where the engine did not
/// publish it.
fn read(delivery: &Delivery) -> Result<Option<(Notification, Value)>, ApplyError> {
    let (Some(event), Ok((envelope, _))) = (delivery.engine_event(), &*delivery.envelope) else { return Ok(None) };
    let Some((kind, participant)) = Kind::of(event) else { return Ok(None) };
    if envelope.metadata.participant_id != Some(participant) {
        let message = format!("{} is for {participant} and its metadata names somebody else", envelope.event_id);
        return Err(ApplyError::Permanent(message));
    }
    let notification = Notification {
        id: envelope.event_id,
        participant,
        kind,
        position: 0,
        at: envelope.timestamp,
        body: String::new(),
    };
    // What a later release added to the data is told as well.
    let published: Envelope<Value> =
        serde_json::from_slice(&delivery.payload).map_err(|e| ApplyError::Permanent(e.to_string()))?;
    Ok(Some((notification, published.data)))
}
