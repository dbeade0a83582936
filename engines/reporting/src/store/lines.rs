//! Reading what statements need: entries page by page, and the totals that were kept apart from them.

use deltran_kernel::{Currency, Minor, ParticipantId, Timestamp, TransactionId, WindowId};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, PgExecutor, Row};
use uuid::Uuid;

use super::{at, bigint, currency, day, minor, number, read, units};
use crate::domain::book::{Entry, EntryKind, Flow};
use crate::domain::day::Day;
use crate::domain::position::Position;

/// An entry as it is stored.
struct Stored(Entry);

impl FromRow<'_, PgRow> for Stored {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        stored(row).map(Self)
    }
}

fn stored(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let corrupt = |e: DbError| sqlx::Error::Decode(Box::new(e));
    let who = |text: Option<String>| text.map(|text| read::<ParticipantId>(&text)).transpose().map_err(corrupt);
    let window: Option<Uuid> = row.try_get("window_id")?;
    let place: Option<i64> = row.try_get("window_seq")?;
    let kind: String = row.try_get("kind")?;
    Ok(Entry {
        position: Position { epoch: row.try_get("epoch")?, seq: number(row.try_get("seq")?).map_err(corrupt)? },
        kind: EntryKind::from_word(&kind)
            .ok_or_else(|| corrupt(DbError::corrupt(format!("entry of kind {kind:?}"))))?,
        id: row.try_get("id")?,
        currency: currency(row.try_get("currency")?).map_err(corrupt)?,
        payer: who(row.try_get("payer")?)?,
        payee: who(row.try_get("payee")?)?,
        amount: units(row.try_get("amount")?).map_err(corrupt)?,
        window: match window.zip(place) {
            Some((window, place)) => Some((WindowId::new(window), number(place).map_err(corrupt)?)),
            None => None,
        },
        at: at(row.try_get("at")?),
        day: day(row.try_get("day")?).map_err(corrupt)?,
        end_to_end_id: row.try_get("end_to_end_id")?,
        uetr: row.try_get("uetr")?,
        return_of: row.try_get::<Option<Uuid>, _>("return_of")?.map(TransactionId::new),
        reference: row.try_get("reference")?,
    })
}

/// A page of a participant's payments in a window, after a place in it.
pub async fn lines_of_window(
    tx: &mut PgConnection,
    participant: ParticipantId,
    window: WindowId,
    after: u64,
    size: i64,
) -> Result<Vec<Entry>, DbError> {
    let rows: Vec<Stored> = sqlx::query_as(
        "(SELECT * FROM entry WHERE window_id = $1 AND payer = $2 AND window_seq > $3 ORDER BY window_seq LIMIT $4)
         UNION ALL
         (SELECT * FROM entry WHERE window_id = $1 AND payee = $2 AND window_seq > $3 ORDER BY window_seq LIMIT $4)
         ORDER BY window_seq LIMIT $4",
    )
    .bind(window.uuid())
    .bind(participant.as_str())
    .bind(bigint(after)?)
    .bind(size)
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// A participant's entries of a day that are in no window: which, and between which of the ledger's events.
#[derive(Debug, Clone, Copy)]
pub struct Direct {
    /// Whose.
    pub participant: ParticipantId,
    /// Of which currency.
    pub currency: Currency,
    /// Of which day.
    pub day: Day,
    /// After this event.
    pub after: Position,
    /// Up to this event, itself included.
    pub until: Position,
}

/// A page of such entries.
pub async fn lines_of_day(tx: &mut PgConnection, which: &Direct, size: i64) -> Result<Vec<Entry>, DbError> {
    let rows: Vec<Stored> = sqlx::query_as(
        "(SELECT * FROM entry WHERE payer = $1 AND currency = $2 AND day = $3 AND window_id IS NULL
            AND (epoch, seq) > ($4, $5) AND (epoch, seq) <= ($6, $7) ORDER BY epoch, seq LIMIT $8)
         UNION ALL
         (SELECT * FROM entry WHERE payee = $1 AND currency = $2 AND day = $3 AND window_id IS NULL
            AND (epoch, seq) > ($4, $5) AND (epoch, seq) <= ($6, $7) ORDER BY epoch, seq LIMIT $8)
         ORDER BY epoch, seq LIMIT $8",
    )
    .bind(which.participant.as_str())
    .bind(which.currency.code())
    .bind(which.day.number())
    .bind(which.after.epoch)
    .bind(bigint(which.after.seq)?)
    .bind(which.until.epoch)
    .bind(bigint(which.until.seq)?)
    .bind(size)
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// The sums of such entries.
pub async fn direct_totals(tx: &mut PgConnection, which: &Direct) -> Result<Flow, DbError> {
    let (paid_count, paid, received_count, received): (i64, Decimal, i64, Decimal) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE payer = $1), coalesce(sum(amount) FILTER (WHERE payer = $1), 0),
                count(*) FILTER (WHERE payee = $1), coalesce(sum(amount) FILTER (WHERE payee = $1), 0)
         FROM entry WHERE (payer = $1 OR payee = $1) AND currency = $2 AND day = $3 AND window_id IS NULL
             AND (epoch, seq) > ($4, $5) AND (epoch, seq) <= ($6, $7)",
    )
    .bind(which.participant.as_str())
    .bind(which.currency.code())
    .bind(which.day.number())
    .bind(which.after.epoch)
    .bind(bigint(which.after.seq)?)
    .bind(which.until.epoch)
    .bind(bigint(which.until.seq)?)
    .fetch_one(tx)
    .await?;
    flow(paid_count, paid, received_count, received)
}

fn flow(paid_count: i64, paid: Decimal, received_count: i64, received: Decimal) -> Result<Flow, DbError> {
    Ok(Flow {
        paid_count: number(paid_count)?,
        paid: minor(paid)?,
        received_count: number(received_count)?,
        received: minor(received)?,
    })
}

/// A participant's windows that were settled on a day, up to an event: by the event that settled them, with the time
/// of finality and what it paid and received.
pub async fn windows_of_day(
    tx: &mut PgConnection,
    which: &Direct,
) -> Result<Vec<(WindowId, Position, Timestamp, Flow)>, DbError> {
    type Settled = (Uuid, i64, i64, i64, i64, Decimal, i64, Decimal);
    let rows: Vec<Settled> = sqlx::query_as(
        "SELECT w.window_id, w.posted_epoch, w.posted_seq, w.posted_at, f.paid_count, f.paid, f.received_count, f.received
         FROM ledger_window w JOIN flow f ON f.window_id = w.window_id AND f.participant = $1
         WHERE w.currency = $2 AND w.posted_day = $3 AND (w.posted_epoch, w.posted_seq) <= ($4, $5)
         ORDER BY w.posted_epoch, w.posted_seq, w.sealed_at, w.window_id",
    )
    .bind(which.participant.as_str())
    .bind(which.currency.code())
    .bind(which.day.number())
    .bind(which.until.epoch)
    .bind(bigint(which.until.seq)?)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(id, epoch, seq, posted_at, paid_count, paid, received_count, received)| {
            let position = Position { epoch, seq: number(seq)? };
            Ok((WindowId::new(id), position, at(posted_at), flow(paid_count, paid, received_count, received)?))
        })
        .collect()
}

/// What a participant paid and received in a window.
pub async fn window_flow(tx: &mut PgConnection, participant: ParticipantId, window: WindowId) -> Result<Flow, DbError> {
    let row: Option<(i64, Decimal, i64, Decimal)> = sqlx::query_as(
        "SELECT paid_count, paid, received_count, received FROM flow WHERE window_id = $1 AND participant = $2",
    )
    .bind(window.uuid())
    .bind(participant.as_str())
    .fetch_optional(tx)
    .await?;
    row.map_or(Ok(Flow::default()), |(paid_count, paid, received_count, received)| {
        flow(paid_count, paid, received_count, received)
    })
}

/// Whether a participant's tokens changed after a day.
pub async fn moved_after(
    db: impl PgExecutor<'_>,
    participant: ParticipantId,
    currency: Currency,
    day: Day,
) -> Result<bool, DbError> {
    let moved = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM token_day WHERE participant = $1 AND currency = $2 AND day > $3)",
    );
    Ok(moved.bind(participant.as_str()).bind(currency.code()).bind(day.number()).fetch_one(db).await?)
}

/// How a participant's tokens changed before a day, and on it.
pub async fn token_change(
    db: impl PgExecutor<'_>,
    participant: ParticipantId,
    currency: Currency,
    day: Day,
) -> Result<(Minor, Minor), DbError> {
    let (before, on): (Decimal, Decimal) = sqlx::query_as(
        "SELECT coalesce(sum(change) FILTER (WHERE day < $3), 0), coalesce(sum(change) FILTER (WHERE day = $3), 0)
         FROM token_day WHERE participant = $1 AND currency = $2 AND day <= $3",
    )
    .bind(participant.as_str())
    .bind(currency.code())
    .bind(day.number())
    .fetch_one(db)
    .await?;
    Ok((minor(before)?, minor(on)?))
}
