//! `deltran subscription`: what participants are told.

use clap::{Args, Subcommand};
use deltran_api::notification::v1::{
    ListSubscriptionsRequest, ListSubscriptionsResponse, SubscribeRequest, Subscription, UnsubscribeRequest,
};

use super::{ClientArgs, Rows, Session, id_or_fresh, pages};
use crate::output::{Output, sheet, shown, table, time};
use crate::problem::Problem;

/// Subscriptions: what participants are told
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran subscription add --participant ALFAAEXX --kind payment.received,settlement.completed
  deltran subscription list --participant ALFAAEXX

Without a subscription a participant is told nothing. All call as operator unless --role bank is given.")]
pub struct SubscriptionArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Has a participant told of some kinds of things from now on
    #[command(after_help = "Examples:
  deltran subscription add --participant ALFAAEXX --kind payment.received --currency USD --minimum 10000.00
  deltran subscription add --participant ALFAAEXX --kind funding.required --kind alert.raised \
--id 0190c3d5-0000-7000-8000-000000000001")]
    Add {
        /// Who is told
        #[arg(long, value_name = "BIC")]
        participant: String,
        /// Of what, such as payment.received; several with commas or by repeating
        #[arg(long = "kind", value_name = "KIND", value_delimiter = ',', required = true)]
        kinds: Vec<String>,
        /// Only what is in this currency, or in none
        #[arg(long, value_name = "CODE")]
        currency: Option<String>,
        /// Only amounts of at least this
        #[arg(long, value_name = "AMOUNT", requires = "currency")]
        minimum: Option<String>,
        /// The subscription's id [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        id: Option<String>,
    },
    /// Ends a subscription, for ever
    #[command(after_help = "Examples:\n  deltran subscription remove 0190c3d5-0000-7000-8000-000000000001")]
    Remove {
        /// The subscription
        id: String,
        /// With --role bank: whose it is
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
    },
    /// Lists subscriptions, the newest first
    #[command(after_help = "Examples:
  deltran subscription list --kind payment.received
  deltran subscription list --participant ALFAAEXX --with-ended --json")]
    List {
        /// Only those of this participant
        #[arg(long, value_name = "BIC")]
        participant: Option<String>,
        /// Only those to this kind
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// Those that have ended too
        #[arg(long)]
        with_ended: bool,
        #[command(flatten)]
        rows: Rows,
    },
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: SubscriptionArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    match args.command {
        Command::Add { participant, kinds, currency, minimum, id } => {
            let mut client = session.notification(session.operator_or_bank(Some(&participant))?);
            let request = SubscribeRequest {
                subscription_id: id_or_fresh(&id),
                participant,
                kinds,
                currency: currency.unwrap_or_default(),
                minimum_amount: minimum.unwrap_or_default(),
            };
            let answer = client.subscribe(request).await?.into_inner();
            session.out.show("deltran.notification.v1.SubscribeResponse", &answer, |a| view(a.subscription.as_ref()));
        }
        Command::Remove { id, participant } => {
            let mut client = session.notification(session.operator_or_bank(participant.as_deref())?);
            let answer = client.unsubscribe(UnsubscribeRequest { subscription_id: id }).await?.into_inner();
            session.out.show("deltran.notification.v1.UnsubscribeResponse", &answer, |a| view(a.subscription.as_ref()));
        }
        Command::List { participant, kind, with_ended, rows } => {
            let client = session.notification(session.operator_or_bank(participant.as_deref())?);
            let filter = ListSubscriptionsRequest {
                page: None,
                participant: participant.unwrap_or_default(),
                kind: kind.unwrap_or_default(),
                with_ended,
            };
            let (subscriptions, more) = pages(&rows, async |page| {
                let request = ListSubscriptionsRequest { page, ..filter.clone() };
                let answer = client.clone().list_subscriptions(request).await?.into_inner();
                Ok((answer.subscriptions, answer.next_page_token))
            })
            .await?;
            let answer = ListSubscriptionsResponse { subscriptions, next_page_token: String::new() };
            session.out.show("deltran.notification.v1.ListSubscriptionsResponse", &answer, |a| list(a, more));
        }
    }
    Ok(())
}

fn list(answer: &ListSubscriptionsResponse, more: bool) -> String {
    let rows = answer.subscriptions.iter().map(|s| {
        [
            s.subscription_id.clone(),
            s.participant.clone(),
            s.kinds.join(", "),
            s.currency.clone(),
            s.minimum_amount.clone(),
            time(&s.created_at),
            time(&s.ended_at),
        ]
    });
    let head = ["subscription", "participant", "kinds", "currency", "minimum", "created at", "ended at"];
    format!("{}\n{}", table(head, rows), shown(answer.subscriptions.len(), "subscriptions", more))
}

fn view(subscription: Option<&Subscription>) -> String {
    let Some(s) = subscription else { return String::new() };
    sheet([
        ("subscription", s.subscription_id.clone()),
        ("participant", s.participant.clone()),
        ("kinds", s.kinds.join(", ")),
        ("currency", s.currency.clone()),
        ("minimum", s.minimum_amount.clone()),
        ("created at", time(&s.created_at)),
        ("created by", s.created_by.clone()),
        ("ended at", time(&s.ended_at)),
        ("ended by", s.ended_by.clone()),
    ])
}
