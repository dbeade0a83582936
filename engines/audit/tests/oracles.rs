//! The tree against two other implementations of RFC 6962: a port of Go's `golang.org/x/mod/sumdb/tlog`, and one after
//! Certificate Transparency.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::collections::BTreeMap;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use deltran_audit::domain::leaf_hash;
use deltran_audit::domain::merkle::{
    Frontier, Hash, Node, consistency_plan, empty_root, fill, inclusion_plan, is_consistent, root_of_inclusion,
};
use proptest::prelude::*;
use sha2::Sha256;
use tlog_tiles::tlog;

/// Ours, with all hashes of full subtrees.
#[derive(Default)]
struct Ours {
    frontier: Frontier,
    hashes: BTreeMap<Node, Hash>,
    roots: Vec<Hash>,
}

/// Hashes in the order of `tlog`'s storage.
#[derive(Default)]
struct Stored(Vec<tlog::Hash>);

impl tlog::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

struct Trees {
    ours: Ours,
    go: Stored,
    ct: MemoryBackedTree<Sha256, Vec<u8>>,
}

fn trees(leaves: &[Vec<u8>]) -> Trees {
    let (mut ours, mut go, mut ct) = (Ours::default(), Stored::default(), MemoryBackedTree::new());
    ours.roots.push(empty_root());
    for (n, leaf) in leaves.iter().enumerate() {
        let (frontier, hashes) = (&mut ours.frontier, &mut ours.hashes);
        frontier.append(leaf_hash(leaf), |node, hash| {
            hashes.insert(node, hash);
        });
        ours.roots.push(frontier.root());
        go.0.extend(tlog::stored_hashes(n as u64, leaf, &go).unwrap());
        ct.push(leaf.clone());
    }
    Trees { ours, go, ct }
}

fn bytes(hashes: &[tlog::Hash]) -> Vec<Hash> {
    hashes.iter().map(|hash| hash.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every root up to a size, every inclusion proof in it and every consistency proof to it.
    #[test]
    fn roots_and_proofs_are_those_of_others(size in 0usize..=2000, salt in any::<u64>()) {
        let leaves: Vec<Vec<u8>> = (0..size as u64).map(|n| [n.to_be_bytes(), salt.to_be_bytes()].concat()).collect();
        let Trees { ours, go, ct } = trees(&leaves);
        let new = size as u64;
        let root = ours.roots[size];
        if size > 0 {
            prop_assert_eq!(root.to_vec(), ct.root().as_bytes().to_vec());
        }
        for (n, root) in ours.roots.iter().enumerate().skip(1) {
            prop_assert_eq!(*root, tlog::tree_hash(n as u64, &go).unwrap().0, "root of {}", n);
        }
        for (index, leaf) in leaves.iter().enumerate() {
            let proof = fill(&inclusion_plan(index as u64, new).unwrap(), &ours.hashes).unwrap();
            prop_assert_eq!(&proof, &bytes(&tlog::prove_record(new, index as u64, &go).unwrap()), "leaf {} of {}", index, size);
            prop_assert_eq!(proof.concat(), ct.prove_inclusion(index).as_bytes().to_vec(), "leaf {} of {}", index, size);
            prop_assert_eq!(root_of_inclusion(index as u64, new, &leaf_hash(leaf), &proof), Some(root));
        }
        for old in 1..=size {
            let proof = fill(&consistency_plan(old as u64, new).unwrap(), &ours.hashes).unwrap();
            prop_assert_eq!(&proof, &bytes(&tlog::prove_tree(new, old as u64, &go).unwrap()), "{} to {}", old, size);
            prop_assert_eq!(proof.concat(), ct.prove_consistency(size - old).as_bytes().to_vec(), "{} to {}", old, size);
            prop_assert!(is_consistent(old as u64, &ours.roots[old], new, &root, &proof));
        }
    }
}
