//! Going over a stream in windows: its messages, what they are known by, and what the ledger has of them.

use std::pin::Pin;

use deltran_messaging::stored::{self, StoredMessage, StreamState};
use deltran_messaging::{Broker, BrokerError};
use deltran_runtime::Failure;
use futures::{Stream, StreamExt};

use crate::domain::reconcile::{Item, Retention, Standing};
use crate::store::Comparison;

/// Messages of a window, and the size of their bytes at which it ends.
const WINDOW: usize = 1024;
const WINDOW_BYTES: usize = 4 << 20;

/// Messages in their order.
pub struct Window {
    /// As they are stored.
    pub messages: Vec<StoredMessage>,
    /// As the ledger would take them, in the same order.
    pub items: Vec<Item>,
    /// What it has of them.
    pub standing: Standing,
}

/// A stream under way.
pub struct Survey<'a> {
    messages: Pin<Box<dyn Stream<Item = Result<StoredMessage, BrokerError>> + Send>>,
    comparison: &'a Comparison,
}

impl<'a> Survey<'a> {
    /// Of what a stream held when it was in this state.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub async fn of(
        broker: &Broker,
        comparison: &'a Comparison,
        stream: &str,
        state: &StreamState,
    ) -> Result<Self, Failure> {
        let messages = stored::read(broker, stream, state.first_sequence, state.last_sequence).await.map_err(away)?;
        Ok(Self { messages: Box::pin(messages), comparison })
    }

    /// The next window; `None` at the end.
    ///
    /// # Errors
    /// Where the broker or the database does not answer.
    pub async fn next(&mut self) -> Result<Option<Window>, Failure> {
        let mut messages = Vec::with_capacity(WINDOW);
        let mut size = 0;
        while messages.len() < WINDOW && size < WINDOW_BYTES {
            let Some(message) = self.messages.next().await.transpose().map_err(away)? else { break };
            size += message.payload.len();
            messages.push(message);
        }
        if messages.is_empty() {
            return Ok(None);
        }
        let (messages, items) = items_of(messages, |m| Item::of(m.sequence, &m.subject, &m.payload)).await?;
        let standing = self.comparison.standing(&items).await?;
        Ok(Some(Window { messages, items, standing }))
    }
}

/// Hands back what it is given, and beside it what the ledger would take each for, which takes a while.
///
/// # Errors
/// Where that panics.
pub async fn items_of<T: Send + 'static>(given: Vec<T>, item: fn(&T) -> Item) -> Result<(Vec<T>, Vec<Item>), Failure> {
    tokio::task::spawn_blocking(move || {
        let items = given.iter().map(item).collect::<Vec<_>>();
        (given, items)
    })
    .await
    .map_err(Failure::internal)
}

/// How long a stream keeps what it stored.
pub fn retention_of(state: &StreamState) -> Retention {
    let max_age = state.max_age.map(|age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    Retention::new(max_age, state.bytes, state.max_bytes, state.discards_old)
}

/// A broker that does not answer.
pub fn away(error: BrokerError) -> Failure {
    Failure::unavailable(format!("{error}: try again"))
}
