//! Structured logs: JSON for machines, text for people.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{LogFormat, Telemetry};

/// Starts logging to standard error, once per process.
///
/// # Errors
/// Where the filter cannot be parsed or logging was started before.
pub fn start(options: &Telemetry) -> Result<(), String> {
    let filter = EnvFilter::try_new(&options.log).map_err(|e| format!("telemetry.log = {:?}: {e}", options.log))?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_span_events(FmtSpan::NONE);
    match options.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_target(false).try_init(),
    }
    .map_err(|e| e.to_string())
}
