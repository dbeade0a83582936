//! Events of the compliance engine.

use deltran_kernel::{HoldId, TransactionId};

use super::event_data;

event_data! {
    /// A party of a transaction matched a list.
    ScreeningHit {
        transaction_id: TransactionId,
        decision: String,
        evidence: String,
        /// Best score in ten-thousandths.
        score: u32,
        list_versions: Vec<String>,
        rule_version: String,
    }
    /// Somebody should look: a list is missing, a check failed.
    AlertRaised {
        /// What kind, such as `no_list`.
        kind: String,
        message: String,
    }
    /// A transaction is held until two officers have decided.
    HoldPlaced { hold_id: HoldId, transaction_id: TransactionId, evidence: String, }
    /// A hold was released by a second officer.
    HoldReleased { hold_id: HoldId, transaction_id: TransactionId, proposed_by: String, decided_by: String, reason: String, }
    /// A held transaction was rejected by a second officer.
    HoldRejected { hold_id: HoldId, transaction_id: TransactionId, proposed_by: String, decided_by: String, reason: String, }
    /// A version of a list is in use from now on.
    ListLoaded {
        source: String,
        /// SHA-256 of its content, in hexadecimal.
        list_version: String,
        names: u64,
        loaded_by: String,
    }
}
