//! Verification: asks producers, broker and token ledger what they gave out, waits for what is under
//! way, then goes over every row and compares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deltran_api::audit::v1 as pb;
use deltran_api::token::v1::VerifyLedgerRequest;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_events::Domain;
use deltran_kernel::Currency;
use deltran_messaging::Broker;
use deltran_runtime::wire::minor_to_money;
use deltran_runtime::{DbError, EngineContext, Failure};
use tokio::sync::{Notify, mpsc};
use tonic::Status;
use uuid::Uuid;

use crate::NAME;
use crate::archive::Archive;
use crate::domain::books::{self, Said, Tie, Total};
use crate::domain::check::{Checker, Counted, StoredLeaf};
use crate::domain::report::{self, Check, Held, LedgerSays, Snapshot};
use crate::domain::tree_check::Signed;
use crate::notary::Notary;
use crate::producers;
use crate::settled::settled;
use crate::store::{Checkpoints, Cuts, Ledger, Tree};
use crate::tie::{Basis, Ties, read_totals};

/// Leaves read at once. The largest leaf has 64 KiB, so that memory stays flat.
const WINDOW: i64 = 1024;
/// Progress is told after so many windows.
const TELL_EVERY: i64 = 8;
/// Days may be detached while the rows are read; then all begins anew, so often.
const TRIES: usize = 5;
/// How long the token ledger may take to verify itself.
const LEDGER_ANSWER: Duration = Duration::from_secs(600);

/// Where progress goes.
pub type Progress = mpsc::Sender<Result<pb::VerifyResponse, Status>>;

/// Runs verifications.
#[derive(Clone)]
pub struct Verifier {
    context: EngineContext,
    broker: Broker,
    ledger: Ledger,
    tree: Tree,
    checkpoints: Checkpoints,
    cuts: Cuts,
    notary: Arc<Notary>,
    ties: Ties,
    appended: Arc<Notify>,
}

/// What the others say.
struct Asked {
    assigned: BTreeMap<String, u64>,
    silent: Vec<String>,
    counted: Option<Counted>,
    ledger: Result<LedgerSays, String>,
    streams: Vec<(&'static str, Result<Held, String>)>,
}

impl Verifier {
    /// A verifier, with the archive where there is one; `appended` is told when leaves come in this process.
    pub fn new(
        context: EngineContext,
        broker: Broker,
        (notary, archive): (Arc<Notary>, Option<Archive>),
        appended: Arc<Notify>,
    ) -> Self {
        let (ledger, tree) = (Ledger::new(context.db.clone()), Tree::new(context.db.clone()));
        let (checkpoints, cuts) = (Checkpoints::new(context.db.clone()), Cuts::new(context.db.clone()));
        let ties = Ties::new(&context, archive, notary.clone());
        Self { context, broker, ledger, tree, checkpoints, cuts, notary, ties, appended }
    }

    /// Verifies and tells progress. Everything that is concluded is concluded from rows that were checked.
    ///
    /// # Errors
    /// Where the database does not answer or the listener went away. Differences are no errors.
    pub async fn run(&self, database_only: bool, progress: &Progress) -> Result<pb::VerifyReport, Failure> {
        if database_only {
            let said = match self.ask_ledger().await {
                Ok((_, said)) => said,
                Err(why) => Err(format!("no answer: {why}")),
            };
            return self.database(&said, progress).await;
        }
        let (asked, said) = self.ask().await;
        self.compare(Some(&asked), &said, progress).await
    }

    /// Verifies the stored rows alone, and compares with what the token ledger said of its totals, or why it said nothing.
    ///
    /// # Errors
    /// As for all of it.
    pub async fn database(
        &self,
        said: &Result<Said, String>,
        progress: &Progress,
    ) -> Result<pb::VerifyReport, Failure> {
        self.compare(None, said, progress).await
    }

    async fn compare(
        &self,
        asked: Option<&Asked>,
        said: &Result<Said, String>,
        progress: &Progress,
    ) -> Result<pb::VerifyReport, Failure> {
        let none = BTreeMap::new();
        settled(&self.ledger, &self.appended, |snapshot| {
            let counted = said.as_ref().map_or(0, |said| said.under_way(&snapshot.producers, &none));
            counted == 0 && asked.is_none_or(|asked| arrived(asked, snapshot))
        })
        .await?;
        for _ in 0..TRIES {
            let snapshot = self.ledger.snapshot().await?;
            let (adder, unlike) = match self.ties.basis(said, &snapshot).await? {
                Basis::Compare(adder) => (Some(adder), None),
                Basis::NotNow(why) => (None, Some((true, format!("not compared: {why}")))),
                Basis::Wrong(why) => (None, Some((false, why))),
            };
            let counted = asked.and_then(|asked| asked.counted.clone());
            let mut checker = Checker::after(&snapshot.cut, counted);
            checker.books = adder;
            let checker = self.rows(&snapshot, checker, progress).await?;
            let state = self.tree.state(snapshot.cut.leaf).await?;
            if self.cuts.leaf().await? != snapshot.cut.leaf {
                continue;
            }
            let beyond = self.notary.known().map(|known| known.size).filter(|signed| *signed > state.size);
            let tree = [
                report::cut(&snapshot.cut, &state),
                report::tree(&checker, &snapshot.cut, &state),
                report::checkpoints(&checker, &snapshot.cut, beyond, state.size),
            ];
            let totals = match (&checker.books, said, unlike) {
                (Some(adder), Ok(said), None) => adder.against(said),
                (_, _, unlike) => {
                    let (ok, detail) = unlike.unwrap_or_default();
                    (Vec::new(), books::check(ok, detail))
                }
            };
            return Ok(conclude(&snapshot, &checker, tree, asked, totals));
        }
        Err(Failure::unavailable("days leave the database meanwhile: verify again when they have"))
    }

    /// The kept checkpoints with sizes from `from` up to but without `to`, and the one that is known beside the key.
    async fn signed(&self, from: u64, to: u64) -> Result<Vec<Signed>, DbError> {
        let mut signed = Vec::new();
        for kept in self.checkpoints.between(from, to).await? {
            let root = self.notary.read(&kept).map(|checkpoint| checkpoint.root).map_err(|e| e.to_string());
            signed.push(Signed { size: kept.size, root });
        }
        if let Some(known) = self.notary.known().filter(|known| (from..to).contains(&known.size)) {
            signed.push(Signed { size: known.size, root: Ok(known.root) });
            signed.sort_by_key(|signed| signed.size);
        }
        Ok(signed)
    }

    /// The token ledger is counted between two looks at the producers' numbers, so that transactions that
    /// are decided meanwhile do not count as differences.
    async fn ask(&self) -> (Asked, Result<Said, String>) {
        let (before, _) = self.statuses().await;
        let (ledger, said) = match self.ask_ledger().await {
            Ok((says, said)) => (Ok(says), said),
            Err(why) => (Err(why.clone()), Err(format!("no answer: {why}"))),
        };
        let (assigned, silent) = self.statuses().await;
        let token = |numbers: &BTreeMap<String, u64>| {
            let found = numbers.iter().rfind(|(name, _)| name.starts_with("token-engine/"));
            found.map(|(name, last)| (name.clone(), *last))
        };
        let counted = match (token(&before), token(&assigned)) {
            (Some((name, before)), Some((same, after))) if name == same => {
                Some(Counted { producer: name, before, after })
            }
            _ => None,
        };
        let mut streams = Vec::new();
        for domain in Domain::ALL {
            streams.push((domain.stream(), self.held(domain.stream()).await));
        }
        (Asked { assigned, silent, counted, ledger, streams }, said)
    }

    /// The last number of every producer, and the places that did not answer.
    async fn statuses(&self) -> (BTreeMap<String, u64>, Vec<String>) {
        let (said, silent) = producers::ask(&self.context).await;
        (said.into_iter().map(|(name, said)| (name, said.assigned)).collect(), silent)
    }

    async fn ask_ledger(&self) -> Result<(LedgerSays, Result<Said, String>), String> {
        let peer = self.context.peers.to(NAME, "token").map_err(|failure| failure.message)?;
        let mut client = TokenServiceClient::new(peer);
        let answer = tokio::time::timeout(LEDGER_ANSWER, client.verify_ledger(VerifyLedgerRequest {}))
            .await
            .map_err(|_| format!("the token engine took longer than {} s", LEDGER_ANSWER.as_secs()))?
            .map_err(|status| status.message().to_owned())?
            .into_inner();
        let said = read_totals(&answer);
        let invariants = answer.results.into_iter().map(|r| {
            (
                r.invariant,
                r.holds,
                if r.detail.is_empty() { r.statement } else { format!("{}: {}", r.statement, r.detail) },
            )
        });
        Ok((LedgerSays { invariants: invariants.collect(), transactions: answer.transactions }, said))
    }

    async fn held(&self, stream: &str) -> Result<Held, String> {
        match self.broker.stream_info(stream).await {
            Ok(Some(info)) => {
                Ok(Held { messages: info.messages, first: info.first_sequence, last: info.last_sequence })
            }
            Ok(None) => Err("there is no such stream".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Goes over all leaves of a snapshot; the next ones are read while these are checked.
    async fn rows(&self, snapshot: &Snapshot, mut checker: Checker, progress: &Progress) -> Result<Checker, Failure> {
        let size = i64::try_from(snapshot.size).map_err(Failure::internal)?;
        // Of those below the cut the signatures are checked: their roots are in the archive.
        checker.tree.expect(self.signed(0, snapshot.cut.leaf + 1).await?);
        let mut from = i64::try_from(snapshot.cut.leaf).unwrap_or(size);
        let mut next = self.window(from, size).await?;
        while from < size {
            let to = (from + WINDOW).min(size);
            let (rows, firsts) = next;
            // A size is reached when the leaf before it was taken.
            checker.tree.expect(self.signed(from as u64 + 1, to as u64 + 1).await?);
            let step = move || {
                for row in &rows {
                    checker.step(row, &firsts);
                }
                checker.end_of(to);
                checker
            };
            let (fetched, stepped) = tokio::join!(self.window(to, size), tokio::task::spawn_blocking(step));
            checker = stepped.map_err(Failure::internal)?;
            checker.tree.compare(&self.tree.tiles(&checker.tree.touched()).await?);
            next = fetched?;
            if (from / WINDOW) % TELL_EVERY == 0 {
                self.tell(progress, snapshot.cut.leaf + checker.checked, snapshot.size).await?;
            }
            from = to;
        }
        Ok(checker)
    }

    async fn window(&self, from: i64, size: i64) -> Result<(Vec<StoredLeaf>, BTreeMap<Uuid, i64>), DbError> {
        if from >= size {
            return Ok(Default::default());
        }
        let rows = self.ledger.window(from, (from + WINDOW).min(size)).await?;
        let ids: Vec<Uuid> =
            rows.iter().filter(|row| row.columns.producer.is_none()).filter_map(|row| row.columns.event_id).collect();
        let firsts = self.ledger.first_with_ids(&ids).await?;
        Ok((rows, firsts))
    }

    async fn tell(&self, progress: &Progress, checked: u64, total: u64) -> Result<(), Failure> {
        let message = pb::VerifyResponse { checked, total, report: None };
        let gone = || Failure::unavailable("verification stopped: nobody listens, or the process stops");
        tokio::select! {
            sent = progress.send(Ok(message)) => sent.map_err(|_| gone()),
            () = self.context.closing.cancelled() => Err(gone()),
        }
    }
}

/// Whether everything that was given out stands in the ledger.
fn arrived(asked: &Asked, snapshot: &Snapshot) -> bool {
    let producers =
        asked.assigned.iter().all(|(name, last)| snapshot.producers.get(name).map_or(0, |r| r.contiguous()) >= *last);
    let streams = asked.streams.iter().all(|(name, held)| match held {
        Ok(held) => report::received_of(*held, &snapshot.expected(name)) >= held.messages,
        Err(_) => true,
    });
    producers && streams
}

fn conclude(
    snapshot: &Snapshot,
    checker: &Checker,
    tree: [Check; 3],
    asked: Option<&Asked>,
    (ties, tied): (Vec<Tie>, Check),
) -> pb::VerifyReport {
    let mut checks = vec![report::rows(checker), report::head(snapshot, checker)];
    checks.extend(tree);
    let none = BTreeMap::new();
    let producers = report::producers(asked.map_or(&none, |a| &a.assigned), &checker.producers);
    checks.push(report::producers_check(&producers, asked.map_or(&[], |a| &a.silent)));
    let mut streams = Vec::new();
    if let Some(asked) = asked {
        let stream = |(name, held): &(&str, _)| report::stream(name, held, &snapshot.expected(name));
        streams.extend(asked.streams.iter().map(stream));
        checks.push(report::streams_check(&streams));
        checks.extend(report::ledger(&asked.ledger, checker.transactions));
    }
    checks.push(tied);
    pb::VerifyReport {
        ok: checks.iter().all(|check| check.ok),
        leaves: snapshot.size,
        invalid_events: checker.invalid,
        checks: checks
            .into_iter()
            .map(|Check { name, ok, detail }| pb::CheckResult { check: name, ok, detail })
            .collect(),
        producers: producers
            .into_iter()
            .map(|p| pb::ProducerStatus {
                producer: p.name,
                assigned: p.assigned,
                confirmed: p.confirmed,
                recorded: p.recorded,
                ok: p.ok,
                detail: p.detail,
            })
            .collect(),
        streams: streams
            .into_iter()
            .map(|s| pb::StreamStatus {
                stream: s.name,
                messages: s.messages,
                last_sequence: s.last_sequence,
                recorded: s.recorded,
                ok: s.ok,
                detail: s.detail,
            })
            .collect(),
        totals: ties.iter().map(total).collect(),
    }
}

fn total(tie: &Tie) -> pb::LedgerTotal {
    let difference = tie.difference();
    pb::LedgerTotal {
        currency: tie.currency.code().to_owned(),
        recorded: Some(sums(&tie.recorded, tie.currency)),
        ledger: Some(sums(&tie.ledger, tie.currency)),
        ok: difference.is_none(),
        detail: difference.unwrap_or_default(),
    }
}

fn sums(total: &Total, currency: Currency) -> pb::LedgerSums {
    pb::LedgerSums {
        committed: total.committed.count,
        committed_amount: Some(minor_to_money(total.committed.minor, currency)),
        minted: Some(minor_to_money(total.minted, currency)),
        burnt: Some(minor_to_money(total.burnt, currency)),
    }
}
