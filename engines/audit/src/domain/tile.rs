//! Tiles: the tree's hashes in pieces that can be stored, served and cached (C2SP `tlog-tiles`).
//!
//! A tile has up to 256 hashes of one level; a level is eight heights of the tree. Only hashes of full subtrees stand
//! in tiles, so that a tile only ever grows to the right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::merkle::{Hash, Node, Plan, fill, node_hash};

/// Heights of the tree per level of tiles.
pub const HEIGHT: u8 = 8;
/// Hashes of a full tile.
pub const WIDTH: u64 = 1 << HEIGHT;

/// The place of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    /// Its level: the hashes are those of subtrees of height 8 · level.
    pub level: u8,
    /// Its number within the level, from the left.
    pub index: u64,
}

impl Tile {
    /// The tile in which the hash of a subtree stands, or from which it is made.
    pub fn of(node: Node) -> Self {
        let level = node.height / HEIGHT;
        let above = node.height % HEIGHT;
        Self { level, index: node.index >> (HEIGHT - above) }
    }

    /// How many hashes it has in a tree of a size.
    pub fn width(self, size: u64) -> u64 {
        let hashes = size.checked_shr(u32::from(self.level) * u32::from(HEIGHT)).unwrap_or(0);
        hashes.saturating_sub(self.index.saturating_mul(WIDTH)).min(WIDTH)
    }

    /// The tile in which the hash over this one stands, once it is full, and its place there.
    pub fn above(self) -> (Self, u64) {
        (Self { level: self.level + 1, index: self.index / WIDTH }, self.index % WIDTH)
    }

    /// Its path below the prefix of a log, with so many hashes.
    pub fn path(self, width: u64) -> TilePath {
        TilePath { directory: None, tile: self, width }
    }
}

/// The path of a tile, or of a bundle of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilePath {
    directory: Option<&'static str>,
    tile: Tile,
    width: u64,
}

impl TilePath {
    /// The path of the bundle of the entries whose hashes stand in the tile of level 0 with this number.
    pub fn of_entries(index: u64, width: u64) -> Self {
        Self { directory: Some("entries"), tile: Tile { level: 0, index }, width }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.directory {
            Some(directory) => write!(f, "tile/{directory}/")?,
            None => write!(f, "tile/{}/", self.tile.level)?,
        }
        let mut groups = vec![self.tile.index % 1000];
        let mut rest = self.tile.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups.iter().skip(1).rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if self.width < WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// The tiles of a tree of a size, by level and number, with their widths: all that end beyond `from`.
pub fn tiles_of(from: u64, size: u64) -> Vec<(Tile, u64)> {
    let mut tiles = Vec::new();
    for level in 0..=(63 / HEIGHT) {
        let hashes = size >> (level * HEIGHT);
        let first = from >> (level * HEIGHT) >> HEIGHT;
        for index in first..hashes.div_ceil(WIDTH) {
            let tile = Tile { level, index };
            tiles.push((tile, tile.width(size)));
        }
    }
    tiles
}

/// The hashes that leaves add to tiles, by tile: the place of the first, and all of them in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Additions {
    tiles: BTreeMap<Tile, (u64, Vec<Hash>)>,
}

impl Additions {
    /// Takes a completed subtree; those that stand in no tile are passed over.
    pub fn add(&mut self, node: Node, hash: Hash) {
        if node.height.is_multiple_of(HEIGHT) {
            let place = node.index % WIDTH;
            self.tiles.entry(Tile::of(node)).or_insert((place, Vec::new())).1.push(hash);
        }
    }

    /// Tiles with the place of the first new hash and the new hashes.
    pub fn iter(&self) -> impl Iterator<Item = (Tile, u64, &[Hash])> {
        self.tiles.iter().map(|(tile, (place, hashes))| (*tile, *place, hashes.as_slice()))
    }
}

/// The tiles that a plan needs.
pub fn tiles_for(plan: &Plan) -> BTreeSet<Tile> {
    plan.iter().flatten().map(|node| Tile::of(*node)).collect()
}

/// Fills a plan in out of tiles. `None` where a tile is missing or too short.
pub fn filled(plan: &Plan, tiles: &BTreeMap<Tile, Vec<Hash>>) -> Option<Vec<Hash>> {
    fill(plan, &hashes_for(plan, tiles)?)
}

/// The hashes of a plan's subtrees out of tiles. `None` where a tile is missing or too short.
pub fn hashes_for(plan: &Plan, tiles: &BTreeMap<Tile, Vec<Hash>>) -> Option<BTreeMap<Node, Hash>> {
    plan.iter().flatten().map(|node| Some((*node, hash_in(*node, tiles.get(&Tile::of(*node))?)?))).collect()
}

/// The hash of a subtree out of its tile.
fn hash_in(node: Node, tile: &[Hash]) -> Option<Hash> {
    let above = node.height % HEIGHT;
    let first = usize::try_from((node.index << above) % WIDTH).ok()?;
    root_of_row(tile.get(first..first + (1 << above))?.to_vec())
}

/// The root over a row of hashes whose number is a power of two. `None` where it is empty.
pub(super) fn root_of_row(mut row: Vec<Hash>) -> Option<Hash> {
    while row.len() > 1 {
        row = row.chunks(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    row.pop()
}

#[cfg(test)]
mod tests {
    use super::super::leaf_hash;
    use super::super::merkle::{Frontier, consistency_plan, frontier_nodes, inclusion_plan, root_of_inclusion};
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |level, index| Tile { level, index };
        for (path, expected) in [
            (tile(0, 1_234_067).path(256), "tile/0/x001/x234/067"),
            (tile(0, 0).path(256), "tile/0/000"),
            (tile(2, 0).path(1), "tile/2/000.p/1"),
            (tile(1, 999).path(17), "tile/1/999.p/17"),
            (tile(1, 1_000).path(256), "tile/1/x001/000"),
            (TilePath::of_entries(273, 112), "tile/entries/273.p/112"),
        ] {
            assert_eq!(path.to_string(), expected);
        }
    }

    /// The specification's example: a tree of 70,000 leaves, and one of 256.
    #[test]
    fn tiles_are_those_of_the_specification() {
        let tiles = tiles_of(0, 70_000);
        let full = |level| tiles.iter().filter(|(t, width)| t.level == level && *width == WIDTH).count();
        let partial = |level| tiles.iter().find(|(t, width)| t.level == level && *width < WIDTH).map(|(_, w)| *w);
        assert_eq!([full(0), full(1), full(2)], [273, 1, 0]);
        assert_eq!([partial(0), partial(1), partial(2), partial(3)], [Some(112), Some(17), Some(1), None]);
        let widths: Vec<u64> = tiles_of(0, 256).iter().map(|(_, width)| *width).collect();
        assert_eq!(widths, [256, 1]);
        // Beyond a cut: what ends after it.
        assert!(tiles_of(512, 70_000).iter().all(|(t, _)| t.level > 0 || t.index >= 2));
        assert_eq!(tiles_of(0, 0), []);
    }

    #[test]
    fn every_hash_of_a_proof_comes_out_of_tiles() {
        let size = 70_000u64;
        let (mut frontier, mut added) = (Frontier::default(), Additions::default());
        let leaves: Vec<Hash> = (0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        for leaf in &leaves {
            frontier.append(*leaf, |node, hash| added.add(node, hash));
        }
        let tiles: BTreeMap<Tile, Vec<Hash>> = added.iter().map(|(tile, _, hashes)| (tile, hashes.to_vec())).collect();
        for (tile, width) in tiles_of(0, size) {
            assert_eq!(tiles.get(&tile).map(|hashes| hashes.len() as u64), Some(width), "{tile:?}");
            if width == WIDTH {
                let (above, place) = tile.above();
                assert_eq!(root_of_row(tiles[&tile].clone()), Some(tiles[&above][place as usize]), "{tile:?}");
            }
        }
        assert_eq!(tiles.len(), tiles_of(0, size).len());
        let own = vec![frontier_nodes(size)];
        let hashes = hashes_for(&own, &tiles).unwrap();
        assert_eq!(fill(&own, &hashes).unwrap(), [frontier.root()]);
        for index in [0, 1, 255, 256, 257, 65_535, 65_536, 69_888, 69_999] {
            let plan = inclusion_plan(index, size).unwrap();
            let needed: BTreeMap<_, _> = tiles_for(&plan).into_iter().map(|t| (t, tiles[&t].clone())).collect();
            let proof = fill(&plan, &hashes_for(&plan, &needed).unwrap()).unwrap();
            let root = root_of_inclusion(index, size, &leaves[index as usize], &proof);
            assert_eq!(root, Some(frontier.root()), "{index}");
        }
        for old in [1, 255, 256, 300, 65_536, 69_999] {
            let plan = consistency_plan(old, size).unwrap();
            assert!(hashes_for(&plan, &tiles).is_some(), "{old}");
        }
    }
}
