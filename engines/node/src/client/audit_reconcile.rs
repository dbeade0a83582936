//! `deltran audit reconcile`: outboxes, streams and ledger, event by event.

use clap::Args;
use deltran_api::audit::v1::reconcile_response::Part;
use deltran_api::audit::v1::{Difference, ReconcileRequest, ReconcileSummary};
use serde_json::json;

use super::{Caller, Session};
use crate::output::{count, json_of, say, table};
use crate::problem::Problem;

/// What `reconcile` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "What a stream let go of by its own age and size is no difference. With --repair, what a stream or the ledger lacks is
published again, with its exact bytes and the id that it had; consumers know it by its number. What is not safe to publish
again, such as the same number with other bytes, is listed and left alone. A stream that was rolled back, deleted or made anew
from below is first made anew above every known sequence.

Examples:
  deltran audit reconcile
  deltran audit reconcile --repair
  deltran audit reconcile --limit 20 --json"
)]
pub struct ReconcileArgs {
    /// Publish again what a stream or the ledger lacks, where that is safe
    #[arg(long)]
    repair: bool,
    /// List at most so many differences; the others are counted
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// Runs it.
///
/// # Errors
/// What the platform answers, and differences that remain.
pub async fn run(session: &Session, caller: Caller, args: ReconcileArgs) -> Result<(), Problem> {
    let request = ReconcileRequest { repair: args.repair, limit: args.limit };
    let mut answers = session.audit(caller.patient()).reconcile(request).await?.into_inner();
    let bar = session.out.bar_like("{bar:40} {human_pos}/{human_len} of {msg}", 0);
    let (mut differences, mut summary) = (Vec::new(), None);
    while let Some(answer) = answers.message().await? {
        match answer.part {
            Some(Part::Progress(progress)) => {
                bar.set_message(progress.place);
                bar.set_length(progress.total);
                bar.set_position(progress.done);
            }
            Some(Part::Difference(difference)) => differences.push(difference),
            Some(Part::Summary(last)) => summary = Some(last),
            None => {}
        }
    }
    bar.finish_and_clear();
    let summary = summary.ok_or_else(|| Problem::unavailable("the comparison ended without a result: try again"))?;
    if session.out.json {
        let listed = differences.iter().map(|d| json_of("deltran.audit.v1.Difference", d));
        let mut value = json_of("deltran.audit.v1.ReconcileSummary", &summary);
        value["listed"] = listed.collect();
        session.out.value(&value);
    } else {
        say(&tables(&differences, &summary));
    }
    if summary.ok {
        return Ok(());
    }
    let left = summary.differences - summary.repaired.min(summary.differences);
    let open = summary.places.iter().filter(|place| !place.detail.is_empty());
    let open: Vec<String> = open.map(|place| format!("{}: {}", place.place, place.detail)).collect();
    let mut message = format!("{left} differences remain between outboxes, streams and ledger");
    if !open.is_empty() {
        message.push_str(&format!(" ({})", open.join("; ")));
    }
    let mut problem = Problem::refused(message);
    problem.details.insert("differences".into(), json!(left).to_string());
    Err(problem)
}

fn tables(differences: &[Difference], summary: &ReconcileSummary) -> String {
    let places = summary
        .places
        .iter()
        .map(|p| [p.place.clone(), p.compared.to_string(), p.differences.to_string(), p.detail.clone()]);
    let mut text = table(["place", "compared", "differences", "detail"], places);
    if !differences.is_empty() {
        let none_as_empty = |n: u64| if n == 0 { String::new() } else { n.to_string() };
        let rows = differences.iter().map(|d| {
            [
                d.kind.clone(),
                d.place.clone(),
                none_as_empty(d.sequence),
                d.producer.clone(),
                none_as_empty(d.producer_seq),
                d.event_id.clone(),
                d.subject.clone(),
                if d.repaired { "published again".to_owned() } else { d.detail.clone() },
            ]
        });
        let head = ["difference", "place", "sequence", "producer", "number", "event", "subject", "detail"];
        text.push('\n');
        text.push_str(&table(head, rows));
        let (listed, all) = (differences.len() as u64, summary.differences);
        if listed < all {
            text.push_str(&format!("\n{} of {} differences are listed: --limit lists more", count(listed), count(all)));
        }
    }
    let (found, repaired) = (summary.differences, summary.repaired);
    let outcome = match (summary.ok, found) {
        (true, 0) => "equal: outboxes, streams and ledger have the same events".to_owned(),
        (true, _) => format!("equal again: {} differences, all published again", count(found)),
        (false, _) => format!("NOT equal: {} differences, {} of them published again", count(found), count(repaired)),
    };
    format!("{text}\n{outcome}")
}
