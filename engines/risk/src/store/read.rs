//! What the gate keeps in memory, from one snapshot of the database.

use std::collections::BTreeMap;

use deltran_events::data::risk::LimitKind;
use deltran_kernel::{Currency, ParticipantId, Timestamp, TransactionId, WindowId};
use deltran_messaging::ranges::Ranges;
use deltran_messaging::received;
use deltran_runtime::{Db, DbError};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::book::{WaitingRow, waiting};
use super::breakers::{breaker, select_breaker};
use super::limits::{limit, select_limit};
use super::{number, parsed, units};
use crate::domain::book::{Member, oldest_bucket, oldest_hour};
use crate::domain::count::Waiting;
use crate::domain::limit::{Limit, LimitState};
use crate::domain::rules::{Entry, Rules};
use crate::domain::scope::{Corridor, Scope};

/// What was read.
#[derive(Debug, Clone)]
pub struct Read {
    /// Limits and breakers, where they have changed.
    pub rules: Option<Rules>,
    /// What was counted since the version that was known, or all of it where `gone_back`.
    pub book: BookRows,
    /// The database was restored to an earlier moment than the version that was known.
    pub gone_back: bool,
    /// What the consumer of transactions has received, by producer.
    pub received: BTreeMap<String, Ranges>,
}

/// Rows of the book that are newer than a version, each with its whole sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BookRows {
    /// The version that they lead to.
    pub version: u64,
    /// Windows, with whether they are sealed and settled.
    pub windows: Vec<(WindowId, Currency, bool, bool)>,
    /// By window that is not settled and participant.
    pub members: Vec<(WindowId, ParticipantId, Member)>,
    /// Gross by window that is not settled, payer and payee.
    pub pairs: Vec<(WindowId, ParticipantId, ParticipantId, i128)>,
    /// Gross by corridor, currency and hour.
    pub corridors: Vec<(Corridor, Currency, i64, i128)>,
    /// Accepted transactions by payer and bucket.
    pub accepted: Vec<(ParticipantId, i64, u64)>,
    /// Every reservation.
    pub reserved: Vec<(TransactionId, Waiting)>,
}

/// Reads what is newer than these versions of the rules and the book.
pub async fn read(
    db: &Db,
    rules_at: Option<u64>,
    book_at: u64,
    consumer: &str,
    now: Timestamp,
) -> Result<Read, DbError> {
    let mut tx = db.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
    let (rules_version, book_version): (i64, i64) =
        sqlx::query_as("SELECT g.version, b.version FROM gate g, book b").fetch_one(&mut *tx).await?;
    let (rules_version, book_version) = (number(rules_version)?, number(book_version)?);
    let rules = match rules_at {
        Some(known) if known == rules_version => None,
        _ => Some(rules(&mut tx, rules_version, now).await?),
    };
    let gone_back = book_version < book_at;
    let book = if book_version == book_at {
        BookRows { version: book_version, ..BookRows::default() }
    } else {
        book(&mut tx, book_version, if gone_back { 0 } else { book_at }, now).await?
    };
    let received = received(&mut *tx, &[consumer]).await?;
    tx.commit().await?;
    Ok(Read { rules, book, gone_back, received })
}

async fn rules(tx: &mut PgConnection, version: u64, now: Timestamp) -> Result<Rules, DbError> {
    let mut rules = Rules::default();
    rules.version = version;
    let rows = sqlx::query(select_breaker!("breaker WHERE state <> 'CLOSED'")).fetch_all(&mut *tx).await?;
    for row in &rows {
        let breaker = breaker(row)?;
        rules.breakers.insert(breaker.scope, breaker);
    }
    let rows = sqlx::query(select_limit!("WHERE state = 'ACTIVE' OR (state = 'APPROVED' AND kind <> 'NET_DEBIT_CAP')"))
        .fetch_all(tx)
        .await?;
    for row in &rows {
        let limit = limit(row)?;
        let Limit { approval, due_at, state, .. } = limit;
        let entry = Entry {
            limit_id: limit.proposal.limit_id,
            key: limit.proposal.key(),
            value: limit.proposal.value,
            due_at: due_at.ok_or_else(|| DbError::corrupt("an approved limit is due at no time"))?,
            approval,
        };
        debug_assert!(state == LimitState::Active || entry.key.kind != LimitKind::NetDebitCap);
        if state == LimitState::Active { rules.put(&entry) } else { rules.expect(entry) }
    }
    rules.advance(now);
    Ok(rules)
}

async fn book(tx: &mut PgConnection, version: u64, newer: u64, now: Timestamp) -> Result<BookRows, DbError> {
    let newer = newer as i64;
    let windows: Vec<(Uuid, String, bool, bool)> = sqlx::query_as(
        "SELECT window_id, currency, sealed, settled FROM window_book WHERE version > $1 AND ($1 > 0 OR NOT settled)",
    )
    .bind(newer)
    .fetch_all(&mut *tx)
    .await?;
    let members: Vec<(Uuid, String, Decimal, Decimal, i64, i64)> = sqlx::query_as(
        "SELECT window_id, participant, sent, received, sent_count, received_count
         FROM window_member m JOIN window_book w USING (window_id) WHERE NOT w.settled AND m.version > $1",
    )
    .bind(newer)
    .fetch_all(&mut *tx)
    .await?;
    let pairs: Vec<(Uuid, String, String, Decimal)> = sqlx::query_as(
        "SELECT window_id, payer, payee, p.gross
         FROM window_pair p JOIN window_book w USING (window_id) WHERE NOT w.settled AND p.version > $1",
    )
    .bind(newer)
    .fetch_all(&mut *tx)
    .await?;
    let corridors: Vec<(String, String, i64, Decimal)> =
        sqlx::query_as("SELECT corridor, currency, hour, gross FROM corridor_hour WHERE hour >= $1 AND version > $2")
            .bind(oldest_hour(now))
            .bind(newer)
            .fetch_all(&mut *tx)
            .await?;
    let accepted: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT scope, bucket, accepted FROM decision
         WHERE bucket >= $1 AND version > $2 AND scope LIKE 'participant:%'",
    )
    .bind(oldest_bucket(now))
    .bind(newer)
    .fetch_all(&mut *tx)
    .await?;
    let reserved: Vec<WaitingRow> = sqlx::query_as(
        "SELECT transaction_id, payer, payee, currency, amount, gross, reserved FROM waiting WHERE reserved",
    )
    .fetch_all(tx)
    .await?;

    let mut rows = BookRows { version, ..BookRows::default() };
    for (id, currency, sealed, settled) in windows {
        rows.windows.push((WindowId::new(id), parsed(&currency)?, sealed, settled));
    }
    for (id, participant, sent, received, sent_count, received_count) in members {
        let (sent_count, received_count) = (number(sent_count)?, number(received_count)?);
        let member = Member { sent: units(sent)?, received: units(received)?, sent_count, received_count };
        rows.members.push((WindowId::new(id), parsed(&participant)?, member));
    }
    for (id, payer, payee, gross) in pairs {
        rows.pairs.push((WindowId::new(id), parsed(&payer)?, parsed(&payee)?, units(gross)?));
    }
    for (corridor, currency, hour, gross) in corridors {
        rows.corridors.push((parsed(&corridor)?, parsed(&currency)?, hour, units(gross)?));
    }
    for (scope, bucket, accepted) in accepted {
        let Scope::Participant(payer) = parsed(&scope)? else { continue };
        rows.accepted.push((payer, bucket, number(accepted)?));
    }
    rows.reserved = reserved.into_iter().map(waiting).collect::<Result<_, _>>()?;
    Ok(rows)
}
