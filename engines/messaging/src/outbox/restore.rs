//! What a start makes of a database that was restored to an earlier moment than the broker.
//!
//! The streams then have events that the database never gave out, and durables that are ahead of what it received.
//! Before anything runs: those events are listed, and counted as received by all who would take effect from them; every
//! producer goes on in a new epoch, so that no number is given out twice; the durables are made anew, and read what
//! the database lacks again; and the ledger waits for an operator. The audit ledger takes in what it lacks from AUDIT, in
//! its old order, so that it continues every checkpoint that was signed.
//!
//! A database that goes on in another timeline (restored without a trace in the streams, or after a fail-over) gets new
//! epochs too.

use std::collections::BTreeMap;

use deltran_events::topology::{CONSUMERS, ConsumerSpec, Profile};
use deltran_events::{Domain, Envelope};
use deltran_runtime::{Db, DbError};
use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::broker::{Broker, BrokerError};
use crate::consumer::received::{received, store};
use crate::delivery::producer_of;
use crate::outbox::{Outbox, Outgoing};
use crate::ranges::Ranges;
use crate::rebuild;
use crate::stored::{self, StoredMessage};
use crate::topology::{Target, TopologyError, info, request};

/// Acknowledged messages that are looked for in what was received.
const LOOKED_AT: u64 = 256;
/// The most that may be unacknowledged and is looked through.
const PENDING: u64 = 20_000;
/// Rows that are written at once.
const ROWS: usize = 1000;
/// Between two numberings of an outbox no two rows meet.
const APART: i64 = 1 << 60;

/// Why a start did not get past it.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Only a process with all engines can put a restored database right.
    #[error(
        "{0}: the database was restored to an earlier moment. Run all engines in one process once (deltran serve token compliance \
         risk clearing settlement notification reporting audit), with all others stopped; then start them as usual"
    )]
    Partial(String),
}

impl From<sqlx::Error> for RestoreError {
    fn from(error: sqlx::Error) -> Self {
        DbError::from(error).into()
    }
}

impl From<TopologyError> for RestoreError {
    fn from(error: TopologyError) -> Self {
        BrokerError::from(error).into()
    }
}

/// Who does what after a restore.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    /// The engine that says what ended, and waits for an operator.
    pub ledger: &'static str,
    /// The engine that records whatever stands in the streams.
    pub recorder: &'static str,
    /// Whether these are all engines.
    pub whole: bool,
    /// What the ledger says.
    pub say: fn(&Settled) -> Outgoing,
}

/// A producer whose numbers ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `<source>/<epoch>`.
    pub producer: String,
    /// The last number that its database knows of.
    pub last: u64,
    /// Events with later numbers, or of later epochs, that its stream has.
    pub beyond: u64,
    /// The producer from now on.
    pub next: String,
    /// Why, in words.
    pub reason: String,
}

/// What was found, and done about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Producers that go on in a new epoch.
    pub ended: Vec<Ended>,
    /// Durables that were made anew.
    pub rebuilt: Vec<&'static str>,
    /// Whether the ledger waits for an operator.
    pub waits: bool,
}

/// An event that a stream has and the database never gave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// `<source>/<epoch>`.
    pub producer: String,
    /// Its number.
    pub producer_seq: u64,
    /// Its id; empty where it has none.
    pub event_id: String,
    /// Where it was published.
    pub subject: String,
    /// What it belongs to.
    pub correlation_id: String,
    /// Whom it concerns first.
    pub participant_id: String,
    /// Where it stands.
    pub stream_sequence: u64,
}

/// The counter of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
struct Counter {
    epoch: i64,
    assigned: i64,
    timeline: i64,
}

/// What one engine's database and stream say.
struct Look<'a> {
    db: &'a Db,
    outbox: &'a Outbox,
    counter: Counter,
    timeline: i64,
    beyond: Vec<Beyond>,
    ahead: Vec<&'static ConsumerSpec>,
}

impl Look<'_> {
    fn other_timeline(&self) -> bool {
        self.timeline != 0 && self.counter.timeline != 0 && self.timeline != self.counter.timeline
    }

    fn ends(&self) -> bool {
        !self.beyond.is_empty() || self.other_timeline()
    }

    /// The epoch after this one: above every one that was ever seen.
    fn next(&self) -> i64 {
        let seen = self.beyond.iter().filter_map(|b| epoch_of(&b.producer)).max().unwrap_or(0);
        next_epoch(self.counter.epoch, seen, self.timeline)
    }

    fn ended(&self) -> Ended {
        Ended {
            producer: self.outbox.producer(self.counter.epoch),
            last: self.counter.assigned.unsigned_abs(),
            beyond: self.beyond.len() as u64,
            next: self.outbox.producer(self.next()),
            reason: self.reason(),
        }
    }

    fn reason(&self) -> String {
        if self.beyond.is_empty() {
            format!("the database goes on in timeline {}, before in {}", self.timeline, self.counter.timeline)
        } else {
            format!("its stream has {} events that the database does not know of", self.beyond.len())
        }
    }
}

/// Puts engines right whose database was restored, before any of them runs.
/// Where nothing was restored it changes nothing; after a crash in the middle the next start goes on.
///
/// # Errors
/// Where database or broker do not answer, or not all engines are here and they would be needed.
pub async fn settle(
    broker: &Broker,
    profile: Profile,
    engines: &[(Db, Outbox)],
    parts: Parts,
) -> Result<Settled, RestoreError> {
    let mut looks = Vec::with_capacity(engines.len());
    for (db, outbox) in engines {
        looks.push(look(broker, db, outbox).await?);
    }
    let strict = |look: &Look<'_>| look.ahead.iter().copied().find(|spec| spec.strict);
    let behind = looks.iter().find(|l| !l.beyond.is_empty() || strict(l).is_some());
    if let Some(found) = behind
        && !parts.whole
    {
        let what = match strict(found) {
            Some(spec) => format!("consumer {} has acknowledged what its database did not receive", spec.name),
            None => format!("engine {}: {}", found.db.engine(), found.reason()),
        };
        return Err(RestoreError::Partial(what));
    }
    // The order is that of a crash in between: whoever is not done yet is found again.
    for look in &looks {
        // The recorder takes in all of it.
        if look.db.engine() != parts.recorder {
            receive(look, &looks).await?;
        }
    }
    let mut settled = Settled { waits: looks.iter().any(|l| !l.beyond.is_empty()), ..Settled::default() };
    settled.ended = looks.iter().filter(|l| l.ends()).map(Look::ended).collect();
    looks.sort_by_key(|l| l.db.engine() != parts.ledger);
    for look in &looks {
        end_epoch(look, &settled, parts).await?;
    }
    if looks.iter().any(|l| !l.beyond.is_empty() || !l.ahead.is_empty()) {
        settled.rebuilt = make_anew(broker, profile, &looks).await?;
    }
    Ok(settled)
}

async fn look<'a>(broker: &Broker, db: &'a Db, outbox: &'a Outbox) -> Result<Look<'a>, RestoreError> {
    let before = counter(db).await?;
    let candidates = candidates(broker, db, outbox, before).await?;
    // Asked for after the stream was read: whatever another process published meanwhile is known here.
    let counter = counter(db).await?;
    let beyond: Vec<Beyond> =
        candidates.into_iter().filter(|b| is_beyond(counter, epoch_of(&b.producer), b.producer_seq)).collect();
    let mut look = Look { db, outbox, counter, timeline: timeline(db).await, beyond, ahead: Vec::new() };
    for spec in CONSUMERS.iter().filter(|spec| spec.engine == db.engine()) {
        // One that may skip has also acknowledged what it gave up: it tells nothing by itself.
        if (spec.strict || look.other_timeline()) && is_ahead(broker, db, spec).await? {
            look.ahead.push(spec);
        }
    }
    Ok(look)
}

async fn counter(db: &Db) -> Result<Counter, DbError> {
    Ok(sqlx::query_as("SELECT epoch, assigned, timeline FROM outbox_counter").fetch_one(db.pool()).await?)
}

/// The timeline that the database writes in; 0 where the server does not tell.
async fn timeline(db: &Db) -> i64 {
    let told = db.timeline().await;
    if let Err(error) = &told {
        tracing::warn!(engine = db.engine(), %error, "the database does not tell its timeline");
    }
    told.ok().flatten().map_or(0, i64::from)
}

/// Events of the engine in its stream that its database had not given out when it was asked.
async fn candidates(broker: &Broker, db: &Db, outbox: &Outbox, counter: Counter) -> Result<Vec<Beyond>, RestoreError> {
    let domain = outbox.domain();
    let Some(state) = stored::state(broker, domain.stream()).await? else { return Ok(Vec::new()) };
    let (created, acknowledged): (String, i64) =
        sqlx::query_as("SELECT stream_created, acknowledged FROM outbox_mark").fetch_one(db.pool()).await?;
    let from = if created == state.created { acknowledged as u64 + 1 } else { state.first_sequence };
    let filter = format!("events.{}.>", domain.name());
    let messages = stored::read_of(broker, domain.stream(), &filter, from, state.last_sequence).await?;
    let mut messages = std::pin::pin!(messages);
    let mut found: BTreeMap<(i64, u64), Beyond> = BTreeMap::new();
    while let Some(message) = messages.next().await.transpose()? {
        let Some((producer, seq)) = numbered(broker, &message) else { continue };
        let Some(epoch) = producer.strip_prefix(domain.source()).and_then(|_| epoch_of(&producer)) else { continue };
        if is_beyond(counter, Some(epoch), seq) {
            found.entry((epoch, seq)).or_insert_with(|| beyond_of(producer, seq, &message));
        }
    }
    Ok(found.into_values().collect())
}

/// Producer and number of a valid event of one of the engines.
fn numbered(broker: &Broker, message: &StoredMessage) -> Option<(String, u64)> {
    let decoded = broker.decoder().decode(None, &message.subject, &message.payload);
    let (envelope, _) = (*decoded).as_ref().ok()?;
    let (producer, seq) = producer_of(&message.subject, &message.payload, Some(envelope))?;
    let own = Domain::ALL.iter().any(|domain| producer.split('/').next() == Some(domain.source()));
    own.then_some((producer, seq))
}

fn beyond_of(producer: String, producer_seq: u64, message: &StoredMessage) -> Beyond {
    let read: Option<Envelope<Value>> = serde_json::from_slice(&message.payload).ok();
    let (event_id, metadata) = read.map(|e| (e.event_id.to_string(), e.metadata)).unzip();
    let (correlation, participant) = metadata.map(|m| (m.correlation_id, m.participant_id)).unzip();
    Beyond {
        producer,
        producer_seq,
        event_id: event_id.unwrap_or_default(),
        subject: message.subject.clone(),
        correlation_id: correlation.flatten().unwrap_or_default(),
        participant_id: participant.flatten().map(|p| p.to_string()).unwrap_or_default(),
        stream_sequence: message.sequence,
    }
}

fn epoch_of(producer: &str) -> Option<i64> {
    producer.rsplit_once('/')?.1.parse().ok()
}

/// Whether the database never gave this number out. What was beyond an epoch that has ended was dealt with then.
fn is_beyond(counter: Counter, epoch: Option<i64>, seq: u64) -> bool {
    epoch
        .is_some_and(|epoch| epoch > counter.epoch || (epoch == counter.epoch && seq > counter.assigned.unsigned_abs()))
}

/// Above every epoch that was seen. The timeline counts restores, also those of which neither database nor stream knows.
fn next_epoch(present: i64, seen: i64, timeline: i64) -> i64 {
    (present.max(seen) + 1).max(timeline)
}

/// Whether a durable has acknowledged events that the database did not receive.
async fn is_ahead(broker: &Broker, db: &Db, spec: &'static ConsumerSpec) -> Result<bool, RestoreError> {
    let target = Target::Consumer(spec.stream.to_owned(), spec.name.to_owned());
    let Some(answer) = info(broker, &target).await? else { return Ok(false) };
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let floor = number(&answer["ack_floor"]["stream_seq"]);
    let delivered = number(&answer["delivered"]["stream_seq"]);
    let pending = number(&answer["num_ack_pending"]);
    if delivered == 0 {
        return Ok(false);
    }
    let from = (floor + 1).saturating_sub(LOOKED_AT).max((delivered + 1).saturating_sub(PENDING)).max(1);
    let filter = spec.filter_subjects.first().copied().unwrap_or_default();
    let messages = stored::read_of(broker, spec.stream, filter, from, delivered).await?;
    let mut messages = std::pin::pin!(messages);
    let mut seen: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    while let Some(message) = messages.next().await.transpose()? {
        if let Some((producer, seq)) = numbered(broker, &message) {
            seen.entry(producer).or_default().push((message.sequence, seq));
        }
    }
    let received = received(db.pool(), &[spec.name]).await?;
    let none = Ranges::default();
    let lacking = seen.iter().flat_map(|(producer, numbers)| {
        let ranges = received.get(producer).unwrap_or(&none);
        numbers.iter().filter(|(_, seq)| !ranges.contains(*seq)).map(|(sequence, _)| *sequence)
    });
    let (mut below, mut above) = (0, 0);
    for sequence in lacking {
        if sequence <= floor { below += 1 } else { above += 1 }
    }
    Ok(below > 0 || above > pending)
}

/// Counts what is beyond as received by the consumers of an engine: none of it takes effect.
async fn receive(of: &Look<'_>, looks: &[Look<'_>]) -> Result<(), RestoreError> {
    for spec in CONSUMERS.iter().filter(|spec| spec.engine == of.db.engine()) {
        let own = looks.iter().filter(|l| l.outbox.domain().stream() == spec.stream && !l.beyond.is_empty());
        for producer in own {
            let mut ranges = received(of.db.pool(), &[spec.name]).await?;
            for beyond in &producer.beyond {
                ranges.entry(beyond.producer.clone()).or_default().insert(beyond.producer_seq);
            }
            let mut tx = of.db.begin().await?;
            store(&mut tx, spec.name, &ranges).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Lists what is beyond and begins the next epoch, in one transaction. The ledger says what ended, and waits.
async fn end_epoch(look: &Look<'_>, settled: &Settled, parts: Parts) -> Result<(), RestoreError> {
    let ledger = look.db.engine() == parts.ledger && !settled.ended.is_empty();
    let same_timeline = look.timeline == 0 || look.counter.timeline == look.timeline;
    if !look.ends() && !ledger && same_timeline {
        return Ok(());
    }
    let mut tx = look.db.begin().await?;
    let locked: Counter =
        sqlx::query_as("SELECT epoch, assigned, timeline FROM outbox_counter FOR UPDATE").fetch_one(&mut *tx).await?;
    if locked.epoch != look.counter.epoch {
        // Another process was first.
        return Ok(());
    }
    if look.ends() {
        list(&mut tx, &look.beyond).await?;
        let last = locked.assigned;
        for shift in [-last - APART, APART] {
            sqlx::query("UPDATE outbox SET seq = seq + $1").bind(shift).execute(&mut *tx).await?;
        }
        sqlx::query("UPDATE outbox_mark SET published = published - $1, confirmed = confirmed - $1")
            .bind(last)
            .execute(&mut *tx)
            .await?;
        sqlx::query("INSERT INTO outbox_epoch (epoch, last, reason, ended_at) VALUES ($1, $2, $3, clock_timestamp())")
            .bind(locked.epoch)
            .bind(last)
            .bind(look.reason())
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE outbox_counter SET epoch = $1, assigned = 0").bind(look.next()).execute(&mut *tx).await?;
    }
    sqlx::query("UPDATE outbox_counter SET timeline = CASE WHEN $1 = 0 THEN timeline ELSE $1 END, waits = waits OR $2")
        .bind(look.timeline)
        .bind(ledger && settled.waits)
        .execute(&mut *tx)
        .await?;
    if ledger {
        look.outbox.append(&mut tx, &[(parts.say)(settled)]).await?;
    }
    tx.commit().await?;
    if look.ends() {
        let Ended { producer, last, beyond, next, reason } = look.ended();
        tracing::warn!(producer, last, beyond, next, reason, "numbers go on in a new epoch");
    }
    Ok(())
}

async fn list(tx: &mut PgConnection, beyond: &[Beyond]) -> Result<(), DbError> {
    for some in beyond.chunks(ROWS) {
        let texts = |of: fn(&Beyond) -> &str| some.iter().map(of).collect::<Vec<&str>>();
        sqlx::query(
            "INSERT INTO outbox_beyond (producer, producer_seq, event_id, subject, correlation_id, participant_id, stream_sequence)
             SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[])
             ON CONFLICT DO NOTHING",
        )
        .bind(texts(|b| &b.producer))
        .bind(some.iter().map(|b| b.producer_seq as i64).collect::<Vec<_>>())
        .bind(texts(|b| &b.event_id))
        .bind(texts(|b| &b.subject))
        .bind(texts(|b| &b.correlation_id))
        .bind(texts(|b| &b.participant_id))
        .bind(some.iter().map(|b| b.stream_sequence as i64).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Deletes the durables of these engines, but that of advisories, which is harmless to lack and not to repeat, and creates them as
/// the catalog says: they begin with the first message.
async fn make_anew(broker: &Broker, profile: Profile, looks: &[Look<'_>]) -> Result<Vec<&'static str>, RestoreError> {
    let mut names = Vec::new();
    let mut streams: Vec<&str> = Vec::new();
    for spec in CONSUMERS.iter().filter(|spec| looks.iter().any(|l| l.db.engine() == spec.engine)) {
        if spec.stream == "ADVISORIES" {
            continue;
        }
        let target = Target::Consumer(spec.stream.to_owned(), spec.name.to_owned());
        if info(broker, &target).await?.is_some() {
            request(broker, &target, format!("CONSUMER.DELETE.{}.{}", spec.stream, spec.name), &json!({})).await?;
        }
        tracing::warn!(consumer = spec.name, "the durable is made anew: it reads again what the database lacks");
        names.push(spec.name);
        streams.push(spec.stream);
    }
    rebuild::consumers(broker, profile, &streams).await?;
    Ok(names)
}

/// A page of what was listed, after this number: number and event.
///
/// # Errors
/// Where the database does not answer.
pub async fn beyond(db: &Db, after: i64, most: i64) -> Result<Vec<(i64, Beyond)>, DbError> {
    type Row = (i64, String, i64, String, String, String, String, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT number, producer, producer_seq, event_id, subject, correlation_id, participant_id, stream_sequence
         FROM outbox_beyond WHERE number > $1 ORDER BY number LIMIT $2",
    )
    .bind(after)
    .bind(most)
    .fetch_all(db.pool())
    .await?;
    let event = |(number, producer, seq, event_id, subject, correlation_id, participant_id, sequence): Row| {
        let (producer_seq, stream_sequence) = (seq as u64, sequence as u64);
        (number, Beyond { producer, producer_seq, event_id, subject, correlation_id, participant_id, stream_sequence })
    };
    Ok(rows.into_iter().map(event).collect())
}

/// Epochs that ended, with their last numbers.
pub(crate) async fn ended(db: &Db) -> Result<BTreeMap<i64, i64>, DbError> {
    let rows: Vec<(i64, i64)> = sqlx::query_as("SELECT epoch, last FROM outbox_epoch").fetch_all(db.pool()).await?;
    Ok(rows.into_iter().collect())
}

/// Which producer a place of the outbox belongs to that comes after `confirmed`: its epoch, the place before its first number, and
/// its last place. `ended` are the earlier epochs with their last numbers.
pub(crate) fn numbering(confirmed: i64, present: i64, ended: &BTreeMap<i64, i64>) -> (i64, i64, i64) {
    let (mut epoch, mut before, mut last) = (present, 0, i64::MAX);
    for (&earlier, &count) in ended.range(..present).rev() {
        if confirmed >= before {
            break;
        }
        (epoch, last, before) = (earlier, before, before - count);
    }
    (epoch, before, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_out_is_not_beyond() {
        let counter = Counter { epoch: 2, assigned: 10, timeline: 1 };
        for (epoch, seq, beyond) in
            [(2, 10, false), (2, 11, true), (1, 500, false), (3, 1, true), (3, 500, true), (1, 1, false)]
        {
            assert_eq!(is_beyond(counter, Some(epoch), seq), beyond, "{epoch}/{seq}");
        }
        assert!(!is_beyond(counter, epoch_of("token-engine"), 99));
        assert_eq!(epoch_of("token-engine/12"), Some(12));
    }

    #[test]
    fn an_epoch_is_never_used_again() {
        assert_eq!(next_epoch(1, 0, 1), 2, "beyond only");
        assert_eq!(next_epoch(1, 1, 2), 2);
        assert_eq!(next_epoch(1, 3, 2), 4, "restored to before an earlier restore, of which the stream knows");
        assert_eq!(next_epoch(1, 0, 3), 3, "and of which only the timeline tells");
    }

    #[test]
    fn places_of_the_outbox_belong_to_their_epochs() {
        // Epoch 1 ended at 7, epoch 2 at 3: places -9 … -3 are 1/1 … 1/7, -2 … 0 are 2/1 … 2/3.
        let ended = BTreeMap::from([(1, 7), (2, 3)]);
        for (confirmed, expected) in [
            (-10, (1, -10, -3)),
            (-4, (1, -10, -3)),
            (-3, (2, -3, 0)),
            (-1, (2, -3, 0)),
            (0, (5, 0, i64::MAX)),
            (12, (5, 0, i64::MAX)),
        ] {
            assert_eq!(numbering(confirmed, 5, &ended), expected, "{confirmed}");
        }
        let empty = BTreeMap::from([(1, 7), (2, 0)]);
        assert_eq!(numbering(-2, 3, &empty), (1, -7, 0), "an epoch without a number has no place");
    }
}
