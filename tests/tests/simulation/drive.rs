//! What engines do by themselves: the ledger's writer, the drivers of windows and batches, relays and consumers.

use std::collections::BTreeMap;
use std::rc::Rc;

use deltran_kernel::{NettingSetId, WindowId};
use deltran_messaging::ranges::Ranges;
use deltran_messaging::{Delivery, Outgoing};
use deltran_risk::domain::count::Fact;
use deltran_settlement::domain as settlement_domain;
use deltran_token::domain::command::{Answer as LedgerAnswer, Applied, Command};
use deltran_token::domain::refusal::Denied;

use super::audit::Append;
use super::broker::Message;
use super::check::{Checked, breach};
use super::clearing::{Answer, Step};
use super::op::{Call, Engine, Fate, Feed, Op};
use super::risk::Counted;
use super::settlement;
use super::shell::Shell;
use super::token::{Decided, For};
use super::world::{World, by, currency};

/// What a consumer's transaction writes.
pub enum Draft {
    Clearing(super::clearing::Draft),
    Settlement(super::settlement::Draft),
    Risk(Counted, Vec<Fact>),
    Audit(Append),
}

/// What a refusal of the ledger is for another engine: its own word, or no answer.
fn judged(denied: Denied) -> Option<String> {
    match denied {
        Denied::NotFound { .. } | Denied::Conflict { .. } | Denied::WrongState { .. } | Denied::Refused(_) => {
            Some(denied.to_string())
        }
        Denied::Unauthorised(_) | Denied::Undecided(_) | Denied::Breach { .. } => None,
    }
}

impl World {
    // ---- the ledger

    /// A round of the writer; what it said to an engine that calls.
    pub fn write(&mut self, most: usize, fate: Fate) -> Checked<Option<Decided>> {
        let now = self.now();
        let written = self.token.write(most, fate, now, &mut self.truth, &self.faults)?;
        self.written(written)
    }

    pub fn written(&mut self, written: super::token::Written) -> Checked<Option<Decided>> {
        if written.committed {
            self.commits += 1;
            self.count("batches of the ledger");
        }
        if written.died {
            self.count("crashes");
        }
        let mut called = None;
        for (reply, decided) in written.answers {
            if reply == For::Caller {
                called = Some(decided);
            } else {
                self.banks.hear(reply, decided, &self.token.rows, &self.truth)?;
            }
        }
        Ok(called)
    }

    pub fn wake(&mut self, fate: Fate) -> Checked {
        let now = self.now();
        let written = self.token.wake(fate, now, &mut self.truth, &self.faults)?;
        self.written(written).map(drop)
    }

    /// An engine calls the ledger; its command goes to the writer with all that waits before it.
    pub fn ask_ledger(&mut self, command: Command, call: Call, fate: Fate) -> Checked<Option<Decided>> {
        if call == Call::NeverArrives {
            return Ok(None);
        }
        self.token.enqueue(command, For::Caller, None);
        let answer = self.write(usize::MAX, fate)?;
        Ok(answer.filter(|_| call == Call::Answered))
    }

    // ---- clearing

    pub fn window_order(&mut self, op: Op) -> Checked {
        let (id, now) = (self.id(), self.now());
        let (draft, fate) = match op {
            Op::Open { euro, fate } => (self.clearing.open(WindowId::new(id), currency(euro), now)?, fate),
            Op::Close { euro, next, fate } => {
                let next = next.then(|| WindowId::new(id));
                (self.clearing.close(currency(euro), next, now)?, fate)
            }
            Op::Abort { euro, fate } => (self.clearing.abort(currency(euro), now)?, fate),
            Op::NetAgain { euro, all, fate } => {
                (self.clearing.net_again(NettingSetId::new(id), currency(euro), all)?, fate)
            }
            _ => return Ok(()),
        };
        self.commit_clearing(draft, fate).map(drop)
    }

    pub fn commit_clearing(&mut self, draft: Option<super::clearing::Draft>, fate: Fate) -> Checked<bool> {
        match draft {
            Some(draft) => self.transact(Engine::Clearing, Draft::Clearing(draft), None, fate),
            None => Ok(false),
        }
    }

    /// The driver of windows takes one of those that are due a step further.
    pub fn windows(&mut self, nth: u8, call: Call, ledger: Fate, fate: Fate) -> Checked<bool> {
        let due = self.clearing.due();
        let Some(step) = due.get(usize::from(nth) % due.len().max(1)).cloned() else { return Ok(false) };
        let draft = match step {
            Step::Open(window) => {
                let command = Command::OpenWindow { id: window.id, currency: window.currency };
                let Some(decided) = self.ask_ledger(command, call, ledger)? else { return Ok(false) };
                let answer = match decided.map(Applied::into_parts) {
                    Ok((LedgerAnswer::Opened { at }, _)) => Answer::Done(at),
                    Ok((other, _)) => return breach("C4", format!("opening was answered {other:?}")),
                    Err(denied) => match judged(denied) {
                        Some(why) => Answer::Refused(why),
                        None => return Ok(false),
                    },
                };
                self.clearing.opened(&window, answer)?
            }
            Step::Seal(window) => {
                let command = Command::SealWindow { id: window.id, next: window.next, by: by("clearing-engine") };
                let Some(decided) = self.ask_ledger(command, call, ledger)? else { return Ok(false) };
                match decided.map(Applied::into_parts) {
                    Ok((LedgerAnswer::Sealed(totals), _)) => self.clearing.sealed(&window, &totals)?,
                    Ok((other, _)) => return breach("C1", format!("a seal was answered {other:?}")),
                    Err(denied) => match judged(denied) {
                        Some(why) => return breach("C1", format!("window {} is not sealed: {why}", window.id)),
                        None => return Ok(false),
                    },
                }
            }
            Step::Net(window) => {
                let id = NettingSetId::new(self.id());
                self.clearing.net(&window, id)?
            }
        };
        self.commit_clearing(draft, fate)
    }

    // ---- settlement

    /// The driver of batches takes one of those that are open a step further. True where it moved.
    pub fn batches(&mut self, nth: u8, call: Call, ledger: Fate, fate: Fate) -> Checked<bool> {
        use settlement_domain::{Answer, Command as Asked, Pace};
        let open = self.settlement.open();
        let Some(seen) = open.get(usize::from(nth) % open.len().max(1)).cloned() else { return Ok(false) };
        let Some(command) = seen.batch.command() else { return Ok(false) };
        let asked_at = self.now();
        let (command, earmark) = match command {
            Asked::ReadNettingSet => {
                if call != Call::Answered {
                    return Ok(false);
                }
                let id = seen.batch.terms.netting_set_id;
                let answer = match self.clearing.rows.sets.get(&id) {
                    Some(set) => Answer::NettingSet(settlement::netting_set(id, set)),
                    None => Answer::Refused { reason: format!("there is no netting set {id}") },
                };
                return self.answered(&seen, answer, fate).map(|moved| moved.is_some());
            }
            Asked::Earmark(group) => (settlement::earmark(&seen.batch, group), true),
            Asked::Settle(group) => (settlement::settle(&seen, group), false),
        };
        let Some(decided) = self.ask_ledger(command, call, ledger)? else { return Ok(false) };
        let answer = match decided {
            Ok(applied) => {
                let (answer, replayed) = applied.into_parts();
                settlement::understood(answer, replayed, earmark, asked_at)?
            }
            Err(denied) => match judged(denied) {
                Some(reason) => Answer::Refused { reason },
                None => return Ok(false),
            },
        };
        Ok(matches!(self.answered(&seen, answer, fate)?, Some(Pace::Now | Pace::End)))
    }

    pub fn answered(
        &mut self,
        seen: &settlement::Stored,
        answer: settlement_domain::Answer,
        fate: Fate,
    ) -> Checked<Option<settlement_domain::Pace>> {
        let Some((draft, pace)) = self.settlement.decided(seen, answer, self.now())? else { return Ok(None) };
        let done = self.transact(Engine::Settlement, Draft::Settlement(draft), None, fate)?;
        Ok(done.then_some(pace))
    }

    // ---- transport

    pub fn shell(&mut self, engine: Engine) -> &mut Shell {
        match engine {
            Engine::Token => &mut self.token.shell,
            Engine::Clearing => &mut self.clearing.shell,
            Engine::Settlement => &mut self.settlement.shell,
            Engine::Risk => &mut self.risk.shell,
            Engine::Audit => &mut self.audit.shell,
        }
    }

    pub fn relay(&mut self, engine: Engine, most: usize, marked: bool) -> bool {
        let broker = &mut self.broker;
        let shell = match engine {
            Engine::Token => &mut self.token.shell,
            Engine::Clearing => &mut self.clearing.shell,
            Engine::Settlement => &mut self.settlement.shell,
            Engine::Audit => &mut self.audit.shell,
            Engine::Risk => return false,
        };
        shell.publish(broker, most, marked)
    }

    pub fn confirm(&mut self, engine: Engine) -> bool {
        let unasked = self.faults.relays_do_not_ask_the_audit_ledger;
        let producer = self.shell(engine).producer.clone();
        let through = if unasked { u64::MAX } else { self.audit.confirmed_through(&producer) };
        self.shell(engine).confirm(through)
    }

    /// One round of a consumer. True where something was committed.
    pub fn deliver(&mut self, feed: Feed, skip: usize, most: usize, fate: Fate) -> Checked<bool> {
        // Clearing and the audit ledger take events in any order. Risk needs that of the ledger, which a strict consumer
        // keeps: it begins anew at what was not acknowledged.
        let skip = if feed == Feed::Exposures { 0 } else { skip };
        if feed == Feed::Exposures {
            self.broker.redeliver(feed, true);
        }
        let fetched = self.broker.fetch(feed, skip, most);
        if fetched.is_empty() {
            return Ok(false);
        }
        let sequences: Vec<u64> = fetched.iter().map(|d| d.sequence).collect();
        if self.faults.acknowledges_before_commit {
            self.broker.acknowledge(feed, &sequences);
        }
        let (by_sequence, now) = (self.faults.skips_by_stream_sequence, self.now());
        let shell = self.shell(feed.engine());
        let mut received: BTreeMap<String, Ranges> = BTreeMap::new();
        let mut cursor = shell.cursors.get(&feed).copied().unwrap_or(0);
        let mut deliveries: Vec<(Delivery, Rc<Message>)> = Vec::with_capacity(fetched.len());
        for delivered in fetched {
            let (message, origin) = (delivered.kept.message, delivered.kept.origin);
            let (producer, number) = message.producer.clone();
            let ranges = received
                .entry(producer.clone())
                .or_insert_with(|| shell.received.get(&(feed, producer.clone())).cloned().unwrap_or_default());
            let known = !ranges.insert(number);
            let duplicate = if by_sequence { delivered.sequence <= cursor } else { known };
            cursor = cursor.max(delivered.sequence);
            let delivery = Delivery {
                subject: message.subject.clone(),
                stream: feed.log().name().to_owned(),
                stream_sequence: delivered.sequence,
                origin: (origin.0.name().to_owned(), origin.1),
                attempt: delivered.attempt,
                payload: message.payload.clone(),
                envelope: message.decoded.clone(),
                producer: Some(message.producer.clone()),
                headers: BTreeMap::new(),
                duplicate,
                prepared: None,
            };
            deliveries.push((delivery, message));
        }
        let draft = if feed == Feed::Leaves {
            Draft::Audit(self.audit.append(&deliveries, now))
        } else {
            let new: Vec<Delivery> = deliveries.into_iter().map(|(d, _)| d).filter(|d| !d.duplicate).collect();
            match feed {
                Feed::Obligations => Draft::Clearing(self.clearing.count(&new, &self.faults)?),
                Feed::Batches => Draft::Clearing(self.clearing.follow(&new)?),
                Feed::Sets => Draft::Settlement(self.settlement.file(&new, now)?),
                Feed::Exposures | Feed::Leaves => {
                    let (rows, facts) = self.risk.apply(&new)?;
                    Draft::Risk(rows, facts)
                }
            }
        };
        let committed = self.transact(feed.engine(), draft, Some((feed, received, cursor)), fate)?;
        match fate {
            Fate::Done => self.broker.acknowledge(feed, &sequences),
            Fate::Fails => self.broker.refuse(feed, &sequences),
            _ => {}
        }
        self.count("deliveries");
        Ok(committed)
    }

    /// A transaction of an engine other than the ledger: all of it is committed, or nothing.
    pub fn transact(
        &mut self,
        engine: Engine,
        draft: Draft,
        received: Option<(Feed, BTreeMap<String, Ranges>, u64)>,
        fate: Fate,
    ) -> Checked<bool> {
        match fate {
            Fate::DiesBefore => {
                self.count("crashes");
                self.crash(engine);
                return Ok(false);
            }
            Fate::Fails => return Ok(false),
            Fate::Done | Fate::DiesAfter | Fate::AnswerLost => {}
        }
        let dies = fate == Fate::DiesAfter;
        let (now, faults) = (self.now(), self.faults);
        let mut events: Vec<Outgoing> = Vec::new();
        let mut facts = Vec::new();
        match draft {
            Draft::Clearing((rows, out)) => {
                self.clearing.frozen(&rows)?;
                (self.clearing.rows, events) = (rows, out);
            }
            Draft::Settlement((rows, out)) => (self.settlement.rows, events) = (rows, out),
            Draft::Risk(rows, counted) => (self.risk.rows, facts) = (rows, counted),
            Draft::Audit(append) => self.audit.commit(append, !(faults.tree_in_another_transaction && dies)),
        }
        let shell = self.shell(engine);
        if !(faults.outbox_in_another_transaction && dies) {
            let rows = shell.encode_outgoing(now, &events)?;
            shell.append(rows)?;
        }
        if let Some((feed, received, cursor)) = received
            && !faults.loses_what_was_received
        {
            shell.received.extend(received.into_iter().map(|(producer, ranges)| ((feed, producer), ranges)));
            shell.cursors.insert(feed, cursor);
        }
        self.commits += 1;
        if dies {
            self.count("crashes");
            self.crash(engine);
        } else if engine == Engine::Risk && !facts.is_empty() {
            self.risk.counted(&facts);
        }
        Ok(true)
    }

    /// A process dies with what it had in memory only.
    pub fn crash(&mut self, engine: Engine) {
        match engine {
            Engine::Token => self.token.crash(),
            Engine::Risk => self.risk.crash(),
            Engine::Audit => self.audit.crash(),
            Engine::Clearing | Engine::Settlement => {}
        }
    }

    pub fn lose(&mut self, op: Op) {
        self.count("losses of the broker");
        match op {
            Op::Rollback { log, last, cursors } => self.broker.roll_back(log, u64::from(last), cursors),
            Op::Wipe { log } => self.broker.wipe(log),
            Op::Delete { log } => self.broker.delete(log),
            Op::Remake { log } => self.broker.create(log, 1),
            _ => {}
        }
    }

    pub fn keep(&mut self, steps: u64) -> Checked<bool> {
        let told = Engine::SPEAKERS
            .into_iter()
            .map(|engine| {
                let shell = self.shell(engine);
                (shell.log, (shell.marks.acknowledged, shell.marks.repeated))
            })
            .collect();
        let now = self.now();
        let before = self.audit.mended;
        let moved = self.audit.keep(&mut self.broker, &told, steps, now, &self.faults)?;
        *self.counts.entry("streams made anew").or_default() += self.audit.mended - before;
        if steps < u64::from(u8::MAX) {
            self.audit.crash();
        }
        Ok(moved)
    }

    pub fn repair(&mut self) -> bool {
        let mut rows = Vec::new();
        for engine in Engine::SPEAKERS {
            let shell = self.shell(engine);
            let published = shell.marks.published;
            rows.extend(shell.rows.range(..=published).map(|(_, message)| (shell.log, message.clone())));
        }
        let stored = self.audit.repair(&mut self.broker, &rows);
        if stored {
            self.count("repairs");
        }
        stored
    }
}
