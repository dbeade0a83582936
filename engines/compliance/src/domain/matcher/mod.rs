//! Finds who on the lists is like a name, and says why.
//!
//! An index gives the listed names that share a word with the name, or have one like it; each of them is aligned with
//! the name word by word. Words weigh the more the fewer entries have them, so that ordinary names find nothing.

mod align;
mod index;
mod qualify;
mod table;
mod weight;

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::list::{BirthDate, Entry, EntryKind, IdKind, List, Quality, Source, id_key};
use super::name::similar::Form;
use super::name::{Kind, Token, words};

pub use align::{Pair, PairHow};
pub use index::Scratch;
pub use qualify::Effect;

use align::{Aligned, align};
use index::{Index, Query};

/// The score of a match that leaves no doubt, in ten-thousandths.
pub const CERTAIN: u32 = 10_000;
/// The most words of a name that are compared; further ones are left out.
pub const MOST_WORDS: usize = 40;

/// A name with its words, as both sides are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Its words.
    pub tokens: Vec<Token>,
    /// How many words stand before its only comma: `LAST, First` is `First LAST` as well.
    pub turn: Option<usize>,
}

impl Name {
    /// Reads a name.
    pub fn read(name: &str) -> Self {
        let read = |name: &str| super::name::tokens(&words(name));
        let mut tokens = read(name);
        let turn = single_comma(name).and_then(|(last, first)| {
            let (before, after) = (read(last).len(), read(first).len());
            let form = |token: &Token| token.kind == Kind::Form;
            let whole = before + after == tokens.len() && before > 0 && after > 0;
            (whole && tokens.len() <= MOST_WORDS && !tokens[before..].iter().all(form)).then_some(before)
        });
        tokens.truncate(MOST_WORDS);
        Self { tokens, turn }
    }

    /// The form by which it is known: its words with single blanks.
    pub fn normal(&self) -> String {
        self.tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
    }
}

fn single_comma(name: &str) -> Option<(&str, &str)> {
    let is_comma = |c: char| matches!(c, ',' | '،' | '、' | '，' | '﹐' | '､');
    let (last, first) = name.split_once(is_comma)?;
    (!first.contains(is_comma)).then_some((last, first))
}

/// Who is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The name as it was given.
    pub name: String,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// When born.
    pub born: Option<BirthDate>,
    /// Identifiers by kind, as they were given.
    pub identifiers: Vec<(IdKind, String)>,
}

/// An entry that is like the subject, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The list.
    pub source: Source,
    /// Its version.
    pub list_version: String,
    /// The entry.
    pub entry_id: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its first name.
    pub primary_name: String,
    /// The name of it that is most alike.
    pub matched_name: String,
    /// What that name is worth.
    pub quality: Quality,
    /// The name that was looked for, in its compared form.
    pub asked_name: String,
    /// With qualifiers, 0 to [`CERTAIN`].
    pub score: u32,
    /// The same of the best name that is no weak alias, 0 to [`CERTAIN`].
    pub strong_score: u32,
    /// By the name alone, 0 to [`CERTAIN`].
    pub name_score: u32,
    /// Word by word the same.
    pub exact: bool,
    /// A strong identifier is the same, which decides.
    pub same_id: bool,
    /// What was put side by side.
    pub pairs: Vec<Pair>,
    /// What else raised or lowered the score.
    pub qualifiers: Vec<Effect>,
    /// Of the entry.
    pub countries: Vec<String>,
    /// Of the entry.
    pub dates_of_birth: Vec<String>,
    /// Of the entry: "kind value (country)".
    pub identifiers: Vec<String>,
}

/// All lists in force, ready to be searched.
#[derive(Debug)]
pub struct Matcher {
    lists: Vec<Arc<List>>,
    index: Index,
}

impl Matcher {
    /// Builds the index over lists.
    pub fn new(lists: Vec<Arc<List>>) -> Self {
        let index = Index::build(&lists);
        Self { lists, index }
    }

    /// The lists that are searched.
    pub fn lists(&self) -> &[Arc<List>] {
        &self.lists
    }

    /// Memory for searches one after the other.
    pub fn scratch(&self) -> Scratch {
        Scratch::for_names(self.index.names.len())
    }

    /// The entries whose score is at least `least`, best first, at most `most`; with explanation. The order is fixed:
    /// by score, then by list and entry.
    pub fn search(&self, subject: &Subject, least: u32, most: usize, scratch: &mut Scratch) -> Vec<Match> {
        let name = Name::read(&subject.name);
        let query = self.index.query(&name, scratch);
        // A qualifier raises the score by a little.
        let floor = least.saturating_sub(qualify::MOST_RAISED);
        let mut found: Vec<Found> = Vec::new();
        for listed in self.index.candidates(&query, floor, scratch) {
            let aligned = align(&self.index, &query, listed);
            if aligned.score >= floor {
                let listed = &self.index.names[listed as usize];
                let strong = if listed.weak { 0 } else { aligned.score };
                match found.iter_mut().find(|known| known.entry == listed.entry) {
                    Some(known) => known.also(aligned, strong),
                    None => found.push(Found { entry: listed.entry, aligned, strong, id: None, effects: Vec::new() }),
                }
            }
        }
        for (kind, value) in &subject.identifiers {
            let Some(key) = id_key(*kind, value) else { continue };
            for entry in self.index.identified(*kind, &key) {
                let id = Some((*kind, value.clone()));
                match found.iter_mut().find(|known| known.entry == entry) {
                    Some(known) => known.id = id,
                    None => {
                        let aligned = align(&self.index, &query, self.index.first_name(entry));
                        found.push(Found { entry, strong: aligned.score, aligned, id, effects: Vec::new() });
                    }
                }
            }
        }
        for known in &mut found {
            known.effects = qualify::effects(subject, self.entry(known.entry));
        }
        found.retain(|known| known.score() >= least);
        found.sort_by_key(|known| (Reverse(known.score()), Reverse(known.aligned.score), known.entry));
        found.truncate(most);
        found.into_iter().map(|known| self.explain(&query, known)).collect()
    }

    fn entry(&self, entry: u32) -> &Entry {
        let (list, place) = self.index.entries[entry as usize];
        &self.lists[list as usize].entries[place as usize]
    }

    fn explain(&self, query: &Query, found: Found) -> Match {
        let entry = self.entry(found.entry);
        let list = &self.lists[self.index.entries[found.entry as usize].0 as usize];
        let alias = &entry.names[self.index.names[found.aligned.listed as usize].alias as usize];
        let (score, strong_score) = (found.score(), found.strong_score());
        let same_id = found.id.is_some();
        let mut qualifiers = found.effects;
        if let Some((kind, value)) = found.id {
            let key = id_key(kind, &value);
            let listed = entry.identifiers.iter().find(|known| known.kind == kind && known.key() == key);
            qualifiers.push(Effect {
                what: kind.as_str().to_owned(),
                asked: value,
                listed: listed.map(|known| known.value.clone()).unwrap_or_default(),
                effect: CERTAIN as i32,
            });
        }
        let identifier = |id: &super::list::Identifier| match &id.country {
            Some(country) => format!("{} {} ({country})", id.kind.as_str(), id.value),
            None => format!("{} {}", id.kind.as_str(), id.value),
        };
        Match {
            source: list.source,
            list_version: list.version.clone(),
            entry_id: entry.id.clone(),
            kind: entry.kind,
            primary_name: entry.primary().to_owned(),
            matched_name: alias.name.clone(),
            quality: alias.quality,
            asked_name: query.normal.clone(),
            score,
            strong_score,
            name_score: found.aligned.score,
            exact: found.aligned.exact,
            same_id,
            pairs: found.aligned.pairs(&self.index, query),
            qualifiers,
            countries: entry.countries.clone(),
            dates_of_birth: entry.born.iter().map(BirthDate::to_string).collect(),
            identifiers: entry.identifiers.iter().map(identifier).collect(),
        }
    }
}

/// An entry that was found.
struct Found {
    entry: u32,
    /// The name that is most alike.
    aligned: Aligned,
    /// The best score of its names that are not weak.
    strong: u32,
    /// The identifier that is the same.
    id: Option<(IdKind, String)>,
    effects: Vec<Effect>,
}

impl Found {
    /// Takes another name of the same entry into account.
    fn also(&mut self, other: Aligned, strong: u32) {
        self.strong = self.strong.max(strong);
        if (other.score, Reverse(other.listed)) > (self.aligned.score, Reverse(self.aligned.listed)) {
            self.aligned = other;
        }
    }

    fn score(&self) -> u32 {
        if self.id.is_some() { CERTAIN } else { qualify::total(self.aligned.score, &self.effects) }
    }

    fn strong_score(&self) -> u32 {
        if self.id.is_some() { CERTAIN } else { qualify::total(self.strong, &self.effects) }
    }
}

/// A word with what comparing needs.
pub(crate) fn form_of(token: &Token) -> Form {
    Form::new(&token.text, token.without_vowels)
}
