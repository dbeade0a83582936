//! Events of the token engine.

use deltran_kernel::{Currency, ParticipantId, PostingGroupId, Timestamp, TransactionId, WindowId, WithdrawalId};

use super::{event_data, event_enum};
use crate::Amount;

event_enum! {
    /// How a transaction settles.
    SettlementModel {
        /// With the net positions of its window, against the hub.
        NetMultilateral = "NET_MULTILATERAL",
        /// With the net positions of its window, pair by pair.
        NetBilateral = "NET_BILATERAL",
        /// At once, out of the payer's tokens.
        Gross = "GROSS",
    }
    /// The state of a transaction. Whether a committed one is settled follows from its window.
    TransactionState {
        /// Held by compliance; reserves nothing.
        Held = "HELD",
        /// First phase done; waits for commit, cancel or expiry.
        Reserved = "RESERVED",
        /// Irrevocably accepted.
        Committed = "COMMITTED",
        /// Refused, for ever.
        Rejected = "REJECTED",
        /// Cancelled by the payer while it was reserved.
        Cancelled = "CANCELLED",
        /// Its reservation ran out.
        Expired = "EXPIRED",
    }
    /// What stands behind a participant's positions beyond its tokens.
    CoverPolicy {
        /// Nothing: positions are covered by tokens alone.
        Prefunded = "PREFUNDED",
        /// Registered collateral.
        Collateral = "COLLATERAL",
        /// An approved uncovered amount.
        CreditLine = "CREDIT_LINE",
    }
}

event_data! {
    /// What the gates and the ledger saw when they decided.
    Evidence {
        /// Compliance's decision: APPROVE, REVIEW or BLOCK_AND_REVIEW.
        screening: String,
        /// What led to it, such as `no_parties` or `no_match`.
        screening_evidence: String,
        /// Versions of the lists that were searched.
        list_versions: Vec<String>,
        /// Version of the screening rule.
        rule_version: String,
        /// The best match in ten-thousandths; absent where the transaction was decided before 1.1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        screening_score: Option<u32>,
        /// Version of the limits and breakers that were asked.
        risk_version: u64,
        /// What was left under the net debit cap after this transaction; absent where no cap applies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cap_headroom: Option<Amount>,
        /// What was left of cover after this transaction; absent where nothing was debited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cover_headroom: Option<Amount>,
    }

    /// A transaction was accepted. Published once per accepted transaction; with state COMMITTED it
    /// is an obligation of its window.
    TransactionCreated {
        transaction_id: TransactionId,
        payer: ParticipantId,
        payee: ParticipantId,
        amount: Amount,
        currency: Currency,
        settlement_model: SettlementModel,
        state: TransactionState,
        /// Window of a committed NET transaction.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_id: Option<WindowId>,
        /// Its dense place in the window, from 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_seq: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end_to_end_id: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uetr: Option<String>,
        /// The transaction that this one returns.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        return_of: Option<TransactionId>,
        /// When a reservation runs out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
        evidence: Evidence,
    }

    /// A transaction that was HELD or RESERVED became COMMITTED: an obligation of its window.
    TransactionCommitted {
        transaction_id: TransactionId,
        payer: ParticipantId,
        payee: ParticipantId,
        amount: Amount,
        currency: Currency,
        settlement_model: SettlementModel,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_id: Option<WindowId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_seq: Option<u64>,
    }

    /// A transaction was refused; the refusal is final for its id.
    TransactionRejected {
        transaction_id: TransactionId,
        payer: ParticipantId,
        payee: ParticipantId,
        amount: Amount,
        currency: Currency,
        /// The fixed code of the refusal.
        reason: String,
        /// The refusal in words.
        message: String,
        /// Whether it had been HELD before.
        was_held: bool,
    }

    /// The payer gave a reservation back.
    TransactionCancelled {
        transaction_id: TransactionId,
        payer: ParticipantId,
        payee: ParticipantId,
        amount: Amount,
        currency: Currency,
        reason: String,
    }

    /// A reservation ran out.
    TransactionExpired {
        transaction_id: TransactionId,
        payer: ParticipantId,
        payee: ParticipantId,
        amount: Amount,
        currency: Currency,
        expired_at: Timestamp,
    }

    /// Compliance released a held transaction; `state` says what became of it.
    TransactionReleased {
        transaction_id: TransactionId,
        state: TransactionState,
        reason: String,
    }

    /// Fiat arrived at the safeguarding bank and tokens were minted.
    DepositConfirmed {
        participant: ParticipantId,
        amount: Amount,
        currency: Currency,
        reference: String,
    }

    /// Tokens were locked for a withdrawal.
    WithdrawalRequested {
        withdrawal_id: WithdrawalId,
        participant: ParticipantId,
        amount: Amount,
        currency: Currency,
        reference: String,
    }

    /// Fiat left the safeguarding bank and the locked tokens were burnt.
    WithdrawalConfirmed {
        withdrawal_id: WithdrawalId,
        participant: ParticipantId,
        amount: Amount,
        currency: Currency,
        reference: String,
    }

    /// A withdrawal failed and its tokens were given back.
    WithdrawalFailed {
        withdrawal_id: WithdrawalId,
        participant: ParticipantId,
        amount: Amount,
        currency: Currency,
        reason: String,
    }

    /// A participant was registered; it may not transact before it is activated.
    ParticipantRegistered { participant: ParticipantId, name: String, }
    /// A participant may transact from now on.
    ParticipantActivated { participant: ParticipantId, reason: String, }
    /// A participant may not transact until it is reinstated.
    ParticipantSuspended { participant: ParticipantId, reason: String, }
    /// A suspended participant may transact again.
    ParticipantReinstated { participant: ParticipantId, reason: String, }
    /// A participant was declared in default.
    ParticipantDefaulted { participant: ParticipantId, reason: String, }
    /// A participant left.
    ParticipantExited { participant: ParticipantId, reason: String, }

    /// A participant may transact in a currency from now on.
    CurrencyEnabled { participant: ParticipantId, currency: Currency, }

    /// What stands behind a participant's positions changed.
    CollateralChanged {
        participant: ParticipantId,
        currency: Currency,
        policy: CoverPolicy,
        amount: Amount,
        proposed_by: String,
        approved_by: String,
    }

    /// The ledger sealed a window: what came before belongs to it, what comes after does not.
    WindowSealed {
        window_id: WindowId,
        currency: Currency,
        /// Number of transactions; their `window_seq` is 1 to this.
        count: u64,
        gross: Amount,
        /// SHA-256 over the 16-byte transaction ids in `window_seq` order, in hexadecimal.
        digest: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_window_id: Option<WindowId>,
    }

    /// Tokens that were locked for what a debtor owes in a window.
    Earmark { participant: ParticipantId, amount: Amount, }

    /// The ledger locked tokens of net debtors for a sealed window, at the seal or later. More than 400 debtors
    /// take several events.
    WindowEarmarked { window_id: WindowId, currency: Currency, earmarks: Vec<Earmark>, }

    /// A leg of a settlement.
    SettledLeg {
        participant: ParticipantId,
        /// What it received; negative: what it paid out of the tokens that were locked for these windows.
        net: Amount,
        /// Locked tokens beyond what it paid, which it may spend again.
        given_back: Amount,
    }

    /// The ledger posted the settlement of windows: all legs, and every position of these windows is zero. More
    /// than 200 legs take several events, `part` 1 to `parts`, one after another.
    SettlementPosted {
        /// The group of postings.
        group_id: PostingGroupId,
        window_ids: Vec<WindowId>,
        currency: Currency,
        part: u32,
        parts: u32,
        legs: Vec<SettledLeg>,
        /// When it was posted: the time of finality.
        posted_at: Timestamp,
    }

    /// A producer of events whose numbers ended where its database was restored to.
    EndedProducer {
        /// `<source>/<epoch>`.
        producer: String,
        /// The last number that its database knows of.
        last: u64,
        /// Events with later numbers, or of later epochs, that its stream has.
        beyond: u64,
        /// The producer from now on.
        next: String,
    }

    /// The database goes on from an earlier moment, or after a fail-over: numbers go on in new epochs, so that none is given
    /// out twice.
    LedgerRestored {
        /// Why, in words.
        reason: String,
        producers: Vec<EndedProducer>,
        /// Whether the ledger takes nothing until somebody decides: its stream has events that the database does not know of.
        waits: bool,
    }

    /// The ledger of a restored database takes submissions again.
    LedgerResumed { reason: String, decided_by: String, }
}
