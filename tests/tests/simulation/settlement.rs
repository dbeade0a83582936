//! Settlement's shell around its real domain: batches, and the driver that takes them from answer to answer.

use std::collections::{BTreeMap, BTreeSet};

use deltran_clearing::domain::netting::NettingSet as FrozenSet;
use deltran_events::Event;
use deltran_kernel::{BatchId, NettingSetId, PostingGroupId, Timestamp, WindowId};
use deltran_messaging::{Delivery, Outgoing};
use deltran_settlement::domain::{
    Answer, Applied, Batch, BatchState, Decision, FundingLine, Legs, NettingSet, Pace, Rules, Terms, announce, decide,
};
use deltran_token::domain::command::{Answer as LedgerAnswer, By, Command as LedgerCommand};
use sha2::{Digest, Sha256};

use super::check::{Breach, Checked, Truth, breach, holds};
use super::shell::Shell;

const USER: &str = "settlement-engine";
const RULES: Rules = Rules { funding_deadline_seconds: 20 };

/// A stored batch.
#[derive(Clone)]
pub struct Stored {
    pub batch: Batch,
    pub legs: Legs,
    revision: u64,
}

/// The tables.
#[derive(Clone, Default)]
pub struct Rows {
    pub batches: BTreeMap<BatchId, Stored>,
    /// In the order of creation.
    pub order: Vec<BatchId>,
    /// How often finality was announced, by set.
    settled: BTreeMap<NettingSetId, u32>,
}

/// Rows after a transaction, and what it says.
pub type Draft = (Rows, Vec<Outgoing>);

/// The engine.
pub struct SettlementEngine {
    pub rows: Rows,
    pub shell: Shell,
}

impl SettlementEngine {
    pub fn new(shell: Shell) -> Self {
        Self { rows: Rows::default(), shell }
    }

    /// Files a batch for each set that is announced.
    pub fn file(&self, deliveries: &[Delivery], now: Timestamp) -> Checked<Draft> {
        let mut rows = self.rows.clone();
        let mut out = Vec::new();
        for delivery in deliveries {
            let Some(Event::NettingCompleted(event)) = delivery.engine_event() else { continue };
            let contradiction =
                |e: deltran_settlement::domain::Contradiction| Breach::new(e.invariant(), e.to_string());
            let terms = Terms::of(event).map_err(contradiction)?;
            let of_set = rows.batches.values().find(|s| s.batch.terms.netting_set_id == terms.netting_set_id);
            let known = of_set.map(|s| s.batch.clone());
            let taken = rows.taken(&terms.window_ids);
            match announce(terms, known.as_ref(), taken, now).map_err(contradiction)? {
                Applied::AlreadyApplied(_) => {}
                Applied::Executed((batch, created)) => {
                    let mut event = Outgoing::new(created, batch.terms.netting_set_id, USER);
                    event.context.causation_id = delivery.event_id();
                    out.push(event);
                    rows.order.push(batch.id);
                    let stored = Stored { batch, legs: Legs::new(), revision: 1 };
                    let before = rows.batches.insert(stored.batch.id, stored);
                    holds(before.is_none(), "S1", || "a set has two batches".into())?;
                }
            }
        }
        Ok((rows, out))
    }

    /// Batches that have not ended, in order of creation.
    pub fn open(&self) -> Vec<Stored> {
        let all = self.rows.order.iter().filter_map(|id| self.rows.batches.get(id));
        all.filter(|s| !s.batch.is_ended()).cloned().collect()
    }

    /// What a batch becomes by an answer; none where it was written since it was read.
    pub fn decided(&self, seen: &Stored, answer: Answer, now: Timestamp) -> Checked<Option<(Draft, Pace)>> {
        let decision = decide(&seen.batch, &seen.legs, answer, &RULES, now)
            .map_err(|e| Breach::new("S6", format!("batch {}: {e}", seen.batch.id)))?;
        let Decision { batch, legs, events, breaches, pace } = decision;
        // S1 to S5 are what no such day can break: a PREFUNDED debtor is never short, what was frozen is posted.
        if let Some(found) = breaches.first() {
            return breach(found.invariant, found.detail.clone());
        }
        let mut rows = self.rows.clone();
        let Some(stored) = rows.batches.get_mut(&batch.id).filter(|s| s.revision == seen.revision) else {
            return Ok(None);
        };
        let set = batch.terms.netting_set_id;
        if batch.state == BatchState::Settled {
            *rows.settled.entry(set).or_default() += 1;
        }
        *stored = Stored { batch, legs, revision: seen.revision + 1 };
        let out = events.into_iter().map(|event| Outgoing::new(event, set, USER)).collect();
        Ok(Some(((rows, out), pace)))
    }

    /// S1, S2, S6 against what the ledger committed.
    pub fn check(&self, truth: &Truth) -> Checked {
        let mut taken: BTreeSet<WindowId> = BTreeSet::new();
        for stored in self.rows.batches.values() {
            let batch = &stored.batch;
            let set = batch.terms.netting_set_id;
            if batch.loaded {
                let sum: i128 = stored.legs.values().map(|leg| leg.net.units()).sum();
                holds(sum == 0, "S2", || format!("the legs of batch {} sum to {sum}", batch.id))?;
            }
            for window in &batch.terms.window_ids {
                let given_up = matches!(batch.state, BatchState::Aborted | BatchState::Recast);
                holds(given_up || taken.insert(*window), "S1", || format!("window {window} is in two batches"))?;
                let settled = truth.windows.get(window).and_then(|c| c.settled);
                let group = PostingGroupId::new(uuid::Uuid::new_v5(&set.uuid(), b"settle"));
                let by_it = settled.filter(|(by, _)| *by == group);
                match batch.state {
                    BatchState::Settled => holds(by_it.map(|s| s.1) == batch.final_at, "S6", || {
                        format!("batch {} is SETTLED at {:?}, the ledger says {settled:?}", batch.id, batch.final_at)
                    })?,
                    BatchState::Reserved => {}
                    state => holds(by_it.is_none(), "S6", || {
                        format!("batch {} is {state}, and the ledger settled it", batch.id)
                    })?,
                }
            }
            let times = self.rows.settled.get(&set).copied().unwrap_or(0);
            let expected = u32::from(batch.state == BatchState::Settled);
            holds(times == expected, "S6", || format!("finality of set {set} was announced {times} times"))?;
        }
        Ok(())
    }
}

impl Rows {
    fn taken(&self, windows: &[WindowId]) -> Option<(WindowId, BatchId)> {
        let live = self.batches.values().filter(|s| !matches!(s.batch.state, BatchState::Aborted | BatchState::Recast));
        let mut found: Vec<_> = live
            .flat_map(|s| s.batch.terms.window_ids.iter().map(|w| (*w, s.batch.id)))
            .filter(|(window, _)| windows.contains(window))
            .collect();
        found.sort_unstable();
        found.first().copied()
    }
}

/// A netting set as clearing answers it.
pub fn netting_set(id: NettingSetId, set: &FrozenSet) -> NettingSet {
    NettingSet {
        id,
        currency: set.currency,
        window_ids: set.windows.iter().copied().collect(),
        transactions: set.count,
        gross: set.gross,
        moved: set.moved,
        digest: hex::encode(set.digest),
        positions: set.positions.iter().map(|(p, n)| (*p, *n)).collect(),
    }
}

fn by() -> By {
    By { user: USER.to_owned(), trace: None }
}

/// The ledger's command for a batch's.
pub fn earmark(batch: &Batch, group: PostingGroupId) -> LedgerCommand {
    let windows = batch.terms.window_ids.clone();
    let hash = Sha256::digest(format!("earmark {windows:?}")).into();
    LedgerCommand::Earmark { group, hash, windows, by: by() }
}

/// The ledger's command for a batch's.
pub fn settle(stored: &Stored, group: PostingGroupId) -> LedgerCommand {
    let windows = stored.batch.terms.window_ids.clone();
    let legs: Vec<_> = stored.legs.iter().map(|(p, leg)| (*p, stored.batch.money(leg.net))).collect();
    let hash = Sha256::digest(format!("settle {windows:?} {legs:?}")).into();
    LedgerCommand::Settle { group, hash, windows, legs, by: by() }
}

/// What the ledger said, as a batch understands it.
pub fn understood(answer: LedgerAnswer, replayed: bool, earmark: bool, asked_at: Timestamp) -> Checked<Answer> {
    match answer {
        LedgerAnswer::Funding { debtors, .. } if earmark => {
            let lines = debtors
                .into_iter()
                .map(|d| (d.participant, FundingLine { required: d.required, reserved: d.reserved, cover: d.policy }))
                .collect();
            Ok(Answer::Funding { lines, asked_at, replayed })
        }
        LedgerAnswer::Funding { at, .. } => Ok(Answer::Posted { at }),
        other => breach("S5", format!("the ledger answered {other:?}")),
    }
}
