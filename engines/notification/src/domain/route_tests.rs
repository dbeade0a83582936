//! Tests of the router's decisions: which event tells whom what.

use deltran_events::{EventSpec, Json};
use serde_json::{Value, json};

use super::*;
use crate::domain::subscription::Wish;

const ALFA: &str = "ALFAAEXX";
const BRAV: &str = "BRAVINXX";
const CHAR: &str = "CHARGB2L";
const TX: &str = "019a582f-d0c0-7004-8004-000000000041";
const WINDOW: &str = "019a582d-fc00-7001-8001-000000000010";
const SET: &str = "019a5909-b600-7002-8002-000000000020";
const BATCH: &str = "019a5909-b9e8-7003-8003-000000000030";
const AT: &str = "2025-11-06T12:00:00.000000Z";

fn event(domain: &str, event_type: &str, data: &Value) -> Event {
    let spec = EventSpec::of_subject(&format!("events.{domain}.{event_type}"), event_type).unwrap();
    (spec.read)(&Json::parse(&data.to_string()).unwrap()).unwrap_or_else(|e| panic!("{event_type}: {e}"))
}

fn wish(who: &str, kinds: &[Kind], currency: Option<&str>, minimum: Option<&str>) -> Wish {
    let currency = currency.map(|code| Currency::new(code).unwrap());
    Wish::new(who.parse().unwrap(), kinds.iter().copied().collect(), currency, minimum).unwrap()
}

/// Three banks that want to hear everything.
fn all() -> Audience {
    Audience::of([ALFA, BRAV, CHAR].map(|who| wish(who, Kind::ALL, None, None)))
}

fn nets() -> Positions {
    let net = |who: &str, units: i128| (who.parse().unwrap(), Minor::new(units).unwrap());
    [net(ALFA, -117_500), net(BRAV, 117_500)].into()
}

/// Kind and addressee of each notification, and its data.
fn told(event: &Event, audience: &Audience) -> Vec<(Kind, String, Value)> {
    let events = route(event, &nets(), audience).unwrap();
    let told = |event: &Event| {
        let (kind, who) = Kind::of(event).unwrap();
        assert_eq!(event.spec().event_type(), kind.as_str());
        (kind, who.to_string(), event.to_value().unwrap())
    };
    events.iter().map(told).collect()
}

fn transaction(event_type: &str, more: Value) -> Event {
    let mut data = json!({
        "transaction_id": TX, "payer": ALFA, "payee": BRAV, "amount": "1250.00", "currency": "USD",
        "settlement_model": "NET_MULTILATERAL", "end_to_end_id": "INV-1"
    });
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event("transactions", event_type, &data)
}

fn created(state: &str) -> Event {
    let evidence = json!({
        "screening": "APPROVE", "screening_evidence": "no_match", "list_versions": [], "rule_version": "1",
        "risk_version": 1
    });
    let mut more = json!({"state": state, "evidence": evidence});
    if state == "COMMITTED" {
        more["window_id"] = WINDOW.into();
        more["window_seq"] = 1.into();
    }
    transaction("transaction.created", more)
}

fn breaker(action: &str, scope: &str, more: Value) -> Event {
    let mut data = json!({"scope": scope, "reason": "CHARGB2L is said to be insolvent", "changed_by": "rosa"});
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event("risk", &format!("breaker.{action}"), &data)
}

fn limit(kind: &str, participant: Option<&str>) -> Event {
    let mut data = json!({
        "limit_id": TX, "kind": kind, "amount": "5000.00", "currency": "USD", "proposed_by": "rosa", "approved_by": "ravi"
    });
    if let Some(participant) = participant {
        data["participant"] = participant.into();
    }
    event("risk", "limit.changed", &data)
}

fn threshold(action: &str) -> Event {
    let data = json!({
        "limit_id": TX, "kind": "NET_DEBIT_CAP", "participant": ALFA, "currency": "USD", "limit": "5000.00",
        "used": "4100.00", "fraction": 8200, "threshold": 8000
    });
    event("risk", &format!("threshold.{action}"), &data)
}

fn rate(participant: Option<&str>) -> Event {
    let mut data = json!({
        "limit_id": TX, "transactions": 500, "window_seconds": 60, "proposed_by": "rosa", "approved_by": "ravi",
        "effective_at": AT
    });
    if let Some(participant) = participant {
        data["participant"] = participant.into();
    }
    event("risk", "rate_limit.changed", &data)
}

fn standing(action: &str) -> Event {
    event("transactions", &format!("participant.{action}"), &json!({"participant": CHAR, "reason": "court order"}))
}

fn withdrawal(action: &str) -> Event {
    let mut data = json!({"withdrawal_id": TX, "participant": ALFA, "amount": "10.00", "currency": "USD"});
    let more = if action == "failed" { "reason" } else { "reference" };
    data[more] = "R-1".into();
    event("transactions", &format!("withdrawal.{action}"), &data)
}

fn posted() -> Event {
    let leg = |who: &str, net: &str| json!({"participant": who, "net": net, "given_back": "0.00"});
    let data = json!({
        "group_id": BATCH, "window_ids": [WINDOW], "currency": "USD", "part": 1, "parts": 1,
        "legs": [leg(ALFA, "-1175.00"), leg(BRAV, "1175.00")], "posted_at": AT
    });
    event("transactions", "settlement.posted", &data)
}

fn netted() -> Event {
    let data = json!({
        "netting_set_id": SET, "currency": "USD", "window_ids": [WINDOW], "count": 2, "gross": "1250.00",
        "moved": "1175.00", "efficiency": 600, "participants": 2, "digest": "00"
    });
    event("clearing", "netting.completed", &data)
}

fn closed() -> Event {
    let data = json!({
        "window_id": WINDOW, "currency": "USD", "count": 2, "gross": "1250.00", "digest": "00", "closed_at": AT
    });
    event("clearing", "window.closed", &data)
}

fn aborted() -> Event {
    let data = json!({
        "batch_id": BATCH, "netting_set_id": SET, "window_ids": [WINDOW], "currency": "USD",
        "reason": "ALFAAEXX lacks 175.00"
    });
    event("settlement", "batch.aborted", &data)
}

fn short() -> Event {
    let data = json!({
        "batch_id": BATCH, "netting_set_id": SET, "currency": "USD", "funding_deadline": AT, "short_debtors": 1,
        "shortfalls": [{"participant": ALFA, "required": "1175.00", "reserved": "1000.00"}]
    });
    event("settlement", "batch.awaiting_funds", &data)
}

#[test]
fn an_event_tells_those_whom_it_concerns() {
    use Kind::*;
    let deposit = json!({"participant": ALFA, "amount": "10.00", "currency": "USD", "reference": "R-1"});
    let registered = json!({"participant": ALFA, "name": "Alfa"});
    let everybody = [(AlertRaised, ALFA), (AlertRaised, BRAV), (AlertRaised, CHAR)];
    let rows: &[(Event, &[(Kind, &str)])] = &[
        (created("COMMITTED"), &[(PaymentReceived, BRAV), (PaymentSent, ALFA)]),
        (created("HELD"), &[(PaymentHeld, ALFA)]),
        (created("RESERVED"), &[]),
        (transaction("transaction.committed", json!({})), &[(PaymentReceived, BRAV), (PaymentSent, ALFA)]),
        (
            transaction("transaction.rejected", json!({"reason": "limit", "message": "…", "was_held": true})),
            &[(PaymentRejected, ALFA)],
        ),
        (transaction("transaction.cancelled", json!({"reason": "…"})), &[]),
        (transaction("transaction.expired", json!({"expired_at": AT})), &[(PaymentExpired, ALFA)]),
        (event("transactions", "deposit.confirmed", &deposit), &[(DepositCredited, ALFA)]),
        (withdrawal("requested"), &[]),
        (withdrawal("confirmed"), &[(WithdrawalPaid, ALFA)]),
        (withdrawal("failed"), &[(WithdrawalReturned, ALFA)]),
        (standing("suspended"), &[(AlertRaised, CHAR)]),
        (standing("reinstated"), &[(AlertRaised, CHAR)]),
        (standing("defaulted"), &[(AlertRaised, CHAR)]),
        (event("transactions", "participant.registered", &registered), &[]),
        (posted(), &[(SettlementCompleted, ALFA), (SettlementCompleted, BRAV)]),
        (closed(), &[(WindowClosed, ALFA), (WindowClosed, BRAV), (WindowClosed, CHAR)]),
        (netted(), &[(PositionChanged, ALFA), (PositionChanged, BRAV)]),
        (short(), &[(FundingRequired, ALFA)]),
        (aborted(), &[(SettlementFailed, ALFA), (SettlementFailed, BRAV)]),
        (limit("NET_DEBIT_CAP", Some(ALFA)), &[(LimitChanged, ALFA)]),
        (
            limit("SINGLE_TRANSACTION_MAXIMUM", None),
            &[(LimitChanged, ALFA), (LimitChanged, BRAV), (LimitChanged, CHAR)],
        ),
        (rate(Some(BRAV)), &[(RateLimitChanged, BRAV)]),
        (rate(None), &[(RateLimitChanged, ALFA), (RateLimitChanged, BRAV), (RateLimitChanged, CHAR)]),
        (threshold("breached"), &[(ThresholdBreached, ALFA)]),
        (threshold("cleared"), &[(ThresholdCleared, ALFA)]),
        (breaker("opened", "participant:CHARGB2L", json!({})), &[(AlertRaised, CHAR)]),
        (breaker("opened", "participant:nobody", json!({})), &[]),
        (breaker("opened", "currency:USD", json!({})), &everybody),
        (breaker("opened", "currency:ZZZ", json!({})), &[]),
        (breaker("half_opened", "corridor:AE-IN", json!({"probes": 5})), &everybody),
        (breaker("closed", "global", json!({})), &everybody),
    ];
    for (event, expected) in rows {
        let found = told(event, &all());
        let found: Vec<(Kind, &str)> = found.iter().map(|(kind, who, _)| (*kind, who.as_str())).collect();
        assert_eq!(found, *expected, "{event:?}");
        assert!(told(event, &Audience::default()).is_empty(), "nobody has subscribed: {event:?}");
    }
}

#[test]
fn filters_decide_who_hears() {
    use Kind::*;
    let rows: &[(Event, Wish, bool)] = &[
        (created("COMMITTED"), wish(BRAV, &[PaymentReceived], Some("USD"), Some("1250.00")), true),
        (created("COMMITTED"), wish(BRAV, &[PaymentReceived], Some("USD"), Some("1250.01")), false),
        (created("COMMITTED"), wish(BRAV, &[PaymentReceived], Some("EUR"), None), false),
        (created("COMMITTED"), wish(BRAV, &[PaymentSent], None, None), false),
        (created("COMMITTED"), wish(CHAR, &[PaymentReceived], None, None), false),
        (posted(), wish(ALFA, &[SettlementCompleted], Some("USD"), Some("1175.00")), true),
        (posted(), wish(ALFA, &[SettlementCompleted], Some("USD"), Some("1175.01")), false),
        (closed(), wish(CHAR, &[WindowClosed], Some("EUR"), None), false),
        (breaker("opened", "currency:USD", json!({})), wish(CHAR, &[AlertRaised], Some("EUR"), None), false),
        (breaker("opened", "global", json!({})), wish(CHAR, &[AlertRaised], Some("EUR"), None), true),
        // A call for funds is not held back by a minimum.
        (short(), wish(ALFA, &[FundingRequired], Some("USD"), Some("9999.00")), true),
    ];
    for (event, wish, hears) in rows {
        let audience = Audience::of([wish.clone()]);
        assert_eq!(told(event, &audience).len(), usize::from(*hears), "{event:?} {wish:?}");
    }
    // Two subscriptions that both pass tell once.
    let twice =
        Audience::of([wish(BRAV, &[PaymentReceived], None, None), wish(BRAV, &[PaymentReceived], Some("USD"), None)]);
    assert_eq!(told(&created("COMMITTED"), &twice).len(), 1);
}

#[test]
fn what_is_told_is_said_in_full_and_no_more() {
    let data = |event: &Event, n: usize| told(event, &all()).remove(n).2;
    assert_eq!(
        data(&created("COMMITTED"), 0),
        json!({
            "participant": BRAV, "transaction_id": TX, "payer": ALFA, "amount": "1250.00", "currency": "USD",
            "window_id": WINDOW, "end_to_end_id": "INV-1"
        })
    );
    assert_eq!(
        data(&netted(), 0),
        json!({
            "participant": ALFA, "netting_set_id": SET, "window_ids": [WINDOW], "currency": "USD", "net": "-1175.00"
        })
    );
    assert_eq!(
        data(&short(), 0),
        json!({
            "participant": ALFA, "batch_id": BATCH, "netting_set_id": SET, "currency": "USD", "required": "1175.00",
            "reserved": "1000.00", "missing": "175.00", "funding_deadline": AT
        })
    );
    for (event, message) in [
        (breaker("opened", "global", json!({"mode": "OPEN"})), "nothing passes"),
        (breaker("opened", "global", json!({"mode": "REDUCING"})), "only transactions that lower net positions pass"),
        (breaker("half_opened", "global", json!({"probes": 5})), "the next 5 transactions pass, to try"),
        (breaker("closed", "global", json!({})), "everything passes again"),
    ] {
        let data = data(&event, 0);
        assert_eq!((data["scope"].as_str(), data["message"].as_str()), (Some("global"), Some(message)));
    }
    // Neither who decided, nor why, nor what others lack.
    for event in [
        breaker("opened", "global", json!({})),
        limit("NET_DEBIT_CAP", Some(ALFA)),
        rate(None),
        standing("suspended"),
        aborted(),
    ] {
        for (_, _, data) in told(&event, &all()) {
            let text = data.to_string();
            for word in ["rosa", "ravi", "insolvent", "court", "lacks"] {
                assert!(!text.contains(word), "{text}");
            }
        }
    }
}

#[test]
fn positions_are_asked_for_only_where_somebody_wants_them() {
    let one = |kind| Audience::of([wish(ALFA, &[kind], None, None)]);
    let set = Some(SET.parse().unwrap());
    assert_eq!(positions_needed(&netted(), &one(Kind::PositionChanged)), set);
    assert_eq!(positions_needed(&netted(), &one(Kind::SettlementFailed)), None);
    assert_eq!(positions_needed(&aborted(), &one(Kind::SettlementFailed)), set);
    assert_eq!(positions_needed(&aborted(), &Audience::default()), None);
    assert_eq!(positions_needed(&posted(), &all()), None);
}

#[test]
fn payments_are_the_kinds_of_the_busiest_consumer() {
    for event in [
        created("COMMITTED"),
        created("HELD"),
        transaction("transaction.rejected", json!({"reason": "limit", "message": "…", "was_held": false})),
        transaction("transaction.expired", json!({"expired_at": AT})),
    ] {
        for (kind, _, _) in told(&event, &all()) {
            assert!(PAYMENTS.contains(&kind), "{kind}");
        }
    }
}
