//! The use of liquidity within a business day (BCBS 248, tool A(i)): what a participant has sent less what
//! it has received since the day began, and the three largest peaks of it.
//!
//! A peak is the most that was used before use fell by a tenth of it. What is still rising or has not
//! fallen that far counts as a peak when it is read.

use deltran_kernel::Timestamp;

/// A peak of net usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    /// Sent less received, in minor units; above zero.
    pub usage: i128,
    /// When.
    pub at: Timestamp,
}

/// How many peaks are kept.
pub const PEAKS: usize = 3;

/// One participant's day in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Day {
    /// What it sent, in minor units.
    pub sent: i128,
    /// What it received.
    pub received: i128,
    /// Number of transactions that it sent.
    pub sent_count: u64,
    /// Number of transactions that it received.
    pub received_count: u64,
    /// The largest peaks that are over, the largest first.
    pub peaks: Vec<Peak>,
    /// The highest use since the last peak was over, where use is above zero.
    pub rising: Option<Peak>,
    /// The lowest use since the last peak was over, while use has not risen from it by a tenth again.
    pub trough: Option<i128>,
}

/// A tenth of a peak, at least one.
fn turn(usage: i128) -> i128 {
    (usage / 10).max(1)
}

impl Day {
    /// Counts a transaction that was sent.
    pub fn send(&mut self, amount: i128, at: Timestamp) {
        self.sent += amount;
        self.sent_count += 1;
        self.moved(at);
    }

    /// Counts a transaction that was received.
    pub fn receive(&mut self, amount: i128, at: Timestamp) {
        self.received += amount;
        self.received_count += 1;
        self.moved(at);
    }

    fn moved(&mut self, at: Timestamp) {
        let usage = self.sent - self.received;
        if let Some(trough) = self.trough {
            let lowest = trough.min(usage);
            if usage - lowest < turn(usage) {
                self.trough = Some(lowest);
                return;
            }
            self.trough = None;
        }
        match self.rising {
            Some(peak) if usage > peak.usage => self.rising = Some(Peak { usage, at }),
            Some(peak) if peak.usage - usage >= turn(peak.usage) => {
                self.keep(peak);
                self.rising = None;
                self.trough = Some(usage);
            }
            Some(_) => {}
            None if usage > 0 => self.rising = Some(Peak { usage, at }),
            None => {}
        }
    }

    fn keep(&mut self, peak: Peak) {
        // The earlier of two that are as large comes first.
        let place = self.peaks.partition_point(|kept| kept.usage >= peak.usage);
        self.peaks.insert(place, peak);
        self.peaks.truncate(PEAKS);
    }

    /// The three largest peaks so far, the largest first, with one that is not over.
    pub fn largest(&self) -> Vec<Peak> {
        let mut day = self.clone();
        if let Some(peak) = day.rising.take() {
            day.keep(peak);
        }
        day.peaks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(steps: &[i128]) -> Day {
        let mut day = Day::default();
        for (n, step) in steps.iter().enumerate() {
            let at = Timestamp::from_micros(n as i64);
            if *step >= 0 { day.send(*step, at) } else { day.receive(-step, at) }
        }
        day
    }

    fn peaks(steps: &[i128]) -> Vec<(i128, i64)> {
        walk(steps).largest().iter().map(|p| (p.usage, p.at.micros())).collect()
    }

    #[test]
    fn peaks_are_apart_by_a_tenth() {
        for (steps, expected) in [
            (&[][..], vec![]),
            (&[-100], vec![]),
            (&[100], vec![(100, 0)]),
            (&[100, -9, 9, -9, 9], vec![(100, 0)]),
            (&[100, -10, 20], vec![(110, 2), (100, 0)]),
            (&[100, -10, 8], vec![(100, 0)]),
            (&[100, -10, 9], vec![(100, 0), (99, 2)]),
            (&[100, -50, 5, 5, 40], vec![(100, 0), (100, 4)]),
            (&[100, -200, 50, 50, 50], vec![(100, 0), (50, 4)]),
            (&[10, -10, 40, -40, 30, -30, 20, -20], vec![(40, 2), (30, 4), (20, 6)]),
            (&[1, -1, 1, -1, 1, -1, 1], vec![(1, 0), (1, 2), (1, 4)]),
        ] {
            assert_eq!(peaks(steps), expected, "{steps:?}");
        }
    }

    #[test]
    fn totals_are_kept() {
        let day = walk(&[100, -30, 7]);
        assert_eq!((day.sent, day.received, day.sent_count, day.received_count), (107, 30, 2, 1));
    }

    proptest! {
        /// The largest peak is the day's highest use, at the first time that it was reached; peaks are in order.
        #[test]
        fn the_largest_is_the_highest(steps in prop::collection::vec(-50i128..50, 0..200)) {
            let day = walk(&steps);
            let mut usage = 0;
            let mut highest: Option<(i128, i64)> = None;
            for (n, step) in steps.iter().enumerate() {
                usage += step;
                if usage > highest.map_or(0, |h| h.0) {
                    highest = Some((usage, n as i64));
                }
            }
            let found = day.largest();
            prop_assert_eq!(found.first().map(|p| (p.usage, p.at.micros())), highest);
            prop_assert!(found.windows(2).all(|pair| pair[0].usage >= pair[1].usage));
            prop_assert!(found.iter().all(|p| p.usage > 0));
        }
    }
}
