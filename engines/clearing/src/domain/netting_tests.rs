//! Tests of netting: worked examples, properties, and time.

use super::*;
use proptest::prelude::*;
use uuid::Uuid;

fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

fn minor(units: i128) -> Minor {
    Minor::new(units).unwrap()
}

/// A participant for a name of the worked examples, such as "A" or "40"; order is kept.
fn bank(name: &str) -> ParticipantId {
    format!("{name:X<4}").parse::<ParticipantId>().or_else(|_| format!("{name:X<4}AEXX").parse()).unwrap()
}

fn numbered(n: usize) -> ParticipantId {
    format!("{n:04}AEXX").parse().unwrap()
}

fn window(n: u128) -> BTreeSet<WindowId> {
    [WindowId::new(Uuid::from_u128(n))].into()
}

fn pair(payer: ParticipantId, payee: ParticipantId, units: i128) -> PairTotal {
    PairTotal { payer, payee, count: 1, gross: minor(units) }
}

fn set_of(pairs: &[PairTotal]) -> NettingSet {
    net(usd(), window(1), pairs).unwrap()
}

fn named(obligations: &[(&str, &str, i128)]) -> NettingSet {
    set_of(&obligations.iter().map(|(a, b, units)| pair(bank(a), bank(b), *units)).collect::<Vec<_>>())
}

fn positions(set: &NettingSet) -> Vec<(&str, i128)> {
    set.positions
        .iter()
        .map(|(p, net)| (p.as_str().trim_end_matches("AEXX").trim_end_matches('X'), net.units()))
        .collect()
}

#[test]
fn six_obligations_four_banks() {
    let set = named(&[
        ("A", "B", 1_000_000),
        ("B", "C", 500_000),
        ("C", "A", 750_000),
        ("A", "D", 300_000),
        ("D", "B", 200_000),
        ("B", "A", 100_000),
    ]);
    assert_eq!((set.gross, set.moved, set.count), (minor(2_850_000), minor(700_000), 6));
    assert_eq!(positions(&set), [("A", -450_000), ("B", 600_000), ("C", -250_000), ("D", 100_000)]);
    assert_eq!(set.bilateral, Bilateral { moved: minor(2_650_000), legs: 5 });
    assert_eq!(set.efficiency, 7_543);
    assert_eq!(set.largest_debtor, Some(bank("A")));
}

#[test]
fn a_cycle_with_a_tail() {
    let set = named(&[("10", "20", 100), ("20", "30", 100), ("30", "10", 200), ("40", "30", 100)]);
    assert_eq!((set.gross, set.moved), (minor(500), minor(100)));
    assert_eq!(positions(&set), [("10", 100), ("20", 0), ("30", 0), ("40", -100)]);
}

#[test]
fn three_banks_in_a_ring_equal() {
    let set = named(&[("A", "B", 5), ("B", "C", 5), ("C", "A", 5)]);
    assert_eq!((set.gross, set.moved, set.efficiency), (minor(15), Minor::ZERO, 10_000));
    assert_eq!(positions(&set), [("A", 0), ("B", 0), ("C", 0)]);
    assert_eq!(set.largest_debtor, None);
}

#[test]
fn nothing_nets_to_an_empty_set() {
    let set = set_of(&[]);
    assert_eq!((set.count, set.gross, set.moved, set.efficiency), (0, Minor::ZERO, Minor::ZERO, 10_000));
    assert!(set.positions.is_empty() && set.largest_debtor.is_none());
}

#[test]
fn of_equal_debtors_the_first_is_named() {
    let set = named(&[("B", "C", 5), ("A", "C", 5)]);
    assert_eq!(set.largest_debtor, Some(bank("A")));
}

#[test]
fn what_is_out_of_range_is_refused() {
    let max = deltran_kernel::MAX_MINOR;
    let (a, b, c) = (bank("A"), bank("B"), bank("C"));
    assert!(net(usd(), window(1), &[pair(a, b, max)]).is_ok());
    let over = net(usd(), window(1), &[pair(a, b, max), pair(b, c, 1)]);
    assert_eq!(over, Err(NettingError::OutOfRange(MoneyError::OutOfRange)));
    let many = PairTotal { payer: a, payee: b, count: u64::MAX, gross: minor(1) };
    assert_eq!(net(usd(), window(1), &[many, pair(b, c, 1)]), Err(NettingError::TooMany));
    for bad in [pair(a, a, 1), pair(a, b, 0), pair(a, b, -1), PairTotal { count: 0, ..pair(a, b, 1) }] {
        assert!(matches!(net(usd(), window(1), &[bad]), Err(NettingError::NotATotal { .. })), "{bad:?}");
    }
}

#[test]
fn the_digest_covers_every_part_of_the_content() {
    let pairs = [pair(bank("A"), bank("B"), 5), pair(bank("B"), bank("C"), 7)];
    let one = net(usd(), window(1), &pairs).unwrap();
    assert_eq!(
        hex::encode(one.digest),
        "3f26f3cd6321285766f3f9ac4c8dd2443c13c224ef2be6f188ca28e8f537a31b",
        "never changes"
    );
    let others = [
        net(Currency::new("EUR").unwrap(), window(1), &pairs).unwrap(),
        net(usd(), window(2), &pairs).unwrap(),
        net(usd(), window(1), &pairs[..1]).unwrap(),
        net(usd(), window(1), &[PairTotal { count: 2, ..pairs[0] }, pairs[1]]).unwrap(),
        net(usd(), window(1), &[pair(bank("A"), bank("B"), 6), pairs[1]]).unwrap(),
    ];
    for other in others {
        assert_ne!(one.digest, other.digest, "{other:?}");
    }
}

/// Arbitrary pair totals among `banks` participants, with repeated pairs.
/// Who pays in between the totals of another is not found before, and counts all the same.
#[test]
fn totals_that_are_not_grouped_are_netted_as_well() {
    let owes = |payer, payee| PairTotal { payer: numbered(payer), payee: numbered(payee), count: 1, gross: minor(5) };
    let pairs = [owes(0, 2), owes(0, 2), owes(0, 2), owes(1, 2), owes(0, 2), owes(2, 1)];
    let set = set_of(&pairs);
    let positions: Vec<i128> = set.positions.values().map(|net| net.units()).collect();
    assert_eq!(positions, [-20, 0, 20]);
    assert_eq!((set.count, set.moved.units()), (6, 20));
    assert_eq!((set.bilateral.moved.units(), set.bilateral.legs), (20, 1));
}

fn some_pairs(banks: usize) -> impl Strategy<Value = Vec<PairTotal>> {
    prop::collection::vec((0..banks, 1..banks, 1i128..1_000_000, 1u64..9), 0..120).prop_map(move |rows| {
        rows.into_iter()
            .map(|(from, step, units, count)| PairTotal {
                payer: numbered(from),
                payee: numbered((from + step) % banks),
                count,
                gross: minor(units),
            })
            .collect()
    })
}

proptest! {
    /// C2: net positions sum to zero, and moved is what creditors get and what debtors give.
    #[test]
    fn positions_sum_to_zero(pairs in some_pairs(9)) {
        let set = set_of(&pairs);
        prop_assert_eq!(Minor::sum(set.positions.values().copied()).unwrap(), Minor::ZERO);
        let given: i128 = set.positions.values().map(|n| n.units().min(0)).sum();
        prop_assert_eq!(-given, set.moved.units());
        prop_assert!(set.moved <= set.bilateral.moved && set.bilateral.moved <= set.gross);
        prop_assert!(set.efficiency <= 10_000);
    }

    /// Every participant's position is what it is owed less what it owes, before as after.
    #[test]
    fn positions_are_preserved(pairs in some_pairs(7)) {
        let set = set_of(&pairs);
        let mut naive: BTreeMap<ParticipantId, i128> = BTreeMap::new();
        for p in &pairs {
            *naive.entry(p.payer).or_default() -= p.gross.units();
            *naive.entry(p.payee).or_default() += p.gross.units();
        }
        let got: BTreeMap<ParticipantId, i128> = set.positions.iter().map(|(p, n)| (*p, n.units())).collect();
        prop_assert_eq!(got, naive);
        prop_assert_eq!(set.count, pairs.iter().map(|p| p.count).sum::<u64>());
    }

    /// The order of totals does not matter, nor whether a pair's sum stands in one total or in several.
    #[test]
    fn order_does_not_matter((pairs, shuffled) in some_pairs(8).prop_flat_map(|p| (Just(p.clone()), Just(p).prop_shuffle()))) {
        let set = set_of(&pairs);
        prop_assert_eq!(&set_of(&shuffled), &set);
        let mut merged: BTreeMap<(ParticipantId, ParticipantId), PairTotal> = BTreeMap::new();
        for p in &pairs {
            let total = merged.entry((p.payer, p.payee)).or_insert(PairTotal { count: 0, gross: Minor::ZERO, ..*p });
            total.count += p.count;
            total.gross = total.gross.add(p.gross).unwrap();
        }
        prop_assert_eq!(&set_of(&merged.into_values().collect::<Vec<_>>()), &set);
    }

    /// Pairs are offset the same in a table, in the list and in both.
    #[test]
    fn every_way_of_offsetting_agrees(pairs in some_pairs(9), huge in any::<bool>()) {
        let payers = Roll::of_payers(&pairs).participants.len();
        // What a cell of the table cannot hold.
        let factor = if huge { i128::from(i64::MAX) } else { 1 };
        let bilateral = |side: usize| {
            let mut offsets = Offsets::among(side);
            let mut nth = 0;
            Sums::of(&pairs, Roll::of_payers(&pairs), |from, to, amount| {
                nth += 1;
                offsets.add(from, to, if nth % 2 == 0 { amount * factor } else { amount });
            })
            .unwrap();
            offsets.bilateral()
        };
        let by_list = bilateral(0);
        prop_assert_eq!(&bilateral(payers), &by_list);
        prop_assert_eq!(&bilateral(payers / 2), &by_list);
    }

    /// Netting windows together gives the sum of netting each alone.
    #[test]
    fn windows_add_up(one in some_pairs(6), two in some_pairs(6)) {
        let together = set_of(&[one.clone(), two.clone()].concat());
        let (one, two) = (set_of(&one), set_of(&two));
        for (p, n) in &together.positions {
            let alone = |set: &NettingSet| set.positions.get(p).copied().unwrap_or_default();
            prop_assert_eq!(*n, alone(&one).add(alone(&two)).unwrap());
        }
        prop_assert!(together.moved <= one.moved.add(two.moved).unwrap());
    }
}

/// More participants than a table is made for, of whom many are only paid.
#[test]
fn a_table_that_grows_too_large_goes_on_as_a_list() {
    let hub = bank("HUB");
    let pairs: Vec<PairTotal> = (0..2 * DENSE)
        .flat_map(|n| [Some(pair(hub, numbered(n), 5)), (n % 3 == 0).then(|| pair(numbered(n), hub, 2))])
        .flatten()
        .collect();
    let set = set_of(&pairs);
    let paid_back = (2 * DENSE).div_ceil(3) as i128;
    let all = 2 * DENSE as i128;
    assert_eq!(set.bilateral, Bilateral { moved: minor(5 * all - 2 * paid_back), legs: all as u64 });
    assert_eq!(set.moved, set.bilateral.moved, "everything goes through one hub");
}

/// 1,000 participants with 20 counterparties each, against sums made pair by pair.
#[test]
fn a_thousand_participants_net_as_their_sums() {
    let banks: Vec<ParticipantId> = (0..1000).map(numbered).collect();
    let pairs: Vec<PairTotal> = (0..20_000usize)
        .map(|i| pair(banks[i / 20], banks[(i / 20 + 1 + (i % 20) * 37) % 1000], 1 + (i as i128 * 7919) % 100_000))
        .collect();
    let set = set_of(&pairs);
    assert_eq!(set.positions.len(), 1000);
    for bank in banks {
        let paid: i128 = pairs.iter().filter(|p| p.payer == bank).map(|p| p.gross.units()).sum();
        let received: i128 = pairs.iter().filter(|p| p.payee == bank).map(|p| p.gross.units()).sum();
        assert_eq!(set.positions[&bank].units(), received - paid, "{bank}");
    }
}
