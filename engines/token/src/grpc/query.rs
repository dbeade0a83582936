//! Reading: transactions, balances, postings, participants, invariants.

use deltran_api::token::v1 as pb;
use deltran_events::Domain;
use deltran_events::data::transactions::TransactionState;
use deltran_kernel::{Currency, ParticipantId, TransactionId};
use deltran_runtime::wire::{next_token, page, parse, parse_optional, to_timestamp};
use deltran_runtime::{Caller, Failure};
use tonic::{Request, Response};

use super::{Api, encode};
use crate::domain::command::ParticipantState;
use crate::store::{Balances, TransactionFilter};

impl Api {
    pub(super) async fn get_transaction(
        &self,
        request: Request<pb::GetTransactionRequest>,
    ) -> Result<Response<pb::GetTransactionResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let id: TransactionId = parse("transaction_id", &request.into_inner().transaction_id)?;
        let row = self
            .store
            .transaction_row(id)
            .await?
            .filter(|row| {
                let i = &row.record.instruction;
                caller.may_see(i.payer) || caller.may_see(i.payee)
            })
            .ok_or_else(|| Failure::not_found("transaction", id))?;
        Ok(Response::new(pb::GetTransactionResponse { transaction: Some(encode::view(&row)) }))
    }

    pub(super) async fn list_transactions(
        &self,
        request: Request<pb::ListTransactionsRequest>,
    ) -> Result<Response<pb::ListTransactionsResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let asked: Option<ParticipantId> = parse_optional("participant", &request.participant)?;
        let state = match request.state() {
            pb::TransactionState::Unspecified => None,
            wanted => TransactionState::ALL.iter().copied().find(|s| encode::state(*s) == wanted),
        };
        let filter = TransactionFilter {
            participant: caller.scope(asked)?,
            window: parse_optional("window_id", &request.window_id)?,
            state,
            end_to_end_id: Some(request.end_to_end_id.clone()).filter(|t| !t.is_empty()),
        };
        let page = page::<i64>(request.page.as_ref())?;
        let rows = self.store.transactions(&filter, &page).await?;
        let next_page_token = next_token(rows.len(), page.size, rows.last().map(|r| r.position));
        Ok(Response::new(pb::ListTransactionsResponse {
            transactions: rows.iter().map(encode::view).collect(),
            next_page_token,
        }))
    }

    pub(super) async fn get_balances(
        &self,
        request: Request<pb::GetBalancesRequest>,
    ) -> Result<Response<pb::GetBalancesResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let participant = caller.scope(parse_optional("participant", &request.participant)?)?;
        let currency: Option<Currency> = parse_optional("currency", &request.currency)?;
        let Balances { rows, hub, epoch, assigned } = self.store.balances(participant, currency).await?;
        let balances = rows.iter().map(encode::balance).collect::<Result<_, _>>()?;
        // The hub's figures are not a bank's business.
        let hub = if caller.participant.is_some() { Vec::new() } else { encode::hub(&hub) };
        let producer = format!("{}/{epoch}", Domain::Transactions.source());
        Ok(Response::new(pb::GetBalancesResponse { balances, hub, producer, producer_seq: assigned }))
    }

    pub(super) async fn list_postings(
        &self,
        request: Request<pb::ListPostingsRequest>,
    ) -> Result<Response<pb::ListPostingsResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let participant = caller.scope(parse_optional("participant", &request.participant)?)?;
        let currency = parse_optional("currency", &request.currency)?;
        let transaction = parse_optional("transaction_id", &request.transaction_id)?;
        let page = page::<i64>(request.page.as_ref())?;
        let rows = self.store.postings(participant, currency, transaction, &page).await?;
        let next_page_token = next_token(rows.len(), page.size, rows.last().map(|r| r.seq));
        let postings = rows.iter().map(encode::posting).collect::<Result<_, _>>()?;
        Ok(Response::new(pb::ListPostingsResponse { postings, next_page_token }))
    }

    pub(super) async fn list_participants(
        &self,
        request: Request<pb::ListParticipantsRequest>,
    ) -> Result<Response<pb::ListParticipantsResponse>, Failure> {
        let request = request.into_inner();
        let state = match request.state() {
            pb::ParticipantState::Unspecified => None,
            wanted => ParticipantState::ALL.into_iter().find(|s| encode::participant_state(*s) == wanted),
        };
        let page = page::<ParticipantId>(request.page.as_ref())?;
        let rows = self.store.participants(None, state, &page).await?;
        let next_page_token = next_token(rows.len(), page.size, rows.last().map(|r| r.0));
        let participants = rows
            .into_iter()
            .map(|(participant, name, state, at, currencies)| pb::Participant {
                participant: participant.to_string(),
                name,
                state: encode::participant_state(state).into(),
                currencies,
                registered_at: Some(to_timestamp(at)),
            })
            .collect();
        Ok(Response::new(pb::ListParticipantsResponse { participants, next_page_token }))
    }

    pub(super) async fn verify_ledger(&self) -> Result<Response<pb::VerifyLedgerResponse>, Failure> {
        let verified = self.store.verify().await?;
        for check in verified.checks.iter().filter(|c| c.breach.is_some()) {
            self.context.metrics.breach(check.invariant, check.breach.as_deref().unwrap_or_default());
        }
        let producer = format!("{}/{}", Domain::Transactions.source(), verified.epoch);
        Ok(Response::new(pb::VerifyLedgerResponse {
            results: verified.checks.into_iter().map(encode::check).collect(),
            transactions: verified.transactions,
            postings: verified.postings,
            accounts: verified.accounts,
            totals: verified.totals.into_iter().map(encode::total).collect(),
            producer,
            producer_seq: verified.assigned,
        }))
    }
}
