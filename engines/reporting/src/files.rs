//! Files of reports: written under another name and moved when they are whole, read from an offset on.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path as FsPath;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::domain::job::{File, Report};
use crate::domain::manifest::is_file_name;

/// The most bytes that are handed on at once.
pub const CHUNK: usize = 64 << 10;
/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub String);

impl From<object_store::Error> for FileError {
    fn from(error: object_store::Error) -> Self {
        Self(error.to_string())
    }
}

/// The store of all reports. Cloning shares it.
#[derive(Clone)]
pub struct Files {
    store: Arc<dyn ObjectStore>,
}

impl Files {
    /// The store in a local folder, which is created where it is not there, for its owner only.
    ///
    /// # Errors
    /// Where the folder cannot be created.
    pub fn in_folder(folder: &FsPath) -> Result<Self, FileError> {
        let failed = |e: &dyn std::fmt::Display| FileError(format!("{}: {e}", folder.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed(&e))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(&e))?;
        Ok(Self { store: Arc::new(store.with_fsync(true).with_automatic_cleanup(true)) })
    }

    fn path(report: &Report, name: &str) -> Result<Path, FileError> {
        if !is_file_name(name) {
            return Err(FileError(format!("{name:?} is no name of a file")));
        }
        Path::parse(format!("{}/{name}", report.folder())).map_err(|e| FileError(e.to_string()))
    }

    /// Begins a file of a report. It is not there before [`Sink::finish`].
    ///
    /// # Errors
    /// Where the name is none.
    pub fn create(&self, report: &Report, name: &str) -> Result<Sink, FileError> {
        let path = Self::path(report, name)?;
        let writer = BufWriter::with_capacity(self.store.clone(), path, BUFFER);
        Ok(Sink { writer, name: name.to_owned(), digest: Sha256::new(), size: 0 })
    }

    /// A file of a report from an offset on, up to an end, in chunks.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub async fn read(
        &self,
        report: &Report,
        name: &str,
        from: u64,
        to: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, FileError>>, FileError> {
        if from >= to {
            return Ok(futures::stream::empty().boxed());
        }
        let options = GetOptions::default().with_range(Some(GetRange::Bounded(from..to)));
        let found = self.store.get_opts(&Self::path(report, name)?, options).await?;
        let chunks = found.into_stream().map_err(FileError::from).map_ok(|bytes| {
            let chunks: Vec<Result<Bytes, FileError>> =
                (0..bytes.len()).step_by(CHUNK).map(|at| Ok(bytes.slice(at..(at + CHUNK).min(bytes.len())))).collect();
            futures::stream::iter(chunks)
        });
        Ok(chunks.try_flatten().boxed())
    }

    /// Removes the files of a report; one that is gone already is no matter.
    ///
    /// # Errors
    /// Where one cannot be removed.
    pub async fn remove(&self, report: &Report) -> Result<(), FileError> {
        for file in &report.files {
            match self.store.delete(&Self::path(report, &file.name)?).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A file under construction.
pub struct Sink {
    writer: BufWriter,
    name: String,
    digest: Sha256,
    size: u64,
}

impl Sink {
    /// Adds text, and leaves the string empty.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn write(&mut self, text: &mut String) -> Result<(), FileError> {
        let bytes = Bytes::from(std::mem::take(text));
        self.digest.update(&bytes);
        self.size += bytes.len() as u64;
        Ok(self.writer.put(bytes).await?)
    }

    /// Moves the file to its place.
    ///
    /// # Errors
    /// Where it cannot be written or moved.
    pub async fn finish(mut self, entries: u64) -> Result<File, FileError> {
        self.writer.shutdown().await.map_err(|e| FileError(e.to_string()))?;
        Ok(File { name: self.name, size: self.size, sha256: hex::encode(self.digest.finalize()), entries })
    }

    /// Gives the file up.
    pub async fn abort(mut self) {
        if let Err(error) = self.writer.abort().await {
            tracing::debug!(file.name = self.name, %error, "a file that was given up is left under its other name");
        }
    }
}
