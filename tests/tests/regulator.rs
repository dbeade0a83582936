//! A regulator's request on the real program: exported, verified here and by a program that shares no code with ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::path::Path;

use deltran_kernel::{Clock, IdSource, SystemClock, SystemIds};
use deltran_tests::node::{Deltran, Ran, committed, pay, submit_many};
use deltran_tests::python;
use serde_json::Value;
use tokio::process::Command;

/// A platform with two banks, a window and some payments, one of them refused.
async fn day() -> Deltran {
    let node = Deltran::start("").await;
    node.banks(&[("ALFAAEXX", "1000.00", "1000.00"), ("BRAVINXX", "1000.00", "1000.00")]).await;
    let window = SystemIds::new().next_id(SystemClock.now());
    node.open_window(window).await;
    let payments = (0..20).map(|n| pay(&format!("p{n}"), "ALFAAEXX", "BRAVINXX", "1.25")).collect();
    submit_many(&mut node.bank("ALFAAEXX"), payments).await.unwrap();
    submit_many(&mut node.bank("ALFAAEXX"), vec![pay("much", "ALFAAEXX", "BRAVINXX", "5000.00")]).await.unwrap();
    node.audited().await;
    node
}

async fn key(node: &Deltran) -> String {
    node.must(&["audit", "checkpoints"]).await["keys"][0].as_str().unwrap().to_owned()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_verified_by_us_and_by_a_stranger() {
    let verifier = python::examples("verify_export");
    let interpreter = python::with(&verifier.join("requirements.txt")).await;
    let node = day().await;
    let key = key(&node).await;
    let held = node.path().join("held");
    node.must(&["audit", "checkpoint", "--size", "5", "--out", held.to_str().unwrap()]).await;
    let stranger = async |folder: &str, more: &[&str]| -> Ran {
        let mut command = Command::new(&interpreter);
        command.arg(verifier.join("verify_export.py")).arg(node.path().join(folder)).args(["--key", &key]).args(more);
        python::run(command.current_dir(node.path()).env("PYTHONDONTWRITEBYTECODE", "1")).await.unwrap()
    };
    let both = async |folder: &str, more: &[&str]| -> [i32; 2] {
        let path = node.path().join(folder);
        let ours = [&["audit", "verify", path.to_str().unwrap(), "--key", &key], more].concat();
        let (ours, theirs) = (node.run(&ours).await, stranger(folder, more).await);
        assert_eq!(
            ours.code == 0,
            theirs.code == 0,
            "{folder}: {}{}\n{}{}",
            ours.out,
            ours.error,
            theirs.out,
            theirs.error
        );
        [ours.code, theirs.code]
    };
    let out = |name: &str| node.path().join(name).to_str().unwrap().to_owned();

    let whole = node
        .must(&["audit", "export", "--format", "jsonl,csv,parquet", "--since", "held", "--out", &out("whole")])
        .await;
    assert_eq!(whole["totals"]["USD"]["committed"]["count"], 20);
    assert_eq!(whole["totals"]["USD"]["committed"]["minor"], "2500");
    assert_eq!(whole["totals"]["USD"]["rejected"]["count"], 1);
    assert_eq!(both("whole", &["--since", "held"]).await, [0, 0]);
    assert_eq!(both("whole", &[]).await, [1, 1], "the consistency that it claims was not checked");
    node.must(&["audit", "export", "--participant", "BRAVINXX", "--out", &out("some")]).await;
    assert_eq!(both("some", &[]).await, [0, 0]);
    node.must(&["audit", "export", "--leaves", "7..19", "--out", &out("part")]).await;
    assert_eq!(both("part", &[]).await, [0, 0]);
    // The totals are those of the token ledger.
    let ledger = node.must(&["account", "verify"]).await;
    assert_eq!(
        (&ledger["totals"][0]["committed"], text(&ledger["totals"][0]["committed_amount"], "amount")),
        (&20.into(), "25.00")
    );

    for (name, change) in [
        ("events.jsonl", "1.25"),
        ("leaves.jsonl", "events.audit"),
        ("checkpoint.end", "deltran/"),
        ("manifest.json", "2500"),
        ("frontier.start", ""),
    ] {
        let file = node.path().join("part").join(name);
        let file = if Path::new(&file).is_file() && name != "manifest.json" {
            file
        } else {
            node.path().join("whole").join(name)
        };
        let folder = file.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let before = std::fs::read(&file).unwrap();
        let changed = match String::from_utf8(before.clone()).unwrap() {
            text if change.is_empty() => text.replacen('a', "b", 1),
            text => text.replacen(change, &change.replace(['2', 'v', 't'], "3"), 1),
        };
        if changed.as_bytes() == before {
            continue;
        }
        std::fs::write(&file, changed).unwrap();
        let since: &[&str] = if folder == "whole" { &["--since", "held"] } else { &[] };
        assert_eq!(both(&folder, since).await, [1, 1], "{name}");
        std::fs::write(&file, before).unwrap();
        assert_eq!(both(&folder, since).await, [0, 0], "{name}");
    }
    node.verify().await;
}

/// The leaves and the token ledger tie in each currency at the same event; where somebody changed one of them, the currency is
/// named and nothing passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_ties_to_the_token_ledger_and_a_difference_is_named() {
    let node = day().await;
    for args in [&["audit", "verify", "--database"][..], &["audit", "verify"]] {
        let report = node.must(args).await;
        assert_eq!(report["totals"].as_array().unwrap().len(), 1, "{report:#}");
        let total = &report["totals"][0];
        assert_eq!((text(total, "currency"), &total["ok"]), ("USD", &true.into()), "{total:#}");
        assert_eq!(total["recorded"], total["ledger"]);
        assert_eq!(total["recorded"]["committed"], 20);
        assert_eq!(text(&total["recorded"]["committed_amount"], "amount"), "25.00");
        let check = report["checks"].as_array().unwrap().iter().find(|c| c["check"] == "ledger totals").unwrap();
        assert!(
            text(check, "detail").contains("1 currencies tie to the token ledger at event token-engine/"),
            "{check}"
        );
    }
    // While payments go on it never says that something differs.
    let paying = async {
        for round in 0..10 {
            let payments: Vec<_> =
                (0..20).map(|n| pay(&format!("r{round}.{n}"), "BRAVINXX", "ALFAAEXX", "0.05")).collect();
            committed(&mut node.bank("BRAVINXX"), &payments).await;
        }
    };
    let verifying = async {
        for _ in 0..3 {
            node.must(&["audit", "verify", "--database"]).await;
        }
    };
    tokio::join!(paying, verifying);
    node.audited().await;

    // In the books of the token ledger, past its engine.
    let change = "SET session_replication_role = replica;
        UPDATE token.transaction SET amount = amount + 1 WHERE id = (SELECT id FROM token.transaction WHERE state = 'COMMITTED' LIMIT 1)";
    let mut owner = node.owner().await;
    sqlx::raw_sql(change).execute(&mut owner).await.unwrap();
    for args in [&["audit", "verify", "--database"][..], &["audit", "verify"]] {
        let ran = node.run(args).await;
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.error);
        let named = "totals in USD: committed 220 of 35.00 USD by the leaves, 220 of 35.01 USD by the ledger";
        assert!(ran.error.contains(named), "{}{}", ran.out, ran.error);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_exported_or_verified_is_said_in_one_line() {
    let node = day().await;
    let key = key(&node).await;
    let out = |name: &str| node.path().join(name).to_str().unwrap().to_owned();
    node.must(&["audit", "export", "--leaves", "0..10", "--out", &out("good")]).await;
    node.write("not-a-key", "hello");
    std::fs::create_dir(node.path().join("full")).unwrap();
    node.write("full/something", "x");
    node.write("file", "x");
    let (good, full, file) = (out("good"), out("full"), out("file"));
    for (code, args, says) in [
        (1, vec!["audit", "export", "--to", "2099-01-01", "--out", "a"], "is in the future"),
        (1, vec!["audit", "export", "--leaves", "0..999999", "--out", "b"], "beyond the ledger"),
        (2, vec!["audit", "export", "--leaves", "9..3", "--out", "c"], "no range of leaves"),
        (2, vec!["audit", "export", "--from", "yesterday", "--out", "c"], "neither a day"),
        (2, vec!["audit", "export", "--recipient", "nobody", "--out", "c"], "an age key begins with age1"),
        (1, vec!["audit", "export", "--participant", "no", "--out", "d"], "participant"),
        (1, vec!["audit", "export", "--since", "not-a-key", "--out", "e"], "since"),
        (1, vec!["audit", "export", "--out", &full], "is not empty"),
        (1, vec!["audit", "export", "--out", &good], "holds a finished export"),
        (1, vec!["audit", "export", "--out", &file], "file"),
        (2, vec!["audit", "verify", &good], "--key is missing"),
        (1, vec!["audit", "verify", &good, "--key", "not-a-key"], "not-a-key"),
        (1, vec!["audit", "verify", &full, "--key", &key], "no finished export"),
        (1, vec!["audit", "verify", "nowhere", "--key", &key], "no finished export"),
    ] {
        let ran = node.run(&args).await;
        assert_eq!(ran.code, code, "{args:?}: {}{}", ran.out, ran.error);
        assert!(ran.error.contains(says), "{args:?}: {}", ran.error);
        assert!(ran.error.trim_end().lines().count() <= 2 || code == 2, "{args:?}: {}", ran.error);
    }
    // The key of another deployment, of the right form.
    let other = node.must(&["audit", "key", "new", "--out", "other.key", "--deployment", "elsewhere"]).await;
    let ran = node.run(&["audit", "verify", &good, "--key", text(&other, "verifier")]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.error.contains("the keys are those of"), "{}", ran.error);
    // A folder that a refusal left is unfinished, and says so.
    assert!(node.path().join("a").join("export.unfinished").is_file());
    let ran = node.run(&["audit", "verify", "a", "--key", &key]).await;
    assert!(ran.code == 1 && ran.error.contains("is unfinished"), "{}", ran.error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_recipient_reads_an_encrypted_export() {
    let node = day().await;
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let out = node.path().join("secret");
    node.must(&[
        "audit",
        "export",
        "--participant",
        "BRAVINXX",
        "--recipient",
        &recipient,
        "--out",
        out.to_str().unwrap(),
    ])
    .await;
    let clear = node.path().join("clear");
    let mut files = 0;
    for folder in [out.clone(), out.join("proofs")] {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
            let name = entry.path().strip_prefix(&out).unwrap().to_str().unwrap().to_owned();
            let name = name.strip_suffix(".age").unwrap_or_else(|| panic!("{name} is not encrypted"));
            let sealed = std::fs::File::open(entry.path()).unwrap();
            let mut reader =
                age::Decryptor::new(sealed).unwrap().decrypt(std::iter::once(&identity as &dyn age::Identity)).unwrap();
            let target = clear.join(name);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::io::copy(&mut reader, &mut std::fs::File::create(target).unwrap()).unwrap();
            files += 1;
        }
    }
    assert!(files > 30, "{files}");
    let key = key(&node).await;
    let ran = node.run(&["audit", "verify", clear.to_str().unwrap(), "--key", &key]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.error);
}
