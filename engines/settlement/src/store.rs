//! The tables of settlement; the only SQL.

use deltran_events::data::transactions::CoverPolicy;
use deltran_kernel::{BatchId, Currency, Minor, NettingSetId, ParticipantId, Timestamp, WindowId};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::domain::{Batch, BatchState, Decision, Leg, Legs, Terms};

macro_rules! select_batch {
    ($tail:literal) => {
        concat!(
            "SELECT b.number, b.batch_id, b.netting_set_id, b.currency, b.transactions, b.gross, b.moved, b.participants, \
             b.digest, b.state, b.loaded, b.next_earmark, b.doubted, b.alarm, b.note, b.created_at, b.funding_deadline, \
             b.final_at, b.revision, ARRAY(SELECT w.window_id FROM batch_window w WHERE w.batch_id = b.batch_id \
             ORDER BY w.window_id) AS window_ids FROM batch b ",
            $tail
        )
    };
}

#[derive(sqlx::FromRow)]
struct BatchRow {
    number: i64,
    batch_id: Uuid,
    netting_set_id: Uuid,
    currency: String,
    transactions: i64,
    gross: Decimal,
    moved: Decimal,
    participants: i32,
    digest: String,
    state: String,
    loaded: bool,
    next_earmark: i32,
    doubted: bool,
    alarm: bool,
    note: String,
    created_at: i64,
    funding_deadline: Option<i64>,
    final_at: Option<i64>,
    revision: i64,
    window_ids: Vec<Uuid>,
}

/// A stored batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The batch.
    pub batch: Batch,
    /// Its place in the order of creation.
    pub number: i64,
    /// Counts the writes.
    pub revision: i64,
}

impl TryFrom<BatchRow> for Stored {
    type Error = DbError;
    fn try_from(row: BatchRow) -> Result<Self, DbError> {
        let corrupt = |what: &str| DbError::corrupt(format!("batch {}: {what}", row.batch_id));
        let terms = Terms {
            netting_set_id: NettingSetId::new(row.netting_set_id),
            currency: Currency::new(&row.currency).map_err(DbError::corrupt)?,
            window_ids: row.window_ids.into_iter().map(WindowId::new).collect(),
            transactions: u64::try_from(row.transactions).map_err(DbError::corrupt)?,
            gross: Minor::from_decimal(row.gross).map_err(DbError::corrupt)?,
            moved: Minor::from_decimal(row.moved).map_err(DbError::corrupt)?,
            participants: u32::try_from(row.participants).map_err(DbError::corrupt)?,
            digest: row.digest,
        };
        let batch = Batch {
            id: BatchId::new(row.batch_id),
            terms,
            state: BatchState::from_word(&row.state).ok_or_else(|| corrupt("unknown state"))?,
            loaded: row.loaded,
            next_earmark: u32::try_from(row.next_earmark).map_err(DbError::corrupt)?,
            doubted: row.doubted,
            alarm: row.alarm,
            note: row.note,
            created_at: Timestamp::from_micros(row.created_at),
            funding_deadline: row.funding_deadline.map(Timestamp::from_micros),
            final_at: row.final_at.map(Timestamp::from_micros),
        };
        Ok(Self { batch, number: row.number, revision: row.revision })
    }
}

/// A new batch with its windows.
pub async fn insert(tx: &mut PgConnection, batch: &Batch) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO batch (batch_id, netting_set_id, currency, transactions, gross, moved, participants, digest, state,
                            loaded, next_earmark, doubted, alarm, note, created_at, funding_deadline, final_at, revision)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 1)",
    )
    .bind(batch.id.uuid())
    .bind(batch.terms.netting_set_id.uuid())
    .bind(batch.terms.currency.code())
    .bind(i64::try_from(batch.terms.transactions).map_err(DbError::corrupt)?)
    .bind(batch.terms.gross.to_decimal())
    .bind(batch.terms.moved.to_decimal())
    .bind(i32::try_from(batch.terms.participants).map_err(DbError::corrupt)?)
    .bind(&batch.terms.digest)
    .bind(batch.state.as_str())
    .bind(batch.loaded)
    .bind(i32::try_from(batch.next_earmark).map_err(DbError::corrupt)?)
    .bind(batch.doubted)
    .bind(batch.alarm)
    .bind(&batch.note)
    .bind(batch.created_at.micros())
    .bind(batch.funding_deadline.map(Timestamp::micros))
    .bind(batch.final_at.map(Timestamp::micros))
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO batch_window (batch_id, window_id) SELECT $1, w FROM UNNEST($2::uuid[]) AS w")
        .bind(batch.id.uuid())
        .bind(uuids(&batch.terms.window_ids))
        .execute(tx)
        .await?;
    Ok(())
}

/// The batch of a netting set, locked.
pub async fn of_netting_set(tx: &mut PgConnection, id: NettingSetId) -> Result<Option<Batch>, DbError> {
    let row: Option<BatchRow> = sqlx::query_as(select_batch!("WHERE b.netting_set_id = $1 FOR UPDATE OF b"))
        .bind(id.uuid())
        .fetch_optional(tx)
        .await?;
    Ok(row.map(Stored::try_from).transpose()?.map(|stored| stored.batch))
}

/// The first of these windows that is in a batch which was not given up.
pub async fn taken(tx: &mut PgConnection, windows: &[WindowId]) -> Result<Option<(WindowId, BatchId)>, DbError> {
    let row: Option<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT window_id, batch_id FROM batch_window WHERE window_id = ANY($1) AND NOT released ORDER BY window_id LIMIT 1",
    )
    .bind(uuids(windows))
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|(window, batch)| (WindowId::new(window), BatchId::new(batch))))
}

/// Batches that have not ended, in order of creation, and whether somebody must look at them.
pub async fn open(pool: &PgPool) -> Result<Vec<(BatchId, bool)>, DbError> {
    let rows: Vec<(Uuid, bool)> = sqlx::query_as(
        "SELECT batch_id, alarm FROM batch WHERE state IN ('PENDING', 'RESERVED', 'AWAITING_FUNDS') ORDER BY number",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(id, alarm)| (BatchId::new(id), alarm)).collect())
}

/// A batch by its id.
pub async fn batch(pool: &PgPool, id: BatchId) -> Result<Option<Stored>, DbError> {
    let row: Option<BatchRow> =
        sqlx::query_as(select_batch!("WHERE b.batch_id = $1")).bind(id.uuid()).fetch_optional(pool).await?;
    row.map(Stored::try_from).transpose()
}

/// The legs of a batch.
pub async fn legs(pool: &PgPool, id: BatchId) -> Result<Legs, DbError> {
    let rows: Vec<(String, Decimal, Decimal, Option<String>)> =
        sqlx::query_as("SELECT participant, net, reserved, cover_policy FROM batch_leg WHERE batch_id = $1")
            .bind(id.uuid())
            .fetch_all(pool)
            .await?;
    rows.into_iter()
        .map(|(participant, net, reserved, cover)| {
            let cover = cover
                .map(|word| {
                    CoverPolicy::from_word(&word).ok_or_else(|| DbError::corrupt(format!("cover policy {word:?}")))
                })
                .transpose()?;
            let leg = Leg {
                net: Minor::from_decimal(net).map_err(DbError::corrupt)?,
                reserved: Minor::from_decimal(reserved).map_err(DbError::corrupt)?,
                cover,
            };
            Ok((participant.parse::<ParticipantId>().map_err(DbError::corrupt)?, leg))
        })
        .collect()
}

/// Stores what was decided from `before` and `legs`. False where the batch was written since: nothing is
/// stored then.
pub async fn save(tx: &mut PgConnection, before: &Stored, legs: &Legs, decision: &Decision) -> Result<bool, DbError> {
    let after = &decision.batch;
    let done = sqlx::query(
        "UPDATE batch SET state = $3, loaded = $4, next_earmark = $5, doubted = $6, alarm = $7, note = $8,
                          funding_deadline = $9, final_at = $10, revision = revision + 1
         WHERE batch_id = $1 AND revision = $2",
    )
    .bind(after.id.uuid())
    .bind(before.revision)
    .bind(after.state.as_str())
    .bind(after.loaded)
    .bind(i32::try_from(after.next_earmark).map_err(DbError::corrupt)?)
    .bind(after.doubted)
    .bind(after.alarm)
    .bind(&after.note)
    .bind(after.funding_deadline.map(Timestamp::micros))
    .bind(after.final_at.map(Timestamp::micros))
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    if after.loaded && !before.batch.loaded {
        write_legs(tx, INSERT_LEGS, after.id, decision.legs.iter().collect()).await?;
    } else {
        let changed = decision.legs.iter().filter(|(participant, leg)| legs.get(*participant) != Some(leg)).collect();
        write_legs(tx, UPDATE_LEGS, after.id, changed).await?;
    }
    if matches!(after.state, BatchState::Aborted | BatchState::Recast) {
        sqlx::query("UPDATE batch_window SET released = true WHERE batch_id = $1")
            .bind(after.id.uuid())
            .execute(tx)
            .await?;
    }
    Ok(true)
}

const INSERT_LEGS: &str = "
    INSERT INTO batch_leg (batch_id, participant, net, required, reserved, cover_policy)
    SELECT $1, l.participant, l.net, greatest(-l.net, 0), l.reserved, l.cover_policy
    FROM UNNEST($2::text[], $3::numeric[], $4::numeric[], $5::text[]) AS l (participant, net, reserved, cover_policy)";

const UPDATE_LEGS: &str = "
    UPDATE batch_leg b SET reserved = l.reserved, cover_policy = l.cover_policy
    FROM UNNEST($2::text[], $3::numeric[], $4::numeric[], $5::text[]) AS l (participant, net, reserved, cover_policy)
    WHERE b.batch_id = $1 AND b.participant = l.participant";

async fn write_legs(
    tx: &mut PgConnection,
    statement: &'static str,
    batch: BatchId,
    legs: Vec<(&ParticipantId, &Leg)>,
) -> Result<(), DbError> {
    if legs.is_empty() {
        return Ok(());
    }
    let participants: Vec<&str> = legs.iter().map(|(participant, _)| participant.as_str()).collect();
    let nets: Vec<Decimal> = legs.iter().map(|(_, leg)| leg.net.to_decimal()).collect();
    let reserved: Vec<Decimal> = legs.iter().map(|(_, leg)| leg.reserved.to_decimal()).collect();
    let covers: Vec<Option<&str>> = legs.iter().map(|(_, leg)| leg.cover.map(CoverPolicy::as_str)).collect();
    let done = sqlx::query(statement)
        .bind(batch.uuid())
        .bind(&participants)
        .bind(nets)
        .bind(reserved)
        .bind(covers)
        .execute(tx)
        .await?;
    if done.rows_affected() != participants.len() as u64 {
        return Err(DbError::corrupt(format!("batch {batch} does not have the legs that it was loaded with")));
    }
    Ok(())
}

/// Which batches a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this currency only.
    pub currency: Option<Currency>,
    /// With this window only.
    pub window: Option<WindowId>,
    /// In one of these states; empty is any.
    pub states: Vec<BatchState>,
}

/// A page of batches, the newest first; `after` is the number of the last batch of the page before.
pub async fn list(pool: &PgPool, filter: &Filter, after: Option<i64>, size: i64) -> Result<Vec<Stored>, DbError> {
    let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
    let rows: Vec<BatchRow> = sqlx::query_as(select_batch!(
        "WHERE ($1::text IS NULL OR b.currency = $1)
           AND ($2::uuid IS NULL OR b.batch_id IN (SELECT w.batch_id FROM batch_window w WHERE w.window_id = $2))
           AND (cardinality($3::text[]) = 0 OR b.state = ANY($3))
           AND ($4::bigint IS NULL OR b.number < $4)
         ORDER BY b.number DESC LIMIT $5"
    ))
    .bind(filter.currency.map(|currency| currency.code().to_owned()))
    .bind(filter.window.map(WindowId::uuid))
    .bind(states)
    .bind(after)
    .bind(size)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Stored::try_from).collect()
}

fn uuids(windows: &[WindowId]) -> Vec<Uuid> {
    windows.iter().map(|window| window.uuid()).collect()
}
