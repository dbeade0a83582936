//! Balances at an event of the ledger: those at present, less what came after it.

use deltran_kernel::{Currency, Minor, ParticipantId, WindowId};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{bigint, currency, minor, read};
use crate::domain::book::Account;
use crate::domain::position::Position;
use crate::domain::trial::{Balances, Ledger};

/// Every currency that something is known of.
pub async fn currencies(db: impl PgExecutor<'_>) -> Result<Vec<Currency>, DbError> {
    let codes: Vec<String> =
        sqlx::query_scalar("SELECT currency FROM membership UNION SELECT currency FROM balance ORDER BY currency")
            .fetch_all(db)
            .await?;
    codes.iter().map(|code| currency(code)).collect()
}

/// Every account of a currency at an event. Each statement takes what it reads back to that event by itself, so that
/// what is applied in between makes no difference.
pub async fn balances_at(tx: &mut PgConnection, of: Currency, position: Position) -> Result<Balances, DbError> {
    let (epoch, seq) = (position.epoch, bigint(position.seq)?);
    let mut balances = Balances::new();
    let tokens: Vec<(String, String, Decimal)> = sqlx::query_as(
        "SELECT account, participant, sum(part) FROM (
             SELECT account, participant, balance AS part FROM balance WHERE currency = $1
             UNION ALL
             SELECT account, coalesce(participant, ''), -change FROM movement
             WHERE currency = $1 AND (epoch, seq) > ($2, $3)
         ) parts GROUP BY account, participant",
    )
    .bind(of.code())
    .bind(epoch)
    .bind(seq)
    .fetch_all(&mut *tx)
    .await?;
    for (account, participant, balance) in tokens {
        let corrupt = || DbError::corrupt(format!("account {account} of {participant:?}"));
        let who = || read::<ParticipantId>(&participant);
        let account = match Account::from_word(&account).ok_or_else(corrupt)? {
            Account::Safeguard => Ledger::Safeguard,
            Account::Multilateral => Ledger::Multilateral,
            Account::Settlement => Ledger::Settlement(who()?),
            Account::Reserved => Ledger::Reserved(who()?),
        };
        balances.insert(account, minor(balance)?);
    }
    let positions: Vec<(Uuid, String, Decimal)> = sqlx::query_as(
        "WITH open AS (
             SELECT window_id FROM ledger_window
             WHERE currency = $1 AND (posted_seq IS NULL OR (posted_epoch, posted_seq) > ($2, $3))
         ), later AS (
             SELECT window_id, payer, payee, amount FROM entry
             WHERE (epoch, seq) > ($2, $3) AND currency = $1 AND window_id IN (SELECT window_id FROM open)
         )
         SELECT window_id, participant, sum(part) FROM (
             SELECT f.window_id, f.participant, f.received - f.paid AS part FROM flow f JOIN open USING (window_id)
             UNION ALL SELECT window_id, payer, amount FROM later
             UNION ALL SELECT window_id, payee, -amount FROM later
         ) parts GROUP BY window_id, participant HAVING sum(part) <> 0",
    )
    .bind(of.code())
    .bind(epoch)
    .bind(seq)
    .fetch_all(tx)
    .await?;
    for (window, participant, balance) in positions {
        balances.insert(Ledger::Position(read(&participant)?, WindowId::new(window)), minor(balance)?);
    }
    Ok(balances)
}

/// A participant's tokens, spendable and locked together, at an event.
pub async fn tokens_at(
    tx: &mut PgConnection,
    participant: ParticipantId,
    of: Currency,
    position: Position,
) -> Result<Minor, DbError> {
    let tokens: Decimal = sqlx::query_scalar(
        "SELECT coalesce((SELECT sum(balance) FROM balance WHERE currency = $1 AND participant = $2), 0)
              - coalesce((SELECT sum(change) FROM movement
                          WHERE currency = $1 AND participant = $2 AND (epoch, seq) > ($3, $4)), 0)",
    )
    .bind(of.code())
    .bind(participant.as_str())
    .bind(position.epoch)
    .bind(bigint(position.seq)?)
    .fetch_one(tx)
    .await?;
    minor(tokens)
}
