//! `VerifyLedger`: the invariants L1 to L8 on one snapshot.

use std::collections::BTreeMap;

use deltran_kernel::{Currency, Minor};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sqlx::PgConnection;

use super::Store;
use super::replay::Replay;

/// The result of one invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// L1 to L8.
    pub invariant: &'static str,
    /// What it says.
    pub statement: &'static str,
    /// The first breach, where there is one.
    pub breach: Option<String>,
}

/// Results, and how much was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// One result per invariant.
    pub checks: Vec<Check>,
    /// Number of transactions.
    pub transactions: u64,
    /// Number of postings.
    pub postings: u64,
    /// Number of accounts.
    pub accounts: u64,
    /// By currency.
    pub totals: BTreeMap<Currency, Total>,
    /// The epoch of the ledger's last event when all this was so.
    pub epoch: i64,
    /// Its number within that.
    pub assigned: u64,
}

/// What the ledger took in, let out and committed in a currency since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// Transactions that are COMMITTED.
    pub committed: u64,
    /// The sum of their amounts.
    pub committed_amount: Minor,
    /// Debits of SAFEGUARD.
    pub minted: Minor,
    /// Credits of SAFEGUARD.
    pub burnt: Minor,
}

/// Each query names its first breach in one text, or gives no row.
const QUERIES: [(&str, &str, &str); 5] = [
    (
        "L2",
        "SAFEGUARD = Σ SETTLEMENT + Σ RESERVED + FEES + MULTILATERAL per currency",
        "SELECT currency || ' is out by ' || sum(credits - debits)::text FROM account WHERE kind <> 'POSITION'
         GROUP BY currency HAVING sum(credits - debits) <> 0 ORDER BY 1 LIMIT 1",
    ),
    (
        "L3",
        "Σ POSITION of each window = 0",
        "SELECT 'window ' || purpose::text || ' is out by ' || sum(credits - debits)::text FROM account
         WHERE kind = 'POSITION' GROUP BY purpose HAVING sum(credits - debits) <> 0 ORDER BY 1 LIMIT 1",
    ),
    (
        "L4",
        "MULTILATERAL = 0 outside a settlement posting",
        "SELECT name || ' stands at ' || (credits - debits)::text FROM account
         WHERE kind = 'MULTILATERAL' AND credits <> debits ORDER BY 1 LIMIT 1",
    ),
    ("L6", "an id has one outcome, and postings exactly where its state says so", include_str!("verify_l6.sql")),
    (
        "L8",
        "every committed NET transaction is in exactly one window with a dense window_seq",
        include_str!("verify_l8.sql"),
    ),
];

impl Store {
    /// Checks every invariant on one snapshot. Reads the whole log once.
    pub async fn verify(&self) -> Result<Verified, DbError> {
        let mut tx = self.db.begin().await?;
        // The whole log is read on one connection: give it the time it needs between rows.
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
        sqlx::query("SET LOCAL idle_in_transaction_session_timeout = '60s'").execute(&mut *tx).await?;
        let (transactions, postings, accounts): (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM transaction), (SELECT count(*) FROM posting), (SELECT count(*) FROM account)",
        )
        .fetch_one(&mut *tx)
        .await?;
        let mut checks = Vec::with_capacity(8);
        for (invariant, statement, query) in QUERIES {
            let breach: Option<String> = sqlx::query_scalar(query).fetch_optional(&mut *tx).await?;
            checks.push(Check { invariant, statement, breach });
        }
        let replay = Replay::run(&mut tx).await?;
        checks.push(Check {
            invariant: "L1",
            statement: "debits = credits per currency, per posting, in total",
            breach: l1(&mut tx, &replay).await?,
        });
        checks.push(Check {
            invariant: "L5",
            statement: "cap and cover hold at every prefix of the log",
            breach: replay.limit_breach.clone(),
        });
        checks.push(Check {
            invariant: "L7",
            statement: "replay gives the same balances",
            breach: l7(&mut tx, &replay).await?,
        });
        let totals = totals(&mut tx).await?;
        // Written by every batch with its events, so that the same snapshot tells after which event it stands.
        let (epoch, assigned): (i64, i64) =
            sqlx::query_as("SELECT epoch, assigned FROM outbox_counter").fetch_one(&mut *tx).await?;
        let assigned = u64::try_from(assigned).map_err(DbError::corrupt)?;
        tx.commit().await?;
        checks.sort_by_key(|check| check.invariant);
        let (transactions, postings, accounts) = (transactions as u64, postings as u64, accounts as u64);
        Ok(Verified { checks, transactions, postings, accounts, totals, epoch, assigned })
    }
}

async fn totals(tx: &mut PgConnection) -> Result<BTreeMap<Currency, Total>, DbError> {
    let committed: Vec<(String, i64, Decimal)> = sqlx::query_as(
        "SELECT currency, count(*), sum(amount) FROM transaction WHERE state = 'COMMITTED' GROUP BY currency",
    )
    .fetch_all(&mut *tx)
    .await?;
    let held: Vec<(String, Decimal, Decimal)> = sqlx::query_as(
        "SELECT currency, sum(debits), sum(credits) FROM account WHERE kind = 'SAFEGUARD' GROUP BY currency",
    )
    .fetch_all(tx)
    .await?;
    let mut totals: BTreeMap<Currency, Total> = BTreeMap::new();
    let minor = |value: Decimal| Minor::from_decimal(value).map_err(DbError::corrupt);
    for (currency, count, sum) in committed {
        let total = totals.entry(Currency::new(&currency).map_err(DbError::corrupt)?).or_default();
        (total.committed, total.committed_amount) = (count as u64, minor(sum)?);
    }
    for (currency, debits, credits) in held {
        let total = totals.entry(Currency::new(&currency).map_err(DbError::corrupt)?).or_default();
        (total.minted, total.burnt) = (minor(debits)?, minor(credits)?);
    }
    Ok(totals)
}

/// Each posting has one debit and one credit of one amount by its form; what is left to check is that
/// both are of one currency, that the log is dense, and that the sums over accounts agree.
async fn l1(tx: &mut PgConnection, replay: &Replay) -> Result<Option<String>, DbError> {
    if let Some(breach) = &replay.posting_breach {
        return Ok(Some(breach.clone()));
    }
    Ok(sqlx::query_scalar(
        "SELECT currency || ': debits ' || sum(debits)::text || ', credits ' || sum(credits)::text FROM account
         GROUP BY currency HAVING sum(debits) <> sum(credits) ORDER BY 1 LIMIT 1",
    )
    .fetch_optional(tx)
    .await?)
}

async fn l7(tx: &mut PgConnection, replay: &Replay) -> Result<Option<String>, DbError> {
    let rows: Vec<(String, Decimal, Decimal)> =
        sqlx::query_as("SELECT name, debits, credits FROM account ORDER BY name").fetch_all(tx).await?;
    if let Some(missing) = replay.accounts().find(|name| rows.binary_search_by(|(n, ..)| n.as_str().cmp(name)).is_err())
    {
        return Ok(Some(format!("{missing} has postings and no row")));
    }
    for (name, debits, credits) in rows {
        let sides = replay.sides(&name);
        if sides.debits.to_decimal() != debits || sides.credits.to_decimal() != credits {
            return Ok(Some(format!(
                "{name}: the row says debits {debits}, credits {credits}; the log gives {:?}, {:?}",
                sides.debits, sides.credits
            )));
        }
    }
    Ok(None)
}
