//! The gate: may a transaction pass, given what is in force, what is counted and what is under way.
//!
//! Whatever becomes of what is under way, and in whatever window it lands, no limit is exceeded (R3): each
//! sum is the worst that is still possible.

use std::collections::BTreeMap;

use deltran_events::data::risk::LimitKind;
use deltran_kernel::{Currency, Minor, Money, ParticipantId, Timestamp, TransactionId, WindowId};

use super::book::Book;
use super::breaker::{BreakerState, Recovery};
use super::count::{Fact, Payment};
use super::flight::{Flight, Passage, Ticket};
use super::limit::Rate;
use super::rules::Rules;
use super::scope::{Corridor, Scope};

/// A transaction to be assessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// Its id.
    pub id: TransactionId,
    /// Who pays.
    pub payer: ParticipantId,
    /// Who receives.
    pub payee: ParticipantId,
    /// How much.
    pub amount: Money,
    /// Whether it settles GROSS: no position comes of it.
    pub gross: bool,
    /// Whether it is reserved first, and committed in a window that is not known.
    pub two_phase: bool,
    /// Whether it was HELD and is released.
    pub release: bool,
}

/// Why a transaction may not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A breaker does not let it pass.
    Breaker {
        /// Its scope.
        scope: Scope,
        /// Its state.
        state: BreakerState,
        /// Why it was set.
        reason: String,
    },
    /// A limit on amounts.
    Amount {
        /// Which.
        kind: LimitKind,
        /// What it allows.
        maximum: Money,
        /// What is left of it.
        headroom: Money,
        /// Towards whom, of a bilateral limit.
        counterparty: Option<ParticipantId>,
        /// From where to where, of a corridor's limit.
        corridor: Option<Corridor>,
    },
    /// A limit on the number of transactions.
    Rate {
        /// What it allows.
        rate: Rate,
    },
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Pass {
        /// In this window only, where one is named.
        window: Option<WindowId>,
    },
    /// It may not.
    Refused(Stop),
    /// It cannot be told now, and why.
    Undecided(String),
}

/// Whether counted data may be relied on, or why not.
pub type Known = Result<(), String>;

/// What a breaker says.
enum Let {
    Pass,
    /// In this window only.
    PassIn(WindowId),
    Stop,
}

/// How many have passed a HALF_OPEN breaker within this cool-down.
#[derive(Debug, Clone, Copy)]
struct Probing {
    since: Timestamp,
    period: Timestamp,
    passed: u32,
}

/// Everything that the gate decides from.
#[derive(Debug, Clone)]
pub struct Gatekeeper {
    /// What is in force.
    pub rules: Rules,
    /// What is counted.
    pub book: Book,
    /// What is under way.
    pub flight: Flight,
    recovery: Recovery,
    probing: BTreeMap<Scope, Probing>,
}

impl Gatekeeper {
    /// A gate that knows nothing yet.
    pub fn new(recovery: Recovery) -> Self {
        Self {
            rules: Rules::default(),
            book: Book::default(),
            flight: Flight::default(),
            recovery,
            probing: BTreeMap::new(),
        }
    }

    /// Takes in what the next version of the book says.
    pub fn count(&mut self, version: u64, facts: &[Fact]) {
        for fact in facts {
            self.book.count(fact);
            self.flight.follow(fact);
        }
        self.book.version = version;
    }

    /// Decides on a transaction, and counts it where it passes, as of the call `ticket`.
    pub fn admit(&mut self, subject: &Subject, ticket: Ticket, known: &Known, now: Timestamp) -> Verdict {
        self.rules.advance(now);
        // The ledger refuses these before it looks at what risk says, and answers what it has decided.
        let decided = !subject.release && self.flight.is_decided(subject.id);
        if decided || !subject.amount.minor().is_positive() || subject.payer == subject.payee {
            return Verdict::Pass { window: None };
        }
        let payment = Payment { payer: subject.payer, payee: subject.payee, amount: subject.amount };
        // Asked again, perhaps because the answer was lost: of the two only one can be committed.
        let earlier = match self.flight.passed(subject.id) {
            Some(earlier) if earlier.payment == payment && earlier.gross == subject.gross => {
                self.flight.take(subject.id)
            }
            Some(_) => {
                return Verdict::Undecided("a transaction with this id and another body is under way".to_owned());
            }
            None => None,
        };
        let verdict = self.judge(subject, known, now);
        match (&verdict, earlier) {
            (Verdict::Pass { window }, earlier) => {
                let window = window.filter(|window| earlier.is_none_or(|e| e.window == Some(*window)));
                let (gross, release) = (subject.gross, subject.release);
                self.flight.pass(subject.id, Passage { payment, gross, window, ticket, release });
                self.count_probes(subject, now);
            }
            (_, Some(earlier)) => self.flight.pass(subject.id, earlier),
            (_, None) => {}
        }
        verdict
    }

    /// What the gate would say; nothing is counted. Breakers come first (global, currency, corridor, payer,
    /// payee), then the single transaction maximum, the corridor's maximum, the bilateral limit, the corridor's
    /// gross, the rate.
    pub fn judge(&self, subject: &Subject, known: &Known, now: Timestamp) -> Verdict {
        let currency = subject.amount.currency();
        let mut only_in = None;
        if !self.rules.breakers.is_empty() {
            let scopes = Scope::of(subject.payer, subject.payee, currency);
            for (place, scope) in scopes.into_iter().enumerate() {
                match self.breaker(subject, scope, place, known, now) {
                    Ok(Let::Pass) => {}
                    Ok(Let::PassIn(window)) => only_in = Some(window),
                    Ok(Let::Stop) => return Verdict::Refused(self.stopped_by(scope)),
                    Err(unknown) => return Verdict::Undecided(unknown),
                }
            }
        }
        if let Some(stop) = self.single(subject) {
            return Verdict::Refused(stop);
        }
        match self.counted(subject, known, now) {
            Verdict::Pass { window } => Verdict::Pass { window: only_in.or(window) },
            verdict => verdict,
        }
    }

    fn stopped_by(&self, scope: Scope) -> Stop {
        let breaker = self.rules.breakers.get(&scope);
        Stop::Breaker {
            scope,
            state: breaker.map_or(BreakerState::Open, |b| b.state),
            reason: breaker.map(|b| b.reason.clone()).unwrap_or_default(),
        }
    }

    /// Whether a breaker lets a transaction pass; `place` is that of its scope among those of the transaction.
    fn breaker(
        &self,
        subject: &Subject,
        scope: Scope,
        place: usize,
        known: &Known,
        now: Timestamp,
    ) -> Result<Let, String> {
        let Some(breaker) = self.rules.breakers.get(&scope) else { return Ok(Let::Pass) };
        let (payer_alone, payee_alone) = (place == 3, place == 4);
        Ok(match breaker.state {
            BreakerState::Closed => Let::Pass,
            BreakerState::Open => Let::Stop,
            // Decisions are counted by payer, so only what it pays can show how a participant does.
            BreakerState::HalfOpen if payee_alone || !self.probes_left(scope, breaker.changed_at, now) => Let::Stop,
            BreakerState::HalfOpen => Let::Pass,
            // What is reserved lands in a window that is not known, what is GROSS in none.
            BreakerState::Reducing if subject.gross || subject.two_phase => Let::Stop,
            BreakerState::Reducing => {
                known.clone()?;
                let open = self.book.open(subject.amount.currency());
                let lowers = |window| {
                    (payee_alone || self.lowers_payer(subject, window))
                        && (payer_alone || self.lowers_payee(subject, window))
                };
                open.filter(|window| lowers(*window)).map_or(Let::Stop, Let::PassIn)
            }
        })
    }

    /// The payer is owed at least so much, whatever becomes of what is under way and whichever windows that are
    /// not open are settled before this is committed.
    fn lowers_payer(&self, subject: &Subject, open: WindowId) -> bool {
        let currency = subject.amount.currency();
        let nets = self.book.nets(subject.payer, currency);
        let least: i128 = nets.map(|(window, net)| if window == open { net } else { net.min(0) }).sum();
        subject.amount.minor().units() <= least - self.flight.going_out(subject.payer, currency)
    }

    /// The payee owes at least so much, in the same sense.
    fn lowers_payee(&self, subject: &Subject, open: WindowId) -> bool {
        let currency = subject.amount.currency();
        let nets = self.book.nets(subject.payee, currency);
        let most: i128 = nets.map(|(window, net)| if window == open { net } else { net.max(0) }).sum();
        subject.amount.minor().units() <= -most - self.flight.coming_in(subject.payee, currency)
    }

    fn probes_left(&self, scope: Scope, since: Timestamp, now: Timestamp) -> bool {
        self.probing.get(&scope).is_none_or(|p| {
            p.since != since || p.period.plus_micros(self.recovery.cool_down) <= now || p.passed < self.recovery.probes
        })
    }

    fn count_probes(&mut self, subject: &Subject, now: Timestamp) {
        if self.rules.breakers.is_empty() {
            return;
        }
        for scope in Scope::of(subject.payer, subject.payee, subject.amount.currency()) {
            let Some(breaker) = self.rules.breakers.get(&scope).filter(|b| b.state == BreakerState::HalfOpen) else {
                continue;
            };
            let fresh = Probing { since: breaker.changed_at, period: now, passed: 0 };
            let probing = self.probing.entry(scope).or_insert(fresh);
            if probing.since != fresh.since || probing.period.plus_micros(self.recovery.cool_down) <= now {
                *probing = fresh;
            }
            probing.passed += 1;
        }
    }

    /// The limits on one transaction by itself. Of those for all and for the payer the smaller counts.
    fn single(&self, subject: &Subject) -> Option<Stop> {
        let (currency, units) = (subject.amount.currency(), subject.amount.minor());
        let stop = |kind, most: Minor, corridor| {
            let maximum = Money::new(most, currency);
            (units > most).then_some(Stop::Amount { kind, maximum, headroom: maximum, counterparty: None, corridor })
        };
        let for_all = self.rules.maxima.get(&currency);
        let of_payer = self.rules.maxima_of.get(&(subject.payer, currency));
        if let Some(most) = for_all.into_iter().chain(of_payer).min()
            && let Some(stop) = stop(LimitKind::SingleTransactionMaximum, *most, None)
        {
            return Some(stop);
        }
        if self.rules.corridor_maxima.is_empty() {
            return None;
        }
        let corridor = Corridor::of(subject.payer, subject.payee);
        let most = self.rules.corridor_maxima.get(&(corridor, currency))?;
        stop(LimitKind::CorridorMaximum, *most, Some(corridor))
    }

    /// The limits that need what is counted.
    fn counted(&self, subject: &Subject, known: &Known, now: Timestamp) -> Verdict {
        let currency = subject.amount.currency();
        let mut window = None;
        let bilateral = if subject.gross || self.rules.bilateral.is_empty() {
            None
        } else {
            self.rules.bilateral.get(&(subject.payer, subject.payee, currency))
        };
        if let Some(ceiling) = bilateral {
            if let Err(unknown) = known {
                return Verdict::Undecided(unknown.clone());
            }
            match self.bilateral(subject, ceiling.most) {
                Ok(only_in) => window = only_in,
                Err(stop) => return Verdict::Refused(stop),
            }
        }
        if !self.rules.corridor_gross.is_empty() {
            let corridor = Corridor::of(subject.payer, subject.payee);
            if let Some(most) = self.rules.corridor_gross.get(&(corridor, currency)) {
                if let Err(unknown) = known {
                    return Verdict::Undecided(unknown.clone());
                }
                let used = self.book.corridor_gross(corridor, currency, now) + self.flight.through(corridor, currency);
                let left = (most.units() - used).max(0);
                if subject.amount.minor().units() > left {
                    let (counterparty, corridor) = (None, Some(corridor));
                    let kind = LimitKind::CorridorGross;
                    return Verdict::Refused(amount_stop(kind, *most, left, currency, counterparty, corridor));
                }
            }
        }
        let of_payer = self.rules.rates_of.get(&subject.payer);
        for rate in self.rules.rate.iter().chain(of_payer) {
            if let Err(unknown) = known {
                return Verdict::Undecided(unknown.clone());
            }
            let accepted = self.book.accepted(subject.payer, rate.window_seconds, now);
            if accepted.saturating_add(self.flight.count_of(subject.payer)) >= rate.transactions {
                return Verdict::Refused(Stop::Rate { rate: *rate });
            }
        }
        Verdict::Pass { window }
    }

    /// Whether the payer's net debit towards the payee stays within a limit: in every window, or in the one
    /// that is open only, because it uses what the payer is owed there.
    fn bilateral(&self, subject: &Subject, most: Minor) -> Result<Option<WindowId>, Stop> {
        let (payer, payee, currency) = (subject.payer, subject.payee, subject.amount.currency());
        let (units, most) = (subject.amount.minor().units(), most.units());
        let open = self.book.open(currency).filter(|_| !subject.two_phase);
        let anywhere = self.flight.of_pair(payer, payee, currency);
        let mut elsewhere = anywhere;
        let mut in_open = 0;
        for (id, window) in self.book.of_currency(currency) {
            let worst = window.net_debit(payer, payee) + self.flight.in_window(payer, payee, id);
            if Some(id) == open { in_open = worst } else { elsewhere += worst.max(0) }
        }
        let used = elsewhere + in_open.max(0);
        if used + units <= most {
            return Ok(None);
        }
        // Of a limit that was lowered below what is used, what makes no debit in its window is not touched,
        // even if all that is under way lands there too.
        let within = if elsewhere <= most { most - elsewhere - in_open } else { 0 };
        let no_debit = -(in_open + anywhere);
        let left = if open.is_some() { within.max(no_debit) } else { most - used };
        if open.is_some() && units <= left {
            return Ok(open);
        }
        let maximum = Minor::new(most).unwrap_or_default();
        Err(amount_stop(LimitKind::Bilateral, maximum, left.max(0), currency, Some(payee), None))
    }
}

fn amount_stop(
    kind: LimitKind,
    most: Minor,
    left: i128,
    currency: Currency,
    counterparty: Option<ParticipantId>,
    corridor: Option<Corridor>,
) -> Stop {
    let headroom = Money::new(Minor::new(left).unwrap_or(most), currency);
    Stop::Amount { kind, maximum: Money::new(most, currency), headroom, counterparty, corridor }
}

#[cfg(test)]
#[path = "assess_tests.rs"]
mod tests;
