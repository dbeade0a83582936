//! Subscriptions: once per id, one's own, and in force from the answer on.

use deltran_api::notification::v1::{
    ListNotificationsRequest, ListSubscriptionsRequest, SubscribeRequest, UnsubscribeRequest,
};
use deltran_tests::{Stack, eventually};
use tonic::Code;

use crate::support::*;

const PAYMENTS: &str = "events_transactions_notification";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_is_passed_over_and_a_subscription_holds_from_its_answer() {
    let stack = Stack::of(&["notification"]).start().await;
    let mut publisher = Publisher::new(&stack);
    let consumed = |what: &str| stack.metrics.consumed.with_label_values(&[PAYMENTS, what]).get();
    publisher.publish((0..50).map(|_| paid(ALFA, BRAV, "1.00"))).await;
    eventually("payments to be passed over", async || (consumed("unread") == 50).then_some(())).await;
    assert_eq!(consumed("applied"), 0);

    // Big ones only, and only those to BRAV.
    let request = SubscribeRequest {
        subscription_id: fresh().to_string(),
        kinds: vec!["payment.received".into()],
        currency: "USD".into(),
        minimum_amount: "10.00".into(),
        ..SubscribeRequest::default()
    };
    let mut brav = bank(&stack, BRAV);
    let made = brav.subscribe(request.clone()).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!((made.participant.as_str(), made.created_by.as_str(), made.ended_at), (BRAV, BRAV, None));
    publisher
        .publish([
            paid(ALFA, BRAV, "9.99"),
            paid(ALFA, BRAV, "10.00"),
            paid(BRAV, ALFA, "11.00"),
            paid(ALFA, BRAV, "12.00"),
        ])
        .await;
    filed(&stack, BRAV, 2).await;
    let listed = brav.list_notifications(ListNotificationsRequest::default()).await.unwrap().into_inner();
    let amounts: Vec<bool> = listed.notifications.iter().map(|n| n.body.contains("\"amount\":\"12.00\"")).collect();
    assert_eq!(amounts, [true, false]);
    assert_eq!((last(&stack, ALFA).await, consumed("unread")), (0, 50));

    // Repeated, changed, another's.
    assert_eq!(brav.subscribe(request.clone()).await.unwrap().into_inner().subscription.unwrap(), made);
    let other = SubscribeRequest { minimum_amount: "11.00".into(), ..request.clone() };
    assert_eq!(brav.subscribe(other).await.unwrap_err().code(), Code::AlreadyExists);
    let mut alfa = bank(&stack, ALFA);
    assert_eq!(alfa.subscribe(request.clone()).await.unwrap_err().code(), Code::AlreadyExists);
    let for_other =
        SubscribeRequest { participant: BRAV.into(), subscription_id: fresh().to_string(), ..request.clone() };
    assert_eq!(alfa.subscribe(for_other).await.unwrap_err().code(), Code::PermissionDenied);
    let end = UnsubscribeRequest { subscription_id: made.subscription_id.clone() };
    assert_eq!(alfa.unsubscribe(end.clone()).await.unwrap_err().code(), Code::NotFound);
    let none = alfa.list_subscriptions(ListSubscriptionsRequest::default()).await.unwrap().into_inner();
    assert!(none.subscriptions.is_empty());
    for (change, field) in [
        (SubscribeRequest { kinds: Vec::new(), ..request.clone() }, "kinds"),
        (SubscribeRequest { kinds: vec!["payment.lost".into()], ..request.clone() }, "kinds"),
        (SubscribeRequest { currency: String::new(), ..request.clone() }, "minimum_amount"),
        (SubscribeRequest { subscription_id: "x".into(), ..request.clone() }, "subscription_id"),
    ] {
        let refused = brav.subscribe(change).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(field), "{refused}");
    }

    // An operator sees all, page by page, and may end one.
    let operators = SubscribeRequest {
        subscription_id: fresh().to_string(),
        participant: CHAR.into(),
        kinds: vec!["window.closed".into(), "alert.raised".into()],
        ..SubscribeRequest::default()
    };
    let mut ada = operator(&stack);
    ada.subscribe(operators.clone()).await.unwrap();
    let nobody = SubscribeRequest { participant: String::new(), ..operators };
    assert_eq!(ada.subscribe(nobody).await.unwrap_err().code(), Code::InvalidArgument);
    let page = |token: String| ListSubscriptionsRequest {
        page: Some(deltran_api::common::v1::Page { size: 1, token }),
        ..ListSubscriptionsRequest::default()
    };
    let first = ada.list_subscriptions(page(String::new())).await.unwrap().into_inner();
    assert_eq!(first.subscriptions[0].kinds, ["alert.raised", "window.closed"]);
    let second = ada.list_subscriptions(page(first.next_page_token)).await.unwrap().into_inner();
    assert_eq!(second.subscriptions, std::slice::from_ref(&made));
    let by_kind = ListSubscriptionsRequest { kind: "window.closed".into(), ..ListSubscriptionsRequest::default() };
    assert_eq!(ada.list_subscriptions(by_kind).await.unwrap().into_inner().subscriptions, first.subscriptions);

    // Ended once and for ever: nothing more comes.
    let ended = brav.unsubscribe(end.clone()).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!((ended.ended_at.is_some(), ended.ended_by.as_str()), (true, BRAV));
    assert_eq!(ada.unsubscribe(end).await.unwrap().into_inner().subscription.unwrap(), ended);
    let refused = brav.subscribe(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let present = brav.list_subscriptions(ListSubscriptionsRequest::default()).await.unwrap().into_inner();
    assert!(present.subscriptions.is_empty());
    let with_ended = ListSubscriptionsRequest { with_ended: true, ..ListSubscriptionsRequest::default() };
    assert_eq!(brav.list_subscriptions(with_ended).await.unwrap().into_inner().subscriptions, [ended]);
    publisher.publish([paid(ALFA, BRAV, "99.00")]).await;
    eventually("the payment to be passed over", async || (consumed("unread") == 51).then_some(())).await;
    assert_eq!(last(&stack, BRAV).await, 2);
    stack.stop().await;
}
