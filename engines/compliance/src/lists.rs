//! The list in memory, from which every screening is answered.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use deltran_runtime::{Db, DbError, Failure};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::domain::list::{NameList, OPERATOR};
use crate::store;

/// The list as it was when it was last compared with the database.
#[derive(Debug)]
pub struct Snapshot {
    /// The list; `None` where none is loaded.
    pub list: Option<Arc<NameList>>,
    revision: i64,
    /// Before the comparison began.
    compared: Instant,
}

/// Holds the snapshot and keeps it current.
pub struct Lists {
    db: Db,
    stale_after: Duration,
    current: ArcSwapOption<Snapshot>,
    // One reload at a time, so that an older read never replaces a newer one.
    reloading: Mutex<()>,
}

impl Lists {
    /// Nothing is known yet.
    pub fn new(db: Db, stale_after: Duration) -> Self {
        Self { db, stale_after, current: ArcSwapOption::empty(), reloading: Mutex::new(()) }
    }

    /// The list to screen with.
    ///
    /// # Errors
    /// `unavailable` where the list could not be read yet, or could not be compared with the database for
    /// too long: neither means that there is no list (K3).
    pub fn current(&self) -> Result<Arc<Snapshot>, Failure> {
        match self.current.load_full() {
            None => Err(Failure::unavailable("the lists are not loaded yet: try again with the same id")),
            Some(snapshot) if snapshot.compared.elapsed() > self.stale_after => Err(Failure::unavailable(format!(
                "the lists could not be compared with the database for {} s: try again with the same id",
                snapshot.compared.elapsed().as_secs()
            ))),
            Some(snapshot) => Ok(snapshot),
        }
    }

    /// Reads the list anew where another is in use, and says that it is current either way. What was
    /// committed before the call is in memory after it.
    pub async fn reload(&self) -> Result<Arc<Snapshot>, DbError> {
        let _one = self.reloading.lock().await;
        let compared = Instant::now();
        let head = store::list_head(&self.db, OPERATOR).await?;
        let known = self.current.load_full().filter(|known| known.revision == head.revision);
        let list = match (known, &head.list) {
            (Some(known), _) => known.list.clone(),
            (None, None) => None,
            (None, Some(loaded)) => {
                let content = store::list_content(&self.db, &loaded.version).await?;
                let list = NameList::parse(&content).map_err(|e| DbError::corrupt(format!("stored list: {e}")))?;
                if list.version() != loaded.version {
                    return Err(DbError::corrupt(format!(
                        "stored list {} has version {}",
                        loaded.version,
                        list.version()
                    )));
                }
                tracing::info!(list.version = list.version(), list.names = list.names(), "list in use");
                Some(Arc::new(list))
            }
        };
        let snapshot = Arc::new(Snapshot { list, revision: head.revision, compared });
        self.current.store(Some(snapshot.clone()));
        Ok(snapshot)
    }
}
