//! The entries of the log from the left to the right, wherever they are: in the database, or below the cut in the archive.

use deltran_runtime::{Db, Failure, FailureKind};

use super::archived;
use crate::archive::ArchivedEvents;
use crate::domain::leaf_hash;
use crate::domain::merkle::Hash;
use crate::history::History;
use crate::store::{Cuts, GoneDay, Ledger};

/// Entries of a bundle are written with a length of 16 bits each (C2SP tlog-tiles).
const LENGTH: usize = 2;

/// Reads bundles in their order. A bundle may begin in one day and end in another, or beyond the cut; of an archived day each
/// line is read once, and no more than a bundle is held.
pub struct Entries {
    ledger: Ledger,
    cuts: Cuts,
    history: History,
    /// The archived day that is being read.
    open: Option<(GoneDay, ArchivedEvents)>,
}

impl Entries {
    /// Those of a database, and of the archive where there is one.
    pub fn new(db: Db, history: History) -> Self {
        Self { ledger: Ledger::new(db.clone()), cuts: Cuts::new(db), history, open: None }
    }

    /// The bundle of the leaves from `from` on that have these hashes.
    ///
    /// # Errors
    /// `archived` where there is no archive, `not_included` where an entry is missing or does not have its hash.
    pub async fn bundle(&mut self, from: u64, hashes: &[Hash]) -> Result<Vec<u8>, Failure> {
        let to = from + hashes.len() as u64;
        let mut bundle = Vec::new();
        let mut next = from;
        let mut expected = hashes.iter();
        while next < to {
            for envelope in self.some(next, to).await? {
                if expected.next() != Some(&leaf_hash(&envelope)) {
                    let place = self.open.as_ref().map(|(gone, _)| gone.place.clone());
                    return Err(differs(next, place.as_deref(), "does not have the hash that was signed"));
                }
                let length = u16::try_from(envelope.len()).map_err(Failure::internal)?;
                bundle.reserve(envelope.len() + LENGTH);
                bundle.extend_from_slice(&length.to_be_bytes());
                bundle.extend_from_slice(&envelope);
                next += 1;
            }
        }
        Ok(bundle)
    }

    /// Some of the entries `from` up to but without `to`: at least the first, and no later one without those before it.
    async fn some(&mut self, from: u64, to: u64) -> Result<Vec<Vec<u8>>, Failure> {
        if let Some((gone, events)) = self.open.take().filter(|(gone, _)| (gone.from..gone.to).contains(&from)) {
            return self.archived(gone, events, from, to).await;
        }
        let first = i64::try_from(from).map_err(Failure::internal)?;
        let end = i64::try_from(to).map_err(Failure::internal)?;
        let leaves = self.ledger.window(first, end).await?;
        let dense = leaves.into_iter().zip(first..).take_while(|(leaf, index)| leaf.leaf_index == *index);
        let some: Vec<Vec<u8>> = dense.map(|(leaf, _)| leaf.envelope).collect();
        if !some.is_empty() {
            return Ok(some);
        }
        // Asked after the database, so that a day that leaves meanwhile is found.
        let Some(gone) = self.cuts.day_of(from).await? else {
            return Err(differs(from, None, "is not in the database"));
        };
        let Some(archive) = self.history.archive().filter(|_| !gone.place.is_empty()) else {
            return Err(archived(format_args!("leaf {from}"), &gone));
        };
        let events = archive.events(&gone.place);
        self.archived(gone, events, from, to).await
    }

    async fn archived(
        &mut self,
        gone: GoneDay,
        events: ArchivedEvents,
        from: u64,
        to: u64,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let (first, end) = (from - gone.from, to.min(gone.to) - gone.from);
        let (events, lines) = events.read(first, end).await?;
        let read = lines.len() as u64;
        if read < end - first {
            return Err(differs(from + read, Some(&gone.place), "is missing"));
        }
        self.open = Some((gone, events));
        Ok(lines)
    }
}

/// What is stored is not what was signed.
fn differs(leaf: u64, place: Option<&str>, what: &str) -> Failure {
    let (place, more) = match place {
        Some(place) => (format!("the archive does not verify: {place}: "), "`deltran audit verify FOLDER --key KEY`"),
        None => (String::new(), "`deltran audit verify`"),
    };
    let message = format!("{place}leaf {leaf} {what}; {more} tells more");
    tracing::error!(leaf, why = %message, "an entry of the log cannot be served");
    Failure::new(FailureKind::WrongState, "not_included", message)
}
