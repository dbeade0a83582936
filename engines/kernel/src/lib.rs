//! The words every engine shares: money, currencies, typed ids, time and the calendar.
//!
//! Pure values only. Nothing here is asynchronous, reads a clock by itself or knows that
//! Postgres, NATS or gRPC exist.

mod calendar;
mod currency;
mod id;
mod money;
mod text;
mod time;

pub use calendar::BusinessCalendar;
pub use currency::{Currency, UnknownCurrency};
pub use id::{
    AlertId, AllowanceId, BatchId, CaseId, CommandId, EndpointId, EventId, HoldId, InvalidId, NettingSetId,
    ParticipantId, PostingGroupId, ReportId, SubscriptionId, TransactionId, WindowId, WithdrawalId,
};
pub use money::{MAX_MINOR, Minor, Money, MoneyError};
pub use text::Text;
pub use time::{Clock, IdSource, InvalidTimestamp, ManualClock, SeededIds, SystemClock, SystemIds, Timestamp};
