//! `deltran window`: clearing windows and what netting makes of them.

use clap::{Args, Subcommand};
use deltran_api::clearing::v1::{
    AbortWindowRequest, ExtendWindowRequest, GetPositionsRequest, GetPositionsResponse, GetWindowRequest,
    ListWindowsRequest, ListWindowsResponse, NetWindowsRequest, NettingSet, OpenWindowRequest, PreviewNettingRequest,
    WatchWindowsRequest, Window, WindowState,
};
use deltran_kernel::Timestamp;
use deltran_runtime::Role;
use deltran_runtime::wire::to_timestamp;

use super::{ClientArgs, Rows, Session, id_or_fresh, pages, window_close, word_parser};
use crate::output::{Output, amount, count, currency, json_of, money, say, sheet, shown, table, time};
use crate::problem::Problem;

word_parser!(window_state, WindowState);

/// Clearing windows: open, close, extend, net, look at positions
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran window open --currency USD,EUR
  deltran window list --state open
  deltran window close --all --wait

Role operator is assumed, user \"operator\".")]
pub struct WindowArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists windows
    #[command(after_help = "Examples:\n  deltran window list --currency USD --state open,closing")]
    List {
        /// Only this currency's
        #[arg(long)]
        currency: Option<String>,
        /// Only this schedule's
        #[arg(long)]
        schedule: Option<String>,
        /// Only those in these states
        #[arg(long, value_parser = window_state, value_delimiter = ',')]
        state: Vec<WindowState>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Shows one window
    #[command(after_help = "Examples:\n  deltran window show 0190c3d5-0000-7000-8000-000000000001")]
    Show {
        /// The window
        id: String,
    },
    /// Opens a window per currency, of a schedule that is manual
    #[command(after_help = "Examples:\n  deltran window open --currency USD,EUR,AED --schedule manual")]
    Open {
        /// One or more, with commas between
        #[arg(long, value_delimiter = ',', required = true)]
        currency: Vec<String>,
        /// The schedule
        #[arg(long, default_value = "manual")]
        schedule: String,
        /// The window's id, its idempotency key; for one currency only [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        id: Option<String>,
    },
    /// Closes windows; they are netted and settled then
    #[command(after_help = window_close::HELP)]
    Close(window_close::CloseArgs),
    /// Moves the closing time of an open window to a later one
    #[command(after_help = "Examples:
  deltran window extend 0190c3d5-0000-7000-8000-000000000001 --until 2025-11-06T17:30:00Z --reason \"late file\"")]
    Extend {
        /// The window
        id: String,
        /// The new closing time, RFC 3339
        #[arg(long, value_name = "TIME")]
        until: Timestamp,
        /// Why, for the record
        #[arg(long)]
        reason: String,
    },
    /// Ends an empty window without netting
    #[command(
        after_help = "Examples:\n  deltran window abort 0190c3d5-0000-7000-8000-000000000001 --reason \"opened by mistake\""
    )]
    Abort {
        /// The window
        id: String,
        /// Why, for the record
        #[arg(long)]
        reason: String,
    },
    /// Nets FAILED windows of one currency again, alone or together
    #[command(
        after_help = "Examples:\n  deltran window net 0190c3d5-0000-7000-8000-000000000001 0190c3d5-0000-7000-8000-000000000002"
    )]
    Net {
        /// The windows
        #[arg(required = true)]
        ids: Vec<String>,
        /// The netting set's id, its idempotency key [default: a fresh one]
        #[arg(long = "id", value_name = "UUID")]
        set: Option<String>,
    },
    /// Shows net positions of a window, or of a netting set
    #[command(after_help = "Examples:\n  deltran window positions 0190c3d5-0000-7000-8000-000000000001 --json")]
    Positions {
        /// The window or netting set
        id: String,
        /// Only this participant's
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
    },
    /// Shows what netting a window at this moment would give; nothing is stored
    #[command(after_help = "Examples:\n  deltran window preview 0190c3d5-0000-7000-8000-000000000001")]
    Preview {
        /// The window
        id: String,
    },
    /// Prints every change as it happens, until Ctrl-C
    #[command(after_help = "Examples:\n  deltran window watch --after 12 --json")]
    Watch {
        /// Begin after this position; 0 is the oldest that is kept
        #[arg(long, default_value_t = 0, value_name = "POSITION")]
        after: u64,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers; for `close --wait` also a window that failed or waits for funds.
pub async fn run(args: WindowArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let mut client = session.clearing(session.operator_or_bank(None)?);
    match args.command {
        Command::List { currency, schedule, state, rows } => {
            let filter = ListWindowsRequest {
                page: None,
                currency: currency.unwrap_or_default(),
                schedule: schedule.unwrap_or_default(),
                states: state.into_iter().map(Into::into).collect(),
            };
            let (windows, more) = list(&session, &filter, &rows).await?;
            let answer = ListWindowsResponse { windows, next_page_token: String::new() };
            session.out.show("deltran.clearing.v1.ListWindowsResponse", &answer, |a| {
                format!("{}\n{}", windows_table(&a.windows), shown(a.windows.len(), "windows", more))
            });
            Ok(())
        }
        Command::Show { id } => {
            let answer = client.get_window(GetWindowRequest { window_id: id }).await?.into_inner();
            session.out.show("deltran.clearing.v1.GetWindowResponse", &answer, |a| one(a.window.as_ref()));
            Ok(())
        }
        Command::Open { currency, schedule, id } => open(&session, &currency, &schedule, &id).await,
        Command::Close(close) => window_close::run(&session, &close).await,
        Command::Extend { id, until, reason } => {
            let request = ExtendWindowRequest { window_id: id, closes_at: Some(to_timestamp(until)), reason };
            let answer = client.extend_window(request).await?.into_inner();
            session.out.show("deltran.clearing.v1.ExtendWindowResponse", &answer, |a| one(a.window.as_ref()));
            Ok(())
        }
        Command::Abort { id, reason } => {
            let answer = client.abort_window(AbortWindowRequest { window_id: id, reason }).await?.into_inner();
            session.out.show("deltran.clearing.v1.AbortWindowResponse", &answer, |a| one(a.window.as_ref()));
            Ok(())
        }
        Command::Net { ids, set } => {
            let request = NetWindowsRequest { netting_set_id: id_or_fresh(&set), window_ids: ids };
            let answer = client.net_windows(request).await?.into_inner();
            session.out.show("deltran.clearing.v1.NetWindowsResponse", &answer, |a| netting(a.netting_set.as_ref()));
            Ok(())
        }
        Command::Positions { id, participant } => {
            let mut client = session.clearing(session.operator_or_bank(participant.as_deref())?);
            let request = GetPositionsRequest { window_id: id, participant: participant.unwrap_or_default() };
            let answer = client.get_positions(request).await?.into_inner();
            session.out.show("deltran.clearing.v1.GetPositionsResponse", &answer, positions);
            Ok(())
        }
        Command::Preview { id } => {
            let answer = client.preview_netting(PreviewNettingRequest { window_id: id }).await?.into_inner();
            session
                .out
                .show("deltran.clearing.v1.PreviewNettingResponse", &answer, |a| netting(a.netting_set.as_ref()));
            Ok(())
        }
        Command::Watch { after } => watch(&session, after).await,
    }
}

async fn open(session: &Session, currencies: &[String], schedule: &str, id: &Option<String>) -> Result<(), Problem> {
    if id.is_some() && currencies.len() > 1 {
        return Err(Problem::usage(format!("--id names one window: {} currencies were given", currencies.len())));
    }
    let mut client = session.clearing(session.operator()?);
    let mut windows = Vec::with_capacity(currencies.len());
    for currency in currencies {
        let request =
            OpenWindowRequest { window_id: id_or_fresh(id), schedule: schedule.to_owned(), currency: currency.clone() };
        windows.extend(client.open_window(request).await?.into_inner().window);
    }
    tell(session, &windows);
    Ok(())
}

/// Prints windows.
pub fn tell(session: &Session, windows: &[Window]) {
    if session.out.json {
        let all: Vec<_> = windows.iter().map(|w| json_of("deltran.clearing.v1.Window", w)).collect();
        session.out.value(&serde_json::json!({ "windows": all }));
    } else {
        say(&windows_table(windows));
    }
}

/// Windows that fit a filter, up to a number of rows.
///
/// # Errors
/// What the platform answers.
pub async fn list(session: &Session, filter: &ListWindowsRequest, rows: &Rows) -> Result<(Vec<Window>, bool), Problem> {
    let client = session.clearing(session.operator_or_bank(None)?);
    pages(rows, async |page| {
        let request = ListWindowsRequest { page, ..filter.clone() };
        let answer = client.clone().list_windows(request).await?.into_inner();
        Ok((answer.windows, answer.next_page_token))
    })
    .await
}

async fn watch(session: &Session, after: u64) -> Result<(), Problem> {
    let caller = session.caller(Role::Operator, "operator", None)?.patient();
    let request = WatchWindowsRequest { after_position: after };
    let mut changes = session.clearing(caller).watch_windows(request).await?.into_inner();
    let mut position = after;
    loop {
        let change = changes.message().await.map_err(|status| super::interrupted(status, position))?;
        let Some(change) = change else { return Err(super::ended(position)) };
        position = change.position;
        let read = session.out.line("deltran.clearing.v1.WatchWindowsResponse", &change, |c| {
            let window = c.window.as_ref();
            let (id, currency) = window.map(|w| (w.window_id.as_str(), w.currency.as_str())).unwrap_or_default();
            let state = window.map(|w| w.state().as_str_name()).unwrap_or_default();
            format!("{:>10}  {:<20} {currency} {id} {state}", c.position, c.event_type)
        });
        if !read {
            return Ok(());
        }
    }
}

/// A table of windows.
pub fn windows_table(windows: &[Window]) -> String {
    let rows = windows.iter().map(|w| {
        [
            w.window_id.clone(),
            w.schedule.clone(),
            w.currency.clone(),
            w.state().as_str_name().to_owned(),
            time(&w.opened_at),
            time(&w.closed_at),
            count(w.count),
            amount(&w.gross),
            w.note.clone(),
        ]
    });
    table(["window", "schedule", "currency", "state", "opened at", "closed at", "count", "gross", "note"], rows)
}

fn one(window: Option<&Window>) -> String {
    let Some(w) = window else { return String::new() };
    sheet([
        ("window", w.window_id.clone()),
        ("schedule", w.schedule.clone()),
        ("currency", w.currency.clone()),
        ("state", w.state().as_str_name().to_owned()),
        ("note", w.note.clone()),
        ("opens at", time(&w.opens_at)),
        ("closes at", time(&w.closes_at)),
        ("opened at", time(&w.opened_at)),
        ("closed at", time(&w.closed_at)),
        ("settled at", time(&w.settled_at)),
        ("counted", format!("{} transactions, {}", count(w.count), money(&w.gross))),
        (
            "sealed",
            match &w.sealed_gross {
                Some(_) => format!("{} transactions, {}", count(w.sealed_count), money(&w.sealed_gross)),
                None => String::new(),
            },
        ),
        ("netting set", w.netting_set_id.clone()),
    ])
}

/// A netting set with its positions.
fn netting(set: Option<&NettingSet>) -> String {
    let Some(set) = set else { return String::new() };
    let summary = sheet([
        ("netting set", set.netting_set_id.clone()),
        ("currency", set.currency.clone()),
        ("windows", set.window_ids.join(" ")),
        ("transactions", count(set.count)),
        ("gross", amount(&set.gross)),
        ("moved", amount(&set.moved)),
        ("efficiency", efficiency(set.efficiency)),
        ("largest debtor", set.largest_debtor.clone()),
        ("digest", set.digest.clone()),
        ("netted at", time(&set.netted_at)),
    ]);
    let rows = set.positions.iter().map(|p| [p.participant.clone(), amount(&p.net)]);
    format!("{summary}\n{}", table(["participant", "net position"], rows))
}

/// Ten-thousandths as per cent: `97.47 %`.
pub fn efficiency(ten_thousandths: u32) -> String {
    format!("{}.{:02} %", ten_thousandths / 100, ten_thousandths % 100)
}

fn positions(answer: &GetPositionsResponse) -> String {
    let rows = answer.positions.iter().map(|p| [p.participant.clone(), amount(&p.net), currency(&p.net)]);
    table(["participant", "net position", "currency"], rows)
}
