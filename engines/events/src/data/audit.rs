//! Events of the audit engine.

use super::event_data;

event_data! {
    /// A message that no consumer could process was put aside.
    DeadLetterRecorded {
        dead_letter_id: u64,
        stream: String,
        stream_sequence: u64,
        consumer: String,
        subject: String,
        reason: String,
        attempts: u32,
    }
    /// A dead letter was published again.
    DeadLetterReplayed { dead_letter_id: u64, decided_by: String, reason: String, }
    /// A dead letter was marked as dealt with.
    DeadLetterDropped { dead_letter_id: u64, decided_by: String, reason: String, }
    /// Somebody read the audit ledger.
    AccessGranted {
        user: String,
        role: String,
        /// What was asked, such as the filter of a list.
        query: String,
    }
}
