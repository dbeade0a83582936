//! What is read and what is refused, and that the published envelope schema says the same.

use deltran_events::data::transactions::WindowSealed;
use deltran_events::{Amount, Context, DecodeError, Envelope, Event, MAX_ENVELOPE_BYTES, Stamp, encode, schema};
use deltran_kernel::{Currency, Timestamp};
use jsonschema::Validator;
use serde_json::{Value, json};

const SUBJECT: &str = "events.transactions.deposit.confirmed";

fn deposit(amount: Value, currency: &str) -> Value {
    json!({"participant": "ALFAAEXX", "amount": amount, "currency": currency, "reference": "MT910-1"})
}

fn envelope() -> Value {
    json!({
        "event_id": "0190c3d5-0000-7000-8000-000000000001",
        "event_type": "deposit.confirmed",
        "timestamp": "2025-11-06T12:00:00.000000Z",
        "source": "token-engine",
        "version": "1.0",
        "data": deposit("1000.00".into(), "USD"),
        "metadata": {"correlation_id": "c", "user_id": "u", "producer": "token-engine/1", "producer_seq": 184_467}
    })
}

fn decode(value: &Value) -> Result<Event, DecodeError> {
    Ok(Envelope::decode(SUBJECT, value.to_string().as_bytes())?.0.data)
}

/// The envelope with the value at a pointer replaced or added.
fn with(pointer: &str, value: Value) -> Value {
    let mut changed = envelope();
    if pointer == "/source" {
        // A producer belongs to its source, which would refuse the change for another reason.
        changed["metadata"] = json!({});
    }
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.insert(name.to_owned(), value);
    changed
}

fn without(pointer: &str) -> Value {
    let mut changed = envelope();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    changed.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
    changed
}

fn envelope_validator() -> Validator {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(&schema::envelope_document())
        .unwrap()
}

#[test]
fn the_schema_of_the_envelope_and_the_reader_accept_the_same() {
    let v4 = "7d444840-9dc0-41d1-b245-5ffdce74fad2";
    let good = [
        envelope(),
        with("/event_id", v4.into()),
        with("/timestamp", "2025-11-06T12:00:00Z".into()),
        with("/timestamp", "2024-02-29T23:59:59.123456789Z".into()),
        with("/source", "bank-gateway".into()),
        with("/version", "1.17".into()),
        with("/metadata", json!({})),
        with(
            "/metadata",
            json!({"correlation_id": null, "user_id": null, "causation_id": null, "participant_id": null}),
        ),
        with(
            "/metadata",
            json!({"causation_id": v4, "participant_id": "ALFAAEXX500", "trace": "of an outside publisher"}),
        ),
    ];
    let mut bad = vec![
        json!([]),
        json!("text"),
        json!(null),
        json!([
            "0190c3d5-0000-7000-8000-000000000001",
            "deposit.confirmed",
            "2025-11-06T12:00:00Z",
            "token-engine",
            "1.0",
            {},
            {}
        ]),
        with("/extra", 1.into()),
        with("/metadata/producer_seq", 0.into()),
        with("/metadata/producer_seq", (-1).into()),
        with("/metadata/producer_seq", "1".into()),
        with("/metadata/producer_seq", (1_u64 << 53).into()),
        with("/metadata/producer_seq", json!(1.5)),
        with("/metadata/producer_seq", Value::Null),
        with("/metadata/producer", Value::Null),
        without("/metadata/producer_seq"),
        without("/metadata/producer"),
        with("/metadata/causation_id", "no-uuid".into()),
        with("/metadata/participant_id", "alfaaexx".into()),
        with("/metadata/correlation_id", 7.into()),
    ];
    for field in ["event_id", "event_type", "timestamp", "source", "version", "data", "metadata"] {
        bad.push(without(&format!("/{field}")));
        for value in [Value::Null, json!(1), json!([]), json!("")] {
            bad.push(with(&format!("/{field}"), value));
        }
    }
    let texts: &[(&str, &[&str])] = &[
        (
            "event_id",
            &[
                "0190C3D5-0000-7000-8000-00000000000A",
                "0190c3d5000070008000000000000001",
                "urn:uuid:0190c3d5-0000-7000-8000-000000000001",
                "{0190c3d5-0000-7000-8000-000000000001}",
                "00000000-0000-0000-0000-000000000000",
                "0190c3d5-0000-7000-8000-000000000001 ",
            ],
        ),
        ("event_type", &["deposit", "deposit.", ".confirmed", "Deposit.confirmed", "deposit.confirmed.", "a.b.c"]),
        (
            "timestamp",
            &[
                "2025-11-06 12:00:00Z",
                "2025-11-06T12:00:00",
                "2025-11-06T12:00:00+00:00",
                "2025-11-06T14:00:00+02:00",
                "2025-11-06t12:00:00z",
                "2025-11-06T12:00Z",
                "2025-11-06T12:00:00.Z",
                "2025-11-06T12:00:00.1234567890Z",
                "2025-02-30T12:00:00Z",
                "2025-13-01T12:00:00Z",
                "2025-11-06T25:00:00Z",
                "2025-11-06T12:00:00Z[UTC]",
                "2025-11-06T12:00:00,5Z",
                "+002025-11-06T12:00:00Z",
                "２025-11-06T12:00:00Z",
                "1762430400",
            ],
        ),
        ("source", &["Token-Engine", "token engine", "-token", "1token", "token/engine"]),
        ("version", &["1", "1.", ".0", "1.0.0", "v1.0", "1.+0", "01.0", "1.00", "1.-1", " 1.0", "1.0 "]),
        (
            "metadata/producer",
            &["token-engine", "token-engine/", "token-engine/x", "/1", "token-engine/1/2", "token-engine/-1"],
        ),
    ];
    for (field, values) in texts {
        bad.extend(values.iter().map(|value| with(&format!("/{field}"), (*value).into())));
    }

    let validator = envelope_validator();
    for value in &good {
        assert!(validator.is_valid(value), "the schema refuses {value}");
        assert!(decode(value).is_ok(), "{:?}: {value}", decode(value));
    }
    for value in &bad {
        assert!(!validator.is_valid(value), "the schema accepts {value}");
        assert!(decode(value).is_err(), "the reader accepts {value}");
    }
}

#[test]
fn versions_of_another_major_are_unknown() {
    for version in ["2.0", "0.9", "10.0", "1"] {
        match decode(&with("/version", version.into())) {
            Err(DecodeError::UnknownVersion { found, known, .. }) => {
                assert_eq!((found.as_str(), known.as_str()), (version, "1"))
            }
            other => panic!("{version}: {other:?}"),
        }
    }
}

#[test]
fn a_later_minor_version_may_add_to_the_data_and_nothing_else() {
    let mut later = with("/version", "1.1".into());
    later["data"]["colour"] = "blue".into();
    assert!(decode(&later).is_ok());
    later["colour"] = "blue".into();
    assert!(matches!(decode(&later), Err(DecodeError::Envelope(_))));
}

#[test]
fn the_subject_must_agree_with_the_type() {
    let line = envelope().to_string();
    let read = |subject: &str| Envelope::decode(subject, line.as_bytes()).map(|(_, spec)| spec.subject());
    for subject in [SUBJECT, "events.transactions.confirmed", "events.transactions.deposit"] {
        assert_eq!(read(subject).as_deref(), Ok(SUBJECT), "{subject}");
    }
    for subject in [
        "events.transactions.deposit.expired",
        "events.clearing.deposit.confirmed",
        "events.transactions.deposit.confirmed.x",
        "events.transactions",
        "events.transactions.",
        "transactions.deposit.confirmed",
        "dlq.deposit.confirmed",
        "",
    ] {
        assert!(matches!(read(subject), Err(DecodeError::UnknownEvent { .. })), "{subject}");
    }
}

#[test]
fn two_domains_may_have_events_of_one_type() {
    let row = |domain: &str, event_type: &str| {
        deltran_events::EventSpec::of_subject(&format!("events.{domain}.{event_type}"), event_type)
            .map(|spec| spec.domain.name())
    };
    assert_eq!(row("transactions", "window.sealed"), Some("transactions"));
    assert_eq!(row("clearing", "window.closed"), Some("clearing"));
    assert_eq!(row("clearing", "window.sealed"), None);
}

#[test]
fn amounts_are_exact_in_their_currency_or_the_event_is_invalid() {
    for (amount, currency) in [
        (json!("1000.00"), "USD"),
        (json!(1000.00), "USD"),
        (json!(1000), "USD"),
        (json!(0.5), "USD"),
        (json!("1000"), "JPY"),
        (json!(1000.0), "JPY"),
        (json!("1.234"), "BHD"),
        (json!("12345678901234567.89"), "USD"),
        (json!(1234567890123.45), "USD"),
    ] {
        assert!(decode(&with("/data", deposit(amount.clone(), currency))).is_ok(), "{amount} {currency}");
    }
    for (amount, currency) in [
        (json!("1000.0"), "USD"),
        (json!("1000"), "USD"),
        (json!(1000.001), "USD"),
        (json!("1.5"), "JPY"),
        (json!(1.5), "JPY"),
        (json!("1e3"), "JPY"),
        (json!("+1.00"), "USD"),
        (json!(""), "USD"),
        (json!(true), "USD"),
        (json!(null), "USD"),
        (json!("1.00"), "XXX"),
        (json!("1.00"), "usd"),
    ] {
        let refused = decode(&with("/data", deposit(amount.clone(), currency)));
        assert!(matches!(refused, Err(DecodeError::Invalid(_))), "{amount} {currency}: {refused:?}");
    }
}

#[test]
fn numbers_that_a_float_would_round_are_refused() {
    let line = |number: &str| envelope().to_string().replace("\"1000.00\"", number);
    let read = |number: &str| Envelope::decode(SUBJECT, line(number).as_bytes());
    for number in ["1000.00", "1000.000000", "1e3", "1234567890123.45", "9007199254740993"] {
        let (envelope, _) = read(number).unwrap_or_else(|e| panic!("{number}: {e}"));
        let Event::DepositConfirmed(data) = envelope.data else { panic!("{number}") };
        assert!(data.amount.money(data.currency).is_ok(), "{number}");
    }
    for number in
        ["12345678901234567.89", "123456789012345.67", "1000.00000000000000000001", "0.1000000000000000055", "1e-400"]
    {
        let refused = read(number).unwrap_err();
        assert!(
            matches!(&refused, DecodeError::Invalid(invalid) if invalid.reason.contains("exactly")),
            "{number}: {refused}"
        );
    }
}

#[test]
fn what_readers_could_take_differently_is_refused() {
    let line = envelope().to_string();
    let cases = [
        ("a field twice in the data", line.replace("\"reference\"", "\"amount\":\"1.00\",\"reference\"")),
        ("a field twice in the envelope", line.replace("\"version\"", "\"source\":\"x-engine\",\"version\"")),
        ("two lines", line.replace("\"version\"", "\n\"version\"")),
        ("a carriage return", format!("{line}\r")),
        ("more than one value", format!("{line}{line}")),
        ("the end is missing", line[..line.len() - 1].to_owned()),
        ("nothing", String::new()),
        (
            "metadata as an array",
            line.replace(&envelope()["metadata"].to_string(), "[\"c\",\"u\",null,null,\"token-engine/1\",1]"),
        ),
        ("a day that does not exist", line.replace("2025-11-06", "2025-02-29")),
        ("a producer of another source", line.replace("token-engine/1", "risk-engine/1")),
    ];
    for (what, changed) in cases {
        assert_ne!(changed, line, "{what}");
        assert!(Envelope::decode(SUBJECT, changed.as_bytes()).is_err(), "{what}");
    }
    assert!(Envelope::decode(SUBJECT, b"{\"event_id\":\"\xff\"}").is_err());
}

#[test]
fn an_envelope_is_at_most_as_long_as_a_leaf_of_the_audit_ledger() {
    let of_length = |length: usize| {
        let mut value = with("/data/reference", "".into());
        let missing = length - value.to_string().len();
        value["data"]["reference"] = "x".repeat(missing).into();
        value.to_string()
    };
    let longest = of_length(MAX_ENVELOPE_BYTES);
    assert_eq!(longest.len(), 65_535);
    assert!(Envelope::decode(SUBJECT, longest.as_bytes()).is_ok());
    assert!(matches!(Envelope::decode(SUBJECT, of_length(65_536).as_bytes()), Err(DecodeError::Envelope(_))));
}

fn sealed(digest: String) -> Event {
    Event::from(WindowSealed {
        window_id: "0190c3d5-0000-7000-8000-00000000000a".parse().unwrap(),
        currency: Currency::new("USD").unwrap(),
        count: 3,
        gross: Amount::Text("30.00".to_owned()),
        digest,
        next_window_id: None,
    })
}

fn stamp(producer: &str, producer_seq: u64) -> Stamp<'_> {
    let event_id = "0190c3d5-0000-7000-8000-000000000001".parse().unwrap();
    Stamp { event_id, at: Timestamp::from_micros(1_762_430_400_000_001), producer, producer_seq }
}

#[test]
fn what_is_written_is_one_line_that_is_read_again() {
    let context = Context { user_id: Some("two\nlines \u{2028}".to_owned()), ..Context::default() };
    let line = encode(&sealed("ab".repeat(32)), &context, &stamp("token-engine/1", 7)).unwrap();
    assert!(!line.contains(&b'\n'));
    let (envelope, _) = Envelope::decode("events.transactions.window.sealed", &line).unwrap();
    assert_eq!(envelope.data, sealed("ab".repeat(32)));
    assert_eq!(envelope.timestamp.to_string(), "2025-11-06T12:00:00.000001Z");
    assert_eq!(envelope.metadata.user_id, context.user_id);
    assert_eq!(
        (envelope.metadata.producer.as_deref(), envelope.metadata.producer_seq),
        (Some("token-engine/1"), Some(7))
    );
    assert!(envelope_validator().is_valid(&serde_json::from_slice(&line).unwrap()));
}

#[test]
fn what_does_not_conform_is_not_written() {
    let context = Context::default();
    let refused = |event: &Event, stamp: &Stamp<'_>| encode(event, &context, stamp).unwrap_err().to_string();
    assert!(refused(&sealed("x".repeat(70_000)), &stamp("token-engine/1", 7)).contains("at most 65535"));
    assert!(refused(&sealed(String::new()), &stamp("clearing-engine/1", 7)).contains("producer"));
    assert!(refused(&sealed(String::new()), &stamp("token-engine", 7)).contains("producer"));
    assert!(refused(&sealed(String::new()), &stamp("token-engine/1", 0)).contains("producer_seq"));
    let Event::WindowSealed(mut data) = sealed(String::new()) else { panic!("another event") };
    data.gross = Amount::Text("30.0".to_owned());
    assert!(refused(&data.into(), &stamp("token-engine/1", 7)).contains("gross"));
}
