//! The settings of webhooks.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use crate::domain::address::Policy;
use crate::domain::breaker::Rules;
use crate::domain::endpoint::LONGEST_OVERLAP;
use crate::domain::retry::Schedule;

/// The longest wait that can be set: 30 days.
const LONGEST_MS: u64 = 30 * 86_400_000;

/// The section `[notification.webhooks]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// Milliseconds for a whole request: 50 to 60,000.
    pub timeout_ms: u64,
    /// Milliseconds for resolving, connecting and TLS: 50 to `timeout_ms`.
    pub connect_timeout_ms: u64,
    /// Milliseconds to wait after the first, second, … failure; after the last a delivery is given up.
    pub retry_ms: Vec<u64>,
    /// Up to so much is added to each of them, in percent: 0 to 100.
    pub jitter_percent: u32,
    /// The longest `Retry-After` that is honoured, in seconds.
    pub longest_retry_after_seconds: u64,
    /// Failures in a row that open the breaker of an endpoint, from 1.
    pub breaker_threshold: u32,
    /// Milliseconds until the first probe of an endpoint whose breaker is open.
    pub breaker_pause_ms: u64,
    /// The longest distance between probes, in milliseconds.
    pub breaker_longest_pause_ms: u64,
    /// Seconds without a success after which a failing endpoint is disabled.
    pub disable_after_seconds: u64,
    /// Deliveries under way to one endpoint: 1 to 256.
    pub per_endpoint: u32,
    /// Deliveries under way in total: 1 to 4,096.
    pub in_total: usize,
    /// Milliseconds between looks for what another process filed or changed, 5 to 60,000.
    pub poll_ms: u64,
    /// Days that a delivery is kept after it ended, with its attempts: 7 to 3,650.
    pub retention_days: u32,
    /// Ports that webhooks go to.
    pub ports: BTreeSet<u16>,
    /// Seconds for which an earlier secret signs after a rotation that does not say: 0 to 2,592,000.
    pub rotation_overlap_seconds: u64,
    /// A PEM file of authorities to be trusted beside those of the system.
    pub ca_file: String,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            timeout_ms: 15_000,
            connect_timeout_ms: 5_000,
            retry_ms: vec![5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 36_000_000, 36_000_000],
            jitter_percent: 20,
            longest_retry_after_seconds: 86_400,
            breaker_threshold: 5,
            breaker_pause_ms: 30_000,
            breaker_longest_pause_ms: 600_000,
            disable_after_seconds: 432_000,
            per_endpoint: 32,
            in_total: 512,
            poll_ms: 1_000,
            retention_days: 90,
            ports: BTreeSet::from([443, 8443]),
            rotation_overlap_seconds: 86_400,
            ca_file: String::new(),
        }
    }
}

impl Webhooks {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the key, the value and the range.
    pub fn check(&self) -> Result<(), String> {
        let within = |key: &str, value: u64, range: std::ops::RangeInclusive<u64>| {
            if range.contains(&value) {
                return Ok(());
            }
            Err(format!("notification.webhooks.{key} = {value}: expected {} to {}", range.start(), range.end()))
        };
        within("timeout_ms", self.timeout_ms, 50..=60_000)?;
        within("connect_timeout_ms", self.connect_timeout_ms, 50..=self.timeout_ms)?;
        within("retry_ms (number of entries)", self.retry_ms.len() as u64, 0..=50)?;
        for delay in &self.retry_ms {
            within("retry_ms", *delay, 1..=LONGEST_MS)?;
        }
        within("jitter_percent", self.jitter_percent.into(), 0..=100)?;
        within("longest_retry_after_seconds", self.longest_retry_after_seconds, 0..=LONGEST_MS / 1000)?;
        within("breaker_threshold", self.breaker_threshold.into(), 1..=1_000_000)?;
        within("breaker_pause_ms", self.breaker_pause_ms, 1..=self.breaker_longest_pause_ms.max(1))?;
        within("breaker_longest_pause_ms", self.breaker_longest_pause_ms, 1..=LONGEST_MS)?;
        within("disable_after_seconds", self.disable_after_seconds, 1..=LONGEST_MS)?;
        within("per_endpoint", self.per_endpoint.into(), 1..=256)?;
        within("in_total", self.in_total as u64, 1..=4_096)?;
        within("poll_ms", self.poll_ms, 5..=60_000)?;
        within("retention_days", self.retention_days.into(), 7..=3650)?;
        within("ports (number of entries)", self.ports.len() as u64, 1..=100)?;
        let overlap = LONGEST_OVERLAP.unsigned_abs() / 1_000_000;
        within("rotation_overlap_seconds", self.rotation_overlap_seconds, 0..=overlap)
    }

    /// Which URLs are taken.
    pub fn policy(&self, allow_loopback: bool) -> Policy {
        Policy { allow_loopback, ports: self.ports.clone() }
    }

    /// The retry schedule.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            delays: self.retry_ms.iter().map(|ms| micros(*ms)).collect(),
            jitter_percent: self.jitter_percent,
            longest_retry_after: micros(self.longest_retry_after_seconds.saturating_mul(1000)),
        }
    }

    /// The rules of breakers.
    pub fn rules(&self) -> Rules {
        Rules {
            threshold: self.breaker_threshold,
            first_pause: micros(self.breaker_pause_ms),
            longest_pause: micros(self.breaker_longest_pause_ms),
            window: self.per_endpoint,
            patience: micros(self.disable_after_seconds.saturating_mul(1000)),
        }
    }

    /// Time for a whole request.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Time for a connection.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// How long a delivery is kept after it ended, in microseconds.
    pub fn retention_micros(&self) -> i64 {
        i64::from(self.retention_days) * 86_400_000_000
    }

    /// Time between looks at the database.
    pub fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }
}

fn micros(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range_and_those_of_the_design() {
        let usual = Webhooks::default();
        usual.check().unwrap();
        assert_eq!(toml::from_str::<Webhooks>("").unwrap(), usual);
        let hours: Vec<i64> = usual.schedule().delays.iter().map(|micros| micros / 1_000_000).collect();
        assert_eq!(hours, [5, 300, 1800, 7200, 18_000, 36_000, 36_000]);
        assert_eq!(usual.rules().patience, 5 * 86_400 * 1_000_000);
    }

    #[test]
    fn the_sample_of_the_readme_says_what_is_usual() {
        let readme = include_str!("../../README.md");
        let sample = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let sample: toml::Table = sample.parse().unwrap();
        let settings: crate::config::Settings = sample["notification"].clone().try_into().unwrap();
        assert_eq!(settings, crate::config::Settings::default());
    }

    #[test]
    fn keys_and_ranges_are_checked() {
        assert!(toml::from_str::<Webhooks>("colour = 1").unwrap_err().to_string().contains("colour"));
        for text in [
            "timeout_ms = 0",
            "timeout_ms = 1000\nconnect_timeout_ms = 1001",
            "retry_ms = [0]",
            "jitter_percent = 101",
            "breaker_threshold = 0",
            "breaker_pause_ms = 700000",
            "per_endpoint = 0",
            "in_total = 0",
            "poll_ms = 0",
            "retention_days = 6",
            "retention_days = 3651",
            "ports = []",
            "disable_after_seconds = 0",
            "rotation_overlap_seconds = 2592001",
        ] {
            let settings: Webhooks = toml::from_str(text).unwrap();
            assert!(settings.check().unwrap_err().starts_with("notification.webhooks."), "{text}");
        }
    }
}
