//! XML as far as a message needs it: elements, namespaces and text from a stream, in flat memory.
//!
//! UTF-8 only. What makes a parser do more than read is refused: document types, and with them every entity but the five
//! of XML itself; nesting deeper than [`MAX_DEPTH`]; a tag, text or comment longer than [`MAX_TOKEN`].

use std::io::{self, BufRead, BufReader, Read};

use quick_xml::errors::{Error, IllFormedError, SyntaxError};
use quick_xml::escape::{EscapeError, resolve_xml_entity};
use quick_xml::events::{BytesDecl, BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::{NsReader, XmlVersion};

/// The longest tag, text or comment that is read, in bytes.
pub const MAX_TOKEN: usize = 64 * 1024;
/// The deepest nesting that is read.
pub const MAX_DEPTH: usize = 64;
const MAX_ATTRIBUTES: usize = 64;
/// Characters of a name that are kept: no element of ISO 20022 has as many.
const MAX_NAME: usize = 64;
const READ_AHEAD: usize = 256 * 1024;

/// Why a file is no XML that is read here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadXml {
    /// The bytes cannot be had.
    #[error("it cannot be read: {0}")]
    Io(String),
    /// Another encoding, by its first bytes or its declaration.
    #[error("the encoding is {0}: only UTF-8 is read, so convert the file")]
    Encoding(String),
    /// Declared as UTF-8 and not so.
    #[error("there are bytes that are not UTF-8: save the file as UTF-8")]
    NotUtf8,
    /// Another version of XML.
    #[error("XML {0} is not read: only XML 1.0 is")]
    Version(String),
    /// A document type, the place where entities are declared.
    #[error("a DOCTYPE is refused, and so are the entities that it may declare: send the message without it")]
    DocumentType,
    /// An entity that XML does not define by itself.
    #[error("entity &{0}; is refused: only &lt; &gt; &amp; &apos; &quot; and character references are read")]
    Entity(String),
    /// A character that XML does not allow, by reference.
    #[error("&{0}; is no character that XML allows")]
    Character(String),
    /// A token without end.
    #[error("a tag, text or comment is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Nesting without end.
    #[error("elements are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// More attributes than any message has.
    #[error("an element has more than {MAX_ATTRIBUTES} attributes")]
    TooManyAttributes,
    /// A prefix that stands for nothing.
    #[error("prefix {0:?} is not bound to a namespace")]
    Prefix(String),
    /// Text where only elements may stand.
    #[error("there is text outside of the root element")]
    Stray,
    /// A second root element.
    #[error("there is a second root element")]
    SecondRoot,
    /// The file ends within the message.
    #[error("the file ends before {0}: it was cut off")]
    CutOff(String),
    /// Whatever else is against the grammar.
    #[error("it is not well-formed XML: {0}")]
    Malformed(String),
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An element begins.
    Open,
    /// Text of the element that is open; there may be several in a row.
    Text,
    /// The element that is open ends.
    Close,
    /// The file has ended after its root element.
    End,
}

/// Reads step by step. What belongs to a step is asked for by name until the next one.
pub struct Xml<R> {
    reader: NsReader<Bounded<R>>,
    buffer: Vec<u8>,
    line: u64,
    path: String,
    starts: Vec<usize>,
    closing: bool,
    begun: bool,
    rooted: bool,
    namespace: String,
    attributes: Vec<(String, String)>,
    text: String,
}

impl<R: Read> Xml<R> {
    /// Reads from the beginning.
    pub fn new(reader: R) -> Self {
        let mut reader = NsReader::from_reader(Bounded::new(reader));
        reader.config_mut().expand_empty_elements = true;
        Self {
            reader,
            buffer: Vec::new(),
            line: 1,
            path: String::new(),
            starts: Vec::new(),
            closing: false,
            begun: false,
            rooted: false,
            namespace: String::new(),
            attributes: Vec::new(),
            text: String::new(),
        }
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.reader.get_ref().bytes
    }

    /// The line on which the step begins, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Names from the root to the element that is open: `/Document/FIToFICstmrCdtTrf`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// How many elements are open.
    pub fn depth(&self) -> usize {
        self.starts.len()
    }

    /// Local name of the element that is open.
    pub fn name(&self) -> &str {
        self.starts.last().map_or("", |start| &self.path[start + 1..])
    }

    /// Namespace of the element that has just been opened; empty where it has none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// An attribute without namespace of the element that has just been opened.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text of a step of text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes that are held besides the read-ahead.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.buffer.capacity() + self.path.capacity() + self.text.capacity() + self.namespace.capacity()
    }

    /// The next step.
    ///
    /// # Errors
    /// [`BadXml`]; there is nothing to go on with then.
    pub fn step(&mut self) -> Result<Step, BadXml> {
        if std::mem::take(&mut self.closing)
            && let Some(start) = self.starts.pop()
        {
            self.path.truncate(start);
        }
        if !self.begun {
            self.reader.get_mut().refuse_other_encodings()?;
        }
        loop {
            self.buffer.clear();
            let bounded = self.reader.get_mut();
            bounded.budget = MAX_TOKEN;
            self.line = bounded.line;
            let event = match self.reader.read_event_into(&mut self.buffer) {
                Ok(event) => event,
                Err(error) => return Err(self.reader.get_ref().why(error, &self.path)),
            };
            let first = !std::mem::replace(&mut self.begun, true);
            self.text.clear();
            match event {
                Event::Decl(declaration) if first => check(&declaration)?,
                Event::Decl(_) => {
                    return Err(BadXml::Malformed("the XML declaration is not at the very beginning".into()));
                }
                Event::DocType(_) => return Err(BadXml::DocumentType),
                Event::Comment(_) | Event::PI(_) => {}
                Event::Start(tag) | Event::Empty(tag) => {
                    if self.starts.is_empty() && std::mem::replace(&mut self.rooted, true) {
                        return Err(BadXml::SecondRoot);
                    }
                    if self.starts.len() >= MAX_DEPTH {
                        return Err(BadXml::TooDeep);
                    }
                    self.namespace.clear();
                    let (namespace, local) = self.reader.resolver().resolve_element(tag.name());
                    match namespace {
                        ResolveResult::Bound(bound) => self.namespace.push_str(bound.0),
                        ResolveResult::Unbound => {}
                        ResolveResult::Unknown(prefix) => return Err(BadXml::Prefix(shortened(&prefix))),
                    }
                    self.starts.push(self.path.len());
                    self.path.push('/');
                    self.path.extend(local.as_ref().chars().take(MAX_NAME));
                    attributes(&tag, &mut self.attributes)?;
                    return Ok(Step::Open);
                }
                Event::End(_) => {
                    self.closing = true;
                    return Ok(Step::Close);
                }
                Event::Text(text) => self.text.push_str(&text.xml10_content()),
                Event::CData(text) => self.text.push_str(&text.xml10_content()),
                Event::GeneralRef(name) if name.is_char_ref() => {
                    let character = name.resolve_char_ref().ok().flatten().filter(|c| allowed(*c));
                    self.text.push(character.ok_or_else(|| BadXml::Character(shortened(&name)))?);
                }
                Event::GeneralRef(name) => {
                    self.text.push_str(resolve_xml_entity(&name).ok_or_else(|| BadXml::Entity(shortened(&name)))?);
                }
                Event::Eof => {
                    return if !self.starts.is_empty() {
                        Err(BadXml::CutOff(format!("</{}>", self.name())))
                    } else if self.rooted {
                        Ok(Step::End)
                    } else {
                        Err(BadXml::CutOff("its first element".into()))
                    };
                }
            }
            match (self.text.is_empty(), self.starts.is_empty()) {
                (true, _) => {}
                (false, true) if self.text.bytes().all(|b| b.is_ascii_whitespace()) => {}
                (false, true) => return Err(BadXml::Stray),
                (false, false) => return Ok(Step::Text),
            }
        }
    }
}

fn check(declaration: &BytesDecl<'_>) -> Result<(), BadXml> {
    let malformed = |e: &dyn std::fmt::Display| BadXml::Malformed(e.to_string());
    let version = declaration.version().map_err(|e| malformed(&e))?;
    if version != "1.0" {
        return Err(BadXml::Version(shortened(&version)));
    }
    match declaration.encoding().transpose().map_err(|e| malformed(&e))? {
        Some(encoding) if !encoding.eq_ignore_ascii_case("UTF-8") => Err(BadXml::Encoding(shortened(&encoding))),
        _ => Ok(()),
    }
}

/// Takes over the attributes of a tag that are no namespaces; all of them are checked.
fn attributes(tag: &BytesStart<'_>, into: &mut Vec<(String, String)>) -> Result<(), BadXml> {
    into.clear();
    for (place, attribute) in tag.attributes().enumerate() {
        let attribute = attribute.map_err(|e| BadXml::Malformed(e.to_string()))?;
        if place >= MAX_ATTRIBUTES {
            return Err(BadXml::TooManyAttributes);
        }
        let value = attribute.normalized_value(XmlVersion::Explicit1_0).map_err(|e| match e {
            Error::Escape(EscapeError::UnrecognizedEntity(_, name)) => BadXml::Entity(shortened(&name)),
            other => BadXml::Malformed(other.to_string()),
        })?;
        if !attribute.key.as_ref().contains(':') && attribute.key.as_ref() != "xmlns" {
            into.push((attribute.key.as_ref().to_owned(), value.into_owned()));
        }
    }
    Ok(())
}

/// As XML 1.0 says for `Char`.
fn allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// At most so much of a text as fits a message for people.
pub fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

/// A reader that counts lines and lets through no more than its budget.
struct Bounded<R> {
    inner: BufReader<R>,
    budget: usize,
    exhausted: bool,
    line: u64,
    bytes: u64,
}

impl<R: Read> Bounded<R> {
    fn new(reader: R) -> Self {
        let inner = BufReader::with_capacity(READ_AHEAD, reader);
        Self { inner, budget: MAX_TOKEN, exhausted: false, line: 1, bytes: 0 }
    }

    /// By the marks of UTF-16 and UTF-32, or by how they write `<`.
    fn refuse_other_encodings(&mut self) -> Result<(), BadXml> {
        let head = self.inner.fill_buf().map_err(|e| BadXml::Io(e.to_string()))?;
        let others = [[0xfe, 0xff], [0xff, 0xfe], [0x00, b'<'], [b'<', 0x00], [0x00, 0x00]];
        if others.iter().any(|other| head.starts_with(other)) {
            return Err(BadXml::Encoding("UTF-16 or UTF-32".into()));
        }
        Ok(())
    }

    /// What an error of the parser means here.
    fn why(&self, error: Error, path: &str) -> BadXml {
        match error {
            _ if self.exhausted => BadXml::TooLong,
            Error::Io(e) => BadXml::Io(e.to_string()),
            Error::Encoding(_) => BadXml::NotUtf8,
            Error::Syntax(SyntaxError::InvalidBangMarkup) => BadXml::Malformed("<! begins nothing known".into()),
            Error::Syntax(_) => {
                let within = path.rsplit('/').next().unwrap_or_default();
                BadXml::CutOff(if within.is_empty() { "its first element".into() } else { format!("</{within}>") })
            }
            Error::IllFormed(IllFormedError::MismatchedEndTag { expected, found }) => {
                BadXml::Malformed(format!("</{}> stands where </{}> is due", shortened(&found), shortened(&expected)))
            }
            Error::IllFormed(IllFormedError::UnclosedReference) => {
                BadXml::Malformed("an & begins no reference: write it as &amp;".into())
            }
            other => BadXml::Malformed(shortened(&other.to_string())),
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: Read> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.inner.fill_buf()?;
        if self.budget == 0 && !available.is_empty() {
            self.exhausted = true;
            return Err(io::Error::other("the token has no end"));
        }
        Ok(&available[..available.len().min(self.budget)])
    }

    fn consume(&mut self, used: usize) {
        let lines = self.inner.buffer()[..used].iter().filter(|byte| **byte == b'\n').count();
        self.line += lines as u64;
        self.bytes += used as u64;
        self.budget = self.budget.saturating_sub(used);
        self.inner.consume(used);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every step with its line, as text.
    fn steps(text: &[u8]) -> Result<Vec<String>, (BadXml, u64, String)> {
        let mut xml = Xml::new(text);
        let mut all = Vec::new();
        loop {
            let step = xml.step().map_err(|e| (e, xml.line(), xml.path().to_owned()))?;
            let what = match step {
                Step::Open => format!("{}{{{}}}{:?}", xml.path(), xml.namespace(), xml.attributes),
                Step::Text => format!("{:?}", xml.text()),
                Step::Close => format!("-{}", xml.path()),
                Step::End => {
                    assert_eq!(xml.bytes(), text.len() as u64);
                    return Ok(all);
                }
            };
            all.push(format!("{} {what}", xml.line()));
        }
    }

    #[test]
    fn elements_text_namespaces_and_lines() {
        let text = "\u{feff}<?xml version='1.0' encoding='utf-8'?>\n<!-- x -->\n<a xmlns='n' k='1 &amp; 2'>\n\
                    <p:b xmlns:p='m'/>A&lt;<![CDATA[&<]]>&#66;</a>\n";
        let expected = [
            r#"3 /a{n}[("k", "1 & 2")]"#,
            r#"3 "\n""#,
            "4 /a/b{m}[]",
            "4 -/a/b",
            r#"4 "A""#,
            r#"4 "<""#,
            r#"4 "&<""#,
            r#"4 "B""#,
            "4 -/a",
        ];
        assert_eq!(steps(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn what_is_refused_says_so() {
        let deep = "<a>".repeat(MAX_DEPTH + 1);
        let long_text = format!("<a>{}</a>", "x".repeat(MAX_TOKEN + 1));
        let long_tag = format!("<a k='{}'/>", "x".repeat(MAX_TOKEN));
        let long_comment = format!("<a><!--{}--></a>", "x".repeat(MAX_TOKEN));
        let wide: String = (0..=MAX_ATTRIBUTES).map(|n| format!(" k{n}=''")).collect();
        let wide = format!("<a{wide}/>");
        let bomb = "<!DOCTYPE a [<!ENTITY b '&c;&c;'><!ENTITY c 'xx'>]><a>&b;</a>";
        let rows: &[(&[u8], &str)] = &[
            (b"", "the file ends before its first element"),
            (b" \n", "the file ends before its first element"),
            (b"<a><b></b>", "the file ends before </a>"),
            (b"<a><b", "the file ends before </a>"),
            (b"<a><!-- ", "the file ends before </a>"),
            (b"<a>&am", "&amp;"),
            (b"<a></b></a>", "</b> stands where </a> is due"),
            (b"<a/><b/>", "second root"),
            (b"<a/>x", "text outside"),
            (b"x<a/>", "text outside"),
            (b"<a k='1' k='2'/>", "not well-formed"),
            (b"<a k/>", "not well-formed"),
            (b"<p:a/>", "prefix \"p\""),
            (b"<a>1 & 2</a>", "&amp;"),
            (b"<a>&nbsp;</a>", "entity &nbsp; is refused"),
            (b"<a k='&nbsp;'/>", "entity &nbsp; is refused"),
            (b"<a>&#0;</a>", "&#0; is no character"),
            (b"<a>&#x1F;</a>", "&#x1F; is no character"),
            (b"<a>&#xD800;</a>", "&#xD800; is no character"),
            (b"<a>&#99999999999;</a>", "is no character"),
            (bomb.as_bytes(), "DOCTYPE"),
            (b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "DOCTYPE"),
            (b"<!doctype a><a/>", "DOCTYPE"),
            (b"<?xml version='1.1'?><a/>", "XML 1.1"),
            (b" <?xml version='1.0'?><a/>", "not at the very beginning"),
            (b"<?xml version='1.0' encoding='ISO-8859-1'?><a/>", "the encoding is ISO-8859-1"),
            (b"\xff\xfe<\0a\0", "the encoding is UTF-16 or UTF-32"),
            (b"\0<\0a", "the encoding is UTF-16 or UTF-32"),
            (b"<a>caf\xe9</a>", "not UTF-8"),
            (deep.as_bytes(), "nested deeper than 64"),
            (long_text.as_bytes(), "longer than 65536 bytes"),
            (long_tag.as_bytes(), "longer than 65536 bytes"),
            (long_comment.as_bytes(), "longer than 65536 bytes"),
            (wide.as_bytes(), "more than 64 attributes"),
        ];
        for (text, why) in rows {
            let (bad, ..) = steps(text).unwrap_err();
            let start = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
            assert!(bad.to_string().contains(why), "{start}: {bad}");
        }
        assert_eq!(steps(b"<a>\n<b>\n&x;").unwrap_err(), (BadXml::Entity("x".into()), 3, "/a/b".into()));
    }

    proptest! {
        #[test]
        fn no_input_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _steps_or_finding = steps(&bytes);
        }

        #[test]
        fn nothing_like_xml_breaks_it(text in "(<[a-c/!?]|>|[a-c]|=|'|\"|&|;|#|\\[|\\]|-| |\n){0,80}") {
            let _steps_or_finding = steps(text.as_bytes());
        }
    }
}
