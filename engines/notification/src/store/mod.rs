//! The tables of notification; the only SQL.

pub mod deliveries;
pub mod endpoints;
pub mod feed;
pub mod subscriptions;
