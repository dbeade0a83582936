//! What the ledger says of itself, asked over gRPC: balances with the event up to which they count, and its invariants.

use std::time::Duration;

use deltran_api::common::v1::Money as PbMoney;
use deltran_api::token::v1 as pb;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_events::Domain;
use deltran_kernel::{Currency, Minor, ParticipantId};
use deltran_runtime::{EngineContext, Failure, wire};
use tonic::{Request, Status};

use crate::domain::position::Position;
use crate::domain::trial::{Balances, Ledger};
use crate::write::Checked;

/// How long the ledger may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to check its invariants: it reads its whole log.
const LONG_PATIENCE: Duration = Duration::from_secs(600);
/// Balances of ten thousand participants fit.
const LARGEST: usize = 64 << 20;

/// What the ledger said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its last event then; the numbers are those of the events up to this one.
    pub position: Position,
    /// Accounts that are not at zero.
    pub balances: Balances,
}

fn client(context: &EngineContext) -> Result<TokenServiceClient<deltran_runtime::peers::Peer>, Failure> {
    let peer = context.peers.to(context.engine, "token")?;
    Ok(TokenServiceClient::new(peer).max_decoding_message_size(LARGEST))
}

fn request<T>(message: T, patience: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

async fn patient<T>(
    patience: Duration,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Failure::unavailable(format!("the ledger did not answer within {} s", patience.as_secs()))),
    }
}

/// Asks for the balances of a currency, of one participant or of all.
pub async fn balances(
    context: &EngineContext,
    currency: Currency,
    participant: Option<ParticipantId>,
) -> Result<Said, Failure> {
    let message = pb::GetBalancesRequest {
        participant: participant.map(|p| p.to_string()).unwrap_or_default(),
        currency: currency.code().to_owned(),
    };
    let mut client = client(context)?;
    let answer = patient(PATIENCE, client.get_balances(request(message, PATIENCE))).await?;
    read(answer, currency)
}

fn read(answer: pb::GetBalancesResponse, currency: Currency) -> Result<Said, Failure> {
    let position = Position::of(Domain::Transactions.source(), &answer.producer, answer.producer_seq)
        .ok_or_else(|| Failure::malformed("producer", format!("{:?} is not the ledger's", answer.producer)))?;
    let mut balances = Balances::new();
    let mut put = |account: Ledger, value: Option<&PbMoney>, negative: bool| -> Result<(), Failure> {
        let money = wire::money("balance", value)?;
        if money.currency() != currency {
            return Err(Failure::malformed("balance", format!("is of {}, not of {currency}", money.currency())));
        }
        let balance: Minor = if negative { money.minor().neg() } else { money.minor() };
        if !balance.is_zero() {
            balances.insert(account, balance);
        }
        Ok(())
    };
    for balance in &answer.balances {
        let who: ParticipantId = wire::parse("participant", &balance.participant)?;
        put(Ledger::Settlement(who), balance.available.as_ref(), false)?;
        put(Ledger::Reserved(who), balance.reserved.as_ref(), false)?;
        for position in &balance.positions {
            let window = wire::parse("window_id", &position.window_id)?;
            put(Ledger::Position(who, window), position.net.as_ref(), false)?;
        }
    }
    for hub in answer.hub.iter().filter(|hub| hub.currency == currency.code()) {
        // The ledger shows what is held on its debit side.
        put(Ledger::Safeguard, hub.safeguard.as_ref(), true)?;
        put(Ledger::Multilateral, hub.multilateral.as_ref(), false)?;
        put(Ledger::Fees, hub.fees.as_ref(), false)?;
    }
    Ok(Said { position, balances })
}

/// Has the ledger check its invariants.
pub async fn verify(context: &EngineContext) -> Result<Vec<Checked>, Failure> {
    let mut client = client(context)?;
    let answer =
        patient(LONG_PATIENCE, client.verify_ledger(request(pb::VerifyLedgerRequest {}, LONG_PATIENCE))).await?;
    let checked = answer.results.into_iter().map(|result| Checked {
        invariant: result.invariant,
        statement: result.statement,
        holds: result.holds,
        detail: result.detail,
    });
    Ok(checked.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: &str) -> Option<PbMoney> {
        Some(PbMoney { amount: amount.into(), currency: "USD".into() })
    }

    fn answer() -> pb::GetBalancesResponse {
        let window = pb::WindowPosition {
            window_id: "0190c3d5-0000-7000-8000-000000000001".into(),
            net: money("-0.70"),
            earmarked: money("0.00"),
        };
        pb::GetBalancesResponse {
            balances: vec![pb::Balance {
                participant: "ALFAAEXX".into(),
                currency: "USD".into(),
                available: money("6.50"),
                reserved: money("0.00"),
                positions: vec![window],
                ..pb::Balance::default()
            }],
            hub: vec![pb::HubBalance {
                currency: "USD".into(),
                safeguard: money("6.50"),
                multilateral: money("0.00"),
                fees: money("0.00"),
            }],
            producer: "token-engine/3".into(),
            producer_seq: 42,
        }
    }

    #[test]
    fn balances_are_read_with_their_signs_and_their_event() {
        let usd = Currency::new("USD").unwrap();
        let said = read(answer(), usd).unwrap();
        assert_eq!(said.position, Position { epoch: 3, seq: 42 });
        let who = "ALFAAEXX".parse().unwrap();
        let window = "0190c3d5-0000-7000-8000-000000000001".parse().unwrap();
        let units: Vec<(Ledger, i128)> = said.balances.into_iter().map(|(a, m)| (a, m.units())).collect();
        assert_eq!(
            units,
            [(Ledger::Safeguard, -650), (Ledger::Settlement(who), 650), (Ledger::Position(who, window), -70)]
        );
        let foreign = pb::GetBalancesResponse { producer: "risk-engine/1".into(), ..answer() };
        assert!(read(foreign, usd).is_err());
        let mut other = answer();
        other.balances[0].available = Some(PbMoney { amount: "1".into(), currency: "JPY".into() });
        assert!(read(other, usd).is_err());
    }
}
