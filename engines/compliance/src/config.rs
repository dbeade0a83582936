//! The section `[compliance]` of the configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::domain::screening::Thresholds;

/// Settings of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Load the list that ships with the product where none was ever loaded.
    pub bundled_list: bool,
    /// Seconds after which a list that could not be compared with the database is not used any more:
    /// 2 to 3,600.
    pub stale_after_seconds: u64,
    /// From which score on a name is held, in ten-thousandths: 5,000 to 10,000.
    pub review_score: u32,
    /// From which score on a name counts as that of the list, in ten-thousandths: `review_score` to 10,000.
    pub block_score: u32,
    /// Milliseconds that `DecideHold` waits for the ledger before it answers with the state so far: 0 to
    /// 60,000.
    pub decide_wait_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let Thresholds { review, block } = Thresholds::default();
        Self {
            bundled_list: true,
            stale_after_seconds: 10,
            review_score: review,
            block_score: block,
            decide_wait_ms: 5_000,
        }
    }
}

impl Settings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the key, the value and the range.
    pub fn check(&self) -> Result<(), String> {
        if !(2..=3_600).contains(&self.stale_after_seconds) {
            return Err(format!("compliance.stale_after_seconds = {}: expected 2 to 3600", self.stale_after_seconds));
        }
        if !(5_000..=10_000).contains(&self.review_score) {
            return Err(format!("compliance.review_score = {}: expected 5000 to 10000", self.review_score));
        }
        if !(self.review_score..=10_000).contains(&self.block_score) {
            let review = self.review_score;
            return Err(format!(
                "compliance.block_score = {}: expected review_score = {review} to 10000",
                self.block_score
            ));
        }
        if self.decide_wait_ms > 60_000 {
            return Err(format!("compliance.decide_wait_ms = {}: expected 0 to 60000", self.decide_wait_ms));
        }
        Ok(())
    }

    /// How long a list may be used without being compared with the database.
    pub fn stale_after(&self) -> Duration {
        Duration::from_secs(self.stale_after_seconds)
    }

    /// From which scores on names are held.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds { review: self.review_score, block: self.block_score }
    }

    /// How long `DecideHold` waits.
    pub fn decide_wait(&self) -> Duration {
        Duration::from_millis(self.decide_wait_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_ranges_are_checked() {
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
        assert!(!toml::from_str::<Settings>("bundled_list = false").unwrap().bundled_list);
        assert!(toml::from_str::<Settings>("bundled = false").unwrap_err().to_string().contains("bundled"));
        assert!(Settings::default().check().is_ok());
        for (stale, wait) in [(1, 0), (3_601, 0), (10, 60_001)] {
            let settings = Settings { stale_after_seconds: stale, decide_wait_ms: wait, ..Settings::default() };
            assert!(settings.check().is_err());
        }
        for (review, block, good) in [
            (5_000, 10_000, true),
            (9_500, 9_500, true),
            (4_999, 9_500, false),
            (9_000, 8_999, false),
            (8_000, 10_001, false),
        ] {
            let settings = Settings { review_score: review, block_score: block, ..Settings::default() };
            assert_eq!(settings.check().is_ok(), good, "{review} {block}");
        }
    }
}
