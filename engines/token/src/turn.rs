//! Which gate of risk the writer listens to. A gate counts what it let pass until the event about it is
//! back, so of several gates only one may be heard at a time, and the next one only once it has counted
//! whatever the ledger decided before.
//!
//! That is a *turn*: it begins in the writer, behind everything that was decided, and tells the number of the
//! ledger's last event. A verdict counts only in the turn in which it was asked for; the writer refuses
//! others as undecided. Within a turn calls are numbered, and each is open until no verdict of it can be
//! decided on any more, so that a gate learns when to forget what never came back.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The writer listens to one gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The epoch of the writer's lease.
    pub term: u64,
    /// Its number: rises with each turn of this process, from 1.
    pub number: u64,
    /// The gate.
    pub gate: String,
    /// The producer of the ledger's events.
    pub producer: String,
    /// The last event of the ledger. Everything decided before the turn, and in calls that are done, is in
    /// events up to it.
    pub last_event: u64,
}

/// The turns of this process. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    present: Option<Turn>,
    begun: u64,
    called: u64,
    open: BTreeSet<u64>,
}

/// A call of a gate that is not done: verdicts of it may still be decided on.
#[derive(Debug)]
pub struct Call {
    turns: Turns,
    number: u64,
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a turn: nothing that was said in an earlier one counts from now on.
    pub fn begin(&self, term: u64, gate: String, producer: String, last_event: u64) -> Turn {
        let mut state = self.state();
        state.begun += 1;
        let turn = Turn { term, number: state.begun, gate, producer, last_event };
        state.present = Some(turn.clone());
        turn
    }

    /// Ends the present turn, where there is one.
    pub fn end(&self) {
        self.state().present = None;
    }

    /// Knows the last event of the ledger after a COMMIT, before anybody is answered.
    pub fn committed(&self, last_event: u64) {
        if let Some(turn) = &mut self.state().present {
            turn.last_event = turn.last_event.max(last_event);
        }
    }

    /// Begins a call.
    pub fn call(&self) -> Arc<Call> {
        let mut state = self.state();
        state.called += 1;
        let number = state.called;
        state.open.insert(number);
        Arc::new(Call { turns: self.clone(), number })
    }

    /// The present turn, with the last call up to which all are done.
    pub fn present(&self) -> Option<(Turn, u64)> {
        let state = self.state();
        let done = state.open.first().map_or(state.called, |first| first - 1);
        state.present.clone().map(|turn| (turn, done))
    }
}

impl Call {
    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.turns.state().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_done_in_their_order() {
        let turns = Turns::default();
        assert_eq!(turns.present(), None);
        let first = turns.call();
        let turn = turns.begin(7, "one".into(), "token-engine/1".into(), 10);
        let (second, third) = (turns.call(), turns.call());
        let done = || turns.present().map(|(_, done)| done);
        assert_eq!((turn.number, first.number(), third.number(), done()), (1, 1, 3, Some(0)));
        let shared = second.clone();
        drop(second);
        drop(third);
        assert_eq!(done(), Some(0), "the first is open");
        drop(first);
        assert_eq!(done(), Some(1), "the second is held twice");
        drop(shared);
        assert_eq!(done(), Some(3));
    }

    #[test]
    fn a_turn_knows_the_last_event() {
        let turns = Turns::default();
        turns.committed(4);
        turns.begin(7, "one".into(), "token-engine/1".into(), 10);
        turns.committed(12);
        assert_eq!(turns.present().map(|(turn, _)| (turn.number, turn.last_event)), Some((1, 12)));
        turns.end();
        assert_eq!(turns.present(), None);
        assert_eq!(turns.begin(8, "one".into(), "token-engine/1".into(), 12).number, 2, "numbers never come back");
    }
}
