//! Property test: a batch against a ledger, with lost commands, lost answers, crashes, top-ups and time.

use std::collections::BTreeMap;

use deltran_events::Event;
use deltran_events::data::clearing::NettingCompleted;
use deltran_events::data::transactions::CoverPolicy;
use deltran_kernel::{Currency, Minor, Money, NettingSetId, ParticipantId, PostingGroupId, Timestamp, WindowId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const RULES: Rules = Rules { funding_deadline_seconds: 20 };

fn minor(units: i128) -> Minor {
    Minor::new(units).unwrap()
}

fn bank(index: usize) -> ParticipantId {
    format!("BANK{}XX", ["US", "GB", "AE", "IN", "DE", "FR"][index]).parse().unwrap()
}

/// A ledger as the contract says it: by group id it answers the same for ever; refusals are not stored.
#[derive(Default)]
struct Ledger {
    owed: BTreeMap<ParticipantId, Minor>,
    balance: BTreeMap<ParticipantId, Minor>,
    locked: BTreeMap<ParticipantId, Minor>,
    earmarks: BTreeMap<PostingGroupId, BTreeMap<ParticipantId, FundingLine>>,
    settled: Option<(PostingGroupId, Timestamp)>,
    settlements: u32,
}

impl Ledger {
    fn is_short(&self) -> bool {
        self.owed.iter().any(|(participant, owed)| self.locked[participant] < *owed)
    }

    fn answer(&mut self, command: Command, set: &NettingSet, now: Timestamp) -> Answer {
        match command {
            Command::ReadNettingSet => Answer::NettingSet(set.clone()),
            Command::Earmark(group) => {
                if let Some(lines) = self.earmarks.get(&group) {
                    return Answer::Funding { lines: lines.clone(), asked_at: now, replayed: true };
                }
                if self.settled.is_some() {
                    return Answer::Refused { reason: "the window is settled".into() };
                }
                let mut lines = BTreeMap::new();
                for (participant, owed) in &self.owed {
                    let balance = self.balance[participant];
                    let lock = owed.sub(self.locked[participant]).unwrap().at_most(balance);
                    let locked = self.locked[participant].add(lock).unwrap();
                    self.balance.insert(*participant, balance.sub(lock).unwrap());
                    self.locked.insert(*participant, locked);
                    let cover = CoverPolicy::Collateral;
                    lines.insert(*participant, FundingLine { required: *owed, reserved: locked, cover });
                }
                self.earmarks.insert(group, lines.clone());
                Answer::Funding { lines, asked_at: now, replayed: false }
            }
            Command::Settle(group) => match self.settled {
                Some((by, at)) if by == group => Answer::Posted { at },
                Some(_) => Answer::Refused { reason: "the window is settled".into() },
                None if self.is_short() => Answer::Refused { reason: "a debtor is short".into() },
                None => {
                    self.settled = Some((group, now));
                    self.settlements += 1;
                    Answer::Posted { at: now }
                }
            },
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// The command is sent, answered, decided and stored.
    Step,
    /// The command never arrives.
    CommandLost,
    /// The ledger does it; the answer never arrives, or the process dies before it stores the decision.
    AnswerLost,
    /// The ledger refuses without a reason that will last.
    Refused,
    /// The ledger does it and says that it did not.
    Misreported,
    TopUp(usize, i128),
    Advance(i64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Step),
        2 => Just(Op::CommandLost),
        3 => Just(Op::AnswerLost),
        1 => Just(Op::Refused),
        1 => Just(Op::Misreported),
        2 => (0usize..5, 1i128..200).prop_map(|(bank, amount)| Op::TopUp(bank, amount)),
        2 => (1i64..15).prop_map(Op::Advance),
    ]
}

struct World {
    ledger: Ledger,
    set: NettingSet,
    batch: Batch,
    legs: Legs,
    now: Timestamp,
    events: Vec<Event>,
}

impl World {
    fn new(debts: &[i128], balances: &[i128]) -> Self {
        let usd = Currency::new("USD").unwrap();
        let total = minor(debts.iter().sum());
        let mut ledger = Ledger::default();
        let mut positions = vec![(bank(5), total)];
        for (index, (debt, balance)) in debts.iter().zip(balances).enumerate() {
            positions.push((bank(index), minor(-debt)));
            ledger.balance.insert(bank(index), minor(*balance));
            ledger.locked.insert(bank(index), Minor::ZERO);
            if *debt > 0 {
                ledger.owed.insert(bank(index), minor(*debt));
            }
        }
        let event = NettingCompleted {
            netting_set_id: NettingSetId::new(Uuid::from_u128(1)),
            currency: usd,
            window_ids: vec![WindowId::new(Uuid::from_u128(2))],
            count: 3,
            gross: Money::new(total, usd).into(),
            moved: Money::new(total, usd).into(),
            efficiency: 0,
            participants: u32::try_from(positions.len()).unwrap(),
            largest_debtor: None,
            digest: "d".into(),
        };
        let terms = Terms::of(&event).unwrap();
        let set = NettingSet {
            id: terms.netting_set_id,
            currency: usd,
            window_ids: terms.window_ids.clone(),
            transactions: 3,
            gross: total,
            moved: total,
            digest: "d".into(),
            positions,
        };
        let now = Timestamp::from_micros(0);
        let Ok(Applied::Executed((batch, created))) = announce(terms, None, None, now) else { panic!() };
        Self { ledger, set, batch, legs: Legs::new(), now, events: vec![created] }
    }

    fn take(&mut self, answer: Answer) {
        let decision = decide(&self.batch, &self.legs, answer, &RULES, self.now).unwrap();
        assert_eq!(decision.pace == Pace::End, decision.batch.is_ended());
        self.events.extend(decision.events);
        self.batch = decision.batch;
        self.legs = decision.legs;
    }

    fn apply(&mut self, op: &Op) {
        let before = self.batch.clone();
        match (op, self.batch.command()) {
            (Op::Step, Some(command)) => {
                let answer = self.ledger.answer(command, &self.set, self.now);
                self.take(answer);
            }
            (Op::AnswerLost, Some(command)) => drop(self.ledger.answer(command, &self.set, self.now)),
            (Op::Misreported, Some(command)) => {
                drop(self.ledger.answer(command, &self.set, self.now));
                self.take(Answer::Refused { reason: "done, but said otherwise".into() });
            }
            (Op::Refused, Some(_)) => self.take(Answer::Refused { reason: "not at present".into() }),
            (Op::TopUp(index, amount), _) => {
                if let Some(balance) = self.ledger.balance.get_mut(&bank(*index)) {
                    *balance = balance.add(minor(*amount)).unwrap();
                }
            }
            (Op::Advance(seconds), _) => self.now = self.now.plus_seconds(*seconds),
            (Op::Step | Op::AnswerLost | Op::Refused | Op::Misreported | Op::CommandLost, _) => {}
        }
        if before.is_ended() {
            assert_eq!(before, self.batch, "what ended changes no more");
        }
        self.check();
    }

    /// S6, and what the ledger must agree to.
    fn check(&self) {
        let ledger = &self.ledger;
        assert!(ledger.settlements <= 1, "settled once");
        match self.batch.state {
            BatchState::Settled => assert_eq!(self.batch.final_at, ledger.settled.map(|(_, at)| at)),
            BatchState::Reserved => {}
            state => assert!(ledger.settled.is_none(), "{state} although the ledger has settled"),
        }
        if self.batch.state == BatchState::Aborted {
            assert!(self.batch.funding_deadline.is_some_and(|deadline| self.now >= deadline));
            assert!(ledger.is_short(), "given up although every debtor had the funds");
        }
        let count = |kind: &str| self.events.iter().filter(|e| e.spec().event_type() == kind).count();
        assert_eq!(count("batch.created"), 1);
        assert_eq!(count("batch.settled"), usize::from(self.batch.state == BatchState::Settled));
        assert_eq!(count("batch.aborted"), usize::from(self.batch.state == BatchState::Aborted));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn whatever_is_lost_a_batch_settles_once_or_is_given_up(
        debts in prop::collection::vec(0i128..100, 0..5),
        balances in prop::collection::vec(0i128..150, 5),
        ops in prop::collection::vec(op(), 0..60),
    ) {
        let mut world = World::new(&debts, &balances);
        for op in &ops {
            world.apply(op);
        }
        // Once all have the funds and answers arrive, it ends, and it settles unless it was given up before.
        let was_given_up = world.batch.state == BatchState::Aborted;
        for index in 0..debts.len() {
            world.apply(&Op::TopUp(index, 1000));
        }
        for _ in 0..200 {
            world.apply(&Op::Step);
        }
        prop_assert_eq!(world.batch.state, if was_given_up { BatchState::Aborted } else { BatchState::Settled });
    }
}
