//! Events of the compliance engine.

use deltran_kernel::{AlertId, CaseId, Currency, HoldId, ParticipantId, Timestamp, TransactionId};

use super::{event_data, event_enum};
use crate::Amount;

event_enum! {
    /// What opened a case.
    CaseCause {
        /// An officer.
        Officer = "officer",
        /// A transaction that is held.
        Hold = "hold",
        /// An alert of monitoring.
        Alert = "alert",
        /// An officer, after it had been closed.
        Reopened = "reopened",
    }
    /// What a case came to.
    CaseOutcome {
        /// The suspicion is confirmed.
        Confirmed = "confirmed",
        /// There was nothing to it.
        FalsePositive = "false_positive",
        /// Not confirmed, but worth having looked at.
        Valuable = "valuable",
    }
    /// What a monitoring rule looks for.
    RuleKind {
        /// Too many transactions, or too much, in a window.
        Velocity = "velocity",
        /// Several transactions just under a threshold in a window.
        Structuring = "structuring",
    }
    /// What becomes of a rule that is crossed.
    RuleMode {
        /// An alert, and a case.
        Active = "ACTIVE",
        /// The crossing is recorded and nobody is alerted.
        Shadow = "SHADOW",
        /// The rule is not applied.
        Off = "OFF",
    }
    /// What a rule adds up.
    RuleScope {
        /// All transactions of a payer.
        Payer = "PAYER",
        /// The transactions of a payer to one payee.
        Pair = "PAIR",
    }
}

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
    /// Somebody should look: a list is missing, a check failed, a monitoring rule was crossed.
    AlertRaised {
        /// What kind, such as `no_list`, or the kind of the rule, such as `velocity`.
        kind: String,
        message: String,
        /// The alert, where it is kept: one of a monitoring rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alert_id: Option<AlertId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule_version: Option<u32>,
        /// Whom it is about: the payer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        /// The payee, where the rule looks at pairs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterparty: Option<ParticipantId>,
        /// The transaction that crossed the rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transaction_id: Option<TransactionId>,
        /// The case that it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        case_id: Option<CaseId>,
        /// Transactions in the window.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
        /// Their sum, where the rule looks at one currency.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sum: Option<AmountOf>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_from: Option<Timestamp>,
        /// The end of the window, exclusive.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_to: Option<Timestamp>,
    }
    /// A case was opened, or opened again.
    CaseOpened {
        case_id: CaseId,
        /// The participant that it is about; else `transaction_id`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        /// The transaction that it is about; else `participant`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transaction_id: Option<TransactionId>,
        cause: CaseCause,
        opened_by: String,
    }
    /// A case was brought to somebody with more to say.
    CaseEscalated {
        case_id: CaseId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transaction_id: Option<TransactionId>,
        escalated_to: String,
        escalated_by: String,
    }
    /// A case was closed.
    CaseClosed {
        case_id: CaseId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transaction_id: Option<TransactionId>,
        outcome: CaseOutcome,
        closed_by: String,
    }
    /// An amount with its currency.
    AmountOf { amount: Amount, currency: Currency, }
    /// A version of a monitoring rule applies from now on.
    RuleChanged {
        rule: String,
        rule_version: u32,
        kind: RuleKind,
        mode: RuleMode,
        scope: RuleScope,
        window_seconds: u64,
        /// `velocity`: more transactions than this cross the rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_count: Option<u64>,
        /// `structuring`: this many transactions cross the rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min_count: Option<u64>,
        /// `structuring`: how far below a threshold counts, in ten-thousandths of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        band: Option<u32>,
        /// By currency: the most that passes (`velocity`), or the thresholds (`structuring`).
        amounts: Vec<AmountOf>,
        changed_by: String,
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
        /// Its entries, each with one primary name.
        names: u64,
        loaded_by: String,
        /// Further names of its entries.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aliases: Option<u64>,
        /// The day or moment that the list itself says it is of, where it does (ISO 8601).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dated: Option<String>,
    }
}

impl AlertRaised {
    /// An alert about a condition.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            message: message.into(),
            alert_id: None,
            rule: None,
            rule_version: None,
            participant: None,
            counterparty: None,
            transaction_id: None,
            case_id: None,
            count: None,
            sum: None,
            window_from: None,
            window_to: None,
        }
    }
}
