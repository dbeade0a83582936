//! From texts to numbers, several for each, in flat memory.

/// A table that gives for a text every number that was put in under it, and now and then another: whoever asks
/// compares.
#[derive(Debug, Default)]
pub struct Table {
    /// Sorted by hash, then number.
    rows: Vec<(u32, u32)>,
    /// Where the rows of each value of the upper bits begin.
    starts: Vec<u32>,
    shift: u32,
}

/// Collects rows for a [`Table`].
#[derive(Debug, Default)]
pub struct Rows(Vec<(u32, u32)>);

impl Rows {
    /// Puts a number in under a text.
    pub fn add(&mut self, text: impl Iterator<Item = u8>, number: u32) {
        self.0.push((hash(text), number));
    }

    /// The table.
    pub fn finish(mut self) -> Table {
        self.0.sort_unstable();
        self.0.dedup();
        let bits = self.0.len().max(2).ilog2().min(20);
        let shift = 32 - bits;
        let mut starts = vec![0u32; (1 << bits) + 1];
        for (hash, _) in &self.0 {
            starts[(hash >> shift) as usize + 1] += 1;
        }
        for bucket in 1..starts.len() {
            starts[bucket] += starts[bucket - 1];
        }
        Table { rows: self.0, starts, shift }
    }
}

impl Table {
    /// The numbers under a text.
    pub fn get(&self, text: impl Iterator<Item = u8>) -> impl Iterator<Item = u32> {
        let hash = hash(text);
        let bucket = (hash >> self.shift) as usize;
        let of = |place: usize| self.starts.get(place).map_or(self.rows.len(), |start| *start as usize);
        let rows = self.rows.get(of(bucket)..of(bucket + 1)).unwrap_or_default();
        rows.iter().skip_while(move |row| row.0 < hash).take_while(move |row| row.0 == hash).map(|row| row.1)
    }
}

/// FNV-1a in 64 bits, folded, with the bits spread: the upper ones choose the bucket.
fn hash(text: impl Iterator<Item = u8>) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (spread >> 32) as u32
}

/// Hands on the letters of a word without one of them, for each of them, and with `two` also without two.
pub fn without_some(word: &[u8], two: bool, mut take: impl FnMut(&[u8])) {
    let mut rest = Vec::with_capacity(word.len());
    for i in 0..word.len() {
        rest.clear();
        rest.extend_from_slice(&word[..i]);
        rest.extend_from_slice(&word[i + 1..]);
        // Of doubled letters one is enough.
        if i > 0 && word[i] == word[i - 1] {
            continue;
        }
        take(&rest);
        if two {
            let mut fewer = Vec::with_capacity(rest.len());
            for j in i..rest.len() {
                fewer.clear();
                fewer.extend_from_slice(&rest[..j]);
                fewer.extend_from_slice(&rest[j + 1..]);
                take(&fewer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_what_was_put_in() {
        let mut rows = Rows::default();
        for number in 0..5_000u32 {
            rows.add(format!("word{}", number / 2).bytes(), number);
        }
        let table = rows.finish();
        for number in 0..2_500u32 {
            let found: Vec<u32> = table.get(format!("word{number}").bytes()).collect();
            assert!(found.contains(&(number * 2)) && found.contains(&(number * 2 + 1)), "{number}");
        }
        assert_eq!(Rows::default().finish().get("x".bytes()).count(), 0);
    }

    #[test]
    fn letters_are_left_out() {
        let collect = |word: &str, two| {
            let mut all = Vec::new();
            without_some(word.as_bytes(), two, |rest| all.push(String::from_utf8(rest.to_vec()).unwrap()));
            all
        };
        assert_eq!(collect("abc", false), ["bc", "ac", "ab"]);
        assert_eq!(collect("aab", false), ["ab", "aa"]);
        assert_eq!(collect("abc", true), ["bc", "c", "b", "ac", "a", "ab"]);
    }
}
