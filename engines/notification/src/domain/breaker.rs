//! The breaker of one endpoint: how many deliveries may be under way, and when none may.
//!
//! It opens after a number of failures in a row; then one delivery probes, and each failed probe doubles
//! the pause. What an endpoint may have under way grows with its successes and falls to one with a
//! failure, so that those that do not answer never hold what others need.

use deltran_kernel::Timestamp;

/// How many an endpoint that has proved nothing yet may have under way.
const FIRST_WINDOW: u32 = 4;

/// The settings of breakers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Failures in a row that open a breaker, from 1.
    pub threshold: u32,
    /// The first pause, in microseconds.
    pub first_pause: i64,
    /// The longest pause, in microseconds.
    pub longest_pause: i64,
    /// The most deliveries that an endpoint may have under way, from 1.
    pub window: u32,
    /// After how many microseconds without a success an endpoint is disabled.
    pub patience: i64,
}

/// What is known of an endpoint's health. It is stored with the endpoint and outlives a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Failures since the last success.
    pub failures: u32,
    /// When the first of them was.
    pub failing_since: Option<Timestamp>,
    /// No delivery before this time.
    pub paused_until: Option<Timestamp>,
}

/// The breaker of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    health: Health,
    window: u32,
}

/// What a breaker lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// At most so many deliveries under way, from 1.
    Send(u32),
    /// None before this time.
    Wait(Timestamp),
}

impl Breaker {
    /// The breaker of an endpoint whose health is known.
    pub fn new(health: Health, rules: &Rules) -> Self {
        Self { health, window: if health.failures == 0 { FIRST_WINDOW.min(rules.window) } else { 1 } }
    }

    /// The health, to be stored.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Whether it is open: it lets nothing pass but a probe after each pause.
    pub fn is_open(&self, rules: &Rules) -> bool {
        self.health.failures >= rules.threshold
    }

    /// How many deliveries may be under way at `now`.
    pub fn leave(&self, now: Timestamp) -> Leave {
        match self.health.paused_until {
            Some(until) if now < until => Leave::Wait(until),
            // After failures the window is 1: a single probe.
            _ => Leave::Send(self.window),
        }
    }

    /// The endpoint took a delivery.
    pub fn succeeded(&mut self, rules: &Rules) {
        self.health = Health::default();
        self.window = self.window.saturating_mul(2).min(rules.window);
    }

    /// The endpoint failed a delivery at `now`, and asked to be left alone for `retry_after` microseconds.
    pub fn failed(&mut self, retry_after: Option<i64>, rules: &Rules, now: Timestamp) {
        self.window = 1;
        self.health.failures = self.health.failures.saturating_add(1);
        self.health.failing_since = self.health.failing_since.or(Some(now));
        let asked = retry_after.map(|micros| now.plus_micros(micros.clamp(0, rules.longest_pause)));
        let opened = self.health.failures.checked_sub(rules.threshold).map(|beyond| {
            let pause = rules.first_pause.saturating_mul(1 << beyond.min(30)).min(rules.longest_pause);
            now.plus_micros(pause)
        });
        // A late failure of before never shortens a pause.
        self.health.paused_until = self.health.paused_until.max(asked).max(opened);
    }

    /// Whether the endpoint has failed for so long that it is to be disabled.
    pub fn is_hopeless(&self, rules: &Rules, now: Timestamp) -> bool {
        self.health.failing_since.is_some_and(|since| now.micros().saturating_sub(since.micros()) >= rules.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn rules() -> Rules {
        Rules {
            threshold: 3,
            first_pause: 10 * SECOND,
            longest_pause: 60 * SECOND,
            window: 16,
            patience: 5 * 86_400 * SECOND,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_762_430_400_000_000).plus_seconds(seconds)
    }

    #[test]
    fn the_window_grows_with_successes_and_falls_with_a_failure() {
        let mut breaker = Breaker::new(Health::default(), &rules());
        assert_eq!(breaker.leave(at(0)), Leave::Send(4));
        for window in [8, 16, 16] {
            breaker.succeeded(&rules());
            assert_eq!(breaker.leave(at(0)), Leave::Send(window));
        }
        breaker.failed(None, &rules(), at(0));
        assert_eq!(breaker.leave(at(0)), Leave::Send(1), "closed, but careful");
        breaker.succeeded(&rules());
        assert_eq!(breaker.leave(at(0)), Leave::Send(2));
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_probes_at_growing_distances() {
        let mut breaker = Breaker::new(Health::default(), &rules());
        for second in [0, 1] {
            breaker.failed(None, &rules(), at(second));
            assert!(!breaker.is_open(&rules()));
        }
        for (failed_at, until) in [(2, 12), (12, 32), (32, 72), (72, 132), (132, 192)] {
            breaker.failed(None, &rules(), at(failed_at));
            assert!(breaker.is_open(&rules()));
            assert_eq!(breaker.leave(at(until - 1)), Leave::Wait(at(until)));
            assert_eq!(breaker.leave(at(until)), Leave::Send(1), "one probe");
        }
        assert_eq!(breaker.health().failing_since, Some(at(0)));
        breaker.succeeded(&rules());
        assert_eq!(breaker.health(), Health::default());
        assert_eq!(breaker.leave(at(133)), Leave::Send(2));
    }

    #[test]
    fn a_late_failure_does_not_shorten_a_pause() {
        let mut breaker = Breaker::new(Health::default(), &rules());
        for _ in 0..4 {
            breaker.failed(None, &rules(), at(0));
        }
        assert_eq!(breaker.leave(at(0)), Leave::Wait(at(20)));
        breaker.failed(Some(SECOND), &rules(), at(0));
        assert_eq!(breaker.leave(at(0)), Leave::Wait(at(40)));
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_within_bounds() {
        let mut breaker = Breaker::new(Health::default(), &rules());
        breaker.failed(Some(30 * SECOND), &rules(), at(0));
        assert_eq!(breaker.leave(at(0)), Leave::Wait(at(30)));
        breaker.failed(Some(i64::MAX), &rules(), at(30));
        assert_eq!(breaker.leave(at(30)), Leave::Wait(at(90)));
    }

    #[test]
    fn it_is_hopeless_after_five_days_without_a_success() {
        let mut breaker = Breaker::new(Health::default(), &rules());
        assert!(!breaker.is_hopeless(&rules(), at(0)));
        breaker.failed(None, &rules(), at(0));
        assert!(!breaker.is_hopeless(&rules(), at(5 * 86_400 - 1)));
        assert!(breaker.is_hopeless(&rules(), at(5 * 86_400)));
        breaker.succeeded(&rules());
        assert!(!breaker.is_hopeless(&rules(), at(5 * 86_400)));
    }

    #[test]
    fn health_outlives_a_restart() {
        let mut breaker = Breaker::new(Health::default(), &rules());
        for _ in 0..3 {
            breaker.failed(None, &rules(), at(0));
        }
        let mut after = Breaker::new(breaker.health(), &rules());
        assert_eq!(after.leave(at(9)), Leave::Wait(at(10)));
        assert_eq!(after.leave(at(10)), Leave::Send(1));
        after.failed(None, &rules(), at(10));
        assert_eq!(after.leave(at(10)), Leave::Wait(at(30)));
    }
}
