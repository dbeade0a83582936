//! What may still come: transactions that passed the gate and have not come back in an event, and
//! reservations of the ledger. They count in full until it is known what became of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use deltran_kernel::{Currency, ParticipantId, TransactionId, WindowId};

use super::count::{Fact, Payment};
use super::scope::Corridor;

/// How many transactions may be under way at once before those that are not tracked make counted data
/// unusable.
const MOST: usize = 500_000;
/// So many places of the queue may mean nothing before it is tidied.
const SPARE_PLACES: usize = 1_024;
/// How many ids are remembered that the ledger has decided.
const REMEMBERED: usize = 200_000;

/// The call of the gate in which something passed, in the order of the ledger's terms, turns and calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ticket {
    /// The epoch of the ledger's writer.
    pub term: u64,
    /// The turn within it.
    pub turn: u64,
    /// The call.
    pub call: u64,
}

/// A transaction that may still be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// Who pays whom.
    pub payment: Payment,
    /// Whether it settles GROSS.
    pub gross: bool,
    /// The only window that it may be committed in; any where none.
    pub window: Option<WindowId>,
    /// The call in which it passed.
    pub ticket: Ticket,
    /// Whether it was released from HELD: that it is HELD then ends nothing.
    pub release: bool,
}

/// Everything under way, with sums.
#[derive(Debug, Clone, Default)]
pub struct Flight {
    passed: HashMap<TransactionId, Passage>,
    order: VecDeque<(Ticket, TransactionId)>,
    reserved: HashMap<TransactionId, Passage>,
    decided: HashSet<TransactionId>,
    decided_order: VecDeque<TransactionId>,
    sums: Totals,
    /// The last call in which something passed that is not tracked here.
    blind: Option<Ticket>,
}

/// Sums over everything under way; `i128` are minor units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Totals {
    pairs: HashMap<(ParticipantId, ParticipantId, Currency), i128>,
    in_window: HashMap<(ParticipantId, ParticipantId, WindowId), i128>,
    out: HashMap<(ParticipantId, Currency), i128>,
    into: HashMap<(ParticipantId, Currency), i128>,
    corridors: HashMap<(Corridor, Currency), i128>,
    counts: HashMap<ParticipantId, i128>,
}

fn change<K: Eq + Hash>(map: &mut HashMap<K, i128>, key: K, by: i128) {
    use std::collections::hash_map::Entry;
    match map.entry(key) {
        Entry::Occupied(mut entry) => {
            *entry.get_mut() += by;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        Entry::Vacant(entry) if by != 0 => drop(entry.insert(by)),
        Entry::Vacant(_) => {}
    }
}

fn value<K: Eq + Hash>(map: &HashMap<K, i128>, key: &K) -> i128 {
    map.get(key).copied().unwrap_or(0)
}

impl Totals {
    /// Adds what is under way, or takes it away. Reservations were counted as transactions when they were
    /// accepted.
    fn change(&mut self, passage: &Passage, sign: i128, counts: bool) {
        let Payment { payer, payee, .. } = passage.payment;
        let (currency, units) = (passage.payment.currency(), passage.payment.units() * sign);
        change(&mut self.corridors, (passage.payment.corridor(), currency), units);
        if counts {
            change(&mut self.counts, payer, sign);
        }
        if passage.gross {
            return;
        }
        change(&mut self.out, (payer, currency), units);
        change(&mut self.into, (payee, currency), units);
        match passage.window {
            Some(window) => change(&mut self.in_window, (payer, payee, window), units),
            None => change(&mut self.pairs, (payer, payee, currency), units),
        }
    }
}

impl Flight {
    /// A transaction that passed and has not come back.
    pub fn passed(&self, id: TransactionId) -> Option<&Passage> {
        self.passed.get(&id)
    }

    /// Whether the ledger is known to have decided a transaction for good.
    pub fn is_decided(&self, id: TransactionId) -> bool {
        self.decided.contains(&id)
    }

    /// How many transactions have passed and not come back.
    pub fn len(&self) -> usize {
        self.passed.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.passed.is_empty()
    }

    /// Counts a transaction that passes.
    pub fn pass(&mut self, id: TransactionId, passage: Passage) {
        if self.passed.len() >= MOST {
            self.blind = self.blind.max(Some(passage.ticket));
            return;
        }
        self.sums.change(&passage, 1, true);
        self.order.push_back((passage.ticket, id));
        if let Some(before) = self.passed.insert(id, passage) {
            self.sums.change(&before, -1, true);
        }
        // Places of what came back or passed anew mean nothing any more; where nothing expires they would pile up.
        if self.order.len() > 2 * self.passed.len() + SPARE_PLACES {
            let passed = &self.passed;
            self.order.retain(|(ticket, id)| passed.get(id).is_some_and(|passage| passage.ticket == *ticket));
        }
    }

    /// Whether something passed that was too much to be tracked.
    pub fn is_blind(&self) -> bool {
        self.blind.is_some()
    }

    /// Takes a transaction back that passed.
    pub fn take(&mut self, id: TransactionId) -> Option<Passage> {
        let passage = self.passed.remove(&id)?;
        self.sums.change(&passage, -1, true);
        Some(passage)
    }

    /// Follows what became of a transaction.
    pub fn follow(&mut self, fact: &Fact) {
        match fact {
            Fact::Committed { id, .. } | Fact::Refused { id, .. } | Fact::Ended { id } => {
                self.take(*id);
                self.unreserve(*id);
                self.remember(*id);
            }
            Fact::Reserved { id, payment, gross, .. } => {
                self.take(*id);
                self.remember(*id);
                self.reserve(*id, *payment, *gross);
            }
            Fact::Held { id } => self.held(*id),
            Fact::Sealed { .. } | Fact::Settled { .. } => {}
        }
    }

    /// Knows that a transaction has come back, where what became of it is known otherwise.
    pub fn seen(&mut self, fact: &Fact) {
        match fact {
            Fact::Committed { id, .. } | Fact::Refused { id, .. } | Fact::Ended { id } | Fact::Reserved { id, .. } => {
                self.take(*id);
                self.remember(*id);
            }
            Fact::Held { id } => self.held(*id),
            Fact::Sealed { .. } | Fact::Settled { .. } => {}
        }
    }

    /// Knows of a reservation of the ledger.
    pub fn reserve(&mut self, id: TransactionId, payment: Payment, gross: bool) {
        self.unreserve(id);
        let passage = Passage { payment, gross, window: None, ticket: Ticket::default(), release: false };
        self.sums.change(&passage, 1, false);
        self.reserved.insert(id, passage);
    }

    fn held(&mut self, id: TransactionId) {
        if self.passed.get(&id).is_some_and(|passage| !passage.release) {
            self.take(id);
        }
    }

    fn unreserve(&mut self, id: TransactionId) {
        if let Some(passage) = self.reserved.remove(&id) {
            self.sums.change(&passage, -1, false);
        }
    }

    /// Forgets every reservation, to learn them anew.
    pub fn unreserve_all(&mut self) {
        for (_, passage) in std::mem::take(&mut self.reserved) {
            self.sums.change(&passage, -1, false);
        }
    }

    fn remember(&mut self, id: TransactionId) {
        if self.decided.insert(id) {
            self.decided_order.push_back(id);
            if self.decided_order.len() > REMEMBERED
                && let Some(oldest) = self.decided_order.pop_front()
            {
                self.decided.remove(&oldest);
            }
        }
    }

    /// Drops what passed in calls up to this one: it has been counted, or will never be committed.
    pub fn expire(&mut self, until: Ticket) {
        while let Some((ticket, id)) = self.order.front().copied().filter(|(ticket, _)| *ticket <= until) {
            self.order.pop_front();
            if self.passed.get(&id).is_some_and(|passage| passage.ticket == ticket) {
                self.take(id);
            }
        }
        self.blind = self.blind.filter(|ticket| *ticket > until);
    }

    /// What the first may still come to owe the second in any window, NET.
    pub fn of_pair(&self, payer: ParticipantId, payee: ParticipantId, currency: Currency) -> i128 {
        value(&self.sums.pairs, &(payer, payee, currency))
    }

    /// What the first may still come to owe the second in one window and in no other.
    pub fn in_window(&self, payer: ParticipantId, payee: ParticipantId, window: WindowId) -> i128 {
        value(&self.sums.in_window, &(payer, payee, window))
    }

    /// What a participant may still come to owe, NET.
    pub fn going_out(&self, participant: ParticipantId, currency: Currency) -> i128 {
        value(&self.sums.out, &(participant, currency))
    }

    /// What a participant may still come to be owed, NET.
    pub fn coming_in(&self, participant: ParticipantId, currency: Currency) -> i128 {
        value(&self.sums.into, &(participant, currency))
    }

    /// What may still go through a corridor.
    pub fn through(&self, corridor: Corridor, currency: Currency) -> i128 {
        value(&self.sums.corridors, &(corridor, currency))
    }

    /// How many transactions of a payer may still be accepted.
    pub fn count_of(&self, payer: ParticipantId) -> u64 {
        u64::try_from(value(&self.sums.counts, &payer)).unwrap_or(0)
    }

    /// Reservations by payer, payee and currency, NET: what counts against caps and bilateral limits.
    pub fn reserved_net(&self) -> HashMap<(ParticipantId, ParticipantId, Currency), i128> {
        let mut sums = HashMap::new();
        for Passage { payment, .. } in self.reserved.values().filter(|p| !p.gross) {
            *sums.entry((payment.payer, payment.payee, payment.currency())).or_default() += payment.units();
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltran_kernel::{Minor, Money, Timestamp};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn call(call: u64) -> Ticket {
        Ticket { term: 1, turn: 1, call }
    }

    fn passage(units: i128, gross: bool, window: Option<u128>, at: u64) -> Passage {
        let usd = Currency::new("USD").unwrap();
        Passage {
            payment: Payment {
                payer: "ALFAAEXX".parse().unwrap(),
                payee: "BRAVINXX".parse().unwrap(),
                amount: Money::new(Minor::new(units).unwrap(), usd),
            },
            gross,
            window: window.map(|n| WindowId::new(Uuid::from_u128(n))),
            ticket: call(at),
            release: false,
        }
    }

    fn id(n: u128) -> TransactionId {
        TransactionId::new(Uuid::from_u128(n))
    }

    #[test]
    fn what_is_under_way_counts_until_it_is_known() {
        let mut flight = Flight::default();
        let net = passage(60, false, None, 1);
        let Payment { payer, payee, .. } = net.payment;
        let usd = net.payment.currency();
        flight.pass(id(1), net);
        flight.pass(id(2), passage(5, false, Some(9), 1));
        flight.pass(id(3), passage(7, true, None, 1));
        let window = WindowId::new(Uuid::from_u128(9));
        assert_eq!((flight.of_pair(payer, payee, usd), flight.in_window(payer, payee, window)), (60, 5));
        assert_eq!((flight.going_out(payer, usd), flight.coming_in(payee, usd), flight.count_of(payer)), (65, 65, 3));
        assert_eq!(flight.through(net.payment.corridor(), usd), 72);
        let at = Timestamp::default();
        flight.follow(&Fact::Reserved { id: id(1), payment: net.payment, gross: false, at });
        assert_eq!(
            (flight.of_pair(payer, payee, usd), flight.count_of(payer)),
            (60, 2),
            "still owed, but counted once"
        );
        assert_eq!(flight.reserved_net()[&(payer, payee, usd)], 60);
        flight.follow(&Fact::Ended { id: id(1) });
        flight.follow(&Fact::Held { id: id(2) });
        flight.follow(&Fact::Refused { id: id(3), decision: None, at });
        assert_eq!(flight.sums, Totals::default(), "nothing is left");
        assert!(flight.is_decided(id(1)) && !flight.is_decided(id(2)) && flight.is_decided(id(3)));
    }

    #[test]
    fn what_never_came_back_expires() {
        let mut flight = Flight::default();
        flight.pass(id(1), passage(1, false, None, 10));
        flight.pass(id(2), passage(1, false, None, 20));
        // Passed anew: its earlier place in the queue means nothing any more.
        flight.pass(id(1), passage(1, false, None, 30));
        for (until, left) in [(9, 2), (10, 2), (20, 1), (29, 1), (30, 0)] {
            flight.expire(call(until));
            assert_eq!(flight.len(), left, "{until}");
        }
        assert_eq!(flight.sums, Totals::default());
        // A later turn ends whatever passed in an earlier one, whatever its calls were numbered.
        flight.pass(id(1), passage(1, false, None, 99));
        flight.expire(Ticket { term: 1, turn: 2, call: 0 });
        assert!(flight.is_empty());
    }

    /// What passes again and again while nothing expires takes no more room.
    #[test]
    fn places_in_the_queue_do_not_pile_up() {
        let mut flight = Flight::default();
        for at in 0..20_000 {
            flight.pass(id(u128::from(at % 3)), passage(1, false, None, at));
        }
        assert!(flight.order.len() <= 2 * 3 + SPARE_PLACES + 1, "{}", flight.order.len());
        flight.expire(call(19_998));
        assert_eq!(flight.len(), 1, "the latest place of each counts");
    }

    /// More than can be tracked makes counted data unusable until it is known what became of it.
    #[test]
    fn too_many_are_not_forgotten() {
        let mut flight = Flight::default();
        for n in 0..MOST as u128 {
            flight.pass(id(n), passage(1, false, None, 1));
        }
        assert!(!flight.is_blind());
        flight.pass(id(MOST as u128), passage(1, false, None, 2));
        assert_eq!((flight.is_blind(), flight.len()), (true, MOST));
        flight.expire(call(1));
        assert_eq!((flight.is_blind(), flight.len()), (true, 0));
        flight.expire(call(2));
        assert!(!flight.is_blind());
    }

    proptest! {
        /// Sums are those of what is under way, along every path.
        #[test]
        fn sums_are_exact(steps in prop::collection::vec((0u128..6, 0u8..6, 1i128..100, any::<bool>()), 0..80)) {
            let mut flight = Flight::default();
            for (at, (n, step, units, gross)) in steps.into_iter().enumerate() {
                let passage = passage(units, gross, (units % 3 == 0).then_some(9), at as u64);
                let (id, until, at) = (id(n), call((at as u64).saturating_sub(3)), Timestamp::default());
                match step {
                    0 | 1 => flight.pass(id, passage),
                    2 => flight.follow(&Fact::Reserved { id, payment: passage.payment, gross, at }),
                    3 => {
                        let payment = passage.payment;
                        flight.follow(&Fact::Committed { id, payment, window: None, at, first: true });
                    }
                    4 => flight.follow(&Fact::Held { id }),
                    _ => flight.expire(until),
                }
                let mut expected = Totals::default();
                flight.passed.values().for_each(|p| expected.change(p, 1, true));
                flight.reserved.values().for_each(|p| expected.change(p, 1, false));
                prop_assert_eq!(&flight.sums, &expected);
            }
        }
    }
}
