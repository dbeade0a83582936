//! Tests of `netting`.
