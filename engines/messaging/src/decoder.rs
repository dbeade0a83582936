//! What several consumers of a process read is decoded once: the last messages that were decoded, by their exact bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use deltran_events::{DecodeError, Envelope, Event, EventSpec};

/// Messages that are remembered: about what the consumers of a busy process are apart from each other.
const REMEMBERED: usize = 8_192;

/// The validated envelope of a message with its row of the catalog, or what is wrong.
pub type Decoded = Result<(Envelope<Event>, &'static EventSpec), DecodeError>;

/// Decodes messages, and remembers the last of them while several consumers read. Cloning shares the memory.
#[derive(Debug, Clone, Default)]
pub struct Decoder(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// Consumers of events at present.
    readers: usize,
    known: HashMap<String, Arc<Known>>,
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Known {
    subject: String,
    payload: Bytes,
    decoded: Arc<Decoded>,
}

/// A consumer of events, as long as it reads.
#[derive(Debug)]
pub(crate) struct Reader(Decoder);

impl Drop for Reader {
    fn drop(&mut self) {
        let mut memory = self.0.memory();
        memory.readers -= 1;
        if memory.readers < 2 {
            // Nobody is left who could ask again.
            *memory = Memory { readers: memory.readers, ..Memory::default() };
        }
    }
}

impl Decoder {
    /// Says that one more consumer reads events.
    pub(crate) fn reader(&self) -> Reader {
        self.memory().readers += 1;
        Reader(self.clone())
    }

    /// Decodes a message, or recalls it. `id` is only where it is looked for: it must be the same subject and bytes.
    pub fn decode(&self, id: Option<&str>, subject: &str, payload: &Bytes) -> Arc<Decoded> {
        if let Some(known) = self.recall(id, subject, payload) {
            return known;
        }
        let decoded = Arc::new(Envelope::decode(subject, payload));
        if let Some(id) = id {
            self.remember(id, subject, payload, &decoded);
        }
        decoded
    }

    /// A message that was decoded, where it is remembered.
    pub(crate) fn recall(&self, id: Option<&str>, subject: &str, payload: &Bytes) -> Option<Arc<Decoded>> {
        // Compared outside the lock, where nobody waits for it.
        let known = self.memory().known.get(id?).cloned()?;
        (known.payload == payload && known.subject == subject).then(|| known.decoded.clone())
    }

    fn remember(&self, id: &str, subject: &str, payload: &Bytes, decoded: &Arc<Decoded>) {
        let mut memory = self.memory();
        if memory.readers < 2 {
            return;
        }
        // A copy, since the buffer that it came in holds others as well.
        let payload = Bytes::copy_from_slice(payload);
        let known = Arc::new(Known { subject: subject.to_owned(), payload, decoded: decoded.clone() });
        if memory.known.insert(id.to_owned(), known).is_none() {
            memory.order.push_back(id.to_owned());
        }
        if memory.order.len() > REMEMBERED
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.known.remove(&oldest);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_on_the_same_subject_are_recalled() {
        let decoder = Decoder::default();
        let _readers = [decoder.reader(), decoder.reader()];
        let (one, other) = (Bytes::from_static(b"{}"), Bytes::from_static(b"{} "));
        let first = decoder.decode(Some("1"), "events.risk.a.b", &one);
        let same = |subject: &str, payload: &Bytes| Arc::ptr_eq(&first, &decoder.decode(Some("1"), subject, payload));
        assert!(same("events.risk.a.b", &one));
        assert!(!same("events.risk.a.b", &other), "what comes under a known id with other bytes is read");
        assert!(!same("events.risk.a.b", &one), "and stands in its place then");
        assert!(!Arc::ptr_eq(&decoder.decode(None, "x", &one), &decoder.decode(None, "x", &one)));
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let decoder = Decoder::default();
        let readers = [decoder.reader(), decoder.reader()];
        let line = Bytes::from_static(b"{}");
        for n in 0..REMEMBERED + 10 {
            decoder.decode(Some(&n.to_string()), "x", &line);
        }
        let memory = decoder.memory();
        assert_eq!((memory.known.len(), memory.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!memory.known.contains_key("0"));
        drop(memory);
        drop(readers);
        assert!(decoder.memory().known.is_empty(), "nobody reads");
    }

    #[test]
    fn for_one_reader_nothing_is_remembered() {
        let decoder = Decoder::default();
        let _reader = decoder.reader();
        decoder.decode(Some("1"), "x", &Bytes::from_static(b"{}"));
        assert!(decoder.memory().known.is_empty());
    }
}
