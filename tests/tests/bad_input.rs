//! Bad input of every kind on one running platform: each gets its clear answer, and nothing of it is lost or half done.
//! The day that comes of it shows that events, streams and services are as the contract says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

#[path = "bad_input/files.rs"]
mod files;
#[path = "bad_input/funds.rs"]
mod funds;
#[path = "bad_input/published.rs"]
mod published;
#[path = "bad_input/raw.rs"]
mod raw;
#[path = "bad_input/requests.rs"]
mod requests;

use deltran_tests::node::{Deltran, id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_gets_a_clear_error_and_the_day_stays_whole() {
    let node = Deltran::start("").await;
    node.banks(&[
        ("ALFAAEXX", "1000000.00", "500000.00"),
        ("BRAVINXX", "1000000.00", "500000.00"),
        ("CHARDEXX", "1000000.00", "500000.00"),
        ("DELTFRPP", "1000000.00", "500000.00"),
        // Little cover, and a small cap.
        ("GOLFGBXX", "100.00", "100.00"),
        ("HOTEUSXX", "1000.00", "100.00"),
    ])
    .await;
    requests::without_a_window_it_waits_for_nobody(&node).await;
    node.open_window(id("the window")).await;

    requests::each_mistake_has_its_answer(&node).await;
    requests::callers_are_known_and_stay_in_their_place(&node).await;
    requests::one_bad_item_does_not_stop_the_others(&node).await;
    requests::a_suspended_bank_gets_its_old_answers_only(&node).await;
    requests::an_expired_reservation_cannot_be_committed(&node).await;
    raw::a_frame_that_is_no_message(&node).await;
    funds::a_batch_against_a_cap_accepts_exactly_one(&node).await;
    funds::what_covers_a_position_cannot_be_spent(&node).await;
    funds::a_held_payment_waits_for_two_officers(&node).await;
    files::bad_lines_are_reported_and_the_others_taken(&node).await;
    files::unusable_files_are_refused_in_one_line(&node).await;
    published::services_are_listed_and_serving(&node).await;

    node.must(&["window", "close", "--all", "--wait"]).await;
    node.verify().await;
    published::every_event_validates_and_no_number_is_missing(&node).await;
    published::streams_are_as_the_files_say(&node).await;
}
