//! Feeds: the same over every way, from any position, once; each bank its own, at its own pace.

use deltran_api::notification::v1::{ListNotificationsRequest, StreamNotificationsRequest};
use deltran_events::data::risk::{LimitChanged, LimitKind};
use deltran_kernel::{CommandId, Currency, Money};
use deltran_tests::Stack;
use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;
use tonic::Code;

use crate::support::*;

fn limit(who: &str) -> LimitChanged {
    let currency = Currency::new("USD").unwrap();
    LimitChanged {
        limit_id: CommandId::new(fresh()),
        kind: LimitKind::NetDebitCap,
        participant: Some(who.parse().unwrap()),
        amount: Money::parse("5000.00", currency).unwrap().into(),
        currency,
        proposed_by: "rosa".into(),
        approved_by: "ravi".into(),
        counterparty: None,
        corridor: None,
        effective_at: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_gives_the_same_from_any_position_without_gap_or_double() {
    let mut stack = Stack::of(&["notification"]).start().await;
    subscribe(&stack, ALFA, &["payment.sent", "limit.changed"]).await;
    subscribe(&stack, BRAV, &["payment.received"]).await;
    let mut publisher = Publisher::new(&stack);
    let mut lines = publisher.publish((0..20).map(|n| paid(ALFA, BRAV, &format!("{n}.50")))).await;
    lines.extend(publisher.publish([limit(ALFA), limit(BRAV)]).await);
    filed(&stack, ALFA, 21).await;
    filed(&stack, BRAV, 20).await;

    let whole = over_grpc(&stack, ALFA, 0).await.take(21).await;
    assert_eq!(whole.iter().map(|(position, _)| *position).collect::<Vec<_>>(), (1..=21).collect::<Vec<_>>());
    let sent: Vec<&str> = whole.iter().filter_map(|(_, body)| body["data"]["amount"].as_str()).collect();
    let expected: Vec<String> = (0..20).map(|n| format!("{n}.50")).collect();
    assert_eq!(sent.into_iter().filter(|amount| *amount != "5000.00").collect::<Vec<_>>(), expected, "in their order");

    let mut grpc = over_grpc(&stack, ALFA, 7).await;
    let mut socket = over_websocket(&stack, ALFA, "after=7").await.unwrap();
    let caller = ("deltran-participant", ALFA);
    let mut sse = over_sse(&stack, &[caller, ("last-event-id", "7")], "after=3").await.unwrap();
    assert_eq!(grpc.take(14).await, whole[7..]);
    assert_eq!(socket.take(14).await, whole[7..]);
    assert_eq!(sse.take(14).await, whole[7..]);

    // Everything comes again, and then something new: only that is told, live.
    publisher.send(&lines).await;
    publisher.publish([paid(ALFA, BRAV, "99.00")]).await;
    let (from_grpc, from_socket, from_sse) = (grpc.take(1).await, socket.take(1).await, sse.take(1).await);
    assert_eq!((from_grpc[0].0, from_grpc[0].1["data"]["amount"].as_str()), (22, Some("99.00")));
    assert_eq!((&from_socket, &from_sse), (&from_grpc, &from_grpc));
    filed(&stack, ALFA, 22).await;
    filed(&stack, BRAV, 21).await;

    // Kinds are filtered, and the position goes on beside them.
    let request = StreamNotificationsRequest { kinds: vec!["limit.changed".into()], ..Default::default() };
    let mut limits = bank(&stack, ALFA).stream_notifications(request).await.unwrap().into_inner();
    let first = limits.message().await.unwrap().unwrap();
    assert_eq!(first.notification.unwrap().kind, "limit.changed");
    let caught_up = limits.message().await.unwrap().unwrap();
    assert_eq!((caught_up.position, caught_up.notification), (22, None));

    // The process stops and another goes on: streams end, and resume where they were.
    stack.stop_engines().await;
    assert!(grpc.0.message().await.unwrap_or_default().is_none(), "the stream has ended");
    assert!(sse.block().await.is_none(), "the stream has ended");
    let closed = socket.0.next().await.unwrap().unwrap();
    assert!(matches!(closed, Message::Close(Some(frame)) if u16::from(frame.code) == 1001), "told to resume");
    publisher.publish([paid(ALFA, BRAV, "100.00")]).await;
    stack.restart_engines().await;
    let mut again = over_websocket(&stack, ALFA, "after=20").await.unwrap();
    let resumed = again.take(3).await;
    assert_eq!(resumed.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [21, 22, 23]);
    assert_eq!(resumed[2].1["data"]["amount"], "100.00");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_reads_its_own_and_says_rightly_from_where() {
    let stack = Stack::of(&["notification"]).start().await;
    subscribe(&stack, BRAV, &["payment.received"]).await;
    let mut publisher = Publisher::new(&stack);
    publisher.publish((0..3).map(|_| paid(ALFA, BRAV, "1.00"))).await;
    filed(&stack, BRAV, 3).await;
    assert_eq!(last(&stack, ALFA).await, 0);

    // Of another's feed nothing is to be had, over no way.
    let mut alfa = bank(&stack, ALFA);
    let asked = StreamNotificationsRequest { participant: BRAV.into(), ..Default::default() };
    let refused = alfa.stream_notifications(asked.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let asked_list = ListNotificationsRequest { participant: BRAV.into(), ..Default::default() };
    assert_eq!(alfa.list_notifications(asked_list.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let query = format!("participant={BRAV}");
    assert_eq!(over_websocket(&stack, ALFA, &query).await.err().unwrap().0, 403);
    assert_eq!(over_sse(&stack, &[("deltran-participant", ALFA)], &query).await.err().unwrap().0, 403);
    assert_eq!(over_sse(&stack, &[], &query).await.err().unwrap().0, 401);
    let compliance = [("deltran-role", "compliance"), ("deltran-user", "carl")];
    assert_eq!(over_sse(&stack, &compliance, &query).await.err().unwrap().0, 403);

    // An operator names whose.
    let mut streamed = OverGrpc(operator(&stack).stream_notifications(asked).await.unwrap().into_inner());
    let by_operator = streamed.take(3).await;
    let as_operator = [("deltran-role", "operator"), ("deltran-user", "ada")];
    assert_eq!(over_sse(&stack, &as_operator, &query).await.unwrap().take(3).await, by_operator);
    let listed = operator(&stack).list_notifications(asked_list).await.unwrap().into_inner();
    assert_eq!((listed.oldest_position, listed.last_position), (1, 3));
    assert_eq!(listed.notifications.iter().map(|n| n.position).collect::<Vec<_>>(), [3, 2, 1]);

    // A position that is none, or not there yet.
    let caller = [("deltran-participant", BRAV)];
    for (query, said) in [
        ("after=x", "\"x\" is no position"),
        ("after=4", "the last position is 3"),
        ("kinds=payment.lost", "is no kind"),
        ("since=4", "since"),
    ] {
        for (status, body) in [
            over_websocket(&stack, BRAV, query).await.err().unwrap(),
            over_sse(&stack, &caller, query).await.err().unwrap(),
        ] {
            assert_eq!((status, body["code"].as_str()), (400, Some("malformed")), "{query} {body}");
            assert!(body["message"].as_str().unwrap().contains(said), "{query} {body}");
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_delays_nobody() {
    const MANY: usize = 20_000;
    let stack = Stack::of(&["notification"]).config("[notification]\nstreams_per_participant = 4\n").start().await;
    subscribe(&stack, ALFA, &["payment.sent"]).await;
    subscribe(&stack, BRAV, &["payment.received"]).await;
    // Three readers of one bank that read nothing after the first bytes, over each way.
    let mut slow_grpc = over_grpc(&stack, ALFA, 0).await;
    let mut slow_sse = over_sse(&stack, &[("deltran-participant", ALFA)], "").await.unwrap();
    let mut slow_socket = tokio::net::TcpStream::connect(stack.http).await.unwrap();
    let upgrade = format!(
        "GET /v1/notifications/ws HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ndeltran-participant: {ALFA}\r\n\r\n",
        stack.http
    );
    slow_socket.write_all(upgrade.as_bytes()).await.unwrap();

    let mut quick = [over_grpc(&stack, ALFA, 0).await, over_grpc(&stack, BRAV, 0).await];
    let over = over_websocket(&stack, ALFA, "").await.err().unwrap();
    assert_eq!((over.0, over.1["code"].as_str()), (429, Some("overloaded")), "a fifth one is too many");
    let mut publisher = Publisher::new(&stack);
    publisher.publish((0..MANY).map(|_| paid(ALFA, BRAV, "1.00"))).await;
    for reader in &mut quick {
        let read = reader.take(MANY).await;
        assert!(read.iter().map(|(position, _)| *position).eq(1..=MANY as u64), "without gap or double");
    }

    // The slow ones missed nothing: they read on at their own pace.
    assert_eq!(slow_grpc.take(MANY).await.last().unwrap().0, MANY as u64);
    assert_eq!(slow_sse.take(MANY).await.last().unwrap().0, MANY as u64);
    drop(slow_socket);
    stack.stop().await;
    // Open streams are ended in good order, and not cut off after a time of grace.
    for mut open in quick.into_iter().chain([slow_grpc]) {
        assert!(open.0.message().await.unwrap().is_none());
    }
    while slow_sse.block().await.is_some() {}
}
