//! Messages that no consumer could process: copied to `dlq.<stream>.<consumer>` with the reason,
//! then terminated.

use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;

use crate::broker::{Broker, BrokerError};

/// Header with the reason.
pub const REASON: &str = "Deltran-Reason";
/// Header with the stream it came from.
pub const STREAM: &str = "Deltran-Stream";
/// Header with its sequence there.
pub const SEQUENCE: &str = "Deltran-Sequence";
/// Header with the consumer that gave up.
pub const CONSUMER: &str = "Deltran-Consumer";
/// Header with the subject it was published on.
pub const SUBJECT: &str = "Deltran-Subject";
/// Header with the number of deliveries.
pub const ATTEMPTS: &str = "Deltran-Attempts";

/// A message to be put aside.
#[derive(Debug, Clone)]
pub struct DeadLetter<'a> {
    /// The stream it came from.
    pub stream: &'a str,
    /// Its sequence there.
    pub sequence: u64,
    /// The consumer that gave up.
    pub consumer: &'a str,
    /// The subject it was published on.
    pub subject: &'a str,
    /// Number of deliveries.
    pub attempts: u32,
    /// Why.
    pub reason: &'a str,
    /// Its bytes.
    pub payload: Bytes,
}

/// Stores a dead letter. The same one again is dropped by its id.
///
/// # Errors
/// Where the broker does not take it; the message must not be terminated then.
pub async fn publish(broker: &Broker, letter: DeadLetter<'_>) -> Result<(), BrokerError> {
    // Header values are one line.
    let reason: String = letter.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
    let message = PublishMessage::build()
        .message_id(format!("{}:{}:{}", letter.stream, letter.sequence, letter.consumer))
        .header(REASON, reason)
        .header(STREAM, letter.stream)
        .header(SEQUENCE, letter.sequence.to_string())
        .header(CONSUMER, letter.consumer)
        .header(SUBJECT, letter.subject)
        .header(ATTEMPTS, letter.attempts.to_string())
        .payload(letter.payload);
    let ack = broker
        .jetstream()
        .send_publish(format!("dlq.{}.{}", letter.stream, letter.consumer), message)
        .await
        .map_err(BrokerError::new)?;
    ack.await.map_err(BrokerError::new)?;
    Ok(())
}
