//! What a consumer has received: the rows that alone decide what is a duplicate.

use std::collections::{BTreeMap, BTreeSet};

use deltran_kernel::EventId;
use deltran_runtime::DbError;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgExecutor};

use super::{ApplyError, Consumer};
use crate::delivery::Delivery;
use crate::ranges::Ranges;

/// An event without a producer number, by id and SHA-256 of its bytes.
type Unnumbered = (EventId, Vec<u8>);

impl Consumer {
    /// Marks the duplicates among `deliveries` and records the others as received, and the numbers of what is not
    /// read, in the transaction that applies them.
    pub(super) async fn receive(
        &self,
        tx: &mut PgConnection,
        deliveries: &mut [Delivery],
        unread: &[(String, u64)],
    ) -> Result<(), ApplyError> {
        let numbered = deliveries.iter().filter_map(|d| d.producer.as_ref()).chain(unread);
        let producers: BTreeSet<&str> = numbered.map(|(producer, _)| producer.as_str()).collect();
        let mut received = self.load_received(&mut *tx, producers.into_iter().collect()).await?;
        for (producer, seq) in unread {
            note(&mut received, producer, *seq);
        }
        let mut unnumbered: BTreeSet<Unnumbered> = BTreeSet::new();
        for delivery in &mut *deliveries {
            if let Some((producer, seq)) = &delivery.producer {
                delivery.duplicate = !note(&mut received, producer, *seq);
            } else if let Some(event) = unnumbered_of(delivery) {
                delivery.duplicate = !unnumbered.insert(event);
            }
        }
        if !unnumbered.is_empty() {
            let known = self.record_unnumbered(&mut *tx, unnumbered).await?;
            for delivery in deliveries.iter_mut().filter(|d| d.producer.is_none()) {
                delivery.duplicate |= unnumbered_of(delivery).is_some_and(|event| known.contains(&event));
            }
        }
        Ok(store(tx, self.spec.name, &received).await?)
    }

    async fn load_received(
        &self,
        tx: &mut PgConnection,
        producers: Vec<&str>,
    ) -> Result<BTreeMap<String, Ranges>, ApplyError> {
        let rows: Vec<(String, Vec<i64>)> =
            sqlx::query_as("SELECT producer, ranges FROM received WHERE consumer = $1 AND producer = ANY($2)")
                .bind(self.spec.name)
                .bind(producers)
                .fetch_all(tx)
                .await?;
        Ok(to_ranges(rows)?)
    }

    /// Records events; returns those that were known before.
    async fn record_unnumbered(
        &self,
        tx: &mut PgConnection,
        mut events: BTreeSet<Unnumbered>,
    ) -> Result<BTreeSet<Unnumbered>, ApplyError> {
        let ids: Vec<uuid::Uuid> = events.iter().map(|(id, _)| id.uuid()).collect();
        let digests: Vec<&[u8]> = events.iter().map(|(_, digest)| digest.as_slice()).collect();
        let new: Vec<(uuid::Uuid, Vec<u8>)> = sqlx::query_as(
            "INSERT INTO received_event (consumer, event_id, digest)
             SELECT $1, id, digest FROM UNNEST($2::uuid[], $3::bytea[]) AS e (id, digest)
             ON CONFLICT DO NOTHING RETURNING event_id, digest",
        )
        .bind(self.spec.name)
        .bind(&ids)
        .bind(digests)
        .fetch_all(tx)
        .await?;
        for (id, digest) in new {
            events.remove(&(EventId::new(id), digest));
        }
        Ok(events)
    }
}

/// What these consumers of the engine have received, by producer.
///
/// # Errors
/// Where the database does not answer, or holds what is no set of ranges.
pub async fn received(from: impl PgExecutor<'_>, consumers: &[&str]) -> Result<BTreeMap<String, Ranges>, DbError> {
    let rows = sqlx::query_as("SELECT producer, ranges FROM received WHERE consumer = ANY($1)")
        .bind(consumers)
        .fetch_all(from)
        .await?;
    to_ranges(rows)
}

/// Stored ranges by what they are of: a producer, or a stream.
///
/// # Errors
/// [`DbError::Corrupt`] where some are not sorted and disjoint.
pub fn to_ranges(rows: Vec<(String, Vec<i64>)>) -> Result<BTreeMap<String, Ranges>, DbError> {
    let read = |(name, pairs): (String, Vec<i64>)| {
        let what = || DbError::corrupt(format!("received ranges of {name} are not valid: {pairs:?}"));
        let ranges = Ranges::from_pairs(&pairs).ok_or_else(what)?;
        Ok((name, ranges))
    };
    rows.into_iter().map(read).collect()
}

/// Records what a consumer has received.
pub(crate) async fn store(
    tx: &mut PgConnection,
    consumer: &str,
    received: &BTreeMap<String, Ranges>,
) -> Result<(), DbError> {
    if received.is_empty() {
        return Ok(());
    }
    let (producers, ranges) = texts(received);
    sqlx::query(
        "INSERT INTO received (consumer, producer, ranges)
         SELECT $1, r.producer, r.ranges::bigint[] FROM UNNEST($2::text[], $3::text[]) AS r (producer, ranges)
         ON CONFLICT (consumer, producer) DO UPDATE SET ranges = EXCLUDED.ranges",
    )
    .bind(consumer)
    .bind(producers)
    .bind(ranges)
    .execute(tx)
    .await?;
    Ok(())
}

/// Ranges by what they are of, as columns of one statement: arrays of different lengths cannot travel in one array, their
/// texts can.
pub fn texts(received: &BTreeMap<String, Ranges>) -> (Vec<&str>, Vec<String>) {
    let text = |ranges: &Ranges| {
        let numbers: Vec<String> = ranges.to_pairs().iter().map(i64::to_string).collect();
        format!("{{{}}}", numbers.join(","))
    };
    received.iter().map(|(name, ranges)| (name.as_str(), text(ranges))).unzip()
}

/// Adds a number of a producer; `false` where it was there already.
fn note(received: &mut BTreeMap<String, Ranges>, producer: &str, seq: u64) -> bool {
    match received.get_mut(producer) {
        Some(ranges) => ranges.insert(seq),
        None => received.entry(producer.to_owned()).or_default().insert(seq),
    }
}

fn unnumbered_of(delivery: &Delivery) -> Option<Unnumbered> {
    Some((delivery.event_id()?, Sha256::digest(&delivery.payload).to_vec()))
}
