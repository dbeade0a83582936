//! What words weigh: the fewer entries have a word, the more it tells.

use std::collections::BTreeSet;

use super::super::name::Kind;

/// A word that stands in no entry, or in one among very many.
pub const RARE: u32 = 1_400;
/// The least that a word of the name proper weighs.
const ORDINARY: u32 = 250;
/// The most that a word weighs which is common outside of the lists too.
const COMMON: u32 = 550;
/// Entries that a list has to have before it says what is common.
const LENGTH: u64 = 16_384;
const NUMBER: u32 = 1_200;
const INITIAL: u32 = 150;
const PARTICLE: u32 = 60;
const FORM: u32 = 50;

/// Words that are common in names of companies and persons, whoever they are.
pub fn common_words() -> BTreeSet<&'static str> {
    include_str!("../../../data/common-words.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .collect()
}

/// The weight of a word that `having` of `entries` have. Short words weigh less: they are easily the same by chance.
pub fn weight(kind: Kind, word: &str, having: u32, entries: u32, common: bool) -> u32 {
    match kind {
        Kind::Form => FORM,
        Kind::Particle => PARTICLE,
        Kind::Initial => INITIAL,
        Kind::Number => NUMBER,
        Kind::Name => {
            // Counted in lists of at least so many entries: a short list says little about what is common.
            let having = (u64::from(having) * LENGTH).div_ceil(u64::from(entries).max(LENGTH)).max(1);
            let weight = RARE.saturating_sub(log2_hundredths(having));
            let most = match (common, word.len()) {
                (true, _) => COMMON,
                (false, 0..=2) => 500,
                (false, 3) => 800,
                (false, 4) => 1_100,
                (false, _) => RARE,
            };
            weight.min(most).max(ORDINARY)
        }
    }
}

/// 100 times the logarithm to base 2, rounded down.
fn log2_hundredths(n: u64) -> u32 {
    let whole = n.max(1).ilog2();
    // The mantissa in 32 bits, squared seven times: each time it reaches 2, a binary digit of the fraction is 1.
    let mut mantissa = (u128::from(n.max(1)) << 32) >> whole;
    let mut fraction = 0u32;
    for _ in 0..7 {
        mantissa = (mantissa * mantissa) >> 32;
        fraction <<= 1;
        if mantissa >= 2 << 32 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    whole * 100 + fraction * 100 / 128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right_to_a_hundredth() {
        for (n, log) in [(1, 0), (2, 100), (3, 158), (10, 332), (1_000, 996), (16_384, 1_400), (u64::MAX, 6_399)] {
            assert!(log2_hundredths(n).abs_diff(log) <= 1, "{n}: {}", log2_hundredths(n));
        }
    }

    #[test]
    fn rare_words_weigh_more() {
        let of = |having| weight(Kind::Name, "falconer", having, 16_384, false);
        assert_eq!((of(0), of(1), of(16), of(512)), (1_400, 1_400, 1_000, 500));
        assert_eq!(of(16_384), ORDINARY);
        assert_eq!(weight(Kind::Name, "trading", 1, 16_384, true), COMMON);
        assert_eq!(weight(Kind::Name, "xu", 1, 16_384, false), 500);
        assert!(weight(Kind::Name, "falconer", 1, 20, false) > 900, "a short list says little");
    }

    #[test]
    fn common_words_are_normal() {
        let words = common_words();
        assert!(words.len() > 500 && words.contains("trading") && words.contains("smith"));
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase())));
    }
}
