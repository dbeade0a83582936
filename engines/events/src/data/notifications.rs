//! Events of the notification engine: each tells one participant what concerns it.

use deltran_kernel::{
    BatchId, CommandId, Currency, EndpointId, EventId, NettingSetId, ParticipantId, PostingGroupId, Timestamp,
    TransactionId, WindowId, WithdrawalId,
};

use super::risk::LimitKind;
use super::{event_data, event_enum};
use crate::Amount;

event_enum! {
    /// What a participant is alerted to.
    NoticeAlert {
        /// A breaker that covers it tripped.
        BreakerOpened = "BREAKER_OPENED",
        /// A breaker that covers it lets a few transactions pass.
        BreakerHalfOpened = "BREAKER_HALF_OPENED",
        /// A breaker that covers it lets everything pass again.
        BreakerClosed = "BREAKER_CLOSED",
        /// It may not transact until it is reinstated.
        ParticipantSuspended = "PARTICIPANT_SUSPENDED",
        /// It may transact again.
        ParticipantReinstated = "PARTICIPANT_REINSTATED",
        /// It was declared in default.
        ParticipantDefaulted = "PARTICIPANT_DEFAULTED",
    }
    /// Why an endpoint gets no more webhooks.
    DisabledReason {
        /// The receiver answered 410.
        Gone = "GONE",
        /// Nothing was taken for too long.
        Failing = "FAILING",
        /// Its owner disabled it.
        Owner = "OWNER",
        /// An operator disabled it; only an operator enables it again.
        Operator = "OPERATOR",
    }
}

event_data! {
    /// A payment to the participant was committed.
    PaymentReceived {
        participant: ParticipantId,
        transaction_id: TransactionId,
        payer: ParticipantId,
        amount: Amount,
        currency: Currency,
        /// Window of a NET payment; a GROSS one is final.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_id: Option<WindowId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end_to_end_id: Option<String>,
    }
    /// A payment of the participant was committed.
    PaymentSent {
        participant: ParticipantId,
        transaction_id: TransactionId,
        payee: ParticipantId,
        amount: Amount,
        currency: Currency,
        /// Window of a NET payment; a GROSS one is final.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_id: Option<WindowId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end_to_end_id: Option<String>,
    }
    /// A payment of the participant waits for compliance.
    PaymentHeld {
        participant: ParticipantId,
        transaction_id: TransactionId,
        payee: ParticipantId,
        amount: Amount,
        currency: Currency,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end_to_end_id: Option<String>,
    }
    /// A payment of the participant was refused, for ever.
    PaymentRejected {
        participant: ParticipantId,
        transaction_id: TransactionId,
        payee: ParticipantId,
        amount: Amount,
        currency: Currency,
        /// The fixed code of the refusal.
        reason: String,
        /// Whether it had been held before.
        was_held: bool,
    }
    /// A reservation of the participant ran out.
    PaymentExpired {
        participant: ParticipantId,
        transaction_id: TransactionId,
        payee: ParticipantId,
        amount: Amount,
        currency: Currency,
    }
    /// A deposit arrived and its tokens were credited.
    DepositCredited { participant: ParticipantId, amount: Amount, currency: Currency, reference: String, }
    /// A withdrawal was paid out.
    WithdrawalPaid { participant: ParticipantId, withdrawal_id: WithdrawalId, amount: Amount, currency: Currency, reference: String, }
    /// A withdrawal failed and its tokens were given back.
    WithdrawalReturned { participant: ParticipantId, withdrawal_id: WithdrawalId, amount: Amount, currency: Currency, }
    /// The ledger sealed a window: its transactions are fixed.
    WindowClosedNotice { participant: ParticipantId, window_id: WindowId, currency: Currency, closed_at: Timestamp, }
    /// The participant's net position of one or more windows is frozen.
    PositionChanged {
        participant: ParticipantId,
        netting_set_id: NettingSetId,
        window_ids: Vec<WindowId>,
        currency: Currency,
        /// What it receives; negative: what it owes.
        net: Amount,
    }
    /// The participant's tokens do not cover what it owes; it may top up until the deadline.
    FundingRequired {
        participant: ParticipantId,
        batch_id: BatchId,
        netting_set_id: NettingSetId,
        currency: Currency,
        required: Amount,
        reserved: Amount,
        missing: Amount,
        funding_deadline: Timestamp,
    }
    /// The participant's net position was settled with finality.
    SettlementCompleted {
        participant: ParticipantId,
        /// The group of postings in the ledger.
        group_id: PostingGroupId,
        window_ids: Vec<WindowId>,
        currency: Currency,
        /// What it received; negative: what it paid.
        net: Amount,
        /// From then on it is irrevocable.
        final_at: Timestamp,
    }
    /// A settlement that the participant has a position in was given up; its windows are netted again.
    SettlementFailed {
        participant: ParticipantId,
        batch_id: BatchId,
        netting_set_id: NettingSetId,
        window_ids: Vec<WindowId>,
        currency: Currency,
    }
    /// A limit of the participant, or of everybody, is in force.
    LimitNotice {
        participant: ParticipantId,
        limit_id: CommandId,
        kind: LimitKind,
        amount: Amount,
        currency: Currency,
        /// Towards whom, of a bilateral limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterparty: Option<ParticipantId>,
        /// From which country to which, such as `AE-IN`, of a corridor's limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        corridor: Option<String>,
    }
    /// A rate limit of the participant, or of everybody, is in force.
    RateLimitNotice {
        participant: ParticipantId,
        limit_id: CommandId,
        /// Number of transactions.
        transactions: u64,
        window_seconds: u32,
    }
    /// More of a limit of the participant is used than a threshold.
    ThresholdBreachedNotice {
        participant: ParticipantId,
        limit_id: CommandId,
        kind: LimitKind,
        /// Towards whom, of a bilateral limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterparty: Option<ParticipantId>,
        currency: Currency,
        limit: Amount,
        used: Amount,
        /// In ten-thousandths of the limit.
        threshold: u32,
    }
    /// So much less of a limit of the participant is used that the threshold counts anew.
    ThresholdClearedNotice {
        participant: ParticipantId,
        limit_id: CommandId,
        kind: LimitKind,
        /// Towards whom, of a bilateral limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterparty: Option<ParticipantId>,
        currency: Currency,
        limit: Amount,
        used: Amount,
        /// In ten-thousandths of the limit.
        threshold: u32,
    }
    /// Something stops what the participant may do, or no longer does.
    AlertNotice {
        participant: ParticipantId,
        alert: NoticeAlert,
        /// What it covers: `participant:ALFAAEXX`, `currency:USD`, `corridor:AE-IN` or `global`.
        scope: String,
        message: String,
    }

    /// A notification was not taken by an endpoint until its last attempt; it may be replayed.
    DeliveryFailed {
        participant: ParticipantId,
        endpoint_id: EndpointId,
        notification_id: EventId,
        /// Of the notification, such as `payment.received`.
        kind: String,
        attempts: u32,
        /// How the last attempt ended, such as `timeout` or `status 500`.
        error: String,
    }
    /// An endpoint gets no more webhooks until its owner enables it.
    EndpointDisabled { participant: ParticipantId, endpoint_id: EndpointId, reason: DisabledReason, }
}
