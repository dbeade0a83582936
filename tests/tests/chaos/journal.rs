//! What the banks sent and were told. Whatever contradicts what was told before is a breach, and ends the run badly.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;

use deltran_api::token::v1::{TransactionInstruction, TransactionOutcome, TransactionState};
use tonic::{Code, Status};

/// A transaction of a bank.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was sent.
    pub sent: TransactionInstruction,
    /// How often.
    pub times: u32,
    /// The outcome, once its bank was told.
    pub told: Option<TransactionOutcome>,
    /// The state that an answer to its commit or cancellation said.
    pub ended: Option<TransactionState>,
}

/// What was counted besides.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Answers that told no outcome, by what they were.
    pub unknown: BTreeMap<String, u64>,
    /// Outcomes that a second sending told, where the first had been decided.
    pub replayed: u64,
    /// Outcomes that came of a second sending, where the first had not been decided.
    pub decided_late: u64,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<String, Entry>,
    counts: Counts,
    breaches: Vec<String>,
    /// The latest time of a decision that a bank was told, in microseconds since 1970.
    decided: i64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Inner>);

impl Journal {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.lock().expect("no panic"))
    }

    /// Transactions are about to be sent, for the first time or again.
    pub fn sending(&self, transactions: &[TransactionInstruction]) {
        self.with(|inner| {
            for sent in transactions {
                let fresh = || Entry { sent: sent.clone(), times: 0, told: None, ended: None };
                inner.entries.entry(sent.transaction_id.clone()).or_insert_with(fresh).times += 1;
            }
        });
    }

    /// A bank was told an outcome.
    pub fn told(&self, outcome: TransactionOutcome, replayed: bool) {
        let breach = self.with(|inner| {
            let Some(entry) = inner.entries.get_mut(&outcome.transaction_id) else {
                return Some(format!("an outcome of what nobody sent: {outcome:?}"));
            };
            if let Some(at) = outcome.decided_at {
                inner.decided = inner.decided.max(at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000);
            }
            if entry.times > 1 {
                *(if replayed { &mut inner.counts.replayed } else { &mut inner.counts.decided_late }) += 1;
            }
            match &entry.told {
                Some(first) if *first != outcome => {
                    return Some(format!("told {first:?}, and later {outcome:?}"));
                }
                Some(_) if !replayed => return Some(format!("decided again: {outcome:?}")),
                None if replayed && entry.times == 1 => {
                    return Some(format!("sent once and called a repetition: {outcome:?}"));
                }
                _ => {}
            }
            entry.told = Some(outcome);
            None
        });
        self.breaches_of(breach);
    }

    /// A bank was told how a reserved transaction ended.
    pub fn ended(&self, id: &str, state: TransactionState) {
        let breach = self.with(|inner| {
            let entry = inner.entries.get_mut(id)?;
            let first = entry.ended.replace(state);
            first.filter(|first| *first != state).map(|first| format!("{id}: ended {first:?}, and later {state:?}"))
        });
        self.breaches_of(breach);
    }

    /// No outcome came back.
    pub fn unknown(&self, _id: &str, why: &str) {
        self.with(|inner| *inner.counts.unknown.entry(why.to_owned()).or_default() += 1);
    }

    /// A call failed instead of answering; what is no reason to try again is a breach.
    pub fn failed(&self, id: &str, status: &Status) {
        if let Some(why) = may_be_tried_again(status) {
            self.unknown(id, &why);
        } else {
            self.breach(format!("{id}: answered {status:?}"));
        }
    }

    /// The latest time that the ledger said it decided at, in microseconds since 1970.
    pub fn decided(&self) -> i64 {
        self.with(|inner| inner.decided)
    }

    /// Whether the bank knows the outcome.
    pub fn is_told(&self, id: &str) -> bool {
        self.with(|inner| inner.entries.get(id).is_some_and(|entry| entry.told.is_some()))
    }

    /// What a bank was told.
    pub fn state(&self, id: &str) -> Option<TransactionState> {
        self.with(|inner| Some(inner.entries.get(id)?.told.as_ref()?.state()))
    }

    /// Something is not as it must be.
    pub fn breach(&self, what: String) {
        println!("BREACH: {what}");
        self.with(|inner| inner.breaches.push(what));
    }

    fn breaches_of(&self, breach: Option<String>) {
        if let Some(what) = breach {
            self.breach(what);
        }
    }

    /// Everything that is not as it must be.
    pub fn breaches(&self) -> Vec<String> {
        self.with(|inner| inner.breaches.clone())
    }

    /// Everything that was sent.
    pub fn entries(&self) -> BTreeMap<String, Entry> {
        self.with(|inner| inner.entries.clone())
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.with(|inner| inner.counts.clone())
    }
}

/// Why a status tells no outcome, where it is one after which the same may be sent again.
pub fn may_be_tried_again(status: &Status) -> Option<String> {
    // The connection's own words: nothing that the platform has answered.
    if status.source().is_some() {
        return Some("connection broke".to_owned());
    }
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled | Code::DataLoss => {
            Some(format!("{:?}", status.code()))
        }
        _ => None,
    }
}
