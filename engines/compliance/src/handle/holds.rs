//! Four eyes on holds.

use std::time::Duration;

use deltran_kernel::HoldId;
use deltran_runtime::Failure;
use tokio::time::Instant;

use super::{By, CommandError, Desk};
use crate::domain::Outcome;
use crate::domain::hold::{self, Hold, HoldError};
use crate::store;

/// Looks whether another process has ended a hold, where no signal arrives.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Desk {
    /// Proposes what becomes of a hold.
    ///
    /// # Errors
    /// `not_found`, `wrong_state`.
    pub async fn propose(&self, id: HoldId, release: bool, reason: &str, by: &By) -> Result<Hold, Failure> {
        Ok(self.change(id, by, |hold| hold::propose(hold, &by.user, release, reason)).await?)
    }

    /// Decides a hold and waits a while for the ledger to follow. The answer shows the state so far.
    ///
    /// # Errors
    /// `not_found`, `unauthorised` for the proposer, `wrong_state`.
    pub async fn decide(&self, id: HoldId, approve: bool, reason: &str, by: &By) -> Result<Hold, Failure> {
        let hold = self.change(id, by, |hold| hold::decide(hold, &by.user, approve, reason)).await?;
        if !hold.state.is_under_way() {
            return Ok(hold);
        }
        self.decided.notify_one();
        self.wait(hold).await
    }

    async fn change(
        &self,
        id: HoldId,
        by: &By,
        decision: impl Fn(&Hold) -> Result<Outcome<Hold>, HoldError>,
    ) -> Result<Hold, CommandError> {
        let at = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        let hold = store::lock_hold(&mut tx, id).await?.ok_or(HoldError::NotFound(id))?;
        let outcome = decision(&hold)?;
        if let Outcome::Executed(next) = &outcome {
            store::save_hold(&mut tx, next, &by.user, at).await?;
            tx.commit(&[]).await?;
        }
        Ok(outcome.into_inner())
    }

    /// Waits until the driver has ended the hold, at most for the configured time.
    async fn wait(&self, mut hold: Hold) -> Result<Hold, Failure> {
        let deadline = Instant::now() + self.decide_wait;
        loop {
            let finished = self.finished.notified();
            tokio::pin!(finished);
            // From here on a signal is not missed.
            finished.as_mut().enable();
            match store::find_hold(self.door.db(), hold.hold_id).await {
                Ok(Some(found)) => hold = found,
                Ok(None) => return Err(Failure::not_found("hold", hold.hold_id)),
                // The decision stands; the ledger will be told when the database is back.
                Err(error) => {
                    tracing::warn!(%error, "a decided hold cannot be read back");
                    return Ok(hold);
                }
            }
            if !hold.state.is_under_way() || Instant::now() >= deadline {
                return Ok(hold);
            }
            tokio::select! {
                () = finished => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }
}
