//! Reconciliation: goes over streams, ledger and outboxes, compares them event by event, and publishes again what is
//! safe to publish again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use deltran_api::audit::v1 as pb;
use deltran_events::Domain;
use deltran_events::data::audit::{LedgerMismatch, LedgerReconciled};
use deltran_messaging::ranges::Ranges;
use deltran_messaging::stored::{self, Again, Answer, StreamState};
use deltran_messaging::{Broker, Door, Outgoing};
use deltran_runtime::lease::Epoch;
use deltran_runtime::{EngineContext, Failure};
use tokio::sync::{Notify, Semaphore, mpsc};
use tonic::Status;

use crate::NAME;
use crate::domain::reconcile::{
    Absent, Difference, Item, Kind, Recorded, StreamSide, lacking, nowhere, number, outbox_row,
};
use crate::domain::report::Snapshot;
use crate::domain::sequence::AUDIT;
use crate::domain::tally::Tally;
use crate::keeper::Keeper;
use crate::producers::{self, Said};
use crate::settled::settled;
use crate::store::{Comparison, Ledger, Streams};
use crate::survey::{Survey, Window, away, items_of, retention_of};

/// Leaves read at once, without their bytes.
const HEADS: u64 = 4096;
/// Events published at once.
const PUBLISHES: usize = 256;
/// Differences that are listed where nobody says how many.
const LISTED: u32 = 1000;

/// Where differences and progress go.
pub type Listener = mpsc::Sender<Result<pb::ReconcileResponse, Status>>;

/// Compares, one comparison at a time.
#[derive(Clone)]
pub struct Reconciler {
    context: EngineContext,
    broker: Broker,
    door: Door,
    ledger: Ledger,
    comparison: Comparison,
    streams: Streams,
    appended: Arc<Notify>,
    /// Whose turn it is.
    pub turn: Arc<Semaphore>,
    /// Who makes streams anew, in the same turns.
    pub keeper: Keeper,
}

/// Differences about one event, and the event itself where it may be published again.
struct Found {
    differences: Vec<Difference>,
    again: Option<Again>,
}

/// A comparison under way.
struct Run<'a> {
    by: &'a Reconciler,
    repair: bool,
    limit: u64,
    listed: u64,
    listener: Option<&'a Listener>,
    tally: Tally,
    absent: Absent,
    recorded: Recorded,
    sides: BTreeMap<String, StreamSide>,
    /// Numbers that stand as leaves.
    standing: BTreeMap<String, Ranges>,
    /// Received sequences at which a stream has nothing.
    holes: BTreeMap<String, Ranges>,
    /// What was received of each stream.
    received: BTreeMap<String, Ranges>,
    /// From which leaf on streams are expected to hold what others do.
    since: BTreeMap<String, u64>,
    /// Numbers that the ledger lacked and that were published again, by the place that was told of.
    awaited: Vec<(String, String, u64)>,
}

impl Reconciler {
    /// A reconciler; `appended` is told when leaves come in this process.
    pub fn new(context: EngineContext, broker: Broker, door: Door, appended: Arc<Notify>) -> Self {
        let (ledger, comparison) = (Ledger::new(context.db.clone()), Comparison::new(context.db.clone()));
        let streams = Streams::new(context.db.clone());
        let turn = Arc::new(Semaphore::new(1));
        let keeper = Keeper::new(context.clone(), broker.clone(), door.clone(), Arc::clone(&turn));
        Self { context, broker, door, ledger, comparison, streams, appended, turn, keeper }
    }

    /// Compares everything; lists up to `limit` differences (0 for 1,000) to the listener, repairs what is safe where
    /// asked to, and publishes what came of it: as the holder of `epoch`, where it is the work of one.
    ///
    /// # Errors
    /// Where the database or the broker does not answer, or the listener went away. Differences are no errors.
    pub async fn run(
        &self,
        repair: bool,
        limit: u32,
        user: &str,
        listener: Option<&Listener>,
        epoch: Option<&Epoch>,
    ) -> Result<pb::ReconcileSummary, Failure> {
        // Leaves of before were in streams of after: none of them is under way.
        let (before, _) = self.ledger.size().await?;
        let (said, silent) = producers::ask(&self.context).await;
        let mut streams = BTreeMap::new();
        for domain in Domain::ALL {
            streams.insert(domain.stream(), stored::state(&self.broker, domain.stream()).await.map_err(away)?);
        }
        let snapshot =
            settled(&self.ledger, &self.appended, |snapshot| given_out_stands(&said, &streams, snapshot)).await?;
        let online_since = self.comparison.online_since().await?;
        let mut run = Run {
            by: self,
            repair,
            limit: u64::from(if limit == 0 { LISTED } else { limit }),
            listed: 0,
            listener,
            tally: Tally::default(),
            absent: Absent::new(),
            recorded: Recorded { numbers: snapshot.producers, online_since },
            sides: BTreeMap::new(),
            // What left the database with its day stood in the ledger as well.
            standing: snapshot.cut.producers,
            holes: BTreeMap::new(),
            received: snapshot.streams,
            since: self.streams.since().await?,
            awaited: Vec::new(),
        };
        for place in silent {
            run.tally.unknown(&place, "no answer");
        }
        // The meeting stream last: what a stream of origin has is told of there.
        for (name, state) in streams.iter().filter(|(name, _)| **name != AUDIT).chain(streams.get_key_value(AUDIT)) {
            run.stream(name, state.as_ref()).await?;
        }
        run.leaves(snapshot.cut.leaf, before, snapshot.size).await?;
        for (producer, said) in &said {
            run.outbox(producer, said).await?;
        }
        let (later, _) = producers::ask(&self.context).await;
        run.numbers(&said, &later).await?;
        run.arrived().await?;
        let Run { tally, holes, .. } = run;
        self.conclude(tally, holes, user, epoch).await
    }

    /// Publishes what came of a comparison: that it ended, and each class of differences that were not known before.
    async fn conclude(
        &self,
        tally: Tally,
        mut holes: BTreeMap<String, Ranges>,
        user: &str,
        epoch: Option<&Epoch>,
    ) -> Result<pb::ReconcileSummary, Failure> {
        let now = self.context.clock.now();
        // Where all that a stream should hold is in it again, a place that is empty says nothing any more.
        holes.retain(|stream, _| tally.places.get(stream).is_none_or(|place| place.differences == place.repaired));
        let mut tx = self.door.begin("reconcile").await?;
        if let Some(epoch) = epoch {
            epoch.check(&mut tx).await?;
        }
        let news = Comparison::note(&mut tx, &tally, &holes, now).await?;
        let correlation = self.context.ids.next_id(now);
        let mut events = Vec::with_capacity(news.len() + 1);
        for (class, found) in tally.classes.iter().filter(|(class, _)| news.contains(*class)) {
            let event = LedgerMismatch {
                place: class.0.clone(),
                kind: class.1.as_str().to_owned(),
                differences: found.differences,
                first: found.first.clone(),
            };
            events.push(Outgoing::new(event, correlation, user.to_owned()));
        }
        let event = LedgerReconciled {
            compared: tally.total(),
            differences: tally.differences(),
            repaired: tally.repaired(),
            user: user.to_owned(),
        };
        events.push(Outgoing::new(event, correlation, user.to_owned()));
        tx.commit(&events).await?;
        self.context.metrics.alert("audit_reconcile", !tally.is_whole());
        if !tally.is_whole() {
            let (differences, repaired) = (tally.differences(), tally.repaired());
            tracing::error!(
                differences,
                repaired,
                incomplete = tally.incomplete,
                "outboxes, streams and ledger differ"
            );
        }
        Ok(encode(&tally))
    }
}

impl Run<'_> {
    /// Every message of a stream against the ledger.
    async fn stream(&mut self, name: &str, state: Option<&StreamState>) -> Result<(), Failure> {
        let since_leaf = self.since.get(name).copied().unwrap_or(0);
        let mut side = StreamSide { since_leaf, ..StreamSide::default() };
        let Some(state) = state else {
            self.tally.unknown(name, "there is no such stream");
            self.sides.insert(name.to_owned(), side);
            return Ok(());
        };
        side.retention = Some(retention_of(state));
        let (from, to) = (state.first_sequence, state.last_sequence);
        let mut survey = Survey::of(&self.by.broker, &self.by.comparison, name, state).await?;
        while let Some(Window { messages, items, standing }) = survey.next().await? {
            let mut found = Vec::new();
            for (message, item) in messages.iter().zip(&items) {
                let (recorded, absent) = (&self.recorded, &mut self.absent);
                let difference = side.held.message(name, item, message.stored_at, &standing, recorded, absent);
                found.extend(difference.map(|d| Found::of(d, &message.subject, message.payload.clone())));
            }
            self.tally.compared(name, items.len() as u64);
            self.settle(found).await?;
            let done = messages.last().map_or(0, |m| (m.sequence + 1).saturating_sub(from));
            self.progress(name, done, (to + 1).saturating_sub(from)).await?;
        }
        let received = self.received.get(name).map(|received| received.within(from, to)).unwrap_or_default();
        self.holes.insert(name.to_owned(), received.without(&side.held.positions));
        self.sides.insert(name.to_owned(), side);
        Ok(())
    }

    /// Every leaf from `first` on against the streams; those before `before` were in them when they were looked at.
    async fn leaves(&mut self, first: u64, before: u64, size: u64) -> Result<(), Failure> {
        let now = self.by.context.clock.now();
        let mut from = first;
        while from < size {
            let to = (from + HEADS).min(size);
            let heads = self.by.comparison.heads(from, to).await?;
            let mut lacked: Vec<(u64, Vec<Difference>)> = Vec::new();
            for leaf in &heads {
                if let Some((producer, seq)) = &leaf.producer {
                    self.standing.entry(producer.clone()).or_default().insert(*seq);
                }
                if leaf.index < before {
                    let differences = lacking(leaf, &mut self.sides, now);
                    if !differences.is_empty() {
                        lacked.push((leaf.index, differences));
                    }
                }
            }
            self.tally.compared("ledger", heads.len() as u64);
            self.refill(lacked).await?;
            self.progress("ledger", to, size).await?;
            from = to;
        }
        let gone = self.sides.iter().filter(|(_, side)| side.invalid_gone > 0);
        for (name, n) in gone.map(|(name, side)| (name.clone(), side.invalid_gone)).collect::<Vec<_>>() {
            self.tally
                .note(&name, format!("it lacks {n} messages that are no valid events: they are not published again"));
        }
        Ok(())
    }

    async fn refill(&mut self, lacked: Vec<(u64, Vec<Difference>)>) -> Result<(), Failure> {
        let mut lacked = lacked.into_iter().peekable();
        while lacked.peek().is_some() {
            let some: Vec<_> = lacked.by_ref().take(PUBLISHES).collect();
            let indexes: Vec<u64> = some.iter().map(|(index, _)| *index).collect();
            let mut again = if self.repair { self.by.comparison.again(&indexes).await? } else { BTreeMap::new() };
            let found = some.into_iter().map(|(index, differences)| Found { differences, again: again.remove(&index) });
            self.settle(found.collect()).await?;
        }
        Ok(())
    }

    /// Every row of an outbox against the ledger.
    async fn outbox(&mut self, producer: &str, said: &Said) -> Result<(), Failure> {
        let mut after = 0;
        loop {
            let page = match producers::outbox(said, producer, after).await {
                Ok(page) => page,
                Err(why) => {
                    self.tally.unknown(producer, why);
                    return Ok(());
                }
            };
            // What was written since all were asked is under way.
            let events = page.events.into_iter().take_while(|e| e.producer_seq <= said.assigned);
            let events: Vec<_> = events.map(|e| (e.producer_seq, e.subject, Bytes::from(e.envelope))).collect();
            let Some(last) = events.last().map(|(seq, ..)| *seq) else { return Ok(()) };
            let (events, items) =
                items_of(events, |(seq, subject, envelope)| Item::of(*seq, subject, envelope)).await?;
            let standing = self.by.comparison.standing(&items).await?;
            let mut found = Vec::new();
            for ((_, subject, envelope), item) in events.into_iter().zip(&items) {
                let (recorded, absent) = (&self.recorded, &mut self.absent);
                let difference = outbox_row(producer, page.published, item, &standing, recorded, absent);
                found.extend(difference.map(|d| Found::of(d, &subject, envelope)));
            }
            self.tally.compared(producer, items.len() as u64);
            self.settle(found).await?;
            self.progress(producer, last, said.assigned).await?;
            after = last;
        }
    }

    /// Every number that a producer gave out stands somewhere, and every one that stands was given out.
    async fn numbers(&mut self, said: &BTreeMap<String, Said>, later: &BTreeMap<String, Said>) -> Result<(), Failure> {
        for (producer, before) in said {
            let (stand, absent) = (self.standing.get(producer), self.absent.get(producer));
            let mut ranges: Vec<(Kind, u64, u64, &str)> = nowhere(before.assigned, stand, absent)
                .iter()
                .map(|(low, high)| (Kind::MissingInLedger, low, high, "neither its outbox nor a stream has it"))
                .collect();
            if let (Some(stand), Some(after)) = (stand, later.get(producer)) {
                let beyond = stand.within(after.assigned + 1, u64::MAX);
                let restored = "its engine never gave it out: was its database restored to an earlier moment?";
                ranges.extend(beyond.iter().map(|(low, high)| (Kind::MissingInOutbox, low, high, restored)));
            }
            self.tally.compared(producer, before.assigned);
            for (kind, low, high, detail) in ranges {
                let mut next = low;
                while next <= high && self.listed < self.limit {
                    let found = Found { differences: vec![number(kind, producer, next, detail)], again: None };
                    self.settle(vec![found]).await?;
                    next += 1;
                }
                if next <= high {
                    self.tally.many(&number(kind, producer, next, detail), high - next + 1, false);
                }
            }
        }
        Ok(())
    }

    /// Publishes what may be published, counts, and tells.
    async fn settle(&mut self, found: Vec<Found>) -> Result<(), Failure> {
        let mut found = found.into_iter().peekable();
        while found.peek().is_some() {
            let mut some: Vec<Found> = found.by_ref().take(PUBLISHES).collect();
            let events: Vec<Again> =
                some.iter_mut().filter_map(|found| found.again.take().filter(|_| self.repair)).collect();
            let published: Vec<uuid::Uuid> = events.iter().map(|event| event.event_id).collect();
            let answers = stored::publish_again(&self.by.broker, events).await;
            let mut answers = published.into_iter().zip(answers).peekable();
            let mut positions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            let mut settled = Vec::with_capacity(some.len());
            for Found { differences, .. } in some {
                let own = differences.iter().find_map(|difference| difference.remedy);
                let answer = answers.next_if(|(id, _)| Some(*id) == own).map(|(_, answer)| answer);
                for mut difference in differences {
                    let stored = matches!(answer, Some(Answer::Stored(..)));
                    let repaired = stored && difference.remedy.is_some();
                    match &answer {
                        Some(Answer::Stored(stream, sequence)) if difference.kind == Kind::MissingInStream => {
                            positions.entry(stream.clone()).or_default().push(*sequence);
                        }
                        None | Some(Answer::Stored(..)) => {}
                        Some(Answer::Remembered) => difference.detail.push_str(
                            "; the broker still remembers its id and stored nothing: repair again after the duplicate window",
                        ),
                        Some(Answer::Refused(why)) => difference.detail.push_str(&format!("; not published: {why}")),
                    }
                    if repaired && difference.kind == Kind::MissingInLedger && !difference.producer.is_empty() {
                        let place = difference.place.clone();
                        self.awaited.push((place, difference.producer.clone(), difference.producer_seq));
                    }
                    self.tally.difference(&difference, repaired);
                    settled.push(shown(difference, repaired));
                }
            }
            self.by.streams.published(&positions).await?;
            for difference in settled {
                if self.listed < self.limit {
                    self.listed += 1;
                    self.tell(pb::reconcile_response::Part::Difference(difference)).await?;
                }
            }
        }
        Ok(())
    }

    /// What the ledger lacked and was published again has to come in.
    async fn arrived(&mut self) -> Result<(), Failure> {
        if self.awaited.is_empty() {
            return Ok(());
        }
        let (by, awaited) = (self.by, &mut self.awaited);
        settled(&by.ledger, &by.appended, |snapshot| {
            let received = &snapshot.producers;
            awaited.retain(|(_, producer, seq)| received.get(producer).is_none_or(|ranges| !ranges.contains(*seq)));
            awaited.is_empty()
        })
        .await?;
        let mut late: BTreeMap<String, u64> = BTreeMap::new();
        for (place, ..) in std::mem::take(&mut self.awaited) {
            *late.entry(place).or_default() += 1;
        }
        for (place, count) in late {
            self.tally.not_repaired(&place, count);
            self.tally
                .note(&place, format!("{count} events were published again and have not come into the ledger yet"));
        }
        Ok(())
    }

    async fn progress(&self, place: &str, done: u64, total: u64) -> Result<(), Failure> {
        let progress = pb::ReconcileProgress { place: place.to_owned(), done, total };
        self.tell(pb::reconcile_response::Part::Progress(progress)).await
    }

    async fn tell(&self, part: pb::reconcile_response::Part) -> Result<(), Failure> {
        let gone = || Failure::unavailable("the comparison stopped: nobody listens, or the process stops");
        let closing = &self.by.context.closing;
        match self.listener {
            None if closing.is_cancelled() => Err(gone()),
            None => Ok(()),
            Some(listener) => tokio::select! {
                sent = listener.send(Ok(pb::ReconcileResponse { part: Some(part) })) => sent.map_err(|_| gone()),
                () = closing.cancelled() => Err(gone()),
            },
        }
    }
}

impl Found {
    fn of(difference: Difference, subject: &str, payload: Bytes) -> Self {
        let again = difference.remedy.map(|event_id| Again { subject: subject.to_owned(), event_id, payload });
        Self { differences: vec![difference], again }
    }
}

/// Whether everything that was given out stands in the ledger.
fn given_out_stands(
    said: &BTreeMap<String, Said>,
    streams: &BTreeMap<&str, Option<StreamState>>,
    snapshot: &Snapshot,
) -> bool {
    let whole = said
        .iter()
        .all(|(producer, said)| snapshot.producers.get(producer).map_or(0, Ranges::contiguous) >= said.assigned);
    let received = streams.iter().all(|(name, state)| {
        let last = state.as_ref().filter(|state| state.messages > 0).map_or(0, |state| state.last_sequence);
        last == 0 || snapshot.streams.get(*name).is_some_and(|ranges| ranges.contains(last))
    });
    whole && received
}

fn shown(difference: Difference, repaired: bool) -> pb::Difference {
    pb::Difference {
        kind: difference.kind.as_str().to_owned(),
        place: difference.place,
        sequence: difference.sequence,
        producer: difference.producer,
        producer_seq: difference.producer_seq,
        event_id: difference.event_id.map(|id| id.to_string()).unwrap_or_default(),
        subject: difference.subject,
        detail: difference.detail,
        repaired,
    }
}

fn encode(tally: &Tally) -> pb::ReconcileSummary {
    let places = tally.places.iter().map(|(name, place)| pb::PlaceSummary {
        place: name.clone(),
        compared: place.compared,
        differences: place.differences,
        detail: place.notes.join("; "),
    });
    pb::ReconcileSummary {
        ok: tally.is_whole(),
        differences: tally.differences(),
        repaired: tally.repaired(),
        places: places.collect(),
    }
}

/// Who compares on schedule.
pub fn schedule_user() -> String {
    format!("{NAME}-engine")
}
