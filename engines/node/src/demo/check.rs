//! What the day must have led to, reckoned from the files alone, and the comparison.

use std::collections::{BTreeMap, BTreeSet};

use deltran_kernel::{Minor, Money, ParticipantId};

use super::day::{Day, Payment};

/// Checks with what they found.
#[derive(Debug, Default)]
pub struct Checks {
    rows: Vec<(String, bool, String)>,
}

impl Checks {
    /// Notes whether something holds.
    pub fn check(&mut self, what: &str, holds: bool, found: impl Into<String>) {
        self.rows.push((what.to_owned(), holds, found.into()));
    }

    /// Notes whether two figures are the same.
    pub fn same<T: PartialEq + std::fmt::Display>(&mut self, what: &str, found: T, expected: T) {
        let text = if found == expected { found.to_string() } else { format!("{found}, expected {expected}") };
        self.check(what, found == expected, text);
    }

    /// Rows for a table.
    pub fn rows(&self) -> impl Iterator<Item = [String; 3]> {
        self.rows.iter().map(|(what, holds, found)| {
            [what.clone(), if *holds { "holds" } else { "FAILS" }.to_owned(), found.clone()]
        })
    }

    /// How many do not hold.
    pub fn failed(&self) -> usize {
        self.rows.iter().filter(|(_, holds, _)| !holds).count()
    }
}

/// What a currency must have arrived at.
#[derive(Debug, Default, Clone)]
pub struct Expected {
    /// Payments in the window.
    pub count: u64,
    /// Their sum.
    pub gross: Minor,
    /// Net position of each bank that is not zero.
    pub net: BTreeMap<ParticipantId, Minor>,
}

/// Counts, gross and net per currency: every valid line once, less those that were refused, repeated, or a true hit; and
/// the payments that were made beside the file.
///
/// # Errors
/// Where a sum leaves its range.
pub fn expected(
    day: &Day,
    refused: &BTreeSet<u64>,
    beside: &[Payment],
) -> Result<BTreeMap<String, Expected>, deltran_kernel::MoneyError> {
    let mut all: BTreeMap<String, Expected> = BTreeMap::new();
    let counts = |line: u64| !refused.contains(&line) && !day.duplicates.contains(&line);
    for payment in day.payments.iter().filter(|p| counts(p.line) && !p.listed).chain(beside) {
        let amount = payment.amount.minor();
        let entry = all.entry(payment.amount.currency().to_string()).or_default();
        entry.count += 1;
        entry.gross = entry.gross.add(amount)?;
        let payer = entry.net.entry(payment.payer).or_default();
        *payer = payer.sub(amount)?;
        let payee = entry.net.entry(payment.payee).or_default();
        *payee = payee.add(amount)?;
    }
    for entry in all.values_mut() {
        entry.net.retain(|_, net| !net.is_zero());
    }
    Ok(all)
}

/// An amount of the contract as minor units; `None` where it cannot be read.
pub fn minor(value: &Option<deltran_api::common::v1::Money>) -> Option<Minor> {
    let value = value.as_ref()?;
    Some(Money::parse(&value.amount, value.currency.parse().ok()?).ok()?.minor())
}
