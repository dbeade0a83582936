//! Obligations: what was consumed of each window, counted exactly once.
//!
//! Sums do not depend on order. The digest does: an unbroken prefix of `window_seq` is folded into a
//! running SHA-256, and what arrives ahead of its turn waits until the gap before it is filled.

use std::collections::BTreeMap;

use deltran_events::Event;
use deltran_events::data::transactions::{SettlementModel, TransactionState};
use deltran_kernel::{Currency, Minor, ParticipantId, TransactionId, WindowId};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};

use super::netting::PairTotal;

/// A committed transaction of a window: the payer owes the payee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obligation {
    /// Its window.
    pub window: WindowId,
    /// Its dense place in the window, from 1.
    pub seq: u64,
    /// Its id.
    pub transaction: TransactionId,
    /// Who owes.
    pub payer: ParticipantId,
    /// Who is owed.
    pub payee: ParticipantId,
    /// Currency of the amount.
    pub currency: Currency,
    /// What is owed; above zero.
    pub amount: Minor,
}

/// What was consumed contradicts itself; nothing of it may be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Contradiction(pub String);

/// The obligation that an event carries, if it carries one.
///
/// # Errors
/// A committed NET transaction without a window or a place in it, or with an amount that is none.
pub fn of_event(event: &Event) -> Result<Option<Obligation>, Contradiction> {
    let (transaction, payer, payee, amount, currency, model, window, seq) = match event {
        Event::TransactionCreated(t) if t.state == TransactionState::Committed => {
            (t.transaction_id, t.payer, t.payee, &t.amount, t.currency, t.settlement_model, t.window_id, t.window_seq)
        }
        Event::TransactionCommitted(t) => {
            (t.transaction_id, t.payer, t.payee, &t.amount, t.currency, t.settlement_model, t.window_id, t.window_seq)
        }
        _ => return Ok(None),
    };
    let wrong = |what: String| Err(Contradiction(format!("transaction {transaction}: {what}")));
    let (window, seq) = match (model, window, seq) {
        (SettlementModel::Gross, None, None) => return Ok(None),
        (SettlementModel::Gross, ..) => return wrong("is GROSS and names a window".into()),
        (_, Some(window), Some(seq)) if (1..=i64::MAX as u64).contains(&seq) => (window, seq),
        (_, window, seq) => {
            return wrong(format!("is committed and NET with window {window:?} and window_seq {seq:?}"));
        }
    };
    let amount = match amount.money(currency) {
        Ok(money) if money.minor().is_positive() => money.minor(),
        Ok(money) => return wrong(format!("amount {} is not above zero", money.amount())),
        Err(error) => return wrong(error.to_string()),
    };
    if payer == payee {
        return wrong(format!("{payer} pays itself"));
    }
    Ok(Some(Obligation { window, seq, transaction, payer, payee, currency, amount }))
}

/// SHA-256 over 16-byte transaction ids, which can be put down and taken up again.
#[derive(Clone, Default)]
pub struct RunningDigest(Sha256);

impl RunningDigest {
    /// Its state, for storing.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// From its stored state; none where that is not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let state = SerializedState::<Sha256>::try_from(bytes).ok()?;
        Sha256::deserialize(&state).ok().map(Self)
    }

    /// Takes the next id in.
    pub fn push(&mut self, id: TransactionId) {
        self.0.update(id.uuid().as_bytes());
    }

    /// The digest of what was taken in so far.
    pub fn value(&self) -> [u8; 32] {
        self.0.clone().finalize().into()
    }
}

impl std::fmt::Debug for RunningDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunningDigest({})", hex::encode(self.value()))
    }
}

/// What was consumed of a window.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Its currency.
    pub currency: Currency,
    /// How many obligations.
    pub count: u64,
    /// Their sum.
    pub gross: Minor,
    /// `window_seq` 1 to this are in the digest.
    pub folded: u64,
    /// The highest `window_seq` seen.
    pub highest: u64,
    /// Over 1 to `folded`.
    pub digest: RunningDigest,
}

impl Tally {
    /// Nothing yet.
    pub fn new(currency: Currency) -> Self {
        Self { currency, count: 0, gross: Minor::ZERO, folded: 0, highest: 0, digest: RunningDigest::default() }
    }
}

/// A tally after new obligations, and what changed among those that wait.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The tally.
    pub tally: Tally,
    /// New ones that wait for those before them.
    pub waiting: BTreeMap<u64, TransactionId>,
    /// Stored ones that wait no longer.
    pub released: Vec<u64>,
}

/// Counts new obligations of one window. `stored` are those that wait from before.
///
/// # Errors
/// A `window_seq` that was counted before, or another currency than the window's.
pub fn take(
    mut tally: Tally,
    stored: &BTreeMap<u64, TransactionId>,
    new: &[Obligation],
) -> Result<Taken, Contradiction> {
    let mut waiting = BTreeMap::new();
    for obligation in new {
        let Obligation { window, seq, transaction, .. } = obligation;
        if obligation.currency != tally.currency {
            let what = format!(
                "window {window} is of {}, transaction {transaction} of {}",
                tally.currency, obligation.currency
            );
            return Err(Contradiction(what));
        }
        let seen = *seq <= tally.folded || stored.contains_key(seq) || waiting.insert(*seq, *transaction).is_some();
        if seen {
            let what =
                format!("window {window} has two transactions with window_seq {seq}: the second is {transaction}");
            return Err(Contradiction(what));
        }
        tally.count += 1;
        tally.gross = tally.gross.add(obligation.amount).map_err(|e| Contradiction(format!("window {window}: {e}")))?;
        tally.highest = tally.highest.max(*seq);
    }
    let mut released = Vec::new();
    loop {
        let seq = tally.folded + 1;
        let transaction = match (waiting.remove(&seq), stored.get(&seq)) {
            (Some(transaction), _) => transaction,
            (None, Some(transaction)) => {
                released.push(seq);
                *transaction
            }
            (None, None) => break,
        };
        tally.digest.push(transaction);
        tally.folded = seq;
    }
    Ok(Taken { tally, waiting, released })
}

/// Totals per window, payer and payee of some obligations, in that order.
///
/// # Errors
/// A sum that is out of range.
pub fn pair_totals(new: &[Obligation]) -> Result<Vec<(WindowId, Currency, PairTotal)>, Contradiction> {
    let key = |o: &Obligation| (o.window, o.currency, o.payer, o.payee);
    let mut sorted: Vec<&Obligation> = new.iter().collect();
    sorted.sort_unstable_by_key(|o| key(o));
    let mut totals: Vec<(WindowId, Currency, PairTotal)> = Vec::new();
    for same in sorted.chunk_by(|a, b| key(a) == key(b)) {
        let first = same[0];
        let gross = Minor::sum(same.iter().map(|o| o.amount)).map_err(|e| Contradiction(e.to_string()))?;
        let (payer, payee, count) = (first.payer, first.payee, same.len() as u64);
        totals.push((first.window, first.currency, PairTotal { payer, payee, count, gross }));
    }
    Ok(totals)
}

#[cfg(test)]
#[path = "obligations_tests.rs"]
mod tests;
