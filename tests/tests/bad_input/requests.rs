//! Requests that are wrong, and callers who may not send them.

use deltran_api::clearing::v1::CloseWindowRequest;
use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::token::v1::submit_item::Result::{Error, Outcome};
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{
    CancelTransactionRequest, CommitTransactionRequest, GetTransactionRequest, Party, SubmitTransactionRequest,
    TransactionInstruction, TransactionOutcome, TransactionState,
};
use deltran_tests::node::{Deltran, PATIENCE, detail, id, pay, reason, submit_many, usd};
use deltran_tests::{As, within};
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Request, Status};

/// What a submission leads to.
enum Expected {
    /// INVALID_ARGUMENT that names the field.
    Malformed(&'static str),
    /// An outcome REJECTED with the code.
    Refused(&'static str),
    /// PERMISSION_DENIED.
    NotYours,
}
use Expected::{Malformed, NotYours, Refused};

async fn submit(node: &Deltran, bank: &str, t: TransactionInstruction) -> Result<(TransactionOutcome, bool), Status> {
    let answer =
        node.bank(bank).submit_transaction(SubmitTransactionRequest { transaction: Some(t) }).await?.into_inner();
    Ok((answer.outcome.unwrap(), answer.replayed))
}

fn code(outcome: &TransactionOutcome) -> &str {
    outcome.refusal.as_ref().map_or("", |refusal| refusal.code.as_str())
}

/// A NET payment without an open window is refused for that.
pub async fn without_a_window_it_waits_for_nobody(node: &Deltran) {
    let (outcome, _) = submit(node, "ALFAAEXX", pay("no window", "ALFAAEXX", "BRAVINXX", "1.00")).await.unwrap();
    assert_eq!((outcome.state(), code(&outcome)), (TransactionState::Rejected, "window_closed"), "{outcome:?}");
}

type Change = fn(&mut TransactionInstruction);

/// One row per mistake.
pub async fn each_mistake_has_its_answer(node: &Deltran) {
    let rows: &[(&str, Change, Expected)] = &[
        ("an id that is no UUID", |t| t.transaction_id = "42".into(), Malformed("transaction_id")),
        ("no id", |t| t.transaction_id.clear(), Malformed("transaction_id")),
        ("no amount", |t| t.amount = None, Malformed("amount")),
        ("an unknown currency", |t| currency(t, "1.00", "ZZZ"), Malformed("amount.currency")),
        ("a currency in small letters", |t| currency(t, "1.00", "usd"), Malformed("amount.currency")),
        ("one minor digit for two", |t| t.amount = usd("1.0"), Malformed("amount.amount")),
        ("three minor digits for two", |t| t.amount = usd("1.000"), Malformed("amount.amount")),
        ("an exponent", |t| t.amount = usd("1e3"), Malformed("amount.amount")),
        ("digits without end", |t| t.amount = usd(&format!("{}.00", "9".repeat(60))), Malformed("amount.amount")),
        ("minor digits for none", |t| currency(t, "1.00", "JPY"), Malformed("amount.amount")),
        ("zero", |t| t.amount = usd("0.00"), Refused("amount_out_of_range")),
        ("a negative amount", |t| t.amount = usd("-1.00"), Refused("amount_out_of_range")),
        ("more than a transaction may carry", |t| t.amount = usd("10000000000000.01"), Refused("amount_out_of_range")),
        ("a currency that is not enabled", |t| currency(t, "100", "JPY"), Refused("currency_not_enabled")),
        ("payer and payee the same", |t| t.payee = "ALFAAEXX".into(), Refused("payer_is_payee")),
        ("a payee that nobody knows", |t| t.payee = "NOBODEXX".into(), Refused("unknown_participant")),
        ("a payee that is no BIC", |t| t.payee = "nobody".into(), Malformed("payee")),
        ("a payer who does not call", |t| t.payer = "BRAVINXX".into(), NotYours),
        ("a long end_to_end_id", |t| t.end_to_end_id = "E".repeat(36), Malformed("end_to_end_id")),
        ("a control character", |t| t.end_to_end_id = "E\u{7}".into(), Malformed("end_to_end_id")),
        ("a long purpose", |t| t.purpose = "P".repeat(36), Malformed("purpose")),
        ("a uetr that is no UUID", |t| t.uetr = "u".into(), Malformed("uetr")),
        ("a model that is not known", |t| t.model = 99, Malformed("model")),
        ("a priority that is not known", |t| t.priority = 99, Malformed("priority")),
        ("a timeout without two phases", |t| t.timeout_seconds = 5, Malformed("timeout_seconds")),
        ("a timeout of days", |t| (t.two_phase, t.timeout_seconds) = (true, 86_401), Malformed("timeout_seconds")),
        (
            "a party with a long name",
            |t| t.beneficiary = Some(Party { name: "N".repeat(141), ..Party::default() }),
            Malformed("beneficiary.name"),
        ),
    ];
    for (what, change, expected) in rows {
        let mut transaction = pay(&format!("row: {}", &what[..what.len().min(25)]), "ALFAAEXX", "BRAVINXX", "1.00");
        change(&mut transaction);
        let answer = submit(node, "ALFAAEXX", transaction.clone()).await;
        match (expected, answer) {
            (Malformed(field), Err(status)) => {
                assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "malformed"), "{what}");
                assert_eq!(detail(&status, "field"), *field, "{what}: {status}");
                let request = GetTransactionRequest { transaction_id: transaction.transaction_id };
                let stored = node.bank("ALFAAEXX").get_transaction(request).await.unwrap_err();
                assert!(matches!(stored.code(), Code::NotFound | Code::InvalidArgument), "{what}: nothing is stored");
            }
            (Refused(word), Ok((outcome, replayed))) => {
                assert_eq!((outcome.state(), code(&outcome)), (TransactionState::Rejected, *word), "{what}");
                assert!(!replayed && outcome.window_id.is_empty(), "{what}: {outcome:?}");
                let again = submit(node, "ALFAAEXX", transaction).await.unwrap();
                assert_eq!(again, (outcome, true), "{what}: a refusal stays");
            }
            (NotYours, Err(status)) => {
                assert_eq!(
                    (status.code(), reason(&status).as_str()),
                    (Code::PermissionDenied, "unauthorised"),
                    "{what}"
                );
            }
            (_, answer) => panic!("{what}: {answer:?}"),
        }
    }
    let nothing = node.bank("ALFAAEXX").submit_transaction(SubmitTransactionRequest { transaction: None }).await;
    assert_eq!(nothing.unwrap_err().code(), Code::InvalidArgument);
}

fn currency(t: &mut TransactionInstruction, amount: &str, currency: &str) {
    t.amount = Some(deltran_api::common::v1::Money { amount: amount.into(), currency: currency.into() });
}

/// No identity, none that counts, and roles that may not do what they ask.
pub async fn callers_are_known_and_stay_in_their_place(node: &Deltran) {
    let request = || SubmitTransactionRequest { transaction: Some(pay("callers", "ALFAAEXX", "BRAVINXX", "1.00")) };
    let nobody = TokenServiceClient::new(node.channel()).submit_transaction(request()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated, "{nobody}");
    for (header, value) in [("deltran-role", "pirate"), ("deltran-role", "operator"), ("deltran-participant", "x")] {
        let mut request = Request::new(request());
        request.metadata_mut().insert(header, AsciiMetadataValue::from_static(value));
        let refused = TokenServiceClient::new(node.channel()).submit_transaction(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{header}: {value}: {refused}");
    }
    let operator = node.ledger().submit_transaction(request()).await.unwrap_err();
    assert_eq!(operator.code(), Code::PermissionDenied, "{operator}");
    let close = CloseWindowRequest { window_id: id("the window").to_string(), next_window_id: String::new() };
    let bank = ClearingServiceClient::new(node.as_caller(As::bank("ALFAAEXX"))).close_window(close).await.unwrap_err();
    assert_eq!(bank.code(), Code::PermissionDenied, "{bank}");

    // What belongs to others is as if it were not there.
    submit(node, "ALFAAEXX", pay("callers", "ALFAAEXX", "BRAVINXX", "1.00")).await.unwrap();
    let request = GetTransactionRequest { transaction_id: id("callers").to_string() };
    let other = node.bank("CHARDEXX").get_transaction(request).await.unwrap_err();
    assert_eq!(other.code(), Code::NotFound, "{other}");
}

/// Items of one message stand for themselves.
pub async fn one_bad_item_does_not_stop_the_others(node: &Deltran) {
    let mut bad = pay("items 2", "ALFAAEXX", "BRAVINXX", "1.00");
    bad.amount = usd("1");
    let not_mine = pay("items 3", "BRAVINXX", "ALFAAEXX", "1.00");
    let good = ["items 1", "items 4"].map(|name| pay(name, "ALFAAEXX", "BRAVINXX", "1.00"));
    let other_body = pay("items 1", "ALFAAEXX", "BRAVINXX", "2.00");
    let [first, fourth] = good;
    let mut bank = node.bank("ALFAAEXX");
    let items = submit_many(&mut bank, vec![first.clone(), bad, not_mine, fourth, first, other_body]).await.unwrap();
    let words: Vec<_> = items
        .iter()
        .map(|item| match item.result.as_ref().unwrap() {
            Outcome(outcome) => (outcome.state().as_str_name(), item.replayed),
            Error(refusal) => (refusal.code.as_str(), false),
        })
        .collect();
    let expected = [
        ("COMMITTED", false),
        ("malformed", false),
        ("unauthorised", false),
        ("COMMITTED", false),
        ("COMMITTED", true),
        ("conflict", false),
    ];
    assert_eq!(words, expected, "{items:?}");
    let many = (0..1_001).map(|n| pay(&format!("too many {n}"), "ALFAAEXX", "BRAVINXX", "1.00")).collect();
    let refused = submit_many(&mut bank, many).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

/// The same id and body gets the first answer; everything else is refused, and tells nothing of the first.
pub async fn a_suspended_bank_gets_its_old_answers_only(node: &Deltran) {
    let bank = "DELTFRPP";
    let first = pay("before suspension", bank, "BRAVINXX", "77.31");
    let before = submit(node, bank, first.clone()).await.unwrap();
    assert_eq!((before.0.state(), before.1), (TransactionState::Committed, false));
    node.must(&["participant", "suspend", bank, "--reason", "a test"]).await;

    let after = submit(node, bank, first.clone()).await.unwrap();
    assert_eq!(after, (before.0, true));
    let mut other = first.clone();
    other.amount = usd("5.00");
    let conflict = submit(node, bank, other).await.unwrap_err();
    let stranger =
        submit(node, "CHARDEXX", pay("before suspension", "CHARDEXX", "ALFAAEXX", "5.00")).await.unwrap_err();
    for status in [conflict, stranger] {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::AlreadyExists, "conflict"), "{status}");
        let told = format!("{status:?}");
        assert!(!told.contains("77.31") && !told.contains(bank) && !told.contains("BRAVINXX"), "{told}");
    }
    for (name, payer, payee) in [("as payer", bank, "BRAVINXX"), ("as payee", "ALFAAEXX", bank)] {
        let (outcome, _) = submit(node, payer, pay(&format!("suspended {name}"), payer, payee, "1.00")).await.unwrap();
        assert_eq!((outcome.state(), code(&outcome)), (TransactionState::Rejected, "suspended"), "{name}");
    }
}

/// After its time a reservation is gone, whoever asks for what.
pub async fn an_expired_reservation_cannot_be_committed(node: &Deltran) {
    let mut bank = node.bank("ALFAAEXX");
    let mut transaction = pay("expires", "ALFAAEXX", "BRAVINXX", "9.00");
    (transaction.two_phase, transaction.timeout_seconds) = (true, 1);
    let (outcome, _) = submit(node, "ALFAAEXX", transaction).await.unwrap();
    assert_eq!(outcome.state(), TransactionState::Reserved);
    let transaction_id = id("expires").to_string();
    within(PATIENCE, "the reservation to expire", async || {
        let request = GetTransactionRequest { transaction_id: transaction_id.clone() };
        let view = bank.get_transaction(request).await.unwrap().into_inner().transaction.unwrap();
        (view.state() == TransactionState::Expired).then_some(())
    })
    .await;
    let commit = bank.commit_transaction(CommitTransactionRequest { transaction_id: transaction_id.clone() }).await;
    let cancel = CancelTransactionRequest { transaction_id, reason: String::new() };
    for refused in [commit.unwrap_err(), bank.cancel_transaction(cancel).await.unwrap_err()] {
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "wrong_state"), "{refused}");
        assert_eq!(detail(&refused, "state"), "EXPIRED", "{refused}");
    }
    let unknown = CommitTransactionRequest { transaction_id: id("never sent").to_string() };
    assert_eq!(bank.commit_transaction(unknown).await.unwrap_err().code(), Code::NotFound);
}
