//! The report of refused lines: CSV that no spreadsheet takes for formulas.

use std::fs::File;
use std::io;
use std::path::Path;

use super::csv::harmless;

/// A line that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLine {
    /// Its number in the file, from 1.
    pub line: u64,
    /// Its end-to-end id, as far as it could be read.
    pub end_to_end_id: String,
    /// A fixed machine-readable word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Writes refused lines as they come.
pub struct Report<W: io::Write> {
    writer: csv::Writer<W>,
}

impl Report<File> {
    /// Makes the file anew.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::new(File::create(path)?)
    }
}

impl<W: io::Write> Report<W> {
    fn new(inner: W) -> io::Result<Self> {
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(inner);
        writer.write_record(["line", "end_to_end_id", "reason", "message"])?;
        Ok(Self { writer })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add(&mut self, refused: &RefusedLine) -> io::Result<()> {
        let number = refused.line.to_string();
        let [id, reason, message] = [&refused.end_to_end_id, &refused.reason, &refused.message].map(|t| harmless(t));
        self.writer.write_record([number.as_str(), &id, &reason, &message])?;
        Ok(())
    }

    /// Writes out what is left.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_harmless() {
        let mut report = Report::new(Vec::new()).unwrap();
        let line = RefusedLine {
            line: 7,
            end_to_end_id: "=cmd".into(),
            reason: "malformed".into(),
            message: "amount \"1,0\" is wrong".into(),
        };
        report.add(&line).unwrap();
        let text = String::from_utf8(report.writer.into_inner().unwrap()).unwrap();
        let expected = "line,end_to_end_id,reason,message\r\n7,'=cmd,malformed,\"amount \"\"1,0\"\" is wrong\"\r\n";
        assert_eq!(text, expected);
    }
}
