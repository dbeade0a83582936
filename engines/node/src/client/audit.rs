//! `deltran audit`: the ledger of every event.

use clap::{Args, Subcommand};
use deltran_api::audit::v1::{AuditEvent, GetEventRequest, ListEventsRequest, get_event_request::Key};
use deltran_kernel::Timestamp;
use deltran_runtime::Role;
use deltran_runtime::wire::to_timestamp;
use serde_json::{Value, json};

use super::audit_days::{self, DaysArgs};
use super::audit_export::{self, ExportArgs};
use super::audit_hold::{self, HoldArgs};
use super::audit_proof::{self, CheckpointArgs, CheckpointsArgs, KeyArgs, ProveArgs, TilesArgs};
use super::audit_reconcile::{self, ReconcileArgs};
use super::audit_verify::{self, VerifyArgs};
use super::{Caller, ClientArgs, Rows, Session, pages};
use crate::output::{Output, json_of, say, sheet, shown, table, time};
use crate::problem::Problem;

/// The audit ledger: verify, list events, checkpoints and proofs, legal holds, days
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran audit verify
  deltran audit reconcile
  deltran audit events --type transaction.rejected --participant ALFAAEXX
  deltran audit show 17
  deltran audit checkpoint --out checkpoint
  deltran audit prove 17
  deltran audit export --from 2025-11-06 --to 2025-11-07 --out november-6
  deltran audit verify november-6 --key audit.pub

Role auditor is assumed, user \"auditor\".")]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks the stored ledger, or the folder of an export; exit code 1 where something differs
    Verify(VerifyArgs),
    /// Compares outboxes, streams and ledger event by event; exit code 1 where differences remain
    Reconcile(ReconcileArgs),
    /// Lists events in the order of the ledger
    #[command(after_help = "Examples:
  deltran audit events --domain clearing --limit 20
  deltran audit events --correlation 0190c3d5-0000-7000-8000-000000000001 --json
  deltran audit events --from 2025-11-06T00:00:00Z --to 2025-11-07T00:00:00Z --limit 0")]
    Events {
        /// Only this domain's, such as transactions or clearing
        #[arg(long)]
        domain: Option<String>,
        /// Only this type, such as transaction.created
        #[arg(long = "type", value_name = "TYPE")]
        event_type: Option<String>,
        /// Only those of this participant
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only those with this correlation id
        #[arg(long, value_name = "ID")]
        correlation: Option<String>,
        /// From this time on, RFC 3339
        #[arg(long, value_name = "TIME")]
        from: Option<Timestamp>,
        /// Before this time, RFC 3339
        #[arg(long, value_name = "TIME")]
        to: Option<Timestamp>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Shows one event with its exact bytes, by leaf index or event id
    #[command(
        after_help = "Examples:\n  deltran audit show 17\n  deltran audit show 0190c3d5-0000-7000-8000-000000000001"
    )]
    Show {
        /// Leaf index or event id
        event: String,
    },
    /// Prints a signed checkpoint of the ledger
    Checkpoint(CheckpointArgs),
    /// Lists the checkpoints that are kept, and the log's verifier keys
    Checkpoints(CheckpointsArgs),
    /// Prints a proof that an event stands in the ledger, or that the ledger continues an earlier one
    Prove(ProveArgs),
    /// Writes the log as static files that transparency-log clients read
    Tiles(TilesArgs),
    /// Makes or shows keys that sign checkpoints
    Key(KeyArgs),
    /// Writes a range for a regulator, as files that prove themselves
    Export(ExportArgs),
    /// Legal holds: what they name stays in the database
    Hold(HoldArgs),
    /// Lists the days of the ledger: which are in the database, which in the archive, and why one stays
    Days(DaysArgs),
}

/// Runs the command.
///
/// # Errors
/// What the platform answers, and a ledger that does not verify.
pub async fn run(args: AuditArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let command = match args.command {
        Command::Key(args) => return audit_proof::key(args, out),
        Command::Verify(args) => match &args.folder {
            Some(folder) => return audit_verify::verify_folder(folder, &args, out),
            None => Command::Verify(args),
        },
        command => command,
    };
    let session = Session::open(&client, out).await?;
    let caller = session.caller(Role::Auditor, "auditor", None)?;
    match command {
        Command::Verify(args) => audit_verify::verify(&session, caller, args.database).await,
        Command::Export(args) => audit_export::export(&session, caller, args).await,
        Command::Reconcile(args) => audit_reconcile::run(&session, caller, args).await,
        Command::Events { domain, event_type, participant, correlation, from, to, rows } => {
            let filter = ListEventsRequest {
                page: None,
                domain: domain.unwrap_or_default(),
                event_type: event_type.unwrap_or_default(),
                participant: participant.unwrap_or_default(),
                correlation_id: correlation.unwrap_or_default(),
                from: from.map(to_timestamp),
                to: to.map(to_timestamp),
            };
            events(&session, caller, &filter, &rows).await
        }
        Command::Show { event } => {
            let key = event.parse().map_or_else(|_| Key::EventId(event.clone()), Key::LeafIndex);
            let answer = session.audit(caller).get_event(GetEventRequest { key: Some(key) }).await?.into_inner();
            let event = answer.event.unwrap_or_default();
            if session.out.json {
                session.out.value(&event_json(&event))
            } else {
                say(&one(&event));
            }
            Ok(())
        }
        Command::Checkpoint(args) => audit_proof::checkpoint(&session, caller, args).await,
        Command::Checkpoints(args) => audit_proof::checkpoints(&session, caller, args).await,
        Command::Prove(args) => audit_proof::prove(&session, caller, args).await,
        Command::Tiles(args) => audit_proof::tiles(&session, caller, args).await,
        Command::Hold(args) => audit_hold::run(&session, caller, args).await,
        Command::Days(args) => audit_days::run(&session, caller, args).await,
        Command::Key(_) => Ok(()),
    }
}

async fn events(session: &Session, caller: Caller, filter: &ListEventsRequest, rows: &Rows) -> Result<(), Problem> {
    let client = session.audit(caller);
    let (events, more) = pages(rows, async |page| {
        let request = ListEventsRequest { page, ..filter.clone() };
        let answer = client.clone().list_events(request).await?.into_inner();
        Ok((answer.events, answer.next_page_token))
    })
    .await?;
    if session.out.json {
        session.out.value(&json!({ "events": events.iter().map(event_json).collect::<Vec<_>>() }));
        return Ok(());
    }
    let rows = events.iter().map(|e| {
        [
            e.leaf_index.to_string(),
            time(&e.occurred_at),
            e.subject.clone(),
            e.participant_id.clone(),
            e.correlation_id.clone(),
            e.producer.clone(),
            e.producer_seq.to_string(),
            if e.valid { String::new() } else { format!("invalid: {}", e.invalid_reason) },
        ]
    });
    let head = ["leaf", "occurred at", "subject", "participant", "correlation", "producer", "number", "note"];
    say(&format!("{}\n{}", table(head, rows), shown(events.len(), "events", more)));
    Ok(())
}

/// An event with its hash in hexadecimal and its envelope as text: the exact bytes, which are UTF-8 on one line.
fn event_json(event: &AuditEvent) -> Value {
    let mut value = json_of("deltran.audit.v1.AuditEvent", event);
    value["leaf_hash"] = json!(hex::encode(&event.leaf_hash));
    value["envelope"] = json!(String::from_utf8_lossy(&event.envelope));
    value
}

fn one(event: &AuditEvent) -> String {
    let text = sheet([
        ("leaf index", event.leaf_index.to_string()),
        ("leaf hash", hex::encode(&event.leaf_hash)),
        ("event id", event.event_id.clone()),
        ("subject", event.subject.clone()),
        ("source", event.source.clone()),
        ("producer", event.producer.clone()),
        ("number", event.producer_seq.to_string()),
        ("participant", event.participant_id.clone()),
        ("correlation", event.correlation_id.clone()),
        ("occurred at", time(&event.occurred_at)),
        ("recorded at", time(&event.recorded_at)),
        ("stream", format!("{} {}", event.source_stream, event.source_sequence)),
        ("validity", if event.valid { "valid".to_owned() } else { format!("invalid: {}", event.invalid_reason) }),
    ]);
    format!("{text}\n{}", String::from_utf8_lossy(&event.envelope))
}
