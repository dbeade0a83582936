//! Streams as the broker stores them: what it says about one, its messages in order, and publishing again what one
//! lacks.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use deltran_kernel::Timestamp;
use futures::stream::FuturesOrdered;
use futures::{Stream, StreamExt};
use serde_json::{Value, json};

use crate::broker::{Broker, BrokerError};
use crate::topology::{MESSAGE_NOT_FOUND, Target, TopologyError, info, request};

/// Key in the metadata of a stream that is not to be published to for now.
pub const MARK: &str = "deltran.mark";
/// The next message of a stream may take so long.
const NEXT: Duration = Duration::from_secs(30);
/// Header of an event that was published again; consumers decide by its number what that means.
pub const AGAIN: &str = "Deltran-Again";

/// Why relays keep their events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The stream is about to be made anew.
    Held,
    /// It was made anew, and is being filled from the ledger.
    Refilled,
}

/// The words of marks.
pub(crate) const HELD: &str = "held";
pub(crate) const REFILLED: &str = "refilled";

/// What the broker says about a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamState {
    /// When the broker created it, in its own words: another text is another stream under the same name.
    pub created: String,
    /// The sequence that it was created to begin with; 0 where nobody said.
    pub begins_at: u64,
    /// Messages that it holds.
    pub messages: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The lowest sequence that it holds; one above the last where it holds none.
    pub first_sequence: u64,
    /// The last sequence that it gave out.
    pub last_sequence: u64,
    /// When its first message was stored, where it holds any.
    pub first_at: Option<Timestamp>,
    /// When its last message was stored, where it holds any.
    pub last_at: Option<Timestamp>,
    /// How long it keeps a message; `None` for ever.
    pub max_age: Option<Duration>,
    /// Its largest size in bytes; `None` without bound.
    pub max_bytes: Option<u64>,
    /// Whether it lets the oldest message go when it is full.
    pub discards_old: bool,
    /// Why relays keep their events for now, where they are to.
    pub mark: Option<Mark>,
    /// Its whole configuration, in the broker's words.
    pub config: Value,
}

/// What a stream is like; `None` where there is no such stream.
///
/// # Errors
/// Where the broker does not answer, or not in words that are known.
pub async fn state(broker: &Broker, stream: &str) -> Result<Option<StreamState>, BrokerError> {
    let Some(answer) = info(broker, &Target::Stream(stream.to_owned())).await? else { return Ok(None) };
    read_state(&answer).map(Some).ok_or_else(|| BrokerError(format!("stream {stream}: not understood: {answer}")))
}

fn read_state(answer: &Value) -> Option<StreamState> {
    let (config, state) = (&answer["config"], &answer["state"]);
    let bound = |value: &Value| value.as_i64().filter(|n| *n > 0).map(i64::unsigned_abs);
    let messages = state["messages"].as_u64()?;
    Some(StreamState {
        created: answer["created"].as_str()?.to_owned(),
        begins_at: config["first_seq"].as_u64().unwrap_or(0),
        messages,
        bytes: state["bytes"].as_u64()?,
        first_sequence: state["first_seq"].as_u64()?,
        last_sequence: state["last_seq"].as_u64()?,
        max_age: bound(&config["max_age"]).map(Duration::from_nanos),
        max_bytes: bound(&config["max_bytes"]),
        discards_old: config["discard"].as_str() != Some("new"),
        first_at: state["first_ts"].as_str().filter(|_| messages > 0).and_then(|at| at.parse().ok()),
        last_at: state["last_ts"].as_str().filter(|_| messages > 0).and_then(|at| at.parse().ok()),
        mark: config["metadata"][MARK].as_str().map(|word| if word == REFILLED { Mark::Refilled } else { Mark::Held }),
        config: config.clone(),
    })
}

/// When the message at a sequence of a stream was stored; `None` where none stands there.
///
/// # Errors
/// Where the broker does not answer, or not in words that are known.
pub async fn stored_at(broker: &Broker, stream: &str, sequence: u64) -> Result<Option<Timestamp>, BrokerError> {
    let (target, subject) = (Target::Stream(stream.to_owned()), format!("STREAM.MSG.GET.{stream}"));
    let answer = match request(broker, &target, subject, &json!({"seq": sequence})).await {
        Ok(answer) => answer,
        Err(TopologyError::Refused { code: MESSAGE_NOT_FOUND, .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let at = answer["message"]["time"].as_str().and_then(|at| at.parse().ok());
    at.map(Some)
        .ok_or_else(|| BrokerError(format!("message {sequence} of stream {stream}: no time that is understood")))
}

/// A message where it is stored.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Its sequence.
    pub sequence: u64,
    /// The subject it was published on.
    pub subject: String,
    /// Its exact bytes.
    pub payload: Bytes,
    /// When the broker stored it.
    pub stored_at: Timestamp,
}

/// The messages of a stream from sequence `from` to `to`, both included, in order. It ends where no more of them are
/// there.
///
/// # Errors
/// Where the broker does not answer; also in the middle.
pub async fn read(
    broker: &Broker,
    stream: &str,
    from: u64,
    to: u64,
) -> Result<impl Stream<Item = Result<StoredMessage, BrokerError>> + Send + use<>, BrokerError> {
    read_of(broker, stream, "", from, to).await
}

/// As [`read`], but only the messages on subjects of a filter; empty for all.
///
/// # Errors
/// As [`read`].
pub async fn read_of(
    broker: &Broker,
    stream: &str,
    filter: &str,
    from: u64,
    to: u64,
) -> Result<impl Stream<Item = Result<StoredMessage, BrokerError>> + Send + use<>, BrokerError> {
    let handle = broker.jetstream().get_stream_no_info(stream).await.map_err(BrokerError::new)?;
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: from.max(1) };
    let config = pull::OrderedConfig { deliver_policy, filter_subject: filter.to_owned(), ..Default::default() };
    let consumer = handle.create_consumer(config).await.map_err(BrokerError::new)?;
    let nothing = from > to || consumer.cached_info().num_pending == 0;
    let messages = consumer.messages().await.map_err(BrokerError::new)?;
    Ok(futures::stream::try_unfold((messages, nothing), move |(mut messages, done)| async move {
        if done {
            return Ok(None);
        }
        let message = tokio::time::timeout(NEXT, messages.next())
            .await
            .map_err(|_| BrokerError(format!("no message came within {} s", NEXT.as_secs())))?;
        let Some(message) = message else { return Err(BrokerError::new("the messages broke off")) };
        let message = message.map_err(BrokerError::new)?;
        let info = message.info().map_err(BrokerError::new)?;
        let sequence = info.stream_sequence;
        if sequence > to {
            return Ok(None);
        }
        let last = sequence == to || info.pending == 0;
        let nanos = info.published.unix_timestamp_nanos();
        let stored = StoredMessage {
            sequence,
            subject: message.subject.to_string(),
            payload: message.payload.clone(),
            stored_at: Timestamp::from_micros(i64::try_from(nanos.div_euclid(1000)).unwrap_or(i64::MAX)),
        };
        Ok(Some((stored, (messages, last))))
    }))
}

/// An event to be published again.
#[derive(Debug, Clone)]
pub struct Again {
    /// Where.
    pub subject: String,
    /// Its id, which is that of the message.
    pub event_id: uuid::Uuid,
    /// Its exact bytes.
    pub payload: Bytes,
}

/// Publishes bytes that are no engine's event, under an id of its own; the same id again is dropped.
///
/// # Errors
/// Where the broker does not acknowledge it.
pub async fn publish_raw(broker: &Broker, subject: String, id: String, payload: Bytes) -> Result<(), BrokerError> {
    let message = PublishMessage::build().payload(payload).message_id(id).header(AGAIN, "1");
    let ack = broker.jetstream().send_publish(subject, message).await.map_err(BrokerError::new)?;
    ack.await.map_err(BrokerError::new)?;
    Ok(())
}

/// What the broker answered to an event that was published again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is stored in this stream at this sequence.
    Stored(String, u64),
    /// It still remembers the id, and stored nothing.
    Remembered,
    /// It did not take it, for this reason.
    Refused(String),
}

/// Publishes events again, in order, with their exact bytes and the id that they had; answers in the same order.
pub async fn publish_again(broker: &Broker, events: Vec<Again>) -> Vec<Answer> {
    let mut answers = FuturesOrdered::new();
    for event in events {
        let schema = schema_of(&event.payload);
        let mut message = PublishMessage::build()
            .payload(event.payload)
            .message_id(event.event_id.to_string())
            .header("Content-Type", "application/json")
            .header(AGAIN, "1");
        if let Some(schema) = schema {
            message = message.header("Deltran-Schema", schema);
        }
        let sent = broker.jetstream().send_publish(event.subject, message).await;
        answers.push_back(async move {
            let ack = match sent {
                Ok(ack) => ack.await.map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match ack {
                Ok(ack) if ack.duplicate => Answer::Remembered,
                Ok(ack) => Answer::Stored(ack.stream, ack.sequence),
                Err(error) => Answer::Refused(error),
            }
        });
    }
    answers.collect().await
}

/// `<event_type>/<version>`, as an envelope says.
fn schema_of(envelope: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(envelope).ok()?;
    Some(format!("{}/{}", value["event_type"].as_str()?, value["version"].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_state_is_read_from_the_words_of_the_broker() {
        let answer = json!({
            "created": "2026-01-01T00:00:00.5Z",
            "config": {"max_age": 604_800_000_000_000_u64, "max_bytes": -1, "discard": "new", "first_seq": 42,
                "metadata": {MARK: REFILLED}},
            "state": {"messages": 3, "bytes": 900, "first_seq": 42, "last_seq": 44, "first_ts": "2026-01-01T00:00:01Z",
                "last_ts": "2026-01-01T00:00:02.123456789Z"},
        });
        let state = read_state(&answer).unwrap();
        assert_eq!((state.begins_at, state.messages, state.last_sequence), (42, 3, 44));
        assert_eq!((state.max_age, state.max_bytes), (Some(Duration::from_secs(604_800)), None));
        assert!(!state.discards_old && state.mark == Some(Mark::Refilled) && state.created.ends_with(".5Z"));
        assert_eq!(state.first_at, "2026-01-01T00:00:01Z".parse().ok());
        assert_eq!(state.last_at, "2026-01-01T00:00:02.123456Z".parse().ok());
        assert_eq!(read_state(&json!({"config": {}, "state": {}})), None);
    }
}
