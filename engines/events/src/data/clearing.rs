//! Events of the clearing engine.

use deltran_kernel::{Currency, NettingSetId, ParticipantId, Timestamp, WindowId};

use super::{event_data, event_enum};
use crate::Amount;

event_enum! {
    /// The state of a clearing window.
    WindowState {
        /// Known, not yet open.
        Scheduled = "SCHEDULED",
        /// Collects transactions.
        Open = "OPEN",
        /// Its sealing was ordered.
        Closing = "CLOSING",
        /// Sealed by the ledger; its transactions are fixed.
        Closed = "CLOSED",
        /// Control totals agree and positions are frozen.
        Netted = "NETTED",
        /// Settlement works on it.
        Settling = "SETTLING",
        /// Final.
        Settled = "SETTLED",
        /// Its settlement failed; it is netted again.
        Failed = "FAILED",
        /// Ended empty.
        Aborted = "ABORTED",
    }
}

event_data! {
    /// A window is planned.
    WindowScheduled {
        window_id: WindowId,
        schedule: String,
        currency: Currency,
        opens_at: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closes_at: Option<Timestamp>,
    }
    /// A window collects transactions.
    WindowOpened {
        window_id: WindowId,
        schedule: String,
        currency: Currency,
        opened_at: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closes_at: Option<Timestamp>,
    }
    /// An operator moved the closing time.
    WindowExtended { window_id: WindowId, currency: Currency, closes_at: Timestamp, extended_by: String, reason: String, }
    /// The sealing of a window was ordered.
    WindowClosing { window_id: WindowId, currency: Currency, ordered_by: String, }
    /// The ledger sealed a window.
    WindowClosed {
        window_id: WindowId,
        currency: Currency,
        count: u64,
        gross: Amount,
        /// The ledger's digest of its transactions, in hexadecimal.
        digest: String,
        closed_at: Timestamp,
    }
    /// A window's positions are frozen in a netting set.
    WindowNetted { window_id: WindowId, currency: Currency, netting_set_id: NettingSetId, }
    /// Settlement works on a window.
    WindowSettling { window_id: WindowId, currency: Currency, netting_set_id: NettingSetId, }
    /// A window is settled with finality.
    WindowSettled { window_id: WindowId, currency: Currency, netting_set_id: NettingSetId, final_at: Timestamp, }
    /// The settlement of a window failed; it will be netted again.
    WindowFailed { window_id: WindowId, currency: Currency, netting_set_id: NettingSetId, reason: String, }
    /// An empty window was ended.
    WindowAborted { window_id: WindowId, currency: Currency, ordered_by: String, reason: String, }

    /// A netting set is frozen. Its positions are read with `GetNettingSet` and checked by the digest.
    NettingCompleted {
        netting_set_id: NettingSetId,
        currency: Currency,
        window_ids: Vec<WindowId>,
        /// Number of transactions.
        count: u64,
        gross: Amount,
        /// The value that changes hands.
        moved: Amount,
        /// 1 − moved / gross, in ten-thousandths.
        efficiency: u32,
        participants: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        largest_debtor: Option<ParticipantId>,
        /// SHA-256 of the canonical content, in hexadecimal.
        digest: String,
    }
}
