//! What an event of the ledger means for what is counted.

use std::collections::BTreeMap;

use deltran_events::Event;
use deltran_events::data::transactions::{SettlementModel, TransactionState};
use deltran_kernel::{Currency, Money, ParticipantId, Timestamp, TransactionId, WindowId};

use super::scope::{Corridor, Scope};
use super::trigger::{Decisions, bucket_of};
use crate::domain::book::Member;

/// Who pays whom how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// Who pays.
    pub payer: ParticipantId,
    /// Who is paid.
    pub payee: ParticipantId,
    /// How much; above zero.
    pub amount: Money,
}

impl Payment {
    /// The currency.
    pub fn currency(&self) -> Currency {
        self.amount.currency()
    }

    /// The amount in minor units.
    pub fn units(&self) -> i128 {
        self.amount.minor().units()
    }

    /// From where to where it goes.
    pub fn corridor(&self) -> Corridor {
        Corridor::of(self.payer, self.payee)
    }
}

/// What happened to transactions and windows, as far as it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A transaction is committed: NET in a window, GROSS without.
    Committed {
        /// Its id.
        id: TransactionId,
        /// Who pays whom.
        payment: Payment,
        /// The window of a NET one.
        window: Option<WindowId>,
        /// When.
        at: Timestamp,
        /// Whether it had not been accepted before, as a reservation.
        first: bool,
    },
    /// A transaction is reserved and may be committed later, in any window.
    Reserved {
        /// Its id.
        id: TransactionId,
        /// Who pays whom.
        payment: Payment,
        /// Whether it settles GROSS.
        gross: bool,
        /// When.
        at: Timestamp,
    },
    /// A transaction is held by compliance; it counts nowhere until it is released.
    Held {
        /// Its id.
        id: TransactionId,
    },
    /// A transaction is refused.
    Refused {
        /// Its id.
        id: TransactionId,
        /// The scopes of the decision and its currency; none where a breaker refused it.
        decision: Option<(ParticipantId, ParticipantId, Currency)>,
        /// When.
        at: Timestamp,
    },
    /// A reservation ended without a commit.
    Ended {
        /// Its id.
        id: TransactionId,
    },
    /// A window is sealed.
    Sealed {
        /// The window.
        window: WindowId,
        /// Its currency.
        currency: Currency,
        /// The window that is open from then on.
        next: Option<WindowId>,
    },
    /// Windows are settled: nothing is owed in them any more.
    Settled {
        /// The windows.
        windows: Vec<WindowId>,
        /// Their currency.
        currency: Currency,
    },
}

/// A transaction that was accepted and is not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Who pays whom.
    pub payment: Payment,
    /// Whether it settles GROSS.
    pub gross: bool,
    /// RESERVED, or else HELD.
    pub reserved: bool,
}

/// What was consumed contradicts itself; nothing of it may be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Contradiction(pub String);

/// The transaction whose waiting row an event needs, if any.
pub fn waits(event: &Event) -> Option<TransactionId> {
    match event {
        Event::TransactionCommitted(t) => Some(t.transaction_id),
        Event::TransactionCancelled(t) => Some(t.transaction_id),
        Event::TransactionExpired(t) => Some(t.transaction_id),
        Event::TransactionReleased(t) => Some(t.transaction_id),
        Event::TransactionRejected(t) if t.was_held => Some(t.transaction_id),
        _ => None,
    }
}

/// What an event means. `waiting` are the transactions that [`waits`] named, and is kept current.
///
/// # Errors
/// Where the event contradicts itself.
pub fn fact_of(
    event: &Event,
    at: Timestamp,
    waiting: &mut BTreeMap<TransactionId, Waiting>,
) -> Result<Option<Fact>, Contradiction> {
    Ok(match event {
        Event::TransactionCreated(t) => {
            let id = t.transaction_id;
            let payment = payment(id, t.payer, t.payee, &t.amount, t.currency)?;
            let gross = t.settlement_model == SettlementModel::Gross;
            match t.state {
                TransactionState::Committed => {
                    let window = window_of(id, gross, t.window_id)?;
                    Some(Fact::Committed { id, payment, window, at, first: true })
                }
                TransactionState::Reserved => {
                    waiting.insert(id, Waiting { payment, gross, reserved: true });
                    Some(Fact::Reserved { id, payment, gross, at })
                }
                TransactionState::Held => {
                    waiting.insert(id, Waiting { payment, gross, reserved: false });
                    Some(Fact::Held { id })
                }
                state => return Err(Contradiction(format!("transaction {id} was created {state}"))),
            }
        }
        Event::TransactionCommitted(t) => {
            let id = t.transaction_id;
            let payment = payment(id, t.payer, t.payee, &t.amount, t.currency)?;
            let window = window_of(id, t.settlement_model == SettlementModel::Gross, t.window_id)?;
            let first = waiting.remove(&id).is_none_or(|w| !w.reserved);
            Some(Fact::Committed { id, payment, window, at, first })
        }
        Event::TransactionRejected(t) => {
            waiting.remove(&t.transaction_id);
            let decision = (t.reason != "breaker_open").then_some((t.payer, t.payee, t.currency));
            Some(Fact::Refused { id: t.transaction_id, decision, at })
        }
        Event::TransactionCancelled(t) => {
            waiting.remove(&t.transaction_id);
            Some(Fact::Ended { id: t.transaction_id })
        }
        Event::TransactionExpired(t) => {
            waiting.remove(&t.transaction_id);
            Some(Fact::Ended { id: t.transaction_id })
        }
        // The other outcomes of a release have events of their own.
        Event::TransactionReleased(t) if t.state == TransactionState::Reserved => {
            waiting.get_mut(&t.transaction_id).map(|w| {
                w.reserved = true;
                Fact::Reserved { id: t.transaction_id, payment: w.payment, gross: w.gross, at }
            })
        }
        Event::WindowSealed(w) => {
            Some(Fact::Sealed { window: w.window_id, currency: w.currency, next: w.next_window_id })
        }
        // Of several parts the first says it.
        Event::SettlementPosted(s) if s.part == 1 => {
            Some(Fact::Settled { windows: s.window_ids.clone(), currency: s.currency })
        }
        _ => None,
    })
}

fn payment(
    id: TransactionId,
    payer: ParticipantId,
    payee: ParticipantId,
    amount: &deltran_events::Amount,
    currency: Currency,
) -> Result<Payment, Contradiction> {
    let amount = amount.money(currency).map_err(|e| Contradiction(format!("transaction {id}: {e}")))?;
    if !amount.minor().is_positive() || payer == payee {
        return Err(Contradiction(format!("transaction {id}: {payer} pays {payee} {amount}")));
    }
    Ok(Payment { payer, payee, amount })
}

fn window_of(id: TransactionId, gross: bool, window: Option<WindowId>) -> Result<Option<WindowId>, Contradiction> {
    if gross == window.is_none() {
        return Ok(window);
    }
    let what = if gross { "is GROSS and names a window" } else { "is NET and committed without a window" };
    Err(Contradiction(format!("transaction {id} {what}")))
}

/// What a batch adds to a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSum {
    /// Its currency.
    pub currency: Currency,
    /// Transactions.
    pub count: u64,
    /// Their sum.
    pub gross: i128,
    /// Whether it was sealed.
    pub sealed: bool,
    /// Whether it was settled.
    pub settled: bool,
}

/// Amount and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Sum of amounts, in minor units.
    pub gross: i128,
    /// Number of transactions.
    pub count: u64,
}

impl Flow {
    fn add(&mut self, units: i128) {
        self.gross += units;
        self.count += 1;
    }
}

/// The sums over a batch, to be added to what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sums {
    /// By window.
    pub windows: BTreeMap<WindowId, WindowSum>,
    /// By window and participant.
    pub members: BTreeMap<(WindowId, ParticipantId), Member>,
    /// By window, payer and payee.
    pub pairs: BTreeMap<(WindowId, ParticipantId, ParticipantId), Flow>,
    /// By corridor, currency and the hour since 1970 in which they were committed.
    pub corridors: BTreeMap<(Corridor, Currency, i64), Flow>,
    /// By bucket and scope; of participants only what they pay.
    pub decisions: BTreeMap<(i64, Scope), Decisions>,
}

/// The hour since 1970 of a moment.
pub fn hour_of(at: Timestamp) -> i64 {
    at.micros().div_euclid(3_600_000_000)
}

impl Sums {
    /// Adds what a fact says.
    pub fn add(&mut self, fact: &Fact) {
        match fact {
            Fact::Committed { payment, window, at, first, .. } => {
                if let Some(window) = window {
                    self.obligation(*window, payment);
                }
                let corridor = (payment.corridor(), payment.currency(), hour_of(*at));
                self.corridors.entry(corridor).or_default().add(payment.units());
                if *first {
                    self.decided(payment.payer, payment.payee, payment.currency(), *at, true);
                }
            }
            Fact::Reserved { payment, at, .. } => {
                self.decided(payment.payer, payment.payee, payment.currency(), *at, true);
            }
            Fact::Refused { decision: Some((payer, payee, currency)), at, .. } => {
                self.decided(*payer, *payee, *currency, *at, false);
            }
            Fact::Sealed { window, currency, next } => {
                self.window(*window, *currency).sealed = true;
                if let Some(next) = next {
                    self.window(*next, *currency);
                }
            }
            Fact::Settled { windows, currency } => {
                for window in windows {
                    self.window(*window, *currency).settled = true;
                }
            }
            Fact::Held { .. } | Fact::Refused { .. } | Fact::Ended { .. } => {}
        }
    }

    fn window(&mut self, window: WindowId, currency: Currency) -> &mut WindowSum {
        let new = WindowSum { currency, count: 0, gross: 0, sealed: false, settled: false };
        self.windows.entry(window).or_insert(new)
    }

    fn obligation(&mut self, window: WindowId, payment: &Payment) {
        let units = payment.units();
        let sum = self.window(window, payment.currency());
        sum.count += 1;
        sum.gross += units;
        self.members.entry((window, payment.payer)).or_default().sent(units);
        self.members.entry((window, payment.payee)).or_default().received(units);
        self.pairs.entry((window, payment.payer, payment.payee)).or_default().add(units);
    }

    fn decided(
        &mut self,
        payer: ParticipantId,
        payee: ParticipantId,
        currency: Currency,
        at: Timestamp,
        accepted: bool,
    ) {
        let bucket = bucket_of(at);
        let [global, of_currency, corridor, of_payer, _] = Scope::of(payer, payee, currency);
        for scope in [global, of_currency, corridor, of_payer] {
            let decisions = self.decisions.entry((bucket, scope)).or_default();
            if accepted { decisions.accepted += 1 } else { decisions.refused += 1 }
        }
    }
}
