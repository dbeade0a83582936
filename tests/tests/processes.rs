//! Every engine a process of its own, each killed once while payments flow and windows settle: nothing is lost and
//! nothing is done twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use deltran_api::token::v1::TransactionInstruction;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_tests::node::{committed, id, pay};
use deltran_tests::{As, Fleet, compare};

const BANKS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
/// Payments of one message.
const MESSAGE: usize = 20;
/// Messages of each bank between two kills.
const MESSAGES: usize = 4;

fn message(from: usize, number: usize) -> Vec<TransactionInstruction> {
    let (payer, payee) = (BANKS[from], BANKS[1 - from]);
    (0..MESSAGE).map(|n| pay(&format!("{payer} {number} {n}"), payer, payee, "1.25")).collect()
}

fn window(number: usize) -> String {
    id(&format!("window {number}")).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_engine_is_killed_once_in_the_day() {
    let schedule = "[[clearing.schedules]]\nname = \"manual\"\nmode = \"manual\"\ncurrencies = [\"USD\"]\n";
    let mut fleet = Fleet::prepare(schedule).await;
    let engines = fleet.engines();

    // Banks come in while one process serves everything.
    fleet.start_together("token").await;
    fleet.banks("token", &BANKS.map(|bank| (bank, "1000000.00", "500000.00"))).await;
    fleet.kill("token");

    for engine in &engines {
        fleet.start(engine).await;
    }
    fleet.open_window("clearing", window(0)).await;

    let mut told = Vec::new();
    for (round, engine) in engines.iter().enumerate() {
        for number in round * MESSAGES..(round + 1) * MESSAGES {
            if number % MESSAGES == MESSAGES / 2 {
                // Payments are on their way, and the window before may be settling.
                fleet.kill(engine);
                fleet.start(engine).await;
            }
            for (from, bank) in BANKS.iter().enumerate() {
                let mut bank = TokenServiceClient::new(fleet.to("token", As::bank(bank)));
                told.extend(committed(&mut bank, &message(from, number)).await);
            }
        }
        let next = (round + 1 < engines.len()).then(|| window(round + 1));
        fleet.close_window("clearing", window(round), next).await;
    }
    let windows = fleet.settled("clearing", engines.len()).await;

    let total = engines.len() * MESSAGES * MESSAGE * BANKS.len();
    let listed = fleet.transactions("token").await;
    assert_eq!((told.len(), listed.len()), (total, total));
    assert!(windows.iter().all(|window| window.count > 0), "each round has its window: {windows:?}");
    compare(&told, &listed, &windows);
    fleet.verified("token", "audit").await;
}
