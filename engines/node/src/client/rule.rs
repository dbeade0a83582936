//! `deltran rule`: the rules of transaction monitoring.

use clap::{Args, Subcommand};
use deltran_api::common::v1::Money;
use deltran_api::compliance::v1::{ListRulesRequest, ListRulesResponse, Rule, SetRuleRequest, SetRuleResponse};
use deltran_runtime::Role;

use super::{ClientArgs, Rows, Session, id_or_fresh, pages};
use crate::output::{Output, count, money, shown, table, time};
use crate::problem::Problem;

/// Monitoring rules: list, set
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran rule list
  deltran rule set velocity --kind velocity --window 1h --max-count 20000 --amount USD=50000000.00
  deltran rule set structuring --kind structuring --window 24h --min-count 4 --band 500 --amount USD=10000.00

Role compliance is assumed, user \"compliance\".")]
pub struct RuleArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists the rules in use, or all versions
    #[command(after_help = "Examples:\n  deltran rule list --rule velocity --history")]
    List {
        /// Only this rule
        #[arg(long)]
        rule: Option<String>,
        /// Earlier versions too
        #[arg(long)]
        history: bool,
        #[command(flatten)]
        rows: Rows,
    },
    /// Puts a new version of a rule in use; it begins with empty windows
    #[command(after_help = "Examples:
  deltran rule set burst --kind velocity --window 5m --scope pair --max-count 100 --mode shadow
  deltran rule set structuring --kind structuring --window 24h --min-count 3 --band 1000 --amount EUR=10000.00
  deltran rule set velocity --kind velocity --window 1h --max-count 50000 --mode off")]
    Set(SetArgs),
}

#[derive(Debug, Args)]
struct SetArgs {
    /// The rule's name
    rule: String,
    /// velocity or structuring
    #[arg(long)]
    kind: String,
    /// How long the window is: seconds, or 5m, 1h, 7d
    #[arg(long, value_parser = seconds)]
    window: u64,
    /// velocity: more transactions than this cross the rule
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_count: u64,
    /// structuring: this many transactions cross the rule, 3 or more
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    min_count: u64,
    /// structuring: how far below the threshold counts, in ten-thousandths: 1000 is a tenth
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    band: u32,
    /// velocity: the most of a currency; structuring: its threshold. May be given for several currencies
    #[arg(long = "amount", value_name = "CURRENCY=AMOUNT", value_parser = amount)]
    amounts: Vec<Money>,
    /// payer, or pair of payer and payee [default: payer for velocity, pair for structuring]
    #[arg(long)]
    scope: Option<String>,
    /// active, shadow (record only) or off
    #[arg(long, default_value = "active")]
    mode: String,
    /// Check before commit; not part of this release
    #[arg(long, hide = true)]
    gate: bool,
    /// The command's id: the same command under the same id is carried out once [default: a fresh one]
    #[arg(long, value_name = "UUID")]
    command_id: Option<String>,
}

fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(|c: char| c.is_ascii_alphabetic()) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err("expected seconds, or a number with s, m, h or d".into()),
    };
    let number: u64 = number.parse().map_err(|_| "expected seconds, or a number with s, m, h or d".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "is too long".into())
}

fn amount(text: &str) -> Result<Money, String> {
    let (currency, amount) = text.split_once('=').ok_or("expected such as USD=10000.00")?;
    Ok(Money { amount: amount.to_owned(), currency: currency.to_owned() })
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: RuleArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let mut client = session.compliance(session.caller(Role::Compliance, "compliance", None)?);
    match args.command {
        Command::List { rule, history, rows } => {
            let request = ListRulesRequest { page: None, rule: rule.unwrap_or_default(), history };
            let (rules, more) = pages(&rows, async |page| {
                let request = ListRulesRequest { page, ..request.clone() };
                let answer = client.clone().list_rules(request).await?.into_inner();
                Ok((answer.rules, answer.next_page_token))
            })
            .await?;
            let answer = ListRulesResponse { rules, next_page_token: String::new() };
            session.out.show("deltran.compliance.v1.ListRulesResponse", &answer, |a| list_table(&a.rules, more));
        }
        Command::Set(args) => {
            let request = SetRuleRequest {
                command_id: id_or_fresh(&args.command_id),
                rule: args.rule,
                kind: args.kind.to_ascii_lowercase(),
                mode: args.mode.to_ascii_uppercase(),
                scope: args.scope.unwrap_or_default().to_ascii_uppercase(),
                window_seconds: args.window,
                max_count: args.max_count,
                min_count: args.min_count,
                band: args.band,
                amounts: args.amounts,
                gate: args.gate,
            };
            let answer = client.set_rule(request).await?.into_inner();
            session.out.show("deltran.compliance.v1.SetRuleResponse", &answer, |a: &SetRuleResponse| {
                list_table(&Vec::from_iter(a.rule.clone()), false)
            });
        }
    }
    Ok(())
}

fn list_table(rules: &[Rule], more: bool) -> String {
    let rows = rules.iter().map(|r| {
        let looks_for = match r.kind.as_str() {
            "structuring" => format!("{} or more, up to {} % below", count(r.min_count), percent(r.band)),
            _ if r.max_count > 0 => format!("more than {}", count(r.max_count)),
            _ => String::new(),
        };
        let amounts: Vec<String> = r.amounts.iter().map(|amount| money(&Some(amount.clone()))).collect();
        [
            format!("{} {}", r.rule, r.version),
            r.kind.clone(),
            if r.current { r.mode.clone() } else { "superseded".into() },
            r.scope.clone(),
            count(r.window_seconds),
            looks_for,
            amounts.join("\n"),
            r.set_by.clone(),
            time(&r.set_at),
            count(r.late),
        ]
    });
    let head = ["rule", "kind", "mode", "scope", "window s", "transactions", "amounts", "set by", "set at", "too late"];
    format!("{}\n{}", table(head, rows), shown(rules.len(), "rules", more))
}

/// Ten-thousandths as a percentage.
fn percent(band: u32) -> String {
    let text = format!("{}.{:02}", band / 100, band % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_amounts_and_bands_are_read_and_shown() {
        for (text, expected) in [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in ["", "h", "1w", "-1", "1.5h", "99999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
        assert_eq!(amount("USD=1.00"), Ok(Money { amount: "1.00".into(), currency: "USD".into() }));
        assert!(amount("1.00").is_err());
        for (band, text) in [(1000, "10"), (500, "5"), (1, "0.01"), (1050, "10.5")] {
            assert_eq!(percent(band), text);
        }
    }
}
