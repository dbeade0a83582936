//! What is kept of the ledger's events: entries, changes of accounts, flows of windows.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::data::transactions::{SettlementModel, TransactionState};
use deltran_kernel::{Currency, Minor, ParticipantId, PostingGroupId, Timestamp, TransactionId, WindowId};
use uuid::Uuid;

use super::Contradiction;
use super::day::Day;
use super::position::Position;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A payment that is settled with its window.
    Net,
    /// A payment that moved tokens at once.
    Gross,
    /// Fiat arrived, tokens were minted.
    Deposit,
    /// Fiat left, tokens were burnt.
    Withdrawal,
}

impl EntryKind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Net => "NET",
            Self::Gross => "GROSS",
            Self::Deposit => "DEPOSIT",
            Self::Withdrawal => "WITHDRAWAL",
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Net, Self::Gross, Self::Deposit, Self::Withdrawal].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A committed payment, a deposit or a confirmed withdrawal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The event that says so.
    pub position: Position,
    /// What it is.
    pub kind: EntryKind,
    /// The transaction or withdrawal; of a deposit its event.
    pub id: Uuid,
    /// Its currency.
    pub currency: Currency,
    /// Who pays; none where fiat arrived.
    pub payer: Option<ParticipantId>,
    /// Who receives; none where fiat left.
    pub payee: Option<ParticipantId>,
    /// How much; above zero.
    pub amount: Minor,
    /// Its window and place there, for NET.
    pub window: Option<(WindowId, u64)>,
    /// When it was committed.
    pub at: Timestamp,
    /// The business day of that.
    pub day: Day,
    /// The payer's reference.
    pub end_to_end_id: String,
    /// The unique end-to-end transaction reference.
    pub uetr: Option<String>,
    /// The transaction that it returns.
    pub return_of: Option<TransactionId>,
    /// The safeguarding bank's or the participant's reference of a deposit or withdrawal.
    pub reference: String,
}

/// An account of the ledger that tokens are on. Locked tokens are one account here, whatever they are locked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// Fiat at the safeguarding bank, the hub's.
    Safeguard,
    /// Counterparty of settlement legs, the hub's.
    Multilateral,
    /// Tokens that a participant may spend.
    Settlement,
    /// Tokens of a participant that are locked.
    Reserved,
}

impl Account {
    /// The ledger's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safeguard => "SAFEGUARD",
            Self::Multilateral => "MULTILATERAL",
            Self::Settlement => "SETTLEMENT",
            Self::Reserved => "RESERVED",
        }
    }

    /// The account of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Safeguard, Self::Multilateral, Self::Settlement, Self::Reserved]
            .into_iter()
            .find(|account| account.as_str() == word)
    }
}

/// An account of somebody, in a currency. The hub's have no participant.
pub type AccountOf = (Currency, Account, Option<ParticipantId>);

/// A change of one account; credits are positive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// The event that says so.
    pub position: Position,
    /// Which account.
    pub account: AccountOf,
    /// Credits − debits.
    pub change: Minor,
}

/// What a participant paid and received in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Number of payments that it made.
    pub paid_count: u64,
    /// Their sum.
    pub paid: Minor,
    /// Number of payments that it received.
    pub received_count: u64,
    /// Their sum.
    pub received: Minor,
}

impl Flow {
    /// Received − paid.
    ///
    /// # Errors
    /// Where the sum is out of range.
    pub fn net(&self) -> Result<Minor, Contradiction> {
        self.received.sub(self.paid).map_err(Contradiction::of)
    }

    /// With another flow.
    ///
    /// # Errors
    /// Where a sum is out of range.
    pub fn add(&self, other: &Self) -> Result<Self, Contradiction> {
        Ok(Self {
            paid_count: self.paid_count + other.paid_count,
            paid: self.paid.add(other.paid).map_err(Contradiction::of)?,
            received_count: self.received_count + other.received_count,
            received: self.received.add(other.received).map_err(Contradiction::of)?,
        })
    }
}

/// What was consumed of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Its currency.
    pub currency: Currency,
    /// Number of payments.
    pub count: u64,
    /// Their sum.
    pub gross: Minor,
}

/// A transaction that is HELD or RESERVED: it counts nowhere until it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// HELD or RESERVED.
    pub state: TransactionState,
    /// Who pays.
    pub payer: ParticipantId,
    /// Who receives.
    pub payee: ParticipantId,
    /// How much.
    pub amount: Minor,
    /// Its currency.
    pub currency: Currency,
    /// How it settles.
    pub model: SettlementModel,
    /// The payer's reference.
    pub end_to_end_id: String,
    /// The unique end-to-end transaction reference.
    pub uetr: Option<String>,
    /// The transaction that it returns.
    pub return_of: Option<TransactionId>,
}

/// What the ledger sealed of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The window.
    pub window: WindowId,
    /// Its currency.
    pub currency: Currency,
    /// Number of payments.
    pub count: u64,
    /// Their sum.
    pub gross: Minor,
    /// SHA-256 over their ids in the order of `window_seq`, in hexadecimal.
    pub digest: String,
    /// When.
    pub at: Timestamp,
}

/// A part of a posted settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedPart {
    /// The event that says so.
    pub position: Position,
    /// The business day of that.
    pub day: Day,
    /// The group of postings.
    pub group: PostingGroupId,
    /// What was settled.
    pub windows: Vec<WindowId>,
    /// Its currency.
    pub currency: Currency,
    /// How many parts there are.
    pub parts: u32,
    /// When it was posted: the time of finality.
    pub posted_at: Timestamp,
    /// Participant, net, and locked tokens given back.
    pub legs: Vec<(ParticipantId, Minor, Minor)>,
}

/// What some events changed.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// New entries, in order.
    pub entries: Vec<Entry>,
    /// Changes of accounts, in order.
    pub movements: Vec<Movement>,
    /// The same, summed.
    pub balances: BTreeMap<AccountOf, Minor>,
    /// Flows by window and participant.
    pub flows: BTreeMap<(WindowId, ParticipantId), Flow>,
    /// Payments by window.
    pub tallies: BTreeMap<WindowId, Tally>,
    /// Change of a participant's tokens by business day.
    pub days: BTreeMap<(ParticipantId, Currency, Day), Minor>,
    /// Transactions that wait, as they are after these events.
    pub pending: BTreeMap<TransactionId, Pending>,
    /// Transactions that waited before these events and do no longer.
    pub ended: BTreeSet<TransactionId>,
    /// Windows that were sealed.
    pub sealed: Vec<Sealed>,
    /// Settlements that were posted.
    pub posted: Vec<PostedPart>,
    /// States of participants that changed.
    pub participants: BTreeMap<ParticipantId, &'static str>,
    /// Who takes part in which currency.
    pub memberships: BTreeSet<(ParticipantId, Currency)>,
    /// When the last of the events happened.
    pub last_at: Option<Timestamp>,
}
