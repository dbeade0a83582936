//! Checks the stored tree against one that is grown again from the leaves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::LeafHash;
use super::merkle::{Frontier, Hash};
use super::tile::{Additions, HEIGHT, Tile};

/// Grows the tree again. Memory does not grow with the ledger.
#[derive(Debug, Default)]
pub struct TreeChecker {
    frontier: Frontier,
    added: Additions,
    hashes: u64,
    problem: Option<String>,
    expected: VecDeque<Signed>,
    signed: u64,
    signed_problem: Option<String>,
}

/// A checkpoint that the tree must pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Number of leaves.
    pub size: u64,
    /// The root that was signed, or why it is no checkpoint of this log.
    pub root: Result<Hash, String>,
}

impl TreeChecker {
    /// Begins with the tree over the leaves below a cut.
    pub fn after(frontier: Frontier) -> Self {
        Self { frontier, ..Self::default() }
    }

    /// Takes the leaf at an index. After a leaf that is missing nothing more is grown: the rows say what is wrong.
    pub fn leaf(&mut self, index: i64, hash: LeafHash) {
        if u64::try_from(index) == Ok(self.frontier.size()) {
            let added = &mut self.added;
            self.frontier.append(hash, |node, hash| added.add(node, hash));
            self.pass();
        }
    }

    /// Says which checkpoints come next, by size.
    pub fn expect(&mut self, checkpoints: impl IntoIterator<Item = Signed>) {
        self.expected.extend(checkpoints);
        self.pass();
    }

    /// Compares with the checkpoints of the size that is reached.
    fn pass(&mut self) {
        while let Some(next) = self.expected.front()
            && next.size <= self.frontier.size()
        {
            let Some(Signed { size, root }) = self.expected.pop_front() else { return };
            let problem = match root {
                Err(why) => Some(format!("the checkpoint of size {size}: {why}")),
                Ok(root) if size == self.frontier.size() && root != self.frontier.root() => Some(format!(
                    "the checkpoint of size {size} signs another root than that of the first {size} leaves: {} differs \
                     at or before leaf {}",
                    hex::encode(root),
                    size.saturating_sub(1)
                )),
                Ok(_) => None,
            };
            self.signed += 1;
            if let Some(problem) = problem {
                self.signed_problem.get_or_insert(problem);
            }
        }
    }

    /// Checkpoints that were compared, and the first that does not fit.
    pub fn signed(&self) -> (u64, Option<&str>) {
        (self.signed, self.signed_problem.as_deref())
    }

    /// The tiles that the leaves since the last comparison stand in.
    pub fn touched(&self) -> BTreeSet<Tile> {
        self.added.iter().map(|(tile, _, _)| tile).collect()
    }

    /// Compares what was grown since the last comparison with the stored tiles.
    pub fn compare(&mut self, stored: &BTreeMap<Tile, Vec<Hash>>) {
        for (tile, place, hashes) in std::mem::take(&mut self.added).iter() {
            self.hashes += hashes.len() as u64;
            let found = stored.get(&tile).map_or(&[][..], Vec::as_slice);
            let at = |i: usize| found.get(place as usize + i);
            let Some(differs) = hashes.iter().enumerate().position(|(i, hash)| at(i) != Some(hash)) else { continue };
            let what = if at(differs).is_some() { "is another" } else { "is missing" };
            let place = place + differs as u64;
            let first = (tile.index * super::tile::WIDTH + place) << (tile.level * HEIGHT);
            let last = first + (1 << (tile.level * HEIGHT)) - 1;
            self.problem.get_or_insert_with(|| {
                let Tile { level, index } = tile;
                format!("hash {place} of tile {level}/{index}, over leaves {first} to {last}, {what}")
            });
        }
    }

    /// The tree that was grown.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Hashes that were compared.
    pub fn hashes(&self) -> u64 {
        self.hashes
    }

    /// The first difference.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

/// How many hashes stand in the tiles of a tree of a size.
pub fn hashes_of(size: u64) -> u64 {
    (0..=63 / HEIGHT).map(|level| size >> (level * HEIGHT)).sum()
}

#[cfg(test)]
mod tests {
    use super::super::leaf_hash;
    use super::*;

    fn tiles(leaves: u64) -> BTreeMap<Tile, Vec<Hash>> {
        let (mut frontier, mut added) = (Frontier::default(), Additions::default());
        for leaf in 0..leaves {
            frontier.append(leaf_hash(&leaf.to_be_bytes()), |node, hash| added.add(node, hash));
        }
        added.iter().map(|(tile, _, hashes)| (tile, hashes.to_vec())).collect()
    }

    fn checked(leaves: u64, stored: &BTreeMap<Tile, Vec<Hash>>) -> TreeChecker {
        let mut checker = TreeChecker::default();
        for leaf in 0..leaves {
            checker.leaf(leaf as i64, leaf_hash(&leaf.to_be_bytes()));
            if leaf % 100 == 99 || leaf + 1 == leaves {
                checker.compare(stored);
            }
        }
        checker
    }

    #[test]
    fn the_first_hash_that_differs_is_named() {
        let good = tiles(600);
        let checker = checked(600, &good);
        assert_eq!((checker.problem(), checker.hashes()), (None, hashes_of(600)));
        assert_eq!(hashes_of(600), 602);

        let mut changed = good.clone();
        changed.get_mut(&Tile { level: 0, index: 1 }).unwrap()[44][0] ^= 1;
        let checker = checked(600, &changed);
        assert_eq!(checker.problem(), Some("hash 44 of tile 0/1, over leaves 300 to 300, is another"));

        let mut short = good.clone();
        short.get_mut(&Tile { level: 1, index: 0 }).unwrap().pop();
        let checker = checked(600, &short);
        assert_eq!(checker.problem(), Some("hash 1 of tile 1/0, over leaves 256 to 511, is missing"));
    }

    #[test]
    fn a_checkpoint_of_another_tree_is_named() {
        let root_of = |leaves: u64| {
            let mut frontier = Frontier::default();
            (0..leaves).for_each(|leaf| frontier.append(leaf_hash(&leaf.to_be_bytes()), |_, _| {}));
            frontier.root()
        };
        let passed = |signed: Vec<Signed>| {
            let mut checker = TreeChecker::default();
            checker.expect(signed);
            (0..10u64).for_each(|leaf| checker.leaf(leaf as i64, leaf_hash(&leaf.to_be_bytes())));
            let (count, problem) = checker.signed();
            (count, problem.map(str::to_owned))
        };
        let good = |size| Signed { size, root: Ok(root_of(size)) };
        assert_eq!(passed(vec![good(0), good(1), good(7), good(10)]), (4, None));
        assert_eq!(passed(vec![good(7), good(11)]), (1, None), "not reached yet");
        let (count, problem) = passed(vec![good(3), Signed { size: 5, root: Ok(root_of(6)) }, good(7)]);
        assert_eq!(count, 3);
        assert!(problem.unwrap().starts_with("the checkpoint of size 5 signs another root"));
        let (_, problem) = passed(vec![Signed { size: 5, root: Err("it is forged".into()) }]);
        assert_eq!(problem.unwrap(), "the checkpoint of size 5: it is forged");
    }

    #[test]
    fn nothing_is_grown_over_a_gap() {
        let mut checker = TreeChecker::default();
        for index in [0, 1, 3, 4] {
            checker.leaf(index, [0; 32]);
        }
        assert_eq!(checker.frontier().size(), 2);
    }
}
