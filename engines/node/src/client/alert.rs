//! `deltran alert`: what crossed the monitoring rules.

use clap::{Args, Subcommand};
use deltran_api::compliance::v1::{Alert, ListAlertsRequest, ListAlertsResponse};
use deltran_runtime::Role;

use super::{ClientArgs, Rows, Session, pages};
use crate::output::{Output, count, money, shown, table, time};
use crate::problem::Problem;

/// Alerts of transaction monitoring
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran alert list
  deltran alert list --participant ALFAAEXX --rule structuring

Role compliance is assumed, user \"compliance\".")]
pub struct AlertArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists alerts, and what shadow runs recorded
    #[command(after_help = "Examples:\n  deltran alert list --without-shadow --limit 0 --json")]
    List {
        /// Only this rule's
        #[arg(long)]
        rule: Option<String>,
        /// Only those with this payer
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only this case's
        #[arg(long, value_name = "UUID")]
        case: Option<String>,
        /// Leave shadow runs out
        #[arg(long)]
        without_shadow: bool,
        #[command(flatten)]
        rows: Rows,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: AlertArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let client = session.compliance(session.caller(Role::Compliance, "compliance", None)?);
    let Command::List { rule, participant, case, without_shadow, rows } = args.command;
    let request = ListAlertsRequest {
        page: None,
        rule: rule.unwrap_or_default(),
        participant: participant.unwrap_or_default(),
        case_id: case.unwrap_or_default(),
        without_shadow,
    };
    let (alerts, more) = pages(&rows, async |page| {
        let request = ListAlertsRequest { page, ..request.clone() };
        let answer = client.clone().list_alerts(request).await?.into_inner();
        Ok((answer.alerts, answer.next_page_token))
    })
    .await?;
    let answer = ListAlertsResponse { alerts, next_page_token: String::new() };
    session.out.show("deltran.compliance.v1.ListAlertsResponse", &answer, |a| list_table(&a.alerts, more));
    Ok(())
}

/// Alerts as a table.
pub fn list_table(alerts: &[Alert], more: bool) -> String {
    let rows = alerts.iter().map(|a| {
        let limit = if a.limit_amount.is_some() { money(&a.limit_amount) } else { count(a.limit_count) };
        [
            a.alert_id.clone(),
            format!("{} {}{}", a.rule, a.rule_version, if a.shadow { " (shadow)" } else { "" }),
            a.payer.clone(),
            a.payee.clone(),
            count(a.count),
            money(&a.amount),
            limit,
            time(&a.window_from),
            time(&a.window_to),
            a.case_id.clone(),
        ]
    });
    let head = ["alert", "rule", "payer", "payee", "count", "sum", "limit", "from", "to", "case"];
    format!("{}\n{}", table(head, rows), shown(alerts.len(), "alerts", more))
}
