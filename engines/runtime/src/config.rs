//! Configuration: one `deltran.toml`, environment variables over it, flags over those.
//!
//! Unknown keys are errors that name the key. Engines read their own section with
//! [`Config::section`], so that this file knows none of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Names of the sections that belong to engines.
pub const ENGINE_SECTIONS: [&str; 8] =
    ["token", "compliance", "clearing", "settlement", "risk", "notification", "reporting", "audit"];

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// The content does not fit.
    #[error("{origin}: {cause}")]
    Invalid {
        /// File, variable or section.
        origin: String,
        /// What is wrong, naming the key.
        cause: String,
    },
}

/// The configuration of a process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of the deployment; appears in the audit ledger's origin line.
    pub deployment: String,
    /// Postgres.
    pub database: Database,
    /// The broker.
    pub nats: Nats,
    /// Where gRPC listens.
    pub grpc: Listen,
    /// Where `/healthz`, `/readyz` and `/metrics` listen.
    pub http: Listen,
    /// Addresses of engines that run elsewhere, such as `token = "http://10.0.0.5:50051"`.
    pub peers: BTreeMap<String, String>,
    /// Logs.
    pub telemetry: Telemetry,
    /// The outbox and its relay.
    pub messaging: Messaging,
    token: Table,
    compliance: Table,
    clearing: Table,
    settlement: Table,
    risk: Table,
    notification: Table,
    reporting: Table,
    audit: Table,
}

/// Where Postgres is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// URL of the database for all engines that have none of their own. Prefer DELTRAN_DATABASE_URL.
    pub url: String,
    /// URLs by engine.
    pub engines: BTreeMap<String, String>,
    /// Connections per engine.
    pub max_connections: u32,
    /// Milliseconds to wait for a connection before the database counts as unavailable.
    pub acquire_timeout_ms: u64,
}

/// Where the broker is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nats {
    /// URL, or several with commas between. Prefer DELTRAN_NATS_URL.
    pub url: String,
    /// `development` (one replica) or `production` (three).
    pub profile: String,
}

/// An address to listen on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// A filter such as `info` or `info,deltran_token=debug`.
    pub log: String,
    /// `json` or `text`.
    pub format: LogFormat,
}

/// The outbox and its relay.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Messaging {
    /// Events that may wait in an outbox for the broker before new submissions are refused.
    pub max_outbox_backlog: u64,
    /// Publishes under way at once.
    pub publish_window: usize,
    /// Events per consumer transaction.
    pub consumer_batch: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deployment: "local".into(),
            database: Database::default(),
            nats: Nats::default(),
            grpc: Listen { listen: SocketAddr::from(([127, 0, 0, 1], 50051)) },
            http: Listen { listen: SocketAddr::from(([127, 0, 0, 1], 8080)) },
            peers: BTreeMap::new(),
            telemetry: Telemetry::default(),
            messaging: Messaging::default(),
            token: Table::new(),
            compliance: Table::new(),
            clearing: Table::new(),
            settlement: Table::new(),
            risk: Table::new(),
            notification: Table::new(),
            reporting: Table::new(),
            audit: Table::new(),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self { url: String::new(), engines: BTreeMap::new(), max_connections: 10, acquire_timeout_ms: 3000 }
    }
}

impl Default for Nats {
    fn default() -> Self {
        Self { url: String::new(), profile: "development".into() }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: "info,sqlx=warn,async_nats=warn".into(), format: LogFormat::Json }
    }
}

impl Default for Messaging {
    fn default() -> Self {
        Self { max_outbox_backlog: 1_000_000, publish_window: 2_000, consumer_batch: 2_000 }
    }
}

impl Config {
    /// Reads a file (none means defaults) and lays `environment` over it: `DELTRAN_NATS_URL` is
    /// `nats.url`, `DELTRAN_GRPC_LISTEN` is `grpc.listen`.
    ///
    /// # Errors
    /// Where the file or a variable does not fit, naming the key.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (origin, text) = match path {
            None => ("defaults".to_owned(), String::new()),
            Some(path) => {
                let origin = path.display().to_string();
                let text = std::fs::read_to_string(path)
                    .map_err(|e| ConfigError::Unreadable { path: origin.clone(), cause: e.to_string() })?;
                (origin, text)
            }
        };
        let mut table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| ConfigError::Invalid { origin: origin.clone(), cause: e.to_string() })?;
        // The file alone first, so that an error names the file and not the environment.
        let _checked: Self = Self::from_table(table.clone(), &origin)?;
        for (name, value) in environment {
            overlay(&mut table, &name, &value);
        }
        let config = Self::from_table(table, "environment (DELTRAN_…)")?;
        config.check()?;
        Ok(config)
    }

    fn from_table(table: Table, origin: &str) -> Result<Self, ConfigError> {
        table
            .try_into()
            .map_err(|e: toml::de::Error| ConfigError::Invalid { origin: origin.to_owned(), cause: e.to_string() })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let invalid = |origin: &str, cause: String| Err(ConfigError::Invalid { origin: origin.into(), cause });
        for (key, address) in [("grpc.listen", self.grpc.listen), ("http.listen", self.http.listen)] {
            if !address.ip().is_loopback() {
                return invalid(
                    key,
                    format!(
                        "{address} is not a loopback address: without TLS only loopback is served, and this release has no TLS"
                    ),
                );
            }
        }
        if !["development", "production"].contains(&self.nats.profile.as_str()) {
            return invalid(
                "nats.profile",
                format!("{:?} is neither \"development\" nor \"production\"", self.nats.profile),
            );
        }
        for engine in self.peers.keys().chain(self.database.engines.keys()) {
            if !ENGINE_SECTIONS.contains(&engine.as_str()) {
                return invalid("peers / database.engines", format!("{engine:?} is no engine of this release"));
            }
        }
        Ok(())
    }

    /// The section of an engine as its own type; unknown keys are errors.
    ///
    /// # Errors
    /// Where the section does not fit.
    pub fn section<T: DeserializeOwned>(&self, engine: &str) -> Result<T, ConfigError> {
        let table = match engine {
            "token" => &self.token,
            "compliance" => &self.compliance,
            "clearing" => &self.clearing,
            "settlement" => &self.settlement,
            "risk" => &self.risk,
            "notification" => &self.notification,
            "reporting" => &self.reporting,
            "audit" => &self.audit,
            other => {
                return Err(ConfigError::Invalid {
                    origin: other.into(),
                    cause: "is no engine of this release".into(),
                });
            }
        };
        table.clone().try_into().map_err(|e: toml::de::Error| ConfigError::Invalid {
            origin: format!("section [{engine}]"),
            cause: e.to_string(),
        })
    }

    /// Sets a key of an engine's section, where neither the file nor the environment did. For what a program
    /// knows by itself, such as a file in its data folder.
    pub fn set_where_unset(&mut self, engine: &str, key: &str, value: impl Into<Value>) {
        let table = match engine {
            "token" => &mut self.token,
            "compliance" => &mut self.compliance,
            "clearing" => &mut self.clearing,
            "settlement" => &mut self.settlement,
            "risk" => &mut self.risk,
            "notification" => &mut self.notification,
            "reporting" => &mut self.reporting,
            "audit" => &mut self.audit,
            _ => return,
        };
        table.entry(key).or_insert_with(|| value.into());
    }

    /// The database URL of an engine.
    pub fn database_url(&self, engine: &str) -> &str {
        self.database.engines.get(engine).unwrap_or(&self.database.url)
    }
}

/// Variables that belong to tools around the node and not to its configuration.
const NOT_CONFIGURATION: [&str; 4] =
    ["DELTRAN_TEST_", "DELTRAN_CLIENT_", "DELTRAN_NATS_SERVER", "DELTRAN_POSTGRES_BIN"];

fn overlay(table: &mut Table, name: &str, value: &str) {
    let Some(rest) = name.strip_prefix("DELTRAN_") else { return };
    if NOT_CONFIGURATION.iter().any(|prefix| name.starts_with(prefix)) {
        return;
    }
    let key = rest.to_ascii_lowercase();
    // "1000" is a number, "true" a truth value, anything else a text.
    let value = match value.parse::<Value>() {
        Ok(value @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_))) => value,
        _ => Value::String(value.to_owned()),
    };
    match key.split_once('_') {
        None => {
            table.insert(key, value);
        }
        Some((section, key)) => {
            let section = table.entry(section.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(key.to_owned(), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(Some(file.path()), environment).map_err(|e| e.to_string())
    }

    #[test]
    fn unknown_keys_are_named() {
        for (text, key) in
            [("colour = 1", "colour"), ("[nats]\nurll = \"x\"", "urll"), ("[peers]\nmint = \"http://x\"", "mint")]
        {
            assert!(load(text, &[]).unwrap_err().contains(key), "{text}");
        }
        assert!(load("", &[("DELTRAN_NATS_COLOUR", "red")]).unwrap_err().contains("colour"));
    }

    #[test]
    fn the_environment_goes_over_the_file() {
        let config = load(
            "[nats]\nurl = \"nats://file:1\"",
            &[("DELTRAN_NATS_URL", "nats://env:2"), ("DELTRAN_DATABASE_MAX_CONNECTIONS", "3"), ("DELTRAN_TEST_X", "y")],
        )
        .unwrap();
        assert_eq!((config.nats.url.as_str(), config.database.max_connections), ("nats://env:2", 3));
    }

    #[test]
    fn only_loopback_is_served_without_tls() {
        assert!(load("[grpc]\nlisten = \"0.0.0.0:50051\"", &[]).unwrap_err().contains("0.0.0.0:50051"));
        assert!(load("[grpc]\nlisten = \"[::1]:0\"", &[]).is_ok());
    }
}
