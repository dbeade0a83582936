//! Random commands against the ledger, with every invariant checked after each.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::Event;
use deltran_events::data::transactions::{CoverPolicy, SettlementModel, TransactionState};
use deltran_kernel::{CommandId, Minor, ParticipantId, PostingGroupId, TransactionId, WindowId, WithdrawalId};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::account::{AccountKey, AccountKind, Sides};
use super::command::{Answer, Command, Gates, Instruction, ParticipantState, ScreeningDecision};
use super::effects::Effects;
use super::ledger::Ledger;
use super::table_test::{approve, at, by, deposit, id, instruction, member, money, usd, who, window};

const BANKS: [&str; 4] = ["ALFAAEXX", "BRAVINXX", "CHARILXX", "DELTDEXX"];

#[derive(Debug, Clone)]
enum Op {
    Submit { payer: usize, payee: usize, units: i128, model: SettlementModel, hold: bool, review: bool },
    Repeat { which: usize },
    Commit { which: usize },
    Cancel { which: usize },
    Release { which: usize, release: bool },
    Return { which: usize, units: i128 },
    Deposit { bank: usize, units: i128 },
    Withdraw { bank: usize, units: i128 },
    EndWithdrawal { which: usize, confirmed: bool },
    Cap { bank: usize, units: i128 },
    Collateral { bank: usize, units: i128 },
    Suspend { bank: usize, active: bool },
    Open,
    Seal { next: bool },
    Earmark { which: usize, two: bool },
    Settle { which: usize, two: bool },
    Wait { seconds: i64 },
}

fn op() -> impl Strategy<Value = Op> {
    let bank = 0..BANKS.len();
    let which = 0usize..40;
    let model = prop_oneof![3 => Just(SettlementModel::NetMultilateral), 1 => Just(SettlementModel::Gross)];
    prop_oneof![
        12 => (bank.clone(), bank.clone(), 1i128..120, model, prop::bool::weighted(0.2), prop::bool::weighted(0.1))
            .prop_map(|(payer, payee, units, model, hold, review)| Op::Submit { payer, payee, units, model, hold, review }),
        1 => which.clone().prop_map(|which| Op::Repeat { which }),
        2 => which.clone().prop_map(|which| Op::Commit { which }),
        1 => which.clone().prop_map(|which| Op::Cancel { which }),
        1 => (which.clone(), any::<bool>()).prop_map(|(which, release)| Op::Release { which, release }),
        1 => (which.clone(), 1i128..80).prop_map(|(which, units)| Op::Return { which, units }),
        2 => (bank.clone(), 1i128..200).prop_map(|(bank, units)| Op::Deposit { bank, units }),
        1 => (bank.clone(), 1i128..200).prop_map(|(bank, units)| Op::Withdraw { bank, units }),
        1 => (which.clone(), any::<bool>()).prop_map(|(which, confirmed)| Op::EndWithdrawal { which, confirmed }),
        1 => (bank.clone(), 0i128..300).prop_map(|(bank, units)| Op::Cap { bank, units }),
        1 => (bank.clone(), 1i128..200).prop_map(|(bank, units)| Op::Collateral { bank, units }),
        1 => (bank, any::<bool>()).prop_map(|(bank, active)| Op::Suspend { bank, active }),
        2 => Just(Op::Open),
        2 => any::<bool>().prop_map(|next| Op::Seal { next }),
        2 => (which.clone(), any::<bool>()).prop_map(|(which, two)| Op::Earmark { which, two }),
        2 => (which, any::<bool>()).prop_map(|(which, two)| Op::Settle { which, two }),
        1 => (1i64..40).prop_map(|seconds| Op::Wait { seconds }),
    ]
}

/// What the test remembers beside the ledger.
#[derive(Default)]
struct Model {
    ledger: Ledger,
    now: i64,
    fresh: u128,
    submitted: Vec<Instruction>,
    withdrawals: Vec<WithdrawalId>,
    /// Balances from postings alone (L7).
    replayed: BTreeMap<AccountKey, Sides>,
    postings: u64,
    /// Transactions of each window, in order (L8).
    committed: BTreeMap<WindowId, Vec<TransactionId>>,
    outcomes: BTreeMap<TransactionId, TransactionState>,
    /// Spendable and locked tokens of each participant, from events alone.
    told: BTreeMap<ParticipantId, (i128, i128)>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self { now: 100, fresh: 10_000, ..Self::default() };
        for (n, bank) in (0u128..).zip(BANKS) {
            member(&mut model.ledger, 100 + 10 * n, bank, 150);
            deposit(&mut model.ledger, 500 + n, bank, 200);
        }
        model.take();
        model
    }

    fn fresh(&mut self) -> u128 {
        self.fresh += 1;
        self.fresh
    }

    fn run(&mut self, command: Command) -> Result<Answer, String> {
        let now = at(self.now);
        let result = self.ledger.execute(command, now).map(|a| a.into_parts().0).map_err(|e| e.to_string());
        self.take();
        result
    }

    fn take(&mut self) {
        let effects = self.ledger.take_effects();
        self.replay(&effects);
        self.obligations(&effects);
        self.told(&effects);
    }

    /// Every token posting has its event: whoever adds events up has the ledger's balances.
    fn told(&mut self, effects: &Effects) {
        let units = |amount: &deltran_events::Amount| amount.money(usd()).unwrap().minor().units();
        let mut add = |who: ParticipantId, tokens: i128, locked: i128| {
            let sums = self.told.entry(who).or_default();
            *sums = (sums.0 + tokens, sums.1 + locked);
        };
        let gross =
            |id: &TransactionId| self.submitted.iter().any(|i| i.id == *id && i.model == SettlementModel::Gross);
        for said in &effects.events {
            match &said.event {
                Event::TransactionCreated(e) if e.settlement_model == SettlementModel::Gross => match e.state {
                    TransactionState::Committed => {
                        add(e.payer, -units(&e.amount), 0);
                        add(e.payee, units(&e.amount), 0);
                    }
                    TransactionState::Reserved => add(e.payer, -units(&e.amount), units(&e.amount)),
                    _ => {}
                },
                Event::TransactionReleased(e) if e.state == TransactionState::Reserved && gross(&e.transaction_id) => {
                    let i = self.submitted.iter().find(|i| i.id == e.transaction_id).unwrap();
                    let units = i.amount.minor().units();
                    add(i.payer, -units, units);
                }
                Event::TransactionCommitted(e) if e.settlement_model == SettlementModel::Gross => {
                    // From HELD it comes out of what may be spent.
                    let held = effects.events.iter().any(|other| {
                        matches!(&other.event, Event::TransactionReleased(r) if r.transaction_id == e.transaction_id)
                    });
                    let (tokens, locked) = if held { (-units(&e.amount), 0) } else { (0, -units(&e.amount)) };
                    add(e.payer, tokens, locked);
                    add(e.payee, units(&e.amount), 0);
                }
                Event::TransactionCancelled(e) if gross(&e.transaction_id) => {
                    add(e.payer, units(&e.amount), -units(&e.amount));
                }
                Event::TransactionExpired(e) if gross(&e.transaction_id) => {
                    add(e.payer, units(&e.amount), -units(&e.amount));
                }
                Event::DepositConfirmed(e) => add(e.participant, units(&e.amount), 0),
                Event::WithdrawalRequested(e) => add(e.participant, -units(&e.amount), units(&e.amount)),
                Event::WithdrawalConfirmed(e) => add(e.participant, 0, -units(&e.amount)),
                Event::WithdrawalFailed(e) => add(e.participant, units(&e.amount), -units(&e.amount)),
                Event::WindowEarmarked(e) => {
                    for earmark in &e.earmarks {
                        add(earmark.participant, -units(&earmark.amount), units(&earmark.amount));
                    }
                }
                Event::SettlementPosted(e) => {
                    for leg in &e.legs {
                        let (net, back) = (units(&leg.net), units(&leg.given_back));
                        add(leg.participant, net.max(0) + back, -((-net).max(0) + back));
                    }
                }
                _ => {}
            }
        }
        for bank in BANKS {
            let locked = |key: &AccountKey| matches!(key, AccountKey::Reserved(p, ..) if *p == who(bank));
            let locked = self.replayed.iter().filter(|(k, _)| locked(k)).map(|(_, s)| s.balance().units()).sum();
            let tokens = self.ledger.settlement(who(bank), usd()).units();
            assert_eq!(self.told.get(&who(bank)).copied().unwrap_or_default(), (tokens, locked), "{bank} by events");
        }
    }

    fn replay(&mut self, effects: &Effects) {
        for posting in &effects.postings {
            self.postings += 1;
            assert_eq!(posting.seq, self.postings, "the log is dense");
            assert!(posting.amount.is_positive());
            assert_eq!(posting.debit.currency(), posting.credit.currency(), "L1");
            let is_position = |k: &AccountKey| k.kind() == AccountKind::Position;
            assert_eq!(is_position(&posting.debit), is_position(&posting.credit), "legs balance on their own");
            let entry = self.replayed.entry(posting.debit).or_default();
            *entry = entry.debited(posting.amount).unwrap();
            let entry = self.replayed.entry(posting.credit).or_default();
            *entry = entry.credited(posting.amount).unwrap();
        }
    }

    /// Obligations as a consumer of events sees them.
    fn obligations(&mut self, effects: &Effects) {
        for said in &effects.events {
            let (id, window) = match &said.event {
                Event::TransactionCreated(e) => {
                    assert!(self.outcomes.insert(e.transaction_id, e.state).is_none(), "L6: one outcome");
                    (e.transaction_id, e.window_id.zip(e.window_seq))
                }
                Event::TransactionCommitted(e) => (e.transaction_id, e.window_id.zip(e.window_seq)),
                _ => continue,
            };
            if let Some((window, seq)) = window {
                let list = self.committed.entry(window).or_default();
                list.push(id);
                assert_eq!(list.len() as u64, seq, "L8: dense");
            }
        }
    }

    fn apply(&mut self, op: Op) {
        let pick = |list: &Vec<Instruction>, which: usize| list.get(which % list.len().max(1)).cloned();
        match op {
            Op::Submit { payer, payee, units, model, hold, review } => {
                let n = self.fresh();
                let mut i = instruction(n, BANKS[payer], BANKS[payee], units);
                i.model = model;
                i.reserve_for = hold.then_some(20_000_000);
                let decision = if review { ScreeningDecision::Review } else { ScreeningDecision::Approve };
                self.submitted.push(i.clone());
                self.submit(i, Gates { decision, ..approve() });
            }
            Op::Repeat { which } => {
                if let Some(i) = pick(&self.submitted, which) {
                    let before = self.postings;
                    self.submit(i, approve());
                    assert_eq!(self.postings, before, "a repeated submission posts nothing");
                }
            }
            Op::Commit { which } => {
                if let Some(i) = pick(&self.submitted, which) {
                    let _ = self.run(Command::Commit { id: i.id, payer: i.payer, by: by("bank") });
                }
            }
            Op::Cancel { which } => {
                if let Some(i) = pick(&self.submitted, which) {
                    let _ =
                        self.run(Command::Cancel { id: i.id, payer: i.payer, reason: String::new(), by: by("bank") });
                }
            }
            Op::Release { which, release } => {
                if let Some(i) = pick(&self.submitted, which) {
                    let _ = self.run(Command::Release {
                        id: i.id,
                        release,
                        reason: String::new(),
                        gates: release.then(|| Box::new(approve())),
                        by: by("c"),
                    });
                }
            }
            Op::Return { which, units } => {
                if let Some(original) = pick(&self.submitted, which) {
                    let n = self.fresh();
                    let mut i = instruction(n, original.payee.as_str(), original.payer.as_str(), units);
                    i.model = original.model;
                    i.return_of = Some(original.id);
                    self.submit(i, approve());
                }
            }
            Op::Deposit { bank, units } => {
                let n = self.fresh();
                let command = Command::Deposit {
                    id: CommandId::new(id(n)),
                    hash: [0; 32],
                    participant: who(BANKS[bank]),
                    amount: money(units),
                    reference: String::new(),
                    by: by("operator"),
                };
                self.run(command).unwrap();
            }
            Op::Withdraw { bank, units } => {
                let n = WithdrawalId::new(id(self.fresh()));
                self.withdrawals.push(n);
                let _ = self.run(Command::RequestWithdrawal {
                    id: n,
                    hash: [0; 32],
                    participant: who(BANKS[bank]),
                    amount: money(units),
                    reference: String::new(),
                    by: by("bank"),
                });
            }
            Op::EndWithdrawal { which, confirmed } => {
                if let Some(w) = self.withdrawals.get(which % self.withdrawals.len().max(1)).copied() {
                    let _ = self.run(Command::EndWithdrawal { id: w, confirmed, text: String::new(), by: by("o") });
                }
            }
            Op::Cap { bank, units } => {
                let n = CommandId::new(id(self.fresh()));
                let (participant, cap) = (who(BANKS[bank]), money(units));
                self.run(Command::SetLimit { id: n, hash: [0; 32], participant, cap, by: by("r") }).unwrap();
            }
            Op::Collateral { bank, units } => {
                let n = CommandId::new(id(self.fresh()));
                for user in ["ada", "bob"] {
                    let command = Command::SetCollateral {
                        id: n,
                        hash: [0; 32],
                        participant: who(BANKS[bank]),
                        policy: CoverPolicy::CreditLine,
                        amount: money(units),
                        by: by(user),
                    };
                    self.run(command).unwrap();
                }
            }
            Op::Suspend { bank, active } => {
                let n = CommandId::new(id(self.fresh()));
                let state = if active { ParticipantState::Active } else { ParticipantState::Suspended };
                let _ = self.run(Command::SetState {
                    id: n,
                    hash: [0; 32],
                    participant: who(BANKS[bank]),
                    state,
                    reason: String::new(),
                    by: by("operator"),
                });
            }
            Op::Open => {
                let n = window(self.fresh());
                let _ = self.run(Command::OpenWindow { id: n, currency: usd() });
            }
            Op::Seal { next } => {
                if let Some(open) = self.ledger.open.get(&usd()).copied() {
                    let next = next.then(|| window(self.fresh()));
                    let answer = self.run(Command::SealWindow { id: open, next, by: by("c") }).unwrap();
                    self.check_totals(open, &answer);
                }
            }
            Op::Earmark { which, two } => {
                let windows = self.sealed(which, two);
                let group = PostingGroupId::new(id(self.fresh()));
                let _ = self.run(Command::Earmark { group, hash: [0; 32], windows, by: by("s") });
            }
            Op::Settle { which, two } => {
                let windows = self.sealed(which, two);
                let mut legs: BTreeMap<ParticipantId, Minor> = BTreeMap::new();
                for w in &windows {
                    for bank in BANKS {
                        let entry = legs.entry(who(bank)).or_default();
                        *entry = entry.add(self.ledger.position(who(bank), usd(), *w)).unwrap();
                    }
                }
                let legs = legs.into_iter().map(|(p, m)| (p, money(m.units()))).collect();
                let group = PostingGroupId::new(id(self.fresh()));
                let _ = self.run(Command::Settle { group, hash: [0; 32], windows, legs, by: by("s") });
            }
            Op::Wait { seconds } => {
                self.now += seconds;
                self.run(Command::ExpireDue).unwrap();
            }
        }
    }

    fn submit(&mut self, i: Instruction, gates: Gates) {
        self.run(Command::Submit { instruction: Box::new(i), gates: Ok(Box::new(gates)), by: by("bank") }).unwrap();
    }

    fn sealed(&self, which: usize, two: bool) -> Vec<WindowId> {
        let sealed: Vec<WindowId> =
            self.ledger.windows.iter().filter(|(_, w)| w.sealed.is_some()).map(|(id, _)| *id).collect();
        let first = sealed.get(which % sealed.len().max(1)).copied();
        let second = sealed.get((which + 1) % sealed.len().max(1)).copied().filter(|s| two && Some(*s) != first);
        first.into_iter().chain(second).collect()
    }

    /// The seal's totals against what a consumer has counted.
    fn check_totals(&self, window: WindowId, answer: &Answer) {
        let Answer::Sealed(totals) = answer else { panic!("{answer:?}") };
        let committed = self.committed.get(&window).cloned().unwrap_or_default();
        assert_eq!(totals.count, committed.len() as u64);
        let mut digest = Sha256::new();
        let mut gross = 0;
        let mut net: BTreeMap<ParticipantId, i128> = BTreeMap::new();
        for id in &committed {
            let i = &self.ledger.known.transactions[id].instruction;
            digest.update(id.uuid().as_bytes());
            gross += i.amount.minor().units();
            *net.entry(i.payer).or_default() -= i.amount.minor().units();
            *net.entry(i.payee).or_default() += i.amount.minor().units();
        }
        assert_eq!(totals.gross.units(), gross);
        assert_eq!(totals.digest[..], digest.finalize()[..]);
        assert_eq!(totals.net.iter().map(|(p, m)| (*p, m.units())).collect::<BTreeMap<_, _>>(), net);
    }

    fn check(&self, before: &BTreeMap<ParticipantId, (i128, i128)>) {
        let ledger = &self.ledger;
        let sum = |f: &dyn Fn(&AccountKey) -> bool| -> i128 {
            ledger.accounts.iter().filter(|(k, _)| f(k)).map(|(_, s)| s.balance().units()).sum()
        };
        assert_eq!(sum(&|k| k.kind() != AccountKind::Position), 0, "L2");
        for id in ledger.windows.keys() {
            assert_eq!(sum(&|k| matches!(k, AccountKey::Position(_, _, w) if w == id)), 0, "L3");
        }
        assert_eq!(ledger.balance(AccountKey::Multilateral(usd())).units(), 0, "L4");
        assert_eq!(self.replayed, ledger.accounts, "L7");
        for (key, sides) in &ledger.accounts {
            if matches!(key.kind(), AccountKind::Settlement | AccountKind::Reserved) {
                assert!(!sides.balance().is_negative(), "{key} is below zero");
            }
        }
        for bank in BANKS.map(who) {
            let membership = &ledger.memberships[&(bank, usd())];
            assert_eq!(membership.unfunded, ledger.unfunded_of(bank, usd()), "incremental figures agree");
            assert_eq!(membership.sealed_debit, ledger.sealed_debit_of(bank, usd()), "incremental figures agree");
            assert_eq!(membership.net_holds.units(), self.holds_of(bank), "incremental figures agree");
            let (cap_over, cover_over) = self.over(bank);
            let (cap_before, cover_before) = before.get(&bank).copied().unwrap_or_default();
            assert!(cap_over <= cap_before.max(0), "L5: no command increases a debit beyond the cap");
            assert!(cover_over <= cover_before.max(0), "L5: nor beyond cover");
        }
        let open: BTreeSet<_> = ledger.windows.iter().filter(|(_, w)| w.sealed.is_none()).map(|(id, _)| *id).collect();
        assert_eq!(open, ledger.open.values().copied().collect(), "at most one open window per currency");
    }

    fn holds_of(&self, bank: ParticipantId) -> i128 {
        self.ledger
            .known
            .transactions
            .values()
            .filter(|r| r.state == TransactionState::Reserved && r.instruction.payer == bank)
            .filter(|r| r.instruction.model != SettlementModel::Gross)
            .map(|r| r.instruction.amount.minor().units())
            .sum()
    }

    /// How far use exceeds cap, and cover; negative where something is left. From first principles.
    fn over(&self, bank: ParticipantId) -> (i128, i128) {
        let ledger = &self.ledger;
        let terms = ledger.memberships[&(bank, usd())].terms;
        let (mut debit, mut uncovered) = (self.holds_of(bank), self.holds_of(bank));
        for (id, w) in &ledger.windows {
            let net_debit = (-ledger.position(bank, usd(), *id).units()).max(0);
            let earmarked = ledger.balance(AccountKey::Reserved(bank, usd(), id.uuid())).units();
            debit += net_debit;
            uncovered += if w.sealed.is_some() { (net_debit - earmarked).max(0) } else { net_debit };
        }
        let stands = ledger.settlement(bank, usd()).units() + terms.collateral.units();
        (debit - terms.cap.units(), uncovered - stands)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn invariants_hold_after_every_command(ops in prop::collection::vec(op(), 1..80)) {
        let mut model = Model::new();
        model.check(&BTreeMap::new());
        for op in ops {
            // A change of terms may leave use above the limit; it is no debit.
            let terms_only = matches!(op, Op::Cap { .. } | Op::Collateral { .. });
            let before = if terms_only {
                BANKS.map(who).into_iter().map(|b| (b, (i128::MAX, i128::MAX))).collect()
            } else {
                BANKS.map(who).into_iter().map(|b| (b, model.over(b))).collect()
            };
            model.apply(op);
            model.check(&before);
        }
    }
}
