//! Tests of obligations.

use super::*;
use deltran_events::Amount;
use deltran_events::data::transactions::{TransactionCommitted, TransactionReleased};
use proptest::prelude::*;
use uuid::Uuid;

fn bank(n: u8) -> ParticipantId {
    format!("{n:04}AEXX").parse().unwrap()
}

fn window(n: u128) -> WindowId {
    WindowId::new(Uuid::from_u128(n))
}

fn transaction(n: u128) -> TransactionId {
    TransactionId::new(Uuid::from_u128(0xABCD_0000 + n))
}

fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

fn obligation(seq: u64) -> Obligation {
    Obligation {
        window: window(1),
        seq,
        transaction: transaction(u128::from(seq)),
        payer: bank(1),
        payee: bank(2),
        currency: usd(),
        amount: Minor::new(i128::from(seq) * 10).unwrap(),
    }
}

fn committed() -> TransactionCommitted {
    TransactionCommitted {
        transaction_id: transaction(1),
        payer: bank(1),
        payee: bank(2),
        amount: Amount::Text("10.00".into()),
        currency: usd(),
        settlement_model: SettlementModel::NetMultilateral,
        window_id: Some(window(1)),
        window_seq: Some(1),
    }
}

#[test]
fn a_committed_net_transaction_is_an_obligation() {
    let found = of_event(&committed().into()).unwrap().unwrap();
    assert_eq!((found.window, found.seq, found.amount), (window(1), 1, Minor::new(1000).unwrap()));
    let bilateral = TransactionCommitted { settlement_model: SettlementModel::NetBilateral, ..committed() };
    assert!(of_event(&bilateral.into()).unwrap().is_some());
}

#[test]
fn nothing_else_is_one() {
    let gross = TransactionCommitted {
        settlement_model: SettlementModel::Gross,
        window_id: None,
        window_seq: None,
        ..committed()
    };
    let state = TransactionState::Committed;
    let released = TransactionReleased { transaction_id: transaction(1), state, reason: "cleared".into() };
    for event in [Event::from(gross), Event::from(released)] {
        assert_eq!(of_event(&event), Ok(None), "{event:?}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for wrong in [
        TransactionCommitted { window_id: None, ..committed() },
        TransactionCommitted { window_seq: None, ..committed() },
        TransactionCommitted { window_seq: Some(0), ..committed() },
        TransactionCommitted { window_seq: Some(u64::MAX), ..committed() },
        TransactionCommitted { settlement_model: SettlementModel::Gross, ..committed() },
        TransactionCommitted { amount: Amount::Text("0.00".into()), ..committed() },
        TransactionCommitted { amount: Amount::Text("-1.00".into()), ..committed() },
        TransactionCommitted { amount: Amount::Text("1".into()), ..committed() },
        TransactionCommitted { payee: bank(1), ..committed() },
    ] {
        assert!(of_event(&wrong.clone().into()).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_digest_is_sha256_over_the_ids() {
    let mut digest = RunningDigest::default();
    assert_eq!(digest.value(), <[u8; 32]>::from(Sha256::digest(b"")));
    let mut bytes = Vec::new();
    for n in 0..100 {
        digest.push(transaction(n));
        bytes.extend_from_slice(transaction(n).uuid().as_bytes());
        digest = RunningDigest::from_bytes(&digest.to_bytes()).unwrap();
        assert_eq!(digest.value(), <[u8; 32]>::from(Sha256::digest(&bytes)), "after {n}");
    }
    assert!(RunningDigest::from_bytes(&[0; 5]).is_none());
}

#[test]
fn an_obligation_is_counted_once() {
    let first = take(Tally::new(usd()), &BTreeMap::new(), &[obligation(1), obligation(3)]).unwrap();
    assert_eq!((first.tally.folded, first.tally.count, first.tally.highest), (1, 2, 3));
    for again in [vec![obligation(1)], vec![obligation(3)], vec![obligation(2), obligation(2)]] {
        assert!(take(first.tally.clone(), &first.waiting, &again).is_err(), "{again:?}");
    }
    let euro = Obligation { currency: Currency::new("EUR").unwrap(), ..obligation(2) };
    assert!(take(first.tally.clone(), &first.waiting, &[euro]).is_err());
    let last = take(first.tally, &first.waiting, &[obligation(2)]).unwrap();
    assert_eq!((last.tally.folded, last.tally.count, last.released), (3, 3, vec![3]));
}

proptest! {
    /// Whatever the order and the batches, with a restart between any two, the tally is the same.
    #[test]
    fn order_and_batches_do_not_matter(
        order in (1u64..60).prop_flat_map(|n| Just((1..=n).collect::<Vec<_>>()).prop_shuffle()),
        batch in 1usize..9,
    ) {
        let mut tally = Tally::new(usd());
        let mut stored = BTreeMap::new();
        for chunk in order.chunks(batch) {
            let new: Vec<Obligation> = chunk.iter().map(|seq| obligation(*seq)).collect();
            let taken = take(tally, &stored, &new).unwrap();
            for seq in &taken.released {
                prop_assert!(stored.remove(seq).is_some());
            }
            stored.extend(taken.waiting);
            tally = Tally { digest: RunningDigest::from_bytes(&taken.tally.digest.to_bytes()).unwrap(), ..taken.tally };
            prop_assert_eq!(tally.count, tally.folded + stored.len() as u64);
        }
        let n = order.len() as u64;
        let bytes: Vec<u8> = (1..=n).flat_map(|seq| *transaction(u128::from(seq)).uuid().as_bytes()).collect();
        prop_assert_eq!((tally.folded, tally.count, tally.highest, stored.len()), (n, n, n, 0));
        prop_assert_eq!(tally.gross.units(), (1..=i128::from(n)).map(|s| s * 10).sum::<i128>());
        prop_assert_eq!(tally.digest.value(), <[u8; 32]>::from(Sha256::digest(&bytes)));
    }
}

#[test]
fn totals_are_by_window_currency_and_direction() {
    let other_way = Obligation { payer: bank(2), payee: bank(1), ..obligation(2) };
    let other_window = Obligation { window: window(2), ..obligation(3) };
    let totals = pair_totals(&[obligation(1), other_way, other_window, obligation(4)]).unwrap();
    let rows: Vec<(WindowId, ParticipantId, u64, i128)> =
        totals.iter().map(|(w, _, t)| (*w, t.payer, t.count, t.gross.units())).collect();
    assert_eq!(rows, [(window(1), bank(1), 2, 50), (window(1), bank(2), 1, 20), (window(2), bank(1), 1, 30)]);
}
