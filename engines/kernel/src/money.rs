//! Money: integer minor units of one currency, with arithmetic that can fail.

use std::fmt;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Currency;
use crate::Text;

/// The largest magnitude of minor units that any balance or total may take: 10^27 − 1.
/// It fits `NUMERIC(38,0)` and a 96-bit decimal with room to spare.
pub const MAX_MINOR: i128 = 999_999_999_999_999_999_999_999_999;

/// Why an amount could not be read or computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The text is not a plain decimal number.
    #[error("amount {0:?} is not a plain decimal number such as \"1000.00\"")]
    NotADecimal(String),
    /// The text has more or fewer digits after the point than the currency.
    #[error("amount {text:?} has {found} digits after the point: {currency} takes exactly {expected}")]
    WrongDigits {
        /// The text as given.
        text: String,
        /// Digits found after the point.
        found: usize,
        /// Digits of the currency.
        expected: u32,
        /// The currency.
        currency: Currency,
    },
    /// The value, or the result of a computation, exceeds [`MAX_MINOR`].
    #[error("amount is out of range: the largest magnitude is 10^27 - 1 minor units")]
    OutOfRange,
    /// Two currencies met in one computation.
    #[error("cannot combine {0} with {1}")]
    CurrencyMismatch(Currency, Currency),
}

/// A signed number of minor units whose currency is known from its surroundings.
///
/// Magnitude is at most [`MAX_MINOR`]; arithmetic returns an error instead of wrapping.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Minor(i128);

impl Minor {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A checked value.
    pub fn new(units: i128) -> Result<Self, MoneyError> {
        if units.unsigned_abs() <= MAX_MINOR as u128 { Ok(Self(units)) } else { Err(MoneyError::OutOfRange) }
    }

    /// The number of minor units.
    pub const fn units(self) -> i128 {
        self.0
    }

    /// `self + other`.
    #[expect(clippy::should_implement_trait, reason = "arithmetic on money can fail, or says so by a word")]
    pub fn add(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_add(other.0).ok_or(MoneyError::OutOfRange).and_then(Self::new)
    }

    /// `self − other`.
    #[expect(clippy::should_implement_trait, reason = "arithmetic on money can fail, or says so by a word")]
    pub fn sub(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_sub(other.0).ok_or(MoneyError::OutOfRange).and_then(Self::new)
    }

    /// The negated value.
    #[must_use]
    pub const fn neg(self) -> Self {
        Self(-self.0)
    }

    /// The smaller of two values.
    #[must_use]
    pub fn at_most(self, other: Self) -> Self {
        self.min(other)
    }

    /// The value, or zero where it is negative.
    #[must_use]
    pub fn or_zero(self) -> Self {
        self.max(Self::ZERO)
    }

    /// Whether the value is above zero.
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// Whether the value is below zero.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Whether the value is zero.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Sum of many values.
    pub fn sum(values: impl IntoIterator<Item = Self>) -> Result<Self, MoneyError> {
        values.into_iter().try_fold(Self::ZERO, Self::add)
    }

    /// As an integral decimal, the form in which it travels to and from `NUMERIC(38,0)`.
    pub fn to_decimal(self) -> Decimal {
        Decimal::from_i128_with_scale(self.0, 0)
    }

    /// From an integral decimal; a fraction is an error, never rounded.
    pub fn from_decimal(value: Decimal) -> Result<Self, MoneyError> {
        if value.fract().is_zero() {
            Self::new(value.trunc().normalize().mantissa())
        } else {
            Err(MoneyError::NotADecimal(value.to_string()))
        }
    }
}

impl fmt::Debug for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An amount of one currency: a decimal string with exactly the currency's minor digits outside,
/// integer minor units inside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    currency: Currency,
    minor: Minor,
}

impl Money {
    /// An amount from minor units.
    pub const fn new(minor: Minor, currency: Currency) -> Self {
        Self { currency, minor }
    }

    /// Nothing of a currency.
    pub const fn zero(currency: Currency) -> Self {
        Self::new(Minor::ZERO, currency)
    }

    /// Reads `"-12.34"`: an optional minus, digits, and exactly the currency's minor digits.
    /// No sign `+`, exponent, grouping or blank is accepted, and nothing is rounded.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let not_a_decimal = || MoneyError::NotADecimal(text.chars().take(64).collect());
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        let dangling_point = digits.ends_with('.');
        if whole.is_empty() || dangling_point || !all_digits(whole) || !all_digits(fraction) {
            return Err(not_a_decimal());
        }
        if fraction.len() != currency.minor_digits() as usize {
            return Err(MoneyError::WrongDigits {
                text: text.chars().take(64).collect(),
                found: fraction.len(),
                expected: currency.minor_digits(),
                currency,
            });
        }
        let mut units: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            units = units
                .checked_mul(10)
                .and_then(|u| u.checked_add(i128::from(digit - b'0')))
                .ok_or(MoneyError::OutOfRange)?;
        }
        Ok(Self::new(Minor::new(if negative { -units } else { units })?, currency))
    }

    /// The minor units.
    pub const fn minor(&self) -> Minor {
        self.minor
    }

    /// The currency.
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// Sum of two amounts of the same currency.
    #[expect(clippy::should_implement_trait, reason = "arithmetic on money can fail, or says so by a word")]
    pub fn add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch(self.currency, other.currency));
        }
        Ok(Self::new(self.minor.add(other.minor)?, self.currency))
    }

    /// The amount alone, as text: `"1000.00"`.
    pub fn amount(&self) -> String {
        format_minor(self.minor, self.currency)
    }
}

fn format_minor(minor: Minor, currency: Currency) -> String {
    let digits = currency.minor_digits();
    let sign = if minor.is_negative() { "-" } else { "" };
    let magnitude = minor.units().unsigned_abs();
    if digits == 0 {
        return format!("{sign}{magnitude}");
    }
    let unit = 10u128.pow(digits);
    format!("{sign}{}.{:0width$}", magnitude / unit, magnitude % unit, width = digits as usize)
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount(), self.currency)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Minor {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Minor {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(d)?;
        let units: i128 = text.parse().map_err(serde::de::Error::custom)?;
        Self::new(units).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Minor {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Minor".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^-?[0-9]{1,27}$", "description": "integer minor units"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::new(code).unwrap()
    }

    #[test]
    fn reads_exactly_the_minor_digits_of_the_currency() {
        for (text, code, units) in [
            ("1000.00", "USD", 100_000),
            ("0.01", "USD", 1),
            ("-0.01", "USD", -1),
            ("1000", "JPY", 1000),
            ("1.234", "BHD", 1234),
            ("0.00", "EUR", 0),
        ] {
            let money = Money::parse(text, currency(code)).unwrap();
            assert_eq!(money.minor().units(), units, "{text} {code}");
            assert_eq!(money.amount(), text, "prints as it was read");
        }
    }

    #[test]
    fn refuses_what_would_lose_precision_or_is_no_number() {
        for (text, code) in [
            ("1.234", "USD"),
            ("1.2", "USD"),
            ("1", "USD"),
            ("1.0", "JPY"),
            ("1.23", "BHD"),
            ("", "USD"),
            ("-", "USD"),
            (".50", "USD"),
            ("1.", "JPY"),
            ("1e3", "JPY"),
            ("+1", "JPY"),
            (" 1", "JPY"),
            ("1,000.00", "USD"),
            ("NaN", "JPY"),
            ("١٢", "JPY"),
            ("--1", "JPY"),
            ("1.-5", "USD"),
        ] {
            assert!(Money::parse(text, currency(code)).is_err(), "{text:?} {code}");
        }
    }

    #[test]
    fn never_leaves_the_range() {
        let max = Minor::new(MAX_MINOR).unwrap();
        let one = Minor::new(1).unwrap();
        assert_eq!(max.add(one), Err(MoneyError::OutOfRange));
        assert_eq!(max.neg().sub(one), Err(MoneyError::OutOfRange));
        assert!(Money::parse(&"9".repeat(40), currency("JPY")).is_err());
        assert!(Money::parse(&"9".repeat(400), currency("JPY")).is_err());
    }

    #[test]
    fn decimals_go_both_ways_or_fail() {
        for units in [0, 1, -1, MAX_MINOR, -MAX_MINOR] {
            let minor = Minor::new(units).unwrap();
            assert_eq!(Minor::from_decimal(minor.to_decimal()), Ok(minor));
        }
        assert!(Minor::from_decimal(Decimal::new(15, 1)).is_err());
        assert_eq!(Minor::from_decimal(Decimal::new(150, 1)), Minor::new(15));
        assert_eq!(Minor::from_decimal(Decimal::new(1000, 0)), Minor::new(1000));
    }
}
