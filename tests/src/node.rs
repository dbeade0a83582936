//! The real program: `deltran up`, or `deltran serve` of every engine, as a child process in a folder of its own, and
//! commands against it.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::clearing::v1::{ListWindowsRequest, OpenWindowRequest, Window};
use deltran_api::common::v1::{Money, Page};
use deltran_api::platform::v1::platform_service_client::PlatformServiceClient;
use deltran_api::platform::v1::{EngineStatus, GetStatusRequest};
use deltran_api::token::v1::submit_item::Result::{Error, Outcome};
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{
    GetBalancesRequest, ListTransactionsRequest, SubmitItem, SubmitTransactionsRequest, TransactionInstruction,
    TransactionOutcome, TransactionState, TransactionView,
};
use deltran_runtime::embedded::find_nats_server;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::engines::parts;
use crate::stack::As;
use crate::wait::within;

/// How long the program may take to come up, to recover or to end, on a machine with other work.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A connection that says who calls.
pub type Connection = InterceptedService<Channel, As>;

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    /// Its first JSON document on standard output; null where there is none.
    pub json: Value,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub error: String,
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
}

/// The running platform, on private servers or on given ones. Dropped, it is stopped, and so is all that it started.
#[derive(Debug)]
pub struct Deltran {
    folder: TempDir,
    /// The URLs of broker and database, where they are not its own.
    servers: Option<[String; 2]>,
    child: Option<(Child, ChildStdout)>,
    ready: Value,
    channel: Channel,
}

/// A folder that the user whom Postgres runs as can pass through.
pub fn folder() -> TempDir {
    let open = Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("deltran-").permissions(open).tempdir().expect("a temporary folder")
}

/// The program, from the folder where this test was built.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let program = test.parent().and_then(Path::parent).expect("tests stand in target/<profile>/deps").join("deltran");
    assert!(program.is_file(), "{} is not there: run `cargo build -p deltran-node` first", program.display());
    program
}

/// The program, with nothing of what the environment says to tests or to the program.
pub fn command() -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DELTRAN_CHAOS_") {
            command.env_remove(name);
        }
    }
    for name in ["DELTRAN_NATS_URL", "DELTRAN_DATABASE_URL", "DELTRAN_CLIENT_ENDPOINT", "DELTRAN_CLIENT_USER"] {
        command.env_remove(name);
    }
    // Commands run in folders of their own, from where the repository's tools are not found.
    let server = std::env::var_os("DELTRAN_TEST_NATS_SERVER").map(PathBuf::from);
    let server = server.unwrap_or_else(|| find_nats_server().unwrap_or_else(|e| panic!("{e}")));
    command.env("DELTRAN_NATS_SERVER", server);
    command.env_remove("DELTRAN_CLIENT_ROLE").stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub async fn run(mut prepare: impl FnMut(&mut Command)) -> Ran {
    let mut command = command();
    prepare(&mut command);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output =
        tokio::time::timeout(PATIENCE * 2, command.output()).await.expect("the command ends").expect("it runs");
    let json = serde_json::Deserializer::from_slice(&output.stdout).into_iter().next();
    Ran {
        json: json.and_then(Result::ok).unwrap_or_default(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}

/// Processes that name a folder in their command line.
pub fn processes_of(folder: &Path) -> Vec<(i32, String)> {
    let wanted = folder.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        // A process that ends meanwhile is none that was left.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&wanted) && pid.cast_unsigned() != std::process::id() {
            found.push((pid, line));
        }
    }
    found
}

impl Deltran {
    /// Starts the platform in a fresh folder and returns when it is ready.
    pub async fn start(toml: &str) -> Self {
        Self::begin(toml, None).await
    }

    /// Serves every engine against a broker and a database that run already; returns when it is ready.
    pub async fn serve(toml: &str, nats: &str, database: &str) -> Self {
        Self::begin(toml, Some([nats.to_owned(), database.to_owned()])).await
    }

    async fn begin(toml: &str, servers: Option<[String; 2]>) -> Self {
        let folder = folder();
        std::fs::write(folder.path().join("deltran.toml"), toml).expect("the configuration is written");
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let mut node = Self { folder, servers, child: None, ready: Value::Null, channel };
        node.start_again().await;
        node
    }

    /// What starts it: `up`, or `serve` of every engine.
    fn starting(&self) -> Command {
        let mut command = command();
        command.arg("--json");
        if let Some([nats, database]) = &self.servers {
            command.arg("serve").args(parts().iter().map(|part| part.name));
            command.env("DELTRAN_NATS_URL", nats).env("DELTRAN_DATABASE_URL", database);
        } else {
            command.args(["up", "--nats-port", "0", "--postgres-port", "0", "--data"]).arg(self.data());
        }
        command.args(["--config", "deltran.toml", "--grpc-port", "0", "--http-port", "0"]);
        command
    }

    /// Starts it on what its folder holds; the ports are others.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let mut child = self
            .starting()
            .current_dir(self.folder.path())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("deltran starts");
        let mut stdout = child.stdout.take().expect("its output");
        let reading = tokio::task::spawn_blocking(move || {
            let ready = serde_json::Deserializer::from_reader(&mut stdout).into_iter::<Value>().next();
            (ready, stdout)
        });
        let Ok(Ok((Some(Ok(ready)), stdout))) = tokio::time::timeout(PATIENCE, reading).await else {
            // The panic below says what happened; whether it could be killed adds nothing.
            let _ = child.kill();
            let _ = child.wait();
            panic!("deltran did not become ready:\n{}", self.last_words());
        };
        self.child = Some((child, stdout));
        let grpc = ready["grpc"].as_str().expect("the address of gRPC").to_owned();
        self.channel = Endpoint::from_shared(grpc).expect("an address").connect_lazy();
        self.ready = ready;
        if let Some([nats, _]) = &self.servers {
            self.ready["nats"] = nats.as_str().into();
        }
    }

    /// Its temporary folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A value of its ready message, such as `grpc` or `nats`.
    pub fn told(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap_or_else(|| panic!("no {key} in {}", self.ready))
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("up.log")
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Writes a file into its folder; the path as an argument.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("the file is written");
        path.display().to_string()
    }

    /// Runs a command of the program against this platform.
    pub async fn run(&self, args: &[&str]) -> Ran {
        run(|command| {
            command.arg("--json").args(args).args(["--endpoint", self.told("grpc")]).current_dir(self.folder.path());
            // These speak with the broker itself.
            if args.first() == Some(&"topology") {
                command.env("DELTRAN_NATS_URL", self.told("nats"));
            }
        })
        .await
    }

    /// Runs a command that must succeed.
    pub async fn must(&self, args: &[&str]) -> Value {
        let ran = self.run(args).await;
        assert_eq!(ran.code, 0, "deltran {}: {}{}", args.join(" "), ran.error, ran.out);
        ran.json
    }

    /// A connection without identity.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A connection of a caller.
    pub fn as_caller(&self, caller: As) -> Connection {
        InterceptedService::new(self.channel.clone(), caller)
    }

    /// The ledger, called by a bank.
    pub fn bank(&self, participant: &str) -> TokenServiceClient<Connection> {
        TokenServiceClient::new(self.as_caller(As::bank(participant)))
    }

    /// The ledger, called by an operator.
    pub fn ledger(&self) -> TokenServiceClient<Connection> {
        TokenServiceClient::new(self.as_caller(As::role("operator", "ada")))
    }

    /// Clearing, called by an operator.
    pub fn clearing(&self) -> ClearingServiceClient<Connection> {
        ClearingServiceClient::new(self.as_caller(As::role("operator", "ada")))
    }

    /// Brings banks in: participant, opening deposit and net debit cap in USD.
    pub async fn banks(&self, banks: &[(&str, &str, &str)]) {
        let file = self.write("participants.csv", participants(banks));
        self.must(&["participant", "import", "--file", &file]).await;
    }

    /// Opens a window of USD.
    pub async fn open_window(&self, id: Uuid) {
        let request =
            OpenWindowRequest { window_id: id.to_string(), schedule: "manual".into(), currency: "USD".into() };
        self.clearing().open_window(request).await.expect("the window opens");
    }

    /// Every window.
    pub async fn windows(&self) -> Vec<Window> {
        let page = Some(Page { size: 1000, token: String::new() });
        let request = ListWindowsRequest { page, ..Default::default() };
        let answer = self.clearing().list_windows(request).await.expect("windows are listed").into_inner();
        assert_eq!(answer.next_page_token, "", "a page holds them all");
        answer.windows
    }

    /// Every transaction of the ledger, page by page.
    pub async fn transactions(&self) -> BTreeMap<String, TransactionView> {
        transactions(&mut self.ledger()).await
    }

    /// Waits until every event that an engine has published stands in the audit ledger.
    pub async fn audited(&self) {
        let mut platform = PlatformServiceClient::new(self.as_caller(As::role("operator", "ada")));
        within(PATIENCE, "every event in the audit ledger", async || {
            let status = platform.get_status(GetStatusRequest {}).await.ok()?.into_inner();
            all_audited(&status.engines).then_some(())
        })
        .await;
    }

    /// The ledger's invariants hold, MULTILATERAL is zero, and the audit ledger agrees with producers and streams.
    pub async fn verify(&self) {
        let ledger = self.must(&["account", "verify"]).await;
        let results = ledger["results"].as_array().expect("results");
        assert_eq!(results.iter().filter(|r| r["holds"] == true).count(), 8, "{ledger:#}");
        let balances = self.ledger().get_balances(GetBalancesRequest::default()).await.expect("balances").into_inner();
        for hub in &balances.hub {
            assert_eq!(hub.multilateral.as_ref().expect("MULTILATERAL").amount, "0.00", "{hub:?}");
        }
        self.audited().await;
        self.must(&["audit", "verify"]).await;
    }

    /// A connection of the owner of its private database.
    pub async fn owner(&self) -> PgConnection {
        let at = self.told("database").rsplit_once('@').and_then(|(_, rest)| rest.split('/').next());
        let password = std::fs::read_to_string(self.data().join("postgres.password")).expect("the owner's password");
        let url =
            format!("postgres://postgres:{}@{}/deltran?sslmode=disable", password.trim(), at.expect("host and port"));
        PgConnection::connect(&url).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map(|(child, _)| child.id().cast_signed()).expect("it runs")
    }

    /// The process of a private server: `nats` or `postgres`.
    pub fn server(&self, name: &str) -> Option<i32> {
        let text = std::fs::read_to_string(self.data().join("run.json")).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        value[name]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
    }

    /// Kills a private server as a crash would; the id it had.
    pub fn kill_server(&self, name: &str) -> i32 {
        let pid = self.server(name).unwrap_or_else(|| panic!("no {name} in run.json"));
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the server can be killed");
        pid
    }

    /// Waits until a server that was killed runs again as another process.
    pub async fn server_is_back(&self, name: &str, killed: i32) {
        within(PATIENCE, "another process of the server", async || self.server(name).filter(|pid| *pid != killed))
            .await;
    }

    /// Kills the program as a crash would; its servers live on.
    pub fn kill(&mut self) {
        if let Some((mut child, _)) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }

    /// Stops it in order.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        let (mut child, _stdout) = self.child.take()?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let status = kill(pid, Signal::SIGTERM).ok().and_then(|()| ended(&mut child));
        if status.is_none() {
            // It is gone already, or about to be.
            let _ = child.kill();
            let _ = child.wait();
        }
        status
    }
}

fn ended(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
    None
}

impl Drop for Deltran {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last words of deltran:\n{}", self.last_words());
        }
        self.stop();
        for (pid, _) in processes_of(&self.data()) {
            // It may end by itself meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Everything of a list: `ask` gives what stands on a page, and where the next one begins.
pub async fn pages<T>(mut ask: impl AsyncFnMut(Option<Page>) -> (Vec<T>, String)) -> Vec<T> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (items, next) = ask(Some(Page { size: 1000, token })).await;
        all.extend(items);
        if next.is_empty() {
            return all;
        }
        token = next;
    }
}

/// Every transaction of a ledger.
pub async fn transactions(ledger: &mut TokenServiceClient<Connection>) -> BTreeMap<String, TransactionView> {
    let listed = pages(async |page| {
        let request = ListTransactionsRequest { page, ..Default::default() };
        let answer = ledger.list_transactions(request).await.expect("transactions are listed").into_inner();
        (answer.transactions, answer.next_page_token)
    });
    let mut all = BTreeMap::new();
    for view in listed.await {
        let twice = all.insert(view.transaction_id.clone(), view);
        assert!(twice.is_none(), "listed twice: {twice:?}");
    }
    all
}

/// Whether every event that these engines published stands in the audit ledger.
pub fn all_audited(engines: &[EngineStatus]) -> bool {
    engines.iter().all(|e| e.assigned == e.published && e.published == e.confirmed)
}

/// The file that brings banks in: participant, opening deposit and net debit cap in USD.
pub(crate) fn participants(banks: &[(&str, &str, &str)]) -> String {
    let mut text = String::from("participant,name,currency,opening_deposit,net_debit_cap\n");
    for (bank, deposit, cap) in banks {
        text.push_str(&format!("{bank},Bank {bank},USD,{deposit},{cap}\n"));
    }
    text
}

/// An id that is the same in every run.
pub fn id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// An amount of USD.
pub fn usd(amount: &str) -> Option<Money> {
    Some(Money { amount: amount.into(), currency: "USD".into() })
}

/// A payment in USD whose id is made of `name`.
pub fn pay(name: &str, payer: &str, payee: &str, amount: &str) -> TransactionInstruction {
    TransactionInstruction {
        transaction_id: id(name).to_string(),
        payer: payer.into(),
        payee: payee.into(),
        amount: usd(amount),
        end_to_end_id: name.into(),
        ..Default::default()
    }
}

/// Sends one message of many transactions and gives its answers.
///
/// # Errors
/// The stream's status where it ends without them.
pub async fn submit_many(
    bank: &mut TokenServiceClient<Connection>,
    transactions: Vec<TransactionInstruction>,
) -> Result<Vec<SubmitItem>, Status> {
    let message = SubmitTransactionsRequest { sequence: 1, transactions };
    let mut answers = bank.submit_transactions(futures::stream::iter([message])).await?.into_inner();
    let answer = answers.message().await?.ok_or_else(|| Status::data_loss("the stream ended without an answer"))?;
    Ok(answer.items)
}

/// The outcomes of a message; or the words of a refusal that asks for patience: the same may be sent again.
///
/// # Errors
/// The first such refusal.
pub fn decided(items: Vec<SubmitItem>) -> Result<Vec<TransactionOutcome>, String> {
    let outcome = |item: SubmitItem| match item.result {
        Some(Outcome(outcome)) => Ok(outcome),
        Some(Error(refusal)) if ["unavailable", "overloaded"].contains(&refusal.code.as_str()) => Err(refusal.message),
        other => panic!("{other:?}"),
    };
    items.into_iter().map(outcome).collect()
}

/// Sends a message under the same ids until the ledger has committed all of it.
pub async fn committed(
    bank: &mut TokenServiceClient<Connection>,
    transactions: &[TransactionInstruction],
) -> Vec<TransactionOutcome> {
    within(PATIENCE, "the ledger to decide", async || {
        // Whatever breaks: the same ids may be sent again.
        let items = submit_many(bank, transactions.to_vec()).await.ok()?;
        let outcomes = decided(items).ok()?;
        for outcome in &outcomes {
            assert_eq!(outcome.state(), TransactionState::Committed, "{outcome:?}");
        }
        Some(outcomes)
    })
    .await
}

/// The fixed word of a refusal.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// A machine-readable value of a refusal.
pub fn detail(status: &Status, key: &str) -> String {
    status.get_details_error_info().and_then(|mut info| info.metadata.remove(key)).unwrap_or_default()
}
