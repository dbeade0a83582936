//! Waiting for a condition.

use std::ops::AsyncFnMut;
use std::time::Duration;

use tokio::time::Instant;

/// How long a test waits for what should come soon.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// Asks until the answer is there, and ends the test where it does not come before [`DEADLINE`].
pub async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    within(DEADLINE, what, check).await
}

/// Asks until the answer is there, and ends the test where it does not come in time.
pub async fn within<T>(time: Duration, what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + time;
    loop {
        if let Some(answer) = check().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {time:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
