//! What cap, cover and screening refuse.

use deltran_api::compliance::v1::compliance_service_client::ComplianceServiceClient;
use deltran_api::compliance::v1::{DecideHoldRequest, ListHoldsRequest, ProposeHoldRequest};
use deltran_api::token::v1::submit_item::Result::Outcome;
use deltran_api::token::v1::{
    GetTransactionRequest, Party, RequestWithdrawalRequest, SettlementModel, SubmitTransactionRequest,
    TransactionInstruction, TransactionOutcome, TransactionState,
};
use deltran_tests::node::{Connection, Deltran, PATIENCE, id, pay, reason, submit_many, usd};
use deltran_tests::{As, within};
use tonic::Code;

async fn submit(node: &Deltran, transaction: TransactionInstruction) -> TransactionOutcome {
    let mut bank = node.bank(&transaction.payer);
    let request = SubmitTransactionRequest { transaction: Some(transaction) };
    bank.submit_transaction(request).await.unwrap().into_inner().outcome.unwrap()
}

fn words(outcome: &TransactionOutcome) -> (TransactionState, &str) {
    (outcome.state(), outcome.refusal.as_ref().map_or("", |refusal| refusal.code.as_str()))
}

/// Three times 60 against a cap of 100.
pub async fn a_batch_against_a_cap_accepts_exactly_one(node: &Deltran) {
    let batch = (1..=3).map(|n| pay(&format!("sixty {n}"), "HOTEUSXX", "BRAVINXX", "60.00")).collect();
    let items = submit_many(&mut node.bank("HOTEUSXX"), batch).await.unwrap();
    let outcomes = items.iter().map(|item| match item.result.as_ref().unwrap() {
        Outcome(outcome) => words(outcome),
        other => panic!("{other:?}"),
    });
    let (committed, rejected) = (TransactionState::Committed, TransactionState::Rejected);
    assert_eq!(outcomes.collect::<Vec<_>>(), [(committed, ""), (rejected, "cap"), (rejected, "cap")]);
}

/// 100 on the account, 60 of it behind a position: 40 may go and no more, by whichever way.
pub async fn what_covers_a_position_cannot_be_spent(node: &Deltran) {
    let payer = "GOLFGBXX";
    let gross = |name: &str, amount: &str| {
        let mut transaction = pay(name, payer, "BRAVINXX", amount);
        transaction.model = SettlementModel::Gross.into();
        transaction
    };
    let (committed, rejected) = (TransactionState::Committed, TransactionState::Rejected);
    let position = submit(node, pay("position", payer, "BRAVINXX", "60.00")).await;
    assert_eq!(words(&position), (committed, ""));
    assert_eq!(words(&submit(node, gross("gross 50", "50.00")).await), (rejected, "cover"));

    let withdraw = |name: &str, amount: &str| RequestWithdrawalRequest {
        withdrawal_id: id(name).to_string(),
        participant: payer.into(),
        amount: usd(amount),
        reference: name.into(),
    };
    let refused = node.bank(payer).request_withdrawal(withdraw("too much", "40.01")).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "cover"), "{refused}");
    let ran = node
        .run(&[
            "account",
            "withdraw",
            "--participant",
            payer,
            "--amount",
            "40.01",
            "--currency",
            "USD",
            "--reference",
            "W1",
        ])
        .await;
    assert_eq!((ran.code, ran.error.trim().lines().count()), (1, 1), "{}", ran.error);
    assert!(ran.error.contains("\"reason\":\"cover\""), "{}", ran.error);

    node.bank(payer).request_withdrawal(withdraw("just enough", "15.00")).await.unwrap();
    assert_eq!(words(&submit(node, gross("gross 25.01", "25.01")).await), (rejected, "cover"));
    assert_eq!(words(&submit(node, gross("gross 25", "25.00")).await), (committed, ""));
    assert_eq!(words(&submit(node, gross("gross 0.01", "0.01")).await), (rejected, "cover"));
    node.must(&["account", "withdraw-confirm", &id("just enough").to_string()]).await;
}

fn officer(node: &Deltran, name: &str) -> ComplianceServiceClient<Connection> {
    ComplianceServiceClient::new(node.as_caller(As::role("compliance", name)))
}

/// A name on the list holds a payment; one officer proposes, and only another decides.
pub async fn a_held_payment_waits_for_two_officers(node: &Deltran) {
    let mut transaction = pay("listed", "ALFAAEXX", "BRAVINXX", "12.00");
    let name = "Vostok Shadow Trading LLC".to_owned();
    transaction.beneficiary = Some(Party { name, ..Party::default() });
    assert_eq!(words(&submit(node, transaction).await), (TransactionState::Held, ""));
    let hold = within(PATIENCE, "the hold", async || {
        let holds = officer(node, "carl").list_holds(ListHoldsRequest::default()).await.ok()?.into_inner().holds;
        holds.into_iter().find(|hold| hold.transaction_id == id("listed").to_string())
    })
    .await;
    let propose = ProposeHoldRequest { hold_id: hold.hold_id.clone(), release: true, reason: "another person".into() };
    officer(node, "carl").propose_hold(propose).await.unwrap();
    let decide = DecideHoldRequest { hold_id: hold.hold_id, approve: true, reason: "agreed".into() };
    let same = officer(node, "carl").decide_hold(decide.clone()).await.unwrap_err();
    assert!(matches!(same.code(), Code::PermissionDenied | Code::FailedPrecondition), "{same}");
    officer(node, "dora").decide_hold(decide).await.unwrap();
    within(PATIENCE, "the payment to be released", async || {
        let request = GetTransactionRequest { transaction_id: id("listed").to_string() };
        let view = node.ledger().get_transaction(request).await.unwrap().into_inner().transaction.unwrap();
        (view.state() == TransactionState::Committed).then_some(())
    })
    .await;
}
