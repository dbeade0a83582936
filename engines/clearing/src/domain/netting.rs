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

/// Up to so many participants, pairs are offset in a table of all of them: 16 bytes a pair.
const DENSE: usize = 1_500;
/// Rows and columns of the table that are offset at once.
const BLOCK: usize = 32;
/// How far a payee stands from the one before, in rows that are sorted and have most of the pairs.
const NEAR: usize = 4;

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
    let sums = Sums::of(pairs, Roll::of_payers(pairs), |_, _, _| {})?;
    Ok((sums.count, sums.gross, sums.positions))
}

/// Nets pair totals, in any order; the same pair may stand in several, such as one per window.
///
/// # Errors
/// A total that cannot be one, or a sum that is out of range: nothing wraps and nothing is cut.
pub fn net(currency: Currency, windows: BTreeSet<WindowId>, pairs: &[PairTotal]) -> Result<NettingSet, NettingError> {
    let roll = Roll::of_payers(pairs);
    let mut offsets = Offsets::among(roll.participants.len());
    let Sums { count, gross, positions } = Sums::of(pairs, roll, |from, to, amount| offsets.add(from, to, amount))?;
    let bilateral = offsets.bilateral()?;
    let moved = Minor::sum(positions.values().copied().filter(|net| net.is_positive()))?;
    let debtors = positions.iter().filter(|(_, net)| net.is_negative());
    let largest_debtor = debtors.min_by_key(|(_, net)| **net).map(|(participant, _)| *participant);
    let mut set = NettingSet {
        currency,
        windows,
        count,
        gross,
        moved,
        efficiency: efficiency(gross, moved),
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

/// Sums over pair totals.
struct Sums {
    count: u64,
    gross: Minor,
    positions: BTreeMap<ParticipantId, Minor>,
}

impl Sums {
    /// Adds totals up, and hands each to `each` with its participants as dense numbers.
    ///
    /// Sums are kept in 128 bits and their range is looked at in the end: 10^11 amounts of the largest size, more than
    /// any memory holds, stay inside.
    fn of(pairs: &[PairTotal], mut roll: Roll, mut each: impl FnMut(u32, u32, i128)) -> Result<Self, NettingError> {
        let mut net = vec![0i128; roll.participants.len()];
        let (mut count, mut gross) = (0u64, 0i128);
        // Totals come grouped by payer, and sorted by payee within.
        let (mut from, mut paid, mut to) = (None, 0i128, 0u32);
        for pair in pairs {
            let PairTotal { payer, payee, .. } = *pair;
            if payer == payee || !pair.gross.is_positive() || pair.count == 0 {
                return Err(NettingError::NotATotal { payer, payee, gross: pair.gross });
            }
            let payer = match from {
                Some((last, number)) if last == payer => number,
                _ => {
                    if let Some((_, before)) = from {
                        net[before as usize] -= std::mem::take(&mut paid);
                    }
                    to = 0;
                    let number = roll.number(payer, 0);
                    from = Some((payer, number));
                    number
                }
            };
            to = roll.number(payee, to);
            net.resize(roll.participants.len(), 0);
            let amount = pair.gross.units();
            paid += amount;
            net[to as usize] += amount;
            gross += amount;
            count = count.checked_add(pair.count).ok_or(NettingError::TooMany)?;
            each(payer, to, amount);
        }
        if let Some((_, last)) = from {
            net[last as usize] -= paid;
        }
        let positions = roll.participants.into_iter().zip(net);
        let positions = positions.map(|(participant, net)| Ok((participant, Minor::new(net)?)));
        Ok(Self { count, gross: Minor::new(gross)?, positions: positions.collect::<Result<_, MoneyError>>()? })
    }
}

/// How many totals at the beginning have one payer, where they come grouped by payer. Steps double until they reach
/// another one; most totals are not looked at.
fn same_payer(pairs: &[PairTotal]) -> usize {
    let is_same = |pair: &PairTotal| pair.payer == pairs[0].payer;
    let mut step = 1;
    while pairs.get(step).is_some_and(is_same) {
        step *= 2;
    }
    step / 2 + pairs[step / 2..step.min(pairs.len())].partition_point(is_same)
}

/// Participants as dense numbers: those who pay in their order, then those who are only paid.
struct Roll {
    participants: Vec<ParticipantId>,
    known: HashMap<ParticipantId, u32, BuildHasherDefault<Mixed>>,
}

impl Roll {
    /// Those who pay, where totals come grouped by payer. Of others some are missed, and get their numbers later.
    fn of_payers(mut pairs: &[PairTotal]) -> Self {
        let mut participants: Vec<ParticipantId> = Vec::new();
        while let Some(first) = pairs.first() {
            participants.push(first.payer);
            pairs = &pairs[same_payer(pairs)..];
        }
        participants.sort_unstable();
        participants.dedup();
        let known = participants.iter().copied().zip(0..).collect();
        Self { participants, known }
    }

    /// The number of a participant, looked for behind `near` first.
    // A call for each of a million totals would cost as much as what it does.
    #[inline(always)]
    fn number(&mut self, participant: ParticipantId, near: u32) -> u32 {
        if let Some(behind) = self.participants.get(near as usize..).and_then(|rest| rest.first_chunk::<NEAR>()) {
            // All of them are compared, without a jump: where the right one stands, no processor foretells.
            let found = (0..NEAR).fold(0u32, |found, step| found | u32::from(behind[step] == participant) << step);
            if found != 0 {
                return near + found.trailing_zeros();
            }
        }
        self.anywhere(participant)
    }

    #[cold]
    fn anywhere(&mut self, participant: ParticipantId) -> u32 {
        let next = self.participants.len() as u32;
        let number = *self.known.entry(participant).or_insert(next);
        if number == next {
            self.participants.push(participant);
        }
        number
    }
}

/// What participants owe each other, to be offset pair by pair.
struct Offsets {
    /// Participants with a row and a column in the table.
    side: usize,
    /// What each of them, by row, owes each, by column. Rows come in their order, so that they are written from end to end.
    table: Vec<i64>,
    /// What is not in the table, by both numbers, the lower first; plus is owed by the one with the lower number.
    list: Vec<(u64, i128)>,
}

impl Offsets {
    /// A table of all who pay, the quickest while it fits. Those who are only paid owe nobody: they stand in the list.
    fn among(payers: usize) -> Self {
        let side = if payers > DENSE { 0 } else { payers };
        Self { side, table: vec![0; side * side], list: Vec::new() }
    }

    fn add(&mut self, from: u32, to: u32, amount: i128) {
        if let Some(cell) = self.cell(from as usize, to as usize)
            && let Ok(amount) = i64::try_from(amount)
            && let Some(owed) = cell.checked_add(amount)
        {
            *cell = owed;
            return;
        }
        let (low, high, owed) = if from < to { (from, to, amount) } else { (to, from, -amount) };
        self.list.push((pair_of(low, high), owed));
    }

    /// What one owes another, where both stand in the table.
    fn cell(&mut self, from: usize, to: usize) -> Option<&mut i64> {
        (from < self.side && to < self.side).then(|| &mut self.table[from * self.side + to])
    }

    /// What the table has of a pair, from whom to whom, taken out of it.
    fn take(&mut self, low: usize, high: usize) -> i128 {
        let mut take = |from, to| self.cell(from, to).map_or(0, |cell| i128::from(std::mem::take(cell)));
        take(low, high) - take(high, low)
    }

    fn bilateral(mut self) -> Result<Bilateral, NettingError> {
        let (mut moved, mut legs) = (0i128, 0);
        let mut leg = |owed: i128| {
            moved += owed.abs();
            legs += u64::from(owed != 0);
        };
        let mut list = std::mem::take(&mut self.list);
        list.sort_unstable_by_key(|(pair, _)| *pair);
        for same in list.chunk_by(|a, b| a.0 == b.0) {
            let (low, high) = ((same[0].0 >> 32) as usize, (same[0].0 as u32) as usize);
            leg(same.iter().map(|(_, owed)| owed).sum::<i128>() + self.take(low, high));
        }
        // Block by block, so that rows and columns of one stay in the nearest cache.
        let starts = || (0..self.side).step_by(BLOCK);
        for (rows, columns) in
            starts().flat_map(|rows| starts().take_while(move |c| *c <= rows).map(move |c| (rows, c)))
        {
            for row in rows..(rows + BLOCK).min(self.side) {
                for column in columns..(columns + BLOCK).min(row) {
                    let owed = |row: usize, column: usize| self.table[row * self.side + column];
                    // Neither is below zero, so that their difference has room.
                    leg(i128::from(owed(row, column) - owed(column, row)));
                }
            }
        }
        Ok(Bilateral { moved: Minor::new(moved)?, legs })
    }
}

/// Both numbers of a pair as one, by which pairs are sorted.
fn pair_of(low: u32, high: u32) -> u64 {
    u64::from(low) << 32 | u64::from(high)
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
