//! Tables: what is a difference, and what may be done about it.

use super::super::leaf::leaf_hash;
use super::super::leaf::tests::{SUBJECT, line};
use super::*;

const P: &str = "audit-engine/1";
const DAY: i64 = 86_400_000_000;
const NOW: Timestamp = Timestamp::from_micros(100 * DAY);

fn item(seq: u64, word: &str) -> Item {
    Item::of(seq, SUBJECT, &Bytes::from(line(seq, word)))
}

fn outside(word: &str) -> Item {
    let line = format!(r#"{{"event_id":"0190c3d5-0000-7000-8000-000000000001","event_type":"{word}"}}"#);
    Item::of(9, "events.reporting.a.b", &Bytes::from(line))
}

fn standing(items: &[&Item]) -> Standing {
    let mut standing = Standing::default();
    for (index, item) in (0..).zip(items) {
        match &item.name {
            Name::Number(producer, seq) => {
                standing.numbers.entry((producer.clone(), *seq)).or_insert(item.hash);
            }
            Name::Key(key) => {
                standing.keys.insert(*key);
                standing.events.entry(key.0).or_default().push((index, item.hash));
            }
        }
    }
    standing
}

fn recorded(pairs: &[i64]) -> Recorded {
    Recorded { numbers: BTreeMap::from([(P.to_owned(), Ranges::from_pairs(pairs).unwrap())]), online_since: None }
}

/// Kind, and whether it may be published again; none where there is no difference.
type Seen = Option<(Kind, bool)>;

fn seen(difference: Option<Difference>) -> Seen {
    difference.map(|d| (d.kind, d.remedy.is_some()))
}

#[test]
fn a_message_stands_lacks_or_differs() {
    let (a, b) = (item(1, "a"), item(1, "b"));
    let junk = Item::of(9, "events.reporting.a.b", &Bytes::from_static(b"junk"));
    let gone = Some((Kind::MissingInLedger, false));
    let absent = Some((Kind::MissingInLedger, true));
    type Row<'a> = (&'a str, &'a Item, Standing, &'a [i64], Seen);
    let rows: [Row<'_>; 9] = [
        ("it stands", &a, standing(&[&a]), &[1, 1], None),
        ("the ledger never had it", &a, standing(&[]), &[], absent),
        ("its leaf is gone", &a, standing(&[]), &[1, 1], gone),
        ("other bytes", &b, standing(&[&a]), &[1, 1], Some((Kind::Differs, false))),
        ("other bytes that stand as a conflict", &b, standing(&[&a, &b]), &[1, 1], Some((Kind::Differs, false))),
        ("the first leaf of a number counts", &a, standing(&[&a, &b]), &[1, 1], None),
        ("junk stands by its bytes", &junk, standing(&[&junk]), &[], None),
        ("junk is not published again", &junk, standing(&[]), &[], gone),
        ("an id with other bytes is another leaf", &outside("x"), standing(&[&outside("y")]), &[], gone),
    ];
    for (what, item, standing, received, expected) in rows {
        let mut held = Held::default();
        let found = held.message("RISK", item, NOW, &standing, &recorded(received), &mut Absent::new());
        assert_eq!(seen(found), expected, "{what}");
    }
}

#[test]
fn what_is_archived_is_no_difference() {
    let since = |at| Recorded { online_since: Some(Timestamp::from_micros(at)), ..recorded(&[1, 1]) };
    for (online_since, expected) in [(60 * DAY, None), (40 * DAY, Some((Kind::MissingInLedger, false)))] {
        let at = Timestamp::from_micros(50 * DAY);
        let found = Held::default().message(
            "RISK",
            &item(1, "a"),
            at,
            &standing(&[]),
            &since(online_since),
            &mut Absent::new(),
        );
        assert_eq!(seen(found), expected);
    }
}

#[test]
fn a_number_that_is_absent_is_told_of_once() {
    let (a, none, mut absent) = (item(1, "a"), standing(&[]), Absent::new());
    let mut tell = |stream| Held::default().message(stream, &a, NOW, &none, &recorded(&[]), &mut absent);
    assert!(tell("RISK").is_some() && tell(AUDIT).is_none());
    assert_eq!(outbox_row(P, 1, &a, &none, &recorded(&[]), &mut absent), None);
}

#[test]
fn an_outbox_row_stands_waits_lacks_or_differs() {
    let (a, b, second) = (item(1, "a"), item(1, "b"), Item { sequence: 2, ..item(1, "a") });
    type Row<'a> = (&'a str, &'a Item, u64, Standing, &'a [i64], Seen);
    let rows: [Row<'_>; 6] = [
        ("it stands", &a, 1, standing(&[&a]), &[1, 1], None),
        ("published and lost", &a, 1, standing(&[]), &[], Some((Kind::MissingInLedger, true))),
        ("not yet published", &a, 0, standing(&[]), &[], Some((Kind::MissingInLedger, false))),
        ("its leaf is gone", &a, 1, standing(&[]), &[1, 1], Some((Kind::MissingInLedger, false))),
        ("other bytes", &b, 1, standing(&[&a]), &[1, 1], Some((Kind::Differs, false))),
        ("another number in its bytes", &second, 2, standing(&[&a]), &[1, 2], Some((Kind::Differs, false))),
    ];
    for (what, item, published, standing, received, expected) in rows {
        let found = outbox_row(P, published, item, &standing, &recorded(received), &mut Absent::new());
        assert_eq!(seen(found), expected, "{what}");
    }
}

fn leaf(index: u64, origin: &str, at: i64) -> LeafHead {
    LeafHead {
        index,
        subject: "events.risk.limit.changed".into(),
        origin: (origin.to_owned(), 7),
        producer: Some(("risk-engine/1".to_owned(), index + 1)),
        event_id: Some(Uuid::max()),
        earliest: Timestamp::from_micros(at),
        valid: true,
    }
}

/// Streams that keep things for 30 and 180 days and hold the numbers in `own` and `audit`.
fn sides(own: &[i64], audit: &[i64]) -> BTreeMap<String, StreamSide> {
    let side = |pairs: &[i64], days: i64| {
        let numbers = BTreeMap::from([("risk-engine/1".to_owned(), Ranges::from_pairs(pairs).unwrap())]);
        let retention = Some(Retention { max_age: Some(days * DAY), evicts: false });
        StreamSide { held: Held { numbers, ..Held::default() }, retention, ..StreamSide::default() }
    };
    BTreeMap::from([("RISK".to_owned(), side(own, 30)), (AUDIT.to_owned(), side(audit, 180))])
}

fn places(leaf: &LeafHead, mut sides: BTreeMap<String, StreamSide>) -> Vec<String> {
    lacking(leaf, &mut sides, NOW).into_iter().map(|d| d.place).collect()
}

#[test]
fn a_leaf_is_looked_for_where_it_should_still_be() {
    let both = ["RISK".to_owned(), AUDIT.to_owned()];
    let (young, old) = (leaf(0, "RISK", 99 * DAY), leaf(0, "RISK", 60 * DAY));
    assert_eq!(places(&young, sides(&[1, 1], &[1, 1])), [""; 0]);
    assert_eq!(places(&young, sides(&[], &[])), both);
    assert_eq!(places(&young, sides(&[], &[1, 1])), both[..1]);
    assert_eq!(places(&old, sides(&[], &[1, 1])), [""; 0], "its stream let it go");
    assert_eq!(places(&old, sides(&[], &[])), both[1..], "AUDIT keeps it longer");
    let own = leaf(0, AUDIT, 99 * DAY);
    assert_eq!(places(&own, sides(&[], &[])), both[1..], "what was published to AUDIT itself");
    assert_eq!(places(&leaf(0, "RISK", 99 * DAY), BTreeMap::new()), [""; 0], "nobody was asked");
}

#[test]
fn what_a_stream_that_was_made_anew_never_had_is_not_expected_of_it() {
    let anew = |leaf: &LeafHead| {
        let mut sides = sides(&[1, 9], &[]);
        sides.get_mut(AUDIT).unwrap().since_leaf = 5;
        places(leaf, sides)
    };
    assert_eq!(anew(&leaf(4, "RISK", 60 * DAY)), [""; 0], "before, and RISK let it go");
    assert_eq!(anew(&leaf(4, "RISK", 99 * DAY)), [AUDIT], "before, and RISK has it");
    assert_eq!(anew(&leaf(5, "RISK", 60 * DAY)), [AUDIT], "since then");
}

#[test]
fn an_invalid_leaf_that_is_gone_is_counted_and_no_difference() {
    let mut sides = sides(&[], &[]);
    let invalid = LeafHead { valid: false, ..leaf(0, "RISK", 99 * DAY) };
    assert_eq!(lacking(&invalid, &mut sides, NOW), []);
    assert_eq!((sides["RISK"].invalid_gone, sides[AUDIT].invalid_gone), (1, 1));
}

#[test]
fn an_event_without_number_is_held_as_its_leaf() {
    let event = outside("x");
    let mut held = Held::default();
    let valid = Item { valid: true, ..event.clone() };
    assert_eq!(held.message("REPORTING", &valid, NOW, &standing(&[&event]), &recorded(&[]), &mut Absent::new()), None);
    let head = |index| LeafHead { producer: None, ..leaf(index, "REPORTING", 99 * DAY) };
    assert!(held.has(&head(0)) && !held.has(&head(1)));
}

#[test]
fn retention_lets_go_by_age_and_for_room() {
    let at = |age: i64| Timestamp::from_micros(NOW.micros() - age);
    let week = Retention::new(Some(7 * DAY), 0, None, false);
    for (age, keeps) in [(0, true), (7 * DAY - 120_000_000, true), (7 * DAY - 1, false), (8 * DAY, false)] {
        assert_eq!(week.keeps(at(age), NOW), keeps, "{age}");
    }
    assert!(Retention::default().keeps(at(1000 * DAY), NOW), "for ever");
    let most = Some(512 << 20);
    for (bytes, old, keeps) in [(0, true, true), (511 << 20, true, false), (511 << 20, false, true)] {
        assert_eq!(Retention::new(None, bytes, most, old).keeps(at(1), NOW), keeps, "{bytes} {old}");
    }
}

#[test]
fn numbers_that_are_nowhere_are_ranges() {
    let ranges = |pairs: &[i64]| Ranges::from_pairs(pairs).unwrap();
    type Row<'a> = (u64, &'a [i64], &'a [i64], &'a [(u64, u64)]);
    let rows: [Row<'_>; 7] = [
        (9, &[1, 9], &[], &[]),
        (9, &[1, 12], &[], &[]),
        (9, &[1, 4, 6, 9], &[], &[(5, 5)]),
        (9, &[1, 4, 6, 9], &[5, 5], &[]),
        (9, &[3, 7], &[], &[(1, 2), (8, 9)]),
        (9, &[], &[], &[(1, 9)]),
        (0, &[], &[], &[]),
    ];
    for (assigned, standing, absent, expected) in rows {
        let found = nowhere(assigned, Some(&ranges(standing)), Some(&ranges(absent)));
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{assigned} {standing:?} {absent:?}");
    }
    assert_eq!(nowhere(2, None, None).iter().collect::<Vec<_>>(), [(1, 2)]);
}

#[test]
fn the_hash_of_an_item_is_that_of_its_leaf() {
    let bytes = Bytes::from(line(4, "q"));
    let item = Item::of(77, SUBJECT, &bytes);
    assert_eq!((item.hash, item.sequence, item.valid), (leaf_hash(&bytes), 77, true));
    assert_eq!(item.name, Name::Number(P.to_owned(), 4));
}
