//! Exports: whole and filtered, checked by their files alone; what was changed in them is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use deltran_api::audit::v1::export_events_response::Part;
use deltran_audit::domain::checkpoint::Checkpoint;
use deltran_audit::domain::export::manifest::{Filter, Range};
use deltran_audit::domain::note::Verifier as Key;
use deltran_audit::export::check::{Folder, Report, check};
use deltran_audit::export::pass::Formats;
use deltran_audit::export::{Exported, Exporter, Order, Sender};
use deltran_audit::history::History;
use deltran_events::data::transactions::{
    DepositConfirmed, Evidence, SettlementModel, TransactionCreated, TransactionState, WindowSealed,
};
use deltran_events::{Amount, Context, Event, Stamp};
use deltran_kernel::{EventId, IdSource, SeededIds, Timestamp, TransactionId, WindowId};
use deltran_messaging::Delivery;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::place::{Keys, NOON, ORIGIN, Place};

const TOKEN: &str = "token-engine/1";

fn token_event(place: &Place, seq: u64, event: Event, participant: &str) -> Delivery {
    let at = Timestamp::from_micros(NOON);
    let event_id = EventId::new(SeededIds::new(5000 + seq).next_id(at));
    let context = Context { participant_id: Some(participant.parse().unwrap()), ..Context::default() };
    let stamp = Stamp { event_id, at, producer: TOKEN, producer_seq: seq };
    let bytes = deltran_events::encode(&event, &context, &stamp).unwrap();
    let spec = event.spec();
    place.message(&format!("events.transactions.{}", spec.event_type()), bytes, false)
}

fn payment(place: &Place, seq: u64, window_seq: u64, payee: &str) -> Delivery {
    let ids = SeededIds::new(9000 + seq);
    let at = Timestamp::from_micros(NOON);
    let event = TransactionCreated {
        transaction_id: TransactionId::new(ids.next_id(at)),
        payer: "ALFAAEXX".parse().unwrap(),
        payee: payee.parse().unwrap(),
        amount: Amount::Text("10.25".into()),
        currency: "EUR".parse().unwrap(),
        settlement_model: SettlementModel::NetMultilateral,
        state: TransactionState::Committed,
        window_id: Some(WindowId::new(SeededIds::new(1).next_id(at))),
        window_seq: Some(window_seq),
        end_to_end_id: Some("=1+1".into()),
        uetr: None,
        return_of: None,
        expires_at: None,
        evidence: Evidence {
            screening: "APPROVE".into(),
            screening_evidence: "no_match".into(),
            list_versions: Vec::new(),
            rule_version: "1".into(),
            screening_score: None,
            risk_version: 1,
            cap_headroom: None,
            cover_headroom: None,
        },
    };
    token_event(place, seq, event.into(), "ALFAAEXX")
}

/// A ledger of 20 leaves: 12 accesses, a message that is no line, one that is no event, three payments, their window's
/// seal, a deposit, and a payment of another window.
async fn ledger(place: &Place) {
    let at = Timestamp::from_micros(NOON);
    let sequencer = place.sequencer();
    let mut batch: Vec<Delivery> = (1..=12).map(|n| place.event(n, "q")).collect();
    batch.push(place.message("events.risk.a.b", &b"two\nlines"[..], false));
    batch.push(place.message("events.risk.a.b", &b"{\"no\":\"event\"}"[..], false));
    for n in 1..=3 {
        batch.push(payment(place, n, n, if n == 2 { "GAMMDEXX" } else { "BETAAEXX" }));
    }
    let sealed = WindowSealed {
        window_id: WindowId::new(SeededIds::new(1).next_id(at)),
        currency: "EUR".parse().unwrap(),
        count: 3,
        gross: Amount::Text("30.75".into()),
        digest: "00".repeat(32),
        next_window_id: None,
    };
    batch.push(token_event(place, 4, sealed.into(), "ALFAAEXX"));
    let deposit = DepositConfirmed {
        participant: "BETAAEXX".parse().unwrap(),
        amount: Amount::Text("1000.00".into()),
        currency: "EUR".parse().unwrap(),
        reference: "r".into(),
    };
    batch.push(token_event(place, 5, deposit.into(), "BETAAEXX"));
    batch.push(place.event(13, "q"));
    place.apply(&sequencer, &batch).await.unwrap();
}

fn order(from_leaf: u64, to_leaf: u64) -> Order {
    Order {
        range: Range { from_leaf, to_leaf, from: None, to: None },
        filter: Filter::default(),
        formats: Formats { csv: true, parquet: true },
        since: None,
        have: BTreeMap::new(),
        user: "ada".into(),
        role: "auditor".into(),
    }
}

type Files = BTreeMap<String, Vec<u8>>;

/// Runs an order; the files as a receiver puts them together.
async fn run(place: &Place, keys: &Keys, order: &Order, mut files: Files) -> (Files, Result<Exported, String>) {
    let history = History::new(place.context.db.clone(), None);
    let exporter = Exporter::new(place.context.clone(), place.door(), place.publisher(&keys.settings()), history);
    let (sender, mut receiver): (Sender, _) = mpsc::channel(1);
    let receive = async {
        while let Some(answer) = receiver.recv().await {
            if let Part::Piece(piece) = answer.unwrap().part.unwrap() {
                let file = files.entry(piece.file).or_default();
                assert_eq!(file.len() as u64, piece.offset);
                file.extend(piece.data);
            }
        }
        files
    };
    let send = async {
        let outcome = exporter.run(order, true, &sender).await;
        drop(sender);
        outcome.map_err(|failure| failure.message)
    };
    let (outcome, files) = tokio::join!(send, receive);
    (files, outcome)
}

struct Written {
    folder: TempDir,
    keys: Vec<Key>,
}

impl Written {
    fn new(files: &Files, keys: &Keys) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let secret = fs::read_to_string(keys.file("audit.key")).unwrap();
        let key = deltran_audit::domain::note::Signer::parse(&secret).unwrap().verifier().clone();
        Self { folder, keys: vec![key] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn check(&self, since: Option<&str>) -> Result<Report, String> {
        check(&Folder(self.folder.path().to_owned()), &self.keys, since, &mut |_, _| {})
    }

    /// The names of checks that fail, and the first leaf that differs.
    fn failing(&self) -> (Vec<String>, Option<u64>) {
        let report = self.check(None).unwrap();
        (report.checks.iter().filter(|c| !c.ok).map(|c| c.name.clone()).collect(), report.first)
    }
}

fn assert_good(report: &Report) {
    assert!(report.ok(), "{:#?}", report.checks.iter().filter(|c| !c.ok).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_range_verifies_by_its_files_alone_and_says_what_it_holds() {
    let (place, keys) = (Place::new().await, Keys::new());
    ledger(&place).await;
    for (from, to) in [(0, 20), (3, 17), (0, 0), (20, 20), (7, 8), (0, 13)] {
        let (files, exported) = run(&place, &keys, &order(from, to), Files::new()).await;
        let exported = exported.unwrap();
        let report = Written::new(&files, &keys).check(None).unwrap();
        assert_good(&report);
        assert_eq!(report.manifest, exported.manifest);
        assert_eq!(report.manifest.summary.events, to - from);
    }
    let (files, exported) = run(&place, &keys, &order(0, 20), Files::new()).await;
    let summary = exported.unwrap().manifest.summary;
    let eur = &summary.totals["EUR"];
    assert_eq!(
        (eur["committed"].count, eur["committed"].minor.units(), eur["minted"].minor.units()),
        (3, 3075, 100_000)
    );
    assert_eq!((summary.invalid, summary.types["transaction.created"], summary.windows.unwrap().tied), (2, 3, 1));
    assert_eq!(summary.producers[TOKEN], [(1, 5)]);
    assert_eq!(files["raw/12"], b"two\nlines");
    let lines: Vec<&[u8]> = files["events.jsonl"].split(|b| *b == b'\n').collect();
    assert_eq!((lines[13], lines.len()), (&b"{\"no\":\"event\"}"[..], 21), "the exact bytes, a line each");
    // A part of a window's payments is not taken for all of them.
    let (_, part) = run(&place, &keys, &order(15, 20), Files::new()).await;
    let windows = part.unwrap().manifest.summary.windows.unwrap();
    assert_eq!((windows.tied, windows.begun_before, windows.differences.len()), (0, 1, 0));
}

#[tokio::test]
async fn what_was_changed_in_the_files_is_named() {
    let (place, keys) = (Place::new().await, Keys::new());
    ledger(&place).await;
    let (files, outcome) = run(&place, &keys, &order(2, 20), Files::new()).await;
    outcome.unwrap();
    let lines = |name: &str| -> Vec<String> {
        String::from_utf8(files[name].clone()).unwrap().lines().map(str::to_owned).collect()
    };
    let text = |lines: Vec<String>| lines.into_iter().map(|line| line + "\n").collect::<String>().into_bytes();
    let with = |name: &str, change: &dyn Fn(&mut Vec<String>)| {
        let mut all = lines(name);
        change(&mut all);
        (name.to_owned(), Some(text(all)))
    };
    let flipped = |name: &str, at: usize| {
        let mut bytes = files[name].clone();
        bytes[at] ^= 1;
        (name.to_owned(), Some(bytes))
    };
    let leaves = |first: u64| (vec!["leaves", "tree"], Some(first));
    type Case<'a> = (&'a str, (String, Option<Vec<u8>>), (Vec<&'a str>, Option<u64>));
    let cases: Vec<Case<'_>> = vec![
        ("a byte of an event", with("events.jsonl", &|l| l[5] = l[5].replace("access", "acceß")), leaves(7)),
        ("two events swapped", with("events.jsonl", &|l| l.swap(3, 4)), leaves(5)),
        ("an event removed", with("events.jsonl", &|l| drop(l.remove(6))), leaves(8)),
        ("an event added", with("events.jsonl", &|l| l.insert(6, l[6].clone())), leaves(9)),
        ("the last event removed", with("events.jsonl", &|l| drop(l.pop())), leaves(19)),
        ("an amount", with("events.jsonl", &|l| l[12] = l[12].replace("10.25", "99.25")), leaves(14)),
        (
            "a line beside",
            with("leaves.jsonl", &|l| l[4] = l[4].replace("events.audit", "events.other")),
            (vec![], None),
        ),
        (
            "a hash beside",
            with("leaves.jsonl", &|l| l[4] = l[3].replace("\"leaf_index\":5", "\"leaf_index\":6")),
            (vec!["leaves"], Some(6)),
        ),
        ("the frontier", flipped("frontier.start", 0), (vec!["tree"], None)),
        ("the first checkpoint", flipped("checkpoint.start", 24), (vec!["checkpoints", "tree"], None)),
        ("the last checkpoint", flipped("checkpoint.end", 30), (vec!["checkpoints", "tree"], None)),
        ("the CSV", flipped("events.csv", 100), (vec![], None)),
        ("the Parquet file removed", ("events.parquet".into(), None), (vec![], None)),
        ("another file", ("more.txt".into(), Some(b"x".to_vec())), (vec![], None)),
        ("the bytes of a wrapped message", flipped("raw/12", 0), (vec!["leaves"], Some(12))),
        ("those removed", ("raw/12".into(), None), (vec!["leaves"], Some(12))),
        (
            "a count in the manifest",
            with("manifest.json", &|l| l.iter_mut().for_each(|l| *l = l.replace("\"3075\"", "\"3076\""))),
            (vec!["manifest", "totals"], None),
        ),
        (
            "who asked",
            with("manifest.json", &|l| l.iter_mut().for_each(|l| *l = l.replace("ada", "eva"))),
            (vec!["manifest"], None),
        ),
        ("the signature removed", ("manifest.json.sig".into(), None), (vec!["manifest"], None)),
    ];
    for (what, (name, content), (mut failing, first)) in cases {
        let written = Written::new(&files, &keys);
        let path = written.path(&name);
        match content {
            Some(content) => fs::write(path, content).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let (found, leaf) = written.failing();
        assert_eq!(leaf, first, "{what}: {found:?}");
        // What the manifest lists is compared with it as well, whatever else was found.
        if name != "manifest.json" && !name.starts_with("manifest.json.sig") || failing.is_empty() {
            failing.push("files");
        }
        for check in &failing {
            let own = *check == "files" && name.starts_with("raw/") && leaf.is_some() && written.path(&name).exists();
            assert!(found.iter().any(|f| f == check) || own, "{what}: {check} of {found:?}");
        }
        assert!(!found.is_empty(), "{what}");
    }
    // A truncated file, a missing one, and a folder that is none.
    let written = Written::new(&files, &keys);
    let whole = &files["events.jsonl"];
    fs::write(written.path("events.jsonl"), &whole[..whole.len() - 40]).unwrap();
    let report = written.check(None).unwrap();
    assert!(!report.ok() && report.first.is_some(), "{report:?}");
    fs::remove_file(written.path("events.jsonl")).unwrap();
    assert!(written.check(None).unwrap_err().contains("events.jsonl"));
    fs::remove_file(written.path("manifest.json")).unwrap();
    assert!(written.check(None).unwrap_err().contains("no finished export"));
}

#[tokio::test]
async fn only_the_ledgers_own_key_counts() {
    let (place, keys) = (Place::new().await, Keys::new());
    ledger(&place).await;
    let (files, outcome) = run(&place, &keys, &order(0, 20), Files::new()).await;
    outcome.unwrap();
    for (key, why) in [
        (keys.add("wrong.key", ORIGIN, 9), "no known key has signed it"),
        (keys.add("other.key", "deltran/other/audit", 1), "the keys are those of"),
    ] {
        let written = Written { keys: vec![key], ..Written::new(&files, &keys) };
        let report = written.check(None).unwrap();
        let failed = report.checks.iter().find(|c| c.name == "manifest").unwrap();
        assert!(!failed.ok && failed.detail.contains(why), "{}", failed.detail);
        assert!(report.checks.iter().any(|c| c.name == "checkpoints" && !c.ok));
    }
}

#[tokio::test]
async fn a_filtered_export_proves_each_event_and_says_what_it_left_out() {
    let (place, keys) = (Place::new().await, Keys::new());
    ledger(&place).await;
    let filter = Filter { participant: Some("GAMMDEXX".into()), ..Filter::default() };
    let (files, exported) = run(&place, &keys, &Order { filter, ..order(1, 20) }, Files::new()).await;
    let manifest = exported.unwrap().manifest;
    // The payee is named by no column, and sees its payment.
    assert_eq!((manifest.summary.events, manifest.summary.windows), (1, None));
    assert_eq!(manifest.left_out[TOKEN], [(1, 1), (3, 5)]);
    assert_eq!(manifest.left_out["audit-engine/1"], [(2, 13)]);
    let proofs: Vec<&String> = files.keys().filter(|name| name.starts_with("proofs/")).collect();
    assert_eq!(proofs, ["proofs/15.tlog-proof"]);
    let written = Written::new(&files, &keys);
    assert_good(&written.check(None).unwrap());
    let readme = fs::read_to_string(written.path("README.txt")).unwrap();
    assert!(readme.contains("not completeness"), "{readme}");
    let proof = fs::read_to_string(written.path("proofs/15.tlog-proof")).unwrap();
    fs::write(written.path("proofs/15.tlog-proof"), proof.replace("index 15", "index 14")).unwrap();
    assert_eq!(written.failing(), (vec!["leaves".into(), "proofs".into()], Some(15)));
    fs::remove_file(written.path("proofs/15.tlog-proof")).unwrap();
    let (failing, first) = written.failing();
    assert_eq!((failing, first), (vec!["leaves".into(), "proofs".into(), "files".into()], Some(15)));

    for (filter, expected) in [
        (Filter { domain: Some("transactions".into()), ..Filter::default() }, vec![14, 15, 16, 17, 18]),
        (
            Filter { correlation_id: Some("c1".into()), domain: Some("audit".into()), ..Filter::default() },
            (1..12).chain([19]).collect(),
        ),
        (Filter { domain: Some("clearing".into()), ..Filter::default() }, vec![]),
    ] {
        let (files, exported) = run(&place, &keys, &Order { filter, ..order(1, 20) }, Files::new()).await;
        let indexes: Vec<u64> = (0..20).filter(|n| files.contains_key(&format!("proofs/{n}.tlog-proof"))).collect();
        assert_eq!((indexes, exported.unwrap().manifest.summary.events), (expected.clone(), expected.len() as u64));
        assert_good(&Written::new(&files, &keys).check(None).unwrap());
    }

    // A tree of one leaf: its proof needs no hash of a tile.
    let filter = Filter { domain: Some("audit".into()), ..Filter::default() };
    let (files, exported) = run(&place, &keys, &Order { filter, ..order(0, 1) }, Files::new()).await;
    assert_eq!(exported.unwrap().manifest.summary.events, 1);
    assert!(files.contains_key("proofs/0.tlog-proof"), "{:?}", files.keys());
    assert_good(&Written::new(&files, &keys).check(None).unwrap());
}

#[tokio::test]
async fn the_receivers_own_checkpoint_is_continued() {
    let (place, keys) = (Place::new().await, Keys::new());
    ledger(&place).await;
    let publisher = place.publisher(&keys.settings());
    let held = publisher.publish(9, "test", "ada").await.unwrap().note;
    let since = Checkpoint::verify(&held, ORIGIN, publisher.notary().verifiers()).unwrap();
    let (files, outcome) = run(&place, &keys, &Order { since: Some(since), ..order(12, 20) }, Files::new()).await;
    assert_eq!(outcome.unwrap().manifest.since, Some(9));
    let written = Written::new(&files, &keys);
    assert_good(&written.check(Some(&held)).unwrap());
    let without = written.check(None).unwrap();
    assert!(without.checks.iter().any(|c| !c.ok && c.detail.contains("give --since")), "{without:?}");
    // A ledger that was rebuilt before the range, signed with the same key.
    let rebuilt = Place::new().await;
    let sequencer = rebuilt.sequencer();
    let batch: Vec<Delivery> = (1..=20).map(|n| rebuilt.event(n, "other")).collect();
    rebuilt.apply(&sequencer, &batch).await.unwrap();
    let other_keys = Keys::new();
    let (files, outcome) = run(&rebuilt, &other_keys, &order(9, 20), Files::new()).await;
    outcome.unwrap();
    let report = Written::new(&files, &other_keys).check(Some(&held)).unwrap();
    let check = report.checks.iter().find(|c| c.name == "since").unwrap();
    assert!(!check.ok && check.detail.contains("rebuilt"), "{}", check.detail);
}

#[tokio::test]
async fn an_interrupted_export_goes_on_to_the_same_bytes() {
    let (place, keys) = (Place::new().await, Keys::new());
    ledger(&place).await;
    let (whole, outcome) = run(&place, &keys, &order(0, 20), Files::new()).await;
    outcome.unwrap();
    for share in [0, 1, 3, 4] {
        let cut = |(name, content): (&String, &Vec<u8>)| {
            (!name.starts_with("manifest")).then(|| (name.clone(), content[..content.len() * share / 4].to_vec()))
        };
        let partial: Files = whole.iter().filter_map(cut).collect();
        let have = partial.iter().map(|(name, content)| (name.clone(), content.len() as u64)).collect();
        let (files, outcome) = run(&place, &keys, &Order { have, ..order(0, 20) }, partial).await;
        outcome.unwrap();
        for (name, content) in whole.iter().filter(|(name, _)| !name.starts_with("manifest")) {
            assert_eq!(files.get(name), Some(content), "{name}");
        }
        assert_good(&Written::new(&files, &keys).check(None).unwrap());
    }
}

#[tokio::test]
async fn a_ledger_that_does_not_verify_is_not_handed_out() {
    for (what, statement, leaf) in [
        (
            "a changed byte",
            "UPDATE leaf SET envelope = overlay(envelope PLACING '\\x20' FROM 1) WHERE leaf_index = 7",
            7,
        ),
        ("a missing row", "DELETE FROM leaf WHERE leaf_index = 11", 11),
        (
            "a swapped pair",
            "UPDATE leaf a SET envelope = b.envelope, leaf_hash = b.leaf_hash FROM leaf b WHERE a.leaf_index + b.leaf_index = 9 AND a.leaf_index IN (4, 5)",
            20,
        ),
    ] {
        let (mut place, keys) = (Place::new().await, Keys::new());
        ledger(&place).await;
        place.by_root("SET session_replication_role = replica").await.unwrap();
        place.by_root(statement).await.unwrap();
        let (files, outcome) = run(&place, &keys, &order(2, 20), Files::new()).await;
        let refused = outcome.unwrap_err();
        assert!(refused.contains(&format!("leaf {leaf}")) && refused.contains("does not verify"), "{what}: {refused}");
        assert!(!files.contains_key("manifest.json"), "{what}");
    }
}
