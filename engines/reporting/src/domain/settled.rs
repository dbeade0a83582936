//! Settled windows and netting sets: whether everything about them has arrived, and whether it agrees.
//!
//! Four engines speak of a settlement: the ledger's seal and postings, clearing's netting set, settlement's batch.
//! Nothing is reported before all of them have spoken and none contradicts another.

use std::collections::BTreeMap;

use deltran_kernel::{BatchId, Currency, Minor, NettingSetId, ParticipantId, PostingGroupId, Timestamp, WindowId};

use super::book::{Flow, Sealed};
use super::{Contradiction, Readiness};

/// What is known of a window from the ledger's events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WindowFacts {
    /// Payments that were consumed.
    pub count: u64,
    /// Their sum.
    pub gross: Minor,
    /// What the ledger sealed.
    pub sealed: Option<Sealed>,
    /// The posting that settled it.
    pub posted: Option<PostedBy>,
    /// SHA-256 over the ids of consumed payments in the order of `window_seq`, in hexadecimal.
    pub digest: Option<String>,
    /// What everyone paid and received.
    pub flows: BTreeMap<ParticipantId, Flow>,
}

/// The posting that settled a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedBy {
    /// The group of postings.
    pub group: PostingGroupId,
    /// When: the time of finality.
    pub at: Timestamp,
}

/// A leg of a posted settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// What it received; negative: what it paid.
    pub net: Minor,
    /// Locked tokens that it got back.
    pub given_back: Minor,
}

/// What is known of a netting set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetFacts {
    /// The set.
    pub id: NettingSetId,
    /// Its currency.
    pub currency: Currency,
    /// Its windows.
    pub windows: Vec<WindowId>,
    /// Number of payments.
    pub count: u64,
    /// Their sum.
    pub gross: Minor,
    /// The value that changes hands.
    pub moved: Minor,
    /// 1 − moved / gross, in ten-thousandths.
    pub efficiency: u32,
    /// Everyone who took part.
    pub participants: u32,
    /// Who owes most.
    pub largest_debtor: Option<ParticipantId>,
    /// Clearing's digest of the set, in hexadecimal.
    pub digest: String,
    /// When it was frozen.
    pub netted_at: Timestamp,
}

/// What is known of the batch of a netting set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchFacts {
    /// The batch.
    pub id: BatchId,
    /// Its windows.
    pub windows: Vec<WindowId>,
    /// The value that changed hands.
    pub moved: Minor,
    /// Time of finality.
    pub final_at: Timestamp,
}

/// Whether a window is whole: sealed, everything consumed that was sealed, and (with `settled`) settled.
pub fn window_ready(id: WindowId, facts: Option<&WindowFacts>, settled: bool) -> Readiness {
    let waits = |what: String| Readiness::Waits(format!("window {id}: {what}"));
    let never = |what: String| Readiness::Never(format!("window {id}: {what}"));
    let Some(facts) = facts else { return waits("nothing of it has arrived".into()) };
    let Some(sealed) = &facts.sealed else { return waits("it is not sealed yet".into()) };
    if facts.count < sealed.count {
        return waits(format!("{} of {} payments have arrived", facts.count, sealed.count));
    }
    if facts.count > sealed.count || facts.gross != sealed.gross {
        return never(format!(
            "{} payments of {:?} minor units have arrived, the ledger sealed {} of {:?}",
            facts.count, facts.gross, sealed.count, sealed.gross
        ));
    }
    match &facts.digest {
        Some(digest) if *digest != sealed.digest => {
            return never(
                "the payments that arrived are not those that the ledger sealed: their digests differ".into(),
            );
        }
        _ => {}
    }
    let net = facts.flows.values().try_fold(Minor::ZERO, |sum, flow| sum.add(flow.net()?).map_err(Contradiction::of));
    match net {
        Ok(net) if net.is_zero() => {}
        Ok(net) => return never(format!("its net positions sum to {net:?} minor units")),
        Err(error) => return never(error.0),
    }
    if settled && facts.posted.is_none() {
        return waits("it is not settled yet".into());
    }
    Readiness::Ready
}

/// Everything about a settled netting set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The set.
    pub set: SetFacts,
    /// Its batch.
    pub batch: BatchFacts,
    /// Its windows.
    pub windows: BTreeMap<WindowId, WindowFacts>,
    /// The legs that the ledger posted.
    pub legs: BTreeMap<ParticipantId, Leg>,
}

/// Puts a settlement together from what has arrived of it.
///
/// # Errors
/// What it waits for, or what contradicts what.
pub fn assemble(
    set: Option<SetFacts>,
    batch: Option<BatchFacts>,
    windows: BTreeMap<WindowId, WindowFacts>,
    legs: BTreeMap<ParticipantId, Leg>,
) -> Result<Settled, Readiness> {
    let waits = |what: String| Err(Readiness::Waits(what));
    let Some(set) = set else { return waits("the netting set has not arrived".into()) };
    for id in &set.windows {
        match window_ready(*id, windows.get(id), true) {
            Readiness::Ready => {}
            other => return Err(other),
        }
    }
    let Some(batch) = batch else { return waits(format!("netting set {}: its batch is not settled yet", set.id)) };
    let settled = Settled { set, batch, windows, legs };
    match settled.check() {
        Ok(()) => Ok(settled),
        Err(contradiction) => Err(Readiness::Never(format!("netting set {}: {contradiction}", settled.set.id))),
    }
}

impl Settled {
    /// P4: payments, netting set, batch and postings say the same.
    fn check(&self) -> Result<(), Contradiction> {
        let differs = |what: &str, one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
            Err(Contradiction(format!("{what}: {one:?} and {other:?}")))
        };
        let nets = legs_agree(self.windows.values(), &self.legs)?;
        let count: u64 = self.windows.values().map(|w| w.count).sum();
        let gross = Minor::sum(self.windows.values().map(|w| w.gross)).map_err(Contradiction::of)?;
        if (count, gross) != (self.set.count, self.set.gross) {
            return differs("payments and netting set", &(count, gross), &(self.set.count, self.set.gross));
        }
        let moved = Minor::sum(nets.values().map(|net| net.or_zero())).map_err(Contradiction::of)?;
        if moved != self.set.moved || moved != self.batch.moved {
            return differs(
                "value moved by payments, netting set and batch",
                &moved,
                &(self.set.moved, self.batch.moved),
            );
        }
        if sorted(&self.batch.windows) != sorted(&self.set.windows) {
            return differs("windows of batch and netting set", &self.batch.windows, &self.set.windows);
        }
        for (id, facts) in &self.windows {
            let at = facts.posted.as_ref().map(|posted| posted.at);
            if at != Some(self.batch.final_at) {
                return differs(&format!("finality of window {id} and batch"), &at, &self.batch.final_at);
            }
        }
        Ok(())
    }
}

/// P4, as far as the ledger's own events go: everyone's net over the windows of a posting is its leg. Answers the nets.
///
/// # Errors
/// The first participant for whom it is not so.
pub fn legs_agree<'a>(
    windows: impl IntoIterator<Item = &'a WindowFacts>,
    legs: &BTreeMap<ParticipantId, Leg>,
) -> Result<BTreeMap<ParticipantId, Minor>, Contradiction> {
    let mut nets = BTreeMap::new();
    for facts in windows {
        for (participant, flow) in &facts.flows {
            let net = nets.entry(*participant).or_insert(Minor::ZERO);
            *net = net.add(flow.net()?).map_err(Contradiction::of)?;
        }
    }
    let leg = |who: &ParticipantId| legs.get(who).map(|leg| leg.net);
    let differs = |who: &&ParticipantId| nets.get(who).copied() != leg(who);
    match nets.keys().chain(legs.keys()).find(differs) {
        None => Ok(nets),
        Some(who) => {
            let (net, leg) = (nets.get(who).copied(), leg(who));
            Err(Contradiction(format!("net of payments and posted leg of {who}: {net:?} and {leg:?}")))
        }
    }
}

fn sorted(windows: &[WindowId]) -> Vec<WindowId> {
    let mut windows = windows.to_vec();
    windows.sort();
    windows
}

#[cfg(test)]
#[path = "settled_tests.rs"]
pub(crate) mod tests;
