//! Reads JSON without changing its meaning: what a reader would round or choose between is refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// A decimal number of at most this many significant digits survives the way through a 64-bit float.
pub(crate) const EXACT_DIGITS: usize = f64::DIGITS as usize;

/// Reads a JSON text as a value.
///
/// # Errors
/// What is not JSON, a name that stands twice in one object, and a number that would be rounded.
pub(crate) fn value(text: &str) -> Result<Value, String> {
    if let Some(number) = numbers(text).find(|number| !is_exact(number)) {
        let number: String = number.chars().take(64).collect();
        return Err(format!("number {number} has more digits than can be read exactly: send it as a string"));
    }
    serde_json::from_str::<Unique>(text).map(|Unique(value)| value).map_err(|e| e.to_string())
}

/// Digits of a decimal without sign, point, exponent, leading and trailing zeros.
pub(crate) fn significant_digits(number: &str) -> usize {
    let mantissa = number.split(['e', 'E']).next().unwrap_or(number);
    let digits = || mantissa.bytes().filter(u8::is_ascii_digit);
    let leading = digits().take_while(|b| *b == b'0').count();
    let trailing = digits().rev().take_while(|b| *b == b'0').count();
    digits().count().saturating_sub(leading + trailing)
}

/// Whether a number of a JSON text is read as what it says: integers of 64 bits as themselves, others as
/// floats. The bounds on length and exponent keep the float away from overflow and from zero.
fn is_exact(number: &str) -> bool {
    if !number.contains(['.', 'e', 'E'])
        && (number.len() <= 18 || number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok())
    {
        return true;
    }
    let exponent = number.split_once(['e', 'E']).map_or("", |(_, exponent)| exponent);
    number.len() <= 64
        && exponent.trim_start_matches(['+', '-', '0']).len() <= 2
        && significant_digits(number) <= EXACT_DIGITS
}

/// The numbers of a JSON text, as they are written. A text that is not JSON gives anything.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => at = after_string(bytes, at + 1),
                b'-' | b'0'..=b'9' => {
                    let start = at;
                    let in_number = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                    at += bytes[at..].iter().take_while(|b| in_number(b)).count();
                    return text.get(start..at);
                }
                _ => at += 1,
            }
        }
        None
    })
}

/// The place after the string whose first character stands at `at`.
fn after_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        match bytes[at - 1] {
            b'"' => return at,
            // Whatever stands behind it belongs to the string.
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A value in which no name stands twice in one object: readers disagree on which one counts.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unique(value))) = entries.next_entry::<String, Unique>()? {
            match object.entry(name) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(place) => {
                    return Err(A::Error::custom(format_args!("{:?} stands twice in one object", place.key())));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_plain_reader_reads() {
        for text in [
            "null",
            "true",
            "-1",
            "18446744073709551615",
            "-9223372036854775808",
            "1000.00",
            "1e2",
            "123456789012345",
            "0.00000000000000000000000000000000000001",
            "\"12345678901234567.89\"",
            r#""a\"1.00000000000000000001""#,
            r#"{"a":[1,2.5,{"b":null,"c":"\\"}],"b":{}}"#,
            "[]",
            "-0",
            "9007199254740993",
        ] {
            assert_eq!(value(text), Ok(serde_json::from_str::<Value>(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn refuses_what_would_be_rounded() {
        for text in [
            "12345678901234567.89",
            "123456789012345.67",
            "1000.000000000000000001",
            "[0.1000000000000000055]",
            "18446744073709551617",
            "1e400",
            "1e-400",
            "-12345678901234567890",
            r#"{"a":{"b":9007199254740993.0}}"#,
            &format!("0.{}1", "0".repeat(400)),
        ] {
            assert!(value(text).unwrap_err().contains("exactly"), "{text}");
        }
    }

    #[test]
    fn refuses_a_name_that_stands_twice() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#] {
            assert!(value(text).unwrap_err().contains("twice"), "{text}");
        }
        assert!(value(r#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn refuses_what_is_not_json() {
        for text in ["", "{", "[1,]", "01", "\"", "\"\\", "nul", "{} {}"] {
            assert!(value(text).is_err(), "{text}");
        }
    }
}
