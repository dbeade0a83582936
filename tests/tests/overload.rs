//! Too much at once: callers are told to slow down and when to come again, what is too late is not done, and a broker
//! without room holds up neither answers nor, once it has room, any event.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::time::Duration;

use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{
    GetBalancesRequest, GetTransactionRequest, SubmitTransactionRequest, SubmitTransactionResponse, TransactionState,
};
use deltran_messaging::Broker;
use deltran_tests::node::{Connection, PATIENCE, detail, id, pay};
use deltran_tests::{As, Fleet, api, within};
use futures::StreamExt;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

const BANKS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
const AT: &str = "token";
const SCHEDULE: &str = "[[clearing.schedules]]\nname = \"manual\"\nmode = \"manual\"\ncurrencies = [\"USD\"]\n";

/// A platform with two banks and an open window.
async fn platform(toml: &str) -> Fleet {
    let mut fleet = Fleet::prepare(&format!("{toml}\n{SCHEDULE}")).await;
    fleet.start_together(AT).await;
    fleet.banks(AT, &BANKS.map(|bank| (bank, "1000000.00", "500000.00"))).await;
    fleet.open_window(AT, id("window").to_string()).await;
    fleet
}

fn bank(fleet: &Fleet) -> TokenServiceClient<Connection> {
    TokenServiceClient::new(fleet.to(AT, As::bank(BANKS[0])))
}

fn payment(name: &str) -> Request<SubmitTransactionRequest> {
    Request::new(SubmitTransactionRequest { transaction: Some(pay(name, BANKS[0], BANKS[1], "1.00")) })
}

fn committed(response: SubmitTransactionResponse) {
    let outcome = response.outcome.unwrap();
    assert_eq!(outcome.state(), TransactionState::Committed, "{outcome:?}");
}

/// Refused for being too much, with the time after which to try again.
fn told_to_slow_down(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(after.is_some_and(|delay| !delay.is_zero()), "no hint when to try again: {status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_wait_is_refused_and_taken_later() {
    let fleet = platform("[token]\nmax_waiting = 4").await;
    let one = async |n: usize| {
        let (mut bank, mut refused) = (bank(&fleet), 0);
        within(PATIENCE, "a payment to be taken", async || {
            match bank.submit_transaction(payment(&n.to_string())).await {
                Ok(response) => {
                    committed(response.into_inner());
                    Some(())
                }
                Err(status) => {
                    told_to_slow_down(&status);
                    refused += 1;
                    None
                }
            }
        })
        .await;
        refused
    };
    let refused: usize = futures::stream::iter(0..200).map(one).buffer_unordered(100).fold(0, async |a, b| a + b).await;
    assert!(refused > 0, "a hundred at once are more than four");
    assert_eq!(fleet.transactions(AT).await.len(), 200);
    println!("200 payments of a hundred callers, four may wait: refused {refused} times, and all taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_late_is_not_decided() {
    let fleet = platform("").await;
    let pool = fleet.postgres().pool().await;
    let mut blocked = pool.begin().await.unwrap();
    // The writer's transaction waits for this one.
    sqlx::query("SELECT FROM token.writer_state FOR UPDATE").execute(&mut *blocked).await.unwrap();
    let mut first = bank(&fleet);
    let first = tokio::spawn(async move { first.submit_transaction(payment("first")).await });
    within(PATIENCE, "the writer to wait", async || {
        let waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
            AND application_name LIKE 'deltran-token/%'";
        sqlx::query(waits).fetch_optional(&pool).await.unwrap()
    })
    .await;
    let mut late = payment("late");
    late.set_timeout(Duration::from_millis(300));
    let status = bank(&fleet).submit_transaction(late).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    blocked.rollback().await.unwrap();

    // The one that was begun is decided, and so is one that comes after; the one between is nowhere.
    committed(first.await.unwrap().unwrap().into_inner());
    committed(bank(&fleet).submit_transaction(payment("after")).await.unwrap().into_inner());
    let transaction_id = id("late").to_string();
    let status = bank(&fleet).get_transaction(GetTransactionRequest { transaction_id }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    let again = bank(&fleet).submit_transaction(payment("late")).await.unwrap().into_inner();
    assert!(!again.replayed);
    committed(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_fills_the_outbox_and_then_refuses_until_it_has_room() {
    let fleet = platform("[messaging]\nmax_outbox_backlog = 200\n[risk]\nstale_after_seconds = 600").await;
    let broker = Broker::connect(&fleet.nats().url(), "test").await.unwrap();
    let info = api(&broker, "STREAM.INFO.TRANSACTIONS", &json!({})).await;
    let (whole, used) = (info["config"].clone(), info["state"]["bytes"].as_u64().unwrap());
    let with_room = async |bytes: Value| {
        let mut config = whole.clone();
        config["max_bytes"] = bytes;
        api(&broker, "STREAM.UPDATE.TRANSACTIONS", &config).await;
    };
    with_room((used + 20_000).into()).await;

    let (mut taken, mut payer) = (0, bank(&fleet));
    let status = within(PATIENCE, "a refusal", async || {
        match payer.submit_transaction(payment(&format!("full {taken}"))).await {
            Ok(response) => {
                committed(response.into_inner());
                taken += 1;
                None
            }
            // Risk does not know what the ledger did, and may say so first.
            Err(status) if status.code() == Code::Unavailable => None,
            Err(status) => Some(status),
        }
    })
    .await;
    told_to_slow_down(&status);
    assert!(detail(&status, "backlog").parse::<u64>().unwrap() > 200, "{status:?}");
    // What only reads works as before.
    assert_eq!(fleet.transactions(AT).await.len(), taken);
    let mut operator = TokenServiceClient::new(fleet.to(AT, As::role("operator", "ada")));
    assert!(!operator.get_balances(GetBalancesRequest::default()).await.unwrap().into_inner().balances.is_empty());
    println!("a full stream: {taken} payments taken, then refused with {} events waiting", detail(&status, "backlog"));

    with_room(whole["max_bytes"].clone()).await;
    within(PATIENCE, "payments to be taken again", async || {
        let response = payer.submit_transaction(payment(&format!("full {taken}"))).await.ok()?;
        committed(response.into_inner());
        Some(())
    })
    .await;
    fleet.verified(AT, AT).await;
    assert_eq!(fleet.transactions(AT).await.len(), taken + 1);
}
