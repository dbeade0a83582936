//! JSON as the schema validator looks at it.

use std::borrow::Cow;

use jsonschema::JsonType;
use jsonschema::json::{self, Array, Node, NodeIdentity, Object};
use serde_json::{Number, Value};

use super::{Json, Members, member};

/// What the validator is made for.
pub(crate) struct Representation;

impl json::Json for Representation {
    type Node<'a> = &'a Json<'a>;
    type PreparedKey = String;
    type StringBuffer = String;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(_: &mut String, string: &str, f: impl FnOnce(Self::Node<'_>) -> T) -> T {
        f(&Json::Text(Cow::Borrowed(string)))
    }
}

impl<'a> Node<'a, Representation> for &'a Json<'a> {
    type Object = &'a Members<'a>;
    type Array = &'a [Json<'a>];
    type Number = &'a Number;

    fn as_object(&self) -> Option<&'a Members<'a>> {
        match self {
            Json::Object(members) => Some(members),
            _ => None,
        }
    }
    fn as_array(&self) -> Option<&'a [Json<'a>]> {
        match self {
            Json::Array(items) => Some(items),
            _ => None,
        }
    }
    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Json::Text(text) => Some(Cow::Borrowed(text.as_ref())),
            _ => None,
        }
    }
    fn as_number(&self) -> Option<&'a Number> {
        match self {
            Json::Number(number) => Some(number),
            _ => None,
        }
    }
    fn as_boolean(&self) -> Option<bool> {
        match self {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }
    fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }
    fn json_type(&self) -> JsonType {
        match self {
            Json::Null => JsonType::Null,
            Json::Bool(_) => JsonType::Boolean,
            Json::Number(_) => JsonType::Number,
            Json::Text(_) => JsonType::String,
            Json::Array(_) => JsonType::Array,
            Json::Object(_) => JsonType::Object,
        }
    }
    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(Json::to_value(self))
    }
    fn equals_value(&self, expected: &Value) -> bool {
        match (self, expected) {
            // The words of an enumeration, which are most of what is compared.
            (Json::Text(text), Value::String(expected)) => text == expected,
            _ => json::cmp::equal(&Json::to_value(self), expected),
        }
    }
    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Json<'_>>(*self) as usize))
    }
}

impl<'a> Object<'a, Representation> for &'a Members<'a> {
    type Node = &'a Json<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        <Members<'_>>::len(self)
    }
    fn get(&self, key: &String) -> Option<&'a Json<'a>> {
        member(self, key)
    }
    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.iter())
    }
}

/// Members of an object, in the order in which they were written.
pub(crate) struct MembersIter<'a>(std::slice::Iter<'a, (Cow<'a, str>, Json<'a>)>);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, &'a Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_ref(), value))
    }
}

impl<'a> Array<'a, Representation> for &'a [Json<'a>] {
    type Node = &'a Json<'a>;
    type ElementsIter = std::slice::Iter<'a, Json<'a>>;

    fn len(&self) -> usize {
        <[Json<'_>]>::len(self)
    }
    fn elements(&self) -> std::slice::Iter<'a, Json<'a>> {
        self.iter()
    }
}

impl Json<'_> {
    /// The same as a value of its own.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String(text.clone().into_owned()),
            Self::Array(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Self::Object(members) => {
                Value::Object(members.iter().map(|(n, v)| (n.clone().into_owned(), v.to_value())).collect())
            }
        }
    }
}
