//! Netting: from what each owes each to one net position per participant.
//!
//! Multilateral netting is against the hub: every participant has one position, which is what it is
//! owed less what it owes. Bilateral netting offsets each pair by itself; it is computed beside, to
//! show what the hub saves. Netting knows nothing of accounts, limits or the ledger.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use deltran_events::Event;
use deltran_events::data::clearing::{NettingCompleted, WindowNetted};
use deltran_kernel::{Currency, Minor, Money, MoneyError, NettingSetId, ParticipantId, WindowId};
use sha2::{Digest, Sha256};

/// Up to so many participants, pairs are offset in a table of all of them: 16 bytes a cell.
const DENSE: usize = 1_500;

/// What one participant owes another in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairTotal {
    /// Who owes.
    pub payer: ParticipantId,
    /// Who is owed.
    pub payee: ParticipantId,
    /// Number of obligations.
    pub count: u64,
    /// Their sum; above zero.
    pub gross: Minor,
}

/// Why totals cannot be netted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NettingError {
    /// A sum is out of range.
    #[error("netting: {0}")]
    OutOfRange(#[from] MoneyError),
    /// The number of obligations is out of range.
    #[error("netting: the number of obligations is out of range")]
    TooMany,
    /// A total that cannot be one.
    #[error("netting: {payer} owes {payee} {gross:?}: a total is above zero and between two participants")]
    NotATotal {
        /// Who owes.
        payer: ParticipantId,
        /// Who is owed.
        payee: ParticipantId,
        /// How much.
        gross: Minor,
    },
}

/// What would change hands if pairs settled between themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bilateral {
    /// The value that changes hands.
    pub moved: Minor,
    /// Number of pairs that owe each other something after offsetting.
    pub legs: u64,
}

/// A frozen set of net positions of one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NettingSet {
    /// The currency.
    pub currency: Currency,
    /// The windows that it covers.
    pub windows: BTreeSet<WindowId>,
    /// Number of obligations.
    pub count: u64,
    /// Their sum.
    pub gross: Minor,
    /// The value that changes hands against the hub.
    pub moved: Minor,
    /// 1 − moved / gross in ten-thousandths, rounded down; 10,000 where gross is zero.
    pub efficiency: u32,
    /// Every participant that took part. Plus is owed to it, minus it owes.
    pub positions: BTreeMap<ParticipantId, Minor>,
    /// Who owes most; of equals the first by id.
    pub largest_debtor: Option<ParticipantId>,
    /// For comparison.
    pub bilateral: Bilateral,
    /// SHA-256 of the canonical content.
    pub digest: [u8; 32],
}

/// What a frozen set is published as.
pub fn netted_events(id: NettingSetId, set: &NettingSet) -> Vec<(WindowId, Event)> {
    let amount = |minor| Money::new(minor, set.currency).into();
    let completed = NettingCompleted {
        netting_set_id: id,
        currency: set.currency,
        window_ids: set.windows.iter().copied().collect(),
        count: set.count,
        gross: amount(set.gross),
        moved: amount(set.moved),
        efficiency: set.efficiency,
        participants: u32::try_from(set.positions.len()).unwrap_or(u32::MAX),
        largest_debtor: set.largest_debtor,
        digest: hex::encode(set.digest),
    };
    let completed = set.windows.first().map(|window| (*window, Event::from(completed)));
    let netted = set.windows.iter().map(|window| {
        (*window, Event::from(WindowNetted { window_id: *window, currency: set.currency, netting_set_id: id }))
    });
    completed.into_iter().chain(netted).collect()
}

/// Count, gross and net positions of pair totals, in any order.
///
/// # Errors
/// A total that cannot be one, or a sum that is out of range.
pub fn totals(pairs: &[PairTotal]) -> Result<(u64, Minor, BTreeMap<ParticipantId, Minor>), NettingError> {
    let ledger = Indexed::new(pairs)?;
    Ok((ledger.count, ledger.gross, ledger.positions()))
}

/// Nets pair totals, in any order; the same pair may stand in several, such as one per window.
///
/// # Errors
/// A total that cannot be one, or a sum that is out of range: nothing wraps and nothing is cut.
pub fn net(currency: Currency, windows: BTreeSet<WindowId>, pairs: &[PairTotal]) -> Result<NettingSet, NettingError> {
    let ledger = Indexed::new(pairs)?;
    let bilateral = ledger.bilateral()?;
    let positions = ledger.positions();
    let moved = Minor::sum(positions.values().copied().filter(|net| net.is_positive()))?;
    let debtors = positions.iter().filter(|(_, net)| net.is_negative());
    let largest_debtor = debtors.min_by_key(|(_, net)| **net).map(|(participant, _)| *participant);
    let mut set = NettingSet {
        currency,
        windows,
        count: ledger.count,
        gross: ledger.gross,
        moved,
        efficiency: efficiency(ledger.gross, moved),
        positions,
        largest_debtor,
        bilateral,
        digest: [0; 32],
    };
    set.digest = digest(&set);
    Ok(set)
}

fn efficiency(gross: Minor, moved: Minor) -> u32 {
    if gross.is_zero() {
        return 10_000;
    }
    // At most 10^27 × 10^4, far inside 128 bits; moved never exceeds gross.
    let saved = (gross.units() - moved.units()) * 10_000 / gross.units();
    u32::try_from(saved).unwrap_or(0)
}

/// The digest of a set's content: every field with its length before it, in a fixed order. It names
/// neither the set's id nor a time, so the same obligations of the same windows always give it.
fn digest(set: &NettingSet) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(b"deltran.netting_set.v1");
    field(set.currency.code().as_bytes());
    field(&(set.windows.len() as u64).to_be_bytes());
    for window in &set.windows {
        field(window.uuid().as_bytes());
    }
    field(&set.count.to_be_bytes());
    field(&set.gross.units().to_be_bytes());
    field(&(set.positions.len() as u64).to_be_bytes());
    for (participant, net) in &set.positions {
        field(participant.as_str().as_bytes());
        field(&net.units().to_be_bytes());
    }
    hash.finalize().into()
}

/// Pair totals with participants as dense numbers in their order.
struct Indexed {
    participants: Vec<ParticipantId>,
    /// (payer, payee, gross), in the order given.
    edges: Vec<(u32, u32, Minor)>,
    net: Vec<Minor>,
    count: u64,
    gross: Minor,
}

impl Indexed {
    fn new(pairs: &[PairTotal]) -> Result<Self, NettingError> {
        // Rows come grouped by payer, so the payers alone are few; payees are looked up among all.
        let mut participants: Vec<ParticipantId> = Vec::new();
        let mut known: HashMap<ParticipantId, u32, BuildHasherDefault<Mixed>> = HashMap::default();
        let mut last: Option<(ParticipantId, u32)> = None;
        let mut number = |participant: ParticipantId| {
            *known.entry(participant).or_insert_with(|| {
                participants.push(participant);
                (participants.len() - 1) as u32
            })
        };
        let mut edges = Vec::with_capacity(pairs.len());
        let (mut count, mut gross) = (0u64, Minor::ZERO);
        for pair in pairs {
            let PairTotal { payer, payee, .. } = *pair;
            if payer == payee || !pair.gross.is_positive() || pair.count == 0 {
                return Err(NettingError::NotATotal { payer, payee, gross: pair.gross });
            }
            let from = match last {
                Some((participant, from)) if participant == payer => from,
                _ => number(payer),
            };
            last = Some((payer, from));
            edges.push((from, number(payee), pair.gross));
            count = count.checked_add(pair.count).ok_or(NettingError::TooMany)?;
            gross = gross.add(pair.gross)?;
        }
        let mut net = vec![Minor::ZERO; participants.len()];
        for &(from, to, amount) in &edges {
            net[from as usize] = net[from as usize].sub(amount)?;
            net[to as usize] = net[to as usize].add(amount)?;
        }
        Ok(Self { participants, edges, net, count, gross })
    }

    fn positions(&self) -> BTreeMap<ParticipantId, Minor> {
        self.participants.iter().copied().zip(self.net.iter().copied()).collect()
    }

    fn bilateral(&self) -> Result<Bilateral, NettingError> {
        if self.participants.len() <= DENSE { self.bilateral_dense() } else { self.bilateral_sorted() }
    }

    /// A cell per pair: the quickest while all of them fit.
    fn bilateral_dense(&self) -> Result<Bilateral, NettingError> {
        let many = self.participants.len();
        let mut offsets = vec![Minor::ZERO; many * many];
        for &(from, to, amount) in &self.edges {
            let (low, high, owed) = if from < to { (from, to, amount) } else { (to, from, amount.neg()) };
            let cell = &mut offsets[low as usize * many + high as usize];
            *cell = cell.add(owed)?;
        }
        let (mut moved, mut legs) = (Minor::ZERO, 0);
        for owed in offsets.into_iter().filter(|owed| !owed.is_zero()) {
            moved = moved.add(owed.max(owed.neg()))?;
            legs += 1;
        }
        Ok(Bilateral { moved, legs })
    }

    fn bilateral_sorted(&self) -> Result<Bilateral, NettingError> {
        // One entry per unordered pair, the lower number first; what the higher owes counts negative.
        let mut offsets: Vec<(u64, Minor)> = self
            .edges
            .iter()
            .map(|&(from, to, amount)| match from < to {
                true => ((u64::from(from) << 32) | u64::from(to), amount),
                false => ((u64::from(to) << 32) | u64::from(from), amount.neg()),
            })
            .collect();
        offsets.sort_unstable_by_key(|(pair, _)| *pair);
        let (mut moved, mut legs) = (Minor::ZERO, 0);
        for same in offsets.chunk_by(|a, b| a.0 == b.0) {
            let owed = Minor::sum(same.iter().map(|(_, amount)| *amount))?;
            if !owed.is_zero() {
                moved = moved.add(owed.max(owed.neg()))?;
                legs += 1;
            }
        }
        Ok(Bilateral { moved, legs })
    }
}

/// Hashes participants. They are registered by an operator, so that nobody chooses ids that collide.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mixed = (self.0.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 = mixed ^ (mixed >> 29);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.0 = self.0.wrapping_add(u64::from(byte));
    }
}

#[cfg(test)]
#[path = "netting_tests.rs"]
mod tests;
