//! Windows closed by hand while payments flow: each payment is in exactly one window, and all totals agree.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deltran_api::clearing::v1::{CloseWindowRequest, GetNettingSetRequest, WindowState};
use deltran_api::token::v1::submit_item::Result::Outcome;
use deltran_api::token::v1::{
    CommitTransactionRequest, SubmitTransactionRequest, SubmitTransactionsRequest, TransactionOutcome, TransactionState,
};
use deltran_tests::node::{Deltran, PATIENCE, detail, id, pay, reason};
use deltran_tests::within;
use futures::{SinkExt, StreamExt};
use tokio::sync::watch;
use tonic::Code;

const BANKS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
const WINDOWS: u64 = 200;
/// Payments per bank and message.
const MESSAGE: u64 = 10;
/// Messages per bank for each window.
const MESSAGES: u64 = 7;

fn window(number: u64) -> uuid::Uuid {
    id(&format!("window {number}"))
}

/// One bank's payments, a share of them for each window; what the ledger answered.
async fn stream(
    node: &Deltran,
    from: usize,
    committed: Arc<AtomicU64>,
    mut closings: watch::Receiver<u64>,
) -> Vec<TransactionOutcome> {
    let (payer, payee) = (BANKS[from], BANKS[1 - from]);
    let (mut messages, requests) = futures::channel::mpsc::channel(4);
    let mut bank = node.bank(payer);
    let sending = async move {
        for sequence in 0..WINDOWS * MESSAGES {
            closings.wait_for(|closed| sequence < (closed + 1) * MESSAGES).await.unwrap();
            let transactions = (0..MESSAGE).map(|n| pay(&format!("{payer} {sequence} {n}"), payer, payee, "1.25"));
            messages.send(SubmitTransactionsRequest { sequence, transactions: transactions.collect() }).await.unwrap();
        }
    };
    let receiving = async move {
        let mut answers = bank.submit_transactions(requests).await.unwrap().into_inner();
        let mut outcomes = Vec::new();
        while let Some(answer) = answers.next().await {
            for item in answer.unwrap().items {
                let Some(Outcome(outcome)) = item.result else { panic!("refused: {item:?}") };
                assert_eq!(outcome.state(), TransactionState::Committed, "{outcome:?}");
                outcomes.push(outcome);
            }
            committed.fetch_add(MESSAGE, Ordering::SeqCst);
        }
        outcomes
    };
    tokio::join!(sending, receiving).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_payment_is_in_exactly_one_of_two_hundred_windows() {
    let node = Deltran::start("").await;
    node.banks(&[("ALFAAEXX", "1000000.00", "500000.00"), ("BRAVINXX", "1000000.00", "500000.00")]).await;
    node.open_window(window(0)).await;

    let committed = Arc::new(AtomicU64::new(0));
    let (closed, closings) = watch::channel(0);
    let closing = async {
        let mut clearing = node.clearing();
        let mut alfa = node.bank(BANKS[0]);
        for number in 0..WINDOWS {
            // Each window gets something, and the rest of its share flows while it is sealed.
            let enough = (number * MESSAGES + 1) * MESSAGE * 2;
            within(PATIENCE, "payments to flow", async || (committed.load(Ordering::SeqCst) >= enough).then_some(()))
                .await;
            let last = number + 1 == WINDOWS;
            let two_phase = format!("two-phase {number}");
            let mut reserved = pay(&two_phase, BANKS[0], BANKS[1], "2.50");
            (reserved.two_phase, reserved.timeout_seconds) = (true, 3_600);
            if number % 20 == 10 {
                let request = SubmitTransactionRequest { transaction: Some(reserved) };
                let outcome = alfa.submit_transaction(request).await.unwrap().into_inner().outcome.unwrap();
                assert_eq!(outcome.state(), TransactionState::Reserved, "{outcome:?}");
                assert_eq!(outcome.window_id, "", "a reservation is in no window");
            }
            if last {
                let all = WINDOWS * MESSAGES * MESSAGE * 2;
                within(PATIENCE, "all payments", async || (committed.load(Ordering::SeqCst) == all).then_some(()))
                    .await;
            }
            let next = if last { String::new() } else { window(number + 1).to_string() };
            let request = CloseWindowRequest { window_id: window(number).to_string(), next_window_id: next };
            clearing.close_window(request).await.unwrap();
            closed.send_replace(number + 1);
            if number % 20 == 10 {
                let request = CommitTransactionRequest { transaction_id: id(&two_phase).to_string() };
                let view = alfa.commit_transaction(request).await.unwrap().into_inner().transaction.unwrap();
                assert_eq!(view.state(), TransactionState::Committed);
                assert_eq!(view.window_id, window(number + 1).to_string(), "the later window has it");
            }
        }
    };
    let ((), alfa, bravo) = tokio::join!(
        closing,
        stream(&node, 0, committed.clone(), closings.clone()),
        stream(&node, 1, committed.clone(), closings),
    );
    let outcomes: Vec<_> = alfa.into_iter().chain(bravo).collect();
    let two_phase = WINDOWS / 20;
    let total = WINDOWS * MESSAGES * MESSAGE * 2 + two_phase;
    assert_eq!(outcomes.len() as u64 + two_phase, total);

    let windows = within(PATIENCE, "all windows to be settled", async || {
        let windows = node.windows().await;
        windows.iter().all(|w| w.state() == WindowState::Settled).then_some(windows)
    })
    .await;
    assert_eq!(windows.len() as u64, WINDOWS);
    assert_eq!(windows.iter().map(|w| w.sealed_count).sum::<u64>(), total);

    // What the ledger lists is what it answered, and window_seq is dense in each window.
    let listed = node.transactions().await;
    assert_eq!(listed.len() as u64, total);
    for outcome in &outcomes {
        let view = &listed[&outcome.transaction_id];
        assert_eq!((&view.window_id, view.window_seq), (&outcome.window_id, outcome.window_seq), "{view:?}");
        assert!(view.settled, "{view:?}");
    }
    let mut by_window: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut gross: BTreeMap<&str, i64> = BTreeMap::new();
    for view in listed.values() {
        assert!(by_window.entry(&view.window_id).or_default().insert(view.window_seq), "a place taken twice: {view:?}");
        *gross.entry(&view.window_id).or_default() += cents(&view.amount.as_ref().unwrap().amount);
    }
    for window in &windows {
        let places = by_window.remove(window.window_id.as_str()).unwrap_or_default();
        let dense: BTreeSet<u64> = (1..=window.sealed_count).collect();
        assert_eq!(places, dense, "{window:?}");
        assert_eq!((window.count, window.sealed_count > 0), (window.sealed_count, true), "{window:?}");
        let sum = gross[window.window_id.as_str()];
        assert_eq!(cents(&window.sealed_gross.as_ref().unwrap().amount), sum, "{window:?}");
        let request = GetNettingSetRequest { netting_set_id: window.netting_set_id.clone() };
        let set = node.clearing().get_netting_set(request).await.unwrap().into_inner().netting_set.unwrap();
        assert_eq!(cents(&set.gross.as_ref().unwrap().amount), sum, "{set:?}");
        let net: i64 = set.positions.iter().map(|p| cents(&p.net.as_ref().unwrap().amount)).sum();
        assert_eq!(net, 0, "{set:?}");
    }
    assert!(by_window.is_empty(), "windows that clearing does not know: {:?}", by_window.keys());
    node.verify().await;

    let request = CloseWindowRequest { window_id: window(0).to_string(), next_window_id: String::new() };
    let refused = node.clearing().close_window(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "wrong_state"), "{refused}");
    assert_eq!(detail(&refused, "state"), "SETTLED", "{refused}");
}

fn cents(amount: &str) -> i64 {
    amount.replace('.', "").parse().unwrap()
}
