//! What the ledger's events changed, written with arrays: a fixed number of statements, whatever the size of the batch.

use std::collections::BTreeMap;

use deltran_events::data::transactions::{SettlementModel, TransactionState};
use deltran_kernel::{ParticipantId, Timestamp, TransactionId, WindowId};
use deltran_runtime::DbError;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{bigint, currency, read, units};
use crate::domain::book::{Effects, Entry, Flow, Pending, PostedPart};

/// The stored rows of transactions that wait.
pub async fn pending_of(
    tx: &mut PgConnection,
    ids: &[TransactionId],
) -> Result<BTreeMap<TransactionId, Pending>, DbError> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    type Row = (Uuid, String, String, String, i64, String, String, String, Option<String>, Option<Uuid>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, state, payer, payee, amount, currency, model, end_to_end_id, uetr, return_of
         FROM pending WHERE id = ANY($1)",
    )
    .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(id, state, payer, payee, amount, code, model, end_to_end_id, uetr, return_of)| {
            let word = |what: &str| DbError::corrupt(format!("{what:?} is no word of a pending transaction"));
            let pending = Pending {
                state: TransactionState::from_word(&state).ok_or_else(|| word(&state))?,
                payer: read(&payer)?,
                payee: read(&payee)?,
                amount: units(amount)?,
                currency: currency(&code)?,
                model: SettlementModel::from_word(&model).ok_or_else(|| word(&model))?,
                end_to_end_id,
                uetr,
                return_of: return_of.map(TransactionId::new),
            };
            Ok((TransactionId::new(id), pending))
        })
        .collect()
}

/// Writes what a batch of the ledger's events changed. `producer` is that of the last of them.
pub async fn apply(tx: &mut PgConnection, producer: &str, effects: &Effects) -> Result<(), DbError> {
    entries(tx, &effects.entries).await?;
    windows(tx, effects).await?;
    flows(tx, &effects.flows).await?;
    movements(tx, effects).await?;
    days(tx, effects).await?;
    pending(tx, effects).await?;
    for part in &effects.posted {
        posted(tx, part).await?;
    }
    participants(tx, effects).await?;
    if let Some(last_at) = effects.last_at {
        applied_at(tx, producer, last_at).await?;
    }
    Ok(())
}

/// Notes when the last applied event of a producer happened.
pub(super) async fn applied_at(tx: &mut PgConnection, producer: &str, last_at: Timestamp) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO applied AS a (producer, last_at) VALUES ($1, $2)
         ON CONFLICT (producer) DO UPDATE SET last_at = greatest(a.last_at, EXCLUDED.last_at)",
    )
    .bind(producer)
    .bind(last_at.micros())
    .execute(tx)
    .await?;
    Ok(())
}

/// One array of a column, over the rows of a statement.
macro_rules! column {
    ($rows:expr, |$row:pat_param| $value:expr) => {
        $rows.iter().map(|$row| $value).collect::<Vec<_>>()
    };
}

async fn entries(tx: &mut PgConnection, entries: &[Entry]) -> Result<(), DbError> {
    if entries.is_empty() {
        return Ok(());
    }
    let seqs = entries.iter().map(|e| bigint(e.position.seq)).collect::<Result<Vec<i64>, _>>()?;
    let amounts = entries.iter().map(|e| bigint(e.amount.units())).collect::<Result<Vec<i64>, _>>()?;
    let places = entries.iter().map(|e| e.window.map(|w| bigint(w.1)).transpose()).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "INSERT INTO entry (epoch, seq, kind, id, currency, payer, payee, amount, window_id, window_seq, at, day,
                            end_to_end_id, uetr, return_of, reference)
         SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[],
             $8::bigint[], $9::uuid[], $10::bigint[], $11::bigint[], $12::integer[], $13::text[], $14::text[],
             $15::uuid[], $16::text[])",
    )
    .bind(column!(entries, |e| e.position.epoch))
    .bind(seqs)
    .bind(column!(entries, |e| e.kind.as_str()))
    .bind(column!(entries, |e| e.id))
    .bind(column!(entries, |e| e.currency.code()))
    .bind(column!(entries, |e| e.payer.as_ref().map(ParticipantId::as_str)))
    .bind(column!(entries, |e| e.payee.as_ref().map(ParticipantId::as_str)))
    .bind(amounts)
    .bind(column!(entries, |e| e.window.map(|w| w.0.uuid())))
    .bind(places)
    .bind(column!(entries, |e| e.at.micros()))
    .bind(column!(entries, |e| e.day.number()))
    .bind(column!(entries, |e| e.end_to_end_id.as_str()))
    .bind(column!(entries, |e| e.uetr.as_deref()))
    .bind(column!(entries, |e| e.return_of.map(TransactionId::uuid)))
    .bind(column!(entries, |e| e.reference.as_str()))
    .execute(tx)
    .await?;
    Ok(())
}

async fn windows(tx: &mut PgConnection, effects: &Effects) -> Result<(), DbError> {
    let tallies: Vec<_> = effects.tallies.iter().collect();
    if !tallies.is_empty() {
        let counts = tallies.iter().map(|(_, t)| bigint(t.count)).collect::<Result<Vec<i64>, _>>()?;
        let done = sqlx::query(
            "INSERT INTO ledger_window AS w (window_id, currency, count, gross)
             SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::numeric[])
             ON CONFLICT (window_id) DO UPDATE SET count = w.count + EXCLUDED.count, gross = w.gross + EXCLUDED.gross
             WHERE w.currency = EXCLUDED.currency",
        )
        .bind(column!(tallies, |(id, _)| id.uuid()))
        .bind(column!(tallies, |(_, t)| t.currency.code()))
        .bind(counts)
        .bind(column!(tallies, |(_, t)| t.gross.to_decimal()))
        .execute(&mut *tx)
        .await?;
        same_rows(done.rows_affected(), tallies.len(), "a payment's currency is not that of its window")?;
    }
    let sealed = &effects.sealed;
    if !sealed.is_empty() {
        let counts = sealed.iter().map(|s| bigint(s.count)).collect::<Result<Vec<i64>, _>>()?;
        let done = sqlx::query(
            "INSERT INTO ledger_window AS w (window_id, currency, sealed_count, sealed_gross, sealed_digest, sealed_at)
             SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::numeric[], $5::text[], $6::bigint[])
             ON CONFLICT (window_id) DO UPDATE SET sealed_count = EXCLUDED.sealed_count,
                 sealed_gross = EXCLUDED.sealed_gross, sealed_digest = EXCLUDED.sealed_digest,
                 sealed_at = EXCLUDED.sealed_at
             WHERE w.sealed_at IS NULL AND w.currency = EXCLUDED.currency",
        )
        .bind(column!(sealed, |s| s.window.uuid()))
        .bind(column!(sealed, |s| s.currency.code()))
        .bind(counts)
        .bind(column!(sealed, |s| s.gross.to_decimal()))
        .bind(column!(sealed, |s| s.digest.as_str()))
        .bind(column!(sealed, |s| s.at.micros()))
        .execute(tx)
        .await?;
        same_rows(done.rows_affected(), sealed.len(), "a window was sealed twice, or in another currency")?;
    }
    Ok(())
}

fn same_rows(written: u64, expected: usize, otherwise: &str) -> Result<(), DbError> {
    if written == expected as u64 { Ok(()) } else { Err(DbError::corrupt(otherwise)) }
}

async fn flows(tx: &mut PgConnection, flows: &BTreeMap<(WindowId, ParticipantId), Flow>) -> Result<(), DbError> {
    if flows.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = flows.iter().collect();
    let paid = rows.iter().map(|(_, f)| bigint(f.paid_count)).collect::<Result<Vec<i64>, _>>()?;
    let received = rows.iter().map(|(_, f)| bigint(f.received_count)).collect::<Result<Vec<i64>, _>>()?;
    sqlx::query(
        "INSERT INTO flow AS f (window_id, participant, paid_count, paid, received_count, received)
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::numeric[], $5::bigint[], $6::numeric[])
         ON CONFLICT (window_id, participant) DO UPDATE SET
             paid_count = f.paid_count + EXCLUDED.paid_count, paid = f.paid + EXCLUDED.paid,
             received_count = f.received_count + EXCLUDED.received_count, received = f.received + EXCLUDED.received",
    )
    .bind(column!(rows, |((window, _), _)| window.uuid()))
    .bind(column!(rows, |((_, who), _)| who.as_str()))
    .bind(paid)
    .bind(column!(rows, |(_, f)| f.paid.to_decimal()))
    .bind(received)
    .bind(column!(rows, |(_, f)| f.received.to_decimal()))
    .execute(tx)
    .await?;
    Ok(())
}

async fn movements(tx: &mut PgConnection, effects: &Effects) -> Result<(), DbError> {
    let moved = &effects.movements;
    if moved.is_empty() {
        return Ok(());
    }
    let seqs = moved.iter().map(|m| bigint(m.position.seq)).collect::<Result<Vec<i64>, _>>()?;
    // Numbered within each event.
    let mut numbers: Vec<i32> = Vec::with_capacity(moved.len());
    for (at, movement) in moved.iter().enumerate() {
        let again = at > 0 && moved[at - 1].position == movement.position;
        numbers.push(if again { numbers[at - 1] + 1 } else { 1 });
    }
    sqlx::query(
        "INSERT INTO movement (epoch, seq, n, currency, account, participant, change)
         SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::numeric[])",
    )
    .bind(column!(moved, |m| m.position.epoch))
    .bind(seqs)
    .bind(numbers)
    .bind(column!(moved, |m| m.account.0.code()))
    .bind(column!(moved, |m| m.account.1.as_str()))
    .bind(column!(moved, |m| m.account.2.as_ref().map(ParticipantId::as_str)))
    .bind(column!(moved, |m| m.change.to_decimal()))
    .execute(&mut *tx)
    .await?;
    let sums: Vec<_> = effects.balances.iter().collect();
    sqlx::query(
        "INSERT INTO balance AS b (currency, account, participant, balance)
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::numeric[])
         ON CONFLICT (currency, account, participant) DO UPDATE SET balance = b.balance + EXCLUDED.balance",
    )
    .bind(column!(sums, |((currency, ..), _)| currency.code()))
    .bind(column!(sums, |((_, account, _), _)| account.as_str()))
    .bind(column!(sums, |((_, _, who), _)| who.as_ref().map_or("", ParticipantId::as_str)))
    .bind(column!(sums, |(_, sum)| sum.to_decimal()))
    .execute(tx)
    .await?;
    Ok(())
}

async fn days(tx: &mut PgConnection, effects: &Effects) -> Result<(), DbError> {
    let rows: Vec<_> = effects.days.iter().collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO token_day AS d (participant, currency, day, change)
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::integer[], $4::numeric[])
         ON CONFLICT (participant, currency, day) DO UPDATE SET change = d.change + EXCLUDED.change",
    )
    .bind(column!(rows, |((who, ..), _)| who.as_str()))
    .bind(column!(rows, |((_, currency, _), _)| currency.code()))
    .bind(column!(rows, |((.., day), _)| day.number()))
    .bind(column!(rows, |(_, change)| change.to_decimal()))
    .execute(tx)
    .await?;
    Ok(())
}

async fn pending(tx: &mut PgConnection, effects: &Effects) -> Result<(), DbError> {
    if !effects.ended.is_empty() {
        let ended = sqlx::query("DELETE FROM pending WHERE id = ANY($1)")
            .bind(column!(effects.ended, |id| id.uuid()))
            .execute(&mut *tx)
            .await?;
        same_rows(ended.rows_affected(), effects.ended.len(), "a pending transaction is gone")?;
    }
    let rows: Vec<_> = effects.pending.iter().collect();
    if rows.is_empty() {
        return Ok(());
    }
    let amounts = rows.iter().map(|(_, p)| bigint(p.amount.units())).collect::<Result<Vec<i64>, _>>()?;
    sqlx::query(
        "INSERT INTO pending (id, state, payer, payee, amount, currency, model, end_to_end_id, uetr, return_of)
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[],
             $8::text[], $9::text[], $10::uuid[])",
    )
    .bind(column!(rows, |(id, _)| id.uuid()))
    .bind(column!(rows, |(_, p)| p.state.as_str()))
    .bind(column!(rows, |(_, p)| p.payer.as_str()))
    .bind(column!(rows, |(_, p)| p.payee.as_str()))
    .bind(amounts)
    .bind(column!(rows, |(_, p)| p.currency.code()))
    .bind(column!(rows, |(_, p)| p.model.as_str()))
    .bind(column!(rows, |(_, p)| p.end_to_end_id.as_str()))
    .bind(column!(rows, |(_, p)| p.uetr.as_deref()))
    .bind(column!(rows, |(_, p)| p.return_of.map(TransactionId::uuid)))
    .execute(tx)
    .await?;
    Ok(())
}

async fn posted(tx: &mut PgConnection, part: &PostedPart) -> Result<(), DbError> {
    let windows: Vec<Uuid> = column!(part.windows, |w| w.uuid());
    let parts = i32::try_from(part.parts).map_err(DbError::corrupt)?;
    let whole: Option<bool> = sqlx::query_scalar(
        "INSERT INTO posted_group AS g (group_id, currency, window_ids, parts, received, posted_at)
         VALUES ($1, $2, $3, $4, 1, $5)
         ON CONFLICT (group_id) DO UPDATE SET received = g.received + 1
         WHERE g.window_ids = EXCLUDED.window_ids AND g.parts = EXCLUDED.parts AND g.received < g.parts
         RETURNING received = parts",
    )
    .bind(part.group.uuid())
    .bind(part.currency.code())
    .bind(&windows)
    .bind(parts)
    .bind(part.posted_at.micros())
    .fetch_optional(&mut *tx)
    .await?;
    let what = format!("settlement {} was posted in other parts than it said", part.group);
    let whole = whole.ok_or_else(|| DbError::corrupt(what))?;
    sqlx::query(
        "INSERT INTO settled_leg (group_id, participant, net, given_back)
         SELECT $1, * FROM UNNEST($2::text[], $3::numeric[], $4::numeric[])",
    )
    .bind(part.group.uuid())
    .bind(column!(part.legs, |(who, ..)| who.as_str()))
    .bind(column!(part.legs, |(_, net, _)| net.to_decimal()))
    .bind(column!(part.legs, |(.., back)| back.to_decimal()))
    .execute(&mut *tx)
    .await?;
    if !whole {
        return Ok(());
    }
    let done = sqlx::query(
        "UPDATE ledger_window SET group_id = $2, posted_epoch = $3, posted_seq = $4, posted_at = $5, posted_day = $6
         WHERE window_id = ANY($1) AND group_id IS NULL AND sealed_at IS NOT NULL",
    )
    .bind(&windows)
    .bind(part.group.uuid())
    .bind(part.position.epoch)
    .bind(bigint(part.position.seq)?)
    .bind(part.posted_at.micros())
    .bind(part.day.number())
    .execute(tx)
    .await?;
    same_rows(done.rows_affected(), windows.len(), "a window was settled twice, or before it was sealed")
}

async fn participants(tx: &mut PgConnection, effects: &Effects) -> Result<(), DbError> {
    let states: Vec<_> = effects.participants.iter().collect();
    if !states.is_empty() {
        sqlx::query(
            "INSERT INTO participant (id, state) SELECT * FROM UNNEST($1::text[], $2::text[])
             ON CONFLICT (id) DO UPDATE SET state = EXCLUDED.state",
        )
        .bind(column!(states, |(who, _)| who.as_str()))
        .bind(column!(states, |(_, state)| **state))
        .execute(&mut *tx)
        .await?;
    }
    let members: Vec<_> = effects.memberships.iter().collect();
    if !members.is_empty() {
        sqlx::query(
            "INSERT INTO membership (participant, currency) SELECT * FROM UNNEST($1::text[], $2::text[])
             ON CONFLICT DO NOTHING",
        )
        .bind(column!(members, |(who, _)| who.as_str()))
        .bind(column!(members, |(_, currency)| currency.code()))
        .execute(tx)
        .await?;
    }
    Ok(())
}
