//! Alarms: how much of a limit is used, told once when it crosses a threshold and once when it is well
//! below again.

use std::collections::BTreeSet;

use super::WHOLE;

/// When alarms ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarms {
    /// Shares of a limit in ten-thousandths, each with an alarm of its own.
    pub thresholds: BTreeSet<u32>,
    /// So many ten-thousandths below its threshold an alarm is cleared.
    pub hysteresis: u32,
}

/// An alarm that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Its threshold.
    pub threshold: u32,
    /// Whether it rings from now on, or is cleared.
    pub breached: bool,
}

/// used / limit in ten-thousandths. Where the limit is 0, anything used is all of it.
pub fn fraction(used: i128, limit: i128) -> u32 {
    if used <= 0 {
        return 0;
    }
    if limit <= 0 {
        return WHOLE as u32;
    }
    u32::try_from(used.saturating_mul(WHOLE) / limit).unwrap_or(u32::MAX)
}

/// The alarms that change where so much is used, lowest threshold first. `ringing` are those that ring; one
/// whose threshold is no longer configured is cleared.
pub fn changes(alarms: &Alarms, fraction: u32, ringing: &BTreeSet<u32>) -> Vec<Change> {
    let all: BTreeSet<u32> = alarms.thresholds.union(ringing).copied().collect();
    all.into_iter()
        .filter_map(|threshold| {
            let rings = ringing.contains(&threshold);
            let known = alarms.thresholds.contains(&threshold);
            let breached = if rings && known {
                fraction >= threshold.saturating_sub(alarms.hysteresis)
            } else {
                known && fraction >= threshold
            };
            (breached != rings).then_some(Change { threshold, breached })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alarms() -> Alarms {
        Alarms { thresholds: [8_000, 9_500].into(), hysteresis: 500 }
    }

    #[test]
    fn fractions_are_cut_and_never_too_high() {
        for (used, limit, expected) in [
            (0, 100, 0),
            (-5, 100, 0),
            (1, 3, 3_333),
            (100, 100, 10_000),
            (250, 100, 25_000),
            (0, 0, 0),
            (1, 0, 10_000),
            (i128::MAX, 1, u32::MAX),
        ] {
            assert_eq!(fraction(used, limit), expected, "{used} of {limit}");
        }
    }

    #[test]
    fn an_alarm_rings_once_per_crossing() {
        let rings = |threshold| Change { threshold, breached: true };
        let clears = |threshold| Change { threshold, breached: false };
        for (fraction, ringing, expected) in [
            (7_999, &[][..], vec![]),
            (8_000, &[], vec![rings(8_000)]),
            (9_999, &[], vec![rings(8_000), rings(9_500)]),
            (9_999, &[8_000], vec![rings(9_500)]),
            (9_999, &[8_000, 9_500], vec![]),
            (9_400, &[8_000, 9_500], vec![]),
            (8_999, &[8_000, 9_500], vec![clears(9_500)]),
            (7_500, &[8_000], vec![]),
            (7_499, &[8_000], vec![clears(8_000)]),
            (0, &[8_000, 9_500], vec![clears(8_000), clears(9_500)]),
            (9_999, &[6_000, 8_000, 9_500], vec![clears(6_000)]),
        ] {
            let ringing = ringing.iter().copied().collect();
            assert_eq!(changes(&alarms(), fraction, &ringing), expected, "{fraction} {ringing:?}");
        }
    }

    proptest! {
        /// Between two alarms of a threshold it was cleared, and the other way round.
        #[test]
        fn crossings_alternate(path in prop::collection::vec(0u32..12_000, 0..60)) {
            let mut ringing = BTreeSet::new();
            for fraction in path {
                for change in changes(&alarms(), fraction, &ringing) {
                    let Change { threshold, breached } = change;
                    let moved = if breached { ringing.insert(threshold) } else { ringing.remove(&threshold) };
                    prop_assert!(moved);
                }
                prop_assert!(changes(&alarms(), fraction, &ringing).is_empty(), "settled at once");
            }
        }
    }
}
