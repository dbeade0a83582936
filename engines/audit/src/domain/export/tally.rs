//! Counts and control totals, added up from the lines alone.

use std::collections::BTreeMap;

use deltran_kernel::Minor;
use deltran_messaging::ranges::Ranges;
use serde::{Deserialize, Serialize};

use super::line::{Line, Meaning};
use super::windows::{WindowTotals, Windows};

/// A number of events and the sum of their amounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Minor units of the currency.
    pub minor: Minor,
}

/// Sums by name, by currency.
pub type Totals = BTreeMap<String, BTreeMap<String, Sum>>;

/// What the events of a range say in sum.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Lines.
    pub events: u64,
    /// Those of them that are no valid events; they count nowhere else.
    pub invalid: u64,
    /// Valid events by type.
    pub types: BTreeMap<String, u64>,
    /// By currency: `committed`, `rejected`, `cancelled`, `expired`, `minted`, `burnt`.
    pub totals: Totals,
    /// Windows against their seals; absent where a filter leaves transactions out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowTotals>,
    /// Numbers by producer, as ranges with both ends.
    pub producers: BTreeMap<String, Vec<(u64, u64)>>,
}

/// Adds up. Memory does not grow with the range, but with the windows that are open and the gaps in numbers.
#[derive(Debug, Default)]
pub struct Tally {
    events: u64,
    invalid: u64,
    types: BTreeMap<String, u64>,
    totals: Totals,
    windows: Windows,
    producers: BTreeMap<String, Ranges>,
}

/// What one line adds; computed apart, so that lines can be read on several processors.
#[derive(Debug)]
pub struct Part<'a> {
    kind: Option<Line<'a>>,
    meaning: Meaning<'a>,
    number: Option<(&'a str, u64)>,
}

impl<'a> Part<'a> {
    /// Reads a valid event.
    ///
    /// # Errors
    /// Where it is none that totals can be made of.
    pub fn valid(line: &'a [u8]) -> Result<Self, String> {
        let line = Line::read(line)?;
        let meaning = line.meaning()?;
        Ok(Self { kind: Some(line), meaning, number: None })
    }

    /// Of an event that is not valid only its number counts, where it stands for one.
    pub fn invalid(number: Option<(&'a str, u64)>) -> Self {
        Self { kind: None, meaning: Meaning::None, number }
    }
}

impl Tally {
    /// Adds a line.
    ///
    /// # Errors
    /// Where a sum is out of range.
    pub fn add(&mut self, part: &Part<'_>) -> Result<(), String> {
        self.events += 1;
        match &part.kind {
            None => self.invalid += 1,
            Some(line) => match self.types.get_mut(&*line.event_type) {
                Some(count) => *count += 1,
                None => {
                    self.types.insert(line.event_type.to_string(), 1);
                }
            },
        }
        let own = part.kind.as_ref().and_then(|l| l.metadata.producer.as_deref().zip(l.metadata.producer_seq));
        if let Some((producer, number)) = own.or(part.number) {
            match self.producers.get_mut(producer) {
                Some(ranges) => ranges.insert(number),
                None => self.producers.entry(producer.to_owned()).or_default().insert(number),
            };
        }
        match &part.meaning {
            Meaning::None => {}
            Meaning::Sealed(sealed) => self.windows.seal(sealed),
            Meaning::Moved(moved) => {
                let currency = self.totals.entry(moved.currency.code().to_owned()).or_default();
                let sum = currency.entry(moved.total.to_owned()).or_default();
                sum.count += 1;
                sum.minor = sum.minor.add(moved.amount).map_err(|e| format!("{}: {e}", moved.total))?;
                if let Some((window, seq)) = &moved.window {
                    self.windows.add(window, *seq, moved.amount).map_err(|e| format!("window {window}: {e}"))?;
                }
            }
        }
        Ok(())
    }

    /// Numbers by producer.
    pub fn producers(&self) -> &BTreeMap<String, Ranges> {
        &self.producers
    }

    /// What a range that begins with leaf `from` says in sum; `whole` where no filter leaves anything out.
    pub fn summary(&self, from: u64, whole: bool) -> Summary {
        Summary {
            events: self.events,
            invalid: self.invalid,
            types: self.types.clone(),
            totals: self.totals.clone(),
            windows: whole.then(|| self.windows.totals(from)),
            producers: self.producers.iter().map(|(name, ranges)| (name.clone(), ranges.iter().collect())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(kind: &str, state: &str, amount: &str, window: &str, seq: u64) -> String {
        format!(
            r#"{{"event_id":"x","event_type":"{kind}","source":"token-engine","data":{{"amount":"{amount}","currency":"EUR","state":"{state}","window_id":"{window}","window_seq":{seq}}},"metadata":{{"producer":"token-engine/1","producer_seq":{seq}}}}}"#
        )
    }

    fn seal(window: &str, count: u64, gross: &str) -> String {
        format!(
            r#"{{"event_type":"window.sealed","source":"token-engine","data":{{"window_id":"{window}","currency":"EUR","count":{count},"gross":"{gross}","digest":""}}}}"#
        )
    }

    fn summary(lines: &[String], from: u64) -> Summary {
        let mut tally = Tally::default();
        for line in lines {
            tally.add(&Part::valid(line.as_bytes()).unwrap()).unwrap();
        }
        tally.summary(from, true)
    }

    #[test]
    fn totals_are_what_was_decided() {
        let lines = [
            transaction("transaction.created", "COMMITTED", "10.00", "w", 1),
            transaction("transaction.created", "RESERVED", "99.00", "w", 2),
            transaction("transaction.committed", "COMMITTED", "0.05", "w", 2),
            transaction("transaction.rejected", "REJECTED", "7.00", "w", 3),
            transaction("deposit.confirmed", "", "1.00", "w", 4),
            transaction("transaction.created", "COMMITTED", "5.00", "w", 5).replace("token-engine\"", "other-engine\""),
        ];
        let summary = summary(&lines, 0);
        let eur = &summary.totals["EUR"];
        let sum = |count, minor| Sum { count, minor: Minor::new(minor).unwrap() };
        assert_eq!((eur["committed"], eur["rejected"], eur["minted"]), (sum(2, 1005), sum(1, 700), sum(1, 100)));
        assert_eq!(summary.types["transaction.created"], 3);
        assert_eq!(summary.producers["token-engine/1"], [(1, 5)]);
        let json = serde_json::to_string(&summary).unwrap();
        assert!(json.contains(r#""committed":{"count":2,"minor":"1005"}"#), "{json}");
        assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), summary);
    }

    #[test]
    fn windows_tie_to_their_seals() {
        let paid = |window: &str, seq| transaction("transaction.created", "COMMITTED", "1.00", window, seq);
        // The seal may come before the last transaction.
        let tied = [paid("a", 1), seal("a", 2, "2.00"), paid("a", 2), paid("b", 1)];
        let windows = summary(&tied, 0).windows.unwrap();
        assert_eq!((windows.tied, windows.open, windows.differences.len()), (1, 1, 0));
        let begun = [paid("a", 2), seal("a", 2, "2.00"), seal("c", 4, "9.00")];
        let windows = summary(&begun, 5).windows.unwrap();
        assert_eq!((windows.begun_before, windows.differences.len()), (2, 0));
        for wrong in [
            vec![paid("a", 1), seal("a", 2, "2.00")],
            vec![paid("a", 1), paid("a", 2), seal("a", 2, "2.01")],
            vec![paid("a", 2), paid("a", 3), paid("a", 4), seal("a", 2, "2.00")],
        ] {
            let windows = summary(&wrong, 5).windows.unwrap();
            assert_eq!((windows.tied, windows.differences.len()), (0, 1), "{wrong:?}");
        }
        assert_eq!(summary(&begun, 0).windows.unwrap().differences.len(), 2, "nothing comes before leaf 0");
    }

    #[test]
    fn a_token_event_that_says_no_amount_is_an_error() {
        let odd = transaction("transaction.rejected", "", "1.5", "w", 1);
        assert!(Part::valid(odd.as_bytes()).is_err());
        assert!(Part::valid(b"{").is_err());
    }
}
