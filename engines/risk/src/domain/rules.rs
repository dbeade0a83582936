//! What is in force, and what will be from a time on.

use std::collections::BTreeMap;

use deltran_events::data::risk::LimitKind;
use deltran_kernel::{CommandId, Currency, Minor, ParticipantId, Timestamp};

use super::breaker::Breaker;
use super::limit::{Key, Rate, Value};
use super::scope::{Corridor, Scope};

/// An approved limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub limit_id: CommandId,
    /// What it is in force for.
    pub key: Key,
    /// How much it allows.
    pub value: Value,
    /// Since when, or from when on.
    pub due_at: Timestamp,
    /// Its place in the order of approvals.
    pub approval: u64,
}

/// An amount that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// The limit.
    pub limit_id: CommandId,
    /// The most.
    pub most: Minor,
}

/// The limits and breakers that are in force, at a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Rises with every change.
    pub version: u64,
    /// Breakers that are not CLOSED.
    pub breakers: BTreeMap<Scope, Breaker>,
    /// The largest transaction by currency, for all.
    pub maxima: BTreeMap<Currency, Minor>,
    /// The largest transaction by payer and currency.
    pub maxima_of: BTreeMap<(ParticipantId, Currency), Minor>,
    /// The largest transaction by corridor and currency.
    pub corridor_maxima: BTreeMap<(Corridor, Currency), Minor>,
    /// What may go through a corridor within 24 hours.
    pub corridor_gross: BTreeMap<(Corridor, Currency), Minor>,
    /// The most that the first may owe the second.
    pub bilateral: BTreeMap<(ParticipantId, ParticipantId, Currency), Ceiling>,
    /// Net debit caps, for alarms: the ledger enforces them.
    pub caps: BTreeMap<(ParticipantId, Currency), Ceiling>,
    /// How many transactions each payer may send.
    pub rate: Option<Rate>,
    /// How many transactions a payer may send.
    pub rates_of: BTreeMap<ParticipantId, Rate>,
    /// Approved limits whose time has not come, in the order in which it comes.
    upcoming: Vec<Entry>,
}

impl Rules {
    /// Adds an approved limit that will be in force from its time on. [`Rules::advance`] brings it there.
    pub fn expect(&mut self, entry: Entry) {
        let place = self.upcoming.partition_point(|e| (e.due_at, e.approval) <= (entry.due_at, entry.approval));
        self.upcoming.insert(place, entry);
    }

    /// Brings into force what is due. It is the same in every process that knows the same approvals.
    pub fn advance(&mut self, now: Timestamp) {
        if self.upcoming.first().is_none_or(|entry| entry.due_at > now) {
            return;
        }
        let due = self.upcoming.partition_point(|entry| entry.due_at <= now);
        let entries: Vec<Entry> = self.upcoming.drain(..due).collect();
        for entry in entries {
            self.put(&entry);
        }
    }

    /// Puts a limit into force, in the place of the one before.
    pub fn put(&mut self, entry: &Entry) {
        let Key { kind, participant, counterparty, corridor, .. } = entry.key;
        match (kind, entry.value) {
            (LimitKind::Rate, Value::Rate(rate)) => match participant {
                Some(participant) => {
                    self.rates_of.insert(participant, rate);
                }
                None => self.rate = Some(rate),
            },
            (_, Value::Amount(amount)) => {
                let (currency, most) = (amount.currency(), amount.minor());
                let ceiling = Ceiling { limit_id: entry.limit_id, most };
                let of_payer = participant.map(|p| (p, currency));
                let of_pair = participant.zip(counterparty).map(|(p, q)| (p, q, currency));
                let of_corridor = corridor.map(|c| (c, currency));
                // Keys of another shape are refused as proposals, and by the table.
                match kind {
                    LimitKind::NetDebitCap => self.caps.extend(of_payer.map(|key| (key, ceiling))),
                    LimitKind::SingleTransactionMaximum => match of_payer {
                        Some(key) => self.maxima_of.extend([(key, most)]),
                        None => self.maxima.extend([(currency, most)]),
                    },
                    LimitKind::Bilateral => self.bilateral.extend(of_pair.map(|key| (key, ceiling))),
                    LimitKind::CorridorMaximum => self.corridor_maxima.extend(of_corridor.map(|key| (key, most))),
                    LimitKind::CorridorGross => self.corridor_gross.extend(of_corridor.map(|key| (key, most))),
                    LimitKind::Rate => debug_assert!(false, "{entry:?} is no limit"),
                }
            }
            (_, Value::Rate(_)) => debug_assert!(false, "{entry:?} is no limit"),
        }
    }

    /// Where what is counted decides: the smallest scopes that cover every transaction that a limit on counted
    /// data can stop.
    pub fn counted_scopes(&self) -> Vec<Scope> {
        let currencies = self.bilateral.keys().map(|(.., currency)| Scope::Currency(*currency));
        let corridors = self.corridor_gross.keys().map(|(corridor, _)| Scope::Corridor(*corridor));
        let payers = self.rates_of.keys().map(|participant| Scope::Participant(*participant));
        let mut scopes: Vec<Scope> =
            self.rate.map(|_| Scope::Global).into_iter().chain(currencies).chain(corridors).chain(payers).collect();
        scopes.sort();
        scopes.dedup();
        scopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltran_kernel::Money;
    use uuid::Uuid;

    fn maximum(n: u128, units: i128, due: i64) -> Entry {
        let usd = Currency::new("USD").unwrap();
        let kind = LimitKind::SingleTransactionMaximum;
        Entry {
            limit_id: CommandId::new(Uuid::from_u128(n)),
            key: Key { kind, participant: None, counterparty: None, corridor: None, currency: Some(usd) },
            value: Value::Amount(Money::new(Minor::new(units).unwrap(), usd)),
            due_at: Timestamp::from_micros(due),
            approval: n as u64,
        }
    }

    #[test]
    fn limits_take_effect_in_the_order_of_their_times() {
        let mut rules = Rules::default();
        rules.put(&maximum(1, 10, 0));
        for entry in [maximum(2, 20, 200), maximum(3, 30, 100), maximum(4, 40, 100)] {
            rules.expect(entry);
        }
        let usd = Currency::new("USD").unwrap();
        for (now, units) in [(99, 10), (100, 40), (199, 40), (200, 20), (500, 20), (0, 20)] {
            rules.advance(Timestamp::from_micros(now));
            assert_eq!(rules.maxima[&usd].units(), units, "at {now}");
        }
    }
}
