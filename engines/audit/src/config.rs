//! Section `[audit]` of the configuration.

use std::time::Duration;

use deltran_runtime::boot::BootError;
use serde::Deserialize;

/// The engine's settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Files of the keys that sign checkpoints, each one line as `deltran audit key new` writes it. The first is the
    /// current one; others sign beside it while a rotation is under way. Without any nothing is signed.
    pub key_files: Vec<String>,
    /// Verifier keys that signed earlier: checkpoints of theirs stay valid.
    pub earlier_keys: Vec<String>,
    /// Milliseconds between two checkpoints at the least, 1,000 to 3,600,000.
    pub checkpoint_ms: u32,
    /// A folder outside the database where published checkpoints are written too. None where empty.
    pub publish_directory: String,
    /// Days that leaves stay online, 1 to 36,500.
    pub retention_days: u32,
    /// Where archives of days go: a folder. Days are archived, and so may be detached, only where it is given.
    pub archive_directory: String,
    /// Whether days beyond their retention are detached. Where not, they are only archived.
    pub detach: bool,
    /// Days that the table of a detached day is still kept before it is dropped, 0 to 3,650.
    pub keep_detached_days: u32,
    /// Minutes between two comparisons of outboxes, streams and ledger, 0 for none, up to 10,080.
    pub reconcile_minutes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            key_files: Vec::new(),
            earlier_keys: Vec::new(),
            checkpoint_ms: 1000,
            publish_directory: String::new(),
            retention_days: 180,
            archive_directory: String::new(),
            detach: true,
            keep_detached_days: 7,
            reconcile_minutes: 60,
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
            Err(BootError::Other(format!("audit.{key} = {value} is out of range: it takes {least} to {most}")))
        };
        in_range("checkpoint_ms", self.checkpoint_ms, 1000, 3_600_000)?;
        in_range("retention_days", self.retention_days, 1, 36_500)?;
        in_range("keep_detached_days", self.keep_detached_days, 0, 3650)?;
        in_range("reconcile_minutes", self.reconcile_minutes, 0, 10_080)?;
        Ok(self)
    }

    /// The time between two checkpoints at the least.
    pub fn checkpoint_every(&self) -> Duration {
        Duration::from_millis(self.checkpoint_ms.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        assert!(Settings::default().checked().is_ok());
        for text in
            ["checkpoint_ms = 999", "retention_days = 0", "keep_detached_days = 3651", "reconcile_minutes = 10081"]
        {
            let settings: Settings = toml::from_str(text).unwrap();
            let refused = settings.checked().unwrap_err().to_string();
            let key = text.split(" = ").next().unwrap();
            assert!(refused.contains(&format!("audit.{key}")), "{refused}");
        }
        assert!(toml::from_str::<Settings>("retention = 1").unwrap_err().to_string().contains("retention"));
    }
}
