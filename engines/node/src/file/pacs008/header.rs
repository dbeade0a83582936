//! The group header, and the control totals that it gives.
//!
//! `NbOfTxs` must be there; `CtrlSum` (over all amounts, whatever their currency) and `TtlIntrBkSttlmAmt` are compared
//! where they are. Amounts count as written, those of transactions that are refused one by one too.

use std::collections::BTreeSet;
use std::fmt;

use deltran_api::token::v1::Priority;
use deltran_kernel::Currency;

use super::elements::{Elements, Finding, Known};
use super::transaction::{instruction_priority, reference};
use super::{BadMessage, HEADER, WITHIN, shortened};

const MESSAGE_ID: &str = "MsgId";
const COUNT: &str = "NbOfTxs";
const SUM: &str = "CtrlSum";
const TOTAL: &str = "TtlIntrBkSttlmAmt";
const TOTAL_CURRENCY: &str = "TtlIntrBkSttlmAmt/@Ccy";
const PRIORITY: &str = "PmtTpInf/InstrPrty";
const METHOD: &str = "SttlmInf/SttlmMtd";

/// What is read of a header.
pub const KNOWN: Known =
    Known { read: &[MESSAGE_ID, COUNT, SUM, TOTAL, TOTAL_CURRENCY, PRIORITY, METHOD], refused: &[] };

/// Digits of the standard's numbers.
const MAX_DIGITS: usize = 18;
const MAX_COUNT_DIGITS: usize = 15;
/// Currencies that are told apart in a message about totals.
const MAX_CURRENCIES: usize = 8;

/// A finding of the header, as what is wrong with the message.
pub fn bad(finding: &Finding, path: &str) -> BadMessage {
    BadMessage { line: finding.line, path: format!("{path}/{}", finding.path), why: finding.why.clone() }
}

/// A decimal number of the standard, exactly: hundred-thousandths, which no amount goes below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exact(i128);

impl Exact {
    const DIGITS: usize = 5;

    /// Reads a number that is not below zero, of at most 18 digits; nothing where it is none, or is finer.
    pub fn read(text: &str) -> Option<Self> {
        let (whole, fraction) = text.trim_ascii().split_once('.').unwrap_or((text.trim_ascii(), ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        let fits = !whole.is_empty() && whole.len() + fraction.len() <= MAX_DIGITS;
        let fine = fraction.trim_end_matches('0');
        if !fits || !digits(whole) || !digits(fraction) || fine.len() > Self::DIGITS {
            return None;
        }
        format!("{whole}{fine:0<width$}", width = Self::DIGITS).parse().ok().map(Self)
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10_i128.pow(Self::DIGITS as u32);
        let fraction = format!("{:0width$}", self.0 % unit, width = Self::DIGITS);
        write!(f, "{}.{:0<2}", self.0 / unit, fraction.trim_end_matches('0'))
    }
}

/// The group header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// The message's id.
    pub message_id: String,
    /// The priority of transactions that give none.
    pub priority: Option<Priority>,
    line: u64,
    count: u64,
    sum: Option<Exact>,
    total: Option<(Exact, Currency)>,
}

impl Header {
    /// Reads it.
    ///
    /// # Errors
    /// The first finding.
    pub fn read(elements: &Elements) -> Result<Self, Finding> {
        elements.sound()?;
        let message_id = elements.required(MESSAGE_ID, reference)?;
        let count = elements.required(COUNT, |text| {
            let number = text.trim_ascii();
            let digits = (1..=MAX_COUNT_DIGITS).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
            let count = digits.then(|| number.parse().ok()).flatten();
            count.ok_or_else(|| format!("{:?} is not a number of at most {MAX_COUNT_DIGITS} digits", shortened(text)))
        })?;
        let sum = elements.optional(SUM, number)?;
        let total = elements.optional(TOTAL, number)?;
        let total = match total {
            None => None,
            Some(total) => Some((total, elements.required(TOTAL_CURRENCY, currency)?)),
        };
        let priority = elements.optional(PRIORITY, instruction_priority)?;
        elements.required(METHOD, |method| match method.trim_ascii() {
            "CLRG" => Ok(()),
            other => Err(format!(
                "{:?} is not done here: send what is to be cleared, CLRG, and settle the rest where its accounts are",
                shortened(other)
            )),
        })?;
        Ok(Self { message_id, priority, line: elements.line(), count, sum, total })
    }

    /// Compares what it says with what was read.
    ///
    /// # Errors
    /// Every total that differs.
    pub fn agrees(&self, read: &Totals) -> Result<(), BadMessage> {
        let mut differ = Vec::new();
        if read.transactions == 0 {
            differ.push("there is no CdtTrfTxInf".to_owned());
        }
        if self.count != read.transactions {
            differ.push(format!("{COUNT} says {} and there are {}", self.count, read.transactions));
        }
        for (name, says) in [(SUM, self.sum), (TOTAL, self.total.map(|(total, _)| total))] {
            if let Some(says) = says.filter(|says| *says != read.sum) {
                differ.push(format!("{name} says {says} and the amounts come to {}", read.sum));
            }
        }
        if let Some((_, currency)) = self.total
            && let Some(other) = read.currencies.iter().find(|other| *other != currency.code())
        {
            differ.push(format!("{TOTAL} is in {currency} and there are amounts in {other:?}"));
        }
        if differ.is_empty() {
            return Ok(());
        }
        if read.unreadable > 0 {
            differ.push(format!("{} amounts could not be read and count as nothing", read.unreadable));
        }
        let why = format!("the control totals do not agree, so nothing was submitted: {}", differ.join("; "));
        Err(BadMessage { line: self.line, path: format!("{WITHIN}/{HEADER}"), why })
    }
}

/// A currency of the standard's list.
pub fn currency(text: &str) -> Result<Currency, String> {
    text.parse().map_err(|e: deltran_kernel::UnknownCurrency| e.to_string())
}

fn number(text: &str) -> Result<Exact, String> {
    Exact::read(text).ok_or_else(|| {
        format!("{:?} is not a plain decimal number of at most {MAX_DIGITS} digits, 5 after the point", shortened(text))
    })
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Transactions.
    pub transactions: u64,
    sum: Exact,
    unreadable: u64,
    currencies: BTreeSet<String>,
}

impl Totals {
    /// Counts the amount of a transaction in.
    ///
    /// # Errors
    /// Where the sum is more than can be counted.
    pub fn add(&mut self, transaction: &Elements) -> Result<(), String> {
        let [amount, currency] = super::transaction::AMOUNT.map(|path| transaction.text(path));
        match Exact::read(amount) {
            None => self.unreadable += 1,
            Some(Exact(units)) => {
                let sum = self.sum.0.checked_add(units);
                self.sum = Exact(sum.ok_or("the amounts come to more than can be counted: split the file")?);
            }
        }
        // Where it is missing, only its transaction is refused.
        let new = !currency.is_empty() && !self.currencies.contains(currency);
        if new && self.currencies.len() < MAX_CURRENCIES {
            self.currencies.insert(shortened(currency));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact() {
        for (text, shown) in [
            ("0", "0.00"),
            ("10", "10.00"),
            ("010.50", "10.50"),
            (" 0.00001\n", "0.00001"),
            ("1.234500000", "1.2345"),
            ("999999999999999999", "999999999999999999.00"),
        ] {
            assert_eq!(Exact::read(text).map(|n| n.to_string()).as_deref(), Some(shown), "{text}");
        }
        for text in ["", ".5", "-1", "+1", "1e3", "1,0", "1.000001", "1234567890123456789", "1 0", "٣"] {
            assert_eq!(Exact::read(text), None, "{text}");
        }
        assert_eq!(Exact::read("1."), Exact::read("1"), "as the standard's decimals allow");
    }
}
