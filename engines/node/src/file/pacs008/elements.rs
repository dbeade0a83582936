//! The elements of a part of a message that are read, by their path within it; all others are passed over.

use std::collections::BTreeMap;
use std::io::Read;

use crate::file::xml::{BadXml, Step, Xml};

/// Bytes of a text that are kept: more than any element that is read may have.
const MAX_TEXT: usize = 1024;

/// What is known of a part of a message.
pub struct Known {
    /// Paths that are read, as `PmtId/UETR`, and attributes, as `IntrBkSttlmAmt/@Ccy`.
    pub read: &'static [&'static str],
    /// Paths that may not stand there, and why.
    pub refused: &'static [(&'static str, &'static str)],
}

/// What is wrong with an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The element.
    pub path: &'static str,
    /// Its line; that of the part where the element is missing.
    pub line: u64,
    /// What is wrong, with the value and what to do.
    pub why: String,
}

#[derive(Debug)]
struct Value {
    text: String,
    line: u64,
}

/// The elements of one part.
#[derive(Debug)]
pub struct Elements {
    line: u64,
    values: BTreeMap<&'static str, Value>,
    finding: Option<Finding>,
}

/// A text that is being read.
struct Reading {
    path: &'static str,
    depth: usize,
    value: Value,
}

impl Elements {
    /// Reads the part whose element has just been opened, up to its end. Only elements of the namespace count.
    pub fn read<R: Read>(xml: &mut Xml<R>, namespace: &str, known: &Known) -> Result<Self, BadXml> {
        let (start, depth) = (xml.path().len() + 1, xml.depth());
        let mut elements = Self { line: xml.line(), values: BTreeMap::new(), finding: None };
        let (mut reading, mut foreign) = (None::<Reading>, None::<usize>);
        loop {
            let step = xml.step()?;
            match (step, foreign) {
                (Step::Close, Some(since)) if since == xml.depth() => foreign = None,
                (_, Some(_)) => {}
                (Step::Open, None) => {
                    foreign = (xml.namespace() != namespace).then_some(xml.depth());
                    if let Some(Reading { path, .. }) = &reading {
                        elements.note(path, xml.line(), "has elements inside: only text may stand there");
                    } else if foreign.is_none() {
                        reading = elements.begin(xml, &xml.path()[start..], known);
                    }
                }
                (Step::Text, None) => {
                    if let Some(reading) = reading.as_mut().filter(|reading| reading.depth == xml.depth()) {
                        let room = MAX_TEXT.saturating_sub(reading.value.text.len());
                        reading.value.text.extend(xml.text().chars().take(room));
                    }
                }
                (Step::Close, None) if xml.depth() == depth => return Ok(elements),
                (Step::Close, None) => {
                    if let Some(Reading { path, value, .. }) = reading.take_if(|reading| reading.depth == xml.depth()) {
                        elements.keep(path, value);
                    }
                }
                (Step::End, None) => return Err(BadXml::CutOff("the end of the message".into())),
            }
        }
    }

    /// An element within begins.
    fn begin<R: Read>(&mut self, xml: &Xml<R>, found: &str, known: &Known) -> Option<Reading> {
        if let Some((path, why)) = known.refused.iter().find(|(path, _)| *path == found) {
            self.note(path, xml.line(), why);
        }
        let path = known.read.iter().find(|path| **path == found)?;
        for attribute in known.read.iter().filter_map(|other| other.strip_prefix(path)?.strip_prefix("/@")) {
            let whole = known.read.iter().find(|other| other.ends_with(attribute) && other.starts_with(path));
            if let Some((whole, text)) = whole.zip(xml.attribute(attribute)) {
                self.keep(whole, Value { text: text.chars().take(MAX_TEXT).collect(), line: xml.line() });
            }
        }
        Some(Reading { path, depth: xml.depth(), value: Value { text: String::new(), line: xml.line() } })
    }

    fn keep(&mut self, path: &'static str, value: Value) {
        let line = value.line;
        if self.values.insert(path, value).is_some() {
            self.note(path, line, "stands twice: once is allowed");
        }
    }

    /// The first finding stays.
    fn note(&mut self, path: &'static str, line: u64, why: &str) {
        self.finding.get_or_insert_with(|| Finding { path, line, why: why.to_owned() });
    }

    /// The line where the part begins.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// What is wrong with the elements themselves.
    ///
    /// # Errors
    /// The first finding.
    pub fn sound(&self) -> Result<(), Finding> {
        self.finding.clone().map_or(Ok(()), Err)
    }

    /// The text of an element; empty where it is not there.
    pub fn text(&self, path: &str) -> &str {
        self.values.get(path).map_or("", |value| value.text.as_str())
    }

    /// Reads an element that must be there.
    ///
    /// # Errors
    /// Where it is missing, or cannot be read.
    pub fn required<T>(&self, path: &'static str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Finding> {
        let missing = || Finding { path, line: self.line, why: "is missing: it must be given".to_owned() };
        self.optional(path, read)?.ok_or_else(missing)
    }

    /// Reads an element where it is there.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn optional<T>(
        &self,
        path: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Finding> {
        let Some(value) = self.values.get(path) else { return Ok(None) };
        read(&value.text).map(Some).map_err(|why| Finding { path, line: value.line, why })
    }
}
