//! The banks of a run: single payments, many at once, reservations that are committed, cancelled or left, refusals on
//! purpose; and windows that close and open all the time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use deltran_api::clearing::v1::{CloseWindowRequest, GetWindowRequest, OpenWindowRequest, WindowState};
use deltran_api::common::v1::Money;
use deltran_api::token::v1::submit_item::Result::{Error, Outcome};
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{
    CancelTransactionRequest, CommitTransactionRequest, GetTransactionRequest, SettlementModel,
    SubmitTransactionRequest, TransactionInstruction, TransactionState,
};
use deltran_tests::node::{Connection, PATIENCE, id, pay, submit_many};
use deltran_tests::within;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use crate::World;
use crate::journal::may_be_tried_again;
use crate::random::Random;

/// The banks.
pub const BANKS: [&str; 4] = ["ALFAAEXX", "BRAVINXX", "CHARGBXX", "DELTUSXX"];
/// The currencies that they pay in.
pub const CURRENCIES: [&str; 2] = ["USD", "EUR"];
/// What each owns at the beginning, in each currency, and its net debit cap.
pub const DEPOSIT: &str = "1000000000.00";
const CAP: &str = "50000000.00";
/// Above any cap.
const TOO_MUCH: &str = "60000000.00";
/// A call is given up after this.
const ANSWER: Duration = Duration::from_secs(10);
/// Reservations of a bank that are not decided yet.
const HOLDS: usize = 20;

/// A name that no other run has.
pub fn name(seed: u64, what: &str) -> String {
    format!("{seed} {what}")
}

/// The id of a window.
pub fn window(seed: u64, currency: &str, number: u64) -> String {
    id(&name(seed, &format!("window {currency} {number}"))).to_string()
}

/// Brings the banks in and opens the first windows.
pub async fn begin(world: &World) {
    let mut text = String::from("participant,name,currency,opening_deposit,net_debit_cap\n");
    for bank in BANKS {
        for currency in CURRENCIES {
            text.push_str(&format!("{bank},Bank {bank},{currency},{DEPOSIT},{CAP}\n"));
        }
    }
    let file = world.rig.write("participants.csv", &text);
    world.rig.must(&["participant", "import", "--file", &file]).await;
    for currency in CURRENCIES {
        let request = OpenWindowRequest {
            window_id: window(world.seed, currency, 0),
            schedule: "manual".into(),
            currency: currency.into(),
        };
        within(PATIENCE, "the first window", async || {
            world.rig.clearing().open_window(request.clone()).await.is_ok().then_some(())
        })
        .await;
    }
}

/// One bank, until the load is over.
pub async fn bank(world: Arc<World>, which: usize) {
    let own = BANKS[which];
    let mut bank = Bank {
        random: Random::of(world.seed, own),
        ledger: world.rig.bank_on(&world.rig.channel(), own),
        world,
        which,
        sent: 0,
        holds: VecDeque::new(),
    };
    while !bank.world.is_over() {
        sleep(bank.random.time(20, 120)).await;
        bank.act().await;
    }
}

struct Bank {
    world: Arc<World>,
    which: usize,
    random: Random,
    ledger: TokenServiceClient<Connection>,
    sent: u64,
    /// Reservations, and when each is decided.
    holds: VecDeque<(Instant, String)>,
}

impl Bank {
    async fn act(&mut self) {
        if self.holds.front().is_some_and(|(due, _)| *due <= Instant::now())
            && let Some((_, id)) = self.holds.pop_front()
        {
            return self.decide(&id).await;
        }
        match self.random.below(100) {
            0..55 => {
                let one = self.payment();
                self.bring(vec![one]).await;
            }
            55..75 => {
                let many = (0..5 + self.random.below(25)).map(|_| self.payment()).collect();
                self.bring(many).await;
            }
            75..87 if self.holds.len() < HOLDS => self.reserve().await,
            75..92 => {
                let refused = if self.random.below(3) == 0 {
                    TransactionInstruction { payee: "NOBODEXX".into(), ..self.payment() }
                } else {
                    let mut payment = self.payment();
                    payment.amount.as_mut().expect("an amount").amount = TOO_MUCH.into();
                    payment
                };
                self.bring(vec![refused]).await;
            }
            _ => {
                let gross = TransactionInstruction { model: SettlementModel::Gross.into(), ..self.payment() };
                self.bring(vec![gross]).await;
            }
        }
    }

    /// A payment to another bank; the last one gets fewer than the others, since it is told of each by webhook.
    fn payment(&mut self) -> TransactionInstruction {
        self.sent += 1;
        let own = BANKS[self.which];
        let others: Vec<&str> = BANKS.iter().copied().filter(|bank| *bank != own).collect();
        let quiet = BANKS[BANKS.len() - 1];
        let mut payee = self.random.pick(&others);
        if payee == quiet && self.random.below(3) > 0 {
            payee = others[0];
        }
        let cents = 1 + self.random.below(10_000);
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        let mut payment = pay(&name(self.world.seed, &format!("{own} {}", self.sent)), own, payee, &amount);
        let currency = self.random.pick(&CURRENCIES);
        payment.amount = Some(Money { amount, currency: currency.into() });
        payment
    }

    /// Sends transactions until the outcome of each is known, the same ids again and again; or until the load is over.
    async fn bring(&mut self, mut open: Vec<TransactionInstruction>) {
        let mut pause = Duration::from_millis(50);
        loop {
            send(&self.world, &mut self.ledger, &open).await;
            open.retain(|one| !self.world.journal.is_told(&one.transaction_id));
            if open.is_empty() || self.world.is_over() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(400));
        }
    }

    async fn reserve(&mut self) {
        // Some are left to expire.
        let left = self.random.below(10) == 0;
        let payment = TransactionInstruction {
            two_phase: true,
            timeout_seconds: if left { 5 } else { 15 },
            model: self.random.pick(&[SettlementModel::NetMultilateral, SettlementModel::Gross]).into(),
            ..self.payment()
        };
        let id = payment.transaction_id.clone();
        self.bring(vec![payment]).await;
        if !left && self.world.journal.state(&id) == Some(TransactionState::Reserved) {
            self.holds.push_back((Instant::now() + self.random.time(0, 5_000), id));
        }
    }

    /// Commits or cancels a reservation, until there is a definite answer.
    async fn decide(&mut self, id: &str) {
        let commit = self.random.below(4) > 0;
        while !self.world.is_over() {
            let answer = if commit {
                let request = CommitTransactionRequest { transaction_id: id.into() };
                let answer = timeout(ANSWER, self.ledger.commit_transaction(request)).await;
                answer.map(|answer| answer.map(|answer| answer.into_inner().transaction))
            } else {
                let request = CancelTransactionRequest { transaction_id: id.into(), reason: "on purpose".into() };
                let answer = timeout(ANSWER, self.ledger.cancel_transaction(request)).await;
                answer.map(|answer| answer.map(|answer| answer.into_inner().transaction))
            };
            match answer {
                Err(_) => self.world.journal.unknown(id, "no answer in time"),
                Ok(Ok(view)) => return self.world.journal.ended(id, view.unwrap_or_default().state()),
                // Refused for good, such as when it has expired meanwhile: its state tells.
                Ok(Err(status)) if status.code() == Code::FailedPrecondition => return self.look(id).await,
                Ok(Err(status)) => match may_be_tried_again(&status) {
                    Some(why) => self.world.journal.unknown(id, &why),
                    None => return self.world.journal.breach(format!("{id}: {status:?}")),
                },
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn look(&mut self, id: &str) {
        let request = GetTransactionRequest { transaction_id: id.into() };
        if let Ok(Ok(answer)) = timeout(ANSWER, self.ledger.get_transaction(request)).await {
            let state = answer.into_inner().transaction.unwrap_or_default().state();
            if state != TransactionState::Reserved {
                self.world.journal.ended(id, state);
            }
        }
    }
}

/// Sends transactions once, alone where it is one, and writes down what came back.
pub async fn send(world: &World, ledger: &mut TokenServiceClient<Connection>, transactions: &[TransactionInstruction]) {
    let journal = &world.journal;
    journal.sending(transactions);
    let first = &transactions[0].transaction_id;
    if let [one] = transactions {
        let request = SubmitTransactionRequest { transaction: Some(one.clone()) };
        return match timeout(ANSWER, ledger.submit_transaction(request)).await {
            Err(_) => journal.unknown(first, "no answer in time"),
            Ok(Err(status)) => journal.failed(first, &status),
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                journal.told(answer.outcome.unwrap_or_default(), answer.replayed);
            }
        };
    }
    match timeout(ANSWER, submit_many(ledger, transactions.to_vec())).await {
        Err(_) => journal.unknown(first, "no answer in time"),
        Ok(Err(status)) => journal.failed(first, &status),
        Ok(Ok(items)) => {
            for item in items {
                match item.result {
                    Some(Outcome(outcome)) => journal.told(outcome, item.replayed),
                    Some(Error(refusal)) if ["unavailable", "overloaded"].contains(&refusal.code.as_str()) => {
                        journal.unknown(&item.transaction_id, &refusal.code);
                    }
                    other => journal.breach(format!("{}: {other:?}", item.transaction_id)),
                }
            }
        }
    }
}

/// Closes the window of a currency and opens the next, again and again; the number of the one that is open at the end.
pub async fn windows(world: Arc<World>, currency: &'static str) -> u64 {
    let mut random = Random::of(world.seed, currency);
    let mut number = 0;
    while !world.is_over() {
        sleep(random.time(4_000, 9_000)).await;
        if close(&world, currency, number).await {
            number += 1;
        }
    }
    number
}

/// Closes a window and opens the next; whether it is done before the load is over.
async fn close(world: &World, currency: &str, number: u64) -> bool {
    let next = window(world.seed, currency, number + 1);
    let mut clearing = world.rig.clearing();
    loop {
        let request =
            CloseWindowRequest { window_id: window(world.seed, currency, number), next_window_id: next.clone() };
        match timeout(Duration::from_secs(20), clearing.close_window(request)).await {
            Ok(Ok(_)) => return true,
            // An order whose answer was lost, or a window that is not open yet.
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                let request = GetWindowRequest { window_id: window(world.seed, currency, number) };
                let found = timeout(ANSWER, clearing.get_window(request)).await;
                if let Ok(Ok(found)) = found {
                    let state = found.into_inner().window.unwrap_or_default().state();
                    if !matches!(state, WindowState::Scheduled | WindowState::Open) {
                        return true;
                    }
                }
            }
            Ok(Err(status)) if may_be_tried_again(&status).is_none() => {
                world.journal.breach(format!("window {currency} {number}: {status:?}"));
            }
            _ => {}
        }
        if world.is_over() {
            // Whether the order was taken is seen at the end.
            return false;
        }
        sleep(Duration::from_millis(200)).await;
    }
}
