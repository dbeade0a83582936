//! What banks are told meanwhile: a stream that goes on where it broke off, and webhooks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deltran_api::common::v1::Page;
use deltran_api::notification::v1::{
    CreateEndpointRequest, ListNotificationsRequest, Notification, StreamNotificationsRequest, SubscribeRequest,
};
use deltran_tests::node::{PATIENCE, id};
use deltran_tests::receiver::{Arrivals, Receiver, ids};
use deltran_tests::within;
use tokio::time::{sleep, timeout};

use crate::World;
use crate::load::{BANKS, name};

/// Banks that listen, with what they want to hear.
const LISTENERS: [(&str, &[&str]); 2] = [
    (BANKS[3], &["payment.received", "payment.sent", "payment.rejected", "payment.expired", "settlement.completed"]),
    (BANKS[2], &["payment.received", "window.closed", "position.changed"]),
];

/// Everything that was heard.
pub struct Ears {
    arrivals: Arrivals,
    _receiver: Receiver,
    /// Of each listener: id by position, as its stream told it.
    streamed: Mutex<BTreeMap<&'static str, BTreeMap<u64, String>>>,
}

/// What was heard, counted.
#[derive(Debug, Default)]
pub struct Heard {
    /// Notifications in the feeds.
    pub notifications: usize,
    /// Of them, told by streams.
    pub streamed: usize,
    /// Notifications that the receiver of webhooks got.
    pub webhooks: usize,
    /// Deliveries to it, repetitions included.
    pub deliveries: usize,
}

impl Ears {
    /// Subscribes and registers the endpoint.
    pub async fn open(world: &World) -> Self {
        let arrivals = Arrivals::default();
        let receiver = Receiver::new(SocketAddr::from(([127, 0, 0, 1], 0)), arrivals.clone()).await;
        for (bank, kinds) in LISTENERS {
            let request = SubscribeRequest {
                subscription_id: id(&name(world.seed, bank)).to_string(),
                kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
                ..Default::default()
            };
            world.rig.notifications(bank).subscribe(request).await.unwrap();
        }
        let request = CreateEndpointRequest {
            endpoint_id: id(&name(world.seed, "endpoint")).to_string(),
            url: format!("http://{}/hook", receiver.address),
            ..Default::default()
        };
        world.rig.notifications(LISTENERS[0].0).create_endpoint(request).await.unwrap();
        Self { arrivals, _receiver: receiver, streamed: Mutex::default() }
    }

    /// Reads the stream of one listener until everything is over.
    async fn read(&self, world: &World, bank: &'static str) {
        let mut last = 0;
        while !world.is_silent() {
            let mut client = world.rig.notifications(bank);
            let request = StreamNotificationsRequest { after_position: last, ..Default::default() };
            if let Ok(Ok(answer)) = timeout(Duration::from_secs(5), client.stream_notifications(request)).await {
                let mut stream = answer.into_inner();
                // The keep-alive of the connection ends a stream behind which nobody is left.
                while let Ok(Some(next)) = stream.message().await {
                    if let Some(notification) = next.notification {
                        self.take(world, bank, &mut last, notification);
                    }
                    if world.is_silent() {
                        break;
                    }
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn take(&self, world: &World, bank: &'static str, last: &mut u64, notification: Notification) {
        if notification.position != *last + 1 {
            world.journal.breach(format!("{bank}: position {} came after {last}", notification.position));
        }
        *last = notification.position;
        let mut streamed = self.streamed.lock().expect("no panic");
        streamed.entry(bank).or_default().insert(notification.position, notification.notification_id);
    }

    /// Compares feeds, streams and webhooks, once everything has been told.
    pub async fn compare(&self, world: &World) -> Heard {
        let mut heard = Heard::default();
        for (bank, _) in LISTENERS {
            let feed = feed(world, bank).await;
            let all: BTreeSet<&String> = feed.values().map(|n| &n.notification_id).collect();
            if all.len() != feed.len() {
                world.journal.breach(format!("{bank}: {} notifications have {} ids", feed.len(), all.len()));
            }
            if !feed.keys().copied().eq(1..=feed.len() as u64) {
                world.journal.breach(format!("{bank}: positions of the feed have gaps"));
            }
            within(PATIENCE, "the stream to tell everything", async || {
                let told = self.streamed.lock().expect("no panic").get(bank).map_or(0, BTreeMap::len);
                (told >= feed.len()).then_some(())
            })
            .await;
            let streamed = self.streamed.lock().expect("no panic").get(bank).cloned().unwrap_or_default();
            let expected: BTreeMap<u64, String> =
                feed.iter().map(|(position, n)| (*position, n.notification_id.clone())).collect();
            if streamed != expected {
                world.journal.breach(format!("{bank}: its stream told something else than its feed has"));
            }
            // Nobody is told of one payment twice.
            let mut about: BTreeMap<(String, String), &String> = BTreeMap::new();
            for notification in feed.values().filter(|n| n.kind.starts_with("payment.")) {
                let body: serde_json::Value = serde_json::from_str(&notification.body).unwrap();
                let transaction = body["data"]["transaction_id"].as_str().expect("its transaction").to_owned();
                let key = (notification.kind.clone(), transaction);
                if let Some(other) = about.insert(key.clone(), &notification.notification_id) {
                    world
                        .journal
                        .breach(format!("{bank}: {key:?} told as {other} and {}", notification.notification_id));
                }
            }
            heard.notifications += feed.len();
            heard.streamed += streamed.len();
            if bank == LISTENERS[0].0 {
                self.hooks(world, &feed, &mut heard).await;
            }
        }
        heard
    }

    async fn hooks(&self, world: &World, feed: &BTreeMap<u64, Notification>, heard: &mut Heard) {
        let bodies: BTreeMap<&String, &String> = feed.values().map(|n| (&n.notification_id, &n.body)).collect();
        let expected: BTreeSet<String> = feed
            .values()
            // What is told of webhooks themselves is not told by webhook.
            .filter(|n| !["delivery.failed", "endpoint.disabled"].contains(&n.kind.as_str()))
            .map(|n| n.notification_id.clone())
            .collect();
        within(PATIENCE, "every webhook", async || ids(&self.arrivals).is_superset(&expected).then_some(())).await;
        for (headers, body) in self.arrivals.lock().unwrap().iter() {
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            if bodies.get(&id).map(|told| told.as_bytes()) != Some(&body[..]) {
                world.journal.breach(format!("webhook {id} is not what the feed has"));
            }
        }
        heard.webhooks = ids(&self.arrivals).len();
        heard.deliveries = self.arrivals.lock().unwrap().len();
    }
}

/// Begins to read the streams of all listeners.
pub fn listen(world: &Arc<World>, ears: &Arc<Ears>) -> Vec<tokio::task::JoinHandle<()>> {
    let read = |bank| {
        let (world, ears) = (world.clone(), ears.clone());
        tokio::spawn(async move { ears.read(&world, bank).await })
    };
    LISTENERS.into_iter().map(|(bank, _)| read(bank)).collect()
}

async fn feed(world: &World, bank: &str) -> BTreeMap<u64, Notification> {
    let mut client = world.rig.notifications(bank);
    let mut all = BTreeMap::new();
    let mut token = String::new();
    loop {
        let request =
            ListNotificationsRequest { page: Some(Page { size: 1000, token }), ..ListNotificationsRequest::default() };
        let answer = client.list_notifications(request).await.unwrap().into_inner();
        for notification in answer.notifications {
            let twice = all.insert(notification.position, notification);
            assert!(twice.is_none(), "listed twice: {twice:?}");
        }
        token = answer.next_page_token;
        if token.is_empty() {
            return all;
        }
    }
}
