//! The Merkle tree over the ledger's leaves: hashes, roots, proofs (RFC 6962, section 2.1; RFC 9162, section 2.1).
//!
//! Nothing here stores anything: what a root or a proof needs is said as a list of full subtrees, and whoever has
//! their hashes puts them in.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::LeafHash;

/// The hash of a subtree.
pub type Hash = LeafHash;

/// Hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// A full subtree: the leaves from `index · 2^height` up to `(index + 1) · 2^height`, the last not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Levels above the leaves.
    pub height: u8,
    /// Its place among the subtrees of its height, from the left.
    pub index: u64,
}

/// The largest power of two below `n`; `n` is at least 2.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The full subtrees of the leaves `from..to`, largest first, where `from` is a multiple of the largest.
fn subtrees(from: u64, to: u64) -> Vec<Node> {
    let mut at = from;
    let mut nodes = Vec::new();
    while at < to {
        let height = 63 - (to - at).leading_zeros();
        nodes.push(Node { height: height as u8, index: at >> height });
        at += 1 << height;
    }
    nodes
}

/// The full subtrees that a tree of a size consists of, largest first: what the frontier of that size holds.
pub fn frontier_nodes(size: u64) -> Vec<Node> {
    subtrees(0, size)
}

/// A proof as the subtrees that make each of its hashes: several, where a hash stands for an unfinished right edge.
pub type Plan = Vec<Vec<Node>>;

/// What an inclusion proof of leaf `index` in a tree of `size` consists of, from the leaf upwards. `None` where the
/// tree has no such leaf.
pub fn inclusion_plan(index: u64, size: u64) -> Option<Plan> {
    if index >= size {
        return None;
    }
    let (mut from, mut to) = (0, size);
    let mut plan = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            plan.push(subtrees(middle, to));
            to = middle;
        } else {
            plan.push(subtrees(from, middle));
            from = middle;
        }
    }
    plan.reverse();
    Some(plan)
}

/// What a consistency proof from a tree of `old` to one of `new` leaves consists of. `None` where `old` is above `new`;
/// empty where they are equal, or `old` is 0.
pub fn consistency_plan(old: u64, new: u64) -> Option<Plan> {
    if old > new {
        return None;
    }
    if old == 0 || old == new {
        return Some(Vec::new());
    }
    let (mut from, mut to, mut whole) = (0, new, true);
    let mut plan = Vec::new();
    while old != to {
        let middle = from + split(to - from);
        if old <= middle {
            plan.push(subtrees(middle, to));
            to = middle;
        } else {
            plan.push(subtrees(from, middle));
            (from, whole) = (middle, false);
        }
    }
    // The old tree's own last subtree is known to whoever has its root only where it is all of it.
    if !whole {
        plan.push(subtrees(from, to));
    }
    plan.reverse();
    Some(plan)
}

/// The hash of adjoining subtrees, largest first. `None` where one of them is not given, or there is none.
pub fn fold(nodes: &[Node], hashes: &BTreeMap<Node, Hash>) -> Option<Hash> {
    let mut from_right = nodes.iter().rev();
    let mut hash = *hashes.get(from_right.next()?)?;
    for node in from_right {
        hash = node_hash(hashes.get(node)?, &hash);
    }
    Some(hash)
}

/// Fills a plan in. `None` where a hash is not given.
pub fn fill(plan: &Plan, hashes: &BTreeMap<Node, Hash>) -> Option<Vec<Hash>> {
    plan.iter().map(|nodes| fold(nodes, hashes)).collect()
}

/// The root that an inclusion proof leads to. `None` where the proof does not have the length that index and size ask
/// for (RFC 9162, section 2.1.3.2).
pub fn root_of_inclusion(index: u64, size: u64, leaf: &Hash, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// Whether a consistency proof shows that the tree of `new` leaves begins with the tree of `old` leaves (RFC 9162,
/// section 2.1.4.2). Every tree begins with the empty one.
pub fn is_consistent(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let first = if old.is_power_of_two() { Some(old_root) } else { None };
    let mut path = first.into_iter().chain(proof);
    let Some(start) = path.next() else { return false };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut was, mut is) = (*start, *start);
    for hash in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            was = node_hash(hash, &was);
            is = node_hash(hash, &is);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            is = node_hash(&is, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && was == *old_root && is == *new_root
}

/// The right edge of a growing tree: the hashes of the full subtrees that it consists of, at most 64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Largest first.
    hashes: Vec<Hash>,
}

impl Frontier {
    /// The frontier of a size with its hashes, largest subtree first. `None` where their number is not that of the
    /// size.
    pub fn new(size: u64, hashes: Vec<Hash>) -> Option<Self> {
        (hashes.len() == size.count_ones() as usize).then_some(Self { size, hashes })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Hashes of the full subtrees, largest first.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Root of the tree.
    pub fn root(&self) -> Hash {
        let mut from_right = self.hashes.iter().rev();
        let Some(last) = from_right.next() else { return empty_root() };
        from_right.fold(*last, |right, left| node_hash(left, &right))
    }

    /// Appends a leaf. `completed` is told every subtree that this completes, the leaf first.
    pub fn append(&mut self, leaf: Hash, mut completed: impl FnMut(Node, Hash)) {
        let mut node = Node { height: 0, index: self.size };
        let mut hash = leaf;
        completed(node, hash);
        // A subtree is complete where the bit of its height was set: it joins its left sibling, which is the last.
        while node.index & 1 == 1 {
            let Some(left) = self.hashes.pop() else { break };
            hash = node_hash(&left, &hash);
            node = Node { height: node.height + 1, index: node.index >> 1 };
            completed(node, hash);
        }
        self.hashes.push(hash);
        self.size += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::leaf_hash;
    use super::*;

    /// RFC 6962, section 2.1, to the letter.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            more => {
                let (left, right) = more.split_at(split(more.len() as u64) as usize);
                node_hash(&mth(left), &mth(right))
            }
        }
    }

    fn leaves(n: u64) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn grown(leaves: &[Hash]) -> (Frontier, BTreeMap<Node, Hash>) {
        let (mut frontier, mut nodes) = (Frontier::default(), BTreeMap::new());
        for leaf in leaves {
            frontier.append(*leaf, |node, hash| {
                assert!(nodes.insert(node, hash).is_none(), "a subtree is complete once");
            });
        }
        (frontier, nodes)
    }

    #[test]
    fn roots_are_those_of_the_definition() {
        let all = leaves(130);
        for n in 0..=all.len() {
            let (frontier, nodes) = grown(&all[..n]);
            assert_eq!(frontier.root(), mth(&all[..n]), "{n}");
            let own: Vec<Hash> = frontier_nodes(n as u64).iter().map(|node| nodes[node]).collect();
            assert_eq!(Frontier::new(n as u64, own), Some(frontier));
        }
        // The root of the empty tree and of one empty leaf, as Certificate Transparency's own tests have them.
        assert_eq!(hex::encode(empty_root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex::encode(leaf_hash(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }

    #[test]
    fn every_proof_of_every_small_tree_leads_to_its_root() {
        let all = leaves(70);
        let (_, nodes) = grown(&all);
        for size in 1..=all.len() as u64 {
            let root = mth(&all[..size as usize]);
            for index in 0..size {
                let proof = fill(&inclusion_plan(index, size).unwrap(), &nodes).unwrap();
                let leaf = &all[index as usize];
                assert_eq!(root_of_inclusion(index, size, leaf, &proof), Some(root), "{index} of {size}");
                for wrong in 0..size {
                    let lead = root_of_inclusion(wrong, size, leaf, &proof);
                    assert_eq!(lead == Some(root), wrong == index, "{index} as {wrong} of {size}");
                }
            }
            for old in 0..=size {
                let proof = fill(&consistency_plan(old, size).unwrap(), &nodes).unwrap();
                let old_root = mth(&all[..old as usize]);
                assert!(is_consistent(old, &old_root, size, &root, &proof), "{old} to {size}");
                if old > 0 {
                    assert!(!is_consistent(old, &leaf_hash(b"other"), size, &root, &proof), "{old} to {size}");
                }
                if old > 0 && old < size {
                    assert!(!is_consistent(old, &old_root, size, &leaf_hash(b"other"), &proof), "{old} to {size}");
                    let mut longer = proof.clone();
                    longer.push(root);
                    assert!(!is_consistent(old, &old_root, size, &root, &longer), "{old} to {size}");
                    assert!(!is_consistent(old, &old_root, size, &root, &proof[..proof.len() - 1]), "{old} to {size}");
                }
            }
        }
        assert_eq!((inclusion_plan(3, 3), consistency_plan(4, 3)), (None, None));
    }

    proptest! {
        /// Sizes beyond what can be grown: the plan covers the tree, each leaf once.
        #[test]
        fn plans_cover_the_tree(size in 1u64..u64::MAX / 2, at in any::<u64>()) {
            let index = at % size;
            let plan = inclusion_plan(index, size).unwrap();
            let covered: u128 = plan.iter().flatten().map(|node| 1u128 << node.height).sum();
            prop_assert_eq!(covered + 1, u128::from(size));
            let beside = plan.iter().flatten().all(|node| node.index != index >> node.height);
            prop_assert!(beside, "no subtree has the leaf itself");
            let old = index + 1;
            let plan = consistency_plan(old, size).unwrap();
            let apart = plan.iter().flatten().all(|node| {
                let (from, to) = (node.index << node.height, (node.index + 1) << node.height);
                to <= old || from >= old
            });
            prop_assert!(apart, "no subtree is half old");
        }
    }
}
