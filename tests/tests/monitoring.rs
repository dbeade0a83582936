//! Monitoring and cases from the ledger's events to the officer's call: real broker, real Postgres, a restart in
//! the middle.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use async_nats::jetstream::message::PublishMessage;
use deltran_api::common::v1::Money;
use deltran_api::compliance::v1 as pb;
use deltran_api::compliance::v1::compliance_service_client::ComplianceServiceClient;
use deltran_kernel::{IdSource, SystemIds, Timestamp};
use deltran_tests::{As, Stack, eventually};
use serde_json::{Value, json};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

const CREATED: &str = include_str!("../../schemas/examples/transactions/transaction.created/1.1.json");
const NOON: i64 = 1_762_430_400_000_000;

type Client = ComplianceServiceClient<InterceptedService<Channel, As>>;

fn officer(stack: &Stack) -> Client {
    ComplianceServiceClient::new(stack.role("compliance", "ada"))
}

fn fresh() -> String {
    SystemIds::new().next_id(Timestamp::from_micros(NOON)).to_string()
}

/// Event `seq` of the ledger: a transaction of this amount, created in this state at this second.
fn created(seq: u64, amount: &str, state: &str, second: i64) -> Value {
    let mut event: Value = serde_json::from_str(CREATED).unwrap();
    event["event_id"] = format!("0190c3d5-0000-7000-8000-{seq:012x}").into();
    event["timestamp"] = Timestamp::from_micros(NOON).plus_seconds(second).to_string().into();
    event["metadata"]["producer_seq"] = seq.into();
    for (field, value) in [
        ("transaction_id", transaction(seq)),
        ("payer", "ALFAAEXX".to_owned()),
        ("payee", "BRAVINXX".to_owned()),
        ("amount", amount.to_owned()),
        ("currency", "USD".to_owned()),
        ("state", state.to_owned()),
    ] {
        event["data"][field] = value.into();
    }
    event
}

fn transaction(seq: u64) -> String {
    format!("0190c3d5-0000-7000-9000-{seq:012x}")
}

async fn publish(stack: &Stack, event: &Value) {
    let subject = "events.transactions.transaction.created".to_owned();
    let message = PublishMessage::build().message_id(fresh()).payload(event.to_string().into());
    stack.broker.jetstream().send_publish(subject, message).await.unwrap().await.unwrap();
}

async fn alerts(stack: &Stack) -> Vec<pb::Alert> {
    officer(stack).list_alerts(pb::ListAlertsRequest::default()).await.unwrap().into_inner().alerts
}

fn rule(window_seconds: u64) -> pb::SetRuleRequest {
    pb::SetRuleRequest {
        command_id: fresh(),
        rule: "structuring".into(),
        kind: "structuring".into(),
        mode: "ACTIVE".into(),
        window_seconds,
        min_count: 3,
        band: 1_000,
        amounts: vec![Money { amount: "100.00".into(), currency: "USD".into() }],
        ..pb::SetRuleRequest::default()
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_come_once_over_a_restart_and_cases_are_worked_on() {
    let mut stack = Stack::of(&["compliance"]).start().await;
    let mut client = officer(&stack);
    let set = client.set_rule(rule(600)).await.unwrap().into_inner().rule.unwrap();
    assert_eq!((set.version, set.current, set.scope.as_str()), (2, true, "PAIR"));
    assert_eq!(code(client.set_rule(pb::SetRuleRequest { gate: true, ..rule(600) }).await), Code::Unimplemented);
    assert_eq!(code(client.set_rule(rule(61)).await), Code::InvalidArgument);
    let mut auditor = ComplianceServiceClient::new(stack.role("auditor", "joe"));
    assert_eq!(code(auditor.set_rule(rule(600)).await), Code::PermissionDenied);
    let rules = auditor.list_rules(pb::ListRulesRequest::default()).await.unwrap().into_inner().rules;
    assert_eq!(
        rules.iter().map(|r| (r.rule.as_str(), r.version)).collect::<Vec<_>>(),
        [("structuring", 2), ("velocity", 1)]
    );

    // Two before the restart, the third one after it; a held one counts when it is committed.
    let first =
        [created(1, "99.00", "COMMITTED", 0), created(2, "95.50", "COMMITTED", 30), created(3, "99.00", "HELD", 31)];
    for event in &first {
        publish(&stack, event).await;
    }
    let applied = stack.metrics.consumed.with_label_values(&["compliance-engine-consumer", "applied"]);
    eventually("the first ones to be taken", async || (applied.get() == 3).then_some(())).await;
    assert_eq!(alerts(&stack).await, []);
    stack.restart_engines().await;
    for event in first.iter().rev() {
        publish(&stack, event).await;
    }
    publish(&stack, &created(4, "90.00", "COMMITTED", 600)).await;
    publish(&stack, &created(5, "90.00", "COMMITTED", 601)).await;
    let duplicates = stack.metrics.consumed.with_label_values(&["compliance-engine-consumer", "duplicate"]);
    let applied = stack.metrics.consumed.with_label_values(&["compliance-engine-consumer", "applied"]);
    eventually("all to be taken", async || (duplicates.get() == 3 && applied.get() == 2).then_some(())).await;
    let all = alerts(&stack).await;
    let [alert] = &all[..] else { panic!("{all:?}") };
    assert_eq!((alert.count, alert.limit_count, alert.amount.clone().unwrap().amount.as_str()), (3, 3, "284.50"));
    assert_eq!(alert.transaction_ids, [transaction(1), transaction(2), transaction(4)]);
    assert_eq!((alert.payer.as_str(), alert.payee.as_str(), alert.shadow), ("ALFAAEXX", "BRAVINXX", false));

    // Far later, and again after another restart: a second alert in the same case.
    publish(&stack, &created(6, "99.00", "COMMITTED", 5_000)).await;
    publish(&stack, &created(7, "99.00", "COMMITTED", 5_000)).await;
    eventually("those to be taken", async || (applied.get() == 4).then_some(())).await;
    stack.restart_engines().await;
    publish(&stack, &created(8, "99.00", "COMMITTED", 5_001)).await;
    eventually("the second alert", async || (alerts(&stack).await.len() == 2).then_some(())).await;
    let all = alerts(&stack).await;
    assert_eq!(all[0].case_id, all[1].case_id);

    let mut client = officer(&stack);
    let case_id = all[0].case_id.clone();
    let show = pb::GetCaseRequest { case_id: case_id.clone(), page: None };
    let shown = client.get_case(show.clone()).await.unwrap().into_inner();
    assert_eq!(shown.case.unwrap().state, "OPEN");
    assert_eq!(shown.steps.iter().map(|step| step.action.as_str()).collect::<Vec<_>>(), ["OPENED", "ALERT", "ALERT"]);
    assert_eq!(shown.alerts, [all[1].clone(), all[0].clone()]);

    let assign =
        pb::AssignCaseRequest { command_id: fresh(), case_id: case_id.clone(), assignee: "bob".into(), due_at: None };
    let assigned = client.assign_case(assign.clone()).await.unwrap().into_inner().case.unwrap();
    assert_eq!((assigned.state.as_str(), assigned.assignee.as_str()), ("INVESTIGATING", "bob"));
    assert_eq!(client.assign_case(assign.clone()).await.unwrap().into_inner().case.unwrap(), assigned);
    let other = pb::AssignCaseRequest { assignee: "eve".into(), ..assign };
    assert_eq!(code(client.assign_case(other).await), Code::AlreadyExists);
    let note = pb::NoteCaseRequest { command_id: fresh(), case_id: case_id.clone(), text: "asked the bank".into() };
    client.note_case(note.clone()).await.unwrap();
    let mut auditor = ComplianceServiceClient::new(stack.role("auditor", "joe"));
    assert_eq!(code(auditor.note_case(note).await), Code::PermissionDenied);
    let (command_id, reason) = (fresh(), "large".to_owned());
    let escalate = pb::EscalateCaseRequest { command_id, case_id: case_id.clone(), to_user: "grace".into(), reason };
    client.escalate_case(escalate).await.unwrap();
    let close = |outcome: &str| pb::CloseCaseRequest {
        command_id: fresh(),
        case_id: case_id.clone(),
        outcome: outcome.into(),
        reason: "reported".into(),
    };
    assert_eq!(code(client.close_case(close("maybe")).await), Code::InvalidArgument);
    let closed = client.close_case(close("confirmed")).await.unwrap().into_inner().case.unwrap();
    assert_eq!((closed.state.as_str(), closed.outcome.as_str()), ("CLOSED", "confirmed"));
    assert_eq!(code(client.close_case(close("confirmed")).await), Code::FailedPrecondition);
    let reopen =
        pb::ReopenCaseRequest { command_id: fresh(), case_id: case_id.clone(), reason: "news".into(), due_at: None };
    client.reopen_case(reopen).await.unwrap();
    let open = pb::OpenCaseRequest {
        command_id: fresh(),
        participant: "ALFAAEXX".into(),
        reason: "tip".into(),
        ..pb::OpenCaseRequest::default()
    };
    assert_eq!(code(client.open_case(open.clone()).await), Code::FailedPrecondition);
    let both = pb::OpenCaseRequest { transaction_id: transaction(1), ..open };
    assert_eq!(code(client.open_case(both).await), Code::InvalidArgument);

    let page = Some(deltran_api::common::v1::Page { size: 4, token: String::new() });
    let first = auditor.get_case(pb::GetCaseRequest { page, ..show.clone() }).await.unwrap().into_inner();
    let page = Some(deltran_api::common::v1::Page { size: 4, token: first.next_page_token });
    let second = auditor.get_case(pb::GetCaseRequest { page, ..show }).await.unwrap().into_inner();
    let words: Vec<String> = first.steps.into_iter().chain(second.steps).map(|step| step.action).collect();
    assert_eq!(words, ["OPENED", "ALERT", "ALERT", "ASSIGNED", "NOTED", "ESCALATED", "CLOSED", "REOPENED"]);
    let list = pb::ListCasesRequest { state: "INVESTIGATING".into(), assignee: "bob".into(), ..Default::default() };
    assert_eq!(auditor.list_cases(list.clone()).await.unwrap().into_inner().cases.len(), 1);
    let wrong = pb::ListCasesRequest { state: "AJAR".into(), ..list };
    assert_eq!(code(auditor.list_cases(wrong).await), Code::InvalidArgument);

    // What was published names the transaction and the case, and nothing that officers wrote.
    let events = compliance_events(&stack).await;
    let of = |kind: &str| events.iter().filter(|event| event["event_type"] == kind).count();
    let kinds = ["rule.changed", "case.opened", "alert.raised", "case.escalated", "case.closed"];
    assert_eq!(kinds.map(of), [1, 2, 2, 1, 1]);
    for event in &events {
        let text = event.to_string();
        assert!(["asked the bank", "reported", "large"].iter().all(|words| !text.contains(words)), "{text}");
    }
    assert_eq!(events.iter().find(|e| e["event_type"] == "alert.raised").unwrap()["data"]["case_id"], json!(case_id));
    stack.stop().await;
}

/// Everything that the compliance engine has published, once its outbox is empty.
async fn compliance_events(stack: &Stack) -> Vec<Value> {
    let pool = stack.postgres.pool().await;
    let stream = stack.broker.jetstream().get_stream_no_info("COMPLIANCE").await.unwrap();
    let last = eventually("the relay to publish all", async || {
        let (assigned, published): (i64, i64) =
            sqlx::query_as("SELECT assigned, published FROM compliance.outbox_counter, compliance.outbox_mark")
                .fetch_one(&pool)
                .await
                .ok()?;
        let info = stack.broker.stream_info("COMPLIANCE").await.ok()??;
        (assigned == published && info.messages >= assigned.unsigned_abs()).then_some(info.messages)
    })
    .await;
    let mut events = Vec::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        events.push(serde_json::from_slice(&message.payload).unwrap());
    }
    events
}
