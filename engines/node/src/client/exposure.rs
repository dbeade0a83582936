//! `deltran exposure`: what participants owe and are owed, and their use of liquidity within a day.

use clap::{Args, Subcommand};
use deltran_api::risk::v1::{
    Exposure, GetExposuresRequest, GetExposuresResponse, GetLiquidityRequest, GetLiquidityResponse, Liquidity,
};
use deltran_runtime::Role;

use super::{ClientArgs, Rows, Session, pages};
use crate::output::{Output, amount, count, currency, shown, table, time};
use crate::problem::Problem;

/// Exposures: show, peaks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran exposure show --currency USD
  deltran exposure peaks --day 2026-11-20

Role risk is assumed, user \"risk\".")]
pub struct ExposureArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows positions in windows that are not settled, caps, and the two largest exposures
    #[command(after_help = "Examples:
  deltran exposure show
  deltran exposure show --participant ALFAAEXX --json")]
    Show {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        rows: Rows,
    },
    /// Shows what was sent and received on a business day, with the three largest peaks of net usage
    #[command(after_help = "Examples:
  deltran exposure peaks
  deltran exposure peaks --day 2026-11-20 --currency USD")]
    Peaks {
        #[command(flatten)]
        of: Of,
        /// The business day, such as 2026-11-20 [default: the present one]
        #[arg(long)]
        day: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
}

#[derive(Debug, Args)]
struct Of {
    /// Only this participant's
    #[arg(long, value_name = "BIC")]
    participant: Option<String>,
    /// Only in this currency
    #[arg(long)]
    currency: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: ExposureArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let client = session.risk(session.caller(Role::Risk, "risk", None)?);
    match args.command {
        Command::Show { of, rows } => {
            let mut version = 0;
            let (exposures, more) = pages(&rows, async |page| {
                let request = GetExposuresRequest {
                    page,
                    participant: of.participant.clone().unwrap_or_default(),
                    currency: of.currency.clone().unwrap_or_default().to_ascii_uppercase(),
                };
                let answer = client.clone().get_exposures(request).await?.into_inner();
                version = answer.version;
                Ok((answer.exposures, answer.next_page_token))
            })
            .await?;
            let answer = GetExposuresResponse { exposures, next_page_token: String::new(), version };
            session.out.show("deltran.risk.v1.GetExposuresResponse", &answer, |a| exposures_table(a, more));
        }
        Command::Peaks { of, day, rows } => {
            let mut the_day = day.unwrap_or_default();
            let (found, more) = pages(&rows, async |page| {
                let request = GetLiquidityRequest {
                    page,
                    participant: of.participant.clone().unwrap_or_default(),
                    currency: of.currency.clone().unwrap_or_default().to_ascii_uppercase(),
                    day: the_day.clone(),
                };
                let answer = client.clone().get_liquidity(request).await?.into_inner();
                the_day = answer.day;
                Ok((answer.rows, answer.next_page_token))
            })
            .await?;
            let answer = GetLiquidityResponse { rows: found, next_page_token: String::new(), day: the_day };
            session.out.show("deltran.risk.v1.GetLiquidityResponse", &answer, |a| peaks_table(a, more));
        }
    }
    Ok(())
}

fn exposures_table(answer: &GetExposuresResponse, more: bool) -> String {
    let largest = |e: &Exposure, place: usize| {
        e.largest.get(place).map(|l| format!("{} {}", l.counterparty, amount(&l.owed))).unwrap_or_default()
    };
    let rows = answer.exposures.iter().map(|e| {
        [
            e.participant.clone(),
            currency(&e.net),
            amount(&e.net),
            amount(&e.sent),
            amount(&e.received),
            amount(&e.cap_used),
            amount(&e.cap),
            largest(e, 0),
            largest(e, 1),
        ]
    });
    let head =
        ["participant", "currency", "net", "sent", "received", "cap used", "cap", "largest owed by", "second owed by"];
    format!("{}\n{}", table(head, rows), shown(answer.exposures.len(), "exposures", more))
}

fn peaks_table(answer: &GetLiquidityResponse, more: bool) -> String {
    let peak = |l: &Liquidity, place: usize| {
        l.peaks.get(place).map(|p| format!("{} at {}", amount(&p.usage), time(&p.at))).unwrap_or_default()
    };
    let rows = answer.rows.iter().map(|l| {
        [
            l.participant.clone(),
            currency(&l.sent),
            amount(&l.sent),
            count(l.sent_count),
            amount(&l.received),
            count(l.received_count),
            peak(l, 0),
            peak(l, 1),
            peak(l, 2),
        ]
    });
    let head = ["participant", "currency", "sent", "number", "received", "number", "peak", "second", "third"];
    let what = format!("participants and currencies of {}", answer.day);
    format!("{}\n{}", table(head, rows), shown(answer.rows.len(), &what, more))
}
