//! One row per decision.

use proptest::prelude::*;

use super::super::list::{Files, Source, parse};
use super::super::matcher::{Matcher, Scratch};
use super::*;

struct Book {
    matcher: Option<(Matcher, Scratch)>,
    allowed: Option<&'static str>,
}

impl Lookup for Book {
    fn find(&mut self, subject: &Subject) -> Option<Arc<[Match]>> {
        let (matcher, scratch) = self.matcher.as_mut()?;
        Some(matcher.search(subject, Thresholds::default().review, 10, scratch).into())
    }

    fn allowed(&self, found: &Match) -> Option<AllowanceId> {
        (Some(found.asked_name.as_str()) == self.allowed)
            .then(|| "0190c3d5-0000-7000-8000-000000000001".parse().unwrap())
    }
}

const SDN: &str = r#"7,"PRIMEROV, Ivan Petrovich","individual","TEST",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,"DOB 08 Jan 1965; nationality Iran; Passport AB123456 (Iran); a.k.a. 'ZLATOUST'."
8,"VOSTOKSHADE TRADING LLC",-0- ,"TEST",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- 
"#;

fn book(loaded: bool) -> Book {
    let list = parse(Source::Ofac, &Files::from([("sdn.csv".to_owned(), SDN.as_bytes().to_vec())])).unwrap();
    let matcher = loaded.then(|| {
        let matcher = Matcher::new(vec![Arc::new(list)]);
        let scratch = matcher.scratch();
        (matcher, scratch)
    });
    Book { matcher, allowed: None }
}

fn party(name: &str) -> Party {
    Party { name: name.to_owned(), ..Party::default() }
}

#[test]
fn one_row_per_decision() {
    use Decision::{Approve, BlockAndReview, Review};
    let (bad, ivan) = ("Vostokshade Trading LLC", "Ivan Petrovich Primerov");
    let long = "ab ".repeat(41);
    let many = format!("{}{bad}", "Abdurrahman ".repeat(20));
    for (loaded, parties, decision, evidence, score, names) in [
        (true, &[][..], Approve, "no_parties", 0, None),
        (true, &["", "  "], Approve, "no_parties", 0, None),
        (false, &["", ""], Approve, "no_parties", 0, None),
        (false, &["Ada", ""], Review, "no_list", 0, Some("Ada")),
        (false, &["Ada", "Bob"], Review, "no_list", 0, Some("Ada; Bob")),
        (true, &["Ada", "Bob"], Approve, "no_match", 0, None),
        (true, &[bad, "Bob"], BlockAndReview, "exact_name", 10_000, Some(bad)),
        (true, &["Bob", bad], BlockAndReview, "exact_name", 10_000, Some(bad)),
        (true, &["???", "Bob"], Review, "error", 0, Some("???")),
        (true, &["Bob", "\u{200b}"], Review, "error", 0, Some("\u{200b}")),
        (true, &["???", bad], BlockAndReview, "exact_name", 10_000, Some(bad)),
        (true, &[bad, "???"], BlockAndReview, "exact_name", 10_000, Some(bad)),
        (true, &[&long, ""], Review, "error", 0, Some(long.trim())),
        // Forty words that are more when they are compared.
        (true, &[&many, ""], Review, "error", 0, Some(&many)),
        // A Cyrillic letter that looks like a Latin one.
        (true, &["\u{420}rimerov Iv", ""], Review, "error", 0, Some("\u{420}rimerov Iv")),
        (
            true,
            &["Ivan Petrovitch Primerow", ""],
            BlockAndReview,
            "similar_name",
            9_582,
            Some("Ivan Petrovitch Primerow"),
        ),
        (true, &["Ivan Primeroff", ""], Review, "similar_name", 8_095, Some("Ivan Primeroff")),
        (true, &["Zlatoust", ""], Review, "exact_name", 10_000, Some("Zlatoust")),
        (
            true,
            &[bad, ivan],
            BlockAndReview,
            "exact_name",
            10_000,
            Some("Vostokshade Trading LLC; Ivan Petrovich Primerov"),
        ),
    ] {
        let parties: Vec<Party> = parties.iter().map(|name| party(name)).collect();
        let found = screen(&mut book(loaded), &Thresholds::default(), &parties);
        assert_eq!(
            (found.decision, found.evidence.as_str(), found.score),
            (decision, evidence, score),
            "{parties:?} {:?}",
            found.matches
        );
        assert_eq!(found.names.as_deref(), names, "{parties:?}");
        assert_eq!(found.matches.is_empty(), !found.evidence.is_hit(), "{parties:?}");
    }
}

#[test]
fn qualifiers_raise_lower_and_decide() {
    use Decision::{Approve, BlockAndReview, Review};
    let ivan = party("Ivan Petrovich Primerov");
    let with = |country: &str, born: &str| Party {
        country: country.to_owned(),
        date_of_birth: born.to_owned(),
        ..ivan.clone()
    };
    let id = |name: &str, kind: &str, value: &str| Party {
        name: name.to_owned(),
        identifiers: vec![(kind.to_owned(), value.to_owned())],
        ..Party::default()
    };
    for (party, decision, evidence, score) in [
        (with("IR", "1965-01-08"), BlockAndReview, "exact_name", 10_000),
        (with("DE", ""), BlockAndReview, "exact_name", 9_700),
        (with("", "1980-05-05"), Review, "exact_name", 8_000),
        (with("DE", "1980-05-05"), Approve, "no_match", 0),
        // Trap 26: what cannot be read is not the same as what was not given.
        (with("Atlantis", "1980-05-05"), Review, "exact_name", 8_000),
        (Party { country: "Atlantis".into(), ..self::party("Ada") }, Review, "error", 0),
        (Party { date_of_birth: "long ago".into(), ..self::party("Ada") }, Review, "error", 0),
        (id("Ada Bright", "passport", "ab 123456"), BlockAndReview, "exact_id", 10_000),
        (id("", "Passport Number", "AB-123456"), BlockAndReview, "exact_id", 10_000),
        (id("Ada Bright", "passport", "AB123457"), Approve, "no_match", 0),
        (id("Ada Bright", "tax_id", "AB123456"), Approve, "no_match", 0),
        // Somebody is named, by what nothing can be compared with.
        (id("", "shoe size", "AB123456"), Review, "error", 0),
        (id("", "passport", "12"), Review, "error", 0),
        (id("Ada Bright", "shoe size", "AB123456"), Approve, "no_match", 0),
        (id("", "passport", "ＡＢ１２３４５６"), BlockAndReview, "exact_id", 10_000),
    ] {
        let found = screen(&mut book(true), &Thresholds::default(), std::slice::from_ref(&party));
        assert_eq!(
            (found.decision, found.evidence.as_str(), found.score),
            (decision, evidence, score),
            "{party:?} {:?}",
            found.matches
        );
    }
}

#[test]
fn an_allowance_covers_the_name_and_not_the_identifier() {
    let mut book = book(true);
    book.allowed = Some("ivan petrovich primerov");
    let ivan = party("Ivan Petrovich Primerov");
    let found = screen(&mut book, &Thresholds::default(), std::slice::from_ref(&ivan));
    assert_eq!((found.decision, found.evidence.as_str(), found.score), (Decision::Approve, "allow_listed", 10_000));
    assert!(found.names.is_none() && found.matches.is_empty());
    let with_passport = Party { identifiers: vec![("passport".into(), "AB123456".into())], ..ivan.clone() };
    let found = screen(&mut book, &Thresholds::default(), &[with_passport]);
    assert_eq!(found.evidence, Evidence::ExactId);
    let found = screen(&mut book, &Thresholds::default(), &[ivan, party("Vostokshade Trading LLC")]);
    assert_eq!((found.decision, found.evidence), (Decision::BlockAndReview, Evidence::ExactName));
}

#[test]
fn the_rule_version_has_the_thresholds() {
    assert_eq!(Thresholds::default().rule_version(), "names/1;review=8000;block=9500");
}

#[test]
fn decisions_are_ordered() {
    assert!(Decision::Approve < Decision::Review);
    assert!(Decision::Review < Decision::BlockAndReview);
    assert!(Decision::BlockAndReview < Decision::Decline);
}

proptest! {
    /// K2: without a list no name passes, and a second party never softens the decision on the first.
    #[test]
    fn no_name_passes_that_was_not_looked_up(name in "\\PC{1,20}", other in "\\PC{0,20}") {
        let named = !name.trim().is_empty();
        let alone = screen(&mut book(false), &Thresholds::default(), &[party(&name)]);
        prop_assert_eq!(alone.decision > Decision::Approve, named);
        let both = screen(&mut book(true), &Thresholds::default(), &[party(&name), party(&other)]);
        let first = screen(&mut book(true), &Thresholds::default(), &[party(&name)]);
        let swapped = screen(&mut book(true), &Thresholds::default(), &[party(&other), party(&name)]);
        prop_assert!(both.decision >= first.decision);
        prop_assert_eq!((both.decision, both.evidence), (swapped.decision, swapped.evidence));
    }
}
