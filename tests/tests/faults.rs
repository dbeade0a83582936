//! Crashes of the program, the broker and Postgres in the middle of work: nothing is lost, nothing is done twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::TcpListener;

use deltran_api::token::v1::submit_item::Result::{Error, Outcome};
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{
    SubmitItem, SubmitTransactionRequest, TransactionInstruction, TransactionOutcome, TransactionState,
};
use deltran_tests::node::{Connection, Deltran, PATIENCE, folder, id, pay, processes_of, run, submit_many};
use deltran_tests::within;
use tonic::Code;
use tonic_types::StatusExt;

const BANKS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
const MESSAGE: usize = 20;

type Outcomes = BTreeMap<String, TransactionOutcome>;

async fn platform() -> Deltran {
    let node = Deltran::start("").await;
    node.banks(&[("ALFAAEXX", "1000000.00", "500000.00"), ("BRAVINXX", "1000000.00", "500000.00")]).await;
    node.open_window(id("the window")).await;
    node
}

fn message(from: usize, number: usize) -> Vec<TransactionInstruction> {
    let (payer, payee) = (BANKS[from], BANKS[1 - from]);
    (0..MESSAGE).map(|n| pay(&format!("{payer} {number} {n}"), payer, payee, "3.10")).collect()
}

fn outcome(item: SubmitItem) -> (TransactionOutcome, bool) {
    let Some(Outcome(outcome)) = item.result else { panic!("no outcome: {item:?}") };
    assert_eq!(outcome.state(), TransactionState::Committed, "{outcome:?}");
    (outcome, item.replayed)
}

/// Sends messages of one bank until the connection breaks or all are sent; the outcomes that it was told.
async fn until_it_breaks(
    node: &Deltran,
    from: usize,
    messages: usize,
    told: &tokio::sync::watch::Sender<usize>,
) -> Outcomes {
    let mut bank = node.bank(BANKS[from]);
    let mut outcomes = Outcomes::new();
    for number in 0..messages {
        let Ok(items) = submit_many(&mut bank, message(from, number)).await else { break };
        if items.iter().any(|item| !matches!(item.result, Some(Outcome(_)))) {
            break;
        }
        for item in items {
            let (outcome, _) = outcome(item);
            outcomes.insert(outcome.transaction_id.clone(), outcome);
        }
        told.send_modify(|count| *count += MESSAGE);
    }
    outcomes
}

/// Sends a message until every item of it has an outcome: a platform that has just come up asks for patience first.
async fn patiently(
    bank: &mut TokenServiceClient<Connection>,
    transactions: &[TransactionInstruction],
) -> Vec<SubmitItem> {
    within(PATIENCE, "the ledger to take payments", async || {
        let items = match submit_many(bank, transactions.to_vec()).await {
            Ok(items) => items,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                return None;
            }
        };
        let waits = items.iter().any(|i| matches!(&i.result, Some(Error(refusal)) if refusal.code == "unavailable"));
        (!waits).then_some(items)
    })
    .await
}

/// Sends everything again: what was told stays so, and what was not is decided once.
async fn send_again(node: &Deltran, told: &Outcomes, messages: usize) {
    for (from, bank) in BANKS.iter().enumerate() {
        let mut bank = node.bank(bank);
        for number in 0..messages {
            for item in patiently(&mut bank, &message(from, number)).await {
                let (again, replayed) = outcome(item);
                if let Some(first) = told.get(&again.transaction_id) {
                    assert_eq!((first, true), (&again, replayed));
                }
            }
        }
    }
    let listed = node.transactions().await;
    assert_eq!(listed.len(), BANKS.len() * messages * MESSAGE);
    assert!(listed.values().all(|view| view.state() == TransactionState::Committed));
    for (id, first) in told {
        let view = &listed[id];
        assert_eq!((&view.window_id, view.window_seq), (&first.window_id, first.window_seq), "{view:?}");
    }
    let mut places: Vec<u64> = listed.values().map(|view| view.window_seq).collect();
    places.sort_unstable();
    assert!(places.iter().copied().eq(1..=listed.len() as u64), "window_seq is dense: {places:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_platform_comes_back_with_everything_that_it_told() {
    let mut node = platform().await;
    let (told, mut count) = tokio::sync::watch::channel(0);
    let messages = 2_000;
    let (one, two) = {
        let pid = nix::unistd::Pid::from_raw(node.pid());
        let kill = async {
            count.wait_for(|n| *n >= 600).await.unwrap();
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        };
        let (one, two, ()) =
            tokio::join!(until_it_breaks(&node, 0, messages, &told), until_it_breaks(&node, 1, messages, &told), kill);
        (one, two)
    };
    node.kill();
    let told: Outcomes = one.into_iter().chain(two).collect();
    assert!(told.len() >= 600 && told.len() < 2 * messages * MESSAGE, "killed in the middle: {}", told.len());

    node.start_again().await;
    let listed = node.transactions().await;
    for (id, first) in &told {
        let view = listed.get(id).unwrap_or_else(|| panic!("{first:?} was lost"));
        assert_eq!((view.state(), view.window_seq), (TransactionState::Committed, first.window_seq));
    }
    // A little beyond what was sent, so that some are new.
    let sent = told.len().div_ceil(MESSAGE);
    send_again(&node, &told, sent + 5).await;
    node.verify().await;
    node.must(&["window", "close", "--all", "--wait"]).await;
    node.verify().await;
    assert!(node.stop().is_some_and(|status| status.success()));
    assert!(processes_of(&node.data()).is_empty(), "nothing is left running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_broker_payments_go_on_and_the_audit_ledger_becomes_complete() {
    let node = platform().await;
    let mut banks = [node.bank(BANKS[0]), node.bank(BANKS[1])];
    let messages = 60;
    let mut killed = Vec::new();
    let mut told = Outcomes::new();
    for number in 0..messages {
        if number % 25 == 10 {
            if let Some(before) = killed.last() {
                node.server_is_back("nats", *before).await;
            }
            killed.push(node.kill_server("nats"));
        }
        for (from, bank) in banks.iter_mut().enumerate() {
            for item in submit_many(bank, message(from, number)).await.unwrap() {
                let (outcome, replayed) = outcome(item);
                assert!(!replayed);
                told.insert(outcome.transaction_id.clone(), outcome);
            }
        }
    }
    assert_eq!(killed.len(), 2);
    node.server_is_back("nats", killed[1]).await;
    send_again(&node, &told, messages).await;
    node.verify().await;
    node.must(&["window", "close", "--all", "--wait"]).await;
    node.verify().await;
    node.must(&["topology", "check"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_the_answer_is_try_again_and_then_everything_adds_up() {
    let node = platform().await;
    let mut bank = node.bank(BANKS[0]);
    let mut told = Outcomes::new();
    let one = |number: usize| SubmitTransactionRequest { transaction: message(0, number).into_iter().next() };
    for number in 0..20 {
        let answer = bank.submit_transaction(one(number)).await.unwrap().into_inner();
        let outcome = answer.outcome.unwrap();
        told.insert(outcome.transaction_id.clone(), outcome);
    }
    let killed = Cell::new(node.kill_server("postgres"));
    // It comes back within a moment; killed again each time, it is away for longer than a request waits for it.
    let kept_away = async {
        loop {
            node.server_is_back("postgres", killed.get()).await;
            killed.set(node.kill_server("postgres"));
        }
    };
    let mut number = 20;
    let refusal = within(PATIENCE, "a refusal", async || match bank.submit_transaction(one(number)).await {
        Ok(answer) => {
            let outcome = answer.into_inner().outcome.unwrap();
            told.insert(outcome.transaction_id.clone(), outcome);
            number += 1;
            None
        }
        Err(status) => Some(status),
    });
    let refused = tokio::select! {
        refused = refusal => refused,
        () = kept_away => unreachable!("it never ends"),
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let after = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(after.is_some_and(|delay| !delay.is_zero()), "no hint when to try again: {refused:?}");

    node.server_is_back("postgres", killed.get()).await;
    // The same id, as the refusal asks for.
    let outcome =
        within(PATIENCE, "payments to be taken again", async || match bank.submit_transaction(one(number)).await {
            Ok(answer) => answer.into_inner().outcome,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                None
            }
        })
        .await;
    assert_eq!(outcome.state(), TransactionState::Committed);
    told.insert(outcome.transaction_id.clone(), outcome);
    send_again(&node, &told, number + 2).await;
    node.verify().await;
    node.must(&["window", "close", "--all", "--wait"]).await;
    node.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_is_named_in_one_line() {
    let node = Deltran::start("").await;
    let data = node.data().display().to_string();
    let ran = run(|command| {
        command.args(["up", "--grpc-port", "0", "--http-port", "0", "--data", &data]).current_dir(node.path());
    })
    .await;
    assert_eq!((ran.code, ran.error.trim().lines().count()), (1, 1), "{}", ran.error);
    assert!(
        ran.error.contains("is in use by `deltran up`") && ran.error.contains(&node.pid().to_string()),
        "{}",
        ran.error
    );

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for option in ["--grpc-port", "--http-port", "--nats-port", "--postgres-port"] {
        let folder = folder();
        let ran = run(|command| {
            command.args(["up", "--data", "data"]).current_dir(folder.path());
            for other in ["--grpc-port", "--http-port", "--nats-port", "--postgres-port"] {
                command.args([other, if other == option { &port } else { "0" }]);
            }
        })
        .await;
        let told: Vec<&str> = ran.error.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!((ran.code, told.len()), (1, 1), "{option}: {}", ran.error);
        assert!(told[0].contains(&port), "{option}: {}", told[0]);
        assert!(processes_of(folder.path()).is_empty(), "{option}: nothing is left running");
    }
    // The first is none the worse.
    node.must(&["status"]).await;
}
