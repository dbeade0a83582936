//! The process dies between any two statements: the connection to Postgres ends after each message that goes to it, before
//! it arrives or after it. What is there afterwards is whole, and going on makes it complete.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deltran_audit::NAME;
use deltran_audit::checkpoints::Publisher;
use deltran_audit::domain::checkpoint::Checkpoint;
use deltran_audit::store::{Checkpoints, Tree};
use deltran_messaging::Delivery;
use deltran_runtime::db::DbOptions;
use deltran_runtime::{Db, EngineContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::place::{Keys, ORIGIN, Place};

/// When the connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Instead of passing the message on.
    Before(usize),
    /// Once it was passed on: its effect may stand, and nobody hears of it.
    After(usize),
}

/// A way to Postgres that ends with a message, and the number of messages so far.
struct Wire {
    address: String,
    passed: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    async fn new(server: String, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let passed = Arc::new(AtomicUsize::new(0));
        let count = passed.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), cut, count.clone()));
            }
        });
        Self { address, passed, task }
    }
}

async fn carry(client: TcpStream, server: String, cut: Cut, passed: Arc<AtomicUsize>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let back = tokio::spawn(async move {
        let _ended = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut bytes = vec![0; 1 << 20];
    while let Ok(n) = from_client.read(&mut bytes).await {
        let number = passed.fetch_add(1, Ordering::SeqCst);
        let over = |last: usize| number > last;
        if n == 0 || matches!(cut, Cut::Before(last) if number >= last) || matches!(cut, Cut::After(last) if over(last))
        {
            break;
        }
        if matches!(cut, Cut::After(last) if number == last) {
            back.abort();
        }
        if to_server.write_all(&bytes[..n]).await.is_err() || matches!(cut, Cut::After(last) if number == last) {
            break;
        }
    }
    back.abort();
}

/// The engine as a new process has it, on a way that ends; and the way.
async fn process(place: &Place, cut: Cut) -> (EngineContext, Wire) {
    let at = place.url.find("127.0.0.1:").unwrap();
    let server: String = place.url[at..].chars().take_while(|c| *c != '/').collect();
    let wire = Wire::new(server.clone(), cut).await;
    let url = place.url.replacen(&server, &wire.address, 1);
    let options = DbOptions { url, max_connections: 1, acquire_timeout: Duration::from_secs(5) };
    let db = Db::open(NAME, &options, place.context.metrics.clone()).unwrap();
    (EngineContext { db, ..place.context.clone() }, wire)
}

async fn whole(place: &Place, keys: &Keys, leaves: u64, what: &str) {
    let report = place.verify_with(&keys.settings()).await;
    assert!(report.ok, "{what}: {:?}", report.checks);
    assert_eq!(report.leaves, leaves, "{what}");
}

/// A batch as it comes again: what was recorded is a duplicate.
async fn again(place: &Place, from: u64, to: u64) -> Vec<Delivery> {
    let recorded = place.ledger().confirmed_through("audit-engine/1").await.unwrap();
    (from..=to).map(|n| Delivery { duplicate: n <= recorded, ..place.event(n, "q") }).collect()
}

#[tokio::test]
async fn an_append_stands_whole_or_not_at_all_wherever_it_is_cut_off() {
    let (mut place, keys) = (Place::new().await, Keys::new());
    let mut size = 0;
    let mut cuts = 0;
    for after in [false, true] {
        let mut complete = false;
        for last in 0.. {
            let cut = if after { Cut::After(last) } else { Cut::Before(last) };
            let (context, wire) = process(&place, cut).await;
            let batch = again(&place, size + 1, size + 300).await;
            let done = place.apply_in(&context, &place.sequencer(), &batch).await.is_ok();
            let passed = wire.passed.load(Ordering::SeqCst);
            drop((context, wire));
            let recorded = place.settled().await;
            assert!(recorded == size || recorded == size + 300, "{cut:?}: {recorded} of {size} and 300");
            assert!(!done || recorded == size + 300, "{cut:?}: it was told done");
            whole(&place, &keys, recorded, &format!("{cut:?}")).await;
            // The broker delivers again.
            let batch = again(&place, size + 1, size + 300).await;
            place.apply(&place.sequencer(), &batch).await.unwrap();
            size += 300;
            complete = done && passed <= last;
            if complete {
                break;
            }
            cuts += 1;
            assert!(last < 200, "it never ends");
        }
        assert!(complete);
        whole(&place, &keys, size, "at the end").await;
    }
    assert!(cuts > 10, "{cuts} cuts");
}

#[tokio::test]
async fn no_checkpoint_contradicts_a_later_one_wherever_signing_is_cut_off() {
    let (place, keys) = (Place::new().await, Keys::new());
    let mut size = 0;
    for after in [false, true] {
        for last in 0.. {
            let cut = if after { Cut::After(last) } else { Cut::Before(last) };
            place.apply(&place.sequencer(), &again(&place, size + 1, size + 7).await).await.unwrap();
            size += 7;
            let (context, wire) = process(&place, cut).await;
            // A new process reads key and file anew, signs and publishes.
            let notary = place.notary_in(&context, &keys.settings());
            let publisher =
                Publisher::new(context.clone(), place.door_in(&context), Arc::new(notary), &keys.settings());
            let done = publisher.publish(size, "test", "ada").await.is_ok();
            let passed = wire.passed.load(Ordering::SeqCst);
            drop((context, publisher, wire));
            let notary = place.notary(&keys.settings());
            if let Some(beside) = notary.known() {
                assert!(beside.size <= size, "{cut:?}");
            }
            // Every kept checkpoint is of one history, and the next process goes on.
            let kept = Checkpoints::new(place.context.db.clone()).between(0, u64::MAX >> 1).await.unwrap();
            for one in kept {
                let read = Checkpoint::verify(&one.note, ORIGIN, notary.verifiers()).unwrap();
                let frontier = Tree::new(place.context.db.clone()).frontier_at(read.size).await.unwrap().unwrap();
                assert_eq!(frontier.root(), read.root, "{cut:?}");
            }
            place.publisher(&keys.settings()).publish(size, "test", "ada").await.unwrap();
            whole(&place, &keys, size, &format!("{cut:?}")).await;
            if done && passed <= last {
                break;
            }
            assert!(last < 200, "it never ends");
        }
    }
}
