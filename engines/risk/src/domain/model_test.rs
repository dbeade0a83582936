//! Random days against a naive reference: what passed never exceeds a limit, whatever became of what was
//! under way and in whatever order it came back; REDUCING lets positions shrink only.
//!
//! The reference is a ledger that decides by itself what to do with what the gate let pass, in windows that
//! are sealed and settled at any time, and a list of everything that it committed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use deltran_events::data::risk::BreakerTrigger;
use deltran_kernel::{CommandId, Currency, Minor, Money, ParticipantId, Timestamp, TransactionId, WindowId};
use proptest::prelude::*;
use uuid::Uuid;

use super::assess::{Gatekeeper, Known, Subject, Verdict};
use super::breaker::{Breaker, BreakerState, Recovery};
use super::count::{Fact, Payment};
use super::flight::Ticket;
use super::limit::Rate;
use super::rules::Ceiling;
use super::scope::Scope;

const BANKS: [&str; 3] = ["ALFAAEXX", "BRAVINXX", "CHARAEXX"];
const START: i64 = 1_762_430_400;

#[derive(Debug, Clone)]
enum Op {
    Ask {
        payer: usize,
        payee: usize,
        units: i128,
        gross: bool,
        two_phase: bool,
    },
    /// The ledger decides on the oldest that waits: commits, holds or refuses it, or never hears of it.
    Decide {
        how: u8,
    },
    /// A reservation is committed or ended; a held one is released or refused.
    Second {
        which: usize,
        commit: bool,
    },
    /// So many of the ledger's events come back, in one batch.
    Return {
        batch: usize,
    },
    Seal,
    Settle,
    Wait {
        seconds: i64,
    },
    /// Another gate is asked from now on, with nothing in memory but what was counted: what the one before let
    /// pass is decided no more.
    Restart,
    Lower {
        units: i128,
    },
    Reduce {
        on: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..3usize, 0..3usize, 1i128..80, prop::bool::weighted(0.1), prop::bool::weighted(0.15))
            .prop_map(|(payer, payee, units, gross, two_phase)| Op::Ask { payer, payee, units, gross, two_phase }),
        8 => (0..12u8).prop_map(|how| Op::Decide { how }),
        2 => (0..8usize, any::<bool>()).prop_map(|(which, commit)| Op::Second { which, commit }),
        5 => (1..6usize).prop_map(|batch| Op::Return { batch }),
        1 => Just(Op::Seal),
        1 => Just(Op::Settle),
        1 => (0..4_000i64).prop_map(|seconds| Op::Wait { seconds }),
        1 => Just(Op::Restart),
        1 => (0i128..200).prop_map(|units| Op::Lower { units }),
        1 => any::<bool>().prop_map(|on| Op::Reduce { on }),
    ]
}

/// A committed transaction as the reference keeps it.
#[derive(Debug, Clone, Copy)]
struct Row {
    subject: Subject,
    window: Option<WindowId>,
    accepted_at: Timestamp,
    committed_at: Timestamp,
}

struct Model {
    keeper: Gatekeeper,
    usd: Currency,
    now: Timestamp,
    next: u128,
    /// What the gate let pass and the ledger has not decided, with the window it may go into.
    passed: VecDeque<(Subject, Option<WindowId>)>,
    held: Vec<Subject>,
    reserved: Vec<(Subject, Timestamp)>,
    ledger: Vec<Row>,
    /// Events of the ledger that have not come back.
    events: VecDeque<Fact>,
    open: u128,
    unsettled: BTreeSet<u128>,
    /// What was counted, to be read after a restart.
    counted: Vec<Fact>,
    /// The ledger decided something before the present turn that is not counted.
    unknown: bool,
    /// The largest use that a lowered limit found, by pair: it may stay, and not grow.
    allowed: BTreeMap<(ParticipantId, ParticipantId), i128>,
    limit: i128,
    reducing: bool,
    /// What passed while positions could only shrink.
    shrinking: BTreeSet<TransactionId>,
}

fn bank(n: usize) -> ParticipantId {
    BANKS[n].parse().unwrap()
}

impl Model {
    fn new() -> Self {
        let usd = Currency::new("USD").unwrap();
        let mut model = Self {
            keeper: Gatekeeper::new(Recovery { cool_down: 60_000_000, probes: 2, refused_share: 2_000 }),
            usd,
            now: Timestamp::from_micros(START * 1_000_000),
            next: 0,
            passed: VecDeque::new(),
            held: Vec::new(),
            reserved: Vec::new(),
            ledger: Vec::new(),
            events: VecDeque::new(),
            open: 1,
            unsettled: [1].into(),
            counted: Vec::new(),
            unknown: false,
            allowed: BTreeMap::new(),
            limit: 150,
            reducing: false,
            shrinking: BTreeSet::new(),
        };
        model.rules();
        model
    }

    /// Puts the present limits into the gate.
    fn rules(&mut self) {
        let rules = &mut self.keeper.rules;
        for (payer, payee) in [(0, 1), (1, 0), (0, 2)] {
            let limit_id = CommandId::new(Uuid::from_u128(1));
            let ceiling = Ceiling { limit_id, most: Minor::new(self.limit).unwrap() };
            rules.bilateral.insert((bank(payer), bank(payee), self.usd), ceiling);
        }
        rules.corridor_gross.insert(("IN-AE".parse().unwrap(), self.usd), Minor::new(200).unwrap());
        rules.rates_of.insert(bank(2), Rate { transactions: 10, window_seconds: 600 });
        let breaker = Breaker {
            scope: Scope::Participant(bank(0)),
            state: BreakerState::Reducing,
            trigger: BreakerTrigger::Manual,
            reason: String::new(),
            changed_by: String::new(),
            changed_at: self.now,
            open_until: None,
        };
        rules.breakers.clear();
        if self.reducing {
            rules.breakers.insert(breaker.scope, breaker);
        }
    }

    fn window(n: u128) -> WindowId {
        WindowId::new(Uuid::from_u128(1_000 + n))
    }

    fn payment(subject: &Subject) -> Payment {
        Payment { payer: subject.payer, payee: subject.payee, amount: subject.amount }
    }

    /// The reference: what the first owes the second, window by window.
    fn owed(&self, payer: ParticipantId, payee: ParticipantId) -> i128 {
        let of = |from, to, window| -> i128 {
            let rows = self
                .ledger
                .iter()
                .filter(|r| r.window == Some(window) && r.subject.payer == from && r.subject.payee == to);
            rows.map(|r| r.subject.amount.minor().units()).sum()
        };
        let windows = self.unsettled.iter().map(|n| Self::window(*n));
        windows.map(|w| (of(payer, payee, w) - of(payee, payer, w)).max(0)).sum()
    }

    /// What passed and may still be committed.
    fn coming(&self, payer: ParticipantId, payee: ParticipantId) -> i128 {
        let all = self.passed.iter().map(|(s, _)| s).chain(self.reserved.iter().map(|(s, _)| s));
        all.filter(|s| s.payer == payer && s.payee == payee).map(|s| s.amount.minor().units()).sum()
    }

    fn net(&self, participant: ParticipantId) -> i128 {
        let unsettled: BTreeSet<WindowId> = self.unsettled.iter().map(|n| Self::window(*n)).collect();
        let rows = self.ledger.iter().filter(|r| r.window.is_some_and(|w| unsettled.contains(&w)));
        rows.map(|r| {
            let units = r.subject.amount.minor().units();
            i128::from(r.subject.payee == participant) * units - i128::from(r.subject.payer == participant) * units
        })
        .sum()
    }

    fn check(&mut self) {
        for (payer, payee) in [(0, 1), (1, 0), (0, 2)] {
            let key = (bank(payer), bank(payee));
            let (owed, coming) = (self.owed(key.0, key.1), self.coming(key.0, key.1));
            let allowed = self.allowed.entry(key).or_insert(0);
            *allowed = (*allowed).min(owed + coming);
            assert!(owed <= self.limit.max(*allowed), "{key:?} owes {owed}: limit {}, was {allowed}", self.limit);
        }
        let day_ago = self.now.plus_seconds(-86_400);
        let corridor = |r: &&Row| r.subject.payer.country() == "IN" && r.subject.payee.country() == "AE";
        let rows = self.ledger.iter().filter(corridor).filter(|r| r.committed_at > day_ago);
        let gross: i128 = rows.map(|r| r.subject.amount.minor().units()).sum();
        assert!(gross <= 200, "{gross} went from IN to AE within a day");
        let lately = self.now.plus_seconds(-600);
        let rows = self.ledger.iter().map(|r| (r.subject.payer, r.accepted_at));
        let accepted = rows.chain(self.reserved.iter().map(|(s, at)| (s.payer, *at)));
        let count = accepted.filter(|(payer, at)| *payer == bank(2) && *at > lately).count();
        assert!(count <= 10, "{count} transactions within the time of a rate");
    }

    fn commit(&mut self, subject: Subject, accepted_at: Timestamp, first: bool) {
        let window = (!subject.gross).then(|| Self::window(self.open));
        if self.shrinking.remove(&subject.id) {
            self.shrinks(&subject);
        }
        self.ledger.push(Row { subject, window, accepted_at, committed_at: self.now });
        let fact = Fact::Committed { id: subject.id, payment: Self::payment(&subject), window, at: self.now, first };
        self.events.push_back(fact);
    }

    fn ask(&mut self, subject: Subject) {
        let known: Known = if self.unknown { Err("unknown".into()) } else { Ok(()) };
        if let Verdict::Pass { window } = self.keeper.admit(&subject, Ticket::default(), &known, self.now) {
            if self.reducing && [subject.payer, subject.payee].contains(&bank(0)) {
                self.shrinking.insert(subject.id);
            }
            self.passed.push_back((subject, window));
        }
    }

    /// What passed while positions could only shrink shrinks them when it is committed.
    fn shrinks(&self, subject: &Subject) {
        let (bank, units) = (bank(0), subject.amount.minor().units());
        let net = self.net(bank);
        let left = if subject.payer == bank { net - units } else { -net - units };
        assert!(!subject.gross && left >= 0, "{net} and {subject:?}");
    }

    fn decide(&mut self, how: u8) {
        let Some((subject, window)) = self.passed.pop_front() else { return };
        let id = subject.id;
        match how {
            0 => self.events.push_back(Fact::Refused { id, decision: None, at: self.now }),
            1 => {
                self.shrinking.remove(&id);
                self.held.push(subject);
                self.events.push_back(Fact::Held { id });
            }
            // Never heard of: it counts until it expires.
            2 => {}
            _ if subject.two_phase => {
                self.reserved.push((subject, self.now));
                let (payment, gross) = (Self::payment(&subject), subject.gross);
                self.events.push_back(Fact::Reserved { id, payment, gross, at: self.now });
            }
            // The ledger keeps to the window that the gate named.
            _ if window.is_some_and(|w| w != Self::window(self.open)) => {}
            _ => self.commit(subject, self.now, true),
        }
    }

    fn second(&mut self, which: usize, commit: bool) {
        if which.is_multiple_of(2) && !self.reserved.is_empty() {
            let (subject, accepted_at) = self.reserved.remove(which % self.reserved.len());
            if commit {
                self.commit(subject, accepted_at, false);
            } else {
                self.events.push_back(Fact::Ended { id: subject.id });
            }
        } else if !self.held.is_empty() {
            let subject = self.held.remove(which % self.held.len());
            if commit {
                self.ask(Subject { release: true, ..subject });
            } else {
                self.events.push_back(Fact::Refused { id: subject.id, decision: None, at: self.now });
            }
        }
    }

    fn come_back(&mut self, batch: usize) {
        let facts: Vec<Fact> = self.events.drain(..batch.min(self.events.len())).collect();
        let version = self.keeper.book.version + 1;
        self.keeper.count(version, &facts);
        self.counted.extend(facts);
    }

    fn restart(&mut self) {
        self.keeper = Gatekeeper::new(Recovery { cool_down: 60_000_000, probes: 2, refused_share: 2_000 });
        self.rules();
        self.passed.clear();
        // What was committed but not counted must be counted first.
        self.unknown = !self.events.is_empty();
        let counted = std::mem::take(&mut self.counted);
        self.keeper.count(1, &counted);
        self.counted = counted;
    }

    fn apply(&mut self, op: Op) {
        // As the turns tell: everything is counted that was decided before.
        self.unknown &= !self.events.is_empty();
        match op {
            Op::Ask { payer, payee, units, gross, two_phase } => {
                self.next += 1;
                let id = TransactionId::new(Uuid::from_u128(self.next));
                let amount = Money::new(Minor::new(units).unwrap(), self.usd);
                let (payer, payee) = (bank(payer), bank(payee));
                if payer != payee {
                    self.ask(Subject { id, payer, payee, amount, gross, two_phase, release: false });
                }
            }
            Op::Decide { how } => self.decide(how),
            Op::Second { which, commit } => self.second(which, commit),
            Op::Return { batch } => self.come_back(batch),
            Op::Seal => {
                let (window, next) = (Self::window(self.open), self.open + 1);
                self.open = next;
                self.unsettled.insert(next);
                let fact = Fact::Sealed { window, currency: self.usd, next: Some(Self::window(next)) };
                self.events.push_back(fact);
            }
            Op::Settle => {
                let Some(first) = self.unsettled.first().copied().filter(|n| *n != self.open) else { return };
                self.unsettled.remove(&first);
                self.events.push_back(Fact::Settled { windows: vec![Self::window(first)], currency: self.usd });
            }
            Op::Wait { seconds } => {
                self.now = self.now.plus_seconds(seconds);
                self.keeper.book.forget(self.now);
                if self.passed.is_empty() && self.events.is_empty() {
                    self.keeper.flight.expire(Ticket::default());
                }
            }
            Op::Restart => self.restart(),
            Op::Lower { units } => {
                self.limit = units;
                for (payer, payee) in [(0, 1), (1, 0), (0, 2)] {
                    // Everything that already passed may still come.
                    let (from, to) = (bank(payer), bank(payee));
                    self.allowed.insert((from, to), self.owed(from, to) + self.coming(from, to));
                }
                self.rules();
            }
            Op::Reduce { on } => {
                self.reducing = on;
                self.rules();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn what_passed_never_exceeds_a_limit(ops in prop::collection::vec(op(), 1..250)) {
        let mut model = Model::new();
        for op in ops {
            model.apply(op);
            model.check();
        }
        // In the end everything comes back, and the gate knows exactly what the ledger has.
        model.come_back(usize::MAX);
        for (payer, payee) in [(0, 1), (1, 0), (0, 2), (1, 2)] {
            let (from, to) = (bank(payer), bank(payee));
            prop_assert_eq!(model.keeper.book.bilateral_debit(from, to, model.usd), model.owed(from, to));
            let net: i128 = model.keeper.book.nets(from, model.usd).map(|(_, net)| net).sum();
            prop_assert_eq!(net, model.net(from));
        }
    }
}
