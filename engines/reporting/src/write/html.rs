//! Pages for people: one file, no scripts, nothing from elsewhere, fit for a printer.

use std::fmt::Write;

const STYLE: &str = "\
body{font:14px/1.4 system-ui,sans-serif;color:#1a1a1a;margin:2rem auto;max-width:72rem;padding:0 1rem}\
h1{font-size:1.4rem;margin:0 0 .2rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}p.note{color:#555;margin:.2rem 0 1rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #ddd;\
vertical-align:top;overflow-wrap:anywhere}th{background:#f3f3f3}td.n,th.n{text-align:right;white-space:nowrap;\
font-variant-numeric:tabular-nums}table.facts{width:auto}table.facts th{background:none;font-weight:600}\
tr.total td{font-weight:600;border-top:2px solid #888}.bad{color:#a00;font-weight:600}\
@media print{body{margin:0;max-width:none;font-size:10px}thead{display:table-header-group}tr{break-inside:avoid}}";

/// Adds a text, so that it stands for itself whatever is in it.
pub fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No control character has a place in HTML or XML but these, nor have the two that are no characters.
            '\t' | '\n' | '\r' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

/// Begins a page.
pub fn begin(out: &mut String, title: &str) {
    out.push_str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
    );
    out.push_str("<meta name=\"viewport\" content=\"width=device-width\">\n<title>");
    escape(out, title);
    // Writing to a string cannot fail.
    let _ = write!(out, "</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>");
    escape(out, title);
    out.push_str("</h1>\n");
}

/// A line under the title.
pub fn note(out: &mut String, text: &str) {
    out.push_str("<p class=\"note\">");
    escape(out, text);
    out.push_str("</p>\n");
}

/// A warning.
pub fn warning(out: &mut String, text: &str) {
    out.push_str("<p class=\"bad\">");
    escape(out, text);
    out.push_str("</p>\n");
}

/// A section's title.
pub fn section(out: &mut String, title: &str) {
    out.push_str("<h2>");
    escape(out, title);
    out.push_str("</h2>\n");
}

/// Names and values, one a row; empty values are left out.
pub fn facts(out: &mut String, facts: &[(&str, String)]) {
    out.push_str("<table class=\"facts\">\n");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str("<tr><th>");
        escape(out, name);
        out.push_str("</th><td>");
        escape(out, value);
        out.push_str("</td></tr>\n");
    }
    out.push_str("</table>\n");
}

/// A cell of a row.
#[derive(Debug, Clone)]
pub enum Cell {
    /// To the left.
    Text(String),
    /// To the right.
    Number(String),
}

/// Begins a table; names that begin with `#` are of numbers.
pub fn table(out: &mut String, names: &[&str]) {
    out.push_str("<table>\n<thead><tr>");
    for name in names {
        let (class, name) = name.strip_prefix('#').map_or(("", *name), |name| (" class=\"n\"", name));
        let _ = write!(out, "<th{class}>");
        escape(out, name);
        out.push_str("</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
}

/// A row of a table.
pub fn row(out: &mut String, class: &str, cells: &[Cell]) {
    out.push_str("<tr");
    if !class.is_empty() {
        let _ = write!(out, " class=\"{class}\"");
    }
    out.push('>');
    for cell in cells {
        let (tag, text) = match cell {
            Cell::Text(text) => ("<td>", text),
            Cell::Number(text) => ("<td class=\"n\">", text),
        };
        out.push_str(tag);
        escape(out, text);
        out.push_str("</td>");
    }
    out.push_str("</tr>\n");
}

/// Ends a table.
pub fn end_table(out: &mut String) {
    out.push_str("</tbody>\n</table>\n");
}

/// Ends a page.
pub fn end(out: &mut String) {
    out.push_str("</body>\n</html>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_comes_in_is_markup() {
        for (text, escaped) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload=\"x", "&quot; onload=&quot;x"),
            ("it's & so", "it&#39;s &amp; so"),
            ("a\u{0}b\u{8}c\nd", "a\u{fffd}b\u{fffd}c d"),
            ("a\u{fffe}b\u{ffff}c\u{fffd}", "a\u{fffd}b\u{fffd}c\u{fffd}"),
            ("Zürich 送金", "Zürich 送金"),
        ] {
            let mut out = String::new();
            escape(&mut out, text);
            assert_eq!(out, escaped);
        }
        let mut page = String::new();
        begin(&mut page, "<i>");
        facts(&mut page, &[("<i>", "<i>".into())]);
        table(&mut page, &["<i>", "#<i>"]);
        row(&mut page, "", &[Cell::Text("<i>".into()), Cell::Number("<i>".into())]);
        end_table(&mut page);
        end(&mut page);
        assert!(!page.contains("<i>") && !page.contains("<script"), "{page}");
        assert!(!page.contains("http://") && !page.contains("https://"), "nothing from elsewhere");
    }
}
