//! The archive: a folder for each day that is an export of all its leaves, and the full hash tiles of the log beside them,
//! in an object store.

mod day;
mod source;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path as FsPath;
use std::sync::Arc;

use bytes::Bytes;
use deltran_api::audit::v1 as pb;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

pub use self::day::Archiver;
use self::source::StoredDay;
use crate::domain::export::is_export_file;
use crate::domain::merkle::Hash;
use crate::domain::retention::tile_of_bytes;
use crate::domain::tile::{Tile, WIDTH};

/// Bytes of a file that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Why something cannot be read from the archive, or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the archive: {0}")]
pub struct ArchiveError(pub String);

impl From<object_store::Error> for ArchiveError {
    fn from(error: object_store::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<ArchiveError> for deltran_runtime::Failure {
    fn from(error: ArchiveError) -> Self {
        tracing::warn!(%error, "the archive does not answer");
        Self::unavailable(error.to_string())
    }
}

/// The archive of a ledger. Cloning shares it.
#[derive(Clone)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    closing: CancellationToken,
}

impl Archive {
    /// The archive in a local folder, which is created where it is not there, for its owner only. Reading stops where
    /// the process closes.
    ///
    /// # Errors
    /// Where the folder cannot be created.
    pub fn in_folder(folder: &FsPath, closing: CancellationToken) -> Result<Self, ArchiveError> {
        let failed = |e: &dyn std::fmt::Display| ArchiveError(format!("{}: {e}", folder.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed(&e))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(&e))?;
        Ok(Self { store: Arc::new(store.with_fsync(true).with_automatic_cleanup(true)), closing })
    }

    /// A day, for reading.
    fn day(&self, place: &str) -> StoredDay {
        StoredDay::new(self.clone(), place.to_owned())
    }

    /// Begins to write a day.
    fn write(&self, place: &str) -> DayWriter {
        DayWriter { archive: self.clone(), place: place.to_owned(), open: BTreeMap::new() }
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
        let bytes = match self.store.get(&path(&name)?).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        tile_of_bytes(&bytes).map(Some).ok_or_else(|| ArchiveError(format!("{name} has {} bytes", bytes.len())))
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

fn path(name: &str) -> Result<Path, ArchiveError> {
    Path::parse(name).map_err(|e| ArchiveError(e.to_string()))
}

/// A day that is being written. What is not finished is not there, or is written over by the next try.
struct DayWriter {
    archive: Archive,
    place: String,
    open: BTreeMap<String, Writing>,
}

struct Writing {
    writer: BufWriter,
    size: u64,
}

impl DayWriter {
    /// Takes a piece of a file; the pieces of each come in order.
    async fn piece(&mut self, piece: pb::ExportPiece) -> Result<(), ArchiveError> {
        let pb::ExportPiece { file, offset, data, .. } = piece;
        if !is_export_file(&file) {
            return Err(ArchiveError(format!("{file:?} is no file of an export")));
        }
        // Of files that are one per leaf the next one begins when the one before has ended.
        if file.contains('/') {
            self.finish(|open| open.contains('/') && *open != file).await?;
        }
        let writing = match self.open.get_mut(&file) {
            Some(writing) => writing,
            None => {
                let path = path(&format!("{}/{file}", self.place))?;
                let writer = BufWriter::with_capacity(self.archive.store.clone(), path, BUFFER);
                self.open.entry(file.clone()).or_insert(Writing { writer, size: 0 })
            }
        };
        if writing.size != offset {
            return Err(ArchiveError(format!("{file} goes on at {offset}, {} bytes were written", writing.size)));
        }
        writing.size += data.len() as u64;
        Ok(writing.writer.put(Bytes::from(data)).await?)
    }

    /// Moves files to their places.
    async fn finish(&mut self, which: impl Fn(&String) -> bool) -> Result<(), ArchiveError> {
        let names: Vec<String> = self.open.keys().filter(|name| which(name)).cloned().collect();
        for name in names {
            if let Some(mut writing) = self.open.remove(&name) {
                let failed = |e: std::io::Error| ArchiveError(format!("{}/{name}: {e}", self.place));
                writing.writer.shutdown().await.map_err(failed)?;
            }
        }
        Ok(())
    }
}
