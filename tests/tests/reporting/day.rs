//! A small day: deposits, payments in two windows and at once, what was refused and held back, a withdrawal; and the
//! night after it.

use deltran_api::reporting::v1::{
    ListReportsRequest, ListSchedulesRequest, ReportFormat, ReportKind, ReportState, ReportSubject, Schedule,
    SetScheduleRequest,
};
use deltran_api::token::v1::{
    CancelTransactionRequest, CommitTransactionRequest, ParticipantState, SettlementModel, TransactionState,
};
use deltran_kernel::{Clock, Timestamp};
use deltran_reporting::domain::day::Day;
use deltran_tests::eventually;
use deltran_tests::node::{id, pay};
use deltran_tests::tie_out::{self, ended, report, reporting, rows, tie_out, total, units};

use crate::support::*;

fn today(at: Timestamp) -> Day {
    Day::of(at, &jiff::tz::TimeZone::UTC)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_day_ties_out_and_the_night_writes_its_statements() {
    let (mut stack, clock) = platform("").await;
    // The day must not end in between.
    let seconds = |at: Timestamp| at.micros() / 1_000_000;
    let left = seconds(today(clock.now()).ends(&jiff::tz::TimeZone::UTC)) - seconds(clock.now());
    if left < 600 {
        clock.by_seconds(left + 60);
    }
    let day = today(clock.now());
    for (who, deposit, cap) in [(ALFA, "1000.00", "900.00"), (BRAV, "500.00", "400.00"), (CHAR, "0.01", "0.00")] {
        join(&stack, who, deposit, cap).await;
    }
    open(&stack, 1).await;
    paid(&stack, "n1", ALFA, BRAV, "300.00", false).await;
    paid(&stack, "n2", BRAV, ALFA, "120.50", false).await;
    paid(&stack, "n3", BRAV, CHAR, "0.07", false).await;
    paid(&stack, "g1", ALFA, CHAR, "33.33", true).await;
    // What was refused, reserved, cancelled: none of it counts.
    let refused = submit(&stack, pay("poor", CHAR, ALFA, "9999.00")).await;
    assert_eq!(refused.state(), TransactionState::Rejected);
    for (name, gross) in [("r1", true), ("r2", false), ("r3", true)] {
        let mut reserved = pay(name, ALFA, BRAV, "10.00");
        (reserved.two_phase, reserved.timeout_seconds) = (true, 86_400);
        if gross {
            reserved.model = SettlementModel::Gross.into();
        }
        assert_eq!(submit(&stack, reserved).await.state(), TransactionState::Reserved);
    }
    let mut alfa = bank(&stack, ALFA);
    let cancel = CancelTransactionRequest { transaction_id: id("r1").to_string(), reason: "no".into() };
    alfa.cancel_transaction(cancel).await.unwrap();

    // A window that is open is not reported in part: its reports wait, and say for what.
    let early = tie_out::request(&stack.channel(), settlement(1)).await;
    let early_statement = tie_out::request(&stack.channel(), of_window(ALFA, 1)).await;
    for early in [&early, &early_statement] {
        eventually("the report to say what it waits for", async || {
            let request = deltran_api::reporting::v1::GetReportRequest { report_id: early.report_id.clone() };
            let found = reporting(&stack.channel()).get_report(request).await.ok()?.into_inner().report?;
            (found.state() == ReportState::Waiting && !found.note.is_empty()).then_some(found)
        })
        .await;
    }
    close(&stack, 1, Some(2)).await;
    settled(&stack, 1).await;
    for early in [&early, &early_statement] {
        let done = ended(&stack.channel(), &early.report_id).await;
        assert_eq!(done.state(), ReportState::Completed, "{done:?}");
    }

    // The second window: two-phase payments count where they are committed.
    for name in ["r2", "r3"] {
        let commit = CommitTransactionRequest { transaction_id: id(name).to_string() };
        alfa.commit_transaction(commit).await.unwrap();
    }
    paid(&stack, "n4", ALFA, CHAR, "1.00", false).await;
    withdraw(&stack, BRAV, "50.00", true).await;
    withdraw(&stack, ALFA, "5.00", false).await;
    let so_far = tie_out(&stack.channel(), clock.now()).await;
    assert_eq!(so_far.statements, 3);
    stack.restart_engines().await;
    close(&stack, 2, None).await;
    settled(&stack, 2).await;
    let tied = tie_out(&stack.channel(), clock.now()).await;
    assert_eq!((tied.statements, tied.settlements), (3, 2), "{tied:?}");
    // 3 deposits, 2 gross and 5 net payments on two sides each, 1 withdrawal.
    assert_eq!(tied.entries, 3 + 2 * 2 + 5 * 2 + 1, "{tied:?}");

    // The automatic settlement reports are there, and say the same as those that were asked for.
    let request = ListReportsRequest { kind: ReportKind::Settlement.into(), ..ListReportsRequest::default() };
    let listed = reporting(&stack.channel()).list_reports(request).await.unwrap().into_inner().reports;
    let own: Vec<_> = listed.iter().filter(|r| r.requested_by == "reporting-engine").collect();
    assert_eq!(own.len(), 2, "{listed:?}");
    for automatic in own {
        let done = ended(&stack.channel(), &automatic.report_id).await;
        assert_eq!(done.state(), ReportState::Completed, "{done:?}");
    }

    // A statement of a window is about the position in it.
    let (_, files, manifest) = report(&stack.channel(), of_window(BRAV, 1)).await;
    assert_eq!((total(&manifest, "opening_minor"), total(&manifest, "closing_minor")), (0, 17_943));
    let net = rows(&files["statement.csv"])
        .iter()
        .filter(|r| !r["amount"].is_empty())
        .map(|r| units(&r["amount"], "USD"))
        .sum::<i128>();
    assert_eq!(net, 17_943, "300.00 − 120.50 − 0.07");
    let xml = String::from_utf8(files["statement.camt.053.xml"].clone()).unwrap();
    assert!(xml.contains("<EndToEndId>n1</EndToEndId>") && xml.contains("<UETR>"), "{xml}");
    let (_, files, _) = report(&stack.channel(), statement(BRAV, &day.to_string())).await;
    let page = String::from_utf8(files["statement.html"].clone()).unwrap();
    assert!(page.contains("the day is not over") && !page.contains("<script"), "{page}");
    let deposits = rows(&files["statement.csv"]);
    assert!(deposits.iter().any(|r| r["kind"] == "DEPOSIT" && r["reference"] == "'=1+1"), "{deposits:?}");

    // The night: the day is over, its statements are asked for by the schedule, and say so. A bank that is suspended
    // has tokens, and so its statement.
    set_state(&stack, BRAV, ParticipantState::Suspended).await;
    let end = day.ends(&jiff::tz::TimeZone::UTC);
    clock.by_seconds(seconds(end) - seconds(clock.now()) + 1_000);
    let request = ListReportsRequest { schedule: "daily-statements".into(), ..ListReportsRequest::default() };
    let daily = eventually("the statements of the day", async || {
        let listed = reporting(&stack.channel()).list_reports(request.clone()).await.ok()?.into_inner().reports;
        (listed.len() == 3 && listed.iter().all(|r| r.state() == ReportState::Completed)).then_some(listed)
    })
    .await;
    for statement in &daily {
        let subject = statement.subject.as_ref().unwrap();
        assert_eq!(subject.day, day.to_string());
        let (files, manifest) = tie_out::files(&stack.channel(), statement).await;
        assert!(!manifest.interim);
        let (opening, closing, sum) = tie_out::camt(&files["statement.camt.053.xml"], "USD");
        assert_eq!(opening + sum, closing);
        assert!(String::from_utf8_lossy(&files["statement.camt.053.xml"]).contains("<Cd>CLBD</Cd>"));
    }
    set_state(&stack, BRAV, ParticipantState::Active).await;
    deposit(&stack, CHAR, "7.00").await;
    let tied = tie_out(&stack.channel(), clock.now()).await;
    assert_eq!(tied.statements, 6, "two days");
    schedules_are_set_and_run(&stack, &clock).await;
    stack.stop().await;
}

async fn schedules_are_set_and_run(stack: &deltran_tests::Stack, clock: &Moved) {
    let mut client = reporting(&stack.channel());
    let listed = client.list_schedules(ListSchedulesRequest { page: None }).await.unwrap().into_inner().schedules;
    let names: Vec<&str> = listed.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["daily-statements", "daily-trial-balance"]);
    let schedule = Schedule {
        name: "noon".into(),
        kind: ReportKind::TrialBalance.into(),
        cron: "0 12 * * *".into(),
        time_zone: "Asia/Dubai".into(),
        formats: vec![ReportFormat::Csv.into()],
        enabled: true,
        ..Schedule::default()
    };
    let set = SetScheduleRequest { schedule: Some(schedule.clone()) };
    let answer = client.set_schedule(set.clone()).await.unwrap().into_inner();
    assert_eq!((answer.unchanged, answer.schedule.unwrap().changed_by.as_str()), (false, "ada"));
    assert!(client.set_schedule(set).await.unwrap().into_inner().unchanged);
    let wrong = Schedule { cron: "every noon".into(), ..schedule };
    let refused = client.set_schedule(SetScheduleRequest { schedule: Some(wrong) }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    // Three days pass while nothing runs: three trial balances are made up for.
    clock.by_seconds(3 * 86_400);
    let request = ListReportsRequest { schedule: "noon".into(), ..ListReportsRequest::default() };
    let reports = eventually("the missed trial balances", async || {
        let listed = client.list_reports(request.clone()).await.ok()?.into_inner().reports;
        (listed.len() == 3 && listed.iter().all(|r| r.state() == ReportState::Completed)).then_some(listed)
    })
    .await;
    assert!(reports.iter().all(|r| r.note.contains("USD ties to the ledger")), "{reports:?}");
}

/// The ledger's clock is past midnight where the reports' is not yet: a day so far has no entries of the next one, and
/// nothing is found to contradict itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_that_ends_while_it_is_told_is_told_when_it_is_over() {
    let (stack, clock) = platform("").await;
    join(&stack, ALFA, "10.00", "0.00").await;
    let day = today(clock.now());
    let tomorrow = (day.ends(&jiff::tz::TimeZone::UTC).micros() - clock.now().micros()) / 1_000_000 + 1_000;
    clock.by_seconds(tomorrow);
    deposit(&stack, ALFA, "7.00").await;
    clock.by_seconds(-tomorrow);
    let asked = tie_out::request(&stack.channel(), statement(ALFA, &day.to_string())).await;
    eventually("the statement to say what it waits for", async || {
        let request = deltran_api::reporting::v1::GetReportRequest { report_id: asked.report_id.clone() };
        let found = reporting(&stack.channel()).get_report(request).await.ok()?.into_inner().report?;
        assert_ne!(found.state(), ReportState::Failed, "{found:?}");
        (found.state() == ReportState::Waiting && found.note.contains("is ending")).then_some(())
    })
    .await;
    clock.by_seconds(tomorrow);
    let done = ended(&stack.channel(), &asked.report_id).await;
    assert_eq!(done.state(), ReportState::Completed, "{done:?}");
    let (_, manifest) = tie_out::files(&stack.channel(), &done).await;
    assert_eq!((manifest.interim, total(&manifest, "closing_minor")), (false, 1_000));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_be_reported_fails_with_its_reason() {
    let (stack, clock) = platform("[reporting]\ngive_up_hours = 1\nsettlement_reports = false\n").await;
    join(&stack, ALFA, "10.00", "0.00").await;
    let day = today(clock.now()).to_string();
    let stranger = tie_out::request(&stack.channel(), statement(BRAV, &day)).await;
    let failed = ended(&stack.channel(), &stranger.report_id).await;
    assert_eq!(failed.state(), ReportState::Failed);
    assert!(failed.note.contains("BRAVINXX does not take part in USD"), "{failed:?}");
    // A window that never was: it waits, and is given up in the end.
    let never = tie_out::request(&stack.channel(), settlement(77)).await;
    let stale = tie_out::request(&stack.channel(), ReportSubject { currency: "USD".into(), ..trial_balance() }).await;
    assert_eq!(ended(&stack.channel(), &stale.report_id).await.state(), ReportState::Completed);
    clock.by_seconds(3_700);
    let failed = ended(&stack.channel(), &never.report_id).await;
    assert_eq!(failed.state(), ReportState::Failed);
    assert!(failed.note.contains("given up after 1 h") && failed.note.contains("no netting set"), "{failed:?}");
    stack.stop().await;
}
