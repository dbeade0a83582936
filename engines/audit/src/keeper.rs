//! The keeper of streams: notices where the broker forgot, makes the stream anew above every known sequence, fills it from
//! the ledger, and lets its relay go on from the outbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deltran_events::Domain;
use deltran_events::data::audit::{LedgerMismatch, LedgerReconciled};
use deltran_events::topology::{Profile, STREAMS};
use deltran_messaging::stored::{self, Again, Answer, StreamState};
use deltran_messaging::{Broker, BrokerError, Door, Outgoing, rebuild};
use deltran_runtime::lease::{Epoch, Pace, RoundError};
use deltran_runtime::{EngineContext, Failure};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::NAME;
use crate::config::Settings;
use crate::domain::keep::{ABOVE, Known, Look, Others, Verdict, highest, judge, must_be_anew, refills};
use crate::domain::reconcile::{Absent, Kind, Name, Recorded, StreamSide, stands};
use crate::domain::sequence::AUDIT;
use crate::producers;
use crate::reconcile::schedule_user;
use crate::store::{Comparison, Cuts, KnownStream, Ledger, Streams};
use crate::survey::{Survey, retention_of};

/// A loss is acted on when two looks in a row see it.
const PACE: Pace = Pace { every: Duration::from_secs(2), longest: Duration::from_secs(8), alert: "audit_streams_wait" };
/// Relays look at their stream more often than this.
const RELAYS_SEE: Duration = Duration::from_millis(2500);
/// How long engines may take to say what was acknowledged. Whoever is silent is allowed for by [`ABOVE`].
const TOLD: Duration = Duration::from_secs(1);
/// How long a repair on demand waits for streams to be made anew.
const ANEW: Duration = Duration::from_secs(180);
/// Leaves read at once, without their bytes, and events published at once.
const HEADS: u64 = 4096;
const PUBLISHES: usize = 1000;

/// The keeper.
#[derive(Clone)]
pub struct Keeper {
    context: EngineContext,
    broker: Broker,
    door: Door,
    streams: Streams,
    comparison: Comparison,
    ledger: Ledger,
    profile: Profile,
    /// Whether this process does so by itself.
    keeps: bool,
    /// Comparisons wait while streams are made anew, and the other way round.
    turn: Arc<Semaphore>,
    /// The streams that the last look saw lost.
    suspected: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// What one look saw.
struct Seen {
    state: Option<StreamState>,
    known: Option<KnownStream>,
    others: Others,
    verdict: Verdict,
    must_be_anew: bool,
}

impl Keeper {
    /// The worker; `turn` is that of comparisons.
    pub fn new(context: EngineContext, broker: Broker, door: Door, turn: Arc<Semaphore>) -> Self {
        let (streams, comparison) = (Streams::new(context.db.clone()), Comparison::new(context.db.clone()));
        let ledger = Ledger::new(context.db.clone());
        let profile = Profile::from_name(&context.config.nats.profile).unwrap_or(Profile::Development);
        let keeps = context.config.section::<Settings>(NAME).is_ok_and(|settings| settings.keep_streams);
        Self { context, broker, door, streams, comparison, ledger, profile, keeps, turn, suspected: Arc::default() }
    }

    /// Works while this process holds the lease `streams`, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        if !self.keeps {
            return shutdown.cancelled().await;
        }
        let lease = self.context.lease("streams");
        lease
            .rounds(shutdown, PACE, Arc::new(Notify::new()), move |epoch| {
                let keeper = self.clone();
                async move { keeper.round(&epoch).await }
            })
            .await;
    }

    async fn round(&self, epoch: &Epoch) -> Result<(), RoundError> {
        if !self.broker.is_connected() {
            return Ok(());
        }
        let seen = self.look().await?;
        let lost = self.lost(&seen);
        self.note(epoch, &seen).await?;
        if !lost.is_empty() {
            self.mend(epoch, &lost).await?;
        }
        self.context.metrics.alert("audit_streams_lost", false);
        Ok(())
    }

    /// Before events are published again on demand: returns, with the turn that it was given, when no stream would give out
    /// sequences a second time. The keeper makes such streams anew, in whichever process it works; where none does, this
    /// does so itself. As with the keeper, two looks have to see it.
    ///
    /// # Errors
    /// Unavailable: they were not made anew, or could not be looked at.
    pub async fn before_repair(&self, mut turn: OwnedSemaphorePermit) -> Result<OwnedSemaphorePermit, Failure> {
        let deadline = Instant::now() + ANEW;
        let mut before = BTreeSet::new();
        loop {
            let seen = self.look().await.map_err(not_now)?;
            let waiting: BTreeSet<&'static str> =
                seen.iter().filter(|(_, seen)| seen.must_be_anew).map(|(name, _)| *name).collect();
            if waiting.is_empty() {
                return Ok(turn);
            }
            let names = waiting.iter().copied().collect::<Vec<_>>().join(", ");
            if Instant::now() > deadline {
                return Err(Failure::unavailable(format!(
                    "the broker forgot what it had of {names}, which must be made anew before anything is published again: \
                     see the log of the audit engine, and repair again"
                )));
            }
            // Making streams anew takes the turn.
            drop(turn);
            let sure: BTreeSet<&'static str> = waiting.intersection(&before).copied().collect();
            if !self.keeps && !sure.is_empty() {
                let lease = self.context.lease("streams");
                let made = lease.once(|epoch| self.anew(epoch, &sure)).await?;
                made.unwrap_or(Ok(())).map_err(not_now)?;
            }
            before = waiting;
            tokio::time::sleep(PACE.every).await;
            turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|e| Failure::unavailable(e.to_string()))?;
        }
    }

    /// Makes those of these streams anew that still have to be.
    async fn anew(&self, epoch: Epoch, names: &BTreeSet<&'static str>) -> Result<(), RoundError> {
        let seen = self.look().await?;
        let lost: Vec<(&'static str, &Seen)> = seen
            .iter()
            .filter(|(name, seen)| seen.must_be_anew && names.contains(*name))
            .map(|(name, seen)| (*name, seen))
            .collect();
        if !lost.is_empty() {
            self.mend(&epoch, &lost).await?;
        }
        self.context.metrics.alert("audit_streams_lost", false);
        Ok(())
    }

    /// The streams to be mended: those that this look and the last one saw lost, and those that are being refilled.
    fn lost<'a>(&self, seen: &'a BTreeMap<&'static str, Seen>) -> Vec<(&'static str, &'a Seen)> {
        let mut suspected = self.suspected.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *suspected);
        let mut lost = Vec::new();
        for (&name, seen) in seen {
            match seen.verdict {
                Verdict::Lost(_) if !before.contains(name) => {
                    suspected.insert(name);
                }
                Verdict::Lost(_) | Verdict::Resume => lost.push((name, seen)),
                Verdict::Well | Verdict::Adopt => {}
            }
        }
        lost
    }

    /// What others know is asked for first, so that what comes meanwhile is no loss.
    async fn look(&self) -> Result<BTreeMap<&'static str, Seen>, RoundError> {
        let told = producers::statuses(&self.context, TOLD).await.0;
        let (received, mut holes) = self.streams.received().await?;
        let mut known = self.streams.known().await?;
        let mut all = BTreeMap::new();
        for spec in STREAMS {
            let own = told.iter().map(|(engine, _)| engine).filter(|engine| engine.stream == spec.name);
            let acknowledged = own.clone().map(|engine| engine.acknowledged).max().unwrap_or(0);
            let others = Others {
                highest: acknowledged.max(received.get(spec.name).copied().unwrap_or(0)),
                holes: holes.remove(spec.name).unwrap_or_default(),
                repeated: own.clone().any(|engine| engine.repeated),
            };
            let known = known.remove(spec.name);
            let state = stored::state(&self.broker, spec.name).await?;
            let look = match &state {
                Some(state) => Some(self.look_of(spec.name, state, known.as_ref().map(|known| &known.known)).await?),
                None => None,
            };
            let now = self.context.clock.now();
            let before = known.as_ref().map(|known| &known.known);
            let verdict = judge(before, look.as_ref(), &others, now);
            let must_be_anew = must_be_anew(before, look.as_ref(), &others);
            all.insert(spec.name, Seen { state, known, others, verdict, must_be_anew });
        }
        Ok(all)
    }

    /// What is judged of a stream's state; the message at the highest known sequence is asked for where it is not the last.
    async fn look_of(&self, name: &str, state: &StreamState, known: Option<&Known>) -> Result<Look, BrokerError> {
        let known_at = match known {
            Some(known) if known.highest == state.last_sequence && known.highest_at == state.last_at => {
                known.highest_at
            }
            Some(known) if known.highest_at.is_some() && known.highest >= state.first_sequence => {
                stored::stored_at(&self.broker, name, known.highest).await?
            }
            Some(_) | None => None,
        };
        Ok(Look {
            created: state.created.clone(),
            begins_at: state.begins_at,
            messages: state.messages,
            first: state.first_sequence,
            last: state.last_sequence,
            known_at,
            retention: retention_of(state),
            mark: state.mark,
        })
    }

    /// Remembers what is well.
    async fn note(&self, epoch: &Epoch, seen: &BTreeMap<&'static str, Seen>) -> Result<(), RoundError> {
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        for (name, seen) in seen {
            if let (Verdict::Well | Verdict::Adopt, Some(state)) = (&seen.verdict, &seen.state) {
                let same = seen.known.as_ref().is_some_and(|known| {
                    known.known.highest == state.last_sequence
                        && known.known.highest_at == state.last_at
                        && known.known.created == state.created
                        && known.known.first.map(|(first, _)| first) == state.first_at.map(|_| state.first_sequence)
                });
                if !same {
                    Streams::note(&mut tx, name, state).await?;
                }
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// Makes lost streams anew, those that are copied before the one that copies them, and fills them.
    async fn mend(&self, epoch: &Epoch, lost: &[(&'static str, &Seen)]) -> Result<(), RoundError> {
        self.context.metrics.alert("audit_streams_lost", true);
        let _turn = self.turn.acquire().await.map_err(|e| RoundError::Later(e.to_string()))?;
        self.tell(epoch, lost).await?;
        let anew = lost.iter().copied().filter(|(_, seen)| matches!(seen.verdict, Verdict::Lost(_)));
        let mut anew: Vec<(&'static str, &Seen)> = anew.collect();
        let standing: Vec<&str> = anew.iter().filter(|(_, seen)| seen.state.is_some()).map(|(name, _)| *name).collect();
        for name in &standing {
            rebuild::hold(&self.broker, name).await?;
        }
        if !standing.is_empty() {
            tokio::time::sleep(RELAYS_SEE).await;
        }
        for name in &standing {
            self.carry(name).await?;
        }
        anew.sort_by_key(|(name, _)| *name == AUDIT);
        for (name, seen) in anew {
            self.recreate(epoch, name, seen).await?;
        }
        let names: Vec<&'static str> = lost.iter().map(|(name, _)| *name).collect();
        rebuild::consumers(&self.broker, self.profile, &names).await?;
        let refilled = self.refill(&names).await?;
        for name in names {
            self.done(epoch, name, refilled.get(name).copied().unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// Says once that streams are lost.
    async fn tell(&self, epoch: &Epoch, lost: &[(&'static str, &Seen)]) -> Result<(), RoundError> {
        let now = self.context.clock.now();
        let mut tx = self.door.begin("streams_lost").await?;
        epoch.check(&mut tx).await?;
        let mut events = Vec::new();
        for (name, seen) in lost {
            let Verdict::Lost(why) = &seen.verdict else { continue };
            if Streams::lost(&mut tx, name, why, now).await? {
                tracing::error!(stream = name, why = why.as_str(), "the broker forgot: the stream is made anew");
                let event = LedgerMismatch {
                    place: (*name).to_owned(),
                    kind: Kind::MissingInStream.as_str().to_owned(),
                    differences: 1,
                    first: format!("the broker forgot what it had: {why}"),
                };
                events.push(Outgoing::new(event, format!("stream-{name}"), schedule_user()));
            }
        }
        tx.commit(&events).await?;
        Ok(())
    }

    /// Keeps what stands in a stream that is about to go, and neither in the ledger nor in an outbox.
    async fn carry(&self, name: &str) -> Result<(), RoundError> {
        let Some(state) = stored::state(&self.broker, name).await? else { return Ok(()) };
        // Only events become leaves.
        if !has_leaves(name) {
            return Ok(());
        }
        let mut survey = Survey::of(&self.broker, &self.comparison, name, &state).await?;
        while let Some(window) = survey.next().await? {
            let of_an_engine = |name: &Name| match name {
                Name::Number(producer, _) => Domain::ALL.iter().any(|d| producer.split('/').next() == Some(d.source())),
                Name::Key(_) => false,
            };
            let recorded = |name: &Name| matches!(name, Name::Key(key) if window.standing.keys.contains(key));
            let only_here = window.messages.iter().zip(&window.items).filter(|(_, item)| {
                !of_an_engine(&item.name) && !recorded(&item.name) && !stands(item, &window.standing)
            });
            self.streams.carry(name, &only_here.map(|(message, _)| message).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    async fn recreate(&self, epoch: &Epoch, name: &'static str, seen: &Seen) -> Result<(), RoundError> {
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        tx.commit().await?;
        let last = seen.state.as_ref().map_or(0, |state| state.last_sequence);
        let above = highest(seen.known.as_ref().map(|known| &known.known), &seen.others).max(last) + ABOVE;
        let config = seen.known.as_ref().and_then(|known| known.config.clone());
        epoch.current()?;
        rebuild::recreate(&self.broker, self.profile, name, above, config).await?;
        let state = stored::state(&self.broker, name).await?.ok_or_else(|| gone(name))?;
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        Streams::note(&mut tx, name, &state).await?;
        if name == AUDIT {
            Streams::anew(&mut tx, name).await?;
        }
        tx.commit().await?;
        tracing::warn!(stream = name, first_sequence = above, "the stream is made anew");
        Ok(())
    }

    /// Publishes every leaf that its stream should hold, in the order of the ledger; how many by stream.
    async fn refill(&self, names: &[&'static str]) -> Result<BTreeMap<&'static str, u64>, RoundError> {
        let mut sides: BTreeMap<&'static str, StreamSide> = BTreeMap::new();
        for name in names.iter().filter(|name| has_leaves(name)) {
            let state = stored::state(&self.broker, name).await?.ok_or_else(|| gone(name))?;
            let mut side = StreamSide { retention: Some(retention_of(&state)), ..StreamSide::default() };
            let mut survey = Survey::of(&self.broker, &self.comparison, name, &state).await?;
            while let Some(window) = survey.next().await? {
                for (message, item) in window.messages.iter().zip(&window.items) {
                    let (recorded, mut absent) = (Recorded::default(), Absent::new());
                    side.held.message(name, item, message.stored_at, &window.standing, &recorded, &mut absent);
                }
            }
            sides.insert(name, side);
        }
        let mut published: BTreeMap<&'static str, u64> = BTreeMap::new();
        if sides.is_empty() {
            return Ok(published);
        }
        let (size, _) = self.ledger.size().await?;
        let now = self.context.clock.now();
        let mut from = Cuts::new(self.context.db.clone()).leaf().await?;
        while from < size {
            if self.context.closing.is_cancelled() {
                return Err(RoundError::Later("the process stops: the next one goes on".into()));
            }
            let to = (from + HEADS).min(size);
            let heads = self.comparison.heads(from, to).await?;
            let mut wanted = Vec::new();
            for leaf in heads {
                if let Some((name, _)) = sides.iter().find(|(name, side)| refills(&leaf, name, side, now)) {
                    wanted.push((*name, leaf.index));
                }
            }
            for some in wanted.chunks(PUBLISHES) {
                let indexes: Vec<u64> = some.iter().map(|(_, index)| *index).collect();
                let again = self.comparison.again(&indexes).await?;
                self.publish(again.into_values().collect()).await?;
                for (name, _) in some {
                    *published.entry(name).or_default() += 1;
                }
            }
            from = to;
        }
        Ok(published)
    }

    async fn publish(&self, events: Vec<Again>) -> Result<(), RoundError> {
        let mut positions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut refused = None;
        for answer in stored::publish_again(&self.broker, events).await {
            match answer {
                Answer::Stored(stream, sequence) => positions.entry(stream).or_default().push(sequence),
                Answer::Remembered => {}
                Answer::Refused(why) => refused = Some(why),
            }
        }
        self.streams.published(&positions).await?;
        match refused {
            Some(why) => Err(RoundError::Later(format!("an event was not published again: {why}"))),
            None => Ok(()),
        }
    }

    /// Publishes what was carried over, lets the relay go on, and says so.
    async fn done(&self, epoch: &Epoch, name: &'static str, refilled: u64) -> Result<(), RoundError> {
        let carried = self.streams.carried(name).await?;
        let count = carried.len() as u64;
        for (subject, payload) in carried {
            let id = format!("carried:{name}:{}", hex::encode(Sha256::digest(&payload)));
            stored::publish_raw(&self.broker, subject, id, payload.into()).await?;
        }
        rebuild::release(&self.broker, name).await?;
        let state = stored::state(&self.broker, name).await?.ok_or_else(|| gone(name))?;
        let mut tx = self.door.begin("stream_mended").await?;
        epoch.check(&mut tx).await?;
        Streams::note(&mut tx, name, &state).await?;
        Streams::mended(&mut tx, name).await?;
        let repaired = refilled + count;
        let event = LedgerReconciled { compared: repaired, differences: repaired, repaired, user: schedule_user() };
        tx.commit(&[Outgoing::new(event, format!("stream-{name}"), schedule_user())]).await?;
        self.context.metrics.streams_mended.with_label_values(&[name]).inc();
        tracing::warn!(stream = name, refilled, carried = count, "the stream has what it should again");
        Ok(())
    }
}

/// Whether what stands in a stream becomes leaves of the ledger.
fn has_leaves(name: &str) -> bool {
    Domain::of_stream(name).is_some()
}

fn not_now(error: RoundError) -> Failure {
    Failure::unavailable(format!("the streams cannot be looked after now: {error}"))
}

fn gone(name: &str) -> RoundError {
    RoundError::Later(format!("stream {name} is gone again"))
}
