//! ISO 20022 pacs.008, FIToFICustomerCreditTransfer, versions 08 to 12, transaction by transaction.
//!
//! The message is the element `Document` of its namespace, by itself or in a wrapper (`BizMsgEnvlp`, `AppHdr` and the
//! like, which are not read); one message a file. What a transaction becomes is in [`transaction`], what is compared before
//! anything is handed on in [`header`], and the two passes in [`checked`].

mod checked;
mod elements;
#[cfg(test)]
pub mod fixtures;
mod header;
#[cfg(test)]
mod tests;
mod transaction;

use std::io::Read;

use deltran_api::token::v1::SettlementModel;

pub use self::checked::Checked;
use self::elements::{Elements, Finding};
use self::header::{Header, Totals};
use super::lane::Item;
use super::report::RefusedLine;
use super::source::{MALFORMED, Parsed, Position};
use super::xml::{BadXml, Step, Xml, shortened};

const NAMESPACES: &str = "urn:iso:std:iso:20022:tech:xsd:";
const VERSIONS: [&str; 5] =
    ["pacs.008.001.08", "pacs.008.001.09", "pacs.008.001.10", "pacs.008.001.11", "pacs.008.001.12"];
const DOCUMENT: &str = "/Document";
const MESSAGE: &str = "FIToFICstmrCdtTrf";
const HEADER: &str = "GrpHdr";
const TRANSACTION: &str = "CdtTrfTxInf";
/// Where header and transactions stand.
const WITHIN: &str = "/Document/FIToFICstmrCdtTrf";

/// The path of a transaction by its number, from 1.
pub fn transaction_path(number: u64) -> String {
    format!("{WITHIN}/{TRANSACTION}[{number}]")
}

/// Why a message cannot be used at all, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {path}{}{why}", if path.is_empty() { "" } else { ": " })]
pub struct BadMessage {
    /// The line, from 1.
    pub line: u64,
    /// The element; empty before the first one.
    pub path: String,
    /// What is wrong, with the value and what to do.
    pub why: String,
}

/// A transaction as its elements say.
#[derive(Debug)]
pub struct Transaction {
    number: u64,
    elements: Elements,
}

impl Transaction {
    /// What it asks for, or why it cannot be used.
    fn parsed(&self, header: &Header, model: SettlementModel) -> Parsed {
        let position = Position { line: self.elements.line(), transaction: Some(self.number) };
        match transaction::instruction(&self.elements, header, model) {
            Ok(instruction) => Ok(Item { position, instruction }),
            Err(Finding { path, line, why }) => Err(RefusedLine {
                line,
                end_to_end_id: transaction::shown_id(&self.elements),
                reason: MALFORMED.to_owned(),
                message: format!("{}/{path}: {why}", transaction_path(self.number)),
            }),
        }
    }
}

/// A message that is being read: its header first, then a transaction at a time.
pub struct Message<R> {
    xml: Xml<R>,
    namespace: String,
    /// Length of the path to `Document`.
    wrapped: usize,
    header: Header,
    totals: Totals,
}

impl<R: Read> Message<R> {
    /// Reads up to the end of the header.
    ///
    /// # Errors
    /// Another message or version, a header that lacks something or says what is not done here, or no XML.
    pub fn open(reader: R) -> Result<Self, BadMessage> {
        let (header, totals) = (Header::default(), Totals::default());
        let mut message = Self { xml: Xml::new(reader), namespace: String::new(), wrapped: 0, header, totals };
        loop {
            match message.step()? {
                Step::Open if message.xml.name() == &DOCUMENT[1..] => break,
                Step::End => return Err(message.bad("there is no element Document in it, as ISO 20022 has it")),
                Step::Open | Step::Text | Step::Close => {}
            }
        }
        message.namespace = message.xml.namespace().to_owned();
        message.wrapped = message.xml.path().len() - DOCUMENT.len();
        let id = message.namespace.strip_prefix(NAMESPACES).unwrap_or(&message.namespace);
        if !VERSIONS.contains(&id) {
            let why = format!("message {:?} is not understood: {} are", shortened(id), VERSIONS.join(", "));
            return Err(message.bad(why));
        }
        message.expect(MESSAGE)?;
        message.expect(HEADER)?;
        let elements = message.elements(&header::KNOWN)?;
        message.header =
            Header::read(&elements).map_err(|finding| header::bad(&finding, &format!("{WITHIN}/{HEADER}")))?;
        Ok(message)
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.xml.bytes()
    }

    /// The next transaction; nothing after the last, once the file has ended in order.
    ///
    /// # Errors
    /// Where the message cannot be read further.
    pub fn next_transaction(&mut self) -> Result<Option<Transaction>, BadMessage> {
        loop {
            match self.step()? {
                Step::Open if self.is(TRANSACTION) => {
                    self.totals.transactions += 1;
                    let elements = self.elements(&transaction::KNOWN)?;
                    self.totals.add(&elements).map_err(|why| self.bad(why))?;
                    return Ok(Some(Transaction { number: self.totals.transactions, elements }));
                }
                Step::Open if self.is(HEADER) => return Err(self.bad("stands twice")),
                Step::Open => self.skip()?,
                Step::Text => {}
                // Of the message itself: what is within is read to its end above.
                Step::Close => {
                    self.finish()?;
                    return Ok(None);
                }
                Step::End => return Ok(None),
            }
        }
    }

    /// Reads on to the end of the file, where nothing of another message may stand.
    fn finish(&mut self) -> Result<(), BadMessage> {
        loop {
            match self.step()? {
                Step::Open if self.xml.name() == &DOCUMENT[1..] || self.place().starts_with(DOCUMENT) => {
                    return Err(self.bad("stands after the message: put each message into a file of its own"));
                }
                Step::Open | Step::Text | Step::Close => {}
                Step::End => return Ok(()),
            }
        }
    }

    /// Opens the one element that may come next.
    fn expect(&mut self, name: &str) -> Result<(), BadMessage> {
        loop {
            match self.step()? {
                Step::Open if self.is(name) => return Ok(()),
                Step::Text => {}
                Step::Open => {
                    let found = format!("{} of namespace {:?}", self.xml.name(), shortened(self.xml.namespace()));
                    return Err(self.bad(format!("{found} stands where {name} is due")));
                }
                Step::Close | Step::End => return Err(self.bad(format!("has no {name}"))),
            }
        }
    }

    fn skip(&mut self) -> Result<(), BadMessage> {
        let depth = self.xml.depth();
        while !(self.step()? == Step::Close && self.xml.depth() == depth) {}
        Ok(())
    }

    fn elements(&mut self, known: &elements::Known) -> Result<Elements, BadMessage> {
        let read = Elements::read(&mut self.xml, &self.namespace, known);
        read.map_err(|bad| self.bad(bad.to_string()))
    }

    fn is(&self, name: &str) -> bool {
        self.xml.name() == name && self.xml.namespace() == self.namespace
    }

    fn step(&mut self) -> Result<Step, BadMessage> {
        let step: Result<Step, BadXml> = self.xml.step();
        step.map_err(|bad| self.bad(bad.to_string()))
    }

    /// The element that is open, seen from the message, with the number of the transaction.
    fn place(&self) -> String {
        let path = self.xml.path().get(self.wrapped..).unwrap_or(self.xml.path());
        let within = path.strip_prefix(WITHIN).and_then(|path| path.strip_prefix('/'));
        match within.and_then(|path| path.strip_prefix(TRANSACTION)) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                format!("{}{rest}", transaction_path(self.totals.transactions))
            }
            _ => path.to_owned(),
        }
    }

    fn bad(&self, why: impl Into<String>) -> BadMessage {
        BadMessage { line: self.xml.line(), path: self.place(), why: why.into() }
    }
}
