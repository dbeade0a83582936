//! Settings of the token engine: section `[token]`.

use serde::Deserialize;

/// Bounds of queues and batches.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Commands in one group commit, 1 to 20,000.
    pub max_batch: usize,
    /// Transactions that may wait for the gates and the writer; beyond it callers are told to slow down.
    pub max_waiting: usize,
    /// Transactions in one call of the gates, 1 to 2,000.
    pub gate_batch: usize,
    /// Milliseconds that a call of the gates may take before the submission is UNAVAILABLE.
    pub gate_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_batch: 5_000, max_waiting: 50_000, gate_batch: 1_000, gate_timeout_ms: 5_000 }
    }
}

impl Settings {
    /// Refuses values that cannot work.
    ///
    /// # Errors
    /// A text that names the key and its range.
    pub fn check(&self) -> Result<(), String> {
        let within = |key: &str, value: usize, most: usize| {
            if (1..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("token.{key} = {value} is not within 1 to {most}"))
            }
        };
        within("max_batch", self.max_batch, 20_000)?;
        within("gate_batch", self.gate_batch, 2_000)?;
        within("max_waiting", self.max_waiting, 1_000_000)?;
        within("gate_timeout_ms", self.gate_timeout_ms as usize, 60_000)
    }
}
