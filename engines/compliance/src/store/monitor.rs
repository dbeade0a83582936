//! SQL of what monitoring has added up.

use std::collections::{BTreeMap, BTreeSet};

use deltran_kernel::{Currency, Minor, ParticipantId, TransactionId};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::rules::rule;
use crate::domain::monitor::{Applied, Head, Key, Taken};
use crate::domain::window::{Bucket, Sum};

/// Bytes of an id.
const ID: usize = 16;

/// Marks a batch as the one that was taken last. Returns the one before, and the revision of the rules.
pub async fn begin_batch(tx: &mut PgConnection, batch: Uuid) -> Result<(Option<Uuid>, i64), DbError> {
    let row = sqlx::query(
        "WITH last AS (SELECT batch FROM monitor_mark FOR UPDATE)
         UPDATE monitor_mark SET batch = $1
         RETURNING (SELECT batch FROM last) AS last, (SELECT revision FROM rule_mark) AS rules",
    )
    .bind(batch)
    .fetch_one(tx)
    .await?;
    Ok((row.try_get("last")?, row.try_get("rules")?))
}

/// The rules that are applied, each in the version in use, with how far it has come.
pub async fn applied_rules(tx: &mut PgConnection) -> Result<Vec<Applied>, DbError> {
    let rows = sqlx::query(
        "SELECT * FROM (SELECT DISTINCT ON (rule) * FROM rule_version ORDER BY rule, version DESC) r
         LEFT JOIN rule_head USING (rule, version) WHERE mode <> 'OFF' ORDER BY rule",
    )
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            let late: Option<i64> = row.try_get("late")?;
            let late = u64::try_from(late.unwrap_or(0)).map_err(DbError::corrupt)?;
            Ok(Applied { rule: rule(row)?, head: Head { latest: row.try_get("latest")?, late } })
        })
        .collect()
}

/// Drops what was added up for rules and versions that are not applied any more.
pub async fn drop_others(tx: &mut PgConnection, rules: &[Applied]) -> Result<u64, DbError> {
    let (names, versions) = names(rules);
    let done = sqlx::query(
        "DELETE FROM rule_bucket b WHERE NOT EXISTS
           (SELECT 1 FROM UNNEST($1::text[], $2::integer[]) AS r (rule, version)
            WHERE r.rule = b.rule AND r.version = b.version)",
    )
    .bind(names)
    .bind(versions)
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

fn names(rules: &[Applied]) -> (Vec<&str>, Vec<i32>) {
    rules.iter().map(name).unzip()
}

fn name(applied: &Applied) -> (&str, i32) {
    (&applied.rule.definition.name, applied.rule.version.cast_signed())
}

fn payee(key: &Key) -> &str {
    key.thread.payee.as_ref().map_or("", ParticipantId::as_str)
}

fn currency(key: &Key) -> &str {
    key.thread.currency.as_ref().map_or("", Currency::code)
}

/// What is stored of threads, in one query; those of which nothing is stored come back empty.
pub async fn read_threads(
    tx: &mut PgConnection,
    rules: &[Applied],
    wanted: &BTreeSet<Key>,
) -> Result<BTreeMap<Key, Vec<(i64, Bucket)>>, DbError> {
    let keys: Vec<&Key> = wanted.iter().collect();
    let of: Vec<(&str, i32)> = keys.iter().map(|key| name(&rules[key.rule])).collect();
    let rows = sqlx::query(
        "SELECT k.place, b.bucket, b.count, b.amount, b.first
         FROM UNNEST($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[])
           WITH ORDINALITY AS k (rule, version, payer, payee, currency, place)
         JOIN rule_bucket b USING (rule, version, payer, payee, currency)",
    )
    .bind(of.iter().map(|(rule, _)| *rule).collect::<Vec<_>>())
    .bind(of.iter().map(|(_, version)| *version).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.thread.payer.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| payee(key)).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| currency(key)).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    let mut threads: BTreeMap<Key, Vec<(i64, Bucket)>> = wanted.iter().map(|key| (*key, Vec::new())).collect();
    for row in rows {
        let place = usize::try_from(row.try_get::<i64, _>("place")?).map_err(DbError::corrupt)?;
        let key = keys.get(place.wrapping_sub(1)).ok_or_else(|| DbError::corrupt("a thread that was not asked for"))?;
        let ids: &[u8] = row.try_get("first")?;
        let ids =
            ids.chunks_exact(ID).map(|id| Ok(TransactionId::new(Uuid::from_slice(id).map_err(DbError::corrupt)?)));
        let amount: Decimal = row.try_get("amount")?;
        let sum = Sum {
            count: u64::try_from(row.try_get::<i64, _>("count")?).map_err(DbError::corrupt)?,
            amount: Minor::from_decimal(amount).map_err(DbError::corrupt)?,
        };
        let bucket = Bucket { sum, first: ids.collect::<Result<_, DbError>>()? };
        threads.entry(**key).or_default().push((row.try_get("bucket")?, bucket));
    }
    Ok(threads)
}

/// Writes what a batch changed: a fixed number of statements, whatever its size.
pub async fn write_taken(tx: &mut PgConnection, rules: &[Applied], taken: &Taken) -> Result<(), DbError> {
    write_buckets(tx, rules, taken).await?;
    write_heads(tx, rules, taken).await?;
    drop_old(tx, rules, taken).await
}

async fn write_buckets(tx: &mut PgConnection, rules: &[Applied], taken: &Taken) -> Result<(), DbError> {
    let buckets = &taken.buckets;
    if buckets.is_empty() {
        return Ok(());
    }
    let of: Vec<(&str, i32)> = buckets.iter().map(|(key, _, _)| name(&rules[key.rule])).collect();
    let counts = buckets.iter().map(|(_, _, bucket)| i64::try_from(bucket.sum.count).map_err(DbError::corrupt));
    let ids = |bucket: &Bucket| bucket.first.iter().flat_map(|id| id.uuid().into_bytes()).collect::<Vec<u8>>();
    sqlx::query(
        "INSERT INTO rule_bucket (rule, version, payer, payee, currency, bucket, count, amount, first)
         SELECT * FROM UNNEST($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                              $8::numeric[], $9::bytea[])
         ON CONFLICT (rule, version, payer, payee, currency, bucket) DO UPDATE
           SET count = EXCLUDED.count, amount = EXCLUDED.amount, first = EXCLUDED.first",
    )
    .bind(of.iter().map(|(rule, _)| *rule).collect::<Vec<_>>())
    .bind(of.iter().map(|(_, version)| *version).collect::<Vec<_>>())
    .bind(buckets.iter().map(|(key, _, _)| key.thread.payer.as_str()).collect::<Vec<_>>())
    .bind(buckets.iter().map(|(key, _, _)| payee(key)).collect::<Vec<_>>())
    .bind(buckets.iter().map(|(key, _, _)| currency(key)).collect::<Vec<_>>())
    .bind(buckets.iter().map(|(_, at, _)| *at).collect::<Vec<_>>())
    .bind(counts.collect::<Result<Vec<_>, _>>()?)
    .bind(buckets.iter().map(|(_, _, bucket)| bucket.sum.amount.to_decimal()).collect::<Vec<_>>())
    .bind(buckets.iter().map(|(_, _, bucket)| ids(bucket)).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

async fn write_heads(tx: &mut PgConnection, rules: &[Applied], taken: &Taken) -> Result<(), DbError> {
    if taken.heads.is_empty() {
        return Ok(());
    }
    let of: Vec<(&str, i32)> = taken.heads.iter().map(|(place, _)| name(&rules[*place])).collect();
    let late = taken.heads.iter().map(|(_, head)| i64::try_from(head.late).map_err(DbError::corrupt));
    sqlx::query(
        "INSERT INTO rule_head (rule, version, latest, late)
         SELECT * FROM UNNEST($1::text[], $2::integer[], $3::bigint[], $4::bigint[])
         ON CONFLICT (rule, version) DO UPDATE SET latest = EXCLUDED.latest, late = EXCLUDED.late",
    )
    .bind(of.iter().map(|(rule, _)| *rule).collect::<Vec<_>>())
    .bind(of.iter().map(|(_, version)| *version).collect::<Vec<_>>())
    .bind(taken.heads.iter().map(|(_, head)| head.latest).collect::<Vec<_>>())
    .bind(late.collect::<Result<Vec<_>, _>>()?)
    .execute(tx)
    .await?;
    Ok(())
}

async fn drop_old(tx: &mut PgConnection, rules: &[Applied], taken: &Taken) -> Result<(), DbError> {
    if taken.floors.is_empty() {
        return Ok(());
    }
    let of: Vec<(&str, i32)> = taken.floors.iter().map(|(place, _)| name(&rules[*place])).collect();
    sqlx::query(
        "DELETE FROM rule_bucket b USING UNNEST($1::text[], $2::integer[], $3::bigint[]) AS f (rule, version, floor)
         WHERE b.rule = f.rule AND b.version = f.version AND b.bucket < f.floor",
    )
    .bind(of.iter().map(|(rule, _)| *rule).collect::<Vec<_>>())
    .bind(of.iter().map(|(_, version)| *version).collect::<Vec<_>>())
    .bind(taken.floors.iter().map(|(_, floor)| *floor).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}
