//! A day in the archive as files that the verification of exports reads.

use std::io::{self, Read};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Archive, ArchiveError, one_line, path};
use crate::domain::export::EVENTS;
use crate::export::check::Source;
use crate::export::lines::Lines;

/// A day. It is read on threads that may block; whoever makes one is within the runtime.
pub struct StoredDay {
    archive: Archive,
    place: String,
    runtime: Handle,
}

impl StoredDay {
    /// The day at a place.
    pub fn new(archive: Archive, place: String) -> Self {
        Self { archive, place, runtime: Handle::current() }
    }

    /// A line of the events. `None` where there are not so many.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn line(&self, at: u64) -> io::Result<Option<Vec<u8>>> {
        let mut lines = Lines::new(self.open(EVENTS)?);
        for _ in 0..at {
            if lines.next()?.is_none() {
                return Ok(None);
            }
        }
        Ok(lines.next()?.map(<[u8]>::to_vec))
    }
}

/// The longest entry of a log (C2SP tlog-tiles).
const MAX_ENTRY: usize = u16::MAX as usize;

/// The events of a day, read once from the first on.
pub struct ArchivedEvents {
    day: StoredDay,
    lines: Option<Lines>,
    /// The line that comes next.
    at: u64,
}

impl ArchivedEvents {
    pub(super) fn new(day: StoredDay) -> Self {
        Self { day, lines: None, at: 0 }
    }

    /// Lines `from` up to but without `to`, of which none was read before; fewer where the day ends.
    ///
    /// # Errors
    /// Where the archive does not answer, or has a line that is longer than any entry.
    pub async fn read(mut self, from: u64, to: u64) -> Result<(Self, Vec<Vec<u8>>), ArchiveError> {
        let read = tokio::task::spawn_blocking(move || {
            let lines = self.next_lines(from, to);
            let lines = lines.map_err(|e| ArchiveError(format!("{}: {e}", self.day.place)));
            lines.map(|lines| (self, lines))
        });
        read.await.map_err(|e| ArchiveError(e.to_string()))?
    }

    fn next_lines(&mut self, from: u64, to: u64) -> io::Result<Vec<Vec<u8>>> {
        let lines = match &mut self.lines {
            Some(lines) => lines,
            None => self.lines.insert(Lines::new(self.day.open(EVENTS)?)),
        };
        let mut found = Vec::new();
        while self.at < to {
            let Some(line) = lines.next()? else { break };
            if line.len() > MAX_ENTRY {
                let message = format!("line {} of {EVENTS} is longer than {MAX_ENTRY} bytes", self.at + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            if self.at >= from {
                found.push(line.to_vec());
            }
            self.at += 1;
        }
        Ok(found)
    }
}

fn failed(error: object_store::Error) -> io::Error {
    match error {
        object_store::Error::NotFound { .. } => io::Error::new(io::ErrorKind::NotFound, one_line(&error.to_string())),
        other => io::Error::other(one_line(&other.to_string())),
    }
}

impl Source for StoredDay {
    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let path = path(&format!("{}/{name}", self.place)).map_err(io::Error::other)?;
        let closing = self.archive.closing.clone();
        let found = waited(&self.runtime, &closing, self.archive.store.get(&path))?.map_err(failed)?;
        Ok(match found.payload {
            GetResultPayload::File(file, _) => Box::new(UntilClosing { inner: file, closing }),
            GetResultPayload::Stream(stream) => {
                let (rest, runtime) = (Bytes::new(), self.runtime.clone());
                let inner = Streamed { stream, rest, runtime, closing: closing.clone() };
                Box::new(UntilClosing { inner, closing })
            }
        })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let prefix = path(&self.place).map_err(io::Error::other)?;
        let listed = self.archive.store.list(Some(&prefix)).try_collect::<Vec<_>>();
        let objects = waited(&self.runtime, &self.archive.closing, listed)?.map_err(failed)?;
        let below = format!("{prefix}/");
        Ok(objects.iter().filter_map(|o| Some(o.location.as_ref().strip_prefix(&below)?.to_owned())).collect())
    }
}

/// What a store answers, unless the process closes first.
fn waited<F: Future>(runtime: &Handle, closing: &CancellationToken, answer: F) -> io::Result<F::Output> {
    runtime.block_on(async {
        tokio::select! {
            () = closing.cancelled() => Err(stops()),
            answer = answer => Ok(answer),
        }
    })
}

fn stops() -> io::Error {
    io::Error::other("the process stops")
}

/// Reads until the process closes, so that a large day does not keep it.
struct UntilClosing<R> {
    inner: R,
    closing: CancellationToken,
}

impl<R: Read> Read for UntilClosing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.closing.is_cancelled() {
            return Err(stops());
        }
        self.inner.read(buffer)
    }
}

/// A stream as something that is read.
struct Streamed {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    rest: Bytes,
    runtime: Handle,
    closing: CancellationToken,
}

impl Read for Streamed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match waited(&self.runtime, &self.closing, self.stream.next())? {
                None => return Ok(0),
                Some(bytes) => self.rest = bytes.map_err(failed)?,
            }
        }
        let some = self.rest.split_to(buffer.len().min(self.rest.len()));
        buffer.get_mut(..some.len()).unwrap_or_default().copy_from_slice(&some);
        Ok(some.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_is_read_whole_and_until_the_process_closes() {
        let parts: Vec<object_store::Result<Bytes>> =
            ["", "abc", "", "defgh", "i"].map(|part| Ok(Bytes::from_static(part.as_bytes()))).into();
        let stream = futures::stream::iter(parts).boxed();
        let closing = CancellationToken::new();
        let (rest, runtime) = (Bytes::new(), Handle::current());
        let inner = Streamed { stream, rest, runtime, closing: closing.clone() };
        let mut reader = UntilClosing { inner, closing: closing.clone() };
        let read = move || {
            let mut two = [0; 2];
            let mut text = Vec::new();
            loop {
                match reader.read(&mut two).unwrap() {
                    0 => break,
                    n => text.extend_from_slice(&two[..n]),
                }
            }
            closing.cancel();
            (text, reader.read(&mut two).unwrap_err().to_string())
        };
        let (text, refused) = tokio::task::spawn_blocking(read).await.unwrap();
        assert_eq!((text.as_slice(), refused.as_str()), (&b"abcdefghi"[..], "the process stops"));
    }
}
