//! Every measurement of `deltran bench` runs to its end in a tiny size, says what it found, and leaves nothing behind. No
//! figure is judged here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends here")]

use std::process::Stdio;

use deltran_tests::node::{PATIENCE, command, folder, processes_of, run};
use deltran_tests::within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The figures that a measurement must tell.
async fn measured(line: &str, figures: &[&str]) -> Value {
    let folder = folder();
    let data = folder.path().join("data");
    let results = folder.path().join("results");
    let ran = run(|command| {
        command.arg("bench").args(line.split(' ')).args(["--runs", "1", "--json", "--data"]).arg(&data);
        command.arg("--keep-results").arg(&results).current_dir(folder.path());
    })
    .await;
    assert_eq!(ran.code, 0, "{line}: {}{}", ran.out, ran.error);
    let found: Vec<(&str, f64)> = ran.json["figures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["name"].as_str().unwrap(), f["median"].as_f64().unwrap_or(f64::NAN)))
        .collect();
    for wanted in figures {
        let figure = found.iter().find(|(name, _)| name == wanted);
        assert!(figure.is_some_and(|(_, median)| *median > 0.0), "{line}: {wanted} is not among {found:?}");
    }
    let story = std::fs::read_to_string(results.join("RESULTS.md")).unwrap();
    assert!(story.contains("| figure | median |"), "{story}");
    assert_eq!(processes_of(folder.path()), [], "{line}: nothing is left running");
    assert!(!data.join("node").exists() && !data.join("postgres").exists(), "{line}: its data is gone");
    ran.json
}

#[tokio::test]
async fn what_needs_no_server() {
    measured("netting --obligations 1000 --participants 50", &["netting.whole", "netting.pairs"]).await;
    measured("screening --count 200 --names 500", &["screening.names", "screening.p99"]).await;
}

#[tokio::test]
async fn the_audit_ledger() {
    let figures = [
        "audit.merkle",
        "audit.append",
        "audit.export",
        "audit.verify_export",
        "audit.proof_p50",
        "audit.proof_p99",
        "audit.proof_store_p99",
    ];
    let report = measured("audit --count 6000 --tree 10000 --proofs 50", &figures).await;
    assert!(report["settings"]["audit.cpu_us_a_leaf"].is_object(), "{report}");
    assert!(report["settings"]["Postgres"].as_str().unwrap().contains("PostgreSQL"), "{report}");
}

#[tokio::test]
async fn nothing_to_do() {
    measured("idle --seconds 1", &["idle.memory"]).await;
}

#[tokio::test]
async fn the_ledger_alone() {
    measured("ledger --count 1000 --banks 4", &["ledger.rate"]).await;
}

#[tokio::test]
async fn payments_in_streams() {
    let figures = ["bulk.answered", "bulk.all_in", "hot.all_in", "hot.share", "bulk.memory"];
    measured("bulk --count 1000 --banks 4 --batch 100 --preload 500", &figures).await;
}

#[tokio::test]
async fn payments_one_by_one() {
    let figures = ["unary.rate", "unary.p50", "unary.p99", "paced.p50", "paced.p99"];
    measured("unary --count 500 --in-flight 16 --banks 4 --rate 100 --seconds 1", &figures).await;
}

#[tokio::test]
async fn payments_of_a_file() {
    measured("file --count 1000 --banks 4", &["file.answered", "file.all_in"]).await;
}

/// What is measured again is compared, and a figure that came down fails.
#[tokio::test]
async fn a_figure_that_came_down_fails() {
    let folder = folder();
    let results = folder.path().join("results.json");
    let report = |rate: f64| {
        let figure = serde_json::json!({
            "name": "screening.names", "what": "names", "unit": "names/s", "better": "higher", "values": [rate],
            "target": null,
        });
        let report = serde_json::json!([{
            "at": "", "command": "", "commit": "", "machine": "", "load": "", "calibration": 100_000.0, "settings": {},
            "figures": [figure],
        }]);
        std::fs::write(&results, report.to_string()).unwrap();
    };
    let check = async || {
        run(|command| {
            command.args(["bench", "check", "--only", "screening", "--runs", "1", "--against"]).arg(&results);
            command.current_dir(folder.path());
        })
        .await
    };
    report(1.0);
    let ran = check().await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.error);
    report(1e12);
    let ran = check().await;
    assert!(ran.code == 1 && ran.out.contains("FAILED"), "{}{}", ran.out, ran.error);
}

/// Told to stop in the middle, it takes its servers with it.
#[tokio::test]
async fn what_is_stopped_leaves_no_server() {
    for line in ["audit --count 10000000 --tree 1000 --proofs 10", "bulk"] {
        let folder = folder();
        let mut child = command();
        child.arg("bench").args(line.split(' ')).arg("--data").arg(folder.path().join("data"));
        let mut child = child.current_dir(folder.path()).stderr(Stdio::null()).spawn().unwrap();
        within(PATIENCE, "the broker to run", async || {
            processes_of(folder.path()).iter().any(|(_, line)| line.contains("nats-server")).then_some(())
        })
        .await;
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let code = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap().code();
        assert_eq!((code, processes_of(folder.path())), (Some(1), Vec::new()), "{line}");
    }
}
