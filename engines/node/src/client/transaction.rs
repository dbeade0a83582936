//! `deltran transaction`: submit, commit, cancel, return, look at and watch transactions.

use clap::{Args, Subcommand};
use deltran_api::common::v1::Refusal;
use deltran_api::token::v1::{
    CancelTransactionRequest, CommitTransactionRequest, GetTransactionRequest, ListTransactionsRequest,
    ListTransactionsResponse, ReturnTransactionRequest, TransactionOutcome, TransactionState, TransactionView,
    WatchTransactionsRequest,
};
use deltran_runtime::Role;

use super::{ClientArgs, Rows, Session, amount_of, id_or_fresh, pages, submit, word_parser};
use crate::output::{Output, amount, currency, money, sheet, shown, table, time};
use crate::problem::Problem;

word_parser!(transaction_state, TransactionState);

/// Transactions: submit one or a file, commit, cancel, return, list, watch
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran transaction submit --payer ALFAAEXX --payee BRAVINXX --amount 10.00 --currency USD
  deltran transaction submit --file day.csv --report refused.csv
  deltran transaction list --participant ALFAAEXX

submit, commit, cancel and return are a bank's commands and call as the participant; show, list and watch call as operator \
unless --role bank --participant BIC is given.")]
pub struct TransactionArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Submits one transaction, or those of a file: CSV or ISO 20022 pacs.008
    #[command(after_help = submit::HELP)]
    Submit(Box<submit::SubmitArgs>),
    /// Commits a reserved transaction; the payer's command
    #[command(
        after_help = "Examples:\n  deltran transaction commit 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX"
    )]
    Commit {
        /// The transaction
        id: String,
        /// Its payer
        #[arg(long, value_name = "BIC")]
        participant: String,
    },
    /// Cancels a reserved transaction; the payer's command
    #[command(
        after_help = "Examples:\n  deltran transaction cancel 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX"
    )]
    Cancel {
        /// The transaction
        id: String,
        /// Its payer
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Returns a committed transaction, in part or whole; the payee's command
    #[command(after_help = "Examples:
  deltran transaction return 0190c3d5-0000-7000-8000-000000000001 --participant BRAVINXX --amount 5.00 --currency USD")]
    Return {
        /// The transaction to return
        of: String,
        /// The payee of that transaction
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// How much
        #[arg(long)]
        amount: String,
        /// Its currency
        #[arg(long)]
        currency: String,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
        /// The new transaction's id [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        id: Option<String>,
    },
    /// Shows one transaction
    #[command(after_help = "Examples:\n  deltran transaction show 0190c3d5-0000-7000-8000-000000000001 --json")]
    Show {
        /// The transaction
        id: String,
        /// With --role bank: the bank that asks
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
    },
    /// Lists transactions
    #[command(after_help = "Examples:
  deltran transaction list --participant ALFAAEXX --state rejected
  deltran transaction list --window 0190c3d5-0000-7000-8000-000000000001 --limit 0 --json")]
    List {
        /// Only those of this participant
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only those of this window
        #[arg(long, value_name = "UUID")]
        window: Option<String>,
        /// Only those in this state
        #[arg(long, value_parser = transaction_state)]
        state: Option<TransactionState>,
        /// Only those with this end-to-end id
        #[arg(long)]
        end_to_end_id: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Prints every change as it happens, until Ctrl-C
    #[command(after_help = "Examples:
  deltran transaction watch --only-new
  deltran transaction watch --role bank --participant ALFAAEXX --after 4711 --json")]
    Watch {
        /// With --role bank: the bank that watches
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Begin after this position; 0 is the oldest that is kept
        #[arg(long, default_value_t = 0, value_name = "POSITION")]
        after: u64,
        /// Begin with what happens from here on
        #[arg(long)]
        only_new: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers; for `submit` also refused lines or a refusal.
pub async fn run(args: TransactionArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    if let Command::Submit(submit_args) = &args.command {
        submit_args.check()?;
    }
    let session = Session::open(&client, out).await?;
    match args.command {
        Command::Submit(submit_args) => submit::run(&session, *submit_args).await,
        Command::Commit { id, participant } => {
            let mut client = session.token(session.bank(&participant)?);
            let request = CommitTransactionRequest { transaction_id: id };
            let answer = client.commit_transaction(request).await?.into_inner();
            session.out.show("deltran.token.v1.CommitTransactionResponse", &answer, |a| view(a.transaction.as_ref()));
            Ok(())
        }
        Command::Cancel { id, participant, reason } => {
            let mut client = session.token(session.bank(&participant)?);
            let request = CancelTransactionRequest { transaction_id: id, reason };
            let answer = client.cancel_transaction(request).await?.into_inner();
            session.out.show("deltran.token.v1.CancelTransactionResponse", &answer, |a| view(a.transaction.as_ref()));
            Ok(())
        }
        Command::Return { of, participant, amount, currency, reason, id } => {
            let mut client = session.token(session.bank(&participant)?);
            let request = ReturnTransactionRequest {
                transaction_id: id_or_fresh(&id),
                return_of: of,
                amount: amount_of(&amount, &currency),
                reason,
            };
            let answer = client.return_transaction(request).await?.into_inner();
            session.out.show("deltran.token.v1.ReturnTransactionResponse", &answer, |a| {
                outcome(a.outcome.as_ref(), a.replayed)
            });
            refusal_of(answer.outcome.as_ref())
        }
        Command::Show { id, participant } => {
            let caller = session.caller(Role::Operator, "operator", participant.as_deref())?;
            let request = GetTransactionRequest { transaction_id: id };
            let answer = session.token(caller).get_transaction(request).await?.into_inner();
            session.out.show("deltran.token.v1.GetTransactionResponse", &answer, |a| view(a.transaction.as_ref()));
            Ok(())
        }
        Command::List { participant, window, state, end_to_end_id, rows } => {
            let caller = session.caller(Role::Operator, "operator", participant.as_deref())?;
            let filter = ListTransactionsRequest {
                page: None,
                participant: participant.unwrap_or_default(),
                window_id: window.unwrap_or_default(),
                state: state.unwrap_or_default().into(),
                end_to_end_id: end_to_end_id.unwrap_or_default(),
            };
            list(&session, caller, filter, &rows).await
        }
        Command::Watch { participant, after, only_new } => {
            let caller = session.caller(Role::Operator, "operator", participant.as_deref())?;
            watch(&session, caller, after, only_new).await
        }
    }
}

async fn list(
    session: &Session,
    caller: super::Caller,
    filter: ListTransactionsRequest,
    rows: &Rows,
) -> Result<(), Problem> {
    let client = session.token(caller);
    let (transactions, more) = pages(rows, async |page| {
        let request = ListTransactionsRequest { page, ..filter.clone() };
        let answer = client.clone().list_transactions(request).await?.into_inner();
        Ok((answer.transactions, answer.next_page_token))
    })
    .await?;
    let answer = ListTransactionsResponse { transactions, next_page_token: String::new() };
    session.out.show("deltran.token.v1.ListTransactionsResponse", &answer, |a| {
        let rows = a.transactions.iter().map(|t| {
            [
                t.transaction_id.clone(),
                t.payer.clone(),
                t.payee.clone(),
                amount(&t.amount),
                currency(&t.amount),
                state_of(t),
                t.end_to_end_id.clone(),
                time(&t.created_at),
            ]
        });
        let head = ["transaction", "payer", "payee", "amount", "currency", "state", "end-to-end id", "created at"];
        format!("{}\n{}", table(head, rows), shown(a.transactions.len(), "transactions", more))
    });
    Ok(())
}

async fn watch(session: &Session, caller: super::Caller, after: u64, only_new: bool) -> Result<(), Problem> {
    let request = WatchTransactionsRequest { after_position: after, only_new };
    let mut changes = session.token(caller.patient()).watch_transactions(request).await?.into_inner();
    let mut position = after;
    loop {
        let change = changes.message().await.map_err(|status| super::interrupted(status, position))?;
        let Some(change) = change else { return Err(super::ended(position)) };
        position = change.position;
        let read = session.out.line("deltran.token.v1.WatchTransactionsResponse", &change, |c| {
            format!("{:>10}  {:<24} {}", c.position, c.event_type, c.envelope)
        });
        if !read {
            return Ok(());
        }
    }
}

fn state_of(t: &TransactionView) -> String {
    let word = t.state().as_str_name();
    match &t.refusal {
        Some(refusal) => format!("{word} {}", refusal.code),
        None if t.settled => format!("{word}, settled"),
        None => word.to_owned(),
    }
}

fn refusal(refusal: &Refusal) -> String {
    format!("{}: {}", refusal.code, refusal.message)
}

fn view(transaction: Option<&TransactionView>) -> String {
    let Some(t) = transaction else { return String::new() };
    sheet([
        ("transaction", t.transaction_id.clone()),
        ("state", state_of(t)),
        ("refusal", t.refusal.as_ref().map(refusal).unwrap_or_default()),
        ("payer", t.payer.clone()),
        ("payee", t.payee.clone()),
        ("amount", money(&t.amount)),
        ("model", t.model().as_str_name().to_owned()),
        ("priority", t.priority().as_str_name().to_owned()),
        ("end-to-end id", t.end_to_end_id.clone()),
        ("UETR", t.uetr.clone()),
        ("purpose", t.purpose.clone()),
        ("window", t.window_id.clone()),
        ("number in window", if t.window_seq == 0 { String::new() } else { t.window_seq.to_string() }),
        ("return of", t.return_of.clone()),
        ("returned", money(&t.returned)),
        ("created at", time(&t.created_at)),
        ("updated at", time(&t.updated_at)),
        ("expires at", time(&t.expires_at)),
    ])
}

/// What an outcome looks like.
pub fn outcome(outcome: Option<&TransactionOutcome>, replayed: bool) -> String {
    let Some(o) = outcome else { return String::new() };
    sheet([
        ("transaction", o.transaction_id.clone()),
        ("state", o.state().as_str_name().to_owned()),
        ("refusal", o.refusal.as_ref().map(refusal).unwrap_or_default()),
        ("window", o.window_id.clone()),
        ("number in window", if o.window_seq == 0 { String::new() } else { o.window_seq.to_string() }),
        ("decided at", time(&o.decided_at)),
        ("expires at", time(&o.expires_at)),
        ("answered before", if replayed { "yes".to_owned() } else { String::new() }),
    ])
}

/// A refusal as the command's end.
///
/// # Errors
/// Where the outcome is a refusal.
pub fn refusal_of(outcome: Option<&TransactionOutcome>) -> Result<(), Problem> {
    match outcome.and_then(|o| o.refusal.as_ref()) {
        None => Ok(()),
        Some(refusal) => {
            let mut problem = Problem::refused(format!("refused: {}", self::refusal(refusal)));
            problem.reason.clone_from(&refusal.code);
            problem.details.clone_from(&refusal.details);
            Err(problem)
        }
    }
}
