//! The wrapper: what stands for a message that cannot be a leaf by itself.

use std::borrow::Cow;

use deltran_events::MAX_ENVELOPE_BYTES;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The event type in a wrapper.
pub const EVENT_TYPE: &str = "message.wrapped";
/// The source in a wrapper.
pub const SOURCE: &str = "audit-engine";

/// The longest subject that is kept, in characters.
const MAX_SUBJECT: usize = 512;

/// Whether bytes can be a leaf: one line of at most 65,535 bytes of UTF-8 without CR and LF.
pub fn is_line(bytes: &[u8]) -> bool {
    bytes.len() <= MAX_ENVELOPE_BYTES
        && memchr::memchr2(b'\n', b'\r', bytes).is_none()
        && std::str::from_utf8(bytes).is_ok()
}

/// A text as Postgres can store and index it: no NUL, at most so many characters.
pub fn storable(text: &str, most: usize) -> Cow<'_, str> {
    let fits = text.len() <= most || text.chars().nth(most).is_none();
    if fits && !text.contains('\0') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().take(most).map(|c| if c == '\0' { '\u{FFFD}' } else { c }).collect())
}

/// A subject as it is stored.
pub fn stored_subject(subject: &str) -> Cow<'_, str> {
    storable(subject, MAX_SUBJECT)
}

#[derive(Serialize)]
struct Wrapper<'a> {
    event_type: &'a str,
    source: &'a str,
    version: &'a str,
    data: Wrapped<'a>,
}

#[derive(Serialize)]
struct Wrapped<'a> {
    subject: &'a str,
    sha256: String,
    size: usize,
}

/// The one line that stands for `raw`: always the same for the same stored subject and bytes. It is
/// no event: it has neither id nor time, because nobody gave it any.
pub fn wrap(subject: &str, raw: &[u8]) -> Vec<u8> {
    let wrapper = Wrapper {
        event_type: EVENT_TYPE,
        source: SOURCE,
        version: "1.0",
        data: Wrapped { subject, sha256: hex::encode(Sha256::digest(raw)), size: raw.len() },
    };
    // Texts and a number: this cannot fail.
    serde_json::to_vec(&wrapper).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn says_what_can_be_a_leaf() {
        assert!(is_line(b"") && is_line("ä".as_bytes()) && is_line(&vec![b'x'; 65_535]));
        for bad in [&b"a\nb"[..], b"a\r", b"\xff", &vec![b'x'; 65_536]] {
            assert!(!is_line(bad));
        }
    }

    #[test]
    fn a_wrapper_is_one_fixed_line() {
        let line = wrap("events.reporting.a", b"a\nb");
        assert_eq!(
            String::from_utf8(line).unwrap(),
            r#"{"event_type":"message.wrapped","source":"audit-engine","version":"1.0","data":{"subject":"events.reporting.a","sha256":"7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78","size":3}}"#
        );
    }

    proptest! {
        #[test]
        fn a_wrapper_can_always_be_a_leaf(subject in "\\PC{0,600}", raw in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(is_line(&wrap(&stored_subject(&subject), &raw)));
        }

        #[test]
        fn stored_texts_have_no_nul_and_a_bound(text in ".{0,40}", most in 1usize..30) {
            let stored = storable(&text, most);
            prop_assert!(!stored.contains('\0') && stored.chars().count() <= most);
            prop_assert_eq!(storable(&stored, most), stored.clone());
        }
    }
}
