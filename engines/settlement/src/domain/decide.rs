//! The state machine: a batch and an answer give the next state, its events, and when to ask again.
//!
//! An answer that did not come is no answer: it changes nothing, and the same command is sent again.

use std::collections::BTreeMap;

use deltran_events::Event;
use deltran_events::data::settlement::{
    BatchAborted, BatchAwaitingFunds, BatchReserved, BatchSettled, BatchState, Shortfall,
};
use deltran_events::data::transactions::CoverPolicy;
use deltran_kernel::{Minor, ParticipantId, Timestamp};

use super::Breach;
use super::batch::Batch;
use super::legs::{FundingLine, Leg, Legs, Mismatch, NettingSet, funded, legs_of};

/// Shortfalls that one event lists.
const LISTED: usize = 20;

/// What decisions need of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Seconds that a short debtor has to top up.
    pub funding_deadline_seconds: u32,
}

/// A definite answer to the command of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Clearing's frozen positions.
    NettingSet(NettingSet),
    /// What the ledger has locked.
    Funding {
        /// By participant.
        lines: BTreeMap<ParticipantId, FundingLine>,
        /// When the try was begun, by the clock of this engine.
        asked_at: Timestamp,
        /// The ledger had carried out this try before: its answer may be older than `asked_at`.
        replayed: bool,
    },
    /// Every leg is posted.
    Posted {
        /// The time of the posting.
        at: Timestamp,
    },
    /// The other side refuses, and will not have done it.
    Refused {
        /// In its words.
        reason: String,
    },
}

impl Answer {
    /// What kind of answer it is.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NettingSet(_) => "a netting set",
            Self::Funding { .. } => "funding",
            Self::Posted { .. } => "a posting",
            Self::Refused { .. } => "a refusal",
        }
    }
}

/// When a batch is to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Now,
    /// After the retry time, and at the funding deadline.
    Retry,
    /// Ever more slowly: nothing will change by itself.
    Slow,
    /// Never: it has ended.
    End,
}

/// What a batch becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The batch after it.
    pub batch: Batch,
    /// Its legs after it.
    pub legs: Legs,
    /// What happened.
    pub events: Vec<Event>,
    /// Invariants found broken that were not known to be.
    pub breaches: Vec<Breach>,
    /// When to ask again.
    pub pace: Pace,
}

/// The answer fits no arrow that leaves the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a batch that is {state} takes no answer that is {answer}")]
pub struct NotDrawn {
    /// The present state.
    pub state: BatchState,
    /// The kind of the answer.
    pub answer: &'static str,
}

/// Decides what an answer makes of a batch.
///
/// # Errors
/// [`NotDrawn`] where the state has no arrow for such an answer; nothing changes.
pub fn decide(batch: &Batch, legs: &Legs, answer: Answer, rules: &Rules, now: Timestamp) -> Result<Decision, NotDrawn> {
    use BatchState::{AwaitingFunds, Pending, Reserved};
    let from = Step { batch, legs };
    match (batch.state, answer) {
        (Pending, Answer::NettingSet(set)) if !batch.loaded => Ok(from.read(&set)),
        (Pending, Answer::Refused { reason }) if !batch.loaded => Ok(from.hold("S2", reason)),
        (Pending | AwaitingFunds, Answer::Funding { lines, asked_at, replayed }) if batch.loaded => {
            Ok(from.funding(&lines, asked_at, replayed, rules, now))
        }
        (Reserved, Answer::Funding { lines, asked_at, replayed }) if batch.doubted => {
            Ok(from.funding(&lines, asked_at, replayed, rules, now))
        }
        (Reserved, Answer::Posted { at }) => Ok(from.settled(at)),
        (Reserved, Answer::Refused { reason }) => {
            // A refused posting asks for funding first; refused funding asks for the posting again, which
            // may have been done after all.
            let mut decision = from.hold("S5", reason);
            decision.batch.doubted = !batch.doubted;
            Ok(decision)
        }
        (Pending | AwaitingFunds, Answer::Refused { reason }) => Ok(from.hold("S5", reason)),
        (state, answer) => Err(NotDrawn { state, answer: answer.kind() }),
    }
}

/// A batch and its legs before a decision.
#[derive(Clone, Copy)]
struct Step<'a> {
    batch: &'a Batch,
    legs: &'a Legs,
}

impl Step<'_> {
    fn to(self, legs: Legs, pace: Pace, change: impl FnOnce(&mut Batch)) -> Decision {
        let mut batch = self.batch.clone();
        change(&mut batch);
        Decision { batch, legs, events: Vec::new(), breaches: Vec::new(), pace }
    }

    fn read(self, set: &NettingSet) -> Decision {
        match legs_of(&self.batch.terms, set) {
            Err(Mismatch(detail)) => self.hold("S2", detail),
            Ok(legs) => self.to(legs, Pace::Now, |batch| {
                batch.loaded = true;
                batch.alarm = false;
                batch.note.clear();
            }),
        }
    }

    /// Keeps the state, loudly.
    fn hold(self, invariant: &'static str, detail: String) -> Decision {
        let batch = self.batch;
        let known = batch.alarm && batch.note == detail;
        let mut decision = self.to(self.legs.clone(), Pace::Slow, |after| {
            let settling = batch.state == BatchState::Reserved && !batch.doubted;
            if batch.loaded && !settling {
                after.next_earmark = batch.next_earmark.saturating_add(1);
            }
            after.alarm = true;
            after.note.clone_from(&detail);
        });
        if !known {
            decision
                .breaches
                .push(Breach { invariant, detail: format!("batch {} ({}): {detail}", batch.id, batch.state) });
        }
        decision
    }

    fn funding(
        self,
        lines: &BTreeMap<ParticipantId, FundingLine>,
        asked_at: Timestamp,
        replayed: bool,
        rules: &Rules,
        now: Timestamp,
    ) -> Decision {
        let batch = self.batch;
        let (legs, missing) =
            match funded(self.legs, lines).and_then(|legs| Ok((Minor::sum(legs.values().map(Leg::missing))?, legs))) {
                Ok((missing, legs)) => (legs, missing),
                Err(Mismatch(detail)) => return self.hold("S3", detail),
            };
        let mut decision = if missing.is_zero() {
            self.reserved(legs)
        } else if batch.state == BatchState::AwaitingFunds {
            let too_late = batch.funding_deadline.filter(|deadline| !replayed && asked_at >= *deadline);
            match too_late {
                Some(deadline) => self.aborted(legs, missing, deadline),
                None => self.waiting(legs, missing, replayed),
            }
        } else if batch.state == BatchState::Reserved && replayed {
            // An answer from before the refusal says nothing about the refusal.
            self.to(legs, Pace::Now, |_| {})
        } else {
            let deadline = now.plus_seconds(i64::from(rules.funding_deadline_seconds));
            self.short(legs, missing, deadline)
        };
        decision.batch.next_earmark = batch.next_earmark.saturating_add(1);
        for (participant, leg) in &decision.legs {
            if is_prefunded_short(leg) && !self.legs.get(participant).is_some_and(is_prefunded_short) {
                decision.batch.alarm = true;
                decision.breaches.push(Breach {
                    invariant: "S4",
                    detail: format!(
                        "batch {}: {participant} is PREFUNDED, owes {} and has reserved {}",
                        batch.id,
                        batch.money(leg.required()),
                        batch.money(leg.reserved)
                    ),
                });
            }
        }
        decision
    }

    fn reserved(self, legs: Legs) -> Decision {
        let batch = self.batch;
        let mut decision = self.to(legs, Pace::Now, |after| {
            after.state = BatchState::Reserved;
            after.doubted = false;
            // What the ledger refused without a debtor being short stays an alarm until it settles.
            after.alarm &= batch.doubted;
            if !after.alarm {
                after.note.clear();
            }
        });
        if batch.state != BatchState::Reserved {
            let event = BatchReserved {
                batch_id: batch.id,
                netting_set_id: batch.terms.netting_set_id,
                currency: batch.terms.currency,
            };
            decision.events.push(event.into());
        }
        decision
    }

    fn short(self, legs: Legs, missing: Minor, deadline: Timestamp) -> Decision {
        let batch = self.batch;
        let mut short: Vec<(&ParticipantId, &Leg)> = legs.iter().filter(|(_, leg)| leg.is_short()).collect();
        short.sort_by(|(a, left), (b, right)| right.missing().cmp(&left.missing()).then(a.cmp(b)));
        let event = BatchAwaitingFunds {
            batch_id: batch.id,
            netting_set_id: batch.terms.netting_set_id,
            currency: batch.terms.currency,
            funding_deadline: deadline,
            short_debtors: count(short.len()),
            shortfalls: short
                .into_iter()
                .take(LISTED)
                .map(|(participant, leg)| Shortfall {
                    participant: *participant,
                    required: batch.money(leg.required()).into(),
                    reserved: batch.money(leg.reserved).into(),
                })
                .collect(),
        };
        let mut decision = self.waiting(legs, missing, false);
        decision.batch.state = BatchState::AwaitingFunds;
        decision.batch.doubted = false;
        decision.batch.funding_deadline = Some(deadline);
        decision.events.push(event.into());
        decision
    }

    fn waiting(self, legs: Legs, missing: Minor, replayed: bool) -> Decision {
        let note = self.shortage(&legs, missing);
        let alarm = legs.values().any(is_prefunded_short);
        self.to(legs, if replayed { Pace::Now } else { Pace::Retry }, |after| {
            after.alarm = alarm;
            after.note = note;
        })
    }

    fn aborted(self, legs: Legs, missing: Minor, deadline: Timestamp) -> Decision {
        let batch = self.batch;
        let reason = format!("{} at the funding deadline {deadline}", self.shortage(&legs, missing));
        let event = BatchAborted {
            batch_id: batch.id,
            netting_set_id: batch.terms.netting_set_id,
            window_ids: batch.terms.window_ids.clone(),
            currency: batch.terms.currency,
            reason: reason.clone(),
        };
        let mut decision = self.to(legs, Pace::End, |after| {
            after.state = BatchState::Aborted;
            after.note = reason;
        });
        decision.events.push(event.into());
        decision
    }

    fn settled(self, at: Timestamp) -> Decision {
        let batch = self.batch;
        let event = BatchSettled {
            batch_id: batch.id,
            netting_set_id: batch.terms.netting_set_id,
            window_ids: batch.terms.window_ids.clone(),
            currency: batch.terms.currency,
            moved: batch.money(batch.terms.moved).into(),
            final_at: at,
        };
        let mut decision = self.to(self.legs.clone(), Pace::End, |after| {
            after.state = BatchState::Settled;
            after.doubted = false;
            after.alarm = false;
            after.note.clear();
            after.final_at = Some(at);
        });
        decision.events.push(event.into());
        decision
    }

    fn shortage(self, legs: &Legs, missing: Minor) -> String {
        let short = legs.values().filter(|leg| leg.is_short()).count();
        format!("{short} debtor(s) lack {}", self.batch.money(missing))
    }
}

/// S4: a PREFUNDED participant cannot owe more than it has.
fn is_prefunded_short(leg: &Leg) -> bool {
    leg.cover == Some(CoverPolicy::Prefunded) && leg.is_short()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
