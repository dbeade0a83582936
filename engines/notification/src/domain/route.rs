//! The router's decisions: which event of another domain tells whom what.
//!
//! A bank is told of its own: of a payment that was refused or is held only the payer hears, of a breaker or a
//! limit nobody hears who decided and why. What compliance finds is told to no bank.

use std::collections::BTreeMap;

use deltran_events::data::notifications as told;
use deltran_events::data::notifications::NoticeAlert;
use deltran_events::data::risk::BreakerMode;
use deltran_events::data::transactions::TransactionState;
use deltran_events::{Amount, AmountError, Event};
use deltran_kernel::{Currency, Minor, Money, MoneyError, NettingSetId, ParticipantId};

use super::notification::Kind;
use super::subscription::{About, Audience};

/// The kinds that come from single payments: what the busiest stream is read for.
pub const PAYMENTS: &[Kind] =
    &[Kind::PaymentReceived, Kind::PaymentSent, Kind::PaymentHeld, Kind::PaymentRejected, Kind::PaymentExpired];

/// The net positions of a netting set.
pub type Positions = BTreeMap<ParticipantId, Minor>;

/// Why an event cannot be routed: it contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// An amount does not fit its currency.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// Amounts do not fit each other.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// The netting set whose positions are needed to route an event; none where nobody wants to hear of it.
pub fn positions_needed(event: &Event, audience: &Audience) -> Option<NettingSetId> {
    match event {
        Event::NettingCompleted(e) if audience.has(&[Kind::PositionChanged]) => Some(e.netting_set_id),
        Event::BatchAborted(e) if audience.has(&[Kind::SettlementFailed]) => Some(e.netting_set_id),
        _ => None,
    }
}

/// The notifications that an event gives: one per participant and kind. `positions` are those of the netting
/// set that [`positions_needed`] names.
///
/// # Errors
/// [`Contradiction`] where the event contradicts itself.
pub fn route(event: &Event, positions: &Positions, audience: &Audience) -> Result<Vec<Event>, Contradiction> {
    let mut to = Told { audience, events: Vec::new() };
    match event {
        Event::TransactionCreated(e) => match e.state {
            TransactionState::Committed => to.committed(Payment::of(e), e.end_to_end_id.as_ref())?,
            TransactionState::Held => {
                to.one(Kind::PaymentHeld, e.payer, money(&e.amount, e.currency)?, || told::PaymentHeld {
                    participant: e.payer,
                    transaction_id: e.transaction_id,
                    payee: e.payee,
                    amount: e.amount.clone(),
                    currency: e.currency,
                    end_to_end_id: e.end_to_end_id.clone(),
                })
            }
            _ => {}
        },
        Event::TransactionCommitted(e) => to.committed(Payment::of_committed(e), None)?,
        Event::TransactionRejected(e) => {
            to.one(Kind::PaymentRejected, e.payer, money(&e.amount, e.currency)?, || told::PaymentRejected {
                participant: e.payer,
                transaction_id: e.transaction_id,
                payee: e.payee,
                amount: e.amount.clone(),
                currency: e.currency,
                reason: e.reason.clone(),
                was_held: e.was_held,
            });
        }
        Event::TransactionExpired(e) => {
            to.one(Kind::PaymentExpired, e.payer, money(&e.amount, e.currency)?, || told::PaymentExpired {
                participant: e.payer,
                transaction_id: e.transaction_id,
                payee: e.payee,
                amount: e.amount.clone(),
                currency: e.currency,
            });
        }
        Event::DepositConfirmed(e) => {
            to.one(Kind::DepositCredited, e.participant, money(&e.amount, e.currency)?, || told::DepositCredited {
                participant: e.participant,
                amount: e.amount.clone(),
                currency: e.currency,
                reference: e.reference.clone(),
            });
        }
        Event::WithdrawalConfirmed(e) => {
            to.one(Kind::WithdrawalPaid, e.participant, money(&e.amount, e.currency)?, || told::WithdrawalPaid {
                participant: e.participant,
                withdrawal_id: e.withdrawal_id,
                amount: e.amount.clone(),
                currency: e.currency,
                reference: e.reference.clone(),
            });
        }
        Event::WithdrawalFailed(e) => {
            to.one(Kind::WithdrawalReturned, e.participant, money(&e.amount, e.currency)?, || {
                told::WithdrawalReturned {
                    participant: e.participant,
                    withdrawal_id: e.withdrawal_id,
                    amount: e.amount.clone(),
                    currency: e.currency,
                }
            });
        }
        Event::ParticipantSuspended(e) => {
            to.standing(e.participant, NoticeAlert::ParticipantSuspended, "suspended: no transaction is taken");
        }
        Event::ParticipantReinstated(e) => {
            to.standing(e.participant, NoticeAlert::ParticipantReinstated, "reinstated: transactions are taken again");
        }
        Event::ParticipantDefaulted(e) => {
            to.standing(e.participant, NoticeAlert::ParticipantDefaulted, "declared in default");
        }
        Event::SettlementPosted(e) => {
            for leg in &e.legs {
                let about = money(&leg.net, e.currency)?;
                to.one(Kind::SettlementCompleted, leg.participant, about, || told::SettlementCompleted {
                    participant: leg.participant,
                    group_id: e.group_id,
                    window_ids: e.window_ids.clone(),
                    currency: e.currency,
                    net: leg.net.clone(),
                    final_at: e.posted_at,
                });
            }
        }
        Event::WindowClosed(e) => {
            to.everybody(Kind::WindowClosed, About::Currency(e.currency), |participant| told::WindowClosedNotice {
                participant,
                window_id: e.window_id,
                currency: e.currency,
                closed_at: e.closed_at,
            });
        }
        Event::NettingCompleted(e) => {
            for (participant, net) in positions {
                let net = Money::new(*net, e.currency);
                to.one(Kind::PositionChanged, *participant, About::Amount(net), || told::PositionChanged {
                    participant: *participant,
                    netting_set_id: e.netting_set_id,
                    window_ids: e.window_ids.clone(),
                    currency: e.currency,
                    net: net.into(),
                });
            }
        }
        Event::BatchAwaitingFunds(e) => {
            for short in &e.shortfalls {
                let (required, reserved) = (short.required.money(e.currency)?, short.reserved.money(e.currency)?);
                let missing = Money::new(required.minor().sub(reserved.minor())?, e.currency);
                to.one(Kind::FundingRequired, short.participant, About::Currency(e.currency), || {
                    told::FundingRequired {
                        participant: short.participant,
                        batch_id: e.batch_id,
                        netting_set_id: e.netting_set_id,
                        currency: e.currency,
                        required: required.into(),
                        reserved: reserved.into(),
                        missing: missing.into(),
                        funding_deadline: e.funding_deadline,
                    }
                });
            }
        }
        Event::BatchAborted(e) => {
            for participant in positions.keys() {
                to.one(Kind::SettlementFailed, *participant, About::Currency(e.currency), || told::SettlementFailed {
                    participant: *participant,
                    batch_id: e.batch_id,
                    netting_set_id: e.netting_set_id,
                    window_ids: e.window_ids.clone(),
                    currency: e.currency,
                });
            }
        }
        other => risk(other, &mut to),
    }
    Ok(to.events)
}

/// What the risk engine says.
fn risk(event: &Event, to: &mut Told<'_>) {
    match event {
        Event::LimitChanged(e) => {
            let of = |participant| told::LimitNotice {
                participant,
                limit_id: e.limit_id,
                kind: e.kind,
                amount: e.amount.clone(),
                currency: e.currency,
                counterparty: e.counterparty,
                corridor: e.corridor.clone(),
            };
            to.one_or_all(Kind::LimitChanged, e.participant, About::Currency(e.currency), of);
        }
        Event::RateLimitChanged(e) => {
            let of = |participant| told::RateLimitNotice {
                participant,
                limit_id: e.limit_id,
                transactions: e.transactions,
                window_seconds: e.window_seconds,
            };
            to.one_or_all(Kind::RateLimitChanged, e.participant, About::NoMoney, of);
        }
        Event::ThresholdBreached(e) => {
            to.one(Kind::ThresholdBreached, e.participant, About::Currency(e.currency), || {
                told::ThresholdBreachedNotice {
                    participant: e.participant,
                    limit_id: e.limit_id,
                    kind: e.kind,
                    counterparty: e.counterparty,
                    currency: e.currency,
                    limit: e.limit.clone(),
                    used: e.used.clone(),
                    threshold: e.threshold,
                }
            });
        }
        Event::ThresholdCleared(e) => {
            to.one(Kind::ThresholdCleared, e.participant, About::Currency(e.currency), || {
                told::ThresholdClearedNotice {
                    participant: e.participant,
                    limit_id: e.limit_id,
                    kind: e.kind,
                    counterparty: e.counterparty,
                    currency: e.currency,
                    limit: e.limit.clone(),
                    used: e.used.clone(),
                    threshold: e.threshold,
                }
            });
        }
        Event::BreakerOpened(e) => {
            let passes = match e.mode {
                Some(BreakerMode::Reducing) => "only transactions that lower net positions pass",
                Some(BreakerMode::Open) | None => "nothing passes",
            };
            to.breaker(&e.scope, NoticeAlert::BreakerOpened, passes);
        }
        Event::BreakerHalfOpened(e) => {
            let passes = format!("the next {} transactions pass, to try", e.probes);
            to.breaker(&e.scope, NoticeAlert::BreakerHalfOpened, &passes);
        }
        Event::BreakerClosed(e) => to.breaker(&e.scope, NoticeAlert::BreakerClosed, "everything passes again"),
        _ => {}
    }
}

fn money(amount: &Amount, currency: Currency) -> Result<About, AmountError> {
    Ok(About::Amount(amount.money(currency)?))
}

/// What two events say of a committed payment.
struct Payment<'a> {
    transaction_id: deltran_kernel::TransactionId,
    payer: ParticipantId,
    payee: ParticipantId,
    amount: &'a Amount,
    currency: Currency,
    window_id: Option<deltran_kernel::WindowId>,
}

macro_rules! payment_of {
    ($event:expr) => {
        Payment {
            transaction_id: $event.transaction_id,
            payer: $event.payer,
            payee: $event.payee,
            amount: &$event.amount,
            currency: $event.currency,
            window_id: $event.window_id,
        }
    };
}

impl<'a> Payment<'a> {
    fn of(event: &'a deltran_events::data::transactions::TransactionCreated) -> Self {
        payment_of!(event)
    }

    fn of_committed(event: &'a deltran_events::data::transactions::TransactionCommitted) -> Self {
        payment_of!(event)
    }
}

/// What is told so far.
struct Told<'a> {
    audience: &'a Audience,
    events: Vec<Event>,
}

impl Told<'_> {
    fn one<E: Into<Event>>(&mut self, kind: Kind, who: ParticipantId, about: About, what: impl FnOnce() -> E) {
        if self.audience.wants(kind, who, about) {
            self.events.push(what().into());
        }
    }

    fn everybody<E: Into<Event>>(&mut self, kind: Kind, about: About, what: impl Fn(ParticipantId) -> E) {
        self.events.extend(self.audience.everybody(kind, about).map(|who| what(who).into()));
    }

    fn one_or_all<E: Into<Event>>(
        &mut self,
        kind: Kind,
        who: Option<ParticipantId>,
        about: About,
        what: impl Fn(ParticipantId) -> E,
    ) {
        match who {
            Some(who) => self.one(kind, who, about, || what(who)),
            None => self.everybody(kind, about, what),
        }
    }

    fn committed(&mut self, payment: Payment<'_>, end_to_end_id: Option<&String>) -> Result<(), AmountError> {
        let about = money(payment.amount, payment.currency)?;
        self.one(Kind::PaymentReceived, payment.payee, about, || told::PaymentReceived {
            participant: payment.payee,
            transaction_id: payment.transaction_id,
            payer: payment.payer,
            amount: payment.amount.clone(),
            currency: payment.currency,
            window_id: payment.window_id,
            end_to_end_id: end_to_end_id.cloned(),
        });
        self.one(Kind::PaymentSent, payment.payer, about, || told::PaymentSent {
            participant: payment.payer,
            transaction_id: payment.transaction_id,
            payee: payment.payee,
            amount: payment.amount.clone(),
            currency: payment.currency,
            window_id: payment.window_id,
            end_to_end_id: end_to_end_id.cloned(),
        });
        Ok(())
    }

    fn standing(&mut self, participant: ParticipantId, alert: NoticeAlert, message: &str) {
        self.one(Kind::AlertRaised, participant, About::NoMoney, || told::AlertNotice {
            participant,
            alert,
            scope: format!("participant:{participant}"),
            message: message.to_owned(),
        });
    }

    /// The reason of a breaker is not passed on: it may speak of others.
    fn breaker(&mut self, scope: &str, alert: NoticeAlert, message: &str) {
        let (who, about) = match scope.split_once(':') {
            Some(("participant", who)) => match who.parse() {
                Ok(who) => (Some(who), About::NoMoney),
                Err(_) => return,
            },
            Some(("currency", code)) => match Currency::new(code) {
                Ok(currency) => (None, About::Currency(currency)),
                Err(_) => return,
            },
            _ => (None, About::NoMoney),
        };
        let of = |participant| told::AlertNotice {
            participant,
            alert,
            scope: scope.to_owned(),
            message: message.to_owned(),
        };
        self.one_or_all(Kind::AlertRaised, who, about, of);
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
