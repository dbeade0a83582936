//! The archive: days that prove themselves, read again before they are believed, and the proofs that come out of it.

use std::collections::BTreeMap;

use deltran_api::audit::v1 as pb;
use deltran_api::audit::v1::audit_service_server::AuditService;
use deltran_audit::domain::checkpoint::{Checkpoint, InclusionProof};
use deltran_audit::domain::leaf_hash;
use deltran_audit::domain::merkle::{Frontier, Hash, is_consistent};
use deltran_audit::domain::tile::{Additions, tiles_of};
use deltran_audit::export::check::{Folder, check};
use deltran_messaging::Delivery;
use deltran_runtime::lease::RoundError;
use tokio_stream::StreamExt as _;

use crate::aged::{Aged, asked, day, failed, reason};
use crate::bucket::Bucket;
use crate::kept::Kept;

/// Days of these many leaves, one of each with bytes beside it.
async fn days(aged: &mut Aged, leaves: &[u64]) {
    for (n, count) in leaves.iter().enumerate() {
        if *count > 0 {
            let mut batch: Vec<Delivery> = (1..*count).map(|_| aged.event(Some("ALFAAEXX"), "c1")).collect();
            batch.push(aged.place.message("events.risk.a.b", format!("junk\n{n}"), false));
            aged.place.apply(&aged.sequencer, &batch).await.unwrap();
        }
        aged.end_day().await;
    }
}

/// What a stranger finds wrong in a day.
pub fn folder_checks(aged: &Aged, place: &str) -> Vec<String> {
    let keys = aged.publisher.notary().verifiers().to_vec();
    let folder = tempfile::tempdir().unwrap();
    let copy = aged.kept().copy_of(place, folder.path());
    let report = check(&Folder(copy), &keys, None, &mut |_, _| {}).unwrap();
    report.checks.iter().filter(|c| !c.ok).map(|c| format!("{}: {}", c.name, c.detail)).collect()
}

#[tokio::test]
async fn days_go_to_a_folder_and_leave_and_are_proven_from_there() {
    days_leave(Aged::new(3).await).await;
}

#[tokio::test]
async fn days_go_to_a_bucket_and_leave_and_are_proven_from_there() {
    days_leave(Aged::with(3, Some(Bucket::new().await)).await).await;
}

async fn days_leave(mut aged: Aged) {
    let counts = [3, 300, 0, 20, 255, 7, 1];
    days(&mut aged, &counts).await;
    let (mut frontier, mut added) = (Frontier::default(), Additions::default());
    let leaves = aged.place.ledger().window(0, 10_000).await.unwrap();
    let mut roots: Vec<Hash> = vec![frontier.root()];
    for leaf in &leaves {
        frontier.append(leaf_hash(&leaf.envelope), |node, hash| added.add(node, hash));
        roots.push(frontier.root());
    }
    let size = leaves.len() as u64;
    assert_eq!(size, counts.iter().sum::<u64>());

    aged.round().await.unwrap();
    // By the ledger's time it is the beginning of the eighth day: four days are three days old.
    assert_eq!(aged.cut().await, 3 + 300 + 20);
    let told = aged.published("partition").await;
    let words: Vec<(&str, &str)> =
        told.iter().map(|(kind, data)| (kind.as_str(), data["day"].as_str().unwrap())).collect();
    let named: Vec<String> = (0..7).map(day).collect();
    let archived = [0, 1, 3, 4, 5, 6].map(|n: usize| ("partition.archived", named[n].as_str()));
    let detached = [0, 1, 2, 3].map(|n: usize| ("partition.detached", named[n].as_str()));
    assert_eq!(words, [&archived[..], &detached[..]].concat());
    for n in [0, 1, 3, 4, 5, 6] {
        assert_eq!(folder_checks(&aged, &named[n]), Vec::<String>::new(), "a stranger verifies day {n}");
    }
    aged.round().await.unwrap();
    assert_eq!(aged.published("partition").await.len(), 10, "each day once");
    let report = aged.verify().await;
    assert!(report.ok, "{:?}", failed(&report));

    // Every leaf is still proven, to somebody who has a key alone.
    let service = aged.service_with_archive().await;
    let (notary, keys) = (aged.publisher.notary(), aged.publisher.notary().verifiers());
    for leaf in leaves.iter().step_by(13).chain(&leaves[300..330]) {
        let index = leaf.leaf_index as u64;
        let key = Some(pb::get_inclusion_proof_request::Leaf::LeafIndex(index));
        let request = pb::GetInclusionProofRequest { leaf: key, size: 0 };
        let answer = service.get_inclusion_proof(asked(request)).await.unwrap().into_inner();
        assert_eq!(answer.envelope, leaf.envelope);
        let proof = InclusionProof::parse(&answer.proof).unwrap();
        assert_eq!(proof.index, index);
        proof.verify(&leaf_hash(&answer.envelope), notary.origin(), keys).unwrap();
    }
    for old in [3u64, 303, 323, 578] {
        let note = service.get_checkpoint(asked(pb::GetCheckpointRequest { size: old })).await.unwrap().into_inner();
        let note = note.checkpoint.unwrap().note;
        let from = Some(pb::get_consistency_proof_request::From::FromCheckpoint(note.clone()));
        let request = pb::GetConsistencyProofRequest { from, to_size: 0 };
        let answer = service.get_consistency_proof(asked(request)).await.unwrap().into_inner();
        let hashes: Vec<Hash> = answer.hashes.iter().map(|hash| hash.as_slice().try_into().unwrap()).collect();
        let old_root = Checkpoint::verify(&note, notary.origin(), keys).unwrap().root;
        assert!(is_consistent(old, &old_root, size, &roots[size as usize], &hashes), "{old}");
    }
    let request = pb::GetTilesRequest { size: 0, from_leaf: 0, hashes_only: true };
    let files: Vec<_> = service.get_tiles(asked(request)).await.unwrap().into_inner().collect().await;
    let files: BTreeMap<String, Vec<u8>> = files.into_iter().map(|f| f.unwrap()).map(|f| (f.path, f.content)).collect();
    let grown: BTreeMap<_, _> = added.iter().map(|(tile, _, hashes)| (tile, hashes.concat())).collect();
    for (tile, width) in tiles_of(0, size) {
        assert_eq!(files.get(&tile.path(width).to_string()), grown.get(&tile), "{tile:?}");
    }
    assert_eq!(files.len(), tiles_of(0, size).len() + 1, "and the checkpoint");

    // An export begins at the cut, and continues a checkpoint from before it.
    let held = service.get_checkpoint(asked(pb::GetCheckpointRequest { size: 3 })).await.unwrap().into_inner();
    let since = held.checkpoint.unwrap().note;
    let order =
        |from_leaf, to_leaf| pb::ExportEventsRequest { from_leaf, to_leaf, since: since.clone(), ..Default::default() };
    let parts = service.export_events(asked(order(323, size))).await.unwrap().into_inner();
    let parts: Vec<_> = parts.collect().await;
    assert!(parts.iter().all(Result::is_ok), "{:?}", parts.last());
    let last = parts.into_iter().next_back().unwrap().unwrap().part.unwrap();
    assert!(matches!(last, pb::export_events_response::Part::Outcome(o) if o.events == size - 323));
    let by_time = pb::ExportEventsRequest { from: Some(Default::default()), ..Default::default() };
    for order in [order(0, size), order(322, size), pb::ExportEventsRequest::default(), by_time] {
        let refused = service.export_events(asked(order)).await.map(|_| ()).unwrap_err();
        assert_eq!(reason(&refused).0, "archived", "{refused:?}");
        assert!(refused.message().contains("begins at leaf 323"), "{}", refused.message());
    }
}

/// What is not what it was when it is read again keeps its day in the database.
#[tokio::test]
async fn a_folder_that_was_changed_lets_no_day_go() {
    changed_archives(async || None).await;
}

#[tokio::test]
async fn a_bucket_that_was_changed_lets_no_day_go() {
    changed_archives(async || Some(Bucket::new().await)).await;
}

async fn changed_archives(place: impl AsyncFn() -> Option<Bucket>) {
    type Tamper = fn(Kept<'_>);
    let cases: [(&str, Tamper); 8] = [
        ("leaves:", |archive| archive.change("2020-01-02/events.jsonl")),
        // Whichever of its fields that is: at the latest its hash is not that of the manifest.
        ("", |archive| archive.change("2020-01-02/leaves.jsonl")),
        ("leaves:", |archive| archive.change("2020-01-02/raw/302")),
        ("manifest.json is another one", |archive| archive.change("2020-01-02/manifest.json")),
        ("manifest.json", |archive| archive.remove("2020-01-02/manifest.json")),
        ("files:", |archive| archive.write("2020-01-02/more", "x")),
        ("is missing, or not what its events give", |archive| archive.change("tile/0/000")),
        ("is missing, or not what its events give", |archive| archive.remove("tile/0/000")),
    ];
    for (named, tamper) in cases {
        let mut aged = Aged::with(3, place().await).await;
        days(&mut aged, &[3, 300]).await;
        aged.round().await.unwrap();
        assert_eq!(aged.cut().await, 0);
        tamper(aged.kept());
        days(&mut aged, &[2, 2, 2]).await;
        let refused = match aged.round().await {
            Err(RoundError::Later(why)) => why,
            other => panic!("{named}: {other:?}"),
        };
        assert!(refused.contains("2020-01-02 does not verify") && refused.contains(named), "{named}: {refused}");
        assert_eq!(aged.cut().await, 3, "{named}: the first day left, the second stays");
        assert!(aged.verify().await.ok);
    }
}

/// A try that was broken off leaves files behind: the next one writes them over.
#[tokio::test]
async fn what_a_broken_try_left_in_a_folder_is_written_over() {
    written_over(Aged::new(1).await).await;
}

#[tokio::test]
async fn what_a_broken_try_left_in_a_bucket_is_written_over() {
    written_over(Aged::with(1, Some(Bucket::new().await)).await).await;
}

async fn written_over(mut aged: Aged) {
    days(&mut aged, &[4, 0]).await;
    for file in ["events.jsonl", "manifest.json"] {
        aged.kept().write(&format!("{}/{file}", day(0)), "half a line");
    }
    aged.round().await.unwrap();
    assert_eq!((folder_checks(&aged, &day(0)), aged.cut().await), (Vec::new(), 4));
    // Where the archive is gone, what needs it says so.
    aged.kept().clear();
    let key = Some(pb::get_inclusion_proof_request::Leaf::LeafIndex(0));
    let request = pb::GetInclusionProofRequest { leaf: key, size: 0 };
    let refused = aged.service_with_archive().await.get_inclusion_proof(asked(request)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).0.as_str()), (tonic::Code::Unavailable, "unavailable"), "{refused:?}");
}
