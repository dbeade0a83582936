//! What comparisons read of the ledger and remember from run to run.

use std::collections::{BTreeMap, BTreeSet};

use deltran_kernel::Timestamp;
use deltran_messaging::ranges::Ranges;
use deltran_messaging::stored::Again;
use deltran_runtime::{Db, DbError};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::append::leaf_hash;
use super::instant::Instant;
use crate::domain::reconcile::{Item, Kind, LeafHead, Name, Standing};
use crate::domain::sequence::UnnumberedKey;
use crate::domain::tally::Tally;

/// Numbers are looked up as a range where at least one in so many of it is asked for.
const DENSE: u64 = 4;

/// The ledger as comparisons read it.
#[derive(Clone)]
pub struct Comparison {
    db: Db,
}

#[derive(FromRow)]
struct HeadRow {
    leaf_index: i64,
    subject: String,
    source_stream: String,
    source_sequence: i64,
    producer: Option<String>,
    producer_seq: Option<i64>,
    event_id: Option<Uuid>,
    earliest: Instant,
    valid: bool,
}

impl Comparison {
    /// In a database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// What the ledger has of the names of these items.
    pub async fn standing(&self, items: &[Item]) -> Result<Standing, DbError> {
        let mut numbers: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for item in items {
            match &item.name {
                Name::Number(producer, seq) => {
                    numbers.entry(producer).or_default().insert(*seq);
                }
                Name::Key(key) => {
                    keys.insert(*key);
                    ids.extend(Some(key.0).filter(|id| !id.is_nil()));
                }
            }
        }
        let mut standing = Standing::default();
        for (producer, wanted) in numbers {
            for (seq, hash) in self.of_producer(producer, &wanted).await? {
                if wanted.contains(&(seq as u64)) {
                    standing.numbers.entry((producer.to_owned(), seq as u64)).or_insert(leaf_hash(hash)?);
                }
            }
        }
        if !ids.is_empty() {
            let rows: Vec<(Uuid, i64, Vec<u8>)> = sqlx::query_as(
                "SELECT event_id, leaf_index, leaf_hash FROM leaf WHERE event_id = ANY($1) ORDER BY leaf_index",
            )
            .bind(ids.into_iter().collect::<Vec<_>>())
            .fetch_all(self.db.pool())
            .await?;
            for (id, index, hash) in rows {
                standing.events.entry(id).or_default().push((number(index)?, leaf_hash(hash)?));
            }
        }
        if !keys.is_empty() {
            standing.keys = self.recorded_keys(&keys).await?;
        }
        Ok(standing)
    }

    /// Number and hash of a producer's leaves, first leaf first; of a dense range also those between.
    async fn of_producer(&self, producer: &str, wanted: &BTreeSet<u64>) -> Result<Vec<(i64, Vec<u8>)>, DbError> {
        let (Some(low), Some(high)) = (wanted.first(), wanted.last()) else { return Ok(Vec::new()) };
        let dense = high - low < wanted.len() as u64 * DENSE;
        let query = if dense {
            // One scan of each partition's index, instead of one for each number.
            sqlx::query_as(
                "SELECT producer_seq, leaf_hash FROM leaf
                 WHERE producer = $1 AND producer_seq BETWEEN $2 AND $3 ORDER BY leaf_index",
            )
            .bind(producer)
            .bind(*low as i64)
            .bind(*high as i64)
        } else {
            sqlx::query_as(
                "SELECT producer_seq, leaf_hash FROM leaf
                 WHERE producer = $1 AND producer_seq = ANY($2) ORDER BY leaf_index",
            )
            .bind(producer)
            .bind(wanted.iter().map(|seq| *seq as i64).collect::<Vec<_>>())
        };
        Ok(query.fetch_all(self.db.pool()).await?)
    }

    async fn recorded_keys(&self, keys: &BTreeSet<UnnumberedKey>) -> Result<BTreeSet<UnnumberedKey>, DbError> {
        let rows: Vec<(Uuid, Vec<u8>, bool)> = sqlx::query_as(
            "SELECT u.event_id, u.leaf_hash, u.wrapped
             FROM UNNEST($1::uuid[], $2::bytea[], $3::bool[]) AS k (event_id, leaf_hash, wrapped)
             JOIN unnumbered u USING (event_id, leaf_hash, wrapped)",
        )
        .bind(keys.iter().map(|(id, _, _)| *id).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, hash, _)| hash.as_slice()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, _, wrapped)| *wrapped).collect::<Vec<_>>())
        .fetch_all(self.db.pool())
        .await?;
        rows.into_iter().map(|(id, hash, wrapped)| Ok((id, leaf_hash(hash)?, wrapped))).collect()
    }

    /// Leaves `from` up to but without `to`, without their bytes.
    pub async fn heads(&self, from: u64, to: u64) -> Result<Vec<LeafHead>, DbError> {
        let rows: Vec<HeadRow> = sqlx::query_as(
            "SELECT leaf_index, subject, source_stream, source_sequence, producer, producer_seq, event_id,
                    LEAST(occurred_at, recorded_at) AS earliest, valid
             FROM leaf WHERE leaf_index >= $1 AND leaf_index < $2 ORDER BY leaf_index",
        )
        .bind(from as i64)
        .bind(to as i64)
        .fetch_all(self.db.pool())
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(LeafHead {
                    index: number(row.leaf_index)?,
                    subject: row.subject,
                    origin: (row.source_stream, number(row.source_sequence)?),
                    producer: row.producer.zip(row.producer_seq.map(|seq| seq as u64)),
                    event_id: row.event_id,
                    earliest: row.earliest.0,
                    valid: row.valid,
                })
            })
            .collect()
    }

    /// Leaves as they are published again, by index: those that have an id.
    pub async fn again(&self, indexes: &[u64]) -> Result<BTreeMap<u64, Again>, DbError> {
        let rows: Vec<(i64, String, Uuid, Vec<u8>)> = sqlx::query_as(
            "SELECT leaf_index, subject, event_id, envelope FROM leaf
             WHERE leaf_index = ANY($1) AND event_id IS NOT NULL",
        )
        .bind(indexes.iter().map(|index| *index as i64).collect::<Vec<_>>())
        .fetch_all(self.db.pool())
        .await?;
        rows.into_iter()
            .map(|(index, subject, event_id, envelope)| {
                Ok((number(index)?, Again { subject, event_id, payload: envelope.into() }))
            })
            .collect()
    }

    /// When the oldest leaf that is online was recorded, where earlier ones are not.
    pub async fn online_since(&self) -> Result<Option<Timestamp>, DbError> {
        let oldest: Option<(i64, Instant)> =
            sqlx::query_as("SELECT leaf_index, recorded_at FROM leaf ORDER BY leaf_index LIMIT 1")
                .fetch_optional(self.db.pool())
                .await?;
        Ok(oldest.filter(|(index, _)| *index > 0).map(|(_, at)| at.0))
    }

    /// When the last comparison ended; notes `now` as such where there was none, so that the first one waits.
    pub async fn last_ended(tx: &mut PgConnection, now: Timestamp) -> Result<Timestamp, DbError> {
        let at: Instant = sqlx::query_scalar(
            "INSERT INTO reconcile_run (ended_at, compared, differences, repaired) VALUES ($1, 0, 0, 0)
             ON CONFLICT (one) DO UPDATE SET ended_at = LEAST(reconcile_run.ended_at, EXCLUDED.ended_at) RETURNING ended_at",
        )
        .bind(Instant(now))
        .fetch_one(tx)
        .await?;
        Ok(at.0)
    }

    /// Notes what a comparison found; the classes that have differences that were not known before.
    pub async fn note(
        tx: &mut PgConnection,
        tally: &Tally,
        holes: &BTreeMap<String, Ranges>,
        now: Timestamp,
    ) -> Result<BTreeSet<(String, Kind)>, DbError> {
        for (stream, ranges) in holes {
            sqlx::query(
                "INSERT INTO stream_hole (stream, ranges) VALUES ($1, $2)
                 ON CONFLICT (stream) DO UPDATE SET ranges = EXCLUDED.ranges",
            )
            .bind(stream)
            .bind(ranges.to_pairs())
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query(
            "INSERT INTO reconcile_run (ended_at, compared, differences, repaired) VALUES ($1, $2, $3, $4)
             ON CONFLICT (one) DO UPDATE SET ended_at = EXCLUDED.ended_at, compared = EXCLUDED.compared,
                 differences = EXCLUDED.differences, repaired = EXCLUDED.repaired",
        )
        .bind(Instant(now))
        .bind(tally.total() as i64)
        .bind(tally.differences() as i64)
        .bind(tally.repaired() as i64)
        .execute(&mut *tx)
        .await?;
        let known: BTreeSet<(String, String, String)> =
            sqlx::query_as("SELECT place, kind, item FROM reconcile_difference FOR UPDATE")
                .fetch_all(&mut *tx)
                .await?
                .into_iter()
                .collect();
        let is_new = |place: &str, kind: Kind, item: &str| {
            !known.contains(&(place.to_owned(), kind.as_str().to_owned(), item.to_owned()))
        };
        let news = tally
            .classes
            .iter()
            .filter(|((place, kind), class)| class.found.iter().any(|item| is_new(place, *kind, item)))
            .map(|(class, _)| class.clone())
            .collect();
        let (mut places, mut kinds, mut items) = (Vec::new(), Vec::new(), Vec::new());
        for ((place, kind), class) in &tally.classes {
            for item in &class.left {
                places.push(place.as_str());
                kinds.push(kind.as_str());
                items.push(item.as_str());
            }
        }
        sqlx::query(
            "DELETE FROM reconcile_difference d WHERE NOT EXISTS (
                 SELECT FROM UNNEST($1::text[], $2::text[], $3::text[]) AS n (place, kind, item)
                 WHERE n.place = d.place AND n.kind = d.kind AND n.item = d.item)",
        )
        .bind(&places)
        .bind(&kinds)
        .bind(&items)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO reconcile_difference (place, kind, item, first_seen)
             SELECT n.place, n.kind, n.item, $4 FROM UNNEST($1::text[], $2::text[], $3::text[]) AS n (place, kind, item)
             ON CONFLICT DO NOTHING",
        )
        .bind(places)
        .bind(kinds)
        .bind(items)
        .bind(Instant(now))
        .execute(tx)
        .await?;
        Ok(news)
    }
}

fn number(value: i64) -> Result<u64, DbError> {
    u64::try_from(value).map_err(DbError::corrupt)
}
