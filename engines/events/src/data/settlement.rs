//! Events of the settlement engine.

use deltran_kernel::{BatchId, Currency, NettingSetId, ParticipantId, Timestamp, WindowId};

use super::{event_data, event_enum};
use crate::Amount;

event_enum! {
    /// The state of a settlement batch.
    BatchState {
        /// Known; nothing is locked yet.
        Pending = "PENDING",
        /// Every net debit is locked.
        Reserved = "RESERVED",
        /// All legs are posted: final.
        Settled = "SETTLED",
        /// A debtor is short and may still top up.
        AwaitingFunds = "AWAITING_FUNDS",
        /// Replaced by a batch without the defaulter.
        Recast = "RECAST",
        /// Given up; its windows are netted again.
        Aborted = "ABORTED",
    }
}

event_data! {
    /// A debtor that has not reserved enough.
    Shortfall { participant: ParticipantId, required: Amount, reserved: Amount, }

    /// A netting set is to be settled.
    BatchCreated {
        batch_id: BatchId,
        netting_set_id: NettingSetId,
        window_ids: Vec<WindowId>,
        currency: Currency,
        gross: Amount,
        moved: Amount,
        participants: u32,
    }
    /// Every net debit of a batch is locked.
    BatchReserved { batch_id: BatchId, netting_set_id: NettingSetId, currency: Currency, }
    /// Debtors are short; they may top up until the deadline. At most the twenty largest are listed.
    BatchAwaitingFunds {
        batch_id: BatchId,
        netting_set_id: NettingSetId,
        currency: Currency,
        funding_deadline: Timestamp,
        short_debtors: u32,
        shortfalls: Vec<Shortfall>,
    }
    /// All legs of a batch are posted. From `final_at` on the settlement is irrevocable.
    BatchSettled {
        batch_id: BatchId,
        netting_set_id: NettingSetId,
        window_ids: Vec<WindowId>,
        currency: Currency,
        moved: Amount,
        final_at: Timestamp,
    }
    /// A batch was given up; nothing of it was posted.
    BatchAborted {
        batch_id: BatchId,
        netting_set_id: NettingSetId,
        window_ids: Vec<WindowId>,
        currency: Currency,
        reason: String,
    }
}
