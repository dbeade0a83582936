//! What `bench` and `demo` have in common: a folder of their own, emptied first, and waits that end.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::problem::Problem;

/// An empty folder. What is there goes only where the file `mark` says that it is `what`.
///
/// # Errors
/// Where it holds something else, or cannot be made.
pub fn empty(folder: &Path, mark: &str, what: &str) -> Result<(), Problem> {
    let failed = |e: std::io::Error| Problem::refused(format!("{}: {e}", folder.display()));
    if folder.exists() {
        let known = folder.join(mark).exists() || folder.read_dir().map_err(failed)?.next().is_none();
        if !known {
            return Err(Problem::refused(format!(
                "{} holds something else than {what}: give another folder with --data",
                folder.display()
            )));
        }
        std::fs::remove_dir_all(folder).map_err(failed)?;
    }
    std::fs::create_dir_all(folder).map_err(failed)
}

/// Asks until there is an answer, or patience ends.
///
/// # Errors
/// Where there is none.
pub async fn until<T>(
    what: &str,
    every: Duration,
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> Result<T, Problem> {
    let deadline = Instant::now() + patience;
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(Problem::unavailable(format!("waited {} s in vain for {what}", patience.as_secs())));
        }
    }
}
