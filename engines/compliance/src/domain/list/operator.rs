//! The operator's own list: UTF-8, one name a line.

use super::{Entry, EntryKind, ListError, check_name};

const FILE: &str = "names.txt";

/// Reads the names. Blank lines and lines that begin with `#` are skipped. The entry's id is its normal name, so that
/// it stays the same where lines move.
pub fn parse(content: &[u8]) -> Result<Vec<Entry>, ListError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    for (number, bytes) in (1..).zip(content.split(|byte| *byte == b'\n')) {
        let bad = |what: String| ListError::Line { file: FILE, line: number, what };
        let text = std::str::from_utf8(bytes).map_err(|_| bad("this is not UTF-8".to_owned()))?;
        let name = text.strip_suffix('\r').unwrap_or(text).trim_matches(' ');
        if name.is_empty() || name.starts_with('#') {
            continue;
        }
        check_name(name).map_err(bad)?;
        let id = super::super::name::normalise(name);
        if known.insert(id.clone()) {
            entries.push(Entry::new(id, EntryKind::Unknown, name.to_owned()));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blanks_are_skipped() {
        let content =
            b"\xef\xbb\xbf# comment\r\n\r\nVostok Shadow Trading LLC\r\n  # another\nEXAMPLE, Ivan\nexample ivan\n";
        let entries = parse(content).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| (entry.id.as_str(), entry.primary())).collect();
        assert_eq!(
            names,
            [("vostok shadow trading llc", "Vostok Shadow Trading LLC"), ("example ivan", "EXAMPLE, Ivan")]
        );
    }

    #[test]
    fn a_bad_list_is_refused_with_its_line() {
        let long = format!("A\n{}\n", "x".repeat(351));
        for (content, line) in [
            (&b"Good\nM\xfcller\n"[..], 2),
            (b"Good\n\nA\x00B\n", 3),
            (b"A\tB\n", 1),
            ("Good\nM\u{85}ller".as_bytes(), 2),
            (b"Good\n***\n", 2),
            (long.as_bytes(), 2),
        ] {
            assert!(matches!(parse(content), Err(ListError::Line { line: l, .. }) if l == line), "{content:?}");
        }
        assert_eq!(parse(b"# nothing\n\n"), Ok(Vec::new()));
    }
}
