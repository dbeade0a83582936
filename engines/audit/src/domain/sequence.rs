//! What becomes a leaf: each event once, and whatever contradicts an earlier leaf besides.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use deltran_messaging::Delivery;
use deltran_messaging::ranges::Ranges;
use uuid::Uuid;

use super::leaf::{Leaf, LeafHash};

/// The stream in which all events meet.
pub const AUDIT: &str = "AUDIT";

/// A message on its way into the ledger.
#[derive(Debug, Clone)]
pub struct Arrival<'a> {
    /// The leaf that it would be.
    pub leaf: Arc<Leaf>,
    /// Producer and number under which it counts.
    pub producer: Option<&'a (String, u64)>,
    /// Whether its producer's number was received before.
    pub duplicate: bool,
    /// Stream and sequence of origin.
    pub origin: (&'a str, u64),
    /// Stream and sequence that it was read from.
    pub read: (&'a str, u64),
}

/// The leaf that a message would be.
pub fn leaf_of(delivery: &Delivery) -> Leaf {
    Leaf::of(&delivery.subject, &delivery.payload, &delivery.envelope, delivery.producer.as_ref())
}

impl<'a> From<&'a Delivery> for Arrival<'a> {
    /// With the leaf that was made when it was read, where there is one.
    fn from(delivery: &'a Delivery) -> Self {
        let prepared = delivery.prepared.clone().and_then(|prepared| prepared.downcast::<Leaf>().ok());
        Self {
            leaf: prepared.unwrap_or_else(|| Arc::new(leaf_of(delivery))),
            producer: delivery.producer.as_ref(),
            duplicate: delivery.duplicate,
            origin: (&delivery.origin.0, delivery.origin.1),
            read: (&delivery.stream, delivery.stream_sequence),
        }
    }
}

impl Arrival<'_> {
    /// Where it was stored first. What was published to the meeting stream itself has its origin there,
    /// whatever its headers say; and only the platform's streams count as origins.
    pub fn origin(&self) -> (&str, u64) {
        let own = self.leaf.subject.starts_with("events.audit.");
        let known = deltran_events::Domain::of_stream(self.origin.0).is_some();
        let countable = (1..=i64::MAX as u64).contains(&self.origin.1);
        if !own && known && countable { self.origin } else { self.read }
    }

    /// The key under which an event without producer number is known: id (nil where it has none), leaf
    /// hash, and whether it is wrapped.
    pub fn unnumbered_key(&self) -> Option<UnnumberedKey> {
        if self.producer.is_some() {
            return None;
        }
        let wrapped = self.leaf.raw.is_some();
        let id = self.leaf.columns.event_id.filter(|_| !wrapped);
        Some((id.unwrap_or_default(), self.leaf.hash, wrapped))
    }
}

/// Event id (nil where there is none), leaf hash, wrapped.
pub type UnnumberedKey = (Uuid, LeafHash, bool);

/// What the ledger holds already, as far as a batch may meet it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Hashes of the leaves under a producer's number, for arrivals whose number was received before.
    pub numbered: BTreeMap<(String, u64), Vec<LeafHash>>,
    /// Keys of events without number that stand already.
    pub unnumbered: BTreeSet<UnnumberedKey>,
    /// Ids of leaves, for arrivals without number.
    pub ids: BTreeSet<Uuid>,
}

/// A leaf with what is not in its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The leaf.
    pub leaf: Arc<Leaf>,
    /// Stream and sequence of origin.
    pub origin: (String, u64),
    /// The key it is known by, where it has no producer number.
    pub key: Option<UnnumberedKey>,
    /// Whether it contradicts an earlier leaf.
    pub conflict: bool,
}

/// The leaves of a batch, in order.
///
/// - A number that was not received before is a new leaf.
/// - One that was, is a repetition where a leaf under that number has the same bytes; with other bytes it
///   is a leaf marked as a conflict. Where that leaf is no longer online, the number alone decides.
/// - An event without number is known by id and bytes. With the id of an earlier leaf and other bytes
///   it is a leaf marked as a conflict. A numbered event is never judged by its id, so that nobody can
///   spoil an engine's event by publishing its id first.
pub fn sequence<'a>(arrivals: &'a [Arrival<'a>], known: &'a Known) -> impl Iterator<Item = Placed> + Send + 'a {
    let mut here = Here {
        repeated: arrivals.iter().any(|a| a.duplicate && a.producer.is_some()),
        unnumbered: arrivals.iter().any(|a| a.producer.is_none()),
        ..Here::default()
    };
    arrivals.iter().filter_map(move |arrival| here.place(arrival, known))
}

/// What stands in the batch already, as far as a later arrival may repeat it.
#[derive(Default)]
struct Here<'a> {
    repeated: bool,
    unnumbered: bool,
    numbered: HashMap<(&'a str, u64), Vec<LeafHash>>,
    keys: HashSet<UnnumberedKey>,
    ids: HashSet<Uuid>,
}

impl<'a> Here<'a> {
    /// The leaf of an arrival; none where it repeats what stands already.
    fn place(&mut self, arrival: &Arrival<'a>, known: &Known) -> Option<Placed> {
        let leaf = arrival.leaf.clone();
        let key = arrival.unnumbered_key();
        let conflict = match (arrival.producer, &key) {
            (Some((producer, seq)), _) if arrival.duplicate => {
                let here = self.numbered.get(&(producer.as_str(), *seq));
                let earlier = known.numbered.get(&(producer.clone(), *seq));
                let mut hashes = here.into_iter().chain(earlier).flatten().peekable();
                if hashes.peek().is_none() || hashes.any(|hash| *hash == leaf.hash) {
                    return None;
                }
                Some(format!("{producer} {seq} stands in the ledger with other bytes"))
            }
            (None, Some(key)) => {
                if known.unnumbered.contains(key) || !self.keys.insert(*key) {
                    return None;
                }
                let taken = |id: &Uuid| known.ids.contains(id) || self.ids.contains(id);
                let id = leaf.columns.event_id.filter(taken);
                id.map(|id| format!("event {id} stands in the ledger with other bytes"))
            }
            _ => None,
        };
        if self.repeated
            && let Some((producer, seq)) = arrival.producer
        {
            self.numbered.entry((producer.as_str(), *seq)).or_default().push(leaf.hash);
        }
        if self.unnumbered
            && let Some(id) = leaf.columns.event_id
        {
            self.ids.insert(id);
        }
        let (stream, sequence) = arrival.origin();
        let conflicts = conflict.is_some();
        let leaf = match conflict {
            Some(with) => Arc::new(Arc::unwrap_or_clone(leaf).conflicting(&with)),
            None => leaf,
        };
        Some(Placed { leaf, origin: (stream.to_owned(), sequence), key, conflict: conflicts })
    }
}

/// Adds the positions of arrivals to what was received of each stream: of the meeting stream by its own
/// sequence, of the others by the sequence of origin.
pub fn note_positions(arrivals: &[Arrival<'_>], received: &mut BTreeMap<String, Ranges>) {
    for arrival in arrivals {
        for (stream, sequence) in [arrival.read, arrival.origin()] {
            if (1..=i64::MAX as u64).contains(&sequence) {
                match received.get_mut(stream) {
                    Some(ranges) => drop(ranges.insert(sequence)),
                    None => drop(received.entry(stream.to_owned()).or_default().insert(sequence)),
                }
            }
        }
    }
}

/// The streams whose positions a batch touches.
pub fn streams_of(arrivals: &[Arrival<'_>]) -> BTreeSet<String> {
    let mut streams: BTreeSet<&str> = BTreeSet::new();
    for arrival in arrivals {
        streams.extend([arrival.read.0, arrival.origin().0]);
    }
    streams.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::leaf::leaf_hash;
    use super::super::leaf::tests::{SUBJECT, line};
    use super::super::wrapper::wrap;
    use super::*;
    use bytes::Bytes;
    use deltran_events::Envelope;
    use deltran_messaging::producer_of;

    struct Message {
        leaf: Arc<Leaf>,
        producer: Option<(String, u64)>,
        duplicate: bool,
    }

    fn message(subject: &'static str, payload: impl Into<Bytes>, duplicate: bool) -> Message {
        let payload = payload.into();
        let decoded = Envelope::decode(subject, &payload);
        let producer = producer_of(subject, &payload, decoded.as_ref().ok().map(|(e, _)| e));
        Message { leaf: Arc::new(Leaf::of(subject, &payload, &decoded, producer.as_ref())), producer, duplicate }
    }

    fn arrivals(messages: &[Message]) -> Vec<Arrival<'_>> {
        (1..)
            .zip(messages)
            .map(|(n, m)| Arrival {
                leaf: m.leaf.clone(),
                producer: m.producer.as_ref(),
                duplicate: m.duplicate,
                origin: ("REPORTING", n * 10),
                read: (AUDIT, n),
            })
            .collect()
    }

    /// Valid, conflict, per leaf.
    fn outcome(messages: &[Message], known: &Known) -> Vec<(bool, bool)> {
        sequence(&arrivals(messages), known).map(|p| (p.leaf.is_valid(), p.conflict)).collect()
    }

    const VALID: (bool, bool) = (true, false);
    const INVALID: (bool, bool) = (false, false);
    const CONFLICT: (bool, bool) = (false, true);

    #[test]
    fn a_number_is_one_leaf() {
        let (a, b) = (line(1, "a"), line(1, "b"));
        let new = |bytes: &Vec<u8>| message(SUBJECT, bytes.clone(), false);
        let again = |bytes: &Vec<u8>| message(SUBJECT, bytes.clone(), true);
        let none = Known::default();
        assert_eq!(outcome(&[new(&a)], &none), [VALID]);
        assert_eq!(outcome(&[new(&a), again(&a)], &none), [VALID], "repeated within the batch");
        assert_eq!(outcome(&[new(&a), again(&b), again(&b), again(&a)], &none), [VALID, CONFLICT]);
        assert_eq!(outcome(&[again(&a)], &none), [], "its leaf is no longer online");
        let numbered = BTreeMap::from([(("audit-engine/1".to_owned(), 1), vec![leaf_hash(&a)])]);
        let known = Known { numbered, ..Known::default() };
        assert_eq!(outcome(&[again(&a)], &known), []);
        assert_eq!(outcome(&[again(&b), again(&b)], &known), [CONFLICT]);
    }

    #[test]
    fn without_number_id_and_bytes_decide() {
        let outside = |id: u8, more: &str| {
            let line = format!(r#"{{"event_id":"0190c3d5-0000-7000-8000-00000000000{id}","event_type":"{more}"}}"#);
            message("events.reporting.a.b", line, false)
        };
        let junk = |bytes: &'static [u8]| message("events.reporting.a.b", bytes, false);
        let none = Known::default();
        assert_eq!(outcome(&[outside(1, "a"), outside(1, "a"), outside(2, "a")], &none), [INVALID, INVALID]);
        assert_eq!(outcome(&[outside(1, "a"), outside(1, "b"), outside(1, "b")], &none), [INVALID, CONFLICT]);
        assert_eq!(outcome(&[junk(b"x"), junk(b"x"), junk(b"y"), junk(b"a\nb"), junk(b"a\nb")], &none), [INVALID; 3]);
        let id = "0190c3d5-0000-7000-8000-000000000001".parse().unwrap();
        let known = Known { ids: BTreeSet::from([id]), ..Known::default() };
        assert_eq!(outcome(&[outside(1, "a")], &known), [CONFLICT]);
        let key = arrivals(&[outside(1, "a")])[0].unnumbered_key().unwrap();
        let known = Known { ids: BTreeSet::from([id]), unnumbered: BTreeSet::from([key]), ..Known::default() };
        assert_eq!(outcome(&[outside(1, "a")], &known), []);
    }

    #[test]
    fn a_forged_wrapper_does_not_stand_for_the_message() {
        let raw = b"a\nb";
        let forged = wrap("events.reporting.a.b", raw);
        let messages =
            [message("events.reporting.a.b", forged, false), message("events.reporting.a.b", &raw[..], false)];
        let placed: Vec<Placed> = sequence(&arrivals(&messages), &Known::default()).collect();
        assert_eq!(placed.len(), 2);
        assert_eq!(placed[0].leaf.hash, placed[1].leaf.hash);
        assert!(placed[0].leaf.raw.is_none() && placed[1].leaf.raw.is_some());
    }

    #[test]
    fn an_outsider_cannot_spoil_an_engines_event_by_its_id() {
        let engine = line(1, "a");
        let id = serde_json::from_slice::<serde_json::Value>(&engine).unwrap()["event_id"].as_str().unwrap().to_owned();
        let first = message("events.reporting.a.b", format!(r#"{{"event_id":"{id}"}}"#), false);
        assert_eq!(outcome(&[first, message(SUBJECT, engine, false)], &Known::default()), [INVALID, VALID]);
    }

    #[test]
    fn positions_are_of_origin_and_of_the_meeting_stream() {
        let messages = [message("events.reporting.a.b", &b"x"[..], false), message(SUBJECT, line(1, "a"), false)];
        let mut received = BTreeMap::new();
        let arrivals = arrivals(&messages);
        note_positions(&arrivals, &mut received);
        assert_eq!(received["REPORTING"].iter().collect::<Vec<_>>(), [(10, 10)]);
        assert_eq!(received[AUDIT].iter().collect::<Vec<_>>(), [(1, 2)], "its own events have no other origin");
        assert_eq!(streams_of(&arrivals), BTreeSet::from([AUDIT.to_owned(), "REPORTING".to_owned()]));
    }
}
