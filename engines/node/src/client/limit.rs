//! `deltran limit`: limits, proposed by one and approved by another.

use clap::{Args, Subcommand};
use deltran_api::risk::v1::{
    ApproveLimitRequest, Limit, LimitKind, ListLimitHistoryRequest, ListLimitHistoryResponse, ListLimitsRequest,
    ListLimitsResponse, ProposeLimitRequest, Rate, RejectLimitRequest, WithdrawLimitRequest,
};
use deltran_kernel::Timestamp;
use deltran_runtime::{Role, wire};

use super::{ClientArgs, Rows, Session, amount_of, id_or_fresh, pages, word_parser};
use crate::output::{Output, amount, currency, money, sheet, shown, table, time};
use crate::problem::Problem;

word_parser!(limit_kind, LimitKind);

/// Limits: propose, approve, reject, withdraw, list, history
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran limit propose --kind net-debit-cap --participant ALFAAEXX --amount 500000.00 --currency USD --reason \"review\"
  deltran limit approve 0190c3d5-0000-7000-8000-000000000001
  deltran limit history --participant ALFAAEXX

Role risk is assumed, user \"risk\" to propose and \"risk-approver\" to approve: a limit takes two people.")]
pub struct LimitArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists limits in whatever state they are
    #[command(after_help = "Examples:
  deltran limit list --participant ALFAAEXX --state ACTIVE
  deltran limit list --kind bilateral --currency USD")]
    List {
        /// Only this participant's
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only those in this state: PROPOSED, APPROVED, ACTIVE, SUPERSEDED, REJECTED, WITHDRAWN
        #[arg(long)]
        state: Option<String>,
        /// Only those of this kind
        #[arg(long, value_parser = limit_kind)]
        kind: Option<LimitKind>,
        /// Only those in this currency
        #[arg(long)]
        currency: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Proposes a limit; it has no effect before another user approves it
    #[command(after_help = "Examples:
  deltran limit propose --kind net-debit-cap --participant ALFAAEXX --amount 500000.00 --currency USD --reason \"review\"
  deltran limit propose --kind single-transaction-maximum --amount 1000000.00 --currency EUR --reason \"policy 7\"
  deltran limit propose --kind bilateral --participant ALFAAEXX --counterparty BRAVINXX --amount 250000.00 \\
    --currency USD --reason \"new counterparty\"
  deltran limit propose --kind corridor-gross --corridor AE-IN --amount 9000000.00 --currency AED \\
    --reason \"policy 9\" --effective-from 2026-12-01T00:00:00Z
  deltran limit propose --kind rate --participant ALFAAEXX --transactions 6000 --window-seconds 60 --reason \"new\"")]
    Propose {
        /// net-debit-cap, single-transaction-maximum, bilateral, corridor-maximum, corridor-gross or rate
        #[arg(long, value_parser = limit_kind)]
        kind: LimitKind,
        /// Whose limit; none is everybody's, for a single-transaction-maximum and a rate
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Towards whom, for a bilateral limit
        #[arg(long, value_name = "BIC")]
        counterparty: Option<String>,
        /// Countries of payer and payee, for a corridor's limit, such as AE-IN
        #[arg(long)]
        corridor: Option<String>,
        /// How much; not for a rate
        #[arg(long, requires = "currency", allow_negative_numbers = true)]
        amount: Option<String>,
        /// Its currency
        #[arg(long, requires = "amount", conflicts_with = "transactions")]
        currency: Option<String>,
        /// How many transactions, for a rate
        #[arg(long, value_name = "N", requires = "window_seconds", conflicts_with = "amount")]
        transactions: Option<u64>,
        /// Within how many seconds, for a rate
        #[arg(long, value_name = "SECONDS", requires = "transactions")]
        window_seconds: Option<u32>,
        /// When it shall take effect, such as 2026-12-01T00:00:00Z [default: with its approval]
        #[arg(long, value_name = "TIME")]
        effective_from: Option<Timestamp>,
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
    /// Turns a proposed limit down; not its proposer
    #[command(after_help = "Examples:
  deltran limit reject 0190c3d5-0000-7000-8000-000000000001 --reason \"too high for its rating\"")]
    Reject(End),
    /// Takes a proposed limit back; only its proposer
    #[command(after_help = "Examples:
  deltran limit withdraw 0190c3d5-0000-7000-8000-000000000001 --reason \"wrong bank\"")]
    Withdraw(End),
    /// Shows every step of limits: who, when, and what took whose place
    #[command(after_help = "Examples:
  deltran limit history --id 0190c3d5-0000-7000-8000-000000000001
  deltran limit history --participant ALFAAEXX --kind net-debit-cap")]
    History {
        /// Only this limit's
        #[arg(long, value_name = "UUID")]
        id: Option<String>,
        /// Only those of this participant's limits
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only those of limits of this kind
        #[arg(long, value_parser = limit_kind)]
        kind: Option<LimitKind>,
        #[command(flatten)]
        rows: Rows,
    },
}

#[derive(Debug, Args)]
struct End {
    /// The limit
    id: String,
    /// Why, for the record
    #[arg(long)]
    reason: String,
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: LimitArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let mut risk = session.risk(session.caller(Role::Risk, "risk", None)?);
    match args.command {
        Command::List { participant, state, kind, currency, rows } => {
            let (limits, more) = pages(&rows, async |page| {
                let request = ListLimitsRequest {
                    page,
                    participant: participant.clone().unwrap_or_default(),
                    state: state.clone().unwrap_or_default().to_ascii_uppercase(),
                    kind: kind.unwrap_or_default().into(),
                    currency: currency.clone().unwrap_or_default().to_ascii_uppercase(),
                };
                let answer = risk.clone().list_limits(request).await?.into_inner();
                Ok((answer.limits, answer.next_page_token))
            })
            .await?;
            show_list(&session, limits, more);
        }
        Command::Propose {
            kind,
            participant,
            counterparty,
            corridor,
            amount,
            currency,
            transactions,
            window_seconds,
            effective_from,
            reason,
            id,
        } => {
            let rate = transactions.zip(window_seconds);
            let request = ProposeLimitRequest {
                limit_id: id_or_fresh(&id),
                kind: kind.into(),
                participant: participant.unwrap_or_default(),
                amount: amount.zip(currency).and_then(|(amount, currency)| amount_of(&amount, &currency)),
                reason,
                counterparty: counterparty.unwrap_or_default(),
                corridor: corridor.unwrap_or_default().to_ascii_uppercase(),
                rate: rate.map(|(transactions, window_seconds)| Rate { transactions, window_seconds }),
                effective_from: effective_from.map(wire::to_timestamp),
            };
            let answer = risk.propose_limit(request).await?.into_inner();
            session.out.show("deltran.risk.v1.ProposeLimitResponse", &answer, |a| one(a.limit.as_ref()));
        }
        Command::Approve { ids } => {
            let mut risk = session.risk(session.caller(Role::Risk, "risk-approver", None)?);
            let mut limits = Vec::with_capacity(ids.len());
            for limit_id in ids {
                limits.extend(risk.approve_limit(ApproveLimitRequest { limit_id }).await?.into_inner().limit);
            }
            show_list(&session, limits, false);
        }
        Command::Reject(End { id: limit_id, reason }) => {
            let mut risk = session.risk(session.caller(Role::Risk, "risk-approver", None)?);
            let answer = risk.reject_limit(RejectLimitRequest { limit_id, reason }).await?.into_inner();
            session.out.show("deltran.risk.v1.RejectLimitResponse", &answer, |a| one(a.limit.as_ref()));
        }
        Command::Withdraw(End { id: limit_id, reason }) => {
            let answer = risk.withdraw_limit(WithdrawLimitRequest { limit_id, reason }).await?.into_inner();
            session.out.show("deltran.risk.v1.WithdrawLimitResponse", &answer, |a| one(a.limit.as_ref()));
        }
        Command::History { id, participant, kind, rows } => {
            let (steps, more) = pages(&rows, async |page| {
                let request = ListLimitHistoryRequest {
                    page,
                    limit_id: id.clone().unwrap_or_default(),
                    participant: participant.clone().unwrap_or_default(),
                    kind: kind.unwrap_or_default().into(),
                };
                let answer = risk.clone().list_limit_history(request).await?.into_inner();
                Ok((answer.steps, answer.next_page_token))
            })
            .await?;
            let answer = ListLimitHistoryResponse { steps, next_page_token: String::new() };
            session.out.show("deltran.risk.v1.ListLimitHistoryResponse", &answer, |a| history_table(a, more));
        }
    }
    Ok(())
}

fn show_list(session: &Session, limits: Vec<Limit>, more: bool) {
    let answer = ListLimitsResponse { limits, next_page_token: String::new() };
    session.out.show("deltran.risk.v1.ListLimitsResponse", &answer, |a| list_table(a, more));
}

/// Whom or what a limit limits: `ALFAAEXX`, `ALFAAEXX → BRAVINXX`, `AE-IN`, `all`.
fn whose(limit: &Limit) -> String {
    match (limit.participant.as_str(), limit.counterparty.as_str(), limit.corridor.as_str()) {
        ("", _, "") => "all".to_owned(),
        ("", _, corridor) => corridor.to_owned(),
        (participant, "", _) => participant.to_owned(),
        (participant, counterparty, _) => format!("{participant} → {counterparty}"),
    }
}

/// An amount, or a number of transactions within a time.
fn allows(limit: &Limit) -> String {
    let rate = limit.rate.as_ref().map(|r| format!("{} in {} s", r.transactions, r.window_seconds));
    rate.unwrap_or_else(|| amount(&limit.amount))
}

fn list_table(answer: &ListLimitsResponse, more: bool) -> String {
    let rows = answer.limits.iter().map(|l| {
        [
            l.limit_id.clone(),
            l.kind().as_str_name().to_owned(),
            whose(l),
            allows(l),
            currency(&l.amount),
            l.state.clone(),
            l.proposed_by.clone(),
            l.approved_by.clone(),
            time(&l.effective_at.or(l.effective_from)),
        ]
    });
    let head = ["limit", "kind", "of", "amount", "currency", "state", "proposed by", "approved by", "effective at"];
    format!("{}\n{}", table(head, rows), shown(answer.limits.len(), "limits", more))
}

fn history_table(answer: &ListLimitHistoryResponse, more: bool) -> String {
    let rows = answer.steps.iter().map(|s| {
        [
            time(&s.at),
            s.limit_id.clone(),
            s.kind().as_str_name().to_owned(),
            s.participant.clone(),
            s.state.clone(),
            s.by.clone(),
            s.note.clone(),
        ]
    });
    let head = ["at", "limit", "kind", "participant", "state", "by", "note"];
    format!("{}\n{}", table(head, rows), shown(answer.steps.len(), "steps", more))
}

fn one(limit: Option<&Limit>) -> String {
    let Some(l) = limit else { return String::new() };
    let allowed = if l.rate.is_some() { allows(l) } else { money(&l.amount) };
    sheet([
        ("limit", l.limit_id.clone()),
        ("kind", l.kind().as_str_name().to_owned()),
        ("of", whose(l)),
        ("amount", allowed),
        ("state", l.state.clone()),
        ("proposed by", l.proposed_by.clone()),
        ("approved by", l.approved_by.clone()),
        ("effective from", time(&l.effective_from)),
        ("reason", l.reason.clone()),
        ("refusal", l.refusal.clone()),
    ])
}
