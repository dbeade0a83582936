//! Waiting until what is under way stands in the ledger.

use std::time::Duration;

use deltran_runtime::DbError;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::report::Snapshot;
use crate::store::Ledger;

/// How long events may be under way before they count as missing.
const UNDER_WAY: Duration = Duration::from_secs(10);
/// Looks again where another process appends.
const POLL: Duration = Duration::from_millis(200);

/// The ledger as soon as it is `done`, or as it is when that takes too long; `appended` is told when leaves come in
/// this process.
///
/// # Errors
/// Where the database does not answer.
pub async fn settled(
    ledger: &Ledger,
    appended: &Notify,
    mut done: impl FnMut(&Snapshot) -> bool,
) -> Result<Snapshot, DbError> {
    let until = Instant::now() + UNDER_WAY;
    loop {
        // Before the look, so that what comes meanwhile is seen by the next one.
        let told = appended.notified();
        let snapshot = ledger.snapshot().await?;
        if done(&snapshot) || Instant::now() >= until {
            return Ok(snapshot);
        }
        tokio::select! {
            () = told => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}
