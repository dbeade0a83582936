//! Reports as files: text from what was decided, a piece at a time, without IO.

pub mod camt;
pub mod html;
mod settlement;
mod statement;
mod trial;

use deltran_events::data::reporting::ReportFormat;

use crate::domain::Contradiction;
use crate::domain::statement::{Head, Line};

pub use settlement::{settlement_csv, settlement_html, summary_csv};
pub use statement::{StatementCsv, StatementHtml};
pub use trial::{Checked, trial_csv, trial_html};

/// Writes a statement as it comes: text is added to `out`, which the caller empties whenever it likes.
pub trait StatementWriter: Send {
    /// What stands before the entries.
    ///
    /// # Errors
    /// Where the format cannot say it.
    fn begin(&mut self, out: &mut String, head: &Head) -> Result<(), Contradiction>;

    /// The next entry.
    ///
    /// # Errors
    /// Where the format cannot say it.
    fn line(&mut self, out: &mut String, head: &Head, line: &Line) -> Result<(), Contradiction>;

    /// What stands after the entries.
    fn end(&mut self, out: &mut String, head: &Head);
}

/// The file name and the writer of a statement's format.
pub fn statement(format: ReportFormat) -> (&'static str, Box<dyn StatementWriter>) {
    match format {
        ReportFormat::Csv => ("statement.csv", Box::new(StatementCsv::default())),
        ReportFormat::Html => ("statement.html", Box::new(StatementHtml::default())),
        ReportFormat::Camt053 => ("statement.camt.053.xml", Box::new(camt::Camt053)),
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use uuid::Uuid;

    use super::*;
    use crate::domain::book::{EntryKind, Flow};
    use crate::domain::statement::tests::{head, minor, who};
    use crate::domain::statement::{Scope, Sum};

    /// Entries with everything that a format could stumble over.
    pub fn lines() -> Vec<Line> {
        let line = |number: u64, units: i128, end_to_end_id: &str| Line {
            number,
            kind: EntryKind::Net,
            id: Uuid::from_u128(0x0190_c3d5_0000_7000_8000_0000_0000_0000 + u128::from(number)),
            counterparty: Some(who("BRAVINXX")),
            amount: minor(units),
            booked_at: "2026-03-31T11:00:05Z".parse().unwrap(),
            committed_at: "2026-03-31T10:59:00.123456Z".parse().unwrap(),
            window: Some(("0190c3d5-0000-7000-8000-0000000000ff".parse().unwrap(), number)),
            end_to_end_id: end_to_end_id.to_owned(),
            uetr: None,
            return_of: None,
            reference: String::new(),
        };
        vec![
            Line {
                kind: EntryKind::Deposit,
                counterparty: None,
                window: None,
                reference: "=HYPERLINK(\"http://x\",\"y\")".into(),
                ..line(1, 100_000, "")
            },
            Line { uetr: Some("97ed4827-7b6f-4491-a06f-b548d5a7512d".into()), ..line(2, -1_050, "INV-1") },
            line(3, 25, "<b>&\"'</b>"),
            line(4, -1, "+41 79, \"a\"\r\nb"),
            Line { uetr: Some("0190c3d5-0000-7000-8000-000000000001".into()), ..line(5, 7, "-3+4") },
            Line {
                kind: EntryKind::Withdrawal,
                counterparty: None,
                window: None,
                reference: "Zürich ⇒ 送金".into(),
                ..line(6, -500, "")
            },
            Line { return_of: Some("0190c3d5-0000-7000-8000-000000000009".parse().unwrap()), ..line(7, 40, "@x") },
        ]
    }

    /// The head that fits them.
    pub fn head_of(lines: &[Line], opening: i128) -> Head {
        let paid: Vec<i128> = lines.iter().map(|l| l.amount.units()).filter(|u| *u < 0).collect();
        let received: Vec<i128> = lines.iter().map(|l| l.amount.units()).filter(|u| *u >= 0).collect();
        let flow = Flow {
            paid_count: paid.len() as u64,
            paid: minor(-paid.iter().sum::<i128>()),
            received_count: received.len() as u64,
            received: minor(received.iter().sum()),
        };
        let closing = opening + lines.iter().map(|l| l.amount.units()).sum::<i128>();
        head(opening, closing, flow)
    }

    /// A head of another scope.
    pub fn scoped(scope: Scope, lines: &[Line], opening: i128) -> Head {
        Head { scope, ..head_of(lines, opening) }
    }

    /// A whole statement as text.
    pub fn write(writer: &mut dyn StatementWriter, head: &Head, lines: &[Line]) -> String {
        let (mut out, mut sum) = (String::new(), Sum::default());
        writer.begin(&mut out, head).unwrap();
        for line in lines {
            writer.line(&mut out, head, line).unwrap();
            sum.take(line).unwrap();
        }
        sum.check(head).unwrap();
        writer.end(&mut out, head);
        out
    }
}
