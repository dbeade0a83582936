//! What the sender keeps in memory of one endpoint: what is to be sent next, what is under way, and its breaker.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use deltran_kernel::{ParticipantId, Timestamp};
use http::Uri;

use crate::domain::breaker::{Breaker, Health, Leave, Rules};
use crate::domain::delivery::{Delivery, DeliveryState};
use crate::domain::sign::{Signer, signature, timestamp};

/// The most deliveries that wait in memory for one endpoint; they are filled up when half of them are gone.
const QUEUE: usize = 256;

/// Everything that signs for an endpoint, the newest first, each with its end.
#[derive(Debug, Default)]
pub struct Signers(pub Vec<(Signer, Option<Timestamp>)>);

impl Signers {
    /// `webhook-timestamp` and `webhook-signature` at `now`, by those that have not ended.
    pub fn sign(&self, id: &str, body: &[u8], now: Timestamp) -> (i64, String) {
        let at = timestamp(now);
        let present = self.0.iter().filter(|(_, end)| end.is_none_or(|end| now < end)).map(|(signer, _)| signer);
        (at, signature(present, id, at, body))
    }
}

/// What is known of an endpoint from its row.
#[derive(Debug, Clone)]
pub struct Known {
    /// Whose it is.
    pub participant: ParticipantId,
    /// Where it is.
    pub uri: Uri,
    /// Whether a delivery waits for the one before it.
    pub in_order: bool,
    /// The version of the row.
    pub version: u64,
    /// Who signs; none where the secrets cannot be read.
    pub signers: Option<Arc<Signers>>,
}

/// An endpoint's lane.
#[derive(Debug)]
pub struct Lane {
    /// What its row says.
    pub known: Known,
    /// Its breaker.
    pub breaker: Breaker,
    /// The health that is stored.
    pub stored: Health,
    queue: VecDeque<Delivery>,
    /// Positions that wait here, are under way, or whose result is not committed yet.
    held: BTreeSet<u64>,
    /// Those of them that are not in the queue.
    flying: u32,
    /// When the next delivery is due that was not when it was looked for.
    next_due: Option<Timestamp>,
    /// Whether there may be more in the database that is due.
    more: bool,
    /// Whether the endpoint is no longer sent to; the lane stays until what is under way has ended.
    closed: bool,
}

impl Lane {
    /// The lane of an endpoint that is sent to from now on.
    pub fn new(known: Known, health: Health, rules: &Rules) -> Self {
        Self {
            known,
            breaker: Breaker::new(health, rules),
            stored: health,
            queue: VecDeque::new(),
            held: BTreeSet::new(),
            flying: 0,
            next_due: None,
            more: true,
            closed: false,
        }
    }

    /// The endpoint was changed: what waits may no longer be what is to be sent.
    pub fn renew(&mut self, known: Known, health: Health, rules: &Rules) {
        self.flush();
        self.known = known;
        self.breaker = Breaker::new(health, rules);
        self.stored = health;
        self.closed = false;
    }

    /// The endpoint is no longer sent to; true where nothing is under way any more.
    pub fn close(&mut self) -> bool {
        self.flush();
        self.closed = true;
        self.flying == 0
    }

    /// Something may have been filed.
    pub fn look(&mut self) {
        self.more = true;
    }

    fn flush(&mut self) {
        for delivery in self.queue.drain(..) {
            self.held.remove(&delivery.position);
        }
        self.next_due = None;
        self.more = true;
    }

    /// How many rows to ask for, where there is reason to: room, and those that are held already and come again.
    pub fn wants(&self, now: Timestamp) -> Option<usize> {
        let reason = self.more || self.next_due.is_some_and(|due| due <= now);
        let room = QUEUE.saturating_sub(self.queue.len());
        let ready = room >= QUEUE / 2 && !self.closed && self.known.signers.is_some();
        (reason && ready).then_some(room + self.held.len())
    }

    /// Takes what was found for `asked` rows: in the order of sending, from the first on.
    pub fn fill(&mut self, rows: Vec<Delivery>, asked: usize, now: Timestamp) {
        let full = rows.len() >= asked;
        self.next_due = None;
        self.more = full;
        for delivery in rows {
            if self.held.contains(&delivery.position) {
                continue;
            }
            // Rows come by the time that they are due; or in order, and then none overtakes this one.
            if delivery.due_at > now {
                self.next_due = Some(delivery.due_at);
                self.more = false;
                return;
            }
            self.held.insert(delivery.position);
            self.queue.push_back(delivery);
        }
    }

    /// The next delivery to be sent at `now`, where one may be; it is under way from here on.
    pub fn next(&mut self, now: Timestamp) -> Option<Delivery> {
        if self.closed || self.queue.is_empty() {
            return None;
        }
        let window = match self.breaker.leave(now) {
            Leave::Wait(_) => return None,
            Leave::Send(_) if self.known.in_order => 1,
            Leave::Send(window) => window,
        };
        if self.flying >= window {
            return None;
        }
        let delivery = self.queue.pop_front()?;
        self.flying += 1;
        Some(delivery)
    }

    /// When there is something to do next, where that is known.
    pub fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self.breaker.leave(now) {
            Leave::Wait(until) if !self.queue.is_empty() => Some(until),
            // What is due and is not asked for waits for room.
            _ => self.next_due.filter(|due| *due > now),
        }
    }

    /// What an attempt came to is stored: the delivery is let go.
    pub fn concluded(&mut self, position: u64, state: DeliveryState, due_at: Option<Timestamp>) {
        self.flying = self.flying.saturating_sub(1);
        self.held.remove(&position);
        if state == DeliveryState::Pending {
            self.next_due = match (self.next_due, due_at) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        if self.known.in_order && state != DeliveryState::Delivered {
            // Whether it is tried again or given up is in the database; what waits here must not overtake it.
            self.flush();
        }
    }

    /// Whether it can be forgotten.
    pub fn is_over(&self) -> bool {
        self.closed && self.flying == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Kind;

    fn rules() -> Rules {
        Rules { threshold: 2, first_pause: 10_000_000, longest_pause: 10_000_000, window: 8, patience: i64::MAX }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(0).plus_seconds(seconds)
    }

    fn lane(in_order: bool) -> Lane {
        let known = Known {
            participant: "ALFAAEXX".parse().unwrap(),
            uri: Uri::from_static("https://bank.example.com/"),
            in_order,
            version: 1,
            signers: Some(Arc::default()),
        };
        Lane::new(known, Health::default(), &rules())
    }

    fn delivery(position: u64, due: i64) -> Delivery {
        Delivery {
            endpoint_id: "0190c3d5-0000-7000-8000-000000000001".parse().unwrap(),
            position,
            notification_id: "0190c3d5-0000-7000-8000-000000000002".parse().unwrap(),
            kind: Kind::PaymentReceived,
            body: String::new(),
            attempts: 0,
            attempts_before: 0,
            due_at: at(due),
        }
    }

    fn fill(lane: &mut Lane, rows: &[(u64, i64)], now: i64) {
        let asked = lane.wants(at(now)).unwrap();
        lane.fill(rows.iter().map(|(position, due)| delivery(*position, *due)).collect(), asked, at(now));
    }

    fn sends(lane: &mut Lane, now: i64) -> Vec<u64> {
        std::iter::from_fn(|| lane.next(at(now)).map(|delivery| delivery.position)).collect()
    }

    #[test]
    fn what_is_held_is_not_taken_twice() {
        let mut lane = lane(false);
        assert_eq!(lane.wants(at(0)), Some(QUEUE));
        fill(&mut lane, &[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 7)], 0);
        assert_eq!(sends(&mut lane, 0), [1, 2, 3, 4], "an untried endpoint gets a few");
        assert_eq!(lane.wants(at(0)), None, "nothing more is due");
        assert_eq!(lane.wakes_at(at(0)), Some(at(7)));
        lane.look();
        fill(&mut lane, &[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 7)], 0);
        lane.concluded(1, DeliveryState::Delivered, None);
        assert_eq!(sends(&mut lane, 0), [5]);
        lane.concluded(2, DeliveryState::Pending, Some(at(3)));
        assert_eq!(lane.wakes_at(at(0)), Some(at(3)));
        assert!(lane.wants(at(3)).is_some());
    }

    #[test]
    fn in_order_one_waits_for_the_other_and_for_its_retries() {
        let mut lane = lane(true);
        fill(&mut lane, &[(1, 0), (2, 0), (3, 0)], 0);
        assert_eq!(sends(&mut lane, 0), [1]);
        lane.concluded(1, DeliveryState::Delivered, None);
        assert_eq!(sends(&mut lane, 0), [2]);
        lane.concluded(2, DeliveryState::Pending, Some(at(5)));
        assert_eq!(sends(&mut lane, 0), [] as [u64; 0]);
        fill(&mut lane, &[(2, 5), (3, 0)], 0);
        assert_eq!(sends(&mut lane, 4), [] as [u64; 0], "3 does not overtake 2");
        assert_eq!(lane.wakes_at(at(4)), Some(at(5)));
        fill(&mut lane, &[(2, 5), (3, 0)], 5);
        assert_eq!(sends(&mut lane, 5), [2]);
        lane.concluded(2, DeliveryState::Failed, None);
        fill(&mut lane, &[(3, 0)], 5);
        assert_eq!(sends(&mut lane, 5), [3], "given up, it holds up nobody");
    }

    #[test]
    fn an_open_breaker_lets_one_through_after_its_pause() {
        let mut lane = lane(false);
        fill(&mut lane, &[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)], 0);
        assert_eq!(sends(&mut lane, 0), [1, 2, 3, 4]);
        for position in [1, 2] {
            lane.breaker.failed(None, &rules(), at(0));
            lane.concluded(position, DeliveryState::Pending, Some(at(5)));
        }
        for position in [3, 4] {
            lane.concluded(position, DeliveryState::Pending, Some(at(5)));
        }
        assert_eq!((sends(&mut lane, 9), lane.wakes_at(at(9))), (vec![], Some(at(10))));
        assert_eq!(sends(&mut lane, 10), [5], "a probe");
    }

    #[test]
    fn what_waits_for_room_wakes_nobody() {
        let mut lane = lane(false);
        fill(&mut lane, &(1..=200).map(|position| (position, 0)).collect::<Vec<_>>(), 0);
        assert_eq!(sends(&mut lane, 0).len(), 4);
        lane.concluded(1, DeliveryState::Pending, Some(at(5)));
        assert_eq!(lane.wakes_at(at(4)), Some(at(5)));
        assert_eq!((lane.wants(at(5)), lane.wakes_at(at(5))), (None, None), "until some of what waits is sent");
        sends(&mut lane, 5);
        for position in 2..=80 {
            lane.breaker.succeeded(&rules());
            lane.concluded(position, DeliveryState::Delivered, None);
            sends(&mut lane, 5);
        }
        assert!(lane.wants(at(5)).is_some());
    }

    #[test]
    fn a_lane_without_secrets_sends_nothing() {
        let mut lane = lane(false);
        lane.known.signers = None;
        assert_eq!(lane.wants(at(0)), None);
    }

    #[test]
    fn a_closed_lane_ends_with_what_is_under_way() {
        let mut lane = lane(false);
        fill(&mut lane, &[(1, 0), (2, 0)], 0);
        assert!(lane.next(at(0)).is_some());
        assert!(!lane.close() && !lane.is_over());
        assert_eq!((sends(&mut lane, 0), lane.wants(at(0))), (vec![], None));
        lane.concluded(1, DeliveryState::Delivered, None);
        assert!(lane.is_over());
        let (known, health) = (lane.known.clone(), Health::default());
        lane.renew(known, health, &rules());
        fill(&mut lane, &[(2, 0)], 0);
        assert_eq!(sends(&mut lane, 0), [2], "enabled again");
    }
}
