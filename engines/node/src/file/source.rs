//! Where transactions come from: a file's format, and one way to read any of them.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek};
use std::path::Path;

use clap::ValueEnum;
use deltran_api::token::v1::SettlementModel;

use super::csv::{BadHeader, Lines};
use super::lane::Item;
use super::line::{self, Header};
use super::pacs008::{self, BadMessage};
use super::report::RefusedLine;

/// Bytes from which a format is told.
const HEAD: u64 = 512;
const READ_AHEAD: usize = 256 * 1024;
/// The reason of what a source could not use.
pub const MALFORMED: &str = "malformed";

/// The formats of a transaction file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One transaction a line.
    Csv,
    /// ISO 20022 FIToFICustomerCreditTransfer.
    Pacs008,
}

impl Format {
    /// By the first byte that is not blank: XML begins with `<`.
    fn of(head: &[u8]) -> Self {
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
        // XML in two bytes a character is XML too, to be refused as such.
        let utf16 = [[0xff, 0xfe], [0xfe, 0xff], [0x00, b'<']].iter().any(|mark| head.starts_with(mark));
        if utf16 || head.first() == Some(&b'<') { Self::Pacs008 } else { Self::Csv }
    }

    /// What its items are called, in the plural.
    pub fn items(self) -> &'static str {
        match self {
            Self::Csv => "lines",
            Self::Pacs008 => "transactions",
        }
    }
}

/// Where an item stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its line, from 1.
    pub line: u64,
    /// In a message: which of its transactions it is, from 1.
    pub transaction: Option<u64>,
}

impl Position {
    /// A message for people, with the element that it is about.
    pub fn says(&self, message: &str) -> String {
        match self.transaction {
            None => message.to_owned(),
            Some(number) => format!("{}: {message}", pacs008::transaction_path(number)),
        }
    }
}

/// An item as a source hands it on: a transaction, or why it is none.
pub type Parsed = Result<Item, RefusedLine>;

/// Why a file cannot be used, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The header of a CSV file does not fit.
    #[error("{0}")]
    Header(#[from] BadHeader),
    /// A message is not understood, or its totals do not agree.
    #[error("{0}")]
    Message(#[from] BadMessage),
}

/// Numbered transactions of a file, one after the other.
pub trait Source {
    /// The next item; nothing at the end.
    ///
    /// # Errors
    /// Where the file cannot be used further.
    fn next_item(&mut self) -> Result<Option<Parsed>, Unusable>;

    /// Bytes read so far.
    fn bytes(&self) -> u64;
}

/// A source with the format that it was told to have.
pub type Opened = (Format, Box<dyn Source>);

/// Opens a file; `-` is standard input. A message is read whole and its totals compared before anything of it is handed
/// on: `checking` hears how many bytes that has come to, and says whether to go on. Nothing where it said no.
///
/// # Errors
/// [`Unusable`], before the first item.
pub fn open(
    file: &Path,
    format: Option<Format>,
    model: SettlementModel,
    checking: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Opened>, Unusable> {
    let mut file = File::open(if file == Path::new("-") { Path::new("/dev/stdin") } else { file })?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head)?;
    let format = format.unwrap_or_else(|| Format::of(&head));
    let source: Option<Box<dyn Source>> = match format {
        Format::Csv => Some(Box::new(Csv::open(Cursor::new(head).chain(file), model)?)),
        Format::Pacs008 => {
            let seekable = if file.metadata()?.is_file() { file } else { kept(&head, file)? };
            pacs008::Checked::open(seekable, model, checking)?.map(|source| Box::new(source) as Box<dyn Source>)
        }
    };
    Ok(source.map(|source| (format, source)))
}

/// What can be read only once, in a file without a name that can be read again and is gone with its last reader.
fn kept(head: &[u8], rest: File) -> io::Result<File> {
    let mut kept = tempfile::tempfile()?;
    io::copy(&mut Cursor::new(head).chain(rest), &mut kept)?;
    kept.rewind()?;
    Ok(kept)
}

/// One transaction a line.
struct Csv<R> {
    lines: Lines<BufReader<R>>,
    header: Header,
    model: SettlementModel,
}

impl<R: Read> Csv<R> {
    fn open(reader: R, model: SettlementModel) -> Result<Self, Unusable> {
        let mut lines = Lines::new(BufReader::with_capacity(READ_AHEAD, reader));
        let header = match lines.next_line()? {
            None => return Err(BadHeader::Empty.into()),
            Some((_, Err(bad))) => return Err(BadHeader::Line(bad).into()),
            Some((_, Ok(first))) => line::header(first)?,
        };
        Ok(Self { lines, header, model })
    }
}

impl<R: Read> Source for Csv<R> {
    fn next_item(&mut self) -> Result<Option<Parsed>, Unusable> {
        let Some((number, text)) = self.lines.next_line()? else { return Ok(None) };
        let position = Position { line: number, transaction: None };
        let read = match text {
            Err(bad) => Err((String::new(), bad.to_string())),
            Ok(text) => line::instruction(&self.header, text, self.model),
        };
        Ok(Some(match read {
            Ok(instruction) => Ok(Item { position, instruction }),
            Err((end_to_end_id, message)) => {
                Err(RefusedLine { line: number, end_to_end_id, reason: MALFORMED.to_owned(), message })
            }
        }))
    }

    fn bytes(&self) -> u64 {
        self.lines.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_format_is_told_by_its_first_byte() {
        let rows: &[(&[u8], Format)] = &[
            (b"", Format::Csv),
            (b"end_to_end_id,payer", Format::Csv),
            (b"\xef\xbb\xbfend_to_end_id", Format::Csv),
            (b"\"<\",a", Format::Csv),
            (b"<?xml version='1.0'?>", Format::Pacs008),
            (b"\xef\xbb\xbf\r\n <Document/>", Format::Pacs008),
            (b"\xff\xfe<\0", Format::Pacs008),
            (b"\0<\0?", Format::Pacs008),
            (b"<\0?\0", Format::Pacs008),
        ];
        for (head, format) in rows {
            assert_eq!(Format::of(head), *format, "{head:?}");
        }
    }

    /// What a pipe carries, read as a file.
    fn piped(text: &str, format: Option<Format>) -> Result<Vec<Parsed>, Unusable> {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let text = text.to_owned();
        let written = std::thread::spawn(move || writer.write_all(text.as_bytes()));
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let opened = open(Path::new(&path), format, SettlementModel::NetMultilateral, &mut |_| true);
        let mut all = Vec::new();
        if let Some((_, mut source)) = opened? {
            while let Some(item) = source.next_item()? {
                all.push(item);
            }
        }
        // Who was refused at the first line does not read what was written.
        let _refused = written.join().unwrap();
        Ok(all)
    }

    #[test]
    fn both_formats_come_through_a_pipe() {
        let csv = "end_to_end_id,payer,payee,amount,currency\nE1,ALFAAEXX,BRAVINXX,1.00,USD\nE2,x,BRAVINXX,1.00,USD\n";
        let lines = piped(csv, None).unwrap();
        let good = lines[0].as_ref().unwrap();
        assert_eq!((good.position.line, good.instruction.end_to_end_id.as_str()), (2, "E1"));
        assert_eq!(lines[1].as_ref().unwrap_err().line, 3);
        let message = pacs008::fixtures::VERSIONS[0].1;
        let transactions = piped(message, None).unwrap();
        assert_eq!(transactions.len(), 2);
        let bad = piped(csv, Some(Format::Pacs008)).unwrap_err().to_string();
        assert!(bad.contains("text outside of the root"), "{bad}");
        let bad = piped(message, Some(Format::Csv)).unwrap_err().to_string();
        assert!(bad.contains("the header cannot be read"), "{bad}");
    }
}
