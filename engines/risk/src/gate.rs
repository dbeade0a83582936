//! The limits and breakers in memory, from which every transaction is assessed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use deltran_kernel::{Currency, Money};
use deltran_runtime::{Db, DbError, Failure};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::domain::assess::Rules;
use crate::store;

struct Snapshot {
    /// Those of the database, with the defaults of the configuration beneath.
    rules: Arc<Rules>,
    /// Before the comparison with the database began.
    compared: Instant,
}

/// Holds the rules and keeps them current.
pub struct Gate {
    db: Db,
    defaults: BTreeMap<Currency, Money>,
    stale_after: Duration,
    current: ArcSwapOption<Snapshot>,
    // One reload at a time, so that an older read never replaces a newer one.
    reloading: Mutex<()>,
}

impl Gate {
    /// Nothing is known yet. `defaults` are the single transaction maxima where no approved limit is.
    pub fn new(db: Db, defaults: BTreeMap<Currency, Money>, stale_after: Duration) -> Self {
        Self { db, defaults, stale_after, current: ArcSwapOption::empty(), reloading: Mutex::new(()) }
    }

    /// The rules in force.
    ///
    /// # Errors
    /// `unavailable` where they could not be read yet, or could not be compared with the database for too
    /// long: nothing passes then (R2).
    pub fn current(&self) -> Result<Arc<Rules>, Failure> {
        match &*self.current.load() {
            None => Err(Failure::unavailable("limits and breakers are not loaded yet: try again with the same id")),
            Some(snapshot) if snapshot.compared.elapsed() > self.stale_after => Err(Failure::unavailable(format!(
                "limits and breakers could not be compared with the database for {} s: try again with the same id",
                snapshot.compared.elapsed().as_secs()
            ))),
            Some(snapshot) => Ok(snapshot.rules.clone()),
        }
    }

    /// Reads the rules anew where they have changed, and says that they are current either way. What was
    /// committed before the call is in memory after it.
    pub async fn reload(&self) -> Result<(), DbError> {
        let _one = self.reloading.lock().await;
        let compared = Instant::now();
        let version = store::version(&self.db).await?;
        let known = self.current.load_full().filter(|known| known.rules.version == version);
        let rules = match known {
            Some(known) => known.rules.clone(),
            None => {
                let mut rules = store::rules(&self.db).await?;
                for (currency, maximum) in &self.defaults {
                    rules.maxima.entry(*currency).or_insert(*maximum);
                }
                tracing::info!(
                    rules.version,
                    rules.open_breakers = rules.open.len(),
                    rules.maxima = rules.maxima.len() + rules.maxima_of.len(),
                    "limits and breakers in force"
                );
                Arc::new(rules)
            }
        };
        self.current.store(Some(Arc::new(Snapshot { rules, compared })));
        Ok(())
    }
}
