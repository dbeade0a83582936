//! Submitting: one by one, and by streams of many.

use std::sync::Arc;

use deltran_api::token::v1 as pb;
use deltran_events::data::transactions::SettlementModel;
use deltran_kernel::{ParticipantId, TransactionId};
use deltran_runtime::wire::{money, parse, parse_optional, text};
use deltran_runtime::{Caller, Failure};
use futures::stream::{BoxStream, FuturesOrdered};
use futures::{Stream, StreamExt};
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

use super::{Api, body_hash, by, encode, failure};
use crate::domain::command::{Answer, Command, Instruction, Priority};
use crate::gate::Draft;
use crate::writer::Decided;

/// Messages of one stream that may be under way at once.
const WINDOW: usize = 16;
/// Transactions in one message of a stream.
const MOST: usize = 1_000;
/// A reservation lasts this long where the caller does not say, in seconds.
const DEFAULT_TIMEOUT: u32 = 300;
const LONGEST_TIMEOUT: u32 = 86_400;

pub(super) type Answers = BoxStream<'static, Result<pb::SubmitTransactionsResponse, Status>>;

impl Api {
    pub(super) async fn submit_one(
        &self,
        request: Request<pb::SubmitTransactionRequest>,
    ) -> Result<Response<pb::SubmitTransactionResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let transaction =
            request.into_inner().transaction.ok_or_else(|| Failure::malformed("transaction", "is missing"));
        let draft = transaction.and_then(|t| draft(t, &caller)).inspect_err(|f| self.count_malformed(f))?;
        let (outcome, replayed) = self.decide_one(draft).await?;
        Ok(Response::new(pb::SubmitTransactionResponse { outcome: Some(outcome), replayed }))
    }

    async fn decide_one(&self, draft: Draft) -> Result<(pb::TransactionOutcome, bool), Failure> {
        let mut results = self.submissions.submit(vec![draft], false).await?;
        let decided = results.pop().ok_or_else(|| Failure::internal("the writer gave no answer"))?;
        outcome_of(decided)
    }

    fn count_malformed(&self, failure: &Failure) {
        let field = failure.details.get("field").map_or("other", String::as_str);
        self.context.metrics.malformed.with_label_values(&[field]).inc();
    }

    pub(super) fn submit_many(
        &self,
        request: Request<tonic::Streaming<pb::SubmitTransactionsRequest>>,
    ) -> Result<Response<Answers>, Failure> {
        let caller = Arc::new(Caller::of(&request)?);
        let api = Arc::new(self.clone());
        let messages = request.into_inner();
        Ok(Response::new(answers(api, caller, messages).boxed()))
    }

    async fn submit_message(
        self: Arc<Self>,
        caller: Arc<Caller>,
        message: pb::SubmitTransactionsRequest,
    ) -> Result<pb::SubmitTransactionsResponse, Failure> {
        let sequence = message.sequence;
        if message.transactions.len() > MOST {
            let count = message.transactions.len();
            return Err(Failure::malformed(
                "transactions",
                format!("has {count} entries: at most {MOST} in one message"),
            ));
        }
        let mut ids = Vec::with_capacity(message.transactions.len());
        let mut drafts = Vec::with_capacity(message.transactions.len());
        let mut refused = Vec::new();
        for transaction in message.transactions {
            ids.push(transaction.transaction_id.clone());
            match draft(transaction, &caller) {
                Ok(draft) => {
                    refused.push(None);
                    drafts.push(draft);
                }
                Err(failure) => {
                    self.count_malformed(&failure);
                    refused.push(Some(failure));
                }
            }
        }
        let results = if drafts.is_empty() { Ok(Vec::new()) } else { self.submissions.submit(drafts, true).await };
        let mut results = match results {
            Ok(results) => results.into_iter().map(outcome_of).collect::<Vec<_>>().into_iter(),
            Err(whole) => vec![Err(whole); refused.iter().filter(|r| r.is_none()).count()].into_iter(),
        };
        let items = ids.into_iter().zip(refused).map(|(id, refused)| {
            let result = match refused {
                Some(failure) => Err(failure),
                None => results.next().unwrap_or_else(|| Err(Failure::internal("the writer gave no answer"))),
            };
            item(id, result)
        });
        Ok(pb::SubmitTransactionsResponse { sequence, items: items.collect() })
    }

    pub(super) async fn commit_transaction(
        &self,
        request: Request<pb::CommitTransactionRequest>,
    ) -> Result<Response<pb::CommitTransactionResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let id: TransactionId = parse("transaction_id", &request.into_inner().transaction_id)?;
        let command = Command::Commit { id, payer: own(&caller)?, by: by(&caller) };
        self.writer.execute(command, None).await?.map_err(failure)?;
        Ok(Response::new(pb::CommitTransactionResponse { transaction: Some(self.view_of(id).await?) }))
    }

    pub(super) async fn cancel_transaction(
        &self,
        request: Request<pb::CancelTransactionRequest>,
    ) -> Result<Response<pb::CancelTransactionResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id: TransactionId = parse("transaction_id", &request.transaction_id)?;
        let reason = text("reason", &request.reason, 140)?;
        let command = Command::Cancel { id, payer: own(&caller)?, reason, by: by(&caller) };
        self.writer.execute(command, None).await?.map_err(failure)?;
        Ok(Response::new(pb::CancelTransactionResponse { transaction: Some(self.view_of(id).await?) }))
    }

    pub(super) async fn return_transaction(
        &self,
        request: Request<pb::ReturnTransactionRequest>,
    ) -> Result<Response<pb::ReturnTransactionResponse>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let body_hash = body_hash(&request);
        let id = parse("transaction_id", &request.transaction_id)?;
        let original_id: TransactionId = parse("return_of", &request.return_of)?;
        let amount = money("amount", request.amount.as_ref())?;
        let purpose = text("reason", &request.reason, 35)?;
        let payer = own(&caller)?;
        let original = self
            .store
            .transaction(original_id)
            .await?
            .filter(|r| r.instruction.payee == payer)
            .ok_or_else(|| Failure::not_found("transaction that you received with id", original_id))?;
        let instruction = Instruction {
            id,
            payer,
            payee: original.instruction.payer,
            amount,
            model: original.instruction.model,
            priority: Priority::Normal,
            end_to_end_id: original.instruction.end_to_end_id.clone(),
            uetr: None,
            purpose,
            reserve_for: None,
            return_of: Some(original_id),
            body_hash,
        };
        let draft = Draft { instruction, originator: None, beneficiary: None, by: by(&caller) };
        let (outcome, replayed) = self.decide_one(draft).await?;
        Ok(Response::new(pb::ReturnTransactionResponse { outcome: Some(outcome), replayed }))
    }

    async fn view_of(&self, id: TransactionId) -> Result<pb::TransactionView, Failure> {
        let row = self.store.transaction_row(id).await?.ok_or_else(|| Failure::not_found("transaction", id))?;
        Ok(encode::view(&row))
    }
}

/// Answers of a stream in the order of its messages, a bounded number of them under way at once.
fn answers(
    api: Arc<Api>,
    caller: Arc<Caller>,
    messages: tonic::Streaming<pb::SubmitTransactionsRequest>,
) -> impl Stream<Item = Result<pb::SubmitTransactionsResponse, Status>> + Send {
    let closing = api.context.closing.clone();
    let state = (api, caller, messages, FuturesOrdered::new(), true);
    futures::stream::unfold(state, move |(api, caller, mut messages, mut under_way, mut open)| {
        let closing = closing.clone();
        async move {
            loop {
                tokio::select! {
                    biased;
                    Some(answer) = under_way.next(), if !under_way.is_empty() => {
                        let answer: Result<_, Failure> = answer;
                        return Some((answer.map_err(Status::from), (api, caller, messages, under_way, open)));
                    }
                    message = messages.message(), if open && under_way.len() < WINDOW => match message {
                        Ok(Some(message)) => {
                            under_way.push_back(Box::pin(api.clone().submit_message(caller.clone(), message))
                                as futures::future::BoxFuture<'static, _>);
                        }
                        Ok(None) => open = false,
                        Err(status) => return Some((Err(status), (api, caller, messages, under_way, false))),
                    },
                    () = closing.cancelled(), if open => open = false,
                    else => return None,
                }
            }
        }
    })
}

fn item(transaction_id: String, result: Result<(pb::TransactionOutcome, bool), Failure>) -> pb::SubmitItem {
    match result {
        Ok((outcome, replayed)) => {
            pb::SubmitItem { transaction_id, replayed, result: Some(pb::submit_item::Result::Outcome(outcome)) }
        }
        Err(failure) => pb::SubmitItem {
            transaction_id: transaction_id.chars().take(64).collect(),
            replayed: false,
            result: Some(pb::submit_item::Result::Error(failure.to_refusal())),
        },
    }
}

fn outcome_of(decided: Decided) -> Result<(pb::TransactionOutcome, bool), Failure> {
    let (answer, replayed) = decided.map_err(failure)?.into_parts();
    match answer {
        Answer::Outcome(outcome) => Ok((encode::outcome(&outcome), replayed)),
        other => Err(Failure::internal(format!("a submission was answered with {other:?}"))),
    }
}

fn own(caller: &Caller) -> Result<ParticipantId, Failure> {
    caller.participant.ok_or_else(|| Failure::unauthorised("only a bank may do this"))
}

/// Parses a transaction. Its payer must be the caller.
fn draft(mut t: pb::TransactionInstruction, caller: &Caller) -> Result<Draft, Failure> {
    let id = parse("transaction_id", &t.transaction_id)?;
    let payer: ParticipantId = parse("payer", &t.payer)?;
    let payee = parse("payee", &t.payee)?;
    let amount = money("amount", t.amount.as_ref())?;
    let model = match pb::SettlementModel::try_from(t.model) {
        Ok(pb::SettlementModel::Unspecified | pb::SettlementModel::NetMultilateral) => SettlementModel::NetMultilateral,
        Ok(pb::SettlementModel::NetBilateral) => return Err(Failure::unimplemented("settlement model NET_BILATERAL")),
        Ok(pb::SettlementModel::Gross) => SettlementModel::Gross,
        Err(_) => return Err(Failure::malformed("model", format!("{} is not known", t.model))),
    };
    let priority = match pb::Priority::try_from(t.priority) {
        Ok(pb::Priority::Unspecified | pb::Priority::Normal) => Priority::Normal,
        Ok(pb::Priority::Urgent) => Priority::Urgent,
        Ok(pb::Priority::HighlyUrgent) => Priority::HighlyUrgent,
        Err(_) => return Err(Failure::malformed("priority", format!("{} is not known", t.priority))),
    };
    if t.timeout_seconds > LONGEST_TIMEOUT || (t.timeout_seconds > 0 && !t.two_phase) {
        let message = format!("{} does not fit: 1 to {LONGEST_TIMEOUT}, and only with two_phase", t.timeout_seconds);
        return Err(Failure::malformed("timeout_seconds", message));
    }
    let end_to_end_id = text("end_to_end_id", &t.end_to_end_id, 35)?;
    let purpose = text("purpose", &t.purpose, 35)?;
    let uetr = parse_optional("uetr", &t.uetr)?;
    for (field, party) in [("originator", &t.originator), ("beneficiary", &t.beneficiary)] {
        check_party(field, party.as_ref())?;
    }
    if caller.participant != Some(payer) {
        return Err(Failure::unauthorised(format!("{} may not pay out of {payer}", caller.user)).with("payer", payer));
    }
    t.model = model_number(model);
    t.priority = priority as i32;
    let seconds = if t.timeout_seconds == 0 { DEFAULT_TIMEOUT } else { t.timeout_seconds };
    let body_hash = Sha256::digest(t.encode_to_vec()).into();
    let instruction = Instruction {
        id,
        payer,
        payee,
        amount,
        model,
        priority,
        end_to_end_id,
        uetr,
        purpose,
        reserve_for: t.two_phase.then_some(i64::from(seconds) * 1_000_000),
        return_of: None,
        body_hash,
    };
    Ok(Draft { instruction, originator: t.originator, beneficiary: t.beneficiary, by: by(caller) })
}

fn model_number(model: SettlementModel) -> i32 {
    encode::model(model).into()
}

fn check_party(field: &str, party: Option<&pb::Party>) -> Result<(), Failure> {
    let Some(party) = party else { return Ok(()) };
    let parts = [
        ("name", &party.name, 140),
        ("account", &party.account, 35),
        ("country", &party.country, 2),
        ("date_of_birth", &party.date_of_birth, 10),
    ];
    for (part, value, most) in parts {
        text(&format!("{field}.{part}"), value, most)?;
    }
    if party.identifiers.len() > 20 {
        return Err(Failure::malformed(&format!("{field}.identifiers"), "has more than 20 entries"));
    }
    for (kind, value) in &party.identifiers {
        text(&format!("{field}.identifiers"), kind, 35)?;
        text(&format!("{field}.identifiers.{kind}"), value, 70)?;
    }
    Ok(())
}
