//! What a batch of commands needs to know from storage, with one statement per kind.

use std::collections::BTreeSet;

use deltran_kernel::{Timestamp, TransactionId, WindowId, WithdrawalId};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::rows::{StoredTransaction, count, hash, json, minor, text, word};
use crate::domain::command::{Command, WithdrawalState};
use crate::domain::effects::{CommandRow, WindowRow, WithdrawalRow};
use crate::domain::ledger::{Known, Ledger};

/// Ids that a batch names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    transactions: BTreeSet<Uuid>,
    windows: BTreeSet<Uuid>,
    withdrawals: BTreeSet<Uuid>,
    commands: BTreeSet<Uuid>,
}

impl Wanted {
    /// Everything that these commands name, and reservations that run out by `now`.
    pub fn by<'a>(commands: impl Iterator<Item = &'a Command>, ledger: &Ledger, now: Timestamp) -> Self {
        let mut wanted = Self::default();
        let due = ledger.expiries.iter().take_while(|e| e.at <= now).map(|e| e.id.uuid());
        wanted.transactions.extend(due);
        for command in commands {
            match command {
                Command::Submit { instruction, .. } => {
                    wanted.transactions.insert(instruction.id.uuid());
                    wanted.transactions.extend(instruction.return_of.map(TransactionId::uuid));
                }
                Command::Commit { id, .. } | Command::Cancel { id, .. } | Command::Release { id, .. } => {
                    wanted.transactions.insert(id.uuid());
                }
                Command::RequestWithdrawal { id, .. } | Command::EndWithdrawal { id, .. } => {
                    wanted.withdrawals.insert(id.uuid());
                }
                Command::Deposit { id, .. }
                | Command::Register { id, .. }
                | Command::SetState { id, .. }
                | Command::EnableCurrency { id, .. }
                | Command::SetCollateral { id, .. }
                | Command::SetLimit { id, .. }
                | Command::Resume { id, .. } => {
                    wanted.commands.insert(id.uuid());
                }
                Command::OpenWindow { id, .. } => {
                    wanted.windows.insert(id.uuid());
                }
                Command::SealWindow { id, next, .. } => {
                    wanted.windows.insert(id.uuid());
                    wanted.windows.extend(next.map(WindowId::uuid));
                }
                Command::Earmark { group, windows, .. } | Command::Settle { group, windows, .. } => {
                    wanted.commands.insert(group.uuid());
                    wanted.windows.extend(windows.iter().map(|w| w.uuid()));
                }
                Command::ExpireDue => {}
            }
        }
        wanted
    }
}

const TRANSACTIONS: &str = "SELECT id, position, payer, payee, currency, amount, model, priority, end_to_end_id, uetr,
    purpose, reserve_for, return_of, body_hash, outcome_state, decided_at, state, updated_at, window_id, window_seq,
    expires_at, refusal_code, refusal_message, refusal_details, returned
    FROM transaction WHERE id = ANY($1)";

impl Store {
    /// Reads what is wanted: at most one statement per kind of thing.
    pub async fn prefetch(&self, tx: &mut PgConnection, wanted: &Wanted) -> Result<Known, DbError> {
        let list = |set: &BTreeSet<Uuid>| set.iter().copied().collect::<Vec<_>>();
        let mut known = Known::default();
        if !wanted.transactions.is_empty() {
            let rows: Vec<StoredTransaction> =
                sqlx::query_as(TRANSACTIONS).bind(list(&wanted.transactions)).fetch_all(&mut *tx).await?;
            for row in rows {
                let record = row.record()?;
                known.transactions.insert(record.instruction.id, record);
            }
        }
        if !wanted.commands.is_empty() {
            let rows: Vec<(Uuid, Vec<u8>, String)> =
                sqlx::query_as("SELECT id, body_hash, answer FROM command WHERE id = ANY($1)")
                    .bind(list(&wanted.commands))
                    .fetch_all(&mut *tx)
                    .await?;
            for (id, body_hash, answer) in rows {
                known.commands.insert(id, CommandRow { hash: hash(body_hash)?, answer: json("answer", &answer)? });
            }
        }
        if !wanted.windows.is_empty() {
            known.windows = windows(tx, list(&wanted.windows)).await?;
        }
        if !wanted.withdrawals.is_empty() {
            known.withdrawals = withdrawals(tx, list(&wanted.withdrawals)).await?;
        }
        Ok(known)
    }

    /// One transaction, outside of a batch.
    pub async fn transaction(&self, id: TransactionId) -> Result<Option<crate::domain::effects::Record>, DbError> {
        let row: Option<StoredTransaction> =
            sqlx::query_as(TRANSACTIONS).bind(vec![id.uuid()]).fetch_optional(self.db.pool()).await?;
        row.map(StoredTransaction::record).transpose()
    }
}

async fn windows(
    tx: &mut PgConnection,
    ids: Vec<Uuid>,
) -> Result<std::collections::BTreeMap<WindowId, WindowRow>, DbError> {
    type Row = (Uuid, String, i64, Decimal, Vec<u8>, i64, Option<String>, Option<i64>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, currency, count, gross, digest, opened_at, sealed, settled_at FROM ledger_window WHERE id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(id, currency, number, gross, digest, opened_at, sealed, settled_at)| {
            let row = WindowRow {
                currency: text("currency", &currency)?,
                count: count(number)?,
                gross: minor(gross)?,
                digest,
                opened_at: Timestamp::from_micros(opened_at),
                sealed: sealed.map(|s| json("control totals", &s)).transpose()?,
                settled_at: settled_at.map(Timestamp::from_micros),
            };
            Ok((WindowId::new(id), row))
        })
        .collect()
}

async fn withdrawals(
    tx: &mut PgConnection,
    ids: Vec<Uuid>,
) -> Result<std::collections::BTreeMap<WithdrawalId, WithdrawalRow>, DbError> {
    type Row = (Uuid, Vec<u8>, String, String, Decimal, String, String);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, body_hash, participant, currency, amount, reference, state FROM withdrawal WHERE id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(id, body_hash, participant, currency, amount, reference, state)| {
            let row = WithdrawalRow {
                hash: hash(body_hash)?,
                participant: text("participant", &participant)?,
                currency: text("currency", &currency)?,
                amount: minor(amount)?,
                reference,
                state: word("withdrawal state", &state, WithdrawalState::from_word)?,
            };
            Ok((WithdrawalId::new(id), row))
        })
        .collect()
}
