//! Signs checkpoints: only of a tree that continues every tree that was signed before, whatever became of the database
//! meanwhile.
//!
//! The last checkpoint is kept beside each key as well, outside the database. A database that was restored to an earlier
//! moment, or whose tree was rebuilt, is signed no more until somebody decides what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use deltran_kernel::Timestamp;
use deltran_runtime::boot::BootError;
use deltran_runtime::files::write_whole;
use deltran_runtime::metrics::Metrics;
use deltran_runtime::{Db, DbError, Failure, FailureKind};

use crate::config::Settings;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::merkle::{Hash, consistency_plan, is_consistent};
use crate::domain::note::{Signer, Verifier};
use crate::store::{Checkpoints, Cuts, Kept, Tree};

/// Raised while the tree does not continue what was signed.
const FORK: &str = "audit_fork";

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub enum NotaryError {
    /// There is no key.
    #[error(
        "no key signs checkpoints here: make one with `deltran audit key new`, and name its file in audit.key_files"
    )]
    NoKey,
    /// The ledger has not so many leaves.
    #[error("the ledger has {have} leaves, not {asked}")]
    TooLarge {
        /// Leaves that were asked for.
        asked: u64,
        /// Leaves that there are.
        have: u64,
    },
    /// The hashes of that size are not online.
    #[error("the hashes of size {0} are not in the database: they left it with the leaves that are archived")]
    NotOnline(u64),
    /// The tree does not continue a checkpoint.
    #[error("the tree does not continue the checkpoint of size {signed}, which was signed: {why}")]
    Fork {
        /// Its size.
        signed: u64,
        /// What differs.
        why: String,
    },
    /// The file beside the key.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<NotaryError> for Failure {
    fn from(error: NotaryError) -> Self {
        match error {
            NotaryError::Db(error) => error.into(),
            NotaryError::NoKey => Self::new(FailureKind::WrongState, "no_key", error.to_string()),
            NotaryError::TooLarge { have, .. } => {
                Self::new(FailureKind::Malformed, "malformed", error.to_string()).with("size", have)
            }
            NotaryError::NotOnline(size) => {
                Self::new(FailureKind::WrongState, "not_online", error.to_string()).with("size", size)
            }
            NotaryError::Fork { signed, .. } => {
                Self::new(FailureKind::WrongState, "fork", error.to_string()).with("signed", signed)
            }
            NotaryError::File { .. } => Self::internal(error),
        }
    }
}

/// Holds the keys and signs.
pub struct Notary {
    origin: String,
    signers: Vec<Signer>,
    verifiers: Vec<Verifier>,
    tree: Tree,
    checkpoints: Checkpoints,
    cuts: Cuts,
    metrics: Metrics,
    /// The files of the last checkpoint, one beside each key.
    anchors: Vec<PathBuf>,
    last: Mutex<Option<Checkpoint>>,
}

impl Notary {
    /// Reads the keys, and the last checkpoint beside them.
    ///
    /// # Errors
    /// Where a file cannot be read, a key is none, or is that of another deployment.
    pub fn new(settings: &Settings, deployment: &str, db: Db, metrics: Metrics) -> Result<Self, BootError> {
        let origin = Checkpoint::origin_of(deployment);
        let wrong = |what: &str, cause: &dyn std::fmt::Display| BootError::Other(format!("{what}: {cause}"));
        let mut signers = Vec::new();
        for file in &settings.key_files {
            let what = format!("audit.key_files, {file}");
            let text = fs::read_to_string(file).map_err(|e| wrong(&what, &e))?;
            signers.push(Signer::parse(&text).map_err(|e| wrong(&what, &e))?);
        }
        let mut verifiers: Vec<Verifier> = signers.iter().map(|signer| signer.verifier().clone()).collect();
        for key in &settings.earlier_keys {
            verifiers.push(Verifier::parse(key).map_err(|e| wrong(&format!("audit.earlier_keys, {key}"), &e))?);
        }
        if let Some(other) = verifiers.iter().find(|verifier| verifier.name() != origin) {
            let name = other.name();
            return Err(wrong("audit.key_files", &format!("a key is named {name:?}, this ledger is {origin:?}")));
        }
        let anchors: Vec<PathBuf> = settings.key_files.iter().map(|file| anchor_of(Path::new(file))).collect();
        let mut last: Option<Checkpoint> = None;
        for file in anchors.iter().filter(|file| file.exists()) {
            let what = file.display().to_string();
            let text = fs::read_to_string(file).map_err(|e| wrong(&what, &e))?;
            let there = Checkpoint::verify(&text, &origin, &verifiers).map_err(|e| wrong(&what, &e))?;
            last = last.filter(|last| last.size >= there.size).or(Some(there));
        }
        let (tree, checkpoints, cuts) = (Tree::new(db.clone()), Checkpoints::new(db.clone()), Cuts::new(db));
        Ok(Self { origin, signers, verifiers, tree, checkpoints, cuts, metrics, anchors, last: Mutex::new(last) })
    }

    /// The log's origin line.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The keys that sign now, the current one first, and those that did earlier.
    pub fn verifiers(&self) -> &[Verifier] {
        &self.verifiers
    }

    /// Whether there is a key.
    pub fn can_sign(&self) -> bool {
        !self.signers.is_empty()
    }

    /// Signs any text with all keys: a manifest.
    ///
    /// # Errors
    /// Where there is no key.
    pub fn note(&self, text: &str) -> Result<String, NotaryError> {
        if !self.can_sign() {
            return Err(NotaryError::NoKey);
        }
        let signatures: String = self.signers.iter().map(|signer| signer.sign(text, 0)).collect();
        Ok(format!("{text}\n{signatures}"))
    }

    /// Signs the tree as it is now, where it has grown since the last checkpoint; `None` where it has not.
    ///
    /// # Errors
    /// Where it does not continue what was signed.
    pub async fn sign_growth(&self, now: Timestamp) -> Result<Option<Kept>, NotaryError> {
        let size = self.tree.frontier().await?.size();
        let last = self.checkpoints.latest().await?;
        if last.is_some_and(|last| last.size >= size) && self.known().is_some_and(|known| known.size >= size) {
            return Ok(None);
        }
        if size == 0 {
            return Ok(None);
        }
        self.sign(size, now).await.map(Some)
    }

    /// The checkpoint of a size: the one that is kept, or one that is signed now and kept.
    ///
    /// # Errors
    /// Where there is no key, the ledger is smaller, or it does not continue what was signed.
    pub async fn sign(&self, size: u64, now: Timestamp) -> Result<Kept, NotaryError> {
        let signed = self.sign_checked(size, now).await;
        match &signed {
            Ok(_) => self.metrics.alert(FORK, false),
            Err(error @ NotaryError::Fork { .. }) => {
                tracing::error!(%error, "nothing is signed");
                self.metrics.alert(FORK, true);
            }
            Err(_) => {}
        }
        signed
    }

    async fn sign_checked(&self, size: u64, now: Timestamp) -> Result<Kept, NotaryError> {
        if !self.can_sign() {
            return Err(NotaryError::NoKey);
        }
        let tree = self.tree.frontier().await?;
        if let Some(known) = self.known().filter(|known| known.size > tree.size()) {
            let why = format!("the ledger has {} leaves only", tree.size());
            return Err(NotaryError::Fork { signed: known.size, why });
        }
        if size > tree.size() {
            return Err(NotaryError::TooLarge { asked: size, have: tree.size() });
        }
        if size < self.cuts.leaf().await? {
            // Its hashes are gone: it is the one that was signed while they were there, or there is none.
            let kept = self.checkpoints.at(size).await?.ok_or(NotaryError::NotOnline(size))?;
            return self.read(&kept).map(|_| kept);
        }
        let at = if size == tree.size() { Some(tree) } else { self.tree.frontier_at(size).await? };
        let root = at.ok_or(NotaryError::NotOnline(size))?.root();
        let kept = self.checkpoints.at(size).await?;
        let stored = self.checkpoints.latest().await?;
        let signed = [self.known(), stored.map(|k| self.read(&k)).transpose()?].into_iter().flatten();
        for earlier in signed.chain(kept.as_ref().map(|k| self.read(k)).transpose()?) {
            self.continues(&earlier, size, &root).await?;
        }
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root };
        if let Some(kept) = kept {
            self.remember(checkpoint, &kept.note)?;
            return Ok(kept);
        }
        let note = self.note(&checkpoint.text())?;
        let new = Kept { size, root, note, signed_at: now, published: false };
        // It stands beside the key before anybody can have it.
        self.remember(checkpoint, &new.note)?;
        if self.checkpoints.keep(&new).await? {
            return Ok(new);
        }
        // Another process was first.
        self.checkpoints.at(size).await?.ok_or(NotaryError::NotOnline(size))
    }

    /// A kept checkpoint, its signature checked.
    ///
    /// # Errors
    /// [`NotaryError::Fork`] where it is not this log's, or its columns contradict it.
    pub fn read(&self, kept: &Kept) -> Result<Checkpoint, NotaryError> {
        let fork = |why: String| NotaryError::Fork { signed: kept.size, why };
        let checkpoint =
            Checkpoint::verify(&kept.note, &self.origin, &self.verifiers).map_err(|e| fork(e.to_string()))?;
        if (checkpoint.size, checkpoint.root) != (kept.size, kept.root) {
            return Err(fork("its columns are not what its note says".to_owned()));
        }
        Ok(checkpoint)
    }

    /// Checks that a tree and an earlier or later checkpoint are of one history.
    ///
    /// # Errors
    /// [`NotaryError::Fork`] where they are not, or the hashes that would show it are not there;
    /// [`NotaryError::NotOnline`] where those are archived.
    pub async fn continues(&self, signed: &Checkpoint, size: u64, root: &Hash) -> Result<(), NotaryError> {
        let (old, new) = (signed.size.min(size), signed.size.max(size));
        let plan = consistency_plan(old, new).unwrap_or_default();
        let Some(proof) = self.tree.fill(&plan).await? else {
            if old < self.cuts.leaf().await? {
                return Err(NotaryError::NotOnline(old));
            }
            let why = format!("hashes between sizes {old} and {new} are missing");
            return Err(NotaryError::Fork { signed: signed.size, why });
        };
        one_history(signed, size, root, &proof)
    }

    /// The largest checkpoint that this process knows outside the database.
    pub fn known(&self) -> Option<Checkpoint> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes the largest checkpoint beside each key, whole or not at all.
    fn remember(&self, checkpoint: Checkpoint, note: &str) -> Result<(), NotaryError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|last| last.size >= checkpoint.size) {
            return Ok(());
        }
        for file in &self.anchors {
            // Another process may have signed more, and keeps it in the same place.
            let there = fs::read_to_string(file).ok();
            let there = there.and_then(|text| Checkpoint::verify(&text, &self.origin, &self.verifiers).ok());
            if there.is_some_and(|there| there.size >= checkpoint.size) {
                continue;
            }
            write_whole(file, note.as_bytes(), 0o644)
                .map_err(|e| NotaryError::File { path: file.display().to_string(), cause: e.to_string() })?;
        }
        *last = Some(checkpoint);
        Ok(())
    }
}

/// The file of the last checkpoint that a key signed.
pub fn anchor_of(key_file: &Path) -> PathBuf {
    let mut name = key_file.file_name().unwrap_or_default().to_owned();
    name.push(".checkpoint");
    key_file.with_file_name(name)
}

/// Checks that a consistency proof shows that a signed checkpoint, and the tree of a size and a root, are of one history.
///
/// # Errors
/// [`NotaryError::Fork`] where it does not.
pub fn one_history(signed: &Checkpoint, size: u64, root: &Hash, proof: &[Hash]) -> Result<(), NotaryError> {
    let ((old, old_root), (new, new_root)) = if signed.size <= size {
        ((signed.size, &signed.root), (size, root))
    } else {
        ((size, root), (signed.size, &signed.root))
    };
    if is_consistent(old, old_root, new, new_root, proof) {
        return Ok(());
    }
    let why = format!("its root is not that of the first {old} leaves");
    Err(NotaryError::Fork { signed: signed.size, why })
}
