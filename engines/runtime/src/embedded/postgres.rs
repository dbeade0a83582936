//! The private Postgres: one cluster in the data folder, on loopback only, with a password of its own.

use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use rand::{TryRng, rngs::SysRng};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions, postgres::PgSslMode};
use tokio::process::Command;
use tokio::time::timeout;

use super::error::{At, EmbeddedError};
use super::find::{self, Version};
use super::left;
use super::place::{self, Place};
use super::process::{self, Owner, Plan, Readiness, Registry, Running, Steps, Supervised};
use super::{Started, ports};

const SERVER: &str = "Postgres";
const VARIABLE: &str = "DELTRAN_POSTGRES_BIN";
const NEEDED: &str = "15 or later";
const USER: &str = "postgres";
const DATABASE: &str = "deltran";
/// Time to replay the log after an unclean end.
const PATIENCE: Duration = Duration::from_secs(120);
const ANSWER: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;
/// Fast shutdown, which rolls back what is open; then at once, which the next start repairs. SIGKILL would leave the
/// server processes without their head for a moment.
pub(super) const STEPS: Steps =
    &[(Signal::SIGINT, Duration::from_secs(60)), (Signal::SIGQUIT, Duration::from_secs(10))];

/// The settings, rewritten at each start. One's own go in with ALTER SYSTEM, which wins over these.
const SETTINGS: &str = "\
# Written by deltran at each start. Settings of your own: ALTER SYSTEM SET …, which wins over this file.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 400
shared_buffers = '512MB'

# Committed means durable.
fsync = on
synchronous_commit = on
full_page_writes = on
max_wal_size = '4GB'

# Below the lease time of 3 s: a holder that froze must have lost its transaction when another takes over.
idle_in_transaction_session_timeout = '2500ms'

# Short statements on small batches: compiling them costs more than it brings.
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
logging_collector = off
";

struct Binaries {
    folder: PathBuf,
    version: Version,
}

pub(super) async fn start(data: &Path, wish: Option<u16>, registry: &Arc<Registry>) -> Result<Started, EmbeddedError> {
    let folder = data.join("postgres");
    super::make_folder(&folder, 0o711)?;
    let password_file = data.join("postgres.password");
    let (place, mut notes) = place::choose(data, &folder, &password_file)?;
    let cluster = place.cluster();

    let exists = cluster.join("PG_VERSION").exists();
    let cluster_version = if exists { Some(cluster_version(&cluster)?) } else { None };
    let binaries = {
        let cluster = cluster.clone();
        tokio::task::spawn_blocking(move || find_binaries(&cluster, cluster_version.as_deref())).await??
    };
    let password = password(&password_file, exists.then_some(&cluster))?;
    if !exists {
        initdb(&binaries, &place, &password).await?;
    }
    let settings = place.base.join("deltran.conf");
    write_settings(&settings, "on")?;
    notes.extend(clear_left(&cluster).await?);

    let mut attempt = 1;
    loop {
        let port = ports::choose(SERVER, wish, 5432)?;
        let mut args = vec!["-D".into(), cluster.clone().into_os_string()];
        args.extend(["-p".into(), port.port.to_string().into()]);
        let plan = Plan {
            name: "postgres",
            program: binaries.folder.join("postgres"),
            args,
            folder: "/".into(),
            owner: place.owner.clone(),
            log: folder.join("postgres.log"),
            steps: STEPS,
        };
        let connect = connect_options(port.port, &password);
        match process::launch(plan, registry, PATIENCE, || ready(&connect)).await {
            Ok(running) => {
                let running = prepared(running, &connect, &settings).await?;
                notes.extend(port.note);
                let url = format!("postgres://{USER}:{password}@127.0.0.1:{}/{DATABASE}?sslmode=disable", port.port);
                return Ok(Started { supervised: Supervised::watch(running), url, notes });
            }
            // Somebody else was quicker to take a port that was free when it was chosen, or the server processes of a head
            // that was killed have not all noticed yet.
            Err(EmbeddedError::Exited { .. })
                if attempt < ATTEMPTS && (ports::taken(port.port).is_some() || exists) =>
            {
                attempt += 1;
                wait_until_empty(&cluster).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn write_settings(file: &Path, compression: &str) -> Result<(), EmbeddedError> {
    // Elsewhere the system has no such limit, and the server would complain at every connection.
    let linux = if cfg!(target_os = "linux") { "tcp_user_timeout = '4s'\n" } else { "" };
    std::fs::write(file, format!("{SETTINGS}wal_compression = {compression}\n{linux}")).at("write", file)?;
    // Readable for the user of Postgres, whatever the umask.
    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(file, readable).at("open", file)
}

fn connect_options(port: u16, password: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(USER)
        .password(password)
        .database("postgres")
        .ssl_mode(PgSslMode::Disable)
        .disable_statement_logging()
}

async fn ready(options: &PgConnectOptions) -> Readiness {
    match timeout(ANSWER, PgConnection::connect_with(options)).await {
        Ok(Ok(connection)) => match connection.close().await {
            Ok(()) => Readiness::Ready,
            Err(error) => Readiness::NotYet(error.to_string()),
        },
        // A wrong password stays wrong.
        Ok(Err(source)) if source.as_database_error().and_then(|error| error.code()).as_deref() == Some("28P01") => {
            Readiness::Never(EmbeddedError::Database {
                action: "log in with the password in postgres.password",
                source,
            })
        }
        Ok(Err(error)) => Readiness::NotYet(error.to_string()),
        Err(_) => Readiness::NotYet(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// A server that has just started, with the database in it; it logs whole pages compressed the quickest way that it knows.
async fn prepared(mut running: Running, options: &PgConnectOptions, settings: &Path) -> Result<Running, EmbeddedError> {
    let prepare = async {
        let database = |action| move |source| EmbeddedError::Database { action, source };
        let mut connection = PgConnection::connect_with(options).await.map_err(database("log in"))?;
        let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
            .bind(DATABASE)
            .fetch_optional(&mut connection)
            .await
            .map_err(database("look for the database deltran"))?;
        if found.is_none() {
            let made = sqlx::query("CREATE DATABASE deltran").execute(&mut connection).await;
            made.map_err(database("create the database deltran"))?;
        }
        // Which ways there are was decided when the server was built.
        let lz4: bool = sqlx::query_scalar(
            "SELECT coalesce('lz4' = ANY(enumvals), false) FROM pg_settings WHERE name = 'wal_compression'",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(database("ask for the ways to compress"))?;
        if lz4 {
            write_settings(settings, "lz4")?;
            let read = sqlx::query("SELECT pg_reload_conf()").execute(&mut connection).await;
            read.map_err(database("have the settings read"))?;
        }
        connection.close().await.map_err(database("log out"))
    };
    match prepare.await {
        Ok(()) => Ok(running),
        Err(error) => {
            running.stop().await;
            Err(error)
        }
    }
}

/// Makes the cluster beside its final place and renames it there, so that a broken-off one is never taken for whole.
async fn initdb(binaries: &Binaries, place: &Place, password: &str) -> Result<(), EmbeddedError> {
    let cluster = place.cluster();
    let unfinished = place.base.join("cluster.init");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).at("remove the unfinished", &unfinished)?;
    }
    std::fs::create_dir(&unfinished).at("create", &unfinished)?;
    place.give(&unfinished)?;
    let password_file = place.base.join("initdb.password");
    write_secret(&password_file, password)?;
    place.give(&password_file)?;

    let program = binaries.folder.join("initdb");
    let mut command = Command::new(&program);
    command.arg("-D").arg(&unfinished).arg("--pwfile").arg(&password_file);
    command.args(["-U", USER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums"]);
    command.env("LC_ALL", "C").current_dir("/").kill_on_drop(true).process_group(0);
    process::run_as(&mut command, place.owner.as_ref());
    let output = command.output().await.map_err(|source| EmbeddedError::Spawn { program, source });
    std::fs::remove_file(&password_file).at("remove", &password_file)?;
    let output = output?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(EmbeddedError::Initdb { cluster, output });
    }
    let own = unfinished.join("postgresql.conf");
    let text = std::fs::read_to_string(&own).at("read", &own)?;
    std::fs::write(&own, format!("{text}\ninclude '../deltran.conf'\n")).at("write", &own)?;
    std::fs::rename(&unfinished, &cluster).at("move the new cluster to", &cluster)
}

/// The superuser's password: random, readable by this user only.
fn password(file: &Path, cluster: Option<&PathBuf>) -> Result<String, EmbeddedError> {
    match (std::fs::read_to_string(file), cluster) {
        (Ok(text), _) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        (Err(error), _) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).at("read", file);
        }
        (_, Some(cluster)) => {
            return Err(EmbeddedError::NoPassword { password: file.to_owned(), cluster: cluster.clone() });
        }
        (_, None) => {}
    }
    let mut bytes = [0_u8; 24];
    // The system's own randomness, not an injected one: a secret must not follow from a seed.
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| EmbeddedError::Random(error.to_string()))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_secret(file, &text)?;
    Ok(text)
}

fn write_secret(file: &Path, text: &str) -> Result<(), EmbeddedError> {
    use std::io::Write;
    if file.exists() {
        std::fs::remove_file(file).at("replace", file)?;
    }
    let mut open =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).at("create", file)?;
    open.write_all(text.as_bytes()).at("write", file)
}

/// Stops a server that still runs on this cluster, and removes its pid file where the number now belongs to somebody else,
/// for which Postgres would refuse to start.
async fn clear_left(cluster: &Path) -> Result<Option<String>, EmbeddedError> {
    let file = cluster.join("postmaster.pid");
    if let Some(left) = left::named_in(&file, cluster) {
        let stopped = left::stop_left(&left, STEPS).await;
        wait_until_empty(cluster).await;
        return Ok(stopped.then(|| format!("stopped a Postgres (process {}) that an earlier run had left", left.pid)));
    }
    let reused = left::first_number(&file).is_some_and(|pid| left::identity(pid).is_some());
    if reused && !left::anyone_in(cluster) {
        std::fs::remove_file(&file).at("remove the stale", &file)?;
    }
    Ok(None)
}

/// Server processes leave by themselves once they notice that their head is gone.
async fn wait_until_empty(cluster: &Path) {
    let deadline = tokio::time::Instant::now() + ANSWER;
    while left::anyone_in(cluster) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn cluster_version(cluster: &Path) -> Result<String, EmbeddedError> {
    let file = cluster.join("PG_VERSION");
    Ok(std::fs::read_to_string(&file).at("read", &file)?.trim().to_owned())
}

/// The folder of the programs of a Postgres that is new enough.
///
/// # Errors
/// Where there is none.
pub fn find_postgres() -> Result<PathBuf, EmbeddedError> {
    find_binaries(Path::new(""), None).map(|found| found.folder)
}

/// The programs of one Postgres: of the version that made the cluster, where there is one, else the first adequate.
fn find_binaries(cluster: &Path, made_by: Option<&str>) -> Result<Binaries, EmbeddedError> {
    let given = std::env::var_os(VARIABLE).map(PathBuf::from);
    let folders = match &given {
        Some(folder) => vec![folder.clone()],
        None => find::folders(&usual()),
    };
    let found: Vec<Binaries> = folders.iter().filter_map(|folder| binaries_in(folder)).collect();
    if found.is_empty() {
        return Err(match given {
            Some(value) => EmbeddedError::Override {
                variable: VARIABLE,
                value,
                problem: "holds no initdb and postgres that run".into(),
            },
            None => EmbeddedError::NotFound {
                program: "a Postgres server with initdb",
                looked: "PATH, /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin, /opt/homebrew/opt/postgresql*/bin".into(),
                variable: VARIABLE,
            },
        });
    }
    let listed: Vec<String> = found.iter().map(|one| format!("{} in {}", one.version, one.folder.display())).collect();
    let fits = |one: &Binaries| match made_by {
        Some(version) => one.version.major.to_string() == version,
        None => one.version.major >= 15,
    };
    found.into_iter().find(fits).ok_or_else(|| {
        let found = listed.join(", ");
        match made_by {
            Some(version) => EmbeddedError::ClusterVersion {
                cluster: cluster.to_owned(),
                cluster_version: version.to_owned(),
                found,
            },
            None => EmbeddedError::TooOld { program: "Postgres server", found, needed: NEEDED, variable: VARIABLE },
        }
    })
}

fn usual() -> Vec<PathBuf> {
    let mut all = find::versioned("/usr/lib/postgresql", "", "bin");
    all.extend(find::versioned("/usr", "pgsql-", "bin"));
    all.extend(find::versioned("/opt/homebrew/opt", "postgresql", "bin"));
    all.extend(find::versioned("/usr/local/opt", "postgresql", "bin"));
    all.extend(find::versioned("/Applications/Postgres.app/Contents/Versions", "", "bin"));
    all.push("/usr/local/pgsql/bin".into());
    all
}

fn binaries_in(folder: &Path) -> Option<Binaries> {
    let complete = |folder: &Path| ["initdb", "postgres"].iter().all(|name| find::is_program(&folder.join(name)));
    if !complete(folder) {
        return None;
    }
    // Links lead to where the server's other files are.
    let real = folder.join("initdb").canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
    let folder = real.filter(|real| complete(real)).unwrap_or_else(|| folder.to_owned());
    find::version(&folder.join("postgres")).map(|version| Binaries { folder, version })
}

/// The user an existing cluster belongs to.
pub(super) fn owner_of(cluster: &Path) -> Option<Owner> {
    let meta = cluster.metadata().ok()?;
    (meta.uid() != 0).then(|| Owner {
        name: nix::unistd::User::from_uid(meta.uid().into())
            .ok()
            .flatten()
            .map_or_else(|| meta.uid().to_string(), |user| user.name),
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_made_once_kept_secret_and_missed_when_a_cluster_needs_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postgres.password");
        let cluster = folder.path().join("cluster");
        assert!(matches!(password(&file, Some(&cluster)), Err(EmbeddedError::NoPassword { .. })));

        let made = password(&file, None).unwrap();
        assert_eq!((made.len(), file.metadata().unwrap().mode() & 0o777), (48, 0o600));
        assert_eq!(password(&file, Some(&cluster)).unwrap(), made);
    }

    #[test]
    fn a_cluster_wants_the_version_that_made_it() {
        let error = find_binaries(Path::new("/data/cluster"), Some("9")).err().unwrap();
        assert!(matches!(error, EmbeddedError::ClusterVersion { .. }), "{error}");
        assert!(find_binaries(Path::new("/data/cluster"), None).unwrap().version.major >= 15);
    }

    #[tokio::test]
    async fn a_pid_file_whose_number_is_reused_is_removed_and_one_of_a_dead_process_is_left_to_postgres() {
        let cluster = tempfile::tempdir().unwrap();
        let file = cluster.path().join("postmaster.pid");
        std::fs::write(&file, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(clear_left(cluster.path()).await.unwrap(), None);
        assert!(!file.exists());

        std::fs::write(&file, format!("{}\n", i32::MAX)).unwrap();
        assert_eq!(clear_left(cluster.path()).await.unwrap(), None);
        assert!(file.exists());
    }
}
