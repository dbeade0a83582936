//! Exact to the minor unit: while payments flow, when everything is delivered again, and when something is wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deltran_api::reporting::v1::ReportState;
use deltran_api::token::v1::{SettlementModel, SubmitTransactionsRequest};
use deltran_kernel::Clock;
use deltran_reporting::domain::day::Day;
use deltran_tests::eventually;
use deltran_tests::node::pay;
use deltran_tests::tie_out::{self, ended, report, rows, tie_out, total};
use futures::StreamExt;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_at_work_ties_at_the_event_where_it_was_asked() {
    let (stack, _) = platform("").await;
    join(&stack, ALFA, "100000.00", "90000.00").await;
    join(&stack, BRAV, "100000.00", "90000.00").await;
    open(&stack, 1).await;
    let stack = Arc::new(stack);
    let stop = Arc::new(AtomicBool::new(false));
    let paying = tokio::spawn({
        let (stack, stop) = (stack.clone(), stop.clone());
        async move {
            let mut n = 0u32;
            while !stop.load(Ordering::SeqCst) {
                n += 1;
                paid(&stack, &format!("a{n}"), ALFA, BRAV, "1.01", n.is_multiple_of(3)).await;
                paid(&stack, &format!("b{n}"), BRAV, ALFA, "0.99", n.is_multiple_of(5)).await;
                if n == 30 {
                    close(&stack, 1, Some(2)).await;
                }
            }
            n
        }
    });
    for _ in 0..8 {
        let (trial, _, manifest) = report(&stack.channel(), trial_balance()).await;
        assert_eq!(manifest.totals["USD_ties"], "yes", "{trial:?}");
    }
    settled(&stack, 1).await;
    for _ in 0..3 {
        let (trial, _, manifest) = report(&stack.channel(), trial_balance()).await;
        assert_eq!(manifest.totals["USD_ties"], "yes", "{trial:?}");
    }
    stop.store(true, Ordering::SeqCst);
    assert!(paying.await.unwrap() > 30);
    Arc::into_inner(stack).unwrap().stop().await;
}

/// More entries than are read at once, in a window and beside it, in the order of booking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_of_many_pages_is_whole() {
    let (stack, clock) = platform("").await;
    join(&stack, ALFA, "100000.00", "90000.00").await;
    join(&stack, BRAV, "100000.00", "90000.00").await;
    open(&stack, 1).await;
    let mut alfa = bank(&stack, ALFA);
    for part in 0..9 {
        let transactions = (0..1000).map(|n| {
            let mut payment = pay(&format!("m{part}-{n}"), ALFA, BRAV, "0.03");
            if part % 3 == 2 {
                payment.model = SettlementModel::Gross.into();
            }
            payment
        });
        let message = SubmitTransactionsRequest { sequence: 1, transactions: transactions.collect() };
        let mut answers = alfa.submit_transactions(futures::stream::iter([message])).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().items.len(), 1000);
    }
    close(&stack, 1, None).await;
    settled(&stack, 1).await;
    paid(&stack, "last", ALFA, BRAV, "1.00", true).await;
    let day = Day::of(clock.now(), &jiff::tz::TimeZone::UTC).to_string();
    let (done, files, manifest) = report(&stack.channel(), statement(ALFA, &day)).await;
    assert!(done.files[..3].iter().all(|file| file.entries == 9_002), "{done:?}");
    assert_eq!(total(&manifest, "closing_minor"), 10_000_000 - 9_000 * 3 - 100);
    let rows = rows(&files["statement.csv"]);
    let numbers: Vec<String> = rows.iter().map(|r| r["number"].clone()).filter(|n| !n.is_empty()).collect();
    assert_eq!(numbers, (1..=9_002).map(|n: u32| n.to_string()).collect::<Vec<_>>());
    let booked: Vec<&String> = rows.iter().map(|r| &r["booked_at"]).collect();
    assert!(booked.windows(2).all(|pair| pair[0] <= pair[1]), "in the order of booking");
    assert_eq!(rows[rows.len() - 2]["end_to_end_id"], "last");
    let ids: BTreeSet<&String> = rows.iter().map(|r| &r["transaction_id"]).collect();
    assert_eq!(ids.len(), 9_003, "each once, and the empty one of opening and closing");
    let tied = tie_out(&stack.channel(), clock.now()).await;
    assert_eq!(tied.entries, 9_002 * 2);
    stack.stop().await;
}

/// Every message of the streams is published again, as a broker that forgot would have it: nothing counts twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_again_counts_once() {
    let (stack, clock) = platform("").await;
    join(&stack, ALFA, "100.00", "50.00").await;
    join(&stack, BRAV, "100.00", "50.00").await;
    open(&stack, 1).await;
    paid(&stack, "n1", ALFA, BRAV, "12.34", false).await;
    paid(&stack, "g1", BRAV, ALFA, "0.01", true).await;
    close(&stack, 1, None).await;
    settled(&stack, 1).await;
    let before = tie_out(&stack.channel(), clock.now()).await;
    let mut again = 0;
    for name in ["TRANSACTIONS", "CLEARING", "SETTLEMENT", "REPORTING"] {
        let jetstream = stack.broker.jetstream();
        let mut stream = jetstream.get_stream(name).await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.unwrap();
            jetstream.publish(message.subject, message.payload).await.unwrap().await.unwrap();
            again += 1;
        }
    }
    assert!(again > 20);
    for name in ["events_transactions_reporting", "events_clearing_reporting", "events_settlement_reporting"] {
        let seen = || stack.metrics.consumed.with_label_values(&[name, "duplicate"]).get();
        eventually("duplicates to be seen", async || (seen() > 0).then_some(())).await;
    }
    for (stream, name) in [
        ("TRANSACTIONS", "events_transactions_reporting"),
        ("CLEARING", "events_clearing_reporting"),
        ("SETTLEMENT", "events_settlement_reporting"),
        ("REPORTING", "reporting-engine-consumer"),
    ] {
        eventually("everything to be acknowledged", async || {
            let consumer: async_nats::jetstream::consumer::PullConsumer =
                stack.broker.jetstream().get_stream(stream).await.ok()?.get_consumer(name).await.ok()?;
            let info = consumer.cached_info();
            (info.num_pending == 0 && info.num_ack_pending == 0).then_some(())
        })
        .await;
    }
    assert_eq!(tie_out(&stack.channel(), clock.now()).await, before);
    stack.stop().await;
}

/// A request whose event is lost with its stream is written all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_event_is_lost_is_taken_from_its_row() {
    let (stack, clock) = platform("").await;
    join(&stack, ALFA, "100.00", "50.00").await;
    let asked = tie_out::request(&stack.channel(), trial_balance()).await;
    ended(&stack.channel(), &asked.report_id).await;
    let pool = stack.postgres.pool().await;
    let row =
        "INSERT INTO reporting.report (report_id, kind, formats, verify_ledger, state, requested_by, requested_at)
               SELECT gen_random_uuid(), kind, formats, false, 'REQUESTED', 'ada', requested_at FROM reporting.report
               WHERE kind = 'TRIAL_BALANCE' LIMIT 1 RETURNING report_id::text";
    let lost: String = sqlx::query_scalar(row).fetch_one(&pool).await.unwrap();
    clock.by_seconds(130);
    assert_eq!(ended(&stack.channel(), &lost).await.state(), ReportState::Completed);
    stack.stop().await;
}

/// Somebody changes what is stored: no tie is claimed, and a statement that does not add up is not written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_is_told_and_what_does_not_add_up_is_not_written() {
    let (stack, clock) = platform("").await;
    join(&stack, ALFA, "100.00", "50.00").await;
    join(&stack, BRAV, "100.00", "50.00").await;
    open(&stack, 1).await;
    paid(&stack, "n1", ALFA, BRAV, "12.34", false).await;
    close(&stack, 1, None).await;
    settled(&stack, 1).await;
    tie_out(&stack.channel(), clock.now()).await;
    let pool = stack.postgres.pool().await;
    let change = |sql: &'static str| sqlx::query(sql).execute(&pool);
    change(
        "UPDATE reporting.balance SET balance = balance + CASE participant WHEN 'ALFAAEXX' THEN 1 ELSE -1 END
            WHERE account = 'SETTLEMENT'",
    )
    .await
    .unwrap();
    let (trial, files, manifest) = report(&stack.channel(), trial_balance()).await;
    assert_eq!(manifest.totals["USD_ties"], "no");
    let told = "USD differs from the ledger at event ";
    assert!(trial.note.contains(told) && trial.note.contains("SETTLEMENT of ALFAAEXX"), "{}", trial.note);
    assert!(String::from_utf8_lossy(&files["trial-balance.html"]).contains(told));
    change("UPDATE reporting.balance SET balance = balance + 1 WHERE participant = 'BRAVINXX'").await.unwrap();
    let asked = tie_out::request(&stack.channel(), trial_balance()).await;
    let failed = ended(&stack.channel(), &asked.report_id).await;
    assert!(failed.state() == ReportState::Failed && failed.note.starts_with("P5"), "{failed:?}");

    change("UPDATE reporting.flow SET paid = paid + 1 WHERE participant = 'ALFAAEXX'").await.unwrap();
    change("UPDATE reporting.flow SET received = received + 1 WHERE participant = 'BRAVINXX'").await.unwrap();
    for subject in [of_window(ALFA, 1), settlement(1)] {
        let asked = tie_out::request(&stack.channel(), subject).await;
        let failed = ended(&stack.channel(), &asked.report_id).await;
        assert!(failed.state() == ReportState::Failed, "{failed:?}");
        assert!(failed.note.starts_with("P2") || failed.note.starts_with("P4"), "{failed:?}");
    }
    // Days are not cut in another zone than the one in which entries were counted.
    change("UPDATE reporting.business_zone SET time_zone = 'Asia/Dubai'").await.unwrap();
    let day = Day::of(clock.now(), &jiff::tz::TimeZone::UTC).to_string();
    let asked = tie_out::request(&stack.channel(), statement(ALFA, &day)).await;
    eventually("the statement to say what it waits for", async || {
        let request = deltran_api::reporting::v1::GetReportRequest { report_id: asked.report_id.clone() };
        let found = tie_out::reporting(&stack.channel()).get_report(request).await.ok()?.into_inner().report?;
        let told = "business days were counted in Asia/Dubai: set reporting.time_zone to that, not to UTC";
        assert_ne!(found.state(), ReportState::Completed, "{found:?}");
        (found.note == told).then_some(())
    })
    .await;
    let refused = change("DELETE FROM reporting.entry").await.unwrap_err();
    assert!(refused.to_string().contains("append-only"), "{refused}");
    let mut left = Vec::new();
    let mut open = vec![stack.reports.path().to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { left.push(path.display().to_string()) }
        }
    }
    assert!(left.iter().all(|path| !path.contains(&failed.report_id)), "files of a report that failed: {left:?}");
    let events = stack.broker.jetstream().get_stream("REPORTING").await.unwrap();
    let consumer = events
        .create_consumer(async_nats::jetstream::consumer::pull::Config {
            filter_subject: "events.reporting.report.failed".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    let first = consumer.messages().await.unwrap().next().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first.payload).contains("\"reason\":\"P5"), "{first:?}");
    stack.stop().await;
}
