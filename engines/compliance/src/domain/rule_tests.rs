//! Tests of rules: every refusal of a draft, what belongs to which thread, versions.

use uuid::Uuid;

use super::*;

fn money(text: &str, code: &str) -> Money {
    Money::parse(text, Currency::new(code).unwrap()).unwrap()
}

fn velocity() -> Draft {
    Draft {
        name: "velocity".into(),
        kind: RuleKind::Velocity,
        mode: RuleMode::Active,
        scope: None,
        window_seconds: 3600,
        max_count: 10,
        min_count: 0,
        band: 0,
        amounts: vec![money("1000.00", "USD")],
    }
}

fn structuring() -> Draft {
    Draft {
        name: "structuring".into(),
        kind: RuleKind::Structuring,
        max_count: 0,
        min_count: 3,
        band: 1_000,
        amounts: vec![money("10000.00", "USD"), money("1000000", "JPY")],
        window_seconds: 86_400,
        ..velocity()
    }
}

#[test]
fn what_fits_comes_back_as_it_was() {
    for draft in [
        velocity(),
        Draft { scope: Some(RuleScope::Pair), amounts: Vec::new(), ..velocity() },
        Draft { max_count: 0, ..velocity() },
        structuring(),
    ] {
        let definition = draft.check().unwrap();
        assert_eq!(definition.draft().check().unwrap(), definition);
    }
    assert_eq!(velocity().check().unwrap().bucket_micros(), 60_000_000);
}

#[test]
fn what_does_not_fit_is_refused_by_field() {
    let long = "a".repeat(41);
    let rows: Vec<(&str, Draft)> = vec![
        ("rule", Draft { name: String::new(), ..velocity() }),
        ("rule", Draft { name: "9a".into(), ..velocity() }),
        ("rule", Draft { name: "a b".into(), ..velocity() }),
        ("rule", Draft { name: long, ..velocity() }),
        ("window_seconds", Draft { window_seconds: 0, ..velocity() }),
        ("window_seconds", Draft { window_seconds: 61, ..velocity() }),
        ("window_seconds", Draft { window_seconds: LONGEST_WINDOW + 60, ..velocity() }),
        ("amounts", Draft { amounts: vec![money("0.00", "USD")], ..velocity() }),
        ("amounts", Draft { amounts: vec![money("-1.00", "USD")], ..velocity() }),
        ("amounts", Draft { amounts: vec![money("1.00", "USD"), money("2.00", "USD")], ..velocity() }),
        ("min_count", Draft { min_count: 3, ..velocity() }),
        ("band", Draft { band: 1, ..velocity() }),
        ("max_count", Draft { max_count: u64::MAX, ..velocity() }),
        ("max_count", Draft { max_count: 0, amounts: Vec::new(), ..velocity() }),
        ("scope", Draft { scope: Some(RuleScope::Payer), ..structuring() }),
        ("max_count", Draft { max_count: 1, ..structuring() }),
        ("min_count", Draft { min_count: 2, ..structuring() }),
        ("min_count", Draft { min_count: 1_001, ..structuring() }),
        ("band", Draft { band: 0, ..structuring() }),
        ("band", Draft { band: 10_000, ..structuring() }),
        ("amounts", Draft { amounts: Vec::new(), ..structuring() }),
        ("amounts", Draft { amounts: vec![money("9", "JPY")], ..structuring() }),
    ];
    for (expected, draft) in rows {
        match draft.clone().check() {
            Err(RuleError::Malformed { field, .. }) => assert_eq!(field, expected, "{draft:?}"),
            other => panic!("{draft:?}: {other:?}"),
        }
    }
}

fn seen(text: &str, code: &str) -> Seen {
    Seen {
        transaction_id: TransactionId::new(Uuid::from_u128(1)),
        payer: "ALFAAEXX".parse().unwrap(),
        payee: "BRAVINXX".parse().unwrap(),
        amount: money(text, code),
        at: Timestamp::from_micros(0),
    }
}

#[test]
fn a_transaction_belongs_to_the_threads_of_its_rule() {
    let of = |draft: Draft, seen: &Seen| -> Vec<(bool, Option<String>, Limit)> {
        let threads = draft.check().unwrap().threads(seen);
        let row = |(thread, limit): (Thread, Limit)| {
            assert_eq!(thread.payer, seen.payer);
            (thread.payee.is_some(), thread.currency.map(|c| c.code().to_owned()), limit)
        };
        threads.into_iter().flatten().map(row).collect()
    };
    let most = Limit::AmountOver(Minor::new(100_000).unwrap());
    let usd = Some("USD".to_owned());
    let payer = [(false, None, Limit::CountOver(10)), (false, usd.clone(), most)];
    assert_eq!(of(velocity(), &seen("1.00", "USD")), payer);
    assert_eq!(of(velocity(), &seen("1.00", "EUR")), payer[..1], "no maximum for euro");
    let pair = Draft { scope: Some(RuleScope::Pair), max_count: 0, ..velocity() };
    assert_eq!(of(pair.clone(), &seen("1.00", "USD")), [(true, usd.clone(), most)]);
    assert_eq!(of(pair, &seen("1.00", "EUR")), []);
}

/// From nine tenths of the threshold to just under it, to the cent.
#[test]
fn just_under_a_threshold_is_exact() {
    let rule = structuring().check().unwrap();
    for (text, code, counts) in [
        ("8999.99", "USD", false),
        ("9000.00", "USD", true),
        ("9999.99", "USD", true),
        ("10000.00", "USD", false),
        ("10000.01", "USD", false),
        ("899999", "JPY", false),
        ("900000", "JPY", true),
        ("999999", "JPY", true),
        ("1000000", "JPY", false),
        ("9500.00", "EUR", false),
    ] {
        let [first, second] = rule.threads(&seen(text, code));
        assert_eq!((first.is_some(), second), (counts, None), "{text} {code}");
        if let Some((thread, limit)) = first {
            assert_eq!((thread.payee, limit), (Some("BRAVINXX".parse().unwrap()), Limit::CountReaches(3)));
        }
    }
}

#[test]
fn versions_rise_and_a_command_counts_once() {
    let (at, by) = (Timestamp::from_micros(7), "ada");
    let id = |n| CommandId::new(Uuid::from_u128(n));
    let definition = velocity().check().unwrap();
    let first = set(None, None, 0, id(1), &definition, by, at).unwrap();
    let Outcome::Executed(first) = first else { panic!("{first:?}") };
    assert_eq!((first.version, first.command_id, first.set_by.as_str()), (1, Some(id(1)), "ada"));
    let next = Draft { max_count: 11, ..velocity() }.check().unwrap();
    let second = set(None, Some(&first), 1, id(2), &next, by, at).unwrap().into_inner();
    assert_eq!(second.version, 2);
    // The command that set version 1 again, after version 2.
    let again = set(Some(&first), Some(&second), 1, id(1), &definition, by, at);
    assert_eq!(again, Ok(Outcome::AlreadyApplied(first.clone())));
    for (definition, by) in [(&next, "ada"), (&definition, "bob")] {
        let other = set(Some(&first), Some(&second), 1, id(1), definition, by, at);
        assert_eq!(other, Err(RuleError::Conflict(id(1))));
    }
    let kind = Draft { name: "velocity".into(), ..structuring() }.check().unwrap();
    let changed = set(None, Some(&second), 1, id(3), &kind, by, at);
    assert!(matches!(changed, Err(RuleError::Malformed { field: "kind", .. })), "{changed:?}");
    let full = set(None, None, MOST_RULES, id(3), &definition, by, at);
    assert!(matches!(full, Err(RuleError::Malformed { field: "rule", .. })), "{full:?}");
    assert!(set(None, Some(&second), MOST_RULES, id(3), &definition, by, at).is_ok());
}
