//! Decisions: no async, no SQL, no clock, no randomness.

pub mod address;
pub mod breaker;
pub mod delivery;
pub mod endpoint;
pub mod notification;
pub mod retry;
pub mod route;
pub mod sign;
pub mod subscription;

pub use notification::{Kind, Notification};
