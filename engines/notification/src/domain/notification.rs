//! A notification: one thing that concerns one participant, and its kind.
//!
//! The filing consumer makes it and files it in the participant's feed; in the same transaction it hands it
//! to `store::deliveries::file`, which files what endpoints are to be sent. All ways carry the same [`body`].

use std::fmt;
use std::str::FromStr;

use deltran_events::Event;
use deltran_kernel::{EventId, ParticipantId, Timestamp};
use serde::Serialize;
use serde_json::Value;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal: $event:ident;)*) => {
        /// What a notification is about: the type of its event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind, in the order of the alphabet.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The word for it, such as `payment.received`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }

            /// The kind of an event and whom it is for; `None` where it is no notification.
            pub fn of(event: &Event) -> Option<(Self, ParticipantId)> {
                match event { $(Event::$event(data) => Some((Self::$kind, data.participant)),)* _ => None }
            }
        }
    };
}

kinds! {
    /// A breaker, or the participant's standing.
    AlertRaised = "alert.raised": AlertNotice;
    /// A webhook was given up.
    DeliveryFailed = "delivery.failed": DeliveryFailed;
    /// A deposit was credited.
    DepositCredited = "deposit.credited": DepositCredited;
    /// An endpoint gets nothing any more.
    EndpointDisabled = "endpoint.disabled": EndpointDisabled;
    /// The participant must top up.
    FundingRequired = "funding.required": FundingRequired;
    /// A limit is in force.
    LimitChanged = "limit.changed": LimitNotice;
    /// A reservation ran out.
    PaymentExpired = "payment.expired": PaymentExpired;
    /// A payment waits for compliance.
    PaymentHeld = "payment.held": PaymentHeld;
    /// A payment came.
    PaymentReceived = "payment.received": PaymentReceived;
    /// A payment was refused.
    PaymentRejected = "payment.rejected": PaymentRejected;
    /// A payment went.
    PaymentSent = "payment.sent": PaymentSent;
    /// A net position is frozen.
    PositionChanged = "position.changed": PositionChanged;
    /// A rate limit is in force.
    RateLimitChanged = "rate_limit.changed": RateLimitNotice;
    /// A net position is settled.
    SettlementCompleted = "settlement.completed": SettlementCompleted;
    /// A settlement was given up.
    SettlementFailed = "settlement.failed": SettlementFailed;
    /// Much of a limit is used.
    ThresholdBreached = "threshold.breached": ThresholdBreachedNotice;
    /// Less of it is used.
    ThresholdCleared = "threshold.cleared": ThresholdClearedNotice;
    /// A window was sealed.
    WindowClosed = "window.closed": WindowClosedNotice;
    /// A withdrawal was paid.
    WithdrawalPaid = "withdrawal.paid": WithdrawalPaid;
    /// A withdrawal failed.
    WithdrawalReturned = "withdrawal.returned": WithdrawalReturned;
}

/// A text that is no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no kind of notification: expected one of {known}", text = .0, known = words())]
pub struct UnknownKind(String);

fn words() -> String {
    Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Kind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let known = Self::ALL.iter().copied().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| UnknownKind(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A notification as it stands in a participant's feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The id of its event: `webhook-id`, the same over every way and in every attempt.
    pub id: EventId,
    /// Whom it concerns.
    pub participant: ParticipantId,
    /// What it is about.
    pub kind: Kind,
    /// Its gapless place among all notifications of the participant, from 1.
    pub position: u64,
    /// When it was published.
    pub at: Timestamp,
    /// What is sent: see [`body`].
    pub body: String,
}

/// The one form in which a notification is sent, whatever the way: a line of JSON.
///
/// # Errors
/// Where `data` cannot be written: a defect.
pub fn body(
    id: EventId,
    kind: Kind,
    position: u64,
    at: Timestamp,
    participant: ParticipantId,
    data: &Value,
) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Body<'a> {
        id: EventId,
        r#type: &'a str,
        position: u64,
        timestamp: Timestamp,
        participant: ParticipantId,
        data: &'a Value,
    }
    serde_json::to_string(&Body { id, r#type: kind.as_str(), position, timestamp: at, participant, data })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use deltran_events::Domain;
    use deltran_events::catalog::EVENTS;

    use super::*;

    #[test]
    fn kinds_are_the_events_of_the_domain_in_order() {
        let events: BTreeSet<String> = EVENTS
            .iter()
            .filter(|spec| spec.domain == Domain::Notifications)
            .map(|spec| spec.event_type().to_owned())
            .collect();
        let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(kinds, events.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(Kind::ALL.is_sorted());
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        let unknown = "payment.lost".parse::<Kind>().unwrap_err().to_string();
        assert!(unknown.contains("\"payment.lost\"") && unknown.contains("payment.received"), "{unknown}");
    }

    #[test]
    fn the_body_is_one_line_with_everything() {
        let id: EventId = "019a5909-d000-700e-800e-000000000601".parse().unwrap();
        let at: Timestamp = "2025-11-06T08:02:00.051200Z".parse().unwrap();
        let data = serde_json::json!({"amount": "1.00", "participant": "BRAVINXX"});
        let body = body(id, Kind::PaymentReceived, 7, at, "BRAVINXX".parse().unwrap(), &data).unwrap();
        assert_eq!(
            body,
            concat!(
                r#"{"id":"019a5909-d000-700e-800e-000000000601","type":"payment.received","position":7,"#,
                r#""timestamp":"2025-11-06T08:02:00.051200Z","participant":"BRAVINXX","#,
                r#""data":{"amount":"1.00","participant":"BRAVINXX"}}"#
            )
        );
    }
}
