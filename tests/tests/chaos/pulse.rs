//! Whether the platform takes payments: a small payment every tenth of a second, none waiting for another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use deltran_api::token::v1::{SubmitTransactionRequest, TransactionState};
use deltran_tests::node::pay;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::World;
use crate::load::{BANKS, name};

/// Between two payments.
const EVERY: Duration = Duration::from_millis(100);
/// A payment is given up after this; its outcome is unknown then.
const PATIENCE: Duration = Duration::from_secs(5);
/// Payments that may be on their way.
const AT_ONCE: usize = 60;

/// When payments were committed.
#[derive(Debug)]
pub struct Pulse {
    begun: Instant,
    /// When each was sent, and when its sender was told, in the order of the latter.
    committed: Mutex<Vec<(Instant, Instant)>>,
}

impl Pulse {
    pub fn new() -> Self {
        Self { begun: Instant::now(), committed: Mutex::default() }
    }

    fn beat(&self, sent: Instant) {
        self.committed.lock().expect("no panic").push((sent, Instant::now()));
    }

    /// Payments that were sent after `at` and committed.
    pub fn since(&self, at: Instant) -> usize {
        self.committed.lock().expect("no panic").iter().rev().take(200).filter(|(sent, _)| *sent > at).count()
    }

    /// The longest time between two moments in which no payment was committed.
    pub fn longest(&self, from: Instant, to: Instant) -> Duration {
        let committed = self.committed.lock().expect("no panic");
        let mut last = from;
        let mut longest = Duration::ZERO;
        for told in committed.iter().map(|(_, told)| *told).filter(|told| (from..=to).contains(told)) {
            longest = longest.max(told - last);
            last = told;
        }
        longest.max(to - last)
    }

    /// Time since the run began, as `minutes:seconds`.
    pub fn clock(&self) -> String {
        let tenths = self.begun.elapsed().as_millis() / 100;
        format!("{:02}:{:02}.{}", tenths / 600, tenths / 10 % 60, tenths % 10)
    }
}

/// Sends payments until the load is over. What is unknown stays so until the end of the run.
pub async fn beat(world: Arc<World>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let channel = world.rig.channel();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 0.. {
        ticks.tick().await;
        if world.is_over() {
            break;
        }
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (world, mut bank) = (world.clone(), world.rig.bank_on(&channel, BANKS[0]));
        tokio::spawn(async move {
            let transaction = pay(&name(world.seed, &format!("pulse {number}")), BANKS[0], BANKS[1], "0.01");
            let id = transaction.transaction_id.clone();
            world.journal.sending(std::slice::from_ref(&transaction));
            let sent = Instant::now();
            let request = SubmitTransactionRequest { transaction: Some(transaction) };
            match timeout(PATIENCE, bank.submit_transaction(request)).await {
                Err(_) => world.journal.unknown(&id, "no answer in time"),
                Ok(Err(status)) => world.journal.failed(&id, &status),
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    let outcome = answer.outcome.unwrap_or_default();
                    if outcome.state() == TransactionState::Committed {
                        world.pulse.beat(sent);
                    }
                    world.journal.told(outcome, answer.replayed);
                }
            }
            drop(place);
        });
    }
    // Until the last of them has ended.
    let _ = places.acquire_many(AT_ONCE as u32).await;
}
