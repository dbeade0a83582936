//! The archive: a folder for each day that is an export of all its leaves, and the full hash tiles of the log beside them,
//! in an object store: a local one, or a bucket.

mod crypto;
mod day;
mod http;
mod s3;
mod source;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path as FsPath;
use std::sync::Arc;

use bytes::Bytes;
use deltran_api::audit::v1 as pb;
use deltran_runtime::Failure;
use deltran_runtime::lease::{Epoch, RoundError};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

pub use self::day::Archiver;
pub use self::s3::{Environment, check};
pub use self::source::ArchivedEvents;
use self::source::StoredDay;
use crate::config::Settings;
use crate::domain::export::manifest::{Manifest, verify_signature};
use crate::domain::export::{MANIFEST, SIGNATURE, is_export_file};
use crate::domain::merkle::Hash;
use crate::domain::note::Verifier;
use crate::domain::retention::{Archived, tile_of_bytes};
use crate::domain::tile::{Tile, WIDTH};

/// Bytes of a file that are gathered before they are written to a folder.
const BUFFER: usize = 1 << 20;
/// Parts of a file on their way at once.
const UNDER_WAY: usize = 2;
/// Characters of what a store says about a failure.
const SAID: usize = 600;

/// Why something cannot be read from the archive, or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the archive: {0}")]
pub struct ArchiveError(pub String);

impl From<object_store::Error> for ArchiveError {
    fn from(error: object_store::Error) -> Self {
        Self(one_line(&error.to_string()))
    }
}

/// Stores answer in documents of many lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SAID).collect()
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        tracing::warn!(%error, "the archive does not answer");
        Self::unavailable(error.to_string())
    }
}

impl From<ArchiveError> for RoundError {
    fn from(error: ArchiveError) -> Self {
        Failure::from(error).into()
    }
}

/// The archive of a ledger. Cloning shares it.
#[derive(Clone)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    /// Bytes of a part of a file, and of a file at the most.
    part: usize,
    most: u64,
    closing: CancellationToken,
}

impl Archive {
    /// The archive that the configuration names, if any. Reading stops where the process closes.
    ///
    /// # Errors
    /// In one line, with the key that is not as it should be.
    pub fn open(
        settings: &Settings,
        environment: Environment<'_>,
        closing: CancellationToken,
    ) -> Result<Option<Self>, ArchiveError> {
        if !settings.archive_directory.is_empty() {
            return Self::in_folder(settings.archive_directory.as_ref(), closing).map(Some);
        }
        if settings.archive_url.is_empty() {
            return Ok(None);
        }
        let part = u64::from(settings.archive_part_mib) << 20;
        let store = s3::open(settings, environment).map_err(ArchiveError)?;
        let most = part * s3::PARTS;
        Ok(Some(Self { store, part: usize::try_from(part).unwrap_or(usize::MAX), most, closing }))
    }

    /// The archive in a local folder, which is created where it is not there, for its owner only. Reading stops where
    /// the process closes.
    ///
    /// # Errors
    /// Where the folder cannot be created.
    pub fn in_folder(folder: &FsPath, closing: CancellationToken) -> Result<Self, ArchiveError> {
        let failed =
            |e: &dyn std::fmt::Display| ArchiveError(format!("audit.archive_directory = {:?}: {e}", folder.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed(&e))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(&e))?;
        let store = Arc::new(store.with_fsync(true).with_automatic_cleanup(true));
        Ok(Self { store, part: BUFFER, most: u64::MAX, closing })
    }

    /// A day, for reading.
    fn day(&self, place: &str) -> StoredDay {
        StoredDay::new(self.clone(), place.to_owned())
    }

    /// Begins to write a day, as who leads.
    fn write(&self, place: &str, epoch: &Epoch) -> DayWriter {
        DayWriter { archive: self.clone(), epoch: epoch.clone(), place: place.to_owned(), open: BTreeMap::new() }
    }

    /// Writes a full tile under its path of the log (C2SP tlog-tiles).
    async fn put_tile(&self, tile: Tile, hashes: &[Hash]) -> Result<(), ArchiveError> {
        let path = path(&tile.path(WIDTH).to_string())?;
        self.store.put(&path, hashes.concat().into()).await?;
        Ok(())
    }

    /// A full tile. `None` where it is not there.
    ///
    /// # Errors
    /// Where the archive does not answer, or has something else under its path.
    pub async fn tile(&self, tile: Tile) -> Result<Option<Vec<Hash>>, ArchiveError> {
        let name = tile.path(WIDTH).to_string();
        let Some(bytes) = self.bytes(&name).await? else { return Ok(None) };
        tile_of_bytes(&bytes).map(Some).ok_or_else(|| ArchiveError(format!("{name} has {} bytes", bytes.len())))
    }

    /// A whole file. `None` where it is not there.
    async fn bytes(&self, name: &str) -> Result<Option<Bytes>, ArchiveError> {
        match self.store.get(&path(name)?).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The manifest of a day, or what is wrong with it: it must be the one that was recorded, signed by one of the keys of the
    /// ledger, and that of exactly the day's leaves.
    ///
    /// # Errors
    /// Where the archive does not answer.
    pub async fn manifest(
        &self,
        day: &Archived,
        origin: &str,
        keys: &[Verifier],
    ) -> Result<Result<Manifest, String>, ArchiveError> {
        let manifest = self.bytes(&format!("{}/{MANIFEST}", day.place)).await?;
        let signature = self.bytes(&format!("{}/{SIGNATURE}", day.place)).await?;
        let (Some(manifest), Some(signature)) = (manifest, signature) else {
            return Ok(Err(format!("{}: {MANIFEST} or its signature is missing", day.place)));
        };
        Ok(checked(day, &manifest, &signature, origin, keys).map_err(|why| format!("{}: {why}", day.place)))
    }

    /// The events of a day, for reading from the first on. Whoever asks is within the runtime.
    pub fn events(&self, place: &str) -> ArchivedEvents {
        ArchivedEvents::new(self.day(place))
    }

    /// The bytes of a leaf by its place in its day. `None` where the day does not have so many.
    ///
    /// # Errors
    /// Where the archive does not answer.
    pub async fn envelope(&self, place: &str, at: u64) -> Result<Option<Vec<u8>>, ArchiveError> {
        let day = self.day(place);
        let read = tokio::task::spawn_blocking(move || day.line(at)).await;
        read.map_err(|e| ArchiveError(e.to_string()))?.map_err(|e| ArchiveError(format!("{place}: {e}")))
    }
}

fn checked(
    day: &Archived,
    manifest: &[u8],
    signature: &[u8],
    origin: &str,
    keys: &[Verifier],
) -> Result<Manifest, String> {
    let digest: [u8; 32] = Sha256::digest(manifest).into();
    if digest != day.manifest_sha256 {
        return Err(format!("{MANIFEST} is not the one that was archived"));
    }
    let signature = std::str::from_utf8(signature).map_err(|e| format!("{SIGNATURE}: {e}"))?;
    verify_signature(signature, origin, manifest, keys).map_err(|why| format!("{SIGNATURE}: {why}"))?;
    let manifest = Manifest::read(manifest).map_err(|why| format!("{MANIFEST}: {why}"))?;
    let range = &manifest.range;
    if (range.from_leaf, range.to_leaf) != (day.from, day.to) || manifest.filter.is_some() {
        return Err(format!(
            "it has leaves {} up to {}, not {} up to {}",
            range.from_leaf, range.to_leaf, day.from, day.to
        ));
    }
    Ok(manifest)
}

fn path(name: &str) -> Result<Path, ArchiveError> {
    Path::parse(name).map_err(|e| ArchiveError(e.to_string()))
}

/// A day that is being written. What is not finished is not there, or is written over by the next try. Whoever gives one
/// up says so with [`DayWriter::abort`]: a bucket keeps parts of files, which count for nothing but what they cost.
struct DayWriter {
    archive: Archive,
    epoch: Epoch,
    place: String,
    open: BTreeMap<String, Writing>,
}

struct Writing {
    writer: BufWriter,
    size: u64,
}

impl DayWriter {
    /// Takes a piece of a file; the pieces of each come in order.
    async fn piece(&mut self, piece: pb::ExportPiece) -> Result<(), RoundError> {
        let pb::ExportPiece { file, offset, data, .. } = piece;
        if !is_export_file(&file) {
            return Err(ArchiveError(format!("{file:?} is no file of an export")).into());
        }
        // Of files that are one per leaf the next one begins when the one before has ended.
        if file.contains('/') {
            self.finish(|open| open.contains('/') && *open != file).await?;
        }
        let writing = match self.open.get_mut(&file) {
            Some(writing) => writing,
            None => {
                let path = path(&format!("{}/{file}", self.place))?;
                let writer = BufWriter::with_capacity(self.archive.store.clone(), path, self.archive.part);
                let writer = writer.with_max_concurrency(UNDER_WAY);
                self.open.entry(file.clone()).or_insert(Writing { writer, size: 0 })
            }
        };
        if writing.size != offset {
            return Err(ArchiveError(format!("{file} goes on at {offset}, {} bytes were written", writing.size)).into());
        }
        writing.size += data.len() as u64;
        if writing.size > self.archive.most {
            let most = self.archive.most;
            let (place, parts) = (&self.place, s3::PARTS);
            return Err(ArchiveError(format!(
                "{place}/{file} is larger than {most} bytes, {parts} parts: audit.archive_part_mib is too small"
            ))
            .into());
        }
        Ok(writing.writer.put(Bytes::from(data)).await.map_err(ArchiveError::from)?)
    }

    /// Moves files to their places, while nobody else may do so.
    async fn finish(&mut self, which: impl Fn(&String) -> bool) -> Result<(), RoundError> {
        let names: Vec<String> = self.open.keys().filter(|name| which(name)).cloned().collect();
        for name in names {
            self.epoch.current()?;
            if let Some(mut writing) = self.open.remove(&name) {
                let failed =
                    |e: std::io::Error| ArchiveError(format!("{}/{name}: {}", self.place, one_line(&e.to_string())));
                writing.writer.shutdown().await.map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Takes back what is on its way.
    async fn abort(&mut self) {
        for (name, mut writing) in std::mem::take(&mut self.open) {
            if let Err(error) = writing.writer.abort().await {
                let error = ArchiveError::from(error);
                tracing::warn!(file = format!("{}/{name}", self.place), %error, "parts that count for nothing stay behind");
            }
        }
    }
}
