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
}

impl Default for Settings {
    fn default() -> Self {
        Self { key_files: Vec::new(), earlier_keys: Vec::new(), checkpoint_ms: 1000, publish_directory: String::new() }
    }
}

impl Settings {
    /// Checks the range.
    ///
    /// # Errors
    /// Names the key where its value is out of range.
    pub fn checked(self) -> Result<Self, BootError> {
        let value = self.checkpoint_ms;
        if (1000..=3_600_000).contains(&value) {
            return Ok(self);
        }
        Err(BootError::Other(format!("audit.checkpoint_ms = {value} is out of range: it takes 1000 to 3600000")))
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
        for text in ["checkpoint_ms = 999", "checkpoint_ms = 3600001"] {
            let settings: Settings = toml::from_str(text).unwrap();
            let refused = settings.checked().unwrap_err().to_string();
            let key = text.split(" = ").next().unwrap();
            assert!(refused.contains(&format!("audit.{key}")), "{refused}");
        }
        assert!(toml::from_str::<Settings>("retention = 1").unwrap_err().to_string().contains("retention"));
    }
}
