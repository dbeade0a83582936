//! What is counted of committed transactions, in memory: positions of windows that are not settled, and
//! what flowed of late.

use std::collections::{BTreeMap, HashMap};

use deltran_kernel::{Currency, ParticipantId, Timestamp, WindowId};

use super::BUCKET_SECONDS;
use super::count::{Fact, Payment, hour_of};
use super::scope::Corridor;
use super::trigger::bucket_of;

/// Hours that a corridor's gross counts over. What was committed counts until the end of its hour.
const DAY_HOURS: i64 = 24;
/// The longest time that a rate limit counts over.
const RATE_SECONDS: i64 = 3_600;

/// What a participant sent and received in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Member {
    /// Sum of what it sent, in minor units.
    pub sent: i128,
    /// Sum of what it received.
    pub received: i128,
    /// Number of transactions that it sent.
    pub sent_count: u64,
    /// Number of transactions that it received.
    pub received_count: u64,
}

impl Member {
    /// Adds a transaction that it sent.
    pub fn sent(&mut self, units: i128) {
        self.sent += units;
        self.sent_count += 1;
    }

    /// Adds a transaction that it received.
    pub fn received(&mut self, units: i128) {
        self.received += units;
        self.received_count += 1;
    }
}

/// A window that is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Its currency.
    pub currency: Currency,
    /// Whether the ledger sealed it.
    pub sealed: bool,
    /// By participant.
    pub members: HashMap<ParticipantId, Member>,
    /// Gross by payer and payee, in minor units.
    pub pairs: HashMap<(ParticipantId, ParticipantId), i128>,
}

impl Window {
    /// An empty window.
    pub fn new(currency: Currency) -> Self {
        Self { currency, sealed: false, members: HashMap::new(), pairs: HashMap::new() }
    }

    /// What the first owes the second in it; negative where it is owed.
    pub fn net_debit(&self, payer: ParticipantId, payee: ParticipantId) -> i128 {
        let gross = |from, to| self.pairs.get(&(from, to)).copied().unwrap_or(0);
        gross(payer, payee) - gross(payee, payer)
    }
}

/// What is counted, at a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    /// Rises with every batch that was counted.
    pub version: u64,
    /// Windows that are not settled.
    pub windows: BTreeMap<WindowId, Window>,
    /// Gross by corridor and currency, then by hour since 1970.
    pub corridors: BTreeMap<(Corridor, Currency), BTreeMap<i64, i128>>,
    /// Accepted transactions by payer, then by the second in which their bucket begins.
    pub accepted: BTreeMap<ParticipantId, BTreeMap<i64, u64>>,
}

impl Book {
    /// Counts a fact.
    pub fn count(&mut self, fact: &Fact) {
        match fact {
            Fact::Committed { payment, window, at, first, .. } => {
                if let Some(window) = window {
                    self.obligation(*window, payment);
                }
                let corridor = self.corridors.entry((payment.corridor(), payment.currency())).or_default();
                *corridor.entry(hour_of(*at)).or_default() += payment.units();
                if *first {
                    self.accept(payment.payer, *at);
                }
            }
            Fact::Reserved { payment, at, .. } => self.accept(payment.payer, *at),
            Fact::Sealed { window, currency, next } => {
                self.window(*window, *currency).sealed = true;
                if let Some(next) = next {
                    self.window(*next, *currency);
                }
            }
            Fact::Settled { windows, .. } => {
                for window in windows {
                    self.windows.remove(window);
                }
            }
            Fact::Held { .. } | Fact::Refused { .. } | Fact::Ended { .. } => {}
        }
    }

    fn window(&mut self, window: WindowId, currency: Currency) -> &mut Window {
        self.windows.entry(window).or_insert_with(|| Window::new(currency))
    }

    fn obligation(&mut self, window: WindowId, payment: &Payment) {
        let units = payment.units();
        let window = self.window(window, payment.currency());
        window.members.entry(payment.payer).or_default().sent(units);
        window.members.entry(payment.payee).or_default().received(units);
        *window.pairs.entry((payment.payer, payment.payee)).or_default() += units;
    }

    fn accept(&mut self, payer: ParticipantId, at: Timestamp) {
        *self.accepted.entry(payer).or_default().entry(bucket_of(at)).or_default() += 1;
    }

    /// The window of a currency that is open, as far as is known.
    pub fn open(&self, currency: Currency) -> Option<WindowId> {
        self.windows.iter().find(|(_, w)| w.currency == currency && !w.sealed).map(|(id, _)| *id)
    }

    /// The windows of a currency.
    pub fn of_currency(&self, currency: Currency) -> impl Iterator<Item = (WindowId, &Window)> {
        self.windows.iter().filter(move |(_, w)| w.currency == currency).map(|(id, w)| (*id, w))
    }

    /// Received less sent of a participant in each window of a currency.
    pub fn nets(&self, participant: ParticipantId, currency: Currency) -> impl Iterator<Item = (WindowId, i128)> {
        let member = move |(id, w): (WindowId, &Window)| Some((id, *w.members.get(&participant)?));
        self.of_currency(currency).filter_map(member).map(|(id, member)| (id, member.received - member.sent))
    }

    /// What a participant owes net, window by window: a credit in one hides no debt in another.
    pub fn net_debit(&self, participant: ParticipantId, currency: Currency) -> i128 {
        self.nets(participant, currency).map(|(_, net)| (-net).max(0)).sum()
    }

    /// What the first owes the second net, window by window.
    pub fn bilateral_debit(&self, payer: ParticipantId, payee: ParticipantId, currency: Currency) -> i128 {
        self.of_currency(currency).map(|(_, w)| w.net_debit(payer, payee).max(0)).sum()
    }

    /// What went through a corridor within the last 24 hours, up to the hour.
    pub fn corridor_gross(&self, corridor: Corridor, currency: Currency, now: Timestamp) -> i128 {
        let from = hour_of(now) - DAY_HOURS;
        self.corridors.get(&(corridor, currency)).map_or(0, |hours| hours.range(from..).map(|(_, units)| units).sum())
    }

    /// Transactions of a payer that were accepted within the last so many seconds, up to the bucket.
    pub fn accepted(&self, payer: ParticipantId, window_seconds: u32, now: Timestamp) -> u64 {
        let from = bucket_of(now.plus_seconds(-i64::from(window_seconds)));
        self.accepted.get(&payer).map_or(0, |buckets| buckets.range(from..).map(|(_, n)| n).sum())
    }

    /// Forgets what counts nowhere any more.
    pub fn forget(&mut self, now: Timestamp) {
        let (hour, bucket) = (oldest_hour(now), oldest_bucket(now));
        self.corridors.retain(|_, hours| {
            *hours = hours.split_off(&hour);
            !hours.is_empty()
        });
        self.accepted.retain(|_, buckets| {
            *buckets = buckets.split_off(&bucket);
            !buckets.is_empty()
        });
    }
}

/// The oldest hour that counts.
pub fn oldest_hour(now: Timestamp) -> i64 {
    hour_of(now) - DAY_HOURS
}

/// The oldest bucket of accepted transactions that counts.
pub fn oldest_bucket(now: Timestamp) -> i64 {
    bucket_of(now) - RATE_SECONDS - BUCKET_SECONDS
}
