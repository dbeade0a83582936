//! The ledger's one writer: takes what waits, decides it in memory in order of arrival, writes it in one
//! transaction, and answers after COMMIT.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use deltran_kernel::Timestamp;
use deltran_messaging::Outbox;
use deltran_messaging::outbox::Row;
use deltran_runtime::lease::{Epoch, Leader};
use deltran_runtime::metrics::Metrics;
use deltran_runtime::{DbError, EngineContext, Failure, beside};
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::domain::command::{Answer, Applied, Command};
use crate::domain::effects::Effects;
use crate::domain::ledger::Ledger;
use crate::domain::refusal::Denied;
use crate::store::{Batch, Store, Wanted, WriterState};
use crate::turn::{Call, Turn, Turns};

/// Commands other than submissions that may wait, in a room of their own: submissions cannot keep windows from being
/// sealed.
const COMMANDS: usize = 1_000;
/// Calls that may wait for a turn of their gate.
const LISTENS: usize = 64;
/// A batch that takes longer has lost its database.
const LONGEST_BATCH: Duration = Duration::from_secs(10);

/// What a command led to.
pub type Decided = Result<Applied<Answer>, Denied>;
type Reply = Result<Vec<Decided>, Failure>;

/// Commands of one caller, answered together.
struct Job {
    commands: Vec<Command>,
    reply: oneshot::Sender<Reply>,
    /// Room in the queue, given back when the job is answered.
    _room: Option<OwnedSemaphorePermit>,
    /// The call of a gate that these come from, done when the job is answered.
    _call: Option<Arc<Call>>,
}

impl Job {
    /// Whether somebody waits for it: the deadline of one that has gone has passed, and it is not decided.
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }
}

/// Somebody asks the writer to listen to a gate of risk from now on.
struct Listen {
    gate: String,
    reply: oneshot::Sender<Result<Turn, Failure>>,
}

/// What the writer does next.
enum Next {
    Batch(Vec<Job>),
    Listen(Listen),
}

/// What waits for the writer. A job has its place in `room` or `commands` of the handle.
struct Waiting {
    jobs: mpsc::UnboundedReceiver<Job>,
    listens: mpsc::Receiver<Listen>,
}

/// The way to the writer. Cloning shares it.
#[derive(Clone)]
pub struct WriterHandle {
    jobs: mpsc::UnboundedSender<Job>,
    listens: mpsc::Sender<Listen>,
    waiting: Arc<Mutex<Waiting>>,
    turns: Turns,
    room: Arc<Semaphore>,
    commands: Arc<Semaphore>,
    capacity: usize,
    leading: Arc<AtomicBool>,
    leader: watch::Receiver<Leader>,
    idle: Arc<Notify>,
    outbox: Outbox,
    max_backlog: u64,
    metrics: Metrics,
}

/// The writer itself, to be run under its lease.
#[derive(Clone)]
pub struct Writer {
    context: EngineContext,
    store: Store,
    outbox: Outbox,
    settings: Settings,
    waiting: Arc<Mutex<Waiting>>,
    turns: Turns,
    leading: Arc<AtomicBool>,
    leader: Arc<watch::Sender<Leader>>,
    idle: Arc<Notify>,
}

/// A writer and the way to it.
pub fn writer(context: EngineContext, store: Store, outbox: Outbox, settings: Settings) -> (WriterHandle, Writer) {
    let (sender, jobs) = mpsc::unbounded_channel();
    let (listens, receiver) = mpsc::channel(LISTENS);
    let turns = Turns::default();
    let leading = Arc::new(AtomicBool::new(false));
    let (leader, known) = watch::channel(Leader::Unknown);
    // Other engines of this process find the one that writes.
    context.peers.follow(crate::NAME, known.clone());
    let idle = Arc::new(Notify::new());
    let waiting = Arc::new(Mutex::new(Waiting { jobs, listens: receiver }));
    let handle = WriterHandle {
        jobs: sender,
        listens,
        waiting: waiting.clone(),
        turns: turns.clone(),
        room: Arc::new(Semaphore::new(settings.max_waiting)),
        commands: Arc::new(Semaphore::new(COMMANDS)),
        capacity: settings.max_waiting,
        leading: leading.clone(),
        leader: known,
        idle: idle.clone(),
        outbox: outbox.clone(),
        max_backlog: context.config.messaging.max_outbox_backlog,
        metrics: context.metrics.clone(),
    };
    let leader = Arc::new(leader);
    (handle, Writer { context, store, outbox, settings, waiting, turns, leading, leader, idle })
}

impl WriterHandle {
    /// Whether submissions may be taken at all.
    ///
    /// # Errors
    /// `unavailable` where this process does not lead, `overloaded` where too many events wait for the
    /// broker.
    pub fn admit(&self) -> Result<(), Failure> {
        if !self.leading.load(Ordering::Acquire) {
            return Err(match &*self.leader.borrow() {
                Leader::At(address) => Failure::unavailable(format!(
                    "the process at {address} writes the ledger at present: ask it, with the same id"
                ))
                .with("leader", address),
                _ => Failure::unavailable(
                    "no process is known to write the ledger at present: try again with the same id",
                ),
            });
        }
        let backlog = self.outbox.progress().backlog();
        if backlog > self.max_backlog {
            self.metrics.overloads.with_label_values(&["outbox"]).inc();
            return Err(Failure::overloaded(format!("{backlog} events wait for the broker: try again later"))
                .with("backlog", backlog));
        }
        Ok(())
    }

    /// Room for so many transactions, or the refusal of an overloaded queue.
    pub fn try_room(&self, transactions: usize) -> Result<OwnedSemaphorePermit, Failure> {
        self.room.clone().try_acquire_many_owned(self.clamp(transactions)).map_err(|_| {
            self.metrics.overloads.with_label_values(&["writer"]).inc();
            Failure::overloaded(format!("{} transactions wait already: try again later", self.capacity))
        })
    }

    /// Room for so many transactions; waits for it, so that a stream is read no faster than the ledger
    /// writes.
    pub async fn room(&self, transactions: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let room = self.room.clone().acquire_many_owned(self.clamp(transactions)).await;
        room.map_err(|_| Failure::unavailable("the process is stopping"))
    }

    fn clamp(&self, transactions: usize) -> u32 {
        u32::try_from(transactions.clamp(1, self.capacity)).unwrap_or(u32::MAX)
    }

    /// Queues commands; the receiver gets their results after COMMIT, in order. `call` is that of the gate that
    /// they come from.
    pub fn send(
        &self,
        commands: Vec<Command>,
        room: Option<OwnedSemaphorePermit>,
        call: Option<Arc<Call>>,
    ) -> oneshot::Receiver<Reply> {
        let (reply, receiver) = oneshot::channel();
        // A closed channel drops the reply, which the receiver sees.
        let _closed = self.jobs.send(Job { commands, reply, _room: room, _call: call });
        self.not_left_behind();
        receiver
    }

    /// What was queued just as the term of this process ended would wait for its next one: it is refused instead.
    fn not_left_behind(&self) {
        fence(Ordering::SeqCst);
        if self.leading.load(Ordering::SeqCst) {
            return;
        }
        let (waiting, leading) = (self.waiting.clone(), self.leading.clone());
        tokio::spawn(async move {
            // A term that begins holds it, and decides what is queued.
            let mut waiting = waiting.lock().await;
            if !leading.load(Ordering::SeqCst) {
                waiting.refuse(&DbError::NotLeader);
            }
        });
    }

    /// Turns of the gate that the writer listens to.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Listens to a gate from now on, once everything before is decided and committed.
    ///
    /// # Errors
    /// `unavailable` where this process does not lead.
    pub async fn listen_to(&self, gate: String) -> Result<Turn, Failure> {
        self.admit()?;
        let (reply, receiver) = oneshot::channel();
        // A closed channel drops the reply, which the receiver sees.
        let _closed = self.listens.send(Listen { gate, reply }).await;
        self.not_left_behind();
        received(receiver.await)
    }

    /// Carries out one command and waits for its COMMIT. `call` is that of the gate that it comes from.
    pub async fn execute(&self, command: Command, call: Option<Arc<Call>>) -> Result<Decided, Failure> {
        self.admit()?;
        let room = self.commands.clone().try_acquire_owned().map_err(|_| {
            self.metrics.overloads.with_label_values(&["commands"]).inc();
            Failure::overloaded(format!("{COMMANDS} commands wait already: try again later"))
        })?;
        let mut results = received(self.send(vec![command], Some(room), call).await)?;
        results.pop().ok_or_else(|| Failure::internal("the writer gave no answer"))
    }

    /// Completes when everything that was queued is answered.
    pub async fn drained(self) {
        while self.leading.load(Ordering::Acquire) {
            let idle = self.idle.notified();
            let (reply, receiver) = oneshot::channel();
            let job = Job { commands: Vec::new(), reply, _room: None, _call: None };
            if self.jobs.send(job).is_err() || receiver.await.is_ok() {
                return;
            }
            idle.await;
        }
    }
}

/// The reply of the writer; one that was dropped means that the process stops.
pub fn received<T>(reply: Result<Result<T, Failure>, oneshot::error::RecvError>) -> Result<T, Failure> {
    reply.unwrap_or_else(|_| Err(Failure::unavailable("the process is stopping: try again with the same id")))
}

/// Where a batch stands after its transaction failed.
enum Fate {
    Committed,
    NotCommitted,
    Lost,
}

impl Writer {
    /// Writes while this process holds the lease `writer`, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut lease = self.context.lease("writer");
        lease.leader = Some(self.leader.clone());
        lease
            .run(shutdown, move |epoch, term| {
                let writer = self.clone();
                async move { writer.term(epoch, term).await }
            })
            .await;
    }

    async fn term(self, epoch: Epoch, term: CancellationToken) {
        let mut waiting = self.waiting.lock().await;
        'load: while !term.is_cancelled() {
            // What a gate said before may have been decided, or not: it is asked anew.
            self.turns.end();
            let (mut ledger, mut state) = match self.store.load().await {
                Ok(loaded) => loaded,
                Err(error) => {
                    self.context.health.not_ready("token.writer", error.to_string());
                    waiting.refuse(&error);
                    wait(Duration::from_millis(300), &term).await;
                    continue;
                }
            };
            self.outbox.committed(state.assigned);
            self.context.health.ready("token.writer");
            self.leading.store(true, Ordering::Release);
            loop {
                let done = match self.next(&mut waiting, &ledger, &term).await {
                    None => break 'load,
                    Some(Next::Batch(batch)) => self.batch(&mut ledger, &mut state, batch, &epoch).await,
                    Some(Next::Listen(asked)) => self.listen(&mut ledger, asked, &epoch).await,
                };
                match done {
                    Ok(()) => {}
                    Err(DbError::NotLeader) => break 'load,
                    Err(error) => {
                        // Memory is ahead of the rows: it is dropped and read back.
                        self.context.health.not_ready("token.writer", error.to_string());
                        continue 'load;
                    }
                }
            }
        }
        self.leading.store(false, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.turns.end();
        self.idle.notify_waiters();
        waiting.refuse(&DbError::NotLeader);
    }

    /// The first job that waits and everything behind it, up to the bound. Empty where only reservations
    /// ran out. `None` at the end of the term.
    async fn next(&self, waiting: &mut Waiting, ledger: &Ledger, term: &CancellationToken) -> Option<Next> {
        let Waiting { jobs, listens } = waiting;
        let now = self.context.clock.now();
        let until_expiry = ledger.expiries.first().map(|e| (e.at.micros() - now.micros()).max(0) as u64);
        let first = tokio::select! {
            biased;
            asked = listens.recv() => return asked.map(Next::Listen),
            job = jobs.recv() => Some(job?),
            () = term.cancelled() => return None,
            () = tokio::time::sleep(Duration::from_micros(until_expiry.unwrap_or(u64::MAX >> 12))) => None,
        };
        let mut batch = Vec::from_iter(first.filter(Job::is_wanted));
        let mut commands = batch.first().map_or(0, |j| j.commands.len());
        while commands < self.settings.max_batch {
            let Ok(job) = jobs.try_recv() else { break };
            if job.is_wanted() {
                commands += job.commands.len();
                batch.push(job);
            }
        }
        self.context.metrics.queue_depth.with_label_values(&["writer"]).set(jobs.len() as i64);
        Some(Next::Batch(batch))
    }

    /// Begins a turn of a gate, behind everything that was decided before.
    async fn listen(&self, ledger: &mut Ledger, asked: Listen, epoch: &Epoch) -> Result<(), DbError> {
        // Two callers may have met the same gate.
        if let Some((turn, _)) = self.turns.present().filter(|(turn, _)| turn.gate == asked.gate) {
            let _gone = asked.reply.send(Ok(turn));
            return Ok(());
        }
        let last = async {
            let mut tx = self.store.db().begin().await?;
            epoch.check(&mut tx).await?;
            let last = Store::last_event(&mut tx).await?;
            tx.commit().await?;
            Ok(last)
        };
        let late = |_| Err(DbError::Unavailable(format!("it took longer than {} s", LONGEST_BATCH.as_secs())));
        match tokio::time::timeout(LONGEST_BATCH, last).await.unwrap_or_else(late) {
            Ok((producer_epoch, last_event)) => {
                let term = u64::try_from(epoch.number()).unwrap_or(0);
                let producer = self.outbox.producer(producer_epoch);
                let turn = self.turns.begin(term, asked.gate, producer, last_event);
                ledger.turn = turn.number;
                tracing::info!(turn.term, turn.number, turn.gate, turn.last_event, "the ledger listens to a gate");
                let _gone = asked.reply.send(Ok(turn));
                Ok(())
            }
            Err(error) => {
                let _gone = asked.reply.send(Err(public(&error)));
                Err(error)
            }
        }
    }

    async fn batch(
        &self,
        ledger: &mut Ledger,
        state: &mut WriterState,
        mut batch: Vec<Job>,
        epoch: &Epoch,
    ) -> Result<(), DbError> {
        let now = self.context.clock.now();
        let commands: usize = batch.iter().map(|j| j.commands.len()).sum();
        if commands == 0 && ledger.expiries.first().is_none_or(|e| e.at > now) {
            answer(batch, Vec::new());
            return Ok(());
        }
        self.context.metrics.writer_batch.with_label_values(&["token"]).observe(commands as f64);
        let commands: Vec<Vec<Command>> = batch.iter_mut().map(|job| std::mem::take(&mut job.commands)).collect();
        let work = self.transact(ledger, state, commands, now, epoch);
        let done = tokio::time::timeout(LONGEST_BATCH, work).await.unwrap_or_else(|_| {
            let waited = format!("a batch took longer than {} s", LONGEST_BATCH.as_secs());
            Err((DbError::Unavailable(waited), None))
        });
        match done {
            Ok((results, after)) => {
                *state = after;
                self.outbox.committed(after.assigned);
                self.turns.committed(after.assigned);
                self.count(&results);
                answer(batch, results);
                Ok(())
            }
            Err((error, decided)) => {
                tracing::warn!(%error, "a batch was not committed");
                self.turns.end();
                match (self.fate(state, epoch, &error, decided.is_some()).await, decided) {
                    (Fate::Committed, Some(results)) => answer(batch, results),
                    (Fate::NotCommitted | Fate::Committed, _) => fail(batch, &error),
                    (Fate::Lost, _) => fail(batch, &DbError::Unavailable("the outcome is not known yet".into())),
                }
                Err(error)
            }
        }
    }

    /// Decides and writes one batch. On an error after the decision its results come along, because the
    /// COMMIT may have taken effect.
    async fn transact(
        &self,
        ledger: &mut Ledger,
        state: &WriterState,
        commands: Vec<Vec<Command>>,
        now: Timestamp,
        epoch: &Epoch,
    ) -> Result<(Vec<Vec<Decided>>, WriterState), (DbError, Option<Vec<Vec<Decided>>>)> {
        let early = |error: DbError| (error, None);
        let mut tx = self.store.db().begin().await.map_err(early)?;
        epoch.check(&mut tx).await.map_err(early)?;
        let wanted = Wanted::by(commands.iter().flatten(), ledger, now);
        ledger.known = self.store.prefetch(&mut tx, &wanted).await.map_err(early)?;
        let (results, effects) = decide(ledger, commands, now, &self.context.metrics);
        let (effects, at) = (Arc::new(effects), ledger.last_at);
        // Beside the first statements: only the last one needs them.
        let events = self.encode(effects.clone(), state, at);
        let written = Batch { ledger, effects: &effects, before: *state, at, epoch: epoch.number() };
        let after = written.after();
        self.store.write(&mut tx, &written).await.map_err(early)?;
        let events = events.await.map_err(early)?;
        Outbox::insert(&mut tx, &events).await.map_err(early)?;
        match tx.commit().await {
            Ok(()) => {
                ledger.forget_ended(&effects);
                Ok((results, after))
            }
            Err(error) => Err((error, Some(results))),
        }
    }

    /// Encodes the events of a batch, from now on.
    fn encode(
        &self,
        effects: Arc<Effects>,
        state: &WriterState,
        at: Timestamp,
    ) -> impl Future<Output = Result<Vec<Row>, DbError>> + use<> {
        let (outbox, epoch, first) = (self.outbox.clone(), state.producer_epoch, state.assigned + 1);
        let encoded = beside(effects.events.len(), move || {
            let said = effects.events.iter().map(|said| (&said.event, &said.context, said.trace.as_deref()));
            outbox.encode(epoch, first, at, said)
        });
        async move { encoded.await.map_err(|e| DbError::Other(e.to_string()))? }
    }

    /// Whether a COMMIT whose answer was lost took effect: the batch number says so.
    async fn fate(&self, state: &WriterState, epoch: &Epoch, error: &DbError, commit_sent: bool) -> Fate {
        if !commit_sent || !error.is_transient() {
            return Fate::NotCommitted;
        }
        let read_back = async {
            loop {
                match self.store.last_batch().await {
                    Ok((last, _)) if last == state.batch => return Fate::NotCommitted,
                    Ok((last, by)) if last == state.batch + 1 && by == epoch.number() => return Fate::Committed,
                    // Somebody else has written since: callers ask again under their ids.
                    Ok(_) => return Fate::Lost,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        // The lease lasts no longer, and callers would rather hear "try again".
        tokio::time::timeout(Duration::from_secs(4), read_back).await.unwrap_or(Fate::Lost)
    }

    fn count(&self, results: &[Vec<Decided>]) {
        for decided in results.iter().flatten() {
            let Ok(Applied::Executed(Answer::Outcome(outcome))) = decided else { continue };
            let word = outcome.refusal.as_ref().map_or(outcome.state.as_str(), |r| r.code.as_str());
            self.context.metrics.transactions.with_label_values(&[word]).inc();
        }
    }
}

/// Decides every command in order of arrival. Reservations that ran out come first.
fn decide(
    ledger: &mut Ledger,
    commands: Vec<Vec<Command>>,
    now: Timestamp,
    metrics: &Metrics,
) -> (Vec<Vec<Decided>>, Effects) {
    let _expired = ledger.execute(Command::ExpireDue, now);
    let mut results = Vec::with_capacity(commands.len());
    for job in commands {
        let mut decided = Vec::with_capacity(job.len());
        for command in job {
            let result = ledger.execute(command, now);
            if let Err(Denied::Breach { invariant, detail }) = &result {
                metrics.breach(invariant, detail);
            }
            decided.push(result);
        }
        results.push(decided);
    }
    let effects = ledger.take_effects();
    (results, effects)
}

fn answer(batch: Vec<Job>, results: Vec<Vec<Decided>>) {
    let mut results = results.into_iter();
    for job in batch {
        // A caller that has gone is not told; its transaction stands and its id tells the outcome.
        let _gone = job.reply.send(Ok(results.next().unwrap_or_default()));
    }
}

fn fail(batch: Vec<Job>, error: &DbError) {
    for job in batch {
        let _gone = job.reply.send(Err(public(error)));
    }
}

fn public(error: &DbError) -> Failure {
    match error {
        DbError::NotLeader => Failure::from(DbError::NotLeader),
        DbError::Unavailable(cause) => Failure::from(DbError::Unavailable(cause.clone())),
        DbError::Corrupt(cause) | DbError::Other(cause) => Failure::internal(cause),
    }
}

impl Waiting {
    fn refuse(&mut self, error: &DbError) {
        while let Ok(job) = self.jobs.try_recv() {
            let _gone = job.reply.send(Err(public(error)));
        }
        while let Ok(asked) = self.listens.try_recv() {
            let _gone = asked.reply.send(Err(public(error)));
        }
    }
}

async fn wait(time: Duration, term: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = term.cancelled() => {}
    }
}
