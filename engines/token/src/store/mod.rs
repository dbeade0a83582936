//! The only SQL of the token engine: load, read what a batch needs, write what it changed, list, verify.

mod load;
mod prefetch;
mod read;
mod replay;
mod rows;
mod verify;
mod write;

pub use load::WriterState;
pub use prefetch::Wanted;
pub use read::{BalanceRow, Balances, PostingRow, TransactionFilter, TransactionRow};
pub use verify::{Check, Total, Verified};
pub use write::Batch;

use deltran_runtime::Db;

/// The ledger's tables.
#[derive(Clone)]
pub struct Store {
    db: Db,
}

impl Store {
    /// The tables behind a pool.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The pool.
    pub fn db(&self) -> &Db {
        &self.db
    }
}
