//! `deltran settlement`: settlement batches, their funding and finality.

use clap::{Args, Subcommand};
use deltran_api::settlement::v1::{
    Batch, BatchState, FundingStatusRequest, GetBatchRequest, ListBatchesRequest, ListBatchesResponse,
    WatchSettlementsRequest,
};
use deltran_runtime::Role;

use super::{ClientArgs, Rows, Session, pages, word_parser};
use crate::output::{Output, amount, money, sheet, shown, table, time};
use crate::problem::Problem;

word_parser!(batch_state, BatchState);

/// Settlement batches: list, show, funding, watch
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran settlement list --currency USD
  deltran settlement funding 0190c3d5-0000-7000-8000-000000000001

Role operator is assumed, user \"operator\".")]
pub struct SettlementArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists settlement batches
    #[command(after_help = "Examples:\n  deltran settlement list --state awaiting-funds")]
    List {
        /// Only this currency's
        #[arg(long)]
        currency: Option<String>,
        /// Only this window's
        #[arg(long, value_name = "UUID")]
        window: Option<String>,
        /// Only those in these states
        #[arg(long, value_parser = batch_state, value_delimiter = ',')]
        state: Vec<BatchState>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Shows one batch
    #[command(after_help = "Examples:\n  deltran settlement show 0190c3d5-0000-7000-8000-000000000001")]
    Show {
        /// The batch
        id: String,
    },
    /// Shows what each debtor of a batch owes and has reserved
    #[command(after_help = "Examples:
  deltran settlement funding 0190c3d5-0000-7000-8000-000000000001
  deltran settlement funding 0190c3d5-0000-7000-8000-000000000001 --role bank --participant ALFAAEXX")]
    Funding {
        /// The batch
        id: String,
        /// With --role bank: the bank that asks
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
    },
    /// Prints every change as it happens, until Ctrl-C
    #[command(after_help = "Examples:\n  deltran settlement watch --json")]
    Watch {
        /// Begin after this position; 0 is the oldest that is kept
        #[arg(long, default_value_t = 0, value_name = "POSITION")]
        after: u64,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: SettlementArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    match args.command {
        Command::List { currency, window, state, rows } => {
            let client = session.settlement(session.operator()?);
            let filter = ListBatchesRequest {
                page: None,
                currency: currency.unwrap_or_default(),
                window_id: window.unwrap_or_default(),
                states: state.into_iter().map(Into::into).collect(),
            };
            let (batches, more) = pages(&rows, async |page| {
                let request = ListBatchesRequest { page, ..filter.clone() };
                let answer = client.clone().list_batches(request).await?.into_inner();
                Ok((answer.batches, answer.next_page_token))
            })
            .await?;
            let answer = ListBatchesResponse { batches, next_page_token: String::new() };
            session.out.show("deltran.settlement.v1.ListBatchesResponse", &answer, |a| {
                format!("{}\n{}", batches_table(&a.batches), shown(a.batches.len(), "batches", more))
            });
            Ok(())
        }
        Command::Show { id } => {
            let mut client = session.settlement(session.operator()?);
            let answer = client.get_batch(GetBatchRequest { batch_id: id }).await?.into_inner();
            session.out.show("deltran.settlement.v1.GetBatchResponse", &answer, |a| one(a.batch.as_ref()));
            Ok(())
        }
        Command::Funding { id, participant } => {
            let caller = session.caller(Role::Operator, "operator", participant.as_deref())?;
            let request = FundingStatusRequest { batch_id: id };
            let answer = session.settlement(caller).funding_status(request).await?.into_inner();
            session.out.show("deltran.settlement.v1.FundingStatusResponse", &answer, |a| {
                let rows = a
                    .debtors
                    .iter()
                    .map(|d| [d.participant.clone(), amount(&d.required), amount(&d.reserved), amount(&d.missing)]);
                format!("{}\n{}", one(a.batch.as_ref()), table(["debtor", "required", "reserved", "missing"], rows))
            });
            Ok(())
        }
        Command::Watch { after } => watch(&session, after).await,
    }
}

async fn watch(session: &Session, after: u64) -> Result<(), Problem> {
    let caller = session.operator()?.patient();
    let request = WatchSettlementsRequest { after_position: after };
    let mut changes = session.settlement(caller).watch_settlements(request).await?.into_inner();
    let mut position = after;
    loop {
        let change = changes.message().await.map_err(|status| super::interrupted(status, position))?;
        let Some(change) = change else { return Err(super::ended(position)) };
        position = change.position;
        let read = session.out.line("deltran.settlement.v1.WatchSettlementsResponse", &change, |c| {
            let batch = c.batch.as_ref();
            let (id, moved) = batch.map(|b| (b.batch_id.as_str(), money(&b.moved))).unwrap_or_default();
            let state = batch.map(|b| b.state().as_str_name()).unwrap_or_default();
            format!("{:>10}  {:<20} {id} {moved} {state}", c.position, c.event_type)
        });
        if !read {
            return Ok(());
        }
    }
}

fn batches_table(batches: &[Batch]) -> String {
    let rows = batches.iter().map(|b| {
        [
            b.batch_id.clone(),
            b.currency.clone(),
            b.state().as_str_name().to_owned(),
            amount(&b.gross),
            amount(&b.moved),
            b.participants.to_string(),
            time(&b.created_at),
            time(&b.final_at),
            b.note.clone(),
        ]
    });
    table(["batch", "currency", "state", "gross", "moved", "participants", "created at", "final at", "note"], rows)
}

fn one(batch: Option<&Batch>) -> String {
    let Some(b) = batch else { return String::new() };
    sheet([
        ("batch", b.batch_id.clone()),
        ("state", b.state().as_str_name().to_owned()),
        ("note", b.note.clone()),
        ("windows", b.window_ids.join(" ")),
        ("netting set", b.netting_set_id.clone()),
        ("gross", money(&b.gross)),
        ("moved", money(&b.moved)),
        ("participants", b.participants.to_string()),
        ("created at", time(&b.created_at)),
        ("funding until", time(&b.funding_deadline)),
        ("final at", time(&b.final_at)),
    ])
}
