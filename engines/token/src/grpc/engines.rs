//! What only other engines may ask: windows, linked postings, limits, releases.

use deltran_api::token::v1 as pb;
use deltran_events::data::transactions::TransactionState;
use deltran_kernel::{Currency, ParticipantId, PostingGroupId, WindowId};
use deltran_runtime::wire::{money, parse, parse_optional, text, to_timestamp};
use deltran_runtime::{Caller, Failure};
use tonic::{Request, Response};

use super::admin::unexpected;
use super::{Api, body_hash, by, encode, failure};
use crate::domain::command::{Answer, Command};

impl Api {
    async fn engine_answer(&self, command: Command) -> Result<(Answer, bool), Failure> {
        Ok(self.writer.execute(command, None).await?.map_err(failure)?.into_parts())
    }

    pub(super) async fn open_window(
        &self,
        request: Request<pb::OpenWindowRequest>,
    ) -> Result<Response<pb::OpenWindowResponse>, Failure> {
        let request = request.into_inner();
        let command = Command::OpenWindow {
            id: parse::<WindowId>("window_id", &request.window_id)?,
            currency: parse::<Currency>("currency", &request.currency)?,
        };
        let (answer, replayed) = self.engine_answer(command).await?;
        let Answer::Opened { at } = answer else { return Err(unexpected(&answer)) };
        Ok(Response::new(pb::OpenWindowResponse { opened_at: Some(to_timestamp(at)), replayed }))
    }

    pub(super) async fn seal_window(
        &self,
        request: Request<pb::SealWindowRequest>,
    ) -> Result<Response<pb::SealWindowResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let command = Command::SealWindow {
            id: parse("window_id", &request.window_id)?,
            next: parse_optional("next_window_id", &request.next_window_id)?,
            by: by(&caller),
        };
        let (answer, replayed) = self.engine_answer(command).await?;
        let Answer::Sealed(totals) = answer else { return Err(unexpected(&answer)) };
        Ok(Response::new(pb::SealWindowResponse { totals: Some(encode::totals(&totals)), replayed }))
    }

    pub(super) async fn post_linked(
        &self,
        request: Request<pb::PostLinkedRequest>,
    ) -> Result<Response<pb::PostLinkedResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let hash = body_hash(&request);
        let group: PostingGroupId = parse("group_id", &request.group_id)?;
        let windows: Vec<WindowId> =
            request.window_ids.iter().map(|w| parse("window_ids", w)).collect::<Result<_, _>>()?;
        let command = match request.operation {
            Some(pb::post_linked_request::Operation::Earmark(_)) => {
                Command::Earmark { group, hash, windows: windows.clone(), by: by(&caller) }
            }
            Some(pb::post_linked_request::Operation::Settle(settle)) => {
                let mut legs = Vec::with_capacity(settle.legs.len());
                for leg in &settle.legs {
                    let participant: ParticipantId = parse("legs.participant", &leg.participant)?;
                    legs.push((participant, money("legs.net", leg.net.as_ref())?));
                }
                Command::Settle { group, hash, windows: windows.clone(), legs, by: by(&caller) }
            }
            None => return Err(Failure::malformed("operation", "is missing")),
        };
        let (answer, replayed) = self.engine_answer(command).await?;
        let Answer::Funding { at, debtors } = answer else { return Err(unexpected(&answer)) };
        let mut funding = Vec::with_capacity(debtors.len());
        if !debtors.is_empty() {
            let currency = self.currency_of(&windows).await?;
            funding.extend(debtors.iter().map(|d| encode::funding(d, currency)));
        }
        Ok(Response::new(pb::PostLinkedResponse { posted_at: Some(to_timestamp(at)), funding, replayed }))
    }

    async fn currency_of(&self, windows: &[WindowId]) -> Result<Currency, Failure> {
        let first = windows.first().ok_or_else(|| Failure::malformed("window_ids", "is empty"))?;
        self.store.window_currency(*first).await?.ok_or_else(|| Failure::not_found("window", first))
    }

    pub(super) async fn set_limit(
        &self,
        request: Request<pb::SetLimitRequest>,
    ) -> Result<Response<pb::SetLimitResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let command = Command::SetLimit {
            id: parse("command_id", &request.command_id)?,
            hash: body_hash(&request),
            participant: parse("participant", &request.participant)?,
            cap: money("net_debit_cap", request.net_debit_cap.as_ref())?,
            by: by(&caller),
        };
        let (_, replayed) = self.engine_answer(command).await?;
        Ok(Response::new(pb::SetLimitResponse { replayed }))
    }

    pub(super) async fn release_transaction(
        &self,
        request: Request<pb::ReleaseTransactionRequest>,
    ) -> Result<Response<pb::ReleaseTransactionResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = parse("transaction_id", &request.transaction_id)?;
        let reason = text("reason", &request.reason, 140)?;
        let held = self.store.transaction_row(id).await?.filter(|row| row.record.state == TransactionState::Held);
        let (gates, call) = match held.filter(|_| request.release) {
            Some(row) => {
                let (gates, call) = self.submissions.risk_of_release(&row.record.instruction).await?;
                (Some(Box::new(gates)), Some(call))
            }
            None => (None, None),
        };
        let command = Command::Release { id, release: request.release, reason, gates, by: by(&caller) };
        self.writer.execute(command, call).await?.map_err(failure)?;
        let row = self.store.transaction_row(id).await?.ok_or_else(|| Failure::not_found("transaction", id))?;
        Ok(Response::new(pb::ReleaseTransactionResponse { transaction: Some(encode::view(&row)) }))
    }
}
