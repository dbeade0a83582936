//! Holds from the bank's submission to the ledger's end of it: what is not checked does not pass, two officers decide,
//! and what they write stays with them.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use deltran_api::compliance::v1 as pb;
use deltran_api::compliance::v1::compliance_service_client::ComplianceServiceClient;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{
    ConfirmDepositRequest, EnableCurrencyRequest, GetTransactionRequest, ParticipantState, Party,
    RegisterParticipantRequest, SetParticipantStateRequest, SettlementModel, SubmitTransactionRequest,
    TransactionInstruction, TransactionOutcome, TransactionState, TransactionView,
};
use deltran_tests::node::{id, pay, usd};
use deltran_tests::tie_out::fresh;
use deltran_tests::{As, Stack, eventually};
use serde_json::Value;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

type Caller = InterceptedService<Channel, As>;

const LISTED: &str = "Vostok Shadow Trading LLC";

async fn banks(stack: &Stack) {
    let mut operator = TokenServiceClient::new(stack.role("operator", "ada"));
    for who in ["ALFAAEXX", "BRAVINXX"] {
        let (participant, command) = (who.to_owned(), || fresh().to_string());
        let request =
            RegisterParticipantRequest { command_id: command(), participant: participant.clone(), name: who.into() };
        operator.register_participant(request).await.unwrap();
        let request = SetParticipantStateRequest {
            command_id: command(),
            participant: participant.clone(),
            state: ParticipantState::Active.into(),
            reason: "test".into(),
        };
        operator.set_participant_state(request).await.unwrap();
        let currency = "USD".to_owned();
        let request = EnableCurrencyRequest { command_id: command(), participant: participant.clone(), currency };
        operator.enable_currency(request).await.unwrap();
        let reference = "D-1".to_owned();
        let request = ConfirmDepositRequest { command_id: command(), participant, amount: usd("1000.00"), reference };
        operator.confirm_deposit(request).await.unwrap();
    }
}

/// A payment to a name that settles at once and alone, where it may.
fn to(name: &str, beneficiary: &str) -> TransactionInstruction {
    let party =
        |name: &str| Some(Party { name: name.into(), ..Party::default() }).filter(|party| !party.name.is_empty());
    TransactionInstruction {
        model: SettlementModel::Gross.into(),
        beneficiary: party(beneficiary),
        ..pay(name, "ALFAAEXX", "BRAVINXX", "10.00")
    }
}

async fn submit(stack: &Stack, transaction: TransactionInstruction) -> Result<TransactionOutcome, Status> {
    let request = SubmitTransactionRequest { transaction: Some(transaction) };
    Ok(TokenServiceClient::new(stack.bank("ALFAAEXX")).submit_transaction(request).await?.into_inner().outcome.unwrap())
}

async fn transaction(stack: &Stack, name: &str) -> Result<TransactionView, Status> {
    let request = GetTransactionRequest { transaction_id: id(name).to_string() };
    let mut bank = TokenServiceClient::new(stack.bank("ALFAAEXX"));
    Ok(bank.get_transaction(request).await?.into_inner().transaction.unwrap())
}

fn officer(stack: &Stack, user: &str) -> ComplianceServiceClient<Caller> {
    ComplianceServiceClient::new(stack.role("compliance", user))
}

async fn holds(stack: &Stack) -> Vec<pb::Hold> {
    officer(stack, "ada").list_holds(pb::ListHoldsRequest::default()).await.unwrap().into_inner().holds
}

async fn hold_of(stack: &Stack, name: &str) -> pb::Hold {
    let transaction_id = id(name).to_string();
    holds(stack).await.into_iter().find(|hold| hold.transaction_id == transaction_id).unwrap()
}

async fn propose(stack: &Stack, user: &str, hold: &pb::Hold, release: bool, reason: &str) {
    let request = pb::ProposeHoldRequest { hold_id: hold.hold_id.clone(), release, reason: reason.into() };
    officer(stack, user).propose_hold(request).await.unwrap();
}

async fn decide(stack: &Stack, user: &str, hold: &pb::Hold) -> Result<pb::Hold, Status> {
    let request = pb::DecideHoldRequest { hold_id: hold.hold_id.clone(), approve: true, reason: String::new() };
    Ok(officer(stack, user).decide_hold(request).await?.into_inner().hold.unwrap())
}

/// What an engine has published or is about to, as text.
async fn events(stack: &Stack, engine: &str) -> Vec<(String, Value)> {
    let pool = stack.postgres.pool().await;
    let query = format!("SELECT envelope FROM {engine}.outbox ORDER BY seq");
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_all(&pool).await.unwrap();
    let event = |row: &Vec<u8>| -> Value { serde_json::from_slice(row).unwrap() };
    rows.iter().map(event).map(|event| (event["event_type"].as_str().unwrap().to_owned(), event)).collect()
}

/// The engine that screens is not there: nothing is decided, and nothing passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_engine_nothing_passes() {
    let stack = Stack::of(&["token", "risk"]).start().await;
    banks(&stack).await;
    for (name, beneficiary) in [("named", "Ada Bright"), ("not named", "")] {
        let refused = submit(&stack, to(name, beneficiary)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert_eq!(transaction(&stack, name).await.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(stack.metrics.alerts.with_label_values(&["gates_silent"]).get(), 1);
    stack.stop().await;
}

/// No list: whoever is named is held, and one alert says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_list_whoever_is_named_is_held() {
    let stack =
        Stack::of(&["token", "risk", "compliance"]).config("[compliance]\nbundled_list = false\n").start().await;
    banks(&stack).await;
    for name in ["one", "two"] {
        assert_eq!(submit(&stack, to(name, "Ada Bright")).await.unwrap().state(), TransactionState::Held);
    }
    assert_eq!(submit(&stack, to("nobody", "")).await.unwrap().state(), TransactionState::Committed);
    assert!(holds(&stack).await.iter().all(|hold| hold.evidence == "no_list"));
    let alerts = events(&stack, "compliance").await;
    assert_eq!(
        alerts.iter().filter(|(kind, event)| kind == "alert.raised" && event["data"]["kind"] == "no_list").count(),
        1
    );
    eventually("the alert", async || {
        (stack.metrics.alerts.with_label_values(&["compliance_no_list"]).get() == 1).then_some(())
    })
    .await;

    // A list that does not parse is no list, and is told.
    let piece = |content: &[u8]| pb::LoadListRequest {
        source: "operator".into(),
        file: String::new(),
        content: content.into(),
    };
    let refused = officer(&stack, "ada").load_list(futures::stream::iter([piece(b"M\xfcller\n")])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(submit(&stack, to("three", "Ada Bright")).await.unwrap().state(), TransactionState::Held);
    assert!(events(&stack, "compliance").await.iter().any(|(_, event)| event["data"]["kind"] == "list_refused"));
    officer(&stack, "ada").load_list(futures::stream::iter([piece(b"Somebody Listed\n")])).await.unwrap();
    assert_eq!(submit(&stack, to("four", "Ada Bright")).await.unwrap().state(), TransactionState::Committed);
    assert_eq!(stack.metrics.alerts.with_label_values(&["gates_silent"]).get(), 0);
    stack.stop().await;
}

/// A stored list that this program cannot read is not the same as none, and the one before is used for seconds only:
/// nothing is decided, an alert says so, and all goes on with a list that can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_stored_list_that_cannot_be_read_nothing_passes() {
    let stack =
        Stack::of(&["token", "risk", "compliance"]).config("[compliance]\nstale_after_seconds = 2\n").start().await;
    banks(&stack).await;
    assert_eq!(submit(&stack, to("before", "Ada Bright")).await.unwrap().state(), TransactionState::Committed);
    let stale = stack.metrics.alerts.with_label_values(&["compliance_lists_stale"]);
    assert_eq!(stale.get(), 0);

    let pool = stack.postgres.pool().await;
    sqlx::raw_sql(
        "INSERT INTO compliance.list_version (source, version, names, aliases) VALUES ('un', repeat('0', 64), 1, 0);
         INSERT INTO compliance.list_file VALUES ('un', repeat('0', 64), 'consolidated.xml', '<html/>');
         UPDATE compliance.list_head SET revision = 1, version = repeat('0', 64), loaded_at = 1, loaded_by = 'x'
         WHERE source = 'un'",
    )
    .execute(&pool)
    .await
    .unwrap();
    eventually("the alert", async || (stale.get() == 1).then_some(())).await;
    let refused = submit(&stack, to("during", "Ada Bright")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(transaction(&stack, "during").await.unwrap_err().code(), Code::NotFound);

    sqlx::raw_sql(
        "UPDATE compliance.list_head SET revision = 0, version = NULL, loaded_at = NULL, loaded_by = NULL
         WHERE source = 'un'",
    )
    .execute(&pool)
    .await
    .unwrap();
    eventually("the end of the alert", async || (stale.get() == 0).then_some(())).await;
    assert_eq!(submit(&stack, to("during", "Ada Bright")).await.unwrap().state(), TransactionState::Committed);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_officers_release_or_reject_and_their_words_stay_with_them() {
    let mut stack = Stack::of(&["token", "risk", "compliance"]).start().await;
    banks(&stack).await;
    for name in ["namesake", "true hit", "later"] {
        assert_eq!(submit(&stack, to(name, LISTED)).await.unwrap().state(), TransactionState::Held, "{name}");
        assert_eq!(transaction(&stack, name).await.unwrap().state(), TransactionState::Held);
    }
    let created = events(&stack, "token").await;
    let created: Vec<_> = created.iter().filter(|(kind, _)| kind == "transaction.created").collect();
    assert_eq!(created.len(), 3);
    for (_, event) in created {
        let evidence = &event["data"]["evidence"];
        let found = (&evidence["screening"], &evidence["screening_evidence"], &evidence["screening_score"]);
        assert_eq!(found, (&"BLOCK_AND_REVIEW".into(), &"exact_name".into(), &10_000.into()), "{event}");
        assert_eq!(evidence["list_versions"].as_array().unwrap().len(), 1);
        assert_eq!(evidence["rule_version"], "names/1;review=8000;block=9500");
    }

    // As long as a reason may be, and nothing that the bank should read.
    let words = format!("Jane Doe of {}", "x".repeat(288));
    let namesake = hold_of(&stack, "namesake").await;
    propose(&stack, "Grace", &namesake, true, &words).await;
    for user in ["Grace", "grace", "GRACE"] {
        let refused = decide(&stack, user, &namesake).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    assert_eq!(transaction(&stack, "namesake").await.unwrap().state(), TransactionState::Held);
    assert_eq!(decide(&stack, "alan", &namesake).await.unwrap().state, "RELEASED");
    assert_eq!(transaction(&stack, "namesake").await.unwrap().state(), TransactionState::Committed);

    let hit = hold_of(&stack, "true hit").await;
    propose(&stack, "grace", &hit, false, &words).await;
    let rejected = decide(&stack, "alan", &hit).await.unwrap();
    assert_eq!((rejected.state.as_str(), rejected.reason.as_str()), ("REJECTED", words.as_str()));
    let view = transaction(&stack, "true hit").await.unwrap();
    let refusal = view.refusal.clone().unwrap();
    assert_eq!((view.state(), refusal.code.as_str()), (TransactionState::Rejected, "compliance"));
    assert!(refusal.message.contains(&hit.hold_id), "{refusal:?}");
    // Decided once, for ever.
    for user in ["grace", "eve"] {
        assert!(decide(&stack, user, &hit).await.is_err());
    }
    assert_eq!(decide(&stack, "alan", &hit).await.unwrap(), rejected);

    // A proposal outlives a restart; the other officer decides after it.
    let later = hold_of(&stack, "later").await;
    propose(&stack, "grace", &later, true, "another company").await;
    stack.restart_engines().await;
    let decided = eventually("the decision", async || decide(&stack, "alan", &later).await.ok()).await;
    assert!(["RELEASING", "RELEASED"].contains(&decided.state.as_str()), "{decided:?}");
    eventually("the release", async || {
        let view = transaction(&stack, "later").await.ok()?;
        (view.state() == TransactionState::Committed && hold_of(&stack, "later").await.state == "RELEASED")
            .then_some(())
    })
    .await;

    for engine in ["token", "compliance"] {
        for (kind, event) in events(&stack, engine).await {
            let text = event.to_string();
            let told = ["Jane Doe", "another company", "Vostok"].into_iter().find(|words| text.contains(words));
            assert_eq!(told, None, "{kind}: {text}");
        }
    }
    assert_eq!(stack.metrics.alerts.with_label_values(&["compliance_holds_wait"]).get(), 0);
    stack.stop().await;
}
