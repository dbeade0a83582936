//! What a word of a name is worth: company forms and particles say little, digits must be the same.

use super::normalise::Word;

/// What kind a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Part of the name proper.
    Name,
    /// Has digits: there is no similar number, only the same.
    Number,
    /// A single letter, which may stand for any word that begins with it.
    Initial,
    /// A word that many names have for grammar's sake, such as `al`, `de`, `and`.
    Particle,
    /// The form of a company, such as `llc`, or a way to address a person.
    Form,
}

/// A word with its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Letters a to z and digits, 1 to 60. Forms stand in their short spelling.
    pub text: String,
    /// What it is.
    pub kind: Kind,
    /// Its vowels say nothing.
    pub without_vowels: bool,
}

/// Forms of companies and of address, sorted, each with its short spelling.
const FORMS: &[(&str, &str)] = &[
    ("aa", "aa"),
    ("ab", "ab"),
    ("ad", "ad"),
    ("ag", "ag"),
    ("ao", "ao"),
    ("aps", "aps"),
    ("as", "as"),
    ("asa", "asa"),
    ("bhd", "bhd"),
    ("bsc", "bsc"),
    ("bv", "bv"),
    ("bvba", "bvba"),
    ("ca", "ca"),
    ("cia", "cia"),
    ("cjsc", "cjsc"),
    ("co", "co"),
    ("compania", "cia"),
    ("company", "co"),
    ("corp", "corp"),
    ("corporation", "corp"),
    ("cv", "cv"),
    ("dd", "dd"),
    ("doo", "doo"),
    ("dr", "dr"),
    ("ead", "ead"),
    ("eirl", "eirl"),
    ("eood", "eood"),
    ("est", "est"),
    ("fzc", "fze"),
    ("fzco", "fze"),
    ("fze", "fze"),
    ("fzllc", "fze"),
    ("gesmbh", "gmbh"),
    ("gmbh", "gmbh"),
    ("inc", "inc"),
    ("incorporated", "inc"),
    ("jsc", "jsc"),
    ("kft", "kft"),
    ("kg", "kg"),
    ("kk", "kk"),
    ("limitada", "ltda"),
    ("limited", "ltd"),
    ("llc", "llc"),
    ("llp", "llp"),
    ("lp", "lp"),
    ("ltd", "ltd"),
    ("ltda", "ltda"),
    ("mr", "mr"),
    ("mrs", "mrs"),
    ("ms", "ms"),
    ("nv", "nv"),
    ("oao", "jsc"),
    ("ojsc", "jsc"),
    ("ood", "ood"),
    ("ooo", "llc"),
    ("oy", "oy"),
    ("oyj", "oy"),
    ("pao", "jsc"),
    ("pjs", "jsc"),
    ("pjsc", "jsc"),
    ("plc", "plc"),
    ("prof", "prof"),
    ("psc", "psc"),
    ("pte", "pte"),
    ("pty", "pty"),
    ("pvt", "pvt"),
    ("rl", "rl"),
    ("sa", "sa"),
    ("sae", "sae"),
    ("sal", "sal"),
    ("saoc", "saoc"),
    ("saog", "saog"),
    ("sapi", "sa"),
    ("sarl", "sarl"),
    ("sas", "sas"),
    ("sau", "sa"),
    ("sdn", "sdn"),
    ("sl", "sl"),
    ("slu", "sl"),
    ("spa", "spa"),
    ("sprl", "sprl"),
    ("spzoo", "spzoo"),
    ("srl", "srl"),
    ("sro", "sro"),
    ("tov", "llc"),
    ("wll", "wll"),
    ("zao", "cjsc"),
    ("zrt", "zrt"),
];

/// Particles, sorted.
const PARTICLES: &[&str] = &[
    "al", "and", "bin", "bint", "da", "de", "del", "den", "der", "des", "di", "do", "dos", "du", "e", "el", "et",
    "for", "il", "in", "la", "las", "le", "les", "los", "of", "on", "the", "to", "ul", "und", "van", "von", "y",
];

/// Whether a word is the form of a company or of address.
pub fn is_form(word: &str) -> bool {
    form(word).is_some()
}

fn form(word: &str) -> Option<&'static str> {
    FORMS.binary_search_by(|(form, _)| (*form).cmp(word)).ok().map(|found| FORMS[found].1)
}

/// Words with their kinds. Where no word is part of the name proper, forms and particles count as such: a name that
/// consists of them is compared nevertheless.
pub fn tokens(words: &[Word]) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::with_capacity(words.len());
    let push = |tokens: &mut Vec<Token>, text: &str, without_vowels: bool| {
        tokens.push(Token { text: text.to_owned(), kind: kind(text), without_vowels });
    };
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let bare = word.without_vowels;
        match arabic(&word.text) {
            Arabic::Servant(None) if words.peek().is_some_and(|next| is_god(&next.text)) => {
                words.next();
                push(&mut tokens, "abdullah", false);
            }
            // One spelling of the many: Abd al-Rahman, Abdel Rahman, Abdulrahman.
            Arabic::Servant(rest) if word.text != "abd" || words.peek().is_some_and(|next| is_article(&next.text)) => {
                words.next_if(|next| rest.is_none() && is_article(&next.text));
                push(&mut tokens, "abdul", false);
                if let Some(rest) = rest {
                    push(&mut tokens, rest, bare);
                }
            }
            Arabic::OfTheFaith(base) => push(&mut tokens, &format!("{base}uddin"), bare),
            Arabic::Faith if tokens.last().is_some_and(|token| is_article(&token.text)) && tokens.len() >= 2 => {
                tokens.pop();
                if let Some(base) = tokens.pop() {
                    push(&mut tokens, &format!("{}uddin", base.text), base.without_vowels);
                }
            }
            Arabic::Other(text) => push(&mut tokens, form(text).unwrap_or(text), bare),
            _ => push(&mut tokens, &word.text, bare),
        }
    }
    let proper = |kind: Kind| matches!(kind, Kind::Name | Kind::Number);
    if !tokens.iter().any(|token| proper(token.kind)) {
        for token in &mut tokens {
            token.kind = Kind::Name;
        }
    }
    tokens
}

/// Parts of Arabic names that are written as one word or as several.
enum Arabic<'a> {
    /// `abd`, `abdul`, with what follows in the same word.
    Servant(Option<&'a str>),
    /// `din` as the end of a word: `nureddine`, `salahuddin`.
    OfTheFaith(&'a str),
    /// `din` by itself.
    Faith,
    /// Any other word, in its usual spelling.
    Other(&'a str),
}

fn arabic(word: &str) -> Arabic<'_> {
    match word {
        "abd" | "abdul" | "abdel" | "abdal" | "abdoul" | "abdol" => return Arabic::Servant(None),
        "din" | "deen" | "dine" | "eddin" | "eddine" | "uddin" | "aldin" | "addin" => return Arabic::Faith,
        "ben" | "ibn" => return Arabic::Other("bin"),
        "abdallah" | "abdellah" | "abdoullah" | "abdulla" | "abdalla" | "abdella" => return Arabic::Other("abdullah"),
        "abou" | "abo" | "aboo" => return Arabic::Other("abu"),
        _ => {}
    }
    for article in ["abdul", "abdel", "abdal", "abdoul", "abdol", "abdur", "abder", "abdus", "abdes", "abduz"] {
        if let Some(rest) = word.strip_prefix(article)
            && rest.len() >= 4
            && !rest.starts_with("lah")
        {
            return Arabic::Servant(Some(rest));
        }
    }
    for end in ["eddine", "eddin", "eddeen", "uddine", "uddin", "uddeen", "iddine", "iddin", "aldin", "aldeen"] {
        if let Some(base) = word.strip_suffix(end)
            && base.len() >= 3
        {
            return Arabic::OfTheFaith(base);
        }
    }
    Arabic::Other(word)
}

fn is_god(word: &str) -> bool {
    matches!(word, "allah" | "ullah" | "llah" | "lah")
}

fn is_article(word: &str) -> bool {
    matches!(word, "al" | "el" | "ul" | "ur" | "ar" | "as" | "az" | "an" | "ad" | "at" | "ash" | "us" | "uz")
}

fn kind(text: &str) -> Kind {
    if text.bytes().any(|byte| byte.is_ascii_digit()) {
        Kind::Number
    } else if PARTICLES.binary_search(&text).is_ok() {
        Kind::Particle
    } else if is_form(text) {
        Kind::Form
    } else if text.len() == 1 {
        Kind::Initial
    } else {
        Kind::Name
    }
}

#[cfg(test)]
mod tests {
    use super::super::normalise::words;
    use super::*;

    fn kinds(name: &str) -> Vec<(String, Kind)> {
        tokens(&words(name)).into_iter().map(|token| (token.text, token.kind)).collect()
    }

    #[test]
    fn tables_are_sorted() {
        assert!(FORMS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(PARTICLES.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(FORMS.iter().all(|(_, short)| form(short) == Some(short)), "a short spelling is its own");
    }

    #[test]
    fn words_have_kinds() {
        use Kind::{Form, Initial, Name, Number, Particle};
        for (name, expected) in [
            ("11420 CORP.", &[("11420", Number), ("corp", Form)][..]),
            ("Vostok Trading Limited", &[("vostok", Name), ("trading", Name), ("ltd", Form)]),
            ("Vostok OOO", &[("vostok", Name), ("llc", Form)]),
            ("J. de la Cruz", &[("j", Initial), ("de", Particle), ("la", Particle), ("cruz", Name)]),
            ("Abd al-Rahman", &[("abdul", Name), ("rahman", Name)]),
            ("Abdel Rahman", &[("abdul", Name), ("rahman", Name)]),
            ("Abdurrahman Abdullah", &[("abdul", Name), ("rahman", Name), ("abdullah", Name)]),
            ("Nur al-Din Noureddine", &[("nuruddin", Name), ("nouruddin", Name)]),
            ("Abou Ben Ali", &[("abu", Name), ("bin", Particle), ("ali", Name)]),
            ("Abd Allah Abdallah", &[("abdullah", Name), ("abdullah", Name)]),
            ("EP-GOM 7", &[("ep", Name), ("gom", Name), ("7", Number)]),
            ("The Company", &[("the", Name), ("co", Name)]),
            ("A", &[("a", Name)]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(text, kind)| ((*text).to_owned(), *kind)).collect();
            assert_eq!(kinds(name), expected, "{name}");
        }
    }
}
