//! A settlement batch: what its netting set announced, where it stands, and what it asks next.

use deltran_events::data::clearing::NettingCompleted;
use deltran_events::data::settlement::{BatchCreated, BatchState};
use deltran_events::{AmountError, Event};
use deltran_kernel::{BatchId, Currency, Minor, Money, NettingSetId, PostingGroupId, Timestamp, WindowId};
use uuid::Uuid;

/// What a netting set announced. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The netting set.
    pub netting_set_id: NettingSetId,
    /// Its currency.
    pub currency: Currency,
    /// Its windows, in ascending order; at least one, none twice.
    pub window_ids: Vec<WindowId>,
    /// Number of transactions.
    pub transactions: u64,
    /// The sum of all transactions.
    pub gross: Minor,
    /// The value that changes hands.
    pub moved: Minor,
    /// Number of positions.
    pub participants: u32,
    /// Digest of the content, in hexadecimal.
    pub digest: String,
}

/// A message that contradicts itself or what is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// No netting set can be like this.
    #[error("netting set {0}: {1}")]
    Impossible(NettingSetId, String),
    /// The netting set was announced before, with other content.
    #[error("netting set {0} was announced before with other content")]
    Changed(NettingSetId),
    /// S1: one of its windows is in a batch that was not given up.
    #[error("netting set {netting_set_id}: window {window_id} is in batch {batch_id}, which was not given up")]
    WindowTaken {
        /// The netting set that came.
        netting_set_id: NettingSetId,
        /// The window.
        window_id: WindowId,
        /// The batch that has it.
        batch_id: BatchId,
    },
}

impl Contradiction {
    /// The invariant that it would break.
    pub const fn invariant(&self) -> &'static str {
        match self {
            Self::WindowTaken { .. } => "S1",
            Self::Impossible(..) | Self::Changed(_) => "S2",
        }
    }
}

impl Terms {
    /// Reads the terms out of the event.
    ///
    /// # Errors
    /// [`Contradiction::Impossible`] where amounts do not fit the currency, or windows or totals cannot be.
    pub fn of(event: &NettingCompleted) -> Result<Self, Contradiction> {
        let impossible = |what: String| Contradiction::Impossible(event.netting_set_id, what);
        let minor = |field: &str, money: Result<Money, AmountError>| {
            money.map(|m| m.minor()).map_err(|e| impossible(format!("{field}: {e}")))
        };
        let gross = minor("gross", event.gross.money(event.currency))?;
        let moved = minor("moved", event.moved.money(event.currency))?;
        let mut window_ids = event.window_ids.clone();
        window_ids.sort_unstable();
        window_ids.dedup();
        if window_ids.is_empty() || window_ids.len() != event.window_ids.len() {
            return Err(impossible("it covers no window, or one twice".to_owned()));
        }
        if moved.is_negative() || moved > gross {
            return Err(impossible(format!("moved {moved:?} is not between zero and gross {gross:?}")));
        }
        if i64::try_from(event.count).is_err() || i32::try_from(event.participants).is_err() {
            return Err(impossible("count or participants is out of range".to_owned()));
        }
        Ok(Self {
            netting_set_id: event.netting_set_id,
            currency: event.currency,
            window_ids,
            transactions: event.count,
            gross,
            moved,
            participants: event.participants,
            digest: event.digest.clone(),
        })
    }
}

/// A settlement batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Derived from the netting set.
    pub id: BatchId,
    /// What the netting set announced.
    pub terms: Terms,
    /// Where it stands.
    pub state: BatchState,
    /// Whether the legs were read, checked and stored.
    pub loaded: bool,
    /// Number of the next earmark try, from 1.
    pub next_earmark: u32,
    /// The ledger refused the settle command: funding is asked before it is sent again.
    pub doubted: bool,
    /// A named invariant does not hold: somebody must look.
    pub alarm: bool,
    /// Why it waits or was given up.
    pub note: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Until when short debtors may top up; set on the way to AWAITING_FUNDS.
    pub funding_deadline: Option<Timestamp>,
    /// The time of the linked posting.
    pub final_at: Option<Timestamp>,
}

/// What a batch asks another engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Clearing: the frozen positions.
    ReadNettingSet,
    /// The ledger: lock what each net debtor still lacks.
    Earmark(PostingGroupId),
    /// The ledger: post every leg, or none.
    Settle(PostingGroupId),
}

impl Batch {
    /// Whether it changes no more.
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, BatchState::Settled | BatchState::Recast | BatchState::Aborted)
    }

    /// What it asks next; `None` where it has ended. The same batch always gives the same command, so
    /// that after a crash the command that may have been sent is sent again under the same id.
    pub fn command(&self) -> Option<Command> {
        match self.state {
            BatchState::Pending if !self.loaded => Some(Command::ReadNettingSet),
            BatchState::Reserved if !self.doubted => Some(Command::Settle(self.group("settle"))),
            BatchState::Pending | BatchState::AwaitingFunds | BatchState::Reserved => {
                Some(Command::Earmark(self.group(&format!("earmark/{}", self.next_earmark))))
            }
            BatchState::Settled | BatchState::Recast | BatchState::Aborted => None,
        }
    }

    fn group(&self, name: &str) -> PostingGroupId {
        PostingGroupId::new(derived(self.terms.netting_set_id, name))
    }

    /// Minor units as money of the batch.
    pub fn money(&self, minor: Minor) -> Money {
        Money::new(minor, self.terms.currency)
    }
}

/// An id that everybody derives alike from a netting set.
fn derived(netting_set: NettingSetId, name: &str) -> Uuid {
    Uuid::new_v5(&netting_set.uuid(), name.as_bytes())
}

/// Whether something was done, or had been done before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied<T> {
    /// Done by this.
    Executed(T),
    /// Done before; this changed nothing.
    AlreadyApplied(BatchId),
}

/// A netting set is announced: it gets its one batch. `known` is the batch that it has already, `taken`
/// a window of it that is in another batch which was not given up.
///
/// # Errors
/// [`Contradiction`] where it was announced with other content, or a window is taken.
pub fn announce(
    terms: Terms,
    known: Option<&Batch>,
    taken: Option<(WindowId, BatchId)>,
    now: Timestamp,
) -> Result<Applied<(Batch, Event)>, Contradiction> {
    let netting_set_id = terms.netting_set_id;
    if let Some(known) = known {
        if known.terms != terms {
            return Err(Contradiction::Changed(netting_set_id));
        }
        return Ok(Applied::AlreadyApplied(known.id));
    }
    if let Some((window_id, batch_id)) = taken {
        return Err(Contradiction::WindowTaken { netting_set_id, window_id, batch_id });
    }
    // ---- nothing below fails ----
    let batch = Batch {
        id: BatchId::new(derived(netting_set_id, "batch")),
        terms,
        state: BatchState::Pending,
        loaded: false,
        next_earmark: 1,
        doubted: false,
        alarm: false,
        note: String::new(),
        created_at: now,
        funding_deadline: None,
        final_at: None,
    };
    let event = BatchCreated {
        batch_id: batch.id,
        netting_set_id,
        window_ids: batch.terms.window_ids.clone(),
        currency: batch.terms.currency,
        gross: batch.money(batch.terms.gross).into(),
        moved: batch.money(batch.terms.moved).into(),
        participants: batch.terms.participants,
    };
    Ok(Applied::Executed((batch, event.into())))
}
