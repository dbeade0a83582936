//! `deltran bench ledger`: the ledger's writer alone, on a real Postgres: decisions, postings, events of the outbox.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use deltran_events::data::transactions::SettlementModel;
use deltran_kernel::{
    Clock, CommandId, Currency, IdSource, Minor, Money, ParticipantId, SeededIds, SystemClock, SystemIds,
    TransactionId, WindowId,
};
use deltran_messaging::Outbox;
use deltran_runtime::db::DbOptions;
use deltran_runtime::health::Health;
use deltran_runtime::metrics::Metrics;
use deltran_runtime::peers::Peers;
use deltran_runtime::{Db, EngineContext};
use deltran_token::config::Settings;
use deltran_token::domain::command::{By, Command, Gates, Instruction, ParticipantState, Priority, ScreeningDecision};
use deltran_token::store::Store;
use deltran_token::writer::{WriterHandle, received, writer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Setting;
use super::figure::Figure;
use super::ground::{Ground, until};
use super::load::CURRENCY;
use super::machine;
use super::report::Report;
use super::stream::bank;
use crate::engines::named;
use crate::problem::Problem;

/// Commands of one job, as a stream's message has them.
const JOB: usize = 1_000;
/// Jobs that wait for the writer: more than it takes at once.
const JOBS: usize = 12;
/// What the gate of this measurement is called.
const GATE: &str = "bench";

/// Measure the ledger alone
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The writer under its lease takes committed payments that need no gate to be asked any more: it decides them in \
memory, writes
transactions, postings, balances and events into Postgres with fsync, and answers after COMMIT. No gRPC, no screening, no
broker.

Examples:
  deltran bench ledger
  deltran bench ledger --runs 1 --count 1000 --json"
)]
pub struct LedgerBench {
    /// Payments of a run
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    count: u32,
    /// Banks that pay each other
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=5000))]
    banks: u16,
}

/// Measures.
///
/// # Errors
/// Where something does not start or a payment is not decided.
pub async fn run(args: &LedgerBench, setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    report.set("ledger.count", args.count);
    report.set("ledger.banks", args.banks);
    let folder = setting.data.join("ledger");
    let ground = Ground::start(&folder, &named(&[deltran_token::NAME.to_owned()])?).await?;
    let done = measure(args, setting, &ground, report).await;
    ground.describe(&folder, report);
    ground.stop(&folder, setting.keep_data).await;
    done
}

async fn measure(args: &LedgerBench, setting: &Setting, ground: &Ground, report: &mut Report) -> Result<(), Problem> {
    let context = context(ground)?;
    let settings: Settings = context.config.section(deltran_token::NAME)?;
    let clock = context.clock.clone();
    let outbox = Outbox::new(deltran_events::Domain::Transactions, clock, context.ids.clone());
    let (handle, writer) = writer(context.clone(), Store::new(context.db.clone()), outbox, settings);
    let stop = CancellationToken::new();
    let working = tokio::spawn(writer.run(stop.clone()));
    let done = timed(args, setting, &handle, report).await;
    stop.cancel();
    working.await.map_err(|e| Problem::refused(format!("the writer: {e}")))?;
    done
}

fn context(ground: &Ground) -> Result<EngineContext, Problem> {
    let metrics = Metrics::new().map_err(|e| Problem::refused(e.to_string()))?;
    let config = Arc::new(ground.config.clone());
    let options = DbOptions {
        url: config.database_url(deltran_token::NAME).to_owned(),
        max_connections: config.database.max_connections,
        acquire_timeout: Duration::from_millis(config.database.acquire_timeout_ms),
    };
    Ok(EngineContext {
        engine: deltran_token::NAME,
        db: Db::open(deltran_token::NAME, &options, metrics.clone())?,
        clock: Arc::new(SystemClock),
        ids: Arc::new(SystemIds::new()),
        peers: Peers::new(vec![deltran_token::NAME], &config.peers).map_err(Problem::usage)?,
        config,
        metrics,
        health: Health::default(),
        holder: GATE.to_owned(),
        closing: CancellationToken::new(),
    })
}

async fn timed(
    args: &LedgerBench,
    setting: &Setting,
    handle: &WriterHandle,
    report: &mut Report,
) -> Result<(), Problem> {
    until("the writer", Duration::from_millis(20), async || handle.admit().ok()).await?;
    let mut payments = Payments::new(setting.seed, args.banks.into())?;
    for command in payments.preparation()? {
        let what = format!("{command:?}");
        let decided = handle.execute(command, None).await.map_err(|f| Problem::refused(f.message))?;
        decided.map_err(|denied| Problem::refused(format!("{what}: {denied:?}")))?;
    }
    let turn = handle.listen_to(GATE.to_owned()).await.map_err(|f| Problem::refused(f.message))?;
    let mut rates = Vec::new();
    let mut before = Vec::new();
    let root = std::process::id();
    // The first round warms up.
    for run in 0..=setting.runs {
        let count = if run == 0 { args.count.div_ceil(4) } else { args.count };
        let mut jobs = payments.jobs(count as usize, turn.number)?.into_iter();
        if run == 1 {
            before = machine::processes(root);
        }
        let started = Instant::now();
        let mut waiting = std::collections::VecDeque::new();
        loop {
            while waiting.len() < JOBS
                && let Some(job) = jobs.next()
            {
                waiting.push_back(handle.send(job, None, None));
            }
            let Some(next) = waiting.pop_front() else { break };
            let decided = received(next.await).map_err(|f| Problem::refused(f.message))?;
            if let Some(denied) = decided.into_iter().find_map(Result::err) {
                return Err(Problem::refused(format!("a payment was denied: {denied:?}")));
            }
        }
        if run > 0 {
            rates.push(f64::from(count) / started.elapsed().as_secs_f64());
        }
    }
    let costs = machine::cost(&before, &machine::processes(root), f64::from(args.count) * f64::from(setting.runs));
    report.set("ledger.cpu_us_a_payment", machine::costs_json(&costs));
    report.add(Figure::rate("ledger.rate", "ledger alone: payments committed", "payments/s", rates).target(60_000.0));
    Ok(())
}

/// Commands of a load.
struct Payments {
    banks: Vec<ParticipantId>,
    currency: Currency,
    ids: SeededIds,
    rng: StdRng,
    number: u64,
}

impl Payments {
    fn new(seed: u64, banks: usize) -> Result<Self, Problem> {
        let defect = |e: &dyn std::fmt::Display| Problem::refused(e.to_string());
        Ok(Self {
            banks: (0..banks).map(bank).collect::<Result<_, _>>().map_err(|e| defect(&e))?,
            currency: Currency::new(CURRENCY).map_err(|e| defect(&e))?,
            ids: SeededIds::new(seed),
            rng: StdRng::seed_from_u64(seed),
            number: 0,
        })
    }

    fn id(&self) -> uuid::Uuid {
        self.ids.next_id(SystemClock.now())
    }

    fn money(&self, minor: i128) -> Result<Money, Problem> {
        let minor = Minor::new(minor).map_err(|e| Problem::refused(e.to_string()))?;
        Ok(Money::new(minor, self.currency))
    }

    /// Banks with tokens and caps, and an open window.
    fn preparation(&self) -> Result<Vec<Command>, Problem> {
        let (by, currency) = (By::default(), self.currency);
        let mut commands = Vec::new();
        for &participant in &self.banks {
            let next = || {
                let id = CommandId::new(self.id());
                (id, <[u8; 32]>::from(Sha256::digest(id.uuid().as_bytes())))
            };
            let (id, hash) = next();
            commands.push(Command::Register { id, hash, participant, name: participant.to_string(), by: by.clone() });
            let (id, hash) = next();
            let (state, reason) = (ParticipantState::Active, String::new());
            commands.push(Command::SetState { id, hash, participant, state, reason, by: by.clone() });
            let (id, hash) = next();
            commands.push(Command::EnableCurrency { id, hash, participant, currency, by: by.clone() });
            let (id, hash) = next();
            let (amount, reference) = (self.money(90_000_000_000_000)?, "bench".to_owned());
            commands.push(Command::Deposit { id, hash, participant, amount, reference, by: by.clone() });
            let (id, hash) = next();
            commands.push(Command::SetLimit {
                id,
                hash,
                participant,
                cap: self.money(80_000_000_000_000)?,
                by: by.clone(),
            });
        }
        commands.push(Command::OpenWindow { id: WindowId::new(self.id()), currency });
        Ok(commands)
    }

    fn jobs(&mut self, count: usize, turn: u64) -> Result<Vec<Vec<Command>>, Problem> {
        let commands: Vec<Command> = (0..count).map(|_| self.payment(turn)).collect::<Result<_, _>>()?;
        let mut jobs = Vec::new();
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            jobs.push(commands.by_ref().take(JOB).collect());
        }
        Ok(jobs)
    }

    fn payment(&mut self, turn: u64) -> Result<Command, Problem> {
        self.number += 1;
        let many = self.banks.len();
        let payer = self.rng.random_range(0..many);
        let payee = (payer + self.rng.random_range(1..many)) % many;
        let id = TransactionId::new(self.id());
        let amount = self.rng.random_range(100..100_000);
        let instruction = Instruction {
            id,
            payer: self.banks[payer],
            payee: self.banks[payee],
            amount: self.money(amount)?,
            model: SettlementModel::NetMultilateral,
            priority: Priority::Normal,
            end_to_end_id: format!("BENCH-{:012}", self.number),
            uetr: None,
            purpose: String::new(),
            reserve_for: None,
            return_of: None,
            body_hash: Sha256::digest(id.uuid().as_bytes()).into(),
        };
        let gates = Gates {
            decision: ScreeningDecision::Approve,
            evidence: "no_match".into(),
            list_versions: vec!["bundled@1".into()],
            rule_version: "names/1".into(),
            screening_score: 0,
            risk_refusal: None,
            risk_version: 1,
            risk_window: None,
            turn,
        };
        let by = By { user: self.banks[payer].to_string(), trace: None };
        Ok(Command::Submit { instruction: Box::new(instruction), gates: Ok(Box::new(gates)), by })
    }
}
