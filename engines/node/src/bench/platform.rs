//! The whole platform in a process of its own, with banks in it, and when everything about a load is done.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deltran_api::audit::v1::{ConfirmedThroughRequest, GetCheckpointRequest};
use deltran_api::clearing::v1::GetWindowRequest;
use deltran_runtime::identity::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::ground::{describe, empty, until};
use super::load::CURRENCY;
use super::machine::{self, Process};
use super::report::Report;
use crate::client::{ClientArgs, Session, fresh_id};
use crate::demo::node::Node;
use crate::output::Output;
use crate::problem::Problem;

/// Between two looks whether something is done.
const LOOK: Duration = Duration::from_millis(20);
const DEPOSIT: &str = "500000000000.00";
const CAP: &str = "400000000000.00";

/// A running platform with an open window.
pub struct Platform {
    node: Node,
    /// A connection to it.
    pub session: Session,
    /// The open window.
    pub window: String,
    /// Payments that it committed.
    committed: AtomicU64,
    folder: PathBuf,
}

impl Platform {
    /// Starts it in an emptied folder, with these banks.
    ///
    /// # Errors
    /// Where it does not start, or does not take a bank.
    pub async fn start(folder: &Path, banks: &[String]) -> Result<Self, Problem> {
        empty(folder)?;
        let failed = |e: std::io::Error| Problem::refused(format!("{}: {e}", folder.display()));
        let config = folder.join("bench.toml");
        let text = format!(
            "deployment = \"bench\"\n[telemetry]\nlog = \"warn\"\n[[clearing.schedules]]\nname = \"manual\"\nmode = \"manual\"\n\
             currencies = [\"{CURRENCY}\"]\n"
        );
        std::fs::write(&config, text).map_err(failed)?;
        let participants = folder.join("participants.csv");
        let mut lines = String::from("participant,name,currency,opening_deposit,net_debit_cap\n");
        for bank in banks {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{bank},Bank {bank},{CURRENCY},{DEPOSIT},{CAP}");
        }
        std::fs::write(&participants, lines).map_err(failed)?;
        std::fs::create_dir_all(folder.join("node")).map_err(failed)?;
        let node = Node::start(&folder.join("node"), &config).await?;
        let window = fresh_id().to_string();
        let prepared = async {
            node.must(&["participant", "import", "--file", &participants.display().to_string()]).await?;
            node.must(&["window", "open", "--currency", CURRENCY, "--id", &window]).await?;
            Session::open(&ClientArgs::at(&node.endpoint), Output { json: false }).await
        };
        match prepared.await {
            Ok(session) => Ok(Self { node, session, window, committed: AtomicU64::new(0), folder: folder.to_owned() }),
            Err(problem) => {
                node.stop().await?;
                Err(problem)
            }
        }
    }

    /// Where its gRPC listens.
    pub fn endpoint(&self) -> &str {
        &self.node.endpoint
    }

    /// The platform as commands see it.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its processes.
    pub fn processes(&self) -> Vec<Process> {
        machine::processes(self.node.pid())
    }

    /// The most memory that the process of all engines had, in mebibytes.
    pub fn peak_memory(&self) -> f64 {
        machine::peak_memory(self.node.pid()) as f64 / f64::from(1 << 20)
    }

    /// The memory that the process of all engines has, in mebibytes.
    pub fn memory(&self) -> f64 {
        machine::resident(self.node.pid()) as f64 / f64::from(1 << 20)
    }

    /// Notes versions and settings.
    pub fn describe(&self, report: &mut Report) {
        describe(self.node.pid(), &self.folder, report);
    }

    /// Values of a metric by the first label's value.
    ///
    /// # Errors
    /// Where the page does not answer.
    pub async fn metric(&self, name: &str) -> Result<BTreeMap<String, f64>, Problem> {
        let failed = |e: std::io::Error| Problem::unavailable(format!("{}/metrics: {e}", self.node.http));
        let address = self.node.http.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await.map_err(failed)?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await.map_err(failed)?;
        let values = page.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
            Some((labels.split('"').nth(1)?.to_owned(), value.parse().ok()?))
        });
        Ok(values.collect())
    }

    /// Payments that clearing has counted in the window.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn counted(&self) -> Result<u64, Problem> {
        let mut clearing = self.session.clearing(self.session.operator()?);
        let request = GetWindowRequest { window_id: self.window.clone() };
        let window = clearing.get_window(request).await?.into_inner().window;
        Ok(window.map(|w| w.count).unwrap_or_default())
    }

    /// Waits until clearing has counted so many more payments, every event of the ledger stands in the audit ledger, and
    /// a checkpoint over all of them is signed; when that was.
    ///
    /// # Errors
    /// Where it takes more than ten minutes.
    pub async fn all_in(&self, more: u64) -> Result<Instant, Problem> {
        let committed = self.committed.fetch_add(more, Ordering::Relaxed) + more;
        until("clearing", LOOK, async || (self.counted().await.ok()? >= committed).then_some(())).await?;
        let mut audit = self.session.audit(self.session.caller_named(Role::Engine, "bench")?);
        let events = *self.metric("deltran_outbox_assigned").await?.get("token").unwrap_or(&0.0);
        until("the audit ledger", LOOK, async || {
            let request = ConfirmedThroughRequest { producer: "token-engine/1".to_owned() };
            let through = audit.confirmed_through(request).await.ok()?.into_inner().producer_seq;
            (through as f64 >= events).then_some(())
        })
        .await?;
        let leaves: f64 = self.metric("deltran_audit_leaves").await?.values().sum();
        let mut audit = self.session.audit(self.session.caller_named(Role::Auditor, "bench")?);
        until("a checkpoint", LOOK, async || {
            let answer = audit.get_checkpoint(GetCheckpointRequest { size: leaves as u64 }).await.ok()?;
            answer.into_inner().checkpoint.map(|_| Instant::now())
        })
        .await
    }

    /// Stops it, and removes its folder unless it is to be kept.
    ///
    /// # Errors
    /// Where it does not end well.
    pub async fn stop(self, keep: bool) -> Result<(), Problem> {
        self.node.stop().await?;
        if !keep {
            std::fs::remove_dir_all(&self.folder)
                .map_err(|e| Problem::refused(format!("{}: {e}", self.folder.display())))?;
        }
        Ok(())
    }
}
