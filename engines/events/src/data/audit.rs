//! Events of the audit engine.

use deltran_kernel::{HoldId, ParticipantId, Timestamp};

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
    /// A checkpoint of the audit ledger left the system.
    CheckpointSigned {
        /// Which ledger: `deltran/<deployment>/audit`.
        origin: String,
        /// Number of leaves.
        size: u64,
        /// Root of the tree over them, base64.
        root: String,
        /// Why: `daily`, `export` or `archive`.
        reason: String,
    }
    /// A range of the audit ledger was handed out.
    ExportCompleted {
        from_leaf: u64,
        /// Not included.
        to_leaf: u64,
        /// Events in the files: fewer than leaves where a filter was given.
        events: u64,
        /// What the export was limited to, such as `participant=ALFAAEXX`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<String>,
        user: String,
        role: String,
        /// SHA-256 of the manifest, hexadecimal.
        manifest_sha256: String,
    }
    /// Days of the audit ledger are kept for the law, whatever the retention.
    LegalHoldPlaced {
        hold_id: HoldId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant_id: Option<ParticipantId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        correlation_id: Option<String>,
        /// Recorded at or after.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Timestamp>,
        /// Recorded before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Timestamp>,
        reason: String,
        placed_by: String,
    }
    /// Such a hold ended.
    LegalHoldReleased { hold_id: HoldId, reason: String, released_by: String, }
    /// A day of the audit ledger was written to the archive, read again there and verified.
    PartitionArchived {
        /// UTC day of recording, such as 2025-11-06.
        day: String,
        from_leaf: u64,
        /// Not included.
        to_leaf: u64,
        /// Where, below the archive's root.
        archive: String,
        /// SHA-256 of its manifest, hexadecimal.
        manifest_sha256: String,
    }
    /// A day of the audit ledger stands in the archive only from now on.
    PartitionDetached {
        /// UTC day of recording, such as 2025-11-06.
        day: String,
        from_leaf: u64,
        /// Not included.
        to_leaf: u64,
    }
    /// Outboxes, streams and audit ledger were compared event by event.
    LedgerReconciled {
        /// Events and positions that were compared.
        compared: u64,
        differences: u64,
        /// Of these, events that were published again.
        repaired: u64,
        user: String,
    }
    /// A comparison found events that are not everywhere.
    LedgerMismatch {
        /// Stream or producer.
        place: String,
        /// `missing_in_ledger`, `missing_in_stream`, `missing_in_outbox` or `differs`.
        kind: String,
        differences: u64,
        /// The first of them.
        first: String,
    }
}
