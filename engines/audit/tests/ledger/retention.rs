//! Days that leave the database: only as every rule allows, without holding appends up, and so that all that is left can
//! still be proven.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use deltran_api::audit::v1 as pb;
use deltran_api::audit::v1::audit_service_server::AuditService;
use deltran_audit::domain::check::StoredLeaf;
use deltran_audit::domain::leaf_hash;
use deltran_audit::domain::merkle::{Hash, consistency_plan, inclusion_plan, is_consistent, root_of_inclusion};
use deltran_audit::domain::retention::goes;
use deltran_audit::domain::tile::{Tile, tiles_of};
use deltran_audit::retention::Oldest;
use deltran_audit::store::{Detaching, Tree};
use deltran_kernel::Timestamp;
use deltran_messaging::Delivery;
use deltran_runtime::wire::to_timestamp;
use sqlx::AssertSqlSafe;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::aged::{Aged, START, asked, day, failed, reason};
use crate::place::DAY;

async fn as_superuser(aged: &mut Aged, statement: &str) {
    let statement = format!("SET session_replication_role = replica; {statement}; RESET session_replication_role");
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut aged.place.root).await.unwrap();
}

/// Three days of three leaves, archived and published; it is the fifth day.
async fn three_days() -> Aged {
    let mut aged = Aged::new(1).await;
    for _ in 0..3 {
        aged.append(3).await;
        aged.end_day().await;
    }
    aged.end_day().await;
    for day in aged.closed.clone() {
        aged.archive(&day).await;
    }
    aged
}

#[tokio::test]
async fn every_rule_keeps_a_day() {
    let hold = "INSERT INTO legal_hold (hold_id, correlation_id, reason, placed_by, placed_at)
        VALUES (gen_random_uuid(), 'c1', 'case 7', 'ada', now())";
    // What is done to the database, the day, the retention that is asked for, and what is answered.
    let cases = [
        ("", 4, 1, "it is not over"),
        ("", 0, 0, "a retention of 0 days is below 1, the least that the database allows"),
        ("UPDATE retention_floor SET days = 10", 0, 9, "is below 10"),
        ("", 0, 4, "it is kept for 4 days, until 2020-01-06"),
        ("", 0, 36_500, "it is kept for 36500 days"),
        ("UPDATE log_head SET recorded_at = '2020-01-02T12:00:00Z'", 0, 1, "it is kept for 1 days, until 2020-01-03"),
        ("UPDATE log_head SET recorded_at = '2999-01-01'", 0, 36_500, "it is kept for 36500 days"),
        (hold, 0, 1, "keeps it: case 7"),
        ("DELETE FROM day_archive WHERE from_leaf = 0", 0, 1, "it is not archived"),
        (
            "UPDATE day_archive SET to_leaf = 4 WHERE from_leaf = 0",
            0,
            1,
            "its archive has leaves 0 up to 4, the day has 0 up to 3",
        ),
        (
            "UPDATE day_archive SET verified_at = verified_at - interval '3 days'",
            0,
            1,
            "its archive was verified last on 2020-01-02",
        ),
        ("UPDATE checkpoint SET published = false WHERE size = 3", 0, 1, "no checkpoint of 3 leaves is published"),
        ("DELETE FROM checkpoint WHERE size = 3", 0, 1, "no checkpoint of 3 leaves is published"),
        ("", 1, 1, "days go in order: 2020-01-01 is still here"),
        (
            "UPDATE checkpoint SET root = sha256('') WHERE size = 3",
            0,
            1,
            "is not that of the published checkpoint of 3 leaves",
        ),
        (
            "UPDATE tile SET hashes = set_byte(hashes, 40, 1)",
            0,
            1,
            "is not that of the published checkpoint of 3 leaves",
        ),
        ("DELETE FROM leaf WHERE leaf_index = 1", 0, 1, "2 of its 3 leaves stand in it"),
    ];
    for (statement, at, retention_days, expected) in cases {
        let mut aged = three_days().await;
        as_superuser(&mut aged, if statement.is_empty() { "SELECT 1" } else { statement }).await;
        let before = aged.counts().await;
        let start = Timestamp::from_micros(START - DAY / 2 + at * DAY);
        let outcome = aged.try_detach(start, 3 * (at as u64 + 1).min(3), retention_days).await;
        match &outcome {
            Detaching::Stays(why) => assert!(why.contains(expected), "{statement}, day {at}: {why}"),
            other => panic!("{statement}, day {at}: {other:?} where {expected} was expected"),
        }
        assert_eq!((aged.cut().await, aged.counts().await), (0, before), "{statement}: nothing went");
    }

    let mut aged = three_days().await;
    let first = aged.closed[0];
    assert_eq!(aged.try_detach(first.start, first.to, 1).await, Detaching::Done);
    let again = aged.try_detach(first.start, first.to, 1).await;
    assert_eq!(again, Detaching::Stays("it is detached already".into()));
    assert_eq!(aged.cut().await, 3);
    let mut tx = aged.place.context.db.begin().await.unwrap();
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *tx).await.unwrap();
    let refused = sqlx::query("SELECT detach_day('2020-01-02', 1, '', now())").execute(&mut *tx).await.unwrap_err();
    assert!(refused.to_string().contains("under read committed"), "{refused}");
    drop(tx);

    // Only the function detaches, and only its role lets tiles go.
    for statement in [
        "ALTER TABLE leaf DETACH PARTITION leaf_20200102",
        "DROP TABLE leaf_20200102",
        "DELETE FROM tile",
        "DELETE FROM ledger_cut",
        "UPDATE ledger_cut SET to_leaf = 6",
        "INSERT INTO ledger_cut VALUES ('2020-01-02', 3, 6, '', 0, 0, 0, now())",
        "INSERT INTO ledger_cut_producer VALUES ('2020-01-02', 'a/1', 1, 2)",
        "UPDATE retention_floor SET days = 1",
        "DELETE FROM retention_floor",
        "UPDATE day_archive SET place = 'x'",
        "DELETE FROM day_archive",
    ] {
        let refused = aged.place.by_engine(statement).await.unwrap_err();
        assert!(refused.contains("permission denied") || refused.contains("must be owner"), "{statement}: {refused}");
    }
    for statement in [
        "DELETE FROM tile",
        "DELETE FROM ledger_cut",
        "UPDATE ledger_cut SET to_leaf = 6",
        "TRUNCATE ledger_cut",
        "INSERT INTO ledger_cut VALUES ('2020-01-02', 3, 6, '', 0, 0, 0, now())",
        "INSERT INTO ledger_cut_producer VALUES ('2020-01-02', 'a/1', 1, 2)",
        "DELETE FROM ledger_cut_producer",
        "UPDATE day_archive SET place = 'x'",
        "UPDATE day_archive SET verified_at = '2000-01-01'",
        "DELETE FROM day_archive",
    ] {
        let refused = aged.place.by_root(statement).await.unwrap_err();
        assert!(refused.contains("append-only") || refused.contains("does not change"), "{statement}: {refused}");
    }
}

/// A reader keeps the day in the database for as long as it reads; appends go on all the time.
#[tokio::test]
async fn appends_go_on_while_a_day_waits_for_its_locks_and_leaves() {
    let mut aged = three_days().await;
    let mut reader = aged.place.context.db.begin().await.unwrap();
    let read: i64 = sqlx::query_scalar("SELECT count(*) FROM leaf").fetch_one(&mut *reader).await.unwrap();
    assert_eq!(read, 9);
    let batches: Vec<Delivery> = (0..2000).map(|_| aged.event(None, "c1")).collect();
    let (stop, appended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let aged = Arc::new(aged);
    let appends = {
        let (aged, stop, appended) = (aged.clone(), stop.clone(), appended.clone());
        tokio::spawn(async move {
            for batch in batches.chunks(1) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                aged.place.apply(&aged.sequencer, batch).await.unwrap();
                appended.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let more = async || {
        let until = appended.load(Ordering::Relaxed) + 3;
        while appended.load(Ordering::Relaxed) < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let first = aged.closed[0];
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, async {
        for _ in 0..3 {
            more().await;
            assert_eq!(aged.try_detach(first.start, first.to, 1).await, Detaching::Busy);
        }
        more().await;
    })
    .await
    .expect("appends go on while a reader keeps the day");
    assert_eq!(aged.cut().await, 0);
    drop(reader);
    // Readers that come and go do not keep it.
    let left = tokio::time::timeout(patience, async {
        let mut left = Vec::new();
        while let Oldest::Detached(day) = aged.detach_oldest().await.unwrap() {
            left.push(day.name());
            more().await;
        }
        left
    })
    .await
    .expect("days leave while appends go on");
    assert_eq!(left, [day(0), day(1), day(2)]);
    stop.store(true, Ordering::Relaxed);
    appends.await.unwrap();
    let report = aged.verify().await;
    assert!(report.ok, "{:?}", failed(&report));
}

/// Every inclusion proof of what is left, and every consistency proof between sizes from the cut on.
async fn all_proofs(aged: &Aged, hashes: &[Hash], roots: &[Hash], step: usize) {
    let tree = Tree::new(aged.place.context.db.clone());
    let (cut, size) = (aged.cut().await, hashes.len() as u64);
    let sizes: Vec<u64> = (cut.max(1)..=size).step_by(step).chain([size]).collect();
    for index in (cut..size).step_by(step) {
        let proof = tree.fill(&inclusion_plan(index, size).unwrap()).await.unwrap().expect("its hashes are there");
        let root = root_of_inclusion(index, size, &hashes[index as usize], &proof);
        assert_eq!(root, Some(roots[size as usize]), "leaf {index} of {size}");
    }
    for (n, old) in sizes.iter().enumerate() {
        let frontier = tree.frontier_at(*old).await.unwrap().expect("a root from the cut on");
        assert_eq!(frontier.root(), roots[*old as usize]);
        for new in sizes[n..].iter().step_by(step) {
            let proof = tree.fill(&consistency_plan(*old, *new).unwrap()).await.unwrap().expect("its hashes are there");
            let (old_root, new_root) = (&roots[*old as usize], &roots[*new as usize]);
            assert!(is_consistent(*old, old_root, *new, new_root, &proof), "{old} to {new}");
        }
    }
}

#[tokio::test]
async fn four_hundred_days_pass() {
    let mut aged = Aged::new(30).await;
    let (mut hashes, mut roots): (Vec<Hash>, Vec<Hash>) = (Vec::new(), Vec::new());
    let mut frontier = deltran_audit::domain::merkle::Frontier::default();
    roots.push(frontier.root());
    let mut detached = 0;
    for today in 0..400u64 {
        // Some days have no leaf, a few have many.
        let count = match today {
            0 => 3,
            n if n % 97 == 0 => 300,
            n => n * 7 % 5,
        };
        let mut batch: Vec<Delivery> = (0..count).map(|_| aged.event(None, "c1")).collect();
        if today % 40 == 3 {
            batch.push(aged.place.message("events.risk.a.b", format!("junk\n{today}"), false));
        }
        if !batch.is_empty() {
            aged.place.apply(&aged.sequencer, &batch).await.unwrap();
        }
        let from = hashes.len() as i64;
        let leaves: Vec<StoredLeaf> = aged.place.ledger().window(from, i64::MAX).await.unwrap();
        for leaf in leaves {
            let hash = leaf_hash(&leaf.envelope);
            hashes.push(hash);
            frontier.append(hash, |_, _| {});
            roots.push(frontier.root());
        }
        for day in aged.end_day().await.iter().filter(|day| day.to > day.from) {
            aged.archive(day).await;
        }
        loop {
            match aged.detach_oldest().await.unwrap() {
                Oldest::Detached(gone) => {
                    assert_eq!(gone.name(), day(detached), "in order");
                    detached += 1;
                }
                // What was archived 30 days ago is read again before it goes.
                Oldest::Stays(day, why) if why.contains("it is read again before the day goes") => {
                    aged.archive(&day).await
                }
                Oldest::Stays(_, why) => {
                    assert!(why.contains("it is kept for 30 days"), "{why}");
                    break;
                }
                Oldest::None => break,
            }
        }
        if today % 80 == 79 {
            let report = aged.verify().await;
            assert!(report.ok, "day {today}: {:?}", failed(&report));
            all_proofs(&aged, &hashes, &roots, 7).await;
        }
    }
    assert_eq!(detached, 400 - 30, "all that are older than 30 days");
    let (cut, size) = (aged.cut().await, hashes.len() as u64);
    assert!(cut > 1024 && cut < size, "{cut} of {size}");
    all_proofs(&aged, &hashes, &roots, 3).await;
    let report = aged.verify().await;
    assert!(report.ok, "{:?}", failed(&report));
    assert_eq!(report.leaves, size);
    assert_eq!(report.producers[0].confirmed, report.producers[0].recorded, "nothing of a producer is missing");

    // What stands in the database is what must, and no more.
    let stored: Vec<(i16, i64)> = sqlx::query_as("SELECT level, number FROM tile ORDER BY level, number")
        .fetch_all(&mut aged.place.root)
        .await
        .unwrap();
    let expected: Vec<(i16, i64)> =
        tiles_of(cut, size).iter().map(|(t, _)| (i16::from(t.level), t.index as i64)).collect();
    assert_eq!(stored, expected);
    assert!(goes(Tile { level: 0, index: 0 }, cut));
    let partitions: Vec<String> = sqlx::query_scalar(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'leaf'::regclass ORDER BY 1",
    )
    .fetch_all(&mut aged.place.root)
    .await
    .unwrap();
    assert_eq!(partitions[0], format!("leaf_{}", day(370).replace('-', "")));
    assert_eq!(aged.published("partition").await.len(), 370, "one event for each day that left");
    // An event that comes again is no second leaf, though its first one is archived.
    let mut again = aged.place.message(crate::place::SUBJECT, crate::aged::line(1, None, "c1"), false);
    again.duplicate = true;
    let junk = aged.place.message("events.risk.a.b", "junk\n3", false);
    aged.place.apply(&aged.sequencer, &[again, junk]).await.unwrap();
    assert_eq!(aged.place.ledger().size().await.unwrap().0, size);
}

#[tokio::test]
async fn what_was_done_to_a_cut_is_named() {
    let last = "day = (SELECT max(day) FROM ledger_cut)";
    let cases = [
        (
            format!("UPDATE ledger_cut SET frontier = set_byte(frontier, 3, 1) WHERE {last}"),
            "cut: the frontier of day 2020-01-02",
        ),
        (
            format!("UPDATE ledger_cut SET frontier = substring(frontier FROM 33) WHERE {last}"),
            "cut: the frontier of day 2020-01-02 is not",
        ),
        (
            "UPDATE ledger_cut SET frontier = sha256('') WHERE from_leaf = 0".into(),
            "cut: the frontier of day 2020-01-01",
        ),
        (format!("UPDATE ledger_cut SET to_leaf = 5 WHERE {last}"), "cut: day 2020-01-02"),
        (format!("DELETE FROM ledger_cut WHERE {last}"), "rows: "),
        ("DELETE FROM ledger_cut WHERE from_leaf = 0".into(), "cut: day 2020-01-02 begins at leaf 3"),
        ("DELETE FROM ledger_cut; DELETE FROM ledger_cut_producer".into(), "leaf 0: is missing"),
        (format!("UPDATE ledger_cut SET invalid = 7 WHERE {last}"), "head: "),
        (format!("UPDATE ledger_cut SET conflicts = 7 WHERE {last}"), "head: "),
        ("UPDATE ledger_cut_producer SET high = high - 1 WHERE low = 1".into(), "head: "),
        ("DELETE FROM ledger_cut_producer".into(), "head: "),
        ("UPDATE ledger_day SET to_leaf = 4 WHERE from_leaf = 0".into(), "cut: day 2020-01-01"),
        ("DELETE FROM checkpoint WHERE size = 6".into(), "cut: no published checkpoint of 6 leaves"),
        ("UPDATE checkpoint SET root = sha256('') WHERE size = 3".into(), "checkpoints: "),
        // A forged cut with a checkpoint to match does not have the signature.
        (
            format!(
                "UPDATE ledger_cut SET frontier = sha256('') || sha256('a') WHERE {last};
                 UPDATE checkpoint SET root = root_of_frontier(sha256('') || sha256('a')) WHERE size = 6"
            ),
            "checkpoints: ",
        ),
        ("UPDATE tile SET hashes = set_byte(hashes, 40, 1)".into(), "cut: the tiles do not give"),
        ("DELETE FROM leaf WHERE leaf_index = 6".into(), "leaf 6: is missing"),
    ];
    for (tamper, named) in cases {
        let mut aged = Aged::new(1).await;
        assert_eq!(aged.days(&[3, 3, 3]).await, 2);
        assert!(aged.verify().await.ok);
        as_superuser(&mut aged, &tamper).await;
        let report = aged.verify().await;
        let failed = failed(&report);
        assert!(!report.ok && failed.iter().any(|f| f.contains(named)), "{tamper}: {failed:?}");
    }
}

/// A conflict is known as one also where what it contradicts has left.
#[tokio::test]
async fn conflicts_with_what_has_left_are_still_conflicts() {
    let mut aged = Aged::new(1).await;
    let outside = "events.reporting.x.y";
    let said = |more: &str| format!(r#"{{"event_id":"0190c3d5-0000-7000-8000-000000000001","event_type":"{more}"}}"#);
    let first = aged.place.message(outside, said("a"), false);
    let second = aged.event(None, "c1");
    aged.place.apply(&aged.sequencer, &[first, second]).await.unwrap();
    aged.end_day().await;
    // One contradicts while the first is here, one after it left.
    let other = aged.place.message(outside, said("b"), false);
    aged.place.apply(&aged.sequencer, &[other]).await.unwrap();
    assert_eq!(aged.days(&[1]).await, 1);
    let late = aged.place.message(outside, said("c"), false);
    let same = aged.place.message(outside, said("a"), false);
    aged.place.apply(&aged.sequencer, &[late, same]).await.unwrap();
    let leaves = aged.place.ledger().window(0, 100).await.unwrap();
    let conflicts: Vec<i64> = leaves
        .iter()
        .filter(|leaf| leaf.columns.invalid_reason.as_ref().is_some_and(|why| why.starts_with("conflict: event")))
        .map(|leaf| leaf.leaf_index)
        .collect();
    assert_eq!((conflicts, leaves.len()), (vec![2, 4], 3), "and the same bytes again are no leaf");
    let report = aged.verify().await;
    assert!(report.ok, "{:?}", failed(&report));
}

/// Decided transactions that left count as before.
#[tokio::test]
async fn transactions_that_left_are_counted() {
    let mut aged = Aged::new(1).await;
    // As the token engine publishes them, but for the fields that do not matter here: so they are no valid events, and the
    // columns are set by hand.
    aged.append(4).await;
    aged.end_day().await;
    let statement =
        "UPDATE leaf SET producer = 'token-engine/1', event_type = 'transaction.created' WHERE leaf_index = 0;
        UPDATE leaf SET producer = 'token-engine/1', event_type = 'transaction.rejected',
            envelope = convert_to('{\"data\":{\"was_held\":false}}', 'UTF8') WHERE leaf_index = 1;
        UPDATE leaf SET producer = 'token-engine/1', event_type = 'transaction.rejected',
            envelope = convert_to('{\"data\":{\"was_held\":true}}', 'UTF8') WHERE leaf_index = 2;
        UPDATE leaf SET producer = 'other-engine/1', event_type = 'transaction.created' WHERE leaf_index = 3";
    as_superuser(&mut aged, statement).await;
    assert_eq!(aged.days(&[1]).await, 1);
    let counted: i64 =
        sqlx::query_scalar("SELECT transactions FROM ledger_cut").fetch_one(&mut aged.place.root).await.unwrap();
    assert_eq!(counted, 2);
}

#[tokio::test]
async fn readers_are_told_where_it_is() {
    let mut aged = Aged::new(1).await;
    aged.append(2).await;
    let passing = aged.publisher.notary().sign(2, Timestamp::from_micros(START)).await.unwrap();
    aged.append(1).await;
    assert_eq!(aged.days(&[0, 300, 4]).await, 2);
    assert_eq!(aged.cut().await, 303);
    let service = aged.service().await;
    let in_archive = |status: tonic::Status, place: &str| {
        let (word, values) = reason(&status);
        assert_eq!((status.code(), word.as_str()), (Code::FailedPrecondition, "archived"), "{status:?}");
        assert_eq!(values["archive"], place);
        assert!(status.message().contains(place), "{status:?}");
    };
    let first = format!("test/{}", day(0));
    let by_index = |index| pb::GetEventRequest { key: Some(pb::get_event_request::Key::LeafIndex(index)) };
    in_archive(service.get_event(asked(by_index(2))).await.unwrap_err(), &first);
    in_archive(service.get_event(asked(by_index(302))).await.unwrap_err(), &format!("test/{}", day(1)));
    assert!(service.get_event(asked(by_index(303))).await.is_ok());
    assert_eq!(service.get_event(asked(by_index(307))).await.unwrap_err().code(), Code::NotFound);
    let key = pb::get_event_request::Key::EventId("0190c3d5-0000-7000-8000-000000000001".into());
    let unknown = service.get_event(asked(pb::GetEventRequest { key: Some(key) })).await.unwrap_err();
    assert!(unknown.message().contains("leaves below 303 are archived"), "{unknown:?}");

    let at = |day: i64| Some(to_timestamp(Timestamp::from_micros(START - DAY / 2 + day * DAY)));
    let list = |from| pb::ListEventsRequest { from, ..pb::ListEventsRequest::default() };
    let early = service.list_events(asked(list(at(1)))).await.unwrap_err();
    assert_eq!((early.code(), reason(&early).0.as_str()), (Code::FailedPrecondition, "archived"));
    assert_eq!(service.list_events(asked(list(at(2)))).await.unwrap().into_inner().events.len(), 4);
    assert_eq!(service.list_events(asked(list(None))).await.unwrap().into_inner().events[0].leaf_index, 303);

    let leaf = |index| Some(pb::get_inclusion_proof_request::Leaf::LeafIndex(index));
    let prove = |index| pb::GetInclusionProofRequest { leaf: leaf(index), size: 0 };
    in_archive(service.get_inclusion_proof(asked(prove(0))).await.unwrap_err(), &first);
    assert!(service.get_inclusion_proof(asked(prove(305))).await.is_ok());

    // A checkpoint that has left the system is there for ever; others below the cut cannot be made any more.
    let sized = |size| pb::GetCheckpointRequest { size };
    let kept = service.get_checkpoint(asked(sized(3))).await.unwrap().into_inner().checkpoint.unwrap();
    assert_eq!(kept.size, 3);
    assert_eq!(
        service.get_checkpoint(asked(sized(2))).await.unwrap().into_inner().checkpoint.unwrap().note,
        passing.note
    );
    let gone = service.get_checkpoint(asked(sized(100))).await.unwrap_err();
    assert_eq!(reason(&gone).0, "not_online");
    let since = |note: &str| pb::GetConsistencyProofRequest {
        from: Some(pb::get_consistency_proof_request::From::FromCheckpoint(note.into())),
        to_size: 0,
    };
    let gone = service.get_consistency_proof(asked(since(&kept.note))).await.unwrap_err();
    assert_eq!(reason(&gone).0, "not_online", "and that is no fork");
    assert_eq!(aged.place.context.metrics.alerts.with_label_values(&["audit_fork"]).get(), 0);
    let cut = service.get_checkpoint(asked(sized(303))).await.unwrap().into_inner().checkpoint.unwrap();
    assert!(service.get_consistency_proof(asked(since(&cut.note))).await.is_ok());

    let tiles = |from_leaf, hashes_only| pb::GetTilesRequest { size: 0, from_leaf, hashes_only };
    for (from_leaf, hashes_only, first) in [(0, false, "512"), (303, false, "512"), (302, true, "303")] {
        let gone = service.get_tiles(asked(tiles(from_leaf, hashes_only))).await.map(drop).unwrap_err();
        assert_eq!((reason(&gone).0.as_str(), reason(&gone).1["from_leaf"].as_str()), ("archived", first));
    }
    let files: Vec<_> = service.get_tiles(asked(tiles(303, true))).await.unwrap().into_inner().collect().await;
    let files: Vec<String> = files.into_iter().map(|file| file.unwrap().path).collect();
    assert_eq!(files, ["tile/0/001.p/51", "tile/1/000.p/1", "checkpoint"]);

    let range = |from, to| pb::ReadRangeRequest { producer: "audit-engine/1".into(), from, to };
    let mut read = service.read_range(asked(range(3, 9))).await.unwrap().into_inner();
    in_archive(read.next().await.unwrap().unwrap_err(), &first);
    let read: Vec<_> = service.read_range(asked(range(304, 307))).await.unwrap().into_inner().collect().await;
    assert!(read.len() == 4 && read.iter().all(Result::is_ok));
    let mut read = service.read_range(asked(range(400, 400))).await.unwrap().into_inner();
    assert_eq!(read.next().await.unwrap().unwrap_err().code(), Code::NotFound);
    let confirmed = pb::ConfirmedThroughRequest { producer: "audit-engine/1".into() };
    assert_eq!(service.confirmed_through(asked(confirmed)).await.unwrap().into_inner().producer_seq, 307);
}

#[tokio::test]
async fn days_are_listed_with_where_they_stand_and_why() {
    let mut aged = Aged::new(1).await;
    let service = aged.service().await;
    let ask = |state: &str| pb::ListDaysRequest { page: None, state: state.into() };
    assert!(service.list_days(asked(ask(""))).await.unwrap().into_inner().days.is_empty());
    assert_eq!(aged.days(&[3, 0, 2]).await, 2);
    aged.append(1).await;
    let days = service.list_days(asked(ask(""))).await.unwrap().into_inner().days;
    let seen: Vec<_> = days.iter().map(|d| (d.day.clone(), d.from_leaf, d.to_leaf, d.state.as_str())).collect();
    let expected = [(3, 5, 6, "ONLINE"), (2, 3, 5, "ARCHIVED"), (1, 3, 3, "DETACHED"), (0, 0, 3, "DETACHED")];
    assert_eq!(seen, expected.map(|(n, from, to, state)| (day(n), from, to, state)));
    let why: Vec<&str> = days.iter().map(|d| d.stays_because.as_str()).collect();
    assert!(why[0].contains("it is not over") && why[1].contains("it is kept for 1 days, until 2020-01-05"), "{why:?}");
    assert_eq!(why[2..], ["", ""]);
    assert!(days[3].detached_at.is_some() && days[3].archived_at.is_some() && days[1].detached_at.is_none());
    assert_eq!(
        (days[3].archive.clone(), days[3].manifest_sha256.clone()),
        (format!("test/{}", day(0)), "07".repeat(32))
    );
    let detached = service.list_days(asked(ask("DETACHED"))).await.unwrap().into_inner().days;
    assert_eq!(detached, days[2..]);
    assert_eq!(service.list_days(asked(ask("GONE"))).await.unwrap_err().code(), Code::InvalidArgument);
    let page = Some(deltran_api::common::v1::Page { size: 3, token: String::new() });
    let first = service.list_days(asked(pb::ListDaysRequest { page, ..ask("") })).await.unwrap().into_inner();
    assert_eq!((first.days.len(), first.next_page_token.as_str()), (3, day(1).as_str()));
    let page = Some(deltran_api::common::v1::Page { size: 3, token: first.next_page_token });
    let rest = service.list_days(asked(pb::ListDaysRequest { page, ..ask("") })).await.unwrap().into_inner();
    assert_eq!((rest.days, rest.next_page_token), (days[3..].to_vec(), String::new()));

    // What the engine was told comes after what the database says.
    let mut aged = three_days().await;
    let why = async |aged: &Aged, n: usize| {
        let days = aged.service().await.list_days(asked(ask(""))).await.unwrap().into_inner().days;
        days[days.len() - 1 - n].stays_because.clone()
    };
    assert_eq!(why(&aged, 0).await, "");
    assert_eq!(why(&aged, 1).await, "days go in order: 2020-01-01 is still here");
    aged.settings.detach = false;
    assert_eq!(why(&aged, 0).await, "nothing is detached: audit.detach is false");
    aged.settings.archive_directory = String::new();
    as_superuser(&mut aged, "DELETE FROM day_archive").await;
    assert_eq!(
        why(&aged, 0).await,
        "it is not archived; nothing is archived: audit.archive_directory and audit.archive_url are empty"
    );
}
