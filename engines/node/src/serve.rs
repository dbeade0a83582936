//! `deltran serve`: chosen engines against a broker and databases that run already.

use clap::Args;
use deltran_runtime::boot::stop_signal;
use deltran_runtime::telemetry;
use serde_json::json;

use crate::boot::{self, ConfigArgs};
use crate::engines::named;
use crate::output::{Output, say};
use crate::problem::Problem;

/// Run chosen engines against the configured broker and Postgres
#[derive(Debug, Args)]
#[command(
    after_help = "Engines: token, compliance, risk, clearing, settlement, notification, reporting, audit. Addresses of engines \
that run elsewhere stand in the configuration as [peers]. Streams and consumers are brought into line by `deltran topology apply`, not here. Logs are JSON \
on standard error.

Exit code 3 where the broker or a database does not answer at the start.

Examples:
  DELTRAN_NATS_URL=nats://10.0.0.7:4222 DELTRAN_DATABASE_URL=postgres://… deltran serve token compliance risk
  deltran serve clearing settlement --config /etc/deltran.toml --grpc-port 50052 --http-port 8081"
)]
pub struct ServeArgs {
    /// The engines
    #[arg(required = true, value_name = "ENGINE")]
    engines: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs until it is told to stop.
///
/// # Errors
/// Where something is missing or does not answer, or a listener fails.
pub async fn run(args: ServeArgs, out: Output) -> Result<(), Problem> {
    let stop = stop_signal().map_err(|e| Problem::refused(format!("signals: {e}")))?;
    tokio::pin!(stop);
    let entries = named(&args.engines)?;
    let config = args.config.load()?;
    telemetry::start(&config.telemetry).map_err(Problem::usage)?;
    if config.nats.url.is_empty() {
        return Err(Problem::usage("no broker is configured: set DELTRAN_NATS_URL, or nats.url in deltran.toml"));
    }
    if let Some(entry) = entries.iter().find(|entry| config.database_url(entry.name).is_empty()) {
        return Err(Problem::usage(format!(
            "no database is configured for engine {}: set DELTRAN_DATABASE_URL, or database.url in deltran.toml",
            entry.name
        )));
    }
    let (listeners, _) = boot::bind(&config, (false, false)).await?;
    let prepare = async {
        let broker = boot::connect(&config.nats.url, "deltran").await?;
        boot::migrate(&config, &entries).await?;
        boot::warn_of_drift(&config, &broker).await?;
        let assembled = boot::assemble(config.clone(), &entries, &broker)?;
        boot::settle(&config, &broker, &assembled).await?;
        Ok::<_, Problem>(assembled)
    };
    let assembled = tokio::select! {
        assembled = prepare => assembled?,
        () = &mut stop => return Ok(()),
    };
    let names: Vec<_> = entries.iter().map(|entry| entry.name).collect();
    let (grpc, http) = (listeners.grpc_address, listeners.http_address);
    let ready = move || {
        if out.json {
            let at = json!({"ready": true, "engines": names, "grpc": format!("http://{grpc}"), "http": format!("http://{http}")});
            out.value(&at);
        } else {
            let names = names.join(", ");
            say(&format!(
                "{names}: gRPC http://{grpc}, HTTP http://{http}; TLS is off, only loopback is served\nready"
            ));
        }
    };
    boot::serve(assembled, listeners, ready, stop).await
}
