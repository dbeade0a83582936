//! The rows of subscriptions.

use std::collections::BTreeSet;

use deltran_kernel::{Currency, Minor, ParticipantId, SubscriptionId, Timestamp};
use deltran_runtime::DbError;
use deltran_runtime::wire::PageOf;
use rust_decimal::Decimal;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::domain::Kind;
use crate::domain::subscription::{Filter, Subscription, Wish};

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT number, subscription_id, participant, kinds, currency, minimum, created_at, created_by, ended_at, ended_by \
             FROM subscription ",
            $tail
        )
    };
}

#[derive(sqlx::FromRow)]
struct Stored {
    number: i64,
    subscription_id: Uuid,
    participant: String,
    kinds: Vec<String>,
    currency: Option<String>,
    minimum: Option<Decimal>,
    created_at: i64,
    created_by: String,
    ended_at: Option<i64>,
    ended_by: Option<String>,
}

impl TryFrom<Stored> for Subscription {
    type Error = DbError;
    fn try_from(row: Stored) -> Result<Self, DbError> {
        let kinds = row.kinds.iter().map(|word| word.parse::<Kind>()).collect::<Result<BTreeSet<_>, _>>();
        let filter = Filter {
            currency: row.currency.as_deref().map(Currency::new).transpose().map_err(DbError::corrupt)?,
            minimum: row.minimum.map(Minor::from_decimal).transpose().map_err(DbError::corrupt)?,
        };
        Ok(Self {
            id: SubscriptionId::new(row.subscription_id),
            wish: Wish {
                participant: row.participant.parse().map_err(DbError::corrupt)?,
                kinds: kinds.map_err(DbError::corrupt)?,
                filter,
            },
            created_at: Timestamp::from_micros(row.created_at),
            created_by: row.created_by,
            ended: row.ended_at.map(Timestamp::from_micros).zip(row.ended_by),
        })
    }
}

/// The version of all subscriptions: it rises with each change.
pub async fn version(on: impl PgExecutor<'_>) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar("SELECT number FROM subscription_version").fetch_one(on).await?)
}

/// Begins a change: the next version, and nobody else changes anything until this transaction ends.
pub async fn next_version(tx: &mut PgConnection) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar("UPDATE subscription_version SET number = number + 1 RETURNING number").fetch_one(tx).await?)
}

/// Every wish that holds.
pub async fn present(tx: &mut PgConnection) -> Result<Vec<Wish>, DbError> {
    let rows: Vec<Stored> = sqlx::query_as(select!("WHERE ended_at IS NULL ORDER BY number")).fetch_all(tx).await?;
    rows.into_iter().map(|row| Ok(Subscription::try_from(row)?.wish)).collect()
}

/// How many subscriptions a participant has at present.
pub async fn count(tx: &mut PgConnection, participant: ParticipantId) -> Result<usize, DbError> {
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM subscription WHERE participant = $1 AND ended_at IS NULL")
            .bind(participant.as_str())
            .fetch_one(tx)
            .await?;
    usize::try_from(count).map_err(DbError::corrupt)
}

/// A subscription by its id.
pub async fn find(tx: &mut PgConnection, id: SubscriptionId) -> Result<Option<Subscription>, DbError> {
    let row: Option<Stored> =
        sqlx::query_as(select!("WHERE subscription_id = $1")).bind(id.uuid()).fetch_optional(tx).await?;
    row.map(Subscription::try_from).transpose()
}

/// A new subscription.
pub async fn insert(tx: &mut PgConnection, subscription: &Subscription) -> Result<(), DbError> {
    let wish = &subscription.wish;
    let kinds: Vec<&str> = wish.kinds.iter().map(|kind| kind.as_str()).collect();
    sqlx::query(
        "INSERT INTO subscription (subscription_id, participant, kinds, currency, minimum, created_at, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(subscription.id.uuid())
    .bind(wish.participant.as_str())
    .bind(kinds)
    .bind(wish.filter.currency.map(|currency| currency.code().to_owned()))
    .bind(wish.filter.minimum.map(Minor::to_decimal))
    .bind(subscription.created_at.micros())
    .bind(&subscription.created_by)
    .execute(tx)
    .await?;
    Ok(())
}

/// Stores that a subscription has ended.
pub async fn end(tx: &mut PgConnection, id: SubscriptionId, at: Timestamp, by: &str) -> Result<(), DbError> {
    sqlx::query("UPDATE subscription SET ended_at = $2, ended_by = $3 WHERE subscription_id = $1")
        .bind(id.uuid())
        .bind(at.micros())
        .bind(by)
        .execute(tx)
        .await?;
    Ok(())
}

/// Which subscriptions a list shows.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Of this participant only.
    pub participant: Option<ParticipantId>,
    /// With this kind only.
    pub kind: Option<Kind>,
    /// Those that have ended too.
    pub with_ended: bool,
}

/// A page of subscriptions with their numbers, the newest first.
pub async fn list(pool: &PgPool, shown: &Shown, page: &PageOf<i64>) -> Result<Vec<(i64, Subscription)>, DbError> {
    let rows: Vec<Stored> = sqlx::query_as(select!(
        "WHERE ($1::text IS NULL OR participant = $1)
           AND ($2::text IS NULL OR $2 = ANY(kinds))
           AND ($3 OR ended_at IS NULL)
           AND ($4::bigint IS NULL OR number < $4)
         ORDER BY number DESC LIMIT $5"
    ))
    .bind(shown.participant.map(|participant| participant.to_string()))
    .bind(shown.kind.map(Kind::as_str))
    .bind(shown.with_ended)
    .bind(page.after)
    .bind(page.size)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(|row| Ok((row.number, row.try_into()?))).collect()
}
