//! Windows against their seals: what the token ledger said when it sealed a window must be what its transactions add up to.

use std::collections::BTreeMap;

use deltran_kernel::{Minor, MoneyError};
use serde::{Deserialize, Serialize};

use super::line::Sealed;

/// Differences that are described; more are only counted.
const DESCRIBED: usize = 20;

/// What became of the windows of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowTotals {
    /// Sealed windows whose transactions are all in the range, and add up to what the seal says.
    pub tied: u64,
    /// Sealed windows of which some transactions came before the range.
    pub begun_before: u64,
    /// Windows that are not sealed in the range.
    pub open: u64,
    /// Windows that do not add up, in words; at most 20.
    pub differences: Vec<String>,
}

#[derive(Debug, Default)]
struct Window {
    count: u64,
    gross: Minor,
    first: Option<u64>,
    sealed: Option<(u64, Minor)>,
}

/// Adds windows up as their events come. What is tied is let go of, so that memory is that of the open windows.
#[derive(Debug, Default)]
pub struct Windows {
    tied: u64,
    waiting: BTreeMap<String, Window>,
}

impl Windows {
    /// A committed transaction of a window.
    ///
    /// # Errors
    /// Where the sum is out of range.
    pub fn add(&mut self, window: &str, seq: u64, amount: Minor) -> Result<(), MoneyError> {
        let at = match self.waiting.get_mut(window) {
            Some(at) => at,
            None => self.waiting.entry(window.to_owned()).or_default(),
        };
        at.count += 1;
        at.gross = at.gross.add(amount)?;
        at.first = Some(at.first.map_or(seq, |first| first.min(seq)));
        self.let_go(window);
        Ok(())
    }

    /// A window was sealed.
    pub fn seal(&mut self, sealed: &Sealed<'_>) {
        self.waiting.entry(sealed.window.to_string()).or_default().sealed = Some((sealed.count, sealed.gross));
        self.let_go(&sealed.window);
    }

    fn let_go(&mut self, window: &str) {
        let tied = self.waiting.get(window).is_some_and(|at| at.sealed == Some((at.count, at.gross)));
        if tied {
            self.waiting.remove(window);
            self.tied += 1;
        }
    }

    /// The outcome for a range that begins with leaf `from`.
    pub fn totals(&self, from: u64) -> WindowTotals {
        let mut totals = WindowTotals { tied: self.tied, ..WindowTotals::default() };
        for (name, window) in &self.waiting {
            let Some((count, gross)) = window.sealed else {
                totals.open += 1;
                continue;
            };
            // A place beyond the first says that the first came before; so does a range that does not begin with leaf 0,
            // for a window of which nothing is there.
            let before = window.count < count && window.gross <= gross && from > 0 && window.first != Some(1);
            if before {
                totals.begun_before += 1;
            } else if totals.differences.len() < DESCRIBED {
                totals.differences.push(format!(
                    "window {name}: sealed with {count} transactions of {} minor units, {} of {} are there",
                    gross.units(),
                    window.count,
                    window.gross.units()
                ));
            }
        }
        totals
    }
}
