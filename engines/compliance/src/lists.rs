//! The lists in memory, from which every screening is answered.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use deltran_kernel::{AllowanceId, Clock, Timestamp};
use deltran_runtime::{Db, DbError, Failure};
use tokio::time::Instant;

use crate::domain::allowance::AllowList;
use crate::domain::list::{self, List, Source};
use crate::domain::matcher::{Match, Matcher, Name, Scratch, Subject};
use crate::domain::screening::{Lookup, Thresholds};
use crate::store;

/// Matches of an answer that is remembered; one that has more is found anew each time.
const MOST_MATCHES: usize = 20;
/// Answers that are remembered in each half of a shard, and shards.
const REMEMBERED: usize = 4_096;
const SHARDS: usize = 16;

/// A list's source, its revision and its version.
type Head = (Source, i64, Option<String>);
/// Answers by what was asked.
type Answers = HashMap<String, Arc<[Match]>>;

/// The lists as they were when they were last compared with the database.
pub struct Snapshot {
    /// The search over all lists in force; `None` where none is loaded.
    pub matcher: Option<Arc<Matcher>>,
    /// Their versions, in the order of the sources.
    pub versions: Vec<String>,
    /// Who may pass nevertheless.
    pub allow_list: Arc<AllowList>,
    heads: Vec<Head>,
    allowances: i64,
    /// Before the comparison began.
    compared: Instant,
    /// Answers given from these lists: another version in force is another snapshot with another memory.
    remembered: Arc<Remembered>,
    thresholds: Thresholds,
}

impl Snapshot {
    /// What a batch looks names up by.
    pub fn lookup(self: &Arc<Self>, now: Timestamp) -> SnapshotLookup {
        SnapshotLookup { snapshot: self.clone(), now, scratch: None }
    }

    /// The entries that are like a subject, best first.
    pub fn search(&self, subject: &Subject, least: u32, most: usize) -> Vec<Match> {
        let Some(matcher) = &self.matcher else { return Vec::new() };
        matcher.search(subject, least, most, &mut matcher.scratch())
    }

    /// The allowance by which a match passes at `now`.
    pub fn allowed(&self, found: &Match, now: Timestamp) -> Option<AllowanceId> {
        self.allow_list.covers(found.source, &found.entry_id, &found.asked_name, now)
    }

    /// Whether the list in force of a source has an entry.
    pub fn has_entry(&self, source: Source, entry_id: &str) -> bool {
        let lists = self.matcher.as_ref().map(|matcher| matcher.lists()).unwrap_or_default();
        lists.iter().filter(|list| list.source == source).flat_map(|list| &list.entries).any(|e| e.id == entry_id)
    }
}

/// Looks names up in a snapshot, for a batch.
pub struct SnapshotLookup {
    snapshot: Arc<Snapshot>,
    now: Timestamp,
    scratch: Option<Scratch>,
}

impl Lookup for SnapshotLookup {
    fn find(&mut self, subject: &Subject) -> Option<Arc<[Match]>> {
        let matcher = self.snapshot.matcher.as_ref()?;
        let key = key(subject);
        if let Some(known) = self.snapshot.remembered.get(&key) {
            return Some(known);
        }
        let scratch = self.scratch.get_or_insert_with(|| matcher.scratch());
        // All of them: the best ones may be allowed while one behind them is not.
        let found: Arc<[Match]> = matcher.search(subject, self.snapshot.thresholds.review, usize::MAX, scratch).into();
        if found.len() <= MOST_MATCHES {
            self.snapshot.remembered.put(key, found.clone());
        }
        Some(found)
    }

    fn allowed(&self, found: &Match) -> Option<AllowanceId> {
        self.snapshot.allowed(found, self.now)
    }
}

/// The compared form of all that an answer depends on.
fn key(subject: &Subject) -> String {
    use std::fmt::Write as _;
    let name = Name::read(&subject.name);
    let mut key = name.normal();
    let bare: Vec<usize> = (0..name.tokens.len()).filter(|place| name.tokens[*place].without_vowels).collect();
    let Subject { country, born, identifiers, .. } = subject;
    // Writing to a string does not fail.
    let _ = write!(key, "\n{:?}{bare:?}{country:?}{born:?}{identifiers:?}", name.turn);
    key
}

/// A bounded memory of answers: of two halves the older one is given up when the younger one is full.
struct Remembered {
    shards: Vec<Mutex<(Answers, Answers)>>,
    hasher: RandomState,
}

impl Remembered {
    fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    fn shard(&self, key: &str) -> &Mutex<(Answers, Answers)> {
        &self.shards[(self.hasher.hash_one(key) % SHARDS as u64) as usize]
    }

    fn get(&self, key: &str) -> Option<Arc<[Match]>> {
        let mut halves = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = halves.0.get(key) {
            return Some(known.clone());
        }
        let (key, known) = halves.1.remove_entry(key)?;
        halves.0.insert(key, known.clone());
        Some(known)
    }

    fn put(&self, key: String, answer: Arc<[Match]>) {
        let mut halves = self.shard(&key).lock().unwrap_or_else(PoisonError::into_inner);
        if halves.0.len() >= REMEMBERED {
            halves.1 = std::mem::take(&mut halves.0);
        }
        halves.0.insert(key, answer);
    }
}

/// Holds the snapshot and keeps it current.
pub struct Lists {
    db: Db,
    clock: Arc<dyn Clock>,
    stale_after: Duration,
    /// From which scores on names are held.
    pub thresholds: Thresholds,
    current: ArcSwapOption<Snapshot>,
    // One reload at a time, so that an older read never replaces a newer one.
    reloading: tokio::sync::Mutex<()>,
}

impl Lists {
    /// Nothing is known yet.
    pub fn new(db: Db, clock: Arc<dyn Clock>, stale_after: Duration, thresholds: Thresholds) -> Self {
        let (current, reloading) = (ArcSwapOption::empty(), tokio::sync::Mutex::new(()));
        Self { db, clock, stale_after, thresholds, current, reloading }
    }

    /// The lists to screen with.
    ///
    /// # Errors
    /// `unavailable` where the lists could not be read yet, or could not be compared with the database for
    /// too long: neither means that there is no list (K3).
    pub fn current(&self) -> Result<Arc<Snapshot>, Failure> {
        match self.current.load_full() {
            None => Err(Failure::unavailable("the lists are not loaded yet: try again with the same id")),
            Some(snapshot) if snapshot.compared.elapsed() > self.stale_after => Err(Failure::unavailable(format!(
                "the lists could not be compared with the database for {} s: try again with the same id",
                snapshot.compared.elapsed().as_secs()
            ))),
            Some(snapshot) => Ok(snapshot),
        }
    }

    /// Reads anew what another version is in use of, and says that it is current either way. What was
    /// committed before the call is in memory after it.
    pub async fn reload(&self) -> Result<Arc<Snapshot>, DbError> {
        let _one = self.reloading.lock().await;
        let compared = Instant::now();
        let (heads, allowances) = store::revisions(&self.db).await?;
        let known = self.current.load_full();
        let same_lists = known.as_deref().filter(|known| known.heads == heads);
        let (matcher, remembered) = match same_lists {
            Some(known) => (known.matcher.clone(), known.remembered.clone()),
            None => (self.read(&heads, known.as_deref()).await?, Arc::new(Remembered::new())),
        };
        let allow_list = match known.as_deref().filter(|known| known.allowances == allowances) {
            Some(known) => known.allow_list.clone(),
            None => {
                let in_force = store::allowances_in_force(&self.db, self.clock.now()).await?;
                Arc::new(AllowList::new(in_force))
            }
        };
        let versions = heads.iter().filter_map(|head| head.2.clone()).collect();
        let thresholds = self.thresholds;
        let snapshot = Snapshot { matcher, versions, allow_list, heads, allowances, compared, remembered, thresholds };
        let snapshot = Arc::new(snapshot);
        self.current.store(Some(snapshot.clone()));
        Ok(snapshot)
    }

    /// The search over the lists in force; lists that are in memory are not read again.
    async fn read(&self, heads: &[Head], known: Option<&Snapshot>) -> Result<Option<Arc<Matcher>>, DbError> {
        let in_memory = known.and_then(|known| known.matcher.as_ref()).map(|m| m.lists().to_vec()).unwrap_or_default();
        let mut lists: Vec<Arc<List>> = Vec::new();
        for (source, _, version) in heads {
            let Some(version) = version else { continue };
            let same = |list: &&Arc<List>| list.source == *source && list.version == *version;
            let list = match in_memory.iter().find(same) {
                Some(list) => list.clone(),
                None => Arc::new(self.read_one(*source, version).await?),
            };
            lists.push(list);
        }
        if lists.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        let matcher = tokio::task::spawn_blocking(move || Matcher::new(lists)).await.map_err(DbError::corrupt)?;
        let names: usize = matcher.lists().iter().map(|list| list.names()).sum();
        let elapsed_ms = started.elapsed().as_millis() as u64;
        tracing::info!(lists = matcher.lists().len(), names, elapsed_ms, "lists in use");
        Ok(Some(Arc::new(matcher)))
    }

    async fn read_one(&self, source: Source, version: &str) -> Result<List, DbError> {
        let files = store::list_files(&self.db, source, version).await?;
        let list = tokio::task::spawn_blocking(move || list::parse(source, &files))
            .await
            .map_err(DbError::corrupt)?
            .map_err(|error| DbError::corrupt(format!("stored {source} list: {error}")))?;
        if list.version != version {
            return Err(DbError::corrupt(format!("stored {source} list {version} has version {}", list.version)));
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::allowance::Allowance;
    use crate::domain::screening::{Decision, Party, screen};

    #[test]
    fn answers_are_remembered_up_to_a_bound() {
        let remembered = Remembered::new();
        let many = 3 * REMEMBERED * SHARDS;
        for n in 0..many {
            remembered.put(format!("name {n}"), Arc::new([]));
        }
        assert!(remembered.get(&format!("name {}", many - 1)).is_some());
        assert!(remembered.get("name 0").is_none());
        let kept: usize = remembered.shards.iter().map(|s| s.lock().map_or(0, |h| h.0.len() + h.1.len())).sum();
        assert!(kept <= 2 * REMEMBERED * SHARDS, "{kept}");
    }

    /// However many entries a name is like: each of them has to be allowed.
    #[test]
    fn no_match_hides_behind_allowed_ones() {
        let forms = "AB AG AS BV CO CORP DD DOO EAD FZE GMBH INC JSC KFT KG LLC LLP LP LTD NV OOD OY PLC SA SL SRO";
        let names: String = forms.split(' ').map(|form| format!("Vostokshade Trading {form}\n")).collect();
        let files = list::Files::from([("names.txt".to_owned(), names.into_bytes())]);
        let list = Arc::new(list::parse(Source::Operator, &files).unwrap());
        let asked = "Vostokshade Trading";
        let now = Timestamp::from_micros(0);
        let allowance = |entry: &list::Entry| Allowance {
            allowance_id: AllowanceId::new(uuid::Uuid::from_u128(1)),
            name: asked.to_owned(),
            normal: Name::read(asked).normal(),
            source: Source::Operator,
            entry_id: entry.id.clone(),
            reason: String::new(),
            added_by: String::new(),
            added_at: now,
            expires_at: now.plus_seconds(1),
            revoked: None,
        };
        let decided = |left_out: Option<usize>| {
            let kept = list.entries.iter().enumerate().filter(|(n, _)| Some(*n) != left_out);
            let snapshot = Arc::new(Snapshot {
                matcher: Some(Arc::new(Matcher::new(vec![list.clone()]))),
                versions: Vec::new(),
                allow_list: Arc::new(AllowList::new(kept.map(|(_, entry)| allowance(entry)))),
                heads: Vec::new(),
                allowances: 0,
                compared: Instant::now(),
                remembered: Arc::new(Remembered::new()),
                thresholds: Thresholds::default(),
            });
            let party = Party { name: asked.to_owned(), ..Party::default() };
            screen(&mut snapshot.lookup(now), &Thresholds::default(), &[party]).decision
        };
        assert!(list.entries.len() > MOST_MATCHES);
        assert_eq!(decided(None), Decision::Approve);
        for left_out in 0..list.entries.len() {
            assert!(decided(Some(left_out)) > Decision::Approve, "{left_out}");
        }
    }

    #[test]
    fn the_key_has_all_that_the_answer_depends_on() {
        let of = |name: &str| Subject { name: name.into(), ..Subject::default() };
        assert_eq!(key(&of("Ivan EXAMPLE")), key(&of("ivan  example")));
        assert_ne!(key(&of("Example, Ivan")), key(&of("Example Ivan")));
        assert_ne!(key(&of("زيدان")), key(&of("zydan")));
        assert_ne!(key(&of("Ivan")), key(&Subject { country: Some("DE".into()), ..of("Ivan") }));
    }
}
