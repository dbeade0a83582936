//! Random days of a small ledger: whatever the batches and redeliveries, the read models equal a naive reference
//! that books every posting, at the end and at every position before.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::Event;
use deltran_events::data::transactions as data;
use deltran_events::data::transactions::{SettlementModel, TransactionState};
use deltran_kernel::{
    Currency, EventId, Minor, Money, ParticipantId, PostingGroupId, Timestamp, TransactionId, WindowId, WithdrawalId,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::book::{Account, AccountOf, Effects, Entry, EntryKind, Flow, Movement, Pending, Tally};
use super::day::Day;
use super::fold::{Seen, fold, needs};
use super::position::Position;
use super::statement::{Line, Sum};

const BANKS: [&str; 4] = ["ALFAAEXX", "BRAVINXX", "CHARGB2L", "DELTUS33"];

fn bank(n: usize) -> ParticipantId {
    BANKS[n % BANKS.len()].parse().unwrap()
}

fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

fn amount(units: i128) -> deltran_events::Amount {
    Money::new(Minor::new(units).unwrap(), usd()).into()
}

/// An account of the naive reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Hub(&'static str),
    Tokens(ParticipantId),
    Locked(ParticipantId),
    Owes(ParticipantId, WindowId),
}

#[derive(Debug, Clone)]
struct Open {
    id: TransactionId,
    payer: ParticipantId,
    payee: ParticipantId,
    units: i128,
    gross: bool,
    state: TransactionState,
}

/// A ledger that books postings one by one and says what it did.
#[derive(Default)]
struct Naive {
    accounts: BTreeMap<Key, i128>,
    /// After each event.
    history: Vec<BTreeMap<Key, i128>>,
    events: Vec<Seen>,
    now: i64,
    ids: u128,
    waiting: Vec<Open>,
    withdrawals: Vec<(WithdrawalId, ParticipantId, i128)>,
    window: Option<WindowId>,
    seqs: BTreeMap<WindowId, u64>,
    sealed: Vec<WindowId>,
    locked_for: BTreeMap<(WindowId, ParticipantId), i128>,
}

#[derive(Debug, Clone)]
enum Op {
    Deposit { who: usize, units: i128 },
    Submit { from: usize, to: usize, units: i128, gross: bool, state: TransactionState },
    Resolve { which: usize, how: u8 },
    Withdraw { who: usize, units: i128 },
    EndWithdrawal { which: usize, confirm: bool },
    Seal,
    Earmark,
    Settle { two: bool },
    Wait { hours: i64 },
}

fn op() -> impl Strategy<Value = Op> {
    let state = prop_oneof![
        4 => Just(TransactionState::Committed), 1 => Just(TransactionState::Reserved), 1 => Just(TransactionState::Held)
    ];
    prop_oneof![
        2 => (0..4usize, 1..900i128).prop_map(|(who, units)| Op::Deposit { who, units }),
        9 => (0..4usize, 1..4usize, 1..300i128, any::<bool>(), state).prop_map(
            |(from, by, units, gross, state)| Op::Submit { from, to: from + by, units, gross, state }),
        4 => (any::<usize>(), 0..5u8).prop_map(|(which, how)| Op::Resolve { which, how }),
        1 => (0..4usize, 1..300i128).prop_map(|(who, units)| Op::Withdraw { who, units }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, confirm)| Op::EndWithdrawal { which, confirm }),
        2 => Just(Op::Seal),
        1 => Just(Op::Earmark),
        2 => any::<bool>().prop_map(|two| Op::Settle { two }),
        1 => (1..20i64).prop_map(|hours| Op::Wait { hours }),
    ]
}

impl Naive {
    fn of(&self, key: Key) -> i128 {
        self.accounts.get(&key).copied().unwrap_or(0)
    }

    fn post(&mut self, debit: Key, credit: Key, units: i128) {
        *self.accounts.entry(debit).or_default() -= units;
        *self.accounts.entry(credit).or_default() += units;
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn say(&mut self, event: impl Into<Event>) {
        self.now += 1;
        let at = Timestamp::from_micros(self.now);
        let position = Position { epoch: 1, seq: self.events.len() as u64 + 1 };
        let day = Day::of(at, &jiff::tz::TimeZone::UTC);
        let id = EventId::new(self.id());
        self.events.push(Seen { position, id, at, day, event: event.into() });
        self.history.push(self.accounts.clone());
    }

    fn place(&mut self) -> (WindowId, u64) {
        let window = match self.window {
            Some(window) => window,
            None => *self.window.insert(WindowId::new(Uuid::from_u128(1 << 100 | self.ids))),
        };
        let seq = self.seqs.entry(window).or_default();
        *seq += 1;
        (window, *seq)
    }

    /// Books a payment; its window, where it has one.
    fn commit(&mut self, open: &Open, from: Key) -> Option<(WindowId, u64)> {
        if open.gross {
            self.post(from, Key::Tokens(open.payee), open.units);
            return None;
        }
        let place = self.place();
        self.post(Key::Owes(open.payer, place.0), Key::Owes(open.payee, place.0), open.units);
        Some(place)
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Deposit { who, units } => {
                let participant = bank(who);
                self.post(Key::Hub("SAFEGUARD"), Key::Tokens(participant), units);
                let reference = "R".into();
                self.say(data::DepositConfirmed { participant, amount: amount(units), currency: usd(), reference });
            }
            Op::Submit { from, to, units, gross, state } => self.submit(bank(from), bank(to), units, gross, state),
            Op::Resolve { which, how } if !self.waiting.is_empty() => {
                let at = which % self.waiting.len();
                self.resolve(at, how);
            }
            Op::Withdraw { who, units } if self.of(Key::Tokens(bank(who))) >= units => {
                let (participant, withdrawal_id) = (bank(who), WithdrawalId::new(self.id()));
                self.post(Key::Tokens(participant), Key::Locked(participant), units);
                self.withdrawals.push((withdrawal_id, participant, units));
                let (amount, reference) = (amount(units), String::new());
                self.say(data::WithdrawalRequested { withdrawal_id, participant, amount, currency: usd(), reference });
            }
            Op::EndWithdrawal { which, confirm } if !self.withdrawals.is_empty() => {
                let at = which % self.withdrawals.len();
                let (withdrawal_id, participant, units) = self.withdrawals.remove(at);
                let (amount, currency) = (amount(units), usd());
                if confirm {
                    self.post(Key::Locked(participant), Key::Hub("SAFEGUARD"), units);
                    let reference = "OUT".into();
                    self.say(data::WithdrawalConfirmed { withdrawal_id, participant, amount, currency, reference });
                } else {
                    self.post(Key::Locked(participant), Key::Tokens(participant), units);
                    let reason = "bank".into();
                    self.say(data::WithdrawalFailed { withdrawal_id, participant, amount, currency, reason });
                }
            }
            Op::Seal => self.seal(),
            Op::Earmark => {
                for window in self.sealed.clone() {
                    self.earmark(window);
                }
            }
            Op::Settle { two } => self.settle(if two { 2 } else { 1 }),
            Op::Wait { hours } => self.now += hours * 3_600_000_000,
            _ => {}
        }
    }

    fn submit(
        &mut self,
        payer: ParticipantId,
        payee: ParticipantId,
        units: i128,
        gross: bool,
        state: TransactionState,
    ) {
        if payer == payee || gross && self.of(Key::Tokens(payer)) < units {
            return;
        }
        let id = TransactionId::new(self.id());
        let open = Open { id, payer, payee, units, gross, state };
        let mut place = None;
        match state {
            TransactionState::Committed => place = self.commit(&open, Key::Tokens(payer)),
            TransactionState::Reserved if gross => self.post(Key::Tokens(payer), Key::Locked(payer), units),
            _ => {}
        }
        if state != TransactionState::Committed {
            self.waiting.push(open);
        }
        let model = if gross { SettlementModel::Gross } else { SettlementModel::NetMultilateral };
        let json = serde_json::json!({
            "transaction_id": id, "payer": payer, "payee": payee, "amount": amount(units), "currency": "USD",
            "settlement_model": model, "state": state, "window_id": place.map(|p| p.0), "window_seq": place.map(|p| p.1),
            "end_to_end_id": format!("E{}", self.ids),
            "evidence": {"screening": "APPROVE", "screening_evidence": "no_match", "list_versions": [],
                "rule_version": "1", "risk_version": 1}
        });
        self.say(serde_json::from_value::<data::TransactionCreated>(json).unwrap());
    }

    fn resolve(&mut self, at: usize, how: u8) {
        let open = self.waiting.remove(at);
        let Open { id, payer, payee, units, gross, state } = open.clone();
        let (value, currency, reason) = (amount(units), usd(), String::new());
        let held = state == TransactionState::Held;
        match how {
            // Released to RESERVED, where the payer still has the tokens.
            0 if held && (!gross || self.of(Key::Tokens(payer)) >= units) => {
                if gross {
                    self.post(Key::Tokens(payer), Key::Locked(payer), units);
                }
                self.waiting.push(Open { state: TransactionState::Reserved, ..open });
                self.say(data::TransactionReleased { transaction_id: id, state: TransactionState::Reserved, reason });
            }
            1 | 2 if !held || !gross || self.of(Key::Tokens(payer)) >= units => {
                let from = if held { Key::Tokens(payer) } else { Key::Locked(payer) };
                let place = self.commit(&open, from);
                self.say(data::TransactionCommitted {
                    transaction_id: id,
                    payer,
                    payee,
                    amount: value,
                    currency,
                    settlement_model: if gross { SettlementModel::Gross } else { SettlementModel::NetMultilateral },
                    window_id: place.map(|p| p.0),
                    window_seq: place.map(|p| p.1),
                });
                if held {
                    let state = TransactionState::Committed;
                    self.say(data::TransactionReleased { transaction_id: id, state, reason });
                }
            }
            _ if held => {
                self.say(data::TransactionRejected {
                    transaction_id: id,
                    payer,
                    payee,
                    amount: value,
                    currency,
                    reason: "compliance".into(),
                    message: String::new(),
                    was_held: true,
                });
            }
            how => {
                if gross {
                    self.post(Key::Locked(payer), Key::Tokens(payer), units);
                }
                if how == 3 {
                    let transaction_id = id;
                    self.say(data::TransactionCancelled {
                        transaction_id,
                        payer,
                        payee,
                        amount: value,
                        currency,
                        reason,
                    });
                } else {
                    let expired_at = Timestamp::from_micros(self.now);
                    let transaction_id = id;
                    self.say(data::TransactionExpired {
                        transaction_id,
                        payer,
                        payee,
                        amount: value,
                        currency,
                        expired_at,
                    });
                }
            }
        }
    }

    fn seal(&mut self) {
        let Some(window) = self.window.take() else { return };
        self.sealed.push(window);
        let count = self.seqs[&window];
        let payments = self.events.iter().filter_map(|seen| match &seen.event {
            Event::TransactionCreated(e) if e.window_id == Some(window) => Some(e.amount.money(usd()).unwrap()),
            Event::TransactionCommitted(e) if e.window_id == Some(window) => Some(e.amount.money(usd()).unwrap()),
            _ => None,
        });
        let gross: i128 = payments.map(|m| m.minor().units()).sum();
        self.say(data::WindowSealed {
            window_id: window,
            currency: usd(),
            count,
            gross: amount(gross),
            digest: "d".into(),
            next_window_id: None,
        });
        self.earmark(window);
    }

    fn earmark(&mut self, window: WindowId) {
        let mut earmarks = Vec::new();
        for n in 0..BANKS.len() {
            let who = bank(n);
            let locked = self.locked_for.get(&(window, who)).copied().unwrap_or(0);
            let units = (-self.of(Key::Owes(who, window)) - locked).min(self.of(Key::Tokens(who)));
            if units > 0 {
                self.post(Key::Tokens(who), Key::Locked(who), units);
                *self.locked_for.entry((window, who)).or_default() += units;
                earmarks.push(data::Earmark { participant: who, amount: amount(units) });
            }
        }
        if !earmarks.is_empty() {
            self.say(data::WindowEarmarked { window_id: window, currency: usd(), earmarks });
        }
    }

    fn settle(&mut self, most: usize) {
        let windows: Vec<WindowId> = self.sealed.iter().copied().take(most).collect();
        let locked = |who, s: &Self| windows.iter().map(|w| s.locked_for.get(&(*w, who)).copied().unwrap_or(0)).sum();
        let net = |who, s: &Self| windows.iter().map(|w| s.of(Key::Owes(who, *w))).sum::<i128>();
        let all: Vec<(ParticipantId, i128, i128)> = (0..BANKS.len())
            .map(bank)
            .filter(|who| windows.iter().any(|w| self.accounts.contains_key(&Key::Owes(*who, *w))))
            .map(|who| (who, net(who, self), locked(who, self)))
            .collect();
        if windows.is_empty() || all.iter().any(|(_, net, locked)| *locked < -net) {
            return;
        }
        self.sealed.retain(|w| !windows.contains(w));
        let hub = Key::Hub("MULTILATERAL");
        for (who, net, locked) in &all {
            self.post(Key::Locked(*who), hub, (-net).max(0));
            self.post(Key::Locked(*who), Key::Tokens(*who), locked - (-net).max(0));
            self.post(hub, Key::Tokens(*who), (*net).max(0));
            for window in &windows {
                self.accounts.insert(Key::Owes(*who, *window), 0);
            }
        }
        let legs = all.iter().map(|(who, net, locked)| data::SettledLeg {
            participant: *who,
            net: amount(*net),
            given_back: amount(locked - (-net).max(0)),
        });
        // Two legs an event, as a large settlement would have it.
        let legs: Vec<data::SettledLeg> = legs.collect();
        let group_id = PostingGroupId::new(self.id());
        let (parts, posted_at) = (legs.len().div_ceil(2).max(1), Timestamp::from_micros(self.now));
        for part in 0..parts {
            self.say(data::SettlementPosted {
                group_id,
                window_ids: windows.clone(),
                currency: usd(),
                part: part as u32 + 1,
                parts: parts as u32,
                legs: legs.iter().skip(part * 2).take(2).cloned().collect(),
                posted_at,
            });
        }
    }
}

/// What the tables hold.
#[derive(Debug, Default, Clone, PartialEq)]
struct Tables {
    entries: Vec<Entry>,
    movements: Vec<Movement>,
    balances: BTreeMap<AccountOf, Minor>,
    flows: BTreeMap<(WindowId, ParticipantId), Flow>,
    tallies: BTreeMap<WindowId, Tally>,
    days: BTreeMap<(ParticipantId, Currency, Day), Minor>,
    pending: BTreeMap<TransactionId, Pending>,
    posted: BTreeMap<WindowId, (u32, u32, Position, Day)>,
    legs: BTreeMap<(PostingGroupId, ParticipantId), Minor>,
    sealed: BTreeMap<WindowId, (u64, Minor)>,
}

impl Tables {
    fn apply(&mut self, effects: Effects) {
        self.entries.extend(effects.entries);
        self.movements.extend(effects.movements);
        for (key, change) in effects.balances {
            let sum = self.balances.entry(key).or_default();
            *sum = sum.add(change).unwrap();
        }
        for (key, more) in effects.flows {
            let flow = self.flows.entry(key).or_default();
            *flow = flow.add(&more).unwrap();
        }
        for (window, more) in effects.tallies {
            let tally =
                self.tallies.entry(window).or_insert(Tally { currency: more.currency, count: 0, gross: Minor::ZERO });
            tally.count += more.count;
            tally.gross = tally.gross.add(more.gross).unwrap();
        }
        for (key, change) in effects.days {
            let sum = self.days.entry(key).or_default();
            *sum = sum.add(change).unwrap();
        }
        self.pending.retain(|id, _| !effects.ended.contains(id));
        self.pending.extend(effects.pending);
        for sealed in effects.sealed {
            self.sealed.insert(sealed.window, (sealed.count, sealed.gross));
        }
        for part in effects.posted {
            for window in &part.windows {
                let entry = self.posted.entry(*window).or_insert((0, part.parts, part.position, part.day));
                *entry = (entry.0 + 1, part.parts, part.position, part.day);
            }
            for (who, net, _) in part.legs {
                assert_eq!(self.legs.insert((part.group, who), net), None, "a leg twice");
            }
        }
    }

    fn receive(&mut self, batch: &[Seen], received: &mut BTreeSet<Position>) {
        let new: Vec<Seen> = batch.iter().filter(|seen| received.insert(seen.position)).cloned().collect();
        let waiting = new.iter().filter_map(|seen| needs(&seen.event));
        let waiting = waiting.filter_map(|id| Some((id, self.pending.get(&id)?.clone()))).collect();
        let effects = fold(&new, waiting).unwrap_or_else(|e| panic!("{e}"));
        self.apply(effects);
    }

    /// Balances after the event at a position, from those at the end and what came after.
    fn as_of(&self, position: Position) -> BTreeMap<Key, i128> {
        let mut balances = BTreeMap::new();
        let key = |(_, account, who): AccountOf| match (account, who) {
            (Account::Settlement, Some(who)) => Key::Tokens(who),
            (Account::Reserved, Some(who)) => Key::Locked(who),
            (account, _) => Key::Hub(account.as_str()),
        };
        for (account, balance) in &self.balances {
            *balances.entry(key(*account)).or_default() += balance.units();
        }
        for later in self.movements.iter().filter(|m| m.position > position) {
            *balances.entry(key(later.account)).or_default() -= later.change.units();
        }
        let open = |w: &WindowId| self.posted.get(w).is_none_or(|(n, parts, at, _)| n < parts || *at > position);
        for ((window, who), flow) in self.flows.iter().filter(|((w, _), _)| open(w)) {
            *balances.entry(Key::Owes(*who, *window)).or_default() += flow.net().unwrap().units();
        }
        for entry in self.entries.iter().filter(|e| e.position > position) {
            let Some((window, _)) = entry.window.filter(|(w, _)| open(w)) else { continue };
            *balances.entry(Key::Owes(entry.payer.unwrap(), window)).or_default() += entry.amount.units();
            *balances.entry(Key::Owes(entry.payee.unwrap(), window)).or_default() -= entry.amount.units();
        }
        balances.retain(|_, units| *units != 0);
        balances
    }
}

fn nonzero(accounts: &BTreeMap<Key, i128>) -> BTreeMap<Key, i128> {
    accounts.iter().filter(|(_, units)| **units != 0).map(|(key, units)| (*key, *units)).collect()
}

/// Every statement of every day: opening and entries are the closing, which is what the reference had.
fn statements(tables: &Tables, naive: &Naive) {
    let days: BTreeSet<Day> = naive.events.iter().map(|seen| seen.day).collect();
    for who in (0..BANKS.len()).map(bank) {
        let mut balance = Minor::ZERO;
        for day in &days {
            let settled = |w: &WindowId| tables.posted.get(w).is_some_and(|(n, parts, _, on)| n == parts && on == day);
            let mut sum = Sum::default();
            for entry in &tables.entries {
                let on_day = match entry.window {
                    Some((window, _)) => settled(&window),
                    None => entry.day == *day,
                };
                if on_day && (entry.payer == Some(who) || entry.payee == Some(who)) {
                    sum.take(&Line::of(1, entry.clone(), who, None).unwrap()).unwrap();
                }
            }
            let change = tables.days.get(&(who, usd(), *day)).copied().unwrap_or_default();
            let closing = balance.add(change).unwrap();
            let mut flow = Flow::default();
            for ((window, _), more) in tables.flows.iter().filter(|((w, p), _)| *p == who && settled(w)) {
                assert!(tables.sealed.contains_key(window));
                flow = flow.add(more).unwrap();
            }
            for entry in tables.entries.iter().filter(|e| e.day == *day && e.kind != EntryKind::Net) {
                let line = |amount: Minor| Flow { paid_count: 1, paid: amount, ..Flow::default() };
                if entry.payer == Some(who) {
                    flow = flow.add(&line(entry.amount)).unwrap();
                } else if entry.payee == Some(who) {
                    let received = Flow { received_count: 1, received: entry.amount, ..Flow::default() };
                    flow = flow.add(&received).unwrap();
                }
            }
            let head = super::statement::tests::head(balance.units(), closing.units(), flow);
            sum.check(&head).unwrap_or_else(|e| panic!("{who} {day}: {e}"));
            let last = naive.events.iter().rposition(|seen| seen.day == *day).unwrap();
            let had = |key| naive.history[last].get(&key).copied().unwrap_or(0);
            assert_eq!(closing.units(), had(Key::Tokens(who)) + had(Key::Locked(who)), "{who} {day}");
            balance = closing;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_days_under_redelivery_equal_the_reference(
        ops in prop::collection::vec(op(), 1..120), cuts in prop::collection::vec((1..9usize, any::<bool>()), 1..80)
    ) {
        let mut naive = Naive { now: 1_774_000_000_000_000, ..Naive::default() };
        for op in &ops {
            naive.run(op);
        }
        let (mut tables, mut received) = (Tables::default(), BTreeSet::new());
        let (mut from, mut cuts) = (0, cuts.iter().cycle());
        while from < naive.events.len() {
            let (size, again) = *cuts.next().unwrap();
            let to = (from + size).min(naive.events.len());
            tables.receive(&naive.events[from..to], &mut received);
            if again {
                // Delivered again together with what came before.
                tables.receive(&naive.events[from.saturating_sub(5)..to], &mut received);
            }
            from = to;
        }
        // However they are cut into batches.
        let (mut one_by_one, mut fresh) = (Tables::default(), BTreeSet::new());
        for seen in &naive.events {
            one_by_one.receive(std::slice::from_ref(seen), &mut fresh);
        }
        prop_assert_eq!(&tables, &one_by_one);

        let ids: BTreeSet<TransactionId> = naive.waiting.iter().map(|open| open.id).collect();
        prop_assert_eq!(tables.pending.keys().copied().collect::<BTreeSet<_>>(), ids);
        for (seen, accounts) in naive.events.iter().zip(&naive.history) {
            // Between the parts of one posting the ledger was never seen.
            if !matches!(&seen.event, Event::SettlementPosted(e) if e.part < e.parts) {
                prop_assert_eq!(tables.as_of(seen.position), nonzero(accounts), "at {}", seen.position);
            }
        }
        for window in tables.tallies.keys() {
            let nets = tables.flows.iter().filter(|((w, _), _)| w == window).map(|(_, flow)| flow.net().unwrap().units());
            prop_assert_eq!(nets.sum::<i128>(), 0);
        }
        for (window, sealed) in &tables.sealed {
            let tally = tables.tallies.get(window).map_or((0, Minor::ZERO), |t| (t.count, t.gross));
            prop_assert_eq!(tally, *sealed);
        }
        statements(&tables, &naive);
    }
}

#[test]
fn what_contradicts_is_refused_whole() {
    let mut naive = Naive { now: 1_774_000_000_000_000, ..Naive::default() };
    naive.run(&Op::Deposit { who: 0, units: 500 });
    naive.submit(bank(0), bank(1), 100, true, TransactionState::Reserved);
    naive.resolve(0, 1);
    let all = naive.events.clone();
    assert!(fold(&all, BTreeMap::new()).is_ok());
    let late = fold(&all[2..], BTreeMap::new()).unwrap_err();
    assert!(late.0.contains("neither HELD nor RESERVED"), "{late}");
    type Change = (&'static str, fn(&mut data::TransactionCommitted));
    let changes: [Change; 4] = [
        ("as another", |e| e.amount = amount(101)),
        ("as another", |e| e.payee = bank(2)),
        ("as another", |e| e.settlement_model = SettlementModel::NetMultilateral),
        ("with window", |e| (e.window_id, e.window_seq) = (Some(WindowId::new(Uuid::from_u128(9))), Some(1))),
    ];
    for (what, change) in changes {
        let mut events = all.clone();
        let Event::TransactionCommitted(committed) = &mut events[2].event else { panic!() };
        change(committed);
        let refused = fold(&events, BTreeMap::new()).unwrap_err();
        assert!(refused.0.contains(what), "{refused}");
    }
    let mut twice = all.clone();
    twice[2] = all[1].clone();
    assert!(fold(&twice, BTreeMap::new()).unwrap_err().0.contains("twice"));
}
