//! A broker that forgets: streams that are deleted, made anew from 1, emptied, or gone with the whole store come back
//! above every known sequence, filled from ledger and outbox, and nothing takes effect twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use deltran_api::token::v1::TransactionInstruction;
use deltran_messaging::Broker;
use deltran_messaging::stored;
use deltran_tests::node::{Deltran, PATIENCE, committed, id, pay};
use deltran_tests::{api, made_anew, within};
use serde_json::{Value, json};
use tokio::sync::watch;

const BANKS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
const MESSAGE: usize = 20;
const MESSAGES: usize = 10;

fn message(round: usize, number: usize) -> Vec<TransactionInstruction> {
    let (payer, payee) = (BANKS[number % 2], BANKS[1 - number % 2]);
    (0..MESSAGE).map(|n| pay(&format!("{round} {number} {n}"), payer, payee, "1.25")).collect()
}

/// Sends a round of payments, each message until it is decided; tells how many were.
async fn load(node: &Deltran, round: usize, sent: &watch::Sender<usize>) {
    for number in 0..MESSAGES {
        let transactions = message(round, number);
        let mut bank = node.bank(&transactions[0].payer);
        committed(&mut bank, &transactions).await;
        sent.send_modify(|count| *count += 1);
    }
}

async fn broker(node: &Deltran) -> Broker {
    let broker = Broker::connect(node.told("nats"), "test").await.unwrap();
    within(PATIENCE, "a connection", async || broker.is_connected().then_some(())).await;
    broker
}

async fn last_of(broker: &Broker, stream: &str) -> u64 {
    stored::state(broker, stream).await.unwrap().unwrap().last_sequence
}

/// Everything is there once: ledger, audit ledger, streams, and what consumers made of them.
async fn whole(node: &Deltran, rounds: usize) {
    let listed = node.transactions().await;
    assert_eq!(listed.len(), rounds * MESSAGES * MESSAGE);
    // The broker copies a stream that was made anew again after a while of its own.
    within(PATIENCE, "AUDIT to go on", async || {
        let ran = node.run(&["audit", "verify"]).await;
        println!("{}", ran.out);
        (ran.code == 0).then_some(())
    })
    .await;
    node.verify().await;
    let summary = node.must(&["audit", "reconcile"]).await;
    assert_eq!((summary["ok"].as_bool(), summary["differences"].as_u64()), (Some(true), Some(0)), "{summary:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_lost_under_load_come_back() {
    let mut node = Deltran::start("").await;
    node.banks(&[("ALFAAEXX", "1000000.00", "500000.00"), ("BRAVINXX", "1000000.00", "500000.00")]).await;
    node.open_window(id("the window")).await;
    let nats = broker(&node).await;

    for (round, stream, anew) in [(0, "TRANSACTIONS", false), (1, "TRANSACTIONS", true), (2, "AUDIT", false)] {
        let (sent, mut seen) = watch::channel(0);
        let broken = async {
            seen.wait_for(|sent| *sent >= MESSAGES / 2).await.unwrap();
            let last = last_of(&nats, stream).await;
            let config = api(&nats, &format!("STREAM.INFO.{stream}"), &json!({})).await["config"].take();
            api(&nats, &format!("STREAM.DELETE.{stream}"), &json!({})).await;
            if anew {
                let mut config = config;
                config["first_seq"] = json!(0);
                api(&nats, &format!("STREAM.CREATE.{stream}"), &config).await;
            }
            made_anew(PATIENCE, &nats, &[(stream, last)]).await;
        };
        tokio::join!(load(&node, round, &sent), broken);
        whole(&node, round + 1).await;
    }

    // The whole store of the broker.
    node.stop();
    std::fs::remove_dir_all(node.data().join("nats/jetstream")).unwrap();
    node.start_again().await;
    let (sent, _seen) = watch::channel(0);
    load(&node, 3, &sent).await;
    whole(&node, 4).await;
    node.must(&["window", "close", "--all", "--wait"]).await;
    whole(&node, 4).await;
    let told = node.must(&["audit", "events", "--type", "reconciliation.mismatch", "--limit", "0"]).await;
    for (stream, losses) in [("TRANSACTIONS", 3), ("AUDIT", 2), ("CLEARING", 1)] {
        let about = |event: &&Value| {
            let envelope: Value = serde_json::from_str(event["envelope"].as_str().unwrap()).unwrap();
            envelope["data"]["place"] == stream
        };
        let count = told["events"].as_array().unwrap().iter().filter(about).count();
        assert_eq!(count, losses, "{stream}: {told:#}");
    }
}
