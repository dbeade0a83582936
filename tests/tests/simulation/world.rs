//! All engines in one process: a clock that is moved, a broker that forgets, databases that commit or do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltran_events::Domain;
use deltran_events::data::transactions::{CoverPolicy, SettlementModel, TransactionState};
use deltran_kernel::{
    Clock, CommandId, Currency, IdSource, ManualClock, Minor, Money, ParticipantId, SeededIds, Timestamp,
    TransactionId, WithdrawalId,
};
use deltran_risk::domain::assess::{Subject, Verdict};
use deltran_token::domain::command::{By, Command, Gates, Instruction, ParticipantState, Priority, ScreeningDecision};
use deltran_token::domain::refusal::{Refusal, RefusalCode};
use uuid::Uuid;

use super::Faults;
use super::audit::AuditEngine;
use super::banks::Banks;
use super::broker::Broker;
use super::check::{Checked, Truth};
use super::clearing::ClearingEngine;
use super::op::{Fate, Log, Op, Screen, Way};
use super::risk::{Limits, RiskEngine};
use super::settlement::SettlementEngine;
use super::shell::Shell;
use super::token::{For, TokenEngine};

pub const BANKS: [&str; 4] = ["ALFAAEXX", "BRAVINXX", "CHARAEXX", "DELTDEXX"];
/// 6 November 2025, 12:00 UTC.
const START: i64 = 1_762_430_400_000_000;

/// How often what happened.
pub type Counts = BTreeMap<&'static str, u64>;

/// Everything there is.
pub struct World {
    pub clock: Arc<ManualClock>,
    pub broker: Broker,
    pub token: TokenEngine,
    pub clearing: ClearingEngine,
    pub settlement: SettlementEngine,
    pub risk: RiskEngine,
    pub audit: AuditEngine,
    pub banks: Banks,
    pub truth: Truth,
    pub counts: Counts,
    pub faults: Faults,
    pub fresh: u128,
    /// Commits of the ledger, and of anybody, that were looked at.
    pub looked: (u64, u64),
    pub commits: u64,
}

pub fn bank(n: u8) -> ParticipantId {
    parsed(BANKS[usize::from(n) % BANKS.len()])
}

fn parsed<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is no id"))
}

pub fn currency(euro: bool) -> Currency {
    parsed(if euro { "EUR" } else { "USD" })
}

pub fn money(units: u16, euro: bool) -> Money {
    Money::new(Minor::new(i128::from(units)).unwrap_or_default(), currency(euro))
}

pub fn by(user: &str) -> By {
    By { user: user.to_owned(), trace: None }
}

fn body(id: Uuid, salt: u8) -> [u8; 32] {
    let mut hash = [salt; 32];
    hash[..16].copy_from_slice(id.as_bytes());
    hash
}

impl World {
    /// A day with four banks, two currencies and their windows.
    pub fn new(faults: Faults) -> Checked<Self> {
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(START)));
        let ids = Arc::new(SeededIds::new(7));
        let shell = |domain, log| Shell::new(domain, log, clock.clone(), ids.clone() as Arc<dyn IdSource>);
        let limits: Limits =
            [((bank(0), bank(1), currency(false)), 160), ((bank(1), bank(2), currency(false)), 120)].into();
        let mut truth = Truth::default();
        truth.limits.clone_from(&limits);
        let mut world = Self {
            broker: Broker::new(),
            token: TokenEngine::new(shell(Domain::Transactions, Log::Transactions)),
            clearing: ClearingEngine::new(shell(Domain::Clearing, Log::Clearing)),
            settlement: SettlementEngine::new(shell(Domain::Settlement, Log::Settlement)),
            // It publishes nothing here; its received ranges are what is needed of its shell.
            risk: RiskEngine::new(shell(Domain::Risk, Log::Transactions), limits),
            audit: AuditEngine::new(shell(Domain::Audit, Log::Audit)),
            banks: Banks::default(),
            truth,
            counts: Counts::new(),
            faults,
            fresh: 0,
            looked: (0, 0),
            commits: 0,
            clock,
        };
        world.begin()?;
        Ok(world)
    }

    pub fn begin(&mut self) -> Checked {
        for n in 0..BANKS.len() as u8 {
            let participant = bank(n);
            let id = self.id();
            let (name, hash) = (BANKS[usize::from(n)].to_owned(), body(id, 0));
            self.operator(Command::Register { id: CommandId::new(id), hash, participant, name, by: by("operator") });
            self.set_state(participant, ParticipantState::Active);
            for euro in [false, true] {
                let id = self.id();
                let (hash, currency) = (body(id, 0), currency(euro));
                self.operator(Command::EnableCurrency {
                    id: CommandId::new(id),
                    hash,
                    participant,
                    currency,
                    by: by("operator"),
                });
                self.apply_one(Op::Cap { bank: n, units: 250, euro })?;
                self.apply_one(Op::Deposit { bank: n, units: 200, euro })?;
            }
        }
        for euro in [false, true] {
            self.apply_one(Op::Open { euro, fate: Fate::Done })?;
        }
        self.write(usize::MAX, Fate::Done)?;
        self.audit.keep(&mut self.broker, &BTreeMap::new(), u64::MAX, self.clock.now(), &self.faults)?;
        self.calm()?;
        self.check()
    }

    pub fn id(&mut self) -> Uuid {
        self.fresh += 1;
        Uuid::from_u128(self.fresh)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// One operation, and every invariant after it.
    pub fn apply(&mut self, op: Op) -> Checked {
        self.apply_one(op)?;
        self.check()
    }

    pub fn apply_one(&mut self, op: Op) -> Checked {
        match op {
            Op::Submit { payer, payee, units, euro, way, screen } => {
                let i = self.instruction(bank(payer), bank(payee), money(units, euro), way, None);
                self.banks.sent.push(i.clone());
                self.submit(i, screen)
            }
            Op::Retry { which, screen } => match self.sent(which) {
                Some(i) => self.submit(i, screen),
                None => Ok(()),
            },
            Op::Alter { which } => self.alter(which),
            Op::Return { which, units } => self.send_back(which, units),
            Op::Commit { .. } | Op::Cancel { .. } | Op::Release { .. } => self.second_phase(op),
            Op::Deposit { .. }
            | Op::Withdraw { .. }
            | Op::EndWithdrawal { .. }
            | Op::Cap { .. }
            | Op::Collateral { .. }
            | Op::Suspend { .. }
            | Op::Again { .. } => {
                self.administer(op);
                Ok(())
            }
            Op::Write { most, fate } => self.write(usize::from(most), fate).map(drop),
            Op::Open { .. } | Op::Close { .. } | Op::Abort { .. } | Op::NetAgain { .. } => self.window_order(op),
            Op::Windows { nth, call, ledger, fate } => self.windows(nth, call, ledger, fate).map(drop),
            Op::Batches { nth, call, ledger, fate } => self.batches(nth, call, ledger, fate).map(drop),
            Op::Relay { engine, most, marked } => {
                self.relay(engine, usize::from(most), marked);
                Ok(())
            }
            Op::Confirm { engine } => {
                self.confirm(engine);
                Ok(())
            }
            Op::Copy { log, most } => {
                self.broker.copy(log, usize::from(most));
                Ok(())
            }
            Op::Deliver { feed, skip, most, fate } => {
                self.deliver(feed, usize::from(skip), usize::from(most), fate).map(drop)
            }
            Op::Redeliver { feed, in_order } => {
                self.broker.redeliver(feed, in_order);
                Ok(())
            }
            Op::Rollback { .. } | Op::Wipe { .. } | Op::Delete { .. } | Op::Remake { .. } => {
                self.lose(op);
                Ok(())
            }
            Op::Keep { steps } => {
                let steps = if steps == u8::MAX { u64::MAX } else { u64::from(steps) };
                self.keep(steps).map(drop)
            }
            Op::Repair => {
                // The keeper has looked twice by the time that a comparison begins to repair.
                self.keep(u64::MAX)?;
                self.keep(u64::MAX)?;
                self.repair();
                Ok(())
            }
            Op::Crash { engine } => {
                self.count("crashes");
                self.crash(engine);
                Ok(())
            }
            Op::TakeOver => {
                self.count("take-overs");
                self.token.take_over();
                Ok(())
            }
            Op::Wake { fate } => self.wake(fate),
            Op::Reload => {
                self.risk.reload();
                Ok(())
            }
            Op::Checkpoint => {
                self.count("checkpoints");
                self.audit.sign();
                Ok(())
            }
            Op::Advance { seconds } => {
                self.clock.advance_micros(i64::from(seconds) * 1_000_000);
                if seconds >= 120 {
                    self.broker.forget_ids();
                }
                Ok(())
            }
            Op::Calm => self.calm(),
        }
    }

    // ---- banks and operators

    pub fn instruction(
        &mut self,
        payer: ParticipantId,
        payee: ParticipantId,
        amount: Money,
        way: Way,
        return_of: Option<TransactionId>,
    ) -> Instruction {
        let id = self.id();
        let gross = matches!(way, Way::Gross | Way::GrossHold);
        let hold = matches!(way, Way::NetHold | Way::GrossHold);
        Instruction {
            id: TransactionId::new(id),
            payer,
            payee,
            amount,
            model: if gross { SettlementModel::Gross } else { SettlementModel::NetMultilateral },
            priority: Priority::Normal,
            end_to_end_id: String::new(),
            uetr: None,
            purpose: String::new(),
            reserve_for: hold.then_some(20_000_000),
            return_of,
            body_hash: body(id, 0),
        }
    }

    pub fn sent(&self, which: u16) -> Option<Instruction> {
        let all = &self.banks.sent;
        all.get(usize::from(which) % all.len().max(1)).cloned()
    }

    /// Asks the gates, and has the command wait for the writer.
    pub fn submit(&mut self, i: Instruction, screen: Screen) -> Checked {
        self.count("submissions");
        let id = i.id;
        let call = self.token.process.turns.call();
        let gates = self.gates(&i, screen, false, &call)?.map(Box::new);
        let command = Command::Submit { instruction: Box::new(i), gates, by: by("bank") };
        self.token.enqueue(command, For::Submission(id), Some(call));
        Ok(())
    }

    pub fn gates(
        &mut self,
        i: &Instruction,
        screen: Screen,
        release: bool,
        call: &deltran_token::turn::Call,
    ) -> Checked<Result<Gates, String>> {
        let decision = match screen {
            Screen::Approve => ScreeningDecision::Approve,
            Screen::Review => ScreeningDecision::Review,
            Screen::Decline => ScreeningDecision::Decline,
            Screen::Silent => return Ok(Err("compliance does not answer".into())),
        };
        let subject = Subject {
            id: i.id,
            payer: i.payer,
            payee: i.payee,
            amount: i.amount,
            gross: i.model == SettlementModel::Gross,
            two_phase: i.reserve_for.is_some(),
            release,
        };
        let now = self.now();
        let said = match self.risk.ask(&mut self.token, &subject, call, now)? {
            Ok(said) => said,
            Err(undecided) => return Ok(Err(undecided)),
        };
        let (risk_refusal, risk_window) = match said.verdict {
            Verdict::Undecided(why) => return Ok(Err(why)),
            Verdict::Refused(_) => (Some(Refusal::new(RefusalCode::Limit, "a limit does not allow it")), None),
            Verdict::Pass { window } => (None, window),
        };
        Ok(Ok(Gates {
            decision,
            evidence: "no_parties".into(),
            list_versions: Vec::new(),
            rule_version: "1".into(),
            screening_score: 0,
            risk_refusal,
            risk_version: said.version,
            risk_window,
            turn: said.turn,
        }))
    }

    /// The id of a submission that was answered, with another body.
    pub fn alter(&mut self, which: u16) -> Checked {
        let heard: Vec<TransactionId> = self.banks.heard.keys().copied().collect();
        let Some(id) = heard.get(usize::from(which) % heard.len().max(1)).copied() else { return Ok(()) };
        let Some(i) = self.banks.sent.iter().find(|i| i.id == id).cloned() else { return Ok(()) };
        let other = Instruction { body_hash: body(id.uuid(), 1), ..i };
        let command = Command::Submit { instruction: Box::new(other), gates: Err("not asked".into()), by: by("bank") };
        self.token.enqueue(command, For::Altered(id), None);
        Ok(())
    }

    pub fn send_back(&mut self, which: u16, units: u16) -> Checked {
        let Some(original) = self.sent(which) else { return Ok(()) };
        let euro = original.amount.currency() == currency(true);
        let way = if original.model == SettlementModel::Gross { Way::Gross } else { Way::Net };
        let i = self.instruction(original.payee, original.payer, money(units, euro), way, Some(original.id));
        self.banks.sent.push(i.clone());
        self.submit(i, Screen::Approve)
    }

    pub fn second_phase(&mut self, op: Op) -> Checked {
        let (Op::Commit { which } | Op::Cancel { which } | Op::Release { which, .. }) = op else { return Ok(()) };
        let Some(i) = self.sent(which) else { return Ok(()) };
        let (id, payer) = (i.id, i.payer);
        let mut held = None;
        let command = match op {
            Op::Commit { .. } => Command::Commit { id, payer, by: by("bank") },
            Op::Cancel { .. } => Command::Cancel { id, payer, reason: "changed my mind".into(), by: by("bank") },
            Op::Release { release, .. } => {
                let stored = self.token.rows.transactions.get(&id).map(|r| r.state);
                let mut gates = None;
                if release && stored == Some(TransactionState::Held) {
                    let call = self.token.process.turns.call();
                    let Ok(asked) = self.gates(&i, Screen::Approve, true, &call)? else { return Ok(()) };
                    (gates, held) = (Some(Box::new(asked)), Some(call));
                }
                Command::Release { id, release, reason: "looked at".into(), gates, by: by("officer") }
            }
            _ => return Ok(()),
        };
        self.token.enqueue(command, For::Phase(id), held);
        Ok(())
    }

    /// A command of an operator, remembered to be sent again.
    pub fn operator(&mut self, command: Command) {
        self.banks.commands.push(command.clone());
        let place = self.banks.commands.len() - 1;
        self.token.enqueue(command, For::Operator(place), None);
    }

    pub fn set_state(&mut self, participant: ParticipantId, state: ParticipantState) {
        let id = self.id();
        let (hash, reason) = (body(id, 0), "for the test".to_owned());
        self.operator(Command::SetState {
            id: CommandId::new(id),
            hash,
            participant,
            state,
            reason,
            by: by("operator"),
        });
    }

    pub fn administer(&mut self, op: Op) {
        let id = self.id();
        let (hash, reference, command) = (body(id, 0), String::new(), CommandId::new(id));
        match op {
            Op::Deposit { bank: n, units, euro } => {
                let (participant, amount) = (bank(n), money(units, euro));
                self.operator(Command::Deposit {
                    id: command,
                    hash,
                    participant,
                    amount,
                    reference,
                    by: by("operator"),
                });
            }
            Op::Withdraw { bank: n, units, euro } => {
                let id = WithdrawalId::new(id);
                self.banks.withdrawals.push(id);
                let (participant, amount) = (bank(n), money(units, euro));
                let by = by("bank");
                self.operator(Command::RequestWithdrawal { id, hash, participant, amount, reference, by });
            }
            Op::EndWithdrawal { which, confirmed } => {
                let all = &self.banks.withdrawals;
                if let Some(id) = all.get(usize::from(which) % all.len().max(1)).copied() {
                    self.operator(Command::EndWithdrawal { id, confirmed, text: String::new(), by: by("operator") });
                }
            }
            Op::Cap { bank: n, units, euro } => {
                let (participant, cap) = (bank(n), money(units, euro));
                self.operator(Command::SetLimit { id: command, hash, participant, cap, by: by("risk") });
            }
            Op::Collateral { bank: n, units, euro } => {
                for user in ["ada", "bob"] {
                    let (participant, amount) = (bank(n), money(units, euro));
                    let policy = CoverPolicy::CreditLine;
                    self.operator(Command::SetCollateral {
                        id: command,
                        hash,
                        participant,
                        policy,
                        amount,
                        by: by(user),
                    });
                }
            }
            Op::Suspend { bank: n, suspended } => {
                let state = if suspended { ParticipantState::Suspended } else { ParticipantState::Active };
                self.set_state(bank(n), state);
            }
            Op::Again { which } => {
                let all = &self.banks.commands;
                let place = usize::from(which) % all.len().max(1);
                if let Some(command) = all.get(place).cloned() {
                    self.token.enqueue(command, For::Operator(place), None);
                }
            }
            _ => {}
        }
    }
}
