//! Every way in which a settlement is not whole, or does not agree.

use super::super::statement::tests::{minor, who};
use super::*;

fn id(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn flow(paid: i128, received: i128) -> Flow {
    let count = |units| u64::from(units > 0);
    Flow { paid_count: count(paid), paid: minor(paid), received_count: count(received), received: minor(received) }
}

/// ALFA pays BRAVO 100, BRAVO pays CHARLIE 30.
pub fn window(n: u128) -> WindowFacts {
    WindowFacts {
        count: 2,
        gross: minor(130),
        sealed: Some(Sealed {
            window: WindowId::new(id(n)),
            currency: Currency::new("USD").unwrap(),
            count: 2,
            gross: minor(130),
            digest: "d".into(),
            at: at("2026-03-31T11:00:00Z"),
        }),
        posted: Some(PostedBy { group: PostingGroupId::new(id(50)), at: at("2026-03-31T11:00:05Z") }),
        digest: Some("d".into()),
        flows: [(who("ALFAAEXX"), flow(100, 0)), (who("BRAVINXX"), flow(30, 100)), (who("CHARGB2L"), flow(0, 30))]
            .into(),
    }
}

pub fn settlement(windows: u128) -> Settled {
    let ids: Vec<WindowId> = (1..=windows).map(|n| WindowId::new(id(n))).collect();
    let n = windows as i128;
    let leg = |net: i128| Leg { net: minor(net * n), given_back: Minor::ZERO };
    Settled {
        set: SetFacts {
            id: NettingSetId::new(id(100)),
            currency: Currency::new("USD").unwrap(),
            windows: ids.clone(),
            count: 2 * windows as u64,
            gross: minor(130 * n),
            moved: minor(100 * n),
            efficiency: 2307,
            participants: 3,
            largest_debtor: Some(who("ALFAAEXX")),
            digest: "s".into(),
            netted_at: at("2026-03-31T11:00:01Z"),
        },
        batch: BatchFacts {
            id: BatchId::new(id(200)),
            windows: ids.clone(),
            moved: minor(100 * n),
            final_at: at("2026-03-31T11:00:05Z"),
        },
        windows: ids.iter().map(|w| (*w, window(w.uuid().as_u128()))).collect(),
        legs: [(who("ALFAAEXX"), leg(-100)), (who("BRAVINXX"), leg(70)), (who("CHARGB2L"), leg(30))].into(),
    }
}

fn put_together(s: Settled) -> Result<Settled, Readiness> {
    assemble(Some(s.set), Some(s.batch), s.windows, s.legs)
}

#[test]
fn a_whole_settlement_is_ready() {
    for windows in [1, 3] {
        let settled = settlement(windows);
        assert_eq!(put_together(settled.clone()), Ok(settled.clone()));
        let nets = legs_agree(settled.windows.values(), &settled.legs).unwrap();
        assert_eq!(nets.into_values().map(Minor::units).sum::<i128>(), 0);
    }
}

#[test]
fn it_waits_for_whatever_has_not_arrived() {
    let first = WindowId::new(id(1));
    let settled = || settlement(2);
    let Settled { set, batch, windows, legs } = settled();
    for (what, outcome) in [
        ("netting set", assemble(None, Some(batch.clone()), windows.clone(), legs.clone())),
        ("batch", assemble(Some(set.clone()), None, windows, legs)),
    ] {
        let Err(Readiness::Waits(told)) = outcome else { panic!("{what}: {outcome:?}") };
        assert!(told.contains(what), "{told}");
    }
    type Change = (&'static str, fn(&mut WindowFacts));
    let changes: [Change; 4] = [
        ("not sealed", |w| w.sealed = None),
        ("1 of 2 payments", |w| w.count = 1),
        ("not settled", |w| w.posted = None),
        ("0 of 2", |w| *w = WindowFacts { sealed: w.sealed.clone(), ..WindowFacts::default() }),
    ];
    for (what, change) in changes {
        let mut settled = settled();
        change(settled.windows.get_mut(&first).unwrap());
        let Err(Readiness::Waits(told)) = put_together(settled) else { panic!("{what}") };
        assert!(told.contains(what), "{told}");
    }
    let mut without = settled();
    without.windows.remove(&first);
    assert!(matches!(put_together(without), Err(Readiness::Waits(_))));
}

#[test]
fn what_contradicts_is_never_reported() {
    let first = WindowId::new(id(1));
    type Change = (&'static str, fn(&mut Settled, WindowId));
    let changes: [Change; 12] = [
        ("sealed", |s, w| s.windows.get_mut(&w).unwrap().gross = minor(131)),
        ("sealed", |s, w| s.windows.get_mut(&w).unwrap().count = 3),
        ("digests", |s, w| s.windows.get_mut(&w).unwrap().digest = Some("e".into())),
        ("sum to", |s, w| s.windows.get_mut(&w).unwrap().flows.get_mut(&who("ALFAAEXX")).unwrap().paid = minor(99)),
        ("leg of BRAVINXX", |s, _| s.legs.get_mut(&who("BRAVINXX")).unwrap().net = minor(139)),
        ("leg of CHARGB2L", |s, _| s.legs.retain(|w, _| *w != who("CHARGB2L"))),
        ("leg of DELTUS33", |s, _| s.legs.extend([(who("DELTUS33"), Leg { net: minor(1), given_back: Minor::ZERO })])),
        ("payments and netting set", |s, _| s.set.gross = minor(261)),
        ("payments and netting set", |s, _| s.set.count = 5),
        ("value moved", |s, _| s.set.moved = minor(201)),
        ("value moved", |s, _| s.batch.moved = minor(201)),
        ("finality", |s, _| s.batch.final_at = at("2026-03-31T11:00:06Z")),
    ];
    for (what, change) in changes {
        let mut settled = settlement(2);
        change(&mut settled, first);
        let outcome = put_together(settled);
        let Err(Readiness::Never(told)) = outcome else { panic!("{what}: {outcome:?}") };
        assert!(told.contains(what), "{what}: {told}");
    }
    let mut settled = settlement(2);
    settled.batch.windows.pop();
    assert!(matches!(put_together(settled), Err(Readiness::Never(_))));
}

#[test]
fn an_empty_window_is_whole() {
    let mut facts = window(1);
    let sealed = facts.sealed.take().map(|s| Sealed { count: 0, gross: Minor::ZERO, ..s });
    let facts = WindowFacts { sealed, posted: facts.posted, digest: Some("d".into()), ..WindowFacts::default() };
    assert_eq!(window_ready(WindowId::new(id(1)), Some(&facts), true), Readiness::Ready);
    assert!(matches!(window_ready(WindowId::new(id(1)), None, false), Readiness::Waits(_)));
}
