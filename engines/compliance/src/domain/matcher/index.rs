//! The index over all lists in force: from a word to the names that have it, or one like it.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::list::{IdKind, List};
use super::super::name::similar::{Form, LEAST, SAME, similar};
use super::super::name::{Kind, Token};
use super::table::{Rows, Table, without_some};
use super::weight::{common_words, weight};
use super::{Name, form_of};

/// Words like an asked one that are followed up; the most alike ones.
const MOST_ALIKE: usize = 96;
/// Names that are aligned for one question; the most promising ones.
const MOST_ALIGNED: usize = 96;
/// Words from this length on are found with two slips of the pen.
const TWO_SLIPS_FROM: usize = 8;
/// Words that were looked up and are remembered by a [`Scratch`].
const MOST_REMEMBERED: usize = 50_000;

/// Words of the lists that are like a word, with the likeness, by word.
pub type Alike = Arc<[(u32, u32)]>;

/// A word of the lists.
#[derive(Debug)]
pub struct Known {
    /// The word with what comparing needs.
    pub form: Form,
    /// What it weighs as part of a name proper.
    pub weight: u32,
    /// Whether it is common outside of the lists.
    pub common: bool,
}

/// A name of an entry.
#[derive(Debug)]
pub struct Listed {
    /// The entry, by its place in [`Index::entries`].
    pub entry: u32,
    /// Which of the entry's names.
    pub alias: u32,
    /// Words by their place in [`Index::words`], in the order of the name.
    pub words: Box<[(u32, Kind)]>,
    /// See [`Name::turn`].
    pub turn: Option<u8>,
    /// It is a weak alias.
    pub weak: bool,
    /// What its words weigh together, without particles and forms.
    pub weight: u32,
}

/// The index.
#[derive(Debug)]
pub struct Index {
    /// Every entry: which list, which of its entries.
    pub entries: Vec<(u32, u32)>,
    /// Every name.
    pub names: Vec<Listed>,
    /// Every word.
    pub words: Vec<Known>,
    /// Whether an entry is a natural person.
    pub persons: Vec<bool>,
    by_text: HashMap<Box<str>, u32>,
    /// Words by what is left of them without some letters.
    slips: Table,
    /// Words by their spelling class.
    folds: Table,
    /// Words by their consonants.
    skeletons: Table,
    /// Names by two or three neighbouring words written as one.
    joined: Table,
    /// The names that have a word: `posting[starts[word]..starts[word + 1]]`.
    starts: Vec<u32>,
    postings: Vec<u32>,
    common: std::collections::BTreeSet<&'static str>,
    entry_names: Vec<u32>,
    ids: HashMap<(IdKind, String), Vec<u32>>,
}

/// A name that is looked for, with the words of the lists that are like its own.
#[derive(Debug)]
pub struct Query {
    /// Its words.
    pub words: Vec<Asked>,
    /// See [`Name::turn`].
    pub turn: Option<usize>,
    /// Its compared form.
    pub normal: String,
}

/// A word of a name that is looked for.
#[derive(Debug)]
pub struct Asked {
    /// The word with what comparing needs.
    pub form: Form,
    /// What it is.
    pub kind: Kind,
    /// What it weighs.
    pub weight: u32,
    /// Whether it is a word that exists: of the lists or common elsewhere.
    pub exists: bool,
    /// Words of the lists that are like it.
    pub alike: Alike,
}

/// Memory that searches one after the other share.
#[derive(Debug)]
pub struct Scratch {
    sums: Vec<u32>,
    touched: Vec<u32>,
    remembered: HashMap<(Box<str>, bool), Alike>,
}

impl Scratch {
    /// For an index of so many names.
    pub fn for_names(names: usize) -> Self {
        Self { sums: vec![0; names], touched: Vec::new(), remembered: HashMap::new() }
    }
}

#[derive(Default)]
struct Builder {
    index_of: HashMap<Box<str>, u32>,
    forms: Vec<Form>,
    /// Entries that have each word, and the last one that was counted.
    having: Vec<(u32, u32)>,
}

impl Builder {
    fn word(&mut self, token: &Token, entry: u32) -> u32 {
        let number = match self.index_of.get(token.text.as_str()) {
            Some(number) => *number,
            None => {
                let number = self.forms.len() as u32;
                self.forms.push(form_of(token));
                self.having.push((0, u32::MAX));
                self.index_of.insert(token.text.as_str().into(), number);
                number
            }
        };
        let (having, last) = &mut self.having[number as usize];
        if *last != entry {
            (*having, *last) = (*having + 1, entry);
        }
        number
    }
}

impl Index {
    /// Builds it.
    pub fn build(lists: &[Arc<List>]) -> Self {
        let common = common_words();
        let mut builder = Builder::default();
        let (mut entries, mut names, mut persons, mut entry_names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut joined = Rows::default();
        let mut ids: HashMap<(IdKind, String), Vec<u32>> = HashMap::new();
        for (list_number, list) in (0u32..).zip(lists) {
            for (place, entry) in (0u32..).zip(&list.entries) {
                let number = entries.len() as u32;
                entries.push((list_number, place));
                persons.push(entry.kind == super::EntryKind::Person);
                entry_names.push(names.len() as u32);
                for id in &entry.identifiers {
                    if let Some(key) = id.key() {
                        let entries = ids.entry((id.kind, key)).or_default();
                        if entries.last() != Some(&number) {
                            entries.push(number);
                        }
                    }
                }
                for (alias, listed) in (0u32..).zip(&entry.names) {
                    let name = Name::read(&listed.name);
                    join(&name.tokens, |text| joined.add(text.bytes(), names.len() as u32));
                    let words = name.tokens.iter().map(|token| (builder.word(token, number), token.kind)).collect();
                    let turn = name.turn.and_then(|turn| u8::try_from(turn).ok());
                    let weak = listed.quality == super::Quality::Weak;
                    names.push(Listed { entry: number, alias, words, turn, weak, weight: 0 });
                }
            }
        }
        let total = entries.len() as u32;
        let words: Vec<Known> = builder
            .forms
            .into_iter()
            .zip(&builder.having)
            .map(|(form, (having, _))| {
                let is_common = common.contains(&*form.text);
                let kind = if form.text.bytes().any(|b| b.is_ascii_digit()) { Kind::Number } else { Kind::Name };
                Known { weight: weight(kind, &form.text, *having, total, is_common), common: is_common, form }
            })
            .collect();
        for name in &mut names {
            name.weight =
                name.words.iter().filter(|word| is_proper(word.1)).map(|word| words[word.0 as usize].weight).sum();
        }
        let (mut slips, mut folds, mut skeletons) = (Rows::default(), Rows::default(), Rows::default());
        for (number, word) in (0u32..).zip(&words) {
            skeletons.add(word.form.skeleton.bytes(), number);
            if word.form.exact_only {
                continue;
            }
            folds.add(word.form.blind.bytes(), number);
            slips_of(&word.form.text, |rest| slips.add(rest.iter().copied(), number));
        }
        let (starts, postings) = post(&names, words.len());
        Self {
            entries,
            names,
            words,
            persons,
            by_text: builder.index_of,
            slips: slips.finish(),
            folds: folds.finish(),
            skeletons: skeletons.finish(),
            joined: joined.finish(),
            starts,
            postings,
            common,
            entry_names,
            ids,
        }
    }

    /// Entries with an identifier.
    pub fn identified(&self, kind: IdKind, key: &str) -> impl Iterator<Item = u32> {
        self.ids.get(&(kind, key.to_owned())).into_iter().flatten().copied()
    }

    /// The first name of an entry.
    pub fn first_name(&self, entry: u32) -> u32 {
        self.entry_names[entry as usize]
    }

    /// Prepares a name for searching.
    pub fn query(&self, name: &Name, scratch: &mut Scratch) -> Query {
        let words = name
            .tokens
            .iter()
            .map(|token| {
                let known = self.by_text.get(token.text.as_str()).map(|number| &self.words[*number as usize]);
                let common = self.common.contains(token.text.as_str());
                let exists = common || known.is_some();
                let form = form_of(token);
                // The form of a company with a slip of the pen is no part of the name proper.
                let misspelt = token.kind == Kind::Name && !exists && is_like_a_form(&form);
                let kind = if misspelt { Kind::Form } else { token.kind };
                let weight = match known {
                    Some(known) if is_proper(kind) => known.weight,
                    _ => weight(kind, &token.text, 0, 0, common),
                };
                Asked { alike: self.alike(&form, kind, scratch), form, kind, weight, exists }
            })
            .collect();
        Query { words, turn: name.turn, normal: name.normal() }
    }

    /// Words of the lists that are like a word.
    fn alike(&self, form: &Form, kind: Kind, scratch: &mut Scratch) -> Alike {
        let same = self.by_text.get(&form.text).copied();
        if kind != Kind::Name || (form.exact_only && !form.without_vowels) {
            return same.into_iter().map(|number| (number, SAME)).collect();
        }
        let key = (form.text.clone(), form.without_vowels);
        if let Some(known) = scratch.remembered.get(&key) {
            return known.clone();
        }
        let mut numbers: Vec<u32> = same.into_iter().collect();
        if form.without_vowels {
            numbers.extend(self.skeletons.get(form.skeleton.bytes()));
        }
        if !form.exact_only {
            numbers.extend(self.folds.get(form.blind.bytes()));
            slips_of(&form.text, |rest| numbers.extend(self.slips.get(rest.iter().copied())));
        }
        numbers.sort_unstable();
        numbers.dedup();
        let mut alike: Vec<(u32, u32)> = numbers
            .into_iter()
            .filter_map(|number| Some((number, similar(form, &self.words[number as usize].form)?.0)))
            .filter(|(_, likeness)| *likeness >= LEAST)
            .collect();
        if alike.len() > MOST_ALIKE {
            alike.sort_unstable_by_key(|(number, likeness)| (std::cmp::Reverse(*likeness), *number));
            alike.truncate(MOST_ALIKE);
            alike.sort_unstable();
        }
        let alike: Alike = alike.into();
        if scratch.remembered.len() >= MOST_REMEMBERED {
            scratch.remembered.clear();
        }
        scratch.remembered.insert(key, alike.clone());
        alike
    }

    /// The names that may reach `least` when they are aligned, the most promising ones.
    pub fn candidates(&self, query: &Query, least: u32, scratch: &mut Scratch) -> Vec<u32> {
        let Scratch { sums, touched, .. } = scratch;
        for asked in query.words.iter().filter(|asked| is_proper(asked.kind)) {
            for (word, likeness) in asked.alike.iter() {
                let worth =
                    (u64::from(self.words[*word as usize].weight) * u64::from(*likeness) / u64::from(SAME)) as u32;
                for name in self.having(*word) {
                    let sum = &mut sums[*name as usize];
                    if *sum == 0 {
                        touched.push(*name);
                    }
                    *sum += worth;
                }
            }
        }
        // A word that is not on the lists counts as the one that it may be a misspelling of.
        let weight = |asked: &Asked| match asked.alike.iter().map(|alike| self.words[alike.0 as usize].weight).max() {
            Some(most) if !asked.exists => most,
            _ => asked.weight,
        };
        let asked: u32 = query.words.iter().filter(|asked| is_proper(asked.kind)).map(weight).sum();
        let mut promising: Vec<(u32, u32)> = Vec::new();
        for name in touched.drain(..) {
            let matched = std::mem::take(&mut sums[name as usize]);
            let estimate = at_best(matched, self.names[name as usize].weight, asked);
            if estimate >= least {
                promising.push((estimate, name));
            }
        }
        promising.sort_unstable_by_key(|(estimate, name)| (std::cmp::Reverse(*estimate), *name));
        promising.truncate(MOST_ALIGNED);
        let mut names: Vec<u32> = promising.into_iter().map(|(_, name)| name).collect();
        self.written_as_one(query, &mut names);
        names
    }

    /// Names that have words of the query written as one, or the other way round.
    fn written_as_one(&self, query: &Query, names: &mut Vec<u32>) {
        let mut more: Vec<u32> = Vec::new();
        let tokens: Vec<&str> = query.words.iter().map(|asked| &*asked.form.text).collect();
        join_texts(&tokens, |text| {
            if let Some(word) = self.by_text.get(text) {
                more.extend(self.having(*word).iter().take(MOST_ALIGNED));
            }
        });
        for asked in query.words.iter().filter(|asked| asked.form.text.len() >= 5) {
            more.extend(self.joined.get(asked.form.text.bytes()).take(MOST_ALIGNED));
        }
        more.sort_unstable();
        more.dedup();
        more.truncate(MOST_ALIGNED);
        more.retain(|name| !names.contains(name));
        names.extend(more);
    }

    /// The names that have a word.
    fn having(&self, word: u32) -> &[u32] {
        let word = word as usize;
        &self.postings[self.starts[word] as usize..self.starts[word + 1] as usize]
    }
}

/// The forms of companies that are long enough to be misspelt.
const LONG_FORMS: [&str; 6] = ["company", "compania", "corporation", "incorporated", "limitada", "limited"];

fn is_like_a_form(word: &Form) -> bool {
    let like = |form: &str| similar(word, &Form::new(form, false)).is_some_and(|found| found.0 >= 8_000);
    word.text.len() >= 6 && LONG_FORMS.into_iter().any(like)
}

/// Part of a name proper.
pub fn is_proper(kind: Kind) -> bool {
    matches!(kind, Kind::Name | Kind::Number)
}

/// What the score can be at best where so much of the weights matched: what is left over counts as little as it ever
/// does.
fn at_best(matched: u32, listed: u32, asked: u32) -> u32 {
    let (matched, listed, asked) = (u64::from(matched), u64::from(listed), u64::from(asked).max(1));
    let left = listed.saturating_sub(matched) + asked.saturating_sub(matched);
    let least_left = left * 3 / 10;
    (2 * matched * u64::from(SAME) / (2 * matched + least_left).max(1)) as u32
}

fn slips_of(word: &str, mut take: impl FnMut(&[u8])) {
    take(word.as_bytes());
    without_some(word.as_bytes(), word.len() >= TWO_SLIPS_FROM, take);
}

/// Two or three neighbouring words written as one.
fn join(tokens: &[Token], take: impl FnMut(&str)) {
    let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    join_texts(&texts, take);
}

fn join_texts(words: &[&str], mut take: impl FnMut(&str)) {
    for width in [2, 3] {
        for window in words.windows(width) {
            take(&window.concat());
        }
    }
}

fn post(names: &[Listed], words: usize) -> (Vec<u32>, Vec<u32>) {
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    for (number, name) in (0u32..).zip(names) {
        pairs.extend(name.words.iter().filter(|word| is_proper(word.1)).map(|word| (word.0, number)));
    }
    pairs.sort_unstable();
    pairs.dedup();
    let mut starts = vec![0u32; words + 1];
    for (word, _) in &pairs {
        starts[*word as usize + 1] += 1;
    }
    for word in 0..words {
        starts[word + 1] += starts[word];
    }
    (starts, pairs.into_iter().map(|pair| pair.1).collect())
}
