//! The pure decisions of clearing: windows, schedules, obligations, sealing and netting.
//!
//! Time and ids come in as arguments; what is to be stored and published goes out as data.
#![deny(clippy::float_arithmetic)]

pub mod netting;
pub mod obligations;
pub mod orders;
pub mod schedule;
pub mod sealing;
pub mod settling;
pub mod window;

pub use window::{Change, Decision, Refusal, Window, WindowState, Write};
