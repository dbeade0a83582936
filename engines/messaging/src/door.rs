//! A transaction together with the events it causes: the one door to the outbox.

use std::ops::AsyncFnMut;

use deltran_runtime::{Db, DbError, RetryHint};
use sqlx::PgConnection;

use crate::outbox::{Outbox, Outgoing};

/// An engine's database and its outbox.
#[derive(Clone)]
pub struct Door {
    db: Db,
    outbox: Outbox,
}

impl Door {
    /// The door of an engine.
    pub fn new(db: Db, outbox: Outbox) -> Self {
        Self { db, outbox }
    }

    /// The database, for reading.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The outbox.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Runs `work`, writes the events that it returns to the outbox as the last thing, commits, and
    /// wakes the relay. `work` may run several times where transactions collide.
    pub async fn run_tx<T, E, F>(&self, name: &'static str, mut work: F) -> Result<T, E>
    where
        F: AsyncFnMut(&mut PgConnection) -> Result<(T, Vec<Outgoing>), E>,
        E: From<DbError> + RetryHint,
    {
        let outbox = &self.outbox;
        let value = self
            .db
            .run_tx(name, async |tx: &mut PgConnection| {
                let (value, events) = work(&mut *tx).await?;
                outbox.append(tx, &events).await?;
                Ok::<T, E>(value)
            })
            .await?;
        self.outbox.wake();
        Ok(value)
    }
}
