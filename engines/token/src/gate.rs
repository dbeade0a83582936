//! The submit path before the ledger: screening and risk are asked for many transactions at once, then
//! the writer decides. Fails closed: without an answer from both, nothing new is decided.

use std::sync::Arc;
use std::time::Duration;

use deltran_api::compliance::v1 as compliance;
use deltran_api::compliance::v1::compliance_service_client::ComplianceServiceClient;
use deltran_api::risk::v1 as risk;
use deltran_api::risk::v1::risk_service_client::RiskServiceClient;
use deltran_api::token::v1::Party;
use deltran_events::data::transactions::SettlementModel;
use deltran_runtime::metrics::Metrics;
use deltran_runtime::peers::Peers;
use deltran_runtime::wire::{parse_optional, to_money};
use deltran_runtime::{EngineContext, Failure};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::domain::command::{By, Command, Gates, Instruction, ScreeningDecision};
use crate::domain::refusal::{Refusal, RefusalCode};
use crate::turn::Call;
use crate::writer::{Decided, WriterHandle, received};

/// A parsed submission with the parties that compliance sees and the ledger never does.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The transaction.
    pub instruction: Instruction,
    /// Who pays in the end.
    pub originator: Option<Party>,
    /// Who is paid in the end.
    pub beneficiary: Option<Party>,
    /// Who asked.
    pub by: By,
}

/// Raised while compliance or risk does not answer: nothing new passes then.
const SILENT: &str = "gates_silent";
/// How often a call may find that another gate answers.
const TURNS_OF_A_CALL: usize = 3;

/// What waits for the gates. It has its place in the room of the writer.
struct Request {
    drafts: Vec<Draft>,
    room: OwnedSemaphorePermit,
    reply: oneshot::Sender<Result<Vec<Decided>, Failure>>,
}

/// The way into the submit path. Cloning shares it.
#[derive(Clone)]
pub struct Submissions {
    requests: mpsc::UnboundedSender<Request>,
    gates: Arc<GateClients>,
    writer: WriterHandle,
}

/// The stage that asks the gates.
pub struct GateStage {
    requests: mpsc::UnboundedReceiver<Request>,
    gates: Arc<GateClients>,
    writer: WriterHandle,
    settings: Settings,
    metrics: Metrics,
}

struct GateClients {
    peers: Peers,
    timeout: Duration,
    writer: WriterHandle,
}

/// The submit path in front of a writer.
pub fn submissions(context: &EngineContext, writer: WriterHandle, settings: Settings) -> (Submissions, GateStage) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let timeout = Duration::from_millis(settings.gate_timeout_ms);
    let gates = Arc::new(GateClients { peers: context.peers.clone(), timeout, writer: writer.clone() });
    let metrics = context.metrics.clone();
    let stage = GateStage { requests: receiver, gates: gates.clone(), writer: writer.clone(), settings, metrics };
    (Submissions { requests: sender, gates, writer }, stage)
}

impl Submissions {
    /// Submits drafts of one caller and waits for their COMMIT. With `wait` a full queue holds the
    /// caller back, without it the caller is refused.
    ///
    /// # Errors
    /// `unavailable` or `overloaded`: nothing was decided, or it is not known; the same ids may be sent
    /// again.
    pub async fn submit(&self, drafts: Vec<Draft>, wait: bool) -> Result<Vec<Decided>, Failure> {
        self.writer.admit()?;
        let room = if wait { self.writer.room(drafts.len()).await? } else { self.writer.try_room(drafts.len())? };
        let (reply, receiver) = oneshot::channel();
        // A closed channel drops the reply, which the receiver sees.
        let _closed = self.requests.send(Request { drafts, room, reply });
        received(receiver.await)
    }

    /// What risk says about a transaction that compliance releases, and the call, which is to go to the writer
    /// with the command.
    ///
    /// # Errors
    /// `unavailable`: it cannot be released now.
    pub async fn risk_of_release(&self, instruction: &Instruction) -> Result<(Gates, Arc<Call>), Failure> {
        self.writer.admit()?;
        let call = self.writer.turns().call();
        let gates = self.gates.ask_risk(instruction, &call).await?;
        Ok((gates, call))
    }
}

impl GateStage {
    /// Works until the channel closes or shutdown. While the writer commits one group, the gates are
    /// asked for the next.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let first = tokio::select! {
                request = self.requests.recv() => request,
                () = shutdown.cancelled() => return,
            };
            let Some(first) = first else { return };
            let mut group = vec![first];
            let mut size = group[0].drafts.len();
            while size < self.settings.gate_batch {
                let Ok(request) = self.requests.try_recv() else { break };
                size += request.drafts.len();
                group.push(request);
            }
            self.pass(group).await;
        }
    }

    async fn pass(&self, mut group: Vec<Request>) {
        // The deadline of who has gone has passed.
        group.retain(|request| !request.reply.is_closed());
        if group.is_empty() {
            return;
        }
        let mut verdicts = Vec::with_capacity(group.iter().map(|r| r.drafts.len()).sum());
        let drafts: Vec<&Draft> = group.iter().flat_map(|r| &r.drafts).collect();
        let call = self.writer.turns().call();
        let mut silent = false;
        for chunk in drafts.chunks(self.settings.gate_batch) {
            match self.gates.ask(chunk, &call).await {
                Ok(gates) => verdicts.extend(gates.into_iter().map(|g| g.map(Box::new))),
                Err(failure) => {
                    silent = true;
                    tracing::warn!(error = %failure, transactions = chunk.len(), "a gate did not answer: nothing passes");
                    verdicts.extend(chunk.iter().map(|_| Err(failure.message.clone())));
                }
            }
        }
        self.metrics.alert(SILENT, silent);
        let mut verdicts = verdicts.into_iter();
        for request in group {
            let commands = request
                .drafts
                .into_iter()
                .zip(verdicts.by_ref())
                .map(|(draft, gates)| Command::Submit { instruction: Box::new(draft.instruction), gates, by: draft.by })
                .collect();
            let results = self.writer.send(commands, Some(request.room), Some(call.clone()));
            tokio::spawn(forward(results, request.reply));
        }
    }
}

/// Passes the writer's answer on. Once nobody waits for it, the writer need not decide what it has not begun.
async fn forward(
    mut results: oneshot::Receiver<Result<Vec<Decided>, Failure>>,
    mut reply: oneshot::Sender<Result<Vec<Decided>, Failure>>,
) {
    tokio::select! {
        biased;
        answer = &mut results => {
            let _gone = reply.send(received(answer));
        }
        () = reply.closed() => {}
    }
}

impl GateClients {
    /// Asks both gates at once; one verdict per draft, in order, or why there is none for now.
    async fn ask(&self, drafts: &[&Draft], call: &Call) -> Result<Vec<Result<Gates, String>>, Failure> {
        let screen = async {
            let subjects = drafts.iter().map(|d| screen_subject(d)).collect();
            let mut client = ComplianceServiceClient::new(self.peers.to(crate::NAME, "compliance")?);
            Ok::<_, Failure>(
                client.screen_batch(compliance::ScreenBatchRequest { subjects }).await?.into_inner().results,
            )
        };
        let assess = self.assess(drafts.iter().map(|d| assess_subject(&d.instruction)).collect(), call);
        let both = async { tokio::try_join!(screen, assess) };
        let (screened, (turn, assessed)) =
            tokio::time::timeout(self.timeout, both).await.map_err(|_| self.late())??;
        if screened.len() != drafts.len() || assessed.len() != drafts.len() {
            return Err(Failure::unavailable("a gate answered for another number of transactions"));
        }
        drafts.iter().zip(screened).zip(assessed).map(|((draft, s), a)| combine(draft, s, a, turn)).collect()
    }

    /// Asks risk in the present turn, which the verdicts belong to. Where another gate answers than the one that
    /// the ledger listens to, or it listens to none yet, it listens to that one from then on.
    async fn assess(
        &self,
        subjects: Vec<risk::AssessSubject>,
        call: &Call,
    ) -> Result<(u64, Vec<risk::Verdict>), Failure> {
        let mut client = RiskServiceClient::new(self.peers.to(crate::NAME, "risk")?);
        let mut heard = None;
        for _ in 0..TURNS_OF_A_CALL {
            if let Some(gate) = heard.take() {
                self.writer.listen_to(gate).await?;
            }
            let present = self.writer.turns().present();
            let number = present.as_ref().map_or(0, |(turn, _)| turn.number);
            let asked = present.map(|(turn, done)| risk::Turn {
                term: turn.term,
                number: turn.number,
                gate: turn.gate,
                producer: turn.producer,
                last_event: turn.last_event,
                call: call.number(),
                done,
            });
            let gate_of_turn = asked.as_ref().map(|turn| turn.gate.clone());
            let request = risk::AssessBatchRequest { subjects: subjects.clone(), turn: asked };
            let answer = client.assess_batch(request).await?.into_inner();
            if gate_of_turn.as_deref() == Some(&answer.gate) {
                return Ok((number, answer.verdicts));
            }
            if answer.gate.is_empty() {
                return Err(Failure::unavailable("a gate of risk does not say which one it is"));
            }
            heard = Some(answer.gate);
        }
        Err(Failure::unavailable("several gates of risk answer by turns: peers.risk must lead to one process"))
    }

    /// Asks risk about a transaction that compliance releases; what it says stands for both gates.
    async fn ask_risk(&self, i: &Instruction, call: &Call) -> Result<Gates, Failure> {
        let assess = self.assess(vec![risk::AssessSubject { release: true, ..assess_subject(i) }], call);
        let (turn, verdicts) = tokio::time::timeout(self.timeout, assess).await.map_err(|_| self.late())??;
        let Ok([verdict]) = <[risk::Verdict; 1]>::try_from(verdicts) else {
            return Err(Failure::unavailable("risk answered for another number of transactions"));
        };
        let released = Gates {
            decision: ScreeningDecision::Approve,
            evidence: "released".into(),
            list_versions: Vec::new(),
            rule_version: String::new(),
            screening_score: 0,
            risk_refusal: None,
            risk_version: 0,
            risk_window: None,
            turn,
        };
        add_risk(i, released, verdict)?.map_err(Failure::unavailable)
    }

    fn late(&self) -> Failure {
        Failure::unavailable(format!("a gate did not answer within {} ms", self.timeout.as_millis()))
    }
}

fn screen_subject(draft: &Draft) -> compliance::ScreenSubject {
    let i = &draft.instruction;
    compliance::ScreenSubject {
        transaction_id: i.id.to_string(),
        payer: i.payer.to_string(),
        payee: i.payee.to_string(),
        amount: Some(to_money(i.amount)),
        originator: draft.originator.clone(),
        beneficiary: draft.beneficiary.clone(),
    }
}

fn assess_subject(i: &Instruction) -> risk::AssessSubject {
    risk::AssessSubject {
        transaction_id: i.id.to_string(),
        payer: i.payer.to_string(),
        payee: i.payee.to_string(),
        amount: Some(to_money(i.amount)),
        gross: i.model == SettlementModel::Gross,
        two_phase: i.reserve_for.is_some(),
        release: false,
    }
}

/// An answer that is not about this transaction, or has no known word, is no answer.
fn combine(
    draft: &Draft,
    screened: compliance::ScreenResult,
    assessed: risk::Verdict,
    turn: u64,
) -> Result<Result<Gates, String>, Failure> {
    if screened.transaction_id != draft.instruction.id.to_string() {
        return Err(Failure::unavailable("a gate answered for another transaction"));
    }
    let decision = match screened.decision() {
        compliance::Decision::Approve => ScreeningDecision::Approve,
        compliance::Decision::Review => ScreeningDecision::Review,
        compliance::Decision::BlockAndReview => ScreeningDecision::BlockAndReview,
        compliance::Decision::Decline => ScreeningDecision::Decline,
        compliance::Decision::Unspecified => return Err(Failure::unavailable("compliance gave no decision")),
    };
    let screened = Gates {
        decision,
        evidence: screened.evidence,
        list_versions: screened.list_versions,
        rule_version: screened.rule_version,
        screening_score: screened.score,
        risk_refusal: None,
        risk_version: 0,
        risk_window: None,
        turn,
    };
    add_risk(&draft.instruction, screened, assessed)
}

/// Adds what risk said, or tells that it cannot say now.
fn add_risk(i: &Instruction, screened: Gates, assessed: risk::Verdict) -> Result<Result<Gates, String>, Failure> {
    if assessed.transaction_id != i.id.to_string() {
        return Err(Failure::unavailable("a gate answered for another transaction"));
    }
    if !assessed.undecided.is_empty() {
        return Ok(Err(assessed.undecided));
    }
    let risk_window = parse_optional("window_id", &assessed.window_id)
        .map_err(|_| Failure::unavailable(format!("risk named a window that is none: {:?}", assessed.window_id)))?;
    let risk_refusal = assessed.refusal.map(|refusal| {
        let code = RefusalCode::from_word(&refusal.code)
            .filter(|c| matches!(c, RefusalCode::BreakerOpen | RefusalCode::Limit))
            .ok_or_else(|| Failure::unavailable(format!("risk refused with an unknown code {:?}", refusal.code)))?;
        Ok::<_, Failure>(Refusal { code, message: refusal.message, details: refusal.details })
    });
    Ok(Ok(Gates { risk_refusal: risk_refusal.transpose()?, risk_version: assessed.version, risk_window, ..screened }))
}
