//! Making a stream anew where the broker forgot: above every sequence that anybody knows, so that no cursor and no
//! sourcing stream takes a new message for one that it has seen.
//!
//! While it is refilled, a stream carries a mark in its metadata. Relays see it and keep their events in the outbox,
//! so that what is older comes first.

use deltran_events::topology::{self, Profile};
use serde_json::{Value, json};

use crate::broker::{Broker, BrokerError};
use crate::stored::{HELD, MARK, REFILLED};
use crate::topology::{Kind, SERVER_METADATA, STREAM_NOT_FOUND, Target, TopologyError, actual, apply, plan, request};

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
    let target = Target::Stream(stream.to_owned());
    let gone = || BrokerError(format!("there is no stream {stream}"));
    let mut config = actual(broker, &target).await?.ok_or_else(gone)?;
    let mut metadata = own_metadata(&config);
    match word {
        Some(word) => drop(metadata.insert(MARK.to_owned(), json!(word))),
        None => drop(metadata.remove(MARK)),
    }
    config["metadata"] = metadata.into();
    request(broker, &target, format!("STREAM.UPDATE.{stream}"), &config).await?;
    Ok(())
}

/// Metadata without what the server writes.
fn own_metadata(config: &Value) -> serde_json::Map<String, Value> {
    let mut metadata = config["metadata"].as_object().cloned().unwrap_or_default();
    metadata.retain(|key, _| !key.starts_with(SERVER_METADATA));
    metadata
}

/// Deletes a stream, where it is there, and creates it under the mark with `first_sequence`, as `config` says, or the
/// catalog where nobody knows how it was.
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
    let target = Target::Stream(stream.to_owned());
    match request(broker, &target, format!("STREAM.DELETE.{stream}"), &json!({})).await {
        Ok(_) | Err(TopologyError::Refused { code: STREAM_NOT_FOUND, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    request(broker, &target, format!("STREAM.CREATE.{stream}"), &config).await?;
    Ok(())
}

/// Creates what consumers these streams lack.
///
/// # Errors
/// Where the broker does not do it.
pub async fn consumers(broker: &Broker, profile: Profile, streams: &[&str]) -> Result<(), BrokerError> {
    let mut missing = plan(broker, profile, None).await?;
    missing.changes.retain(|change| {
        change.kind == Kind::Create
            && matches!(&change.target, Target::Consumer(of, _) if streams.contains(&of.as_str()))
    });
    apply(broker, &missing, false).await?;
    Ok(())
}
