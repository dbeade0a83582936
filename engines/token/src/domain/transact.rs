//! Submissions: what is checked in which order, and what an accepted transaction posts.

use deltran_events::Context;
use deltran_events::Event;
use deltran_events::data::transactions::{
    Evidence, SettlementModel, TransactionCreated, TransactionRejected, TransactionState,
};
use deltran_kernel::{Minor, Money, ParticipantId, Timestamp, TransactionId};

use super::account::AccountKey;
use super::command::{Answer, Applied, By, Gates, Instruction, Outcome, ParticipantState, ScreeningDecision};
use super::effects::{Record, Said};
use super::ledger::{About, Expiry, Ledger, MAX_AMOUNT, Membership};
use super::refusal::{Denied, Refusal, RefusalCode};

type Decided = Result<Applied<Answer>, Denied>;

/// How an accepted transaction begins.
pub(super) enum Way {
    Hold,
    Reserve,
    Commit,
}

impl Ledger {
    /// Decides a submission. Known ids get the answer they got before; refusals are outcomes too.
    pub(super) fn submit(
        &mut self,
        i: Instruction,
        gates: Result<Box<Gates>, String>,
        by: &By,
        at: Timestamp,
    ) -> Decided {
        if let Some(record) = self.known.transactions.get(&i.id) {
            return if record.instruction.body_hash == i.body_hash {
                Ok(Applied::AlreadyApplied(Answer::Outcome(record.outcome())))
            } else {
                Err(Denied::conflict("transaction id", i.id))
            };
        }
        let gates = gates.map_err(Denied::Undecided)?;
        self.check_turn(&gates)?;
        let way = self.check(&i, &gates);
        if matches!(way, Ok(Way::Commit)) {
            self.check_risk_window(&i, &gates)?;
        }
        let outcome = match way {
            Err(refusal) => self.reject(i, refusal, by, at),
            Ok(Way::Hold) => self.accept(i, TransactionState::Held, &gates, by, at),
            Ok(Way::Reserve) => self.accept(i, TransactionState::Reserved, &gates, by, at),
            Ok(Way::Commit) => self.accept(i, TransactionState::Committed, &gates, by, at),
        };
        Ok(Applied::Executed(Answer::Outcome(outcome)))
    }

    /// All checks of a submission, in the documented order.
    pub(super) fn check(&self, i: &Instruction, gates: &Gates) -> Result<Way, Refusal> {
        let currency = i.amount.currency();
        for participant in [i.payer, i.payee] {
            if !self.participants.contains_key(&participant) {
                let code = RefusalCode::UnknownParticipant;
                return Err(Refusal::of_participant(code, participant, "is not registered"));
            }
        }
        for participant in [i.payer, i.payee] {
            let state = self.participants.get(&participant).map(|p| p.state);
            if let Some(state) = state.filter(|s| *s != ParticipantState::Active) {
                let what = format!("is {}, not ACTIVE", state.as_str());
                return Err(Refusal::of_participant(RefusalCode::Suspended, participant, &what));
            }
        }
        for participant in [i.payer, i.payee] {
            if !self.memberships.contains_key(&(participant, currency)) {
                let what = format!("does not take part in {currency}");
                return Err(Refusal::of_participant(RefusalCode::CurrencyNotEnabled, participant, &what));
            }
        }
        let units = i.amount.minor().units();
        if units <= 0 || units > MAX_AMOUNT {
            let most = Money::new(Minor::new(MAX_AMOUNT).unwrap_or_default(), currency);
            return Err(Refusal::new(
                RefusalCode::AmountOutOfRange,
                format!("amount {} is not above zero and at most {most}", i.amount),
            ));
        }
        if i.payer == i.payee {
            return Err(Refusal::of_participant(RefusalCode::PayerIsPayee, i.payer, "cannot pay itself"));
        }
        self.check_return(i)?;
        match gates.decision {
            ScreeningDecision::Approve => {}
            ScreeningDecision::Review | ScreeningDecision::BlockAndReview => return Ok(Way::Hold),
            ScreeningDecision::Decline => {
                return Err(Refusal::new(RefusalCode::Compliance, "compliance declined the transaction"));
            }
        }
        if let Some(refusal) = &gates.risk_refusal {
            return Err(refusal.clone());
        }
        self.check_funds(i)?;
        Ok(if i.reserve_for.is_some() { Way::Reserve } else { Way::Commit })
    }

    /// Whether the ledger still listens to the gate that risk's part comes from: another one has not counted
    /// what this one let pass.
    pub(super) fn check_turn(&self, gates: &Gates) -> Result<(), Denied> {
        if gates.turn == self.turn {
            return Ok(());
        }
        Err(Denied::Undecided("the ledger asks risk anew: try again with the same id".into()))
    }

    /// Whether the window that a commit goes into is the one that risk judged it for, where risk named one.
    pub(super) fn check_risk_window(&self, i: &Instruction, gates: &Gates) -> Result<(), Denied> {
        let judged_for = gates.risk_window;
        if judged_for.is_none() || judged_for == self.open.get(&i.amount.currency()).copied() {
            return Ok(());
        }
        Err(Denied::Undecided(
            "the clearing window has changed since risk was asked: try again with the same id".into(),
        ))
    }

    fn check_return(&self, i: &Instruction) -> Result<(), Refusal> {
        let Some(original_id) = i.return_of else { return Ok(()) };
        let refused = |message: String| Refusal::new(RefusalCode::Return, message);
        let original = self
            .known
            .transactions
            .get(&original_id)
            .filter(|r| r.instruction.payee == i.payer)
            .ok_or_else(|| refused(format!("there is no transaction {original_id} that {} received", i.payer)))?;
        if original.state != TransactionState::Committed {
            return Err(refused(format!("transaction {original_id} is {}, not COMMITTED", original.state)));
        }
        let left = original.instruction.amount.minor().sub(original.returned).unwrap_or_default();
        if original.instruction.amount.currency() != i.amount.currency() || i.amount.minor() > left {
            let left = Money::new(left, original.instruction.amount.currency());
            return Err(refused(format!("of transaction {original_id} only {left} is left to return"))
                .with("remaining", left.amount()));
        }
        Ok(())
    }

    /// Cap, cover, window and liquidity.
    fn check_funds(&self, i: &Instruction) -> Result<(), Refusal> {
        let currency = i.amount.currency();
        let membership = self.memberships.get(&(i.payer, currency)).cloned().unwrap_or_default();
        if i.model == SettlementModel::Gross {
            self.check_spend(i.payer, i.amount, &membership)?;
        } else {
            self.check_position(i, &membership)?;
            if !self.open.contains_key(&currency) {
                return Err(Refusal::new(
                    RefusalCode::WindowClosed,
                    format!("no clearing window of {currency} is open"),
                ));
            }
        }
        self.check_range(i)
    }

    /// Cap and cover of a debit of the payer's position: by a hold in full, by a commit as far as it makes
    /// a net debit.
    fn check_position(&self, i: &Instruction, membership: &Membership) -> Result<(), Refusal> {
        let currency = i.amount.currency();
        let position = self.open_position(i.payer, currency);
        let out_of_range = |_| Refusal::new(RefusalCode::AmountOutOfRange, "the position would leave its range");
        let (after, held) = if i.reserve_for.is_some() {
            (position, i.amount.minor())
        } else {
            (position.sub(i.amount.minor()).map_err(out_of_range)?, Minor::ZERO)
        };
        let used = |f: &dyn Fn(Minor) -> Result<Minor, deltran_kernel::MoneyError>| {
            let before = f(position).map_err(out_of_range)?;
            let then = f(after).and_then(|u| u.add(held)).map_err(out_of_range)?;
            Ok::<_, Refusal>((before, then))
        };
        let (before, then) = used(&|p| self.cap_used(membership, p))?;
        if then > membership.terms.cap && then > before {
            let headroom = self.cap_headroom(i.payer, currency).map_err(out_of_range)?;
            return Err(Refusal::of_headroom(
                RefusalCode::Cap,
                "the net debit cap does not allow it",
                i.amount,
                headroom,
            ));
        }
        let (before, then) = used(&|p| self.cover_used(membership, p))?;
        let stands = self.settlement(i.payer, currency).add(membership.terms.collateral).map_err(out_of_range)?;
        if then > stands && then > before {
            let headroom = self.cover_headroom(i.payer, currency).map_err(out_of_range)?;
            return Err(Refusal::of_headroom(RefusalCode::Cover, "liquidity does not cover it", i.amount, headroom));
        }
        Ok(())
    }

    /// Cover and liquidity of a debit of SETTLEMENT: what stands behind a position cannot be spent.
    pub(super) fn check_spend(
        &self,
        payer: ParticipantId,
        amount: Money,
        membership: &Membership,
    ) -> Result<(), Refusal> {
        let currency = amount.currency();
        let out_of_range = |_| Refusal::new(RefusalCode::AmountOutOfRange, "the balance would leave its range");
        let tokens = self.settlement(payer, currency);
        let used = self.cover_used(membership, self.open_position(payer, currency)).map_err(out_of_range)?;
        let left = tokens.sub(amount.minor()).map_err(out_of_range)?;
        if used.is_positive() && used > left.add(membership.terms.collateral).map_err(out_of_range)? {
            let headroom = self.cover_headroom(payer, currency).map_err(out_of_range)?;
            return Err(Refusal::of_headroom(
                RefusalCode::Cover,
                "these tokens stand behind a position",
                amount,
                headroom,
            ));
        }
        if left.is_negative() {
            let available = Money::new(tokens, currency);
            return Err(Refusal::of_headroom(
                RefusalCode::Liquidity,
                "the balance does not suffice",
                amount,
                available,
            ));
        }
        Ok(())
    }

    /// Whether everything that a commit touches stays in range.
    pub(super) fn check_range(&self, i: &Instruction) -> Result<(), Refusal> {
        let (debit, credit) = self.legs(i);
        let window = self.open.get(&i.amount.currency()).and_then(|w| self.windows.get(w));
        let counted = window.is_none_or(|w| w.gross.add(i.amount.minor()).is_ok());
        if self.can_post(debit, credit, i.amount.minor()) && counted {
            Ok(())
        } else {
            Err(Refusal::new(RefusalCode::AmountOutOfRange, "a balance would leave its range"))
        }
    }

    /// The accounts that a commit debits and credits, without a hold between.
    fn legs(&self, i: &Instruction) -> (AccountKey, AccountKey) {
        let currency = i.amount.currency();
        match (i.model, self.open.get(&currency)) {
            (SettlementModel::Gross, _) | (_, None) => {
                (AccountKey::Settlement(i.payer, currency), AccountKey::Settlement(i.payee, currency))
            }
            (_, Some(window)) => {
                (AccountKey::Position(i.payer, currency, *window), AccountKey::Position(i.payee, currency, *window))
            }
        }
    }

    // ---- writes: nothing below may fail after checks have passed

    fn reject(&mut self, i: Instruction, refusal: Refusal, by: &By, at: Timestamp) -> Outcome {
        let record = Record {
            outcome_state: TransactionState::Rejected,
            decided_at: at,
            state: TransactionState::Rejected,
            updated_at: at,
            window: None,
            expires_at: None,
            refusal: Some(refusal),
            returned: Minor::ZERO,
            instruction: i,
        };
        self.say_rejected(&record, false, by);
        self.store_new(record)
    }

    fn accept(&mut self, i: Instruction, state: TransactionState, gates: &Gates, by: &By, at: Timestamp) -> Outcome {
        let expires_at = match (state, i.reserve_for) {
            (TransactionState::Reserved, Some(micros)) => Some(at.plus_micros(micros)),
            _ => None,
        };
        let window = match state {
            TransactionState::Committed => self.commit_postings(&i, false, at),
            TransactionState::Reserved => {
                self.reserve_postings(&i, expires_at, at);
                None
            }
            _ => None,
        };
        let (payer, currency) = (i.payer, i.amount.currency());
        let headroom = |f: fn(&Self, ParticipantId, deltran_kernel::Currency) -> Result<Money, _>| {
            f(self, payer, currency).ok().map(Into::into)
        };
        let debited = state != TransactionState::Held;
        let net = i.model != SettlementModel::Gross;
        let created = TransactionCreated {
            transaction_id: i.id,
            payer,
            payee: i.payee,
            amount: i.amount.into(),
            currency,
            settlement_model: i.model,
            state,
            window_id: window.map(|w| w.0),
            window_seq: window.map(|w| w.1),
            end_to_end_id: Some(i.end_to_end_id.clone()).filter(|t| !t.is_empty()),
            uetr: i.uetr.map(|u| u.to_string()),
            return_of: i.return_of,
            expires_at,
            evidence: Evidence {
                screening: gates.decision.as_str().to_owned(),
                screening_evidence: gates.evidence.clone(),
                list_versions: gates.list_versions.clone(),
                rule_version: gates.rule_version.clone(),
                screening_score: Some(gates.screening_score),
                risk_version: gates.risk_version,
                cap_headroom: if debited && net { headroom(Self::cap_headroom) } else { None },
                cover_headroom: if debited { headroom(Self::cover_headroom) } else { None },
            },
        };
        self.say_of(i.id, payer, by, created);
        self.store_new(Record {
            outcome_state: state,
            decided_at: at,
            state,
            updated_at: at,
            window,
            expires_at,
            refusal: None,
            returned: Minor::ZERO,
            instruction: i,
        })
    }

    fn store_new(&mut self, record: Record) -> Outcome {
        let outcome = record.outcome();
        self.effects.new.push(outcome.id);
        self.known.transactions.insert(outcome.id, record);
        outcome
    }

    /// Posts a commit and counts it in its window. From a hold, RESERVED is debited instead.
    pub(super) fn commit_postings(
        &mut self,
        i: &Instruction,
        from_hold: bool,
        at: Timestamp,
    ) -> Option<(deltran_kernel::WindowId, u64)> {
        let currency = i.amount.currency();
        let amount = i.amount.minor();
        let about = About::transaction(i.id);
        let (mut debit, credit) = self.legs(i);
        if i.model == SettlementModel::Gross && from_hold {
            debit = AccountKey::Reserved(i.payer, currency, i.id.uuid());
        }
        // Range was checked; a posting that fails here would leave the transaction without legs, so it is
        // counted as a breach by the verifier rather than hidden.
        let posted = self.post(debit, credit, amount, about, at);
        debug_assert!(posted.is_ok(), "range is checked before");
        if let Some(original) = i.return_of {
            self.count_return(original, amount, at);
        }
        if i.model == SettlementModel::Gross {
            return None;
        }
        let window_id = *self.open.get(&currency)?;
        let window = self.windows.get_mut(&window_id)?;
        window.members.extend([i.payer, i.payee]);
        let gross = window.gross.add(amount).unwrap_or(window.gross);
        let seq = window.count(i.id, gross);
        self.touch_window(window_id);
        Some((window_id, seq))
    }

    fn count_return(&mut self, original: TransactionId, amount: Minor, at: Timestamp) {
        if let Some(record) = self.known.transactions.get_mut(&original) {
            record.returned = record.returned.add(amount).unwrap_or(record.returned);
            record.updated_at = at;
            self.effects.changed.insert(original);
        }
    }

    pub(super) fn reserve_postings(&mut self, i: &Instruction, expires_at: Option<Timestamp>, at: Timestamp) {
        let currency = i.amount.currency();
        if i.model == SettlementModel::Gross {
            let (debit, credit) =
                (AccountKey::Settlement(i.payer, currency), AccountKey::Reserved(i.payer, currency, i.id.uuid()));
            let posted = self.post(debit, credit, i.amount.minor(), About::transaction(i.id), at);
            debug_assert!(posted.is_ok(), "range is checked before");
        } else if let Some(membership) = self.memberships.get_mut(&(i.payer, currency)) {
            membership.net_holds = membership.net_holds.add(i.amount.minor()).unwrap_or(membership.net_holds);
        }
        if let Some(at) = expires_at {
            self.expiries.insert(Expiry { at, id: i.id });
        }
    }

    /// Ends a reservation's hold; `back` returns locked tokens of a GROSS hold to the payer.
    pub(super) fn end_hold(&mut self, record: &Record, back: bool, at: Timestamp) {
        let i = &record.instruction;
        let currency = i.amount.currency();
        if let Some(expires) = record.expires_at {
            self.expiries.remove(&Expiry { at: expires, id: i.id });
        }
        if i.model != SettlementModel::Gross {
            if let Some(membership) = self.memberships.get_mut(&(i.payer, currency)) {
                membership.net_holds = membership.net_holds.sub(i.amount.minor()).unwrap_or_default();
            }
        } else if back {
            let (debit, credit) =
                (AccountKey::Reserved(i.payer, currency, i.id.uuid()), AccountKey::Settlement(i.payer, currency));
            let posted = self.post(debit, credit, i.amount.minor(), About::transaction(i.id), at);
            debug_assert!(posted.is_ok(), "what was locked can be given back");
        }
    }

    pub(super) fn set_state(&mut self, mut record: Record, state: TransactionState, at: Timestamp) {
        let id = record.instruction.id;
        record.state = state;
        record.updated_at = at;
        self.known.transactions.insert(id, record);
        self.effects.changed.insert(id);
    }

    pub(super) fn say_rejected(&mut self, record: &Record, was_held: bool, by: &By) {
        let i = &record.instruction;
        let (reason, message) = record
            .refusal
            .as_ref()
            .map_or((String::new(), String::new()), |r| (r.code.as_str().into(), r.message.clone()));
        let rejected = TransactionRejected {
            transaction_id: i.id,
            payer: i.payer,
            payee: i.payee,
            amount: i.amount.into(),
            currency: i.amount.currency(),
            reason,
            message,
            was_held,
        };
        self.say_of(i.id, i.payer, by, rejected);
    }

    pub(super) fn say_of(&mut self, id: TransactionId, participant: ParticipantId, by: &By, event: impl Into<Event>) {
        self.say(id.to_string(), Some(participant), by, event);
    }

    /// Adds an event to what the batch publishes.
    pub(super) fn say(
        &mut self,
        correlation: String,
        participant: Option<ParticipantId>,
        by: &By,
        event: impl Into<Event>,
    ) {
        let context = Context {
            correlation_id: Some(correlation),
            user_id: Some(by.user.clone()),
            causation_id: None,
            participant_id: participant,
        };
        self.effects.events.push(Said { event: event.into(), context, trace: by.trace.clone() });
    }
}
