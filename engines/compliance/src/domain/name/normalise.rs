//! The one form of a name: words of the letters a to z and digits, in whatever script it was written.

use any_ascii::any_ascii_char;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::script::{arabic_letter, arabic_word, cyrillic, is_arabic, is_by_syllable, is_without_vowels};
use super::word::is_form;

/// The longest word that is compared, in characters; what is longer is cut into words of that length.
pub const LONGEST_WORD: usize = 60;

/// A word of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Letters a to z and digits.
    pub text: String,
    /// It was written in a script that leaves vowels out, so they say nothing.
    pub without_vowels: bool,
}

/// A name in its one form: the [`words`] with single blanks between them. Empty where the name has neither
/// letter nor digit that can be read. Normalising twice changes nothing (K1).
pub fn normalise(name: &str) -> String {
    words(name).iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// The words of a name.
///
/// Composed by compatibility (NFKC), marks and characters that cannot be seen dropped, case folded, other scripts
/// transliterated: Cyrillic by BGN/PCGN without signs, Arabic by letters and by a table of common names, Chinese by
/// pinyin, everything else as `any_ascii` has it. Apostrophes vanish, everything else that is neither letter nor
/// digit parts words. Digits are kept. Letters with dots between them become one word: `L.L.C.` is `llc`.
pub fn words(name: &str) -> Vec<Word> {
    let mut reader = Reader::default();
    if name.is_ascii() {
        name.bytes().for_each(|byte| reader.ascii(byte));
    } else {
        name.nfkc().filter(|c| !vanishes(*c)).for_each(|c| reader.any(c));
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    words: Vec<Word>,
    word: String,
    without_vowels: bool,
    arabic: String,
}

impl Reader {
    fn any(&mut self, c: char) {
        if is_arabic(c) {
            if !self.word.is_empty() {
                self.part();
            }
            self.arabic.push(arabic_letter(c));
            return;
        }
        if !self.arabic.is_empty() {
            self.part();
        }
        if let Ok(byte) = u8::try_from(c)
            && byte.is_ascii()
        {
            self.ascii(byte);
        } else if is_apostrophe(c) {
        } else if !c.is_alphanumeric() {
            self.part();
        } else if let Some(latin) = c.to_lowercase().next().and_then(cyrillic) {
            self.word.push_str(latin);
        } else if is_by_syllable(c) {
            self.part();
            any_ascii_char(c).bytes().for_each(|byte| self.ascii(byte));
            self.part();
        } else {
            self.without_vowels |= is_without_vowels(c);
            any_ascii_char(c).bytes().for_each(|byte| self.ascii(byte));
        }
    }

    fn ascii(&mut self, byte: u8) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => self.word.push(byte.to_ascii_lowercase().into()),
            b'\'' | b'`' => {}
            _ => self.part(),
        }
    }

    /// A word ends here.
    fn part(&mut self) {
        if !self.arabic.is_empty() {
            let written = std::mem::take(&mut self.arabic);
            for (text, without_vowels) in arabic_word(&written) {
                self.push(text, without_vowels);
            }
        }
        if !self.word.is_empty() {
            let text = std::mem::take(&mut self.word);
            let without_vowels = std::mem::take(&mut self.without_vowels);
            self.push(text, without_vowels);
        }
        self.without_vowels = false;
    }

    fn push(&mut self, text: String, without_vowels: bool) {
        let mut rest = text.as_str();
        // All ASCII, so any place is between characters.
        while rest.len() > LONGEST_WORD {
            let (head, tail) = rest.split_at(LONGEST_WORD);
            self.words.push(Word { text: head.to_owned(), without_vowels });
            rest = tail;
        }
        if !rest.is_empty() {
            self.words.push(Word { text: rest.to_owned(), without_vowels });
        }
    }

    fn finish(mut self) -> Vec<Word> {
        self.part();
        join_letters(self.words)
    }
}

/// Single letters one after the other are one word where that is a company's form, or where there are at least
/// three of them: `s a` is `sa`, `u s a` is `usa`, while `j r smith` keeps its initials.
fn join_letters(words: Vec<Word>) -> Vec<Word> {
    let is_letter = |word: &Word| word.text.len() == 1 && word.text.as_bytes()[0].is_ascii_lowercase();
    let mut joined: Vec<Word> = Vec::with_capacity(words.len());
    let mut run: Vec<Word> = Vec::new();
    let flush = |run: &mut Vec<Word>, joined: &mut Vec<Word>| {
        let text: String = run.iter().map(|word| word.text.as_str()).collect();
        if run.len() >= 3 && text.len() <= LONGEST_WORD || run.len() == 2 && is_form(&text) {
            joined.push(Word { text, without_vowels: false });
            run.clear();
        } else {
            joined.append(run);
        }
    };
    for word in words {
        if is_letter(&word) {
            run.push(word);
        } else {
            flush(&mut run, &mut joined);
            joined.push(word);
        }
    }
    flush(&mut run, &mut joined);
    joined
}

/// Marks, and characters that cannot be seen: put inside a name they would hide it from the lists.
pub(super) fn vanishes(c: char) -> bool {
    let invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}'
        | '\u{640}' | '\u{e0000}'..='\u{e0fff}');
    invisible || is_combining_mark(c)
}

/// Apostrophes, and the spacing modifier letters that stand for them.
fn is_apostrophe(c: char) -> bool {
    matches!(c, '\u{2018}' | '\u{2019}' | '\u{201b}' | '\u{b4}' | '\u{2b0}'..='\u{2ff}' | '\u{2032}' | '\u{55a}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_one_form() {
        for (name, normal) in [
            ("Vostok Shadow Trading LLC", "vostok shadow trading llc"),
            ("  VOSTOK\tshadow -- Trading, L.L.C. ", "vostok shadow trading llc"),
            ("Cimex, S. A. de C. V.", "cimex sa de cv"),
            ("U.S.A. Really", "usa really"),
            ("J. R. Smith", "j r smith"),
            ("José Ñandú Ångström", "jose nandu angstrom"),
            ("Jose\u{301}", "jose"),
            ("Straße", "strasse"),
            ("STRAẞE", "strasse"),
            ("İstanbul ışık", "istanbul isik"),
            ("O'Brien", "obrien"),
            ("O’Brien", "obrien"),
            ("Oʼbrien", "obrien"),
            ("Mu'ammar al-Qadhafi", "muammar al qadhafi"),
            ("ﬁrst Ｆｕｌｌ", "first full"),
            ("Vos\u{200b}tok\u{ad} Sha\u{202e}dow", "vostok shadow"),
            ("11420 CORP.", "11420 corp"),
            ("Ⅳ ٤٥", "iv 45"),
            ("", ""),
            (" -.,' \u{200b}", ""),
            ("👑", ""),
        ] {
            assert_eq!(normalise(name), normal, "{name:?}");
        }
    }

    #[test]
    fn other_scripts_are_transliterated() {
        for (name, normal) in [
            ("Сергей Щукин", "sergey shchukin"),
            ("Дмитрий Юрьевич Объедков", "dmitriy yurevich obedkov"),
            ("Йод Иод", "yod iod"),
            ("И\u{306}од", "yod"),
            ("Зеленський Київ", "zelenskiy kiyiv"),
            ("Ђорђе Његош", "djordje njegosh"),
            ("محمد زيدان", "muhammad zydan"),
            ("أيمن الظواهري", "ayman al zwahry"),
            ("عَبْدُ الرَّحْمٰن", "abd al rahman"),
            ("عبدالرحمن", "abdul rahman"),
            ("حسن نصر الله", "hasan nasr allah"),
            ("习近平", "xi jin ping"),
            ("華為技術", "hua wei ji shu"),
            ("김정은", "gim jeong eun"),
            ("Αλέξης Τσίπρας", "alexis tsipras"),
            ("ソニー", "soni"),
        ] {
            assert_eq!(normalise(name), normal, "{name:?}");
        }
        assert!(words("محمد زيدان")[1].without_vowels);
        assert!(!words("محمد زيدان")[0].without_vowels, "a name of the table has its vowels");
    }

    #[test]
    fn every_character_has_one_form_of_plain_letters() {
        for c in '\0'..=char::MAX {
            let once = normalise(&format!("a{c}b"));
            assert_eq!(normalise(&once), once, "U+{:04X}", u32::from(c));
            assert!(once.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b' ')), "U+{:04X}", u32::from(c));
        }
    }

    /// A name of digits differs from the same name without them.
    #[test]
    fn digits_are_kept() {
        assert_ne!(normalise("11420 CORP."), normalise("CORP."));
    }

    #[test]
    fn a_word_without_end_is_cut() {
        let long = "x".repeat(150);
        assert_eq!(words(&long).iter().map(|w| w.text.len()).collect::<Vec<_>>(), [60, 60, 30]);
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
        fn case_marks_and_blanks_do_not_matter(words in prop::collection::vec("[a-z]{2,8}", 1..5)) {
            let plain = words.join(" ");
            prop_assert_eq!(normalise(&plain.to_uppercase()), plain.clone());
            prop_assert_eq!(normalise(&format!(" .{}!", words.join(" - "))), plain.clone());
            let marked: String = plain.chars().flat_map(|c| [Some(c), c.is_alphabetic().then_some('\u{301}')]).flatten().collect();
            prop_assert_eq!(normalise(&marked), plain);
        }
    }
}
