//! Tests of `obligations`.
