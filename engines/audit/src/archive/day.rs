//! Days into the archive: written, then read again from the stored bytes and verified as a stranger would, then recorded.

use std::collections::BTreeMap;

use deltran_api::audit::v1::export_events_response::Part;
use deltran_events::data::audit::PartitionArchived;
use deltran_kernel::Timestamp;
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::files::hash_of;
use deltran_runtime::lease::{Epoch, RoundError};
use deltran_runtime::{EngineContext, Failure};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::source::StoredDay;
use super::{Archive, ArchiveError};
use crate::NAME;
use crate::checkpoints::Publisher;
use crate::domain::export::MANIFEST;
use crate::domain::export::manifest::{Filter, Range};
use crate::domain::merkle::Hash;
use crate::domain::note::Verifier;
use crate::domain::retention::{Archived, end_of, root_of_tile, tiles_completed};
use crate::domain::tile::Tile;
use crate::export::check::{Source, check};
use crate::export::pass::Formats;
use crate::export::{Exporter, Order};
use crate::history::History;
use crate::store::{Archives, ClosedDay, Tree};

/// Pieces under way to the store.
const AHEAD: usize = 16;
/// Tiles read from the database at once, and on their way to or from the archive at once.
const TILES: usize = 64;
const UNDER_WAY: usize = 8;

/// Writes days to the archive and reads them again.
#[derive(Clone)]
pub struct Archiver {
    context: EngineContext,
    door: Door,
    publisher: Publisher,
    exporter: Exporter,
    archives: Archives,
    tree: Tree,
    archive: Archive,
}

impl Archiver {
    /// An archiver.
    pub fn new(context: EngineContext, door: Door, publisher: Publisher, archive: Archive) -> Self {
        let history = History::new(context.db.clone(), Some(archive.clone()));
        let exporter = Exporter::new(context.clone(), door.clone(), publisher.clone(), history);
        let (archives, tree) = (Archives::new(context.db.clone()), Tree::new(context.db.clone()));
        Self { context, door, publisher, exporter, archives, tree, archive }
    }

    /// Archives the first day that is over and not in the archive. `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be written, is not verified when it is read again, or the lease is lost.
    pub async fn archive_next(&self, epoch: &Epoch) -> Result<Option<ClosedDay>, RoundError> {
        let Some(day) = self.archives.next().await? else { return Ok(None) };
        let place = day.name();
        let written_at = self.context.clock.now();
        let manifest_sha256 = self.write(epoch, &day, &place).await?;
        let archived = Archived {
            day: day.start,
            from: day.from,
            to: day.to,
            place,
            manifest_sha256,
            archived_at: written_at,
            verified_at: self.verify_at(&day.name(), (day.from, day.to), manifest_sha256).await?,
        };
        let mut tx = self.door.begin("archive_day").await?;
        epoch.check(&mut tx).await?;
        let mut events = Vec::new();
        if Archives::record(&mut tx, &archived).await? {
            let event = PartitionArchived {
                day: day.name(),
                from_leaf: day.from,
                to_leaf: day.to,
                archive: archived.place,
                manifest_sha256: hex::encode(manifest_sha256),
            };
            events.push(Outgoing::new(event, format!("day-{}", day.name()), format!("{NAME}-engine")));
        }
        tx.commit(&events).await?;
        Ok(Some(day))
    }

    /// Reads a day in the archive again and notes that it was verified.
    ///
    /// # Errors
    /// Where it cannot be read, or does not verify.
    pub async fn read_again(&self, epoch: &Epoch, day: Timestamp) -> Result<(), RoundError> {
        let Some(archived) = self.archives.of(day).await? else { return Ok(()) };
        let range = (archived.from, archived.to);
        let at = self.verify_at(&archived.place, range, archived.manifest_sha256).await?;
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        Archives::verified(&mut tx, day, at).await?;
        Ok(tx.commit().await?)
    }

    /// Writes the tiles that the day filled and the files of its export; gives the digest of the manifest.
    async fn write(&self, epoch: &Epoch, day: &ClosedDay, place: &str) -> Result<[u8; 32], RoundError> {
        let user = format!("{NAME}-engine");
        for some in tiles_completed(day.from, day.to).collect::<Vec<_>>().chunks(TILES) {
            let found = self.tree.tiles(&some.iter().copied().collect()).await?;
            epoch.current()?;
            let put = |tile: Tile| {
                let full = found.get(&tile).filter(|hashes| root_of_tile(hashes).is_some());
                async move {
                    let full =
                        full.ok_or_else(|| Failure::internal(format!("{tile:?} is not full in the database")))?;
                    self.archive.put_tile(tile, full).await.map_err(Failure::from)
                }
            };
            stream::iter(some.to_vec()).map(put).buffer_unordered(UNDER_WAY).try_collect::<()>().await?;
        }
        let order = Order {
            range: Range { from_leaf: day.from, to_leaf: day.to, from: Some(day.start), to: Some(end_of(day.start)) },
            filter: Filter::default(),
            formats: Formats::default(),
            since: None,
            have: BTreeMap::new(),
            user,
            role: "engine".to_owned(),
        };
        let (sender, mut pieces) = mpsc::channel(AHEAD);
        let exporter = self.exporter.clone();
        let export = async move { exporter.run(&order, false, &sender).await.map_err(RoundError::from) };
        let mut writer = self.archive.write(place, epoch);
        let written = async {
            let store = async {
                while let Some(message) = pieces.recv().await {
                    if let Some(Part::Piece(piece)) = message.map_err(Failure::from)?.part {
                        writer.piece(piece).await?;
                    }
                }
                Ok::<_, RoundError>(())
            };
            let (exported, ()) = tokio::try_join!(export, store)?;
            // Only what was exported whole is moved to its place.
            writer.finish(|_| true).await?;
            Ok::<_, RoundError>(exported)
        };
        let written = written.await;
        if written.is_err() {
            writer.abort().await;
        }
        let exported = written?;
        let mut digest = [0; 32];
        hex::decode_to_slice(exported.manifest_sha256, &mut digest).map_err(Failure::internal)?;
        Ok(digest)
    }

    /// Verifies a day from the stored bytes alone; gives the moment at which it was begun to be read.
    async fn verify_at(&self, place: &str, range: (u64, u64), digest: [u8; 32]) -> Result<Timestamp, Failure> {
        let now = self.context.clock.now();
        let (source, keys) = (self.archive.day(place), self.publisher.notary().verifiers().to_vec());
        let read = tokio::task::spawn_blocking(move || verified(&source, &keys, range, &digest)).await;
        let wrong = |what: String| ArchiveError(format!("{place} does not verify: {what}"));
        let tiles = read.map_err(Failure::internal)?.map_err(wrong)?;
        let same = |(tile, root): (Tile, Hash)| async move {
            let stored = self.archive.tile(tile).await?;
            if stored.and_then(|hashes| root_of_tile(&hashes)) != Some(root) {
                return Err(wrong(format!("{tile:?} is missing, or not what its events give")));
            }
            Ok(())
        };
        stream::iter(tiles).map(same).buffer_unordered(UNDER_WAY).try_collect::<()>().await?;
        Ok(now)
    }
}

/// Checks a day as a stranger would, with keys alone; gives the roots of the tiles that its events fill.
fn verified(
    source: &StoredDay,
    keys: &[Verifier],
    (from, to): (u64, u64),
    digest: &[u8; 32],
) -> Result<BTreeMap<Tile, Hash>, String> {
    let mut manifest = source.open(MANIFEST).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let (_, found) = hash_of(&mut manifest).map_err(|e| format!("{MANIFEST}: {e}"))?;
    if found != hex::encode(digest) {
        return Err(format!("{MANIFEST} is another one: its SHA-256 is {found}, not {}", hex::encode(digest)));
    }
    let report = check(source, keys, None, &mut |_, _| {})?;
    if let Some(failed) = report.checks.iter().find(|check| !check.ok) {
        return Err(format!("{}: {}", failed.name, failed.detail));
    }
    let range = &report.manifest.range;
    if (range.from_leaf, range.to_leaf) != (from, to) || report.manifest.filter.is_some() {
        return Err(format!("it has leaves {} up to {}, not {from} up to {to}", range.from_leaf, range.to_leaf));
    }
    Ok(report.tiles)
}
