//! The books of the token ledger as its events tell them, added up to one of its events, against what it says itself.

use std::collections::BTreeMap;

use deltran_events::data::transactions::LedgerRestored;
use deltran_kernel::{Currency, Minor, Money, MoneyError};
use deltran_messaging::ranges::Ranges;

use super::export::line::{Line, Meaning};
use super::export::tally::{Sum, Totals};
use super::report::Check;

/// The producers of the token ledger's events begin so; what follows is the epoch.
const PRODUCERS: &str = "token-engine/";

/// An event of the token ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// `token-engine/<epoch>`.
    pub producer: String,
    /// The number within it.
    pub number: u64,
}

impl At {
    /// Whether an event came before or is this one; those of earlier producers did up to where they `ended`.
    fn counts(&self, ended: &BTreeMap<String, u64>, producer: &str, number: u64) -> bool {
        if producer == self.producer {
            return number <= self.number;
        }
        let earlier = epoch(producer).zip(epoch(&self.producer)).is_some_and(|(n, own)| n < own);
        earlier && ended.get(producer).is_none_or(|last| number <= *last)
    }
}

/// What a ledger took in, let out and committed in a currency since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Transactions that were committed.
    pub committed: Sum,
    /// Deposits.
    pub minted: Minor,
    /// Withdrawals.
    pub burnt: Minor,
}

/// Totals by currency.
pub type Books = BTreeMap<Currency, Total>;

/// What the token ledger says, and after which of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The last event that counts.
    pub at: At,
    /// Its books.
    pub books: Books,
}

impl Said {
    /// How many events up to that one, or up to where earlier producers ended, were not received yet.
    pub fn under_way(&self, received: &BTreeMap<String, Ranges>, ended: &BTreeMap<String, u64>) -> u64 {
        let missing = |producer: &str, last: u64| match (received.get(producer), last) {
            (_, 0) => 0,
            (None, last) => last,
            (Some(numbers), last) => last.saturating_sub(numbers.within(1, last).count()),
        };
        let earlier = ended.iter().filter(|(producer, _)| **producer != self.at.producer);
        let earlier: u64 = earlier.map(|(producer, last)| missing(producer, *last)).sum();
        missing(&self.at.producer, self.at.number).saturating_add(earlier)
    }
}

/// The epoch of a producer of the token ledger.
fn epoch(producer: &str) -> Option<u64> {
    producer.strip_prefix(PRODUCERS)?.parse().ok()
}

/// Whether any producer of the token ledger came before this one: only then a restored ledger can have ended one.
pub fn has_earlier<'a>(at: &At, mut producers: impl Iterator<Item = &'a String>) -> bool {
    producers.any(|producer| epoch(producer).is_some_and(|n| epoch(&at.producer).is_some_and(|own| n < own)))
}

/// Where the numbers of producers ended, by the event of a restored ledger, if it counts at `at`.
pub fn ended_by(at: &At, producer: &str, number: u64, restored: &LedgerRestored) -> Vec<(String, u64)> {
    if !at.counts(&BTreeMap::new(), producer, number) {
        return Vec::new();
    }
    let ended = restored.producers.iter().filter(|e| epoch(&e.producer).is_some());
    ended.map(|e| (e.producer.clone(), e.last)).collect()
}

/// Adds up what leaves say, up to an event.
#[derive(Debug)]
pub struct Adder {
    at: At,
    /// Numbers of earlier producers that a restored ledger knows of.
    ended: BTreeMap<String, u64>,
    books: Books,
    problem: Option<String>,
}

impl Adder {
    /// Begins with what the leaves before came to.
    pub fn new(at: At, before: Books, ended: BTreeMap<String, u64>) -> Self {
        Self { at, ended, books: before, problem: None }
    }

    /// Takes a valid event of the token ledger.
    pub fn event(&mut self, leaf: i64, event_type: &str, (producer, number): (&str, u64), envelope: &[u8]) {
        let moves = ["transaction.created", "transaction.committed", "deposit.confirmed", "withdrawal.confirmed"];
        if !moves.contains(&event_type) || !self.at.counts(&self.ended, producer, number) {
            return;
        }
        let added = Line::read(envelope).and_then(|line| match line.meaning()? {
            Meaning::Moved(moved) => {
                let one = Sum { count: 1, minor: moved.amount };
                add(&mut self.books, moved.currency, moved.total, one).map_err(|e| e.to_string())
            }
            _ => Ok(()),
        });
        if let Err(why) = added {
            self.problem.get_or_insert_with(|| format!("leaf {leaf}: {why}"));
        }
    }

    /// Compares with what the ledger says: a row per currency, and the verdict.
    pub fn against(&self, said: &Said) -> (Vec<Tie>, Check) {
        let mut ties: BTreeMap<Currency, Tie> = BTreeMap::new();
        let none = |currency: Currency| Tie { currency, recorded: Total::default(), ledger: Total::default() };
        for (currency, total) in &self.books {
            ties.entry(*currency).or_insert_with(|| none(*currency)).recorded = *total;
        }
        for (currency, total) in &said.books {
            ties.entry(*currency).or_insert_with(|| none(*currency)).ledger = *total;
        }
        let ties: Vec<Tie> = ties.into_values().collect();
        let mut wrong: Vec<String> = self.problem.iter().cloned().collect();
        wrong.extend(ties.iter().filter_map(Tie::difference));
        let At { producer, number } = &said.at;
        let ok = wrong.is_empty();
        let detail = if ok {
            format!("{} currencies tie to the token ledger at event {producer} {number}", ties.len())
        } else {
            format!("at event {producer} {number}: {}", wrong.join("; "))
        };
        (ties, check(ok, detail))
    }
}

/// The check over all currencies.
pub fn check(ok: bool, detail: String) -> Check {
    Check { name: "ledger totals".into(), ok, detail }
}

fn add(books: &mut Books, currency: Currency, name: &str, sum: Sum) -> Result<(), MoneyError> {
    let total = match name {
        "committed" | "minted" | "burnt" => books.entry(currency).or_default(),
        _ => return Ok(()),
    };
    match name {
        "committed" => {
            total.committed.count += sum.count;
            total.committed.minor = total.committed.minor.add(sum.minor)?;
        }
        "minted" => total.minted = total.minted.add(sum.minor)?,
        _ => total.burnt = total.burnt.add(sum.minor)?,
    }
    Ok(())
}

/// Adds the control totals of a manifest.
///
/// # Errors
/// Where they name no currency, or a sum is out of range.
pub fn add_totals(books: &mut Books, totals: &Totals) -> Result<(), String> {
    for (code, sums) in totals {
        let currency = Currency::new(code).map_err(|e| e.to_string())?;
        for (name, sum) in sums {
            add(books, currency, name, *sum).map_err(|e| format!("{name} in {code}: {e}"))?;
        }
    }
    Ok(())
}

/// A currency by both accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tie {
    /// The currency.
    pub currency: Currency,
    /// By the leaves.
    pub recorded: Total,
    /// By the token ledger.
    pub ledger: Total,
}

impl Tie {
    /// What differs, in words. `None` where nothing does.
    pub fn difference(&self) -> Option<String> {
        let money = |minor| Money::new(minor, self.currency).to_string();
        let mut differ = Vec::new();
        let (recorded, ledger) = (&self.recorded, &self.ledger);
        if recorded.committed != ledger.committed {
            let words = |sum: Sum| format!("{} of {}", sum.count, money(sum.minor));
            differ.push(("committed", words(recorded.committed), words(ledger.committed)));
        }
        for (name, recorded, ledger) in
            [("minted", recorded.minted, ledger.minted), ("burnt", recorded.burnt, ledger.burnt)]
        {
            if recorded != ledger {
                differ.push((name, money(recorded), money(ledger)));
            }
        }
        let words = |(name, leaves, ledger): (&str, String, String)| {
            format!("{name} {leaves} by the leaves, {ledger} by the ledger")
        };
        let differ: Vec<String> = differ.into_iter().map(words).collect();
        (!differ.is_empty()).then(|| format!("{}: {}", self.currency.code(), differ.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use deltran_events::data::transactions::EndedProducer;

    use super::*;

    fn usd() -> Currency {
        Currency::new("USD").unwrap()
    }

    fn minor(units: i128) -> Minor {
        Minor::new(units).unwrap()
    }

    fn at(epoch: u64, number: u64) -> At {
        At { producer: format!("token-engine/{epoch}"), number }
    }

    fn event(kind: &str, state: &str, amount: &str) -> String {
        format!(
            r#"{{"event_type":"{kind}","source":"token-engine","data":{{"amount":"{amount}","currency":"USD","state":"{state}"}}}}"#
        )
    }

    fn take(adder: &mut Adder, kind: &str, state: &str, amount: &str, epoch: u64, number: u64) {
        let producer = format!("token-engine/{epoch}");
        adder.event(7, kind, (producer.as_str(), number), event(kind, state, amount).as_bytes());
    }

    fn total(count: u64, committed: i128, minted: i128, burnt: i128) -> Total {
        Total { committed: Sum { count, minor: minor(committed) }, minted: minor(minted), burnt: minor(burnt) }
    }

    fn said(at: At, total: Total) -> Said {
        Said { at, books: Books::from([(usd(), total)]) }
    }

    #[test]
    fn what_counts_is_what_the_ledger_had_decided() {
        let mut adder = Adder::new(at(1, 5), Books::from([(usd(), total(1, 100, 1000, 0))]), BTreeMap::new());
        take(&mut adder, "transaction.created", "COMMITTED", "1.00", 1, 1);
        take(&mut adder, "transaction.created", "RESERVED", "9.00", 1, 2);
        take(&mut adder, "transaction.committed", "COMMITTED", "0.25", 1, 3);
        take(&mut adder, "transaction.rejected", "REJECTED", "9.00", 1, 4);
        take(&mut adder, "withdrawal.confirmed", "", "0.05", 1, 5);
        // Later ones count later.
        take(&mut adder, "deposit.confirmed", "", "7.00", 1, 6);
        take(&mut adder, "deposit.confirmed", "", "7.00", 2, 1);
        let (ties, check) = adder.against(&said(at(1, 5), total(3, 225, 1000, 5)));
        assert!(check.ok && ties.len() == 1, "{check:?}");
        assert_eq!(ties[0].recorded, ties[0].ledger);
        for (wrong, named) in [
            (total(4, 225, 1000, 5), "USD: committed 3 of 2.25 USD by the leaves, 4 of 2.25 USD by the ledger"),
            (total(3, 226, 1000, 5), "3 of 2.26 USD by the ledger"),
            (total(3, 225, 999, 5), "minted 10.00 USD by the leaves, 9.99 USD by the ledger"),
            (total(3, 225, 1000, 0), "burnt 0.05 USD by the leaves, 0.00 USD by the ledger"),
        ] {
            let (_, check) = adder.against(&said(at(1, 5), wrong));
            assert!(!check.ok && check.detail.contains(named), "{check:?}");
        }
        // A currency that only one of them has is a difference too.
        let (ties, check) = adder.against(&Said { at: at(1, 5), books: Books::new() });
        assert!(!check.ok && ties.len() == 1, "{check:?}");
        let nothing = Adder::new(at(1, 0), Books::new(), BTreeMap::new());
        assert!(nothing.against(&Said { at: at(1, 0), books: Books::new() }).1.ok);
    }

    #[test]
    fn a_restored_ledger_does_not_know_of_what_came_after_its_moment() {
        let restored = LedgerRestored {
            reason: "a test".to_owned(),
            producers: [("token-engine/1", 2), ("risk-engine/1", 9)]
                .map(|(producer, last)| EndedProducer {
                    producer: producer.to_owned(),
                    last,
                    beyond: 1,
                    next: "token-engine/2".to_owned(),
                })
                .into(),
            waits: false,
        };
        let ended: BTreeMap<String, u64> = ended_by(&at(2, 9), "token-engine/2", 1, &restored).into_iter().collect();
        assert_eq!(ended, BTreeMap::from([("token-engine/1".to_owned(), 2)]));
        assert!(ended_by(&at(1, 3), "token-engine/2", 1, &restored).is_empty(), "it was asked before it was restored");
        let mut adder = Adder::new(at(2, 9), Books::new(), ended);
        for number in 1..=3 {
            take(&mut adder, "deposit.confirmed", "", "1.00", 1, number);
        }
        take(&mut adder, "deposit.confirmed", "", "0.10", 2, 2);
        let (_, check) = adder.against(&said(at(2, 9), total(0, 0, 210, 0)));
        assert!(check.ok, "{check:?}");
        let one = "token-engine/1".to_owned();
        assert!(has_earlier(&at(2, 9), [&one].into_iter()) && !has_earlier(&at(1, 9), [&one].into_iter()));
    }

    #[test]
    fn events_under_way_are_counted() {
        let said = said(at(2, 4), Total::default());
        let received =
            |pairs: &[i64]| BTreeMap::from([("token-engine/2".to_owned(), Ranges::from_pairs(pairs).unwrap())]);
        let ended = BTreeMap::from([("token-engine/1".to_owned(), 0)]);
        assert_eq!(said.under_way(&received(&[1, 9]), &ended), 0);
        assert_eq!(said.under_way(&received(&[1, 2, 4, 9]), &ended), 1);
        assert_eq!(said.under_way(&received(&[]), &ended), 4);
        let ended = BTreeMap::from([("token-engine/1".to_owned(), 3)]);
        assert_eq!(said.under_way(&received(&[1, 4]), &ended), 3);
    }

    #[test]
    fn an_event_without_its_amount_and_totals_of_no_currency_are_named() {
        let mut adder = Adder::new(at(1, 5), Books::new(), BTreeMap::new());
        adder.event(
            7,
            "deposit.confirmed",
            ("token-engine/1", 1),
            br#"{"event_type":"deposit.confirmed","source":"token-engine","data":{}}"#,
        );
        let (_, check) = adder.against(&Said { at: at(1, 5), books: Books::new() });
        assert!(!check.ok && check.detail.contains("leaf 7"), "{check:?}");
        let sum = Sum { count: 2, minor: minor(5) };
        let totals = |code: &str| Totals::from([(code.to_owned(), BTreeMap::from([("committed".to_owned(), sum)]))]);
        let mut books = Books::new();
        add_totals(&mut books, &totals("USD")).unwrap();
        assert_eq!(books, Books::from([(usd(), total(2, 5, 0, 0))]));
        assert!(add_totals(&mut books, &totals("none")).is_err());
    }
}
