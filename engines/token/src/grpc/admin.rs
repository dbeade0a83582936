//! Participants, deposits, withdrawals, collateral.

use deltran_api::token::v1 as pb;
use deltran_events::data::transactions::CoverPolicy;
use deltran_kernel::{CommandId, Currency, ParticipantId, WithdrawalId};
use deltran_runtime::wire::{minor_to_money, money, parse, required_text, text};
use deltran_runtime::{Caller, Failure};
use tonic::{Request, Response};

use super::{Api, body_hash, by, encode, failure};
use crate::domain::command::{Answer, Command, ParticipantState};
use deltran_runtime::wire::{PageOf, to_timestamp};

impl Api {
    async fn answer(&self, command: Command) -> Result<(Answer, bool), Failure> {
        Ok(self.writer.execute(command, None).await?.map_err(failure)?.into_parts())
    }

    pub(super) async fn confirm_deposit(
        &self,
        request: Request<pb::ConfirmDepositRequest>,
    ) -> Result<Response<pb::ConfirmDepositResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let amount = money("amount", request.amount.as_ref())?;
        let command = Command::Deposit {
            id: parse::<CommandId>("command_id", &request.command_id)?,
            hash: body_hash(&request),
            participant: parse("participant", &request.participant)?,
            amount,
            reference: text("reference", &request.reference, 140)?,
            by: by(&caller),
        };
        let (answer, replayed) = self.answer(command).await?;
        let Answer::Balance(balance) = answer else { return Err(unexpected(&answer)) };
        let balance = Some(minor_to_money(balance, amount.currency()));
        Ok(Response::new(pb::ConfirmDepositResponse { balance, replayed }))
    }

    pub(super) async fn resume_ledger(
        &self,
        request: Request<pb::ResumeLedgerRequest>,
    ) -> Result<Response<pb::ResumeLedgerResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let command = Command::Resume {
            id: parse::<CommandId>("command_id", &request.command_id)?,
            hash: body_hash(&request),
            reason: required_text("reason", &request.reason, 500)?,
            by: by(&caller),
        };
        let (_, replayed) = self.answer(command).await?;
        Ok(Response::new(pb::ResumeLedgerResponse { replayed }))
    }

    pub(super) async fn request_withdrawal(
        &self,
        request: Request<pb::RequestWithdrawalRequest>,
    ) -> Result<Response<pb::RequestWithdrawalResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let participant: ParticipantId = parse("participant", &request.participant)?;
        if caller.participant != Some(participant) {
            return Err(Failure::unauthorised(format!("{} may not withdraw for {participant}", caller.user)));
        }
        let command = Command::RequestWithdrawal {
            id: parse::<WithdrawalId>("withdrawal_id", &request.withdrawal_id)?,
            hash: body_hash(&request),
            participant,
            amount: money("amount", request.amount.as_ref())?,
            reference: text("reference", &request.reference, 140)?,
            by: by(&caller),
        };
        let (state, replayed) = self.withdrawal(command).await?;
        Ok(Response::new(pb::RequestWithdrawalResponse { state, replayed }))
    }

    pub(super) async fn confirm_withdrawal(
        &self,
        request: Request<pb::ConfirmWithdrawalRequest>,
    ) -> Result<Response<pb::ConfirmWithdrawalResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let command = Command::EndWithdrawal {
            id: parse("withdrawal_id", &request.withdrawal_id)?,
            confirmed: true,
            text: text("reference", &request.reference, 140)?,
            by: by(&caller),
        };
        let (state, replayed) = self.withdrawal(command).await?;
        Ok(Response::new(pb::ConfirmWithdrawalResponse { state, replayed }))
    }

    pub(super) async fn fail_withdrawal(
        &self,
        request: Request<pb::FailWithdrawalRequest>,
    ) -> Result<Response<pb::FailWithdrawalResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let command = Command::EndWithdrawal {
            id: parse("withdrawal_id", &request.withdrawal_id)?,
            confirmed: false,
            text: text("reason", &request.reason, 140)?,
            by: by(&caller),
        };
        let (state, replayed) = self.withdrawal(command).await?;
        Ok(Response::new(pb::FailWithdrawalResponse { state, replayed }))
    }

    async fn withdrawal(&self, command: Command) -> Result<(String, bool), Failure> {
        let (answer, replayed) = self.answer(command).await?;
        let Answer::Withdrawal(state) = answer else { return Err(unexpected(&answer)) };
        Ok((state.as_str().to_owned(), replayed))
    }

    pub(super) async fn register_participant(
        &self,
        request: Request<pb::RegisterParticipantRequest>,
    ) -> Result<Response<pb::RegisterParticipantResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let participant = parse("participant", &request.participant)?;
        let command = Command::Register {
            id: parse("command_id", &request.command_id)?,
            hash: body_hash(&request),
            participant,
            name: required_text("name", &request.name, 140)?,
            by: by(&caller),
        };
        let (_, replayed) = self.answer(command).await?;
        Ok(Response::new(pb::RegisterParticipantResponse {
            participant: Some(self.participant(participant).await?),
            replayed,
        }))
    }

    pub(super) async fn set_participant_state(
        &self,
        request: Request<pb::SetParticipantStateRequest>,
    ) -> Result<Response<pb::SetParticipantStateResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let participant = parse("participant", &request.participant)?;
        let state = match request.state() {
            pb::ParticipantState::Active => ParticipantState::Active,
            pb::ParticipantState::Suspended => ParticipantState::Suspended,
            pb::ParticipantState::Defaulted => ParticipantState::Defaulted,
            pb::ParticipantState::Exited => ParticipantState::Exited,
            other => return Err(Failure::malformed("state", format!("{other:?} cannot be asked for"))),
        };
        let command = Command::SetState {
            id: parse("command_id", &request.command_id)?,
            hash: body_hash(&request),
            participant,
            state,
            reason: text("reason", &request.reason, 140)?,
            by: by(&caller),
        };
        let (_, replayed) = self.answer(command).await?;
        Ok(Response::new(pb::SetParticipantStateResponse {
            participant: Some(self.participant(participant).await?),
            replayed,
        }))
    }

    async fn participant(&self, id: ParticipantId) -> Result<pb::Participant, Failure> {
        let page = PageOf { size: 1, after: None };
        let rows = self.store.participants(Some(id), None, &page).await?;
        let (participant, name, state, at, currencies) =
            rows.into_iter().next().ok_or_else(|| Failure::not_found("participant", id))?;
        Ok(pb::Participant {
            participant: participant.to_string(),
            name,
            state: encode::participant_state(state).into(),
            currencies,
            registered_at: Some(to_timestamp(at)),
        })
    }

    pub(super) async fn enable_currency(
        &self,
        request: Request<pb::EnableCurrencyRequest>,
    ) -> Result<Response<pb::EnableCurrencyResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let command = Command::EnableCurrency {
            id: parse("command_id", &request.command_id)?,
            hash: body_hash(&request),
            participant: parse("participant", &request.participant)?,
            currency: parse::<Currency>("currency", &request.currency)?,
            by: by(&caller),
        };
        let (_, replayed) = self.answer(command).await?;
        Ok(Response::new(pb::EnableCurrencyResponse { replayed }))
    }

    pub(super) async fn set_collateral(
        &self,
        request: Request<pb::SetCollateralRequest>,
    ) -> Result<Response<pb::SetCollateralResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let mut request = request.into_inner();
        let policy = match request.policy() {
            pb::CoverPolicy::Prefunded => CoverPolicy::Prefunded,
            pb::CoverPolicy::Collateral => CoverPolicy::Collateral,
            pb::CoverPolicy::CreditLine => CoverPolicy::CreditLine,
            pb::CoverPolicy::Unspecified => return Err(Failure::malformed("policy", "is missing")),
        };
        text("reason", &request.reason, 140)?;
        // The second user need not repeat the first one's words.
        request.reason.clear();
        let command = Command::SetCollateral {
            id: parse("command_id", &request.command_id)?,
            hash: body_hash(&request),
            participant: parse("participant", &request.participant)?,
            policy,
            amount: money("amount", request.amount.as_ref())?,
            by: by(&caller),
        };
        let (answer, _) = self.answer(command).await?;
        let Answer::Collateral { proposed_by, approved_by } = answer else { return Err(unexpected(&answer)) };
        let state = if approved_by.is_some() { "APPLIED" } else { "PROPOSED" };
        Ok(Response::new(pb::SetCollateralResponse {
            state: state.to_owned(),
            proposed_by,
            approved_by: approved_by.unwrap_or_default(),
        }))
    }
}

pub(super) fn unexpected(answer: &Answer) -> Failure {
    Failure::internal(format!("a command was answered with {answer:?}"))
}
