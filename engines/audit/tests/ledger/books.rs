//! What the leaves say of money against what a token ledger says: equal, not yet comparable, or a difference that is named.

use deltran_api::audit::v1::VerifyReport;
use deltran_audit::domain::books::{At, Books, Said, Total};
use deltran_audit::domain::export::tally::Sum;
use deltran_events::data::transactions::{DepositConfirmed, WithdrawalConfirmed};
use deltran_events::{Context, Event, Stamp};
use deltran_kernel::{Currency, EventId, IdSource, Minor, Money, SeededIds, Timestamp, WithdrawalId};
use deltran_messaging::Delivery;

use crate::aged::{Aged, START, failed};

const PRODUCER: &str = "token-engine/1";

fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

/// An event of the token ledger that takes money in, or lets it out.
fn moved(aged: &Aged, seq: u64, amount: &str) -> Delivery {
    let at = Timestamp::from_micros(START);
    let id = SeededIds::new(1000 + seq).next_id(at);
    let (participant, reference) = ("ALFAAEXX".parse().unwrap(), format!("payment {seq}"));
    let money = |text: &str| Money::parse(text, usd()).unwrap();
    let event = match amount.strip_prefix('-') {
        None => {
            let amount = money(amount).into();
            Event::from(DepositConfirmed { participant, amount, currency: usd(), reference })
        }
        Some(out) => {
            let (withdrawal_id, amount) = (WithdrawalId::new(id), money(out).into());
            Event::from(WithdrawalConfirmed { withdrawal_id, participant, amount, currency: usd(), reference })
        }
    };
    let stamp = Stamp { event_id: EventId::new(id), at, producer: PRODUCER, producer_seq: seq };
    let context = Context { correlation_id: Some("c1".into()), ..Context::default() };
    let line = deltran_events::encode(&event, &context, &stamp).unwrap();
    aged.place.message(&event.spec().subject(), line.to_vec(), false)
}

/// What a ledger says that took in and let out so many cents.
fn said(number: u64, minted: i128, burnt: i128) -> Result<Said, String> {
    let minor = |units| Minor::new(units).unwrap();
    let total = Total { committed: Sum::default(), minted: minor(minted), burnt: minor(burnt) };
    let at = At { producer: PRODUCER.into(), number };
    Ok(Said { at, books: Books::from([(usd(), total)]) })
}

fn detail(report: &VerifyReport) -> (bool, &str) {
    let check = report.checks.iter().find(|check| check.check == "ledger totals").unwrap();
    (check.ok, &check.detail)
}

/// Five events of three days, of which the first four are archived only.
async fn three_days() -> Aged {
    let mut aged = Aged::new(1).await;
    let mut seq = 0;
    for amounts in [&["1.00", "2.00", "0.25"][..], &["-0.75"], &["0.05"]] {
        let batch: Vec<Delivery> = (seq + 1..).zip(amounts).map(|(seq, amount)| moved(&aged, seq, amount)).collect();
        seq += batch.len() as u64;
        aged.place.apply(&aged.sequencer, &batch).await.unwrap();
        aged.end_day().await;
    }
    aged.round().await.unwrap();
    assert_eq!(aged.cut().await, 4);
    aged
}

#[tokio::test]
async fn the_leaves_tie_to_the_token_ledger_over_what_is_archived() {
    let mut aged = three_days().await;
    let report = aged.verify_against(&said(5, 330, 75), true).await;
    assert!(report.ok, "{:?}", failed(&report));
    assert_eq!(detail(&report), (true, "1 currencies tie to the token ledger at event token-engine/1 5"));
    let [total] = &report.totals[..] else { panic!("{:?}", report.totals) };
    assert!(total.ok && total.currency == "USD" && total.recorded == total.ledger, "{total:?}");
    assert_eq!(total.recorded.as_ref().unwrap().minted.as_ref().unwrap().amount, "3.30");
    // Asked at an earlier event, later ones do not count.
    assert!(aged.verify_against(&said(4, 325, 75), true).await.ok);

    for (wrong, named) in [
        (said(5, 331, 75), "USD: minted 3.30 USD by the leaves, 3.31 USD by the ledger"),
        (said(5, 330, 74), "USD: burnt 0.75 USD by the leaves, 0.74 USD by the ledger"),
        (said(4, 330, 75), "at event token-engine/1 4: USD: minted 3.25 USD by the leaves"),
    ] {
        let report = aged.verify_against(&wrong, true).await;
        let (ok, detail) = detail(&report);
        assert!(!ok && !report.ok && detail.contains(named), "{detail}");
        assert!(!report.totals[0].ok && report.totals[0].detail.contains("USD: "), "{:?}", report.totals);
        assert_eq!(failed(&report).len(), 1, "{:?}", failed(&report));
    }

    // A leaf that was changed behind the engine's back differs in itself, and in its currency.
    let statement = "SET session_replication_role = replica;
        UPDATE leaf SET envelope = convert_to(replace(convert_from(envelope, 'UTF8'), '\"0.05\"', '\"0.06\"'), 'UTF8')
            WHERE leaf_index = 4;
        RESET session_replication_role";
    aged.place.by_root(statement).await.unwrap();
    let failed = failed(&aged.verify_against(&said(5, 330, 75), true).await);
    for named in ["rows: ", "leaf 4: ", "ledger totals: ", "minted 3.31 USD by the leaves, 3.30 USD by the ledger"] {
        assert!(failed.iter().any(|f| f.contains(named)), "{named}: {failed:?}");
    }
}

/// What cannot be compared is said, and is no difference.
#[tokio::test]
async fn what_cannot_be_compared_yet_is_no_difference() {
    let aged = three_days().await;
    for (says, with_archive, why) in [
        (said(7, 999, 0), true, "2 events up to token-engine/1 7 are still under way"),
        (said(5, 330, 75), false, "leaves below 4 are archived, and no archive is configured"),
        (
            said(3, 325, 0),
            true,
            "events of token-engine/1 after 3, which the token ledger does not know of, are archived",
        ),
        (Err("no answer: it is away".into()), true, "no answer: it is away"),
    ] {
        let report = aged.verify_against(&says, with_archive).await;
        let (ok, detail) = detail(&report);
        assert!(ok && report.ok && report.totals.is_empty(), "{:?}", failed(&report));
        assert!(detail.starts_with("not compared: ") && detail.contains(why), "{detail}");
    }
}

/// The manifest of an archived day counts only as it was signed and recorded.
#[tokio::test]
async fn a_manifest_that_is_another_one_is_named() {
    let aged = three_days().await;
    let (manifest, signature) = ("2020-01-02/manifest.json", "2020-01-02/manifest.json.sig");
    for (file, change, named) in [
        (manifest, true, "2020-01-02: manifest.json is not the one that was archived"),
        (signature, true, "2020-01-02: manifest.json.sig: "),
        (manifest, false, "2020-01-02: manifest.json or its signature is missing"),
    ] {
        let before = aged.kept().read(file);
        if change {
            aged.kept().change(file)
        } else {
            aged.kept().remove(file)
        }
        let report = aged.verify_against(&said(5, 330, 75), true).await;
        let (ok, detail) = detail(&report);
        assert!(!ok && detail.contains("the archive does not verify: ") && detail.contains(named), "{detail}");
        aged.kept().write(file, before);
    }
    assert!(aged.verify_against(&said(5, 330, 75), true).await.ok);
}
