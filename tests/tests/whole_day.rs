//! `deltran demo`: a whole day on the real program, twice, and nothing stays behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use deltran_tests::node::{folder, processes_of, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_is_run_verified_and_cleared_away_twice_in_a_row() {
    let folder = folder();
    let data = folder.path().join("demo");
    for round in 1..=2 {
        let ran = run(|command| {
            command.args(["demo", "--payments", "2000", "--data"]).arg(&data).current_dir(folder.path());
        })
        .await;
        assert_eq!(ran.code, 0, "round {round}: {}{}", ran.out, ran.error);
        for part in [
            "A day of payments",
            "throughput",
            "Windows, netting and settlement",
            "efficiency",
            "Net positions",
            "Awaiting funds until",
            "Webhooks to",
            "Reports in",
            "the trial balance ties to the ledger",
            "the ledger's invariants L1 to L8 hold",
            "the audit ledger is dense, complete",
        ] {
            assert!(ran.out.contains(part), "round {round}: {part:?} is not in\n{}", ran.out);
        }
        assert!(data.join("day.csv").is_file(), "the day is left for a look");
        assert!(folder.path().join("data/reports").is_dir(), "the reports are left for a look");
        let left = processes_of(folder.path());
        assert!(left.is_empty(), "round {round}: still running: {left:?}");
        let run_file = std::fs::read_to_string(data.join("node/run.json")).unwrap_or_else(|_| "{}".into());
        let servers: serde_json::Value = serde_json::from_str(&run_file).unwrap();
        for (name, server) in servers.as_object().unwrap() {
            let line = format!("/proc/{}/cmdline", server["pid"]);
            let line = String::from_utf8_lossy(&std::fs::read(line).unwrap_or_default()).into_owned();
            assert!(!line.contains(name), "round {round}: {name} still runs: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_holds_something_else_is_left_alone() {
    let folder = folder();
    std::fs::write(folder.path().join("precious"), "a letter").unwrap();
    let ran = run(|command| {
        command.args(["demo", "--payments", "2000", "--data"]).arg(folder.path());
    })
    .await;
    assert_eq!(ran.code, 1, "{}", ran.error);
    assert!(ran.error.contains("give another folder"), "{}", ran.error);
    assert_eq!(std::fs::read_to_string(folder.path().join("precious")).unwrap(), "a letter");
}
