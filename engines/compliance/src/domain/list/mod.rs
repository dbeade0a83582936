//! Lists of names: what they hold, and how each source's files are read.
//!
//! Reading is all or nothing: a file with one part that is not understood is refused whole, with its line or
//! element, so that nobody is missed in silence.

pub mod country;
pub mod date;
mod ofac;
mod operator;
mod remarks;
mod un;

use std::collections::BTreeMap;

use any_ascii::any_ascii_char;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

pub use date::BirthDate;

/// The largest list, over all its files, in bytes.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The longest name, in characters.
pub const MAX_NAME: usize = 350;

/// Who keeps a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The Office of Foreign Assets Control: the SDN list, or another list in the same layout.
    Ofac,
    /// The consolidated list of the Security Council of the United Nations.
    Un,
    /// The operator's own.
    Operator,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 3] = [Self::Ofac, Self::Un, Self::Operator];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ofac => "ofac",
            Self::Un => "un",
            Self::Operator => "operator",
        }
    }

    /// The source of a word; `None` where there is no such word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == word)
    }

    /// The files of which a list of this source may consist, in the order in which they are hashed. The first is
    /// necessary.
    pub const fn files(self) -> &'static [&'static str] {
        match self {
            Self::Ofac => &["sdn.csv", "alt.csv", "add.csv"],
            Self::Un => &["consolidated.xml"],
            Self::Operator => &["names.txt"],
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A natural person.
    Person,
    /// A company, group or body.
    Entity,
    /// A ship.
    Vessel,
    /// An aircraft.
    Aircraft,
    /// The list does not tell.
    Unknown,
}

impl EntryKind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Entity => "entity",
            Self::Vessel => "vessel",
            Self::Aircraft => "aircraft",
            Self::Unknown => "unknown",
        }
    }
}

/// What a name is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// The entry's first name in the list.
    Primary,
    /// Another name that the list stands by.
    Strong,
    /// A name that was borne once.
    Former,
    /// A name that is broad, common or only sometimes used: it never blocks by itself.
    Weak,
}

impl Quality {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Strong => "strong",
            Self::Former => "former",
            Self::Weak => "weak",
        }
    }
}

/// A name of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedName {
    /// As the list writes it.
    pub name: String,
    /// What it is worth.
    pub quality: Quality,
}

/// The kinds of identifiers that decide by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdKind {
    /// A passport.
    Passport,
    /// A national identity card or number.
    NationalId,
    /// A tax number.
    TaxId,
    /// The number of a company in a register.
    Registration,
    /// Legal entity identifier, ISO 17442.
    Lei,
    /// Business identifier code, ISO 9362; its first eight characters count.
    Bic,
    /// A ship's number with the International Maritime Organization.
    Imo,
    /// An address of a virtual currency.
    Wallet,
}

impl IdKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Passport,
        Self::NationalId,
        Self::TaxId,
        Self::Registration,
        Self::Lei,
        Self::Bic,
        Self::Imo,
        Self::Wallet,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passport => "passport",
            Self::NationalId => "national_id",
            Self::TaxId => "tax_id",
            Self::Registration => "registration",
            Self::Lei => "lei",
            Self::Bic => "bic",
            Self::Imo => "imo",
            Self::Wallet => "wallet",
        }
    }

    /// The kind of a word, in any case and with blanks or dashes; `None` where it is none of them.
    pub fn from_word(word: &str) -> Option<Self> {
        let word: String =
            word.trim().chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
        let same = |kind: &Self| kind.as_str() == word;
        Self::ALL.into_iter().find(same).or(match word.as_str() {
            "passport_number" | "passport_no" => Some(Self::Passport),
            "national_id_number" | "identity_card" | "id" => Some(Self::NationalId),
            "tax" | "tin" | "vat" | "tax_id_number" => Some(Self::TaxId),
            "registration_number" | "company_number" => Some(Self::Registration),
            "swift" | "swift_bic" | "bicfi" => Some(Self::Bic),
            "imo_number" => Some(Self::Imo),
            "crypto" | "crypto_address" | "wallet_address" | "digital_currency_address" => Some(Self::Wallet),
            _ => None,
        })
    }
}

/// An identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identifier {
    /// What it identifies by.
    pub kind: IdKind,
    /// As it was written.
    pub value: String,
    /// ISO 3166-1 alpha-2 of who issued it, where known.
    pub country: Option<String>,
}

impl Identifier {
    /// The form in which two identifiers of a kind are compared; `None` where there is too little of it to decide
    /// anything by: fewer than five characters.
    pub fn key(&self) -> Option<String> {
        id_key(self.kind, &self.value)
    }
}

/// See [`Identifier::key`].
pub fn id_key(kind: IdKind, value: &str) -> Option<String> {
    let value = value.trim();
    let key: String = match kind {
        // Base58 tells capital letters from small ones, hexadecimal and bech32 do not.
        IdKind::Wallet if !["0x", "0X", "bc1", "BC1"].iter().any(|prefix| value.starts_with(prefix)) => {
            value.to_owned()
        }
        // Digits and letters of any script: a number in Arabic digits is the same number.
        _ => value
            .nfkc()
            .flat_map(|c| any_ascii_char(c).chars())
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_uppercase())
            .collect(),
    };
    let key = match kind {
        IdKind::Bic => key.chars().take(8).collect(),
        IdKind::Imo => key.trim_start_matches("IMO").to_owned(),
        _ => key,
    };
    (key.len() >= 5).then_some(key)
}

/// Somebody or something on a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id in the list.
    pub id: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its names; the first is the primary one.
    pub names: Vec<ListedName>,
    /// ISO 3166-1 alpha-2 of nationality, citizenship, residence, seat or flag, sorted.
    pub countries: Vec<String>,
    /// Dates of birth; more than one where the list is not sure.
    pub born: Vec<BirthDate>,
    /// Its strong identifiers.
    pub identifiers: Vec<Identifier>,
}

impl Entry {
    /// An entry with its primary name.
    pub(crate) fn new(id: String, kind: EntryKind, primary: String) -> Self {
        Self {
            id,
            kind,
            names: vec![ListedName { name: primary, quality: Quality::Primary }],
            countries: Vec::new(),
            born: Vec::new(),
            identifiers: Vec::new(),
        }
    }

    /// The name by which the list calls it first.
    pub fn primary(&self) -> &str {
        self.names.first().map_or("", |name| name.name.as_str())
    }

    /// Adds a name unless it is there, or has nothing to compare.
    fn also(&mut self, name: &str, quality: Quality) {
        let name = name.trim();
        if !name.is_empty() && !self.names.iter().any(|known| known.name == name) {
            self.names.push(ListedName { name: name.to_owned(), quality });
        }
    }

    fn of_country(&mut self, name: &str) {
        if let Some(code) = country::code_of(name)
            && let Err(place) = self.countries.binary_search_by(|known| known.as_str().cmp(code))
        {
            self.countries.insert(place, code.to_owned());
        }
    }

    fn born_on(&mut self, date: BirthDate) {
        if !self.born.contains(&date) {
            self.born.push(date);
        }
    }

    fn identified_by(&mut self, identifier: Identifier) {
        if !self.identifiers.contains(&identifier) {
            self.identifiers.push(identifier);
        }
    }
}

/// A list as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Who keeps it.
    pub source: Source,
    /// SHA-256 of the content (see [`version_of`]), in hexadecimal.
    pub version: String,
    /// The day or moment that the list itself says it is of.
    pub dated: Option<String>,
    /// Its entries, in the list's order.
    pub entries: Vec<Entry>,
}

impl List {
    /// How many entries it has.
    pub fn names(&self) -> usize {
        self.entries.len()
    }

    /// How many further names the entries have.
    pub fn aliases(&self) -> usize {
        self.entries.iter().map(|entry| entry.names.len().saturating_sub(1)).sum()
    }
}

/// The files of a list by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Why a list was refused. No message has a name of the list in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A necessary file is missing.
    #[error("the file {0} is missing")]
    NoFile(&'static str),
    /// A file that is not part of such a list.
    #[error("{file:?} is not a file of such a list: expected {expected}")]
    UnknownFile {
        /// Its name, cut.
        file: String,
        /// Those that are.
        expected: String,
    },
    /// The files are too large.
    #[error("{0} bytes are too many: at most {MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// Something at a line is not understood.
    #[error("{file} line {line}: {what}")]
    Line {
        /// The file.
        file: &'static str,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// Something at an element is not understood.
    #[error("{file} {element}: {what}")]
    Element {
        /// The file.
        file: &'static str,
        /// The element, with the id of what it belongs to where known.
        element: String,
        /// What is wrong.
        what: String,
    },
    /// There is no name in it.
    #[error("{0} has no names: an empty list is not accepted")]
    Empty(&'static str),
}

/// Reads a list.
///
/// # Errors
/// What is wrong, with file and line or element.
pub fn parse(source: Source, files: &Files) -> Result<List, ListError> {
    let known = source.files();
    if let Some(file) = files.keys().find(|file| !known.contains(&file.as_str())) {
        return Err(ListError::UnknownFile { file: file.chars().take(64).collect(), expected: known.join(", ") });
    }
    let size: usize = files.values().map(Vec::len).sum();
    if size > MAX_BYTES {
        return Err(ListError::TooLarge(size));
    }
    let file = |name: &str| files.get(name).map(Vec::as_slice);
    let first = file(known[0]).ok_or(ListError::NoFile(known[0]))?;
    let (entries, dated) = match source {
        Source::Operator => (operator::parse(first)?, None),
        Source::Ofac => (ofac::parse(first, file("alt.csv"), file("add.csv"))?, None),
        Source::Un => un::parse(first)?,
    };
    if entries.is_empty() {
        return Err(ListError::Empty(known[0]));
    }
    Ok(List { source, version: version_of(source, files), dated, entries })
}

/// The version of a list. Of one file it is the SHA-256 of its bytes. Of several it is the SHA-256 over, for each
/// file that is there in the order of [`Source::files`]: its name, a zero byte, its length in eight bytes
/// (big-endian), its bytes.
pub fn version_of(source: Source, files: &Files) -> String {
    let known = source.files();
    let mut hash = Sha256::new();
    for name in known {
        let Some(content) = files.get(*name) else { continue };
        if known.len() > 1 {
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update((content.len() as u64).to_be_bytes());
        }
        hash.update(content);
    }
    hex::encode(hash.finalize())
}

/// Checks the length and the characters of a name.
fn check_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if length > MAX_NAME {
        return Err(format!("the name has {length} characters: at most {MAX_NAME} are allowed"));
    }
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        return Err(format!("the name contains the control character {}", u32::from(control)));
    }
    if super::name::normalise(name).is_empty() {
        return Err("the name has neither letter nor digit".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_covers_names_lengths_and_contents() {
        let one = |content: &[u8]| Files::from([("names.txt".to_owned(), content.to_vec())]);
        assert_eq!(
            version_of(Source::Operator, &one(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let two = |sdn: &[u8], alt: &[u8]| {
            version_of(Source::Ofac, &Files::from([("sdn.csv".into(), sdn.to_vec()), ("alt.csv".into(), alt.to_vec())]))
        };
        assert_ne!(two(b"ab", b"c"), two(b"a", b"bc"));
        assert_ne!(two(b"a", b""), version_of(Source::Ofac, &Files::from([("sdn.csv".into(), b"a".to_vec())])));
    }

    #[test]
    fn files_are_those_of_the_source() {
        let files = Files::from([("evil.csv".to_owned(), Vec::new())]);
        assert!(matches!(parse(Source::Ofac, &files), Err(ListError::UnknownFile { .. })));
        assert_eq!(parse(Source::Ofac, &Files::new()), Err(ListError::NoFile("sdn.csv")));
        let files = Files::from([("names.txt".to_owned(), vec![b'a'; MAX_BYTES + 1])]);
        assert_eq!(parse(Source::Operator, &files), Err(ListError::TooLarge(MAX_BYTES + 1)));
    }

    #[test]
    fn identifiers_are_compared_without_their_punctuation() {
        for (kind, value, key) in [
            (IdKind::Passport, " ab-12 34.5 ", Some("AB12345")),
            (IdKind::Passport, "1234", None),
            (IdKind::Passport, "١٢٣٤٥٦", Some("123456")),
            (IdKind::Passport, "ＡＢ１２３４５", Some("AB12345")),
            (IdKind::NationalId, "МР 1234567", Some("MR1234567")),
            (IdKind::Bic, "BKIDIRTH123", Some("BKIDIRTH")),
            (IdKind::Imo, "IMO 9187629", Some("9187629")),
            (IdKind::Wallet, "0xABcdEF12", Some("0XABCDEF12")),
            (IdKind::Wallet, "1AbCdEf", Some("1AbCdEf")),
        ] {
            assert_eq!(id_key(kind, value).as_deref(), key, "{value}");
        }
        assert_eq!(IdKind::from_word("Passport Number"), Some(IdKind::Passport));
        assert_eq!(IdKind::from_word("shoe size"), None);
        for kind in IdKind::ALL {
            assert_eq!(IdKind::from_word(kind.as_str()), Some(kind));
        }
    }
}
