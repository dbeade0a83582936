//! Lists: load, list, history.

use deltran_api::compliance::v1 as pb;
use deltran_runtime::{Caller, Failure, wire};
use tonic::Streaming;

use super::{by, optional_word, shown, word};
use crate::domain::Outcome;
use crate::domain::list::{Files, MAX_BYTES, Source};
use crate::handle::Desk;
use crate::store::{self, ListHead};

/// The longest name of a file, in characters.
const MAX_FILE: usize = 64;

fn list(head: ListHead, in_force: bool) -> Option<pb::ListVersion> {
    let ListHead { source, list, revision } = head;
    list.map(|list| pb::ListVersion {
        source: source.as_str().to_owned(),
        version: list.version,
        names: list.names,
        loaded_at: Some(wire::to_timestamp(list.at)),
        loaded_by: list.by,
        aliases: list.aliases,
        dated: list.dated.unwrap_or_default(),
        files: list.files,
        revision: revision.unsigned_abs(),
        in_force,
    })
}

/// Puts a list in use that comes in pieces.
pub async fn load_list(
    desk: &Desk,
    caller: Caller,
    mut pieces: Streaming<pb::LoadListRequest>,
) -> Result<pb::LoadListResponse, Failure> {
    let mut kept_by: Option<Source> = None;
    let mut files = Files::new();
    let mut size = 0usize;
    while let Some(piece) = pieces.message().await? {
        let source = match (kept_by, piece.source.as_str()) {
            (Some(known), "") => known,
            (Some(known), text) if text == known.as_str() => known,
            (Some(known), text) => {
                let message = format!("{} after {known}: a load is of one source", shown(text));
                return Err(Failure::malformed("source", message));
            }
            (None, text) => word("source", text, &Source::ALL, Source::as_str)?,
        };
        kept_by = Some(source);
        // A source of one file needs no name for it.
        let file = match (piece.file.as_str(), source.files()) {
            ("", [only]) => (*only).to_owned(),
            _ => wire::required_text("file", &piece.file, MAX_FILE)?,
        };
        size = size.saturating_add(piece.content.len());
        if size > MAX_BYTES {
            return Err(Failure::malformed("content", format!("more than {MAX_BYTES} bytes are not taken")));
        }
        files.entry(file).or_default().extend(piece.content);
    }
    let source = kept_by.ok_or_else(|| Failure::malformed("source", "is missing: nothing was sent"))?;
    let (head, unchanged) = match desk.load_list(source, files, &by(caller)).await? {
        Outcome::Executed(head) => (head, false),
        Outcome::AlreadyApplied(head) => (head, true),
    };
    Ok(pb::LoadListResponse { list: list(head, true), unchanged })
}

/// What is in use, or a page of all loads.
pub async fn list_lists(desk: &Desk, request: pb::ListListsRequest) -> Result<pb::ListListsResponse, Failure> {
    let db = desk.door.db();
    let wanted = optional_word("source", &request.source, &Source::ALL, Source::as_str)?;
    if !request.history {
        let heads = store::list_heads(db).await?;
        let of = |head: &ListHead| wanted.is_none_or(|source| source == head.source);
        let lists = heads.into_iter().filter(of).filter_map(|head| list(head, true)).collect();
        return Ok(pb::ListListsResponse { lists, next_page_token: String::new() });
    }
    let page = wire::page::<i64>(request.page.as_ref())?;
    let loads = store::list_loads(db, page.after, page.size, wanted).await?;
    let next_page_token = wire::next_token(loads.len(), page.size, loads.last().map(|load| load.number));
    let lists = loads.into_iter().filter_map(|load| list(load.head, load.in_force)).collect();
    Ok(pb::ListListsResponse { lists, next_page_token })
}
