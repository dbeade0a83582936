//! The tree's hashes, wherever they are: in the database, or below the cut in the archive.

use std::collections::{BTreeMap, BTreeSet};

use deltran_runtime::{Db, Failure, FailureKind};

use crate::archive::Archive;
use crate::domain::merkle::{Hash, Plan};
use crate::domain::retention::goes;
use crate::domain::tile::{Tile, filled, tiles_for};
use crate::store::{Cuts, Tree};

/// Reads hashes of the whole ledger.
#[derive(Clone)]
pub struct History {
    tree: Tree,
    cuts: Cuts,
    archive: Option<Archive>,
}

impl History {
    /// Of a database, and of the archive where there is one.
    pub fn new(db: Db, archive: Option<Archive>) -> Self {
        Self { tree: Tree::new(db.clone()), cuts: Cuts::new(db), archive }
    }

    /// Where leaves and tiles are that left the database.
    pub fn archive(&self) -> Option<&Archive> {
        self.archive.as_ref()
    }

    /// Tiles as far as they are there: in the database, or in the archive where they went with a day.
    ///
    /// # Errors
    /// Where one of the two does not answer.
    pub async fn tiles(&self, wanted: &BTreeSet<Tile>) -> Result<BTreeMap<Tile, Vec<Hash>>, Failure> {
        let mut found = self.tree.tiles(wanted).await?;
        if let (true, Some(archive)) = (found.len() < wanted.len(), &self.archive) {
            let cut = self.cuts.leaf().await?;
            for tile in wanted.iter().filter(|tile| goes(**tile, cut)) {
                if !found.contains_key(tile)
                    && let Some(hashes) = archive.tile(*tile).await?
                {
                    found.insert(*tile, hashes);
                }
            }
        }
        Ok(found)
    }

    /// The hashes of a plan.
    ///
    /// # Errors
    /// `not_online` where some are in neither place.
    pub async fn hashes(&self, plan: &Plan) -> Result<Vec<Hash>, Failure> {
        let tiles = self.tiles(&tiles_for(plan)).await?;
        if let Some(hashes) = filled(plan, &tiles) {
            return Ok(hashes);
        }
        let message = match self.cuts.leaf().await? {
            0 => "hashes that the proof needs are not there: `deltran audit verify` tells more".to_owned(),
            cut => format!(
                "hashes that the proof needs are not in the database, which begins at leaf {cut}: those before it are archived"
            ),
        };
        Err(Failure::new(FailureKind::WrongState, "not_online", message))
    }
}
