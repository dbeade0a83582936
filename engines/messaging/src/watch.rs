//! Reading a stream from a position on, for answers that go on for ever.

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use bytes::Bytes;
use futures::{Stream, StreamExt};

use crate::broker::{Broker, BrokerError};

/// A stored message.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its sequence in the stream: the position to resume from.
    pub position: u64,
    /// The subject it was published on.
    pub subject: String,
    /// Its bytes.
    pub payload: Bytes,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// After this position; 0 is the oldest that is kept.
    After(u64),
    /// With what comes next.
    Now,
}

/// The messages of a stream on a subject filter, in order, then live. The stream of answers ends with
/// an error where the broker goes away; the caller resumes from the last position.
///
/// # Errors
/// Where the broker does not answer.
pub async fn watch(
    broker: &Broker,
    stream: &str,
    filter: &str,
    from: From,
) -> Result<impl Stream<Item = Result<Seen, BrokerError>> + Send + use<>, BrokerError> {
    let deliver_policy = match from {
        From::After(0) => DeliverPolicy::All,
        From::After(position) => DeliverPolicy::ByStartSequence { start_sequence: position.saturating_add(1) },
        From::Now => DeliverPolicy::New,
    };
    let stream = broker.jetstream().get_stream_no_info(stream).await.map_err(BrokerError::new)?;
    let config = pull::OrderedConfig { filter_subject: filter.to_owned(), deliver_policy, ..Default::default() };
    let messages =
        stream.create_consumer(config).await.map_err(BrokerError::new)?.messages().await.map_err(BrokerError::new)?;
    Ok(messages.map(|message| {
        let message = message.map_err(BrokerError::new)?;
        let position = message.info().map_err(BrokerError::new)?.stream_sequence;
        Ok(Seen { position, subject: message.subject.to_string(), payload: message.payload.clone() })
    }))
}
