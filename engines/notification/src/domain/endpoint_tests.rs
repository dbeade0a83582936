//! Every state and change of an endpoint, by table.

use super::*;

fn policy() -> Policy {
    Policy { allow_loopback: false, ports: BTreeSet::from([443]) }
}

fn wish(url: &str, kinds: &[Kind]) -> Wish {
    Wish { url: url.into(), kinds: kinds.iter().copied().collect(), in_order: false }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_762_430_400_000_000).plus_seconds(seconds)
}

fn id() -> EndpointId {
    "0190c3d5-0000-7000-8000-000000000001".parse().unwrap()
}

fn endpoint() -> Endpoint {
    let wish = wish("https://bank.example.com/", &[]);
    create(id(), "ALFAAEXX".parse().unwrap(), wish, 0, "alice", at(0)).unwrap()
}

/// In any state, reached the way one gets there.
fn standing(state: EndpointState, cause: Option<Cause>) -> Endpoint {
    Endpoint { state, cause, ..endpoint() }
}

#[test]
fn what_is_wished_for_is_checked() {
    let kinds = [Kind::PaymentReceived, Kind::PositionChanged];
    let good = wish("HTTPS://Bank.example.com", &kinds).checked(&policy()).unwrap();
    assert_eq!(good, wish("https://bank.example.com/", &kinds));
    let field = |wish: Wish| match wish.checked(&policy()) {
        Err(EndpointError::Malformed { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(wish("http://bank.example.com", &[])), "url");
    assert_eq!(field(wish("https://bank.example.com", &[Kind::PaymentSent, Kind::DeliveryFailed])), "kinds");
}

#[test]
fn a_participant_has_so_many_endpoints_and_no_more() {
    let new =
        |present| create(id(), "ALFAAEXX".parse().unwrap(), wish("https://a.example/", &[]), present, "alice", at(0));
    assert!(new(MAX_ENDPOINTS - 1).is_ok());
    assert!(matches!(new(MAX_ENDPOINTS), Err(EndpointError::TooMany { .. })));
}

#[test]
fn changes_by_state_and_actor() {
    use Actor::{Operator, Owner, Platform};
    use EndpointState::{Deleted, Disabled, Enabled};
    let update = Change::Update(wish("https://other.example/", &[Kind::AlertRaised]));
    let (enabled, deleted) = ((Enabled, None), (Deleted, None));
    let off = |cause| (Disabled, Some(cause));
    // Some: the state and cause after it; none: refused with the state.
    type Place = (EndpointState, Option<Cause>);
    let table: Vec<(Place, &Change, Actor, Option<Place>)> = vec![
        (enabled, &Change::Disable, Owner, Some(off(Cause::Owner))),
        (enabled, &Change::Disable, Operator, Some(off(Cause::Operator))),
        (enabled, &Change::Disable, Platform(Cause::Gone), Some(off(Cause::Gone))),
        (enabled, &Change::Disable, Platform(Cause::Failing), Some(off(Cause::Failing))),
        (off(Cause::Owner), &Change::Disable, Owner, None),
        (off(Cause::Owner), &Change::Disable, Platform(Cause::Gone), None),
        (off(Cause::Owner), &Change::Disable, Operator, Some(off(Cause::Operator))),
        (off(Cause::Operator), &Change::Disable, Operator, None),
        (enabled, &Change::Enable, Owner, None),
        (off(Cause::Owner), &Change::Enable, Owner, Some(enabled)),
        (off(Cause::Failing), &Change::Enable, Owner, Some(enabled)),
        (off(Cause::Gone), &Change::Enable, Operator, Some(enabled)),
        (off(Cause::Operator), &Change::Enable, Operator, Some(enabled)),
        (enabled, &update, Owner, Some(enabled)),
        (off(Cause::Gone), &update, Owner, Some(off(Cause::Gone))),
        (enabled, &Change::Rotate, Owner, Some(enabled)),
        (off(Cause::Operator), &Change::Rotate, Owner, Some(off(Cause::Operator))),
        (enabled, &Change::Replay, Owner, Some(enabled)),
        (off(Cause::Owner), &Change::Replay, Owner, None),
        (enabled, &Change::Delete, Owner, Some(deleted)),
        (off(Cause::Operator), &Change::Delete, Owner, Some(deleted)),
    ];
    for ((state, cause), change, actor, expected) in table {
        let before = standing(state, cause);
        let after = before.change(change, actor, "why", "bob", at(1));
        match (after, expected) {
            (Ok(after), Some((state, cause))) => {
                assert_eq!((after.state, after.cause), (state, cause), "{before:?} {change:?} {actor:?}");
                assert_eq!((after.version, after.note.as_str()), (before.version + 1, "why"));
                assert_eq!((after.changed_by.as_str(), after.changed_at), ("bob", at(1)));
            }
            (Err(EndpointError::WrongState { state: told, .. }), None) => assert_eq!(told, state),
            (other, _) => panic!("{before:?} {change:?} {actor:?}: {other:?}"),
        }
    }
    let stopped = standing(Disabled, Some(Cause::Operator));
    let refused = stopped.change(&Change::Enable, Owner, "", "alice", at(1));
    assert_eq!(refused, Err(EndpointError::OperatorsOnly(id())));
    let gone = standing(Deleted, None);
    for change in [Change::Disable, Change::Enable, Change::Delete, Change::Rotate, Change::Replay, update.clone()] {
        assert!(matches!(gone.change(&change, Owner, "", "alice", at(1)), Err(EndpointError::WrongState { .. })));
    }
    let updated = endpoint().change(&update, Owner, "", "alice", at(1)).unwrap();
    assert_eq!(updated.wish, wish("https://other.example/", &[Kind::AlertRaised]));
    let message = standing(Disabled, Some(Cause::Gone)).change(&Change::Replay, Owner, "", "a", at(1)).unwrap_err();
    assert_eq!(message.to_string(), format!("endpoint {} is DISABLED (GONE): it cannot be sent to again", id()));
}

#[test]
fn a_rotation_lets_earlier_secrets_sign_for_a_while() {
    let day = 86_400 * 1_000_000;
    let secret = |number, expires_at| SecretVersion { number, expires_at };
    let one = [secret(1, None)];
    assert_eq!(rotate(&one, day, at(0)), Ok(Rotation { number: 2, others_until: at(86_400) }));
    assert_eq!(rotate(&one, 0, at(0)), Ok(Rotation { number: 2, others_until: at(0) }));
    assert!(!secret(1, Some(at(0))).signs(at(0)) && secret(1, Some(at(1))).signs(at(0)));
    for overlap in [-1, LONGEST_OVERLAP + 1] {
        assert!(matches!(rotate(&one, overlap, at(0)), Err(EndpointError::Malformed { .. })));
    }
    let many = [secret(1, Some(at(10))), secret(2, Some(at(20))), secret(3, Some(at(30))), secret(4, None)];
    assert_eq!(rotate(&many, day, at(0)), Err(EndpointError::TooManySecrets { until: at(10) }));
    assert!(rotate(&many, 0, at(0)).is_ok(), "a secret that leaked is replaced at once");
    assert_eq!(rotate(&many, day, at(10)).unwrap().number, 5, "an ended one does not count");
}
