//! What every engine has beside its own tables: the outbox with its marks, received ranges, and the relay's way with them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use deltran_events::{Context, Domain, Envelope, Event};
use deltran_kernel::{IdSource, ManualClock, Timestamp};
use deltran_messaging::ranges::Ranges;
use deltran_messaging::{Outbox, Outgoing};

use super::broker::{Broker, Message};
use super::check::{Breach, Checked, breach};
use super::op::{Feed, Log};

/// What the outbox's mark says.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    pub published: u64,
    pub acknowledged: u64,
    pub confirmed: u64,
    pub repeated: bool,
    /// The creation of the stream that this is about; 0 where it met none.
    pub created: u64,
}

/// Tables that every engine has.
pub struct Shell {
    outbox: Outbox,
    pub log: Log,
    pub producer: String,
    /// Rows of the outbox.
    pub rows: BTreeMap<u64, Rc<Message>>,
    /// The last number given out.
    pub assigned: u64,
    pub marks: Marks,
    pub received: BTreeMap<(Feed, String), Ranges>,
    /// Where the harness skips by stream sequence: a fault of its own, see `Faults`.
    pub cursors: BTreeMap<Feed, u64>,
}

impl Shell {
    pub fn new(domain: Domain, log: Log, clock: Arc<ManualClock>, ids: Arc<dyn IdSource>) -> Self {
        let outbox = Outbox::new(domain, clock, ids);
        let producer = outbox.producer(1);
        Self {
            outbox,
            log,
            producer,
            rows: BTreeMap::new(),
            assigned: 0,
            marks: Marks::default(),
            received: BTreeMap::new(),
            cursors: BTreeMap::new(),
        }
    }

    /// Numbers and encodes events as the door to the outbox does.
    pub fn encode<'a>(
        &self,
        at: Timestamp,
        events: impl IntoIterator<Item = (&'a Event, &'a Context)>,
    ) -> Checked<Vec<Rc<Message>>> {
        let events = events.into_iter().map(|(event, context)| (event, context, None));
        let rows =
            self.outbox.encode(1, self.assigned + 1, at, events).map_err(|e| Breach::new("B7", e.to_string()))?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let decoded = Arc::new(Envelope::decode(&row.subject, &row.envelope));
                let producer = (self.producer.clone(), row.seq);
                let (id, subject) = (row.event_id.to_string(), row.subject);
                Rc::new(Message { id, subject, payload: row.envelope, producer, decoded })
            })
            .collect())
    }

    pub fn encode_outgoing(&self, at: Timestamp, events: &[Outgoing]) -> Checked<Vec<Rc<Message>>> {
        self.encode(at, events.iter().map(|e| (&e.event, &e.context)))
    }

    /// Writes encoded rows: part of a COMMIT.
    pub fn append(&mut self, rows: Vec<Rc<Message>>) -> Checked {
        for row in rows {
            if row.producer.1 != self.assigned + 1 {
                return breach("B2", format!("{} follows {} of {}", row.producer.1, self.assigned, self.producer));
            }
            self.assigned += 1;
            self.rows.insert(self.assigned, row);
        }
        Ok(())
    }

    /// One round of the relay. True where something was published.
    pub fn publish(&mut self, broker: &mut Broker, most: usize, marked: bool) -> bool {
        if !self.look(broker) {
            return false;
        }
        let rows: Vec<(u64, Rc<Message>)> =
            self.rows.range(self.marks.published + 1..).take(most).map(|(n, m)| (*n, m.clone())).collect();
        let Some(last) = rows.last().map(|(n, _)| *n) else { return false };
        let (mut highest, mut lowest) = (0, u64::MAX);
        for (_, message) in &rows {
            let Some(ack) = broker.publish(self.log, message) else { return false };
            highest = highest.max(ack.sequence);
            if !ack.duplicate {
                lowest = lowest.min(ack.sequence);
            }
        }
        if !marked {
            return true;
        }
        if lowest <= self.marks.acknowledged {
            self.marks.repeated = true;
            return true;
        }
        self.marks.acknowledged = self.marks.acknowledged.max(highest);
        self.marks.published = self.marks.published.max(last);
        true
    }

    /// Whether the stream still has what it acknowledged; one that was made anew above that is taken for the next.
    fn look(&mut self, broker: &Broker) -> bool {
        let Some(stream) = broker.streams.get(&self.log) else { return false };
        if stream.mark.is_some() {
            return false;
        }
        let marks = &mut self.marks;
        if marks.created == stream.created {
            return !marks.repeated && stream.last >= marks.acknowledged;
        }
        if marks.created != 0 && stream.begins_at <= marks.acknowledged {
            return false;
        }
        if marks.created != 0 {
            marks.published = marks.published.min(marks.confirmed);
        }
        marks.created = stream.created;
        marks.repeated = false;
        true
    }

    /// Lets rows go that the audit ledger has.
    pub fn confirm(&mut self, contiguous: u64) -> bool {
        let confirmed = contiguous.min(self.marks.published);
        if confirmed <= self.marks.confirmed {
            return false;
        }
        self.rows = self.rows.split_off(&(confirmed + 1));
        self.marks.confirmed = confirmed;
        true
    }
}
