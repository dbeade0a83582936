//! The engines that the harness can run: the one place that names them.

use deltran_events::Domain;
use deltran_messaging::{Broker, Outbox};
use deltran_runtime::boot::BootError;
use deltran_runtime::{Engine, EngineContext};
use sqlx::migrate::Migrator;

/// An engine of the platform.
pub struct Part {
    /// Its name, its schema's and its role's.
    pub name: &'static str,
    /// Where it publishes.
    pub domain: Domain,
    /// Its own tables.
    pub migrator: &'static Migrator,
    /// Makes it.
    pub build: fn(EngineContext, Broker, Outbox) -> Result<Engine, BootError>,
}

macro_rules! parts {
    ($($engine:ident),* $(,)?) => {
        /// Every engine.
        pub fn parts() -> Vec<Part> {
            vec![$(Part {
                name: $engine::NAME,
                domain: Domain::of_engine($engine::NAME).expect("an engine publishes in a domain"),
                migrator: &$engine::MIGRATOR,
                build: $engine::engine,
            }),*]
        }
    };
}

parts!(
    deltran_token,
    deltran_compliance,
    deltran_risk,
    deltran_clearing,
    deltran_settlement,
    deltran_notification,
    deltran_reporting,
    deltran_audit
);
