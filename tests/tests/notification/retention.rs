//! What is too old is dropped: from feeds, of which who resumes from there is told so, and deliveries that have ended.

use std::sync::Arc;

use deltran_api::notification::v1::replay_deliveries_request::What;
use deltran_api::notification::v1::{
    CreateEndpointRequest, DisableEndpointRequest, EnableEndpointRequest, ListAttemptsRequest, ReplayDeliveriesRequest,
    StreamNotificationsRequest,
};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_ended_long_ago_are_dropped_and_those_to_be_sent_are_not() {
    let start: Timestamp = "2025-11-06T08:00:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::at(start));
    // Nothing listens where the endpoints are, and that disables none of them.
    let config = "[notification]\nallow_loopback = true\nmaster_key = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"\n\
                  [notification.webhooks]\nretention_days = 7\ndisable_after_seconds = 8640000\nretry_ms = [1000, 864000000]\n";
    let mut stack = Stack::of(&["notification"]).config(config).clock(clock.clone()).start().await;
    subscribe(&stack, BRAV, &["payment.received"]).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let endpoint_id = fresh().to_string();
        let url = "http://127.0.0.1:9/".to_owned();
        let request = CreateEndpointRequest { endpoint_id: endpoint_id.clone(), url, ..Default::default() };
        bank(&stack, BRAV).create_endpoint(request).await.unwrap();
        ids.push(endpoint_id);
    }
    let (waits, ends) = (ids.remove(0), ids.remove(0));
    let switch = |endpoint_id: &str| (fresh().to_string(), endpoint_id.to_owned(), String::new());
    let (command_id, endpoint_id, reason) = switch(&ends);
    let disable = DisableEndpointRequest { command_id, endpoint_id, reason };
    bank(&stack, BRAV).disable_endpoint(disable).await.unwrap();
    let told = last(&stack, BRAV).await;
    Publisher::new(&stack).publish((0..3).map(|_| paid(ALFA, BRAV, "1.00"))).await;
    eventually("payments to be told", async || (last(&stack, BRAV).await >= told + 3).then_some(())).await;
    let attempts = async |stack: &Stack| {
        let request = ListAttemptsRequest { endpoint_id: waits.clone(), ..Default::default() };
        bank(stack, BRAV).list_attempts(request).await.unwrap().into_inner().attempts
    };
    eventually("attempts", async || (!attempts(&stack).await.is_empty()).then_some(())).await;

    clock.advance_micros(8 * DAY);
    stack.restart_engines().await;
    let (command_id, endpoint_id, reason) = switch(&ends);
    let enable = EnableEndpointRequest { command_id, endpoint_id, reason };
    bank(&stack, BRAV).enable_endpoint(enable).await.unwrap();
    let replay = async |endpoint_id: &str| {
        let what = Some(What::FailedFromPosition(1));
        let request =
            ReplayDeliveriesRequest { command_id: fresh().to_string(), endpoint_id: endpoint_id.to_owned(), what };
        bank(&stack, BRAV).replay_deliveries(request).await
    };
    // Replaying would keep what is not dropped yet, so what is stored is looked at.
    let pool = stack.postgres.pool().await;
    eventually("what has ended to be dropped", async || {
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM notification.delivery WHERE endpoint_id = $1::uuid")
            .bind(&ends)
            .fetch_one(&pool)
            .await
            .unwrap();
        (kept == 0).then_some(())
    })
    .await;
    assert_eq!(replay(&ends).await.unwrap().into_inner().deliveries, 0);
    let kept = attempts(&stack).await;
    pool.close().await;
    assert!(!kept.is_empty() && kept.iter().all(|attempt| attempt.delivery_state == "PENDING"), "{kept:?}");
    stack.stop().await;
}
