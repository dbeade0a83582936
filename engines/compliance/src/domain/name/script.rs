//! Scripts whose usual transliteration depends on more than one character, or differs from `any_ascii`'s.

use unicode_normalization::UnicodeNormalization;

use super::normalise::vanishes;

/// A small Cyrillic letter by BGN/PCGN as banks and lists write it: without signs, ё as e. `None` where it is none
/// of the common letters.
pub fn cyrillic(c: char) -> Option<&'static str> {
    Some(match c {
        'а' => "a",
        'б' => "b",
        'в' => "v",
        'г' | 'ґ' => "g",
        'д' => "d",
        'е' | 'ё' | 'э' => "e",
        'ж' => "zh",
        'з' => "z",
        'и' => "i",
        'й' => "y",
        'к' => "k",
        'л' => "l",
        'м' => "m",
        'н' => "n",
        'о' => "o",
        'п' => "p",
        'р' => "r",
        'с' => "s",
        'т' => "t",
        'у' => "u",
        'ф' => "f",
        'х' => "kh",
        'ц' => "ts",
        'ч' => "ch",
        'ш' => "sh",
        'щ' => "shch",
        'ъ' | 'ь' => "",
        'ы' => "y",
        'ю' => "yu",
        'я' => "ya",
        'є' => "ye",
        'і' => "i",
        'ї' => "yi",
        'ў' => "u",
        'ђ' => "dj",
        'ј' => "j",
        'љ' => "lj",
        'њ' => "nj",
        'ћ' => "c",
        'џ' => "dz",
        _ => return None,
    })
}

/// Whether each character is a word of its own: Chinese characters and Korean syllables. Names are joined where
/// they are compared.
pub fn is_by_syllable(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}'
        | '\u{ac00}'..='\u{d7af}')
}

/// Whether the script of a letter leaves vowels out, Arabic aside.
pub fn is_without_vowels(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{5ff}' | '\u{700}'..='\u{74f}')
}

/// Whether a word has Latin letters beside Cyrillic or Greek ones. Some of them look the same: `Рutin` with a
/// Cyrillic letter reads as one name and compares as another.
pub fn is_mixed(name: &str) -> bool {
    let (mut latin, mut other) = (false, false);
    for c in name.nfkc() {
        match c {
            'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => latin = true,
            '\u{370}'..='\u{52f}' | '\u{1f00}'..='\u{1fff}' => other = true,
            c if c.is_alphanumeric() || vanishes(c) => {}
            _ => (latin, other) = (false, false),
        }
        if latin && other {
            return true;
        }
    }
    false
}

/// A letter of the Arabic script, of any language written in it; digits are not.
pub fn is_arabic(c: char) -> bool {
    matches!(c, '\u{620}'..='\u{64a}' | '\u{66e}'..='\u{6d3}' | '\u{6d5}' | '\u{6ee}' | '\u{6ef}' | '\u{6fa}'..='\u{6ff}'
        | '\u{750}'..='\u{77f}' | '\u{8a0}'..='\u{8c9}')
}

/// One way to write each letter.
pub fn arabic_letter(c: char) -> char {
    match c {
        'آ' | 'أ' | 'إ' | 'ٱ' => 'ا',
        'ى' | 'ی' | 'ئ' | 'ې' | 'ۍ' => 'ي',
        'ة' | 'ہ' | 'ۀ' | 'ە' | 'ھ' => 'ه',
        'ک' | 'ڪ' => 'ك',
        'ؤ' => 'و',
        other => other,
    }
}

/// The Latin words of an Arabic word whose letters are unified, and whether they lack vowels. The article is a word
/// of its own.
pub fn arabic_word(word: &str) -> Vec<(String, bool)> {
    if let Some(latin) = common(word) {
        return latin.split(' ').map(|part| (part.to_owned(), false)).collect();
    }
    // The article, and what is often written together: Abd al-, Abu.
    for (prefix, latin) in [("ال", "al"), ("عبدال", "abdul"), ("ابو", "abu")] {
        if let Some(rest) = word.strip_prefix(prefix)
            && rest.chars().count() >= 3
        {
            let mut words = vec![(latin.to_owned(), false)];
            words.extend(arabic_word(rest));
            return words;
        }
    }
    let latin: String = word.chars().flat_map(|c| letter(c).chars()).filter(char::is_ascii_alphanumeric).collect();
    let latin = latin.to_ascii_lowercase();
    if latin.is_empty() { Vec::new() } else { vec![(latin, true)] }
}

fn letter(c: char) -> &'static str {
    match c {
        'ا' | 'ع' => "a",
        'ب' => "b",
        'پ' => "p",
        'ت' | 'ط' | 'ٹ' | 'ټ' => "t",
        'ث' => "th",
        'ج' => "j",
        'چ' => "ch",
        'ح' | 'ه' => "h",
        'خ' | 'ښ' => "kh",
        'د' | 'ض' | 'ڈ' | 'ډ' => "d",
        'ذ' => "dh",
        'ر' | 'ڑ' | 'ړ' => "r",
        'ز' | 'ظ' | 'ځ' => "z",
        'ژ' | 'ږ' => "zh",
        'س' | 'ص' => "s",
        'ش' => "sh",
        'غ' => "gh",
        'ف' | 'ڤ' => "f",
        'ق' => "q",
        'ك' => "k",
        'گ' | 'ګ' => "g",
        'ل' => "l",
        'م' => "m",
        'ن' | 'ں' | 'ڼ' => "n",
        'و' => "w",
        'ي' => "y",
        'ے' => "e",
        'ء' => "",
        other => any_ascii::any_ascii_char(other),
    }
}

/// Common words of names, sorted, with the spelling that public lists use most.
const COMMON: &[(&str, &str)] = &[
    ("ابراهيم", "ibrahim"),
    ("ابن", "ibn"),
    ("ابو", "abu"),
    ("احمد", "ahmad"),
    ("ادريس", "idris"),
    ("اسامه", "usama"),
    ("اسد", "asad"),
    ("اسعد", "asad"),
    ("اسلام", "islam"),
    ("اسماعيل", "ismail"),
    ("اكبر", "akbar"),
    ("اكرم", "akram"),
    ("الله", "allah"),
    ("الياس", "ilyas"),
    ("امام", "imam"),
    ("امين", "amin"),
    ("انس", "anas"),
    ("انور", "anwar"),
    ("ايمن", "ayman"),
    ("ايوب", "ayyub"),
    ("بدر", "badr"),
    ("بشار", "bashar"),
    ("بشير", "bashir"),
    ("بكر", "bakr"),
    ("بلال", "bilal"),
    ("بن", "bin"),
    ("بنت", "bint"),
    ("بنك", "bank"),
    ("تركي", "turki"),
    ("توفيق", "tawfiq"),
    ("جابر", "jabir"),
    ("جاسم", "jasim"),
    ("جعفر", "jafar"),
    ("جلال", "jalal"),
    ("جمال", "jamal"),
    ("جميل", "jamil"),
    ("جهاد", "jihad"),
    ("حامد", "hamid"),
    ("حبيب", "habib"),
    ("حسام", "husam"),
    ("حسن", "hasan"),
    ("حسين", "husayn"),
    ("حمد", "hamad"),
    ("حمزه", "hamza"),
    ("حميد", "hamid"),
    ("حيدر", "haydar"),
    ("خالد", "khalid"),
    ("خان", "khan"),
    ("خليل", "khalil"),
    ("خميس", "khamis"),
    ("داود", "dawud"),
    ("دين", "din"),
    ("راشد", "rashid"),
    ("رحمن", "rahman"),
    ("رشيد", "rashid"),
    ("رضا", "rida"),
    ("رمضان", "ramadan"),
    ("رياض", "riyad"),
    ("زكريا", "zakariya"),
    ("زكي", "zaki"),
    ("زيد", "zayd"),
    ("زين", "zayn"),
    ("سالم", "salim"),
    ("سامي", "sami"),
    ("سعد", "sad"),
    ("سعود", "saud"),
    ("سعيد", "said"),
    ("سلطان", "sultan"),
    ("سلمان", "salman"),
    ("سليم", "salim"),
    ("سليمان", "sulayman"),
    ("سمير", "samir"),
    ("سيف", "sayf"),
    ("شركه", "company"),
    ("شريف", "sharif"),
    ("شهاب", "shihab"),
    ("شيخ", "shaykh"),
    ("صادق", "sadiq"),
    ("صالح", "salih"),
    ("صباح", "sabah"),
    ("صدام", "saddam"),
    ("صلاح", "salah"),
    ("طارق", "tariq"),
    ("طاهر", "tahir"),
    ("طه", "taha"),
    ("عادل", "adil"),
    ("عامر", "amir"),
    ("عباس", "abbas"),
    ("عبد", "abd"),
    ("عبدالله", "abdallah"),
    ("عثمان", "uthman"),
    ("عدنان", "adnan"),
    ("عزيز", "aziz"),
    ("عصام", "isam"),
    ("علي", "ali"),
    ("عماد", "imad"),
    ("عمار", "ammar"),
    ("عمر", "umar"),
    ("عمرو", "amr"),
    ("عيسي", "isa"),
    ("غازي", "ghazi"),
    ("فاروق", "faruq"),
    ("فاطمه", "fatima"),
    ("فرج", "faraj"),
    ("فهد", "fahd"),
    ("فواد", "fuad"),
    ("فوزي", "fawzi"),
    ("فيصل", "faysal"),
    ("قاسم", "qasim"),
    ("كامل", "kamil"),
    ("كريم", "karim"),
    ("كمال", "kamal"),
    ("ماجد", "majid"),
    ("ماهر", "mahir"),
    ("مجيد", "majid"),
    ("محسن", "muhsin"),
    ("محمد", "muhammad"),
    ("محمود", "mahmud"),
    ("مراد", "murad"),
    ("مروان", "marwan"),
    ("مسعود", "masud"),
    ("مصطفي", "mustafa"),
    ("معاذ", "muadh"),
    ("معمر", "muammar"),
    ("ملا", "mullah"),
    ("ملك", "malik"),
    ("منصور", "mansur"),
    ("مهدي", "mahdi"),
    ("موسي", "musa"),
    ("ناصر", "nasir"),
    ("نايف", "nayif"),
    ("نبيل", "nabil"),
    ("نصر", "nasr"),
    ("نور", "nur"),
    ("هادي", "hadi"),
    ("هاشم", "hashim"),
    ("هشام", "hisham"),
    ("وليد", "walid"),
    ("ياسر", "yasir"),
    ("ياسين", "yasin"),
    ("يحيي", "yahya"),
    ("يعقوب", "yaqub"),
    ("يوسف", "yusuf"),
    ("يونس", "yunus"),
];

fn common(word: &str) -> Option<&'static str> {
    COMMON.binary_search_by(|(arabic, _)| (*arabic).cmp(word)).ok().map(|found| COMMON[found].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_look_alike_are_noticed() {
        for name in ["\u{420}utin", "Bank \u{41e}ne", "\u{391}lpha", "Ιvan", "P\u{200b}\u{443}tin", "Ünal\u{430}"] {
            assert!(is_mixed(name), "{name}");
        }
        for name in
            ["Putin", "Путин", "Путин Vladimir", "Ünal", "Αλέξης", "OOO Ромашка-7", "محمد ABC", "习近平A", "A-Я"]
        {
            assert!(!is_mixed(name), "{name}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_unified() {
        assert!(COMMON.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (arabic, latin) in COMMON {
            assert_eq!(arabic.chars().map(arabic_letter).collect::<String>(), *arabic, "{latin}");
            assert!(latin.bytes().all(|b| b.is_ascii_lowercase()), "{latin}");
        }
    }
}
