//! Amounts inside events: decimal strings; numbers are read too, where they lose nothing.

use std::borrow::Cow;
use std::fmt;

use deltran_kernel::{Currency, Money, MoneyError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::exact;

/// The form of an amount that is a text. The currency decides on the exact number of digits.
pub(crate) const AMOUNT_PATTERN: &str = "^-?[0-9]{1,27}(\\.[0-9]{1,4})?$";

/// An amount as it stands in an event. Its currency is a field beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Amount {
    /// `"1000.00"`: what engines publish.
    Text(String),
    /// `1000.00` as a JSON number, as some outside publishers send it; kept as its decimal digits. A number
    /// of more than 15 significant digits is refused, because a float would have rounded it.
    Number(String),
}

/// An amount that does not fit its currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// A text that is not exactly in minor digits.
    #[error(transparent)]
    Money(#[from] MoneyError),
    /// A number with more precision than the currency has.
    #[error("number {0} is not exactly representable in minor units of {1}")]
    NotRepresentable(String, Currency),
}

impl Amount {
    /// The amount as money of `currency`; nothing is ever rounded.
    pub fn money(&self, currency: Currency) -> Result<Money, AmountError> {
        match self {
            Self::Text(text) => Ok(Money::parse(text, currency)?),
            Self::Number(number) => {
                let not_representable = || AmountError::NotRepresentable(number.clone(), currency);
                let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
                let digits = currency.minor_digits() as usize;
                let significant = fraction.trim_end_matches('0');
                if significant.len() > digits {
                    return Err(not_representable());
                }
                let text = if digits == 0 { whole.to_owned() } else { format!("{whole}.{significant:0<digits$}") };
                Money::parse(&text, currency).map_err(|_| not_representable())
            }
        }
    }
}

impl From<Money> for Amount {
    fn from(money: Money) -> Self {
        Self::Text(money.amount())
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => s.serialize_str(text),
            Self::Number(text) => match (text.parse::<i64>(), text.parse::<u64>()) {
                (Ok(whole), _) => s.serialize_i64(whole),
                (_, Ok(whole)) => s.serialize_u64(whole),
                _ => s.serialize_f64(text.parse().map_err(serde::ser::Error::custom)?),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(AmountVisitor)
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount: a decimal string or a number")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
        Ok(Amount::Text(text.to_owned()))
    }
    fn visit_string<E: Error>(self, text: String) -> Result<Amount, E> {
        Ok(Amount::Text(text))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Amount, E> {
        Ok(Amount::Number(number.to_string()))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Amount, E> {
        Ok(Amount::Number(number.to_string()))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Amount, E> {
        let text = number.to_string();
        if exact::significant_digits(&text) > exact::EXACT_DIGITS {
            return Err(E::custom(format_args!(
                "number {text} has more digits than can be read exactly: send it as a string"
            )));
        }
        Ok(Amount::Number(text))
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "pattern": AMOUNT_PATTERN,
            "description": "decimal string with exactly the currency's minor digits; a number only where it is exactly \
                            representable and has at most 15 significant digits"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, code: &str) -> Result<String, String> {
        let amount: Amount = serde_json::from_str(json).map_err(|e| e.to_string())?;
        amount.money(Currency::new(code).unwrap()).map(|m| m.amount()).map_err(|e| e.to_string())
    }

    #[test]
    fn texts_and_exact_numbers_are_read() {
        for (json, code, text) in [
            ("\"1000.00\"", "USD", "1000.00"),
            ("1000.00", "USD", "1000.00"),
            ("1000", "USD", "1000.00"),
            ("0.5", "USD", "0.50"),
            ("1000", "JPY", "1000"),
            ("-1.25", "BHD", "-1.250"),
            ("-0.0", "USD", "0.00"),
            ("1e2", "USD", "100.00"),
            ("1234567890123.45", "USD", "1234567890123.45"),
            ("9007199254740993", "JPY", "9007199254740993"),
            ("100000000000000000000", "JPY", "100000000000000000000"),
            ("\"12345678901234567.89\"", "USD", "12345678901234567.89"),
        ] {
            assert_eq!(read(json, code).as_deref(), Ok(text), "{json} {code}");
        }
    }

    #[test]
    fn what_would_be_rounded_is_invalid() {
        for (json, code) in [
            ("0.001", "USD"),
            ("1.5", "JPY"),
            ("\"1\"", "USD"),
            ("1e40", "JPY"),
            ("true", "USD"),
            ("\"\"", "JPY"),
            ("null", "JPY"),
            ("12345678901234567.89", "USD"),
            ("123456789012345.67", "USD"),
            ("0.30000000000000004", "USD"),
            ("1e-7", "CLF"),
        ] {
            assert!(read(json, code).is_err(), "{json} {code}");
        }
    }

    #[test]
    fn an_amount_is_written_as_it_came() {
        for json in ["\"1000.00\"", "1000", "-12.5", "\"7\"", "18446744073709551615"] {
            let amount: Amount = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&amount).unwrap(), json);
        }
    }
}
