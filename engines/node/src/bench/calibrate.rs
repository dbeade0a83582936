//! The calibration: how fast one core of this machine is just now, so that figures of different machines and moments can
//! be compared as ratios.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

const SLICE: Duration = Duration::from_millis(100);
const SLICES: usize = 10;

/// Rounds a second of reading a small JSON document, writing it again and hashing it, in the best of some slices.
pub fn calibrate() -> f64 {
    let mut text = String::from(r#"{"number":0,"text":"of some length","list":[1,2,3],"inner":{"a":null,"b":true}}"#);
    let mut best = 0.0f64;
    for _ in 0..SLICES {
        let started = Instant::now();
        let mut rounds = 0u32;
        while started.elapsed() < SLICE {
            for _ in 0..100 {
                let mut value: Value = serde_json::from_str(&text).unwrap_or_default();
                value["number"] = Sha256::digest(text.as_bytes())[0].into();
                text = value.to_string();
            }
            rounds += 100;
        }
        best = best.max(f64::from(rounds) / started.elapsed().as_secs_f64());
    }
    best
}
