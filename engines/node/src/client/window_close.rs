//! `deltran window close`: closes windows and, where asked, waits until they are settled.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{ArgGroup, Args};
use deltran_api::clearing::v1::{CloseWindowRequest, GetWindowRequest, ListWindowsRequest, Window, WindowState};
use deltran_api::settlement::v1::{BatchState, FundingStatusRequest, ListBatchesRequest};
use tokio::time::Instant;
use uuid::Uuid;

use super::window::{list, tell};
use super::{Rows, Session};
use crate::output::money;
use crate::problem::{Kind, Problem};

/// The help after the options.
pub const HELP: &str = "With --and-open the next window of each currency opens at the same instant; its id comes from the \
closed one's, so \
that a command whose answer was lost never opens two.

With --wait the command ends when every window is SETTLED (or ABORTED). Exit code 1 where one FAILED or its settlement waits \
for funds: the reason is printed. Exit code 3 after --timeout.

Examples:
  deltran window close 0190c3d5-0000-7000-8000-000000000001
  deltran window close --currency USD,EUR --and-open
  deltran window close --all --wait --timeout 120";

const POLL: Duration = Duration::from_millis(150);

/// What closing takes.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).multiple(true).args(["ids", "all", "currency"])))]
pub struct CloseArgs {
    /// The windows
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Every open window
    #[arg(long, conflicts_with_all = ["ids", "currency"])]
    all: bool,
    /// The open windows of these currencies
    #[arg(long, value_delimiter = ',', conflicts_with = "ids")]
    currency: Vec<String>,
    /// Open the next window of each currency at the same instant
    #[arg(long)]
    and_open: bool,
    /// Wait until all are settled
    #[arg(long)]
    wait: bool,
    /// With --wait: seconds to wait
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
}

/// Runs the command.
///
/// # Errors
/// What the platform answers, and with --wait a window that is not settled.
pub async fn run(session: &Session, args: &CloseArgs) -> Result<(), Problem> {
    let ids = if args.ids.is_empty() { open_windows(session, &args.currency).await? } else { args.ids.clone() };
    if ids.is_empty() {
        let which = if args.all { String::new() } else { format!(" of {}", args.currency.join(", ")) };
        return Err(Problem::refused(format!("there is no open window{which}: `deltran window list` shows all")));
    }
    let mut client = session.clearing(session.operator()?);
    let mut windows = BTreeMap::new();
    let mut opened = Vec::new();
    for id in ids {
        let next_window_id = if args.and_open { next_of(&id)? } else { String::new() };
        let answer = client.close_window(CloseWindowRequest { window_id: id, next_window_id }).await?.into_inner();
        windows.extend(answer.window.map(|w| (w.window_id.clone(), w)));
        opened.extend(answer.next);
    }
    let waited = if args.wait { settled(session, &mut windows, args.timeout).await } else { Ok(()) };
    let all: Vec<Window> = windows.into_values().chain(opened).collect();
    tell(session, &all);
    waited
}

async fn open_windows(session: &Session, currencies: &[String]) -> Result<Vec<String>, Problem> {
    let filter = ListWindowsRequest { states: vec![WindowState::Open.into()], ..ListWindowsRequest::default() };
    let (windows, _) = list(session, &filter, &Rows { limit: 0 }).await?;
    let wanted = |w: &Window| currencies.is_empty() || currencies.contains(&w.currency);
    Ok(windows.into_iter().filter(wanted).map(|w| w.window_id).collect())
}

/// The id of the window that follows another: always the same for the same window.
fn next_of(id: &str) -> Result<String, Problem> {
    let id = Uuid::try_parse(id).map_err(|_| Problem::usage(format!("{id:?} is not a window id: expected a UUID")))?;
    Ok(Uuid::new_v5(&id, b"next window").to_string())
}

/// Waits until every window has come to its end.
async fn settled(session: &Session, windows: &mut BTreeMap<String, Window>, timeout: u64) -> Result<(), Problem> {
    let deadline = Instant::now() + Duration::from_secs(timeout);
    let bar = session.out.bar_like("{bar:40} {pos}/{len} settled {msg}", windows.len() as u64);
    let mut client = session.clearing(session.operator()?);
    loop {
        for window in windows.values_mut().filter(|w| !is_over(w.state())) {
            match client.get_window(GetWindowRequest { window_id: window.window_id.clone() }).await {
                Ok(answer) => *window = answer.into_inner().window.unwrap_or_default(),
                // A restart in between is no reason to give up before the deadline.
                Err(status) if Problem::from(status.clone()).kind == Kind::Unavailable => {}
                Err(status) => return Err(status.into()),
            }
        }
        let (over, open): (Vec<&Window>, Vec<&Window>) = windows.values().partition(|w| is_over(w.state()));
        let words: Vec<_> = open.iter().map(|w| format!("{} {}", w.currency, w.state().as_str_name())).collect();
        bar.set_position(over.len() as u64);
        bar.set_message(words.join(", "));
        let mut short = None;
        for window in open.iter().filter(|w| w.state() == WindowState::Settling) {
            short = short.or(awaiting_funds(session, window).await?);
        }
        let failed: Vec<_> = over.iter().filter(|w| w.state() == WindowState::Failed).collect();
        if open.is_empty() || short.is_some() {
            bar.finish_and_clear();
            return match (failed.first(), short) {
                (Some(w), _) => Err(Problem::refused(format!(
                    "window {} ({}) has FAILED: {}; `deltran window net {}` nets it again",
                    w.window_id, w.currency, w.note, w.window_id
                ))),
                (None, Some(why)) => Err(Problem::refused(why)),
                (None, None) => Ok(()),
            };
        }
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            let notes: Vec<_> = open
                .iter()
                .map(|w| {
                    format!("{} {} {} {}", w.window_id, w.currency, w.state().as_str_name(), w.note)
                        .trim_end()
                        .to_owned()
                })
                .collect();
            return Err(Problem::unavailable(format!("not settled after {timeout} s: {}", notes.join("; "))));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn is_over(state: WindowState) -> bool {
    matches!(state, WindowState::Settled | WindowState::Failed | WindowState::Aborted)
}

/// Who is short, where the settlement of a window waits for funds.
async fn awaiting_funds(session: &Session, window: &Window) -> Result<Option<String>, Problem> {
    let mut client = session.settlement(session.operator()?);
    let request = ListBatchesRequest {
        window_id: window.window_id.clone(),
        states: vec![BatchState::AwaitingFunds.into()],
        ..ListBatchesRequest::default()
    };
    let answer = match client.list_batches(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            let problem = Problem::from(status);
            return if problem.kind == Kind::Unavailable { Ok(None) } else { Err(problem) };
        }
    };
    let Some(batch) = answer.batches.first() else { return Ok(None) };
    let request = FundingStatusRequest { batch_id: batch.batch_id.clone() };
    let funding = client.funding_status(request).await?.into_inner();
    let lacking = |d: &&deltran_api::settlement::v1::Funding| {
        d.missing.as_ref().is_some_and(|m| m.amount.chars().any(|c| ('1'..='9').contains(&c)))
    };
    let short: Vec<_> = funding
        .debtors
        .iter()
        .filter(lacking)
        .map(|d| format!("{} lacks {}", d.participant, money(&d.missing)))
        .collect();
    Ok(Some(format!(
        "settlement of window {} ({}) waits for funds until {}: {}; see `deltran settlement funding {}`",
        window.window_id,
        window.currency,
        crate::output::time(&batch.funding_deadline),
        short.join(", "),
        batch.batch_id
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_window_has_always_the_same_id() {
        let id = "0190c3d5-0000-7000-8000-000000000001";
        assert_eq!(next_of(id).unwrap(), next_of(id).unwrap());
        assert_ne!(next_of(id).unwrap(), id);
        assert!(next_of("x").unwrap_err().message.contains("\"x\""));
    }
}
