//! Invariants, from first principles: what an observer of every COMMIT of the ledger knows, and what must follow.
//!
//! Named as the engines' READMEs and ARCHITECTURE name them.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::Event;
use deltran_events::data::transactions::{SettlementModel, TransactionState};
use deltran_kernel::{Currency, ParticipantId, PostingGroupId, Timestamp, TransactionId, WindowId};
use deltran_token::domain::account::{AccountKey, AccountKind, Sides};
use deltran_token::domain::command::{Answer, BodyHash};
use deltran_token::domain::effects::{Effects, Record};
use deltran_token::domain::ledger::Ledger;
use sha2::{Digest, Sha256};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    pub rule: &'static str,
    pub detail: String,
}

impl Breach {
    pub fn new(rule: &'static str, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into() }
    }
}

pub type Checked<T = ()> = Result<T, Breach>;

pub fn breach<T>(rule: &'static str, detail: impl Into<String>) -> Checked<T> {
    Err(Breach::new(rule, detail))
}

/// Requires a condition.
pub fn holds(condition: bool, rule: &'static str, detail: impl FnOnce() -> String) -> Checked {
    if condition { Ok(()) } else { Err(Breach::new(rule, detail())) }
}

/// A window as the observer counted it.
#[derive(Debug, Clone)]
pub struct Counted {
    pub currency: Currency,
    pub ids: Vec<TransactionId>,
    pub gross: i128,
    pub net: BTreeMap<ParticipantId, i128>,
    pub pairs: BTreeMap<(ParticipantId, ParticipantId), i128>,
    pub settled: Option<(PostingGroupId, Timestamp)>,
}

impl Counted {
    fn new(currency: Currency) -> Self {
        let (net, pairs) = (BTreeMap::new(), BTreeMap::new());
        Self { currency, ids: Vec::new(), gross: 0, net, pairs, settled: None }
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        self.ids.iter().for_each(|id| digest.update(id.uuid().as_bytes()));
        digest.finalize().into()
    }
}

/// What is known of a transaction from what was committed about it.
#[derive(Debug, Clone)]
struct Known {
    state: TransactionState,
    outcome: TransactionState,
    body: BodyHash,
    window: Option<(WindowId, u64)>,
    /// Sum of its postings by account; those that came to nothing are left out.
    flows: BTreeMap<AccountKey, i128>,
}

/// What an observer of the ledger's COMMITs knows.
#[derive(Debug, Default)]
pub struct Truth {
    pub replayed: BTreeMap<AccountKey, Sides>,
    postings: u64,
    transactions: BTreeMap<TransactionId, Known>,
    pub windows: BTreeMap<WindowId, Counted>,
    /// The most that the first may owe the second.
    pub limits: BTreeMap<(ParticipantId, ParticipantId, Currency), i128>,
    pub committed: u64,
}

/// Whether a transaction may go from one state to another with one decision.
fn follows(from: TransactionState, to: TransactionState) -> bool {
    use TransactionState::{Cancelled, Committed, Expired, Held, Rejected, Reserved};
    from == to
        || matches!((from, to), (Held, Committed | Reserved | Rejected) | (Reserved, Committed | Cancelled | Expired))
}

impl Truth {
    /// A batch of the ledger was committed; `records` are the transactions that it wrote, as written.
    pub fn commit(&mut self, effects: &Effects, records: &[Record]) -> Checked {
        let mut touched = BTreeSet::new();
        for posting in &effects.postings {
            self.postings += 1;
            let seq = posting.seq;
            holds(seq == self.postings, "L1", || format!("posting {seq} is number {} of the log", self.postings))?;
            holds(posting.amount.is_positive(), "L1", || format!("posting {seq} has {:?}", posting.amount))?;
            let position = |key: &AccountKey| key.kind() == AccountKind::Position;
            let alike = posting.debit.currency() == posting.credit.currency()
                && position(&posting.debit) == position(&posting.credit);
            holds(alike, "L1", || format!("posting {seq}: {} to {}", posting.debit, posting.credit))?;
            let out = |_| Breach::new("L1", format!("posting {seq} leaves the range"));
            let entry = self.replayed.entry(posting.debit).or_default();
            *entry = entry.debited(posting.amount).map_err(out)?;
            let entry = self.replayed.entry(posting.credit).or_default();
            *entry = entry.credited(posting.amount).map_err(out)?;
            if let Some(id) = posting.transaction {
                touched.insert(id);
            }
        }
        let written: BTreeSet<TransactionId> = records.iter().map(|r| r.instruction.id).collect();
        if let Some(id) = touched.difference(&written).next() {
            return breach("L6", format!("transaction {id} has a posting, and its row was not written"));
        }
        self.states(effects, records)?;
        for posting in &effects.postings {
            let Some(known) = posting.transaction.and_then(|id| self.transactions.get_mut(&id)) else { continue };
            for (key, units) in [(posting.debit, -posting.amount.units()), (posting.credit, posting.amount.units())] {
                let sum = known.flows.entry(key).or_default();
                *sum += units;
                if *sum == 0 {
                    known.flows.remove(&key);
                }
            }
        }
        for record in records {
            self.flows(record)?;
        }
        self.settlements(effects)?;
        self.committed += 1;
        Ok(())
    }

    /// L6: an id has one outcome. L8: a committed NET transaction has one dense place in one window.
    fn states(&mut self, effects: &Effects, records: &[Record]) -> Checked {
        let new: BTreeSet<TransactionId> = effects.new.iter().copied().collect();
        let mut placed = Vec::new();
        for record in records {
            let id = record.instruction.id;
            let known = self.transactions.get(&id);
            let fresh = new.contains(&id);
            holds(known.is_none() == fresh, "L6", || format!("transaction {id} is decided twice"))?;
            if let Some(known) = known {
                let same = known.outcome == record.outcome_state && known.body == record.instruction.body_hash;
                holds(same, "L6", || format!("transaction {id} had the outcome {}", known.outcome))?;
                // A batch may release a transaction and decide it as well.
                let released = effects.events.iter().find_map(|said| match &said.event {
                    Event::TransactionReleased(released) if released.transaction_id == id => Some(released.state),
                    _ => None,
                });
                let between = released.unwrap_or(known.state);
                let drawn = follows(known.state, between) && follows(between, record.state);
                holds(drawn, "L6", || format!("transaction {id} was {} and is {}", known.state, record.state))?;
            }
            let before = known.and_then(|known| known.window);
            let net = record.instruction.model != SettlementModel::Gross;
            let committed = record.state == TransactionState::Committed;
            holds(record.window.is_some() == (net && committed), "L8", || {
                format!("transaction {id} is {} with window {:?}", record.state, record.window)
            })?;
            holds(before.is_none() || before == record.window, "L8", || {
                format!("transaction {id} changed its window")
            })?;
            if before.is_none()
                && let Some((window, seq)) = record.window
            {
                placed.push((window, seq, record.clone()));
            }
            let original = record.instruction.amount.minor().units();
            let returned = record.returned.units();
            holds(returned <= original, "L6", || format!("of transaction {id} more was returned than paid"))?;
            let flows = known.map(|known| known.flows.clone()).unwrap_or_default();
            let (state, outcome) = (record.state, record.outcome_state);
            let (body, window) = (record.instruction.body_hash, record.window);
            self.transactions.insert(id, Known { state, outcome, body, window, flows });
        }
        placed.sort_by_key(|(window, seq, _)| (*window, *seq));
        for (window, seq, record) in placed {
            let i = &record.instruction;
            let (units, currency) = (i.amount.minor().units(), i.amount.currency());
            let counted = self.windows.entry(window).or_insert_with(|| Counted::new(currency));
            counted.ids.push(i.id);
            let place = counted.ids.len() as u64;
            holds(place == seq, "L8", || format!("window {window}: {} has place {seq}, not {place}", i.id))?;
            holds(counted.currency == currency, "L8", || format!("window {window} has two currencies"))?;
            counted.gross += units;
            *counted.net.entry(i.payer).or_default() -= units;
            *counted.net.entry(i.payee).or_default() += units;
            *counted.pairs.entry((i.payer, i.payee)).or_default() += units;
        }
        for row in effects.windows.iter() {
            self.windows.entry(*row.0).or_insert_with(|| Counted::new(row.1.currency));
        }
        Ok(())
    }

    /// L6: postings exactly where the state says so.
    fn flows(&self, record: &Record) -> Checked {
        let (i, id) = (&record.instruction, record.instruction.id);
        let (units, currency) = (i.amount.minor().units(), i.amount.currency());
        let Some(known) = self.transactions.get(&id) else { return breach("L6", format!("{id} is not known")) };
        let expected: Vec<(AccountKey, i128)> = match (record.state, record.window) {
            (TransactionState::Committed, Some((window, _))) => vec![
                (AccountKey::Position(i.payer, currency, window), -units),
                (AccountKey::Position(i.payee, currency, window), units),
            ],
            (TransactionState::Committed, None) => {
                vec![
                    (AccountKey::Settlement(i.payer, currency), -units),
                    (AccountKey::Settlement(i.payee, currency), units),
                ]
            }
            (TransactionState::Reserved, _) if i.model == SettlementModel::Gross => vec![
                (AccountKey::Settlement(i.payer, currency), -units),
                (AccountKey::Reserved(i.payer, currency, id.uuid()), units),
            ],
            _ => Vec::new(),
        };
        let expected: BTreeMap<AccountKey, i128> = expected.into_iter().collect();
        holds(known.flows == expected, "L6", || {
            format!("transaction {id} is {}: its postings come to {:?}, not {expected:?}", record.state, known.flows)
        })
    }

    /// Nothing settles twice.
    fn settlements(&mut self, effects: &Effects) -> Checked {
        for said in &effects.events {
            match &said.event {
                Event::SettlementPosted(posted) if posted.part == 1 => {
                    for window in &posted.window_ids {
                        let Some(counted) = self.windows.get_mut(window) else {
                            return breach("L8", format!("window {window} is settled and was never open"));
                        };
                        let before = counted.settled.replace((posted.group_id, posted.posted_at));
                        holds(before.is_none(), "S6", || format!("window {window} is settled twice"))?;
                    }
                }
                Event::WindowSealed(sealed) => {
                    let counted = self.windows.get(&sealed.window_id);
                    let (count, digest) = counted.map_or((0, [0; 32]), |c| (c.ids.len() as u64, c.digest()));
                    let same = sealed.count == count && sealed.digest == hex::encode(digest);
                    holds(same, "L8", || {
                        format!("window {} is sealed with {}, {count} are in it", sealed.window_id, sealed.count)
                    })?;
                }
                _ => {}
            }
        }
        for (window, row) in &effects.windows {
            let Some(Answer::Sealed(totals)) = &row.sealed else { continue };
            let Some(counted) = self.windows.get(window) else { continue };
            let net: BTreeMap<ParticipantId, i128> = totals.net.iter().map(|(p, n)| (*p, n.units())).collect();
            let same = totals.gross.units() == counted.gross && net == counted.net;
            holds(same, "L8", || format!("window {window}: its control totals are {totals:?}"))?;
        }
        Ok(())
    }

    /// L2, L3, L4, L7, R3 on the rows of accounts.
    pub fn check(&self, accounts: &BTreeMap<AccountKey, Sides>) -> Checked {
        if self.replayed != *accounts {
            let differs = self.replayed.keys().chain(accounts.keys()).find(|k| self.replayed.get(k) != accounts.get(k));
            return breach("L7", format!("replay gives another balance of {differs:?}"));
        }
        let mut tokens: BTreeMap<Currency, i128> = BTreeMap::new();
        let mut windows: BTreeMap<WindowId, i128> = BTreeMap::new();
        for (key, sides) in accounts {
            let units = sides.balance().units();
            match key {
                AccountKey::Position(_, _, window) => *windows.entry(*window).or_default() += units,
                AccountKey::Multilateral(_) => {
                    *tokens.entry(key.currency()).or_default() += units;
                    holds(units == 0, "L4", || format!("{key} stands at {units}"))?;
                }
                AccountKey::Settlement(..) | AccountKey::Reserved(..) => {
                    *tokens.entry(key.currency()).or_default() += units;
                    holds(units >= 0, "L2", || format!("{key} stands at {units}"))?;
                }
                AccountKey::Safeguard(_) | AccountKey::Fees(_) => *tokens.entry(key.currency()).or_default() += units,
            }
        }
        for (currency, units) in tokens {
            holds(units == 0, "L2", || format!("{currency} is out by {units}"))?;
        }
        for (window, units) in windows {
            holds(units == 0, "L3", || format!("positions of window {window} sum to {units}"))?;
        }
        self.exposures()
    }

    /// R3: what was committed exceeds no bilateral limit.
    fn exposures(&self) -> Checked {
        for ((payer, payee, currency), most) in &self.limits {
            let live = self.windows.values().filter(|w| w.currency == *currency && w.settled.is_none());
            let pair = |w: &Counted, a, b| w.pairs.get(&(a, b)).copied().unwrap_or(0);
            let owed: i128 = live.map(|w| (pair(w, *payer, *payee) - pair(w, *payee, *payer)).max(0)).sum();
            holds(owed <= *most, "R3", || format!("{payer} owes {payee} {owed}, at most {most}"))?;
        }
        Ok(())
    }

    /// The ledger's own answer about a transaction, for who asks what is known.
    pub fn state_of(&self, id: TransactionId) -> Option<TransactionState> {
        self.transactions.get(&id).map(|known| known.state)
    }
}

/// How far use exceeds cap, and cover, of every participant and currency; negative where something is left.
pub type Over = BTreeMap<(ParticipantId, Currency), (i128, i128)>;

/// From accounts, as they are in memory.
pub fn over(ledger: &Ledger) -> Over {
    ledger
        .memberships
        .iter()
        .map(|(key, membership)| {
            let (bank, currency) = *key;
            let holds = membership.net_holds.units();
            let (mut debit, mut uncovered) = (holds, holds);
            for (id, window) in ledger.windows.iter().filter(|(_, w)| w.currency == currency) {
                let net_debit = (-ledger.position(bank, currency, *id).units()).max(0);
                debit += net_debit;
                uncovered += if window.sealed.is_some() {
                    let earmarked = ledger.balance(AccountKey::Reserved(bank, currency, id.uuid())).units();
                    (net_debit - earmarked).max(0)
                } else {
                    net_debit
                };
            }
            let stands = ledger.settlement(bank, currency).units() + membership.terms.collateral.units();
            (*key, (debit - membership.terms.cap.units(), uncovered - stands))
        })
        .collect()
}

/// L5: no command increases a debit beyond cap or cover.
pub fn within(before: &Over, after: &Over) -> Checked {
    for (key, (cap, cover)) in after {
        let (cap_before, cover_before) = before.get(key).copied().unwrap_or((0, 0));
        holds(*cap <= cap_before.max(0), "L5", || format!("{key:?} is {cap} over its cap, it was {cap_before}"))?;
        holds(*cover <= cover_before.max(0), "L5", || {
            format!("{key:?} lacks {cover} of cover, it was {cover_before}")
        })?;
    }
    Ok(())
}
