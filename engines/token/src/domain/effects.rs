//! What a command changed: rows to be stored and events to be published, as data.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::Context;
use deltran_events::Event;
use deltran_events::data::transactions::{CoverPolicy, TransactionState};
use deltran_kernel::{
    Currency, Minor, ParticipantId, PostingGroupId, Timestamp, TransactionId, WindowId, WithdrawalId,
};
use uuid::Uuid;

use super::account::{AccountKey, Sides};
use super::command::{Answer, BodyHash, Instruction, Outcome, ParticipantState, WithdrawalState};
use super::refusal::Refusal;

/// A transaction as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What was instructed.
    pub instruction: Instruction,
    /// What the submission led to, for ever.
    pub outcome_state: TransactionState,
    /// When that was decided.
    pub decided_at: Timestamp,
    /// The present state.
    pub state: TransactionState,
    /// When the state last changed.
    pub updated_at: Timestamp,
    /// Window and place in it, once committed.
    pub window: Option<(WindowId, u64)>,
    /// When a reservation runs out.
    pub expires_at: Option<Timestamp>,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
    /// How much of it was returned.
    pub returned: Minor,
}

impl Record {
    /// The answer that the submission got and gets again.
    pub fn outcome(&self) -> Outcome {
        let committed = self.outcome_state == TransactionState::Committed;
        let rejected = self.outcome_state == TransactionState::Rejected;
        Outcome {
            id: self.instruction.id,
            state: self.outcome_state,
            window: self.window.filter(|_| committed),
            decided_at: self.decided_at,
            refusal: self.refusal.clone().filter(|_| rejected),
            expires_at: self.expires_at.filter(|_| self.outcome_state == TransactionState::Reserved),
        }
    }
}

/// One debit and one credit of the same amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// Its dense number in the log, from 1.
    pub seq: u64,
    /// Postings of one group stand or fall together.
    pub group: Option<PostingGroupId>,
    /// The account that is debited.
    pub debit: AccountKey,
    /// The account that is credited.
    pub credit: AccountKey,
    /// How much; positive.
    pub amount: Minor,
    /// The transaction it belongs to.
    pub transaction: Option<TransactionId>,
    /// When it was posted.
    pub at: Timestamp,
}

/// An event with what surrounds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The event.
    pub event: Event,
    /// Who and what it belongs to.
    pub context: Context,
    /// W3C `traceparent`.
    pub trace: Option<String>,
}

/// A participant's terms in a currency, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Net debit cap.
    pub cap: Minor,
    /// What stands behind positions beyond tokens.
    pub policy: CoverPolicy,
    /// How much of it.
    pub collateral: Minor,
}

/// A window as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowRow {
    /// Its currency.
    pub currency: Currency,
    /// Number of transactions so far.
    pub count: u64,
    /// Sum of amounts so far.
    pub gross: Minor,
    /// State of the running digest.
    pub digest: Vec<u8>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Control totals, once sealed.
    pub sealed: Option<Answer>,
    /// When it was settled.
    pub settled_at: Option<Timestamp>,
}

/// A withdrawal as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithdrawalRow {
    /// Hash of the request.
    pub hash: BodyHash,
    /// Whose it is.
    pub participant: ParticipantId,
    /// Its currency.
    pub currency: Currency,
    /// How much.
    pub amount: Minor,
    /// The participant's reference.
    pub reference: String,
    /// Its state.
    pub state: WithdrawalState,
}

/// A command other than a transaction, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRow {
    /// Hash of the request.
    pub hash: BodyHash,
    /// What it was answered.
    pub answer: Answer,
}

/// Everything that a batch of commands changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Ids of transactions that are new, in order of decision.
    pub new: Vec<TransactionId>,
    /// Ids of transactions that were there before and changed.
    pub changed: BTreeSet<TransactionId>,
    /// Postings, in order.
    pub postings: Vec<Posting>,
    /// Accounts that were touched, with their sides before the first touch.
    pub accounts: BTreeMap<AccountKey, Option<Sides>>,
    /// Windows that were touched.
    pub windows: BTreeMap<WindowId, WindowRow>,
    /// Participants that were registered or changed state.
    pub participants: BTreeMap<ParticipantId, (String, ParticipantState)>,
    /// Terms that were set.
    pub terms: BTreeMap<(ParticipantId, Currency), Terms>,
    /// The same, in order, each with the number of the last posting before it.
    pub terms_history: Vec<(ParticipantId, Currency, Terms, u64)>,
    /// Withdrawals that were requested or ended.
    pub withdrawals: BTreeMap<WithdrawalId, WithdrawalRow>,
    /// Commands that were carried out or proposed.
    pub commands: BTreeMap<Uuid, CommandRow>,
    /// Whether the wait of a restored ledger ended.
    pub resumed: bool,
    /// Events, in order.
    pub events: Vec<Said>,
}
