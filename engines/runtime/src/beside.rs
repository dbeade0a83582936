//! Work on many items beside what else a task does.

use futures::future::{Either, ready};
use tokio::task::{JoinError, spawn_blocking};

/// Fewer items are worked on where they are: a thread of its own would take longer.
const FEW: usize = 64;

/// Does work on so many items: on a few at once, on many on a thread of its own, from now on and not only when it is
/// waited for.
///
/// # Errors
/// Where it panics there.
pub fn beside<T: Send + 'static>(
    items: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, JoinError>> {
    if items <= FEW { Either::Left(ready(Ok(work()))) } else { Either::Right(spawn_blocking(work)) }
}
