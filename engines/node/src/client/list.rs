//! `deltran list`: the lists that parties are screened against.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use deltran_api::compliance::v1::{ListListsRequest, ListListsResponse, ListVersion, LoadListRequest};
use deltran_runtime::Role;

use super::{ClientArgs, Session};
use crate::output::{Output, count, sheet, table, time};
use crate::problem::Problem;

/// What a request may carry.
const MAX_BYTES: u64 = 3 * 1024 * 1024;

/// Screening lists: load, list
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran list load names.txt --source operator
  deltran list list

Role compliance is assumed, user \"compliance\".")]
pub struct ListArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replaces a list: UTF-8, one name a line
    #[command(after_help = "Examples:\n  deltran list load names.txt --source operator")]
    Load {
        /// The file
        file: PathBuf,
        /// Who keeps the list; `operator` is the one source of this release
        #[arg(long)]
        source: String,
    },
    /// Lists what is loaded, with versions
    #[command(alias = "show", after_help = "Examples:\n  deltran list list --json")]
    List,
}

/// Runs the command.
///
/// # Errors
/// What the platform answers, or a file that cannot be read.
pub async fn run(args: ListArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    match args.command {
        Command::Load { file, source } => {
            let content = read(&file)?;
            let session = Session::open(&client, out).await?;
            let mut client = session.compliance(session.caller(Role::Compliance, "compliance", None)?);
            let answer = client.load_list(pieces(source, content)).await?.into_inner();
            session.out.show("deltran.compliance.v1.LoadListResponse", &answer, |a| {
                let list = a.list.clone().unwrap_or_default();
                sheet([
                    ("source", list.source.clone()),
                    ("names", count(u64::from(list.names))),
                    ("version", list.version.clone()),
                    ("loaded at", time(&list.loaded_at)),
                    ("loaded by", list.loaded_by.clone()),
                    ("unchanged", if a.unchanged { "yes".to_owned() } else { String::new() }),
                ])
            });
        }
        Command::List => {
            let session = Session::open(&client, out).await?;
            let mut client = session.compliance(session.caller(Role::Compliance, "compliance", None)?);
            let answer = client.list_lists(ListListsRequest::default()).await?.into_inner();
            session.out.show("deltran.compliance.v1.ListListsResponse", &answer, lists);
        }
    }
    Ok(())
}

/// The request in pieces that fit into messages.
fn pieces(source: String, content: Vec<u8>) -> impl futures::Stream<Item = LoadListRequest> + Send + 'static {
    let pieces: Vec<LoadListRequest> = content
        .chunks(1 << 20)
        .map(|piece| LoadListRequest { source: source.clone(), file: String::new(), content: piece.to_vec() })
        .collect();
    futures::stream::iter(pieces)
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, Problem> {
    let named = file.display();
    let unreadable = |e: std::io::Error| Problem::refused(format!("{named}: {e}"));
    let size = file.metadata().map_err(unreadable)?.len();
    if size > MAX_BYTES {
        return Err(Problem::refused(format!("{named} has {size} bytes: at most {MAX_BYTES} are taken")));
    }
    std::fs::read(file).map_err(unreadable)
}

fn lists(answer: &ListListsResponse) -> String {
    let row = |l: &ListVersion| {
        [l.source.clone(), count(u64::from(l.names)), l.version.clone(), time(&l.loaded_at), l.loaded_by.clone()]
    };
    table(["source", "names", "version", "loaded at", "loaded by"], answer.lists.iter().map(row))
}
