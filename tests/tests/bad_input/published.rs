//! What the platform publishes: services, streams and events against the committed contract.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use async_nats::jetstream;
use deltran_tests::node::Deltran;
use jsonschema::Validator;
use prost::Message;
use serde_json::{Value, json};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const STREAMS: [&str; 8] =
    ["TRANSACTIONS", "COMPLIANCE", "RISK", "CLEARING", "SETTLEMENT", "NOTIFICATIONS", "REPORTING", "AUDIT"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Reflection lists every service of the contract, and health says that every engine serves. Neither asks who calls.
pub async fn services_are_listed_and_serving(node: &Deltran) {
    let contract = prost_types::FileDescriptorSet::decode(deltran_api::DESCRIPTORS).unwrap();
    let services: BTreeSet<String> = contract
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(|service| format!("{}.{}", file.package(), service.name())))
        .collect();
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let mut reflection = ServerReflectionClient::new(node.channel());
    let questions = std::iter::once(MessageRequest::ListServices(String::new()))
        .chain(services.iter().cloned().map(MessageRequest::FileContainingSymbol));
    let requests: Vec<_> = questions.map(ask).collect();
    let mut answers = reflection.server_reflection_info(futures::stream::iter(requests)).await.unwrap().into_inner();
    let mut described = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => {
                let listed: BTreeSet<String> = list.service.into_iter().map(|service| service.name).collect();
                assert!(services.is_subset(&listed), "{services:?} in {listed:?}");
                assert!(listed.contains("grpc.health.v1.Health"), "{listed:?}");
            }
            MessageResponse::FileDescriptorResponse(files) => {
                assert!(!files.file_descriptor_proto.is_empty());
                described += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(described, services.len());
    let mut health = HealthClient::new(node.channel());
    let own =
        services.iter().map(String::as_str).filter(|name| name.starts_with("deltran.") && !name.contains("platform"));
    for service in deltran_tests::parts().iter().map(|part| part.name).chain([""]).chain(own) {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await;
        let status = answer.unwrap_or_else(|e| panic!("{service}: {e}")).into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
}

/// Streams and consumers of the broker equal the files under `setup/`.
pub async fn streams_are_as_the_files_say(node: &Deltran) {
    let setup = repository().join("setup").display().to_string();
    let plan = node.must(&["topology", "check", "--dir", &setup]).await;
    assert_eq!(plan["changes"], json!([]));
    let plan = node.must(&["topology", "check"]).await;
    assert_eq!(plan["changes"], json!([]));
}

fn compile(path: &Path) -> Validator {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let schema: Value = serde_json::from_slice(&text).unwrap();
    let options = jsonschema::options().with_draft(jsonschema::Draft::Draft202012).should_validate_formats(true);
    options.build(&schema).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Reads every message of every event stream: it validates against the committed schemas, the numbers of every producer go
/// from 1 on without a gap, and the audit stream has the same bytes.
pub async fn every_event_validates_and_no_number_is_missing(node: &Deltran) {
    let schemas = repository().join("schemas");
    let envelope = compile(&schemas.join("envelope.schema.json"));
    let mut validators: BTreeMap<PathBuf, Validator> = BTreeMap::new();
    let mut producers: BTreeMap<String, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
    let mut types = BTreeSet::new();
    let client = async_nats::connect(node.told("nats")).await.unwrap();
    let broker = jetstream::new(client);
    for stream in STREAMS {
        let stored = broker.get_stream(stream).await.unwrap();
        let state = stored.cached_info().state.clone();
        for sequence in 1..=state.last_sequence {
            let message = stored.get_raw_message(sequence).await.unwrap();
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            let place = format!("{stream} {sequence}: {event}");
            let errors: Vec<String> = envelope.iter_errors(&event).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{place}: {errors:?}");
            let mut subject = message.subject.as_str().splitn(3, '.').skip(1);
            let (domain, event_type) = (subject.next().unwrap(), subject.next().unwrap());
            assert_eq!(event["event_type"], event_type, "{place}");
            let path = schemas.join(domain).join(format!("{event_type}.schema.json"));
            let validator = validators.entry(path).or_insert_with_key(|path| compile(path));
            let errors: Vec<String> = validator.iter_errors(&event["data"]).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{place}: {errors:?}");
            types.insert(event_type.to_owned());

            let producer = event["metadata"]["producer"].as_str().unwrap_or_else(|| panic!("{place}"));
            let number = event["metadata"]["producer_seq"].as_u64().unwrap();
            let bytes = message.payload.to_vec();
            match producers.entry(producer.to_owned()).or_default().insert(number, bytes.clone()) {
                None => {
                    assert_ne!((stream, domain == "audit"), ("AUDIT", false), "only the audit stream has it: {place}")
                }
                Some(first) => assert_eq!((stream, &first), ("AUDIT", &bytes), "published twice: {place}"),
            }
        }
    }
    assert!(producers.len() >= 5, "{:?}", producers.keys());
    for (producer, events) in &producers {
        assert!(events.keys().copied().eq(1..=events.len() as u64), "{producer}: {:?}", events.keys());
    }
    for event_type in [
        "participant.registered",
        "participant.suspended",
        "deposit.confirmed",
        "limit.changed",
        "transaction.created",
        "transaction.rejected",
        "transaction.released",
        "transaction.expired",
        "withdrawal.confirmed",
        "hold.placed",
        "hold.released",
        "window.sealed",
        "netting.completed",
        "window.settled",
        "batch.settled",
    ] {
        assert!(types.contains(event_type), "{event_type} was not published: {types:?}");
    }
}
