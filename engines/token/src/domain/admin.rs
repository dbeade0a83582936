//! Participants, their terms, deposits and withdrawals; and the one entrance for all commands.

use deltran_events::Event;
use deltran_events::data::transactions as events;
use deltran_kernel::{CommandId, Currency, Money, ParticipantId, Timestamp, WithdrawalId};

use super::account::AccountKey;
use super::command::{Answer, Applied, BodyHash, By, Command, ParticipantState, WithdrawalState};
use super::effects::{CommandRow, Terms, WithdrawalRow};
use super::ledger::{About, Ledger, MAX_AMOUNT, Membership, Participant};
use super::refusal::{Denied, Refusal, RefusalCode};

/// What callers hear while the ledger waits.
const WAITS: &str = "the database was restored to an earlier moment, and the ledger waits until an operator has seen what is \
    missing (`deltran restored list`): try again later with the same id";

type Decided = Result<Applied<Answer>, Denied>;

impl Ledger {
    /// Carries out one command at the moment `now`. What it changed is added to [`Ledger::effects`];
    /// a command that is denied changes nothing.
    pub fn execute(&mut self, command: Command, now: Timestamp) -> Decided {
        let at = self.tick(now);
        if self.waits && !matches!(command, Command::Resume { .. } | Command::ExpireDue) {
            return Err(Denied::Undecided(WAITS.to_owned()));
        }
        match command {
            Command::Submit { instruction, gates, by } => self.submit(*instruction, gates, &by, at),
            Command::Commit { id, payer, by } => self.commit(id, payer, &by, at),
            Command::Cancel { id, payer, reason, by } => self.cancel(id, payer, reason, &by, at),
            Command::Release { id, release, reason, gates, by } => {
                self.release(id, release, reason, gates.as_deref(), &by, at)
            }
            Command::Deposit { id, hash, participant, amount, reference, by } => {
                self.once(id, hash, |l| l.deposit(id, participant, amount, reference, &by, at))
            }
            Command::RequestWithdrawal { id, hash, participant, amount, reference, by } => {
                self.request_withdrawal(id, hash, participant, amount, reference, &by, at)
            }
            Command::EndWithdrawal { id, confirmed, text, by } => self.end_withdrawal(id, confirmed, text, &by, at),
            Command::Register { id, hash, participant, name, by } => {
                self.once(id, hash, |l| l.register(participant, name, &by))
            }
            Command::SetState { id, hash, participant, state, reason, by } => {
                self.once(id, hash, |l| l.set_participant_state(participant, state, reason, &by))
            }
            Command::EnableCurrency { id, hash, participant, currency, by } => {
                self.once(id, hash, |l| l.enable_currency(participant, currency, &by))
            }
            Command::SetCollateral { id, hash, participant, policy, amount, by } => {
                self.set_collateral(id, hash, participant, policy, amount, &by)
            }
            Command::SetLimit { id, hash, participant, cap, by: _ } => {
                self.once(id, hash, |l| l.set_limit(participant, cap))
            }
            Command::OpenWindow { id, currency } => self.open_window(id, currency, at),
            Command::SealWindow { id, next, by } => self.seal_window(id, next, &by, at),
            Command::Earmark { group, hash, windows, by } => {
                self.once(CommandId::new(group.uuid()), hash, |l| l.earmark(group, &windows, &by, at))
            }
            Command::Settle { group, hash, windows, legs, by } => {
                self.once(CommandId::new(group.uuid()), hash, |l| l.settle(group, &windows, &legs, &by, at))
            }
            Command::Resume { id, hash, reason, by } => self.once(id, hash, |l| l.resume(reason, &by)),
            Command::ExpireDue => Ok(Applied::Executed(Answer::Expired(self.expire_due(at)))),
        }
    }

    /// Carries a command out once: the same again gets the stored answer, another body is a conflict. A
    /// command that was denied is not stored and may be sent again.
    fn once(
        &mut self,
        id: CommandId,
        hash: BodyHash,
        work: impl FnOnce(&mut Self) -> Result<Answer, Denied>,
    ) -> Decided {
        if let Some(row) = self.known.commands.get(&id.uuid()) {
            return if row.hash == hash {
                Ok(Applied::AlreadyApplied(row.answer.clone()))
            } else {
                Err(Denied::conflict("command id", id))
            };
        }
        let answer = work(self)?;
        self.store_command(id, CommandRow { hash, answer: answer.clone() });
        Ok(Applied::Executed(answer))
    }

    fn store_command(&mut self, id: CommandId, row: CommandRow) {
        self.known.commands.insert(id.uuid(), row.clone());
        self.effects.commands.insert(id.uuid(), row);
    }

    fn member(&self, participant: ParticipantId, currency: Currency) -> Result<Membership, Denied> {
        if !self.participants.contains_key(&participant) {
            return Err(Denied::not_found("participant", participant));
        }
        self.memberships.get(&(participant, currency)).cloned().ok_or_else(|| {
            let what = format!("does not take part in {currency}: enable the currency first");
            Refusal::of_participant(RefusalCode::CurrencyNotEnabled, participant, &what).into()
        })
    }

    fn in_range(amount: Money) -> Result<(), Denied> {
        let units = amount.minor().units();
        if units > 0 && units <= MAX_AMOUNT {
            return Ok(());
        }
        let message = format!("amount {amount} is not above zero and at most 10^15 minor units");
        Err(Refusal::new(RefusalCode::AmountOutOfRange, message).into())
    }

    fn deposit(
        &mut self,
        id: CommandId,
        participant: ParticipantId,
        amount: Money,
        reference: String,
        by: &By,
        at: Timestamp,
    ) -> Result<Answer, Denied> {
        let currency = amount.currency();
        self.member(participant, currency)?;
        let state = self.participants.get(&participant).map(|p| p.state);
        if state == Some(ParticipantState::Exited) {
            return Err(Denied::wrong_state(format!("participant {participant} has EXITED"), "EXITED"));
        }
        Self::in_range(amount)?;
        let (debit, credit) = (AccountKey::Safeguard(currency), AccountKey::Settlement(participant, currency));
        self.post(debit, credit, amount.minor(), About::default(), at).map_err(out_of_range)?;
        // ---- writes
        let event = events::DepositConfirmed { participant, amount: amount.into(), currency, reference };
        self.say(id.to_string(), Some(participant), by, event);
        Ok(Answer::Balance(self.settlement(participant, currency)))
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one command")]
    fn request_withdrawal(
        &mut self,
        id: WithdrawalId,
        hash: BodyHash,
        participant: ParticipantId,
        amount: Money,
        reference: String,
        by: &By,
        at: Timestamp,
    ) -> Decided {
        if let Some(row) = self.known.withdrawals.get(&id) {
            return if row.hash == hash {
                Ok(Applied::AlreadyApplied(Answer::Withdrawal(row.state)))
            } else {
                Err(Denied::conflict("withdrawal id", id))
            };
        }
        let currency = amount.currency();
        let membership = self.member(participant, currency)?;
        let state = self.participants.get(&participant).map(|p| p.state);
        if state != Some(ParticipantState::Active) {
            return Err(Refusal::of_participant(RefusalCode::Suspended, participant, "is not ACTIVE").into());
        }
        Self::in_range(amount)?;
        self.check_spend(participant, amount, &membership)?;
        let (debit, credit) =
            (AccountKey::Settlement(participant, currency), AccountKey::Reserved(participant, currency, id.uuid()));
        self.post(debit, credit, amount.minor(), About::default(), at).map_err(out_of_range)?;
        // ---- writes
        let row = WithdrawalRow {
            hash,
            participant,
            currency,
            amount: amount.minor(),
            reference: reference.clone(),
            state: WithdrawalState::Requested,
        };
        self.store_withdrawal(id, row);
        let event =
            events::WithdrawalRequested { withdrawal_id: id, participant, amount: amount.into(), currency, reference };
        self.say(id.to_string(), Some(participant), by, event);
        Ok(Applied::Executed(Answer::Withdrawal(WithdrawalState::Requested)))
    }

    fn end_withdrawal(&mut self, id: WithdrawalId, confirmed: bool, text: String, by: &By, at: Timestamp) -> Decided {
        let row = self.known.withdrawals.get(&id).cloned().ok_or_else(|| Denied::not_found("withdrawal", id))?;
        let wanted = if confirmed { WithdrawalState::Confirmed } else { WithdrawalState::Failed };
        if row.state == wanted {
            return Ok(Applied::AlreadyApplied(Answer::Withdrawal(wanted)));
        }
        if row.state != WithdrawalState::Requested {
            let state = row.state.as_str();
            return Err(Denied::wrong_state(format!("withdrawal {id} is {state}, not REQUESTED"), state));
        }
        let (participant, currency) = (row.participant, row.currency);
        let debit = AccountKey::Reserved(participant, currency, id.uuid());
        let credit =
            if confirmed { AccountKey::Safeguard(currency) } else { AccountKey::Settlement(participant, currency) };
        self.post(debit, credit, row.amount, About::default(), at).map_err(out_of_range)?;
        // ---- writes
        let amount = Money::new(row.amount, currency).into();
        let event: Event = if confirmed {
            events::WithdrawalConfirmed { withdrawal_id: id, participant, amount, currency, reference: text }.into()
        } else {
            events::WithdrawalFailed { withdrawal_id: id, participant, amount, currency, reason: text }.into()
        };
        self.say(id.to_string(), Some(participant), by, event);
        self.store_withdrawal(id, WithdrawalRow { state: wanted, ..row });
        Ok(Applied::Executed(Answer::Withdrawal(wanted)))
    }

    fn store_withdrawal(&mut self, id: WithdrawalId, row: WithdrawalRow) {
        self.known.withdrawals.insert(id, row.clone());
        self.effects.withdrawals.insert(id, row);
    }

    fn register(&mut self, participant: ParticipantId, name: String, by: &By) -> Result<Answer, Denied> {
        if let Some(known) = self.participants.get(&participant) {
            let state = known.state.as_str();
            return Err(Denied::wrong_state(format!("participant {participant} is registered and {state}"), state));
        }
        // ---- writes
        self.store_participant(participant, name.clone(), ParticipantState::Onboarding);
        self.say(participant.to_string(), Some(participant), by, events::ParticipantRegistered { participant, name });
        Ok(Answer::Participant(ParticipantState::Onboarding))
    }

    fn store_participant(&mut self, participant: ParticipantId, name: String, state: ParticipantState) {
        self.participants.insert(participant, Participant { name: name.clone(), state });
        self.effects.participants.insert(participant, (name, state));
    }

    fn set_participant_state(
        &mut self,
        participant: ParticipantId,
        state: ParticipantState,
        reason: String,
        by: &By,
    ) -> Result<Answer, Denied> {
        use ParticipantState::{Active, Defaulted, Exited, Onboarding, Suspended};
        let known = self
            .participants
            .get(&participant)
            .cloned()
            .ok_or_else(|| Denied::not_found("participant", participant))?;
        let event: Event = match (known.state, state) {
            (Onboarding, Active) => events::ParticipantActivated { participant, reason }.into(),
            (Active, Suspended) => events::ParticipantSuspended { participant, reason }.into(),
            (Suspended, Active) => events::ParticipantReinstated { participant, reason }.into(),
            (Active | Suspended, Defaulted) => events::ParticipantDefaulted { participant, reason }.into(),
            (Suspended, Exited) => {
                self.may_exit(participant)?;
                events::ParticipantExited { participant, reason }.into()
            }
            (from, to) => {
                let message =
                    format!("participant {participant} is {}: it cannot become {}", from.as_str(), to.as_str());
                return Err(Denied::wrong_state(message, from.as_str()));
            }
        };
        // ---- writes
        self.store_participant(participant, known.name, state);
        self.say(participant.to_string(), Some(participant), by, event);
        Ok(Answer::Participant(state))
    }

    /// A participant leaves with nothing owed and nothing owned.
    fn may_exit(&self, participant: ParticipantId) -> Result<(), Denied> {
        let open = self
            .accounts
            .iter()
            .find(|(key, sides)| key.participant() == Some(participant) && !sides.balance().is_zero());
        match open {
            None => Ok(()),
            Some((key, sides)) => {
                let left = Money::new(sides.balance(), key.currency());
                Err(Denied::wrong_state(
                    format!("{key} still stands at {left}: {participant} cannot exit"),
                    "SUSPENDED",
                ))
            }
        }
    }

    fn enable_currency(&mut self, participant: ParticipantId, currency: Currency, by: &By) -> Result<Answer, Denied> {
        if !self.participants.contains_key(&participant) {
            return Err(Denied::not_found("participant", participant));
        }
        if self.memberships.contains_key(&(participant, currency)) {
            let message = format!("participant {participant} takes part in {currency} already");
            return Err(Denied::wrong_state(message, "ENABLED"));
        }
        // ---- writes
        self.memberships.insert((participant, currency), Membership::new());
        self.set_terms(participant, currency, |_| {});
        self.say(participant.to_string(), Some(participant), by, events::CurrencyEnabled { participant, currency });
        Ok(Answer::Done)
    }

    fn set_terms(&mut self, participant: ParticipantId, currency: Currency, change: impl FnOnce(&mut Terms)) {
        if let Some(membership) = self.memberships.get_mut(&(participant, currency)) {
            change(&mut membership.terms);
            let terms = membership.terms;
            self.effects.terms.insert((participant, currency), terms);
            self.effects.terms_history.push((participant, currency, terms, self.posting_seq));
        }
    }

    fn set_limit(&mut self, participant: ParticipantId, cap: Money) -> Result<Answer, Denied> {
        self.member(participant, cap.currency())?;
        if cap.minor().is_negative() {
            return Err(Refusal::new(RefusalCode::AmountOutOfRange, format!("cap {cap} is below zero")).into());
        }
        // ---- writes
        self.set_terms(participant, cap.currency(), |terms| terms.cap = cap.minor());
        Ok(Answer::Done)
    }

    /// Somebody has looked at what the database does not know of any more.
    fn resume(&mut self, reason: String, by: &By) -> Result<Answer, Denied> {
        if !self.waits {
            return Err(Denied::wrong_state("the ledger does not wait: it takes submissions", "OPEN"));
        }
        // ---- writes
        self.waits = false;
        self.effects.resumed = true;
        let event = events::LedgerResumed { reason, decided_by: by.user.clone() };
        self.say("ledger".to_owned(), None, by, event);
        Ok(Answer::Done)
    }

    /// Four eyes: the first user proposes, another one applies.
    fn set_collateral(
        &mut self,
        id: CommandId,
        hash: BodyHash,
        participant: ParticipantId,
        policy: events::CoverPolicy,
        amount: Money,
        by: &By,
    ) -> Decided {
        let currency = amount.currency();
        let proposed_by = match self.known.commands.get(&id.uuid()) {
            Some(row) if row.hash != hash => return Err(Denied::conflict("command id", id)),
            Some(CommandRow { answer: Answer::Collateral { proposed_by, approved_by }, .. }) => {
                if approved_by.is_some() || proposed_by.eq_ignore_ascii_case(&by.user) {
                    let answer =
                        Answer::Collateral { proposed_by: proposed_by.clone(), approved_by: approved_by.clone() };
                    return Ok(Applied::AlreadyApplied(answer));
                }
                Some(proposed_by.clone())
            }
            Some(_) => return Err(Denied::conflict("command id", id)),
            None => None,
        };
        self.member(participant, currency)?;
        let prefunded = policy == events::CoverPolicy::Prefunded;
        if amount.minor().is_negative() || prefunded != amount.minor().is_zero() {
            let message =
                format!("{policy} does not go with {amount}: PREFUNDED takes zero, the others more than zero");
            return Err(Refusal::new(RefusalCode::AmountOutOfRange, message).into());
        }
        // ---- writes
        let answer = Answer::Collateral {
            proposed_by: proposed_by.clone().unwrap_or_else(|| by.user.clone()),
            approved_by: proposed_by.as_ref().map(|_| by.user.clone()),
        };
        if let Some(proposed_by) = proposed_by {
            self.set_terms(participant, currency, |terms| {
                terms.policy = policy;
                terms.collateral = amount.minor();
            });
            let event = events::CollateralChanged {
                participant,
                currency,
                policy,
                amount: amount.into(),
                proposed_by,
                approved_by: by.user.clone(),
            };
            self.say(id.to_string(), Some(participant), by, event);
        }
        self.store_command(id, CommandRow { hash, answer: answer.clone() });
        Ok(Applied::Executed(answer))
    }
}

fn out_of_range(_: deltran_kernel::MoneyError) -> Denied {
    Refusal::new(RefusalCode::AmountOutOfRange, "a balance would leave its range").into()
}
