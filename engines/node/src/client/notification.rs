//! `deltran notification`: what a participant was told, and is told from now on.

use clap::{Args, Subcommand};
use deltran_api::notification::v1::{
    ListNotificationsRequest, ListNotificationsResponse, Notification, StreamNotificationsRequest,
};

use super::{ClientArgs, Rows, Session, pages};
use crate::output::{Output, shown, table, time};
use crate::problem::Problem;

/// Notifications of a participant: list them, or read them as they come
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran notification list --participant ALFAAEXX
  deltran notification stream --participant ALFAAEXX --after 17 --until-caught-up --json

A participant is told what it has subscribed to: see `deltran subscription`. Both call as operator unless --role bank is \
given.")]
pub struct NotificationArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists a participant's notifications, the newest first
    #[command(after_help = "Examples:
  deltran notification list --participant ALFAAEXX --kind payment.received,payment.held
  deltran notification list --participant ALFAAEXX --limit 0 --json")]
    List {
        /// Whose
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// Only of this kind; several with commas or by repeating
        #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
        kinds: Vec<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Prints a participant's notifications in order, then each as it comes, until Ctrl-C
    #[command(after_help = "Examples:
  deltran notification stream --participant ALFAAEXX
  deltran notification stream --participant ALFAAEXX --after 17 --until-caught-up --json")]
    Stream {
        /// Whose
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// Begin after this position; 0 is the oldest that is kept
        #[arg(long, default_value_t = 0, value_name = "POSITION")]
        after: u64,
        /// Only of this kind; several with commas or by repeating
        #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
        kinds: Vec<String>,
        /// End when everything that is there was printed
        #[arg(long)]
        until_caught_up: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: NotificationArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    match args.command {
        Command::List { participant, kinds, rows } => list(&session, participant, kinds, &rows).await,
        Command::Stream { participant, after, kinds, until_caught_up } => {
            let request = StreamNotificationsRequest { participant, after_position: after, kinds };
            stream(&session, request, until_caught_up).await
        }
    }
}

async fn list(session: &Session, participant: String, kinds: Vec<String>, rows: &Rows) -> Result<(), Problem> {
    let client = session.notification(session.operator_or_bank(Some(&participant))?);
    let (mut oldest_position, mut last_position) = (0, 0);
    let (notifications, more) = pages(rows, async |page| {
        let request = ListNotificationsRequest { page, participant: participant.clone(), kinds: kinds.clone() };
        let answer = client.clone().list_notifications(request).await?.into_inner();
        (oldest_position, last_position) = (answer.oldest_position, answer.last_position);
        Ok((answer.notifications, answer.next_page_token))
    })
    .await?;
    let next_page_token = String::new();
    let answer = ListNotificationsResponse { notifications, next_page_token, oldest_position, last_position };
    session.out.show("deltran.notification.v1.ListNotificationsResponse", &answer, |a| {
        let rows = a.notifications.iter().map(|n| [n.position.to_string(), time(&n.at), n.kind.clone(), data(n)]);
        format!(
            "{}\n{}",
            table(["position", "at", "kind", "data"], rows),
            shown(a.notifications.len(), "notifications", more)
        )
    });
    Ok(())
}

async fn stream(session: &Session, request: StreamNotificationsRequest, until_caught_up: bool) -> Result<(), Problem> {
    let caller = session.operator_or_bank(Some(&request.participant))?.patient();
    let mut position = request.after_position;
    let mut told = session.notification(caller).stream_notifications(request).await?.into_inner();
    loop {
        let next = told.message().await.map_err(|status| super::interrupted(status, position))?;
        let Some(next) = next else { return Err(super::ended(position)) };
        position = next.position;
        let Some(notification) = next.notification else {
            if until_caught_up {
                return Ok(());
            }
            continue;
        };
        let read = session.out.line("deltran.notification.v1.Notification", &notification, |n| {
            format!("{:>10}  {}  {:<20} {}", n.position, time(&n.at), n.kind, data(n))
        });
        if !read {
            return Ok(());
        }
    }
}

/// What the notification says, without what stands beside it.
fn data(notification: &Notification) -> String {
    let body: serde_json::Value = serde_json::from_str(&notification.body).unwrap_or_default();
    let Some(data) = body["data"].as_object() else { return notification.body.clone() };
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let said = data.iter().filter(|(name, _)| *name != "participant");
    said.map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_shown_without_its_frame() {
        let shown = |body: &str| data(&Notification { body: body.to_owned(), ..Notification::default() });
        let body = r#"{"id":"x","data":{"participant":"ALFAAEXX","amount":"1.00","was_held":true}}"#;
        assert_eq!(shown(body), "amount=1.00 was_held=true");
        assert_eq!(shown("{}"), "{}");
    }
}
