//! CSV as of RFC 4180, one record a line: a line that cannot be read is a finding, never the end of the file.
//!
//! A quoted field may hold commas and doubled quotes but no line end, so that a stray quote costs one line and not the rest
//! of the file.

use std::borrow::Cow;
use std::io::{self, BufRead};

use deltran_runtime::csv::is_formula;

/// The longest line that is read; what is longer is a finding of its own.
pub const MAX_LINE: usize = 64 * 1024;

/// Why a line is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// Longer than [`MAX_LINE`].
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// Bytes that are no UTF-8.
    #[error("byte {byte:#04x} at position {position} is not UTF-8: save the file as UTF-8")]
    NotUtf8 {
        /// The first byte that does not fit.
        byte: u8,
        /// Its position in the line, from 1.
        position: usize,
    },
    /// A quote that opens and does not close on its line.
    #[error("field {field} opens a quote that does not close on the line")]
    OpenQuote {
        /// The field, from 1.
        field: usize,
    },
    /// A quote where none may stand.
    #[error("field {field} has a quote in the wrong place: quote the whole field and double the quotes inside")]
    StrayQuote {
        /// The field, from 1.
        field: usize,
    },
    /// Another number of fields than the header has.
    #[error("{found} columns where the header has {expected}")]
    Columns {
        /// Fields of the line.
        found: usize,
        /// Fields of the header.
        expected: usize,
    },
}

/// A line's number from 1, and its bytes without the line end or what is wrong with it.
pub type Numbered<'a> = (u64, Result<&'a [u8], BadLine>);

/// Reads lines into a buffer that stays small whatever the file holds.
pub struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    number: u64,
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    /// The lines of a reader.
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), number: 0, bytes: 0 }
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line that is not empty.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Numbered<'_>>> {
        loop {
            let Some(too_long) = self.fill()? else { return Ok(None) };
            self.number += 1;
            if self.number == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.drain(..3);
            }
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
            if too_long {
                return Ok(Some((self.number, Err(BadLine::TooLong))));
            }
            if !self.buffer.is_empty() {
                return Ok(Some((self.number, Ok(&self.buffer))));
            }
        }
    }

    /// Reads up to the next line end; whether the line was too long, or none at the end of the file.
    fn fill(&mut self) -> io::Result<Option<bool>> {
        self.buffer.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                return Ok(any.then_some(too_long));
            }
            any = true;
            let end = available.iter().position(|b| *b == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            if self.buffer.len() + part.len() > MAX_LINE {
                too_long = true;
            } else {
                self.buffer.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            self.bytes += used as u64;
            if end.is_some() {
                return Ok(Some(too_long));
            }
        }
    }
}

/// The fields of a line.
///
/// # Errors
/// [`BadLine`] where it is not UTF-8 or its quotes are wrong.
pub fn fields(line: &[u8]) -> Result<Vec<Cow<'_, str>>, BadLine> {
    let text = std::str::from_utf8(line).map_err(|e| {
        let at = e.valid_up_to();
        BadLine::NotUtf8 { byte: line[at], position: at + 1 }
    })?;
    let mut fields = Vec::with_capacity(8);
    let mut rest = text;
    loop {
        let number = fields.len() + 1;
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted, number)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if field.contains('"') {
                    return Err(BadLine::StrayQuote { field: number });
                }
                (Cow::Borrowed(field), after)
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(BadLine::StrayQuote { field: number }),
        }
    }
}

/// A field after its opening quote, and what follows the closing one.
fn quoted_field(text: &str, number: usize) -> Result<(Cow<'_, str>, &str), BadLine> {
    let open = BadLine::OpenQuote { field: number };
    let end = text.find('"').ok_or_else(|| open.clone())?;
    if !text[end + 1..].starts_with('"') {
        return Ok((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let (mut value, mut rest) = (String::new(), text);
    loop {
        let end = rest.find('"').ok_or_else(|| open.clone())?;
        value.push_str(&rest[..end]);
        match rest[end + 1..].strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Ok((Cow::Owned(value), &rest[end + 1..])),
        }
    }
}

/// Why a header cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// There is no line at all.
    #[error("the file is empty: its first line must name the columns")]
    Empty,
    /// The line is no record.
    #[error("the header cannot be read: {0}")]
    Line(#[from] BadLine),
    /// A column that means nothing here.
    #[error("unknown column {0:?}: known are {1}")]
    Unknown(String, String),
    /// A column that stands twice.
    #[error("column {0:?} stands twice in the header")]
    Twice(String),
    /// A column that is needed and not there.
    #[error("column {0:?} is missing in the header")]
    Missing(String),
}

/// Which field of a line is which column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns<const N: usize> {
    places: [Option<usize>; N],
    count: usize,
}

impl<const N: usize> Columns<N> {
    /// Reads a header against the columns that are known; the first `required` of them must be there.
    ///
    /// # Errors
    /// [`BadHeader`], naming the column.
    pub fn read(header: &[u8], known: [&str; N], required: usize) -> Result<Self, BadHeader> {
        let mut places = [None; N];
        let names = fields(header)?;
        for (place, name) in names.iter().enumerate() {
            let name = name.trim();
            let Some(column) = known.iter().position(|k| *k == name) else {
                return Err(BadHeader::Unknown(name.chars().take(64).collect(), known.join(", ")));
            };
            if places[column].replace(place).is_some() {
                return Err(BadHeader::Twice(name.to_owned()));
            }
        }
        match known.iter().zip(&places).take(required).find(|(_, place)| place.is_none()) {
            Some((name, _)) => Err(BadHeader::Missing((*name).to_owned())),
            None => Ok(Self { places, count: names.len() }),
        }
    }

    /// The fields of a line in the order of the known columns; empty where the header lacks one.
    ///
    /// # Errors
    /// [`BadLine`] where it is no record of this header.
    pub fn fields<'a>(&self, line: &'a [u8]) -> Result<[Cow<'a, str>; N], BadLine> {
        let mut all = fields(line)?;
        if all.len() != self.count {
            return Err(BadLine::Columns { found: all.len(), expected: self.count });
        }
        Ok(self.places.map(|place| place.map(|place| std::mem::take(&mut all[place])).unwrap_or_default()))
    }
}

impl<const N: usize> Columns<N> {
    /// What the first known column of a line seems to hold, where the line is no record: at most 35 characters.
    pub fn first_guess(&self, line: &[u8]) -> String {
        let text = String::from_utf8_lossy(line);
        let field =
            self.places.first().copied().flatten().and_then(|place| text.split(',').nth(place)).unwrap_or_default();
        field.chars().filter(|c| !c.is_control()).take(35).collect()
    }
}

/// A text that a spreadsheet will not take for a formula: prefixed with `'` where it begins like one, as in reports.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if is_formula(text) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_by_the_book() {
        let rows: &[(&str, &[&str])] = &[
            ("a,b,c", &["a", "b", "c"]),
            ("", &[""]),
            (",", &["", ""]),
            ("a,,c", &["a", "", "c"]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"say \"\"hi\"\"\",x", &["say \"hi\"", "x"]),
            ("\"\",\"\"", &["", ""]),
            ("\"\"\"\"", &["\""]),
            ("Ä,ß", &["Ä", "ß"]),
            (" a , b ", &[" a ", " b "]),
        ];
        for (line, expected) in rows {
            assert_eq!(fields(line.as_bytes()).unwrap(), *expected, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rows: &[(&[u8], BadLine)] = &[
            (b"a,\"b", BadLine::OpenQuote { field: 2 }),
            (b"a,\"b\"\"", BadLine::OpenQuote { field: 2 }),
            (b"a\"b,c", BadLine::StrayQuote { field: 1 }),
            (b"\"a\"b,c", BadLine::StrayQuote { field: 1 }),
            (b"caf\xe9,x", BadLine::NotUtf8 { byte: 0xe9, position: 4 }),
        ];
        for (line, expected) in rows {
            assert_eq!(fields(line).unwrap_err(), *expected, "{}", String::from_utf8_lossy(line));
        }
    }

    fn numbered(text: &[u8]) -> Vec<(u64, Result<Vec<u8>, BadLine>)> {
        // A buffer smaller than a line, so that lines arrive in parts.
        let mut lines = Lines::new(io::BufReader::with_capacity(4, text));
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next_line().unwrap() {
            all.push((number, line.map(<[u8]>::to_vec)));
        }
        assert_eq!(lines.bytes(), text.len() as u64);
        all
    }

    #[test]
    fn lines_keep_their_numbers_over_blanks_marks_and_missing_ends() {
        let lines = numbered(b"\xef\xbb\xbfa,b\r\n\r\n1,2\n\n3,4");
        assert_eq!(lines, [(1, Ok(b"a,b".to_vec())), (3, Ok(b"1,2".to_vec())), (5, Ok(b"3,4".to_vec()))]);
        assert_eq!(numbered(b""), []);
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let mut text = b"a\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', MAX_LINE + 1));
        text.extend(b"\nb\n");
        let lines = numbered(&text);
        assert_eq!(lines, [(1, Ok(b"a".to_vec())), (2, Err(BadLine::TooLong)), (3, Ok(b"b".to_vec()))]);
    }

    #[test]
    fn headers_name_what_they_lack() {
        const KNOWN: [&str; 3] = ["id", "amount", "note"];
        let read = |header: &str| Columns::read(header.as_bytes(), KNOWN, 2).map_err(|e| e.to_string());
        let columns = read("note,id,amount").unwrap();
        assert_eq!(columns.fields(b"n,1,2").unwrap(), ["1", "2", "n"]);
        assert_eq!(columns.fields(b"n,1").unwrap_err(), BadLine::Columns { found: 2, expected: 3 });
        assert_eq!(read("amount,id").unwrap().fields(b"2,1").unwrap(), ["1", "2", ""]);
        assert_eq!((columns.first_guess(b"n,1"), columns.first_guess(b"\xe9")), ("1".to_owned(), String::new()));
        assert!(read("id,amount,colour").unwrap_err().contains("\"colour\""));
        assert!(read("id,id,amount").unwrap_err().contains("\"id\" stands twice"));
        assert!(read("id,note").unwrap_err().contains("\"amount\" is missing"));
    }

    #[test]
    fn formulas_are_made_harmless() {
        for (text, safe) in [
            ("=1+1", "'=1+1"),
            ("  =1", "'  =1"),
            ("＝1+1", "'＝1+1"),
            ("-5+3", "'-5+3"),
            ("-5", "-5"),
            ("@x", "'@x"),
            ("\tx", "'\tx"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(harmless(text), safe);
        }
    }

    proptest! {
        #[test]
        fn what_a_writer_wrote_is_read_back(record in proptest::collection::vec("[^\r\n\0]{0,12}", 1..6)) {
            let mut writer = ::csv::WriterBuilder::new().quote_style(::csv::QuoteStyle::Always).from_writer(Vec::new());
            writer.write_record(&record).unwrap();
            let bytes = writer.into_inner().unwrap();
            prop_assert_eq!(fields(bytes.trim_ascii_end()).unwrap(), record);
        }

        #[test]
        fn no_input_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut lines = Lines::new(bytes.as_slice());
            while let Some((_, line)) = lines.next_line().unwrap() {
                let _fields_or_finding = line.map(|line| fields(line).map(|f| f.len()));
            }
        }
    }
}
