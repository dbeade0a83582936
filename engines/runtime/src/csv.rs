//! Comma-separated values (RFC 4180, UTF-8) that a spreadsheet opens without running anything.

/// A row under construction.
#[derive(Debug)]
pub struct Row<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> Row<'a> {
    /// A row at the end of `out`.
    pub fn new(out: &'a mut String) -> Self {
        Self { out, first: true }
    }

    /// A value that is a number, a moment, a code or an id of the platform: it stands as it is.
    #[must_use]
    pub fn plain(mut self, value: impl std::fmt::Display) -> Self {
        let value = value.to_string();
        self.field(&value);
        self
    }

    /// A value that somebody else chose. One that a spreadsheet would take for a formula gets an apostrophe before
    /// it; a plain number stays, so that negative ones are not spoilt.
    #[must_use]
    pub fn text(mut self, value: &str) -> Self {
        if is_formula(value) {
            self.field(&format!("'{value}"));
        } else {
            self.field(value);
        }
        self
    }

    /// Ends the row.
    pub fn end(self) {
        self.out.push_str("\r\n");
    }

    fn field(&mut self, value: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(',');
        }
        let quoted = value.contains([',', '"', '\r', '\n', ';', '\t']) || value.trim() != value;
        if !quoted {
            self.out.push_str(value);
            return;
        }
        self.out.push('"');
        for c in value.chars() {
            if c == '"' {
                self.out.push('"');
            }
            self.out.push(c);
        }
        self.out.push('"');
    }
}

/// Writes a header.
pub fn header(out: &mut String, names: &[&str]) {
    names.iter().fold(Row::new(out), |row, name| row.plain(name)).end();
}

/// Whether a spreadsheet would compute a value: it begins with a sign of a formula (also in its wide form, or
/// after blanks) and is no plain number.
pub fn is_formula(value: &str) -> bool {
    let begins = |text: &str| text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    (begins(value) || begins(value.trim_start())) && !is_number(value)
}

fn is_number(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    all(whole) && all(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input, and what a reader of CSV gets.
    #[test]
    fn formulas_are_texts_and_amounts_stay_amounts() {
        for (value, read) in [
            ("=1+1", "'=1+1"),
            ("=HYPERLINK(\"http://x\",\"y\")", "'=HYPERLINK(\"http://x\",\"y\")"),
            ("+41 79 123", "'+41 79 123"),
            ("-2+3", "'-2+3"),
            ("-1e9", "'-1e9"),
            ("--5", "'--5"),
            ("-", "'-"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("\n=1", "'\n=1"),
            ("  =1", "'  =1"),
            ("＝1+1", "'＝1+1"),
            ("＠x", "'＠x"),
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            // Not formulas.
            ("-5", "-5"),
            ("-1234567.89", "-1234567.89"),
            ("0.00", "0.00"),
            ("INV-1", "INV-1"),
            ("a=b", "a=b"),
            ("'quoted", "'quoted"),
            ("", ""),
            ("a,b", "a,b"),
            ("say \"hi\"", "say \"hi\""),
            ("two\r\nlines", "two\r\nlines"),
            (" padded ", " padded "),
            ("Zürich 送金", "Zürich 送金"),
        ] {
            let mut out = String::new();
            Row::new(&mut out).plain(1).text(value).plain("-7.50").end();
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(out.as_bytes());
            let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            assert_eq!(records.len(), 1, "{value:?}: {out:?}");
            assert_eq!(records[0].iter().collect::<Vec<_>>(), ["1", read, "-7.50"], "{value:?}");
        }
    }

    #[test]
    fn rows_end_as_the_standard_says() {
        let mut out = String::new();
        header(&mut out, &["a", "b"]);
        Row::new(&mut out).plain("").text("x\"y").end();
        assert_eq!(out, "a,b\r\n,\"x\"\"y\"\r\n");
    }
}
