//! Trial balances as CSV and as a page.

use deltran_kernel::Minor;

use super::html::{self, Cell};
use crate::domain::Contradiction;
use crate::domain::trial::Trial;
use deltran_runtime::csv::{Row, header};

/// What the ledger said of one of its invariants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// L1 to L8.
    pub invariant: String,
    /// What it says.
    pub statement: String,
    /// Whether it holds.
    pub holds: bool,
    /// What was compared, or the first breach.
    pub detail: String,
}

fn sides(trial: &Trial, balance: Minor) -> (String, String) {
    if balance.is_negative() {
        (trial.text(balance.neg()), String::new())
    } else {
        (String::new(), trial.text(balance))
    }
}

/// A row per account that is not at zero; `ties` is said of the currency. Rows come back counted.
pub fn trial_csv(out: &mut String, trials: &[Trial]) -> u64 {
    header(out, &["currency", "account", "participant", "window_id", "debit", "credit", "ledger_event", "ties"]);
    let mut rows = 0;
    for trial in trials {
        let ties = if trial.difference.is_none() { "yes" } else { "no" };
        // An account that only the ledger has stands at zero here.
        let lacking = trial.difference.map(|d| d.account).filter(|account| !trial.accounts.contains_key(account));
        let accounts = trial.accounts.iter().map(|(account, balance)| (*account, *balance));
        for (account, balance) in accounts.chain(lacking.map(|account| (account, Minor::ZERO))) {
            let (debit, credit) = sides(trial, balance);
            Row::new(out)
                .plain(trial.currency)
                .plain(account.kind())
                .plain(account.participant().map(|p| p.to_string()).unwrap_or_default())
                .plain(account.window().map(|w| w.to_string()).unwrap_or_default())
                .plain(debit)
                .plain(credit)
                .plain(trial.position)
                .plain(ties)
                .end();
            rows += 1;
        }
    }
    rows
}

/// The trial balances as a page.
///
/// # Errors
/// Where a sum is out of range.
pub fn trial_html(out: &mut String, trials: &[Trial], checked: &[Checked], made: &str) -> Result<u64, Contradiction> {
    html::begin(out, "Trial balance");
    html::note(out, made);
    let mut rows = 0;
    for trial in trials {
        html::section(out, trial.currency.code());
        if trial.difference.is_some() {
            html::warning(out, &trial.verdict());
        } else {
            html::note(out, &trial.verdict());
        }
        html::table(out, &["account", "participant", "window", "#debit", "#credit"]);
        for (account, balance) in &trial.accounts {
            let (debit, credit) = sides(trial, *balance);
            let cells = [
                Cell::Text(account.kind().to_owned()),
                Cell::Text(account.participant().map(|p| p.to_string()).unwrap_or_default()),
                Cell::Text(account.window().map(|w| w.to_string()).unwrap_or_default()),
                Cell::Number(debit),
                Cell::Number(credit),
            ];
            html::row(out, "", &cells);
            rows += 1;
        }
        // Debits are credits: a trial that is not so is not made.
        let total = || Ok::<_, Contradiction>(Cell::Number(trial.text(trial.total()?)));
        let (name, empty) = (Cell::Text("total".to_owned()), || Cell::Text(String::new()));
        html::row(out, "total", &[name, empty(), empty(), total()?, total()?]);
        html::end_table(out);
    }
    if trials.is_empty() {
        html::note(out, "There is no currency yet.");
    }
    if !checked.is_empty() {
        html::section(out, "The ledger's own check");
        html::table(out, &["invariant", "holds", "statement", "detail"]);
        for check in checked {
            let holds = if check.holds { "yes" } else { "NO" };
            let text = |text: &str| Cell::Text(text.to_owned());
            let cells = [text(&check.invariant), text(holds), text(&check.statement), text(&check.detail)];
            html::row(out, "", &cells);
        }
        html::end_table(out);
    }
    html::end(out);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Position;
    use crate::domain::statement::tests::{minor, who};
    use crate::domain::trial::{Balances, Ledger};
    use deltran_kernel::Currency;

    fn trial(ledger_has: i128) -> Trial {
        let rows = |settlement: i128| -> Balances {
            [(Ledger::Safeguard, minor(-500)), (Ledger::Settlement(who("ALFAAEXX")), minor(settlement))].into()
        };
        let position = Position { epoch: 1, seq: 42 };
        Trial::new(Currency::new("USD").unwrap(), position, rows(500), &rows(ledger_has)).unwrap()
    }

    #[test]
    fn debits_are_credits_and_the_verdict_is_told() {
        let mut out = String::new();
        assert_eq!(trial_csv(&mut out, &[trial(500)]), 2);
        assert!(out.contains("USD,SAFEGUARD,,,5.00,,1/42,yes\r\nUSD,SETTLEMENT,ALFAAEXX,,,5.00,1/42,yes\r\n"), "{out}");
        let mut out = String::new();
        assert_eq!(trial_csv(&mut out, &[trial(499)]), 2);
        assert_eq!(out.matches(",no\r\n").count(), 2, "every row of a currency that does not tie says so: {out}");
        let only_there = Trial { accounts: Balances::new(), ..trial(499) };
        let mut out = String::new();
        assert_eq!(trial_csv(&mut out, &[only_there]), 1);
        assert!(out.contains("USD,SETTLEMENT,ALFAAEXX,,,0.00,1/42,no"), "{out}");
        let check = Checked { invariant: "L1".into(), statement: "s".into(), holds: false, detail: "<d>".into() };
        let mut out = String::new();
        trial_html(&mut out, &[trial(500)], &[check], "made").unwrap();
        assert!(out.contains("USD ties to the ledger at event 1/42") && out.contains("<td>NO</td>"), "{out}");
        assert!(out.contains("&lt;d&gt;"));
        let mut out = String::new();
        trial_html(&mut out, &[trial(499)], &[], "made").unwrap();
        assert!(
            out.contains("class=\"bad\">USD differs from the ledger") && out.contains("4.99 in the ledger"),
            "{out}"
        );
    }
}
