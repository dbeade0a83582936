//! Checks the stored tree against one that is grown again from the leaves.

use std::collections::{BTreeMap, BTreeSet};

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
}

impl TreeChecker {
    /// Takes the leaf at an index. After a leaf that is missing nothing more is grown: the rows say what is wrong.
    pub fn leaf(&mut self, index: i64, hash: LeafHash) {
        if u64::try_from(index) == Ok(self.frontier.size()) {
            let added = &mut self.added;
            self.frontier.append(hash, |node, hash| added.add(node, hash));
        }
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
    fn nothing_is_grown_over_a_gap() {
        let mut checker = TreeChecker::default();
        for index in [0, 1, 3, 4] {
            checker.leaf(index, [0; 32]);
        }
        assert_eq!(checker.frontier().size(), 2);
    }
}
