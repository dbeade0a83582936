//! Checkpoints: signed as the ledger grows, never of another history, published once a day.

use std::path::{Path, PathBuf};
use std::time::Duration;

use deltran_audit::checkpoints::Calendar;
use deltran_audit::config::Settings;
use deltran_audit::domain::checkpoint::{Checkpoint, ConsistencyProof, InclusionProof};
use deltran_audit::domain::leaf_hash;
use deltran_audit::domain::merkle::{consistency_plan, inclusion_plan};
use deltran_audit::domain::note::{Kind, Note, Signer, Verifier};
use deltran_audit::notary::{Notary, NotaryError, anchor_of};
use deltran_audit::store::{Checkpoints, Kept, Tree};
use deltran_kernel::{Clock, Timestamp};
use deltran_messaging::Delivery;
use tokio_util::sync::CancellationToken;

use crate::place::{DAY, Keys, NOON, ORIGIN, Place};

fn events(place: &Place, from: u64, to: u64) -> Vec<Delivery> {
    (from..to).map(|n| place.event(n + 1, "q")).collect()
}

async fn fork_of(notary: &Notary, size: u64, at: Timestamp) -> String {
    match notary.sign(size, at).await {
        Err(error @ NotaryError::Fork { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_checkpoint_continues_those_before_and_covers_every_leaf() {
    let place = Place::new().await;
    let (sequencer, keys) = (place.sequencer(), Keys::new());
    let notary = place.notary(&keys.settings());
    let tree = Tree::new(place.context.db.clone());
    let mut signed: Vec<Kept> = Vec::new();
    let mut size = 0;
    assert_eq!(notary.sign_growth(place.clock.now()).await.unwrap(), None, "an empty ledger has no checkpoint");
    for batch in [1, 1, 254, 1, 300] {
        place.apply(&sequencer, &events(&place, size, size + batch)).await.unwrap();
        size += batch;
        signed.push(notary.sign_growth(place.clock.now()).await.unwrap().unwrap());
        assert_eq!(notary.sign_growth(place.clock.now()).await.unwrap(), None, "it did not grow");
    }
    // One of an earlier size, as an export asks for; and again.
    let between = notary.sign(100, place.clock.now()).await.unwrap();
    assert_eq!(notary.sign(100, place.clock.now()).await.unwrap(), between);
    signed.push(between);
    signed.sort_by_key(|kept| kept.size);
    for (n, old) in signed.iter().enumerate() {
        let earlier = Checkpoint::verify(&old.note, ORIGIN, notary.verifiers()).unwrap();
        for new in &signed[n..] {
            let hashes = tree.fill(&consistency_plan(old.size, new.size).unwrap()).await.unwrap().unwrap();
            let proof = ConsistencyProof { old: old.size, hashes, checkpoint: new.note.clone() };
            assert_eq!(ConsistencyProof::parse(&proof.text()).unwrap(), proof);
            assert_eq!(proof.verify(&earlier, notary.verifiers()).unwrap().size, new.size);
        }
    }
    let latest = signed.last().unwrap();
    for index in [0, 1, 99, 255, 256, size - 1] {
        let leaf = place.ledger().at(index as i64).await.unwrap().unwrap();
        let hashes = tree.fill(&inclusion_plan(index, latest.size).unwrap()).await.unwrap().unwrap();
        let proof = InclusionProof { index, hashes, checkpoint: latest.note.clone() };
        proof.verify(&leaf_hash(&leaf.envelope), ORIGIN, notary.verifiers()).unwrap();
        assert!(proof.verify(&leaf_hash(b"another"), ORIGIN, notary.verifiers()).is_err());
    }
    assert!(matches!(
        notary.sign(size + 1, place.clock.now()).await,
        Err(NotaryError::TooLarge { asked, have }) if (asked, have) == (size + 1, size)
    ));
    let report = place.verify_with(&keys.settings()).await;
    assert!(report.ok, "{:?}", report.checks);
    // Another process that starts with the same key and file goes on.
    assert_eq!(place.notary(&keys.settings()).sign(size, place.clock.now()).await.unwrap(), *latest);
}

/// An operator who rebuilds the ledger, with all tables consistent in themselves, is not signed for: the file beside the
/// key knows better, and so does a witness elsewhere.
#[tokio::test]
async fn a_rebuilt_ledger_is_not_signed_and_a_witness_refuses_it() {
    let mut place = Place::new().await;
    let (sequencer, keys) = (place.sequencer(), Keys::new());
    let notary = place.notary(&keys.settings());
    let tree = Tree::new(place.context.db.clone());
    let mut witness = Witness::new(keys.folder.path(), notary.verifiers()[0].clone());
    place.apply(&sequencer, &events(&place, 0, 10)).await.unwrap();
    let first = notary.sign(10, place.clock.now()).await.unwrap();
    let cosignature =
        witness.see(&ConsistencyProof { old: 0, hashes: Vec::new(), checkpoint: first.note.clone() }.text()).unwrap();
    let kept = Checkpoints::new(place.context.db.clone());
    assert!(kept.add_signatures(10, &first.note, &cosignature).await.unwrap());
    let cosigned = kept.at(10).await.unwrap().unwrap();
    let known = [notary.verifiers()[0].clone(), witness.key.verifier().clone()];
    assert_eq!(Note::parse(&cosigned.note).unwrap().verify(&known).unwrap().len(), 2);

    // Everything is taken away and written again with one event exchanged; the signed checkpoints go too.
    place.by_root("SET session_replication_role = replica").await.unwrap();
    place
        .by_root(
            "DELETE FROM leaf; DELETE FROM unnumbered; DELETE FROM received; DELETE FROM stream_received; DELETE FROM tile;
             DELETE FROM checkpoint; UPDATE tree_head SET size = 0, frontier = '';
             UPDATE log_head SET size = 0, invalid = 0, conflicts = 0",
        )
        .await
        .unwrap();
    let lost = fork_of(&notary, 0, place.clock.now()).await;
    assert!(lost.contains("0 leaves only"), "{lost}");
    let mut other = events(&place, 0, 12);
    other[3] = place.event(4, "another");
    place.apply(&sequencer, &other).await.unwrap();
    let report = place.verify().await;
    assert!(report.ok, "the tables alone agree: {:?}", report.checks);
    let refused = fork_of(&notary, 12, place.clock.now()).await;
    assert!(refused.contains("size 10"), "{refused}");
    assert_eq!(place.context.metrics.alerts.with_label_values(&["audit_fork"]).get(), 1);
    // Also after a restart, since the file beside the key stays.
    fork_of(&place.notary(&keys.settings()), 12, place.clock.now()).await;
    let report = place.verify_with(&keys.settings()).await;
    let failed: Vec<_> = report.checks.iter().filter(|c| !c.ok).map(|c| c.check.as_str()).collect();
    assert_eq!(failed, ["checkpoints"]);

    // Without that file it is signed; whoever holds an earlier checkpoint finds it out.
    std::fs::remove_file(anchor_of(&keys.file("audit.key"))).unwrap();
    let forged = place.notary(&keys.settings()).sign(12, place.clock.now()).await.unwrap();
    let hashes = tree.fill(&consistency_plan(10, 12).unwrap()).await.unwrap().unwrap();
    let proof = ConsistencyProof { old: 10, hashes, checkpoint: forged.note };
    let refused = witness.see(&proof.text()).unwrap_err();
    assert!(refused.contains("one of them was rebuilt"), "{refused}");
}

/// A witness: remembers the last checkpoint that it saw and cosigns only what continues it.
struct Witness {
    key: Signer,
    log: Verifier,
    file: PathBuf,
}

impl Witness {
    fn new(folder: &Path, log: Verifier) -> Self {
        let key = Signer::new("witness.example/w1", Kind::Cosignature, &[7; 32]).unwrap();
        Self { key, log, file: folder.join("witnessed") }
    }

    fn see(&mut self, request: &str) -> Result<String, String> {
        let proof = ConsistencyProof::parse(request).map_err(|e| e.to_string())?;
        let empty = Checkpoint { origin: ORIGIN.into(), size: 0, root: deltran_audit::domain::merkle::empty_root() };
        let keys = std::slice::from_ref(&self.log);
        let before = std::fs::read_to_string(&self.file)
            .map_or(Ok(empty), |note| Checkpoint::verify(&note, ORIGIN, keys))
            .map_err(|e| e.to_string())?;
        proof.verify(&before, keys).map_err(|e| e.to_string())?;
        std::fs::write(&self.file, &proof.checkpoint).map_err(|e| e.to_string())?;
        let text = Note::parse(&proof.checkpoint).map_err(|e| e.to_string())?.text.to_owned();
        Ok(self.key.sign(&text, 1_762_430_400))
    }
}

#[tokio::test]
async fn what_was_done_to_a_checkpoint_is_named() {
    for (tamper, named) in [
        ("UPDATE checkpoint SET note = replace(note, E'\n4\n', E'\n5\n') WHERE size = 4", "size 4"),
        ("UPDATE checkpoint SET root = sha256('') WHERE size = 6", "its columns are not what its note says"),
        ("UPDATE checkpoint SET size = 5 WHERE size = 4", "size 5"),
    ] {
        let mut place = Place::new().await;
        let (sequencer, keys) = (place.sequencer(), Keys::new());
        let notary = place.notary(&keys.settings());
        for size in [4, 6] {
            place.apply(&sequencer, &events(&place, size - if size == 4 { 4 } else { 2 }, size)).await.unwrap();
            notary.sign(size, place.clock.now()).await.unwrap();
        }
        let refused = place.by_root(tamper).await.unwrap_err();
        assert!(refused.contains("does not change"), "{refused}");
        place.by_root("SET session_replication_role = replica").await.unwrap();
        place.by_root(tamper).await.unwrap();
        let report = place.verify_with(&keys.settings()).await;
        let failed: Vec<_> =
            report.checks.iter().filter(|c| !c.ok).map(|c| format!("{}: {}", c.check, c.detail)).collect();
        assert!(failed.iter().any(|f| f.starts_with("checkpoints") && f.contains(named)), "{tamper}: {failed:?}");
    }
}

#[tokio::test]
async fn keys_are_exchanged_without_a_gap_and_only_for_this_log() {
    let place = Place::new().await;
    let (sequencer, keys) = (place.sequencer(), Keys::new());
    place.apply(&sequencer, &events(&place, 0, 3)).await.unwrap();
    let old = place.notary(&keys.settings()).sign(3, place.clock.now()).await.unwrap();
    let next = keys.add("next.key", ORIGIN, 2);
    let file = |name: &str| keys.file(name).display().to_string();

    let both = Settings { key_files: vec![file("audit.key"), file("next.key")], ..Settings::default() };
    let notary = place.notary(&both);
    place.apply(&sequencer, &events(&place, 3, 5)).await.unwrap();
    let signed = notary.sign(5, place.clock.now()).await.unwrap();
    for key in notary.verifiers() {
        assert!(Checkpoint::verify(&signed.note, ORIGIN, std::slice::from_ref(key)).is_ok(), "{key}");
    }
    let earlier = notary.verifiers()[0].to_string();
    let rotated = Settings { key_files: vec![file("next.key")], earlier_keys: vec![earlier], ..Settings::default() };
    let notary = place.notary(&rotated);
    assert_eq!(notary.known().map(|known| known.size), Some(5), "the last checkpoint stands beside the new key too");
    place.apply(&sequencer, &events(&place, 5, 6)).await.unwrap();
    let signed = notary.sign(6, place.clock.now()).await.unwrap();
    assert!(Checkpoint::verify(&signed.note, ORIGIN, &[next]).is_ok());
    assert!(Checkpoint::verify(&old.note, ORIGIN, notary.verifiers()).is_ok(), "old signatures stay valid");
    assert!(place.verify_with(&rotated).await.ok);

    keys.add("other.key", "deltran/other/audit", 3);
    let other = Settings { key_files: vec![file("other.key")], ..Settings::default() };
    let refused = Notary::new(&other, "test", place.context.db.clone(), place.context.metrics.clone()).err().unwrap();
    assert!(refused.to_string().contains("deltran/other/audit"), "{refused}");
    assert!(matches!(place.notary(&Settings::default()).sign(6, place.clock.now()).await, Err(NotaryError::NoKey)));
}

#[tokio::test]
async fn a_day_that_is_over_is_published_once() {
    let place = Place::new().await;
    let (sequencer, keys) = (place.sequencer(), Keys::new());
    let published = keys.file("published");
    let settings = Settings { publish_directory: published.display().to_string(), ..keys.settings() };
    let publisher = place.publisher(&settings);
    let notary = publisher.notary().clone();
    let calendar = Calendar::new(place.context.clone(), publisher.clone());
    place.apply(&sequencer, &events(&place, 0, 5)).await.unwrap();
    place.clock.advance_micros(DAY);
    place.apply(&sequencer, &events(&place, 5, 7)).await.unwrap();
    place.clock.advance_micros(2 * DAY);

    for round in 0..2 {
        let stop = CancellationToken::new();
        let worker = tokio::spawn(calendar.clone().run(stop.clone()));
        let checkpoints = Checkpoints::new(place.context.db.clone());
        let done = async {
            while checkpoints.at(7).await.unwrap().is_none_or(|kept| !kept.published) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), done).await.expect("the day's checkpoint is published");
        stop.cancel();
        worker.await.unwrap();
        let days: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT day::text, from_leaf, to_leaf FROM ledger_day ORDER BY day")
                .fetch_all(place.context.db.pool())
                .await
                .unwrap();
        let day = |name: &str, from, to| (name.to_owned(), from, to);
        assert_eq!(days, [day("2025-11-06", 0, 5), day("2025-11-07", 5, 7), day("2025-11-08", 7, 7)], "{round}");
        let told: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT envelope FROM outbox WHERE subject = 'events.audit.checkpoint.signed'")
                .fetch_all(place.context.db.pool())
                .await
                .unwrap();
        assert_eq!(told.len(), 1, "one event, however often the day is looked at");
    }
    let note = std::fs::read_to_string(published.join("checkpoint")).unwrap();
    assert_eq!(Checkpoint::verify(&note, ORIGIN, notary.verifiers()).unwrap().size, 7);
    assert_eq!(std::fs::read_to_string(published.join("checkpoints/7")).unwrap(), note);

    // A clock that goes back records nothing in a day that is closed.
    place.clock.advance_micros(-2 * DAY);
    place.apply(&sequencer, &events(&place, 7, 8)).await.unwrap();
    let late = place.ledger().at(7).await.unwrap().unwrap();
    assert_eq!(late.recorded_at.micros(), NOON - NOON % DAY + 3 * DAY);
    // What has left the system is kept, the rest is not.
    notary.sign(8, place.clock.now()).await.unwrap();
    notary.sign(6, place.clock.now()).await.unwrap();
    let checkpoints = Checkpoints::new(place.context.db.clone());
    assert_eq!(checkpoints.thin(place.clock.now().plus_seconds(1)).await.unwrap(), 1);
    let sizes: Vec<u64> = checkpoints.page(None, false, 10).await.unwrap().iter().map(|kept| kept.size).collect();
    assert_eq!(sizes, [8, 7], "the latest and the published one");
    assert!(place.verify_with(&settings).await.ok);
}
