//! Legal holds: what may be placed and released, and what an answer to a repeated call is.

use deltran_kernel::{HoldId, ParticipantId, Timestamp};

use super::letter::Outcome;

/// Moments that a hold may name: the years 1970 to 9999.
const MOMENTS: std::ops::Range<i64> = 0..253_402_300_800_000_000;

/// What a hold keeps: every day that has a leaf to which all conditions apply that are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Leaves whose event names this participant anywhere as a value of its own: what an export for it hands out.
    pub participant: Option<ParticipantId>,
    /// Leaves with this correlation id.
    pub correlation_id: Option<String>,
    /// Recorded at or after.
    pub from: Option<Timestamp>,
    /// Recorded before.
    pub to: Option<Timestamp>,
}

/// A hold as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its id, made by the caller.
    pub id: HoldId,
    /// What it keeps.
    pub scope: Scope,
    /// Why.
    pub reason: String,
}

/// A hold as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its place in the order of placing.
    pub number: u64,
    /// What was asked for.
    pub wanted: Wanted,
    /// By whom.
    pub placed_by: String,
    /// When.
    pub placed_at: Timestamp,
    /// How it ended. None while it is active.
    pub release: Option<Release>,
}

/// The end of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Why.
    pub reason: String,
    /// By whom.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Why a hold is not placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It would keep everything for ever.
    #[error("a hold names at least one of participant, correlation_id and a range of times")]
    NoCondition,
    /// A moment that no leaf can have.
    #[error("{0} is out of range: it takes the years 1970 to 9999")]
    OutOfRange(Timestamp),
    /// No moment is in its range.
    #[error("{to} is not after from, {from}")]
    Empty {
        /// Its beginning.
        from: Timestamp,
        /// Its end.
        to: Timestamp,
    },
    /// The id is that of another hold.
    #[error("the id is that of another hold")]
    Conflict,
}

/// Decides on placing a hold; `there` is the one with its id.
///
/// # Errors
/// In this order: without condition, out of range, empty range, another hold.
pub fn place(there: Option<&Hold>, wanted: &Wanted) -> Result<Outcome<()>, Refused> {
    let scope = &wanted.scope;
    if *scope == Scope::default() {
        return Err(Refused::NoCondition);
    }
    if let Some(moment) = [scope.from, scope.to].into_iter().flatten().find(|at| !MOMENTS.contains(&at.micros())) {
        return Err(Refused::OutOfRange(moment));
    }
    if let (Some(from), Some(to)) = (scope.from, scope.to)
        && from >= to
    {
        return Err(Refused::Empty { from, to });
    }
    match there {
        Some(hold) if hold.wanted == *wanted => Ok(Outcome::AlreadyApplied),
        Some(_) => Err(Refused::Conflict),
        // ---
        None => Ok(Outcome::Executed(())),
    }
}

/// Decides on releasing a hold: once, and the first reason stays.
pub fn release(hold: &Hold) -> Outcome<()> {
    if hold.release.is_some() { Outcome::AlreadyApplied } else { Outcome::Executed(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Option<Timestamp> {
        Some(Timestamp::from_micros(micros))
    }

    fn wanted(scope: Scope) -> Wanted {
        let id = "0190c3d5-0000-7000-8000-000000000001".parse().unwrap();
        Wanted { id, scope, reason: "case 7".into() }
    }

    fn placed(wanted: &Wanted) -> Hold {
        let at = Timestamp::from_micros(9);
        Hold { number: 1, wanted: wanted.clone(), placed_by: "ada".into(), placed_at: at, release: None }
    }

    #[test]
    fn what_is_placed_and_what_is_refused() {
        let participant = Scope { participant: Some("ALFAAEXX".parse().unwrap()), ..Scope::default() };
        let correlation = Scope { correlation_id: Some("c1".into()), ..Scope::default() };
        let range = |from, to| Scope { from, to, ..Scope::default() };
        let done = Ok(Outcome::Executed(()));
        let (from, to) = (Timestamp::from_micros(5), Timestamp::from_micros(4));
        for (scope, expected) in [
            (participant.clone(), done.clone()),
            (correlation.clone(), done.clone()),
            (range(at(1), None), done.clone()),
            (range(None, at(1)), done.clone()),
            (Scope { participant: participant.participant, ..range(at(4), at(5)) }, done),
            (Scope::default(), Err(Refused::NoCondition)),
            (range(at(-1), None), Err(Refused::OutOfRange(Timestamp::from_micros(-1)))),
            (range(at(5), at(4)), Err(Refused::Empty { from, to })),
            (range(at(5), at(5)), Err(Refused::Empty { from, to: from })),
        ] {
            assert_eq!(place(None, &wanted(scope.clone())), expected, "{scope:?}");
        }
        let first = wanted(participant);
        let hold = placed(&first);
        assert_eq!(place(Some(&hold), &first), Ok(Outcome::AlreadyApplied));
        assert_eq!(place(Some(&hold), &wanted(correlation)), Err(Refused::Conflict));
        assert_eq!(place(Some(&hold), &Wanted { reason: "case 8".into(), ..first.clone() }), Err(Refused::Conflict));
        let end = Release { reason: "closed".into(), by: "ada".into(), at: from };
        let released = Hold { release: Some(end), ..hold.clone() };
        assert_eq!(place(Some(&released), &first), Ok(Outcome::AlreadyApplied), "it stays released");
        assert_eq!((release(&hold), release(&released)), (Outcome::Executed(()), Outcome::AlreadyApplied));
    }
}
