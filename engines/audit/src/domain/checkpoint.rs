//! Checkpoints of the log (C2SP `tlog-checkpoint`) and proofs that travel alone (C2SP `tlog-proof`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::LeafHash;
use super::merkle::{Hash, is_consistent, root_of_inclusion};
use super::note::{Note, NoteError, Verifier};

/// First line of a proof.
const PROOF: &str = "c2sp.org/tlog-proof@v1";
/// Hashes of the longest proof.
const MAX_PROOF: usize = 64;

/// What a log says of itself: its origin, its size, its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: `deltran/<deployment>/audit`.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

/// Why a checkpoint or a proof is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// It is no checkpoint.
    #[error("this is no checkpoint: {0}")]
    Malformed(&'static str),
    /// It is no proof.
    #[error("this is no proof: {0}")]
    Proof(&'static str),
    /// It is of another log.
    #[error("it is of the log {found:?}, expected {expected:?}")]
    OtherLog {
        /// The origin line.
        found: String,
        /// The log that was asked for.
        expected: String,
    },
    /// The later ledger does not begin with the earlier one.
    #[error(
        "the ledger of size {later} does not begin with that of the checkpoint of size {earlier}: one of them was rebuilt"
    )]
    Inconsistent {
        /// The size of the earlier one.
        earlier: u64,
        /// The size of the later one.
        later: u64,
    },
    /// The leaf is not where the proof says.
    #[error("the leaf does not stand at index {index} of the log of size {size}")]
    NotIncluded {
        /// The place.
        index: u64,
        /// The size of the log.
        size: u64,
    },
}

impl Checkpoint {
    /// The origin line of a deployment.
    pub fn origin_of(deployment: &str) -> String {
        format!("deltran/{deployment}/audit")
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Reads a text; lines that extend it are passed over.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        let mut lines = text.strip_suffix('\n').ok_or(malformed("its last line does not end"))?.split('\n');
        let origin = lines.next().filter(|o| !o.is_empty()).ok_or(malformed("it has no origin"))?.to_owned();
        let size = lines.next().and_then(decimal).ok_or(malformed("its size is no decimal number"))?;
        let root = lines.next().and_then(hash).ok_or(malformed("its root is not the base64 of 32 bytes"))?;
        if lines.any(str::is_empty) {
            return Err(malformed("an extension line is empty"));
        }
        Ok(Self { origin, size, root })
    }

    /// Reads a signed checkpoint without checking who signed it.
    ///
    /// # Errors
    /// Where it is none.
    pub fn unchecked(note: &str) -> Result<Self, CheckpointError> {
        Self::parse(Note::parse(note)?.text)
    }

    /// Reads a signed checkpoint of a log, and checks that one of the keys that bear the log's name signed it.
    ///
    /// # Errors
    /// Where it is none, is of another log, or is not signed by it.
    pub fn verify(note: &str, origin: &str, keys: &[Verifier]) -> Result<Self, CheckpointError> {
        let note = Note::parse(note)?;
        let checkpoint = Self::parse(note.text)?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::OtherLog { found: checkpoint.origin, expected: origin.to_owned() });
        }
        let own: Vec<Verifier> = keys.iter().filter(|key| key.name() == origin).cloned().collect();
        note.verify(&own)?;
        Ok(checkpoint)
    }
}

/// A decimal number without a sign or leading zeroes.
fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// A proof that a leaf stands in the log, with the checkpoint that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// The leaf's index.
    pub index: u64,
    /// Hashes from the leaf's sibling upwards.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

impl InclusionProof {
    /// Its text.
    pub fn text(&self) -> String {
        let mut text = format!("{PROOF}\nindex {}\n", self.index);
        for hash in &self.hashes {
            text.push_str(&STANDARD.encode(hash));
            text.push('\n');
        }
        text + "\n" + &self.checkpoint
    }

    /// Reads a text; checks nothing else. Extra data is passed over, since nobody vouches for it.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Proof;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(malformed("it has no checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(PROOF) {
            return Err(malformed("its first line is not c2sp.org/tlog-proof@v1"));
        }
        if lines.peek().is_some_and(|line| line.starts_with("extra ")) {
            lines.next();
        }
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let index = index.ok_or(malformed("its index is no decimal number"))?;
        let hashes: Vec<Hash> = lines
            .map(|line| hash(line).ok_or(malformed("a hash is not the base64 of 32 bytes")))
            .collect::<Result<_, _>>()?;
        if hashes.len() > MAX_PROOF {
            return Err(malformed("it has more hashes than any tree"));
        }
        Ok(Self { index, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// Checks that the leaf stands in the log as the proof says, and gives the checkpoint.
    ///
    /// # Errors
    /// Where it does not, or the checkpoint is not the log's.
    pub fn verify(&self, leaf: &LeafHash, origin: &str, keys: &[Verifier]) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = Checkpoint::verify(&self.checkpoint, origin, keys)?;
        let root = root_of_inclusion(self.index, checkpoint.size, leaf, &self.hashes);
        if root != Some(checkpoint.root) {
            return Err(CheckpointError::NotIncluded { index: self.index, size: checkpoint.size });
        }
        Ok(checkpoint)
    }
}

/// A proof that one ledger begins with an earlier one, as a witness takes it (C2SP `tlog-witness`, add-checkpoint).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// The size of the earlier ledger.
    pub old: u64,
    /// Hashes (RFC 6962, section 2.1.2).
    pub hashes: Vec<Hash>,
    /// The signed checkpoint of the later ledger.
    pub checkpoint: String,
}

impl ConsistencyProof {
    /// Its text.
    pub fn text(&self) -> String {
        let hashes: String = self.hashes.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
        format!("old {}\n{hashes}\n{}", self.old, self.checkpoint)
    }

    /// Reads a text; checks nothing else.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Proof;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(malformed("it has no checkpoint"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(decimal);
        let old = old.ok_or(malformed("its first line is not `old <size>`"))?;
        let hashes: Vec<Hash> = lines
            .map(|line| hash(line).ok_or(malformed("a hash is not the base64 of 32 bytes")))
            .collect::<Result<_, _>>()?;
        if hashes.len() > MAX_PROOF {
            return Err(malformed("it has more hashes than any tree"));
        }
        Ok(Self { old, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// Checks that the later ledger is this log's and begins with the ledger of an earlier checkpoint, and gives the
    /// later one.
    ///
    /// # Errors
    /// Where it does not, or the checkpoint is not the log's.
    pub fn verify(&self, earlier: &Checkpoint, keys: &[Verifier]) -> Result<Checkpoint, CheckpointError> {
        let later = Checkpoint::verify(&self.checkpoint, &earlier.origin, keys)?;
        if self.old != earlier.size
            || !is_consistent(earlier.size, &earlier.root, later.size, &later.root, &self.hashes)
        {
            return Err(CheckpointError::Inconsistent { earlier: earlier.size, later: later.size });
        }
        Ok(later)
    }
}

#[cfg(test)]
mod tests {
    use super::super::leaf_hash;
    use super::super::merkle::{Frontier, fill, inclusion_plan};
    use super::super::note::{Kind, Signer};
    use super::*;
    use std::collections::BTreeMap;

    const ORIGIN: &str = "deltran/test/audit";

    fn log(size: u64) -> (Checkpoint, Vec<Vec<Hash>>) {
        let (mut frontier, mut nodes) = (Frontier::default(), BTreeMap::new());
        for leaf in 0..size {
            frontier.append(leaf_hash(&[leaf as u8]), |node, hash| {
                nodes.insert(node, hash);
            });
        }
        let proofs = (0..size).map(|i| fill(&inclusion_plan(i, size).unwrap(), &nodes).unwrap()).collect();
        (Checkpoint { origin: ORIGIN.into(), size, root: frontier.root() }, proofs)
    }

    #[test]
    fn a_proof_travels_as_text_and_proves_its_leaf_only() {
        let signer = Signer::new(ORIGIN, Kind::Ed25519, &[3; 32]).unwrap();
        let keys = [signer.verifier().clone()];
        let (checkpoint, proofs) = log(11);
        let signed = signer.note(&checkpoint.text());
        for (index, hashes) in (0..).zip(proofs) {
            let proof = InclusionProof { index, hashes, checkpoint: signed.clone() };
            let read = InclusionProof::parse(&proof.text()).unwrap();
            assert_eq!(read, proof);
            assert_eq!(read.verify(&leaf_hash(&[index as u8]), ORIGIN, &keys).unwrap(), checkpoint);
            let other = read.verify(&leaf_hash(&[index as u8 + 1]), ORIGIN, &keys);
            assert_eq!(other, Err(CheckpointError::NotIncluded { index, size: 11 }));
            let elsewhere = InclusionProof { index: index + 1, ..read };
            assert!(elsewhere.verify(&leaf_hash(&[index as u8]), ORIGIN, &keys).is_err());
        }
    }

    #[test]
    fn a_checkpoint_is_its_logs_own() {
        let signer = Signer::new(ORIGIN, Kind::Ed25519, &[3; 32]).unwrap();
        let stranger = Signer::new("deltran/other/audit", Kind::Ed25519, &[3; 32]).unwrap();
        let (checkpoint, _) = log(5);
        let keys = [signer.verifier().clone(), stranger.verifier().clone()];
        assert_eq!(Checkpoint::verify(&signer.note(&checkpoint.text()), ORIGIN, &keys).unwrap(), checkpoint);
        // A known key that is not the log's does not speak for it.
        assert!(Checkpoint::verify(&stranger.note(&checkpoint.text()), ORIGIN, &keys).is_err());
        let other = Checkpoint::verify(&signer.note(&checkpoint.text()), "deltran/other/audit", &keys);
        assert!(matches!(other, Err(CheckpointError::OtherLog { .. })), "{other:?}");
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let root = STANDARD.encode([0; 32]);
        assert!(Checkpoint::parse(&format!("o\n7\n{root}\nan extension\n")).is_ok());
        for bad in [
            String::new(),
            format!("o\n7\n{root}"),
            format!("\n7\n{root}\n"),
            format!("o\n07\n{root}\n"),
            format!("o\n+7\n{root}\n"),
            format!("o\n18446744073709551616\n{root}\n"),
            "o\n7\nAAAA\n".to_owned(),
            format!("o\n7\n{root}\n\n"),
        ] {
            assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
        }
    }
}
