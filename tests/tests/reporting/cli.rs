//! `deltran report` against the real program.

use deltran_kernel::{Clock, SystemClock};
use deltran_reporting::domain::day::Day;
use deltran_tests::node::{Deltran, id, pay, submit_many};
use deltran_tests::tie_out::{fresh, tie_out};

use crate::support::{ALFA, BRAV};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_made_downloaded_and_verified_from_the_command_line() {
    let node = Deltran::start("").await;
    node.banks(&[(ALFA, "5000.00", "4000.00"), (BRAV, "5000.00", "4000.00")]).await;
    node.open_window(id("w1")).await;
    let payments = (0..200).map(|n| pay(&format!("p{n}"), ALFA, BRAV, "1.01")).collect();
    submit_many(&mut node.bank(ALFA), payments).await.unwrap();
    node.must(&["window", "close", "--all", "--wait"]).await;
    let day = Day::of(SystemClock.now(), &jiff::tz::TimeZone::UTC).to_string();
    let out = node.path().join("out").display().to_string();

    let window = id("w1").to_string();
    let made = node.must(&["report", "create", "settlement", "--window", &window, "--wait", "--out", &out]).await;
    let report = &made["report"];
    assert_eq!((&report["state"], &report["subject"]["window_id"]), (&"COMPLETED".into(), &window.as_str().into()));
    let folder = format!("{out}/{}", report["report_id"].as_str().unwrap());
    let verified = node.must(&["report", "verify", &folder]).await;
    assert_eq!(verified["manifest"]["totals"]["gross_minor"], "20200");
    assert_eq!(verified["manifest"]["totals"]["net_BRAVINXX_minor"], "20200");

    // A file that was changed by one byte is found out without the platform; downloaded again, it is whole.
    let legs = format!("{folder}/legs.csv");
    let changed = std::fs::read_to_string(&legs).unwrap().replace("202.00", "302.00");
    std::fs::write(&legs, changed).unwrap();
    let refused = node.run(&["report", "verify", &folder]).await;
    assert!(refused.code == 1 && refused.error.contains("legs.csv was changed"), "{refused:?}");
    // What was fetched before it broke off is not fetched again.
    let whole = std::fs::read(format!("{folder}/settlement.html")).unwrap();
    std::fs::remove_file(format!("{folder}/settlement.html")).unwrap();
    std::fs::write(format!("{folder}/settlement.html.part"), &whole[..100]).unwrap();
    let report_id = report["report_id"].as_str().unwrap();
    node.must(&["report", "download", report_id, "--out", &out]).await;
    node.must(&["report", "verify", &folder]).await;
    assert_eq!(std::fs::read(format!("{folder}/settlement.html")).unwrap(), whole);

    // A bank makes its own statement, the same request twice; another bank does not see it.
    let as_bank = ["--role", "bank", "--participant", ALFA];
    let statement_id = fresh().to_string();
    let mut create = vec!["report", "create", "statement", "--currency", "USD", "--day", &day, "--id", &statement_id];
    create.extend(["--format", "camt053,csv", "--wait"]);
    create.extend(as_bank);
    let first = node.must(&create).await;
    assert_eq!(first, node.must(&create).await);
    let names: Vec<&str> =
        first["report"]["files"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["statement.csv", "statement.camt.053.xml", "manifest.json"]);
    let other = ["report", "show", &statement_id, "--role", "bank", "--participant", BRAV];
    assert_eq!(node.run(&other).await.code, 1);
    let foreign = ["report", "create", "trial-balance", "--role", "bank"];
    assert_ne!(node.run(&foreign).await.code, 0);

    let trial = node.must(&["report", "create", "trial-balance", "--verify-ledger", "--wait"]).await;
    assert!(trial["report"]["note"].as_str().unwrap().starts_with("USD ties to the ledger at event"), "{trial:#}");
    let listed = node.must(&["report", "list", "--kind", "settlement", "--state", "completed"]).await;
    assert_eq!(listed["reports"].as_array().unwrap().len(), 2, "one by itself, one that was asked for");
    let set = ["report", "schedule", "set", "evening", "--kind", "trial-balance", "--cron", "0 18 * * *"];
    node.must(&set).await;
    let schedules = node.must(&["report", "schedule", "list"]).await;
    assert_eq!(schedules["schedules"].as_array().unwrap().len(), 3);
    let wrong = node.run(&["report", "schedule", "set", "x", "--kind", "settlement", "--cron", "0 18 * * *"]).await;
    assert!(wrong.code == 1 && wrong.error.contains("settlement"), "{wrong:?}");

    let kept = node.data().join("reports/settlement");
    assert!(kept.is_dir(), "reports are kept in the data folder");
    let tied = tie_out(&node.channel(), SystemClock.now()).await;
    assert_eq!((tied.statements, tied.settlements, tied.entries), (2, 1, 402));
    node.verify().await;
}
