//! The commands: each reads, lets the domain decide, and writes the result with its events in one
//! transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deltran_events::data::compliance::{AlertRaised, HoldPlaced, ListLoaded, ScreeningHit};
use deltran_kernel::{Clock, HoldId, IdSource, ParticipantId, TransactionId};
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::{DbError, EngineContext, Failure, FailureKind};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::Outcome;
use crate::domain::hold::{self, Hold, HoldError, HoldState};
use crate::domain::list::{ListError, NameList, OPERATOR};
use crate::domain::screening::{Decision, Evidence, RULE_VERSION, Screened, screen};
use crate::lists::Lists;
use crate::store::{self, ListHead, Loaded, NewHold};

/// Looks whether another process has ended a hold, where no signal arrives.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The hold does not allow it.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The list is not good.
    #[error(transparent)]
    List(#[from] ListError),
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Db(error) => error.into(),
            CommandError::List(error) => Failure::malformed("content", error),
            CommandError::Hold(error) => {
                let text = error.to_string();
                match error {
                    HoldError::NotFound(_) => Failure::new(FailureKind::NotFound, "not_found", text),
                    HoldError::SameOfficer { proposed_by, decided_by, .. } => {
                        Failure::unauthorised(text).with("proposed_by", proposed_by).with("decided_by", decided_by)
                    }
                    HoldError::WrongState { state, .. } => Failure::wrong_state(text, state.as_str()),
                }
            }
        }
    }
}

/// The caller of a command, as far as it goes on record.
#[derive(Debug, Clone)]
pub struct By {
    /// The user.
    pub user: String,
    /// W3C `traceparent` of the call.
    pub trace: Option<String>,
}

/// A transaction to be screened.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The transaction.
    pub transaction_id: TransactionId,
    /// Who pays, where known.
    pub payer: Option<ParticipantId>,
    /// Names of its parties; empty where not given.
    pub parties: [String; 2],
}

/// The answers to a batch, in its order, with the version of the list that was used.
#[derive(Debug, Clone)]
pub struct Answers {
    /// One for each subject.
    pub screened: Vec<Screened>,
    /// The list, where there is one.
    pub list_version: Option<String>,
}

/// Subjects that may not pass, by transaction.
type Hits<'a> = BTreeMap<TransactionId, (&'a Subject, Screened)>;

/// Carries out the commands of the engine.
pub struct Desk {
    pub(crate) door: Door,
    pub(crate) lists: Lists,
    pub(crate) clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    decide_wait: Duration,
    /// A hold was decided: the driver has work.
    pub(crate) decided: Notify,
    /// The driver ended a hold.
    pub(crate) finished: Notify,
}

impl Desk {
    /// The desk of an engine.
    pub fn new(context: &EngineContext, door: Door, lists: Lists, decide_wait: Duration) -> Self {
        Self {
            door,
            lists,
            clock: context.clock.clone(),
            ids: context.ids.clone(),
            decide_wait,
            decided: Notify::new(),
            finished: Notify::new(),
        }
    }

    /// Looks names up without any effect, for an officer who wants to know.
    ///
    /// # Errors
    /// `unavailable` where the list is not known.
    pub fn look_up(&self, parties: &[String; 2]) -> Result<Answers, Failure> {
        let snapshot = self.lists.current()?;
        let parties: Vec<&str> = parties.iter().map(String::as_str).collect();
        let screened = vec![screen(snapshot.list.as_deref(), &parties)];
        Ok(Answers { screened, list_version: snapshot.list.as_ref().map(|list| list.version().to_owned()) })
    }

    /// Screens a batch. Holds stand before the answer (K3); a batch without hits needs no database.
    ///
    /// # Errors
    /// `unavailable` where the list is not known or a hold cannot be recorded: then nothing may pass.
    pub async fn screen(&self, subjects: &[Subject], by: &By) -> Result<Answers, Failure> {
        let snapshot = self.lists.current()?;
        let list_version = snapshot.list.as_ref().map(|list| list.version().to_owned());
        let mut screened = Vec::with_capacity(subjects.len());
        let mut hits: Hits<'_> = BTreeMap::new();
        for subject in subjects {
            let found = screen(snapshot.list.as_deref(), &[&subject.parties[0], &subject.parties[1]]);
            if found.decision > Decision::Approve {
                hits.insert(subject.transaction_id, (subject, found.clone()));
            }
            screened.push(found);
        }
        if !hits.is_empty() {
            self.record(&hits, list_version.as_deref(), by).await?;
        }
        Ok(Answers { screened, list_version })
    }

    async fn record(&self, hits: &Hits<'_>, list_version: Option<&str>, by: &By) -> Result<(), Failure> {
        let now = self.clock.now();
        let holds: Vec<NewHold> = hits
            .iter()
            .map(|(transaction_id, (subject, found))| NewHold {
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
                score: found.score,
                list_version: list_version.map(str::to_owned),
            })
            .collect();
        // Whatever goes wrong, nothing is known about these names.
        self.place(&holds, hits, by).await.map_err(|error| {
            tracing::error!(%error, holds = holds.len(), "holds cannot be recorded: the batch is refused");
            Failure::unavailable("screening hits cannot be recorded: try again with the same ids")
        })
    }

    async fn place(&self, holds: &[NewHold], hits: &Hits<'_>, by: &By) -> Result<(), DbError> {
        let now = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        let placed = store::place_holds(&mut tx, holds).await?;
        let without_list = hits.values().any(|(_, found)| found.evidence == Evidence::NoList);
        let mut events = Vec::new();
        if without_list && store::raise_alert(&mut tx, crate::NO_LIST, now).await? {
            events.push(alert(
                crate::NO_LIST,
                "no list of names is loaded: every transaction that names a party is held",
                by,
            ));
        }
        for new in holds.iter().filter(|new| placed.contains(&new.hold.hold_id)) {
            if let Some((_, found)) = hits.get(&new.hold.transaction_id) {
                events.extend(events_of(new, found, by));
            }
        }
        tx.commit(&events).await
    }

    /// Puts a list in use, or says that it is in use already.
    ///
    /// # Errors
    /// `malformed` where the list is not good: the one before stays in use.
    pub async fn load_list(&self, content: Vec<u8>, by: &By) -> Result<Outcome<ListHead>, Failure> {
        self.load(content, by, false).await
    }

    /// Puts the list that ships with the product in use, unless any list was loaded before.
    pub(crate) async fn load_bundled(&self) -> Result<Outcome<ListHead>, Failure> {
        let by = By { user: "deltran".into(), trace: None };
        self.load(crate::BUNDLED_LIST.to_vec(), &by, true).await
    }

    async fn load(&self, content: Vec<u8>, by: &By, only_first: bool) -> Result<Outcome<ListHead>, Failure> {
        // Up to 16 MiB of names: not on a thread that answers requests.
        let (parsed, content) = tokio::task::spawn_blocking(move || (NameList::parse(&content), content))
            .await
            .map_err(Failure::internal)?;
        let list = parsed.map_err(CommandError::from)?;
        let at = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        let head = store::lock_list_head(&mut tx, OPERATOR).await?;
        let outcome = match &head.list {
            Some(present) if only_first || present.version == list.version() => {
                drop(tx);
                Outcome::AlreadyApplied(head)
            }
            _ => {
                let loaded =
                    Loaded { version: list.version().to_owned(), names: list.names(), at, by: by.user.clone() };
                let next = ListHead { source: head.source, revision: head.revision + 1, list: Some(loaded.clone()) };
                store::use_list(&mut tx, &next, &loaded, &content).await?;
                let event = ListLoaded {
                    source: next.source.clone(),
                    list_version: loaded.version.clone(),
                    names: u64::from(loaded.names),
                    loaded_by: by.user.clone(),
                };
                let event = Outgoing::new(event, &loaded.version, &by.user).traced(by.trace.clone());
                tx.commit(&[event]).await?;
                Outcome::Executed(next)
            }
        };
        self.lists.reload().await?;
        Ok(outcome)
    }

    /// Proposes what becomes of a hold.
    ///
    /// # Errors
    /// `not_found`, `wrong_state`.
    pub async fn propose(&self, id: HoldId, release: bool, reason: &str, by: &By) -> Result<Hold, Failure> {
        Ok(self.change(id, by, |hold| hold::propose(hold, &by.user, release, reason)).await?)
    }

    /// Decides a hold and waits a while for the ledger to follow. The answer shows the state so far.
    ///
    /// # Errors
    /// `not_found`, `unauthorised` for the proposer, `wrong_state`.
    pub async fn decide(&self, id: HoldId, approve: bool, reason: &str, by: &By) -> Result<Hold, Failure> {
        let hold = self.change(id, by, |hold| hold::decide(hold, &by.user, approve, reason)).await?;
        if !hold.state.is_under_way() {
            return Ok(hold);
        }
        self.decided.notify_one();
        self.wait(hold).await
    }

    async fn change(
        &self,
        id: HoldId,
        by: &By,
        decision: impl Fn(&Hold) -> Result<Outcome<Hold>, HoldError>,
    ) -> Result<Hold, CommandError> {
        let at = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        let hold = store::lock_hold(&mut tx, id).await?.ok_or(HoldError::NotFound(id))?;
        let outcome = decision(&hold)?;
        if let Outcome::Executed(next) = &outcome {
            store::save_hold(&mut tx, next, &by.user, at).await?;
            tx.commit(&[]).await?;
        }
        Ok(outcome.into_inner())
    }

    /// Waits until the driver has ended the hold, at most for the configured time.
    async fn wait(&self, mut hold: Hold) -> Result<Hold, Failure> {
        let deadline = Instant::now() + self.decide_wait;
        loop {
            let finished = self.finished.notified();
            tokio::pin!(finished);
            // From here on a signal is not missed.
            finished.as_mut().enable();
            match store::find_hold(self.door.db(), hold.hold_id).await {
                Ok(Some(found)) => hold = found,
                Ok(None) => return Err(Failure::not_found("hold", hold.hold_id)),
                // The decision stands; the ledger will be told when the database is back.
                Err(error) => {
                    tracing::warn!(%error, "a decided hold cannot be read back");
                    return Ok(hold);
                }
            }
            if !hold.state.is_under_way() || Instant::now() >= deadline {
                return Ok(hold);
            }
            tokio::select! {
                () = finished => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }
}

fn alert(kind: &str, message: &str, by: &By) -> Outgoing {
    let event = AlertRaised { kind: kind.to_owned(), message: message.to_owned() };
    Outgoing::new(event, kind, &by.user).traced(by.trace.clone())
}

/// What is published about a new hold. Names stay here.
fn events_of(new: &NewHold, found: &Screened, by: &By) -> Vec<Outgoing> {
    let Hold { hold_id, transaction_id, payer, .. } = new.hold;
    let evidence = found.evidence.as_str();
    let mut events = Vec::new();
    match found.evidence {
        Evidence::ExactName => events.push(Outgoing::new(
            ScreeningHit {
                transaction_id,
                decision: found.decision.as_str().to_owned(),
                evidence: evidence.to_owned(),
                score: found.score,
                list_versions: new.list_version.clone().into_iter().collect(),
                rule_version: RULE_VERSION.to_owned(),
            },
            transaction_id,
            &by.user,
        )),
        Evidence::Error => events.push(Outgoing::new(
            AlertRaised {
                kind: evidence.to_owned(),
                message: format!(
                    "a party's name of transaction {transaction_id} cannot be checked: it has neither letter nor digit"
                ),
            },
            transaction_id,
            &by.user,
        )),
        Evidence::NoList | Evidence::NoMatch | Evidence::NoParties => {}
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
