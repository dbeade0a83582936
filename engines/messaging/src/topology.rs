//! Streams and consumers against their configuration: plan, apply, check.
