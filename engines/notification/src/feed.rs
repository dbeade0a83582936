//! Feeds being read: history first, then live. Each reader reads from the table at its own pace, so a slow one
//! delays nobody and holds no more than one page.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltran_kernel::ParticipantId;
use deltran_runtime::{Db, DbError, Failure, FailureKind};
use futures::Stream;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::domain::{Kind, Notification};
use crate::store::feed::{self, Extent};

/// Looks for what other processes filed, where no signal arrives.
const POLL: Duration = Duration::from_millis(500);
/// Positions that are read at once.
const PAGE: u64 = 200;
/// The same where only some kinds are asked for.
const SPARSE_PAGE: u64 = 2_000;

/// Wakes readers.
pub struct Pulse {
    db: Db,
    filed: Notify,
    /// By participant: the last position, as far as it is known here.
    readers: Mutex<BTreeMap<ParticipantId, watch::Sender<u64>>>,
    /// Readers that one participant may have.
    most: usize,
}

impl Pulse {
    /// Wakes at most so many readers of one participant.
    pub fn new(db: Db, most: usize) -> Self {
        Self { db, filed: Notify::new(), readers: Mutex::default(), most }
    }

    /// Tells that this process filed something.
    pub fn filed(&self) {
        self.filed.notify_one();
    }

    /// Tells readers how far their feeds go, until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut seen = 0;
        let mut failures = 0u32;
        while !shutdown.is_cancelled() {
            match self.round(&mut seen).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if failures.is_power_of_two() {
                        tracing::warn!(%error, failures, "readers of feeds wait");
                    }
                }
            }
            tokio::select! {
                () = self.filed.notified(), if failures == 0 => {}
                () = tokio::time::sleep(POLL) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn round(&self, seen: &mut i64) -> Result<(), DbError> {
        {
            let mut readers = self.readers();
            readers.retain(|_, sender| sender.receiver_count() > 0);
            if readers.is_empty() {
                return Ok(());
            }
        }
        for (participant, last, round) in feed::filed_after(self.db.pool(), *seen).await? {
            *seen = round;
            if let Some(sender) = self.readers().get(&participant) {
                sender.send_if_modified(|known| {
                    let rises = last > *known;
                    *known = last.max(*known);
                    rises
                });
            }
        }
        Ok(())
    }

    fn readers(&self) -> MutexGuard<'_, BTreeMap<ParticipantId, watch::Sender<u64>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, participant: ParticipantId) -> Result<watch::Receiver<u64>, Failure> {
        let mut readers = self.readers();
        let sender = readers.entry(participant).or_insert_with(|| watch::Sender::new(0));
        if sender.receiver_count() >= self.most {
            let message = format!("{participant} has {} streams open, the most that one may have: end one", self.most);
            return Err(Failure::overloaded(message));
        }
        Ok(sender.subscribe())
    }
}

/// What is read of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Whose.
    pub participant: ParticipantId,
    /// After this position; 0 is the oldest that is kept.
    pub after: u64,
    /// Of these kinds; none is all.
    pub kinds: BTreeSet<Kind>,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The next notification.
    Notification(Notification),
    /// Everything through this position was given, as far as it was asked for; said once. What follows is live.
    CaughtUp(u64),
}

/// Reads on from a position.
struct Reader {
    db: Db,
    asked: Asked,
    position: u64,
    /// The last position of the feed, as far as it is known.
    last: u64,
    page: VecDeque<Notification>,
    caught_up: bool,
    news: watch::Receiver<u64>,
}

/// Opens a feed.
///
/// # Errors
/// `position_expired` where the next position is no longer kept, `malformed` where the position does not exist yet,
/// `overloaded` where the participant has too many streams open.
pub async fn open(
    pulse: &Pulse,
    asked: Asked,
) -> Result<impl Stream<Item = Result<Item, Failure>> + Send + use<>, Failure> {
    // Before the extent is read: what is filed after that reading is told here.
    let news = pulse.listen(asked.participant)?;
    let extent = feed::extent(pulse.db.pool(), asked.participant).await?;
    let position = begins_after(asked.after, extent)?;
    let db = pulse.db.clone();
    let reader = Reader { db, asked, position, last: extent.last, page: VecDeque::new(), caught_up: false, news };
    Ok(futures::stream::try_unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Ok(item.map(|item| (item, reader)))
    }))
}

/// The position that a reader begins after, where that can be.
fn begins_after(asked: u64, extent: Extent) -> Result<u64, Failure> {
    if asked > extent.last {
        let message = format!("{asked} is not filed yet: the last position is {}", extent.last);
        return Err(Failure::malformed("after_position", message).with("last_position", extent.last));
    }
    let position = if asked == 0 { extent.oldest - 1 } else { asked };
    kept(position, extent)?;
    Ok(position)
}

/// Refuses a position whose next one is no longer kept.
fn kept(position: u64, extent: Extent) -> Result<(), Failure> {
    if position + 1 >= extent.oldest {
        return Ok(());
    }
    let message = format!(
        "what follows position {position} is no longer kept: the oldest position is {}; begin after {}",
        extent.oldest,
        extent.oldest - 1
    );
    let failure = Failure::new(FailureKind::WrongState, "position_expired", message);
    Err(failure.with("oldest_position", extent.oldest).with("last_position", extent.last))
}

impl Reader {
    /// The next item; none where the process ends.
    async fn next(&mut self) -> Result<Option<Item>, Failure> {
        loop {
            if let Some(notification) = self.page.pop_front() {
                return Ok(Some(Item::Notification(notification)));
            }
            if self.position < self.last {
                self.read().await?;
                continue;
            }
            if !self.caught_up {
                self.caught_up = true;
                return Ok(Some(Item::CaughtUp(self.position)));
            }
            if self.news.changed().await.is_err() {
                return Ok(None);
            }
            self.last = self.last.max(*self.news.borrow_and_update());
        }
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let page = if self.asked.kinds.is_empty() { PAGE } else { SPARSE_PAGE };
        let through = self.last.min(self.position.saturating_add(page));
        let Asked { participant, kinds, .. } = &self.asked;
        let page = feed::between(self.db.pool(), *participant, self.position, through, kinds).await?;
        // After the page: what is kept now was kept then.
        kept(self.position, feed::extent(self.db.pool(), *participant).await?)?;
        self.page = page.into();
        self.position = through;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_begins_where_something_follows_that_is_kept() {
        let begins = |asked, oldest, last| begins_after(asked, Extent { oldest, last }).map_err(|f| f.reason);
        for (asked, oldest, last, expected) in [
            (0, 1, 0, Ok(0)),
            (0, 1, 9, Ok(0)),
            (9, 1, 9, Ok(9)),
            (10, 1, 9, Err("malformed")),
            (1, 1, 0, Err("malformed")),
            (u64::MAX, 1, 9, Err("malformed")),
            (0, 5, 9, Ok(4)),
            (4, 5, 9, Ok(4)),
            (3, 5, 9, Err("position_expired")),
            (9, 10, 9, Ok(9)),
            (8, 10, 9, Err("position_expired")),
            (0, 10, 9, Ok(9)),
        ] {
            assert_eq!(begins(asked, oldest, last), expected, "after {asked} of {oldest} to {last}");
        }
    }
}
