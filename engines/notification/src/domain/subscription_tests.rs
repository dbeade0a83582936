//! Tests of subscriptions: every refusal, in order, and who is told.

use super::*;

fn bank(text: &str) -> ParticipantId {
    text.parse().unwrap()
}

fn currency(code: &str) -> Currency {
    Currency::new(code).unwrap()
}

fn money(amount: &str, code: &str) -> Money {
    Money::parse(amount, currency(code)).unwrap()
}

fn id(n: u8) -> SubscriptionId {
    format!("0190c3d5-0000-7000-8000-0000000000{n:02x}").parse().unwrap()
}

fn wish(kinds: &[Kind], code: Option<&str>, minimum: Option<&str>) -> Result<Wish, Refused> {
    Wish::new(bank("ALFAAEXX"), kinds.iter().copied().collect(), code.map(currency), minimum)
}

#[test]
fn a_wish_is_checked() {
    for (kinds, code, minimum, field) in [
        (&[][..], None, None, "kinds"),
        (&[Kind::PaymentReceived], None, Some("1.00"), "minimum_amount"),
        (&[Kind::PaymentReceived], Some("USD"), Some("1.0"), "minimum_amount"),
        (&[Kind::PaymentReceived], Some("USD"), Some("-1.00"), "minimum_amount"),
        (&[Kind::PaymentReceived], Some("JPY"), Some("much"), "minimum_amount"),
    ] {
        let refused = wish(kinds, code, minimum).unwrap_err();
        assert!(matches!(refused, Refused::Malformed { field: f, .. } if f == field), "{refused:?}");
    }
    assert_eq!(
        wish(&[Kind::LimitChanged], Some("JPY"), Some("1000")).unwrap().filter.minimum,
        Some(Minor::new(1000).unwrap())
    );
}

#[test]
fn a_command_is_refused_in_this_order_or_done_once() {
    let at = Timestamp::from_micros(1);
    let later = Timestamp::from_micros(2);
    let first = wish(&[Kind::PaymentReceived], None, None).unwrap();
    let other = wish(&[Kind::PaymentReceived], Some("USD"), None).unwrap();
    let Ok(Applied::Executed(made)) = subscribe(id(1), first.clone(), None, MAX_SUBSCRIPTIONS - 1, "ops", at) else {
        panic!("refused")
    };
    assert_eq!((made.created_at, made.created_by.as_str(), &made.ended), (at, "ops", &None));

    // Repeated: the same, also where no further one would be taken.
    let again = subscribe(id(1), first.clone(), Some(made.clone()), MAX_SUBSCRIPTIONS, "eve", later);
    assert_eq!(again, Ok(Applied::AlreadyApplied(made.clone())));
    assert_eq!(subscribe(id(1), other.clone(), Some(made.clone()), 0, "ops", later), Err(Refused::Conflict(id(1))));
    assert_eq!(
        subscribe(id(2), first.clone(), None, MAX_SUBSCRIPTIONS, "ops", later),
        Err(Refused::TooMany(bank("ALFAAEXX")))
    );

    let Applied::Executed(ended) = unsubscribe(made, "eve", later) else { panic!("not ended") };
    assert_eq!(ended.ended, Some((later, "eve".to_owned())));
    assert_eq!(unsubscribe(ended.clone(), "bob", at), Applied::AlreadyApplied(ended.clone()));
    assert_eq!(
        subscribe(id(1), first, Some(ended.clone()), 0, "ops", later),
        Err(Refused::Ended { id: id(1), at: later })
    );
    assert_eq!(subscribe(id(1), other, Some(ended), 0, "ops", later), Err(Refused::Conflict(id(1))));
}

#[test]
fn filters_look_at_currency_and_size() {
    let usd = Filter { currency: Some(currency("USD")), minimum: None };
    let big = Filter { minimum: Some(Minor::new(10_000).unwrap()), ..usd };
    for (filter, about, passes) in [
        (Filter::default(), About::Amount(money("0.01", "EUR")), true),
        (Filter::default(), About::NoMoney, true),
        (usd, About::NoMoney, true),
        (usd, About::Currency(currency("USD")), true),
        (usd, About::Currency(currency("EUR")), false),
        (usd, About::Amount(money("0.01", "USD")), true),
        (usd, About::Amount(money("100.00", "EUR")), false),
        (big, About::Amount(money("100.00", "USD")), true),
        (big, About::Amount(money("99.99", "USD")), false),
        (big, About::Amount(money("-100.00", "USD")), true),
        (big, About::Amount(money("-99.99", "USD")), false),
        (big, About::Amount(money("100.00", "EUR")), false),
        (big, About::Currency(currency("USD")), true),
        (big, About::NoMoney, true),
    ] {
        assert_eq!(filter.passes(about), passes, "{filter:?} {about:?}");
    }
}

#[test]
fn an_audience_knows_who_is_told() {
    let of = |who: &str, kinds: &[Kind], code: Option<&str>, minimum| {
        Wish::new(bank(who), kinds.iter().copied().collect(), code.map(currency), minimum).unwrap()
    };
    let audience = Audience::of([
        of("ALFAAEXX", &[Kind::PaymentReceived], Some("USD"), Some("100.00")),
        of("ALFAAEXX", &[Kind::PaymentReceived, Kind::WindowClosed], Some("EUR"), None),
        of("BRAVINXX", &[Kind::WindowClosed], None, None),
    ]);
    assert!(audience.has(&[Kind::PaymentSent, Kind::PaymentReceived]) && !audience.has(&[Kind::PaymentSent]));
    let wants = |who: &str, amount: &str, code: &str| {
        audience.wants(Kind::PaymentReceived, bank(who), About::Amount(money(amount, code)))
    };
    assert!(wants("ALFAAEXX", "100.00", "USD") && wants("ALFAAEXX", "0.01", "EUR"));
    assert!(
        !wants("ALFAAEXX", "99.99", "USD") && !wants("ALFAAEXX", "100.00", "GBP") && !wants("BRAVINXX", "1.00", "USD")
    );
    let told = |code: &str| -> Vec<ParticipantId> {
        audience.everybody(Kind::WindowClosed, About::Currency(currency(code))).collect()
    };
    assert_eq!(told("EUR"), [bank("ALFAAEXX"), bank("BRAVINXX")]);
    assert_eq!(told("USD"), [bank("BRAVINXX")]);
    assert!(!Audience::default().has(Kind::ALL));
}
