//! The section `[risk]` of the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use deltran_kernel::{Currency, Money, Timestamp};
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::domain::BUCKET_SECONDS;
use crate::domain::alarm::Alarms;
use crate::domain::breaker::Recovery;
use crate::domain::scope::Scope;
use crate::domain::trigger::{RejectRate, Thresholds, VolumeSpike};

/// Settings of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Seconds after which limits and breakers that could not be compared with the database let nothing
    /// pass any more, and counted data that is so far behind the ledger nothing that needs it: 2 to 3,600.
    pub stale_after_seconds: u64,
    /// Milliseconds that `ApproveLimit` waits for the ledger before it answers with the state so far: 0 to
    /// 60,000.
    pub approve_wait_ms: u64,
    /// The time zone in which a business day begins at midnight: an IANA name.
    pub time_zone: String,
    /// Seconds between two `exposure.snapshot` of each currency beside those on sealing, 0 for none: 0 to 86,400.
    pub snapshot_seconds: u32,
    /// The largest single transaction by currency, as decimals with the currency's minor digits
    /// (`USD = "10000000.00"`): in force where no approved limit is.
    pub single_transaction_maximum: BTreeMap<Currency, String>,
    /// When alarms ring.
    pub alarms: AlarmSettings,
    /// Breakers that trip by themselves.
    pub breakers: BreakerSettings,
}

/// When alarms ring, in ten-thousandths of a limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlarmSettings {
    /// At most eight, 1 to 10,000 each.
    pub thresholds: Vec<u32>,
    /// So far below its threshold an alarm is cleared: 0 to 5,000.
    pub hysteresis: u32,
}

/// How breakers that trip by themselves recover, and what trips them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerSettings {
    /// Seconds that such a breaker stays OPEN: 10 to 3,600.
    pub cool_down_seconds: u32,
    /// How many transactions pass while it is HALF_OPEN, in each process and cool-down: 1 to 1,000.
    pub probes: u32,
    /// The share of them that may be refused, in ten-thousandths: 0 to 9,999.
    pub refused_share: u32,
    /// On the share of refusals.
    pub reject_rate: RejectRateSettings,
    /// On the number of transactions.
    pub volume_spike: VolumeSpikeSettings,
    /// On counted data that is behind the ledger.
    pub stale_data: StaleDataSettings,
}

/// Trips where too large a share of decisions are refusals.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RejectRateSettings {
    /// Whether it trips at all.
    pub enabled: bool,
    /// What it watches: global, currency, corridor, participant.
    pub scopes: BTreeSet<ScopeKind>,
    /// How far back decisions count: 5 to 3,600 seconds, a multiple of 5.
    pub window_seconds: u32,
    /// With fewer decisions it does not trip: 1 or more.
    pub minimum: u64,
    /// More than this share trips, in ten-thousandths: 0 to 9,999.
    pub share: u32,
}

/// Trips where there are many more transactions than in the time before.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeSpikeSettings {
    /// Whether it trips at all.
    pub enabled: bool,
    /// What it watches: global, currency, corridor, participant.
    pub scopes: BTreeSet<ScopeKind>,
    /// Length of an interval: 5 to 3,600 seconds, a multiple of 5.
    pub interval_seconds: u32,
    /// How many earlier intervals make the average, 1 to 60; at most two hours together with the present one.
    pub intervals: u32,
    /// More than this multiple of the average trips, in ten-thousandths: 10,001 or more.
    pub factor: u32,
    /// Up to this number of transactions it does not trip.
    pub floor: u64,
}

/// Trips where counted data decides and is behind the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StaleDataSettings {
    /// Whether it trips at all.
    pub enabled: bool,
    /// After so many seconds behind: 5 to 3,600.
    pub after_seconds: u32,
}

/// What kind of scope a breaker stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of scopes")]
pub enum ScopeKind {
    Global,
    Currency,
    Corridor,
    Participant,
}

impl From<Scope> for ScopeKind {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Global => Self::Global,
            Scope::Currency(_) => Self::Currency,
            Scope::Corridor(_) => Self::Corridor,
            Scope::Participant(_) => Self::Participant,
        }
    }
}

fn every_scope() -> BTreeSet<ScopeKind> {
    [ScopeKind::Global, ScopeKind::Currency, ScopeKind::Corridor, ScopeKind::Participant].into()
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stale_after_seconds: 10,
            approve_wait_ms: 5_000,
            time_zone: "UTC".to_owned(),
            snapshot_seconds: 0,
            single_transaction_maximum: BTreeMap::new(),
            alarms: AlarmSettings::default(),
            breakers: BreakerSettings::default(),
        }
    }
}

impl Default for AlarmSettings {
    fn default() -> Self {
        Self { thresholds: vec![8_000, 9_500], hysteresis: 500 }
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            cool_down_seconds: 60,
            probes: 10,
            refused_share: 2_000,
            reject_rate: RejectRateSettings::default(),
            volume_spike: VolumeSpikeSettings::default(),
            stale_data: StaleDataSettings::default(),
        }
    }
}

impl Default for RejectRateSettings {
    fn default() -> Self {
        Self { enabled: false, scopes: every_scope(), window_seconds: 60, minimum: 100, share: 5_000 }
    }
}

impl Default for VolumeSpikeSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            scopes: every_scope(),
            interval_seconds: 60,
            intervals: 10,
            factor: 50_000,
            floor: 1_000,
        }
    }
}

impl Default for StaleDataSettings {
    fn default() -> Self {
        Self { enabled: true, after_seconds: 30 }
    }
}

/// A number that must lie in a range.
struct Range(&'static str, u64, u64, u64);

impl Settings {
    fn ranges(&self) -> Vec<Range> {
        let BreakerSettings { reject_rate: reject, volume_spike: spike, stale_data: stale, .. } = &self.breakers;
        let mut ranges = vec![
            Range("stale_after_seconds", self.stale_after_seconds, 2, 3_600),
            Range("approve_wait_ms", self.approve_wait_ms, 0, 60_000),
            Range("snapshot_seconds", self.snapshot_seconds.into(), 0, 86_400),
            Range("alarms.hysteresis", self.alarms.hysteresis.into(), 0, 5_000),
            Range("breakers.cool_down_seconds", self.breakers.cool_down_seconds.into(), 10, 3_600),
            Range("breakers.probes", self.breakers.probes.into(), 1, 1_000),
            Range("breakers.refused_share", self.breakers.refused_share.into(), 0, 9_999),
            Range("breakers.reject_rate.window_seconds", reject.window_seconds.into(), 5, 3_600),
            Range("breakers.reject_rate.minimum", reject.minimum, 1, 1_000_000_000),
            Range("breakers.reject_rate.share", reject.share.into(), 0, 9_999),
            Range("breakers.volume_spike.interval_seconds", spike.interval_seconds.into(), 5, 3_600),
            Range("breakers.volume_spike.intervals", spike.intervals.into(), 1, 60),
            Range("breakers.volume_spike.factor", spike.factor.into(), 10_001, 100_000_000),
            Range("breakers.volume_spike.floor", spike.floor, 0, 1_000_000_000_000),
            Range("breakers.stale_data.after_seconds", stale.after_seconds.into(), 5, 3_600),
        ];
        ranges.extend(self.alarms.thresholds.iter().map(|n| Range("alarms.thresholds", (*n).into(), 1, 10_000)));
        ranges
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the key, the value and the range.
    pub fn check(&self) -> Result<(), String> {
        for Range(key, value, least, most) in self.ranges() {
            if !(least..=most).contains(&value) {
                return Err(format!("risk.{key} = {value}: expected {least} to {most}"));
            }
        }
        if self.alarms.thresholds.len() > 8 {
            return Err(format!("risk.alarms.thresholds has {} entries: at most 8", self.alarms.thresholds.len()));
        }
        let spike = &self.breakers.volume_spike;
        for (key, seconds) in [
            ("reject_rate.window_seconds", self.breakers.reject_rate.window_seconds),
            ("volume_spike.interval_seconds", spike.interval_seconds),
        ] {
            if i64::from(seconds) % BUCKET_SECONDS != 0 {
                return Err(format!("risk.breakers.{key} = {seconds}: expected a multiple of {BUCKET_SECONDS}"));
            }
        }
        let together = u64::from(spike.interval_seconds) * (u64::from(spike.intervals) + 1);
        if together > HISTORY_SECONDS as u64 {
            return Err(format!(
                "risk.breakers.volume_spike takes {together} s in all: expected at most {HISTORY_SECONDS}"
            ));
        }
        self.zone()?;
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

    fn zone(&self) -> Result<TimeZone, String> {
        TimeZone::get(&self.time_zone)
            .map_err(|_| format!("risk.time_zone = {:?} is no IANA time zone", self.time_zone))
    }

    /// What the parts of the engine work with.
    ///
    /// # Errors
    /// As [`Settings::check`].
    pub fn checked(&self) -> Result<Checked, String> {
        self.check()?;
        let breakers = &self.breakers;
        Ok(Checked {
            stale_after: Duration::from_secs(self.stale_after_seconds),
            approve_wait: Duration::from_millis(self.approve_wait_ms),
            zone: self.zone()?,
            snapshot_every: (self.snapshot_seconds > 0).then(|| i64::from(self.snapshot_seconds) * 1_000_000),
            maxima: self.maxima()?,
            alarms: Alarms {
                thresholds: self.alarms.thresholds.iter().copied().collect(),
                hysteresis: self.alarms.hysteresis,
            },
            recovery: Recovery {
                cool_down: i64::from(breakers.cool_down_seconds) * 1_000_000,
                probes: breakers.probes,
                refused_share: breakers.refused_share,
            },
            breakers: breakers.clone(),
        })
    }
}

/// Seconds for which decisions are kept.
pub const HISTORY_SECONDS: i64 = 7_200;

/// Settings that were checked, in the shapes that the engine works with; times in microseconds.
#[derive(Debug, Clone)]
pub struct Checked {
    /// For how long memory may go without being compared.
    pub stale_after: Duration,
    /// How long `ApproveLimit` waits.
    pub approve_wait: Duration,
    zone: TimeZone,
    /// Between two snapshots, where there are any beside those on sealing.
    pub snapshot_every: Option<i64>,
    /// The largest single transactions.
    pub maxima: BTreeMap<Currency, Money>,
    /// When alarms ring.
    pub alarms: Alarms,
    /// How breakers recover.
    pub recovery: Recovery,
    breakers: BreakerSettings,
}

impl Checked {
    /// The business day of a moment, such as `2026-11-20`.
    pub fn day_of(&self, at: Timestamp) -> String {
        at.to_jiff().to_zoned(self.zone.clone()).date().to_string()
    }

    /// What trips the breaker of a scope.
    pub fn thresholds(&self, scope: Scope) -> Thresholds {
        let (reject, spike) = (&self.breakers.reject_rate, &self.breakers.volume_spike);
        let kind = ScopeKind::from(scope);
        Thresholds {
            reject_rate: (reject.enabled && reject.scopes.contains(&kind)).then(|| RejectRate {
                window_seconds: reject.window_seconds.into(),
                minimum: reject.minimum,
                share: reject.share,
            }),
            volume_spike: (spike.enabled && spike.scopes.contains(&kind)).then(|| VolumeSpike {
                interval_seconds: spike.interval_seconds.into(),
                intervals: spike.intervals,
                factor: spike.factor,
                floor: spike.floor,
            }),
        }
    }

    /// After how long behind the ledger breakers trip, where they do.
    pub fn stale_data_after(&self) -> Option<Duration> {
        let stale = &self.breakers.stale_data;
        stale.enabled.then(|| Duration::from_secs(stale.after_seconds.into()))
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
