//! The allow-list of reviewed false positives: a name that may pass although it is like an entry of a list.
//!
//! An allowance covers what names say. What an exact identifier decides it does not touch, and it ends with its day.

use std::collections::BTreeMap;

use deltran_kernel::{AllowanceId, Timestamp};

use super::Outcome;
use super::list::Source;
use super::matcher::Name;

/// The longest time that an allowance counts, in days.
pub const LONGEST_DAYS: i64 = 731;
const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// A name and an entry that are not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Its id, chosen by who adds it.
    pub allowance_id: AllowanceId,
    /// The name as it was given. Personal data.
    pub name: String,
    /// The form in which it is compared.
    pub normal: String,
    /// The list.
    pub source: Source,
    /// The entry.
    pub entry_id: String,
    /// Why they are not the same.
    pub reason: String,
    /// Who reviewed it.
    pub added_by: String,
    /// When.
    pub added_at: Timestamp,
    /// It counts until then.
    pub expires_at: Timestamp,
    /// Who took it back, when, and why.
    pub revoked: Option<Revoked>,
}

/// How an allowance was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// The state of an allowance at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AllowanceState {
    /// It counts.
    Active,
    /// Its day has come.
    Expired,
    /// It was taken back.
    Revoked,
}

impl AllowanceState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Active, Self::Expired, Self::Revoked];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Expired => "EXPIRED",
            Self::Revoked => "REVOKED",
        }
    }

    /// The state of a word; `None` where there is no such word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Why an allowance was not added or taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowanceError {
    /// The name has nothing to compare.
    #[error("the name has neither letter nor digit that can be read")]
    NoName,
    /// It would never count, or too long.
    #[error("expires_at is {0}: expected a time after now, at most {LONGEST_DAYS} days ahead")]
    Expiry(Timestamp),
    /// There is no such entry on the lists in force.
    #[error("the {source_list} list in force has no entry {entry_id:?}")]
    NoEntry {
        /// The list.
        source_list: Source,
        /// The entry.
        entry_id: String,
    },
    /// The id was used for something else.
    #[error("allowance {0} exists with another name, entry, reason or expiry")]
    Conflict(AllowanceId),
    /// There is none of that id.
    #[error("there is no allowance {0}")]
    NotFound(AllowanceId),
}

impl Allowance {
    /// The state at `now`.
    pub fn state(&self, now: Timestamp) -> AllowanceState {
        match self.revoked {
            Some(_) => AllowanceState::Revoked,
            None if self.expires_at <= now => AllowanceState::Expired,
            None => AllowanceState::Active,
        }
    }
}

/// Adds an allowance, or says that it was added.
///
/// # Errors
/// In this order: [`AllowanceError::Conflict`], [`AllowanceError::NoName`], [`AllowanceError::Expiry`].
pub fn add(known: Option<&Allowance>, wanted: Allowance) -> Result<Outcome<Allowance>, AllowanceError> {
    if let Some(known) = known {
        let same = |a: &Allowance| {
            (a.name.clone(), a.source, a.entry_id.clone(), a.reason.clone(), a.expires_at, a.added_by.clone())
        };
        return if same(known) == same(&wanted) {
            Ok(Outcome::AlreadyApplied(known.clone()))
        } else {
            Err(AllowanceError::Conflict(wanted.allowance_id))
        };
    }
    let normal = Name::read(&wanted.name).normal();
    if normal.is_empty() {
        return Err(AllowanceError::NoName);
    }
    let ahead = wanted.expires_at.micros().saturating_sub(wanted.added_at.micros());
    if ahead <= 0 || ahead > LONGEST_DAYS * DAY {
        return Err(AllowanceError::Expiry(wanted.expires_at));
    }
    // Checked.
    Ok(Outcome::Executed(Allowance { normal, revoked: None, ..wanted }))
}

/// Takes an allowance back. One that was taken back stays as it was.
pub fn revoke(known: &Allowance, by: &str, at: Timestamp, reason: &str) -> Outcome<Allowance> {
    if known.revoked.is_some() {
        return Outcome::AlreadyApplied(known.clone());
    }
    let revoked = Revoked { by: by.to_owned(), at, reason: reason.to_owned() };
    Outcome::Executed(Allowance { revoked: Some(revoked), ..known.clone() })
}

/// Allowances by what they cover.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList {
    by_pair: BTreeMap<(Source, String, String), Vec<(AllowanceId, Timestamp)>>,
}

impl AllowList {
    /// Of those that were not taken back.
    pub fn new(allowances: impl IntoIterator<Item = Allowance>) -> Self {
        let mut by_pair: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for allowance in allowances.into_iter().filter(|allowance| allowance.revoked.is_none()) {
            let pair = (allowance.source, allowance.entry_id, allowance.normal);
            by_pair.entry(pair).or_default().push((allowance.allowance_id, allowance.expires_at));
        }
        Self { by_pair }
    }

    /// The allowance by which a name may pass an entry at `now`.
    pub fn covers(&self, source: Source, entry_id: &str, normal: &str, now: Timestamp) -> Option<AllowanceId> {
        if self.by_pair.is_empty() {
            return None;
        }
        let pair = (source, entry_id.to_owned(), normal.to_owned());
        self.by_pair.get(&pair)?.iter().find(|(_, expires)| *expires > now).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Allowance {
        Allowance {
            allowance_id: "0190c3d5-0000-7000-8000-000000000001".parse().unwrap(),
            name: "EXAMPLE, Ivan".into(),
            normal: String::new(),
            source: Source::Ofac,
            entry_id: "7".into(),
            reason: "another date of birth".into(),
            added_by: "lena".into(),
            added_at: Timestamp::from_micros(1_000),
            expires_at: Timestamp::from_micros(1_000 + DAY),
            revoked: None,
        }
    }

    #[test]
    fn one_row_per_refusal() {
        let known = add(None, wanted()).unwrap().into_inner();
        assert_eq!(known.normal, "example ivan");
        assert_eq!(add(Some(&known), wanted()), Ok(Outcome::AlreadyApplied(known.clone())));
        let other = Allowance { reason: "because".into(), ..wanted() };
        assert_eq!(add(Some(&known), other), Err(AllowanceError::Conflict(known.allowance_id)));
        assert_eq!(add(None, Allowance { name: "???".into(), ..wanted() }), Err(AllowanceError::NoName));
        for micros in [0, 1_000, 1_001 + LONGEST_DAYS * DAY] {
            let expires_at = Timestamp::from_micros(micros);
            assert_eq!(add(None, Allowance { expires_at, ..wanted() }), Err(AllowanceError::Expiry(expires_at)));
        }
    }

    #[test]
    fn it_counts_until_its_day_or_until_it_is_taken_back() {
        let known = add(None, wanted()).unwrap().into_inner();
        let (now, later) = (Timestamp::from_micros(2_000), known.expires_at);
        let covers = |allowance: &Allowance, at| {
            AllowList::new([allowance.clone()]).covers(Source::Ofac, "7", "example ivan", at)
        };
        assert_eq!(covers(&known, now), Some(known.allowance_id));
        assert_eq!(covers(&known, later), None);
        assert_eq!((known.state(now), known.state(later)), (AllowanceState::Active, AllowanceState::Expired));
        let revoked = revoke(&known, "grace", now, "new facts").into_inner();
        assert_eq!(covers(&revoked, now), None);
        assert_eq!(revoked.state(now), AllowanceState::Revoked);
        assert_eq!(revoke(&revoked, "ada", later, "again"), Outcome::AlreadyApplied(revoked.clone()));
        let list = AllowList::new([known]);
        assert_eq!(list.covers(Source::Un, "7", "example ivan", now), None);
        assert_eq!(list.covers(Source::Ofac, "8", "example ivan", now), None);
        assert_eq!(list.covers(Source::Ofac, "7", "ivan example", now), None);
    }
}
