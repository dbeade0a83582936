//! Making a stream anew where the broker forgot: above every sequence that anybody knows, so that no cursor and no
//! sourcing stream takes a new message for one that it has seen.
//!
//! While it is refilled, a stream carries a mark in its metadata. Relays see it and keep their events in the outbox,
//! so that what is older comes first.

use deltran_events::topology::{self, Profile};
use serde_json::{Value, json};

use crate::broker::{Broker, BrokerError};
use crate::stored::{HELD, MARK, REFILLED, STREAM_NOT_FOUND};
use crate::topology::{Kind, Plan, Target, apply, plan};

/// Asks relays to keep their events for now.
///
/// # Errors
/// Where the broker does not answer, or there is no such stream.
pub async fn hold(broker: &Broker, stream: &str) -> Result<(), BrokerError> {
    mark(broker, stream, Some(HELD)).await
}

/// Lets relays publish again.
///
/// # Errors
/// As [`hold`].
pub async fn release(broker: &Broker, stream: &str) -> Result<(), BrokerError> {
    mark(broker, stream, None).await
}

async fn mark(broker: &Broker, stream: &str, word: Option<&str>) -> Result<(), BrokerError> {
    let mut config = request(broker, &format!("STREAM.INFO.{stream}"), &json!({})).await?["config"].take();
    let mut metadata = own_metadata(&config);
    match word {
        Some(word) => drop(metadata.insert(MARK.to_owned(), json!(word))),
        None => drop(metadata.remove(MARK)),
    }
    config["metadata"] = metadata.into();
    request(broker, &format!("STREAM.UPDATE.{stream}"), &config).await.map(drop)
}

/// Metadata without what the server writes.
fn own_metadata(config: &Value) -> serde_json::Map<String, Value> {
    let mut metadata = config["metadata"].as_object().cloned().unwrap_or_default();
    metadata.retain(|key, _| !key.starts_with("_nats."));
    metadata
}

/// Deletes a stream, where it is there, and creates it under the mark with `first_sequence`, as `config` says, or the
/// catalog where nobody knows how it was; then its consumers.
///
/// # Errors
/// Where the broker does not do it; doing it again is harmless.
pub async fn recreate(
    broker: &Broker,
    profile: Profile,
    stream: &str,
    first_sequence: u64,
    config: Option<Value>,
) -> Result<(), BrokerError> {
    let spec = topology::stream(stream).ok_or_else(|| BrokerError(format!("the catalog has no stream {stream}")))?;
    let mut config = config.filter(Value::is_object).unwrap_or_else(|| spec.config_json(profile));
    let mut metadata = own_metadata(&config);
    metadata.insert(MARK.to_owned(), json!(REFILLED));
    config["metadata"] = metadata.into();
    config["first_seq"] = first_sequence.into();
    for source in config.get_mut("sources").and_then(Value::as_array_mut).into_iter().flatten() {
        source["opt_start_seq"] = 1.into();
    }
    match request(broker, &format!("STREAM.DELETE.{stream}"), &json!({})).await {
        Err(error) if !error.0.contains(&STREAM_NOT_FOUND.to_string()) => return Err(error),
        _ => {}
    }
    request(broker, &format!("STREAM.CREATE.{stream}"), &config).await?;
    consumers(broker, profile, stream).await
}

/// Creates what consumers a stream lacks.
///
/// # Errors
/// Where the broker does not do it.
pub async fn consumers(broker: &Broker, profile: Profile, stream: &str) -> Result<(), BrokerError> {
    let mut missing: Plan = plan(broker, profile, None).await.map_err(BrokerError::new)?;
    missing.changes.retain(|change| {
        change.kind == Kind::Create && matches!(&change.target, Target::Consumer(of, _) if of == stream)
    });
    apply(broker, &missing, false).await.map_err(BrokerError::new)?;
    Ok(())
}

async fn request(broker: &Broker, subject: &str, body: &Value) -> Result<Value, BrokerError> {
    let answer: Value = broker.jetstream().request(subject.to_owned(), body).await.map_err(BrokerError::new)?;
    match answer.get("error") {
        None => Ok(answer),
        Some(error) => Err(BrokerError(format!("{subject}: {error}"))),
    }
}
