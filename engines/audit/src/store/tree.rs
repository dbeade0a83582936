//! The Merkle tree: grown in the transaction that appends leaves, read for roots and proofs.

use std::collections::{BTreeMap, BTreeSet};

use deltran_runtime::{Db, DbError};
use sqlx::{PgConnection, PgExecutor};

use crate::domain::LeafHash;
use crate::domain::merkle::{Frontier, Hash, Plan, frontier_nodes};
use crate::domain::report::TreeState;
use crate::domain::tile::{Additions, Tile, filled, tiles_for};

const HASH: usize = 32;

/// Grows the tree whose right edge is `frontier` by leaves, of which `first` is the index of the first. One statement,
/// whatever their number.
///
/// # Errors
/// [`DbError::Corrupt`] where the tree is not of that size, or a tile is not as wide as it must be.
pub async fn grow(
    tx: &mut PgConnection,
    mut frontier: Frontier,
    first: u64,
    leaves: &[LeafHash],
) -> Result<(), DbError> {
    if frontier.size() != first {
        let size = frontier.size();
        return Err(DbError::corrupt(format!("the tree has {size} leaves where the ledger has {first}")));
    }
    let mut added = Additions::default();
    for leaf in leaves {
        frontier.append(*leaf, |node, hash| added.add(node, hash));
    }
    // Tiles that had hashes before are at most one per level.
    let (grown, new): (Vec<_>, Vec<_>) = added.iter().partition(|(_, place, _)| *place > 0);
    let places: Vec<i32> = grown.iter().map(|(_, place, _)| *place as i32).collect();
    let (levels, numbers, hashes) = columns(&grown);
    let (new_levels, new_numbers, new_hashes) = columns(&new);
    let widened: i64 = sqlx::query_scalar(
        "WITH widened AS (
             UPDATE tile SET hashes = tile.hashes || t.hashes
             FROM UNNEST($1::smallint[], $2::bigint[], $3::bytea[], $4::int[]) AS t (level, number, hashes, place)
             WHERE tile.level = t.level AND tile.number = t.number AND octet_length(tile.hashes) = t.place * 32
             RETURNING 1
         ), added AS (
             INSERT INTO tile (level, number, hashes)
             SELECT * FROM UNNEST($5::smallint[], $6::bigint[], $7::bytea[]) AS t (level, number, hashes)
         )
         UPDATE tree_head SET size = $8, frontier = $9 RETURNING (SELECT count(*) FROM widened)",
    )
    .bind(levels)
    .bind(numbers)
    .bind(hashes)
    .bind(places)
    .bind(new_levels)
    .bind(new_numbers)
    .bind(new_hashes)
    .bind(frontier.size() as i64)
    .bind(frontier.hashes().concat())
    .fetch_one(tx)
    .await?;
    if widened != grown.len() as i64 {
        return Err(DbError::corrupt("a tile does not have the hashes that the tree had"));
    }
    Ok(())
}

type Grown<'a> = (Tile, u64, &'a [Hash]);

fn columns(tiles: &[Grown<'_>]) -> (Vec<i16>, Vec<i64>, Vec<Vec<u8>>) {
    let levels = tiles.iter().map(|(tile, _, _)| i16::from(tile.level)).collect();
    let numbers = tiles.iter().map(|(tile, _, _)| tile.index as i64).collect();
    (levels, numbers, tiles.iter().map(|(_, _, hashes)| hashes.concat()).collect())
}

/// The right edge of the tree, as it is kept.
pub(super) async fn frontier_in(from: impl PgExecutor<'_>) -> Result<Frontier, DbError> {
    let (size, bytes): (i64, Vec<u8>) = sqlx::query_as("SELECT size, frontier FROM tree_head").fetch_one(from).await?;
    frontier_of(size, &bytes)
}

/// A right edge out of its columns.
pub(super) fn frontier_of(size: i64, bytes: &[u8]) -> Result<Frontier, DbError> {
    let size = u64::try_from(size).map_err(DbError::corrupt)?;
    Frontier::new(size, hashes_of(bytes)?).ok_or_else(|| DbError::corrupt("the tree's frontier is not of its size"))
}

pub(super) fn hashes_of(bytes: &[u8]) -> Result<Vec<Hash>, DbError> {
    let (hashes, rest) = bytes.as_chunks::<HASH>();
    if rest.is_empty() { Ok(hashes.to_vec()) } else { Err(DbError::corrupt("hashes do not have 32 bytes each")) }
}

/// The tree, for reading.
#[derive(Clone)]
pub struct Tree {
    db: Db,
}

impl Tree {
    /// The tree in a database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Its right edge at present.
    pub async fn frontier(&self) -> Result<Frontier, DbError> {
        frontier_in(self.db.pool()).await
    }

    /// What `verify` compares: the right edge, as it is kept and out of tiles, that of a cut, and the hashes of all tiles.
    pub async fn state(&self, cut: u64) -> Result<TreeState, DbError> {
        let (size, bytes, hashes): (i64, Vec<u8>, i64) = sqlx::query_as(
            "SELECT size, frontier, (SELECT coalesce(sum(octet_length(hashes) / 32), 0) FROM tile) FROM tree_head",
        )
        .fetch_one(self.db.pool())
        .await?;
        let size = u64::try_from(size).map_err(DbError::corrupt)?;
        let hashes = u64::try_from(hashes).map_err(DbError::corrupt)?;
        let frontier = Frontier::new(size, hashes_of(&bytes)?);
        let (from_tiles, at_cut) = (self.frontier_at(size).await?, self.frontier_at(cut).await?);
        Ok(TreeState { size, frontier, from_tiles, at_cut, hashes })
    }

    /// The right edge that it had at an earlier size. `None` where it never had so many leaves.
    pub async fn frontier_at(&self, size: u64) -> Result<Option<Frontier>, DbError> {
        let plan: Plan = frontier_nodes(size).into_iter().map(|node| vec![node]).collect();
        let hashes = self.fill(&plan).await?;
        Ok(hashes.and_then(|hashes| Frontier::new(size, hashes)))
    }

    /// The hashes of a plan, with one statement. `None` where the tree has not all of them.
    pub async fn fill(&self, plan: &Plan) -> Result<Option<Vec<Hash>>, DbError> {
        let tiles = self.tiles(&tiles_for(plan)).await?;
        Ok(filled(plan, &tiles))
    }

    /// Tiles as far as they are there.
    pub async fn tiles(&self, wanted: &BTreeSet<Tile>) -> Result<BTreeMap<Tile, Vec<Hash>>, DbError> {
        let levels: Vec<i16> = wanted.iter().map(|tile| i16::from(tile.level)).collect();
        let numbers: Vec<i64> = wanted.iter().map(|tile| i64::try_from(tile.index).unwrap_or(i64::MAX)).collect();
        let rows: Vec<(i16, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT tile.level, tile.number, tile.hashes
             FROM UNNEST($1::smallint[], $2::bigint[]) AS w (level, number) JOIN tile USING (level, number)",
        )
        .bind(levels)
        .bind(numbers)
        .fetch_all(self.db.pool())
        .await?;
        rows.into_iter()
            .map(|(level, number, hashes)| {
                let level = u8::try_from(level).map_err(DbError::corrupt)?;
                let index = u64::try_from(number).map_err(DbError::corrupt)?;
                Ok((Tile { level, index }, hashes_of(&hashes)?))
            })
            .collect()
    }
}
