//! The services: decode, handle, encode.

mod audit;
mod dead_letters;
mod entries;
mod export;
mod holds;
mod proofs;

pub use audit::Audit;
pub use dead_letters::DeadLetters;

use deltran_events::data::audit::AccessGranted;
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::{Caller, EngineContext, Failure, FailureKind};

use crate::store::{GoneDay, day_name};

/// Publishes that somebody reads the ledger. Nothing is read before this is committed.
async fn note_access(context: &EngineContext, door: &Door, caller: &Caller, query: String) -> Result<(), Failure> {
    let event = AccessGranted { user: caller.user.clone(), role: caller.role.as_str().to_owned(), query };
    let correlation = context.ids.next_id(context.clock.now());
    let outgoing = [Outgoing::new(event, correlation, caller.user.clone()).traced(caller.trace.clone())];
    Ok(door.begin("access").await?.commit(&outgoing).await?)
}

/// What left the database with a day.
fn archived(what: impl std::fmt::Display, gone: &GoneDay) -> Failure {
    let (day, place) = (day_name(gone.day), &gone.place);
    let message = format!("{what} left the database with day {day}, which is archived: {place}");
    Failure::new(FailureKind::WrongState, "archived", message).with("day", day).with("archive", place)
}
