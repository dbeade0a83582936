//! What can be asked of the ledger, and what it answers.

use deltran_events::data::transactions::{CoverPolicy, SettlementModel, TransactionState};
use deltran_kernel::{
    CommandId, Currency, Minor, Money, ParticipantId, PostingGroupId, Timestamp, TransactionId, WindowId, WithdrawalId,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::refusal::Refusal;

/// SHA-256 of a request's body: the same id with another one is a conflict.
pub type BodyHash = [u8; 32];

/// Who asked, for the record and for events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct By {
    /// The user.
    pub user: String,
    /// W3C `traceparent` of the call.
    pub trace: Option<String>,
}

/// The order of a transaction among others of its participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words of the contract")]
pub enum Priority {
    Normal = 1,
    Urgent = 2,
    HighlyUrgent = 3,
}

impl Priority {
    /// From its stored number.
    pub fn from_number(number: i16) -> Option<Self> {
        [Self::Normal, Self::Urgent, Self::HighlyUrgent].into_iter().find(|p| *p as i16 == number)
    }
}

/// A transaction as its payer instructs it, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// The one idempotency key.
    pub id: TransactionId,
    /// Who pays.
    pub payer: ParticipantId,
    /// Who is paid.
    pub payee: ParticipantId,
    /// How much; any sign, judged by the ledger.
    pub amount: Money,
    /// How it settles.
    pub model: SettlementModel,
    /// Its priority.
    pub priority: Priority,
    /// The payer's own reference.
    pub end_to_end_id: String,
    /// Unique end-to-end transaction reference.
    pub uetr: Option<Uuid>,
    /// Purpose code or text.
    pub purpose: String,
    /// Time in microseconds that a reservation lasts; `None` commits at once.
    pub reserve_for: Option<i64>,
    /// The transaction that this one returns.
    pub return_of: Option<TransactionId>,
    /// Hash of everything the caller sent.
    pub body_hash: BodyHash,
}

/// What compliance said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScreeningDecision {
    /// May pass.
    Approve,
    /// Held for review.
    Review,
    /// Held for review; blocked unless released.
    BlockAndReview,
    /// Refused.
    Decline,
}

impl ScreeningDecision {
    /// The word for events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "APPROVE",
            Self::Review => "REVIEW",
            Self::BlockAndReview => "BLOCK_AND_REVIEW",
            Self::Decline => "DECLINE",
        }
    }
}

/// What the gates said about a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gates {
    /// Compliance's decision.
    pub decision: ScreeningDecision,
    /// What led to it.
    pub evidence: String,
    /// Versions of the lists that were searched.
    pub list_versions: Vec<String>,
    /// Version of the screening rule.
    pub rule_version: String,
    /// Compliance's best match in ten-thousandths.
    pub screening_score: u32,
    /// Risk's refusal: `breaker_open` or `limit`.
    pub risk_refusal: Option<Refusal>,
    /// Version of the limits and breakers.
    pub risk_version: u64,
    /// The only window in which risk lets it be committed; any where none.
    pub risk_window: Option<WindowId>,
    /// The turn in which risk was asked: what it said counts in no other.
    pub turn: u64,
}

/// A command to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Submits a transaction. Without gates (they could not be asked) only a known id is answered.
    Submit { instruction: Box<Instruction>, gates: Result<Box<Gates>, String>, by: By },
    /// Second phase of a reservation.
    Commit { id: TransactionId, payer: ParticipantId, by: By },
    /// Gives a reservation back.
    Cancel { id: TransactionId, payer: ParticipantId, reason: String, by: By },
    /// Ends HELD. A release comes with what risk says now: without it only one that is done already is answered.
    Release { id: TransactionId, release: bool, reason: String, gates: Option<Box<Gates>>, by: By },
    /// Mints tokens.
    Deposit { id: CommandId, hash: BodyHash, participant: ParticipantId, amount: Money, reference: String, by: By },
    /// Locks tokens for a withdrawal.
    RequestWithdrawal {
        id: WithdrawalId,
        hash: BodyHash,
        participant: ParticipantId,
        amount: Money,
        reference: String,
        by: By,
    },
    /// Burns locked tokens, or (failed) gives them back.
    EndWithdrawal { id: WithdrawalId, confirmed: bool, text: String, by: By },
    /// Registers a participant.
    Register { id: CommandId, hash: BodyHash, participant: ParticipantId, name: String, by: By },
    /// Changes a participant's state.
    SetState {
        id: CommandId,
        hash: BodyHash,
        participant: ParticipantId,
        state: ParticipantState,
        reason: String,
        by: By,
    },
    /// Lets a participant take part in a currency.
    EnableCurrency { id: CommandId, hash: BodyHash, participant: ParticipantId, currency: Currency, by: By },
    /// Cover policy and amount; the second user applies what the first proposed.
    SetCollateral {
        id: CommandId,
        hash: BodyHash,
        participant: ParticipantId,
        policy: CoverPolicy,
        amount: Money,
        by: By,
    },
    /// Net debit cap.
    SetLimit { id: CommandId, hash: BodyHash, participant: ParticipantId, cap: Money, by: By },
    /// Opens a window.
    OpenWindow { id: WindowId, currency: Currency },
    /// Seals a window and may open the next.
    SealWindow { id: WindowId, next: Option<WindowId>, by: By },
    /// Locks what debtors lack.
    Earmark { group: PostingGroupId, hash: BodyHash, windows: Vec<WindowId>, by: By },
    /// Posts a settlement.
    Settle { group: PostingGroupId, hash: BodyHash, windows: Vec<WindowId>, legs: Vec<(ParticipantId, Money)>, by: By },
    /// Ends the wait of a restored ledger.
    Resume { id: CommandId, hash: BodyHash, reason: String, by: By },
    /// Ends reservations that ran out.
    ExpireDue,
}

/// Whether an answer is new or was given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied<T> {
    /// Carried out by this command.
    Executed(T),
    /// The same command was carried out before; this is what it led to.
    AlreadyApplied(T),
}

impl<T> Applied<T> {
    /// The answer, and whether it was given before.
    pub fn into_parts(self) -> (T, bool) {
        match self {
            Self::Executed(value) => (value, false),
            Self::AlreadyApplied(value) => (value, true),
        }
    }
}

/// The state of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the contract")]
#[serde(rename_all = "UPPERCASE")]
pub enum ParticipantState {
    Onboarding,
    Active,
    Suspended,
    Defaulted,
    Exited,
}

impl ParticipantState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Onboarding, Self::Active, Self::Suspended, Self::Defaulted, Self::Exited];

    /// The stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Onboarding => "ONBOARDING",
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Defaulted => "DEFAULTED",
            Self::Exited => "EXITED",
        }
    }

    /// The state of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// What a submission led to. It never changes for its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The transaction.
    pub id: TransactionId,
    /// HELD, RESERVED, COMMITTED or REJECTED.
    pub state: TransactionState,
    /// Window and place in it, of a committed NET transaction.
    pub window: Option<(WindowId, u64)>,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
    /// When the reservation runs out.
    pub expires_at: Option<Timestamp>,
}

/// A debtor of a settlement: what it owes and has locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funding {
    /// The debtor.
    pub participant: ParticipantId,
    /// What it owes.
    pub required: Minor,
    /// What is locked.
    pub reserved: Minor,
    /// What else stands behind it.
    pub policy: CoverPolicy,
}

/// Control totals of a sealed window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealTotals {
    /// The window.
    pub window: WindowId,
    /// Its currency.
    pub currency: Currency,
    /// Number of transactions.
    pub count: u64,
    /// Sum of amounts.
    pub gross: Minor,
    /// Net position of everyone who took part; plus receives.
    pub net: Vec<(ParticipantId, Minor)>,
    /// SHA-256 over the transaction ids in `window_seq` order.
    pub digest: [u8; 32],
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was sealed.
    pub sealed_at: Timestamp,
}

/// The answer to a command. Stored for commands other than submissions, so that a repeated command
/// gets it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To Submit; kept with the transaction itself.
    #[serde(skip)]
    Outcome(Outcome),
    /// To Commit, Cancel, Release: the transaction has this state.
    Transaction(TransactionState),
    /// Done; nothing more to say.
    Done,
    /// The balance after a deposit.
    Balance(Minor),
    /// The state of a withdrawal.
    Withdrawal(WithdrawalState),
    /// A participant's state.
    Participant(ParticipantState),
    /// Four eyes: who proposed, and who approved.
    Collateral { proposed_by: String, approved_by: Option<String> },
    /// A window was opened.
    Opened { at: Timestamp },
    /// A window was sealed.
    Sealed(Box<SealTotals>),
    /// Debtors and what they have locked.
    Funding { at: Timestamp, debtors: Vec<Funding> },
    /// Number of reservations that ran out.
    Expired(usize),
}

/// The state of a withdrawal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the contract")]
#[serde(rename_all = "UPPERCASE")]
pub enum WithdrawalState {
    Requested,
    Confirmed,
    Failed,
}

impl WithdrawalState {
    /// The stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::Confirmed => "CONFIRMED",
            Self::Failed => "FAILED",
        }
    }

    /// The state of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Requested, Self::Confirmed, Self::Failed].into_iter().find(|state| state.as_str() == word)
    }
}
