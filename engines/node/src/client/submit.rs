//! `deltran transaction submit`: one transaction from options, or all of a file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use deltran_api::token::v1::{Party, Priority, SettlementModel, SubmitTransactionRequest, TransactionInstruction};

use super::transaction::{outcome, refusal_of};
use super::{Session, amount_of, id_or_fresh, word_parser};
use crate::file::source::Format;
use crate::file::submit::{Options, submit_file};
use crate::problem::Problem;

word_parser!(model, SettlementModel);
word_parser!(priority, Priority);

/// The help after the options.
pub const HELP: &str = "Columns of a CSV file: end_to_end_id, payer, payee, amount, currency, and where wanted payer_account, \
payee_account, \
transaction_id, originator_name, beneficiary_name, model. The header decides; an unknown column is an error. Without \
transaction_id the id is UUIDv5 of payer and end_to_end_id. A BIC's branch XXX is the head office, the BIC without it. A \
party goes along to screening where its name is given.

An ISO 20022 file is one pacs.008.001.08 to .12 (FIToFICstmrCdtTrf, SttlmMtd CLRG), by itself or in a business envelope. \
DbtrAgt and CdtrAgt are payer and payee by their BICFI. The transaction id is the \
UETR, else UUIDv5 of MsgId, payer, EndToEndId, TxId and InstrId. All of it is read before anything is submitted: where it \
is cut off, or NbOfTxs, CtrlSum or TtlIntrBkSttlmAmt do not agree, nothing is. Dates and charges are not read: the open \
window decides. Transactions with parties that would not be screened (UltmtDbtr, InitgPty, UltmtCdtr) or with intermediary \
agents are refused, each by itself.

A line or transaction that cannot be used is reported with its line number and the rest goes on. Each payer's go over a \
stream of its own, as that payer. What was not answered is sent again under the same id; after --timeout without progress \
the command ends with exit code 3, and running it again continues.

Exit code 0: all were accepted. 1: some were refused or could not be used, or the file was. 3: no answer, run it again.

Examples:
  deltran transaction submit --payer ALFAAEXX --payee BRAVINXX --amount 10.00 --currency USD
  deltran transaction submit --payer ALFAAEXX --payee BRAVINXX --amount 10.00 --currency USD --gross --two-phase
  deltran transaction submit --file day.csv
  deltran transaction submit --file day.csv --batch 1000 --report refused.csv --json
  deltran transaction submit --file pacs008.xml --report refused.csv
  gunzip -c pacs008.xml.gz | deltran transaction submit --file - --format pacs008";

/// What submitting takes.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["file", "payer"])))]
pub struct SubmitArgs {
    /// A file of transactions, CSV or ISO 20022 pacs.008; - is standard input
    #[arg(long, value_name = "FILE", help_heading = "A file")]
    file: Option<PathBuf>,
    /// Its format [default: pacs008 where it begins with <, else csv]
    #[arg(long, conflicts_with = "payer", value_name = "FORMAT", help_heading = "A file")]
    format: Option<Format>,
    /// Transactions per message
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N", help_heading = "A file")]
    batch: u16,
    /// Where to write refused lines, as CSV
    #[arg(long, conflicts_with = "payer", value_name = "FILE", help_heading = "A file")]
    report: Option<PathBuf>,
    /// Seconds without any answer after which to give up
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS", help_heading = "A file")]
    timeout: u64,
    /// Settlement model where the file has none: net-multilateral, net-bilateral or gross
    #[arg(long, value_parser = model, default_value = "net-multilateral")]
    model: SettlementModel,

    /// Who pays; calls as this participant
    #[arg(long, value_name = "BIC", conflicts_with = "file", help_heading = "One transaction")]
    payer: Option<String>,
    /// Who is paid
    #[arg(long, value_name = "BIC", requires = "payer", help_heading = "One transaction")]
    payee: Option<String>,
    /// How much, with exactly the currency's minor digits
    #[arg(long, requires = "payer", help_heading = "One transaction")]
    amount: Option<String>,
    /// Its currency
    #[arg(long, requires = "payer", help_heading = "One transaction")]
    currency: Option<String>,
    /// The transaction's id, its idempotency key [default: a fresh one]
    #[arg(long, value_name = "UUID", requires = "payer", help_heading = "One transaction")]
    id: Option<String>,
    /// Reserve only; `transaction commit` commits
    #[arg(long, requires = "payer", help_heading = "One transaction")]
    two_phase: bool,
    /// With --two-phase: seconds until the reservation expires [default: 300]
    #[arg(long, requires = "two_phase", value_name = "SECONDS", help_heading = "One transaction")]
    expires: Option<u32>,
    /// Settle at once and alone: the same as --model gross
    #[arg(long, requires = "payer", help_heading = "One transaction")]
    gross: bool,
    /// normal, urgent or highly-urgent
    #[arg(long, value_parser = priority, requires = "payer", help_heading = "One transaction")]
    priority: Option<Priority>,
    /// Reference that goes from end to end
    #[arg(long, requires = "payer", help_heading = "One transaction")]
    end_to_end_id: Option<String>,
    /// Name of the person or company that pays; goes to screening only
    #[arg(long, requires = "payer", help_heading = "One transaction")]
    originator_name: Option<String>,
    /// Country of the originator
    #[arg(long, requires = "originator_name", help_heading = "One transaction")]
    originator_country: Option<String>,
    /// Name of the person or company that is paid; goes to screening only
    #[arg(long, requires = "payer", help_heading = "One transaction")]
    beneficiary_name: Option<String>,
    /// Country of the beneficiary
    #[arg(long, requires = "beneficiary_name", help_heading = "One transaction")]
    beneficiary_country: Option<String>,
}

impl SubmitArgs {
    /// What clap cannot say: one transaction needs payee, amount and currency.
    ///
    /// # Errors
    /// Wrong usage, naming the option.
    pub fn check(&self) -> Result<(), Problem> {
        if self.payer.is_none() {
            return Ok(());
        }
        for (option, value) in [("--payee", &self.payee), ("--amount", &self.amount), ("--currency", &self.currency)] {
            if value.is_none() {
                return Err(Problem::usage(format!(
                    "one transaction needs {option}: see `deltran transaction submit --help`"
                )));
            }
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// What the platform answers, a refusal, or refused lines.
pub async fn run(session: &Session, args: SubmitArgs) -> Result<(), Problem> {
    match (args.file, args.payer) {
        (Some(file), _) => {
            let options = Options {
                file,
                format: args.format,
                batch: usize::from(args.batch),
                report: args.report,
                model: args.model,
                timeout: Duration::from_secs(args.timeout),
            };
            submit_file(session, options).await
        }
        (None, Some(payer)) => {
            let party = |name: Option<String>, country: Option<String>| {
                name.map(|name| Party { name, country: country.unwrap_or_default(), ..Party::default() })
            };
            let instruction = TransactionInstruction {
                transaction_id: id_or_fresh(&args.id),
                payee: args.payee.unwrap_or_default(),
                amount: amount_of(&args.amount.unwrap_or_default(), &args.currency.unwrap_or_default()),
                model: if args.gross { SettlementModel::Gross } else { args.model }.into(),
                priority: args.priority.unwrap_or_default().into(),
                end_to_end_id: args.end_to_end_id.unwrap_or_default(),
                originator: party(args.originator_name, args.originator_country),
                beneficiary: party(args.beneficiary_name, args.beneficiary_country),
                two_phase: args.two_phase,
                timeout_seconds: args.expires.unwrap_or_default(),
                payer: payer.clone(),
                ..TransactionInstruction::default()
            };
            let request = SubmitTransactionRequest { transaction: Some(instruction) };
            let answer = session.token(session.bank(&payer)?).submit_transaction(request).await?.into_inner();
            session.out.show("deltran.token.v1.SubmitTransactionResponse", &answer, |a| {
                outcome(a.outcome.as_ref(), a.replayed)
            });
            refusal_of(answer.outcome.as_ref())
        }
        (None, None) => Err(Problem::usage("name a --file, or a --payer for one transaction")),
    }
}
