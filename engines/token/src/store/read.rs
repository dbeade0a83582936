//! Lists and balances, read from committed rows and never from the writer's memory.

use deltran_events::data::transactions::{CoverPolicy, TransactionState};
use deltran_kernel::{Currency, Minor, ParticipantId, Timestamp, TransactionId, WindowId, WithdrawalId};
use deltran_runtime::DbError;
use deltran_runtime::wire::PageOf;
use rust_decimal::Decimal;
use uuid::Uuid;

use super::Store;
use super::rows::{StoredTransaction, account, count, minor, text, word};
use crate::domain::account::{AccountKey, Sides};
use crate::domain::command::ParticipantState;
use crate::domain::effects::{Record, Terms};

/// Which transactions a list shows.
#[derive(Debug, Clone, Default)]
pub struct TransactionFilter {
    /// Paid or received by this participant.
    pub participant: Option<ParticipantId>,
    /// In this window.
    pub window: Option<WindowId>,
    /// In this state.
    pub state: Option<TransactionState>,
    /// With this reference.
    pub end_to_end_id: Option<String>,
}

/// A transaction with what is derived for it.
#[derive(Debug, Clone)]
pub struct TransactionRow {
    /// Place in the order of decision; key of the list.
    pub position: i64,
    /// The transaction.
    pub record: Record,
    /// Whether it is final: GROSS, or its window is settled.
    pub settled: bool,
}

/// A posting as listed.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns of `posting`")]
pub struct PostingRow {
    pub seq: i64,
    pub group_id: Option<Uuid>,
    pub debit: String,
    pub credit: String,
    pub amount: Decimal,
    pub transaction_id: Option<Uuid>,
    pub posted_at: i64,
}

/// What a participant has in a currency.
#[derive(Debug, Clone)]
pub struct BalanceRow {
    /// Whose.
    pub participant: ParticipantId,
    /// Of which currency.
    pub currency: Currency,
    /// Its terms.
    pub terms: Terms,
    /// NET holds.
    pub net_holds: Minor,
    /// Its accounts that are not zero.
    pub accounts: Vec<(AccountKey, Sides)>,
}

/// Balances at one moment.
#[derive(Debug, Clone)]
pub struct Balances {
    /// Of participants, by participant and currency.
    pub rows: Vec<BalanceRow>,
    /// The hub's accounts.
    pub hub: Vec<(AccountKey, Sides)>,
    /// The epoch of the ledger's events.
    pub epoch: i64,
    /// The number of the last event then.
    pub assigned: u64,
}

impl Store {
    /// A page of transactions, in order of decision.
    pub async fn transactions(
        &self,
        filter: &TransactionFilter,
        page: &PageOf<i64>,
    ) -> Result<Vec<TransactionRow>, DbError> {
        let rows: Vec<StoredTransaction> = sqlx::query_as(include_str!("list_transactions.sql"))
            .bind(page.after.unwrap_or(0))
            .bind(filter.participant.map(|p| p.to_string()))
            .bind(filter.window.map(WindowId::uuid))
            .bind(filter.state.map(|s| s.as_str()))
            .bind(filter.end_to_end_id.as_deref())
            .bind(page.size)
            .fetch_all(self.db.pool())
            .await?;
        let mut listed = Vec::with_capacity(rows.len());
        for row in rows {
            let position = row.position;
            listed.push((position, row.record()?));
        }
        let settled = self.settled_windows(listed.iter().filter_map(|(_, r)| r.window.map(|w| w.0))).await?;
        Ok(listed
            .into_iter()
            .map(|(position, record)| {
                let settled = is_settled(&record, &settled);
                TransactionRow { position, record, settled }
            })
            .collect())
    }

    /// One transaction with what is derived for it.
    pub async fn transaction_row(&self, id: TransactionId) -> Result<Option<TransactionRow>, DbError> {
        let Some(record) = self.transaction(id).await? else { return Ok(None) };
        let settled = self.settled_windows(record.window.map(|w| w.0).into_iter()).await?;
        let settled = is_settled(&record, &settled);
        Ok(Some(TransactionRow { position: 0, record, settled }))
    }

    async fn settled_windows(&self, ids: impl Iterator<Item = WindowId>) -> Result<Vec<WindowId>, DbError> {
        let mut ids: Vec<Uuid> = ids.map(WindowId::uuid).collect();
        ids.sort();
        ids.dedup();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<Uuid> =
            sqlx::query_scalar("SELECT id FROM ledger_window WHERE settled_at IS NOT NULL AND id = ANY($1)")
                .bind(ids)
                .fetch_all(self.db.pool())
                .await?;
        Ok(rows.into_iter().map(WindowId::new).collect())
    }

    /// A page of postings, oldest first. A participant sees those of its own accounts.
    pub async fn postings(
        &self,
        participant: Option<ParticipantId>,
        currency: Option<Currency>,
        transaction: Option<TransactionId>,
        page: &PageOf<i64>,
    ) -> Result<Vec<PostingRow>, DbError> {
        Ok(sqlx::query_as(
            "SELECT seq, group_id, debit, credit, amount, transaction_id, posted_at FROM posting
             WHERE seq > $1
               AND ($2::text IS NULL OR split_part(debit, ':', 2) = $2 OR split_part(credit, ':', 2) = $2)
               AND ($3::text IS NULL OR $3 = ANY(string_to_array(debit, ':')))
               AND ($4::uuid IS NULL OR transaction_id = $4)
             ORDER BY seq LIMIT $5",
        )
        .bind(page.after.unwrap_or(0))
        .bind(participant.map(|p| p.to_string()))
        .bind(currency.map(|c| c.code().to_owned()))
        .bind(transaction.map(TransactionId::uuid))
        .bind(page.size)
        .fetch_all(self.db.pool())
        .await?)
    }

    /// Balances of participants, and the hub's accounts.
    pub async fn balances(
        &self,
        participant: Option<ParticipantId>,
        currency: Option<Currency>,
    ) -> Result<Balances, DbError> {
        let (p, c) = (participant.map(|p| p.to_string()), currency.map(|c| c.code().to_owned()));
        let mut tx = self.db.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
        type Terms5 = (String, String, Decimal, String, Decimal, Decimal);
        let members: Vec<Terms5> = sqlx::query_as(
            "SELECT m.participant, m.currency, m.cap, m.cover_policy, m.collateral,
                 COALESCE((SELECT sum(amount) FROM transaction t WHERE t.state = 'RESERVED' AND t.model <> 'GROSS'
                     AND t.payer = m.participant AND t.currency = m.currency), 0)
             FROM membership m
             WHERE ($1::text IS NULL OR m.participant = $1) AND ($2::text IS NULL OR m.currency = $2)
             ORDER BY m.participant, m.currency",
        )
        .bind(p.as_deref())
        .bind(c.as_deref())
        .fetch_all(&mut *tx)
        .await?;
        type Account = (String, String, Option<String>, Option<Uuid>, Decimal, Decimal);
        let accounts: Vec<Account> = sqlx::query_as(
            "SELECT kind, currency, participant, purpose, debits, credits FROM account
             WHERE (participant IS NULL OR $1::text IS NULL OR participant = $1) AND ($2::text IS NULL OR currency = $2)
               AND (debits <> credits OR participant IS NULL)
             ORDER BY name",
        )
        .bind(p.as_deref())
        .bind(c.as_deref())
        .fetch_all(&mut *tx)
        .await?;
        // Written by every batch with its events, so that the same snapshot tells after which event it stands.
        let (epoch, assigned): (i64, i64) =
            sqlx::query_as("SELECT epoch, assigned FROM outbox_counter").fetch_one(&mut *tx).await?;
        tx.commit().await?;
        let mut keyed = Vec::with_capacity(accounts.len());
        for (kind, currency, participant, purpose, debits, credits) in accounts {
            let sides = Sides { debits: minor(debits)?, credits: minor(credits)? };
            keyed.push((account(&kind, &currency, participant, purpose)?, sides));
        }
        let mut rows = Vec::with_capacity(members.len());
        for (participant, currency, cap, policy, collateral, holds) in members {
            let participant: ParticipantId = text("participant", &participant)?;
            let currency: Currency = text("currency", &currency)?;
            let terms = Terms {
                cap: minor(cap)?,
                policy: word("cover policy", &policy, CoverPolicy::from_word)?,
                collateral: minor(collateral)?,
            };
            let own = |key: &AccountKey| key.participant() == Some(participant) && key.currency() == currency;
            let accounts = keyed.iter().filter(|(key, _)| own(key)).copied().collect();
            rows.push(BalanceRow { participant, currency, terms, net_holds: minor(holds)?, accounts });
        }
        let hub = keyed.into_iter().filter(|(key, _)| key.participant().is_none()).collect();
        let assigned = u64::try_from(assigned).map_err(DbError::corrupt)?;
        Ok(Balances { rows, hub, epoch, assigned })
    }

    /// A page of participants with their currencies, by id.
    pub async fn participants(
        &self,
        only: Option<ParticipantId>,
        state: Option<ParticipantState>,
        page: &PageOf<ParticipantId>,
    ) -> Result<Vec<(ParticipantId, String, ParticipantState, Timestamp, Vec<String>)>, DbError> {
        type Row = (String, String, String, i64, Vec<String>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT p.id, p.name, p.state, p.registered_at,
                 ARRAY(SELECT m.currency FROM membership m WHERE m.participant = p.id ORDER BY m.currency)
             FROM participant p
             WHERE p.id > $1 AND ($2::text IS NULL OR p.id = $2) AND ($3::text IS NULL OR p.state = $3)
             ORDER BY p.id LIMIT $4",
        )
        .bind(page.after.map(|p| p.to_string()).unwrap_or_default())
        .bind(only.map(|p| p.to_string()))
        .bind(state.map(|s| s.as_str()))
        .bind(page.size)
        .fetch_all(self.db.pool())
        .await?;
        rows.into_iter()
            .map(|(id, name, state, at, currencies)| {
                let state = word("participant state", &state, ParticipantState::from_word)?;
                Ok((text("participant", &id)?, name, state, Timestamp::from_micros(at), currencies))
            })
            .collect()
    }

    /// Whose a withdrawal is.
    pub async fn withdrawal_owner(&self, id: WithdrawalId) -> Result<Option<ParticipantId>, DbError> {
        let owner: Option<String> = sqlx::query_scalar("SELECT participant FROM withdrawal WHERE id = $1")
            .bind(id.uuid())
            .fetch_optional(self.db.pool())
            .await?;
        owner.map(|p| text("participant", &p)).transpose()
    }
}

fn is_settled(record: &Record, settled: &[WindowId]) -> bool {
    record.state == TransactionState::Committed && record.window.is_none_or(|(id, _)| settled.contains(&id))
}

impl PostingRow {
    /// The amount in minor units of the debited account's currency.
    pub fn money(&self) -> Result<deltran_kernel::Money, DbError> {
        let mut parts = self.debit.split(':');
        let currency = match parts.next() {
            Some("SAFEGUARD" | "MULTILATERAL" | "FEES") => parts.next(),
            _ => parts.nth(1),
        };
        let currency: Currency = text("account", currency.unwrap_or_default())?;
        Ok(deltran_kernel::Money::new(minor(self.amount)?, currency))
    }

    /// Its number.
    pub fn number(&self) -> Result<u64, DbError> {
        count(self.seq)
    }
}

impl Store {
    /// The currency of a window.
    pub async fn window_currency(&self, id: WindowId) -> Result<Option<Currency>, DbError> {
        let currency: Option<String> = sqlx::query_scalar("SELECT currency FROM ledger_window WHERE id = $1")
            .bind(id.uuid())
            .fetch_optional(self.db.pool())
            .await?;
        currency.map(|c| text("currency", &c)).transpose()
    }
}
