//! The matcher over whole lists: every listed name finds itself, variants are found, ordinary names are not.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::path::PathBuf;
use std::sync::Arc;

use deltran_compliance::domain::list::{Files, IdKind, List, Source, parse};
use deltran_compliance::domain::matcher::{Match, Matcher, Scratch, Subject};
use deltran_compliance::domain::screening::{Decision, Thresholds};

fn data(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn lists() -> Vec<Arc<List>> {
    let ofac: Files = Source::Ofac.files().iter().map(|name| ((*name).to_owned(), data(name))).collect();
    let un = Files::from([("consolidated.xml".to_owned(), data("un.xml"))]);
    let own = Files::from([("names.txt".to_owned(), deltran_compliance::BUNDLED_LIST.to_vec())]);
    [(Source::Ofac, ofac), (Source::Un, un), (Source::Operator, own)]
        .into_iter()
        .map(|(source, files)| Arc::new(parse(source, &files).unwrap()))
        .collect()
}

struct Search {
    matcher: Matcher,
    scratch: Scratch,
}

impl Search {
    fn new() -> Self {
        let matcher = Matcher::new(lists());
        let scratch = matcher.scratch();
        Self { matcher, scratch }
    }

    fn of(&mut self, subject: &Subject) -> Vec<Match> {
        self.matcher.search(subject, Thresholds::default().review, 20, &mut self.scratch)
    }

    fn name(&mut self, name: &str) -> Vec<Match> {
        self.of(&Subject { name: name.to_owned(), ..Subject::default() })
    }
}

fn lines(name: &str) -> Vec<String> {
    let text = String::from_utf8(data(name)).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn lists_are_read_whole() {
    let lists = lists();
    let sizes: Vec<_> = lists.iter().map(|list| (list.source.as_str(), list.names(), list.aliases())).collect();
    assert_eq!(sizes[0].1, 200);
    assert!(sizes[0].2 > 400, "{sizes:?}");
    assert_eq!(sizes[1..], [("un", 3, 6), ("operator", 20, 0)]);
    assert_eq!(lists[1].dated.as_deref(), Some("2026-02-27T00:00:09.554Z"));
    let ofac = &lists[0].entries;
    assert!(ofac.iter().filter(|entry| !entry.born.is_empty()).count() > 80);
    assert!(ofac.iter().filter(|entry| !entry.countries.is_empty()).count() > 100);
    assert!(ofac.iter().flat_map(|entry| &entry.identifiers).any(|id| id.kind == IdKind::Passport));
}

/// Every primary name and alias finds its entry, and nobody before it.
#[test]
fn every_listed_name_finds_itself_with_the_top_score() {
    let mut search = Search::new();
    for list in lists() {
        for entry in &list.entries {
            for listed in &entry.names {
                let found = search.name(&listed.name);
                let own = found.iter().find(|m| m.source == list.source && m.entry_id == entry.id);
                let own = own.unwrap_or_else(|| panic!("{} {:?} does not find itself", entry.id, listed.name));
                assert_eq!((own.score, own.exact), (10_000, true), "{} {:?}: {own:?}", entry.id, listed.name);
                assert_eq!(found[0].score, 10_000);
            }
        }
    }
}

/// 200 names, each reordered, misspelt by a letter, and some in other scripts.
#[test]
fn variants_are_found() {
    let mut search = Search::new();
    let variants = lines("variants.txt");
    let mut missed = Vec::new();
    for line in &variants {
        let mut parts = line.split('\t');
        let (name, entry) = (parts.next().unwrap(), parts.next().unwrap());
        if !search.name(name).iter().any(|m| format!("{}:{}", m.source, m.entry_id) == entry) {
            missed.push(line.as_str());
        }
    }
    for done in ["reordered", "misspelt", "transliterated"] {
        assert!(variants.iter().filter(|line| line.ends_with(done)).count() >= 90, "{done}");
    }
    // Two words of Arabic, one of them a common word with another first letter in the list.
    assert_eq!(missed, ["فضل رحيم\tofac:12923\ttransliterated"]);
}

#[test]
fn ordinary_names_are_not_held() {
    let mut search = Search::new();
    let ordinary = lines("ordinary.txt");
    assert_eq!(ordinary.len(), 1_000);
    let held: Vec<_> = ordinary.iter().filter(|name| !search.name(name).is_empty()).collect();
    assert!(held.len() < 10, "{held:?}");
}

/// One row per rule of the score.
#[test]
fn scores_follow_their_rules() {
    let mut search = Search::new();
    let thresholds = Thresholds::default();
    for (name, entry, least, most) in [
        // Order, forms, marks, punctuation.
        ("Exampleova, Tatiana Vymyslova", "exampleova tatiana vymyslova", 10_000, 10_000),
        ("Tatiana Vymyslova Exampleova", "exampleova tatiana vymyslova", 10_000, 10_000),
        ("Vymyslova Exampleova Tatiana", "exampleova tatiana vymyslova", 9_800, 9_800),
        ("VOSTOK SHADOW TRADING", "vostok shadow trading llc", 9_700, 9_999),
        ("Vostok Shadow Trading OOO", "vostok shadow trading llc", 10_000, 10_000),
        ("Vostok Shadow Trading GmbH", "vostok shadow trading llc", 9_600, 9_999),
        // Written as one, written apart.
        ("Black Water Reef Shipping Example Co", "blackwater reef shipping example co", 9_500, 9_999),
        ("Nordhafen Phantomlogistics GmbH", "nordhafen phantom logistics gmbh", 9_500, 9_999),
        // Initials and parts.
        ("A. V. Nesushestvuyev", "EXi.002", 0, 7_999),
        ("Aleksandr V. Nesushestvuyev", "EXi.002", 8_000, 9_999),
        ("Aleksandr Nesushestvuyev", "EXi.002", 8_000, 9_999),
        ("Nesushestvuyev", "EXi.002", 0, 7_999),
        // Trap 27: digits tell.
        ("11420 Examplecorp", "11420 examplecorp", 10_000, 10_000),
        ("11421 Examplecorp", "11420 examplecorp", 0, 7_999),
        ("Examplecorp", "11420 examplecorp", 0, 7_999),
        // Other scripts.
        ("Александр Несушествуев Вымыслович", "EXi.002", 8_000, 9_999),
        ("قصر الوهم", "EXe.001", 0, 9_999),
        // Ordinary parts alone say nothing.
        ("Shipping Company", "blackwater reef shipping example co", 0, 0),
        ("Aleksandr", "EXi.002", 0, 0),
    ] {
        let found = search.name(name);
        let score = found.iter().find(|m| m.entry_id == entry).map_or(0, |m| m.score);
        let shown = found.iter().map(|m| (&m.entry_id, m.score, &m.pairs)).collect::<Vec<_>>();
        assert!((least..=most).contains(&score) || (score == 0 && least == 0), "{name}: {score} {shown:#?}");
    }
    // A weak alias never blocks by itself.
    let found = search.name("Abu Wahm");
    assert_eq!((found[0].score, thresholds.decide(&found[0])), (10_000, Decision::Review));
}

#[test]
fn a_score_is_explained() {
    let mut search = Search::new();
    let subject = Subject {
        name: "Alexander Nesushestvuyev".into(),
        country: Some("RU".into()),
        born: deltran_compliance::domain::list::BirthDate::iso("1961-05-01"),
        identifiers: Vec::new(),
    };
    let found = search.of(&subject);
    let un = found.iter().find(|m| m.source == Source::Un).unwrap();
    assert_eq!((un.entry_id.as_str(), un.matched_name.as_str()), ("EXi.002", "NESUSHESTVUYEV ALEKSANDR VYMYSLOVICH"));
    let pairs: Vec<_> = un.pairs.iter().map(|p| (p.asked.as_str(), p.listed.as_str(), p.how.as_str())).collect();
    assert_eq!(
        pairs,
        [
            ("alexander", "aleksandr", "similar"),
            ("nesushestvuyev", "nesushestvuyev", "same"),
            ("", "vymyslovich", "missing")
        ]
    );
    let effects: Vec<_> = un.qualifiers.iter().map(|e| (e.what.as_str(), e.listed.as_str(), e.effect)).collect();
    assert_eq!(effects, [("date_of_birth", "1960 to 1962", 100)]);
    assert_eq!(un.score, un.name_score + 100);

    let id = Subject { identifiers: vec![(IdKind::Passport, "zz-0243318".into())], ..Subject::default() };
    let found = search.of(&id);
    assert_eq!((found[0].entry_id.as_str(), found[0].score, found[0].same_id), ("EXi.001", 10_000, true));
    assert_eq!(found[0].qualifiers[0].listed, "ZZ 0243318");
}

/// The same lists and the same name give the same answer, in the same order, whatever was asked before.
#[test]
fn an_answer_depends_on_lists_and_name_only() {
    let (mut one, mut other) = (Search::new(), Search::new());
    for name in lines("ordinary.txt").iter().take(200) {
        one.name(name);
    }
    for line in lines("variants.txt").iter().take(200) {
        let name = line.split('\t').next().unwrap();
        assert_eq!(one.name(name), other.name(name), "{name}");
    }
}
