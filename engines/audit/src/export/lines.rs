//! Lines of a file that is read and hashed ahead.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use memchr::memchr;
use sha2::{Digest, Sha256};

/// Bytes read at once.
const BLOCK: usize = 1024 * 1024;
/// Blocks read ahead.
const AHEAD: usize = 4;
/// The longest line: an envelope, or what stands beside one.
const MAX_LINE: usize = 1024 * 1024;

/// Lines of a file, without their line feeds.
pub struct Lines {
    blocks: Option<Receiver<io::Result<Vec<u8>>>>,
    reader: Option<JoinHandle<(u64, String)>>,
    block: Vec<u8>,
    at: usize,
    /// The beginning of a line whose end is in the next block.
    begun: Vec<u8>,
    ended: bool,
    cut: bool,
}

impl Lines {
    /// The lines of a file; a thread reads and hashes it meanwhile.
    pub fn new(mut file: Box<dyn Read + Send>) -> Self {
        let (sender, blocks) = sync_channel(AHEAD);
        let reader = thread::spawn(move || {
            let (mut hash, mut size) = (Sha256::new(), 0);
            loop {
                let mut block = Vec::with_capacity(BLOCK);
                let outcome = (&mut file).take(BLOCK as u64).read_to_end(&mut block);
                let last = !matches!(outcome, Ok(n) if n > 0);
                hash.update(&block);
                size += block.len() as u64;
                let sent = match outcome {
                    Ok(0) => Ok(()),
                    Ok(_) => sender.send(Ok(block)),
                    Err(error) => sender.send(Err(error)),
                };
                if last || sent.is_err() {
                    return (size, hex::encode(hash.finalize()));
                }
            }
        });
        let (blocks, reader) = (Some(blocks), Some(reader));
        Self { blocks, reader, block: Vec::new(), at: 0, begun: Vec::new(), ended: false, cut: false }
    }

    /// The next line; `None` after the last.
    ///
    /// # Errors
    /// What the system says, and a line that is longer than any.
    #[expect(clippy::should_implement_trait, reason = "a line borrows from the block that it stands in")]
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.begun.clear();
        loop {
            let rest = self.block.get(self.at..).unwrap_or_default();
            if let Some(end) = memchr(b'\n', rest) {
                let from = self.at;
                self.at += end + 1;
                if self.begun.is_empty() {
                    return Ok(self.block.get(from..from + end));
                }
                self.begun.extend_from_slice(self.block.get(from..from + end).unwrap_or_default());
                return Ok(Some(&self.begun));
            }
            self.begun.extend_from_slice(rest);
            if self.begun.len() > MAX_LINE {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a line is longer than {MAX_LINE} bytes"),
                ));
            }
            match self.blocks.as_ref().and_then(|blocks| blocks.recv().ok()) {
                Some(block) => (self.block, self.at) = (block?, 0),
                None => {
                    self.cut = self.cut || (!self.ended && !self.begun.is_empty());
                    (self.block, self.at, self.ended) = (Vec::new(), 0, true);
                    return Ok(None);
                }
            }
        }
    }

    /// Whether the last line had no end.
    pub fn cut_short(&self) -> bool {
        self.cut
    }

    /// Size and SHA-256 of the whole file.
    pub fn finish(mut self) -> (u64, String) {
        // The rest is still read, so that it is hashed.
        self.blocks.take().into_iter().flatten().for_each(drop);
        self.reader.take().and_then(|reader| reader.join().ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use deltran_runtime::files::hash_of;

    use super::*;

    fn lines(text: &[u8]) -> (Vec<Vec<u8>>, bool, (u64, String)) {
        let mut lines = Lines::new(Box::new(io::Cursor::new(text.to_vec())));
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push(line.to_vec());
        }
        (all, lines.cut_short(), lines.finish())
    }

    #[test]
    fn lines_come_whole_over_the_ends_of_blocks() {
        let long: Vec<Vec<u8>> = (0..50).map(|n| vec![b'a' + n % 20; (n as usize * 7919) % 60_000]).collect();
        let mut text = long.join(&b'\n');
        text.push(b'\n');
        assert!(text.len() > BLOCK);
        let (read, cut, (size, hash)) = lines(&text);
        assert_eq!((read, cut), (long, false));
        assert_eq!((size, hash), hash_of(&mut &text[..]).unwrap());
        let (read, cut, _) = lines(b"a\n\nb");
        assert_eq!((read, cut), (vec![b"a".to_vec(), vec![]], true), "the last line has no end");
        assert_eq!(lines(b"").0.len(), 0);
        let endless = vec![b'x'; MAX_LINE + BLOCK + 1];
        assert!(Lines::new(Box::new(io::Cursor::new(endless))).next().is_err());
    }
}
