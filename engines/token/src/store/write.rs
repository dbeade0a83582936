//! Writing what a batch changed: arrays, and a fixed number of statements whatever its size.

use deltran_kernel::Timestamp;
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::load::WriterState;
use super::rows::to_json;
use crate::domain::account::Sides;
use crate::domain::effects::{Effects, Record};
use crate::domain::ledger::Ledger;

/// A decided batch, ready to be written.
pub struct Batch<'a> {
    /// The ledger after the batch; its sides are what accounts are set to.
    pub ledger: &'a Ledger,
    /// What changed.
    pub effects: &'a Effects,
    /// Counters before the batch.
    pub before: WriterState,
    /// The time of the batch.
    pub at: Timestamp,
    /// Epoch of the writer's lease.
    pub epoch: i64,
}

impl Batch<'_> {
    /// Counters after the batch.
    pub fn after(&self) -> WriterState {
        WriterState {
            batch: self.before.batch + 1,
            position: self.before.position + self.effects.new.len() as i64,
            producer_epoch: self.before.producer_epoch,
            assigned: self.before.assigned + self.effects.events.len() as u64,
        }
    }

    fn records<'b>(&'b self, ids: impl Iterator<Item = &'b deltran_kernel::TransactionId>) -> Vec<&'b Record> {
        ids.filter_map(|id| self.ledger.known.transactions.get(id)).collect()
    }
}

impl Store {
    /// Writes a batch within the writer's transaction, except its events.
    ///
    /// # Errors
    /// [`DbError::Corrupt`] where an account row is not what memory says: the batch must be dropped and
    /// the ledger loaded anew.
    pub async fn write(&self, tx: &mut PgConnection, batch: &Batch<'_>) -> Result<(), DbError> {
        counters(tx, batch).await?;
        new_transactions(tx, batch).await?;
        changed_transactions(tx, batch).await?;
        postings(tx, batch.effects).await?;
        accounts(tx, batch).await?;
        windows(tx, batch.effects).await?;
        rare(tx, batch).await
    }
}

async fn counters(tx: &mut PgConnection, batch: &Batch<'_>) -> Result<(), DbError> {
    let (before, after) = (batch.before, batch.after());
    let updated = sqlx::query(
        "WITH numbers AS (UPDATE outbox_counter SET assigned = $1 WHERE assigned = $2 AND epoch = $3 RETURNING 1)
         UPDATE writer_state SET batch = $4, posting_seq = $5, position = $6, last_at = $7, epoch = $9
         WHERE batch = $8 AND EXISTS (SELECT FROM numbers)",
    )
    .bind(after.assigned as i64)
    .bind(before.assigned as i64)
    .bind(before.producer_epoch)
    .bind(after.batch)
    .bind(batch.ledger.posting_seq as i64)
    .bind(after.position)
    .bind(batch.ledger.last_at.micros())
    .bind(before.batch)
    .bind(batch.epoch)
    .execute(tx)
    .await?
    .rows_affected();
    if updated == 1 { Ok(()) } else { Err(DbError::corrupt("the writer's counters are not what memory says")) }
}

/// One array of a column, over the records of a statement.
macro_rules! column {
    ($records:ident, $type:ty, |$record:ident| $value:expr) => {
        $records.iter().map(|$record| $value).collect::<Vec<$type>>()
    };
}

fn refusal_details(records: &[&Record]) -> Result<Vec<Option<String>>, DbError> {
    records.iter().map(|r| r.refusal.as_ref().map(|refusal| to_json(&refusal.details)).transpose()).collect()
}

async fn new_transactions(tx: &mut PgConnection, batch: &Batch<'_>) -> Result<(), DbError> {
    let records = batch.records(batch.effects.new.iter());
    if records.is_empty() {
        return Ok(());
    }
    let first = batch.before.position + 1;
    let positions: Vec<i64> = (first..).take(records.len()).collect();
    let details = refusal_details(&records)?;
    sqlx::query(include_str!("insert_transactions.sql"))
        .bind(column!(records, Uuid, |r| r.instruction.id.uuid()))
        .bind(positions)
        .bind(column!(records, &str, |r| r.instruction.payer.as_str()))
        .bind(column!(records, &str, |r| r.instruction.payee.as_str()))
        .bind(column!(records, String, |r| r.instruction.amount.currency().code().to_owned()))
        .bind(column!(records, Decimal, |r| r.instruction.amount.minor().to_decimal()))
        .bind(column!(records, &str, |r| r.instruction.model.as_str()))
        .bind(column!(records, i16, |r| r.instruction.priority as i16))
        .bind(column!(records, &str, |r| r.instruction.end_to_end_id.as_str()))
        .bind(column!(records, Option<Uuid>, |r| r.instruction.uetr))
        .bind(column!(records, &str, |r| r.instruction.purpose.as_str()))
        .bind(column!(records, Option<i64>, |r| r.instruction.reserve_for))
        .bind(column!(records, Option<Uuid>, |r| r.instruction.return_of.map(|i| i.uuid())))
        .bind(column!(records, &[u8], |r| r.instruction.body_hash.as_slice()))
        .bind(column!(records, &str, |r| r.outcome_state.as_str()))
        .bind(column!(records, i64, |r| r.decided_at.micros()))
        .bind(column!(records, &str, |r| r.state.as_str()))
        .bind(column!(records, i64, |r| r.updated_at.micros()))
        .bind(column!(records, Option<Uuid>, |r| r.window.map(|w| w.0.uuid())))
        .bind(column!(records, Option<i64>, |r| r.window.map(|w| w.1 as i64)))
        .bind(column!(records, Option<i64>, |r| r.expires_at.map(|t| t.micros())))
        .bind(column!(records, Option<&str>, |r| r.refusal.as_ref().map(|f| f.code.as_str())))
        .bind(column!(records, Option<&str>, |r| r.refusal.as_ref().map(|f| f.message.as_str())))
        .bind(details)
        .bind(column!(records, Decimal, |r| r.returned.to_decimal()))
        .execute(tx)
        .await?;
    Ok(())
}

async fn changed_transactions(tx: &mut PgConnection, batch: &Batch<'_>) -> Result<(), DbError> {
    let records = batch.records(batch.effects.changed.iter());
    if records.is_empty() {
        return Ok(());
    }
    let details = refusal_details(&records)?;
    sqlx::query(
        "UPDATE transaction t SET state = c.state, updated_at = c.updated_at, window_id = c.window_id,
             window_seq = c.window_seq, expires_at = c.expires_at, refusal_code = c.code, refusal_message = c.message,
             refusal_details = c.details, returned = c.returned
         FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bigint[], $7::text[],
             $8::text[], $9::text[], $10::numeric[])
             AS c (id, state, updated_at, window_id, window_seq, expires_at, code, message, details, returned)
         WHERE t.id = c.id",
    )
    .bind(column!(records, Uuid, |r| r.instruction.id.uuid()))
    .bind(column!(records, &str, |r| r.state.as_str()))
    .bind(column!(records, i64, |r| r.updated_at.micros()))
    .bind(column!(records, Option<Uuid>, |r| r.window.map(|w| w.0.uuid())))
    .bind(column!(records, Option<i64>, |r| r.window.map(|w| w.1 as i64)))
    .bind(column!(records, Option<i64>, |r| r.expires_at.map(|t| t.micros())))
    .bind(column!(records, Option<&str>, |r| r.refusal.as_ref().map(|f| f.code.as_str())))
    .bind(column!(records, Option<&str>, |r| r.refusal.as_ref().map(|f| f.message.as_str())))
    .bind(details)
    .bind(column!(records, Decimal, |r| r.returned.to_decimal()))
    .execute(tx)
    .await?;
    Ok(())
}

async fn postings(tx: &mut PgConnection, effects: &Effects) -> Result<(), DbError> {
    let postings = &effects.postings;
    if postings.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO posting (seq, group_id, debit, credit, amount, transaction_id, posted_at)
         SELECT * FROM UNNEST($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::numeric[], $6::uuid[], $7::bigint[])",
    )
    .bind(postings.iter().map(|p| p.seq as i64).collect::<Vec<_>>())
    .bind(postings.iter().map(|p| p.group.map(|g| g.uuid())).collect::<Vec<_>>())
    .bind(postings.iter().map(|p| p.debit.to_string()).collect::<Vec<_>>())
    .bind(postings.iter().map(|p| p.credit.to_string()).collect::<Vec<_>>())
    .bind(postings.iter().map(|p| p.amount.to_decimal()).collect::<Vec<_>>())
    .bind(postings.iter().map(|p| p.transaction.map(|t| t.uuid())).collect::<Vec<_>>())
    .bind(postings.iter().map(|p| p.at.micros()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// One insert of accounts that are new, one update of those that were there, both checked against what
/// memory believes the rows to be.
async fn accounts(tx: &mut PgConnection, batch: &Batch<'_>) -> Result<(), DbError> {
    let touched = &batch.effects.accounts;
    let (old, new): (Vec<_>, Vec<_>) = touched.iter().partition(|(_, before)| before.is_some());
    let sides = |key| batch.ledger.sides(key);
    if !new.is_empty() {
        sqlx::query(
            "INSERT INTO account (name, kind, currency, participant, purpose, debits, credits)
             SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::numeric[], $7::numeric[])",
        )
        .bind(new.iter().map(|(k, _)| k.to_string()).collect::<Vec<_>>())
        .bind(new.iter().map(|(k, _)| k.kind().as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|(k, _)| k.currency().code().to_owned()).collect::<Vec<_>>())
        .bind(new.iter().map(|(k, _)| k.participant().map(|p| p.to_string())).collect::<Vec<_>>())
        .bind(new.iter().map(|(k, _)| k.purpose()).collect::<Vec<_>>())
        .bind(new.iter().map(|(k, _)| sides(**k).debits.to_decimal()).collect::<Vec<_>>())
        .bind(new.iter().map(|(k, _)| sides(**k).credits.to_decimal()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    }
    if old.is_empty() {
        return Ok(());
    }
    let before = |b: &Option<Sides>| b.unwrap_or_default();
    let updated = sqlx::query(
        "UPDATE account a SET debits = c.debits, credits = c.credits
         FROM UNNEST($1::text[], $2::numeric[], $3::numeric[], $4::numeric[], $5::numeric[])
             AS c (name, old_debits, old_credits, debits, credits)
         WHERE a.name = c.name AND a.debits = c.old_debits AND a.credits = c.old_credits",
    )
    .bind(old.iter().map(|(k, _)| k.to_string()).collect::<Vec<_>>())
    .bind(old.iter().map(|(_, b)| before(b).debits.to_decimal()).collect::<Vec<_>>())
    .bind(old.iter().map(|(_, b)| before(b).credits.to_decimal()).collect::<Vec<_>>())
    .bind(old.iter().map(|(k, _)| sides(**k).debits.to_decimal()).collect::<Vec<_>>())
    .bind(old.iter().map(|(k, _)| sides(**k).credits.to_decimal()).collect::<Vec<_>>())
    .execute(tx)
    .await?
    .rows_affected();
    if updated == old.len() as u64 {
        Ok(())
    } else {
        Err(DbError::corrupt(format!(
            "{} of {} account rows are not what memory says",
            old.len() as u64 - updated,
            old.len()
        )))
    }
}

async fn windows(tx: &mut PgConnection, effects: &Effects) -> Result<(), DbError> {
    if effects.windows.is_empty() {
        return Ok(());
    }
    // Sealed rows first: a window may be sealed and the next of its currency opened in one batch.
    let mut rows: Vec<_> = effects.windows.iter().collect();
    rows.sort_by_key(|(id, row)| (row.sealed.is_none(), **id));
    let sealed: Vec<Option<String>> =
        rows.iter().map(|(_, w)| w.sealed.as_ref().map(to_json).transpose()).collect::<Result<_, _>>()?;
    let cut = rows.iter().take_while(|(_, w)| w.sealed.is_some()).count();
    for part in [0..cut, cut..rows.len()] {
        let (rows, sealed) = (&rows[part.clone()], &sealed[part]);
        if rows.is_empty() {
            continue;
        }
        sqlx::query(
            "INSERT INTO ledger_window (id, currency, count, gross, digest, opened_at, sealed, settled_at)
             SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::numeric[], $5::bytea[], $6::bigint[],
                 $7::text[], $8::bigint[])
             ON CONFLICT (id) DO UPDATE SET count = EXCLUDED.count, gross = EXCLUDED.gross, digest = EXCLUDED.digest,
                 sealed = EXCLUDED.sealed, settled_at = EXCLUDED.settled_at",
        )
        .bind(rows.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, w)| w.currency.code().to_owned()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, w)| w.count as i64).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, w)| w.gross.to_decimal()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, w)| w.digest.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, w)| w.opened_at.micros()).collect::<Vec<_>>())
        .bind(sealed.to_vec())
        .bind(rows.iter().map(|(_, w)| w.settled_at.map(|t| t.micros())).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Participants, terms, withdrawals, commands: written only in batches that have them.
async fn rare(tx: &mut PgConnection, batch: &Batch<'_>) -> Result<(), DbError> {
    let effects = batch.effects;
    if !effects.participants.is_empty() {
        sqlx::query(
            "INSERT INTO participant (id, name, state, registered_at)
             SELECT id, name, state, $4 FROM UNNEST($1::text[], $2::text[], $3::text[]) AS p (id, name, state)
             ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, state = EXCLUDED.state",
        )
        .bind(effects.participants.keys().map(|p| p.to_string()).collect::<Vec<_>>())
        .bind(effects.participants.values().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
        .bind(effects.participants.values().map(|(_, state)| state.as_str()).collect::<Vec<_>>())
        .bind(batch.at.micros())
        .execute(&mut *tx)
        .await?;
    }
    if !effects.terms.is_empty() {
        sqlx::query(
            "INSERT INTO membership (participant, currency, cap, cover_policy, collateral)
             SELECT * FROM UNNEST($1::text[], $2::text[], $3::numeric[], $4::text[], $5::numeric[])
             ON CONFLICT (participant, currency) DO UPDATE SET cap = EXCLUDED.cap,
                 cover_policy = EXCLUDED.cover_policy, collateral = EXCLUDED.collateral",
        )
        .bind(effects.terms.keys().map(|(p, _)| p.to_string()).collect::<Vec<_>>())
        .bind(effects.terms.keys().map(|(_, c)| c.code().to_owned()).collect::<Vec<_>>())
        .bind(effects.terms.values().map(|t| t.cap.to_decimal()).collect::<Vec<_>>())
        .bind(effects.terms.values().map(|t| t.policy.as_str()).collect::<Vec<_>>())
        .bind(effects.terms.values().map(|t| t.collateral.to_decimal()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
        let history = &effects.terms_history;
        sqlx::query(
            "INSERT INTO membership_history (participant, currency, after_posting, cap, cover_policy, collateral, set_at)
             SELECT h.*, $7 FROM UNNEST($1::text[], $2::text[], $3::bigint[], $4::numeric[], $5::text[], $6::numeric[])
                 AS h (participant, currency, after_posting, cap, cover_policy, collateral)",
        )
        .bind(history.iter().map(|(p, ..)| p.to_string()).collect::<Vec<_>>())
        .bind(history.iter().map(|(_, c, ..)| c.code().to_owned()).collect::<Vec<_>>())
        .bind(history.iter().map(|(.., seq)| *seq as i64).collect::<Vec<_>>())
        .bind(history.iter().map(|(_, _, t, _)| t.cap.to_decimal()).collect::<Vec<_>>())
        .bind(history.iter().map(|(_, _, t, _)| t.policy.as_str()).collect::<Vec<_>>())
        .bind(history.iter().map(|(_, _, t, _)| t.collateral.to_decimal()).collect::<Vec<_>>())
        .bind(batch.at.micros())
        .execute(&mut *tx)
        .await?;
    }
    if !effects.withdrawals.is_empty() {
        sqlx::query(
            "INSERT INTO withdrawal (id, body_hash, participant, currency, amount, reference, state)
             SELECT * FROM UNNEST($1::uuid[], $2::bytea[], $3::text[], $4::text[], $5::numeric[], $6::text[], $7::text[])
             ON CONFLICT (id) DO UPDATE SET state = EXCLUDED.state",
        )
        .bind(effects.withdrawals.keys().map(|i| i.uuid()).collect::<Vec<_>>())
        .bind(effects.withdrawals.values().map(|w| w.hash.as_slice()).collect::<Vec<_>>())
        .bind(effects.withdrawals.values().map(|w| w.participant.to_string()).collect::<Vec<_>>())
        .bind(effects.withdrawals.values().map(|w| w.currency.code().to_owned()).collect::<Vec<_>>())
        .bind(effects.withdrawals.values().map(|w| w.amount.to_decimal()).collect::<Vec<_>>())
        .bind(effects.withdrawals.values().map(|w| w.reference.as_str()).collect::<Vec<_>>())
        .bind(effects.withdrawals.values().map(|w| w.state.as_str()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    }
    if effects.resumed {
        sqlx::query("UPDATE outbox_counter SET waits = false").execute(&mut *tx).await?;
    }
    if !effects.commands.is_empty() {
        let answers: Vec<String> = effects.commands.values().map(|c| to_json(&c.answer)).collect::<Result<_, _>>()?;
        sqlx::query(
            "INSERT INTO command (id, body_hash, answer) SELECT * FROM UNNEST($1::uuid[], $2::bytea[], $3::text[])
             ON CONFLICT (id) DO UPDATE SET answer = EXCLUDED.answer",
        )
        .bind(effects.commands.keys().copied().collect::<Vec<_>>())
        .bind(effects.commands.values().map(|c| c.hash.as_slice()).collect::<Vec<_>>())
        .bind(answers)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
