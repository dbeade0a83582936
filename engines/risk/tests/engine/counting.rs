//! What is counted: exact, in every process, over restarts; and when it may be relied on.

use deltran_events::data::transactions::TransactionState;
use deltran_messaging::ApplyError;
use deltran_risk::domain::assess::{Subject, Verdict};
use deltran_risk::store;
use deltran_runtime::wire::PageOf;

use super::support::*;

/// ALFA pays BRAVO, BRAVO pays CHARLIE, and some that were reserved or held first, over two windows.
async fn a_morning(place: &Place, process: &Process) {
    let pays = |n, amount| subject(n, "ALFAAEXX", "BRAVINXX", amount);
    let back = |n, amount| subject(n, "BRAVINXX", "CHARUSXX", amount);
    let (held, reserved) = (pays(10, "7.00"), pays(11, "11.00"));
    let first = [
        place.event(committed(&pays(1, "100.00"), 1)),
        place.event(committed(&back(2, "30.00"), 1)),
        place.event(created(&held, TransactionState::Held, None)),
        place.event(created(&reserved, TransactionState::Reserved, None)),
        place.event(committed(&pays(3, "0.50"), 1)),
        place.event(rejected(&pays(4, "9.00"), "cap", false)),
        place.event(created(&Subject { gross: true, ..pays(5, "1000.00") }, TransactionState::Committed, None)),
    ];
    process.consume(&first).await.unwrap();
    place.wait(1);
    let second = [
        place.event(later_committed(&held, 1)),
        place.event(released(&held, TransactionState::Committed)),
        place.event(sealed(1)),
        place.event(later_committed(&reserved, 2)),
        place.event(created(&pays(12, "13.00"), TransactionState::Reserved, None)),
        place.event(created(&back(13, "17.00"), TransactionState::Held, None)),
    ];
    process.consume(&second).await.unwrap();
    let third = [
        place.event(released(&back(13, "17.00"), TransactionState::Reserved)),
        place.event(created(&pays(14, "19.00"), TransactionState::Reserved, None)),
        place.event(cancelled(&pays(14, "19.00"))),
        place.event(created(&pays(15, "23.00"), TransactionState::Held, None)),
        place.event(rejected(&pays(15, "23.00"), "compliance", true)),
    ];
    process.consume(&third).await.unwrap();
}

fn debit(process: &Process, payer: &str, payee: &str) -> i128 {
    process.desk.gate.bilateral_debit(bank(payer), bank(payee), usd()).units()
}

#[tokio::test]
async fn positions_are_the_same_in_every_process() {
    let mut place = Place::new().await;
    let consuming = place.process().await;
    let polling = place.process().await;
    a_morning(&place, &consuming).await;
    polling.desk.gate.reload().await.unwrap();
    let restarted = place.process().await;
    for process in [&consuming, &polling, &restarted] {
        assert_eq!(process.desk.gate.book_version(), 3);
        // 100.00 + 0.50 + 7.00 in the first window, 11.00 in the second.
        assert_eq!(debit(process, "ALFAAEXX", "BRAVINXX"), 11_850);
        assert_eq!(debit(process, "BRAVINXX", "CHARUSXX"), 3_000);
        assert_eq!(debit(process, "BRAVINXX", "ALFAAEXX"), 0);
    }

    let (version, rows) = store::exposures(consuming.db(), None, Some(usd()), None, 10).await.unwrap();
    let found: Vec<_> = rows
        .iter()
        .map(|e| (e.participant.to_string(), e.member.received - e.member.sent, e.cap_used.to_string()))
        .collect();
    let expected = [
        // 118.50 owed and 13.00 reserved.
        ("ALFAAEXX".to_owned(), -11_850, "131.50 USD".to_owned()),
        // Owes nothing net in either window, and 17.00 are reserved.
        ("BRAVINXX".to_owned(), 8_850, "17.00 USD".to_owned()),
        ("CHARUSXX".to_owned(), 3_000, "0.00 USD".to_owned()),
    ];
    assert_eq!((version, found), (3, expected.to_vec()));
    let of: Vec<_> = rows.iter().map(|e| (e.participant, e.currency)).collect();
    let largest = store::largest_of(consuming.db(), &of).await.unwrap();
    assert_eq!(largest[&(bank("BRAVINXX"), usd())], [(bank("ALFAAEXX"), money("118.50"))]);
    assert!(!largest.contains_key(&(bank("ALFAAEXX"), usd())));
    let second = store::exposures(consuming.db(), None, None, Some((bank("ALFAAEXX"), usd())), 1).await.unwrap().1;
    assert_eq!(second[0].participant, bank("BRAVINXX"), "pages");

    // The snapshot on sealing has the window and the two largest debtors.
    let published = place.published().await;
    assert_eq!(published.len(), 1);
    let (schema, snapshot) = &published[0];
    assert_eq!(schema, "exposure.snapshot");
    assert_eq!(snapshot["window_id"], window(1).to_string());
    assert_eq!((&snapshot["windows"], &snapshot["count"]), (&2.into(), &5.into()));
    assert_eq!((&snapshot["gross"], &snapshot["net_debit"]), (&"148.50".into(), &"118.50".into()));
    assert_eq!(snapshot["largest_debtors"][0]["participant"], "ALFAAEXX");
    assert_eq!(snapshot["largest_debtors"].as_array().unwrap().len(), 1, "BRAVO owes nothing net");

    // A settled window no longer counts.
    consuming.consume(&[place.event(settled(1))]).await.unwrap();
    polling.desk.gate.reload().await.unwrap();
    let restarted = place.process().await;
    for process in [&consuming, &polling, &restarted] {
        assert_eq!(debit(process, "ALFAAEXX", "BRAVINXX"), 1_100);
        assert_eq!(debit(process, "BRAVINXX", "CHARUSXX"), 0);
    }
}

/// Liquidity follows every committed transaction, GROSS too, in the order of the ledger.
#[tokio::test]
async fn a_day_has_its_peaks() {
    let place = Place::with("time_zone = \"Asia/Dubai\"").await;
    let process = place.process().await;
    let mut n = 0;
    let mut steps = Vec::new();
    for (payer, payee, amount) in [
        ("ALFAAEXX", "BRAVINXX", "100.00"),
        ("BRAVINXX", "ALFAAEXX", "95.00"),
        ("ALFAAEXX", "BRAVINXX", "55.00"),
        ("BRAVINXX", "ALFAAEXX", "10.00"),
        ("ALFAAEXX", "BRAVINXX", "30.00"),
    ] {
        n += 1;
        place.wait(60);
        steps.push(place.event(committed(&subject(n, payer, payee, amount), 1)));
    }
    let gross = Subject { gross: true, ..subject(6, "ALFAAEXX", "BRAVINXX", "1.00") };
    steps.push(place.event(created(&gross, TransactionState::Committed, None)));
    // However the events fall into batches.
    process.consume(&steps[..1]).await.unwrap();
    process.consume(&steps[1..4]).await.unwrap();
    process.consume(&steps[4..]).await.unwrap();

    let rows = store::list_days(process.db(), "2025-11-06", None, None, None, 10).await.unwrap();
    let alfa = &rows[0].day;
    assert_eq!((rows[0].participant, alfa.sent, alfa.received), (bank("ALFAAEXX"), 18_600, 10_500));
    assert_eq!((alfa.sent_count, alfa.received_count), (4, 2));
    let minutes = |at: deltran_kernel::Timestamp| (at.micros() - NOON) / 60_000_000;
    let peaks: Vec<_> = alfa.largest().iter().map(|p| (p.usage, minutes(p.at))).collect();
    assert_eq!(peaks, [(10_000, 1), (8_100, 5), (6_000, 3)]);
    // BRAVO received before it ever sent more: its use never rose above zero.
    assert_eq!((rows[1].participant, rows[1].day.largest().len()), (bank("BRAVINXX"), 0));
    let paged =
        store::list_days(process.db(), "2025-11-06", None, Some(usd()), Some((bank("ALFAAEXX"), usd())), 10).await;
    assert_eq!(paged.unwrap().len(), 1);

    // After midnight in Dubai another day begins from zero.
    place.wait(9 * 3_600);
    process.consume(&[place.event(committed(&subject(7, "BRAVINXX", "ALFAAEXX", "5.00"), 1))]).await.unwrap();
    let rows = store::list_days(process.db(), "2025-11-07", Some(bank("BRAVINXX")), None, None, 10).await.unwrap();
    assert_eq!((rows[0].day.sent, rows[0].day.largest()[0].usage), (500, 500));
}

/// R7: what is counted may be relied on only once everything is counted that the ledger had decided.
#[tokio::test]
async fn nothing_passes_that_needs_what_is_not_known() {
    let place = Place::new().await;
    let process = place.starting();
    let pays = |n, amount| subject(n, "ALFAAEXX", "BRAVINXX", amount);
    assert!(process.desk.gate.admit(&[pays(1, "1.00")]).is_err(), "nothing was loaded");
    process.desk.gate.reload().await.unwrap();
    assert!(process.passes(&pays(1, "1.00")), "no limit needs it");
    process.agree(bilateral(1, "100.00")).await;
    assert!(matches!(process.admit(&pays(2, "1.00")), Verdict::Undecided(_)), "the ledger was not asked");
    let missing = place.event(committed(&pays(3, "60.00"), 1));
    process.mark(place.last()).await;
    assert!(matches!(process.admit(&pays(2, "1.00")), Verdict::Undecided(_)), "an event is missing");
    process.consume(&[missing]).await.unwrap();
    assert!(matches!(process.admit(&pays(2, "1.00")), Verdict::Undecided(_)));
    process.desk.gate.reload().await.unwrap();
    // 1.00 passed before there was a limit, and is still under way.
    assert!(!process.passes(&pays(2, "39.01")));
    assert!(process.passes(&pays(4, "39.00")));
}

/// A ledger in another process may still decide what a gate before this one let pass.
#[tokio::test]
async fn a_gate_that_restarts_beside_a_running_ledger_waits() {
    let place = Place::with("return_within_seconds = 30").await.ledger_elsewhere();
    let process = place.process().await;
    process.agree(bilateral(1, "100.00")).await;
    let pays = |n, amount| subject(n, "ALFAAEXX", "BRAVINXX", amount);
    for (seconds, known) in [(0, false), (29, false), (1, true)] {
        place.wait(seconds);
        process.mark(0).await;
        assert_eq!(process.passes(&pays(1, "1.00")), known, "after {seconds} s more");
    }
    assert_eq!(process.desk.gate.under_way(), 1);
    // It never came back: it is forgotten once the ledger must have decided it.
    place.wait(30);
    process.mark(0).await;
    assert_eq!(process.desk.gate.under_way(), 0);
}

/// A process that dies after COMMIT and before the handover, and one whose memory missed a batch, count exactly.
#[tokio::test]
async fn a_gap_is_read_from_the_database() {
    let place = Place::new().await;
    let (one, other) = (place.process().await, place.process().await);
    let pays = |n, amount| subject(n, "ALFAAEXX", "BRAVINXX", amount);
    one.agree(bilateral(1, "100.00")).await;
    for process in [&one, &other] {
        process.mark(0).await;
    }
    assert!(one.passes(&pays(1, "10.00")) && other.passes(&pays(2, "20.00")));
    one.apply(&[place.event(committed(&pays(1, "10.00"), 1))]).await.unwrap();
    // Another takes over: its batch does not follow what its memory knows.
    other.consume(&[place.event(committed(&pays(2, "20.00"), 1))]).await.unwrap();
    assert_eq!(other.desk.gate.under_way(), 0, "what came back is known at once");
    assert_eq!(debit(&other, "ALFAAEXX", "BRAVINXX"), 0, "the sums are not");
    for process in [&one, &other] {
        process.mark(place.last()).await;
        assert_eq!(debit(process, "ALFAAEXX", "BRAVINXX"), 3_000);
    }
    // The first does not know that its own came back until the ledger must have decided it.
    assert_eq!(one.desk.gate.under_way(), 1);
    assert!(!one.passes(&pays(3, "60.01")) && one.passes(&pays(4, "60.00")));
}

/// An event of the ledger that contradicts itself stops the consumer; nothing of its batch is counted.
#[tokio::test]
async fn a_contradiction_counts_nothing() {
    let mut place = Place::new().await;
    let process = place.process().await;
    let pays = |n| subject(n, "ALFAAEXX", "BRAVINXX", "1.00");
    let odd = created(&pays(2), TransactionState::Committed, None);
    let batch = [place.event(committed(&pays(1), 1)), place.event(odd)];
    assert!(matches!(process.consume(&batch).await, Err(ApplyError::Permanent(_))));
    assert_eq!((process.desk.gate.book_version(), place.types().await.len()), (0, 0));
    process.consume(&batch[..1]).await.unwrap();
    assert_eq!(debit(&process, "ALFAAEXX", "BRAVINXX"), 100);
}

/// Rows of every list are what they are, page by page.
#[tokio::test]
async fn steps_are_listed_in_pages() {
    let place = Place::new().await;
    let process = place.process().await;
    process.agree(bilateral(1, "1.00")).await;
    process.agree(bilateral(2, "2.00")).await;
    let page = |after| PageOf { size: 3, after };
    let first = store::list_steps(process.db(), &page(None), &Default::default()).await.unwrap();
    let rest = store::list_steps(process.db(), &page(Some(first[2].step)), &Default::default()).await.unwrap();
    let states: Vec<_> = first.iter().chain(&rest).map(|s| (s.limit_id, s.state.as_str(), s.by.as_str())).collect();
    let expected = [
        (command(1), "PROPOSED", "ada"),
        (command(1), "ACTIVE", "bob"),
        (command(2), "PROPOSED", "ada"),
        (command(1), "SUPERSEDED", "bob"),
        (command(2), "ACTIVE", "bob"),
    ];
    assert_eq!(states, expected);
    assert_eq!(rest[0].note, format!("by {}", command(2)));
}
