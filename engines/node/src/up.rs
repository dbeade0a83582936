//! `deltran up`: everything in one process, on private servers unless others are given.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use deltran_notification::config::Settings;
use deltran_notification::webhook::random::SystemRandom;
use deltran_notification::webhook::vault::fresh_key;
use deltran_runtime::boot::{Listeners, stop_signal};
use deltran_runtime::config::{Config, LogFormat, Telemetry};
use deltran_runtime::embedded::{self, Embedded};
use deltran_runtime::files::write_whole;
use deltran_runtime::{lease, telemetry};
use serde_json::json;

use crate::boot::{self, ConfigArgs};
use crate::client::audit_proof::new_key;
use crate::endpoint::{DEFAULT_DATA, Endpoint};
use crate::engines::ENGINES;
use crate::output::{Output, say};
use crate::problem::Problem;

/// Run the whole platform in one process, until Ctrl-C
#[derive(Debug, Args)]
#[command(
    after_help = "A private broker and a private Postgres are started under the data folder, unless DELTRAN_NATS_URL or \
DELTRAN_DATABASE_URL \
(or nats.url, database.url in deltran.toml) name others. Ports 50051, 8080, 4222, 8222 and 5432 are used where they are free, \
others where they are not. TLS is off and only loopback is served. Commands run from the same folder find the platform by \
itself.

On a terminal the log shows warnings only; DELTRAN_TELEMETRY_LOG=debug shows more.

Examples:
  deltran up
  deltran up --data /var/tmp/deltran --grpc-port 0 --http-port 0
  DELTRAN_NATS_URL=nats://10.0.0.7:4222 deltran up"
)]
pub struct UpArgs {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    data: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
    /// Port for the private broker; 0 picks a free one
    #[arg(long, value_name = "PORT")]
    nats_port: Option<u16>,
    /// Port for the private Postgres; 0 picks a free one
    #[arg(long, value_name = "PORT")]
    postgres_port: Option<u16>,
}

/// Runs until it is told to stop.
///
/// # Errors
/// Where something cannot be started, or a listener fails.
pub async fn run(args: UpArgs, out: Output) -> Result<(), Problem> {
    let stop = stop_signal().map_err(|e| Problem::refused(format!("signals: {e}")))?;
    tokio::pin!(stop);
    let mut config = args.config.load()?;
    start_log(&config.telemetry)?;
    if let Some(other) = Endpoint::find(&args.data) {
        return Err(Problem::refused(format!(
            "the data folder {} is in use by `deltran up`, process {}: stop that one, or give another folder with --data",
            args.data.display(),
            other.pid
        )));
    }
    let usual = Config::default();
    let or_free = (
        args.config.grpc_port.is_none() && config.grpc.listen == usual.grpc.listen,
        args.config.http_port.is_none() && config.http.listen == usual.http.listen,
    );
    let (listeners, mut notes) = boot::bind(&config, or_free).await?;

    let given = |url: &str| (!url.is_empty()).then(|| url.to_owned());
    let options = embedded::Options {
        data: args.data.clone(),
        nats_url: given(&config.nats.url),
        database_url: given(&config.database.url),
        nats_port: args.nats_port,
        postgres_port: args.postgres_port,
        ..embedded::Options::default()
    };
    let servers = tokio::select! {
        servers = Embedded::start(options) => servers?,
        () = &mut stop => return Ok(()),
    };
    let private_database = config.database.url.is_empty() && config.database.engines.is_empty();
    config.nats.url = servers.nats_url().to_owned();
    config.database.url = servers.database_url().to_owned();
    notes.extend(servers.notes().iter().cloned());
    config.set_where_unset("reporting", "directory", args.data.join("reports").display().to_string());
    if let Err(problem) =
        prepare_webhooks(&mut config, &args.data).and_then(|()| prepare_audit(&mut config, &args.data))
    {
        servers.stop().await;
        return Err(problem);
    }

    let place = Place { data: args.data.clone(), notes, out, private_database };
    let served = engines(config, listeners, place, stop).await;
    // Whatever became of the engines, the servers are not left behind.
    servers.stop().await;
    served
}

/// Webhooks work without being configured: their secrets are encrypted by a key in the data folder, and they may go to
/// what listens on this machine.
fn prepare_webhooks(config: &mut Config, data: &Path) -> Result<(), Problem> {
    let section = deltran_notification::NAME;
    config.set_where_unset(section, "allow_loopback", true);
    let settings: Settings = config.section(section)?;
    if !settings.master_key.is_empty() || !settings.master_key_file.is_empty() {
        return Ok(());
    }
    let file = std::path::absolute(data.join("notification.key")).map_err(|e| Problem::refused(e.to_string()))?;
    let failed = |e: &dyn std::fmt::Display| Problem::refused(format!("the key file {}: {e}", file.display()));
    if !file.exists() {
        // What it encrypts cannot be read without it.
        let key = fresh_key(&SystemRandom::default()).map_err(|e| failed(&e))?;
        write_whole(&file, format!("{key}\n").as_bytes(), 0o600).map_err(|e| failed(&e))?;
    }
    config.set_where_unset(section, "master_key_file", file.display().to_string());
    Ok(())
}

/// Checkpoints are signed without being configured: the key is in the data folder.
///
/// # Errors
/// Where the key cannot be written.
pub(crate) fn prepare_audit(config: &mut Config, data: &Path) -> Result<(), Problem> {
    let section = deltran_audit::NAME;
    if !config.section::<deltran_audit::config::Settings>(section)?.key_files.is_empty() {
        return Ok(());
    }
    let file = std::path::absolute(data.join("audit.key")).map_err(|e| Problem::refused(e.to_string()))?;
    if !file.exists() {
        new_key(&file, &config.deployment)?;
    }
    config.set_where_unset(section, "key_files", vec![file.display().to_string()]);
    Ok(())
}

/// What is said about where everything is.
struct Place {
    data: PathBuf,
    notes: Vec<String>,
    out: Output,
    private_database: bool,
}

async fn engines(
    config: Config,
    listeners: Listeners,
    place: Place,
    mut stop: std::pin::Pin<&mut (impl Future<Output = ()> + Send)>,
) -> Result<(), Problem> {
    let entries: Vec<_> = ENGINES.iter().collect();
    let prepare = async {
        let broker = boot::connect(&config.nats.url, "deltran").await?;
        boot::migrate(&config, &entries).await?;
        boot::apply_topology(&config, &broker).await?;
        let assembled = boot::assemble(config.clone(), &entries, &broker)?;
        if place.private_database {
            // The data folder is locked: whoever held a lease of this database has ended.
            for (db, _) in &assembled.outboxes {
                lease::end_all(db).await?;
            }
        }
        boot::settle(&config, &broker, &assembled).await?;
        Ok::<_, Problem>(assembled)
    };
    let assembled = tokio::select! {
        assembled = prepare => assembled?,
        () = &mut stop => return Ok(()),
    };
    let endpoint = Endpoint {
        grpc: format!("http://{}", listeners.grpc_address),
        http: format!("http://{}", listeners.http_address),
        nats: config.nats.url.clone(),
        pid: std::process::id().cast_signed(),
    };
    let written = endpoint
        .write(&place.data)
        .map_err(|e| Problem::refused(format!("cannot write the endpoint file in {}: {e}", place.data.display())))?;
    let announcement = move || announce(&config, &endpoint, &place);
    let served = boot::serve(assembled, listeners, announcement, stop).await;
    drop(written);
    served
}

fn announce(config: &Config, endpoint: &Endpoint, place: &Place) {
    let data = std::path::absolute(&place.data).unwrap_or_else(|_| place.data.clone());
    let database = boot::without_password(&config.database.url);
    if place.out.json {
        place.out.value(&json!({
            "ready": true, "version": env!("CARGO_PKG_VERSION"), "deployment": config.deployment, "pid": endpoint.pid,
            "grpc": endpoint.grpc, "http": endpoint.http, "nats": boot::without_password(&endpoint.nats),
            "database": database, "data": data.display().to_string(), "tls": false, "notes": place.notes,
        }));
        return;
    }
    let password = password_file(&data).map(|file| format!(", password in {}", file.display())).unwrap_or_default();
    let mut lines = vec![
        format!("DelTran {} \"{}\"", env!("CARGO_PKG_VERSION"), config.deployment),
        format!("gRPC      {}, with health and reflection", endpoint.grpc),
        format!("HTTP      {}/readyz, /healthz, /metrics", endpoint.http),
        format!("broker    {}", boot::without_password(&endpoint.nats)),
        format!("Postgres  {database}{password}"),
        format!("data      {}", data.display()),
        "TLS is off: only loopback is served, and callers name themselves".to_owned(),
        "names are screened against the list of invented names that ships with the product, until `deltran list load` \
         replaces it, and against the lists that it adds"
            .to_owned(),
    ];
    if config.section::<Settings>(deltran_notification::NAME).is_ok_and(|settings| settings.allow_loopback) {
        lines.push("webhooks may go to this machine, over http too (notification.allow_loopback)".to_owned());
    }
    lines.extend(place.notes.iter().map(|note| format!("note: {note}")));
    lines.push("ready".to_owned());
    say(&lines.join("\n"));
}

fn password_file(data: &Path) -> Option<PathBuf> {
    let file = data.join("postgres.password");
    file.is_file().then_some(file)
}

/// JSON to a file or a collector, warnings as text to a person, unless the configuration says otherwise.
fn start_log(configured: &Telemetry) -> Result<(), Problem> {
    let mut options = configured.clone();
    if std::io::stderr().is_terminal() && options.format == LogFormat::Json {
        options.format = LogFormat::Text;
        if options.log == Telemetry::default().log {
            options.log = "warn".to_owned();
        }
    }
    telemetry::start(&options).map_err(Problem::usage)
}
