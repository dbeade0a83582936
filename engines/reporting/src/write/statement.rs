//! Statements as CSV and as a page.

use deltran_kernel::Minor;

use super::StatementWriter;
use super::html::{self, Cell};
use crate::domain::Contradiction;
use crate::domain::statement::{Head, Line, Scope};
use deltran_runtime::csv::{Row, header};

/// Columns of the CSV. The sum of `amount` is the closing less the opening.
const COLUMNS: [&str; 17] = [
    "number",
    "kind",
    "booked_at",
    "committed_at",
    "participant",
    "currency",
    "amount",
    "balance",
    "counterparty",
    "transaction_id",
    "end_to_end_id",
    "uetr",
    "window_id",
    "window_seq",
    "return_of",
    "reference",
    "note",
];

fn moved(balance: &mut Minor, line: &Line) -> Result<Minor, Contradiction> {
    *balance = balance.add(line.amount).map_err(Contradiction::of)?;
    Ok(*balance)
}

fn shown<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

/// A statement as CSV: a row OPENING, a row per entry with the balance after it, a row CLOSING.
#[derive(Debug, Default)]
pub struct StatementCsv {
    balance: Minor,
}

impl StatementCsv {
    fn edge(out: &mut String, head: &Head, kind: &str, at: deltran_kernel::Timestamp, balance: Minor, note: &str) {
        let row = Row::new(out).plain("").plain(kind).plain(at).plain("");
        let row = row.plain(head.participant).plain(head.currency).plain("").plain(head.text(balance));
        let window = match head.scope {
            Scope::Window(window) => window.to_string(),
            Scope::Day { .. } => String::new(),
        };
        row.plain("").plain("").plain("").plain("").plain(window).plain("").plain("").plain("").plain(note).end();
    }
}

impl StatementWriter for StatementCsv {
    fn begin(&mut self, out: &mut String, head: &Head) -> Result<(), Contradiction> {
        self.balance = head.opening;
        header(out, &COLUMNS);
        Self::edge(out, head, "OPENING", head.from, head.opening, "");
        Ok(())
    }

    fn line(&mut self, out: &mut String, head: &Head, line: &Line) -> Result<(), Contradiction> {
        let balance = moved(&mut self.balance, line)?;
        Row::new(out)
            .plain(line.number)
            .plain(line.kind.as_str())
            .plain(line.booked_at)
            .plain(line.committed_at)
            .plain(head.participant)
            .plain(head.currency)
            .plain(head.text(line.amount))
            .plain(head.text(balance))
            .plain(shown(line.counterparty))
            .plain(line.id)
            .text(&line.end_to_end_id)
            .text(line.uetr.as_deref().unwrap_or_default())
            .plain(shown(line.window.map(|w| w.0)))
            .plain(shown(line.window.map(|w| w.1)))
            .plain(shown(line.return_of))
            .text(&line.reference)
            .plain("")
            .end();
        Ok(())
    }

    fn end(&mut self, out: &mut String, head: &Head) {
        let note = if head.scope.interim() { "the day is not over" } else { "" };
        Self::edge(out, head, "CLOSING", head.to, self.balance, note);
    }
}

/// A statement as a page.
#[derive(Debug, Default)]
pub struct StatementHtml {
    balance: Minor,
}

impl StatementWriter for StatementHtml {
    fn begin(&mut self, out: &mut String, head: &Head) -> Result<(), Contradiction> {
        self.balance = head.opening;
        let what = match head.scope {
            Scope::Day { day, .. } => format!("Statement of {} in {}, {day}", head.participant, head.currency),
            Scope::Window(window) => {
                format!("Statement of {} in {}, window {window}", head.participant, head.currency)
            }
        };
        html::begin(out, &what);
        html::note(out, &format!("{}, made at {}", head.deployment, head.made_at));
        if head.scope.interim() {
            html::warning(out, &format!("So far: the day is not over. Up to {}.", head.to));
        }
        let (opening, closing) = match head.scope {
            Scope::Day { .. } => ("opening balance", "closing balance"),
            Scope::Window(_) => ("opening position", "net position"),
        };
        let flow = &head.flow;
        html::facts(
            out,
            &[
                ("from", head.from.to_string()),
                ("to", head.to.to_string()),
                (opening, head.text(head.opening)),
                ("received", format!("{} in {} entries", head.text(flow.received), flow.received_count)),
                ("paid", format!("{} in {} entries", head.text(flow.paid), flow.paid_count)),
                (closing, head.text(head.closing)),
                ("statement", head.id.to_string()),
            ],
        );
        html::section(out, "Entries");
        html::table(
            out,
            &["#no.", "booked at", "kind", "counterparty", "reference", "#amount", "#balance", "transaction"],
        );
        Ok(())
    }

    fn line(&mut self, out: &mut String, head: &Head, line: &Line) -> Result<(), Contradiction> {
        let balance = moved(&mut self.balance, line)?;
        let returned = line.return_of.map(|of| format!("return of {of}")).unwrap_or_default();
        let reference =
            [line.end_to_end_id.as_str(), line.uetr.as_deref().unwrap_or_default(), &line.reference, &returned];
        let reference: Vec<&str> = reference.into_iter().filter(|text| !text.is_empty()).collect();
        html::row(
            out,
            "",
            &[
                Cell::Number(line.number.to_string()),
                Cell::Text(line.booked_at.to_string()),
                Cell::Text(line.kind.as_str().to_owned()),
                Cell::Text(line.counterparty.map_or_else(|| "safeguarding bank".to_owned(), |c| c.to_string())),
                Cell::Text(reference.join(" ")),
                Cell::Number(head.text(line.amount)),
                Cell::Number(head.text(balance)),
                Cell::Text(line.id.to_string()),
            ],
        );
        Ok(())
    }

    fn end(&mut self, out: &mut String, head: &Head) {
        let (empty, number) = (|| Cell::Text(String::new()), |minor| Cell::Number(head.text(minor)));
        let closing = Cell::Text("closing".to_owned());
        let change = head.flow.net().unwrap_or_default();
        let cells = [empty(), closing, empty(), empty(), empty(), number(change), number(self.balance), empty()];
        html::row(out, "total", &cells);
        html::end_table(out);
        html::end(out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{head_of, lines, scoped, write};
    use super::*;
    use deltran_kernel::Money;

    #[test]
    fn the_csv_adds_up_and_is_read_back() {
        let (lines, opening) = (lines(), 12_345);
        let head = head_of(&lines, opening);
        let text = write(&mut StatementCsv::default(), &head, &lines);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), COLUMNS);
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), lines.len() + 2);
        let units = |text: &str| Money::parse(text, head.currency).unwrap().minor().units();
        let mut balance = opening;
        for (row, line) in rows[1..].iter().zip(&lines) {
            balance += units(&row[6]);
            assert_eq!((units(&row[6]), units(&row[7])), (line.amount.units(), balance));
            assert_eq!(row[9], line.id.to_string());
        }
        assert_eq!((&rows[0][1], units(&rows[0][7])), ("OPENING", opening));
        let last = rows.last().unwrap();
        assert_eq!((&last[1], units(&last[7])), ("CLOSING", balance));
        assert_eq!(&rows[1][15], "'=HYPERLINK(\"http://x\",\"y\")");
        assert_eq!(&rows[2][6], "-10.50", "a negative amount is a number");
    }

    #[test]
    fn the_page_escapes_and_adds_up() {
        let lines = lines();
        let text = write(&mut StatementHtml::default(), &head_of(&lines, 0), &lines);
        assert!(text.contains("&lt;b&gt;&amp;&quot;&#39;&lt;/b&gt;") && !text.contains("<b>"), "{text}");
        assert!(text.contains("<td class=\"n\">-10.50</td>") && text.ends_with("</html>\n"));
        assert_eq!(text.matches("<tr>").count() - 1, lines.len() + 7, "rows of entries and facts, one header");
    }

    #[test]
    fn a_statement_so_far_says_so() {
        let day = "2026-03-31".parse().unwrap();
        let so_far = Scope::Day { day, until: Some(crate::domain::position::Position { epoch: 1, seq: 9 }) };
        let head = scoped(so_far, &[], 5);
        assert!(write(&mut StatementHtml::default(), &head, &[]).contains("the day is not over"));
        assert!(write(&mut StatementCsv::default(), &head, &[]).contains("the day is not over"));
        let whole = scoped(Scope::Day { day, until: None }, &[], 5);
        assert!(!write(&mut StatementHtml::default(), &whole, &[]).contains("not over"));
    }
}
