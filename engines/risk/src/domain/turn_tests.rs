//! Turns with several gates and writers, against what a ledger committed.

use std::collections::VecDeque;

use deltran_events::data::risk::LimitKind;
use deltran_kernel::{CommandId, Currency, Minor, Money, ParticipantId, Timestamp, TransactionId, WindowId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::assess::{Gatekeeper, Stop, Subject, Verdict};
use crate::domain::breaker::Recovery;
use crate::domain::count::{Fact, Payment};
use crate::domain::rules::Ceiling;

fn turn(term: u64, number: u64, last_event: u64, call: u64, done: u64) -> Turn {
    Turn { term, number, producer: "token-engine/1".into(), last_event, call, done }
}

fn counted(up_to: u64) -> impl Fn(&str, u64) -> bool {
    move |producer, event| producer == "token-engine/1" && event <= up_to
}

#[test]
fn a_turn_waits_for_what_was_decided_before() {
    let mut turns = Turns::default();
    assert_eq!(turns.hear(&turn(3, 1, 10, 5, 4)), Ok(true));
    assert_eq!(turns.reach(counted(9)), None);
    assert!(turns.known().unwrap_err().contains("event 10"));
    assert_eq!(turns.hear(&turn(3, 1, 99, 6, 4)), Ok(false), "the same turn needs no more");
    assert_eq!(turns.reach(counted(10)), Some(Ticket { term: 3, turn: 1, call: 4 }));
    assert_eq!(turns.known(), Ok(()));
    for later in [turn(3, 2, 20, 7, 6), turn(4, 1, 30, 1, 0)] {
        assert_eq!(turns.hear(&later), Ok(true));
        assert!(turns.known().is_err());
    }
    for earlier in [turn(3, 1, 10, 8, 4), turn(3, 9, 90, 8, 4), turn(2, 9, 90, 8, 4)] {
        assert!(turns.hear(&earlier).unwrap_err().contains("later turn"));
    }
    assert_eq!(turns.reach(counted(30)), Some(Ticket { term: 4, turn: 1, call: 0 }));
}

#[test]
fn calls_are_over_once_their_events_are_counted() {
    let mut turns = Turns::default();
    let ticket = |call| Some(Ticket { term: 1, turn: 1, call });
    for (call, last_event) in [(1, 0), (2, 3), (3, 5)] {
        turns.hear(&turn(1, 1, last_event, call, call - 1)).unwrap();
    }
    assert_eq!(turns.reach(counted(4)), ticket(1));
    assert_eq!(turns.reach(counted(4)), None, "told once");
    // However many calls come while nothing is counted, the oldest are not lost.
    for call in 4..1_000 {
        turns.hear(&turn(1, 1, 10 + call, call, call - 1)).unwrap();
    }
    assert!(turns.waiting.len() <= WAITING);
    assert_eq!(turns.reach(counted(5)), ticket(2));
    assert!(turns.reach(counted(2_000)) > ticket(3));
}

const LIMIT: i128 = 100;

#[derive(Debug, Clone)]
enum Op {
    /// The ledger asks one of the gates.
    Ask { gate: usize, units: i128 },
    /// One of the verdicts that wait is decided on, or lost on its way.
    Decide { which: usize, lost: bool },
    /// A gate counts so many more of the ledger's events, which it has seen itself or reads as sums.
    Count { gate: usize, events: usize, seen: bool },
    /// A gate forgets everything but what was counted, and has another name from then on.
    Restart { gate: usize },
    /// Another process writes the ledger.
    TakeOver,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..2usize, 1i128..60).prop_map(|(gate, units)| Op::Ask { gate, units }),
        5 => (0..8usize, prop::bool::weighted(0.2)).prop_map(|(which, lost)| Op::Decide { which, lost }),
        5 => (0..2usize, 1..5usize, any::<bool>()).prop_map(|(gate, events, seen)| Op::Count { gate, events, seen }),
        1 => (0..2usize).prop_map(|gate| Op::Restart { gate }),
        1 => Just(Op::TakeOver),
    ]
}

struct Gate {
    name: usize,
    keeper: Gatekeeper,
    turns: Turns,
    counted: usize,
}

/// A verdict on its way to the writer.
struct Verdicted {
    id: TransactionId,
    units: i128,
    term: u64,
    turn: u64,
    call: u64,
}

struct World {
    gates: [Gate; 2],
    names: usize,
    term: u64,
    turn: u64,
    listens_to: Option<usize>,
    calls: u64,
    next: u128,
    waiting: VecDeque<Verdicted>,
    events: Vec<Fact>,
    committed: i128,
}

fn party(id: &str) -> ParticipantId {
    id.parse().unwrap()
}

fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

fn payment(units: i128) -> Payment {
    let amount = Money::new(Minor::new(units).unwrap(), usd());
    Payment { payer: party("ALFAAEXX"), payee: party("BRAVINXX"), amount }
}

fn gate(name: usize) -> Gate {
    let mut keeper = Gatekeeper::new(Recovery { cool_down: 60_000_000, probes: 2, refused_share: 2_000 });
    let ceiling = Ceiling { limit_id: CommandId::new(Uuid::nil()), most: Minor::new(LIMIT).unwrap() };
    keeper.rules.bilateral.insert((party("ALFAAEXX"), party("BRAVINXX"), usd()), ceiling);
    Gate { name, keeper, turns: Turns::default(), counted: 0 }
}

impl World {
    fn new() -> Self {
        Self {
            gates: [gate(0), gate(1)],
            names: 2,
            term: 1,
            turn: 0,
            listens_to: None,
            calls: 0,
            next: 0,
            waiting: VecDeque::new(),
            events: Vec::new(),
            committed: 0,
        }
    }

    fn ask(&mut self, which: usize, units: i128) {
        let gate = &mut self.gates[which];
        if self.listens_to != Some(gate.name) {
            self.listens_to = Some(gate.name);
            self.turn += 1;
        }
        self.calls += 1;
        let done = self.waiting.iter().map(|v| v.call).min().unwrap_or(self.calls) - 1;
        let asked = turn(self.term, self.turn, self.events.len() as u64, self.calls, done);
        gate.turns.hear(&asked).unwrap();
        Self::reach(gate);
        self.next += 1;
        let id = TransactionId::new(Uuid::from_u128(self.next));
        let Payment { payer, payee, amount } = payment(units);
        let subject = Subject { id, payer, payee, amount, gross: false, two_phase: false, release: false };
        let known = gate.turns.known();
        match gate.keeper.admit(&subject, asked.ticket(), &known, Timestamp::default()) {
            Verdict::Pass { .. } => {
                let (term, turn, call) = (self.term, self.turn, self.calls);
                self.waiting.push_back(Verdicted { id, units, term, turn, call });
            }
            Verdict::Refused(Stop::Amount { kind: LimitKind::Bilateral, .. }) => {
                let may_come: i128 = self.waiting.iter().map(|v| v.units).sum();
                let expected = self.committed + may_come + units > LIMIT || gate.counted < self.events.len();
                assert!(expected || !gate.keeper.flight.is_empty(), "refused without a cause");
            }
            Verdict::Undecided(_) => assert!(known.is_err()),
            other => panic!("{other:?}"),
        }
    }

    fn decide(&mut self, which: usize, lost: bool) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(verdict) = self.waiting.remove(which % self.waiting.len()) else { return };
        // The writer refuses what was said in another turn.
        if lost || (verdict.term, verdict.turn) != (self.term, self.turn) {
            return;
        }
        self.committed += verdict.units;
        let (id, payment) = (verdict.id, payment(verdict.units));
        let window = Some(WindowId::new(Uuid::nil()));
        self.events.push(Fact::Committed { id, payment, window, at: Timestamp::default(), first: true });
    }

    fn count(&mut self, which: usize, events: usize, seen: bool) {
        let gate = &mut self.gates[which];
        let to = (gate.counted + events).min(self.events.len());
        for fact in &self.events[gate.counted..to] {
            gate.keeper.book.count(fact);
            if seen {
                gate.keeper.flight.follow(fact);
            }
        }
        gate.counted = to;
        Self::reach(gate);
    }

    fn reach(gate: &mut Gate) {
        let up_to = gate.counted as u64;
        if let Some(until) = gate.turns.reach(counted(up_to)) {
            gate.keeper.flight.expire(until);
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Ask { gate, units } => self.ask(gate, units),
            Op::Decide { which, lost } => self.decide(which, lost),
            Op::Count { gate, events, seen } => self.count(gate, events, seen),
            Op::Restart { gate: which } => {
                let counted = self.gates[which].counted;
                self.gates[which] = gate(self.names);
                self.names += 1;
                self.count(which, counted, false);
            }
            Op::TakeOver => {
                self.term += 1;
                self.turn = 0;
                self.listens_to = None;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    /// Whichever gates are asked, restarted and overtaken, and whatever is decided late: no limit is exceeded.
    /// When everything has come back nothing is held against anybody.
    #[test]
    fn several_gates_are_as_exact_as_one(ops in prop::collection::vec(op(), 1..200)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
            prop_assert!(world.committed <= LIMIT, "{} committed", world.committed);
        }
        while !world.waiting.is_empty() {
            world.decide(0, false);
            prop_assert!(world.committed <= LIMIT);
        }
        for gate in 0..2 {
            world.count(gate, usize::MAX / 2, false);
            // A call tells that everything is done, and one more is judged by it.
            world.ask(gate, LIMIT + 1);
            world.count(gate, 0, false);
            prop_assert!(world.gates[gate].keeper.flight.is_empty());
            let rest = LIMIT - world.committed;
            if rest > 0 {
                world.ask(gate, rest);
                prop_assert_eq!(world.waiting.len(), 1);
                world.decide(0, true);
            }
        }
    }
}
