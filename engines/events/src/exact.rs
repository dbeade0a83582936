//! Numbers that survive the way through a reader, and those that would be rounded.

/// A decimal number of at most this many significant digits survives the way through a 64-bit float.
pub(crate) const EXACT_DIGITS: usize = f64::DIGITS as usize;

/// The first number of a JSON text that a reader would round, as far as it fits a message.
pub(crate) fn rounded(text: &str) -> Option<String> {
    numbers(text).find(|number| !is_exact(number)).map(|number| number.chars().take(64).collect())
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
