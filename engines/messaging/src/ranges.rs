//! Sets of numbers as sorted, disjoint ranges. Normally one range, from 1 to the latest.

/// What a consumer has received from one producer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// From stored `[low, high, low, high, …]`; `None` where that is not sorted and disjoint.
    pub fn from_pairs(pairs: &[i64]) -> Option<Self> {
        let mut ranges = Vec::with_capacity(pairs.len() / 2);
        let mut chunks = pairs.chunks_exact(2);
        for pair in &mut chunks {
            let (low, high) = (u64::try_from(pair[0]).ok()?, u64::try_from(pair[1]).ok()?);
            let after_last =
                ranges.last().is_none_or(|&(_, last): &(u64, u64)| last.checked_add(1).is_some_and(|n| low > n));
            if low == 0 || low > high || !after_last {
                return None;
            }
            ranges.push((low, high));
        }
        chunks.remainder().is_empty().then_some(Self(ranges))
    }

    /// The numbers 1 … `last`; none where that is 0.
    pub fn up_to(last: u64) -> Self {
        Self(if last == 0 { Vec::new() } else { vec![(1, last)] })
    }

    /// For storing.
    pub fn to_pairs(&self) -> Vec<i64> {
        self.0.iter().flat_map(|&(low, high)| [low as i64, high as i64]).collect()
    }

    /// Whether `number` is in the set.
    pub fn contains(&self, number: u64) -> bool {
        let next = self.0.partition_point(|&(low, _)| low <= number);
        next > 0 && self.0[next - 1].1 >= number
    }

    /// Adds `number`; `false` where it was there already.
    pub fn insert(&mut self, number: u64) -> bool {
        let next = self.0.partition_point(|&(low, _)| low <= number);
        if next > 0 && self.0[next - 1].1 >= number {
            return false;
        }
        let joins_left = next > 0 && self.0[next - 1].1 + 1 == number;
        let joins_right = next < self.0.len() && self.0[next].0 == number + 1;
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[next - 1].1 = self.0[next].1;
                self.0.remove(next);
            }
            (true, false) => self.0[next - 1].1 = number,
            (false, true) => self.0[next].0 = number,
            (false, false) => self.0.insert(next, (number, number)),
        }
        true
    }

    /// The highest n for which 1 … n are all in the set.
    pub fn contiguous(&self) -> u64 {
        match self.0.first() {
            Some(&(1, high)) => high,
            _ => 0,
        }
    }

    /// The highest number in the set; 0 when empty.
    pub fn highest(&self) -> u64 {
        self.0.last().map_or(0, |&(_, high)| high)
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(low, high)| high - low + 1).sum()
    }

    /// Those of its numbers that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut others = other.0.iter().peekable();
        for &(low, high) in &self.0 {
            let mut next = low;
            while others.next_if(|(_, last)| *last < next).is_some() {}
            // One that reaches beyond this range may take from the next one too.
            let mut here = others.clone();
            while let Some(&(from, to)) = here.next_if(|(from, _)| *from <= high) {
                if from > next {
                    left.push((next, from - 1));
                }
                next = next.max(to.saturating_add(1));
            }
            if next <= high {
                left.push((next, high));
            }
        }
        Self(left)
    }

    /// Those of its numbers that are `low` to `high`.
    #[must_use]
    pub fn within(&self, low: u64, high: u64) -> Self {
        let cut = self.0.iter().map(|&(from, to)| (from.max(low), to.min(high)));
        Self(cut.filter(|(from, to)| from <= to).collect())
    }

    /// The ranges, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set(numbers in prop::collection::vec(1u64..60, 0..200)) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for n in numbers {
                prop_assert_eq!(ranges.insert(n), model.insert(n));
                prop_assert_eq!(Ranges::from_pairs(&ranges.to_pairs()), Some(ranges.clone()));
                prop_assert_eq!(ranges.count(), model.len() as u64);
                prop_assert_eq!(ranges.highest(), model.last().copied().unwrap_or(0));
                let contiguous = (1..).take_while(|n| model.contains(n)).count() as u64;
                prop_assert_eq!(ranges.contiguous(), contiguous);
                for n in 1..60 {
                    prop_assert_eq!(ranges.contains(n), model.contains(&n));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn is_taken_away_from_and_cut_as_a_set(
            ours in prop::collection::btree_set(1u64..40, 0..40),
            theirs in prop::collection::btree_set(1u64..40, 0..40),
            bounds in (0u64..45, 0u64..45),
        ) {
            let of = |numbers: &mut dyn Iterator<Item = u64>| {
                let mut ranges = Ranges::default();
                for n in numbers {
                    ranges.insert(n);
                }
                ranges
            };
            let (a, b) = (of(&mut ours.iter().copied()), of(&mut theirs.iter().copied()));
            prop_assert_eq!(a.without(&b), of(&mut ours.difference(&theirs).copied()));
            prop_assert_eq!(Ranges::up_to(bounds.0), of(&mut (1..=bounds.0)));
            let inside = |n: &u64| (bounds.0..=bounds.1).contains(n);
            prop_assert_eq!(a.within(bounds.0, bounds.1), of(&mut ours.iter().copied().filter(inside)));
        }
    }

    #[test]
    fn refuses_stored_nonsense() {
        for bad in [&[1][..], &[2, 1], &[1, 2, 3, 4], &[5, 6, 1, 2], &[0, 3], &[-1, 3]] {
            assert_eq!(Ranges::from_pairs(bad), None, "{bad:?}");
        }
    }
}
