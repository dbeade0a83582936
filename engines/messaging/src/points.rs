//! Fail points: the five places of the consumer loop and the relay where a test breaks off what is under way. Builds
//! with debug assertions have them; in others, such as a release build, they are nothing at all.
//!
//! A point is named after its consumer or relay, such as `audit-engine-consumer::before_ack` or
//! `token.relay::after_publish`. What happens there is set with the crate `fail`: `return(error)`, `return(panic)` or
//! `return(abort)`, which ends the process, with counts before it such as `1*return(panic)`; in the program by the variable
//! FAILPOINTS.

use deltran_runtime::DbError;

/// Whether this build has them.
pub const COMPILED: bool = cfg!(debug_assertions);

/// Every place, by its name.
pub const PLACES: [&str; 5] = [BEFORE_COMMIT, AFTER_COMMIT, AFTER_PUBLISH, BEFORE_ACK, AFTER_ACK];
/// Everything is written, and not committed.
pub(crate) const BEFORE_COMMIT: &str = "before_commit";
/// The COMMIT took effect; whoever asked for it does not know.
pub(crate) const AFTER_COMMIT: &str = "after_commit";
/// The broker has acknowledged, and nobody has noted it.
pub(crate) const AFTER_PUBLISH: &str = "after_publish";
/// The effects are committed, the broker does not know.
pub(crate) const BEFORE_ACK: &str = "before_ack";
/// The broker was told.
pub(crate) const AFTER_ACK: &str = "after_ack";

/// Goes on, or breaks off where a test asked for it.
#[cfg(debug_assertions)]
pub(crate) fn reached(whose: &str, place: &str) -> Result<(), DbError> {
    let name = format!("{whose}::{place}");
    match asked(&name).as_deref() {
        None => Ok(()),
        Some("abort") => std::process::abort(),
        Some("panic") => panic!("broken off at {name}"),
        Some(_) => Err(DbError::Unavailable(format!("broken off at {name}"))),
    }
}

/// Goes on.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn reached(_whose: &str, _place: &str) -> Result<(), DbError> {
    Ok(())
}

#[cfg(debug_assertions)]
fn asked(name: &str) -> Option<String> {
    fail::fail_point!(name, |word| {
        let word = word.unwrap_or_default();
        tracing::warn!(name, word, "fail point");
        Some(word)
    });
    None
}

/// Takes what the variable FAILPOINTS says.
pub fn from_environment() {
    #[cfg(debug_assertions)]
    if std::env::var_os("FAILPOINTS").is_some() {
        // Dropped, it would forget them.
        std::mem::forget(fail::FailScenario::setup());
    }
}
