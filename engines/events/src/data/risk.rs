//! Events of the risk engine.

use deltran_kernel::{CommandId, Currency, ParticipantId};

use super::{event_data, event_enum};
use crate::Amount;

event_enum! {
    /// What a limit limits.
    LimitKind {
        /// Net debit of one participant in one currency; enforced by the ledger.
        NetDebitCap = "NET_DEBIT_CAP",
        /// A single transaction of a currency, for all or for one participant.
        SingleTransactionMaximum = "SINGLE_TRANSACTION_MAXIMUM",
    }
}

event_data! {
    /// Somebody proposed a limit; it has no effect yet.
    LimitProposed {
        limit_id: CommandId,
        kind: LimitKind,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        amount: Amount,
        currency: Currency,
        proposed_by: String,
        reason: String,
    }
    /// A limit is in force.
    LimitChanged {
        limit_id: CommandId,
        kind: LimitKind,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        amount: Amount,
        currency: Currency,
        proposed_by: String,
        approved_by: String,
    }
    /// Nothing within the scope may pass.
    BreakerOpened { scope: String, reason: String, changed_by: String, }
    /// The scope is open for transactions again.
    BreakerClosed { scope: String, reason: String, changed_by: String, }
}
