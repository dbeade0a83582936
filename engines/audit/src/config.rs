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
    /// Days that the ledger stays in the database at the least, 1 to 36,500. The database has a least of its own
    /// (`retention_floor`, 180), which its owner may change.
    pub retention_days: i32,
    /// A folder for the archive: every day that is over is written there, read again and verified. Nothing is archived
    /// where this and `archive_url` are empty.
    pub archive_directory: String,
    /// A bucket for it instead, `s3://BUCKET/PREFIX`, in an object store that speaks as S3 does. Credentials come from the
    /// environment alone.
    pub archive_url: String,
    /// Where that store is, such as `https://minio.example.org:9000`. Where empty it is that of AWS.
    pub archive_endpoint: String,
    /// The region that requests are signed for.
    pub archive_region: String,
    /// Whether the bucket stands in the path, as compatible stores take it, or in the name of the host.
    pub archive_path_style: bool,
    /// Whether another machine is reached without TLS. This one always may be.
    pub archive_allow_http: bool,
    /// A PEM file of authorities that are trusted beside those of the system.
    pub archive_ca_file: String,
    /// Megabytes of a part in which files go there, 5 to 512; a file has 10,000 parts at the most.
    pub archive_part_mib: u32,
    /// Whether days that are older, archived and under no hold leave the database.
    pub detach: bool,
    /// Minutes between two comparisons of outboxes, streams and ledger, 0 for never, up to 10,080.
    pub reconcile_minutes: u32,
    /// Whether streams that the broker forgot are made anew and filled from the ledger.
    pub keep_streams: bool,
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
            archive_url: String::new(),
            archive_endpoint: String::new(),
            archive_region: "us-east-1".to_owned(),
            archive_path_style: true,
            archive_allow_http: false,
            archive_ca_file: String::new(),
            archive_part_mib: 16,
            detach: false,
            reconcile_minutes: 60,
            keep_streams: true,
        }
    }
}

impl Settings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the key where its value is out of range, or does not fit another one.
    pub fn checked(self) -> Result<Self, BootError> {
        let (pause, days, minutes) = (self.checkpoint_ms, self.retention_days, self.reconcile_minutes);
        let problem = if !(1000..=3_600_000).contains(&pause) {
            format!("audit.checkpoint_ms = {pause} is out of range: it takes 1000 to 3600000")
        } else if !(1..=36_500).contains(&days) {
            format!("audit.retention_days = {days} is out of range: it takes 1 to 36500")
        } else if minutes > 10_080 {
            format!("audit.reconcile_minutes = {minutes} is out of range: it takes 0 to 10080")
        } else if self.detach && !self.archives() {
            "audit.detach = true needs audit.archive_directory or audit.archive_url: only days that are archived leave \
             the database"
                .to_owned()
        } else {
            match crate::archive::check(&self) {
                Ok(()) => return Ok(self),
                Err(problem) => problem,
            }
        };
        Err(BootError::Other(problem))
    }

    /// Whether there is an archive.
    pub fn archives(&self) -> bool {
        !self.archive_directory.is_empty() || !self.archive_url.is_empty()
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
        for text in [
            "checkpoint_ms = 999",
            "checkpoint_ms = 3600001",
            "retention_days = 0",
            "retention_days = 36501",
            "detach = true",
            "reconcile_minutes = 10081",
            "archive_part_mib = 513",
            "archive_url = \"x\"",
        ] {
            let settings: Settings = toml::from_str(text).unwrap();
            let refused = settings.checked().unwrap_err().to_string();
            let key = text.split(" = ").next().unwrap();
            assert!(refused.contains(&format!("audit.{key}")), "{refused}");
        }
        assert!(toml::from_str::<Settings>("retention = 1").unwrap_err().to_string().contains("retention"));
    }
}
