//! What is too old is dropped from feeds, and who resumes from there is told so.

use std::sync::Arc;

use deltran_api::notification::v1::StreamNotificationsRequest;
use deltran_kernel::{ManualClock, Timestamp};
use deltran_tests::{Stack, eventually};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::*;

/// In microseconds.
const DAY: i64 = 86_400_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_is_no_longer_kept_is_refused_with_the_oldest_that_is() {
    let start: Timestamp = "2025-11-06T08:00:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::at(start));
    let config = "[notification]\nretention_days = 7\n";
    let mut stack = Stack::of(&["notification"]).config(config).clock(clock.clone()).start().await;
    subscribe(&stack, BRAV, &["payment.received"]).await;
    let mut publisher = Publisher::new(&stack);
    publisher.publish((0..3).map(|_| paid(ALFA, BRAV, "1.00"))).await;
    filed(&stack, BRAV, 3).await;
    clock.advance_micros(4 * DAY);
    publisher.publish((0..2).map(|_| paid(ALFA, BRAV, "2.00"))).await;
    filed(&stack, BRAV, 5).await;

    // A round of retention comes with each term of its lease.
    clock.advance_micros(4 * DAY);
    stack.restart_engines().await;
    let oldest = async |stack: &Stack| {
        let request = deltran_api::notification::v1::ListNotificationsRequest::default();
        bank(stack, BRAV).list_notifications(request).await.unwrap().into_inner().oldest_position
    };
    eventually("old notifications to be dropped", async || (oldest(&stack).await == 4).then_some(())).await;

    let from = |after_position| StreamNotificationsRequest { after_position, ..StreamNotificationsRequest::default() };
    let refused = bank(&stack, BRAV).stream_notifications(from(2)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let info = refused.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["oldest_position"].as_str()), ("position_expired", "4"));
    let (status, body) = over_websocket(&stack, BRAV, "after=2").await.err().unwrap();
    assert_eq!((status, body["details"]["oldest_position"].as_str()), (409, Some("4")), "{body}");
    let resume = [("deltran-participant", BRAV), ("last-event-id", "1")];
    assert_eq!(over_sse(&stack, &resume, "").await.err().unwrap().0, 409);

    // The last of what is gone is where one may resume; 0 is the oldest that is kept.
    for after in [0, 3] {
        let read = over_grpc(&stack, BRAV, after).await.take(2).await;
        assert_eq!(read.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [4, 5]);
    }

    // All of it goes, and positions go on.
    clock.advance_micros(22 * DAY);
    stack.restart_engines().await;
    eventually("all notifications to be dropped", async || (oldest(&stack).await == 6).then_some(())).await;
    publisher.publish([paid(ALFA, BRAV, "3.00")]).await;
    filed(&stack, BRAV, 6).await;
    let read = over_grpc(&stack, BRAV, 0).await.take(1).await;
    assert_eq!((read[0].0, read[0].1["data"]["amount"].as_str()), (6, Some("3.00")));
    stack.stop().await;
}
