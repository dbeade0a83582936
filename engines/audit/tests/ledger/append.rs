//! What is appended, that it stays, and that tampering is found.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltran_audit::domain::merkle::{Frontier, inclusion_plan, root_of_inclusion};
use deltran_audit::domain::{leaf_hash, wrapper};
use deltran_audit::store::{Filter, Letters, NewLetter, Tree, ensure_partitions};
use deltran_kernel::{Clock, Timestamp};
use deltran_messaging::Delivery;
use deltran_runtime::DbError;

use crate::place::{DAY, NOON, Place, SUBJECT, line};

#[tokio::test]
async fn every_message_is_one_leaf_of_exact_bytes() {
    let place = Place::new().await;
    let sequencer = place.sequencer();
    let outside = "events.reporting.x.y";
    let odd = br#"{"event_id":"0190c3d5-0000-7000-8000-000000000001","metadata":{"correlation_id":"a\u0000b"}}"#;
    let first = [
        place.event(1, "a"),
        place.event(2, "b"),
        place.message(outside, &b"junk"[..], false),
        place.message(outside, &b"two\nlines"[..], false),
        place.message(outside, vec![0xff; 70_000], false),
        place.message(outside, &odd[..], false),
        place.message(&format!("events.reporting.{}", "s".repeat(3000)), &b""[..], false),
    ];
    place.apply(&sequencer, &first).await.unwrap();
    // All again, as after a lost acknowledgement, with a few that contradict and one that is new.
    let mut second: Vec<Delivery> = first.to_vec();
    second.iter_mut().for_each(|d| d.duplicate = d.producer.is_some());
    second.push(place.message(SUBJECT, line(2, "forged"), true));
    second.push(place.message(SUBJECT, line(2, "forged"), true));
    second.push(place.message(outside, &br#"{"event_id":"0190c3d5-0000-7000-8000-000000000001"}"#[..], false));
    second.push(place.event(3, "c"));
    place.apply(&sequencer, &second).await.unwrap();
    second.iter_mut().for_each(|d| d.duplicate = d.producer.is_some());
    place.apply(&sequencer, &second).await.unwrap();

    let ledger = place.ledger();
    let leaves = ledger.window(0, 100).await.unwrap();
    assert_eq!(leaves.iter().map(|l| l.leaf_index).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    for (leaf, delivery) in leaves.iter().zip(&first) {
        let expected = match &leaf.raw {
            None => delivery.payload.to_vec(),
            Some(raw) => {
                assert_eq!(*raw, delivery.payload);
                wrapper::wrap(&leaf.subject, raw)
            }
        };
        assert_eq!(leaf.envelope, expected);
        assert_eq!(leaf.leaf_hash, leaf_hash(&leaf.envelope));
    }
    assert_eq!(
        leaves.iter().map(|l| l.valid).collect::<Vec<_>>(),
        [true, true, false, false, false, false, false, false, false, true]
    );
    assert!(leaves[7].columns.invalid_reason.as_ref().unwrap().starts_with("conflict: audit-engine/1 2"));
    assert!(leaves[8].columns.invalid_reason.as_ref().unwrap().starts_with("conflict: event 0190c3d5"));
    assert_eq!((leaves[0].source_stream.as_str(), leaves[0].source_sequence), ("AUDIT", 1));
    assert_eq!((leaves[2].source_stream.as_str(), leaves[2].source_sequence), ("RISK", 103));
    assert_eq!(leaves[0].columns.occurred_at, Some(Timestamp::from_micros(NOON)));
    assert_eq!(leaves[0].recorded_at, Timestamp::from_micros(NOON));

    assert_eq!(ledger.confirmed_through("audit-engine/1").await.unwrap(), 3);
    let range = ledger.range("audit-engine/1", 1, 3, 10).await.unwrap();
    let expected: Vec<_> = [(1, "a"), (2, "b"), (3, "c")].map(|(n, q)| (n, SUBJECT.to_owned(), line(n, q))).into();
    assert_eq!(range, expected);
    assert_eq!(ledger.size().await.unwrap(), (10, 7));
    assert_eq!(place.context.metrics.audit_leaves.with_label_values(&["invalid"]).get(), 7);
    assert_eq!(place.context.metrics.alerts.with_label_values(&["audit_conflict"]).get(), 1);
    let report = place.verify().await;
    assert!(report.ok, "{:?}", report.checks);
    assert_eq!((report.leaves, report.invalid_events), (10, 7));
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let place = Place::new().await;
    let sequencer = place.sequencer();
    let batch: Vec<_> = (1..=5).map(|n| place.event(n, "q")).collect();
    place.apply(&sequencer, &batch).await.unwrap();
    place.clock.advance_micros(2 * DAY);
    let mut late = vec![place.event(6, "q"), place.message("events.risk.a.b", &b"junk"[..], false)];
    late.push(place.message("events.risk.a.b", &b"more"[..], false));
    place.apply(&sequencer, &late).await.unwrap();
    let ledger = place.ledger();
    let count = async |filter: Filter| ledger.list(&filter, None, 100).await.unwrap().len();
    assert_eq!(count(Filter::default()).await, 8);
    assert_eq!(count(Filter { domain: Some("risk".into()), ..Filter::default() }).await, 2);
    assert_eq!(count(Filter { event_type: Some("access.granted".into()), ..Filter::default() }).await, 6);
    assert_eq!(count(Filter { correlation_id: Some("c1".into()), ..Filter::default() }).await, 6);
    assert_eq!(count(Filter { participant: Some("ALFAAEXX".into()), ..Filter::default() }).await, 0);
    let tomorrow = Some(Timestamp::from_micros(NOON + DAY));
    assert_eq!(count(Filter { from: tomorrow, ..Filter::default() }).await, 3);
    assert_eq!(count(Filter { to: tomorrow, ..Filter::default() }).await, 5);
    let page = ledger.list(&Filter::default(), Some(5), 2).await.unwrap();
    assert_eq!(page.iter().map(|l| l.leaf_index).collect::<Vec<_>>(), [6, 7]);
    let leaf = ledger.at(3).await.unwrap().unwrap();
    assert_eq!(ledger.by_event(leaf.columns.event_id.unwrap()).await.unwrap().unwrap().leaf_index, 3);
    assert!(ledger.at(8).await.unwrap().is_none());
}

#[tokio::test]
async fn nobody_changes_what_stands() {
    let mut place = Place::new().await;
    let sequencer = place.sequencer();
    let batch = [place.event(1, "a"), place.message("events.risk.a.b", &b"a\nb"[..], false)];
    place.apply(&sequencer, &batch).await.unwrap();
    for statement in [
        "UPDATE leaf SET domain = 'x'",
        "DELETE FROM leaf",
        "TRUNCATE leaf",
        "UPDATE leaf_raw SET raw = ''",
        "DELETE FROM leaf_raw",
        "TRUNCATE leaf_raw",
        "DELETE FROM unnumbered",
        "UPDATE unnumbered SET wrapped = false",
        "TRUNCATE unnumbered",
        "DELETE FROM log_head",
        "TRUNCATE log_head",
        "UPDATE leaf_20251106 SET domain = 'x'",
        "DELETE FROM leaf_20251106",
        "TRUNCATE leaf_20251106",
        "DELETE FROM leaf_raw_20251106",
        "TRUNCATE leaf_raw_20251106",
        "UPDATE log_head SET size = 0",
        "UPDATE tile SET hashes = sha256('')",
        "DELETE FROM tile",
        "TRUNCATE tile",
        "UPDATE tree_head SET size = 0",
        "DELETE FROM tree_head",
        "TRUNCATE tree_head",
    ] {
        let refused = place.by_engine(statement).await.unwrap_err();
        let denied = refused.contains("permission denied") || refused.contains("only grows");
        assert!(denied, "{statement} by the engine: {refused}");
        let refused = place.by_root(statement).await.unwrap_err();
        assert!(
            refused.contains("append-only") || refused.contains("only grows"),
            "{statement} by a superuser: {refused}"
        );
    }
    for statement in [
        "INSERT INTO leaf_20251106 SELECT * FROM leaf",
        "DROP TABLE leaf",
        "ALTER TABLE leaf DISABLE TRIGGER ALL",
        "ALTER TABLE leaf DETACH PARTITION leaf_20251106",
        "CREATE TABLE audit.x (a int)",
    ] {
        let refused = place.by_engine(statement).await.unwrap_err();
        assert!(refused.contains("permission denied") || refused.contains("must be owner"), "{statement}: {refused}");
    }
    assert!(place.verify().await.ok);
}

#[tokio::test]
async fn days_are_ranges_of_leaves_whatever_the_clock_does() {
    let mut place = Place::new().await;
    let sequencer = place.sequencer();
    let mut seq = 0;
    for advance in [0, 3_600_000_000, -2 * 3_600_000_000, DAY, -DAY, 20 * DAY, -5 * DAY] {
        place.clock.advance_micros(advance);
        seq += 1;
        place.apply(&sequencer, &[place.event(seq, "x")]).await.unwrap();
    }
    let leaves = place.ledger().window(0, 100).await.unwrap();
    assert!(leaves.windows(2).all(|pair| pair[0].recorded_at <= pair[1].recorded_at));
    let last = leaves.last().unwrap().recorded_at;
    assert_eq!(last.micros(), NOON - 3_600_000_000 + 20 * DAY, "it does not go back");
    assert!(place.verify().await.ok);

    let mut tx = place.context.db.begin().await.unwrap();
    assert_eq!(
        ensure_partitions(&mut tx, place.clock.now(), 8).await.unwrap(),
        10,
        "five days of two tables were missing"
    );
    assert_eq!(ensure_partitions(&mut tx, place.clock.now(), 8).await.unwrap(), 0, "they are there already");
    tx.commit().await.unwrap();
    let default: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_partitioned_table WHERE partdefid <> 0")
        .fetch_one(&mut place.root)
        .await
        .unwrap();
    assert_eq!(default, 0, "no default partition");
    assert!(place.by_engine("SELECT ensure_partitions('2025-11-06', 63)").await.is_err());
}

/// What the tree says of itself is what is grown again from the leaves, after every batch.
#[tokio::test]
async fn the_tree_grows_with_the_leaves() {
    let mut place = Place::new().await;
    let sequencer = place.sequencer();
    let mut grown = Frontier::default();
    let mut seq = 0;
    for batch in [1, 2, 253, 1, 255, 1, 300, 70, 1] {
        let events: Vec<Delivery> = (0..batch).map(|n| place.event(seq + n + 1, "q")).collect();
        seq += batch;
        place.apply(&sequencer, &events).await.unwrap();
        for event in &events {
            grown.append(leaf_hash(&event.payload), |_, _| {});
        }
        assert_eq!(Tree::new(place.context.db.clone()).frontier().await.unwrap(), grown);
    }
    let tree = Tree::new(place.context.db.clone());
    assert_eq!(tree.frontier_at(256).await.unwrap().unwrap().hashes().len(), 1);
    assert_eq!(tree.frontier_at(seq + 1).await.unwrap(), None);
    for (index, size) in [(0, 1), (0, seq), (255, 256), (256, 257), (seq - 1, seq)] {
        let proof = tree.fill(&inclusion_plan(index, size).unwrap()).await.unwrap().unwrap();
        let leaf = place.ledger().at(index as i64).await.unwrap().unwrap();
        let root = root_of_inclusion(index, size, &leaf.leaf_hash.try_into().unwrap(), &proof).unwrap();
        assert_eq!(root, tree.frontier_at(size).await.unwrap().unwrap().root(), "{index} of {size}");
    }
    let report = place.verify().await;
    assert!(report.ok, "{:?}", report.checks);

    // The tree stands or falls with the leaves: where it cannot grow, nothing is appended.
    place.by_root("SET session_replication_role = replica").await.unwrap();
    place.by_root("UPDATE tile SET hashes = substring(hashes FROM 33) WHERE level = 1").await.unwrap();
    let more: Vec<Delivery> = (0..256).map(|n| place.event(seq + n + 1, "q")).collect();
    assert!(place.apply(&sequencer, &more).await.is_err());
    assert_eq!(place.ledger().size().await.unwrap().0, seq);
    assert_eq!(tree.frontier().await.unwrap(), grown);
}

#[tokio::test]
async fn two_sequencers_cannot_fork_the_log() {
    let place = Arc::new(Place::new().await);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4u64 {
        let place = place.clone();
        tasks.spawn(async move {
            let sequencer = place.sequencer();
            for n in 0..10 {
                let junk = |k: u64| place.message("events.risk.a.b", format!("{task} {n} {k}"), false);
                place.apply(&sequencer, &[junk(1), junk(2), junk(3)]).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(place.ledger().size().await.unwrap(), (120, 120));
    let report = place.verify().await;
    assert!(report.ok, "{:?}", report.checks);
}

#[tokio::test]
async fn tampering_by_a_superuser_is_found_and_named() {
    let cases = [
        ("UPDATE leaf SET envelope = set_byte(envelope, 30, 64) WHERE leaf_index = 2", "leaf 2:"),
        ("DELETE FROM leaf WHERE leaf_index = 3", "leaf 3: is missing"),
        ("DELETE FROM leaf WHERE leaf_index >= 4", "leaf 4: is missing"),
        ("UPDATE leaf SET valid = true, invalid_reason = NULL WHERE leaf_index = 4", "leaf 4:"),
        ("UPDATE leaf SET correlation_id = 'other' WHERE leaf_index = 1", "leaf 1: column correlation_id"),
        ("UPDATE leaf SET leaf_index = leaf_index + 1 WHERE leaf_index = 5", "leaf 5: is missing"),
        ("UPDATE leaf_raw SET raw = 'c'", "leaf 5: its wrapper"),
        ("DELETE FROM leaf_raw", "leaf 5: the bytes"),
        ("UPDATE received SET ranges = ARRAY[1, 9]", "head"),
        ("UPDATE log_head SET size = 7", "leaf 6: is missing"),
        ("UPDATE tile SET hashes = set_byte(hashes, 70, 1) WHERE level = 0", "hash 2 of tile 0/0, over leaves 2 to 2, is another"),
        ("UPDATE tile SET hashes = substring(hashes FROM 1 FOR 160)", "hash 5 of tile 0/0, over leaves 5 to 5, is missing"),
        ("UPDATE tile SET hashes = hashes || hashes", "tiles have 12 hashes"),
        ("INSERT INTO tile VALUES (1, 0, sha256(''))", "tiles have 7 hashes"),
        ("DELETE FROM tile", "hash 0 of tile 0/0"),
        ("UPDATE tree_head SET frontier = set_byte(frontier, 3, 1)", "right edge"),
        ("UPDATE tree_head SET size = 3", "tree"),
        ("INSERT INTO leaf SELECT 9, leaf_hash, envelope, wrapped, event_id, subject, domain, event_type, occurred_at, source, participant_id,
          correlation_id, producer, producer_seq, source_stream, source_sequence, recorded_at, valid, invalid_reason FROM leaf WHERE leaf_index = 1", "head"),
    ];
    for (tamper, named) in cases {
        let mut place = Place::new().await;
        let sequencer = place.sequencer();
        let mut batch: Vec<Delivery> = (1..=4).map(|n| place.event(n, "q")).collect();
        batch.push(place.message("events.risk.a.b", &b"junk"[..], false));
        batch.push(place.message("events.risk.a.b", &b"a\nb"[..], false));
        place.apply(&sequencer, &batch).await.unwrap();
        place.by_root("SET session_replication_role = replica").await.unwrap();
        place.by_root(tamper).await.unwrap();
        let report = place.verify().await;
        let failed: Vec<String> =
            report.checks.iter().filter(|c| !c.ok).map(|c| format!("{}: {}", c.check, c.detail)).collect();
        assert!(!report.ok && failed.iter().any(|f| f.contains(named)), "{tamper}: {failed:?}");
    }
}

#[tokio::test]
async fn dead_letters_are_recorded_once() {
    use deltran_audit::domain::advisory::GaveUp;
    use deltran_audit::domain::letter::{LetterState, Origin};
    let place = Place::new().await;
    let letter = |id: u64, byte: u8| NewLetter {
        id,
        origin: Origin::read("dlq.RISK.c", &BTreeMap::from([("Deltran-Sequence".to_owned(), id.to_string())])),
        payload: vec![byte],
        digest: [byte; 32],
    };
    let at = place.clock.now();
    let mut tx = place.context.db.begin().await.unwrap();
    assert_eq!(Letters::record(&mut tx, &[letter(1, 1), letter(2, 2)], at).await.unwrap(), [1, 2]);
    assert_eq!(Letters::record(&mut tx, &[letter(2, 2), letter(3, 3)], at).await.unwrap(), [3]);
    assert!(matches!(Letters::record(&mut tx, &[letter(3, 9)], at).await, Err(DbError::Corrupt(_))));
    Letters::decide(&mut tx, 2, LetterState::Replayed, 1, "ada").await.unwrap();
    let gave_up = |n| GaveUp { stream: "RISK".into(), sequence: n, consumer: "c".into(), deliveries: 3 };
    Letters::note(&mut tx, &[gave_up(3), gave_up(7)], at).await.unwrap();
    Letters::note(&mut tx, &[gave_up(7)], at).await.unwrap();
    tx.commit().await.unwrap();

    let letters = Letters::new(place.context.db.clone());
    assert_eq!(letters.given_up(10).await.unwrap(), [(gave_up(3), true), (gave_up(7), false)]);
    let mut tx = place.context.db.begin().await.unwrap();
    Letters::done(&mut tx, &gave_up(3)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(letters.given_up(10).await.unwrap(), [(gave_up(7), false)]);
    let ids = |rows: Vec<deltran_audit::store::LetterRow>| rows.iter().map(|r| r.id).collect::<Vec<_>>();
    assert_eq!(ids(letters.list(None, None, None, 10).await.unwrap()), [3, 2, 1]);
    assert_eq!(ids(letters.list(Some(LetterState::Open), Some("RISK"), Some(3), 10).await.unwrap()), [1]);
    let row = letters.get(2).await.unwrap().unwrap();
    assert_eq!((row.state, row.replays, row.decided_by.as_deref()), (LetterState::Replayed, 1, Some("ada")));
    assert_eq!(row.payload, [2]);
}
