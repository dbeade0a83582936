//! Events of the risk engine.

use deltran_kernel::{CommandId, Currency, ParticipantId, Timestamp, WindowId};

use super::{event_data, event_enum};
use crate::Amount;

event_enum! {
    /// What a limit limits.
    LimitKind {
        /// Net debit of one participant in one currency; enforced by the ledger.
        NetDebitCap = "NET_DEBIT_CAP",
        /// A single transaction of a currency, for all or for one participant.
        SingleTransactionMaximum = "SINGLE_TRANSACTION_MAXIMUM",
        /// Net debit of one participant towards another in one currency.
        Bilateral = "BILATERAL",
        /// A single transaction from one country to another in one currency.
        CorridorMaximum = "CORRIDOR_MAXIMUM",
        /// What goes from one country to another in one currency within a day.
        CorridorGross = "CORRIDOR_GROSS",
        /// Number of transactions of one payer, or of any, within a time.
        Rate = "RATE",
    }
    /// What a breaker that is not closed lets pass.
    BreakerMode {
        /// Nothing.
        Open = "OPEN",
        /// Transactions that lower the net positions of those whom the breaker covers.
        Reducing = "REDUCING",
    }
    /// What made a breaker trip.
    BreakerTrigger {
        /// A person.
        Manual = "MANUAL",
        /// Too large a share of decisions were refusals.
        RejectRate = "REJECT_RATE",
        /// Many more transactions than in the time before.
        VolumeSpike = "VOLUME_SPIKE",
        /// What limits decide on is not known well enough.
        StaleData = "STALE_DATA",
        /// Too many of the transactions that were let through to try were refused.
        Probes = "PROBES",
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
        /// Towards whom, of a bilateral limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterparty: Option<ParticipantId>,
        /// From which country to which, such as `AE-IN`, of a corridor's limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        corridor: Option<String>,
        /// When it is to take effect; absent: with its approval.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effective_at: Option<Timestamp>,
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
        /// Towards whom, of a bilateral limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterparty: Option<ParticipantId>,
        /// From which country to which, such as `AE-IN`, of a corridor's limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        corridor: Option<String>,
        /// Since when it is in force.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effective_at: Option<Timestamp>,
    }
    /// Somebody proposed how many transactions may pass within a time; it has no effect yet.
    RateLimitProposed {
        limit_id: CommandId,
        /// Whose transactions as payer; absent: each participant's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        /// Number of transactions.
        transactions: u64,
        window_seconds: u32,
        proposed_by: String,
        reason: String,
        /// When it is to take effect; absent: with its approval.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effective_at: Option<Timestamp>,
    }
    /// A rate limit is in force.
    RateLimitChanged {
        limit_id: CommandId,
        /// Whose transactions as payer; absent: each participant's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        /// Number of transactions.
        transactions: u64,
        window_seconds: u32,
        proposed_by: String,
        approved_by: String,
        /// Since when it is in force.
        effective_at: Timestamp,
    }
    /// A proposed limit was turned down, for ever.
    LimitRejected { limit_id: CommandId, rejected_by: String, reason: String, }
    /// A proposed limit was taken back by its proposer, for ever.
    LimitWithdrawn { limit_id: CommandId, withdrawn_by: String, reason: String, }
    /// Nothing within the scope may pass, or with mode REDUCING only what lowers positions.
    BreakerOpened {
        /// `global`, `currency:USD`, `corridor:AE-IN` or `participant:ALFAAEXX`.
        scope: String,
        reason: String,
        changed_by: String,
        /// What still passes; absent: nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<BreakerMode>,
        /// What made it trip; absent: a person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trigger: Option<BreakerTrigger>,
    }
    /// A few transactions within the scope may pass, to see what becomes of them.
    BreakerHalfOpened {
        /// As in `breaker.opened`.
        scope: String,
        reason: String,
        changed_by: String,
        /// How many may pass.
        probes: u32,
    }
    /// The scope is open for transactions again.
    BreakerClosed { scope: String, reason: String, changed_by: String, }

    /// More of a limit is used than a threshold; published once until it is cleared.
    ThresholdBreached {
        /// The limit that is in force.
        limit_id: CommandId,
        kind: LimitKind,
        participant: ParticipantId,
        /// Towards whom, of a bilateral limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterparty: Option<ParticipantId>,
        currency: Currency,
        limit: Amount,
        used: Amount,
        /// used / limit, in ten-thousandths.
        fraction: u32,
        /// In ten-thousandths.
        threshold: u32,
    }
    /// So much less of a limit is used that a threshold may be breached anew.
    ThresholdCleared {
        /// The limit that is in force.
        limit_id: CommandId,
        kind: LimitKind,
        participant: ParticipantId,
        /// Towards whom, of a bilateral limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterparty: Option<ParticipantId>,
        currency: Currency,
        limit: Amount,
        used: Amount,
        /// used / limit, in ten-thousandths.
        fraction: u32,
        /// In ten-thousandths.
        threshold: u32,
    }

    /// What a participant owes, net, in windows that are not settled.
    NetDebtor { participant: ParticipantId, net_debit: Amount, }

    /// What is owed in a currency over all windows that are not settled; published when a window is sealed,
    /// and at intervals where configured.
    ExposureSnapshot {
        currency: Currency,
        /// The window that was sealed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_id: Option<WindowId>,
        /// Windows that are not settled.
        windows: u32,
        /// Transactions in them.
        count: u64,
        gross: Amount,
        /// Sum of what participants owe, net per window.
        net_debit: Amount,
        /// Participants with a position.
        participants: u32,
        /// The two that owe most, net per window (CPMI-IOSCO principle 4).
        largest_debtors: Vec<NetDebtor>,
    }
}
