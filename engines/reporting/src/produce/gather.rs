//! Gathering what a report says, and comparing it.

use std::collections::BTreeMap;

use deltran_kernel::{Currency, NettingSetId, ParticipantId, WindowId};

use super::{Halt, Plan, Producer, Proofs, Segment};
use crate::domain::Contradiction;
use crate::domain::book::Flow;
use crate::domain::day::Day;
use crate::domain::job::{About, Report};
use crate::domain::position::Position;
use crate::domain::settled::assemble;
use crate::domain::statement::{Head, Scope};
use crate::domain::trial::Trial;
use crate::ledger;
use crate::store::{self, Direct};

impl From<Contradiction> for Halt {
    fn from(contradiction: Contradiction) -> Self {
        Self::Breach("P2", contradiction.0)
    }
}

impl Producer {
    /// Everything that a report says.
    ///
    /// # Errors
    /// What it waits for, or why it can never be written.
    pub async fn gather(&self, report: &Report, proofs: &Proofs) -> Result<Plan, Halt> {
        match report.subject.about {
            About::Day(participant, currency, day) => self.day(report, participant, currency, day, proofs).await,
            About::Window(participant, currency, window) => {
                self.window(report, participant, currency, window, proofs).await
            }
            About::SettledWindow(window) => {
                let set = store::set_of_window(&mut *self.context.db.pool().acquire().await?, window).await?;
                let set = set.ok_or_else(|| Halt::Waits(format!("window {window} is in no netting set yet")))?;
                self.settlement(set, Some(window)).await
            }
            About::SettledSet(set) => self.settlement(set, None).await,
            About::Trial { currency, verify_ledger } => self.trial(currency, verify_ledger).await,
        }
    }

    async fn takes_part(&self, participant: ParticipantId, currency: Currency) -> Result<(), Halt> {
        if store::takes_part(self.context.db.pool(), participant, currency).await? {
            return Ok(());
        }
        Err(Halt::Never(format!("{participant} does not take part in {currency}")))
    }

    /// Days are those in which entries were counted, whatever the configuration says now.
    async fn zone_fits(&self) -> Result<(), Halt> {
        let own = &self.checked.settings.time_zone;
        match store::zone(self.context.db.pool()).await? {
            Some(fixed) if fixed != *own => Err(Halt::Waits(format!(
                "business days were counted in {fixed}: set reporting.time_zone to that, not to {own}"
            ))),
            _ => Ok(()),
        }
    }

    fn head(&self, report: &Report, participant: ParticipantId, currency: Currency, scope: Scope, day: Day) -> Head {
        let now = self.context.clock.now();
        Head {
            id: report.id.uuid(),
            participant,
            currency,
            scope,
            from: now,
            to: now,
            day,
            opening: deltran_kernel::Minor::ZERO,
            closing: deltran_kernel::Minor::ZERO,
            flow: Flow::default(),
            made_at: now,
            deployment: self.context.config.deployment.clone(),
        }
    }

    async fn day(
        &self,
        report: &Report,
        participant: ParticipantId,
        currency: Currency,
        day: Day,
        proofs: &Proofs,
    ) -> Result<Plan, Halt> {
        self.zone_fits().await?;
        let zone = &self.checked.zone;
        let end = day.ends(zone);
        let asked_at = self.context.clock.now();
        let until = if asked_at >= end {
            self.day_over(end, currency, participant, proofs).await?;
            None
        } else {
            let position = self.so_far(currency, participant).await?;
            // Between the two looks at the clock the day may have ended, here or by the ledger's clock.
            if self.context.clock.now() >= end
                || store::moved_after(self.context.db.pool(), participant, currency, day).await?
            {
                return Err(Halt::Waits(format!("{day} is ending: it is not of the day so far that can be told")));
            }
            Some(position)
        };
        self.takes_part(participant, currency).await?;
        let mut db = self.context.db.pool().acquire().await?;
        let last = until.unwrap_or(Position::LAST);
        let which = Direct { participant, currency, day, after: Position::default(), until: last };
        let mut flow = store::direct_totals(&mut db, &which).await?;
        let (mut segments, mut after) = (Vec::new(), Position::default());
        for (window, position, final_at, more) in store::windows_of_day(&mut db, &which).await? {
            self.window_whole(&mut db, window, proofs).await?;
            flow = flow.add(&more)?;
            if after != position {
                segments.push(Segment::Direct(Direct { after, until: position, ..which }));
            }
            segments.push(Segment::Window(window, final_at));
            after = position;
        }
        segments.push(Segment::Direct(Direct { after, ..which }));

        let (opening, change) = store::token_change(&mut *db, participant, currency, day).await?;
        let closing = match until {
            None => opening.add(change).map_err(Contradiction::of)?,
            Some(position) => store::tokens_at(&mut db, participant, currency, position).await?,
        };
        let head = self.head(report, participant, currency, Scope::Day { day, until }, day);
        // What was committed before the ledger was asked is all there; what is committed since then may not be.
        let to = if until.is_some() { asked_at } else { end };
        let head = Head { from: day.begins(zone), to, opening, closing, flow, ..head };
        Ok(Plan::Statement(Box::new(head), segments))
    }

    async fn window(
        &self,
        report: &Report,
        participant: ParticipantId,
        currency: Currency,
        window: WindowId,
        proofs: &Proofs,
    ) -> Result<Plan, Halt> {
        self.zone_fits().await?;
        let mut db = self.context.db.pool().acquire().await?;
        self.window_whole(&mut db, window, proofs).await?;
        let facts = store::window_facts(&mut db, window).await?;
        let sealed = facts.as_ref().and_then(|f| f.sealed.as_ref());
        let posted = facts.as_ref().and_then(|f| f.posted.as_ref());
        let (Some(sealed), Some(posted)) = (sealed, posted) else {
            return Err(Halt::Waits(format!("window {window} is not settled yet")));
        };
        if sealed.currency != currency {
            return Err(Halt::Never(format!("window {window} is of {}, not of {currency}", sealed.currency)));
        }
        self.takes_part(participant, currency).await?;
        let opened = store::opened_at(&mut db, window).await?;
        let flow = store::window_flow(&mut db, participant, window).await?;
        let day = Day::of(posted.at, &self.checked.zone);
        let head = self.head(report, participant, currency, Scope::Window(window), day);
        let (from, to, closing) = (opened.unwrap_or(sealed.at), posted.at, flow.net()?);
        let head = Head { from, to, closing, flow, ..head };
        Ok(Plan::Statement(Box::new(head), vec![Segment::Window(window, to)]))
    }

    async fn settlement(&self, id: NettingSetId, asked: Option<WindowId>) -> Result<Plan, Halt> {
        let mut db = self.context.db.pool().acquire().await?;
        let set = store::netting_set(&mut db, id).await?;
        let batch = store::batch_of(&mut db, id).await?;
        let mut windows = BTreeMap::new();
        let mut groups = std::collections::BTreeSet::new();
        for window in set.iter().flat_map(|set| &set.windows) {
            if let Some(facts) = store::window_facts(&mut db, *window).await? {
                groups.extend(facts.posted.as_ref().map(|posted| posted.group));
                windows.insert(*window, facts);
            }
        }
        if groups.len() > 1 {
            return Err(Halt::Breach("P4", format!("netting set {id} was settled by {} postings", groups.len())));
        }
        let legs = match groups.first() {
            Some(group) => store::legs_of(&mut db, *group).await?,
            None => BTreeMap::new(),
        };
        match assemble(set, batch, windows, legs) {
            Ok(settled) => Ok(Plan::Settlement(Box::new(settled), asked)),
            Err(not_ready) => {
                Halt::unless_ready(not_ready, "P4")?;
                Err(Halt::Waits(format!("netting set {id} is not whole yet")))
            }
        }
    }

    async fn trial(&self, currency: Option<Currency>, verify_ledger: bool) -> Result<Plan, Halt> {
        let currencies = match currency {
            Some(currency) => vec![currency],
            None => store::currencies(self.context.db.pool()).await?,
        };
        let mut trials = Vec::with_capacity(currencies.len());
        for currency in currencies {
            // The ledger is asked first: what it answers belongs to an event that is known, and balances are taken
            // back to that event, so that a ledger at work ties as well as one at rest.
            let said = ledger::balances(&self.context, currency, None).await?;
            self.reaches(said.position).await?;
            let mut db = self.context.db.pool().acquire().await?;
            let accounts = store::balances_at(&mut db, currency, said.position).await?;
            let trial =
                Trial::new(currency, said.position, accounts, &said.balances).map_err(|e| Halt::Breach("P5", e.0))?;
            if trial.difference.is_some() {
                self.context.metrics.breach("P5", &trial.verdict());
            }
            trials.push(trial);
        }
        let checked = if verify_ledger { ledger::verify(&self.context).await? } else { Vec::new() };
        Ok(Plan::Trial(trials, checked))
    }
}
