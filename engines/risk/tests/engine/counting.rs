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
    assert!(process.desk.gate.judge(&pays(1, "1.00")).is_err(), "nothing was loaded");
    assert!(process.passes(&pays(1, "1.00")).await, "no limit needs it");
    process.agree(bilateral(1, "100.00")).await;
    assert!(matches!(process.admit(&pays(2, "1.00")).await, Verdict::Undecided(_)), "the ledger was not asked");
    let missing = place.event(committed(&pays(3, "60.00"), 1));
    process.mark(place.last()).await;
    assert!(matches!(process.admit(&pays(2, "1.00")).await, Verdict::Undecided(_)), "an event is missing");
    process.consume(&[missing]).await.unwrap();
    assert!(matches!(process.admit(&pays(2, "1.00")).await, Verdict::Undecided(_)));
    process.desk.gate.reload().await.unwrap();
    // 1.00 passed before there was a limit, and is still under way.
    assert!(!process.passes(&pays(2, "39.01")).await);
    assert!(process.passes(&pays(4, "39.00")).await);
}

/// A gate that is asked from now on waits for what the ledger decided before, whoever let it pass; the one
/// before is not heard any more.
#[tokio::test]
async fn a_gate_takes_over_what_another_let_pass() {
    let place = Place::new().await;
    let (one, other) = (place.process().await, place.process().await);
    assert_ne!(one.desk.gate.name(), other.desk.gate.name());
    one.agree(bilateral(1, "100.00")).await;
    for process in [&one, &other] {
        process.mark(0).await;
    }
    let pays = |n, amount| subject(n, "ALFAAEXX", "BRAVINXX", amount);
    assert!(one.passes(&pays(1, "60.00")).await);
    // It was decided, and is not back yet, when the ledger begins to listen to the other.
    let on_its_way = place.event(committed(&pays(1, "60.00"), 1));
    let second = |call| turn(2, 1, call);
    assert!(
        matches!(other.asked(&second(2), &pays(2, "60.00")).await, Verdict::Undecided(why) if why.contains("event 1"))
    );
    one.consume(&[on_its_way]).await.unwrap();
    assert!(matches!(other.asked(&second(3), &pays(2, "60.00")).await, Verdict::Undecided(_)), "not read yet");
    other.desk.gate.reload().await.unwrap();
    assert!(matches!(other.asked(&second(4), &pays(2, "60.00")).await, Verdict::Refused(_)));
    assert!(matches!(other.asked(&second(5), &pays(3, "40.00")).await, Verdict::Pass { .. }));
    // The ledger listens to the first again, which knows at once what is in the database.
    one.mark(place.last()).await;
    assert!(matches!(one.asked(&turn(3, 1, 6), &pays(4, "40.00")).await, Verdict::Pass { .. }), "3 was never decided");
    let late = one.desk.gate.admit(&turn(2, 1, 7), &[pays(5, "1.00")]).await.unwrap_err();
    assert!(late.message.contains("later turn"), "{}", late.message);
}

/// What never came back counts until no verdict of its call can be decided on any more, and no longer.
#[tokio::test]
async fn what_never_comes_back_is_forgotten_when_its_call_is_done() {
    let place = Place::new().await;
    let process = place.process().await;
    process.agree(bilateral(1, "100.00")).await;
    process.mark(0).await;
    let pays = |n, amount| subject(n, "ALFAAEXX", "BRAVINXX", amount);
    let open = |call| deltran_risk::domain::turn::Turn { done: 0, ..turn(1, 0, call) };
    assert!(matches!(process.asked(&open(1), &pays(1, "60.00")).await, Verdict::Pass { .. }));
    assert!(matches!(process.asked(&open(2), &pays(2, "60.00")).await, Verdict::Refused(_)));
    process.mark(0).await;
    assert_eq!(process.desk.gate.under_way(), 1, "the first call is not done");
    let done = turn(1, 0, 3);
    assert!(matches!(process.asked(&done, &pays(3, "60.00")).await, Verdict::Refused(_)), "known with the next look");
    process.mark(0).await;
    assert_eq!(process.desk.gate.under_way(), 0);
    assert!(process.passes(&pays(4, "100.00")).await);
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
    assert!(one.passes(&pays(1, "10.00")).await && other.passes(&pays(2, "20.00")).await);
    one.apply(&[place.event(committed(&pays(1, "10.00"), 1))]).await.unwrap();
    // Another takes over: its batch does not follow what its memory knows.
    other.consume(&[place.event(committed(&pays(2, "20.00"), 1))]).await.unwrap();
    assert_eq!(other.desk.gate.under_way(), 0, "what came back is known at once");
    assert_eq!(debit(&other, "ALFAAEXX", "BRAVINXX"), 0, "the sums are not");
    for process in [&one, &other] {
        process.mark(place.last()).await;
        assert_eq!(debit(process, "ALFAAEXX", "BRAVINXX"), 3_000);
    }
    // The first did not see its own come back: it knows once the ledger tells that the call is done.
    assert_eq!(one.desk.gate.under_way(), 1);
    assert!(!one.passes(&pays(3, "60.01")).await);
    assert!(matches!(one.asked(&turn(1, 2, 2), &pays(4, "60.01")).await, Verdict::Refused(_)));
    one.mark(place.last()).await;
    assert_eq!(one.desk.gate.under_way(), 0);
    assert!(!one.passes(&pays(5, "70.01")).await && one.passes(&pays(6, "70.00")).await);
}

/// A database that was restored to an earlier moment is what counts, in a process that knew more too.
#[tokio::test]
async fn a_restored_database_is_read_anew() {
    let mut place = Place::new().await;
    let process = place.process().await;
    let pays = |n, amount| subject(n, "ALFAAEXX", "BRAVINXX", amount);
    let (first, reserved) = (committed(&pays(1, "10.00"), 1), pays(2, "5.00"));
    process.consume(&[place.event(first.clone())]).await.unwrap();
    process.consume(&[place.event(created(&reserved, TransactionState::Reserved, None))]).await.unwrap();
    assert_eq!(debit(&process, "ALFAAEXX", "BRAVINXX"), 1_000);
    let back = "TRUNCATE window_book, window_member, window_pair, waiting; UPDATE book SET version = 0";
    sqlx::raw_sql(back).execute(&mut place.root).await.unwrap();
    process.desk.gate.reload().await.unwrap();
    assert_eq!((debit(&process, "ALFAAEXX", "BRAVINXX"), process.desk.gate.book_version()), (0, 0));
    process.consume(&[place.event(first)]).await.unwrap();
    assert_eq!(debit(&process, "ALFAAEXX", "BRAVINXX"), 1_000);
    process.agree(bilateral(1, "100.00")).await;
    process.mark(place.last()).await;
    assert!(process.passes(&pays(3, "90.00")).await, "the reservation is gone with the rest");
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
