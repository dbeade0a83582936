//! Whose turn it is. The ledger listens to one gate at a time, and a turn begins behind everything that it
//! decided before: a gate that is asked in a new turn decides by what is counted only once it has counted all of
//! that. Whatever another gate let pass is among it, or will never be committed.

use super::assess::Known;
use super::flight::Ticket;

/// A call of the ledger in a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The epoch of the ledger's writer.
    pub term: u64,
    /// The turn within it.
    pub number: u64,
    /// The producer of the ledger's events.
    pub producer: String,
    /// The ledger's last event.
    pub last_event: u64,
    /// The number of this call.
    pub call: u64,
    /// No verdict of the calls up to this one is decided on any more.
    pub done: u64,
}

impl Turn {
    /// What passes in this call.
    pub fn ticket(&self) -> Ticket {
        Ticket { term: self.term, turn: self.number, call: self.call }
    }

    fn done(&self) -> Ticket {
        Ticket { call: self.done, ..self.ticket() }
    }
}

/// What is known to have been decided once an event is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Done {
    producer: String,
    event: u64,
    /// What passed up to here is counted by then, or will never be committed.
    until: Ticket,
}

/// How many of them wait for their events.
const WAITING: usize = 8;

/// The turns of a gate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    present: Option<(u64, u64)>,
    /// What must be counted before the present turn may rely on what is counted.
    needed: Option<(String, u64)>,
    waiting: Vec<Done>,
}

impl Turns {
    /// Hears a call. True where a turn begins with it.
    ///
    /// # Errors
    /// Where a later turn has begun: this one's verdicts would count for nothing.
    pub fn hear(&mut self, turn: &Turn) -> Result<bool, String> {
        let key = (turn.term, turn.number);
        if self.present.is_some_and(|present| key < present) {
            return Err("the ledger asks this gate in a later turn already: try again with the same id".to_owned());
        }
        let begins = self.present != Some(key);
        if begins {
            self.present = Some(key);
            self.needed = Some((turn.producer.clone(), turn.last_event));
            self.waiting.clear();
        }
        // The oldest are reached first: where they are many, later ones wait for a later call.
        if self.waiting.len() < WAITING && self.waiting.last().is_none_or(|last| last.until < turn.done()) {
            let (producer, event) = (turn.producer.clone(), turn.last_event);
            self.waiting.push(Done { producer, event, until: turn.done() });
        }
        Ok(begins)
    }

    /// Knows what is counted: of each producer everything up to what `counted` says. Returns up to where
    /// nothing is under way any more that is not counted.
    pub fn reach(&mut self, counted: impl Fn(&str, u64) -> bool) -> Option<Ticket> {
        if self.needed.as_ref().is_some_and(|(producer, event)| counted(producer, *event)) {
            self.needed = None;
        }
        let place = self.waiting.iter().rposition(|done| counted(&done.producer, done.event))?;
        self.waiting.drain(..=place).next_back().map(|done| done.until)
    }

    /// Whether what is counted has all that the ledger decided before the turn, or why it is not known.
    pub fn known(&self) -> Known {
        match &self.needed {
            None => Ok(()),
            Some((producer, event)) => Err(format!(
                "what the ledger decided up to event {event} of {producer} is not counted yet: try again with the same id"
            )),
        }
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
