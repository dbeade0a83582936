//! Every engine a process of its own, each killed once while payments flow and windows settle: nothing is lost and
//! nothing is done twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::{BTreeMap, BTreeSet};

use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::clearing::v1::{CloseWindowRequest, OpenWindowRequest};
use deltran_api::token::v1::submit_item::Result::{Error, Outcome};
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{TransactionInstruction, TransactionOutcome, TransactionState};
use deltran_tests::node::{Connection, PATIENCE, id, pay, submit_many};
use deltran_tests::{As, Fleet, within};
use tonic::Code;

const BANKS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
/// Payments of one message.
const MESSAGE: usize = 20;
/// Messages of each bank between two kills.
const MESSAGES: usize = 4;

/// Sends a message under the same ids until the ledger has decided all of it.
async fn decided(fleet: &Fleet, from: usize, transactions: &[TransactionInstruction]) -> Vec<TransactionOutcome> {
    let mut bank = TokenServiceClient::new(fleet.to("token", As::bank(BANKS[from])));
    within(PATIENCE, "the ledger to decide", async || {
        // Whatever breaks: the same ids may be sent again.
        let items = submit_many(&mut bank, transactions.to_vec()).await.ok()?;
        let mut outcomes = Vec::new();
        for item in items {
            match item.result {
                Some(Outcome(outcome)) => outcomes.push(outcome),
                Some(Error(refusal)) => {
                    assert!(["unavailable", "overloaded"].contains(&refusal.code.as_str()), "{refusal:?}");
                    return None;
                }
                None => return None,
            }
        }
        Some(outcomes)
    })
    .await
}

fn message(from: usize, number: usize) -> Vec<TransactionInstruction> {
    let (payer, payee) = (BANKS[from], BANKS[1 - from]);
    (0..MESSAGE).map(|n| pay(&format!("{payer} {number} {n}"), payer, payee, "1.25")).collect()
}

fn clearing(fleet: &Fleet) -> ClearingServiceClient<Connection> {
    ClearingServiceClient::new(fleet.to("clearing", As::role("operator", "ada")))
}

fn window(number: usize) -> String {
    id(&format!("window {number}")).to_string()
}

/// Closes a window and opens the next; asks again while clearing is away, which changes nothing.
async fn close(fleet: &Fleet, number: usize, next: bool) {
    let next_window_id = if next { window(number + 1) } else { String::new() };
    let request = CloseWindowRequest { window_id: window(number), next_window_id };
    within(PATIENCE, "the window to be closed", async || match clearing(fleet).close_window(request.clone()).await {
        Ok(_) => Some(()),
        // An order that was taken before its answer was lost.
        Err(status) if status.code() == Code::FailedPrecondition => Some(()),
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            None
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_engine_is_killed_once_in_the_day() {
    let schedule = "[[clearing.schedules]]\nname = \"manual\"\nmode = \"manual\"\ncurrencies = [\"USD\"]\n";
    let mut fleet = Fleet::prepare(schedule).await;
    let engines = fleet.engines();

    // Banks come in while one process serves everything.
    fleet.start_together("token").await;
    let mut text = String::from("participant,name,currency,opening_deposit,net_debit_cap\n");
    for bank in BANKS {
        text.push_str(&format!("{bank},Bank {bank},USD,1000000.00,500000.00\n"));
    }
    let file = fleet.write("participants.csv", text);
    fleet.must("token", &["participant", "import", "--file", &file]).await;
    fleet.kill("token");

    for engine in &engines {
        fleet.start(engine).await;
    }
    let request = OpenWindowRequest { window_id: window(0), schedule: "manual".into(), currency: "USD".into() };
    within(PATIENCE, "the first window to be open", async || {
        match clearing(&fleet).open_window(request.clone()).await {
            Ok(_) => Some(()),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                None
            }
        }
    })
    .await;

    let mut told = Vec::new();
    for (round, engine) in engines.iter().enumerate() {
        for number in round * MESSAGES..(round + 1) * MESSAGES {
            if number % MESSAGES == MESSAGES / 2 {
                // Payments are on their way, and the window before may be settling.
                fleet.kill(engine);
                fleet.start(engine).await;
            }
            for from in 0..BANKS.len() {
                told.extend(decided(&fleet, from, &message(from, number)).await);
            }
        }
        close(&fleet, round, round + 1 < engines.len()).await;
    }
    let windows = fleet.settled("clearing", engines.len()).await;

    let total = engines.len() * MESSAGES * MESSAGE * BANKS.len();
    assert!(told.iter().all(|outcome| outcome.state() == TransactionState::Committed));
    let listed = fleet.transactions("token").await;
    assert_eq!((told.len(), listed.len()), (total, total));
    let mut places: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for outcome in &told {
        let view = &listed[&outcome.transaction_id];
        assert_eq!((&view.window_id, view.window_seq), (&outcome.window_id, outcome.window_seq), "{view:?}");
        assert!(places.entry(&view.window_id).or_default().insert(view.window_seq), "a place taken twice: {view:?}");
    }
    assert_eq!(windows.iter().map(|w| w.count).sum::<u64>(), total as u64);
    for window in &windows {
        let dense: BTreeSet<u64> = (1..=window.count).collect();
        assert_eq!(places.get(window.window_id.as_str()), Some(&dense), "{window:?}");
    }
    fleet.verified("token", "audit").await;
}
