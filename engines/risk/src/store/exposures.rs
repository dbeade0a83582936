//! What is owed in windows that are not settled.

use std::collections::BTreeMap;

use deltran_events::data::risk::{ExposureSnapshot, NetDebtor};
use deltran_kernel::{Currency, Money, ParticipantId, WindowId};
use deltran_runtime::{Db, DbError};
use rust_decimal::Decimal;
use sqlx::PgConnection;

use super::{minor, number, parsed, units};
use crate::domain::book::Member;

/// A participant's exposure in a currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// Whose.
    pub participant: ParticipantId,
    /// In which currency.
    pub currency: Currency,
    /// What it sent and received in windows that are not settled.
    pub member: Member,
    /// What it owes net, window by window, and its NET reservations.
    pub cap_used: Money,
    /// Its net debit cap, where one was approved here.
    pub cap: Option<Money>,
}

/// A page of exposures by participant and currency, with the version of the book.
pub async fn exposures(
    db: &Db,
    participant: Option<ParticipantId>,
    currency: Option<Currency>,
    after: Option<(ParticipantId, Currency)>,
    size: i64,
) -> Result<(u64, Vec<Exposure>), DbError> {
    type Row = (String, String, Decimal, Decimal, i64, i64, Decimal, Option<Decimal>);
    let mut tx = db.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
    let version: i64 = sqlx::query_scalar("SELECT version FROM book").fetch_one(&mut *tx).await?;
    let rows: Vec<Row> = sqlx::query_as(
        "WITH owed AS (
             SELECT m.participant, w.currency, m.sent, m.received, m.sent_count, m.received_count,
                    greatest(m.sent - m.received, 0) AS used
             FROM window_member m JOIN window_book w USING (window_id) WHERE NOT w.settled
             UNION ALL
             SELECT payer, currency, 0, 0, 0, 0, amount FROM waiting WHERE reserved AND NOT gross)
         SELECT o.participant, o.currency, sum(o.sent), sum(o.received), sum(o.sent_count)::bigint,
                sum(o.received_count)::bigint, sum(o.used), max(l.amount)
         FROM owed o LEFT JOIN limits l ON l.kind = 'NET_DEBIT_CAP' AND l.state = 'ACTIVE'
              AND l.participant = o.participant AND l.currency = o.currency
         WHERE ($1::text IS NULL OR o.participant = $1) AND ($2::text IS NULL OR o.currency = $2)
           AND ($3::text IS NULL OR (o.participant COLLATE \"C\", o.currency COLLATE \"C\") > ($3, $4))
         GROUP BY o.participant, o.currency
         ORDER BY o.participant COLLATE \"C\", o.currency COLLATE \"C\" LIMIT $5",
    )
    .bind(participant.map(|p| p.to_string()))
    .bind(currency.map(|c| c.code().to_owned()))
    .bind(after.map(|(p, _)| p.to_string()))
    .bind(after.map(|(_, c)| c.code().to_owned()))
    .bind(size)
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let rows = rows
        .into_iter()
        .map(|(participant, currency, sent, received, sent_count, received_count, used, cap)| {
            let currency: Currency = parsed(&currency)?;
            let (sent_count, received_count) = (number(sent_count)?, number(received_count)?);
            Ok(Exposure {
                participant: parsed(&participant)?,
                currency,
                member: Member { sent: units(sent)?, received: units(received)?, sent_count, received_count },
                cap_used: Money::new(minor(used)?, currency),
                cap: cap.map(|cap| Ok::<_, DbError>(Money::new(minor(cap)?, currency))).transpose()?,
            })
        })
        .collect::<Result<_, DbError>>()?;
    Ok((number(version)?, rows))
}

/// The two counterparties that owe each participant most, net per window; the largest first.
pub async fn largest_of(
    db: &Db,
    of: &[(ParticipantId, Currency)],
) -> Result<BTreeMap<(ParticipantId, Currency), Vec<(ParticipantId, Money)>>, DbError> {
    let rows: Vec<(String, String, String, Decimal)> = sqlx::query_as(
        "WITH asked AS (SELECT * FROM UNNEST($1::text[], $2::text[]) a (participant, currency)),
         owed AS (
             SELECT a.participant, a.currency, p.payer AS counterparty,
                    greatest(p.gross - coalesce(back.gross, 0), 0) AS owed
             FROM asked a JOIN window_book w ON w.currency = a.currency AND NOT w.settled
             JOIN window_pair p ON p.window_id = w.window_id AND p.payee = a.participant
             LEFT JOIN window_pair back
               ON back.window_id = p.window_id AND back.payer = p.payee AND back.payee = p.payer),
         summed AS (SELECT participant, currency, counterparty, sum(owed) AS owed FROM owed GROUP BY 1, 2, 3),
         ranked AS (
             SELECT *, row_number() OVER (PARTITION BY participant, currency ORDER BY owed DESC, counterparty) AS place
             FROM summed WHERE owed > 0)
         SELECT participant, currency, counterparty, owed FROM ranked WHERE place <= 2 ORDER BY 1, 2, place",
    )
    .bind(of.iter().map(|(participant, _)| participant.to_string()).collect::<Vec<_>>())
    .bind(of.iter().map(|(_, currency)| currency.code().to_owned()).collect::<Vec<_>>())
    .fetch_all(db.pool())
    .await?;
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (participant, currency, counterparty, owed) in rows {
        let currency: Currency = parsed(&currency)?;
        let owed = Money::new(minor(owed)?, currency);
        found.entry((parsed(&participant)?, currency)).or_default().push((parsed(&counterparty)?, owed));
    }
    Ok(found)
}

/// What is owed in each of these currencies, as an event; all currencies with exposure where none is named.
pub async fn snapshot(
    tx: &mut PgConnection,
    sealed: &BTreeMap<Currency, WindowId>,
) -> Result<Vec<ExposureSnapshot>, DbError> {
    type Row = (String, i64, i64, Decimal, i64, Decimal);
    let currencies: Vec<String> = sealed.keys().map(|c| c.code().to_owned()).collect();
    let totals: Vec<Row> = sqlx::query_as(
        "SELECT w.currency, count(DISTINCT w.window_id), max(t.count)::bigint, max(t.gross),
                count(DISTINCT m.participant), coalesce(sum(greatest(m.sent - m.received, 0)), 0)
         FROM window_book w
         JOIN (SELECT currency, sum(count) AS count, sum(gross) AS gross FROM window_book
               WHERE NOT settled GROUP BY 1) t
              USING (currency)
         LEFT JOIN window_member m USING (window_id)
         WHERE NOT w.settled AND (cardinality($1::text[]) = 0 OR w.currency = ANY($1)) GROUP BY w.currency ORDER BY 1",
    )
    .bind(&currencies)
    .fetch_all(&mut *tx)
    .await?;
    let debtors: Vec<(String, String, Decimal)> = sqlx::query_as(
        "WITH owed AS (
             SELECT w.currency, m.participant, sum(greatest(m.sent - m.received, 0)) AS owed
             FROM window_member m JOIN window_book w USING (window_id)
             WHERE NOT w.settled AND (cardinality($1::text[]) = 0 OR w.currency = ANY($1)) GROUP BY 1, 2),
         ranked AS (
             SELECT *, row_number() OVER (PARTITION BY currency ORDER BY owed DESC, participant) AS place
             FROM owed WHERE owed > 0)
         SELECT currency, participant, owed FROM ranked WHERE place <= 2 ORDER BY currency, place",
    )
    .bind(&currencies)
    .fetch_all(tx)
    .await?;
    totals
        .into_iter()
        .map(|(code, windows, count, gross, participants, net_debit)| {
            let currency: Currency = parsed(&code)?;
            let amount = |value| Ok::<_, DbError>(Money::new(minor(value)?, currency).into());
            let largest_debtors = debtors
                .iter()
                .filter(|(of, ..)| *of == code)
                .map(|(_, participant, owed)| {
                    Ok(NetDebtor { participant: parsed(participant)?, net_debit: amount(*owed)? })
                })
                .collect::<Result<_, DbError>>()?;
            Ok(ExposureSnapshot {
                currency,
                window_id: sealed.get(&currency).copied(),
                windows: u32::try_from(windows).map_err(DbError::corrupt)?,
                count: number(count)?,
                gross: amount(gross)?,
                net_debit: amount(net_debit)?,
                participants: u32::try_from(participants).map_err(DbError::corrupt)?,
                largest_debtors,
            })
        })
        .collect()
}
