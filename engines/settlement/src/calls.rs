//! What batches ask of clearing and of the ledger. Only definite answers come back as such; whatever
//! else happens is [`Unknown`], and the same command is sent again under the same id.

use std::collections::BTreeMap;
use std::time::Duration;

use deltran_api::clearing::v1 as clearing;
use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::common::v1 as common;
use deltran_api::token::v1 as token;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_events::data::transactions::CoverPolicy;
use deltran_kernel::{Currency, Minor, ParticipantId, PostingGroupId};
use deltran_runtime::{EngineContext, Failure, wire};
use tonic::{Code, Request, Status};

use crate::domain::{Answer, Batch, Command, FundingLine, Legs, NettingSet};

/// How long one call may take before its outcome counts as unknown.
const CALL_TIME: Duration = Duration::from_secs(10);

/// Nobody knows whether it was done.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(String);

impl From<Failure> for Unknown {
    fn from(failure: Failure) -> Self {
        Self(failure.message)
    }
}

/// Sends the command of a batch and reads the answer.
///
/// # Errors
/// [`Unknown`] where no definite answer came in time.
pub async fn ask(context: &EngineContext, batch: &Batch, legs: &Legs, command: Command) -> Result<Answer, Unknown> {
    let call = async {
        match command {
            Command::ReadNettingSet => read_netting_set(context, batch).await,
            Command::Earmark(group) => earmark(context, batch, group).await,
            Command::Settle(group) => settle(context, batch, legs, group).await,
        }
    };
    match tokio::time::timeout(CALL_TIME, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Unknown(format!("no answer within {} s", CALL_TIME.as_secs()))),
    }
}

async fn read_netting_set(context: &EngineContext, batch: &Batch) -> Result<Answer, Unknown> {
    let mut client = ClearingServiceClient::new(context.peers.to(crate::NAME, "clearing")?);
    let netting_set_id = batch.terms.netting_set_id.to_string();
    let request = timed(clearing::GetNettingSetRequest { netting_set_id });
    match client.get_netting_set(request).await {
        Err(status) => refused_or_unknown(&status),
        Ok(answer) => Ok(match netting_set(answer.into_inner().netting_set) {
            Ok(set) => Answer::NettingSet(set),
            Err(failure) => unreadable("clearing", &failure),
        }),
    }
}

async fn earmark(context: &EngineContext, batch: &Batch, group: PostingGroupId) -> Result<Answer, Unknown> {
    let asked_at = context.clock.now();
    let operation = token::post_linked_request::Operation::Earmark(token::EarmarkDebtors {});
    match post_linked(context, batch, group, operation).await? {
        Err(refused) => Ok(refused),
        Ok(answer) => Ok(match funding(&answer.funding, batch.terms.currency) {
            Ok(lines) => Answer::Funding { lines, asked_at, replayed: answer.replayed },
            Err(failure) => unreadable("the ledger", &failure),
        }),
    }
}

async fn settle(context: &EngineContext, batch: &Batch, legs: &Legs, group: PostingGroupId) -> Result<Answer, Unknown> {
    let legs = legs
        .iter()
        .map(|(participant, leg)| common::NetPosition {
            participant: participant.to_string(),
            net: Some(wire::to_money(batch.money(leg.net))),
        })
        .collect();
    let operation = token::post_linked_request::Operation::Settle(token::SettleWindows { legs });
    match post_linked(context, batch, group, operation).await? {
        Err(refused) => Ok(refused),
        // A posting without its time is no answer: asked again, the ledger replays it.
        Ok(answer) => match wire::timestamp("posted_at", answer.posted_at.as_ref())? {
            Some(at) => Ok(Answer::Posted { at }),
            None => Err(Unknown("the ledger did not say when it posted".to_owned())),
        },
    }
}

async fn post_linked(
    context: &EngineContext,
    batch: &Batch,
    group: PostingGroupId,
    operation: token::post_linked_request::Operation,
) -> Result<Result<token::PostLinkedResponse, Answer>, Unknown> {
    let mut client = TokenServiceClient::new(context.peers.to(crate::NAME, "token")?);
    let request = timed(token::PostLinkedRequest {
        group_id: group.to_string(),
        window_ids: batch.terms.window_ids.iter().map(ToString::to_string).collect(),
        operation: Some(operation),
    });
    match client.post_linked(request).await {
        Ok(answer) => Ok(Ok(answer.into_inner())),
        Err(status) => refused_or_unknown(&status).map(Err),
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIME);
    request
}

/// Only what the other engine itself says about the command is a refusal. Rights, overload, defects and
/// everything of the way there leave the outcome open.
fn refused_or_unknown(status: &Status) -> Result<Answer, Unknown> {
    match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => {
            Ok(Answer::Refused { reason: status.message().to_owned() })
        }
        code => Err(Unknown(format!("{code:?}: {}", status.message()))),
    }
}

fn unreadable(who: &str, failure: &Failure) -> Answer {
    Answer::Refused { reason: format!("the answer of {who} cannot be read: {}", failure.message) }
}

fn netting_set(set: Option<clearing::NettingSet>) -> Result<NettingSet, Failure> {
    let set = set.ok_or_else(|| Failure::malformed("netting_set", "is missing"))?;
    let currency: Currency = wire::parse("currency", &set.currency)?;
    Ok(NettingSet {
        id: wire::parse("netting_set_id", &set.netting_set_id)?,
        currency,
        window_ids: set.window_ids.iter().map(|id| wire::parse("window_ids", id)).collect::<Result<_, _>>()?,
        transactions: set.count,
        gross: minor("gross", set.gross.as_ref(), currency)?,
        moved: minor("moved", set.moved.as_ref(), currency)?,
        digest: set.digest,
        positions: set
            .positions
            .iter()
            .map(|p| Ok((wire::parse("participant", &p.participant)?, minor("net", p.net.as_ref(), currency)?)))
            .collect::<Result<_, Failure>>()?,
    })
}

fn funding(
    lines: &[token::DebtorFunding],
    currency: Currency,
) -> Result<BTreeMap<ParticipantId, FundingLine>, Failure> {
    let mut all = BTreeMap::new();
    for line in lines {
        let participant: ParticipantId = wire::parse("participant", &line.participant)?;
        let cover = match line.cover_policy() {
            token::CoverPolicy::Prefunded => CoverPolicy::Prefunded,
            token::CoverPolicy::Collateral => CoverPolicy::Collateral,
            token::CoverPolicy::CreditLine => CoverPolicy::CreditLine,
            token::CoverPolicy::Unspecified => return Err(Failure::malformed("cover_policy", "is missing")),
        };
        let line = FundingLine {
            required: minor("required", line.required.as_ref(), currency)?,
            reserved: minor("reserved", line.reserved.as_ref(), currency)?,
            cover,
        };
        if all.insert(participant, line).is_some() {
            return Err(Failure::malformed("funding", format!("names {participant} twice")));
        }
    }
    Ok(all)
}

fn minor(field: &str, money: Option<&common::Money>, currency: Currency) -> Result<Minor, Failure> {
    let money = wire::money(field, money)?;
    if money.currency() != currency {
        return Err(Failure::malformed(field, format!("is in {}, not in {currency}", money.currency())));
    }
    Ok(money.minor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_of_the_other_engine_is_a_refusal() {
        let all = (0..=16).map(Code::from);
        let definite: Vec<Code> = all.filter(|code| refused_or_unknown(&Status::new(*code, "x")).is_ok()).collect();
        assert_eq!(definite, [Code::InvalidArgument, Code::NotFound, Code::AlreadyExists, Code::FailedPrecondition]);
    }

    #[test]
    fn an_answer_that_is_incomplete_is_not_read() {
        let usd = Currency::new("USD").unwrap();
        let money = |amount: &str| Some(common::Money { amount: amount.into(), currency: "USD".into() });
        let line = token::DebtorFunding {
            participant: "ALFAAEXX".into(),
            required: money("5.00"),
            reserved: money("4.00"),
            cover_policy: token::CoverPolicy::Collateral.into(),
        };
        assert_eq!(funding(std::slice::from_ref(&line), usd).unwrap().len(), 1);
        for broken in [
            token::DebtorFunding { cover_policy: 0, ..line.clone() },
            token::DebtorFunding { cover_policy: 9, ..line.clone() },
            token::DebtorFunding { required: None, ..line.clone() },
            token::DebtorFunding { participant: "alfa".into(), ..line.clone() },
        ] {
            assert!(funding(&[broken], usd).is_err());
        }
        assert!(funding(&[line.clone(), line.clone()], usd).is_err());
        assert!(funding(&[line], Currency::new("EUR").unwrap()).is_err());
    }
}
