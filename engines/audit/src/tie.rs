//! The token ledger's totals against those of the leaves: what is compared, from where on, and why not yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltran_api::token::v1 as token;
use deltran_events::{Envelope, Event};
use deltran_runtime::wire::money;
use deltran_runtime::{EngineContext, Failure};
use futures::{StreamExt, stream};

use crate::archive::Archive;
use crate::domain::books::{Adder, At, Books, Said, Total, add_totals, ended_by, has_earlier};
use crate::domain::export::tally::Sum;
use crate::domain::report::Snapshot;
use crate::domain::retention::{Archived, Cut};
use crate::notary::Notary;
use crate::store::{Archives, Filter, Ledger};

/// What the ledger publishes when its database goes on from an earlier moment.
const RESTORED: &str = "ledger.restored";
/// Such events read at once.
const PAGE: i64 = 100;
/// Manifests on their way from the archive at once.
const UNDER_WAY: usize = 8;

/// What a comparison can begin with.
pub enum Basis {
    /// The leaves in the database are added to what those below came to.
    Compare(Adder),
    /// It says nothing now, and why: that is no difference.
    NotNow(String),
    /// What lies below is not what was signed.
    Wrong(String),
}

/// Finds out where a comparison begins.
#[derive(Clone)]
pub struct Ties {
    ledger: Ledger,
    archives: Archives,
    archive: Option<Archive>,
    notary: Arc<Notary>,
}

impl Ties {
    /// Of a database, and of the archive where there is one.
    pub fn new(context: &EngineContext, archive: Option<Archive>, notary: Arc<Notary>) -> Self {
        let (ledger, archives) = (Ledger::new(context.db.clone()), Archives::new(context.db.clone()));
        Self { ledger, archives, archive, notary }
    }

    /// Where to begin for what the token ledger said, over the leaves of a snapshot.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn basis(&self, said: &Result<Said, String>, snapshot: &Snapshot) -> Result<Basis, Failure> {
        let said = match said {
            Ok(said) => said,
            Err(why) => return Ok(Basis::NotNow(why.clone())),
        };
        let ended = self.ended(&said.at, snapshot).await?;
        let under_way = said.under_way(&snapshot.producers, &ended);
        if under_way > 0 {
            let At { producer, number } = &said.at;
            let why = format!("{under_way} events up to {producer} {number} are still under way: verify again");
            return Ok(Basis::NotNow(why));
        }
        if let Some(why) = beyond(said, &ended, &snapshot.cut) {
            return Ok(Basis::NotNow(why));
        }
        Ok(match self.below(&snapshot.cut).await? {
            Ok(before) => Basis::Compare(Adder::new(said.at.clone(), before, ended)),
            Err(other) => other,
        })
    }

    /// Where the numbers of earlier producers ended, by what restored ledgers published. The last word counts.
    async fn ended(&self, at: &At, snapshot: &Snapshot) -> Result<BTreeMap<String, u64>, Failure> {
        let mut ended = BTreeMap::new();
        if !has_earlier(at, snapshot.producers.keys()) {
            return Ok(ended);
        }
        let filter = Filter { event_type: Some(RESTORED.to_owned()), ..Filter::default() };
        let mut after = None;
        loop {
            let leaves = self.ledger.list(&filter, after, PAGE).await?;
            let Some(last) = leaves.last() else { return Ok(ended) };
            after = Some(u64::try_from(last.leaf_index).map_err(Failure::internal)?);
            for leaf in leaves.iter().filter(|leaf| leaf.valid && leaf.leaf_index.unsigned_abs() < snapshot.size) {
                if let Some((producer, number)) = &leaf.columns.producer
                    && let Ok((envelope, _)) = Envelope::decode(&leaf.subject, &leaf.envelope)
                    && let Event::LedgerRestored(restored) = &envelope.data
                {
                    ended.extend(ended_by(at, producer, *number, restored));
                }
            }
        }
    }

    /// What the leaves below the cut came to, by the signed manifests of their days.
    async fn below(&self, cut: &Cut) -> Result<Result<Books, Basis>, Failure> {
        let mut books = Books::new();
        if cut.leaf == 0 {
            return Ok(Ok(books));
        }
        let Some(archive) = &self.archive else {
            let why = format!("leaves below {} are archived, and no archive is configured", cut.leaf);
            return Ok(Err(Basis::NotNow(why)));
        };
        // Days that left since the snapshot stand beyond its cut.
        let mut days = self.archives.detached().await?;
        days.retain(|day| day.to <= cut.leaf);
        let (origin, keys) = (self.notary.origin(), self.notary.verifiers());
        let read = |day: Archived| async move {
            let manifest = archive.manifest(&day, origin, keys).await;
            (day, manifest)
        };
        let mut read = stream::iter(days).map(read).buffered(UNDER_WAY);
        let mut next = 0;
        while let Some((day, manifest)) = read.next().await {
            let manifest = match manifest {
                Err(error) => return Ok(Err(Basis::NotNow(error.to_string()))),
                Ok(Err(why)) => return Ok(Err(Basis::Wrong(format!("the archive does not verify: {why}")))),
                Ok(Ok(manifest)) => manifest,
            };
            if day.from != next {
                break;
            }
            next = day.to;
            if manifest.summary.types.contains_key(RESTORED) {
                let why = format!("the token ledger was restored within {}, which is archived", day.place);
                return Ok(Err(Basis::NotNow(why)));
            }
            if let Err(why) = add_totals(&mut books, &manifest.summary.totals) {
                return Ok(Err(Basis::Wrong(format!("{}: {why}", day.place))));
            }
        }
        if next != cut.leaf {
            let why = format!("leaves from {next} up to {} are archived, and it is not known where", cut.leaf);
            return Ok(Err(Basis::Wrong(why)));
        }
        Ok(Ok(books))
    }
}

/// Manifests say sums of whole days: events in them that the token ledger does not know of cannot be left out.
fn beyond(said: &Said, ended: &BTreeMap<String, u64>, cut: &Cut) -> Option<String> {
    let own = (&said.at.producer, &said.at.number);
    let known = ended.iter().filter(|(producer, _)| **producer != said.at.producer).chain([own]);
    let mut beyond =
        known.filter(|(producer, last)| cut.producers.get(*producer).is_some_and(|n| n.highest() > **last));
    let (producer, last) = beyond.next()?;
    Some(format!("events of {producer} after {last}, which the token ledger does not know of, are archived"))
}

/// What an answer of the token ledger says.
///
/// # Errors
/// In words, where it says not at which event, or no amounts.
pub fn read_totals(answer: &token::VerifyLedgerResponse) -> Result<Said, String> {
    if answer.producer.is_empty() {
        return Err(
            "the token engine does not say at which event its totals are: it is of an earlier release".to_owned()
        );
    }
    let mut books = Books::new();
    for total in &answer.totals {
        let amount = |name: &str, value| money(name, value).map_err(|failure| failure.message);
        let committed = amount("committed_amount", total.committed_amount.as_ref())?;
        let sums = Total {
            committed: Sum { count: total.committed, minor: committed.minor() },
            minted: amount("minted", total.minted.as_ref())?.minor(),
            burnt: amount("burnt", total.burnt.as_ref())?.minor(),
        };
        books.insert(committed.currency(), sums);
    }
    Ok(Said { at: At { producer: answer.producer.clone(), number: answer.producer_seq }, books })
}
