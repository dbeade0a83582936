//! The second phase: commit, cancel, expiry of reservations, and the release of held transactions.

use deltran_events::data::transactions::{
    SettlementModel, TransactionCancelled, TransactionCommitted, TransactionExpired, TransactionReleased,
    TransactionState,
};
use deltran_kernel::{ParticipantId, Timestamp, TransactionId};

use super::command::{Answer, Applied, By, Gates, ParticipantState};
use super::effects::Record;
use super::ledger::Ledger;
use super::refusal::{Denied, Refusal, RefusalCode};
use super::transact::Way;

type Decided = Result<Applied<Answer>, Denied>;

impl Ledger {
    /// A reservation of this payer, or why there is none. One that ran out is ended first.
    fn reservation(&mut self, id: TransactionId, payer: ParticipantId, at: Timestamp) -> Result<Record, Denied> {
        self.expire_one(id, at);
        let record = self
            .known
            .transactions
            .get(&id)
            .filter(|r| r.instruction.payer == payer)
            .cloned()
            .ok_or_else(|| Denied::not_found("transaction", id))?;
        Ok(record)
    }

    /// Commits a reservation: into the window that is open now, whatever was open when it was reserved.
    pub(super) fn commit(&mut self, id: TransactionId, payer: ParticipantId, by: &By, at: Timestamp) -> Decided {
        let record = self.reservation(id, payer, at)?;
        match record.state {
            TransactionState::Committed => {
                return Ok(Applied::AlreadyApplied(Answer::Transaction(TransactionState::Committed)));
            }
            TransactionState::Reserved => {}
            state => return Err(Denied::wrong_state(format!("transaction {id} is {state}, not RESERVED"), state)),
        }
        let i = record.instruction.clone();
        for participant in [i.payer, i.payee] {
            let state = self.participants.get(&participant).map(|p| p.state);
            if state != Some(ParticipantState::Active) {
                return Err(Refusal::of_participant(RefusalCode::Suspended, participant, "is not ACTIVE").into());
            }
        }
        let currency = i.amount.currency();
        if i.model != SettlementModel::Gross && !self.open.contains_key(&currency) {
            let message = format!("no clearing window of {currency} is open: the reservation stands until it expires");
            return Err(Refusal::new(RefusalCode::WindowClosed, message).into());
        }
        self.check_range(&i)?;
        // ---- writes
        self.commit_reserved(record, by, at);
        Ok(Applied::Executed(Answer::Transaction(TransactionState::Committed)))
    }

    fn commit_reserved(&mut self, mut record: Record, by: &By, at: Timestamp) {
        let i = record.instruction.clone();
        let from_hold = record.state == TransactionState::Reserved;
        if from_hold {
            self.end_hold(&record, false, at);
        }
        record.window = self.commit_postings(&i, from_hold, at);
        let committed = TransactionCommitted {
            transaction_id: i.id,
            payer: i.payer,
            payee: i.payee,
            amount: i.amount.into(),
            currency: i.amount.currency(),
            settlement_model: i.model,
            window_id: record.window.map(|w| w.0),
            window_seq: record.window.map(|w| w.1),
        };
        self.say_of(i.id, i.payer, by, committed);
        self.set_state(record, TransactionState::Committed, at);
    }

    /// Gives a reservation back.
    pub(super) fn cancel(
        &mut self,
        id: TransactionId,
        payer: ParticipantId,
        reason: String,
        by: &By,
        at: Timestamp,
    ) -> Decided {
        let record = self.reservation(id, payer, at)?;
        match record.state {
            TransactionState::Cancelled => {
                return Ok(Applied::AlreadyApplied(Answer::Transaction(TransactionState::Cancelled)));
            }
            TransactionState::Reserved => {}
            state => return Err(Denied::wrong_state(format!("transaction {id} is {state}, not RESERVED"), state)),
        }
        // ---- writes
        self.end_hold(&record, true, at);
        let i = &record.instruction;
        let cancelled = TransactionCancelled {
            transaction_id: id,
            payer,
            payee: i.payee,
            amount: i.amount.into(),
            currency: i.amount.currency(),
            reason,
        };
        self.say_of(id, payer, by, cancelled);
        self.set_state(record, TransactionState::Cancelled, at);
        Ok(Applied::Executed(Answer::Transaction(TransactionState::Cancelled)))
    }

    /// Ends every reservation whose time has come.
    pub(super) fn expire_due(&mut self, at: Timestamp) -> usize {
        let due: Vec<TransactionId> = self.expiries.iter().take_while(|e| e.at <= at).map(|e| e.id).collect();
        due.into_iter().filter(|id| self.expire_one(*id, at)).count()
    }

    fn expire_one(&mut self, id: TransactionId, at: Timestamp) -> bool {
        let due = |r: &&Record| r.state == TransactionState::Reserved && r.expires_at.is_some_and(|e| e <= at);
        let Some(record) = self.known.transactions.get(&id).filter(due).cloned() else { return false };
        self.end_hold(&record, true, at);
        let i = &record.instruction;
        let expired = TransactionExpired {
            transaction_id: id,
            payer: i.payer,
            payee: i.payee,
            amount: i.amount.into(),
            currency: i.amount.currency(),
            expired_at: at,
        };
        self.say_of(id, i.payer, &By { user: "token-engine".into(), trace: None }, expired);
        self.set_state(record, TransactionState::Expired, at);
        true
    }

    /// Ends HELD. A release checks everything again, with what risk says now, and may end in a refusal; where risk was not
    /// asked it decides nothing.
    pub(super) fn release(
        &mut self,
        id: TransactionId,
        release: bool,
        reason: String,
        gates: Option<&Gates>,
        by: &By,
        at: Timestamp,
    ) -> Decided {
        let record = self.known.transactions.get(&id).cloned().ok_or_else(|| Denied::not_found("transaction", id))?;
        if record.outcome_state == TransactionState::Held && record.state != TransactionState::Held {
            return Ok(Applied::AlreadyApplied(Answer::Transaction(record.state)));
        }
        if record.state != TransactionState::Held {
            return Err(Denied::wrong_state(format!("transaction {id} is {}, not HELD", record.state), record.state));
        }
        if let Some(gates) = gates {
            self.check_turn(gates)?;
        }
        let i = record.instruction.clone();
        let verdict = match (release, gates) {
            (false, _) => {
                Err(Refusal::new(RefusalCode::Compliance, format!("compliance rejected the transaction: {reason}")))
            }
            (true, Some(gates)) => self.check(&i, gates),
            // Whoever sent it read the transaction before it was HELD.
            (true, None) => {
                return Err(Denied::Undecided(format!("risk was not asked about the release of {id}: try again")));
            }
        };
        if let (Ok(Way::Commit), Some(gates)) = (&verdict, gates) {
            self.check_risk_window(&i, gates)?;
        }
        // ---- writes
        let state = match verdict {
            Err(refusal) => {
                let rejected = Record { refusal: Some(refusal), ..record };
                self.say_rejected(&rejected, true, by);
                self.set_state(rejected, TransactionState::Rejected, at);
                TransactionState::Rejected
            }
            Ok(Way::Commit | Way::Hold) => {
                self.commit_reserved(record, by, at);
                TransactionState::Committed
            }
            Ok(Way::Reserve) => {
                let expires_at = i.reserve_for.map(|micros| at.plus_micros(micros));
                self.reserve_postings(&i, expires_at, at);
                self.set_state(Record { expires_at, ..record }, TransactionState::Reserved, at);
                TransactionState::Reserved
            }
        };
        if release {
            self.say_of(id, i.payer, by, TransactionReleased { transaction_id: id, state, reason });
        }
        Ok(Applied::Executed(Answer::Transaction(state)))
    }
}
