//! SQL of the conditions that were alerted and still hold.

use deltran_kernel::Timestamp;
use deltran_runtime::DbError;
use sqlx::PgConnection;

/// Marks a condition as alerted; tells whether it was not before.
pub async fn raise_alert(tx: &mut PgConnection, kind: &str, at: Timestamp) -> Result<bool, DbError> {
    let done = sqlx::query("INSERT INTO alert (kind, raised_at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(kind)
        .bind(at.micros())
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}
