//! `deltran endpoint`: where webhooks are sent, and what became of them.

use clap::{ArgGroup, Args, Subcommand};
use deltran_api::notification::v1::replay_deliveries_request::What;
use deltran_api::notification::v1::{
    Attempt, CreateEndpointRequest, DeleteEndpointRequest, DisableEndpointRequest, EnableEndpointRequest, Endpoint,
    EndpointSecret, Kinds, ListAttemptsRequest, ListAttemptsResponse, ListEndpointsRequest, ListEndpointsResponse,
    ReplayDeliveriesRequest, RotateSecretRequest, UpdateEndpointRequest,
};
use deltran_kernel::Timestamp;
use deltran_runtime::wire;

use super::{Caller, ClientArgs, Rows, Session, id_or_fresh, pages};
use crate::output::{Output, count, sheet, shown, table, time};
use crate::problem::Problem;

/// Webhook endpoints: create, update, disable, enable, delete, rotate, list, attempts, replay
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran endpoint create --participant ALFAAEXX --url https://hooks.alfa.example/deltran
  deltran endpoint list --participant ALFAAEXX
  deltran endpoint attempts 0190c3d5-0000-7000-8000-000000000001 --failed
  deltran endpoint replay 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX --failed-since 2025-11-06T00:00:00Z

With --participant the call is that bank's, else an operator's. Notifications are sent for what the bank subscribes to,
signed after Standard Webhooks: \"v1\" by the secret that is shown once, \"v1a\" by the public key.")]
pub struct EndpointArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Registers an endpoint and shows its secret, once
    #[command(after_help = "Examples:
  deltran endpoint create --participant ALFAAEXX --url https://hooks.alfa.example/deltran --kind payment.received
  deltran endpoint create --participant ALFAAEXX --url http://127.0.0.1:9000/ --in-order

A loopback address is taken by `deltran up` only, or where notification.allow_loopback = true.")]
    Create {
        /// Whose endpoint
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// Where notifications are sent: https, port 443 or 8443
        #[arg(long)]
        url: String,
        /// Only of this kind; several with commas or by repeating [default: all that the participant subscribes to]
        #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
        kinds: Vec<String>,
        /// Send a notification only after the one before it was taken or given up
        #[arg(long)]
        in_order: bool,
        /// The endpoint's id, its idempotency key [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        id: Option<String>,
    },
    /// Changes what is given; the rest stays
    #[command(
        group(ArgGroup::new("what").required(true).multiple(true).args(["url", "kinds", "all_kinds", "in_order"])),
        after_help = "Examples:
  deltran endpoint update 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX --url https://new.alfa.example/
  deltran endpoint update 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX --in-order false"
    )]
    Update {
        /// The endpoint
        id: String,
        /// Whose endpoint
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// Another URL
        #[arg(long)]
        url: Option<String>,
        /// Only of this kind from now on; several with commas or by repeating
        #[arg(long = "kind", value_name = "KIND", value_delimiter = ',', conflicts_with = "all_kinds")]
        kinds: Vec<String>,
        /// All kinds that the participant subscribes to
        #[arg(long)]
        all_kinds: bool,
        /// Whether in order
        #[arg(long, value_name = "true|false")]
        in_order: Option<bool>,
        /// Idempotency key [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        command_id: Option<String>,
    },
    /// Stops an endpoint; what it misses can be replayed
    #[command(after_help = "Examples:
  deltran endpoint disable 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX
  deltran endpoint disable 0190c3d5-0000-7000-8000-000000000001 --reason \"incident 12\"")]
    Disable(Switch),
    /// Starts an endpoint again; what an operator stopped, only an operator starts
    #[command(
        after_help = "Examples:\n  deltran endpoint enable 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX"
    )]
    Enable(Switch),
    /// Ends an endpoint for ever; its history stays
    #[command(
        after_help = "Examples:\n  deltran endpoint delete 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX"
    )]
    Delete {
        /// The endpoint
        id: String,
        /// Whose endpoint
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
        /// Idempotency key [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        command_id: Option<String>,
    },
    /// Gives an endpoint a new secret and shows it, once; the earlier one signs too for a while
    #[command(after_help = "Examples:
  deltran endpoint rotate 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX
  deltran endpoint rotate 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX --overlap 0")]
    Rotate {
        /// The endpoint
        id: String,
        /// Whose endpoint
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// How long earlier secrets sign too; 0 where they leaked [default: what the platform is set to]
        #[arg(long, value_name = "SECONDS")]
        overlap: Option<u32>,
        /// Idempotency key [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        command_id: Option<String>,
    },
    /// Lists endpoints
    #[command(after_help = "Examples:\n  deltran endpoint list --participant ALFAAEXX --state DISABLED")]
    List {
        /// Only this participant's
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only those in this state: ENABLED, DISABLED, DELETED [default: all but DELETED]
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Lists the attempts of an endpoint, latest first
    #[command(
        after_help = "Examples:\n  deltran endpoint attempts 0190c3d5-0000-7000-8000-000000000001 --failed --json"
    )]
    Attempts {
        /// The endpoint
        id: String,
        /// Whose endpoint; without it the call is an operator's
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only of this notification
        #[arg(long, value_name = "UUID")]
        notification: Option<String>,
        /// Only those that failed
        #[arg(long)]
        failed: bool,
        #[command(flatten)]
        rows: Rows,
    },
    /// Sends again, under the same ids
    #[command(
        group(ArgGroup::new("which").required(true).args(["notification", "failed_since", "failed_from"])),
        after_help = "Examples:
  deltran endpoint replay 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX --failed-since 2025-11-06T00:00:00Z
  deltran endpoint replay 0190c3d5-0000-7000-8000-000000000001 --participant ALFAAEXX --failed-from 120"
    )]
    Replay {
        /// The endpoint
        id: String,
        /// Whose endpoint
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// This notification, whether it was taken or not
        #[arg(long, value_name = "UUID")]
        notification: Option<String>,
        /// What was not taken, of notifications since this time
        #[arg(long, value_name = "TIME")]
        failed_since: Option<Timestamp>,
        /// What was not taken, of notifications from this position on
        #[arg(long, value_name = "POSITION")]
        failed_from: Option<u64>,
        /// Idempotency key [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        command_id: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Switch {
    /// The endpoint
    id: String,
    /// Whose endpoint; without it the call is an operator's
    #[arg(long, value_name = "BIC")]
    participant: Option<String>,
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: String,
    /// Idempotency key [default: a fresh one]
    #[arg(long, value_name = "UUID")]
    command_id: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: EndpointArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    match args.command {
        Command::Create { participant, url, kinds, in_order, id } => {
            let mut client = session.notification(session.bank(&participant)?);
            let request = CreateEndpointRequest { endpoint_id: id_or_fresh(&id), url, kinds, in_order };
            let answer = client.create_endpoint(request).await?.into_inner();
            out.show("deltran.notification.v1.CreateEndpointResponse", &answer, |a| {
                told(a.endpoint.as_ref(), a.secret.as_ref())
            });
        }
        Command::Update { id, participant, url, kinds, all_kinds, in_order, command_id } => {
            let mut client = session.notification(session.bank(&participant)?);
            let request = UpdateEndpointRequest {
                command_id: id_or_fresh(&command_id),
                endpoint_id: id,
                url,
                kinds: (all_kinds || !kinds.is_empty()).then_some(Kinds { kinds }),
                in_order,
            };
            let answer = client.update_endpoint(request).await?.into_inner();
            show(out, answer.endpoint);
        }
        Command::Disable(Switch { id, participant, reason, command_id }) => {
            let mut client = session.notification(caller(&session, participant.as_deref())?);
            let command_id = id_or_fresh(&command_id);
            let request = DisableEndpointRequest { command_id, endpoint_id: id, reason };
            show(out, client.disable_endpoint(request).await?.into_inner().endpoint);
        }
        Command::Enable(Switch { id, participant, reason, command_id }) => {
            let mut client = session.notification(caller(&session, participant.as_deref())?);
            let command_id = id_or_fresh(&command_id);
            let request = EnableEndpointRequest { command_id, endpoint_id: id, reason };
            show(out, client.enable_endpoint(request).await?.into_inner().endpoint);
        }
        Command::Delete { id, participant, reason, command_id } => {
            let mut client = session.notification(session.bank(&participant)?);
            let command_id = id_or_fresh(&command_id);
            let request = DeleteEndpointRequest { command_id, endpoint_id: id, reason };
            show(out, client.delete_endpoint(request).await?.into_inner().endpoint);
        }
        Command::Rotate { id, participant, overlap, command_id } => {
            let mut client = session.notification(session.bank(&participant)?);
            let command_id = id_or_fresh(&command_id);
            let request = RotateSecretRequest { command_id, endpoint_id: id, overlap_seconds: overlap };
            let answer = client.rotate_secret(request).await?.into_inner();
            out.show("deltran.notification.v1.RotateSecretResponse", &answer, |a| {
                told(a.endpoint.as_ref(), a.secret.as_ref())
            });
        }
        Command::List { participant, state, rows } => list(&session, participant, state, &rows).await?,
        Command::Attempts { id, participant, notification, failed, rows } => {
            let client = session.notification(caller(&session, participant.as_deref())?);
            let (attempts, more) = pages(&rows, async |page| {
                let request = ListAttemptsRequest {
                    page,
                    endpoint_id: id.clone(),
                    notification_id: notification.clone().unwrap_or_default(),
                    failed,
                };
                let answer = client.clone().list_attempts(request).await?.into_inner();
                Ok((answer.attempts, answer.next_page_token))
            })
            .await?;
            let answer = ListAttemptsResponse { attempts, next_page_token: String::new() };
            out.show("deltran.notification.v1.ListAttemptsResponse", &answer, |a| attempts_table(&a.attempts, more));
        }
        Command::Replay { id, participant, notification, failed_since, failed_from, command_id } => {
            let mut client = session.notification(session.bank(&participant)?);
            let what = notification
                .map(What::NotificationId)
                .or(failed_since.map(|at| What::FailedSince(wire::to_timestamp(at))))
                .or(failed_from.map(What::FailedFromPosition));
            let request = ReplayDeliveriesRequest { command_id: id_or_fresh(&command_id), endpoint_id: id, what };
            let answer = client.replay_deliveries(request).await?.into_inner();
            out.show("deltran.notification.v1.ReplayDeliveriesResponse", &answer, |a| {
                format!("sent again: {}", count(a.deliveries))
            });
        }
    }
    Ok(())
}

/// A bank, where one is named, else an operator.
fn caller(session: &Session, participant: Option<&str>) -> Result<Caller, Problem> {
    match participant {
        Some(participant) => session.bank(participant),
        None => session.operator(),
    }
}

async fn list(
    session: &Session,
    participant: Option<String>,
    state: Option<String>,
    rows: &Rows,
) -> Result<(), Problem> {
    let client = session.notification(session.operator_or_bank(participant.as_deref())?);
    let (endpoints, more) = pages(rows, async |page| {
        let request = ListEndpointsRequest {
            page,
            participant: participant.clone().unwrap_or_default(),
            state: state.clone().unwrap_or_default().to_ascii_uppercase(),
        };
        let answer = client.clone().list_endpoints(request).await?.into_inner();
        Ok((answer.endpoints, answer.next_page_token))
    })
    .await?;
    let answer = ListEndpointsResponse { endpoints, next_page_token: String::new() };
    session.out.show("deltran.notification.v1.ListEndpointsResponse", &answer, |a| endpoints_table(&a.endpoints, more));
    Ok(())
}

fn show(out: Output, endpoint: Option<Endpoint>) {
    let endpoint = endpoint.unwrap_or_default();
    out.show("deltran.notification.v1.Endpoint", &endpoint, |e| told(Some(e), None));
}

fn told(endpoint: Option<&Endpoint>, secret: Option<&EndpointSecret>) -> String {
    let e = endpoint.cloned().unwrap_or_default();
    let secret = secret.map(|secret| format!("{} (shown this once)", secret.secret)).unwrap_or_default();
    sheet([
        ("endpoint", e.endpoint_id.clone()),
        ("participant", e.participant.clone()),
        ("url", e.url.clone()),
        ("kinds", kinds(&e)),
        ("in order", if e.in_order { "yes".to_owned() } else { String::new() }),
        ("state", state(&e)),
        ("note", e.note.clone()),
        ("secret", secret),
        ("public keys", e.public_keys.join("\n")),
    ])
}

fn kinds(endpoint: &Endpoint) -> String {
    if endpoint.kinds.is_empty() { "all".to_owned() } else { endpoint.kinds.join("\n") }
}

fn state(endpoint: &Endpoint) -> String {
    if endpoint.cause.is_empty() { endpoint.state.clone() } else { format!("{} ({})", endpoint.state, endpoint.cause) }
}

fn endpoints_table(endpoints: &[Endpoint], more: bool) -> String {
    let rows = endpoints.iter().map(|e| {
        [
            e.endpoint_id.clone(),
            e.participant.clone(),
            e.url.clone(),
            kinds(e),
            state(e),
            count(u64::from(e.failures)),
            time(&e.failing_since),
            time(&e.paused_until),
        ]
    });
    let head = ["endpoint", "participant", "url", "kinds", "state", "failures", "failing since", "paused until"];
    format!("{}\n{}", table(head, rows), shown(endpoints.len(), "endpoints", more))
}

fn attempts_table(attempts: &[Attempt], more: bool) -> String {
    let rows = attempts.iter().map(|a| {
        let status = if a.status == 0 { String::new() } else { a.status.to_string() };
        [
            time(&a.at),
            a.notification_id.clone(),
            a.kind.clone(),
            a.number.to_string(),
            status,
            a.error.clone(),
            a.duration_ms.to_string(),
            a.delivery_state.clone(),
            time(&a.next_at),
        ]
    });
    let head = ["at", "notification", "kind", "attempt", "status", "error", "ms", "delivery", "next at"];
    format!("{}\n{}", table(head, rows), shown(attempts.len(), "attempts", more))
}
