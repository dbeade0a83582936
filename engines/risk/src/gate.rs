//! The gate's memory: what is in force, what is counted and what is under way, and whether it is current.
//!
//! What this process consumes is handed over after COMMIT; what others consume is read when the version of
//! the book has risen. Whether everything is counted that the ledger has decided is known by numbers of its
//! events: that of the last one before the present turn, and marks, asked for once a second.

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
use crate::domain::rules::Ceiling;
use crate::domain::scope::{Corridor, Scope};
use crate::domain::turn::{Turn, Turns};
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
    /// How breakers recover.
    pub recovery: Recovery,
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
    asked: Instant,
    producer: String,
    number: u64,
}

struct Memory {
    keeper: Gatekeeper,
    turns: Turns,
    /// Before the last comparison with the database began; none before the first.
    compared: Option<Instant>,
    marks: VecDeque<Mark>,
    /// Everything that the ledger decided before is counted.
    through: Option<Instant>,
    /// The clock's latest, so that time never goes back.
    now: Timestamp,
}

/// Holds the memory and keeps it current.
pub struct Gate {
    name: String,
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
    /// Nothing is known yet. The name is another one in each process and after each restart: by it the ledger
    /// knows a gate that has forgotten what it let pass.
    pub fn new(name: String, db: Db, clock: Arc<dyn Clock>, settings: GateSettings) -> Self {
        let keeper = Gatekeeper::new(settings.recovery);
        let (turns, now) = (Turns::default(), clock.now());
        let memory = Memory { keeper, turns, compared: None, marks: VecDeque::new(), through: None, now };
        Self {
            name,
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

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Decides on transactions in their order, and counts those that pass. Also says by which version of
    /// limits and breakers. Where a turn begins with the call, what is counted is read from the database first.
    ///
    /// # Errors
    /// `unavailable` where what is in force is not known, or could not be compared with the database for too
    /// long: nothing passes then (R2). Also where a later turn has begun.
    pub async fn admit(&self, turn: &Turn, subjects: &[Subject]) -> Result<(u64, Vec<Verdict>), Failure> {
        if self.memory().turns.hear(turn).map_err(Failure::unavailable)? {
            tracing::info!(turn.term, turn.number, turn.last_event, "the ledger listens to this gate");
            self.reload().await?;
        }
        let mut memory = self.memory();
        // A later one may have begun meanwhile.
        memory.turns.hear(turn).map_err(Failure::unavailable)?;
        let (now, known) = self.prepare(&mut memory)?;
        let ticket = turn.ticket();
        let verdicts = subjects.iter().map(|subject| memory.keeper.admit(subject, ticket, &known, now)).collect();
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
        let Some(instant) = memory.through else {
            return Err(format!("what counts against limits is not compared with the ledger yet: {again}"));
        };
        if instant.elapsed() > self.settings.stale_after {
            return Err(format!(
                "what counts against limits is {} s behind the ledger: {again}",
                instant.elapsed().as_secs()
            ));
        }
        if memory.keeper.flight.is_blind() {
            return Err(format!("more is under way than can be counted: {again}"));
        }
        memory.turns.known()
    }

    /// Whether counted data may be relied on now, or why not.
    pub fn is_known(&self) -> Known {
        self.known(&self.memory())
    }

    /// How long counted data has been behind the ledger.
    pub fn behind_for(&self) -> Duration {
        self.memory().through.unwrap_or(self.began).elapsed()
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
        if read.gone_back {
            tracing::warn!(book.version = read.book.version, "the database knows less than memory: all is read anew");
            memory.keeper.book = Book::default();
            absorb(&mut memory.keeper, read.book);
        } else if read.book.version > memory.keeper.book.version {
            // Else this process has counted further in the meantime than what was read.
            absorb(&mut memory.keeper, read.book);
        }
        memory.keeper.book.forget(now);
        reach(memory, &read.received);
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
    pub fn mark(&self, asked: Instant, producer: String, number: u64) {
        let mut memory = self.memory();
        if memory.marks.len() >= MARKS {
            memory.marks.pop_front();
        }
        memory.marks.push_back(Mark { asked, producer, number });
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
        flight.reserve(id, waiting.payment, waiting.gross);
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

/// Finds the latest mark up to which everything was received, and drops what was under way and is counted.
fn reach(memory: &mut Memory, received: &BTreeMap<String, Ranges>) {
    let counted = |producer: &str, number: u64| {
        // The stream may begin after the first number; from there on nothing may be missing.
        let first = received.get(producer).and_then(|ranges| ranges.iter().next());
        number == 0 || first.is_some_and(|(_, high)| high >= number)
    };
    if let Some(place) = memory.marks.iter().rposition(|mark| counted(&mark.producer, mark.number)) {
        let mark = memory.marks.drain(..=place).next_back();
        memory.through = mark.map(|mark| mark.asked).max(memory.through);
    }
    if let Some(until) = memory.turns.reach(counted) {
        memory.keeper.flight.expire(until);
    }
}
