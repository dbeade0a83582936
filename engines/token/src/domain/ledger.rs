//! The ledger's state in memory, and the figures that decisions need: positions, cap, cover.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::data::transactions::CoverPolicy;
use deltran_kernel::{
    Currency, Minor, Money, MoneyError, ParticipantId, Timestamp, TransactionId, WindowId, WithdrawalId,
};
use sha2::Sha256;
use sha2::digest::Update;
use sha2::digest::common::hazmat::SerializableState;
use uuid::Uuid;

use super::account::{AccountKey, Sides};
use super::command::ParticipantState;
use super::effects::{CommandRow, Effects, Posting, Record, Terms, WindowRow, WithdrawalRow};

/// The largest amount of one transaction, deposit or withdrawal: 10^15 minor units.
pub const MAX_AMOUNT: i128 = 1_000_000_000_000_000;

/// A participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: ParticipantState,
}

/// What a participant has at stake in a currency, beyond its accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Its terms.
    pub terms: Terms,
    /// NET holds: reservations that are not yet positions.
    pub net_holds: Minor,
    /// Net debits of its sealed, unsettled windows, each on its own.
    pub sealed_debit: Minor,
    /// What of those is not earmarked yet.
    pub unfunded: Minor,
}

impl Membership {
    /// Fresh terms: no cap, prefunded.
    pub fn new() -> Self {
        let terms = Terms { cap: Minor::ZERO, policy: CoverPolicy::Prefunded, collateral: Minor::ZERO };
        Self { terms, net_holds: Minor::ZERO, sealed_debit: Minor::ZERO, unfunded: Minor::ZERO }
    }
}

impl Default for Membership {
    fn default() -> Self {
        Self::new()
    }
}

/// A window that is not settled yet.
#[derive(Clone)]
pub struct Window {
    /// Its currency.
    pub currency: Currency,
    /// Number of transactions.
    pub count: u64,
    /// Sum of amounts.
    pub gross: Minor,
    /// Running SHA-256 over transaction ids.
    pub digest: Sha256,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Control totals, once sealed.
    pub sealed: Option<super::command::Answer>,
    /// Everyone with a position in it.
    pub members: BTreeSet<ParticipantId>,
}

impl Window {
    /// A window that opens at a moment.
    pub fn new(currency: Currency, opened_at: Timestamp) -> Self {
        Self {
            currency,
            count: 0,
            gross: Minor::ZERO,
            digest: Sha256::default(),
            opened_at,
            sealed: None,
            members: BTreeSet::new(),
        }
    }

    /// Counts a transaction; returns its place.
    pub fn count(&mut self, id: TransactionId, gross: Minor) -> u64 {
        self.digest.update(id.uuid().as_bytes());
        self.gross = gross;
        self.count += 1;
        self.count
    }

    /// As it is stored.
    pub fn row(&self, settled_at: Option<Timestamp>) -> WindowRow {
        WindowRow {
            currency: self.currency,
            count: self.count,
            gross: self.gross,
            digest: self.digest.serialize().to_vec(),
            opened_at: self.opened_at,
            sealed: self.sealed.clone(),
            settled_at,
        }
    }
}

/// What a batch of commands needs to know from storage, by id: loaded before it is decided, and kept
/// up to date while it is.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Transactions that the commands name.
    pub transactions: BTreeMap<TransactionId, Record>,
    /// Windows that the commands name and that are not in memory any more.
    pub windows: BTreeMap<WindowId, WindowRow>,
    /// Withdrawals that the commands name.
    pub withdrawals: BTreeMap<WithdrawalId, WithdrawalRow>,
    /// Commands that were carried out before.
    pub commands: BTreeMap<Uuid, CommandRow>,
}

/// A reservation that may run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    /// When.
    pub at: Timestamp,
    /// Which.
    pub id: TransactionId,
}

/// The state of a shard.
#[derive(Clone, Default)]
pub struct Ledger {
    /// Participants.
    pub participants: BTreeMap<ParticipantId, Participant>,
    /// What they have at stake, per currency.
    pub memberships: BTreeMap<(ParticipantId, Currency), Membership>,
    /// Accounts with their sides. Those of purposes that have ended are left out.
    pub accounts: BTreeMap<AccountKey, Sides>,
    /// Windows that are not settled.
    pub windows: BTreeMap<WindowId, Window>,
    /// The open window of each currency.
    pub open: BTreeMap<Currency, WindowId>,
    /// Reservations by the time they run out.
    pub expiries: BTreeSet<Expiry>,
    /// The last posting's number.
    pub posting_seq: u64,
    /// The time of the last decision.
    pub last_at: Timestamp,
    /// Whether it was restored to an earlier moment than its stream, and nobody has decided yet to go on.
    pub waits: bool,
    /// The turn of the gate of risk that is listened to; 0 where none is yet.
    pub turn: u64,
    /// What was read for, and changed by, the present batch.
    pub known: Known,
    /// What the present batch changed.
    pub effects: Effects,
}

impl Ledger {
    /// The time of the next decision: the clock's, but later than the last.
    pub fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.last_at = now.max(self.last_at.plus_micros(1));
        self.last_at
    }

    /// Takes what was changed since the last call.
    pub fn take_effects(&mut self) -> Effects {
        let mut effects = std::mem::take(&mut self.effects);
        // What is new is written once, as it is at the end.
        if !effects.changed.is_empty() {
            effects.new.iter().for_each(|id| {
                effects.changed.remove(id);
            });
        }
        effects
    }

    /// Forgets what no later command can touch: what was read for the batch, and empty accounts of
    /// holds, withdrawals and windows that have ended.
    pub fn forget_ended(&mut self, effects: &Effects) {
        self.known = Known::default();
        for key in effects.accounts.keys() {
            let ended = key.purpose().is_some_and(|purpose| !self.windows.contains_key(&WindowId::new(purpose)));
            if ended && self.balance(*key).is_zero() {
                self.accounts.remove(key);
            }
        }
    }

    /// An account's sides; zero where nothing was posted yet.
    pub fn sides(&self, key: AccountKey) -> Sides {
        self.accounts.get(&key).copied().unwrap_or_default()
    }

    /// Credits − debits of an account.
    pub fn balance(&self, key: AccountKey) -> Minor {
        self.sides(key).balance()
    }

    /// Tokens that a participant owns and may spend.
    pub fn settlement(&self, participant: ParticipantId, currency: Currency) -> Minor {
        self.balance(AccountKey::Settlement(participant, currency))
    }

    /// Net position in a window: plus is owed to it.
    pub fn position(&self, participant: ParticipantId, currency: Currency, window: WindowId) -> Minor {
        self.balance(AccountKey::Position(participant, currency, window))
    }

    /// Net position in the open window; zero where none is open.
    pub fn open_position(&self, participant: ParticipantId, currency: Currency) -> Minor {
        self.open.get(&currency).map_or(Minor::ZERO, |w| self.position(participant, currency, *w))
    }

    /// What counts against the cap, with the open window's position as given: net debits of unsettled
    /// windows plus NET holds. A credit in one window never hides a debt in another.
    pub fn cap_used(&self, membership: &Membership, open_position: Minor) -> Result<Minor, MoneyError> {
        membership.sealed_debit.add(open_position.neg().or_zero())?.add(membership.net_holds)
    }

    /// What tokens and collateral must cover, with the open window's position as given: its net debit,
    /// NET holds, and the unfunded rest of sealed windows.
    pub fn cover_used(&self, membership: &Membership, open_position: Minor) -> Result<Minor, MoneyError> {
        membership.unfunded.add(open_position.neg().or_zero())?.add(membership.net_holds)
    }

    /// Posts one debit and one credit. Refused only where a balance would leave its range.
    pub fn post(
        &mut self,
        debit: AccountKey,
        credit: AccountKey,
        amount: Minor,
        about: About,
        at: Timestamp,
    ) -> Result<(), MoneyError> {
        let (debit_before, credit_before) = (self.accounts.get(&debit).copied(), self.accounts.get(&credit).copied());
        let debited = debit_before.unwrap_or_default().debited(amount)?;
        let credited = credit_before.unwrap_or_default().credited(amount)?;
        // ---- writes
        self.effects.accounts.entry(debit).or_insert(debit_before);
        self.effects.accounts.entry(credit).or_insert(credit_before);
        self.accounts.insert(debit, debited);
        self.accounts.insert(credit, credited);
        self.posting_seq += 1;
        self.effects.postings.push(Posting {
            seq: self.posting_seq,
            group: about.group,
            debit,
            credit,
            amount,
            transaction: about.transaction,
            at,
        });
        Ok(())
    }

    /// Whether a posting of `amount` to these accounts would stay in range.
    pub fn can_post(&self, debit: AccountKey, credit: AccountKey, amount: Minor) -> bool {
        self.sides(debit).debited(amount).is_ok() && self.sides(credit).credited(amount).is_ok()
    }

    /// Remembers a window's present content for storing.
    pub fn touch_window(&mut self, id: WindowId) {
        if let Some(window) = self.windows.get(&id) {
            self.effects.windows.insert(id, window.row(None));
        }
    }

    /// What is left under the cap: never below zero.
    pub fn cap_headroom(&self, participant: ParticipantId, currency: Currency) -> Result<Money, MoneyError> {
        let membership = self.memberships.get(&(participant, currency)).cloned().unwrap_or_default();
        let used = self.cap_used(&membership, self.open_position(participant, currency))?;
        Ok(Money::new(membership.terms.cap.sub(used)?.or_zero(), currency))
    }

    /// What is left of cover: never below zero.
    pub fn cover_headroom(&self, participant: ParticipantId, currency: Currency) -> Result<Money, MoneyError> {
        let membership = self.memberships.get(&(participant, currency)).cloned().unwrap_or_default();
        let used = self.cover_used(&membership, self.open_position(participant, currency))?;
        let stands = self.settlement(participant, currency).add(membership.terms.collateral)?;
        Ok(Money::new(stands.sub(used)?.or_zero(), currency))
    }
}

/// What a posting belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct About {
    /// A group that stands or falls together.
    pub group: Option<deltran_kernel::PostingGroupId>,
    /// A transaction.
    pub transaction: Option<TransactionId>,
}

impl About {
    /// Belongs to a transaction.
    pub const fn transaction(id: TransactionId) -> Self {
        Self { group: None, transaction: Some(id) }
    }

    /// Belongs to a group.
    pub const fn group(id: deltran_kernel::PostingGroupId) -> Self {
        Self { group: Some(id), transaction: None }
    }
}
