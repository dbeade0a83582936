//! Section `[notification]` of the configuration.

use std::time::Duration;

use deltran_runtime::boot::BootError;
use serde::Deserialize;

use crate::webhook::settings::Webhooks;
use crate::webhook::vault::KeyText;

/// The engine's settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Days that a notification stays in its feed, 7 to 3,650.
    pub retention_days: u32,
    /// Streams that one participant may have open on one process, 1 to 10,000.
    pub streams_per_participant: u32,
    /// Seconds between signs of life on a stream that has nothing to say, 1 to 3,600.
    pub keep_alive_seconds: u32,
    /// The master key of webhook secrets, base64 of 32 random bytes; best from the environment, as
    /// DELTRAN_NOTIFICATION_MASTER_KEY.
    pub master_key: KeyText,
    /// The file that holds the master key, where it is not given itself.
    pub master_key_file: String,
    /// Whether webhooks may go to this machine's loopback interface, over http too. For development.
    pub allow_loopback: bool,
    /// Signed webhooks.
    pub webhooks: Webhooks,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retention_days: 30,
            streams_per_participant: 64,
            keep_alive_seconds: 15,
            master_key: KeyText::default(),
            master_key_file: String::new(),
            allow_loopback: false,
            webhooks: Webhooks::default(),
        }
    }
}

impl Settings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the key that is out of range, with its value.
    pub fn checked(self) -> Result<Self, BootError> {
        let in_range = |key: &str, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(BootError::Other(format!("notification.{key} = {value} is out of range: it takes {least} to {most}")))
        };
        in_range("retention_days", self.retention_days, 7, 3650)?;
        in_range("streams_per_participant", self.streams_per_participant, 1, 10_000)?;
        in_range("keep_alive_seconds", self.keep_alive_seconds, 1, 3600)?;
        self.webhooks.check().map_err(BootError::Other)?;
        Ok(self)
    }

    /// How long a notification stays in its feed, in microseconds.
    pub fn retention_micros(&self) -> i64 {
        i64::from(self.retention_days) * 86_400_000_000
    }

    /// The time between signs of life.
    pub fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive_seconds.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        assert!(Settings::default().checked().is_ok());
        for text in [
            "retention_days = 6",
            "retention_days = 3651",
            "streams_per_participant = 0",
            "keep_alive_seconds = 0",
            "webhooks.timeout_ms = 1",
        ] {
            let settings: Settings = toml::from_str(text).unwrap();
            let refused = settings.checked().unwrap_err().to_string();
            let key = text.split(" = ").next().unwrap();
            assert!(refused.contains(&format!("notification.{key}")), "{refused}");
        }
        assert!(toml::from_str::<Settings>("retention = 1").unwrap_err().to_string().contains("retention"));
    }
}
