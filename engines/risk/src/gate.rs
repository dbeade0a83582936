//! The gate's memory: what is in force, what is counted and what is under way, and whether it is current.
//!
//! What this process consumes is handed over after COMMIT; what others consume is read when the version of
//! the book has risen. Whether everything is counted that the ledger has decided is known by marks: the
//! number of the ledger's last event, asked for, and the events received up to it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltran_events::data::risk::LimitKind;
use deltran_kernel::{Clock, Currency, Minor, Money, ParticipantId, Timestamp};
use deltran_messaging::ranges::Ranges;
use deltran_runtime::{Db, DbError, Failure};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::assess::{Gatekeeper, Known, Subject, Verdict};
use crate::domain::book::{Book, Window};
use crate::domain::breaker::Recovery;
use crate::domain::count::Fact;
use crate::domain::flight::Passage;
use crate::domain::rules::Ceiling;
use crate::domain::scope::{Corridor, Scope};
use crate::store::{self, BookRows, Read};

/// The consumer whose received ranges say what is counted.
pub(crate) const CONSUMER: &str = "events_transactions_risk";
/// Marks that wait to be reached; with more the oldest is dropped.
const MARKS: usize = 64;

/// How the gate is set up.
#[derive(Debug, Clone)]
pub struct GateSettings {
    /// The largest single transaction by currency, where no approved limit is in force.
    pub maxima: BTreeMap<Currency, Money>,
    /// For how long memory may go without being compared with the database, and counted data with the ledger.
    pub stale_after: Duration,
    /// Microseconds after which a transaction that passed is in the ledger or never will be.
    pub return_within: i64,
    /// How breakers recover.
    pub recovery: Recovery,
    /// Whether the ledger runs in this process, so that nothing is under way when this begins.
    pub ledger_is_here: bool,
}

/// How much of a limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// NET_DEBIT_CAP or BILATERAL.
    pub kind: LimitKind,
    /// Whom it limits.
    pub participant: ParticipantId,
    /// Towards whom.
    pub counterparty: Option<ParticipantId>,
    /// In which currency.
    pub currency: Currency,
    /// The limit.
    pub ceiling: Ceiling,
    /// What is used, in minor units.
    pub used: i128,
}

/// The number of the ledger's last event at a moment.
struct Mark {
    asked: Timestamp,
    instant: Instant,
    producer: String,
    number: u64,
}

struct Memory {
    keeper: Gatekeeper,
    /// Before the last comparison with the database began; none before the first.
    compared: Option<Instant>,
    marks: VecDeque<Mark>,
    /// Everything that the ledger decided before is counted.
    through: Option<(Timestamp, Instant)>,
    /// The clock's latest, so that time never goes back.
    now: Timestamp,
}

/// Holds the memory and keeps it current.
pub struct Gate {
    db: Db,
    clock: Arc<dyn Clock>,
    settings: GateSettings,
    memory: Mutex<Memory>,
    began: Instant,
    // One reload at a time, so that an older read never replaces a newer one.
    reloading: tokio::sync::Mutex<()>,
    /// What was counted here does not follow what memory knows: it must be read.
    pub(crate) behind: Notify,
}

impl Gate {
    /// Nothing is known yet.
    pub fn new(db: Db, clock: Arc<dyn Clock>, settings: GateSettings) -> Self {
        let mut keeper = Gatekeeper::new(settings.recovery);
        let now = clock.now();
        if !settings.ledger_is_here {
            // A process before this one may have let something pass that the ledger is still to decide.
            keeper.flight.blind_until = Some(now);
        }
        let memory = Memory { keeper, compared: None, marks: VecDeque::new(), through: None, now };
        Self {
            db,
            clock,
            settings,
            memory: Mutex::new(memory),
            began: Instant::now(),
            reloading: tokio::sync::Mutex::new(()),
            behind: Notify::new(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every change is whole before anything can panic.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on transactions in their order, and counts those that pass. Also says by which version of
    /// limits and breakers.
    ///
    /// # Errors
    /// `unavailable` where what is in force is not known, or could not be compared with the database for too
    /// long: nothing passes then (R2).
    pub fn admit(&self, subjects: &[Subject]) -> Result<(u64, Vec<Verdict>), Failure> {
        let mut memory = self.memory();
        let (now, known) = self.prepare(&mut memory)?;
        let verdicts = subjects.iter().map(|subject| memory.keeper.admit(subject, &known, now)).collect();
        Ok((memory.keeper.rules.version, verdicts))
    }

    /// What the gate would decide on a transaction now. Nothing is counted.
    ///
    /// # Errors
    /// As [`Gate::admit`].
    pub fn judge(&self, subject: &Subject) -> Result<(u64, Verdict), Failure> {
        let mut memory = self.memory();
        let (now, known) = self.prepare(&mut memory)?;
        memory.keeper.rules.advance(now);
        Ok((memory.keeper.rules.version, memory.keeper.judge(subject, &known, now)))
    }

    fn prepare(&self, memory: &mut Memory) -> Result<(Timestamp, Known), Failure> {
        self.compared(memory)?;
        let now = self.now(memory);
        Ok((now, self.known(memory)))
    }

    fn now(&self, memory: &mut Memory) -> Timestamp {
        memory.now = memory.now.max(self.clock.now());
        memory.now
    }

    /// Whether memory was compared with the database of late.
    ///
    /// # Errors
    /// `unavailable`.
    pub fn current(&self) -> Result<(), Failure> {
        self.compared(&self.memory())
    }

    fn compared(&self, memory: &Memory) -> Result<(), Failure> {
        let again = "try again with the same id";
        match memory.compared {
            None => Err(Failure::unavailable(format!("limits and breakers are not loaded yet: {again}"))),
            Some(at) if at.elapsed() > self.settings.stale_after => Err(Failure::unavailable(format!(
                "limits and breakers could not be compared with the database for {} s: {again}",
                at.elapsed().as_secs()
            ))),
            Some(_) => Ok(()),
        }
    }

    fn known(&self, memory: &Memory) -> Known {
        let again = "try again with the same id";
        let Some((through, instant)) = memory.through else {
            return Err(format!("what counts against limits is not compared with the ledger yet: {again}"));
        };
        if instant.elapsed() > self.settings.stale_after {
            return Err(format!(
                "what counts against limits is {} s behind the ledger: {again}",
                instant.elapsed().as_secs()
            ));
        }
        let blind = memory.keeper.flight.blind_until;
        if blind.is_some_and(|at| through < at.plus_micros(self.settings.return_within)) {
            return Err(format!("the ledger may still decide what passed before this process began to count: {again}"));
        }
        Ok(())
    }

    /// Whether counted data may be relied on now, or why not.
    pub fn is_known(&self) -> Known {
        self.known(&self.memory())
    }

    /// How long counted data has been behind the ledger.
    pub fn behind_for(&self) -> Duration {
        self.memory().through.map_or(self.began, |(_, instant)| instant).elapsed()
    }

    /// Reads what has changed in the database, and says that memory is current either way. What was committed
    /// before the call is in memory after it.
    pub async fn reload(&self) -> Result<(), DbError> {
        let _one = self.reloading.lock().await;
        let compared = Instant::now();
        let (rules_at, book_at, now) = {
            let mut memory = self.memory();
            let rules_at = memory.compared.map(|_| memory.keeper.rules.version);
            (rules_at, memory.keeper.book.version, self.now(&mut memory))
        };
        let read = store::read(&self.db, rules_at, book_at, CONSUMER, now).await?;
        let mut memory = self.memory();
        self.take_in(&mut memory, read, now);
        memory.compared = Some(compared);
        Ok(())
    }

    fn take_in(&self, memory: &mut Memory, read: Read, now: Timestamp) {
        if let Some(mut rules) = read.rules {
            for (currency, maximum) in &self.settings.maxima {
                rules.maxima.entry(*currency).or_insert(maximum.minor());
            }
            tracing::info!(
                rules.version,
                rules.breakers = rules.breakers.len(),
                rules.caps = rules.caps.len(),
                rules.bilateral = rules.bilateral.len(),
                "limits and breakers in force"
            );
            memory.keeper.rules = rules;
        }
        // In the meantime this process may have counted further than what was read.
        if read.book.version > memory.keeper.book.version {
            absorb(&mut memory.keeper, read.book);
        }
        memory.keeper.book.forget(now);
        reach(memory, &read.received);
        if let Some((through, _)) = memory.through {
            memory.keeper.flight.expire(through.plus_micros(-self.settings.return_within));
        }
    }

    /// Takes in what was counted here, after its COMMIT.
    pub fn counted(&self, version: u64, facts: &[Fact]) {
        let mut memory = self.memory();
        if memory.keeper.book.version + 1 == version {
            memory.keeper.count(version, facts);
            return;
        }
        // What came back is no longer under way, but the sums are known only from the database.
        let behind = memory.keeper.book.version < version;
        facts.iter().for_each(|fact| memory.keeper.flight.seen(fact));
        drop(memory);
        if behind {
            self.behind.notify_one();
        }
    }

    /// Says which event was the ledger's last when it was asked at `asked`.
    pub fn mark(&self, asked: Timestamp, instant: Instant, producer: String, number: u64) {
        let mut memory = self.memory();
        if memory.marks.len() >= MARKS {
            memory.marks.pop_front();
        }
        memory.marks.push_back(Mark { asked, instant, producer, number });
    }

    /// The present time, which never goes back, with the moment it was read.
    pub fn moment(&self) -> (Timestamp, Instant) {
        (self.now(&mut self.memory()), Instant::now())
    }

    /// How much of each net debit cap and bilateral limit is used.
    pub fn usages(&self) -> Vec<Usage> {
        let memory = self.memory();
        let Gatekeeper { rules, book, flight, .. } = &memory.keeper;
        let reserved = flight.reserved_net();
        let mut of_payer: HashMap<(ParticipantId, Currency), i128> = HashMap::new();
        for ((payer, _, currency), units) in &reserved {
            *of_payer.entry((*payer, *currency)).or_default() += units;
        }
        let sum = |found: Option<&i128>| found.copied().unwrap_or(0);
        let caps = rules.caps.iter().map(|((participant, currency), ceiling)| Usage {
            kind: LimitKind::NetDebitCap,
            participant: *participant,
            counterparty: None,
            currency: *currency,
            ceiling: *ceiling,
            used: book.net_debit(*participant, *currency) + sum(of_payer.get(&(*participant, *currency))),
        });
        let bilateral = rules.bilateral.iter().map(|((payer, payee, currency), ceiling)| Usage {
            kind: LimitKind::Bilateral,
            participant: *payer,
            counterparty: Some(*payee),
            currency: *currency,
            ceiling: *ceiling,
            used: book.bilateral_debit(*payer, *payee, *currency) + sum(reserved.get(&(*payer, *payee, *currency))),
        });
        caps.chain(bilateral).collect()
    }

    /// The scopes in which counted data decides.
    pub fn counted_scopes(&self) -> BTreeSet<Scope> {
        self.memory().keeper.rules.counted_scopes().into_iter().collect()
    }

    /// How many transactions have passed here and not come back.
    pub fn under_way(&self) -> usize {
        self.memory().keeper.flight.len()
    }

    /// The version of what is counted in memory.
    pub fn book_version(&self) -> u64 {
        self.memory().keeper.book.version
    }

    /// What the first owes the second net in windows that are not settled, as memory knows it.
    pub fn bilateral_debit(&self, payer: ParticipantId, payee: ParticipantId, currency: Currency) -> Minor {
        Minor::new(self.memory().keeper.book.bilateral_debit(payer, payee, currency)).unwrap_or_default()
    }
}

/// Replaces what has changed in the book, and every reservation.
fn absorb(keeper: &mut Gatekeeper, rows: BookRows) {
    let Gatekeeper { book, flight, .. } = keeper;
    for (id, currency, sealed, settled) in rows.windows {
        if settled {
            book.windows.remove(&id);
        } else {
            book.windows.entry(id).or_insert_with(|| Window::new(currency)).sealed = sealed;
        }
    }
    for (id, participant, member) in rows.members {
        if let Some(window) = book.windows.get_mut(&id) {
            window.members.insert(participant, member);
        }
    }
    for (id, payer, payee, gross) in rows.pairs {
        if let Some(window) = book.windows.get_mut(&id) {
            window.pairs.insert((payer, payee), gross);
        }
    }
    absorb_flows(book, &rows.corridors, &rows.accepted);
    flight.unreserve_all();
    for (id, waiting) in rows.reserved {
        let (payment, gross, at) = (waiting.payment, waiting.gross, Timestamp::default());
        flight.reserve(id, Passage { payment, gross, window: None, at, release: false });
    }
    book.version = rows.version;
}

fn absorb_flows(
    book: &mut Book,
    corridors: &[(Corridor, Currency, i64, i128)],
    accepted: &[(ParticipantId, i64, u64)],
) {
    for (corridor, currency, hour, gross) in corridors {
        book.corridors.entry((*corridor, *currency)).or_default().insert(*hour, *gross);
    }
    for (payer, bucket, count) in accepted {
        book.accepted.entry(*payer).or_default().insert(*bucket, *count);
    }
}

/// Finds the latest mark up to which everything was received.
fn reach(memory: &mut Memory, received: &BTreeMap<String, Ranges>) {
    let reached = |mark: &Mark| {
        // The stream may begin after the first number; from there on nothing may be missing.
        let first = received.get(&mark.producer).and_then(|ranges| ranges.iter().next());
        mark.number == 0 || first.is_some_and(|(_, high)| high >= mark.number)
    };
    if let Some(place) = memory.marks.iter().rposition(reached) {
        let mark = memory.marks.drain(..=place).next_back();
        memory.through = mark.map(|mark| (mark.asked, mark.instant)).max(memory.through);
    }
}
