//! The ledger's shell around its real domain: rows, a writer that decides from memory in batches, its lease and its turns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use deltran_events::data::transactions::TransactionState;
use deltran_kernel::{Currency, ParticipantId, Timestamp, TransactionId, WindowId, WithdrawalId};
use deltran_token::domain::account::{AccountKey, Sides};
use deltran_token::domain::command::{Answer, Applied, Command, ParticipantState};
use deltran_token::domain::effects::{CommandRow, Effects, Record, Terms, WindowRow, WithdrawalRow};
use deltran_token::domain::ledger::{Expiry, Known, Ledger, Membership, Participant, Window};
use deltran_token::domain::refusal::Denied;
use deltran_token::turn::{Call, Turn, Turns};
use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use uuid::Uuid;

use super::Faults;
use super::check::{Breach, Checked, Over, Truth, breach, holds, over, within};
use super::op::Fate;
use super::shell::Shell;

/// What a command led to.
pub type Decided = Result<Applied<Answer>, Denied>;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// A bank, about a submission.
    Submission(TransactionId),
    /// A bank, about a submission whose body it changed.
    Altered(TransactionId),
    /// A bank or an officer, about a second phase.
    Phase(TransactionId),
    /// An operator, about a command of his list.
    Operator(usize),
    /// The engine that calls.
    Caller,
}

/// A command that waits for the writer.
pub struct Job {
    pub command: Command,
    pub reply: For,
    /// The call of a gate that it comes from, done when the job is.
    pub call: Option<Arc<Call>>,
}

/// The tables.
#[derive(Default)]
pub struct Rows {
    pub transactions: BTreeMap<TransactionId, Record>,
    pub accounts: BTreeMap<AccountKey, Sides>,
    pub windows: BTreeMap<WindowId, WindowRow>,
    participants: BTreeMap<ParticipantId, (String, ParticipantState)>,
    terms: BTreeMap<(ParticipantId, Currency), Terms>,
    withdrawals: BTreeMap<WithdrawalId, WithdrawalRow>,
    commands: BTreeMap<Uuid, CommandRow>,
    posting_seq: u64,
    last_at: Timestamp,
    batch: u64,
}

struct Memory {
    ledger: Ledger,
    batch: u64,
    assigned: u64,
}

/// A process that writes the ledger, or believes so.
pub struct Process {
    epoch: u64,
    memory: Option<Memory>,
    pub turns: Turns,
    pub queue: VecDeque<Job>,
}

impl Process {
    fn new(epoch: u64) -> Self {
        Self { epoch, memory: None, turns: Turns::default(), queue: VecDeque::new() }
    }
}

/// The engine.
pub struct TokenEngine {
    pub rows: Rows,
    pub shell: Shell,
    pub process: Process,
    frozen: Option<Process>,
    lease: u64,
}

/// What a round of the writer led to.
#[derive(Default)]
pub struct Written {
    pub answers: Vec<(For, Decided)>,
    pub committed: bool,
    pub died: bool,
}

impl TokenEngine {
    pub fn new(shell: Shell) -> Self {
        Self { rows: Rows::default(), shell, process: Process::new(1), frozen: None, lease: 1 }
    }

    pub fn enqueue(&mut self, command: Command, reply: For, call: Option<Arc<Call>>) {
        self.process.queue.push_back(Job { command, reply, call });
    }

    /// The process is gone with all that waited; another one takes the lease.
    pub fn crash(&mut self) {
        self.lease += 1;
        self.process = Process::new(self.lease);
    }

    /// Another process takes the lease while this one is frozen with all that waits in it.
    pub fn take_over(&mut self) {
        self.lease += 1;
        let old = std::mem::replace(&mut self.process, Process::new(self.lease));
        self.frozen = Some(old);
    }

    /// The frozen process wakes and writes what waits in it, then learns that it does not lead.
    pub fn wake(&mut self, fate: Fate, now: Timestamp, truth: &mut Truth, faults: &Faults) -> Checked<Written> {
        let Some(frozen) = self.frozen.take() else { return Ok(Written::default()) };
        let leader = std::mem::replace(&mut self.process, frozen);
        let lease = self.lease;
        let written = self.write(usize::MAX, fate, now, truth, faults);
        self.lease = lease;
        self.process = leader;
        written
    }

    fn memory(&mut self) -> Checked<&mut Memory> {
        if self.process.memory.is_none() {
            self.process.turns.end();
            self.process.memory = Some(self.load()?);
        }
        self.process.memory.as_mut().ok_or_else(|| Breach::new("L7", "no memory"))
    }

    /// Begins a turn of a gate behind everything that was decided; none where this process does not lead.
    pub fn listen(&mut self, gate: &str) -> Checked<Option<Turn>> {
        self.memory()?;
        if self.process.epoch != self.lease {
            return Ok(None);
        }
        let (producer, last) = (self.shell.producer.clone(), self.shell.assigned);
        let turn = self.process.turns.begin(self.process.epoch, gate.to_owned(), producer, last);
        self.memory()?.ledger.turn = turn.number;
        Ok(Some(turn))
    }

    /// One round of the writer: takes up to so many commands, decides them in order, commits.
    pub fn write(
        &mut self,
        most: usize,
        fate: Fate,
        now: Timestamp,
        truth: &mut Truth,
        faults: &Faults,
    ) -> Checked<Written> {
        self.memory()?;
        let count = most.min(self.process.queue.len());
        let jobs: Vec<Job> = self.process.queue.drain(..count).collect();
        let Some(mut memory) = self.process.memory.take() else { return breach("L7", "no memory") };
        if jobs.is_empty() && memory.ledger.expiries.first().is_none_or(|e| e.at > now) {
            self.process.memory = Some(memory);
            return Ok(Written::default());
        }
        let leads = self.process.epoch == self.lease || faults.ledger_ignores_its_lease;
        memory.ledger.known = self.prefetch(jobs.iter().map(|j| &j.command), &memory.ledger, now, faults);
        let mut decided = Vec::with_capacity(jobs.len());
        let mut before = over(&memory.ledger);
        let mut calls = Vec::new();
        let _expired = step(&mut memory.ledger, Command::ExpireDue, now, &mut before)?;
        for Job { command, reply, call } in jobs {
            let result = step(&mut memory.ledger, command, now, &mut before)?;
            decided.push((reply, result));
            calls.extend(call);
        }
        let effects = memory.ledger.take_effects();
        let at = memory.ledger.last_at;
        let answered = |answers| Ok(Written { answers, committed: false, died: false });
        let early = if faults.answers_before_commit { decided.clone() } else { Vec::new() };
        if !leads {
            self.process.queue.clear();
            self.process.turns.end();
            return answered(early);
        }
        match fate {
            Fate::DiesBefore => {
                self.crash();
                return Ok(Written { answers: early, committed: false, died: true });
            }
            Fate::Fails => {
                self.process.turns.end();
                return answered(early);
            }
            Fate::Done | Fate::DiesAfter | Fate::AnswerLost => {}
        }
        let said = effects.events.iter().map(|said| (&said.event, &said.context));
        let messages = self.shell.encode(at, said)?;
        self.commit(&memory, &effects, faults)?;
        let records: Vec<Record> = effects
            .new
            .iter()
            .chain(&effects.changed)
            .filter_map(|id| memory.ledger.known.transactions.get(id).cloned())
            .collect();
        truth.commit(&effects, &records)?;
        if !(faults.outbox_in_another_transaction && fate == Fate::DiesAfter) {
            self.shell.append(messages)?;
        }
        match fate {
            Fate::DiesAfter => {
                self.crash();
                return Ok(Written { answers: Vec::new(), committed: true, died: true });
            }
            // The batch number tells that it took effect: callers hear it, and memory is read anew.
            Fate::AnswerLost => self.process.turns.end(),
            _ => {
                memory.ledger.forget_ended(&effects);
                memory.batch += 1;
                memory.assigned = self.shell.assigned;
                self.process.turns.committed(memory.assigned);
                self.process.memory = Some(memory);
            }
        }
        drop(calls);
        Ok(Written { answers: decided, committed: true, died: false })
    }

    fn commit(&mut self, memory: &Memory, effects: &Effects, faults: &Faults) -> Checked {
        let rows = &mut self.rows;
        if !faults.ledger_ignores_its_lease {
            let counters = rows.batch == memory.batch && self.shell.assigned == memory.assigned;
            holds(counters, "B5", || "the writer's counters are not what memory says".into())?;
            for (key, sides) in &effects.accounts {
                holds(rows.accounts.get(key) == sides.as_ref(), "B5", || format!("{key} is not what memory says"))?;
            }
        }
        let record = |id: &TransactionId| {
            let found = memory.ledger.known.transactions.get(id).cloned();
            found.ok_or_else(|| Breach::new("L6", format!("transaction {id} is written and not known")))
        };
        for id in &effects.new {
            let before = rows.transactions.insert(*id, record(id)?);
            holds(before.is_none(), "L6", || format!("transaction {id} is inserted twice"))?;
        }
        for id in &effects.changed {
            let before = rows.transactions.insert(*id, record(id)?);
            holds(before.is_some(), "L6", || format!("transaction {id} is updated and was not there"))?;
        }
        for key in effects.accounts.keys() {
            rows.accounts.insert(*key, memory.ledger.sides(*key));
        }
        rows.windows.extend(effects.windows.iter().map(|(id, row)| (*id, row.clone())));
        rows.participants.extend(effects.participants.iter().map(|(id, row)| (*id, row.clone())));
        rows.terms.extend(effects.terms.iter().map(|(key, terms)| (*key, *terms)));
        rows.withdrawals.extend(effects.withdrawals.iter().map(|(id, row)| (*id, row.clone())));
        rows.commands.extend(effects.commands.iter().map(|(id, row)| (*id, row.clone())));
        let mut open = BTreeSet::new();
        for row in rows.windows.values().filter(|row| row.sealed.is_none()) {
            holds(open.insert(row.currency), "C4", || format!("{} has two open windows", row.currency))?;
        }
        rows.posting_seq = memory.ledger.posting_seq;
        holds(memory.ledger.last_at >= rows.last_at, "L5", || "the ledger's time went back".into())?;
        rows.last_at = memory.ledger.last_at;
        rows.batch += 1;
        Ok(())
    }

    /// What the commands name, as the store reads it.
    fn prefetch<'a>(
        &self,
        commands: impl Iterator<Item = &'a Command>,
        ledger: &Ledger,
        now: Timestamp,
        faults: &Faults,
    ) -> Known {
        let mut known = Known::default();
        let rows = &self.rows;
        let transaction = |known: &mut Known, id: &TransactionId| {
            known.transactions.extend(rows.transactions.get(id).map(|r| (*id, r.clone())));
        };
        let command = |known: &mut Known, id: Uuid| {
            known.commands.extend(rows.commands.get(&id).map(|r| (id, r.clone())));
        };
        let window = |known: &mut Known, id: &WindowId| {
            known.windows.extend(rows.windows.get(id).map(|r| (*id, r.clone())));
        };
        for due in ledger.expiries.iter().take_while(|e| e.at <= now) {
            transaction(&mut known, &due.id);
        }
        for asked in commands {
            match asked {
                Command::Submit { instruction, .. } => {
                    if !faults.ledger_forgets_ids {
                        transaction(&mut known, &instruction.id);
                    }
                    instruction.return_of.iter().for_each(|id| transaction(&mut known, id));
                }
                Command::Commit { id, .. } | Command::Cancel { id, .. } | Command::Release { id, .. } => {
                    transaction(&mut known, id);
                }
                Command::RequestWithdrawal { id, .. } | Command::EndWithdrawal { id, .. } => {
                    known.withdrawals.extend(rows.withdrawals.get(id).map(|r| (*id, r.clone())));
                }
                Command::Deposit { id, .. }
                | Command::Register { id, .. }
                | Command::SetState { id, .. }
                | Command::EnableCurrency { id, .. }
                | Command::SetCollateral { id, .. }
                | Command::SetLimit { id, .. } => command(&mut known, id.uuid()),
                Command::OpenWindow { id, .. } => window(&mut known, id),
                Command::SealWindow { id, next, .. } => {
                    window(&mut known, id);
                    next.iter().for_each(|id| window(&mut known, id));
                }
                Command::Earmark { group, windows, .. } | Command::Settle { group, windows, .. } => {
                    command(&mut known, group.uuid());
                    windows.iter().for_each(|id| window(&mut known, id));
                }
                // Nothing else names anything that is read.
                _ => {}
            }
        }
        known
    }

    /// The ledger as of the last COMMIT, read back as the store reads it.
    fn load(&self) -> Checked<Memory> {
        let rows = &self.rows;
        let mut ledger = Ledger { posting_seq: rows.posting_seq, last_at: rows.last_at, ..Ledger::default() };
        for (id, (name, state)) in &rows.participants {
            ledger.participants.insert(*id, Participant { name: name.clone(), state: *state });
        }
        for (key, terms) in &rows.terms {
            ledger.memberships.insert(*key, Membership { terms: *terms, ..Membership::new() });
        }
        for (id, row) in rows.windows.iter().filter(|(_, row)| row.settled_at.is_none()) {
            let mut window = Window::new(row.currency, row.opened_at);
            (window.count, window.gross, window.sealed) = (row.count, row.gross, row.sealed.clone());
            let state = SerializedState::<Sha256>::try_from(row.digest.as_slice());
            let digest = state.ok().and_then(|state| Sha256::deserialize(&state).ok());
            window.digest = digest.ok_or_else(|| Breach::new("L7", format!("the digest of window {id}")))?;
            if window.sealed.is_none() {
                ledger.open.insert(row.currency, *id);
            }
            ledger.windows.insert(*id, window);
        }
        for (key, sides) in &rows.accounts {
            let live = key.purpose().is_none_or(|purpose| ledger.windows.contains_key(&WindowId::new(purpose)));
            if live || !sides.balance().is_zero() {
                ledger.accounts.insert(*key, *sides);
            }
            if let AccountKey::Position(participant, _, window) = key
                && let Some(window) = ledger.windows.get_mut(window)
            {
                window.members.insert(*participant);
            }
        }
        for record in rows.transactions.values().filter(|r| r.state == TransactionState::Reserved) {
            let i = &record.instruction;
            let gross = i.model == deltran_events::data::transactions::SettlementModel::Gross;
            if !gross && let Some(membership) = ledger.memberships.get_mut(&(i.payer, i.amount.currency())) {
                let out = |_| Breach::new("L7", "holds leave the range");
                membership.net_holds = membership.net_holds.add(i.amount.minor()).map_err(out)?;
            }
            ledger.expiries.extend(record.expires_at.map(|at| Expiry { at, id: i.id }));
        }
        let keys: Vec<_> = ledger.memberships.keys().copied().collect();
        for (participant, currency) in keys {
            let (debit, unfunded) =
                (ledger.sealed_debit_of(participant, currency), ledger.unfunded_of(participant, currency));
            if let Some(membership) = ledger.memberships.get_mut(&(participant, currency)) {
                (membership.sealed_debit, membership.unfunded) = (debit, unfunded);
            }
        }
        Ok(Memory { ledger, batch: rows.batch, assigned: self.shell.assigned })
    }

    /// L7 for the cache: what is in memory is what would be read.
    pub fn check_memory(&self) -> Checked {
        let Some(memory) = &self.process.memory else { return Ok(()) };
        let read = self.load()?;
        let (own, read) = (&memory.ledger, &read.ledger);
        let windows = |l: &Ledger| -> BTreeMap<WindowId, (WindowRow, BTreeSet<ParticipantId>)> {
            l.windows.iter().map(|(id, w)| (*id, (w.row(None), w.members.clone()))).collect()
        };
        // Empty accounts of windows that are over mean nothing, wherever they are.
        let accounts = |l: &Ledger| -> BTreeMap<AccountKey, Sides> {
            let live = |key: &AccountKey| key.purpose().is_none_or(|p| l.windows.contains_key(&WindowId::new(p)));
            let all = l.accounts.iter().filter(|(key, sides)| live(key) || !sides.balance().is_zero());
            all.map(|(key, sides)| (*key, *sides)).collect()
        };
        for (what, same) in [
            ("participants", own.participants == read.participants),
            ("memberships", own.memberships == read.memberships),
            ("accounts", accounts(own) == accounts(read)),
            ("windows", windows(own) == windows(read)),
            ("open windows", own.open == read.open),
            ("expiries", own.expiries == read.expiries),
            ("numbers", own.posting_seq == read.posting_seq && own.last_at == read.last_at),
        ] {
            holds(same, "L7", || format!("{what} in memory are not what would be read"))?;
        }
        Ok(())
    }
}

/// Carries one command out and checks L5 over it.
fn step(ledger: &mut Ledger, command: Command, now: Timestamp, before: &mut Over) -> Checked<Decided> {
    // A change of terms may leave use above the limit; it is no debit.
    let terms = matches!(command, Command::SetLimit { .. } | Command::SetCollateral { .. });
    let quiet = matches!(command, Command::Submit { ref gates, .. } if gates.is_err());
    let postings = ledger.effects.postings.len();
    let result = ledger.execute(command, now);
    if let Err(Denied::Breach { invariant, detail }) = &result {
        return breach(invariant, detail.clone());
    }
    if quiet && ledger.effects.postings.len() == postings {
        return Ok(result);
    }
    let after = over(ledger);
    if !terms {
        within(before, &after)?;
    }
    *before = after;
    Ok(result)
}
