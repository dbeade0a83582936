//! Screens batches and places the holds that follow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deltran_events::data::compliance::{AlertRaised, HoldPlaced, ScreeningHit};
use deltran_kernel::{HoldId, ParticipantId, TransactionId};
use deltran_messaging::Outgoing;
use deltran_runtime::{DbError, Failure};

use super::{By, Desk, PLATFORM, alert};
use crate::domain::hold::{Basis, Hold, HoldState, screened_again};
use crate::domain::matcher::{Match, Subject as Person};
use crate::domain::screening::{Decision, Evidence, Party, Screened, screen};
use crate::lists::Snapshot;
use crate::store::{self, NewHold};

/// Subjects that are screened at once where the request came in; more of them go to threads of their own.
const AT_ONCE: usize = 8;

/// A transaction to be screened.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The transaction.
    pub transaction_id: TransactionId,
    /// Who pays, where known.
    pub payer: Option<ParticipantId>,
    /// Its parties.
    pub parties: [Party; 2],
}

/// The answers to a batch, in its order, with what they were found by.
#[derive(Debug, Clone)]
pub struct Answers {
    /// One for each subject.
    pub screened: Vec<Screened>,
    /// The lists in force.
    pub list_versions: Vec<String>,
    /// The rules that were applied.
    pub rule_version: String,
}

/// Who is like a name.
#[derive(Debug, Clone)]
pub struct Found {
    /// Best first, each with the allowance by which it may pass and what its score would lead to.
    pub matches: Vec<(Match, Decision, Option<String>)>,
    /// The lists in force.
    pub list_versions: Vec<String>,
    /// The rules that would be applied.
    pub rule_version: String,
}

/// Subjects that may not pass, by transaction.
type Hits<'a> = BTreeMap<TransactionId, (&'a Subject, &'a Screened)>;

impl Desk {
    /// Looks parties up without any effect, for an officer who wants to know.
    ///
    /// # Errors
    /// `unavailable` where the lists are not known.
    pub async fn look_up(&self, parties: [Party; 2]) -> Result<Answers, Failure> {
        let snapshot = self.lists.current()?;
        let screened = self.screen_all(&snapshot, vec![parties]).await?;
        Ok(self.answers(&snapshot, screened))
    }

    /// Who is like a name, best first, without any effect.
    ///
    /// # Errors
    /// `unavailable` where the lists are not known.
    pub async fn search(&self, subject: Person, least: u32, most: usize) -> Result<Found, Failure> {
        let snapshot = self.lists.current()?;
        let now = self.clock.now();
        let searched = snapshot.clone();
        let found = tokio::task::spawn_blocking(move || searched.search(&subject, least, most))
            .await
            .map_err(Failure::internal)?;
        let thresholds = self.lists.thresholds;
        let matches = found
            .into_iter()
            .map(|found| {
                let allowed = snapshot.allowed(&found, now).map(|id| id.to_string());
                (found.clone(), thresholds.decide(&found), allowed)
            })
            .collect();
        Ok(Found { matches, list_versions: snapshot.versions.clone(), rule_version: thresholds.rule_version() })
    }

    /// Screens a batch. Holds stand before the answer (K3); a batch without hits needs no database.
    ///
    /// # Errors
    /// `unavailable` where the lists are not known or a hold cannot be recorded: then nothing may pass.
    pub async fn screen(&self, subjects: &[Subject], by: &By) -> Result<Answers, Failure> {
        let snapshot = self.lists.current()?;
        let parties = subjects.iter().map(|subject| subject.parties.clone()).collect();
        let screened = self.screen_all(&snapshot, parties).await?;
        let answers = self.answers(&snapshot, screened);
        let hits: Hits<'_> = subjects
            .iter()
            .zip(&answers.screened)
            .filter(|(_, found)| found.decision > Decision::Approve)
            .map(|(subject, found)| (subject.transaction_id, (subject, found)))
            .collect();
        if !hits.is_empty() {
            self.record(&hits, &answers, by).await?;
        }
        Ok(answers)
    }

    fn answers(&self, snapshot: &Snapshot, screened: Vec<Screened>) -> Answers {
        let rule_version = self.lists.thresholds.rule_version();
        Answers { screened, list_versions: snapshot.versions.clone(), rule_version }
    }

    /// Screens the parties of transactions, many of them on several threads.
    async fn screen_all(&self, snapshot: &Arc<Snapshot>, all: Vec<[Party; 2]>) -> Result<Vec<Screened>, Failure> {
        let thresholds = self.lists.thresholds;
        let now = self.clock.now();
        let work = move |snapshot: Arc<Snapshot>, parties: &[[Party; 2]]| -> Vec<Screened> {
            let mut lookup = snapshot.lookup(now);
            parties.iter().map(|parties| screen(&mut lookup, &thresholds, parties)).collect()
        };
        if all.len() <= AT_ONCE {
            return Ok(work(snapshot.clone(), &all));
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let size = all.len().div_ceil(threads).max(AT_ONCE);
        let parts: Vec<Vec<[Party; 2]>> = all.chunks(size).map(<[_]>::to_vec).collect();
        let tasks = parts.into_iter().map(|part| {
            let snapshot = snapshot.clone();
            tokio::task::spawn_blocking(move || work(snapshot, &part))
        });
        let done = futures::future::try_join_all(tasks).await.map_err(Failure::internal)?;
        Ok(done.into_iter().flatten().collect())
    }

    async fn record(&self, hits: &Hits<'_>, answers: &Answers, by: &By) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut holds = Vec::with_capacity(hits.len());
        for (transaction_id, (subject, found)) in hits {
            holds.push(NewHold {
                hold: Hold {
                    hold_id: HoldId::new(self.ids.next_id(now)),
                    transaction_id: *transaction_id,
                    payer: subject.payer,
                    state: HoldState::Placed,
                    evidence: found.evidence.as_str().to_owned(),
                    matched_name: found.names.clone().unwrap_or_default(),
                    proposed_by: None,
                    decided_by: None,
                    reason: String::new(),
                    placed_at: now,
                    screened_at: now,
                    outcome: None,
                },
                basis: Basis {
                    score: found.score,
                    list_versions: answers.list_versions.clone(),
                    rule_version: answers.rule_version.clone(),
                    matches: serde_json::to_string(&found.matches).map_err(Failure::internal)?,
                },
            });
        }
        // Whatever goes wrong, nothing is known about these names.
        self.place(&holds, hits, by).await.map_err(|error| {
            tracing::error!(%error, holds = holds.len(), "holds cannot be recorded: the batch is refused");
            Failure::unavailable("screening hits cannot be recorded: try again with the same ids")
        })
    }

    async fn place(&self, holds: &[NewHold], hits: &Hits<'_>, by: &By) -> Result<(), DbError> {
        let now = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        let (placed, there) = store::place_holds(&mut tx, holds).await?;
        let found: BTreeMap<_, _> = holds.iter().map(|new| (new.hold.transaction_id, new)).collect();
        for (hold, basis) in &there {
            let Some(found) = found.get(&hold.transaction_id) else { continue };
            let Some((next, basis)) = screened_again((hold, basis), (&found.hold, &found.basis)) else { continue };
            if next.state != hold.state {
                store::save_hold(&mut tx, &next, PLATFORM, now).await?;
            }
            store::save_basis(&mut tx, &next, &basis).await?;
        }
        let without_list = hits.values().any(|(_, found)| found.evidence == Evidence::NoList);
        let mut events = Vec::new();
        if without_list && store::raise_alert(&mut tx, crate::NO_LIST, now).await? {
            events.push(alert(
                crate::NO_LIST,
                "no list of names is loaded: every transaction that names a party is held",
                by,
            ));
        }
        let placed: BTreeSet<HoldId> = placed.into_iter().collect();
        let new: Vec<&NewHold> = holds.iter().filter(|new| placed.contains(&new.hold.hold_id)).collect();
        for new in &new {
            if let Some((_, found)) = hits.get(&new.hold.transaction_id) {
                events.extend(events_of(new, found, by));
            }
        }
        let new = new.iter().map(|new| (new.hold.transaction_id, new.hold.hold_id));
        events.extend(self.cases_of_holds(&mut tx, new, now).await?);
        tx.commit(&events).await
    }
}

/// What is published about a new hold. Names stay here.
fn events_of(new: &NewHold, found: &Screened, by: &By) -> Vec<Outgoing> {
    let Hold { hold_id, transaction_id, payer, .. } = new.hold;
    let evidence = found.evidence.as_str();
    let mut events = Vec::new();
    if found.evidence.is_hit() {
        events.push(Outgoing::new(
            ScreeningHit {
                transaction_id,
                decision: found.decision.as_str().to_owned(),
                evidence: evidence.to_owned(),
                score: found.score,
                list_versions: new.basis.list_versions.clone(),
                rule_version: new.basis.rule_version.clone(),
            },
            transaction_id,
            &by.user,
        ));
    } else if found.evidence == Evidence::Error {
        let message = format!(
            "a party of transaction {transaction_id} cannot be checked: its name has no letter or digit, too many \
             words or a word of several alphabets, its country or date of birth cannot be read, or it has identifiers \
             only and none that can be compared"
        );
        events.push(Outgoing::new(AlertRaised::new(evidence, message), transaction_id, &by.user));
    }
    let placed = HoldPlaced { hold_id, transaction_id, evidence: evidence.to_owned() };
    events.push(Outgoing::new(placed, transaction_id, &by.user));
    events
        .into_iter()
        .map(|event| match payer {
            Some(payer) => event.of(payer).traced(by.trace.clone()),
            None => event.traced(by.trace.clone()),
        })
        .collect()
}
