//! Monitoring rules: versioned data that says what is added up, over which window, and what is too much.

use std::collections::BTreeMap;

use deltran_events::data::compliance::{RuleKind, RuleMode, RuleScope};
use deltran_kernel::{CommandId, Currency, Minor, Money, ParticipantId, Timestamp, TransactionId};

use super::Outcome;

/// Windows move in steps of this part of their length.
pub const STEPS: u64 = 60;
/// The shortest window, in seconds; every window is a multiple of it.
pub const SHORTEST_WINDOW: u64 = 60;
/// The longest window, in seconds: 30 days.
pub const LONGEST_WINDOW: u64 = 30 * 24 * 60 * 60;
/// The most rules by name: each one costs every transaction something.
pub const MOST_RULES: usize = 20;
/// The fewest transactions that count as structuring.
pub const FEWEST: u64 = 3;
const WHOLE: u32 = 10_000;
const LONGEST_NAME: usize = 40;

/// A committed transaction as rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub transaction_id: TransactionId,
    /// Who paid.
    pub payer: ParticipantId,
    /// Who got it.
    pub payee: ParticipantId,
    /// How much.
    pub amount: Money,
    /// When it was committed, by its event.
    pub at: Timestamp,
}

/// What a rule looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Too many transactions, or too much.
    Velocity {
        /// Per payer, or per payer and payee.
        scope: RuleScope,
        /// More transactions than this, of all currencies together.
        max_count: Option<u64>,
        /// More than this of a currency.
        max_amounts: BTreeMap<Currency, Minor>,
    },
    /// Several transactions of one payer to one payee just under a threshold.
    Structuring {
        /// So many of them.
        min_count: u64,
        /// How far below the threshold counts, in ten-thousandths of it.
        band: u32,
        /// By currency.
        thresholds: BTreeMap<Currency, Minor>,
    },
}

/// What a series of transactions may come to within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most so many.
    CountOver(u64),
    /// Fewer than so many.
    CountReaches(u64),
    /// At most so much.
    AmountOver(Minor),
}

/// What is added up: the transactions of a payer, as far as the rule tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thread {
    /// Who pays.
    pub payer: ParticipantId,
    /// To whom, where the rule looks at pairs.
    pub payee: Option<ParticipantId>,
    /// In which currency; `None` for all together, where only their number counts.
    pub currency: Option<Currency>,
}

/// What a rule says, without its place in history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// What becomes of a crossing.
    pub mode: RuleMode,
    /// The length of the window.
    pub window_seconds: u64,
    /// What it looks for.
    pub pattern: Pattern,
}

/// A version of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub definition: Definition,
    /// Its version, from 1.
    pub version: u32,
    /// The command that set it; `None` for one that ships with the product.
    pub command_id: Option<CommandId>,
    /// Since when.
    pub set_at: Timestamp,
    /// Who set it.
    pub set_by: String,
}

/// Why a rule was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A field does not fit.
    #[error("{field}: {message}")]
    Malformed {
        /// The field.
        field: &'static str,
        /// What is wrong, with the value.
        message: String,
    },
    /// The command's id is in use with another body.
    #[error("command {0} was used before with another body: use a new id, or send the first body")]
    Conflict(CommandId),
}

fn malformed<T>(field: &'static str, message: impl Into<String>) -> Result<T, RuleError> {
    Err(RuleError::Malformed { field, message: message.into() })
}

/// A definition as it comes in; 0 and empty are "not given".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The rule's name.
    pub name: String,
    /// What it looks for.
    pub kind: RuleKind,
    /// What becomes of a crossing.
    pub mode: RuleMode,
    /// What it adds up; none is the kind's own.
    pub scope: Option<RuleScope>,
    /// The length of the window.
    pub window_seconds: u64,
    /// `velocity`.
    pub max_count: u64,
    /// `structuring`.
    pub min_count: u64,
    /// `structuring`, in ten-thousandths.
    pub band: u32,
    /// By currency: maxima or thresholds.
    pub amounts: Vec<Money>,
}

impl Draft {
    /// The definition, where every field fits.
    ///
    /// # Errors
    /// `Malformed`, for the first field that does not.
    pub fn check(self) -> Result<Definition, RuleError> {
        let named = self.name.starts_with(|c: char| c.is_ascii_lowercase())
            && self.name.len() <= LONGEST_NAME
            && self.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
        if !named {
            let name: String = self.name.chars().take(64).collect();
            let form =
                format!("{name:?} is no name: up to {LONGEST_NAME} of a-z, 0-9, - and _, beginning with a letter");
            return malformed("rule", form);
        }
        let window = self.window_seconds;
        if !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window) || !window.is_multiple_of(SHORTEST_WINDOW) {
            let range = format!("{window}: expected a multiple of {SHORTEST_WINDOW} up to {LONGEST_WINDOW}");
            return malformed("window_seconds", range);
        }
        let mut amounts = BTreeMap::new();
        for money in &self.amounts {
            if !money.minor().is_positive() {
                return malformed("amounts", format!("{money} is not above zero"));
            }
            if amounts.insert(money.currency(), money.minor()).is_some() {
                return malformed("amounts", format!("{} stands twice", money.currency()));
            }
        }
        let pattern = match self.kind {
            RuleKind::Velocity => self.velocity(amounts),
            RuleKind::Structuring => self.structuring(amounts),
        }?;
        Ok(Definition { name: self.name, mode: self.mode, window_seconds: window, pattern })
    }

    fn velocity(&self, max_amounts: BTreeMap<Currency, Minor>) -> Result<Pattern, RuleError> {
        if self.min_count != 0 {
            return malformed("min_count", "belongs to structuring: a velocity rule takes max_count");
        }
        if self.band != 0 {
            return malformed("band", "belongs to structuring");
        }
        if i64::try_from(self.max_count).is_err() {
            return malformed("max_count", format!("{}: at most {}", self.max_count, i64::MAX));
        }
        if self.max_count == 0 && max_amounts.is_empty() {
            return malformed("max_count", "a velocity rule needs a number of transactions, or amounts");
        }
        let scope = self.scope.unwrap_or(RuleScope::Payer);
        Ok(Pattern::Velocity { scope, max_count: (self.max_count > 0).then_some(self.max_count), max_amounts })
    }

    fn structuring(&self, thresholds: BTreeMap<Currency, Minor>) -> Result<Pattern, RuleError> {
        if self.scope == Some(RuleScope::Payer) {
            return malformed("scope", "a structuring rule looks at pairs of payer and payee");
        }
        if self.max_count != 0 {
            return malformed("max_count", "belongs to velocity: a structuring rule takes min_count");
        }
        if !(FEWEST..=1_000).contains(&self.min_count) {
            return malformed("min_count", format!("{}: expected {FEWEST} to 1000", self.min_count));
        }
        if !(1..WHOLE).contains(&self.band) {
            return malformed("band", format!("{}: expected 1 to {} ten-thousandths", self.band, WHOLE - 1));
        }
        if thresholds.is_empty() {
            return malformed("amounts", "a structuring rule needs a threshold for at least one currency");
        }
        for (currency, threshold) in &thresholds {
            if lowest(*threshold, self.band) >= threshold.units() {
                let threshold = Money::new(*threshold, *currency);
                return malformed("amounts", format!("{threshold} is too small for a band of {}", self.band));
            }
        }
        Ok(Pattern::Structuring { min_count: self.min_count, band: self.band, thresholds })
    }
}

/// The lowest amount, in minor units, that is just under a threshold.
fn lowest(threshold: Minor, band: u32) -> i128 {
    threshold.units() - threshold.units() * i128::from(band) / i128::from(WHOLE)
}

impl Definition {
    /// Its kind.
    pub const fn kind(&self) -> RuleKind {
        match self.pattern {
            Pattern::Velocity { .. } => RuleKind::Velocity,
            Pattern::Structuring { .. } => RuleKind::Structuring,
        }
    }

    /// The fields that it was made of; [`Draft::check`] makes the same definition of them again.
    pub fn draft(&self) -> Draft {
        let (scope, max_count, min_count, band, amounts) = match &self.pattern {
            Pattern::Velocity { scope, max_count, max_amounts } => (*scope, max_count.unwrap_or(0), 0, 0, max_amounts),
            Pattern::Structuring { min_count, band, thresholds } => (RuleScope::Pair, 0, *min_count, *band, thresholds),
        };
        Draft {
            name: self.name.clone(),
            kind: self.kind(),
            mode: self.mode,
            scope: Some(scope),
            window_seconds: self.window_seconds,
            max_count,
            min_count,
            band,
            amounts: amounts.iter().map(|(currency, minor)| Money::new(*minor, *currency)).collect(),
        }
    }

    /// The length of a bucket, in microseconds: the window moves by it.
    pub fn bucket_micros(&self) -> i64 {
        i64::try_from(self.window_seconds * 1_000_000 / STEPS).unwrap_or(i64::MAX)
    }

    /// The threads that a transaction belongs to, with what each may come to: none, one or two.
    pub fn threads(&self, seen: &Seen) -> [Option<(Thread, Limit)>; 2] {
        let Seen { payer, payee, amount, .. } = *seen;
        let currency = amount.currency();
        match &self.pattern {
            Pattern::Velocity { scope, max_count, max_amounts } => {
                let payee = (*scope == RuleScope::Pair).then_some(payee);
                let number = max_count.map(|n| (Thread { payer, payee, currency: None }, Limit::CountOver(n)));
                let sum = max_amounts
                    .get(&currency)
                    .map(|most| (Thread { payer, payee, currency: Some(currency) }, Limit::AmountOver(*most)));
                [number, sum]
            }
            Pattern::Structuring { min_count, band, thresholds } => {
                let units = amount.minor().units();
                let under = thresholds
                    .get(&currency)
                    .is_some_and(|threshold| (lowest(*threshold, *band)..threshold.units()).contains(&units));
                let thread = Thread { payer, payee: Some(payee), currency: Some(currency) };
                [under.then_some((thread, Limit::CountReaches(*min_count))), None]
            }
        }
    }
}

/// An officer sets a rule: the next version of its name. `earlier` is the version that the command set before,
/// `present` the version in use, `names` how many rules there are.
///
/// # Errors
/// In this order: `Conflict`, `Malformed` where the kind would change or there are too many rules.
pub fn set(
    earlier: Option<&Rule>,
    present: Option<&Rule>,
    names: usize,
    command_id: CommandId,
    definition: &Definition,
    by: &str,
    at: Timestamp,
) -> Result<Outcome<Rule>, RuleError> {
    if let Some(earlier) = earlier {
        let same = earlier.definition == *definition && earlier.set_by == by;
        return if same { Ok(Outcome::AlreadyApplied(earlier.clone())) } else { Err(RuleError::Conflict(command_id)) };
    }
    if let Some(present) = present
        && present.definition.kind() != definition.kind()
    {
        let kind = present.definition.kind();
        return malformed("kind", format!("rule {} is one of {kind}: give the new one another name", definition.name));
    }
    if present.is_none() && names >= MOST_RULES {
        return malformed("rule", format!("there are {names} rules, the most there may be: set one of them"));
    }
    // ---- nothing fails below ----
    Ok(Outcome::Executed(Rule {
        definition: definition.clone(),
        version: present.map_or(1, |present| present.version + 1),
        command_id: Some(command_id),
        set_at: at,
        set_by: by.to_owned(),
    }))
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
