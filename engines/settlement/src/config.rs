//! Section `[settlement]` of the configuration.

use deltran_runtime::boot::BootError;
use serde::Deserialize;

use crate::domain::Rules;

/// How batches wait for funds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Seconds that a short debtor has to top up, 0 to 604,800.
    pub funding_deadline_seconds: u32,
    /// Seconds between two tries to lock what short debtors lack, 1 to 3,600.
    pub retry_seconds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { funding_deadline_seconds: 1800, retry_seconds: 1 }
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
            Err(BootError::Other(format!("settlement.{key} = {value} is out of range: it takes {least} to {most}")))
        };
        in_range("funding_deadline_seconds", self.funding_deadline_seconds, 0, 604_800)?;
        in_range("retry_seconds", self.retry_seconds, 1, 3600)?;
        Ok(self)
    }

    /// What decisions need of it.
    pub fn rules(&self) -> Rules {
        Rules { funding_deadline_seconds: self.funding_deadline_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        assert!(Settings::default().checked().is_ok());
        for (settings, key) in [
            (Settings { retry_seconds: 0, ..Settings::default() }, "settlement.retry_seconds = 0"),
            (Settings { retry_seconds: 3601, ..Settings::default() }, "settlement.retry_seconds = 3601"),
            (
                Settings { funding_deadline_seconds: 604_801, ..Settings::default() },
                "settlement.funding_deadline_seconds",
            ),
        ] {
            assert!(settings.checked().unwrap_err().to_string().contains(key), "{key}");
        }
    }
}
