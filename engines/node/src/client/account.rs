//! `deltran account`: balances, postings, deposits and withdrawals.

use clap::{Args, Subcommand};
use deltran_api::token::v1::{
    ConfirmDepositRequest, ConfirmWithdrawalRequest, CoverPolicy, FailWithdrawalRequest, GetBalancesRequest,
    GetBalancesResponse, ListPostingsRequest, ListPostingsResponse, RequestWithdrawalRequest, SetCollateralRequest,
    VerifyLedgerRequest, VerifyLedgerResponse,
};
use deltran_runtime::Role;

use super::{ClientArgs, Rows, Session, amount_of, id_or_fresh, pages, word_parser};
use crate::output::{Output, amount, count, currency, money, say, sheet, shown, table, time};
use crate::problem::Problem;

word_parser!(cover_policy, CoverPolicy);

/// Accounts: balances, postings, deposits, withdrawals, collateral, verification
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran account balances --currency USD
  deltran account verify

Role operator is assumed, user \"operator\"; `withdraw` is a bank's command and calls as the participant.")]
pub struct AccountArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows balances, headroom and positions
    #[command(after_help = "Examples:
  deltran account balances
  deltran account balances --participant ALFAAEXX --currency USD --json
  deltran account balances --participant ALFAAEXX --role bank")]
    Balances {
        /// Only this participant's
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only this currency's
        #[arg(long)]
        currency: Option<String>,
    },
    /// Lists postings, oldest first
    #[command(after_help = "Examples:\n  deltran account postings --participant ALFAAEXX --limit 20")]
    Postings {
        /// Only those that touch this participant
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only this currency's
        #[arg(long)]
        currency: Option<String>,
        /// Only those of this transaction
        #[arg(long, value_name = "UUID")]
        transaction: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Checks the ledger's invariants L1 to L8; exit code 1 where one does not hold
    #[command(after_help = "Examples:\n  deltran account verify --json")]
    Verify,
    /// Confirms that fiat has arrived at the safeguarding bank, and mints tokens for it
    #[command(after_help = "Examples:
  deltran account deposit --participant ALFAAEXX --amount 100.00 --currency USD --reference STMT-7/12")]
    Deposit(Movement),
    /// Asks for tokens to be paid out; a bank's command
    #[command(after_help = "Examples:
  deltran account withdraw --participant ALFAAEXX --amount 100.00 --currency USD --reference OUT-1")]
    Withdraw(Movement),
    /// Confirms that the safeguarding bank has paid a withdrawal out, and burns its tokens
    #[command(
        after_help = "Examples:\n  deltran account withdraw-confirm 0190c3d5-0000-7000-8000-000000000001 --reference STMT-9/3"
    )]
    WithdrawConfirm {
        /// The withdrawal's id
        id: String,
        /// The safeguarding bank's reference
        #[arg(long, default_value = "")]
        reference: String,
    },
    /// Gives the tokens of a withdrawal back
    #[command(
        after_help = "Examples:\n  deltran account withdraw-fail 0190c3d5-0000-7000-8000-000000000001 --reason \"account closed\""
    )]
    WithdrawFail {
        /// The withdrawal's id
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Sets how a participant is covered; four eyes: run it twice, by two users, with the same id
    #[command(after_help = "Examples:
  deltran account collateral --participant ALFAAEXX --policy collateral --amount 50000.00 --currency USD \\
      --reason \"bonds pledged\" --id 0190c3d5-0000-7000-8000-000000000001 --user ada
  … and the same with --user grace")]
    Collateral {
        /// Whose cover
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// prefunded, collateral or credit-line
        #[arg(long, value_parser = cover_policy)]
        policy: CoverPolicy,
        /// Value of the collateral or of the credit line; 0.00 for prefunded
        #[arg(long)]
        amount: String,
        /// Its currency
        #[arg(long)]
        currency: String,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
        /// Idempotency key: the same in both runs
        #[arg(long, value_name = "UUID")]
        id: String,
    },
}

#[derive(Debug, Args)]
struct Movement {
    /// Whose tokens
    #[arg(long, value_name = "BIC")]
    participant: String,
    /// How much, with exactly the currency's minor digits
    #[arg(long)]
    amount: String,
    /// Its currency
    #[arg(long)]
    currency: String,
    /// Reference for matching with the safeguarding bank
    #[arg(long)]
    reference: String,
    /// Idempotency key [default: a fresh one]
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the platform answers, and a breach for `verify`.
pub async fn run(args: AccountArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    match args.command {
        Command::Balances { participant, currency } => balances(&session, participant, currency).await,
        Command::Postings { participant, currency, transaction, rows } => {
            let caller = session.caller(Role::Operator, "operator", participant.as_deref())?;
            let client = session.token(caller);
            let (postings, more) = pages(&rows, async |page| {
                let request = ListPostingsRequest {
                    page,
                    participant: participant.clone().unwrap_or_default(),
                    currency: currency.clone().unwrap_or_default(),
                    transaction_id: transaction.clone().unwrap_or_default(),
                };
                let answer = client.clone().list_postings(request).await?.into_inner();
                Ok((answer.postings, answer.next_page_token))
            })
            .await?;
            let answer = ListPostingsResponse { postings, next_page_token: String::new() };
            session.out.show("deltran.token.v1.ListPostingsResponse", &answer, |a| postings_table(a, more));
            Ok(())
        }
        Command::Verify => verify(&session).await,
        Command::Deposit(m) => {
            let request = ConfirmDepositRequest {
                command_id: id_or_fresh(&m.id),
                participant: m.participant,
                amount: amount_of(&m.amount, &m.currency),
                reference: m.reference,
            };
            let id = request.command_id.clone();
            let answer = session.token(session.operator()?).confirm_deposit(request).await?.into_inner();
            session.out.show("deltran.token.v1.ConfirmDepositResponse", &answer, |a| {
                sheet([("deposit", id), ("balance", money(&a.balance)), ("repeated", yes(a.replayed))])
            });
            Ok(())
        }
        Command::Withdraw(m) => {
            let bank = session.bank(&m.participant)?;
            let request = RequestWithdrawalRequest {
                withdrawal_id: id_or_fresh(&m.id),
                participant: m.participant,
                amount: amount_of(&m.amount, &m.currency),
                reference: m.reference,
            };
            let id = request.withdrawal_id.clone();
            let answer = session.token(bank).request_withdrawal(request).await?.into_inner();
            withdrawal(&session, &id, &answer.state, answer.replayed);
            Ok(())
        }
        Command::WithdrawConfirm { id, reference } => {
            let request = ConfirmWithdrawalRequest { withdrawal_id: id.clone(), reference };
            let answer = session.token(session.operator()?).confirm_withdrawal(request).await?.into_inner();
            withdrawal(&session, &id, &answer.state, answer.replayed);
            Ok(())
        }
        Command::WithdrawFail { id, reason } => {
            let request = FailWithdrawalRequest { withdrawal_id: id.clone(), reason };
            let answer = session.token(session.operator()?).fail_withdrawal(request).await?.into_inner();
            withdrawal(&session, &id, &answer.state, answer.replayed);
            Ok(())
        }
        Command::Collateral { participant, policy, amount, currency, reason, id } => {
            let request = SetCollateralRequest {
                command_id: id,
                participant,
                policy: policy.into(),
                amount: amount_of(&amount, &currency),
                reason,
            };
            let answer = session.token(session.operator()?).set_collateral(request).await?.into_inner();
            session.out.show("deltran.token.v1.SetCollateralResponse", &answer, |a| {
                sheet([
                    ("state", a.state.clone()),
                    ("proposed by", a.proposed_by.clone()),
                    ("approved by", a.approved_by.clone()),
                ])
            });
            Ok(())
        }
    }
}

/// "yes", or nothing.
fn yes(flag: bool) -> String {
    if flag { "yes".to_owned() } else { String::new() }
}

fn withdrawal(session: &Session, id: &str, state: &str, replayed: bool) {
    if session.out.json {
        session.out.value(&serde_json::json!({"withdrawal_id": id, "state": state, "replayed": replayed}));
    } else {
        say(&sheet([("withdrawal", id.to_owned()), ("state", state.to_owned()), ("repeated", yes(replayed))]));
    }
}

async fn balances(session: &Session, participant: Option<String>, currency: Option<String>) -> Result<(), Problem> {
    let caller = session.caller(Role::Operator, "operator", participant.as_deref())?;
    let request =
        GetBalancesRequest { participant: participant.unwrap_or_default(), currency: currency.unwrap_or_default() };
    let answer = session.token(caller).get_balances(request).await?.into_inner();
    session.out.show("deltran.token.v1.GetBalancesResponse", &answer, balances_tables);
    Ok(())
}

fn balances_tables(answer: &GetBalancesResponse) -> String {
    let rows = answer.balances.iter().map(|b| {
        [
            b.participant.clone(),
            b.currency.clone(),
            amount(&b.available),
            amount(&b.reserved),
            amount(&b.cap_used),
            amount(&b.net_debit_cap),
            amount(&b.cap_headroom),
            amount(&b.cover_headroom),
            b.cover_policy().as_str_name().to_owned(),
            amount(&b.collateral),
        ]
    });
    let mut text = table(
        [
            "participant",
            "currency",
            "available",
            "reserved",
            "cap used",
            "cap",
            "cap left",
            "cover left",
            "policy",
            "collateral",
        ],
        rows,
    );
    let positions: Vec<_> = answer
        .balances
        .iter()
        .flat_map(|b| b.positions.iter().map(move |p| (b, p)))
        .map(|(b, p)| {
            [b.participant.clone(), b.currency.clone(), p.window_id.clone(), amount(&p.net), amount(&p.earmarked)]
        })
        .collect();
    if !positions.is_empty() {
        text.push('\n');
        text.push_str(&table(["participant", "currency", "window", "net position", "earmarked"], positions));
    }
    if !answer.hub.is_empty() {
        let hub = answer
            .hub
            .iter()
            .map(|h| [h.currency.clone(), amount(&h.safeguard), amount(&h.multilateral), amount(&h.fees)]);
        text.push('\n');
        text.push_str(&table(["hub", "SAFEGUARD", "MULTILATERAL", "FEES"], hub));
    }
    text
}

fn postings_table(answer: &ListPostingsResponse, more: bool) -> String {
    let rows = answer.postings.iter().map(|p| {
        [
            p.posting_seq.to_string(),
            time(&p.posted_at),
            p.debit_account.clone(),
            p.credit_account.clone(),
            amount(&p.amount),
            currency(&p.amount),
            p.transaction_id.clone(),
        ]
    });
    let table = table(["posting", "posted at", "debit", "credit", "amount", "currency", "transaction"], rows);
    format!("{table}\n{}", shown(answer.postings.len(), "postings", more))
}

async fn verify(session: &Session) -> Result<(), Problem> {
    let caller = session.operator()?.patient();
    let answer = session.token(caller).verify_ledger(VerifyLedgerRequest {}).await?.into_inner();
    session.out.show("deltran.token.v1.VerifyLedgerResponse", &answer, verify_table);
    let breached: Vec<_> = answer.results.iter().filter(|r| !r.holds).map(|r| r.invariant.as_str()).collect();
    match (answer.results.is_empty(), breached.is_empty()) {
        (true, _) => Err(Problem::refused("the ledger answered without checking any invariant")),
        (false, true) => Ok(()),
        (false, false) => Err(Problem::refused(format!("the ledger breaches {}", breached.join(", ")))),
    }
}

/// What `verify` shows.
pub fn verify_table(answer: &VerifyLedgerResponse) -> String {
    let rows = answer.results.iter().map(|r| {
        let verdict = if r.holds { "holds" } else { "BREACHED" };
        [r.invariant.clone(), verdict.to_owned(), r.statement.clone(), r.detail.clone()]
    });
    let invariants = table(["invariant", "verdict", "statement", "detail"], rows);
    let totals = answer.totals.iter().map(|t| {
        [t.currency.clone(), count(t.committed), amount(&t.committed_amount), amount(&t.minted), amount(&t.burnt)]
    });
    let totals = table(["currency", "committed", "amount", "minted", "burnt"], totals);
    format!(
        "{invariants}\n{totals}\n{} transactions, {} postings, {} accounts",
        count(answer.transactions),
        count(answer.postings),
        count(answer.accounts)
    )
}
