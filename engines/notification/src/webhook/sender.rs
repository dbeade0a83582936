//! The sender: takes what is due, sends it to many endpoints at once, and stores what came of it. One process
//! sends at a time; what it had under way when it ended is sent again by the next, under the same id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltran_kernel::{EndpointId, ParticipantId};
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::lease::Epoch;
use deltran_runtime::{DbError, EngineContext};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Signed};
use super::desk::disabled;
use super::lane::{Known, Lane, Signers};
use super::random::{Random, jitter};
use super::settings::Webhooks;
use super::vault::Vault;
use crate::domain::Kind;
use crate::domain::breaker::{Breaker, Health, Rules};
use crate::domain::delivery::{Attempt, Conclusion, Delivery, conclude};
use crate::domain::endpoint::{Actor, Cause, Change};
use crate::domain::retry::Schedule;
use crate::store::deliveries;
use crate::store::endpoints::{self, Whole};

const LEASE: &str = "webhooks";
/// Somebody must give the master key back: endpoints cannot be sent to.
const UNSIGNED_ALERT: &str = "notification_webhooks_unsigned";
/// The user in whose name the platform disables endpoints.
const USER: &str = "notification-engine";
/// The most results of one transaction.
const BATCH: usize = 1_000;
/// Time for what is under way to end, when the process is told to.
const DRAIN: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Sends webhooks.
#[derive(Clone)]
pub struct Sender {
    context: EngineContext,
    door: Door,
    vault: Arc<Vault>,
    client: Client,
    random: Arc<dyn Random>,
    wake: Arc<Notify>,
    schedule: Arc<Schedule>,
    rules: Arc<Rules>,
    poll: Duration,
    in_total: usize,
}

/// A delivery that was sent, under which version of its endpoint.
type Flight = (Delivery, u64, Attempt);

/// What one term keeps in memory.
#[derive(Default)]
struct Floor {
    lanes: BTreeMap<EndpointId, Lane>,
    flights: JoinSet<Flight>,
    /// Concluded, and not stored yet.
    unstored: Vec<Conclusion>,
    /// When to look at the database next, at the latest.
    look_at: Option<Instant>,
    /// Who has the first turn next.
    turn: Option<EndpointId>,
    /// A flight was lost: only a new term knows again what is to be sent.
    broken: bool,
}

/// What came of storing conclusions.
enum Stored {
    /// They are stored: which endpoints were disabled, and whose health was stored.
    Whole(BTreeSet<EndpointId>, Vec<(EndpointId, Health)>),
    /// Nothing is: these endpoints were to be disabled, and were changed meanwhile.
    Changed(BTreeSet<EndpointId>),
}

impl Sender {
    /// The sender of an engine. It looks at the database when `wake` tells it to.
    pub fn new(
        context: EngineContext,
        door: Door,
        vault: Arc<Vault>,
        client: Client,
        random: Arc<dyn Random>,
        wake: Arc<Notify>,
        settings: &Webhooks,
    ) -> Self {
        Self {
            context,
            door,
            vault,
            client,
            random,
            wake,
            schedule: Arc::new(settings.schedule()),
            rules: Arc::new(settings.rules()),
            poll: settings.poll(),
            in_total: settings.in_total,
        }
    }

    /// Sends while this process holds the lease, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let lease = self.context.lease(LEASE);
        lease
            .run(shutdown, move |epoch, term| {
                let sender = self.clone();
                async move { sender.term(epoch, term).await }
            })
            .await;
    }

    async fn term(self, epoch: Epoch, term: CancellationToken) {
        let part = format!("{}.{LEASE}", self.context.engine);
        let mut floor = Floor::default();
        let mut failures = 0u32;
        while !term.is_cancelled() && !floor.broken {
            match self.round(&mut floor, &epoch, &term).await {
                Ok(()) => {
                    failures = 0;
                    self.context.health.ready(&part);
                }
                // Another process sends all of it again: what is under way here is of no use.
                Err(DbError::NotLeader) => {
                    floor.flights.abort_all();
                    break;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.context.health.not_ready(&part, error.to_string());
                    let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = term.cancelled() => {}
                    }
                }
            }
        }
        self.drain(&mut floor, &epoch).await;
        // Whoever sends next raises it again where it holds.
        self.context.metrics.alert(UNSIGNED_ALERT, false);
        self.context.metrics.queue_depth.with_label_values(&[LEASE]).set(0);
    }

    async fn round(&self, floor: &mut Floor, epoch: &Epoch, term: &CancellationToken) -> Result<(), DbError> {
        // What is done is stored before more is begun: while the database is away nothing is sent twice.
        self.store(floor, epoch).await?;
        if floor.look_at.is_none_or(|at| at <= Instant::now()) {
            self.look(floor).await?;
            floor.lanes.values_mut().for_each(Lane::look);
            floor.look_at = Some(Instant::now() + self.poll);
        }
        // What was filed after a rotation or a change is never sent as it was before: what waited for an endpoint
        // that changed is loaded anew.
        while self.load(floor).await? && self.look(floor).await? {}
        epoch.current()?;
        self.launch(floor);
        let depth = i64::try_from(floor.flights.len()).unwrap_or(i64::MAX);
        self.context.metrics.queue_depth.with_label_values(&[LEASE]).set(depth);
        let wakes_at = self.wakes_at(floor);
        tokio::select! {
            Some(landed) = floor.flights.join_next(), if !floor.flights.is_empty() => {
                self.land(floor, landed);
                while floor.unstored.len() < BATCH && let Some(landed) = floor.flights.try_join_next() {
                    self.land(floor, landed);
                }
            }
            () = self.wake.notified() => floor.look_at = None,
            () = tokio::time::sleep_until(wakes_at) => {}
            () = term.cancelled() => {}
        }
        Ok(())
    }

    /// Brings the lanes into line with the endpoints; whether one of them changed.
    async fn look(&self, floor: &mut Floor) -> Result<bool, DbError> {
        let enabled = endpoints::enabled(self.door.db()).await?;
        floor.lanes.retain(|id, lane| enabled.contains_key(id) || !lane.close());
        let changed: Vec<EndpointId> = enabled
            .iter()
            .filter(|(id, version)| floor.lanes.get(id).is_none_or(|lane| lane.known.version != **version))
            .map(|(id, _)| *id)
            .collect();
        if !changed.is_empty() {
            for whole in endpoints::whole(self.door.db(), &changed).await? {
                let id = whole.endpoint.endpoint_id;
                let health = whole.health;
                let Some(known) = self.known(whole) else { continue };
                match floor.lanes.get_mut(&id) {
                    Some(lane) => lane.renew(known, health, &self.rules),
                    None => {
                        floor.lanes.insert(id, Lane::new(known, health, &self.rules));
                    }
                }
            }
        }
        let unsigned = floor.lanes.values().any(|lane| lane.known.signers.is_none());
        self.context.metrics.alert(UNSIGNED_ALERT, unsigned);
        Ok(!changed.is_empty())
    }

    fn known(&self, whole: Whole) -> Option<Known> {
        let Whole { endpoint, secrets, .. } = whole;
        let id = endpoint.endpoint_id;
        let signers = secrets.iter().map(|stored| {
            let secret = self.vault.read(id, stored.version.number, &stored.sealed)?;
            Ok((secret.signer(), stored.version.expires_at))
        });
        let signers = signers.collect::<Result<Vec<_>, super::vault::VaultError>>();
        let signers = signers.inspect_err(|error| {
            tracing::error!(endpoint.id = %id, %error, "an endpoint cannot be sent to: its deliveries wait");
        });
        // A URL is checked when it is stored, so this is one that was changed in the database.
        let uri = endpoint.wish.url.parse().inspect_err(|error| {
            tracing::error!(endpoint.id = %id, %error, "an endpoint cannot be sent to: its URL is none");
        });
        Some(Known {
            participant: endpoint.participant,
            uri: uri.ok()?,
            in_order: endpoint.wish.in_order,
            version: endpoint.version,
            signers: signers.ok().map(|signers| Arc::new(Signers(signers))),
        })
    }

    /// Loads what is due, for lanes that have room; whether there was anything.
    async fn load(&self, floor: &mut Floor) -> Result<bool, DbError> {
        let now = self.context.clock.now();
        let mut any = false;
        for in_order in [false, true] {
            let wanting = floor.lanes.iter().filter(|(_, lane)| lane.known.in_order == in_order);
            let rooms: Vec<(EndpointId, usize)> =
                wanting.filter_map(|(id, lane)| Some((*id, lane.wants(now)?))).collect();
            if rooms.is_empty() {
                continue;
            }
            let mut found = deliveries::next(self.door.db(), &rooms, in_order).await?;
            for (id, asked) in rooms {
                let rows = found.remove(&id).unwrap_or_default();
                any |= !rows.is_empty();
                if let Some(lane) = floor.lanes.get_mut(&id) {
                    lane.fill(rows, asked, now);
                }
            }
        }
        Ok(any)
    }

    /// Sends what may be sent, an endpoint a turn, until no more may be.
    fn launch(&self, floor: &mut Floor) {
        let now = self.context.clock.now();
        let mut ids: Vec<EndpointId> = floor.lanes.keys().copied().collect();
        let first = floor.turn.map_or(0, |turn| ids.partition_point(|id| *id <= turn));
        ids.rotate_left(first);
        while !ids.is_empty() {
            // Those that sent have another turn after all others had theirs.
            ids.retain(|id| {
                if floor.flights.len() >= self.in_total {
                    return false;
                }
                let Some(lane) = floor.lanes.get_mut(id) else { return false };
                let (Some(signers), Some(delivery)) = (lane.known.signers.clone(), lane.next(now)) else {
                    return false;
                };
                floor.turn = Some(*id);
                floor.flights.spawn(self.clone().fly(lane.known.uri.clone(), lane.known.version, signers, delivery));
                true
            });
        }
    }

    async fn fly(self, uri: http::Uri, version: u64, signers: Arc<Signers>, delivery: Delivery) -> Flight {
        let id = delivery.notification_id.to_string();
        let body = Bytes::from(delivery.body.clone());
        let (timestamp, signature) = signers.sign(&id, &body, self.context.clock.now());
        let attempt = self.client.send(Signed { uri, id, timestamp, signature, body }).await;
        (delivery, version, attempt)
    }

    fn wakes_at(&self, floor: &Floor) -> Instant {
        let now = self.context.clock.now();
        let look_at = floor.look_at.unwrap_or_else(Instant::now);
        let due = floor.lanes.values().filter_map(|lane| lane.wakes_at(now)).min();
        let due = due.map(|due| {
            let micros = due.micros().saturating_sub(now.micros());
            Instant::now() + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        });
        due.map_or(look_at, |due| due.min(look_at))
    }

    /// Concludes a flight.
    fn land(&self, floor: &mut Floor, landed: Result<Flight, tokio::task::JoinError>) {
        let (delivery, version, attempt) = match landed {
            Ok(landed) => landed,
            Err(error) => {
                // What it carried is pending in the database, and nobody here knows any more which it was.
                if !error.is_cancelled() {
                    tracing::error!(%error, "a delivery was lost: the sender begins anew");
                }
                floor.broken = true;
                return;
            }
        };
        let word = Some(attempt.answer.error()).filter(|word| !word.is_empty()).unwrap_or("ok");
        self.context.metrics.webhook_attempts.with_label_values(&[word]).inc();
        let Some(lane) = floor.lanes.get_mut(&delivery.endpoint_id) else { return };
        let breaker = (lane.known.version == version).then_some(&mut lane.breaker);
        floor.unstored.push(self.judge(lane.known.participant, delivery, attempt, breaker));
    }

    fn judge(
        &self,
        participant: ParticipantId,
        delivery: Delivery,
        attempt: Attempt,
        breaker: Option<&mut Breaker>,
    ) -> Conclusion {
        let chance = (jitter(&*self.random), self.context.clock.now());
        conclude(delivery, participant, attempt, breaker, (&*self.schedule, &*self.rules), chance)
    }

    /// Stores what was concluded, as the holder of the lease; then lets it go.
    async fn store(&self, floor: &mut Floor, epoch: &Epoch) -> Result<(), DbError> {
        if floor.unstored.is_empty() {
            return Ok(());
        }
        let (disabled, healths) = loop {
            match self.write(floor, epoch).await? {
                Stored::Whole(disabled, healths) => break (disabled, healths),
                Stored::Changed(endpoints) => {
                    for conclusion in &mut floor.unstored {
                        let Conclusion { delivery, attempt, .. } = conclusion.clone();
                        let Some(lane) = floor.lanes.get(&delivery.endpoint_id) else { continue };
                        if endpoints.contains(&delivery.endpoint_id) {
                            *conclusion = self.judge(lane.known.participant, delivery, attempt, None);
                        }
                    }
                }
            }
        };
        for conclusion in std::mem::take(&mut floor.unstored) {
            let delivery = conclusion.delivery;
            if let Some(lane) = floor.lanes.get_mut(&delivery.endpoint_id) {
                lane.concluded(delivery.position, conclusion.state, conclusion.due_at);
            }
        }
        for (id, health) in healths {
            if let Some(lane) = floor.lanes.get_mut(&id) {
                lane.stored = health;
            }
        }
        for id in disabled {
            if let Some(lane) = floor.lanes.get_mut(&id) {
                lane.close();
            }
        }
        floor.lanes.retain(|_, lane| !lane.is_over());
        Ok(())
    }

    /// Writes conclusions with all that follows from them. An endpoint that was changed after this sender read it is
    /// neither disabled nor given the health of before.
    async fn write(&self, floor: &Floor, epoch: &Epoch) -> Result<Stored, DbError> {
        let at = self.context.clock.now();
        let conclusions = &floor.unstored;
        let hopeless: BTreeMap<EndpointId, Cause> =
            conclusions.iter().filter_map(|c| Some((c.delivery.endpoint_id, c.disable?))).collect();
        let mut healths = changed_health(floor);
        let concerned = conclusions.iter().map(|c| c.delivery.endpoint_id).chain(healths.iter().map(|(id, _)| *id));
        let others: BTreeSet<EndpointId> = concerned.filter(|id| !hopeless.contains_key(id)).collect();
        let mut tx = self.door.begin("webhooks").await?;
        epoch.check(&mut tx).await?;
        let mut versions = endpoints::hold(&mut tx, &others.into_iter().collect::<Vec<_>>()).await?;
        let mut found = Vec::with_capacity(hopeless.len());
        for (id, cause) in &hopeless {
            found.extend(endpoints::lock(&mut tx, *id).await?.map(|endpoint| (endpoint, *cause)));
        }
        versions.extend(found.iter().map(|(endpoint, _)| (endpoint.endpoint_id, endpoint.version)));
        let as_known = |id: &EndpointId| versions.get(id) == floor.lanes.get(id).map(|lane| &lane.known.version);
        let changed: BTreeSet<EndpointId> = hopeless.keys().copied().filter(|id| !as_known(id)).collect();
        if !changed.is_empty() {
            return Ok(Stored::Changed(changed));
        }
        healths.retain(|(id, _)| as_known(id));
        let new: BTreeSet<(EndpointId, u64)> =
            deliveries::conclude(&mut tx, conclusions, at).await?.into_iter().collect();
        let mut events: Vec<Outgoing> = conclusions.iter().filter_map(|c| failed(c, &new)).collect();
        let mut gone = BTreeSet::new();
        for (endpoint, cause) in found {
            let note = match cause {
                Cause::Gone => "it answered 410",
                _ => "it took nothing for too long",
            };
            // Disabled already: then there is nothing to do.
            let Ok(next) = endpoint.change(&Change::Disable, Actor::Platform(cause), note, USER, at) else { continue };
            endpoints::save(&mut tx, &next, Change::Disable.as_str()).await?;
            let given_up = deliveries::give_up(&mut tx, next.endpoint_id, at).await?;
            tracing::warn!(endpoint.id = %next.endpoint_id, %cause, given_up, "endpoint disabled");
            events.push(disabled(&next, cause, USER));
            gone.insert(next.endpoint_id);
        }
        if !healths.is_empty() {
            endpoints::save_health(&mut tx, &healths).await?;
        }
        tx.commit(&events).await?;
        Ok(Stored::Whole(gone, healths))
    }

    /// Lets what is under way end, for a while, and stores it: so much less is sent twice.
    async fn drain(&self, floor: &mut Floor, epoch: &Epoch) {
        let deadline = Instant::now() + DRAIN;
        while let Ok(Some(landed)) = tokio::time::timeout_at(deadline, floor.flights.join_next()).await {
            self.land(floor, landed);
        }
        if let Err(error) = self.store(floor, epoch).await {
            tracing::debug!(%error, "the last results are not stored: those deliveries are sent again");
        }
    }
}

/// The event that a delivery was given up, where this is new.
fn failed(conclusion: &Conclusion, new: &BTreeSet<(EndpointId, u64)>) -> Option<Outgoing> {
    let delivery = &conclusion.delivery;
    let event = conclusion.event.clone().filter(|_| new.contains(&(delivery.endpoint_id, delivery.position)))?;
    let participant = Kind::of(&event).map(|(_, participant)| participant);
    let outgoing = Outgoing::new(event, delivery.notification_id, USER).caused_by(delivery.notification_id);
    Some(match participant {
        Some(participant) => outgoing.of(participant),
        None => outgoing,
    })
}

/// The health of lanes that differs from what is stored, in the order of ids.
fn changed_health(floor: &Floor) -> Vec<(EndpointId, Health)> {
    let present = floor.lanes.iter().map(|(id, lane)| (*id, lane.breaker.health(), lane.stored));
    present.filter(|(_, health, stored)| health != stored).map(|(id, health, _)| (id, health)).collect()
}
