//! Files under construction: hashed as they grow, handed over in pieces.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::domain::export::manifest::FileEntry;
use crate::domain::export::{PROOFS, RAW};

/// A piece is handed over when so many bytes wait.
const PIECE: usize = 256 * 1024;

/// Bytes of a file that begin at `offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub file: String,
    /// Where they belong in it.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// The files of an export. The same range, filter and formats give the same bytes, so that what a receiver has already
/// is only counted and hashed.
#[derive(Debug, Default)]
pub struct Files {
    open: BTreeMap<String, Growing>,
    done: Vec<FileEntry>,
    have: BTreeMap<String, u64>,
    ready: Vec<Piece>,
}

#[derive(Debug, Default)]
struct Growing {
    hash: Sha256,
    size: u64,
    pending: Vec<u8>,
}

impl Files {
    /// No file yet; `have` are the bytes that the receiver has of each.
    pub fn new(have: BTreeMap<String, u64>) -> Self {
        Self { have, ..Self::default() }
    }

    /// Appends to a file that grows.
    pub fn write(&mut self, name: &str, bytes: &[u8]) {
        let growing = match self.open.get_mut(name) {
            Some(growing) => growing,
            None => self.open.entry(name.to_owned()).or_default(),
        };
        growing.hash.update(bytes);
        growing.pending.extend_from_slice(bytes);
        if growing.pending.len() >= PIECE {
            let have = self.have.get(name).copied().unwrap_or(0);
            growing.hand_over(name, have, &mut self.ready);
        }
    }

    /// A file of one piece.
    pub fn put(&mut self, name: &str, bytes: &[u8]) {
        self.write(name, bytes);
        self.close(name);
    }

    /// Ends a file; one that nothing was written to is there and empty.
    pub fn close(&mut self, name: &str) {
        let mut growing = self.open.remove(name).unwrap_or_default();
        let have = self.have.get(name).copied().unwrap_or(0);
        let nothing = growing.size == 0 && growing.pending.is_empty();
        growing.hand_over(name, have, &mut self.ready);
        if nothing && have == 0 {
            self.ready.push(Piece { file: name.to_owned(), offset: 0, data: Vec::new() });
        }
        // Files that prove themselves may be as many as events: they are not listed.
        if !name.starts_with(&format!("{RAW}/")) && !name.starts_with(&format!("{PROOFS}/")) {
            let sha256 = hex::encode(growing.hash.finalize());
            self.done.push(FileEntry { name: name.to_owned(), size: growing.size, sha256 });
        }
    }

    /// The pieces that are ready.
    pub fn take(&mut self) -> Vec<Piece> {
        std::mem::take(&mut self.ready)
    }

    /// The files that were ended, by name.
    pub fn entries(&self) -> Vec<FileEntry> {
        let mut entries = self.done.clone();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }
}

impl Growing {
    fn hand_over(&mut self, name: &str, have: u64, ready: &mut Vec<Piece>) {
        let (offset, data) = (self.size, std::mem::take(&mut self.pending));
        self.size += data.len() as u64;
        let known = have.saturating_sub(offset);
        let new = usize::try_from(known).ok().and_then(|known| data.get(known..)).unwrap_or_default();
        if !new.is_empty() {
            ready.push(Piece { file: name.to_owned(), offset: offset + known, data: new.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_receiver_has_is_not_sent_and_is_hashed() {
        let content: Vec<u8> = (0..PIECE * 3 + 17).map(|n| n as u8).collect();
        let write = |have: u64| {
            let mut files = Files::new([("a".to_owned(), have)].into());
            let mut sent = Vec::new();
            for part in content.chunks(1000) {
                files.write("a", part);
                sent.extend(files.take());
            }
            files.put("raw/7", b"x");
            files.close("a");
            files.close("empty");
            sent.extend(files.take());
            (sent, files.entries())
        };
        let (_, whole) = write(0);
        assert_eq!(whole.len(), 2, "raw files are not listed");
        assert_eq!(whole[0].sha256, hex::encode(Sha256::digest(&content)));
        for have in [0, 1, PIECE as u64 - 1, PIECE as u64 + 500, content.len() as u64, content.len() as u64 + 9] {
            let (sent, entries) = write(have);
            assert_eq!(entries, whole);
            let mut at = have.min(content.len() as u64);
            for piece in sent.iter().filter(|piece| piece.file == "a") {
                assert_eq!(
                    (piece.offset, &content[at as usize..at as usize + piece.data.len()]),
                    (at, &piece.data[..])
                );
                at += piece.data.len() as u64;
            }
            assert_eq!(at, content.len() as u64, "{have}");
            assert!(sent.iter().any(|piece| piece.file == "empty" && piece.data.is_empty()));
        }
    }
}
