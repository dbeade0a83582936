//! A transaction together with the events it causes: the one door to the outbox.

use std::ops::{Deref, DerefMut};

use deltran_runtime::db::Tx;
use deltran_runtime::{Db, DbError};
use sqlx::PgConnection;
use tokio::time::Instant;

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

    /// Begins a transaction that ends with [`DoorTx::commit`]; dropped before that, it is rolled back.
    /// `name` appears in metrics.
    pub async fn begin(&self, name: &'static str) -> Result<DoorTx, DbError> {
        let started = Instant::now();
        Ok(DoorTx { tx: self.db.begin().await?, door: self.clone(), name, started })
    }
}

/// A transaction under way.
pub struct DoorTx {
    tx: Tx,
    door: Door,
    name: &'static str,
    started: Instant,
}

impl DoorTx {
    /// Writes the events that the transaction causes to the outbox as the last thing, commits, and wakes
    /// the relay. After an error the outcome is unknown: read back before telling anyone.
    pub async fn commit(mut self, events: &[Outgoing]) -> Result<(), DbError> {
        let done = async {
            self.door.outbox.append(&mut self.tx, events).await?;
            self.tx.commit().await
        }
        .await;
        self.door.db.observe(self.name, self.started, done.is_ok());
        self.door.outbox.wake();
        done
    }
}

impl Deref for DoorTx {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}

impl DerefMut for DoorTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}
