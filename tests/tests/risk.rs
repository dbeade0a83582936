//! Risk on the running platform: positions that tie to the ledger whatever is killed or delivered again, limits
//! that a burst cannot go through, and breakers that let positions shrink only.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeMap;

use deltran_api::risk::v1::risk_service_client::RiskServiceClient;
use deltran_api::risk::v1::{
    ApproveLimitRequest, GetExposuresRequest, GetExposuresResponse, GetLiquidityRequest, LimitKind, ProposeLimitRequest,
};
use deltran_api::token::v1::submit_item::Result::{Error, Outcome};
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{SettlementModel, SubmitItem, TransactionInstruction, TransactionState};
use deltran_messaging::Broker;
use deltran_tests::node::{Connection, Deltran, PATIENCE, detail, id, pay, submit_many, usd};
use deltran_tests::{As, Fleet, within};
use serde_json::json;
use tonic::Code;

const BANKS: [&str; 3] = ["ALFAAEXX", "BRAVINXX", "CHARUSXX"];

fn risk(node: &Deltran, user: &str) -> RiskServiceClient<Connection> {
    RiskServiceClient::new(node.as_caller(As::role("risk", user)))
}

/// Submits until every item has an outcome: state and refusal by transaction.
async fn submit(node: &Deltran, payer: &str, all: Vec<TransactionInstruction>) -> Vec<(TransactionState, String)> {
    within(PATIENCE, "outcomes", async || {
        let items = submit_many(&mut node.bank(payer), all.clone()).await.ok()?;
        items.into_iter().map(outcome).collect()
    })
    .await
}

/// What became of a transaction; none where it has to be asked again.
fn outcome(item: SubmitItem) -> Option<(TransactionState, String)> {
    match item.result? {
        Outcome(outcome) => {
            let code = outcome.refusal.as_ref().map(|r| r.code.clone()).unwrap_or_default();
            Some((outcome.state(), code))
        }
        Error(error) if error.code == "unavailable" => None,
        other => panic!("{other:?}"),
    }
}

async fn exposures(node: &Deltran) -> GetExposuresResponse {
    risk(node, "ada").get_exposures(GetExposuresRequest::default()).await.unwrap().into_inner()
}

/// Sent, received and number of both by participant, as risk counts them.
async fn counted(node: &Deltran) -> BTreeMap<String, (String, String, u64, u64)> {
    let amount = |m: Option<deltran_api::common::v1::Money>| m.unwrap().amount;
    let row = |e: deltran_api::risk::v1::Exposure| {
        (e.participant, (amount(e.sent), amount(e.received), e.sent_count, e.received_count))
    };
    exposures(node).await.exposures.into_iter().map(row).collect()
}

/// The same from the ledger's transactions.
async fn committed(node: &Deltran) -> BTreeMap<String, (String, String, u64, u64)> {
    let mut sums: BTreeMap<String, (u64, u64, u64, u64)> = BTreeMap::new();
    for view in node.transactions().await.into_values() {
        if view.state() != TransactionState::Committed || view.model() == SettlementModel::Gross {
            continue;
        }
        let cents: u64 = view.amount.as_ref().unwrap().amount.replace('.', "").parse().unwrap();
        let payer = sums.entry(view.payer.clone()).or_default();
        (payer.0, payer.2) = (payer.0 + cents, payer.2 + 1);
        let payee = sums.entry(view.payee.clone()).or_default();
        (payee.1, payee.3) = (payee.1 + cents, payee.3 + 1);
    }
    let text = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    sums.into_iter().map(|(bank, (s, r, sn, rn))| (bank, (text(s), text(r), sn, rn))).collect()
}

/// The consumer counts each transaction once: killed with it under way, restarted, and with everything
/// delivered anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_are_exact_whatever_is_killed_or_delivered_again() {
    let mut node = Deltran::start("").await;
    node.banks(&BANKS.map(|bank| (bank, "1000000.00", "900000.00"))).await;
    node.open_window(id("first")).await;
    let flow = |round: u32, from: usize| -> Vec<TransactionInstruction> {
        let payee = BANKS[(from + 1 + round as usize % 2) % 3];
        (0..400)
            .map(|n| pay(&format!("{round} {from} {n}"), BANKS[from], payee, &format!("{}.{:02}", n % 7 + 1, n % 100)))
            .collect()
    };
    for round in 0..4 {
        for (from, bank) in BANKS.iter().enumerate() {
            submit(&node, bank, flow(round, from)).await;
        }
        if round % 2 == 1 {
            node.kill();
            node.start_again().await;
        }
    }
    // What the ledger has does not depend on what was told before the kill.
    for (round, from) in (0..4).flat_map(|round| (0..3).map(move |from| (round, from))) {
        submit(&node, BANKS[from], flow(round, from)).await;
    }
    let expected = committed(&node).await;
    assert_eq!(expected.values().map(|row| row.2).sum::<u64>(), 4_800);
    within(PATIENCE, "everything to be counted", async || (counted(&node).await == expected).then_some(())).await;

    let before = exposures(&node).await.version;
    let broker = Broker::connect(node.told("nats"), "test").await.unwrap();
    let reset = "CONSUMER.RESET.TRANSACTIONS.events_transactions_risk";
    within(PATIENCE, "the consumer to begin anew", async || {
        let answer: serde_json::Value = broker.jetstream().request(reset, &json!({"seq": 1})).await.ok()?;
        answer.get("error").is_none().then_some(())
    })
    .await;
    // An event behind all that came again: what came before it was counted, or was not counted twice.
    submit(&node, BANKS[0], vec![pay("the last", BANKS[0], BANKS[1], "0.01")]).await;
    let expected = committed(&node).await;
    within(PATIENCE, "the last one", async || (exposures(&node).await.version > before).then_some(())).await;
    within(PATIENCE, "everything to be counted once", async || (counted(&node).await == expected).then_some(())).await;

    // Settled, it is owed no more; the day keeps what was sent.
    node.must(&["window", "close", "--all", "--wait"]).await;
    within(PATIENCE, "no exposure", async || exposures(&node).await.exposures.is_empty().then_some(())).await;
    let day = risk(&node, "ada").get_liquidity(GetLiquidityRequest::default()).await.unwrap().into_inner();
    let sent: BTreeMap<_, _> =
        day.rows.iter().map(|r| (r.participant.clone(), r.sent.clone().unwrap().amount)).collect();
    assert_eq!(sent, expected.into_iter().map(|(bank, row)| (bank, row.0)).collect());
    assert!(day.rows.iter().all(|row| row.peaks.len() <= 3));
    let shown = node.must(&["exposure", "peaks", "--participant", BANKS[0]]).await;
    assert_eq!(shown["rows"].as_array().unwrap().len(), 1, "{shown:#}");
    node.verify().await;
}

/// Words and refusals of what was submitted.
fn told(outcomes: &[(TransactionState, String)]) -> Vec<&str> {
    outcomes.iter().map(|(state, code)| if code.is_empty() { state.as_str_name() } else { code }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_goes_through_no_limit_and_reducing_only_reduces() {
    let node = Deltran::start("").await;
    node.banks(&BANKS.map(|bank| (bank, "1000000.00", "900000.00"))).await;
    node.open_window(id("first")).await;
    let (alfa, bravo, charlie) = (BANKS[0], BANKS[1], BANKS[2]);

    // Two people agree; a name in other letters is the same person.
    let limit_id = id("bilateral").to_string();
    let proposed = ProposeLimitRequest {
        limit_id: limit_id.clone(),
        kind: LimitKind::Bilateral.into(),
        participant: alfa.into(),
        counterparty: bravo.into(),
        amount: usd("100.00"),
        reason: "new counterparty".into(),
        ..Default::default()
    };
    risk(&node, "ada").propose_limit(proposed).await.unwrap();
    let approve = ApproveLimitRequest { limit_id: limit_id.clone() };
    let refused = risk(&node, "ADA").approve_limit(approve.clone()).await.unwrap_err();
    assert_eq!((refused.code(), detail(&refused, "proposed_by").as_str()), (Code::PermissionDenied, "ada"));
    let approved = risk(&node, "bob").approve_limit(approve).await.unwrap().into_inner().limit.unwrap();
    assert_eq!(approved.state, "ACTIVE");

    // Three times 60 against 100, in one message and again.
    let sixty = |n: u32| pay(&format!("sixty {n}"), alfa, bravo, "60.00");
    let outcomes = submit(&node, alfa, (1..=3).map(sixty).collect()).await;
    let states = told(&outcomes);
    assert_eq!(states.iter().filter(|s| **s == "COMMITTED").count(), 1, "{states:?}");
    assert_eq!(states.iter().filter(|s| **s == "limit").count(), 2, "{states:?}");
    assert_eq!(submit(&node, alfa, (1..=3).map(sixty).collect()).await, outcomes, "the same answers for ever");
    assert_eq!(told(&submit(&node, alfa, vec![pay("forty", alfa, bravo, "40.00")]).await), ["COMMITTED"]);

    // What BRAVO pays back makes room in the same window.
    assert_eq!(told(&submit(&node, bravo, vec![pay("back", bravo, alfa, "500.00")]).await), ["COMMITTED"]);
    within(PATIENCE, "the way back to be counted", async || {
        let found = exposures(&node).await.exposures;
        found.iter().any(|e| e.participant == alfa && e.received_count == 1).then_some(())
    })
    .await;
    assert_eq!(told(&submit(&node, alfa, vec![pay("offset", alfa, bravo, "450.00")]).await), ["COMMITTED"]);
    let lowered = id("lowered").to_string();
    let words = ["--amount", "10.00", "--currency", "USD", "--reason", "review", "--id", &lowered];
    let of = ["limit", "propose", "--kind", "bilateral", "--participant", alfa, "--counterparty", bravo];
    node.must(&[&of[..], &words[..]].concat()).await;
    node.must(&["limit", "approve", &lowered]).await;
    assert_eq!(told(&submit(&node, alfa, vec![pay("more", alfa, bravo, "20.00")]).await), ["limit"]);
    assert_eq!(told(&submit(&node, bravo, vec![pay("still", bravo, alfa, "20.00")]).await), ["COMMITTED"]);
    let history = node.must(&["limit", "history", "--participant", alfa, "--kind", "bilateral"]).await;
    let steps: Vec<_> = history["steps"].as_array().unwrap().iter().map(|s| s["state"].as_str().unwrap()).collect();
    assert_eq!(steps, ["PROPOSED", "ACTIVE", "PROPOSED", "SUPERSEDED", "ACTIVE"]);

    // CHARLIE owes 300 and may only be paid, up to that, while its breaker reduces.
    assert_eq!(told(&submit(&node, charlie, vec![pay("owes", charlie, bravo, "300.00")]).await), ["COMMITTED"]);
    within(PATIENCE, "what CHARLIE owes", async || {
        exposures(&node).await.exposures.iter().any(|e| e.participant == charlie).then_some(())
    })
    .await;
    node.must(&["breaker", "reduce", "participant:CHARUSXX", "--reason", "downgraded"]).await;
    assert_eq!(told(&submit(&node, charlie, vec![pay("grows", charlie, bravo, "1.00")]).await), ["breaker_open"]);
    assert_eq!(told(&submit(&node, bravo, vec![pay("beyond", bravo, charlie, "300.01")]).await), ["breaker_open"]);
    assert_eq!(told(&submit(&node, bravo, vec![pay("shrinks", bravo, charlie, "300.00")]).await), ["COMMITTED"]);
    let listed = node.must(&["breaker", "list", "--state", "REDUCING"]).await;
    assert_eq!(listed["breakers"][0]["scope"], "participant:CHARUSXX", "{listed:#}");
    node.must(&["breaker", "close", "participant:CHARUSXX", "--reason", "reviewed"]).await;
    assert_eq!(told(&submit(&node, charlie, vec![pay("again", charlie, bravo, "1.00")]).await), ["COMMITTED"]);
    node.verify().await;
}

/// Sends a message to one process and then the other until all of it is decided.
async fn decided(fleet: &Fleet, all: &[TransactionInstruction]) -> Vec<(TransactionState, String)> {
    within(PATIENCE, "one of two to decide", async || {
        for place in ["token", "risk"] {
            let mut bank = TokenServiceClient::new(fleet.to(place, As::bank(BANKS[0])));
            let Ok(items) = submit_many(&mut bank, all.to_vec()).await else { continue };
            if let Some(outcomes) = items.into_iter().map(outcome).collect() {
                return Some(outcomes);
            }
        }
        None
    })
    .await
}

/// Two processes of everything, and the one that leads is killed with payments on their way, twice. A limit lets
/// pass exactly what it allows, and no payment is refused while there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_exact_over_take_over() {
    let schedule = "[[clearing.schedules]]\nname = \"manual\"\nmode = \"manual\"\ncurrencies = [\"USD\"]\n";
    let mut fleet = Fleet::prepare(schedule).await;
    fleet.start_together("token").await;
    fleet.banks("token", &BANKS.map(|bank| (bank, "1000.00", "1000.00"))).await;
    fleet.open_window("token", id("window").to_string()).await;
    let limit = id("limit").to_string();
    let of = ["limit", "propose", "--kind", "bilateral", "--participant", BANKS[0], "--counterparty", BANKS[1]];
    let words = ["--amount", "100.00", "--currency", "USD", "--reason", "review", "--id", &limit];
    fleet.must("token", &[&of[..], &words[..]].concat()).await;
    fleet.must("token", &["limit", "approve", &limit]).await;
    fleet.start_together("risk").await;

    let message = |n: usize| -> Vec<TransactionInstruction> {
        (0..5).map(|m| pay(&format!("take-over {n} {m}"), BANKS[0], BANKS[1], "1.00")).collect()
    };
    let mut told = Vec::new();
    for n in 0..26 {
        let leads = ["token", "risk"][usize::from(n > 7)];
        if n == 7 || n == 14 {
            // Whatever becomes of it: it is asked for anew, and counts once.
            let mut bank = TokenServiceClient::new(fleet.to(leads, As::bank(BANKS[0])));
            let on_its_way = tokio::spawn(async move { submit_many(&mut bank, message(n)).await });
            fleet.kill(leads);
            let _cut = on_its_way.await;
        }
        told.extend(decided(&fleet, &message(n)).await);
        if n == 7 {
            fleet.start_together("token").await;
        }
    }
    let codes: Vec<&str> = told.iter().map(|(_, code)| code.as_str()).collect();
    let passed = codes.iter().position(|code| !code.is_empty()).unwrap_or(codes.len());
    assert_eq!(passed, 100, "{codes:?}");
    assert!(codes[passed..].iter().all(|code| *code == "limit"), "{codes:?}");
}
