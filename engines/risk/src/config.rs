//! The section `[risk]` of the configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use deltran_kernel::{Currency, Money};
use serde::Deserialize;

/// Settings of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The largest single transaction by currency, as decimals with the currency's minor digits
    /// (`USD = "10000000.00"`): in force where no approved limit is.
    pub single_transaction_maximum: BTreeMap<Currency, String>,
    /// Seconds after which limits and breakers that could not be compared with the database let nothing
    /// pass any more: 2 to 3,600.
    pub stale_after_seconds: u64,
    /// Milliseconds that `ApproveLimit` waits for the ledger before it answers with the state so far: 0 to
    /// 60,000.
    pub approve_wait_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { single_transaction_maximum: BTreeMap::new(), stale_after_seconds: 10, approve_wait_ms: 5_000 }
    }
}

impl Settings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the key, the value and the range.
    pub fn check(&self) -> Result<(), String> {
        if !(2..=3_600).contains(&self.stale_after_seconds) {
            return Err(format!("risk.stale_after_seconds = {}: expected 2 to 3600", self.stale_after_seconds));
        }
        if self.approve_wait_ms > 60_000 {
            return Err(format!("risk.approve_wait_ms = {}: expected 0 to 60000", self.approve_wait_ms));
        }
        self.maxima().map(|_| ())
    }

    /// The largest single transaction by currency.
    ///
    /// # Errors
    /// Names the key and what is wrong with its amount.
    pub fn maxima(&self) -> Result<BTreeMap<Currency, Money>, String> {
        self.single_transaction_maximum
            .iter()
            .map(|(currency, text)| {
                let key = format!("risk.single_transaction_maximum.{currency}");
                let money = Money::parse(text, *currency).map_err(|e| format!("{key}: {e}"))?;
                if !money.minor().is_positive() {
                    return Err(format!("{key} = {text:?}: expected an amount above 0"));
                }
                Ok((*currency, money))
            })
            .collect()
    }

    /// How long limits and breakers may be used without being compared with the database.
    pub fn stale_after(&self) -> Duration {
        Duration::from_secs(self.stale_after_seconds)
    }

    /// How long `ApproveLimit` waits.
    pub fn approve_wait(&self) -> Duration {
        Duration::from_millis(self.approve_wait_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_ranges_are_checked() {
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
        assert!(toml::from_str::<Settings>("maximum = 1").unwrap_err().to_string().contains("maximum"));
        assert!(Settings::default().check().is_ok());
        assert!(Settings { stale_after_seconds: 1, ..Settings::default() }.check().is_err());
        assert!(Settings { approve_wait_ms: 60_001, ..Settings::default() }.check().is_err());
    }

    #[test]
    fn maxima_are_exact_amounts() {
        let read = |text: &str| {
            let settings: Settings = toml::from_str(text).map_err(|e| e.to_string())?;
            settings.check().and_then(|()| settings.maxima())
        };
        let maxima = read("[single_transaction_maximum]\nUSD = \"10000000.00\"\nJPY = \"1000\"").unwrap();
        assert_eq!(maxima.values().map(Money::to_string).collect::<Vec<_>>(), ["1000 JPY", "10000000.00 USD"]);
        for bad in ["USD = \"1\"", "USD = \"0.00\"", "USD = \"-1.00\"", "XXX = \"1.00\"", "USD = 1"] {
            assert!(read(&format!("[single_transaction_maximum]\n{bad}")).is_err(), "{bad}");
        }
    }
}
