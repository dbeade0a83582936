//! What the ledger's events say, folded into entries, balances and totals.
//!
//! Every token posting of the ledger has its event, so that the balances at a position of the ledger are the sum of
//! what is folded here up to that position. Sums do not depend on how events are cut into batches.

use std::collections::BTreeMap;

use deltran_events::data::transactions::{self as events, SettlementModel, TransactionState};
use deltran_events::{Amount, Event};
use deltran_kernel::{Currency, EventId, Minor, ParticipantId, Timestamp, TransactionId, WindowId};
use uuid::Uuid;

use super::Contradiction;
use super::book::{Account, AccountOf, Effects, Entry, EntryKind, Flow, Movement, Pending, PostedPart, Sealed, Tally};
use super::day::Day;
use super::position::Position;

/// An event of the ledger with its place and time.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its place.
    pub position: Position,
    /// Its id.
    pub id: EventId,
    /// When it happened.
    pub at: Timestamp,
    /// The business day on which that was.
    pub day: Day,
    /// The event.
    pub event: Event,
}

/// The transaction whose waiting row an event needs.
pub fn needs(event: &Event) -> Option<TransactionId> {
    match event {
        Event::TransactionCommitted(e) => Some(e.transaction_id),
        Event::TransactionCancelled(e) => Some(e.transaction_id),
        Event::TransactionExpired(e) => Some(e.transaction_id),
        Event::TransactionRejected(e) if e.was_held => Some(e.transaction_id),
        Event::TransactionReleased(e) if e.state == TransactionState::Reserved => Some(e.transaction_id),
        _ => None,
    }
}

/// Folds events in the order of their positions. `waiting` are the stored rows of the transactions that [`needs`]
/// names.
///
/// # Errors
/// The first event that contradicts what is known; nothing of the events may be applied then.
pub fn fold(seen: &[Seen], waiting: BTreeMap<TransactionId, Pending>) -> Result<Effects, Contradiction> {
    let mut folder = Folder { waiting, effects: Effects::default() };
    for one in seen {
        folder.event(one).map_err(|e| Contradiction(format!("{} at {}: {e}", name(&one.event), one.position)))?;
        folder.effects.last_at = folder.effects.last_at.max(Some(one.at));
    }
    Ok(folder.effects)
}

fn name(event: &Event) -> &'static str {
    event.spec().event_type()
}

struct Folder {
    /// Rows that waited before these events and have not been touched.
    waiting: BTreeMap<TransactionId, Pending>,
    effects: Effects,
}

fn minor(amount: &Amount, currency: Currency) -> Result<Minor, Contradiction> {
    amount.money(currency).map(|m| m.minor()).map_err(Contradiction::of)
}

fn positive(amount: &Amount, currency: Currency) -> Result<Minor, Contradiction> {
    let minor = minor(amount, currency)?;
    if minor.is_positive() { Ok(minor) } else { Err(Contradiction(format!("amount {minor:?} is not above zero"))) }
}

impl Folder {
    fn event(&mut self, seen: &Seen) -> Result<(), Contradiction> {
        match &seen.event {
            Event::TransactionCreated(e) => self.created(seen, e),
            Event::TransactionCommitted(e) => self.committed(seen, e),
            Event::TransactionReleased(e) if e.state == TransactionState::Reserved => {
                let held = self.take(e.transaction_id, TransactionState::Held)?;
                let reserved = Pending { state: TransactionState::Reserved, ..held };
                self.reserve(seen, e.transaction_id, reserved)
            }
            Event::TransactionRejected(e) if e.was_held => {
                self.take(e.transaction_id, TransactionState::Held).map(|_| ())
            }
            Event::TransactionCancelled(e) => self.unreserve(seen, e.transaction_id),
            Event::TransactionExpired(e) => self.unreserve(seen, e.transaction_id),
            Event::DepositConfirmed(e) => {
                let amount = positive(&e.amount, e.currency)?;
                self.move_tokens(
                    seen,
                    amount,
                    (e.currency, Account::Safeguard, None),
                    settlement(e.participant, e.currency),
                )?;
                self.day(seen.day, e.participant, e.currency, amount)?;
                self.entry(seen, EntryKind::Deposit, seen.id.uuid(), e.currency, amount, |entry| {
                    entry.payee = Some(e.participant);
                    entry.reference.clone_from(&e.reference);
                });
                Ok(())
            }
            Event::WithdrawalRequested(e) => {
                let amount = positive(&e.amount, e.currency)?;
                self.move_tokens(
                    seen,
                    amount,
                    settlement(e.participant, e.currency),
                    reserved(e.participant, e.currency),
                )
            }
            Event::WithdrawalFailed(e) => {
                let amount = positive(&e.amount, e.currency)?;
                self.move_tokens(
                    seen,
                    amount,
                    reserved(e.participant, e.currency),
                    settlement(e.participant, e.currency),
                )
            }
            Event::WithdrawalConfirmed(e) => {
                let amount = positive(&e.amount, e.currency)?;
                self.move_tokens(
                    seen,
                    amount,
                    reserved(e.participant, e.currency),
                    (e.currency, Account::Safeguard, None),
                )?;
                self.day(seen.day, e.participant, e.currency, amount.neg())?;
                self.entry(seen, EntryKind::Withdrawal, e.withdrawal_id.uuid(), e.currency, amount, |entry| {
                    entry.payer = Some(e.participant);
                    entry.reference.clone_from(&e.reference);
                });
                Ok(())
            }
            Event::WindowSealed(e) => {
                let gross = minor(&e.gross, e.currency)?;
                self.effects.sealed.push(Sealed {
                    window: e.window_id,
                    currency: e.currency,
                    count: e.count,
                    gross,
                    digest: e.digest.clone(),
                    at: seen.at,
                });
                Ok(())
            }
            Event::WindowEarmarked(e) => e.earmarks.iter().try_for_each(|earmark| {
                let amount = positive(&earmark.amount, e.currency)?;
                let who = earmark.participant;
                self.move_tokens(seen, amount, settlement(who, e.currency), reserved(who, e.currency))
            }),
            Event::SettlementPosted(e) => self.posted(seen, e),
            Event::CurrencyEnabled(e) => {
                self.effects.memberships.insert((e.participant, e.currency));
                Ok(())
            }
            Event::ParticipantRegistered(e) => self.participant(e.participant, "ONBOARDING"),
            Event::ParticipantActivated(e) => self.participant(e.participant, "ACTIVE"),
            Event::ParticipantReinstated(e) => self.participant(e.participant, "ACTIVE"),
            Event::ParticipantSuspended(e) => self.participant(e.participant, "SUSPENDED"),
            Event::ParticipantDefaulted(e) => self.participant(e.participant, "DEFAULTED"),
            Event::ParticipantExited(e) => self.participant(e.participant, "EXITED"),
            // The others move nothing.
            _ => Ok(()),
        }
    }

    fn created(&mut self, seen: &Seen, e: &events::TransactionCreated) -> Result<(), Contradiction> {
        let pending = Pending {
            state: e.state,
            payer: e.payer,
            payee: e.payee,
            amount: positive(&e.amount, e.currency)?,
            currency: e.currency,
            model: e.settlement_model,
            end_to_end_id: e.end_to_end_id.clone().unwrap_or_default(),
            uetr: e.uetr.clone(),
            return_of: e.return_of,
        };
        match e.state {
            TransactionState::Committed => {
                self.book(seen, e.transaction_id, pending, e.window_id.zip(e.window_seq), Account::Settlement)
            }
            TransactionState::Reserved => self.reserve(seen, e.transaction_id, pending),
            TransactionState::Held => self.wait(e.transaction_id, pending),
            other => Err(Contradiction(format!("transaction {} was accepted as {other}", e.transaction_id))),
        }
    }

    fn committed(&mut self, seen: &Seen, e: &events::TransactionCommitted) -> Result<(), Contradiction> {
        let id = e.transaction_id;
        let pending = self.take_any(id)?;
        let same = pending.payer == e.payer
            && pending.payee == e.payee
            && pending.currency == e.currency
            && pending.model == e.settlement_model
            && pending.amount == positive(&e.amount, e.currency)?;
        if !same {
            return Err(Contradiction(format!("transaction {id} was committed as another than was accepted")));
        }
        let held_by = if pending.state == TransactionState::Reserved { Account::Reserved } else { Account::Settlement };
        self.book(seen, id, pending, e.window_id.zip(e.window_seq), held_by)
    }

    /// A committed payment. `from` is where the payer's tokens were, for GROSS.
    fn book(
        &mut self,
        seen: &Seen,
        id: TransactionId,
        payment: Pending,
        window: Option<(WindowId, u64)>,
        from: Account,
    ) -> Result<(), Contradiction> {
        let Pending { payer, payee, amount, currency, .. } = payment;
        let kind = match (payment.model, window) {
            (SettlementModel::Gross, None) => EntryKind::Gross,
            (SettlementModel::NetMultilateral | SettlementModel::NetBilateral, Some(_)) => EntryKind::Net,
            (model, window) => {
                return Err(Contradiction(format!("transaction {id} is {model} and committed with window {window:?}")));
            }
        };
        if payer == payee {
            return Err(Contradiction(format!("transaction {id}: {payer} pays itself")));
        }
        if let Some((window, _)) = window {
            self.tally(window, currency, amount)?;
            self.flow(window, payer, Flow { paid_count: 1, paid: amount, ..Flow::default() })?;
            self.flow(window, payee, Flow { received_count: 1, received: amount, ..Flow::default() })?;
        } else {
            self.move_tokens(seen, amount, (currency, from, Some(payer)), settlement(payee, currency))?;
            self.day(seen.day, payer, currency, amount.neg())?;
            self.day(seen.day, payee, currency, amount)?;
        }
        self.entry(seen, kind, id.uuid(), currency, amount, |entry| {
            entry.payer = Some(payer);
            entry.payee = Some(payee);
            entry.window = window;
            entry.end_to_end_id = payment.end_to_end_id;
            entry.uetr = payment.uetr;
            entry.return_of = payment.return_of;
        });
        Ok(())
    }

    fn reserve(&mut self, seen: &Seen, id: TransactionId, pending: Pending) -> Result<(), Contradiction> {
        if pending.model == SettlementModel::Gross {
            let (who, currency) = (pending.payer, pending.currency);
            self.move_tokens(seen, pending.amount, settlement(who, currency), reserved(who, currency))?;
        }
        self.wait(id, pending)
    }

    fn unreserve(&mut self, seen: &Seen, id: TransactionId) -> Result<(), Contradiction> {
        let pending = self.take(id, TransactionState::Reserved)?;
        if pending.model == SettlementModel::Gross {
            let (who, currency) = (pending.payer, pending.currency);
            self.move_tokens(seen, pending.amount, reserved(who, currency), settlement(who, currency))?;
        }
        Ok(())
    }

    fn posted(&mut self, seen: &Seen, e: &events::SettlementPosted) -> Result<(), Contradiction> {
        let mut legs = Vec::with_capacity(e.legs.len());
        for leg in &e.legs {
            let (net, back) = (minor(&leg.net, e.currency)?, minor(&leg.given_back, e.currency)?);
            if back.is_negative() {
                return Err(Contradiction(format!("{} is given back {back:?}", leg.participant)));
            }
            let (who, hub) = (leg.participant, (e.currency, Account::Multilateral, None));
            self.move_tokens(seen, net.neg().or_zero(), reserved(who, e.currency), hub)?;
            self.move_tokens(seen, net.or_zero(), hub, settlement(who, e.currency))?;
            self.move_tokens(seen, back, reserved(who, e.currency), settlement(who, e.currency))?;
            self.day(seen.day, who, e.currency, net)?;
            legs.push((who, net, back));
        }
        self.effects.posted.push(PostedPart {
            position: seen.position,
            day: seen.day,
            group: e.group_id,
            windows: e.window_ids.clone(),
            currency: e.currency,
            parts: e.parts,
            posted_at: e.posted_at,
            legs,
        });
        Ok(())
    }

    fn participant(&mut self, participant: ParticipantId, state: &'static str) -> Result<(), Contradiction> {
        self.effects.participants.insert(participant, state);
        Ok(())
    }

    fn wait(&mut self, id: TransactionId, pending: Pending) -> Result<(), Contradiction> {
        match self.effects.pending.insert(id, pending) {
            None => Ok(()),
            Some(_) => Err(Contradiction(format!("transaction {id} was accepted twice"))),
        }
    }

    fn take_any(&mut self, id: TransactionId) -> Result<Pending, Contradiction> {
        if let Some(pending) = self.effects.pending.remove(&id) {
            return Ok(pending);
        }
        let stored = self.waiting.remove(&id);
        let stored = stored.ok_or_else(|| Contradiction(format!("transaction {id} is neither HELD nor RESERVED")))?;
        self.effects.ended.insert(id);
        Ok(stored)
    }

    fn take(&mut self, id: TransactionId, state: TransactionState) -> Result<Pending, Contradiction> {
        let pending = self.take_any(id)?;
        if pending.state == state {
            Ok(pending)
        } else {
            Err(Contradiction(format!("transaction {id} is {}, not {state}", pending.state)))
        }
    }

    fn entry(
        &mut self,
        seen: &Seen,
        kind: EntryKind,
        id: Uuid,
        currency: Currency,
        amount: Minor,
        fill: impl FnOnce(&mut Entry),
    ) {
        let mut entry = Entry {
            position: seen.position,
            kind,
            id,
            currency,
            payer: None,
            payee: None,
            amount,
            window: None,
            at: seen.at,
            day: seen.day,
            end_to_end_id: String::new(),
            uetr: None,
            return_of: None,
            reference: String::new(),
        };
        fill(&mut entry);
        self.effects.entries.push(entry);
    }

    fn move_tokens(
        &mut self,
        seen: &Seen,
        amount: Minor,
        debit: AccountOf,
        credit: AccountOf,
    ) -> Result<(), Contradiction> {
        if amount.is_zero() {
            return Ok(());
        }
        for (account, change) in [(debit, amount.neg()), (credit, amount)] {
            add(&mut self.effects.balances, account, change)?;
            self.effects.movements.push(Movement { position: seen.position, account, change });
        }
        Ok(())
    }

    fn day(
        &mut self,
        day: Day,
        participant: ParticipantId,
        currency: Currency,
        change: Minor,
    ) -> Result<(), Contradiction> {
        add(&mut self.effects.days, (participant, currency, day), change)
    }

    fn flow(&mut self, window: WindowId, participant: ParticipantId, more: Flow) -> Result<(), Contradiction> {
        let flow = self.effects.flows.entry((window, participant)).or_default();
        *flow = flow.add(&more)?;
        Ok(())
    }

    fn tally(&mut self, window: WindowId, currency: Currency, amount: Minor) -> Result<(), Contradiction> {
        let tally = self.effects.tallies.entry(window).or_insert(Tally { currency, count: 0, gross: Minor::ZERO });
        if tally.currency != currency {
            return Err(Contradiction(format!("window {window} is of {} and of {currency}", tally.currency)));
        }
        tally.count += 1;
        tally.gross = tally.gross.add(amount).map_err(Contradiction::of)?;
        Ok(())
    }
}

const fn settlement(participant: ParticipantId, currency: Currency) -> AccountOf {
    (currency, Account::Settlement, Some(participant))
}

const fn reserved(participant: ParticipantId, currency: Currency) -> AccountOf {
    (currency, Account::Reserved, Some(participant))
}

fn add<K: Ord>(sums: &mut BTreeMap<K, Minor>, key: K, change: Minor) -> Result<(), Contradiction> {
    let sum = sums.entry(key).or_insert(Minor::ZERO);
    *sum = sum.add(change).map_err(Contradiction::of)?;
    Ok(())
}
