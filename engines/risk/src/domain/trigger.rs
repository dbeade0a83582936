//! What makes a breaker trip by itself, from decisions counted in buckets of five seconds.

use std::collections::BTreeMap;

use deltran_events::data::risk::BreakerTrigger;
use deltran_kernel::Timestamp;

use super::breaker::{Breaker, BreakerState, Seen, Trouble};
use super::{BUCKET_SECONDS, WHOLE};

/// Trips where too large a share of the latest decisions were refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectRate {
    /// How far back decisions count, in seconds.
    pub window_seconds: i64,
    /// With fewer decisions it does not trip.
    pub minimum: u64,
    /// More than this share in ten-thousandths trips.
    pub share: u32,
}

/// Trips where there are many more transactions than in the time before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeSpike {
    /// Length of an interval, in seconds.
    pub interval_seconds: i64,
    /// How many earlier intervals make the average.
    pub intervals: u32,
    /// More than this multiple of the average trips, in ten-thousandths.
    pub factor: u32,
    /// Up to this number of transactions it does not trip.
    pub floor: u64,
}

/// The rules that are switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Thresholds {
    /// On the share of refusals.
    pub reject_rate: Option<RejectRate>,
    /// On the number of transactions.
    pub volume_spike: Option<VolumeSpike>,
}

/// Decisions of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decisions {
    /// That let a transaction pass.
    pub accepted: u64,
    /// That refused one, other than for a breaker.
    pub refused: u64,
}

/// Decisions of one scope by the second in which their bucket begins.
pub type History = BTreeMap<i64, Decisions>;

/// The second in which the bucket of a moment begins.
pub fn bucket_of(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000_000 * BUCKET_SECONDS) * BUCKET_SECONDS
}

fn sum(history: &History, from: i64, to: i64) -> Decisions {
    if from >= to {
        return Decisions::default();
    }
    history.range(from..to).fold(Decisions::default(), |sum, (_, d)| Decisions {
        accepted: sum.accepted.saturating_add(d.accepted),
        refused: sum.refused.saturating_add(d.refused),
    })
}

/// The first bucket that counts after a breaker has changed: the next one, so that what made it trip does not
/// keep it open. Of one that is HALF_OPEN the present one: nothing passed for a cool-down before.
pub fn since(breaker: Option<&Breaker>) -> i64 {
    breaker.map_or(i64::MIN, |breaker| {
        let bucket = bucket_of(breaker.changed_at);
        if breaker.state == BreakerState::HalfOpen { bucket } else { bucket + BUCKET_SECONDS }
    })
}

/// What is known of a scope from decisions of the bucket `since` on.
pub fn look(thresholds: &Thresholds, history: &History, since: i64, at: Timestamp) -> Seen {
    let end = bucket_of(at) + BUCKET_SECONDS;
    let Decisions { accepted, refused } = sum(history, since, end);
    let reject = thresholds.reject_rate.and_then(|rule| reject_rate(&rule, history, since, end));
    let trouble = reject.or_else(|| thresholds.volume_spike.and_then(|rule| volume_spike(&rule, history, since, end)));
    Seen { trouble, accepted, refused }
}

fn reject_rate(rule: &RejectRate, history: &History, since: i64, end: i64) -> Option<Trouble> {
    let Decisions { accepted, refused } = sum(history, since.max(end - rule.window_seconds), end);
    let decided = accepted.saturating_add(refused);
    let share = i128::from(refused) * WHOLE;
    if decided < rule.minimum.max(1) || share <= i128::from(rule.share) * i128::from(decided) {
        return None;
    }
    let reason = format!(
        "{refused} of {decided} decisions within {} s were refusals: more than {} ten-thousandths",
        rule.window_seconds, rule.share
    );
    Some(Trouble { trigger: BreakerTrigger::RejectRate, reason })
}

/// Earlier intervals in which nothing happened are no part of the average; without any that has something
/// there is nothing to compare with.
fn volume_spike(rule: &VolumeSpike, history: &History, since: i64, end: i64) -> Option<Trouble> {
    let count = |d: Decisions| d.accepted.saturating_add(d.refused);
    let now = count(sum(history, since.max(end - rule.interval_seconds), end));
    let earlier: Vec<u64> = (1..=i64::from(rule.intervals))
        .map(|n| end - rule.interval_seconds * n)
        .map(|to| count(sum(history, to - rule.interval_seconds, to)))
        .filter(|count| *count > 0)
        .collect();
    let total: i128 = earlier.iter().map(|n| i128::from(*n)).sum();
    let intervals = earlier.len() as i128;
    let spike = i128::from(now) * WHOLE * intervals > i128::from(rule.factor) * total;
    if intervals == 0 || now <= rule.floor || !spike {
        return None;
    }
    let reason = format!(
        "{now} transactions within {} s: more than {} ten-thousandths of the average {} before",
        rule.interval_seconds,
        rule.factor,
        total / intervals
    );
    Some(Trouble { trigger: BreakerTrigger::VolumeSpike, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::scope::Scope;

    const AT: Timestamp = Timestamp::from_micros(1_000_000_000_000);
    const NOW: i64 = 1_000_000;

    fn history(buckets: &[(i64, u64, u64)]) -> History {
        buckets
            .iter()
            .map(|(ago, accepted, refused)| (NOW - ago, Decisions { accepted: *accepted, refused: *refused }))
            .collect()
    }

    fn thresholds() -> Thresholds {
        Thresholds {
            reject_rate: Some(RejectRate { window_seconds: 60, minimum: 20, share: 2_500 }),
            volume_spike: Some(VolumeSpike { interval_seconds: 60, intervals: 3, factor: 50_000, floor: 100 }),
        }
    }

    #[test]
    fn buckets_begin_every_five_seconds() {
        for (micros, bucket) in [(0, 0), (4_999_999, 0), (5_000_000, 5), (-1, -5)] {
            assert_eq!(bucket_of(Timestamp::from_micros(micros)), bucket);
        }
    }

    #[test]
    fn a_share_of_refusals_trips_with_enough_decisions_of_late() {
        for (buckets, expected) in [
            (&[(0, 14, 5)][..], false),
            (&[(0, 15, 5)], false),
            (&[(0, 15, 6)], true),
            (&[(0, 0, 19)], false),
            (&[(0, 0, 20)], true),
            (&[(55, 0, 20)], true),
            (&[(60, 0, 20)], false),
            (&[(5, 5, 0), (10, 0, 15)], true),
        ] {
            let seen = look(&thresholds(), &history(buckets), i64::MIN, AT);
            assert_eq!(seen.trouble.is_some(), expected, "{buckets:?}");
            assert!(seen.trouble.is_none_or(|t| t.trigger == BreakerTrigger::RejectRate));
        }
        assert_eq!(look(&Thresholds::default(), &history(&[(0, 0, 1000)]), i64::MIN, AT).trouble, None);
    }

    #[test]
    fn many_more_than_the_average_trips_above_the_floor() {
        for (buckets, expected) in [
            (&[(0, 5_000, 0)][..], false),
            (&[(0, 101, 0), (60, 20, 0)], true),
            (&[(0, 100, 0), (60, 20, 0)], false),
            (&[(0, 500, 0), (60, 100, 0), (120, 100, 0)], false),
            (&[(0, 501, 0), (60, 100, 0), (120, 100, 0)], true),
            (&[(0, 501, 0), (60, 100, 0), (180, 110, 0)], false),
            (&[(0, 501, 0), (240, 100, 0)], false),
            (&[(0, 251, 0), (30, 250, 0), (60, 100, 0)], true),
        ] {
            let trouble = look(&thresholds(), &history(buckets), i64::MIN, AT).trouble;
            assert_eq!(trouble.is_some(), expected, "{buckets:?}");
            assert!(trouble.is_none_or(|t| t.trigger == BreakerTrigger::VolumeSpike));
        }
    }

    #[test]
    fn what_was_before_the_breaker_changed_does_not_count() {
        let history = history(&[(0, 3, 1), (20, 0, 50)]);
        let seen = look(&thresholds(), &history, NOW - 10, AT);
        assert_eq!(seen, Seen { trouble: None, accepted: 3, refused: 1 });
        assert!(look(&thresholds(), &history, NOW - 20, AT).trouble.is_some());
        let breaker = |state| Breaker {
            scope: Scope::Global,
            state,
            trigger: BreakerTrigger::RejectRate,
            reason: String::new(),
            changed_by: String::new(),
            changed_at: AT.plus_seconds(2),
            open_until: None,
        };
        for (state, first) in [(BreakerState::Open, 5), (BreakerState::Closed, 5), (BreakerState::HalfOpen, 0)] {
            assert_eq!(since(Some(&breaker(state))), NOW + first);
        }
    }
}
