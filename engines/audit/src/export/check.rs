//! Checking an export by its files alone: neither platform nor database is asked.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use deltran_runtime::files::hash_of;

use super::lines::Lines;
use crate::domain::checkpoint::{Checkpoint, ConsistencyProof, InclusionProof};
use crate::domain::export::beside::Beside;
use crate::domain::export::manifest::{FileEntry, Manifest, verify_signature};
use crate::domain::export::tally::{Part, Summary, Tally};
use crate::domain::export::{
    BESIDE, END, EVENTS, FRONTIER, MANIFEST, PROOFS, RAW, SIGNATURE, SINCE, START, is_export_file, proof_file, raw_file,
};
use crate::domain::leaf_hash;
use crate::domain::merkle::{Frontier, Hash, root_of_inclusion};
use crate::domain::note::Verifier;
use crate::domain::report::Check;
use crate::domain::retention::completed_tile;
use crate::domain::tile::Tile;
use crate::domain::wrapper::wrap;

/// The largest file that is read whole: a manifest with its ranges, a message of the broker.
const WHOLE: u64 = 256 * 1024 * 1024;
/// Progress is told after so many events.
const TELL: u64 = 20_000;

/// Where the files of an export are.
pub trait Source: Sync {
    /// Reads a file.
    ///
    /// # Errors
    /// `NotFound` where there is none of that name.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;

    /// The names of all files, below the export's folder.
    ///
    /// # Errors
    /// What the system says.
    fn names(&self) -> io::Result<Vec<String>>;
}

/// A folder.
pub struct Folder(pub PathBuf);

impl Source for Folder {
    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(std::fs::File::open(self.0.join(name))?))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        fn below(folder: &Path, prefix: &str, names: &mut Vec<String>) -> io::Result<()> {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.file_type()?.is_dir() {
                    below(&entry.path(), &format!("{name}/"), names)?;
                } else {
                    names.push(name);
                }
            }
            Ok(())
        }
        let mut names = Vec::new();
        below(&self.0, "", &mut names)?;
        Ok(names)
    }
}

/// The verdict over an export.
#[derive(Debug)]
pub struct Report {
    /// Its manifest.
    pub manifest: Manifest,
    /// What was checked.
    pub checks: Vec<Check>,
    /// The first leaf that differs, where one does.
    pub first: Option<u64>,
    /// The roots of the tiles that the leaves of a whole export fill.
    pub tiles: BTreeMap<Tile, Hash>,
}

impl Report {
    /// Whether everything is as it must be.
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// What is known before a line is read.
struct Known {
    manifest: Manifest,
    start: Result<Checkpoint, String>,
    end: Result<Checkpoint, String>,
    end_note: String,
}

/// Checks an export. `since` is a checkpoint that the checker holds; `tell` hears how many events are done.
///
/// # Errors
/// Where there is no manifest that could be checked, or a file cannot be read.
pub fn check(
    source: &dyn Source,
    keys: &[Verifier],
    since: Option<&str>,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Report, String> {
    let bytes =
        whole(source, MANIFEST)?.ok_or_else(|| format!("there is no {MANIFEST}: this is no finished export"))?;
    let manifest = Manifest::read(&bytes).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let mut checks = vec![check_of("manifest", signed(source, &manifest, &bytes, keys))];
    let checkpoint = |name: &str, size: u64| -> Result<(Checkpoint, String), String> {
        let note = text(source, name)?;
        let found = Checkpoint::verify(&note, &manifest.origin, keys).map_err(|e| format!("{name}: {e}"))?;
        if found.size != size {
            return Err(format!("{name} is of size {}, the range asks for {size}", found.size));
        }
        Ok((found, note))
    };
    let start = checkpoint(START, manifest.range.from_leaf);
    let end = checkpoint(END, manifest.range.to_leaf);
    let both = start.as_ref().and(end.as_ref()).map_err(Clone::clone);
    checks.push(check_of(
        "checkpoints",
        both.map(|_| format!("of sizes {} and {}", manifest.range.from_leaf, manifest.range.to_leaf)),
    ));
    let end_note = end.as_ref().map(|(_, note)| note.clone()).unwrap_or_default();
    let known = Known { manifest, start: start.map(|(c, _)| c), end: end.map(|(c, _)| c), end_note };

    let mut walk = Walk::new(source, &known);
    walk.run(tell)?;
    checks.push(walk.leaves());
    checks.push(if known.manifest.filter.is_some() { walk.proofs() } else { walk.tree() });
    checks.push(walk.summary());
    checks.push(producers(&known.manifest));
    if let Some(windows) = &known.manifest.summary.windows {
        let detail = format!(
            "{} tie to their seals, {} began before, {} are open",
            windows.tied, windows.begun_before, windows.open
        );
        let differs =
            windows.differences.first().map(|first| format!("{first} ({} differ)", windows.differences.len()));
        checks.push(check_of("windows", differs.map_or(Ok(detail), Err)));
    }
    checks.push(check_of("files", files(source, &known.manifest, &walk.hashes, (walk.raw, walk.proven))));
    if since.is_some() || known.manifest.since.is_some() {
        checks.push(check_of("since", held(source, &known, keys, since)));
    }
    let first = walk.first.as_ref().map(|(leaf, _)| *leaf);
    let tiles = std::mem::take(&mut walk.tiles);
    Ok(Report { checks, first, tiles, manifest: known.manifest })
}

fn check_of(name: &str, outcome: Result<String, String>) -> Check {
    let (ok, detail) = match outcome {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    Check { name: name.to_owned(), ok, detail }
}

/// A file as bytes; `None` where it is not there.
fn whole(source: &dyn Source, name: &str) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    match source.open(name) {
        Ok(file) => file.take(WHOLE + 1).read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{name}: {error}")),
    };
    if bytes.len() as u64 > WHOLE { Err(format!("{name} is larger than {WHOLE} bytes")) } else { Ok(Some(bytes)) }
}

fn whole_of(source: &dyn Source, name: &str) -> Result<Vec<u8>, String> {
    whole(source, name)?.ok_or_else(|| format!("{name} is missing"))
}

fn text(source: &dyn Source, name: &str) -> Result<String, String> {
    String::from_utf8(whole_of(source, name)?).map_err(|_| format!("{name} is not UTF-8"))
}

/// The frontier that a whole export begins with.
fn start(source: &dyn Source, size: u64) -> Result<Frontier, String> {
    let text = text(source, FRONTIER)?;
    let hashes: Option<Vec<Hash>> = text.lines().map(|l| hex::decode(l).ok()?.try_into().ok()).collect();
    let frontier = hashes.and_then(|hashes| Frontier::new(size, hashes));
    frontier.ok_or_else(|| format!("{FRONTIER} does not have the hashes of a tree of {size} leaves"))
}

fn signed(source: &dyn Source, manifest: &Manifest, bytes: &[u8], keys: &[Verifier]) -> Result<String, String> {
    let signature = text(source, SIGNATURE)?;
    verify_signature(&signature, &manifest.origin, bytes, keys).map_err(|e| format!("{SIGNATURE}: {e}"))?;
    let filter = manifest.filter.as_ref().map(|filter| format!(", only {}", filter.words())).unwrap_or_default();
    Ok(format!("signed by {}{filter}", manifest.origin))
}

/// Every file is as the manifest says, and there is no other.
fn files(
    source: &dyn Source,
    manifest: &Manifest,
    known: &BTreeMap<String, (u64, String)>,
    (raw, proofs): (u64, u64),
) -> Result<String, String> {
    for FileEntry { name, size, sha256 } in &manifest.files {
        if !is_export_file(name) {
            return Err(format!("the manifest names a file {name:?}, which is none of an export"));
        }
        let found = match known.get(name) {
            Some(found) => found.clone(),
            None => match source.open(name) {
                Ok(mut file) => hash_of(&mut file).map_err(|e| format!("{name}: {e}"))?,
                Err(error) => return Err(format!("{name}: {error}")),
            },
        };
        if found.0 != *size {
            return Err(format!("{name} has {} bytes, the manifest says {size}", found.0));
        }
        if found.1 != *sha256 {
            return Err(format!("{name} is not what it was: its SHA-256 is {}, the manifest says {sha256}", found.1));
        }
    }
    let names = source.names().map_err(|e| format!("the folder: {e}"))?;
    let (mut raw_found, mut proofs_found) = (0, 0);
    for name in names {
        if name.starts_with(&format!("{RAW}/")) && is_export_file(&name) {
            raw_found += 1;
        } else if name.starts_with(&format!("{PROOFS}/")) && is_export_file(&name) {
            proofs_found += 1;
        } else if name != MANIFEST && name != SIGNATURE && !manifest.files.iter().any(|entry| entry.name == name) {
            return Err(format!("{name} is there, and the manifest does not name it"));
        }
    }
    for (folder, found, expected) in [(RAW, raw_found, raw), (PROOFS, proofs_found, proofs)] {
        if found != expected {
            return Err(format!("{folder} has {found} files, {expected} belong there"));
        }
    }
    Ok(format!("{} files with their sizes and hashes", manifest.files.len()))
}

/// Producers number their events without a gap; what a filter left out is said.
fn producers(manifest: &Manifest) -> Check {
    let gaps: Vec<String> = manifest
        .summary
        .producers
        .iter()
        .filter(|(_, ranges)| manifest.filter.is_none() && ranges.len() > 1)
        .map(|(name, ranges)| format!("{name}: {ranges:?}"))
        .collect();
    let detail = if manifest.filter.is_some() {
        let left: u64 = manifest.left_out.values().flatten().map(|(low, high)| high.saturating_sub(*low) + 1).sum();
        format!("inclusion only: {left} events of the range are left out")
    } else {
        let named = manifest
            .summary
            .producers
            .iter()
            .filter_map(|(name, ranges)| ranges.first().map(|(low, high)| format!("{name} {low}…{high}")));
        format!("without a gap: {}", named.collect::<Vec<_>>().join(", "))
    };
    let gap = (!gaps.is_empty()).then(|| format!("numbers are missing between {}", gaps.join("; ")));
    check_of("producers", gap.map_or(Ok(detail), Err))
}

/// The ledger continues the one that the checker held.
fn held(source: &dyn Source, known: &Known, keys: &[Verifier], since: Option<&str>) -> Result<String, String> {
    let Some(note) = since else {
        return Err(format!("{SINCE} can only be checked with the checkpoint that you held: give --since FILE"));
    };
    let held = Checkpoint::verify(note, &known.manifest.origin, keys)
        .map_err(|e| format!("the checkpoint that you hold: {e}"))?;
    let (start, end) = (known.start.as_ref().map_err(Clone::clone)?, known.end.as_ref().map_err(Clone::clone)?);
    for own in [start, end] {
        if own.size == held.size {
            let same = own.root == held.root;
            let words = if same { Ok("it is one of the export's own") } else { Err("the ledger was rebuilt") };
            return words.map(str::to_owned).map_err(|e| format!("at size {} the root is another: {e}", held.size));
        }
    }
    let proof = whole(source, SINCE)?.ok_or_else(|| format!("there is no {SINCE}: ask for an export with --since"))?;
    let proof = String::from_utf8(proof).map_err(|_| format!("{SINCE} is not UTF-8"))?;
    let proof = ConsistencyProof::parse(&proof).map_err(|e| format!("{SINCE}: {e}"))?;
    let later = proof.verify(&held, keys).map_err(|e| format!("{SINCE}: {e}"))?;
    if later != *end {
        return Err(format!("{SINCE} leads to another checkpoint than {END}"));
    }
    Ok(format!("the ledger of size {} begins with yours of size {}", end.size, held.size))
}

/// Goes over events and what stands beside them, line by line.
struct Walk<'a> {
    source: &'a dyn Source,
    known: &'a Known,
    tally: Tally,
    /// The frontier that a whole export begins with, or what is wrong with it; and that which its leaves grow.
    begun: Result<Frontier, String>,
    frontier: Option<Frontier>,
    /// The roots of the tiles that they fill.
    tiles: BTreeMap<Tile, Hash>,
    events: u64,
    last: Option<u64>,
    raw: u64,
    proven: u64,
    /// The first leaf that differs, and how; and how many do.
    first: Option<(u64, String)>,
    differ: u64,
    unproven: Option<String>,
    hashes: BTreeMap<String, (u64, String)>,
}

impl<'a> Walk<'a> {
    fn new(source: &'a dyn Source, known: &'a Known) -> Self {
        let begun = match known.manifest.filter {
            None => start(source, known.manifest.range.from_leaf),
            Some(_) => Err("a filtered export grows no tree".to_owned()),
        };
        Self {
            source,
            known,
            tally: Tally::default(),
            frontier: begun.clone().ok(),
            begun,
            tiles: BTreeMap::new(),
            events: 0,
            last: None,
            raw: 0,
            proven: 0,
            first: None,
            differ: 0,
            unproven: None,
            hashes: BTreeMap::new(),
        }
    }

    fn differs(&mut self, leaf: u64, what: impl Into<String>) {
        self.differ += 1;
        if self.first.as_ref().is_none_or(|(first, _)| leaf < *first) {
            self.first = Some((leaf, what.into()));
        }
    }

    /// Reads both files side by side; each is read and hashed ahead on a thread of its own.
    fn run(&mut self, tell: &mut dyn FnMut(u64, u64)) -> Result<(), String> {
        let open = |name: &str| self.source.open(name).map_err(|e| format!("{name}: {e}"));
        let (mut events, mut besides) = (Lines::new(open(EVENTS)?), Lines::new(open(BESIDE)?));
        let total = self.known.manifest.summary.events;
        loop {
            let event = events.next().map_err(|e| format!("{EVENTS}: {e}"))?;
            let beside = besides.next().map_err(|e| format!("{BESIDE}: {e}"))?;
            let expected = self.last.map_or(self.known.manifest.range.from_leaf, |last| last + 1);
            match (event, beside) {
                (None, None) => break,
                (Some(_), None) => self.differs(expected, format!("has no line in {BESIDE}")),
                (None, Some(_)) => self.differs(expected, format!("has no line in {EVENTS}")),
                (Some(event), Some(beside)) => self.leaf(expected, event, beside),
            }
            self.events += 1;
            if self.events.is_multiple_of(TELL) {
                tell(self.events, total);
            }
        }
        for (name, lines) in [(EVENTS, events), (BESIDE, besides)] {
            if lines.cut_short() {
                let leaf = self.last.unwrap_or(self.known.manifest.range.from_leaf);
                self.differs(leaf, format!("{name} ends within a line: it is truncated"));
            }
            self.hashes.insert(name.to_owned(), lines.finish());
        }
        tell(self.events, total);
        Ok(())
    }

    fn leaf(&mut self, expected: u64, event: &[u8], beside: &[u8]) {
        let hash = leaf_hash(event);
        if let Some(frontier) = &mut self.frontier {
            let tiles = &mut self.tiles;
            frontier.append(hash, |node, root| {
                if let Some(tile) = completed_tile(node) {
                    tiles.insert(tile, root);
                }
            });
        }
        let beside = match Beside::read(beside) {
            Ok(beside) => beside,
            Err(what) => {
                self.last = Some(expected);
                return self.differs(expected, what);
            }
        };
        let index = beside.leaf_index;
        let range = &self.known.manifest.range;
        let whole = self.known.manifest.filter.is_none();
        if (whole && index != expected) || index < expected || index >= range.to_leaf {
            self.last = Some(expected.max(index));
            return self.differs(expected, format!("{BESIDE} has leaf {index} in its place"));
        }
        self.last = Some(index);
        let mut said = [0; 32];
        if hex::decode_to_slice(beside.leaf_hash.as_bytes(), &mut said).is_err() || said != hash {
            return self
                .differs(index, format!("its hash is {}, {BESIDE} says {}", hex::encode(hash), beside.leaf_hash));
        }
        if beside.wrapped {
            self.raw += 1;
            match whole_of(self.source, &raw_file(index)) {
                Ok(raw) if wrap(&beside.subject, &raw) == event => {}
                Ok(_) => self.differs(index, format!("{} is not what its line says", raw_file(index))),
                Err(what) => self.differs(index, what),
            }
        }
        let part = match &beside.invalid {
            None => Part::valid(event),
            Some(_) => Ok(Part::invalid(beside.number())),
        };
        if let Err(what) = part.and_then(|part| self.tally.add(&part)) {
            self.differs(index, what);
        }
        if !whole {
            self.proof(index, &hash);
        }
    }

    fn proof(&mut self, index: u64, hash: &Hash) {
        let Ok(end) = &self.known.end else { return };
        let name = proof_file(index);
        let proven = text(self.source, &name).and_then(|text| {
            let proof = InclusionProof::parse(&text).map_err(|e| format!("{name}: {e}"))?;
            // The checkpoint in it was checked once, as that of the export.
            let leads = proof.index == index && proof.checkpoint == self.known.end_note;
            let root = root_of_inclusion(index, end.size, hash, &proof.hashes).filter(|_| leads);
            if root == Some(end.root) { Ok(()) } else { Err(format!("{name} does not prove leaf {index}")) }
        });
        self.proven += 1;
        if let Err(what) = proven {
            self.unproven.get_or_insert(what.clone());
            self.differs(index, what);
        }
    }

    fn leaves(&self) -> Check {
        let outcome = match &self.first {
            None => Ok(format!("{} leaves have the hashes that stand beside them", self.events)),
            Some((leaf, what)) if self.differ == 1 => Err(format!("leaf {leaf}: {what}")),
            Some((leaf, what)) => Err(format!("leaf {leaf}: {what} (the first of {} differences)", self.differ)),
        };
        check_of("leaves", outcome)
    }

    fn tree(&self) -> Check {
        let Known { start, end, .. } = self.known;
        let outcome = (|| {
            let start = start.as_ref().map_err(Clone::clone)?;
            let end = end.as_ref().map_err(Clone::clone)?;
            let begin = self.begun.as_ref().map_err(Clone::clone)?;
            if begin.root() != start.root {
                return Err(format!("{FRONTIER} does not lead to the root in {START}"));
            }
            let grown = self.frontier.as_ref().ok_or("nothing was grown")?;
            if grown.size() != end.size {
                return Err(format!("the lines make {} leaves, {END} has {}", grown.size(), end.size));
            }
            if grown.root() != end.root {
                return Err(format!(
                    "the leaves do not lead to the root in {END}: one of them was changed, moved, added or removed"
                ));
            }
            Ok(format!("{FRONTIER} and {} leaves lead from {START} to {END}", self.events))
        })();
        check_of("tree", outcome)
    }

    fn proofs(&self) -> Check {
        let outcome =
            self.unproven.clone().map_or(Ok(()), Err).and_then(|()| self.known.end.as_ref().map_err(Clone::clone));
        check_of(
            "proofs",
            outcome.map(|end| format!("{} events stand in the ledger of size {}", self.proven, end.size)),
        )
    }

    fn summary(&self) -> Check {
        let manifest = &self.known.manifest;
        let found = self.tally.summary(manifest.range.from_leaf, manifest.filter.is_none());
        let said = &manifest.summary;
        let words = |what: &str, found: String, said: String| {
            Err(format!("{what}: the files give {found}, the manifest says {said}"))
        };
        let outcome = if found.events != said.events || found.invalid != said.invalid {
            words(
                "events",
                format!("{} ({} invalid)", found.events, found.invalid),
                format!("{} ({} invalid)", said.events, said.invalid),
            )
        } else if found.totals != said.totals {
            words("totals", json(&found.totals), json(&said.totals))
        } else if found.types != said.types {
            words("events by type", json(&found.types), json(&said.types))
        } else if found.producers != said.producers {
            words("producers", json(&found.producers), json(&said.producers))
        } else if found.windows != said.windows {
            words("windows", json(&found.windows), json(&said.windows))
        } else {
            Ok(totals_in_words(&found))
        };
        check_of("totals", outcome)
    }
}

fn totals_in_words(summary: &Summary) -> String {
    let committed = summary.totals.iter().filter_map(|(currency, sums)| {
        sums.get("committed")
            .map(|sum| format!("{} committed in {currency}: {} minor units", sum.count, sum.minor.units()))
    });
    let committed: Vec<String> = committed.collect();
    format!(
        "{} events, {} invalid{}",
        summary.events,
        summary.invalid,
        committed.iter().map(|c| format!("; {c}")).collect::<String>()
    )
}

/// A value in a sentence.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default().chars().take(400).collect()
}
