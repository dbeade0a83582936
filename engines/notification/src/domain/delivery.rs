//! A delivery: one notification on its way to one endpoint, and what attempts make of it.

use deltran_events::Event;
use deltran_events::data::notifications::DeliveryFailed;
use deltran_kernel::{EndpointId, EventId, ParticipantId, Timestamp};

use super::breaker::{Breaker, Rules};
use super::endpoint::Cause;
use super::notification::Kind;
use super::retry::{Answer, Schedule, Verdict};

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryState {
    /// It is sent when it is due.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// It was given up, or the endpoint was disabled; it can be replayed.
    Failed,
}

impl DeliveryState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Delivered => "DELIVERED",
            Self::Failed => "FAILED",
        }
    }
}

/// A delivery that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// To which endpoint.
    pub endpoint_id: EndpointId,
    /// The place of the notification among those of the participant.
    pub position: u64,
    /// The `webhook-id`.
    pub notification_id: EventId,
    /// Of the notification.
    pub kind: Kind,
    /// The exact bytes.
    pub body: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Of those, the ones before it was last replayed: the schedule began anew after them.
    pub attempts_before: u32,
    /// Not before this time.
    pub due_at: Timestamp,
}

/// How an attempt ended, with what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
    /// What came of it.
    pub answer: Answer,
    /// The beginning of the response, escaped.
    pub response: String,
}

/// What an attempt makes of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    /// The delivery as it was sent.
    pub delivery: Delivery,
    /// The attempt.
    pub attempt: Attempt,
    /// Where the delivery stands.
    pub state: DeliveryState,
    /// When it is tried again, where it is.
    pub due_at: Option<Timestamp>,
    /// Published where this conclusion is stored.
    pub event: Option<Event>,
    /// Why its endpoint is to be disabled, where it is.
    pub disable: Option<Cause>,
}

impl Conclusion {
    /// The number of the attempt, from 1.
    pub fn number(&self) -> u32 {
        self.delivery.attempts.saturating_add(1)
    }
}

/// Judges an attempt that ended at `now`, and tells the endpoint's breaker. There is none where the endpoint was
/// changed after the attempt began: then it says nothing about the endpoint as it is now, and a 410 only means
/// that the delivery goes to where the endpoint is by now.
pub fn conclude(
    delivery: Delivery,
    participant: ParticipantId,
    attempt: Attempt,
    mut breaker: Option<&mut Breaker>,
    (schedule, rules): (&Schedule, &Rules),
    (jitter, now): (u16, Timestamp),
) -> Conclusion {
    let number = delivery.attempts.saturating_add(1);
    let verdict = schedule.judge(number.saturating_sub(delivery.attempts_before), &attempt.answer, jitter, now);
    if let Some(breaker) = breaker.as_deref_mut() {
        if verdict == Verdict::Delivered {
            breaker.succeeded(rules);
        } else {
            let asked = match &attempt.answer {
                Answer::Status { retry_after, .. } => *retry_after,
                Answer::Fault(_) => None,
            };
            breaker.failed(asked, rules, now);
        }
    }
    let (state, due_at) = match verdict {
        Verdict::Delivered => (DeliveryState::Delivered, None),
        Verdict::Again(at) => (DeliveryState::Pending, Some(at)),
        Verdict::Gone if breaker.is_none() => (DeliveryState::Pending, Some(now)),
        Verdict::Exhausted | Verdict::Gone => (DeliveryState::Failed, None),
    };
    let disable = breaker.and_then(|breaker| match verdict {
        Verdict::Gone => Some(Cause::Gone),
        _ if breaker.is_hopeless(rules, now) => Some(Cause::Failing),
        _ => None,
    });
    // Of an endpoint that is disabled, `endpoint.disabled` tells.
    let event = (verdict == Verdict::Exhausted && disable.is_none()).then(|| {
        DeliveryFailed {
            participant,
            endpoint_id: delivery.endpoint_id,
            notification_id: delivery.notification_id,
            kind: delivery.kind.to_string(),
            attempts: number,
            error: error(&attempt.answer),
        }
        .into()
    });
    Conclusion { delivery, attempt, state, due_at, event, disable }
}

/// How an attempt ended, for people: `timeout`, `status 500`.
fn error(answer: &Answer) -> String {
    match answer.status() {
        Some(code) => format!("status {code}"),
        None => answer.error().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::breaker::Health;
    use super::super::retry::Fault;
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_762_430_400_000_000).plus_seconds(seconds)
    }

    fn schedule() -> Schedule {
        Schedule { delays: vec![5 * SECOND, 60 * SECOND], jitter_percent: 0, longest_retry_after: 3600 * SECOND }
    }

    fn rules() -> Rules {
        Rules { threshold: 5, first_pause: SECOND, longest_pause: SECOND, window: 8, patience: 100 * SECOND }
    }

    fn delivery(attempts: u32, attempts_before: u32) -> Delivery {
        Delivery {
            endpoint_id: "0190c3d5-0000-7000-8000-000000000001".parse().unwrap(),
            position: 7,
            notification_id: "0190c3d5-0000-7000-8000-000000000002".parse().unwrap(),
            kind: Kind::PaymentReceived,
            body: "{}".into(),
            attempts,
            attempts_before,
            due_at: at(0),
        }
    }

    fn concluded(delivery: Delivery, answer: Answer, breaker: &mut Breaker, now: Timestamp) -> Conclusion {
        let attempt = Attempt { at: now, duration_ms: 3, answer, response: String::new() };
        conclude(delivery, "ALFAAEXX".parse().unwrap(), attempt, Some(breaker), (&schedule(), &rules()), (0, now))
    }

    fn status(code: u16) -> Answer {
        Answer::Status { code, retry_after: None }
    }

    #[test]
    fn attempts_lead_to_an_end() {
        use DeliveryState::{Delivered, Failed, Pending};
        let table = [
            (delivery(0, 0), status(204), Delivered, None, None, false),
            (delivery(0, 0), status(500), Pending, Some(at(5)), None, false),
            (delivery(1, 0), Answer::Fault(Fault::Timeout), Pending, Some(at(60)), None, false),
            (delivery(2, 0), status(500), Failed, None, None, true),
            (delivery(2, 0), status(200), Delivered, None, None, false),
            (delivery(0, 0), status(410), Failed, None, Some(Cause::Gone), false),
            (delivery(2, 0), status(410), Failed, None, Some(Cause::Gone), false),
            // Replayed after three attempts: the schedule begins anew, the numbers go on.
            (delivery(3, 3), status(500), Pending, Some(at(5)), None, false),
            (delivery(5, 3), status(500), Failed, None, None, true),
        ];
        for (delivery, answer, state, due_at, disable, tells) in table {
            let mut breaker = Breaker::new(Health::default(), &rules());
            let attempts = delivery.attempts;
            let done = concluded(delivery, answer.clone(), &mut breaker, at(0));
            assert_eq!((done.state, done.due_at, done.disable), (state, due_at, disable), "{attempts} {answer:?}");
            assert_eq!((done.event.is_some(), done.number()), (tells, attempts + 1), "{attempts} {answer:?}");
            assert_eq!(breaker.health().failures, u32::from(state != Delivered));
        }
    }

    #[test]
    fn a_delivery_that_is_given_up_is_told_with_how_it_ended() {
        let mut breaker = Breaker::new(Health::default(), &rules());
        let done = concluded(delivery(2, 0), Answer::Fault(Fault::Timeout), &mut breaker, at(0));
        let Some(Event::DeliveryFailed(told)) = done.event else { panic!("{:?}", done.event) };
        assert_eq!((told.attempts, told.error.as_str(), told.kind.as_str()), (3, "timeout", "payment.received"));
        let done = concluded(delivery(2, 0), status(503), &mut breaker, at(0));
        let Some(Event::DeliveryFailed(told)) = done.event else { panic!("{:?}", done.event) };
        assert_eq!(told.error, "status 503");
    }

    #[test]
    fn an_endpoint_that_fails_for_too_long_is_disabled() {
        let mut breaker = Breaker::new(Health::default(), &rules());
        assert_eq!(concluded(delivery(0, 0), status(500), &mut breaker, at(0)).disable, None);
        assert_eq!(concluded(delivery(0, 0), status(500), &mut breaker, at(99)).disable, None);
        let done = concluded(delivery(2, 0), status(500), &mut breaker, at(100));
        assert_eq!((done.disable, done.event), (Some(Cause::Failing), None));
        assert_eq!(concluded(delivery(0, 0), status(200), &mut breaker, at(101)).disable, None);
    }

    #[test]
    fn what_an_endpoint_answered_before_it_was_changed_disables_nothing() {
        use DeliveryState::{Delivered, Failed, Pending};
        let rules = Rules { patience: 0, ..rules() };
        for (attempts, code, state, due_at, tells) in [
            (0, 204, Delivered, None, false),
            (0, 500, Pending, Some(at(5)), false),
            (2, 500, Failed, None, true),
            (0, 410, Pending, Some(at(0)), false),
            (2, 410, Pending, Some(at(0)), false),
        ] {
            let attempt = Attempt { at: at(0), duration_ms: 3, answer: status(code), response: String::new() };
            let participant = "ALFAAEXX".parse().unwrap();
            let schedule = (&schedule(), &rules);
            let done = conclude(delivery(attempts, 0), participant, attempt, None, schedule, (0, at(0)));
            assert_eq!((done.state, done.due_at, done.disable), (state, due_at, None), "{attempts} {code}");
            assert_eq!(done.event.is_some(), tells, "{attempts} {code}");
        }
    }
}
