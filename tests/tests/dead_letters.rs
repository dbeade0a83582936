//! A message that ends its consumer every time: the broker gives up on it, and it stands among the dead
//! letters, from where an operator publishes it again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use deltran_api::audit::v1::dead_letter_service_client::DeadLetterServiceClient;
use deltran_api::audit::v1::{GetDeadLetterRequest, ListDeadLettersRequest, ReplayDeadLetterRequest};
use deltran_tests::{Stack, eventually};
use futures::StreamExt;

const CONSUMER: &str = "settlement-engine-consumer";
/// As the catalog says of the consumer.
const MAX_DELIVER: i64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_its_consumer_every_time_is_put_aside_and_can_be_replayed() {
    let stack = Stack::of(&["audit"]).start().await;
    let jetstream = stack.broker.jetstream();
    let payload = r#"{"not":"an event"}"#;
    let stored = jetstream.publish("events.clearing.window.opened", payload.into()).await.unwrap().await.unwrap();
    let mut stream = jetstream.get_stream("CLEARING").await.unwrap();
    let consumer: PullConsumer = stream.get_consumer(CONSUMER).await.unwrap();
    // The settlement engine does not run here: this takes its messages, as a process that never gets through.
    for delivery in 1..=MAX_DELIVER {
        let mut taken = consumer.fetch().max_messages(1).expires(Duration::from_secs(10)).messages().await.unwrap();
        let message = taken.next().await.unwrap().unwrap();
        assert_eq!(message.info().unwrap().delivered, delivery);
        message.ack_with(AckKind::Nak(None)).await.unwrap();
    }
    let mut none = consumer.fetch().max_messages(1).expires(Duration::from_secs(1)).messages().await.unwrap();
    assert!(none.next().await.is_none(), "the broker has given up on it");

    let mut letters = DeadLetterServiceClient::new(stack.role("operator", "ada"));
    let letter = eventually("the dead letter", async || {
        let listed = letters.list_dead_letters(ListDeadLettersRequest::default()).await.ok()?.into_inner();
        listed.dead_letters.into_iter().next()
    })
    .await;
    assert_eq!((letter.stream.as_str(), letter.stream_sequence), ("CLEARING", stored.sequence), "{letter:?}");
    assert_eq!((letter.consumer.as_str(), letter.state.as_str()), (CONSUMER, "OPEN"), "{letter:?}");
    assert_eq!(i64::from(letter.attempts), MAX_DELIVER, "{letter:?}");
    let id = letter.dead_letter_id;
    let whole = letters.get_dead_letter(GetDeadLetterRequest { dead_letter_id: id }).await.unwrap().into_inner();
    assert_eq!(whole.dead_letter.unwrap().payload, payload.as_bytes());

    let request = ReplayDeadLetterRequest { dead_letter_id: id, reason: "its consumer was mended".into() };
    let replayed = letters.replay_dead_letter(request).await.unwrap().into_inner().dead_letter.unwrap();
    assert_eq!((replayed.state.as_str(), replayed.decided_by.as_str()), ("REPLAYED", "ada"), "{replayed:?}");
    assert_eq!(stream.info().await.unwrap().state.messages, 2);
    let mut again = consumer.fetch().max_messages(1).expires(Duration::from_secs(10)).messages().await.unwrap();
    let message = again.next().await.unwrap().unwrap();
    assert_eq!((message.payload.as_ref(), message.info().unwrap().delivered), (payload.as_bytes(), 1));
    stack.stop().await;
}
