//! The engines, in the order in which they are migrated and shown.

use deltran_messaging::{Broker, Outbox, SHARED_TABLES};
use deltran_runtime::boot::BootError;
use deltran_runtime::config::{Config, ConfigError};
use deltran_runtime::{DbError, Engine, EngineContext, db};
use futures::future::BoxFuture;

use crate::problem::Problem;

/// What the node knows about an engine.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Creates its schema and brings it up to date.
    pub migrate: fn(String) -> BoxFuture<'static, Result<(), DbError>>,
    /// Reads its section of the configuration, whether it is served or not.
    pub check: fn(&Config) -> Result<(), ConfigError>,
    /// Makes it.
    pub engine: fn(EngineContext, Broker, Outbox) -> Result<Engine, BootError>,
}

macro_rules! entry {
    ($engine:ident, $settings:ty) => {
        Entry {
            name: $engine::NAME,
            migrate: |url| {
                Box::pin(async move { db::migrate($engine::NAME, &url, &SHARED_TABLES, &$engine::MIGRATOR).await })
            },
            check: |config| config.section::<$settings>($engine::NAME).map(|_| ()),
            engine: $engine::engine,
        }
    };
}

/// Every engine.
pub static ENGINES: &[Entry] = &[
    entry!(deltran_token, deltran_token::config::Settings),
    entry!(deltran_compliance, deltran_compliance::config::Settings),
    entry!(deltran_risk, deltran_risk::config::Settings),
    entry!(deltran_clearing, deltran_clearing::config::Settings),
    entry!(deltran_settlement, deltran_settlement::config::Settings),
    entry!(deltran_notification, deltran_notification::config::Settings),
    entry!(deltran_reporting, deltran_reporting::config::Settings),
    entry!(deltran_audit, deltran_audit::config::Settings),
];

/// The engines of these names, each once.
///
/// # Errors
/// Wrong usage where a name is none of them.
pub fn named(names: &[String]) -> Result<Vec<&'static Entry>, Problem> {
    for name in names {
        if !ENGINES.iter().any(|entry| entry.name == name) {
            return Err(Problem::usage(format!("there is no engine {name:?}: known are {}", words())));
        }
    }
    Ok(ENGINES.iter().filter(|entry| names.iter().any(|name| entry.name == name)).collect())
}

fn words() -> String {
    ENGINES.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use deltran_runtime::config::ENGINE_SECTIONS;

    use super::*;

    #[test]
    fn names_are_known_or_said_to_be_not() {
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
            named(&names).map(|entries| entries.iter().map(|e| e.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["clearing", "token", "token"]).unwrap(), ["token", "clearing"]);
        let unknown = names(&["mint"]).unwrap_err();
        assert_eq!(unknown.kind.code(), 2);
        assert!(unknown.message.contains("token, compliance"), "{unknown}");
    }

    #[test]
    fn every_section_belongs_to_an_engine() {
        let mut names: Vec<_> = ENGINES.iter().map(|e| e.name).collect();
        let mut sections = ENGINE_SECTIONS.to_vec();
        names.sort_unstable();
        sections.sort_unstable();
        assert_eq!(names, sections);
    }
}
