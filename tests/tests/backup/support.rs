//! A platform with an archive, its backups, and platforms on what was restored of them.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use deltran_api::platform::v1::platform_service_client::PlatformServiceClient;
use deltran_api::platform::v1::{EngineStatus, GetStatusRequest};
use deltran_kernel::{Clock, SystemClock};
use deltran_tests::node::{Deltran, PATIENCE, committed, folder, pay};
use deltran_tests::tie_out::tie_out;
use deltran_tests::{As, Nats, within};
use sqlx::{AssertSqlSafe, PgConnection};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

/// Who pays whom.
const BANKS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
/// Transactions of a message.
const MESSAGE: usize = 20;
/// Files of the data folder that are no part of a cluster, and without which it is of no use.
const KEYS: [&str; 4] = ["postgres.password", "notification.key", "audit.key", "audit.key.checkpoint"];

/// Messages of a round of payments: 10, or what BACKUP_TEST_MESSAGES says, for measuring.
fn messages() -> usize {
    std::env::var("BACKUP_TEST_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}

/// What a script printed; it must succeed.
pub async fn must(script: &Path, args: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let (code, out, error) = run(script, args, variables).await;
    assert_eq!(code, 0, "{} {}: {out}{error}", script.display(), args.join(" "));
    let said = format!("{out}{error}");
    for line in said.lines().filter(|line| !line.trim().is_empty()) {
        println!("    {}: {line}", script.file_stem().unwrap().to_string_lossy());
    }
    out.lines().map(str::to_owned).collect()
}

/// Exit code, standard output and standard error of a script.
pub async fn run(script: &Path, args: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(script);
    for name in ["DELTRAN_NATS_URL", "DELTRAN_DATABASE_URL", "NATS_URL", "PGPASSWORD"] {
        command.env_remove(name);
    }
    command.args(args).envs(variables.iter().copied()).current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("the script ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// The folder of the scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("ops/backup")
}

fn deltran() -> String {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("deltran").display().to_string()
}

/// Where backups and archive are, as on a host of their own.
pub struct Vault {
    place: TempDir,
}

impl Vault {
    /// Scripts as they are installed, and an archive that the user of this cluster may write into.
    pub fn new(node: &Deltran) -> Self {
        let place = folder();
        for name in ["scripts", "wal", "backups", "keys", "later-keys"] {
            fs::create_dir(place.path().join(name)).unwrap();
            fs::set_permissions(place.path().join(name), Permissions::from_mode(0o755)).unwrap();
        }
        for script in fs::read_dir(scripts()).unwrap().map(|entry| entry.unwrap().path()) {
            fs::copy(&script, place.path().join("scripts").join(script.file_name().unwrap())).unwrap();
        }
        let owner = fs::metadata(node.data().join("postgres/cluster")).unwrap();
        chown(place.path().join("wal"), Some(owner.uid()), Some(owner.gid())).unwrap();
        Self { place }
    }

    /// A folder of it.
    pub fn path(&self, name: &str) -> String {
        self.place.path().join(name).display().to_string()
    }

    /// A script of it.
    pub fn script(&self, name: &str) -> PathBuf {
        self.place.path().join("scripts").join(name)
    }

    /// Files in the archive.
    pub fn archived(&self) -> usize {
        fs::read_dir(self.place.path().join("wal")).unwrap().count()
    }

    /// Keeps what is beside the cluster in the data folder.
    pub fn keep_keys(&self, node: &Deltran, name: &str) {
        for key in KEYS {
            fs::copy(node.data().join(key), self.place.path().join(name).join(key)).unwrap();
        }
    }

    /// A base backup of the running cluster, verified; its folder.
    pub async fn base_backup(&self, node: &Deltran) -> String {
        let (host, port) = server(node);
        let password = fs::read_to_string(node.data().join("postgres.password")).unwrap();
        let file = self.place.path().join("pgpass");
        fs::write(&file, format!("*:*:*:postgres:{}\n", password.trim())).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let file = file.display().to_string();
        let variables = [("PGHOST", host.as_str()), ("PGPORT", &port), ("PGUSER", "postgres"), ("PGPASSFILE", &file)];
        let said = must(&self.script("postgres-backup.sh"), &["--to", &self.path("backups")], &variables).await;
        said.last().unwrap().clone()
    }

    /// Snapshots of every stream; their folder.
    pub async fn streams_backup(&self, nats: &Nats) -> String {
        let program = deltran();
        let variables = [("NATS_URL", nats.url()), ("DELTRAN", program)];
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let said = must(&self.script("streams-backup.sh"), &["--to", &self.path("backups")], &variables).await;
        said.last().unwrap().clone()
    }

    /// A broker with the streams of a backup.
    pub async fn broker_from(&self, backup: &str) -> Nats {
        let nats = Nats::start().await;
        let (url, program) = (nats.url(), deltran());
        let variables = [("NATS_URL", url.as_str()), ("DELTRAN", &program)];
        must(&self.script("streams-restore.sh"), &["--from", backup], &variables).await;
        nats
    }

    /// A platform on a cluster that is restored in a data folder of its own, with the keys of then.
    pub async fn restored(&self, backup: &str, moment: &[&str], keys: &str, nats: &Nats) -> Deltran {
        // A data folder as a fresh host has it; its own cluster goes.
        let mut node = Deltran::start("").await;
        node.stop();
        let cluster = node.data().join("postgres/cluster");
        fs::remove_dir_all(&cluster).unwrap();
        for key in KEYS {
            fs::copy(self.place.path().join(keys).join(key), node.data().join(key)).unwrap();
        }
        let (archive, to) = (self.path("wal"), cluster.display().to_string());
        let args = [&["--from", backup, "--archive", &archive, "--to", &to], moment].concat();
        must(&self.script("postgres-restore.sh"), &args, &[]).await;
        node.write("deltran.toml", on(nats));
        node.start_again().await;
        node
    }
}

/// The configuration of a platform on a broker.
pub fn on(nats: &Nats) -> String {
    format!("[nats]\nurl = \"{}\"\n", nats.url())
}

/// Host and port of a platform's private Postgres.
fn server(node: &Deltran) -> (String, String) {
    let url = node.told("database");
    let at = url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
    let (host, port) = at.split_once(':').unwrap();
    (host.to_owned(), port.to_owned())
}

/// A connection of the owner of the database.
pub async fn owner(node: &Deltran) -> PgConnection {
    node.owner().await
}

/// Carries a statement out as the owner of the database.
pub async fn sql(node: &Deltran, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut owner(node).await).await.unwrap();
}

/// Sends a round of payments, each message until it is decided; the ids, each of which the caller saw committed.
pub async fn load(node: &Deltran, round: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for number in 0..messages() {
        let (payer, payee) = (BANKS[number % 2], BANKS[1 - number % 2]);
        let transactions: Vec<_> =
            (0..MESSAGE).map(|n| pay(&format!("{round} {number} {n}"), payer, payee, "1.25")).collect();
        let mut bank = node.bank(payer);
        let outcomes = committed(&mut bank, &transactions).await;
        seen.extend(outcomes.into_iter().map(|outcome| outcome.transaction_id));
    }
    seen
}

/// What every engine says about itself.
pub async fn engines(node: &Deltran) -> Vec<EngineStatus> {
    let mut platform = PlatformServiceClient::new(node.as_caller(As::role("operator", "ada")));
    platform.get_status(GetStatusRequest {}).await.unwrap().into_inner().engines
}

/// The producer of the ledger's events, and whether it waits.
pub async fn ledger(node: &Deltran) -> (String, bool) {
    let token = engines(node).await.into_iter().find(|engine| engine.engine == "token").unwrap();
    (token.producer, token.waits)
}

/// Brings the banks in and opens a window.
pub async fn begin(node: &Deltran) {
    node.banks(&[(BANKS[0], "1000000.00", "900000.00"), (BANKS[1], "1000000.00", "900000.00")]).await;
    node.open_window(deltran_tests::node::id("the window")).await;
}

/// Exactly these transactions are there once, in a ledger, windows, audit ledger, streams and reports that agree.
pub async fn whole(node: &Deltran, expected: &BTreeSet<String>) {
    let listed: BTreeSet<String> = node.transactions().await.into_keys().collect();
    assert_eq!(listed.len(), expected.len());
    assert!(listed == *expected, "not the transactions that callers saw committed");
    audited(node).await;
    node.verify().await;
    let summary = node.must(&["audit", "reconcile"]).await;
    assert_eq!((summary["ok"].as_bool(), summary["differences"].as_u64()), (Some(true), Some(0)), "{summary:#}");
}

/// The audit ledger comes to agree with producers and streams: streams that were lost are made anew meanwhile.
pub async fn audited(node: &Deltran) {
    within(PATIENCE, "the audit ledger to agree", async || {
        let waiting = engines(node).await.iter().any(|engine| engine.earlier > 0);
        let ran = node.run(&["audit", "verify"]).await;
        if ran.code != 0 {
            println!("    not yet: {}", ran.error.trim());
        }
        (ran.code == 0 && !waiting).then_some(())
    })
    .await;
}

/// Settles every window, and ties the books of all engines out.
pub async fn settle(node: &Deltran) {
    node.must(&["window", "close", "--all", "--and-open", "--wait"]).await;
    let tied = tie_out(&node.channel(), SystemClock.now()).await;
    println!("    tied out: {tied:?}");
    assert!(tied.entries > 0 && tied.settlements > 0);
}
