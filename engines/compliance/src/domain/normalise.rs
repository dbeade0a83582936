//! The one form in which names are compared: letters without case and marks, digits, single blanks.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A name in the form in which it is compared: compatibility decomposition (NFKD) without marks, case
/// folded, everything but letters and digits a blank, blanks collapsed. Empty where the name has
/// neither letter nor digit. Normalising twice changes nothing.
pub fn normalise(name: &str) -> String {
    // Most names are ASCII, where folding is nothing but small letters.
    if name.is_ascii() { collapse(name.chars().map(|c| c.to_ascii_lowercase())) } else { collapse(fold(name).chars()) }
}

fn collapse(folded: impl Iterator<Item = char>) -> String {
    let mut out = String::with_capacity(folded.size_hint().0);
    for c in folded {
        if is_part_of_word(c) {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    if out.ends_with(' ') {
        out.pop();
    }
    out
}

/// Every form under which a name is found: as it is written, and where it has exactly one comma also
/// `FIRST LAST` for `LAST, FIRST`. The comma may as well stand before a company's form, so both count.
/// Empty where the name has neither letter nor digit.
pub fn forms(name: &str) -> Vec<String> {
    let plain = normalise(name);
    if plain.is_empty() {
        return Vec::new();
    }
    let mut forms = vec![plain];
    // Decomposed first, so that a full-width comma is one too.
    let decomposed: String = name.nfkd().collect();
    let mut parts = decomposed.split(is_comma);
    if let (Some(last), Some(first), None) = (parts.next(), parts.next(), parts.next()) {
        let swapped = [normalise(first), normalise(last)].join(" ").trim().to_owned();
        if !forms.contains(&swapped) {
            forms.push(swapped);
        }
    }
    forms
}

/// Without marks and case. Lower, upper, lower folds what has several small or several capital forms
/// (ß and ẞ, ς and σ, ı and i).
fn fold(name: &str) -> String {
    let folded: String = name
        .nfkd()
        .filter(|c| !vanishes(*c))
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect();
    folded.nfkd().filter(|c| !vanishes(*c)).collect()
}

/// Marks, and characters that cannot be seen: put inside a name they would hide it from the list.
fn vanishes(c: char) -> bool {
    let invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}');
    invisible || is_combining_mark(c)
}

/// Letters and digits, but not the spacing modifier letters, which stand for apostrophes and accents.
fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() && !matches!(c, '\u{2b0}'..='\u{2ff}')
}

/// Whether [`forms`] may give more than [`normalise`].
pub(super) fn may_be_inverted(name: &str) -> bool {
    name.contains(',') || (!name.is_ascii() && name.nfkd().any(is_comma))
}

fn is_comma(c: char) -> bool {
    matches!(c, ',' | '،' | '、')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_one_form() {
        for (name, normal) in [
            ("Vostok Shadow Trading LLC", "vostok shadow trading llc"),
            ("  VOSTOK\tshadow -- Trading, L.L.C. ", "vostok shadow trading l l c"),
            ("José Ñandú Ångström", "jose nandu angstrom"),
            ("Jose\u{301}", "jose"),
            ("STRASSE", "strasse"),
            ("Straße", "strasse"),
            ("STRAẞE", "strasse"),
            ("İstanbul ışık", "istanbul isik"),
            ("Ὀδυσσεύς", "οδυσσευσ"),
            ("Иван Петрович", "иван петрович"),
            ("Йод", "иод"),
            ("O'Brien", "o brien"),
            ("O’Brien", "o brien"),
            ("Oʼbrien", "o brien"),
            ("ﬁrst Ｆｕｌｌ", "first full"),
            ("Vos\u{200b}tok\u{ad} Sha\u{202e}dow", "vostok shadow"),
            ("株式会社 東京", "株式会社 東京"),
            ("", ""),
            (" -.,' \u{200b}", ""),
        ] {
            assert_eq!(normalise(name), normal, "{name:?}");
        }
    }

    #[test]
    fn every_character_has_one_form() {
        for c in '\0'..=char::MAX {
            let once = normalise(&format!("a{c}b"));
            assert_eq!(normalise(&once), once, "U+{:04X}", u32::from(c));
        }
    }

    /// A name of digits differs from the same name without them.
    #[test]
    fn digits_are_kept() {
        assert_eq!(normalise("11420 CORP."), "11420 corp");
        assert_ne!(normalise("11420 CORP."), normalise("CORP."));
    }

    #[test]
    fn last_comma_first_is_found_either_way() {
        assert_eq!(forms("EXAMPLE, Ivan Petrovich"), ["example ivan petrovich", "ivan petrovich example"]);
        assert_eq!(forms("EXAMPLE，Ivan"), ["example ivan", "ivan example"]);
        assert_eq!(forms("Vostok Shadow Trading, LLC")[0], "vostok shadow trading llc");
        assert_eq!(forms("Ivan Example"), ["ivan example"]);
        assert_eq!(forms("Ivan,"), ["ivan"]);
        assert_eq!(forms("A, B, C"), ["a b c"], "several commas say nothing about the order");
        assert!(forms(" , ").is_empty());
    }

    proptest! {
        /// K1: one form.
        #[test]
        fn normalising_twice_changes_nothing(name in "\\PC{0,40}|.{0,40}") {
            let once = normalise(&name);
            prop_assert_eq!(normalise(&once), once.clone());
            prop_assert!(!once.contains("  ") && once.trim() == once);
        }

        #[test]
        fn ascii_takes_no_other_way(name in "[\\x00-\\x7f]{0,40}") {
            prop_assert_eq!(normalise(&name), collapse(fold(&name).chars()));
        }

        #[test]
        fn case_marks_and_blanks_do_not_matter(words in prop::collection::vec("[a-z]{1,8}", 1..5)) {
            let plain = words.join(" ");
            prop_assert_eq!(normalise(&plain.to_uppercase()), plain.clone());
            prop_assert_eq!(normalise(&format!(" .{}!", words.join(" - "))), plain.clone());
            let marked: String = plain.chars().flat_map(|c| [Some(c), c.is_alphabetic().then_some('\u{301}')]).flatten().collect();
            prop_assert_eq!(normalise(&marked), plain);
        }
    }
}
