//! What these tests share: banks, payments and windows over gRPC, and a clock that can be moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::clearing::v1::{CloseWindowRequest, GetWindowRequest, OpenWindowRequest, Window, WindowState};
use deltran_api::reporting::v1::{ReportKind, ReportSubject};
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{
    ConfirmDepositRequest, ConfirmWithdrawalRequest, EnableCurrencyRequest, ParticipantState,
    RegisterParticipantRequest, RequestWithdrawalRequest, SetLimitRequest, SetParticipantStateRequest, SettlementModel,
    SubmitTransactionRequest, TransactionInstruction, TransactionOutcome, TransactionState,
};
use deltran_kernel::{Clock, SystemClock, Timestamp};
use deltran_tests::node::{id, pay, usd};
use deltran_tests::tie_out::fresh;
use deltran_tests::{As, Stack, eventually};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

pub const ALFA: &str = "ALFAAEXX";
pub const BRAV: &str = "BRAVINXX";
pub const CHAR: &str = "CHARGB2L";

type Token = TokenServiceClient<InterceptedService<Channel, As>>;

/// The machine's clock, moved forward.
#[derive(Default)]
pub struct Moved(AtomicI64);

impl Moved {
    pub fn by_seconds(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Every engine, on a clock that can be moved.
pub async fn platform(toml: &str) -> (Stack, Arc<Moved>) {
    let clock = Arc::new(Moved::default());
    let stack = Stack::of(&[]).config(toml).clock(clock.clone()).start().await;
    (stack, clock)
}

pub fn ledger(stack: &Stack) -> Token {
    TokenServiceClient::new(stack.role("operator", "ada"))
}

pub fn bank(stack: &Stack, who: &str) -> Token {
    TokenServiceClient::new(stack.bank(who))
}

fn command() -> String {
    fresh().to_string()
}

/// Brings a bank in, with tokens and a net debit cap.
pub async fn join(stack: &Stack, who: &str, deposit: &str, cap: &str) {
    let mut operator = ledger(stack);
    let participant = who.to_owned();
    let name = format!("Bank {who}");
    let request = RegisterParticipantRequest { command_id: command(), participant: participant.clone(), name };
    operator.register_participant(request).await.unwrap();
    set_state(stack, who, ParticipantState::Active).await;
    let request =
        EnableCurrencyRequest { command_id: command(), participant: participant.clone(), currency: "USD".into() };
    operator.enable_currency(request).await.unwrap();
    let mut engine = TokenServiceClient::new(stack.role("engine", "risk-engine"));
    let request = SetLimitRequest { command_id: command(), participant, net_debit_cap: usd(cap) };
    engine.set_limit(request).await.unwrap();
    self::deposit(stack, who, deposit).await;
}

pub async fn set_state(stack: &Stack, who: &str, state: ParticipantState) {
    let request = SetParticipantStateRequest {
        command_id: command(),
        participant: who.to_owned(),
        state: state.into(),
        reason: "test".to_owned(),
    };
    ledger(stack).set_participant_state(request).await.unwrap();
}

pub async fn deposit(stack: &Stack, who: &str, amount: &str) {
    let request = ConfirmDepositRequest {
        command_id: command(),
        participant: who.to_owned(),
        amount: usd(amount),
        reference: "=1+1".into(),
    };
    ledger(stack).confirm_deposit(request).await.unwrap();
}

/// A withdrawal that is only requested, or confirmed as well.
pub async fn withdraw(stack: &Stack, who: &str, amount: &str, confirm: bool) {
    let (withdrawal_id, reference) = (command(), "W-1".to_owned());
    let request = RequestWithdrawalRequest {
        withdrawal_id: withdrawal_id.clone(),
        participant: who.to_owned(),
        amount: usd(amount),
        reference: reference.clone(),
    };
    bank(stack, who).request_withdrawal(request).await.unwrap();
    if confirm {
        let request = ConfirmWithdrawalRequest { withdrawal_id, reference };
        ledger(stack).confirm_withdrawal(request).await.unwrap();
    }
}

pub async fn submit(stack: &Stack, transaction: TransactionInstruction) -> TransactionOutcome {
    let request = SubmitTransactionRequest { transaction: Some(transaction.clone()) };
    let answer = bank(stack, &transaction.payer).submit_transaction(request).await.unwrap().into_inner();
    answer.outcome.unwrap()
}

/// A payment that is committed.
pub async fn paid(stack: &Stack, name: &str, payer: &str, payee: &str, amount: &str, gross: bool) {
    let mut transaction = pay(name, payer, payee, amount);
    if gross {
        transaction.model = SettlementModel::Gross.into();
    }
    transaction.uetr = uetr(name);
    let outcome = submit(stack, transaction).await;
    assert_eq!(outcome.state(), TransactionState::Committed, "{outcome:?}");
}

/// A UUID of version 4 that is the same in every run.
fn uetr(name: &str) -> String {
    uuid::Builder::from_random_bytes(*id(name).as_bytes()).into_uuid().to_string()
}

fn clearing(stack: &Stack) -> ClearingServiceClient<InterceptedService<Channel, As>> {
    ClearingServiceClient::new(stack.role("operator", "ada"))
}

pub fn window(n: u32) -> String {
    id(&format!("window {n}")).to_string()
}

pub async fn open(stack: &Stack, n: u32) {
    let request = OpenWindowRequest { window_id: window(n), schedule: "manual".into(), currency: "USD".into() };
    clearing(stack).open_window(request).await.unwrap();
}

/// Closes a window, and opens the next at the same instant where one is named.
pub async fn close(stack: &Stack, n: u32, next: Option<u32>) {
    let next_window_id = next.map(window).unwrap_or_default();
    clearing(stack).close_window(CloseWindowRequest { window_id: window(n), next_window_id }).await.unwrap();
}

pub async fn settled(stack: &Stack, n: u32) -> Window {
    eventually("the window to be settled", async || {
        let request = GetWindowRequest { window_id: window(n) };
        let answer = clearing(stack).get_window(request).await.ok()?.into_inner().window?;
        (answer.state() == WindowState::Settled).then_some(answer)
    })
    .await
}

pub fn statement(who: &str, day: &str) -> ReportSubject {
    ReportSubject {
        kind: ReportKind::Statement.into(),
        participant: who.into(),
        currency: "USD".into(),
        day: day.into(),
        ..ReportSubject::default()
    }
}

pub fn of_window(who: &str, n: u32) -> ReportSubject {
    ReportSubject { day: String::new(), window_id: window(n), ..statement(who, "") }
}

pub fn settlement(n: u32) -> ReportSubject {
    ReportSubject { kind: ReportKind::Settlement.into(), window_id: window(n), ..ReportSubject::default() }
}

pub fn trial_balance() -> ReportSubject {
    ReportSubject { kind: ReportKind::TrialBalance.into(), ..ReportSubject::default() }
}
