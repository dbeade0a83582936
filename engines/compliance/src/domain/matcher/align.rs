//! Puts two names side by side, word by word, and scores what fits and what is left over.

use serde::{Deserialize, Serialize};

use super::super::name::Kind;
use super::super::name::similar::{Form, How, SAME, similar};
use super::index::{Asked, Index, Known, Listed, Query, is_proper};

/// Words of the same spelling class or better are paired before anything else.
const SPELLING: u32 = 9_500;
/// What an initial is worth beside a word that begins with it.
const INITIAL: u32 = 9_000;
/// What a single letter weighs in the name of an organisation, where it is not short for anything.
const ENTITY_INITIAL: u32 = 400;
/// What the name loses whose words stand in another order.
const REORDERED: u32 = 200;
/// What a name loses where the words that are certain weigh too little, and how much is too little.
const LITTLE_CERTAIN: u32 = 500;
const CERTAIN_ENOUGH: u64 = 700;
/// What a weak alias loses that is only similar; where words are left over, twice that.
const WEAK: u32 = 500;
/// Out of a hundred: what the weight of a father's name counts for that is missing.
const PATRONYMIC: u64 = 20;
/// What has to fit in weight where words are left over.
const ENOUGH: u64 = 2_400;
/// Out of ten: what a likeness is worth where the asked word exists as it is, so that it is hardly a slip of the pen.
const REAL_WORD: u32 = 8;
/// A single word of several decides nothing, out of ten.
const SINGLE: u32 = 8;

/// How two words, or what is left over, stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairHow {
    /// The same word.
    Same,
    /// Spelt alike.
    Similar,
    /// Sounds alike.
    SoundsAlike,
    /// An initial and a word that begins with it.
    Initial,
    /// Several words of one name are one of the other.
    Joined,
    /// The listed name has a word that the asked one lacks.
    Missing,
    /// The asked name has a word that the listed one lacks.
    Extra,
}

impl PairHow {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Similar => "similar",
            Self::SoundsAlike => "sounds_alike",
            Self::Initial => "initial",
            Self::Joined => "joined",
            Self::Missing => "missing",
            Self::Extra => "extra",
        }
    }
}

/// Two parts of names side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Of the name that was looked for; empty where it has no counterpart.
    pub asked: String,
    /// Of the listed name; empty where it has no counterpart.
    pub listed: String,
    /// How they stand to each other.
    pub how: PairHow,
    /// 0 to 10,000.
    pub score: u32,
    /// What it counts for.
    pub weight: u32,
}

/// A pair by places: words from `asked` on, words from `listed` on, and how many.
#[derive(Debug, Clone, Copy)]
struct Part {
    asked: (usize, usize),
    listed: (usize, usize),
    how: PairHow,
    score: u32,
    weight: u32,
}

/// A listed name beside the name that was looked for.
#[derive(Debug, Clone)]
pub struct Aligned {
    /// The listed name.
    pub listed: u32,
    /// 0 to 10,000.
    pub score: u32,
    /// Every word has the same word beside it.
    pub exact: bool,
    parts: Vec<Part>,
}

impl Aligned {
    /// The pairs in the order of the name that was looked for, what is missing last.
    pub fn pairs(&self, index: &Index, query: &Query) -> Vec<Pair> {
        let listed = &index.names[self.listed as usize];
        let asked = |(from, count): (usize, usize)| {
            query.words[from..from + count].iter().map(|word| &*word.form.text).collect::<Vec<_>>().join(" ")
        };
        let of_list = |(from, count): (usize, usize)| {
            let texts = listed.words[from..from + count].iter().map(|word| &*index.words[word.0 as usize].form.text);
            texts.collect::<Vec<_>>().join(" ")
        };
        let mut parts = self.parts.clone();
        parts.sort_by_key(|part| (part.asked.1 == 0, part.asked.0, part.listed.0));
        parts
            .iter()
            .map(|part| Pair {
                asked: asked(part.asked),
                listed: of_list(part.listed),
                how: part.how,
                score: part.score,
                weight: part.weight,
            })
            .collect()
    }
}

struct Work<'a> {
    index: &'a Index,
    query: &'a Query,
    name: &'a Listed,
    asked_free: Vec<bool>,
    listed_free: Vec<bool>,
    parts: Vec<Part>,
}

/// Aligns a listed name with the one that is looked for.
pub fn align(index: &Index, query: &Query, listed: u32) -> Aligned {
    let name = &index.names[listed as usize];
    let mut work = Work {
        index,
        query,
        name,
        asked_free: vec![true; query.words.len()],
        listed_free: vec![true; name.words.len()],
        parts: Vec::with_capacity(query.words.len() + name.words.len()),
    };
    work.known_pairs(SPELLING);
    work.joined();
    work.known_pairs(0);
    work.other_pairs();
    work.initials();
    work.left_over();
    let (score, exact) = work.score();
    Aligned { listed, score, exact, parts: work.parts }
}

impl Work<'_> {
    fn known(&self, place: usize) -> &Known {
        &self.index.words[self.name.words[place].0 as usize]
    }

    /// What a listed word weighs here.
    fn weight(&self, place: usize) -> u32 {
        match self.name.words[place].1 {
            Kind::Name | Kind::Number => self.known(place).weight,
            Kind::Initial if !self.index.persons[self.name.entry as usize] => ENTITY_INITIAL,
            kind => super::weight::weight(kind, "", 0, 0, false),
        }
    }

    fn take(&mut self, part: Part) {
        self.asked_free[part.asked.0..part.asked.0 + part.asked.1].fill(false);
        self.listed_free[part.listed.0..part.listed.0 + part.listed.1].fill(false);
        self.parts.push(part);
    }

    /// Pairs of what the index found alike, the best first, at least `least` alike.
    fn known_pairs(&mut self, least: u32) {
        let mut pairs: Vec<(u32, u32, usize, usize)> = Vec::new();
        for (i, asked) in self.query.words.iter().enumerate().filter(|(i, _)| self.asked_free[*i]) {
            for (j, (word, kind)) in self.name.words.iter().enumerate().filter(|(j, _)| self.listed_free[*j]) {
                let likeness = match asked.alike.binary_search_by_key(word, |alike| alike.0) {
                    Ok(place) => asked.alike[place].1,
                    Err(_) => continue,
                };
                // A particle beside a name proper is no counterpart.
                let fits = likeness == SAME || (is_proper(asked.kind) && is_proper(*kind));
                if fits && likeness >= least {
                    pairs.push((likeness, self.weight(j), i, j));
                }
            }
        }
        self.take_best(pairs);
    }

    /// Pairs of what is still free and alike, though the index did not find it.
    fn other_pairs(&mut self) {
        let mut pairs = Vec::new();
        for (i, asked) in self.query.words.iter().enumerate().filter(|(i, _)| self.asked_free[*i]) {
            if asked.kind != Kind::Name {
                continue;
            }
            for (j, (_, kind)) in self.name.words.iter().enumerate().filter(|(j, _)| self.listed_free[*j]) {
                if *kind == Kind::Name
                    && let Some((likeness, _)) = similar(&asked.form, &self.known(j).form)
                {
                    pairs.push((likeness, self.weight(j), i, j));
                }
            }
        }
        self.take_best(pairs);
    }

    fn take_best(&mut self, mut pairs: Vec<(u32, u32, usize, usize)>) {
        pairs.sort_unstable_by_key(|(likeness, weight, i, j)| {
            (std::cmp::Reverse(u64::from(*likeness) * u64::from(*weight)), i.abs_diff(*j), *i, *j)
        });
        for (likeness, weight, i, j) in pairs {
            if !self.asked_free[i] || !self.listed_free[j] {
                continue;
            }
            let asked = &self.query.words[i];
            let (score, how) = self.worth(asked, j, likeness);
            self.take(Part { asked: (i, 1), listed: (j, 1), how, score, weight });
        }
    }

    /// A word that exists as it was asked is hardly another one misspelt.
    fn worth(&self, asked: &Asked, place: usize, likeness: u32) -> (u32, PairHow) {
        if likeness == SAME {
            return (SAME, PairHow::Same);
        }
        let how = match similar(&asked.form, &self.known(place).form) {
            Some((_, How::SoundsAlike)) => PairHow::SoundsAlike,
            _ => PairHow::Similar,
        };
        let real = asked.exists && likeness < SPELLING && !asked.form.without_vowels;
        (if real { likeness * REAL_WORD / 10 } else { likeness }, how)
    }

    /// Two or three neighbouring words of one name that are one word of the other.
    fn joined(&mut self) {
        for width in [3, 2] {
            for i in 0..(self.query.words.len() + 1).saturating_sub(width) {
                let window = i..i + width;
                let some_free = self.asked_free[window.clone()].iter().all(|free| *free);
                for j in 0..self.name.words.len() {
                    if !some_free || !self.listed_free[j] || !self.asked_free[i] {
                        continue;
                    }
                    let texts = self.query.words[window.clone()].iter().map(|word| &*word.form.text);
                    if let Some(score) = one_of_several(texts, &self.known(j).form) {
                        let weight = self.weight(j);
                        self.take(Part { asked: (i, width), listed: (j, 1), how: PairHow::Joined, score, weight });
                    }
                }
            }
            for j in 0..(self.name.words.len() + 1).saturating_sub(width) {
                for i in 0..self.query.words.len() {
                    if !self.asked_free[i] || !self.listed_free[j..j + width].iter().all(|free| *free) {
                        continue;
                    }
                    let texts = (j..j + width).map(|place| &*self.known(place).form.text);
                    if let Some(score) = one_of_several(texts, &self.query.words[i].form) {
                        let weight = (j..j + width).map(|place| self.weight(place)).sum();
                        self.take(Part { asked: (i, 1), listed: (j, width), how: PairHow::Joined, score, weight });
                    }
                }
            }
        }
    }

    fn initials(&mut self) {
        for i in 0..self.query.words.len() {
            for j in 0..self.name.words.len() {
                if !self.asked_free[i] || !self.listed_free[j] {
                    continue;
                }
                let (asked, listed) = (&self.query.words[i], self.name.words[j].1);
                let kinds = [asked.kind, listed];
                let person = self.index.persons[self.name.entry as usize];
                let one = person && kinds.contains(&Kind::Initial) && kinds.contains(&Kind::Name);
                let letter = |form: &Form| form.text.bytes().next();
                if one && letter(&asked.form) == letter(&self.known(j).form) {
                    let weight = super::weight::weight(Kind::Initial, "", 0, 0, false);
                    self.take(Part { asked: (i, 1), listed: (j, 1), how: PairHow::Initial, score: INITIAL, weight });
                }
            }
        }
    }

    fn left_over(&mut self) {
        for i in 0..self.query.words.len() {
            if self.asked_free[i] {
                let asked = &self.query.words[i];
                let person = self.index.persons[self.name.entry as usize];
                let weight = if asked.kind == Kind::Initial && !person { ENTITY_INITIAL } else { asked.weight };
                self.take(Part { asked: (i, 1), listed: (0, 0), how: PairHow::Extra, score: 0, weight });
            }
        }
        for j in 0..self.name.words.len() {
            if self.listed_free[j] {
                let weight = self.weight(j);
                self.take(Part { asked: (0, 0), listed: (j, 1), how: PairHow::Missing, score: 0, weight });
            }
        }
    }

    fn score(&self) -> (u32, bool) {
        let person = self.index.persons[self.name.entry as usize];
        let paired = |part: &&Part| !matches!(part.how, PairHow::Missing | PairHow::Extra);
        let proper = |part: &&Part| self.is_proper(part);
        let matched: Vec<&Part> = self.parts.iter().filter(paired).collect();
        let telling: Vec<&Part> =
            matched.iter().copied().filter(proper).filter(|p| p.how != PairHow::Initial).collect();
        let worth: u64 =
            telling.iter().map(|part| u64::from(part.weight) * u64::from(part.score) / u64::from(SAME)).sum();
        let left: Vec<&Part> = self.parts.iter().filter(|part| !paired(part)).collect();
        let whole = !left.iter().copied().any(|part| self.is_proper(part));
        let exact = left.is_empty() && matched.iter().all(|part| part.how == PairHow::Same);

        let (missing, extra) = shares(person, telling.len(), worth);
        let mut fits = 0u64;
        let mut all = 0u64;
        for part in &self.parts {
            let weight = u64::from(part.weight);
            match part.how {
                PairHow::Missing if person && is_patronymic(&self.known(part.listed.0).form.text) => {
                    all += weight * PATRONYMIC / 100;
                }
                PairHow::Missing => all += weight * missing / 100,
                PairHow::Extra => all += weight * extra / 100,
                _ => {
                    fits += 2 * weight * u64::from(part.score);
                    all += 2 * weight;
                }
            }
        }
        let mut score = (fits / all.max(1)) as u32;
        let initials = matched.iter().any(|part| part.how == PairHow::Initial);
        if (!whole || initials) && telling.len() <= 1 {
            let tells = telling.first().is_some_and(|part| self.is_distinctive(part));
            if !tells {
                score = score * SINGLE / 10;
            }
        } else if !whole {
            // Ordinary words are part of many names.
            score = score * (100 - (ENOUGH.saturating_sub(worth) * 2 / 100).min(20) as u32) / 100;
        }
        let certain: u64 = telling.iter().filter(|p| p.score >= SPELLING).map(|p| u64::from(p.weight)).sum();
        if telling.len() >= 2 && telling.iter().any(|part| part.score < SPELLING) && certain < CERTAIN_ENOUGH {
            score = score.saturating_sub(LITTLE_CERTAIN);
        }
        if self.name.weak && !exact {
            score = score.saturating_sub(if whole { WEAK } else { 2 * WEAK });
        }
        if !self.in_order(&matched) {
            score = score.saturating_sub(REORDERED);
        }
        (score, exact && score == SAME)
    }

    fn is_proper(&self, part: &Part) -> bool {
        let asked = self.query.words[part.asked.0..].iter().take(part.asked.1).map(|word| word.kind);
        let listed = self.name.words[part.listed.0..].iter().take(part.listed.1).map(|word| word.1);
        asked.chain(listed).any(is_proper)
    }

    /// A long rare word that is all of the asked name, and no common word: it may tell an organisation by itself.
    fn is_distinctive(&self, part: &Part) -> bool {
        let known = self.known(part.listed.0);
        let extra = self.parts.iter().any(|part| part.how == PairHow::Extra && self.is_proper(part));
        !extra
            && !self.index.persons[self.name.entry as usize]
            && part.score >= SPELLING
            && part.listed.1 == 1
            && known.form.text.len() >= 7
            && known.weight >= 1_200
            && !known.common
    }

    /// Whether the words stand in the same order, or in that of `First LAST` for `LAST, First` on either side.
    fn in_order(&self, matched: &[&Part]) -> bool {
        let (asked_len, listed_len) = (self.query.words.len(), self.name.words.len());
        let turned = |place: usize, turn: usize, length: usize| (place + length - turn) % length.max(1);
        let asked_turns = [Some(0), self.query.turn];
        let listed_turns = [Some(0), self.name.turn.map(usize::from)];
        asked_turns.into_iter().flatten().any(|asked_turn| {
            listed_turns.into_iter().flatten().any(|listed_turn| {
                let mut places: Vec<(usize, usize)> = matched
                    .iter()
                    .filter(|part| self.is_proper(part))
                    .map(|part| {
                        (turned(part.asked.0, asked_turn, asked_len), turned(part.listed.0, listed_turn, listed_len))
                    })
                    .collect();
                places.sort_unstable();
                places.windows(2).all(|pair| pair[0].1 < pair[1].1)
            })
        })
    }
}

/// A father's name as East Slavic languages form it; it is left out more often than not.
fn is_patronymic(word: &str) -> bool {
    word.len() >= 7 && ["vich", "vych", "vitch", "ovna", "evna", "ivna", "ichna"].iter().any(|end| word.ends_with(end))
}

/// Out of a hundred: what the weight of words counts for that are missing, and that are too many. Names of persons
/// are often given in part; what fits has to tell them from others then. Every word of an organisation tells it.
fn shares(person: bool, telling: usize, worth: u64) -> (u64, u64) {
    match (person, telling) {
        (true, 0 | 1) => (100, 100),
        (true, 2) if worth >= 2_000 => (50, 50),
        (true, 2) => (90, 90),
        (true, _) if worth >= 2_400 => (30, 30),
        (true, _) => (60, 60),
        (false, 0..=2) => (80, 100),
        (false, _) if worth >= 3_000 => (50, 60),
        (false, _) => (70, 80),
    }
}

/// How like the words written as one are to one word, where that is nearly certain.
fn one_of_several<'a>(texts: impl Iterator<Item = &'a str>, one: &Form) -> Option<u32> {
    let several: String = texts.collect();
    if several.len().abs_diff(one.text.len()) > 2 || several.len() < 4 {
        return None;
    }
    if *several == *one.text {
        return Some(SAME - 100);
    }
    similar(&Form::new(&several, false), one).map(|found| found.0).filter(|score| *score >= 9_000)
}
