//! Between the words of the gRPC contract and those of the kernel. Parsing only.

use std::fmt::Display;
use std::str::FromStr;

use deltran_api::common::v1 as pb;
use deltran_kernel::{Currency, Minor, Money, Timestamp};

use crate::error::Failure;

/// Reads a field that has a textual form, such as an id.
pub fn parse<T: FromStr>(field: &str, text: &str) -> Result<T, Failure>
where
    T::Err: Display,
{
    text.parse().map_err(|e: T::Err| Failure::malformed(field, e))
}

/// Reads an optional field: empty is none.
pub fn parse_optional<T: FromStr>(field: &str, text: &str) -> Result<Option<T>, Failure>
where
    T::Err: Display,
{
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

/// Reads an amount of money that must be there; its sign is for the domain to judge.
pub fn money(field: &str, value: Option<&pb::Money>) -> Result<Money, Failure> {
    let value = value.ok_or_else(|| Failure::malformed(field, "is missing"))?;
    let currency = Currency::new(&value.currency).map_err(|e| Failure::malformed(&format!("{field}.currency"), e))?;
    Money::parse(&value.amount, currency).map_err(|e| Failure::malformed(&format!("{field}.amount"), e))
}

/// Checks the length of a text field, in characters.
pub fn text(field: &str, value: &str, most: usize) -> Result<String, Failure> {
    let length = value.chars().count();
    if length > most {
        return Err(Failure::malformed(field, format!("has {length} characters: at most {most} are allowed")));
    }
    if value.chars().any(char::is_control) {
        return Err(Failure::malformed(field, "contains control characters"));
    }
    Ok(value.to_owned())
}

/// Checks a text field that must not be empty.
pub fn required_text(field: &str, value: &str, most: usize) -> Result<String, Failure> {
    if value.trim().is_empty() {
        return Err(Failure::malformed(field, "is missing"));
    }
    text(field, value, most)
}

/// Money for an answer.
pub fn to_money(money: Money) -> pb::Money {
    pb::Money { amount: money.amount(), currency: money.currency().code().to_owned() }
}

/// Minor units of a currency for an answer.
pub fn minor_to_money(minor: Minor, currency: Currency) -> pb::Money {
    to_money(Money::new(minor, currency))
}

/// A moment for an answer.
pub fn to_timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.micros().div_euclid(1_000_000),
        nanos: (at.micros().rem_euclid(1_000_000) * 1000) as i32,
    }
}

/// A moment of a request.
pub fn timestamp(field: &str, value: Option<&prost_types::Timestamp>) -> Result<Option<Timestamp>, Failure> {
    value
        .map(|t| {
            t.seconds
                .checked_mul(1_000_000)
                .and_then(|s| s.checked_add(i64::from(t.nanos) / 1000))
                .map(Timestamp::from_micros)
                .ok_or_else(|| Failure::malformed(field, "is out of range"))
        })
        .transpose()
}

/// A page of a list: how many rows, and after which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOf<K> {
    /// At most this many rows, 1 to 1,000.
    pub size: i64,
    /// Rows after this key; none for the first page.
    pub after: Option<K>,
}

/// Reads a page request whose token is the last key of the page before.
pub fn page<K: FromStr>(value: Option<&pb::Page>) -> Result<PageOf<K>, Failure>
where
    K::Err: Display,
{
    let (size, token) = value.map_or((0, ""), |p| (p.size, p.token.as_str()));
    if size > 1000 {
        return Err(Failure::malformed("page.size", format!("{size} is too large: at most 1000")));
    }
    let after = parse_optional("page.token", token)?;
    Ok(PageOf { size: if size == 0 { 100 } else { i64::from(size) }, after })
}

/// The token of the next page: the last row's key where the page is full, else empty.
pub fn next_token<K: Display>(rows: usize, size: i64, last: Option<K>) -> String {
    if rows as i64 == size { last.map(|k| k.to_string()).unwrap_or_default() } else { String::new() }
}
