//! An operator's list of names.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::normalise::{forms, may_be_inverted, normalise};

/// The one source that is understood.
pub const OPERATOR: &str = "operator";

/// The largest list, in bytes.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The longest name of a list, in characters.
pub const MAX_NAME: usize = 300;

/// Why a list was not taken. Nothing of it is in use then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// More than [`MAX_BYTES`].
    #[error("the list has {0} bytes: at most {MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// Bytes that are no UTF-8, such as Latin-1.
    #[error("line {0} is not UTF-8: convert the file (Latin-1 is not accepted)")]
    NotUtf8(usize),
    /// A control character, which a decoding mistake or a binary file leaves.
    #[error("line {line} contains the control character U+{code:04X}")]
    Control {
        /// Counted from 1.
        line: usize,
        /// The character.
        code: u32,
    },
    /// A name longer than [`MAX_NAME`].
    #[error("line {line} has {length} characters: at most {MAX_NAME} are allowed")]
    TooLong {
        /// Counted from 1.
        line: usize,
        /// Its length in characters.
        length: usize,
    },
    /// A line that is no comment and has neither letter nor digit: it could match nothing.
    #[error("line {0} has neither letter nor digit: remove it, or begin it with #")]
    NoName(usize),
    /// No name at all: it would let everything pass.
    #[error("the list has no names (last line {0}): an empty list would let everything pass")]
    Empty(usize),
}

/// A list that can be searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameList {
    version: String,
    names: u32,
    forms: HashSet<String>,
}

impl NameList {
    /// Reads a list: UTF-8, one name a line; blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`ListError`] with the first line that is wrong: a list is taken whole or not at all.
    pub fn parse(content: &[u8]) -> Result<Self, ListError> {
        if content.len() > MAX_BYTES {
            return Err(ListError::TooLarge(content.len()));
        }
        let text = std::str::from_utf8(content).map_err(|e| {
            let good = content.get(..e.valid_up_to()).unwrap_or_default();
            ListError::NotUtf8(1 + good.iter().filter(|byte| **byte == b'\n').count())
        })?;
        let mut forms_of_names = HashSet::new();
        let (mut names, mut last) = (0, 0);
        for (line, text) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
            last = line;
            if let Some(control) = text.chars().find(|c| c.is_control()) {
                return Err(ListError::Control { line, code: u32::from(control) });
            }
            let name = text.trim();
            if name.is_empty() || name.starts_with('#') {
                continue;
            }
            let length = name.chars().count();
            if length > MAX_NAME {
                return Err(ListError::TooLong { line, length });
            }
            let forms = forms(name);
            if forms.is_empty() {
                return Err(ListError::NoName(line));
            }
            forms_of_names.extend(forms);
            names += 1;
        }
        if names == 0 {
            return Err(ListError::Empty(last));
        }
        Ok(Self { version: version_of(content), names, forms: forms_of_names })
    }

    /// SHA-256 of the content, in hexadecimal.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How many lines are names.
    pub fn names(&self) -> u32 {
        self.names
    }

    /// Whether a name stands on the list, in any of its forms. `None` where the name has neither
    /// letter nor digit, so that nothing can be said.
    pub fn contains(&self, name: &str) -> Option<bool> {
        let plain = normalise(name);
        if plain.is_empty() {
            return None;
        }
        let inverted = || may_be_inverted(name) && forms(name).iter().any(|form| self.forms.contains(form));
        Some(self.forms.contains(&plain) || inverted())
    }
}

/// SHA-256 of a list's content, in hexadecimal.
pub fn version_of(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blanks_are_skipped() {
        let list =
            NameList::parse(b"\xef\xbb\xbf# comment\r\n\r\nVostok Shadow Trading LLC\r\n  # another\nEXAMPLE, Ivan\n")
                .unwrap();
        assert_eq!(list.names(), 2);
        for hit in ["vostok shadow trading, llc", "Ivan Example", "example ivan", "EXAMPLE, IVAN"] {
            assert_eq!(list.contains(hit), Some(true), "{hit}");
        }
        for miss in ["Vostok", "Vostok Shadow Trading", "Ivan", "comment", "another"] {
            assert_eq!(list.contains(miss), Some(false), "{miss}");
        }
        assert_eq!(list.contains("--"), None);
    }

    #[test]
    fn a_bad_list_is_refused_with_its_line() {
        let long = format!("A\n{}\n", "x".repeat(301));
        for (content, error) in [
            (&b""[..], ListError::Empty(0)),
            (b"# nothing\n\n", ListError::Empty(2)),
            (b"Good\nM\xfcller\n", ListError::NotUtf8(2)),
            (b"Good\n\nA\x00B\n", ListError::Control { line: 3, code: 0 }),
            (b"A\tB\n", ListError::Control { line: 1, code: 9 }),
            ("Good\nM\u{85}ller".as_bytes(), ListError::Control { line: 2, code: 0x85 }),
            (b"Good\n***\n", ListError::NoName(2)),
            (long.as_bytes(), ListError::TooLong { line: 2, length: 301 }),
        ] {
            assert_eq!(NameList::parse(content), Err(error));
        }
        assert!(matches!(NameList::parse(&vec![b'a'; MAX_BYTES + 1]), Err(ListError::TooLarge(_))));
    }

    #[test]
    fn a_full_width_comma_is_one() {
        let list = NameList::parse("Ivan Example".as_bytes()).unwrap();
        assert_eq!(list.contains("Example，Ivan"), Some(true));
    }

    #[test]
    fn the_version_is_the_hash_of_the_content() {
        let list = NameList::parse(b"abc").unwrap();
        assert_eq!(list.version(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_ne!(NameList::parse(b"abc\n").unwrap().version(), list.version());
    }

    #[test]
    fn the_list_that_ships_is_good() {
        let list = NameList::parse(crate::BUNDLED_LIST).unwrap();
        assert!(list.names() >= 20);
        for name in ["Vostok Shadow Trading LLC", "Ivan Petrovich Example", "EXAMPLE, IVAN PETROVICH"] {
            assert_eq!(list.contains(name), Some(true), "{name}");
        }
    }
}
