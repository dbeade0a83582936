//! A day of payments from a seed: the same seed gives the same day.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use deltran_kernel::{Currency, Minor, Money, ParticipantId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Banks that take part.
pub const BANKS: usize = 24;
/// Currencies with two, no and three minor digits.
pub const CURRENCIES: [&str; 3] = ["USD", "JPY", "BHD"];
/// The name on the list that ships with the product.
const LISTED: &str = "Vostok Shadow Trading LLC";
/// The bank with a cap that its payments exceed.
pub const TIGHT: usize = 3;
/// The bank that relies on collateral and is short when its window settles.
pub const SHORT: usize = 7;
/// What the short bank pays beyond the others, in whole units.
const SHORT_PAYS: i128 = 40_000;
/// What the bank with the tight cap tries to pay at once, in whole units: more than all that it may receive.
const TIGHT_TRIES: i128 = 9_000_000;

/// A payment of the day, as its line says.
#[derive(Debug, Clone)]
pub struct Payment {
    /// Its line in the file, from 1; the header is line 1.
    pub line: u64,
    /// Who pays.
    pub payer: ParticipantId,
    /// Who is paid.
    pub payee: ParticipantId,
    /// How much.
    pub amount: Money,
    /// Whether a party stands on the list.
    pub listed: bool,
}

/// The day: files, and what was written into them.
pub struct Day {
    /// The banks, in order.
    pub banks: Vec<ParticipantId>,
    /// Valid lines, duplicates and conflicts included.
    pub payments: Vec<Payment>,
    /// Lines that repeat an earlier one to the letter.
    pub duplicates: BTreeSet<u64>,
    /// Lines that use an earlier id for something else.
    pub conflicts: BTreeSet<u64>,
    /// Lines that cannot be used.
    pub bad: u64,
    participants: String,
    transactions: Vec<u8>,
}

impl Day {
    /// A day with so many payments.
    ///
    /// # Errors
    /// Where a constant of this file is not valid: a defect.
    pub fn generate(seed: u64, payments: u32) -> Result<Self, String> {
        let mut rng = StdRng::seed_from_u64(seed);
        let countries = ["AE", "DE", "GB", "US", "IN", "JP", "BH", "FR"];
        let banks = (0..BANKS)
            .map(|n| {
                let letter = char::from(b'A' + n as u8);
                let code = format!("{letter}{letter}BK{}2X", countries[n % countries.len()]);
                code.parse::<ParticipantId>().map_err(|e| e.to_string())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let currencies = CURRENCIES
            .iter()
            .map(|code| Currency::new(code).map_err(|e| e.to_string()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut day = Self {
            participants: participants(&banks, &currencies)?,
            banks,
            payments: Vec::new(),
            duplicates: BTreeSet::new(),
            conflicts: BTreeSet::new(),
            bad: 0,
            transactions: b"end_to_end_id,payer,payee,payer_account,payee_account,amount,currency,beneficiary_name\n"
                .to_vec(),
        };
        let mut line = 1;
        for number in 0..payments {
            line += 1;
            let payer = rng.random_range(0..BANKS);
            let payee = (payer + rng.random_range(1..BANKS)) % BANKS;
            let currency = currencies[rng.random_range(0..currencies.len())];
            let unit = 10i128.pow(currency.minor_digits());
            let amount = money(rng.random_range(1..500 * unit), currency)?;
            day.pay(line, number, [payer, payee], amount, number == 1000);
        }
        for number in payments..payments + 40 {
            line += 1;
            let amount = money(SHORT_PAYS / 40 * 100, currencies[0])?;
            day.pay(line, number, [SHORT, (SHORT + 1 + number as usize % (BANKS - 1)) % BANKS], amount, false);
        }
        line += 1;
        let amount = money(TIGHT_TRIES * 100, currencies[0])?;
        day.pay(line, payments + 40, [TIGHT, TIGHT + 1], amount, false);
        day.spoil(line);
        Ok(day)
    }

    fn pay(&mut self, line: u64, number: u32, [payer, payee]: [usize; 2], amount: Money, listed: bool) {
        let (payer, payee) = (self.banks[payer], self.banks[payee]);
        let name = if listed { LISTED } else { "" };
        let text = format!(
            "DEMO-{number:08},{payer},{payee},{:08},{:08},{},{},{name}\n",
            number % 9973,
            number % 9967,
            amount.amount(),
            amount.currency()
        );
        self.transactions.extend_from_slice(text.as_bytes());
        self.payments.push(Payment { line, payer, payee, amount, listed });
    }

    /// A duplicate, a conflicting id, and lines that no file should have.
    fn spoil(&mut self, mut line: u64) {
        let (first, second) = (self.payments[0].clone(), self.payments[1].clone());
        line += 1;
        self.pay_again(line, 0, &first, first.amount);
        self.duplicates.insert(line);
        line += 1;
        let other = Money::new(
            second.amount.minor().add(second.amount.minor()).unwrap_or(second.amount.minor()),
            second.amount.currency(),
        );
        self.pay_again(line, 1, &second, other);
        self.conflicts.insert(line);
        let bad: [&[u8]; 6] = [
            b"1,2,3\n",
            b"DEMO-BAD-2,AABKAE2X,BBBKDE2X,1,2,10.5,JPY,\n",
            b"DEMO-BAD-3,AABKAE2X,BBBKDE2X,1,2,-5.00,USD,\n",
            b"DEMO-BAD-4,AABKAE2X,BBBKDE2X,1,2,5.00,XXX,\n",
            b"DEMO-BAD-5,AABKAE2X,nobody,1,2,5.00,USD,\n",
            b"DEMO-BAD-6,AABKAE2X,BBBKDE2X,1,2,5.00,USD,Caf\xe9 Latin One\n",
        ];
        for text in bad {
            self.transactions.extend_from_slice(text);
            self.bad += 1;
        }
    }

    fn pay_again(&mut self, line: u64, number: u32, like: &Payment, amount: Money) {
        let place = |bank: ParticipantId| self.banks.iter().position(|b| *b == bank).unwrap_or_default();
        let (payer, payee) = (place(like.payer), place(like.payee));
        self.pay(line, number, [payer, payee], amount, false);
    }

    /// Writes `participants.csv` and `day.csv` into a folder.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::write(folder.join("participants.csv"), &self.participants)?;
        std::fs::write(folder.join("day.csv"), &self.transactions)
    }
}

fn money(units: i128, currency: Currency) -> Result<Money, String> {
    Minor::new(units).map(|minor| Money::new(minor, currency)).map_err(|e| e.to_string())
}

fn participants(banks: &[ParticipantId], currencies: &[Currency]) -> Result<String, String> {
    let mut text = String::from("participant,name,currency,opening_deposit,net_debit_cap\n");
    for (n, bank) in banks.iter().enumerate() {
        for (c, currency) in currencies.iter().enumerate() {
            let unit = 10i128.pow(currency.minor_digits());
            let (deposit, cap) = match n {
                TIGHT => (1_000_000, 2_000),
                SHORT if c == 0 => (1_000, 500_000),
                _ => (1_000_000, 500_000),
            };
            let (deposit, cap) = (money(deposit * unit, *currency)?, money(cap * unit, *currency)?);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{bank},Demo Bank {},{currency},{},{}", n + 1, deposit.amount(), cap.amount());
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_day() {
        let (one, two) = (Day::generate(1, 2000).unwrap(), Day::generate(1, 2000).unwrap());
        assert_eq!(one.transactions, two.transactions);
        assert_ne!(one.transactions, Day::generate(2, 2000).unwrap().transactions);
        assert_eq!(one.payments.len(), 2043);
        assert_eq!(one.payments.iter().filter(|p| p.listed).count(), 1);
        let lines = one.transactions.split(|b| *b == b'\n').count() as u64 - 1;
        assert_eq!(lines, 1 + one.payments.len() as u64 + one.bad);
    }
}
