//! Publishing encoded events to their streams, with the acknowledgements pipelined.

use std::future::IntoFuture;

use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use futures::StreamExt;
use futures::stream::FuturesOrdered;

use crate::broker::{Broker, BrokerError};
use crate::outbox::Row;

/// Acknowledgements under way.
pub struct Acks(FuturesOrdered<<PublishAckFuture as IntoFuture>::IntoFuture>);

/// Sequences that the broker gave as those of what was published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// The highest, also of what it had stored before; 0 where there is none. The stream reached at least this.
    pub highest: u64,
    /// The lowest of what it had not stored before.
    pub lowest: Option<u64>,
}

impl Acks {
    /// Waits for every acknowledgement; a duplicate is as good as the first.
    ///
    /// # Errors
    /// Where the broker did not take one, or did not say so in time.
    pub async fn all(mut self) -> Result<Stored, BrokerError> {
        let mut all = Stored::default();
        while let Some(ack) = self.0.next().await {
            let ack = ack.map_err(BrokerError::new)?;
            all.highest = all.highest.max(ack.sequence);
            if !ack.duplicate {
                all.lowest = Some(all.lowest.map_or(ack.sequence, |lowest| lowest.min(ack.sequence)));
            }
        }
        Ok(all)
    }
}

/// Sends rows in their order. What they are is stored once [`Acks::all`] says so.
///
/// # Errors
/// Where the connection takes no more.
pub async fn publish(broker: &Broker, rows: impl IntoIterator<Item = Row>) -> Result<Acks, BrokerError> {
    let mut acks = FuturesOrdered::new();
    for row in rows {
        let mut message = PublishMessage::build()
            .payload(row.envelope)
            .message_id(row.event_id.to_string())
            .header("Content-Type", "application/json")
            .header("Deltran-Schema", row.schema);
        if let Some(trace) = row.trace {
            message = message.header("traceparent", trace);
        }
        let ack = broker.jetstream().send_publish(row.subject, message).await.map_err(BrokerError::new)?;
        acks.push_back(ack.into_future());
    }
    Ok(Acks(acks))
}
