//! SQL of the monitoring rules and of what crossed them.

use deltran_events::data::compliance::{RuleKind, RuleMode, RuleScope};
use deltran_kernel::{AlertId, CaseId, CommandId, Currency, Minor, Money, ParticipantId, Timestamp, TransactionId};
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Db, DbError};
use rust_decimal::Decimal;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use crate::domain::alert::Alert;
use crate::domain::rule::{Draft, Limit, Rule, Thread};
use crate::domain::window::Sum;

/// A version of a rule with what became of it, for showing.
#[derive(Debug, Clone)]
pub struct ListedRule {
    /// The version.
    pub rule: Rule,
    /// Whether it is the one in use.
    pub current: bool,
    /// Transactions that came too late for it.
    pub late: u64,
}

/// Which alerts to list.
#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    /// Of this rule.
    pub rule: Option<String>,
    /// With this payer.
    pub payer: Option<ParticipantId>,
    /// Of this case.
    pub case_id: Option<CaseId>,
    /// No shadow runs.
    pub without_shadow: bool,
}

fn count(value: i64) -> Result<u64, DbError> {
    u64::try_from(value).map_err(|_| DbError::corrupt(format!("{value} is no count")))
}

fn to_bigint(value: u64) -> Result<i64, DbError> {
    i64::try_from(value).map_err(|_| DbError::Other(format!("{value} exceeds a bigint")))
}

fn kind(word: &str) -> Result<RuleKind, DbError> {
    RuleKind::from_word(word).ok_or_else(|| DbError::corrupt(format!("rule kind {word:?}")))
}

/// Locks the rules against whoever else would set one.
pub async fn lock_rules(tx: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query("SELECT revision FROM rule_mark FOR UPDATE").execute(tx).await?;
    Ok(())
}

macro_rules! select_rule {
    ($rest:literal) => {
        concat!(
            "SELECT r.rule, r.version, kind, mode, scope, window_seconds, max_count, min_count, band, currencies, amounts,
                    command_id, set_at, set_by, COALESCE(h.late, 0) AS late, h.latest,
                    r.version = (SELECT max(version) FROM rule_version m WHERE m.rule = r.rule) AS current
             FROM rule_version r LEFT JOIN rule_head h USING (rule, version) ",
            $rest
        )
    };
}

pub(super) fn rule(row: &PgRow) -> Result<Rule, DbError> {
    let (mode, scope): (&str, &str) = (row.try_get("mode")?, row.try_get("scope")?);
    let currencies: Vec<String> = row.try_get("currencies")?;
    let amounts: Vec<Decimal> = row.try_get("amounts")?;
    let amounts = currencies.iter().zip(amounts).map(|(code, units)| {
        let currency = Currency::new(code).map_err(DbError::corrupt)?;
        Ok(Money::new(Minor::from_decimal(units).map_err(DbError::corrupt)?, currency))
    });
    let draft = Draft {
        name: row.try_get("rule")?,
        kind: kind(row.try_get("kind")?)?,
        mode: RuleMode::from_word(mode).ok_or_else(|| DbError::corrupt(format!("rule mode {mode:?}")))?,
        scope: Some(RuleScope::from_word(scope).ok_or_else(|| DbError::corrupt(format!("rule scope {scope:?}")))?),
        window_seconds: count(row.try_get("window_seconds")?)?,
        max_count: count(row.try_get("max_count")?)?,
        min_count: count(row.try_get("min_count")?)?,
        band: u32::try_from(row.try_get::<i32, _>("band")?).map_err(DbError::corrupt)?,
        amounts: amounts.collect::<Result<_, DbError>>()?,
    };
    let command_id: Option<Uuid> = row.try_get("command_id")?;
    Ok(Rule {
        definition: draft.check().map_err(DbError::corrupt)?,
        version: u32::try_from(row.try_get::<i32, _>("version")?).map_err(DbError::corrupt)?,
        command_id: command_id.map(CommandId::new),
        set_at: Timestamp::from_micros(row.try_get("set_at")?),
        set_by: row.try_get("set_by")?,
    })
}

fn listed(row: &PgRow) -> Result<ListedRule, DbError> {
    Ok(ListedRule { rule: rule(row)?, current: row.try_get("current")?, late: count(row.try_get("late")?)? })
}

/// The version that a command set, where it did.
pub async fn rule_of_command(tx: impl PgExecutor<'_>, id: CommandId) -> Result<Option<Rule>, DbError> {
    let row = sqlx::query(select_rule!("WHERE command_id = $1")).bind(id.uuid()).fetch_optional(tx).await?;
    row.as_ref().map(rule).transpose()
}

/// The version of a rule that is in use.
pub async fn find_rule(tx: impl PgExecutor<'_>, name: &str) -> Result<Option<ListedRule>, DbError> {
    let row = sqlx::query(select_rule!("WHERE r.rule = $1 ORDER BY r.version DESC LIMIT 1"))
        .bind(name)
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(listed).transpose()
}

/// How many rules there are, by name.
pub async fn count_rules(tx: impl PgExecutor<'_>) -> Result<usize, DbError> {
    let rules: i64 = sqlx::query_scalar("SELECT count(DISTINCT rule) FROM rule_version").fetch_one(tx).await?;
    usize::try_from(rules).map_err(DbError::corrupt)
}

/// Puts a version of a rule in use.
pub async fn insert_rule(tx: &mut PgConnection, rule: &Rule) -> Result<(), DbError> {
    let draft = rule.definition.draft();
    let scope = draft.scope.unwrap_or(RuleScope::Payer);
    sqlx::query(
        "INSERT INTO rule_version (rule, version, kind, mode, scope, window_seconds, max_count, min_count, band,
                                   currencies, amounts, command_id, set_at, set_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(&draft.name)
    .bind(i32::try_from(rule.version).map_err(DbError::corrupt)?)
    .bind(draft.kind.as_str())
    .bind(draft.mode.as_str())
    .bind(scope.as_str())
    .bind(to_bigint(draft.window_seconds)?)
    .bind(to_bigint(draft.max_count)?)
    .bind(to_bigint(draft.min_count)?)
    .bind(i32::try_from(draft.band).map_err(DbError::corrupt)?)
    .bind(draft.amounts.iter().map(|money| money.currency().code().to_owned()).collect::<Vec<_>>())
    .bind(draft.amounts.iter().map(|money| money.minor().to_decimal()).collect::<Vec<_>>())
    .bind(rule.command_id.map(CommandId::uuid))
    .bind(rule.set_at.micros())
    .bind(&rule.set_by)
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE rule_mark SET revision = revision + 1").execute(tx).await?;
    Ok(())
}

/// A page of rules in the order of names and versions, `after` the given one.
pub async fn list_rules(
    db: &Db,
    after: Option<(&str, u32)>,
    size: i64,
    name: Option<&str>,
    history: bool,
) -> Result<Vec<ListedRule>, DbError> {
    let (after_name, after_version) = after.unzip();
    let rows = sqlx::query(select_rule!(
        "WHERE ($1::text IS NULL OR (r.rule, r.version) > ($1, $2)) AND ($3::text IS NULL OR r.rule = $3)
           AND ($4 OR r.version = (SELECT max(version) FROM rule_version m WHERE m.rule = r.rule))
         ORDER BY r.rule, r.version LIMIT $5"
    ))
    .bind(after_name)
    .bind(after_version.map(i32::try_from).transpose().map_err(DbError::corrupt)?)
    .bind(name)
    .bind(history)
    .bind(size)
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(listed).collect()
}

/// Writes alerts. A crossing that was told before is a defect and refused.
pub async fn insert_alerts(tx: &mut PgConnection, alerts: &[Alert]) -> Result<(), DbError> {
    for alert in alerts {
        let (limit_kind, limit_value) = match alert.limit {
            Limit::CountOver(most) => ("count_over", Decimal::from(most)),
            Limit::CountReaches(least) => ("count_reaches", Decimal::from(least)),
            Limit::AmountOver(most) => ("amount_over", most.to_decimal()),
        };
        let Thread { payer, payee, currency } = &alert.thread;
        sqlx::query(
            "INSERT INTO rule_alert (alert_id, rule, version, kind, shadow, payer, payee, currency, window_from, window_to,
                                     count, amount, limit_kind, limit_value, transaction_id, transactions, raised_at, case_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
        )
        .bind(alert.alert_id.uuid())
        .bind(&alert.rule)
        .bind(i32::try_from(alert.version).map_err(DbError::corrupt)?)
        .bind(alert.kind.as_str())
        .bind(alert.shadow)
        .bind(payer.as_str())
        .bind(payee.as_ref().map_or("", ParticipantId::as_str))
        .bind(currency.as_ref().map_or("", Currency::code))
        .bind(alert.from.micros())
        .bind(alert.to.micros())
        .bind(to_bigint(alert.sum.count)?)
        .bind(alert.sum.amount.to_decimal())
        .bind(limit_kind)
        .bind(limit_value)
        .bind(alert.transaction_id.uuid())
        .bind(alert.transactions.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .bind(alert.raised_at.micros())
        .bind(alert.case_id.map(CaseId::uuid))
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

fn alert(row: &PgRow) -> Result<Alert, DbError> {
    let (payee, currency): (&str, &str) = (row.try_get("payee")?, row.try_get("currency")?);
    let value: Decimal = row.try_get("limit_value")?;
    let whole = || u64::try_from(value.trunc().normalize().mantissa()).map_err(DbError::corrupt);
    let limit = match row.try_get("limit_kind")? {
        "count_over" => Limit::CountOver(whole()?),
        "count_reaches" => Limit::CountReaches(whole()?),
        _ => Limit::AmountOver(Minor::from_decimal(value).map_err(DbError::corrupt)?),
    };
    let transactions: Vec<Uuid> = row.try_get("transactions")?;
    let case_id: Option<Uuid> = row.try_get("case_id")?;
    Ok(Alert {
        alert_id: AlertId::new(row.try_get("alert_id")?),
        rule: row.try_get("rule")?,
        version: u32::try_from(row.try_get::<i32, _>("version")?).map_err(DbError::corrupt)?,
        kind: kind(row.try_get("kind")?)?,
        shadow: row.try_get("shadow")?,
        thread: Thread {
            payer: row.try_get::<&str, _>("payer")?.parse().map_err(DbError::corrupt)?,
            payee: if payee.is_empty() { None } else { Some(payee.parse().map_err(DbError::corrupt)?) },
            currency: if currency.is_empty() { None } else { Some(Currency::new(currency).map_err(DbError::corrupt)?) },
        },
        from: Timestamp::from_micros(row.try_get("window_from")?),
        to: Timestamp::from_micros(row.try_get("window_to")?),
        sum: Sum {
            count: count(row.try_get("count")?)?,
            amount: Minor::from_decimal(row.try_get("amount")?).map_err(DbError::corrupt)?,
        },
        limit,
        transaction_id: TransactionId::new(row.try_get("transaction_id")?),
        transactions: transactions.into_iter().map(TransactionId::new).collect(),
        raised_at: Timestamp::from_micros(row.try_get("raised_at")?),
        case_id: case_id.map(CaseId::new),
    })
}

/// A page of alerts, oldest first.
pub async fn list_alerts(db: &Db, page: &PageOf<AlertId>, filter: &AlertFilter) -> Result<Vec<Alert>, DbError> {
    let rows = sqlx::query(
        "SELECT * FROM rule_alert
         WHERE ($1::uuid IS NULL OR alert_id > $1) AND ($2::text IS NULL OR rule = $2)
           AND ($3::text IS NULL OR payer = $3) AND ($4::uuid IS NULL OR case_id = $4) AND NOT (shadow AND $5)
         ORDER BY alert_id LIMIT $6",
    )
    .bind(page.after.map(AlertId::uuid))
    .bind(filter.rule.as_deref())
    .bind(filter.payer.map(|payer| payer.to_string()))
    .bind(filter.case_id.map(CaseId::uuid))
    .bind(filter.without_shadow)
    .bind(page.size)
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(alert).collect()
}

/// The latest alerts of a case, newest first.
pub async fn latest_alerts(db: &Db, id: CaseId, most: i64) -> Result<Vec<Alert>, DbError> {
    let rows = sqlx::query("SELECT * FROM rule_alert WHERE case_id = $1 ORDER BY alert_id DESC LIMIT $2")
        .bind(id.uuid())
        .bind(most)
        .fetch_all(db.pool())
        .await?;
    rows.iter().map(alert).collect()
}
