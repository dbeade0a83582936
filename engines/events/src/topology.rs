//! The catalog of streams and consumers.

use std::time::Duration;

/// A durable consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSpec {
    /// Its stream.
    pub stream: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it reads.
    pub filter_subjects: &'static [&'static str],
    /// Deliveries before the broker gives up; -1 is unlimited.
    pub max_deliver: i64,
    /// Time for an acknowledgement.
    pub ack_wait: Duration,
    /// Deliveries under way at once.
    pub max_ack_pending: i64,
    /// Whether it must not skip.
    pub strict: bool,
    /// What it is for.
    pub purpose: &'static str,
    /// The engine that reads it.
    pub engine: &'static str,
}

/// The consumer of a stream by name.
pub fn consumer(_stream: &str, _name: &str) -> Option<&'static ConsumerSpec> {
    None
}
