//! Rebuilding the ledger in memory, when this process takes the writer's lease.

use deltran_kernel::{Timestamp, TransactionId, WindowId};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::rows::{account, count, json, minor, text, word};
use crate::domain::account::{AccountKey, Sides};
use crate::domain::command::ParticipantState;
use crate::domain::effects::Terms;
use crate::domain::ledger::{Expiry, Ledger, Membership, Participant, Window};
use deltran_events::data::transactions::CoverPolicy;

/// The writer's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterState {
    /// Number of the last batch that was committed.
    pub batch: i64,
    /// Position of the last transaction.
    pub position: i64,
    /// Epoch of the producer.
    pub producer_epoch: i64,
    /// Last event number given out.
    pub assigned: u64,
}

impl Store {
    /// Number of the last batch that was committed, and the epoch of its writer: tells whether a COMMIT
    /// of unknown outcome took effect.
    pub async fn last_batch(&self) -> Result<(i64, i64), DbError> {
        Ok(sqlx::query_as("SELECT batch, epoch FROM writer_state").fetch_one(self.db.pool()).await?)
    }

    /// The producer's epoch and the number of the last event. Waits for a COMMIT that is under way, also for
    /// one whose answer was lost.
    pub async fn last_event(tx: &mut PgConnection) -> Result<(i64, u64), DbError> {
        let (epoch, assigned): (i64, i64) =
            sqlx::query_as("SELECT epoch, assigned FROM outbox_counter FOR SHARE").fetch_one(tx).await?;
        Ok((epoch, count(assigned)?))
    }

    /// The ledger as of the last commit, and the writer's counters, in one snapshot.
    pub async fn load(&self) -> Result<(Ledger, WriterState), DbError> {
        let mut tx = self.db.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
        let mut ledger = Ledger::default();
        let state = load_counters(&mut tx, &mut ledger).await?;
        load_participants(&mut tx, &mut ledger).await?;
        load_windows(&mut tx, &mut ledger).await?;
        load_accounts(&mut tx, &mut ledger).await?;
        load_reservations(&mut tx, &mut ledger).await?;
        let keys: Vec<_> = ledger.memberships.keys().copied().collect();
        for (participant, currency) in keys {
            let debit = ledger.sealed_debit_of(participant, currency);
            let unfunded = ledger.unfunded_of(participant, currency);
            if let Some(membership) = ledger.memberships.get_mut(&(participant, currency)) {
                membership.sealed_debit = debit;
                membership.unfunded = unfunded;
            }
        }
        tx.commit().await?;
        Ok((ledger, state))
    }
}

async fn load_counters(tx: &mut PgConnection, ledger: &mut Ledger) -> Result<WriterState, DbError> {
    type Row = (i64, i64, i64, i64, i64, i64, bool);
    let (batch, posting_seq, position, last_at, producer_epoch, assigned, waits): Row = sqlx::query_as(
        "SELECT w.batch, w.posting_seq, w.position, w.last_at, c.epoch, c.assigned, c.waits
         FROM writer_state w, outbox_counter c",
    )
    .fetch_one(tx)
    .await?;
    ledger.waits = waits;
    ledger.posting_seq = count(posting_seq)?;
    ledger.last_at = Timestamp::from_micros(last_at);
    Ok(WriterState { batch, position, producer_epoch, assigned: count(assigned)? })
}

async fn load_participants(tx: &mut PgConnection, ledger: &mut Ledger) -> Result<(), DbError> {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("SELECT id, name, state FROM participant").fetch_all(&mut *tx).await?;
    for (id, name, state) in rows {
        let state = word("participant state", &state, ParticipantState::from_word)?;
        ledger.participants.insert(text("participant", &id)?, Participant { name, state });
    }
    let rows: Vec<(String, String, Decimal, String, Decimal)> =
        sqlx::query_as("SELECT participant, currency, cap, cover_policy, collateral FROM membership")
            .fetch_all(tx)
            .await?;
    for (participant, currency, cap, policy, collateral) in rows {
        let terms = Terms {
            cap: minor(cap)?,
            policy: word("cover policy", &policy, CoverPolicy::from_word)?,
            collateral: minor(collateral)?,
        };
        let key = (text("participant", &participant)?, text("currency", &currency)?);
        ledger.memberships.insert(key, Membership { terms, ..Membership::new() });
    }
    Ok(())
}

async fn load_windows(tx: &mut PgConnection, ledger: &mut Ledger) -> Result<(), DbError> {
    type Row = (Uuid, String, i64, Decimal, Vec<u8>, i64, Option<String>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, currency, count, gross, digest, opened_at, sealed FROM ledger_window WHERE settled_at IS NULL",
    )
    .fetch_all(tx)
    .await?;
    for (id, currency, number, gross, digest, opened_at, sealed) in rows {
        let id = WindowId::new(id);
        let currency = text("currency", &currency)?;
        let mut window = Window::new(currency, Timestamp::from_micros(opened_at));
        window.count = count(number)?;
        window.gross = minor(gross)?;
        window.digest = running_digest(&digest)?;
        window.sealed = sealed.map(|s| json("control totals", &s)).transpose()?;
        if window.sealed.is_none() {
            ledger.open.insert(currency, id);
        }
        ledger.windows.insert(id, window);
    }
    Ok(())
}

fn running_digest(stored: &[u8]) -> Result<Sha256, DbError> {
    let state = SerializedState::<Sha256>::try_from(stored)
        .map_err(|_| DbError::corrupt("a window's running digest has not its length"))?;
    Sha256::deserialize(&state).map_err(|_| DbError::corrupt("a window's running digest cannot be read"))
}

/// Accounts that can still move: the hub's, SETTLEMENT, and those of purposes that have not ended.
async fn load_accounts(tx: &mut PgConnection, ledger: &mut Ledger) -> Result<(), DbError> {
    type Row = (String, String, Option<String>, Option<Uuid>, Decimal, Decimal);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT kind, currency, participant, purpose, debits, credits FROM account
         WHERE purpose IS NULL OR debits <> credits OR purpose IN (SELECT id FROM ledger_window WHERE settled_at IS NULL)",
    )
    .fetch_all(tx)
    .await?;
    for (kind, currency, participant, purpose, debits, credits) in rows {
        let key = account(&kind, &currency, participant, purpose)?;
        ledger.accounts.insert(key, Sides { debits: minor(debits)?, credits: minor(credits)? });
        if let AccountKey::Position(participant, _, window) = key
            && let Some(window) = ledger.windows.get_mut(&window)
        {
            window.members.insert(participant);
        }
    }
    Ok(())
}

async fn load_reservations(tx: &mut PgConnection, ledger: &mut Ledger) -> Result<(), DbError> {
    type Row = (Uuid, String, String, Decimal, String, Option<i64>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, payer, currency, amount, model, expires_at FROM transaction WHERE state = 'RESERVED'",
    )
    .fetch_all(tx)
    .await?;
    for (id, payer, currency, amount, model, expires_at) in rows {
        let key = (text("payer", &payer)?, text("currency", &currency)?);
        if model != "GROSS"
            && let Some(membership) = ledger.memberships.get_mut(&key)
        {
            membership.net_holds = membership.net_holds.add(minor(amount)?).map_err(DbError::corrupt)?;
        }
        if let Some(at) = expires_at {
            ledger.expiries.insert(Expiry { at: Timestamp::from_micros(at), id: TransactionId::new(id) });
        }
    }
    Ok(())
}
