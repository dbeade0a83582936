//! `deltran limit`: limits, proposed by one and approved by another.

use clap::{Args, Subcommand};
use deltran_api::risk::v1::{
    ApproveLimitRequest, Limit, LimitKind, ListLimitsRequest, ListLimitsResponse, ProposeLimitRequest,
};
use deltran_runtime::Role;

use super::{ClientArgs, Rows, Session, amount_of, id_or_fresh, pages, word_parser};
use crate::output::{Output, amount, currency, money, sheet, shown, table, time};
use crate::problem::Problem;

word_parser!(limit_kind, LimitKind);

/// Limits: list, propose, approve
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran limit propose --kind net-debit-cap --participant ALFAAEXX --amount 500000.00 --currency USD --reason \"review\"
  deltran limit approve 0190c3d5-0000-7000-8000-000000000001

Role risk is assumed, user \"risk\" to propose and \"risk-approver\" to approve: a limit takes two people.")]
pub struct LimitArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists limits with their history
    #[command(after_help = "Examples:\n  deltran limit list --participant ALFAAEXX --state ACTIVE")]
    List {
        /// Only this participant's
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only those in this state: PROPOSED, APPROVED, ACTIVE, SUPERSEDED
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Proposes a limit; it has no effect before another user approves it
    #[command(after_help = "Examples:
  deltran limit propose --kind net-debit-cap --participant ALFAAEXX --amount 500000.00 --currency USD --reason \"review\"
  deltran limit propose --kind single-transaction-maximum --amount 1000000.00 --currency EUR --reason \"policy 7\"")]
    Propose {
        /// net-debit-cap or single-transaction-maximum
        #[arg(long, value_parser = limit_kind)]
        kind: LimitKind,
        /// Whose limit; none is everybody's, for a single-transaction-maximum
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// How much
        #[arg(long)]
        amount: String,
        /// Its currency
        #[arg(long)]
        currency: String,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        /// The limit's id, its idempotency key [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        id: Option<String>,
    },
    /// Approves proposed limits
    #[command(after_help = "Examples:\n  deltran limit approve 0190c3d5-0000-7000-8000-000000000001 --user grace")]
    Approve {
        /// The limits
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: LimitArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    match args.command {
        Command::List { participant, state, rows } => {
            let client = session.risk(session.caller(Role::Risk, "risk", None)?);
            let (limits, more) = pages(&rows, async |page| {
                let request = ListLimitsRequest {
                    page,
                    participant: participant.clone().unwrap_or_default(),
                    state: state.clone().unwrap_or_default().to_ascii_uppercase(),
                };
                let answer = client.clone().list_limits(request).await?.into_inner();
                Ok((answer.limits, answer.next_page_token))
            })
            .await?;
            let answer = ListLimitsResponse { limits, next_page_token: String::new() };
            session.out.show("deltran.risk.v1.ListLimitsResponse", &answer, |a| list_table(a, more));
            Ok(())
        }
        Command::Propose { kind, participant, amount, currency, reason, id } => {
            let mut client = session.risk(session.caller(Role::Risk, "risk", None)?);
            let request = ProposeLimitRequest {
                limit_id: id_or_fresh(&id),
                kind: kind.into(),
                participant: participant.unwrap_or_default(),
                amount: amount_of(&amount, &currency),
                reason,
            };
            let answer = client.propose_limit(request).await?.into_inner();
            session.out.show("deltran.risk.v1.ProposeLimitResponse", &answer, |a| one(a.limit.as_ref()));
            Ok(())
        }
        Command::Approve { ids } => {
            let mut client = session.risk(session.caller(Role::Risk, "risk-approver", None)?);
            let mut limits = Vec::with_capacity(ids.len());
            for limit_id in ids {
                limits.extend(client.approve_limit(ApproveLimitRequest { limit_id }).await?.into_inner().limit);
            }
            let answer = ListLimitsResponse { limits, next_page_token: String::new() };
            session.out.show("deltran.risk.v1.ListLimitsResponse", &answer, |a| list_table(a, false));
            Ok(())
        }
    }
}

fn list_table(answer: &ListLimitsResponse, more: bool) -> String {
    let rows = answer.limits.iter().map(|l| {
        [
            l.limit_id.clone(),
            l.kind().as_str_name().to_owned(),
            l.participant.clone(),
            amount(&l.amount),
            currency(&l.amount),
            l.state.clone(),
            l.proposed_by.clone(),
            l.approved_by.clone(),
            time(&l.effective_at),
        ]
    });
    let head =
        ["limit", "kind", "participant", "amount", "currency", "state", "proposed by", "approved by", "effective at"];
    format!("{}\n{}", table(head, rows), shown(answer.limits.len(), "limits", more))
}

fn one(limit: Option<&Limit>) -> String {
    let Some(l) = limit else { return String::new() };
    sheet([
        ("limit", l.limit_id.clone()),
        ("kind", l.kind().as_str_name().to_owned()),
        ("participant", l.participant.clone()),
        ("amount", money(&l.amount)),
        ("state", l.state.clone()),
        ("proposed by", l.proposed_by.clone()),
        ("approved by", l.approved_by.clone()),
        ("reason", l.reason.clone()),
    ])
}
