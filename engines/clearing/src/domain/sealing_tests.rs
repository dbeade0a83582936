//! Tests of sealing (C1): one row per control total.

use super::*;
use crate::domain::obligations::{Obligation, pair_totals, take};
use deltran_kernel::{TransactionId, WindowId};
use uuid::Uuid;

fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

fn bank(n: u64) -> ParticipantId {
    format!("{n:04}AEXX").parse().unwrap()
}

fn obligations(seqs: &[u64]) -> Vec<Obligation> {
    let one = |seq: &u64| Obligation {
        window: WindowId::new(Uuid::from_u128(1)),
        seq: *seq,
        transaction: TransactionId::new(Uuid::from_u128(u128::from(*seq))),
        payer: bank(seq % 3),
        payee: bank(seq % 3 + 1),
        currency: usd(),
        amount: Minor::new(i128::from(*seq)).unwrap(),
    };
    seqs.iter().map(one).collect()
}

struct Consumed {
    tally: Tally,
    pairs: Vec<PairTotal>,
}

fn consumed(seqs: &[u64]) -> Consumed {
    let all = obligations(seqs);
    let tally = take(Tally::new(usd()), &BTreeMap::new(), &all).unwrap().tally;
    Consumed { tally, pairs: pair_totals(&all).unwrap().into_iter().map(|(.., p)| p).collect() }
}

fn sealed(n: u64) -> (Seal, BTreeMap<ParticipantId, Minor>) {
    let all = consumed(&(1..=n).collect::<Vec<_>>());
    let (count, gross, net) = netting::totals(&all.pairs).unwrap();
    (Seal { count, gross, digest: all.tally.digest.value() }, net)
}

fn judge(seal: &Seal, net: &BTreeMap<ParticipantId, Minor>, c: &Consumed) -> Agreement {
    compare(usd(), seal, net, Some(&c.tally), &c.pairs)
}

#[test]
fn equal_totals_agree() {
    let (seal, net) = sealed(7);
    assert_eq!(judge(&seal, &net, &consumed(&[3, 1, 2, 5, 4, 7, 6])), Agreement::Agree);
}

#[test]
fn an_empty_window_agrees_without_a_tally() {
    let seal = Seal { count: 0, gross: Minor::ZERO, digest: Tally::new(usd()).digest.value() };
    assert_eq!(compare(usd(), &seal, &BTreeMap::new(), None, &[]), Agreement::Agree);
    let wrong = Seal { digest: [1; 32], ..seal };
    assert!(matches!(compare(usd(), &wrong, &BTreeMap::new(), None, &[]), Agreement::Contradiction(_)));
}

#[test]
fn it_waits_for_what_is_missing() {
    let (seal, net) = sealed(7);
    for (seqs, missing, first_missing) in
        [(&[][..], 7, 1), (&[1, 2, 3], 4, 4), (&[1, 2, 4, 7], 3, 3), (&[1, 2, 3, 4, 5, 6], 1, 7)]
    {
        let expected = Agreement::Wait { missing, first_missing };
        let consumed = consumed(seqs);
        assert_eq!(judge(&seal, &net, &consumed), expected, "{seqs:?}");
    }
    assert_eq!(complete(usd(), &seal, None), Agreement::Wait { missing: 7, first_missing: 1 });
}

#[test]
fn what_differs_contradicts_and_is_named() {
    let (seal, net) = sealed(4);
    let all = consumed(&[1, 2, 3, 4]);
    let one = Minor::new(1).unwrap();
    let mut other_net = net.clone();
    other_net.insert(bank(9), Minor::ZERO);
    let mut moved = net.clone();
    moved.insert(bank(0), one);
    let cases = [
        (seal.clone(), net.clone(), consumed(&[1, 2, 3, 4, 5]), "window_seq 5"),
        (seal.clone(), net.clone(), consumed(&[1, 2, 9]), "window_seq 9"),
        (Seal { gross: seal.gross.add(one).unwrap(), ..seal.clone() }, net.clone(), all, "gross"),
        (Seal { digest: [0; 32], ..seal.clone() }, net.clone(), consumed(&[1, 2, 3, 4]), "digest"),
        (seal.clone(), other_net, consumed(&[1, 2, 3, 4]), "net of 0009AEXX"),
        (seal.clone(), moved, consumed(&[1, 2, 3, 4]), "net of 0000AEXX"),
    ];
    for (seal, net, consumed, named) in cases {
        match judge(&seal, &net, &consumed) {
            Agreement::Contradiction(what) => assert!(what.contains(named), "{what} should name {named}"),
            other => panic!("{named}: {other:?}"),
        }
    }
    let (seal, net) = sealed(3);
    let c = consumed(&[1, 2, 3]);
    let euro = compare(Currency::new("EUR").unwrap(), &seal, &net, Some(&c.tally), &c.pairs);
    assert!(matches!(euro, Agreement::Contradiction(what) if what.contains("EUR")));
}
