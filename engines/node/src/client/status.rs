//! `deltran status`: what the platform tells about its engines.

use clap::Args;
use deltran_api::platform::v1::{GetStatusRequest, GetStatusResponse};

use super::{ClientArgs, Session};
use crate::output::{Output, table};
use crate::problem::Problem;

/// Version, engines, readiness, and how far their events have come; exit code 1 where an engine is not ready
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  deltran status\n  deltran status --json\n\nRole operator is assumed, user \"operator\"."
)]
pub struct StatusArgs {}

/// Runs the command.
///
/// # Errors
/// What the platform answers, and an engine that is not ready.
pub async fn run(_args: StatusArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let answer = session.platform(session.operator()?).get_status(GetStatusRequest {}).await?.into_inner();
    session.out.show("deltran.platform.v1.GetStatusResponse", &answer, |a| status_table(a, &session.uri));
    let problems: Vec<_> = answer.engines.iter().filter(|e| !e.ready).flat_map(|e| e.problems.clone()).collect();
    if answer.engines.iter().all(|e| e.ready) {
        Ok(())
    } else {
        Err(Problem::refused(format!("not ready: {}", problems.join("; "))))
    }
}

fn status_table(answer: &GetStatusResponse, uri: &str) -> String {
    let rows = answer.engines.iter().map(|e| {
        [
            e.engine.clone(),
            match (e.ready, e.waits) {
                (true, true) => "restored: waits for `deltran restored resume`".to_owned(),
                (true, false) => "ready".to_owned(),
                (false, _) => e.problems.join("\n"),
            },
            e.producer.clone(),
            e.assigned.to_string(),
            e.published.to_string(),
            e.confirmed.to_string(),
        ]
    });
    let table = table(["engine", "state", "producer", "events written", "published", "confirmed by audit"], rows);
    format!("DelTran {} \"{}\" at {uri}\n{table}", answer.version, answer.deployment)
}
