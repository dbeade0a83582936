//! `deltran participant`: who takes part.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use deltran_api::token::v1::{
    EnableCurrencyRequest, ListParticipantsRequest, ListParticipantsResponse, Participant, ParticipantState,
    RegisterParticipantRequest, SetParticipantStateRequest,
};
use deltran_runtime::Role;

use super::{ClientArgs, Rows, Session, id_or_fresh, import, pages, word_parser};
use crate::output::{Output, sheet, shown, table, time};
use crate::problem::Problem;

word_parser!(participant_state, ParticipantState);

/// Participants: register, activate, suspend, import from a file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran participant list
  deltran participant register ALFAAEXX --name \"Alfa Bank\"
  deltran participant import --file participants.csv

Role operator is assumed, user \"operator\".")]
pub struct ParticipantArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists participants
    #[command(after_help = "Examples:\n  deltran participant list --state active")]
    List {
        /// Only those in this state
        #[arg(long, value_parser = participant_state)]
        state: Option<ParticipantState>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Shows one participant
    #[command(after_help = "Examples:\n  deltran participant show ALFAAEXX")]
    Show {
        /// Its BIC
        participant: String,
    },
    /// Registers a participant; it is ONBOARDING until activated
    #[command(after_help = "Examples:\n  deltran participant register ALFAAEXX --name \"Alfa Bank\"")]
    Register {
        /// Its BIC
        participant: String,
        /// Its name
        #[arg(long)]
        name: String,
        #[command(flatten)]
        command_id: CommandId,
    },
    /// Lets a registered participant take part
    #[command(after_help = "Examples:\n  deltran participant activate ALFAAEXX")]
    Activate(Transition),
    /// Stops a participant's business for the time being
    #[command(after_help = "Examples:\n  deltran participant suspend ALFAAEXX --reason \"ordered by the supervisor\"")]
    Suspend(Transition),
    /// Lets a suspended participant take part again
    #[command(after_help = "Examples:\n  deltran participant reinstate ALFAAEXX --reason \"order lifted\"")]
    Reinstate(Transition),
    /// Declares the default of a participant; there is no way back
    #[command(after_help = "Examples:\n  deltran participant default ALFAAEXX --reason \"insolvency\"")]
    Default(Transition),
    /// Ends a participant's membership; there is no way back
    #[command(after_help = "Examples:\n  deltran participant exit ALFAAEXX --reason \"left the system\"")]
    Exit(Transition),
    /// Enables currencies for a participant
    #[command(after_help = "Examples:\n  deltran participant enable ALFAAEXX --currency USD,EUR")]
    Enable {
        /// Its BIC
        participant: String,
        /// One or more, with commas between
        #[arg(long, value_delimiter = ',', required = true)]
        currency: Vec<String>,
    },
    /// Brings in participants from a CSV file: registers, activates, enables, sets caps, deposits
    #[command(after_help = import::HELP)]
    Import(import::ImportArgs),
}

#[derive(Debug, Args)]
struct Transition {
    /// Its BIC
    participant: String,
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    command_id: CommandId,
}

#[derive(Debug, Args)]
struct CommandId {
    /// Idempotency key, a UUID [default: a fresh one]
    #[arg(long = "id", value_name = "UUID")]
    id: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: ParticipantArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let (change, to) = match args.command {
        Command::List { state, rows } => return list(&session, state, &rows).await,
        Command::Show { participant } => return show(&session, &participant).await,
        Command::Register { participant, name, command_id } => {
            let request = RegisterParticipantRequest { command_id: id_or_fresh(&command_id.id), participant, name };
            let answer = session.token(session.operator()?).register_participant(request).await?.into_inner();
            session.out.show("deltran.token.v1.RegisterParticipantResponse", &answer, |a| one(a.participant.as_ref()));
            return Ok(());
        }
        Command::Enable { participant, currency } => return enable(&session, &participant, &currency).await,
        Command::Import(import_args) => return import::run(&session, &import_args).await,
        Command::Activate(change) | Command::Reinstate(change) => (change, ParticipantState::Active),
        Command::Suspend(change) => (change, ParticipantState::Suspended),
        Command::Default(change) => (change, ParticipantState::Defaulted),
        Command::Exit(change) => (change, ParticipantState::Exited),
    };
    let request = SetParticipantStateRequest {
        command_id: id_or_fresh(&change.command_id.id),
        participant: change.participant,
        state: to.into(),
        reason: change.reason,
    };
    let answer = session.token(session.operator()?).set_participant_state(request).await?.into_inner();
    session.out.show("deltran.token.v1.SetParticipantStateResponse", &answer, |a| one(a.participant.as_ref()));
    Ok(())
}

async fn list(session: &Session, state: Option<ParticipantState>, rows: &Rows) -> Result<(), Problem> {
    let client = session.token(session.operator()?);
    let state = state.unwrap_or_default().into();
    let (participants, more) = pages(rows, async |page| {
        let answer = client.clone().list_participants(ListParticipantsRequest { page, state }).await?.into_inner();
        Ok((answer.participants, answer.next_page_token))
    })
    .await?;
    let answer = ListParticipantsResponse { participants, next_page_token: String::new() };
    session.out.show("deltran.token.v1.ListParticipantsResponse", &answer, |a| {
        let rows_of = a.participants.iter().map(|p| {
            [
                p.participant.clone(),
                p.name.clone(),
                p.state().as_str_name().to_owned(),
                p.currencies.join(" "),
                time(&p.registered_at),
            ]
        });
        let table = table(["participant", "name", "state", "currencies", "registered at"], rows_of);
        format!("{table}\n{}", shown(a.participants.len(), "participants", more))
    });
    Ok(())
}

/// Every participant by its BIC.
///
/// # Errors
/// What the platform answers.
pub async fn all(session: &Session) -> Result<BTreeMap<String, Participant>, Problem> {
    let client = session.token(session.caller(Role::Operator, "operator", None)?);
    let (participants, _) = pages(&Rows { limit: 0 }, async |page| {
        let answer = client.clone().list_participants(ListParticipantsRequest { page, state: 0 }).await?.into_inner();
        Ok((answer.participants, answer.next_page_token))
    })
    .await?;
    Ok(participants.into_iter().map(|p| (p.participant.clone(), p)).collect())
}

async fn show(session: &Session, participant: &str) -> Result<(), Problem> {
    let found = all(session).await?.remove(participant).ok_or_else(|| {
        Problem::refused(format!("there is no participant {participant:?}: `deltran participant list` shows all"))
    })?;
    session.out.show("deltran.token.v1.Participant", &found, |p| one(Some(p)));
    Ok(())
}

async fn enable(session: &Session, participant: &str, currencies: &[String]) -> Result<(), Problem> {
    let mut client = session.token(session.operator()?);
    for currency in currencies {
        let request = EnableCurrencyRequest {
            command_id: super::fresh_id().to_string(),
            participant: participant.to_owned(),
            currency: currency.clone(),
        };
        client.enable_currency(request).await?;
    }
    show(session, participant).await
}

fn one(participant: Option<&Participant>) -> String {
    let Some(p) = participant else { return String::new() };
    sheet([
        ("participant", p.participant.clone()),
        ("name", p.name.clone()),
        ("state", p.state().as_str_name().to_owned()),
        ("currencies", p.currencies.join(" ")),
        ("registered at", time(&p.registered_at)),
    ])
}
