//! SQL of the lists: which are in use, every content, every load.

use deltran_kernel::Timestamp;
use deltran_runtime::{Db, DbError};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::domain::list::{Files, List, Source};

/// Which list of a source is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListHead {
    /// Who keeps the list.
    pub source: Source,
    /// Rises with each load.
    pub revision: i64,
    /// The list, where there is one.
    pub list: Option<Loaded>,
}

/// A version of a list that is or was in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// SHA-256 of its content.
    pub version: String,
    /// How many entries it has.
    pub names: u32,
    /// Further names of its entries.
    pub aliases: u32,
    /// What the list itself says it is of.
    pub dated: Option<String>,
    /// Since when.
    pub at: Timestamp,
    /// Who loaded it.
    pub by: String,
    /// The files that it was made of.
    pub files: Vec<String>,
}

macro_rules! select_head {
    ($rest:literal) => {
        concat!(
            "SELECT h.source, h.revision, h.version, h.loaded_at, h.loaded_by, v.names, v.aliases, v.dated,
                    ARRAY(SELECT f.name FROM list_file f WHERE f.source = h.source AND f.version = h.version
                          ORDER BY f.name) AS files
             FROM list_head h LEFT JOIN list_version v ON v.source = h.source AND v.version = h.version ",
            $rest
        )
    };
}

fn source(row: &PgRow) -> Result<Source, DbError> {
    let word: String = row.try_get("source")?;
    Source::from_word(&word).ok_or_else(|| DbError::corrupt(format!("list source {word:?}")))
}

fn loaded(row: &PgRow) -> Result<Loaded, DbError> {
    let count = |column: &str| -> Result<u32, DbError> {
        u32::try_from(row.try_get::<i32, _>(column)?).map_err(DbError::corrupt)
    };
    Ok(Loaded {
        version: row.try_get("version")?,
        names: count("names")?,
        aliases: count("aliases")?,
        dated: row.try_get("dated")?,
        at: Timestamp::from_micros(row.try_get("loaded_at")?),
        by: row.try_get("loaded_by")?,
        files: row.try_get("files")?,
    })
}

fn head(row: &PgRow) -> Result<ListHead, DbError> {
    let version: Option<String> = row.try_get("version")?;
    let list = version.map(|_| loaded(row)).transpose()?;
    Ok(ListHead { source: source(row)?, revision: row.try_get("revision")?, list })
}

/// Which lists are in use, and the revision of the allow-list: what a process compares with what it has in memory.
pub async fn revisions(db: &Db) -> Result<(Vec<(Source, i64, Option<String>)>, i64), DbError> {
    let rows = sqlx::query(
        "SELECT h.source, h.revision, h.version, a.revision AS allowances FROM list_head h CROSS JOIN allow_list a",
    )
    .fetch_all(db.pool())
    .await?;
    let mut heads = Vec::with_capacity(rows.len());
    let mut allowances = 0;
    for row in &rows {
        heads.push((source(row)?, row.try_get("revision")?, row.try_get("version")?));
        allowances = row.try_get("allowances")?;
    }
    heads.sort();
    Ok((heads, allowances))
}

/// Which list of each source is in use.
pub async fn list_heads(db: &Db) -> Result<Vec<ListHead>, DbError> {
    let rows = sqlx::query(select_head!("")).fetch_all(db.pool()).await?;
    let mut heads = rows.iter().map(head).collect::<Result<Vec<_>, _>>()?;
    heads.sort_by_key(|head| head.source);
    Ok(heads)
}

/// Which list of a source is in use, locked until the transaction ends.
pub async fn lock_list_head(tx: &mut PgConnection, source: Source) -> Result<ListHead, DbError> {
    head(&sqlx::query(select_head!("WHERE h.source = $1 FOR UPDATE OF h")).bind(source.as_str()).fetch_one(tx).await?)
}

/// Whether any list was ever loaded. Locks all heads, so that nobody loads one meanwhile.
pub async fn lock_any_list(tx: &mut PgConnection) -> Result<bool, DbError> {
    let revisions: Vec<i64> =
        sqlx::query_scalar("SELECT revision FROM list_head ORDER BY source FOR UPDATE").fetch_all(tx).await?;
    Ok(revisions.iter().any(|revision| *revision > 0))
}

/// The files of a version of a list.
pub async fn list_files(db: &Db, source: Source, version: &str) -> Result<Files, DbError> {
    let rows: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT name, content FROM list_file WHERE source = $1 AND version = $2")
            .bind(source.as_str())
            .bind(version)
            .fetch_all(db.pool())
            .await?;
    Ok(rows.into_iter().collect())
}

/// Puts a list in use as revision `revision` of its source. Clears the alert that there was none.
pub async fn use_list(
    tx: &mut PgConnection,
    revision: i64,
    list: &List,
    files: &Files,
    at: Timestamp,
    by: &str,
) -> Result<(), DbError> {
    let (source, version) = (list.source.as_str(), &list.version);
    let count = |n: usize| i32::try_from(n).map_err(DbError::corrupt);
    let new = sqlx::query(
        "INSERT INTO list_version (source, version, dated, names, aliases) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(source)
    .bind(version)
    .bind(&list.dated)
    .bind(count(list.names())?)
    .bind(count(list.aliases())?)
    .execute(&mut *tx)
    .await?;
    if new.rows_affected() == 1 {
        for (name, content) in files {
            sqlx::query("INSERT INTO list_file (source, version, name, content) VALUES ($1, $2, $3, $4)")
                .bind(source)
                .bind(version)
                .bind(name)
                .bind(content)
                .execute(&mut *tx)
                .await?;
        }
    }
    for statement in [
        "UPDATE list_head SET revision = $2, version = $3, loaded_at = $4, loaded_by = $5 WHERE source = $1",
        "INSERT INTO list_load (source, revision, version, loaded_at, loaded_by) VALUES ($1, $2, $3, $4, $5)",
    ] {
        sqlx::query(statement)
            .bind(source)
            .bind(revision)
            .bind(version)
            .bind(at.micros())
            .bind(by)
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query("DELETE FROM alert WHERE kind = $1").bind(crate::NO_LIST).execute(tx).await?;
    Ok(())
}

/// A load of a list: its place in the history, and whether it is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Its place among all loads.
    pub number: i64,
    /// What was put in use.
    pub head: ListHead,
    /// Whether it still is.
    pub in_force: bool,
}

/// A page of all loads, the latest first, of one source or of all.
pub async fn list_loads(db: &Db, before: Option<i64>, size: i64, wanted: Option<Source>) -> Result<Vec<Load>, DbError> {
    let rows = sqlx::query(
        "SELECT l.load, l.source, l.revision, l.version, l.loaded_at, l.loaded_by, v.names, v.aliases, v.dated,
                h.revision = l.revision AS in_force,
                ARRAY(SELECT f.name FROM list_file f WHERE f.source = l.source AND f.version = l.version
                      ORDER BY f.name) AS files
         FROM list_load l
           JOIN list_version v ON v.source = l.source AND v.version = l.version
           JOIN list_head h ON h.source = l.source
         WHERE ($1::bigint IS NULL OR l.load < $1) AND ($2::text IS NULL OR l.source = $2)
         ORDER BY l.load DESC LIMIT $3",
    )
    .bind(before)
    .bind(wanted.map(Source::as_str))
    .bind(size)
    .fetch_all(db.pool())
    .await?;
    rows.iter()
        .map(|row| {
            let head = ListHead { source: source(row)?, revision: row.try_get("revision")?, list: Some(loaded(row)?) };
            Ok(Load { number: row.try_get("load")?, head, in_force: row.try_get("in_force")? })
        })
        .collect()
}
