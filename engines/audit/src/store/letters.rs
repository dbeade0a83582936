//! Dead letters and the advisories that lead to them.

use deltran_kernel::Timestamp;
use deltran_runtime::{Db, DbError};
use sqlx::{FromRow, PgConnection};

use super::instant::Instant;
use crate::domain::advisory::GaveUp;
use crate::domain::letter::{LetterState, Origin};

/// A dead letter on its way in.
#[derive(Debug, Clone)]
pub struct NewLetter {
    /// Its sequence in DEADLETTERS.
    pub id: u64,
    /// What its headers say.
    pub origin: Origin,
    /// The bytes.
    pub payload: Vec<u8>,
    /// SHA-256 of the bytes.
    pub digest: [u8; 32],
}

/// A stored dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterRow {
    /// Its id.
    pub id: u64,
    /// What its headers said.
    pub origin: Origin,
    /// The bytes; empty in lists.
    pub payload: Vec<u8>,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Its state.
    pub state: LetterState,
    /// How often it was published again.
    pub replays: u32,
    /// Who decided.
    pub decided_by: Option<String>,
}

#[derive(FromRow)]
struct Raw {
    dead_letter_id: i64,
    stream: String,
    stream_sequence: i64,
    consumer: String,
    subject: String,
    reason: String,
    attempts: i64,
    payload: Vec<u8>,
    recorded_at: Instant,
    state: String,
    replays: i32,
    decided_by: Option<String>,
}

impl Raw {
    fn read(self) -> Result<LetterRow, DbError> {
        let state = LetterState::from_word(&self.state).ok_or_else(|| {
            DbError::corrupt(format!("dead letter {} has state {:?}", self.dead_letter_id, self.state))
        })?;
        Ok(LetterRow {
            id: u64::try_from(self.dead_letter_id).map_err(DbError::corrupt)?,
            origin: Origin {
                stream: self.stream,
                sequence: u64::try_from(self.stream_sequence).map_err(DbError::corrupt)?,
                consumer: self.consumer,
                subject: self.subject,
                reason: self.reason,
                attempts: u32::try_from(self.attempts).map_err(DbError::corrupt)?,
            },
            payload: self.payload,
            recorded_at: self.recorded_at.0,
            state,
            replays: u32::try_from(self.replays).map_err(DbError::corrupt)?,
            decided_by: self.decided_by,
        })
    }
}

/// Dead letters in a database.
#[derive(Clone)]
pub struct Letters {
    db: Db,
}

impl Letters {
    /// The letters of a database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Records letters; returns the ids of those that are new.
    ///
    /// # Errors
    /// [`DbError::Corrupt`] where an id is taken by another letter: the stream gave its sequences out again.
    pub async fn record(tx: &mut PgConnection, letters: &[NewLetter], at: Timestamp) -> Result<Vec<u64>, DbError> {
        fn column<'a, T>(letters: &'a [NewLetter], get: impl Fn(&'a NewLetter) -> T) -> Vec<T> {
            letters.iter().map(get).collect()
        }
        let ids = column(letters, |l| l.id as i64);
        let new: Vec<i64> = sqlx::query_scalar(
            "INSERT INTO dead_letter (dead_letter_id, stream, stream_sequence, consumer, subject, reason, attempts, payload, digest, recorded_at)
             SELECT l.*, $10 FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[], $9::bytea[]) AS l
             ON CONFLICT (dead_letter_id) DO NOTHING RETURNING dead_letter_id",
        )
        .bind(&ids)
        .bind(column(letters, |l| l.origin.stream.as_str()))
        .bind(column(letters, |l| l.origin.sequence as i64))
        .bind(column(letters, |l| l.origin.consumer.as_str()))
        .bind(column(letters, |l| l.origin.subject.as_str()))
        .bind(column(letters, |l| l.origin.reason.as_str()))
        .bind(column(letters, |l| i64::from(l.origin.attempts)))
        .bind(column(letters, |l| l.payload.as_slice()))
        .bind(column(letters, |l| l.digest.as_slice()))
        .bind(Instant(at))
        .fetch_all(&mut *tx)
        .await?;
        if new.len() < letters.len() {
            let other: Option<i64> = sqlx::query_scalar(
                "SELECT d.dead_letter_id FROM UNNEST($1::bigint[], $2::bytea[]) AS l (id, digest)
                 JOIN dead_letter d ON d.dead_letter_id = l.id AND d.digest <> l.digest LIMIT 1",
            )
            .bind(&ids)
            .bind(column(letters, |l| l.digest.as_slice()))
            .fetch_optional(tx)
            .await?;
            if let Some(id) = other {
                return Err(DbError::corrupt(format!(
                    "dead letter {id} stands with other bytes: DEADLETTERS was made anew from an earlier sequence"
                )));
            }
        }
        new.into_iter().map(|id| u64::try_from(id).map_err(DbError::corrupt)).collect()
    }

    /// Letters below the id `before`, newest first, without their bytes.
    pub async fn list(
        &self,
        state: Option<LetterState>,
        stream: Option<&str>,
        before: Option<u64>,
        limit: i64,
    ) -> Result<Vec<LetterRow>, DbError> {
        let rows: Vec<Raw> = sqlx::query_as(
            "SELECT dead_letter_id, stream, stream_sequence, consumer, subject, reason, attempts, ''::bytea AS payload, recorded_at, state, replays, decided_by
             FROM dead_letter WHERE dead_letter_id < $1 AND ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR stream = $3)
             ORDER BY dead_letter_id DESC LIMIT $4",
        )
        .bind(before.map_or(i64::MAX, |id| i64::try_from(id).unwrap_or(i64::MAX)))
        .bind(state.map(LetterState::as_str))
        .bind(stream)
        .bind(limit)
        .fetch_all(self.db.pool())
        .await?;
        rows.into_iter().map(Raw::read).collect()
    }

    /// One letter with its bytes.
    pub async fn get(&self, id: u64) -> Result<Option<LetterRow>, DbError> {
        let row: Option<Raw> = sqlx::query_as("SELECT * FROM dead_letter WHERE dead_letter_id = $1")
            .bind(i64::try_from(id).unwrap_or(i64::MAX))
            .fetch_optional(self.db.pool())
            .await?;
        row.map(Raw::read).transpose()
    }

    /// One letter with its bytes, locked until the transaction ends.
    pub async fn lock(tx: &mut PgConnection, id: u64) -> Result<Option<LetterRow>, DbError> {
        let row: Option<Raw> = sqlx::query_as("SELECT * FROM dead_letter WHERE dead_letter_id = $1 FOR UPDATE")
            .bind(i64::try_from(id).unwrap_or(i64::MAX))
            .fetch_optional(tx)
            .await?;
        row.map(Raw::read).transpose()
    }

    /// Stores a decision.
    pub async fn decide(
        tx: &mut PgConnection,
        id: u64,
        state: LetterState,
        replays: u32,
        user: &str,
    ) -> Result<(), DbError> {
        sqlx::query("UPDATE dead_letter SET state = $2, replays = $3, decided_by = $4 WHERE dead_letter_id = $1")
            .bind(id as i64)
            .bind(state.as_str())
            .bind(i64::from(replays))
            .bind(user)
            .execute(tx)
            .await?;
        Ok(())
    }

    /// Notes messages that the broker gave up on.
    pub async fn note(tx: &mut PgConnection, messages: &[GaveUp], at: Timestamp) -> Result<(), DbError> {
        let streams: Vec<&str> = messages.iter().map(|m| m.stream.as_str()).collect();
        let sequences: Vec<i64> = messages.iter().map(|m| m.sequence as i64).collect();
        let consumers: Vec<&str> = messages.iter().map(|m| m.consumer.as_str()).collect();
        let deliveries: Vec<i64> = messages.iter().map(|m| m.deliveries as i64).collect();
        sqlx::query(
            "INSERT INTO advisory (stream, stream_sequence, consumer, deliveries, received_at)
             SELECT a.*, $5 FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::bigint[]) AS a ON CONFLICT DO NOTHING",
        )
        .bind(streams)
        .bind(sequences)
        .bind(consumers)
        .bind(deliveries)
        .bind(Instant(at))
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Messages that the broker gave up on and that are no dead letters yet, oldest first; and whether each
    /// is a dead letter by now.
    pub async fn given_up(&self, limit: i64) -> Result<Vec<(GaveUp, bool)>, DbError> {
        let rows: Vec<(String, i64, String, i64, bool)> = sqlx::query_as(
            "SELECT stream, stream_sequence, consumer, deliveries,
                    EXISTS (SELECT FROM dead_letter d WHERE (d.stream, d.stream_sequence, d.consumer) = (a.stream, a.stream_sequence, a.consumer))
             FROM advisory a WHERE NOT done ORDER BY received_at LIMIT $1",
        )
        .bind(limit)
        .fetch_all(self.db.pool())
        .await?;
        let read = |(stream, sequence, consumer, deliveries, known): (String, i64, String, i64, bool)| {
            (GaveUp { stream, sequence: sequence as u64, consumer, deliveries: deliveries as u64 }, known)
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Notes that a message is a dead letter.
    pub async fn done(tx: &mut PgConnection, message: &GaveUp) -> Result<(), DbError> {
        sqlx::query("UPDATE advisory SET done = true WHERE stream = $1 AND stream_sequence = $2 AND consumer = $3")
            .bind(&message.stream)
            .bind(message.sequence as i64)
            .bind(&message.consumer)
            .execute(tx)
            .await?;
        Ok(())
    }
}
