//! `deltran dlq`: what no consumer could process.

use clap::{Args, Subcommand};
use deltran_api::audit::v1::{
    DeadLetter, DropDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest, ReplayDeadLetterRequest,
};
use serde_json::{Value, json};

use super::{ClientArgs, Rows, Session, pages};
use crate::output::{Output, json_of, say, sheet, shown, table, time};
use crate::problem::Problem;

/// Dead letters: list, show, replay, drop
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran dlq list --state OPEN
  deltran dlq show 3
  deltran dlq replay 3 --reason \"schema is fixed\"

Role operator is assumed, user \"operator\". Replaying and dropping are themselves audited.")]
pub struct DlqArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists dead letters
    #[command(after_help = "Examples:\n  deltran dlq list --stream TRANSACTIONS")]
    List {
        /// Only those in this state: OPEN, REPLAYED, DROPPED
        #[arg(long)]
        state: Option<String>,
        /// Only those of this stream
        #[arg(long)]
        stream: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Shows one dead letter with its payload
    #[command(after_help = "Examples:\n  deltran dlq show 3 --json")]
    Show {
        /// Its number
        id: u64,
    },
    /// Publishes a message again under its first subject
    #[command(after_help = "Examples:\n  deltran dlq replay 3 --reason \"consumer is repaired\"")]
    Replay(Decision),
    /// Marks a dead letter as dealt with
    #[command(after_help = "Examples:\n  deltran dlq drop 3 --reason \"test message\"")]
    Drop(Decision),
}

#[derive(Debug, Args)]
struct Decision {
    /// Its number
    id: u64,
    /// Why, for the record
    #[arg(long)]
    reason: String,
}

/// Runs the command.
///
/// # Errors
/// What the platform answers.
pub async fn run(args: DlqArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    let session = Session::open(&client, out).await?;
    let mut client = session.dead_letters(session.operator()?);
    let letter = match args.command {
        Command::List { state, stream, rows } => {
            let filter = ListDeadLettersRequest {
                page: None,
                state: state.unwrap_or_default().to_ascii_uppercase(),
                stream: stream.unwrap_or_default().to_ascii_uppercase(),
            };
            let (letters, more) = pages(&rows, async |page| {
                let request = ListDeadLettersRequest { page, ..filter.clone() };
                let answer = client.clone().list_dead_letters(request).await?.into_inner();
                Ok((answer.dead_letters, answer.next_page_token))
            })
            .await?;
            list(&session, &letters, more);
            return Ok(());
        }
        Command::Show { id } => {
            let request = GetDeadLetterRequest { dead_letter_id: id };
            client.get_dead_letter(request).await?.into_inner().dead_letter
        }
        Command::Replay(Decision { id, reason }) => {
            let request = ReplayDeadLetterRequest { dead_letter_id: id, reason };
            client.replay_dead_letter(request).await?.into_inner().dead_letter
        }
        Command::Drop(Decision { id, reason }) => {
            let request = DropDeadLetterRequest { dead_letter_id: id, reason };
            client.drop_dead_letter(request).await?.into_inner().dead_letter
        }
    };
    let letter = letter.unwrap_or_default();
    if session.out.json {
        session.out.value(&letter_json(&letter));
    } else {
        say(&one(&letter));
    }
    Ok(())
}

fn list(session: &Session, letters: &[DeadLetter], more: bool) {
    if session.out.json {
        session.out.value(&json!({ "dead_letters": letters.iter().map(letter_json).collect::<Vec<_>>() }));
        return;
    }
    let rows = letters.iter().map(|l| {
        [
            l.dead_letter_id.to_string(),
            l.state.clone(),
            format!("{} {}", l.stream, l.stream_sequence),
            l.consumer.clone(),
            l.subject.clone(),
            l.attempts.to_string(),
            l.reason.clone(),
            time(&l.recorded_at),
        ]
    });
    let head = ["number", "state", "stream", "consumer", "subject", "attempts", "reason", "recorded at"];
    say(&format!("{}\n{}", table(head, rows), shown(letters.len(), "dead letters", more)));
}

/// A dead letter with its payload as text, where it is text.
fn letter_json(letter: &DeadLetter) -> Value {
    let mut value = json_of("deltran.audit.v1.DeadLetter", letter);
    if let Ok(text) = std::str::from_utf8(&letter.payload) {
        value["payload"] = json!(text);
    }
    value
}

fn one(letter: &DeadLetter) -> String {
    let text = sheet([
        ("number", letter.dead_letter_id.to_string()),
        ("state", letter.state.clone()),
        ("stream", format!("{} {}", letter.stream, letter.stream_sequence)),
        ("consumer", letter.consumer.clone()),
        ("subject", letter.subject.clone()),
        ("attempts", letter.attempts.to_string()),
        ("reason", letter.reason.clone()),
        ("decided by", letter.decided_by.clone()),
        ("recorded at", time(&letter.recorded_at)),
    ]);
    format!("{text}\n{}", String::from_utf8_lossy(&letter.payload).escape_debug())
}
