//! The end of a day on which everything went wrong, and what must hold all the time.

use deltran_messaging::ranges::Ranges;

use super::check::{Checked, breach, holds};
use super::op::{Call, Engine, Fate, Feed, Log, Op, Screen, Way};
use super::world::{BANKS, World, bank, money};

/// Rounds of a calm after which something goes round in circles.
const ROUNDS: usize = 60;

impl World {
    // ---- calm

    /// Nothing goes wrong, and everything is carried on until nothing moves.
    pub fn calm(&mut self) -> Checked {
        self.wake(Fate::Done)?;
        for _ in 0..ROUNDS {
            let mut moved = self.keep(u64::MAX)?;
            let waits = !self.token.process.queue.is_empty();
            self.write(usize::MAX, Fate::Done)?;
            moved |= waits;
            for engine in Engine::SPEAKERS {
                moved |= self.relay(engine, usize::MAX, true);
            }
            for log in Log::SOURCES {
                moved |= self.broker.copy(log, usize::MAX);
            }
            for feed in Feed::ALL {
                self.broker.redeliver(feed, true);
                moved |= self.deliver(feed, 0, 10_000, Fate::Done)?;
            }
            for nth in 0..self.clearing.due().len() as u8 {
                moved |= self.windows(nth, Call::Answered, Fate::Done, Fate::Done)?;
            }
            for nth in 0..self.settlement.open().len() as u8 {
                moved |= self.batches(nth, Call::Answered, Fate::Done, Fate::Done)?;
            }
            for engine in Engine::SPEAKERS {
                moved |= self.confirm(engine);
            }
            self.risk.reload();
            if !moved {
                self.count("calms");
                return Ok(());
            }
        }
        breach("B6", format!("after {ROUNDS} rounds in which nothing goes wrong there is still something to do"))
    }

    /// The day ends well: everybody is answered, every window settles, every event is in the audit ledger.
    pub fn finish(&mut self) -> Checked {
        self.calm()?;
        // The duplicate window passes, and an operator has repaired what nobody noticed.
        self.clock.advance_micros(150_000_000);
        self.broker.forget_ids();
        self.repair();
        self.calm()?;
        self.check()?;
        for _ in 0..4 {
            for place in self.banks.unanswered() {
                let i = self.banks.sent[place].clone();
                self.submit(i, Screen::Approve)?;
            }
            self.calm()?;
        }
        holds(self.banks.unanswered().is_empty(), "B1", || {
            format!("{} submissions are never answered", self.banks.unanswered().len())
        })?;
        for n in 0..BANKS.len() as u8 {
            for euro in [false, true] {
                self.administer(Op::Deposit { bank: n, units: 60_000, euro });
            }
        }
        for euro in [false, true] {
            self.window_order(Op::Close { euro, next: false, fate: Fate::Done })?;
        }
        self.calm()?;
        for _ in 0..3 {
            for euro in [false, true] {
                self.window_order(Op::NetAgain { euro, all: true, fate: Fate::Done })?;
            }
            self.calm()?;
        }
        self.check()?;
        self.ended()
    }

    pub fn ended(&mut self) -> Checked {
        use deltran_clearing::domain::WindowState::{Aborted, Scheduled, Settled};
        for window in self.clearing.rows.windows.values() {
            let done = matches!(window.state, Settled | Aborted)
                || (window.state == Scheduled && window.open_ordered_by.is_none());
            holds(done, "C1", || format!("window {} stays {}: {:?}", window.id, window.state, window.note))?;
        }
        for (id, counted) in &self.truth.windows {
            let done = counted.settled.is_some() || counted.ids.is_empty();
            holds(done, "S6", || format!("window {id} is never settled"))?;
        }
        for stored in self.settlement.rows.batches.values() {
            let batch = &stored.batch;
            holds(batch.is_ended(), "S6", || format!("batch {} stays {}: {}", batch.id, batch.state, batch.note))?;
        }
        for engine in Engine::SPEAKERS {
            let shell = self.shell(engine);
            let (producer, assigned, marks) = (shell.producer.clone(), shell.assigned, shell.marks.clone());
            let through = self.audit.confirmed_through(&producer);
            holds(through == assigned, "A6", || {
                format!("{producer} wrote {assigned} events, 1 to {through} are leaves")
            })?;
            holds(marks.confirmed == assigned, "A6", || format!("{producer}: {marks:?} of {assigned}"))?;
        }
        for feed in [Feed::Obligations, Feed::Exposures] {
            let (engine, assigned) = (feed.engine(), self.token.shell.assigned);
            let producer = self.token.shell.producer.clone();
            let received = self.shell(engine).received.get(&(feed, producer)).cloned().unwrap_or_default();
            holds(received.contiguous() == assigned, "B3", || {
                format!("{feed:?} has received {received:?} of {assigned}")
            })?;
        }
        let owed = self.risk.rows.book.windows.values().filter(|w| !w.pairs.is_empty()).count();
        holds(owed == 0, "R7", || format!("{owed} settled windows still count for risk"))?;
        self.under_way()?;
        self.token.check_memory()?;
        self.audit.sign();
        self.audit.check()?;
        self.audit.verify()?;
        let settled = self.truth.windows.values().filter(|c| c.settled.is_some()).count() as u64;
        let returned: u64 = self.settlement.rows.batches.values().filter(|s| s.batch.final_at.is_none()).count() as u64;
        *self.counts.entry("windows settled").or_default() += settled;
        *self.counts.entry("batches given up").or_default() += returned;
        *self.counts.entry("leaves").or_default() += self.audit.leaves.len() as u64;
        Ok(())
    }

    /// A call of the gate tells it that everything is done; then nothing counts as under way.
    pub fn under_way(&mut self) -> Checked {
        for _ in 0..2 {
            let i = self.instruction(bank(0), bank(0), money(1, false), Way::Gross, None);
            self.submit(i, Screen::Approve)?;
            self.token.process.queue.clear();
            self.risk.reload();
        }
        self.risk.nothing_under_way()
    }

    // ---- what must hold

    /// Every invariant, over what has changed since the last look.
    pub fn check(&mut self) -> Checked {
        self.audit.check()?;
        for engine in Engine::SPEAKERS {
            let shell = self.shell(engine);
            let (producer, confirmed) = (shell.producer.clone(), shell.marks.confirmed);
            let (rows, assigned) = (shell.rows.len() as u64, shell.assigned);
            holds(rows == assigned - confirmed, "B2", || {
                format!("{producer}: {rows} rows of {confirmed} to {assigned}")
            })?;
            let through = self.audit.confirmed_through(&producer);
            holds(through >= confirmed, "A6", || {
                format!("{producer}: events up to {confirmed} left the outbox, 1 to {through} are leaves")
            })?;
            let highest = self.audit.numbers.get(&producer).map_or(0, Ranges::highest);
            holds(highest <= assigned, "A6", || format!("{producer} wrote {assigned} events, {highest} is a leaf"))?;
        }
        if self.looked == (self.truth.committed, self.commits) {
            return Ok(());
        }
        if self.looked.0 != self.truth.committed {
            self.truth.check(&self.token.rows.accounts)?;
            self.banks.check(&self.token.rows, &self.truth)?;
            if self.truth.committed.is_multiple_of(8) {
                self.token.check_memory()?;
            }
        }
        self.looked = (self.truth.committed, self.commits);
        self.clearing.check(&self.truth)?;
        self.settlement.check(&self.truth)
    }
}
