//! The services: decode, handle, encode.

mod audit;
mod dead_letters;
mod export;
mod proofs;

pub use audit::Audit;
pub use dead_letters::DeadLetters;

use deltran_events::data::audit::AccessGranted;
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::{Caller, EngineContext, Failure};

/// Publishes that somebody reads the ledger. Nothing is read before this is committed.
async fn note_access(context: &EngineContext, door: &Door, caller: &Caller, query: String) -> Result<(), Failure> {
    let event = AccessGranted { user: caller.user.clone(), role: caller.role.as_str().to_owned(), query };
    let correlation = context.ids.next_id(context.clock.now());
    let outgoing = [Outgoing::new(event, correlation, caller.user.clone()).traced(caller.trace.clone())];
    Ok(door.begin("access").await?.commit(&outgoing).await?)
}
