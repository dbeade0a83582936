//! Risk's shell around its real domain: what is counted, and a gate that answers from memory in the ledger's turns.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::Event;
use deltran_kernel::{CommandId, Currency, Minor, ParticipantId, Timestamp, TransactionId};
use deltran_messaging::Delivery;
use deltran_risk::domain::assess::{Gatekeeper, Subject, Verdict};
use deltran_risk::domain::book::Book;
use deltran_risk::domain::breaker::Recovery;
use deltran_risk::domain::count::{Fact, Waiting, fact_of, waits};
use deltran_risk::domain::rules::Ceiling;
use deltran_risk::domain::turn::{Turn, Turns};
use deltran_token::turn::Call;
use uuid::Uuid;

use super::check::{Breach, Checked, holds};
use super::op::Feed;
use super::shell::Shell;
use super::token::TokenEngine;

/// The most that the first may owe the second.
pub type Limits = BTreeMap<(ParticipantId, ParticipantId, Currency), i128>;

/// What risk says in a turn.
pub struct Said {
    pub verdict: Verdict,
    pub turn: u64,
    pub version: u64,
}

/// Tables: what is counted.
#[derive(Clone, Default)]
pub struct Counted {
    pub book: Book,
    pub waiting: BTreeMap<TransactionId, Waiting>,
}

struct Gate {
    name: String,
    keeper: Gatekeeper,
    turns: Turns,
}

/// The engine.
pub struct RiskEngine {
    pub rows: Counted,
    pub shell: Shell,
    gate: Gate,
    gates: u64,
    limits: Limits,
}

impl RiskEngine {
    pub fn new(shell: Shell, limits: Limits) -> Self {
        let gate = Self::gate(0, &limits);
        Self { rows: Counted::default(), shell, gate, gates: 0, limits }
    }

    fn gate(number: u64, limits: &Limits) -> Gate {
        let mut keeper = Gatekeeper::new(Recovery { cool_down: 60_000_000, probes: 2, refused_share: 2_000 });
        for (key, most) in limits {
            let most = Minor::new(*most).unwrap_or_default();
            keeper.rules.bilateral.insert(*key, Ceiling { limit_id: CommandId::new(Uuid::nil()), most });
        }
        Gate { name: format!("gate {number}"), keeper, turns: Turns::default() }
    }

    /// The process is gone, and with it what its gate let pass.
    pub fn crash(&mut self) {
        self.gates += 1;
        self.gate = Self::gate(self.gates, &self.limits);
    }

    /// Asks the gate as the ledger does: in its turn, which begins where another gate answers than the one it listens to.
    pub fn ask(
        &mut self,
        token: &mut TokenEngine,
        subject: &Subject,
        call: &Call,
        now: Timestamp,
    ) -> Checked<Result<Said, String>> {
        for _ in 0..3 {
            let Some((turn, done)) = token.process.turns.present().filter(|(turn, _)| turn.gate == self.gate.name)
            else {
                if token.listen(&self.gate.name)?.is_none() {
                    return Ok(Err("this process does not write the ledger".into()));
                }
                continue;
            };
            let (number, call) = (turn.number, call.number());
            let (term, producer, last_event) = (turn.term, turn.producer, turn.last_event);
            let turn = Turn { term, number, producer, last_event, call, done };
            return Ok(self.admit(&turn, subject, now).map(|verdict| {
                let version = self.gate.keeper.rules.version;
                Said { verdict, turn: number, version }
            }));
        }
        Ok(Err("several gates answer by turns".into()))
    }

    fn admit(&mut self, turn: &Turn, subject: &Subject, now: Timestamp) -> Result<Verdict, String> {
        if self.gate.turns.hear(turn)? {
            self.reload();
        }
        self.gate.turns.hear(turn)?;
        let known = self.gate.turns.known();
        Ok(self.gate.keeper.admit(subject, turn.ticket(), &known, now))
    }

    /// Compares memory with the tables.
    pub fn reload(&mut self) {
        let Gate { keeper, turns, .. } = &mut self.gate;
        if self.rows.book.version > keeper.book.version {
            keeper.book = self.rows.book.clone();
            keeper.flight.unreserve_all();
            for (id, waiting) in self.rows.waiting.iter().filter(|(_, w)| w.reserved) {
                keeper.flight.reserve(*id, waiting.payment, waiting.gross);
            }
        }
        let received = &self.shell.received;
        let counted = |producer: &str, number: u64| {
            let ranges = received.get(&(Feed::Exposures, producer.to_owned()));
            number == 0 || ranges.and_then(|r| r.iter().next()).is_some_and(|(_, high)| high >= number)
        };
        if let Some(until) = turns.reach(counted) {
            keeper.flight.expire(until);
        }
    }

    /// What events mean for what is counted: the tables after them, and what the gate is told after COMMIT.
    pub fn apply(&self, deliveries: &[Delivery]) -> Checked<(Counted, Vec<Fact>)> {
        let mut rows = self.rows.clone();
        let mut events: Vec<(&Event, Timestamp)> = Vec::new();
        for delivery in deliveries {
            if let (Some(event), Ok((envelope, _))) = (delivery.engine_event(), &*delivery.envelope) {
                events.push((event, envelope.timestamp));
            }
        }
        // Only rows that the events name are read, as the store does.
        let named: BTreeSet<TransactionId> = events.iter().filter_map(|(event, _)| waits(event)).collect();
        let mut waiting: BTreeMap<TransactionId, Waiting> =
            named.iter().filter_map(|id| rows.waiting.get(id).map(|w| (*id, *w))).collect();
        let mut facts = Vec::new();
        for (event, at) in &events {
            let fact = fact_of(event, *at, &mut waiting).map_err(|e| Breach::new("R7", e.to_string()))?;
            if let Some(fact) = fact {
                rows.book.count(&fact);
                facts.push(fact);
            }
        }
        rows.waiting.retain(|id, _| !named.contains(id));
        rows.waiting.extend(waiting);
        if !events.is_empty() {
            rows.book.version += 1;
        }
        Ok((rows, facts))
    }

    /// After COMMIT, in the process that consumed.
    pub fn counted(&mut self, facts: &[Fact]) {
        let version = self.rows.book.version;
        let keeper = &mut self.gate.keeper;
        if keeper.book.version + 1 == version {
            keeper.count(version, facts);
            return;
        }
        let behind = keeper.book.version < version;
        facts.iter().for_each(|fact| keeper.flight.seen(fact));
        if behind {
            self.reload();
        }
    }

    /// Once everything has come back, nothing is held against anybody.
    pub fn nothing_under_way(&self) -> Checked {
        let left = self.gate.keeper.flight.len();
        holds(left == 0, "R3", || format!("{left} transactions still count as under way"))
    }
}
