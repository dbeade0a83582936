//! Days that left the database: which tiles go with them, and where a ledger begins whose first days are archived.
//!
//! The cut is the first leaf that stays. Tiles that end beyond it stay too (C2SP `tlog-tiles`, pruning), and that is
//! enough: a full subtree that a later proof, root or frontier is made of has a parent that ends beyond the cut, and the
//! parent lies within the same tile's leaves.

use std::collections::BTreeMap;

use deltran_kernel::Timestamp;
use deltran_messaging::ranges::Ranges;

use super::merkle::{Frontier, Hash, Node};
use super::tile::{HEIGHT, Tile, WIDTH, root_of_row};

/// The highest level of which a tile can end at a leaf that can be counted.
const LAST_LEVEL: u8 = 63 / HEIGHT - 1;

/// Whether a tile goes with the leaves below the cut: it ends at or before it.
pub fn goes(tile: Tile, cut: u64) -> bool {
    tile.level <= LAST_LEVEL && tile.index < cut >> ((tile.level + 1) * HEIGHT)
}

/// How many hashes stand in the tiles that go.
pub fn hashes_gone(cut: u64) -> u64 {
    (0..=LAST_LEVEL).map(|level| (cut >> ((level + 1) * HEIGHT)) * WIDTH).sum()
}

/// The tiles that leaves `from` up to but without `to` fill.
pub fn tiles_completed(from: u64, to: u64) -> impl Iterator<Item = Tile> {
    (0..=LAST_LEVEL).flat_map(move |level| {
        let full = |leaves: u64| leaves >> ((level + 1) * HEIGHT);
        (full(from)..full(to)).map(move |index| Tile { level, index })
    })
}

/// The tile that is full when a subtree is.
pub fn completed_tile(node: Node) -> Option<Tile> {
    let level = (node.height / HEIGHT).checked_sub(1)?;
    node.height.is_multiple_of(HEIGHT).then_some(Tile { level, index: node.index })
}

/// The hash of the subtree that a full tile stands for. None where it is not full.
pub fn root_of_tile(hashes: &[Hash]) -> Option<Hash> {
    if hashes.len() as u64 == WIDTH { root_of_row(hashes.to_vec()) } else { None }
}

/// The hashes of a full tile out of its bytes. None where it is not full.
pub fn tile_of_bytes(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks();
    (rest.is_empty() && hashes.len() as u64 == WIDTH).then(|| hashes.to_vec())
}

/// Where a day of the ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayState {
    /// In the database only.
    Online,
    /// In the database and in the archive.
    Archived,
    /// In the archive only.
    Detached,
}

impl DayState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Online, Self::Archived, Self::Detached];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "ONLINE",
            Self::Archived => "ARCHIVED",
            Self::Detached => "DETACHED",
        }
    }

    /// The state of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// A day in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Its first moment.
    pub day: Timestamp,
    /// Its first leaf.
    pub from: u64,
    /// The first leaf after it.
    pub to: u64,
    /// Where it is, below the archive's root.
    pub place: String,
    /// SHA-256 of its manifest.
    pub manifest_sha256: [u8; 32],
    /// When it was written.
    pub archived_at: Timestamp,
    /// When its bytes were read and verified last.
    pub verified_at: Timestamp,
}

/// A day that was detached, as its row says, with what other tables say of the same day and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its first moment.
    pub day: Timestamp,
    /// Its first leaf.
    pub from: u64,
    /// The first leaf after it.
    pub to: u64,
    /// Hashes of the full subtrees of the first `to` leaves, largest first.
    pub frontier: Vec<Hash>,
    /// Leaves of it that are no valid events.
    pub invalid: u64,
    /// Leaves of it that contradict an earlier one.
    pub conflicts: u64,
    /// Decided transactions among them.
    pub transactions: u64,
    /// Its leaves by the list of closed days.
    pub closed: Option<(u64, u64)>,
    /// The root that the published checkpoint of size `to` has.
    pub signed: Option<Hash>,
}

/// Where the ledger in the database begins, and what the leaves below came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// The first leaf that stays.
    pub leaf: u64,
    /// The moment from which on leaves were recorded that stay. None where nothing was detached.
    pub until: Option<Timestamp>,
    /// The right edge of the tree over the leaves below. Without leaves where the rows do not give it.
    pub frontier: Frontier,
    /// Leaves below that are no valid events.
    pub invalid: u64,
    /// Leaves below that contradict an earlier one.
    pub conflicts: u64,
    /// Decided transactions below.
    pub transactions: u64,
    /// Numbers that stood as leaves below, by producer.
    pub producers: BTreeMap<String, Ranges>,
    /// The first thing in the rows that a detachment cannot have left.
    pub problem: Option<String>,
}

/// The first moment after a day.
pub fn end_of(day: Timestamp) -> Timestamp {
    day.plus_seconds(24 * 3600)
}

impl Cut {
    /// The cut that days, in their order, and the numbers of producers among them come to.
    pub fn of(days: &[Gone], numbers: impl IntoIterator<Item = (String, u64, u64)>) -> Self {
        let mut cut = Self::default();
        let mut problem = None;
        for day in days {
            problem = problem.or_else(|| wrong(&cut, day));
            cut = Self {
                leaf: day.to,
                until: Some(end_of(day.day)),
                frontier: Frontier::new(day.to, day.frontier.clone()).unwrap_or_default(),
                invalid: cut.invalid.saturating_add(day.invalid),
                conflicts: cut.conflicts.saturating_add(day.conflicts),
                transactions: cut.transactions.saturating_add(day.transactions),
                ..cut
            };
        }
        let mut ranges: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for (producer, low, high) in numbers {
            ranges.entry(producer).or_default().push((low, high));
        }
        for (producer, pairs) in ranges {
            match union(pairs) {
                Some(numbers) => drop(cut.producers.insert(producer, numbers)),
                None => problem = problem.or_else(|| Some(format!("the numbers of {producer} below it are none"))),
            }
        }
        Self { problem, ..cut }
    }
}

/// What is wrong with a day that follows those that a cut came to.
fn wrong(before: &Cut, day: &Gone) -> Option<String> {
    let name = day.day.to_string().chars().take(10).collect::<String>();
    if day.from != before.leaf || before.until.is_some_and(|until| until != day.day) {
        return Some(format!("day {name} begins at leaf {}, and the day before ended at {}", day.from, before.leaf));
    }
    if day.closed != Some((day.from, day.to)) {
        return Some(format!(
            "day {name} went with leaves {} up to {}, the list of days says {:?}",
            day.from, day.to, day.closed
        ));
    }
    let Some(frontier) = Frontier::new(day.to, day.frontier.clone()) else {
        return Some(format!("the frontier of day {name} is not of its size, {}", day.to));
    };
    match day.signed {
        None => Some(format!("no published checkpoint of {} leaves is kept, where day {name} ended", day.to)),
        Some(root) if root != frontier.root() => Some(format!(
            "the frontier of day {name} does not give the root of the published checkpoint of {} leaves",
            day.to
        )),
        Some(_) => None,
    }
}

/// Ranges of numbers as one set. None where one of them is none.
fn union(mut pairs: Vec<(u64, u64)>) -> Option<Ranges> {
    pairs.sort_unstable();
    let mut joined: Vec<i64> = Vec::new();
    for (low, high) in pairs {
        let (low, high) = (i64::try_from(low).ok()?, i64::try_from(high).ok()?);
        match joined.last_mut() {
            Some(last) if low <= last.saturating_add(1) => *last = high.max(*last),
            _ => joined.extend([low, high]),
        }
    }
    Ranges::from_pairs(&joined)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::leaf_hash;
    use super::super::merkle::{Plan, consistency_plan, empty_root, frontier_nodes, inclusion_plan};
    use super::super::tile::{Additions, tiles_for, tiles_of};
    use super::*;

    fn survives(plan: &Plan, cut: u64) -> bool {
        tiles_for(plan).into_iter().all(|tile| !goes(tile, cut))
    }

    fn own(size: u64) -> Plan {
        frontier_nodes(size).into_iter().map(|node| vec![node]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Whatever is proven from the cut on is made of tiles that stay.
        #[test]
        fn every_later_proof_survives(
            bits in 1u32..=62, seed in any::<u64>(), cut in any::<u64>(), leaf in any::<u64>(), old in any::<u64>(), new in any::<u64>(),
            step in 0u32..=56,
        ) {
            let size = (seed >> (64 - bits)) + 1;
            // Cuts at and beside the ends of tiles are the ones that matter.
            let cut = cut % (size + 1);
            let near = (cut >> step << step).saturating_add(seed % 3).saturating_sub(1).min(size);
            for cut in [cut, cut >> step << step, near] {
                prop_assert!(survives(&own(cut), cut), "the frontier of the cut");
                if cut < size {
                    let leaf = cut + leaf % (size - cut);
                    prop_assert!(survives(&inclusion_plan(leaf, size).unwrap(), cut), "leaf {leaf} of {size} from {cut}");
                    let (old, new) = (cut + old % (size - cut + 1), cut + new % (size - cut + 1));
                    let (old, new) = (old.min(new), old.max(new));
                    prop_assert!(survives(&consistency_plan(old, new).unwrap(), cut), "{old} to {new} from {cut}");
                    prop_assert!(survives(&own(old), cut), "the root of {old} from {cut}");
                }
            }
        }

        /// The tiles that stay are those that a copy needs from the cut on, and no others.
        #[test]
        fn tiles_that_stay_are_those_that_end_beyond(size in 0u64..300_000, at in any::<u64>()) {
            let cut = at % (size + 1);
            let beyond: BTreeSet<Tile> = tiles_of(cut, size).into_iter().map(|(tile, _)| tile).collect();
            let all = tiles_of(0, size);
            let stay = all.iter().filter(|(tile, _)| !goes(*tile, cut)).map(|(tile, _)| *tile);
            prop_assert_eq!(stay.collect::<BTreeSet<_>>(), beyond);
            let gone: u64 = all.iter().filter(|(tile, _)| goes(*tile, cut)).map(|(_, width)| *width).sum();
            prop_assert_eq!(gone, hashes_gone(cut));
        }
    }

    /// Around the ends of tiles of every level, each with all proofs between near sizes.
    #[test]
    fn cuts_at_the_ends_of_tiles() {
        let mut ends: Vec<u64> =
            vec![1, 255, 256, 257, 511, 512, 768, 65_535, 65_536, 65_537, 65_792, 131_072, 1 << 24];
        ends.extend((1..=61).map(|bit| 1u64 << bit));
        for cut in ends {
            for size in (cut..cut + 5).chain([cut + 255, cut + 256, cut * 2]) {
                for old in [cut, cut + 1, size].into_iter().filter(|old| *old <= size) {
                    assert!(survives(&consistency_plan(old, size).unwrap(), cut), "{old} to {size} from {cut}");
                }
                for leaf in [cut, size.saturating_sub(1)].into_iter().filter(|leaf| (cut..size).contains(leaf)) {
                    assert!(survives(&inclusion_plan(leaf, size).unwrap(), cut), "leaf {leaf} of {size} from {cut}");
                }
            }
        }
        assert!(!goes(Tile { level: 0, index: 1 }, 511) && goes(Tile { level: 0, index: 1 }, 512));
        assert!(!goes(Tile { level: 7, index: 0 }, u64::MAX));
        let below = Node { height: 0, index: 0 };
        assert!(goes(Tile::of(below), 256), "and what is below goes");
    }

    fn grown(size: u64) -> Frontier {
        let mut frontier = Frontier::default();
        (0..size).for_each(|leaf| frontier.append(leaf_hash(&leaf.to_be_bytes()), |_, _| {}));
        frontier
    }

    /// Whatever days a ledger is cut into, each tile is filled by one of them, and its root comes out of their leaves.
    #[test]
    fn every_tile_is_filled_by_one_day() {
        let (mut frontier, mut added, mut roots) = (Frontier::default(), Additions::default(), BTreeMap::new());
        let days = [0u64, 1, 255, 256, 256, 700, 65_535, 66_000, 66_048, 70_000];
        for pair in days.windows(2) {
            let mut filled = Vec::new();
            for leaf in pair[0]..pair[1] {
                frontier.append(leaf_hash(&leaf.to_be_bytes()), |node, hash| {
                    added.add(node, hash);
                    if let Some(tile) = completed_tile(node) {
                        filled.push(tile);
                        roots.insert(tile, hash);
                    }
                });
            }
            filled.sort_unstable();
            assert_eq!(filled, tiles_completed(pair[0], pair[1]).collect::<Vec<_>>(), "{pair:?}");
        }
        let full: Vec<_> = added.iter().filter(|(_, _, hashes)| hashes.len() as u64 == WIDTH).collect();
        assert_eq!((full.len(), roots.len()), (274, 274));
        for (tile, _, hashes) in full {
            assert_eq!(root_of_tile(hashes), roots.get(&tile).copied(), "{tile:?}");
            assert_eq!(tile_of_bytes(&hashes.concat()).as_deref(), Some(hashes));
            assert!(goes(tile, 70_000), "{tile:?}");
        }
        assert_eq!((root_of_tile(&[]), tile_of_bytes(&[0; 8191])), (None, None));
    }

    fn gone(day: i64, from: u64, to: u64) -> Gone {
        Gone {
            day: Timestamp::from_micros(day * 86_400_000_000),
            from,
            to,
            frontier: grown(to).hashes().to_vec(),
            invalid: 1,
            conflicts: 0,
            transactions: 2,
            closed: Some((from, to)),
            signed: Some(grown(to).root()),
        }
    }

    #[test]
    fn days_come_to_a_cut() {
        assert_eq!(Cut::of(&[], []), Cut::default());
        let numbers =
            [("a/1", 1, 5), ("b/1", 9, 9), ("a/1", 6, 7), ("a/1", 5, 6)].map(|(p, l, h)| (p.to_owned(), l, h));
        let cut = Cut::of(&[gone(10, 0, 5), gone(11, 5, 5), gone(12, 5, 300)], numbers);
        assert_eq!(cut.problem, None);
        assert_eq!((cut.leaf, cut.invalid, cut.conflicts, cut.transactions), (300, 3, 0, 6));
        assert_eq!((cut.frontier, cut.until), (grown(300), Some(Timestamp::from_micros(13 * 86_400_000_000))));
        let pairs: Vec<_> = cut.producers.iter().map(|(name, ranges)| (name.as_str(), ranges.to_pairs())).collect();
        assert_eq!(pairs, [("a/1", vec![1, 7]), ("b/1", vec![9, 9])]);
    }

    #[test]
    fn what_no_detachment_leaves_is_named() {
        type Tamper = fn(&mut Vec<Gone>);
        let cases: [(&str, Tamper); 9] = [
            ("begins at leaf 5, and the day before ended at 0", |days| drop(days.remove(0))),
            ("day 1970-01-13 begins at leaf 5", |days| drop(days.remove(1))),
            ("begins at leaf 4", |days| days[1].from = 4),
            ("the list of days says Some((5, 6))", |days| days[1].closed = Some((5, 6))),
            ("the list of days says None", |days| days[2].closed = None),
            ("is not of its size, 300", |days| days[2].frontier.truncate(1)),
            ("does not give the root", |days| days[2].frontier[1][0] ^= 1),
            ("does not give the root", |days| days[0].signed = Some(empty_root())),
            ("no published checkpoint of 300 leaves", |days| days[2].signed = None),
        ];
        for (named, tamper) in cases {
            let mut days = vec![gone(10, 0, 5), gone(11, 5, 5), gone(12, 5, 300)];
            tamper(&mut days);
            let problem = Cut::of(&days, []).problem.unwrap_or_default();
            assert!(problem.contains(named), "{named}: {problem}");
        }
        let none = [("a/1".to_owned(), 5, 4)];
        assert!(Cut::of(&[], none).problem.unwrap().contains("a/1"));
    }
}
