//! What becomes of the parties of a transaction.

use std::cmp::Reverse;
use std::sync::Arc;

use deltran_kernel::AllowanceId;

use super::list::{BirthDate, IdKind, country, id_key};
use super::matcher::{MOST_WORDS, Match, Subject};
use super::name::{is_mixed, tokens, words};

/// The longest name that is kept with a hold, in characters.
const KEPT_NAME: usize = 300;
/// Matches that are kept with a hold.
const KEPT_MATCHES: usize = 5;

/// From which score on a name is held, and from which on it is held as a match, in ten-thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// REVIEW from here on.
    pub review: u32,
    /// BLOCK_AND_REVIEW from here on.
    pub block: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { review: 8_000, block: 9_500 }
    }
}

impl Thresholds {
    /// The version of the rules that are applied here; it stands with every decision.
    pub fn rule_version(&self) -> String {
        format!("names/1;review={};block={}", self.review, self.block)
    }

    /// What a match leads to. A weak alias never blocks by itself.
    pub fn decide(&self, found: &Match) -> Decision {
        match (found.score, found.strong_score) {
            (_, strong) if strong >= self.block => Decision::BlockAndReview,
            (score, _) if score >= self.review => Decision::Review,
            _ => Decision::Approve,
        }
    }
}

/// A decision. The greatest over all parties counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// It may pass.
    Approve,
    /// It is held: nothing certain is known.
    Review,
    /// It is held: a party stands on a list.
    BlockAndReview,
    /// It is refused.
    Decline,
}

impl Decision {
    /// The word for it in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "APPROVE",
            Self::Review => "REVIEW",
            Self::BlockAndReview => "BLOCK_AND_REVIEW",
            Self::Decline => "DECLINE",
        }
    }
}

/// What led to a decision. Of two that lead to the same one, the later in this order is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// No party was named.
    NoParties,
    /// No party is like anybody on a list.
    NoMatch,
    /// A party is like somebody on a list, and was reviewed before.
    AllowListed,
    /// Parties are named and there is no list.
    NoList,
    /// A party could not be checked.
    Error,
    /// A party's name is like one of a list.
    SimilarName,
    /// A party's name is that of a list.
    ExactName,
    /// A party's identifier is that of a list.
    ExactId,
}

impl Evidence {
    /// The word for it in answers, events and stored rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoParties => "no_parties",
            Self::NoMatch => "no_match",
            Self::AllowListed => "allow_listed",
            Self::NoList => "no_list",
            Self::Error => "error",
            Self::SimilarName => "similar_name",
            Self::ExactName => "exact_name",
            Self::ExactId => "exact_id",
        }
    }

    /// Whether a list was matched.
    pub const fn is_hit(self) -> bool {
        matches!(self, Self::SimilarName | Self::ExactName | Self::ExactId)
    }
}

/// A party as a transaction names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Party {
    /// Its name; blank where not given.
    pub name: String,
    /// Its country: a code or a name; blank where not given.
    pub country: String,
    /// When it was born: `YYYY`, `YYYY-MM` or `YYYY-MM-DD`; blank where not given.
    pub date_of_birth: String,
    /// Its identifiers: kind and value.
    pub identifiers: Vec<(String, String)>,
}

impl Party {
    /// Who is to be looked for; `None` where nobody is named. `false` where something cannot be read, so that the
    /// answer "nobody" would be worth nothing: a name without letter or digit, with too many words or with a word of
    /// several alphabets, a country or a date that is none, or identifiers alone of which not one can be compared.
    pub fn read(&self) -> Option<(Subject, bool)> {
        let name = self.name.trim();
        if name.is_empty() && self.identifiers.is_empty() {
            return None;
        }
        // Counted as they are compared: one written word may be several.
        let count = tokens(&words(name)).len();
        let mut whole = name.is_empty() || ((1..=MOST_WORDS).contains(&count) && !is_mixed(name));
        let country = country::code_of(&self.country).map(str::to_owned);
        whole &= country.is_some() || self.country.trim().is_empty();
        let born = BirthDate::iso(self.date_of_birth.trim());
        whole &= born.is_some() || self.date_of_birth.trim().is_empty();
        let identifiers = self
            .identifiers
            .iter()
            .filter_map(|(kind, value)| Some((IdKind::from_word(kind)?, value.clone())))
            .collect::<Vec<_>>();
        whole &= !name.is_empty() || identifiers.iter().any(|(kind, value)| id_key(*kind, value).is_some());
        Some((Subject { name: name.to_owned(), country, born, identifiers }, whole))
    }
}

/// A decision with what led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screened {
    /// The decision.
    pub decision: Decision,
    /// What led to it.
    pub evidence: Evidence,
    /// The best match, 0 to 10,000.
    pub score: u32,
    /// The names that led to it, where it is not an approval. Personal data: for the hold only.
    pub names: Option<String>,
    /// The best matches that led to it, best first, where it is not an approval. Personal data: for the hold only.
    pub matches: Vec<Match>,
}

impl Screened {
    fn nothing(evidence: Evidence) -> Self {
        Self { decision: Decision::Approve, evidence, score: 0, names: None, matches: Vec::new() }
    }
}

/// How parties are checked.
pub trait Lookup {
    /// The entries whose score is at least that of a review; `None` where there is no list.
    fn find(&mut self, subject: &Subject) -> Option<Arc<[Match]>>;
    /// The allowance by which a match may pass.
    fn allowed(&self, found: &Match) -> Option<AllowanceId>;
}

/// Screens the parties of a transaction. Parties that name nobody count as not given.
///
/// Never approves a name that was not looked up (K2).
pub fn screen(lookup: &mut impl Lookup, thresholds: &Thresholds, parties: &[Party]) -> Screened {
    let mut all = Screened::nothing(Evidence::NoParties);
    for (subject, whole) in parties.iter().filter_map(Party::read) {
        let mut one = screen_one(lookup, thresholds, &subject);
        if !whole && one.decision < Decision::Review {
            one = Screened { decision: Decision::Review, evidence: Evidence::Error, ..one };
        }
        if one.decision > Decision::Approve {
            let shown = if subject.name.is_empty() { "(no name)" } else { &subject.name };
            one.names = Some(shown.chars().take(KEPT_NAME).collect());
        }
        all = worse(all, one);
    }
    all
}

fn screen_one(lookup: &mut impl Lookup, thresholds: &Thresholds, subject: &Subject) -> Screened {
    let Some(found) = lookup.find(subject) else {
        return Screened { decision: Decision::Review, ..Screened::nothing(Evidence::NoList) };
    };
    let mut one = Screened::nothing(Evidence::NoMatch);
    for found in found.iter() {
        let decision = thresholds.decide(found);
        // An allowance covers names; an identifier that is the same is another matter.
        let evidence = match found {
            _ if decision == Decision::Approve => continue,
            found if found.same_id => Evidence::ExactId,
            found if lookup.allowed(found).is_some() => Evidence::AllowListed,
            found if found.exact => Evidence::ExactName,
            _ => Evidence::SimilarName,
        };
        let allowed = evidence == Evidence::AllowListed;
        let decision = if allowed { Decision::Approve } else { decision };
        let matches = if allowed { Vec::new() } else { vec![found.clone()] };
        one = worse(one, Screened { decision, evidence, score: found.score, names: None, matches });
    }
    one
}

/// Both together: the greater decision, and what led to it.
fn worse(a: Screened, b: Screened) -> Screened {
    let (mut all, mut lesser) = if b.decision > a.decision { (b, a) } else { (a, b) };
    if lesser.decision < all.decision {
        return all;
    }
    all.evidence = all.evidence.max(lesser.evidence);
    all.score = all.score.max(lesser.score);
    all.matches.append(&mut lesser.matches);
    all.matches.sort_by_key(|found| Reverse(found.score));
    all.matches.truncate(KEPT_MATCHES);
    all.names = match (all.names.take(), lesser.names.take()) {
        (Some(one), Some(other)) if one != other => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
    };
    all
}

#[cfg(test)]
#[path = "screening_tests.rs"]
mod tests;
