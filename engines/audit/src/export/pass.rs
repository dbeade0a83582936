//! One pass over the leaves of a range: every file that has a part per leaf grows by it.

use std::collections::BTreeMap;

use deltran_messaging::ranges::Ranges;
use memchr::memmem;
use parquet::errors::ParquetError;

use super::files::{Files, Piece};
use crate::domain::check::StoredLeaf;
use crate::domain::export::beside::Beside;
use crate::domain::export::cells::{Cells, csv_header, csv_row};
use crate::domain::export::columnar::Columnar;
use crate::domain::export::line::Line;
use crate::domain::export::manifest::Filter;
use crate::domain::export::tally::{Part, Tally};
use crate::domain::export::{BESIDE, CSV, EVENTS, PARQUET, raw_file};
use crate::domain::leaf_hash;
use crate::domain::merkle::Frontier;

/// Why a ledger cannot be handed out.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// A leaf is not what it must be.
    #[error("leaf {leaf}: {what}")]
    Leaf {
        /// Its index.
        leaf: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The table of a row could not be written.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

/// The state of a pass.
pub struct Pass {
    filter: Filter,
    frontier: Frontier,
    tally: Tally,
    /// Numbers of all events of the range, also of those that the filter leaves out.
    all: BTreeMap<String, Ranges>,
    files: Files,
    csv: Option<String>,
    parquet: Option<Columnar>,
    /// Leaves that passed the filter and wait for their proofs.
    passed: Vec<u64>,
}

impl Pass {
    /// Begins at the leaf at which the tree with this frontier ends.
    ///
    /// # Errors
    /// Where a file cannot be begun: a defect.
    pub fn new(start: Frontier, filter: Filter, formats: Formats, files: Files) -> Result<Self, PassError> {
        let mut pass = Self {
            filter,
            frontier: start,
            tally: Tally::default(),
            all: BTreeMap::new(),
            files,
            csv: formats.csv.then(String::new),
            parquet: if formats.parquet { Some(Columnar::new()?) } else { None },
            passed: Vec::new(),
        };
        if let Some(text) = &mut pass.csv {
            csv_header(text);
        }
        Ok(pass)
    }

    /// Takes the next leaf.
    ///
    /// # Errors
    /// Where it is not the next one, or not what its hash says: nothing is handed out that does not verify.
    pub fn step(&mut self, leaf: &StoredLeaf) -> Result<(), PassError> {
        let index = self.next();
        let wrong = |what: String| PassError::Leaf { leaf: index, what };
        if leaf.leaf_index != i64::try_from(index).unwrap_or(i64::MAX) {
            return Err(wrong("it is missing".to_owned()));
        }
        let hash = leaf_hash(&leaf.envelope);
        if leaf.leaf_hash != hash {
            return Err(wrong("leaf_hash is not the hash of its envelope".to_owned()));
        }
        self.frontier.append(hash, |_, _| {});
        let beside = Beside::of(leaf);
        let part = match &beside.invalid {
            None => Part::valid(&leaf.envelope).map_err(wrong)?,
            Some(_) => Part::invalid(beside.number()),
        };
        if !self.filter.is_empty() {
            if let Some((producer, number)) = &leaf.columns.producer {
                self.all.entry(producer.clone()).or_default().insert(*number);
            }
            if !passes(&self.filter, leaf) {
                return Ok(());
            }
            self.passed.push(index);
        }
        self.tally.add(&part).map_err(wrong)?;
        self.files.write(EVENTS, &leaf.envelope);
        self.files.write(EVENTS, b"\n");
        let mut line = serde_json::to_vec(&beside).map_err(|e| wrong(e.to_string()))?;
        line.push(b'\n');
        self.files.write(BESIDE, &line);
        if leaf.wrapped {
            let raw =
                leaf.raw.as_deref().ok_or_else(|| wrong("the bytes that its wrapper stands for are gone".into()))?;
            self.files.put(&raw_file(index), raw);
        }
        if self.csv.is_some() || self.parquet.is_some() {
            let cells = Cells::of(leaf);
            if let Some(text) = &mut self.csv {
                csv_row(text, &cells);
                self.files.write(CSV, text.as_bytes());
                text.clear();
            }
            if let Some(table) = &mut self.parquet {
                table.add(cells)?;
                let bytes = table.take();
                if !bytes.is_empty() {
                    self.files.write(PARQUET, &bytes);
                }
            }
        }
        Ok(())
    }

    /// Ends the files that have a part per leaf.
    ///
    /// # Errors
    /// Where one cannot be ended: a defect.
    pub fn finish(&mut self) -> Result<(), PassError> {
        if let Some(text) = self.csv.take() {
            self.files.write(CSV, text.as_bytes());
            self.files.close(CSV);
        }
        if let Some(mut table) = self.parquet.take() {
            table.finish()?;
            self.files.write(PARQUET, &table.take());
            self.files.close(PARQUET);
        }
        self.files.close(EVENTS);
        self.files.close(BESIDE);
        Ok(())
    }

    /// The leaf that comes next.
    pub fn next(&self) -> u64 {
        self.frontier.size()
    }

    /// The tree's right edge before that leaf.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Counts and totals of what passed.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Numbers of all events of the range, where there is a filter.
    pub fn all(&self) -> &BTreeMap<String, Ranges> {
        &self.all
    }

    /// Leaves that passed the filter since this was last asked.
    pub fn passed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.passed)
    }

    /// The files.
    pub fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    /// Pieces that are ready.
    pub fn pieces(&mut self) -> Vec<Piece> {
        self.files.take()
    }
}

/// Which tables are written beside the exact bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Formats {
    /// `events.csv`.
    pub csv: bool,
    /// `events.parquet`.
    pub parquet: bool,
}

/// Whether a leaf passes. A participant passes where the envelope names it anywhere as a value of its own, so that a
/// payee sees what was paid to it.
fn passes(filter: &Filter, leaf: &StoredLeaf) -> bool {
    let columns = &leaf.columns;
    let domain = filter.domain.as_ref().is_none_or(|domain| *domain == columns.domain);
    let correlation = filter.correlation_id.as_ref().is_none_or(|id| columns.correlation_id.as_ref() == Some(id));
    let participant = filter.participant.as_ref().is_none_or(|participant| names(&leaf.envelope, participant));
    domain && correlation && participant
}

/// Whether a line holds a text as a whole JSON string.
fn names(line: &[u8], text: &str) -> bool {
    let quoted = format!("\"{text}\"");
    let quick = memmem::find(line, quoted.as_bytes()).is_some();
    // A line of another publisher may spell the same text with escapes.
    quick
        || (line.contains(&b'\\') && Line::read(line).is_ok_and(|l| l.metadata.participant_id.as_deref() == Some(text)))
}
