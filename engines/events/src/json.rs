//! JSON as it was written, in pieces of the text: checked, read and thrown away for each event, so that little is copied.

mod node;
mod read;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use deltran_kernel::Text;
pub(crate) use node::Representation;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::exact;

/// Objects of more members are searched for a name that stands twice in order, and not each with each.
const FEW: usize = 16;

/// A JSON value whose texts stand where it was read from, as far as nothing in them is escaped.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number that reads as exactly what was written.
    Number(Number),
    /// A text.
    Text(Cow<'a, str>),
    /// Items in order.
    Array(Vec<Json<'a>>),
    /// Members as they were written; no name stands twice.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads a text without changing its meaning: what a reader would round or choose between is refused.
    ///
    /// # Errors
    /// What is not JSON, a name that stands twice in one object, and a number that would be rounded.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let read = serde_json::from_str::<Self>(text);
        // Only what becomes a float is rounded, or found to be out of range.
        if read.as_ref().map_or(true, Self::has_float)
            && let Some(number) = exact::rounded(text)
        {
            return Err(format!("number {number} has more digits than can be read exactly: send it as a string"));
        }
        read.map_err(|e| e.to_string())
    }

    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        match self {
            Self::Object(members) => member(members, name),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn has_float(&self) -> bool {
        match self {
            Self::Number(number) => number.is_f64(),
            Self::Array(items) => items.iter().any(Self::has_float),
            Self::Object(members) => members.iter().any(|(_, value)| value.has_float()),
            Self::Null | Self::Bool(_) | Self::Text(_) => false,
        }
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Json<'de>, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }
    fn visit_string<E: Error>(self, value: String) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value)))
    }
    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json<'de>, A::Error> {
        let mut members = Vec::with_capacity(FEW);
        while let Some((Text(name), value)) = entries.next_entry()? {
            members.push((name, value));
        }
        match twice(&members) {
            // Readers disagree on which of the two counts.
            Some(name) => Err(A::Error::custom(format_args!("{name:?} stands twice in one object"))),
            None => Ok(Json::Object(members)),
        }
    }
}

/// The members of an object, as they were written.
type Members<'a> = [(Cow<'a, str>, Json<'a>)];

fn member<'m, 'a>(members: &'m Members<'a>, name: &str) -> Option<&'m Json<'a>> {
    members.iter().find(|(own, _)| own == name).map(|(_, value)| value)
}

/// A name that stands twice.
fn twice<'m>(members: &'m Members<'_>) -> Option<&'m str> {
    let mut names = members.iter().map(|(name, _)| name.as_ref());
    if members.len() > FEW {
        let mut seen = BTreeSet::new();
        return names.find(|name| !seen.insert(*name));
    }
    names.enumerate().find(|(at, name)| members[..*at].iter().any(|(earlier, _)| earlier == name)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

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
            let read = Json::parse(text).unwrap();
            let plain: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read.to_value(), plain, "{text}");
            assert_eq!(Value::deserialize(&read).unwrap(), plain, "{text}");
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
            assert!(Json::parse(text).unwrap_err().contains("exactly"), "{text}");
        }
    }

    #[test]
    fn refuses_a_name_that_stands_twice() {
        let many: Vec<String> = (0..100).chain([57]).map(|n| format!("\"n{n}\":{n}")).collect();
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#, &format!("{{{}}}", many.join(","))] {
            assert!(Json::parse(text).unwrap_err().contains("twice"), "{text}");
        }
        assert!(Json::parse(r#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn refuses_what_is_not_json() {
        for text in ["", "{", "[1,]", "01", "\"", "\"\\", "nul", "{} {}"] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }
}
