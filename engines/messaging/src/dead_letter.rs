//! Messages that no consumer could process: copied to `dlq.<stream>.<consumer>` with the reason,
//! then terminated.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;
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
/// Header of a message that was published again: the id of its dead letter.
pub const REPLAY: &str = "Deltran-Replay";

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

/// Fetches a message that the broker gave up on: its subject and bytes; `None` where its stream let
/// it go, or the stream itself is gone.
///
/// # Errors
/// Where the broker does not answer.
pub async fn fetch(broker: &Broker, stream: &str, sequence: u64) -> Result<Option<(String, Bytes)>, BrokerError> {
    let stream = broker.jetstream().get_stream_no_info(stream).await.map_err(BrokerError::new)?;
    match stream.get_raw_message(sequence).await {
        Ok(message) => Ok(Some((message.subject.to_string(), message.payload))),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(BrokerError::new(error)),
        },
    }
}

/// Publishes a dead letter's bytes again under their first subject, as the replay `number` of the
/// letter `id`. The same replay again is dropped by its id, as long as the stream remembers.
///
/// # Errors
/// Where the broker does not acknowledge it: whether it was stored is unknown then.
pub async fn replay(broker: &Broker, id: u64, number: u32, subject: &str, payload: Bytes) -> Result<(), BrokerError> {
    let message = PublishMessage::build()
        .message_id(format!("replay:{id}:{number}"))
        .header("Content-Type", "application/json")
        .header(REPLAY, id.to_string())
        .payload(payload);
    let ack = broker.jetstream().send_publish(subject.to_owned(), message).await.map_err(BrokerError::new)?;
    ack.await.map_err(BrokerError::new)?;
    Ok(())
}
