//! The verdict: what the rows gave, against what producers, streams and the token ledger say.

use std::collections::{BTreeMap, BTreeSet};

use deltran_messaging::ranges::Ranges;

use super::check::Checker;
use super::merkle::Frontier;
use super::retention::{self, Cut};
use super::tree_check;

/// One check of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub ok: bool,
    /// What was compared, and the first difference.
    pub detail: String,
}

/// A producer by its own account and by the ledger's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// `<source>/<epoch>`.
    pub name: String,
    /// The last number that it gave out, by its own account; 0 where nobody was asked or answered for it.
    pub assigned: u64,
    /// The highest n for which 1 … n stand in the ledger.
    pub confirmed: u64,
    /// How many of its events stand in the ledger.
    pub recorded: u64,
    /// Whether both fit.
    pub ok: bool,
    /// Why not, or what to know.
    pub detail: String,
}

/// A stream by the broker's account and by the ledger's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// Messages that it holds.
    pub messages: u64,
    /// The last sequence that it gave out.
    pub last_sequence: u64,
    /// How many of its sequences, from the first that it holds, were received.
    pub recorded: u64,
    /// Whether both fit.
    pub ok: bool,
    /// Why not.
    pub detail: String,
}

/// What a stream holds, by the broker's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Messages.
    pub messages: u64,
    /// Lowest sequence held.
    pub first: u64,
    /// Last sequence given out.
    pub last: u64,
}

/// What the token ledger says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSays {
    /// Invariant, whether it holds, what was compared.
    pub invariants: Vec<(String, bool, String)>,
    /// Accepted and refused transactions.
    pub transactions: u64,
}

/// The state of the ledger's own tables at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Leaves.
    pub size: u64,
    /// Leaves that are no valid events.
    pub invalid: u64,
    /// Leaves that contradict an earlier one.
    pub conflicts: u64,
    /// The lowest and highest index of any leaf.
    pub bounds: Option<(i64, i64)>,
    /// What the consumer says it received, by producer.
    pub producers: BTreeMap<String, Ranges>,
    /// What it says it received, by stream.
    pub streams: BTreeMap<String, Ranges>,
    /// Where the leaves in the database begin.
    pub cut: Cut,
    /// Of that, sequences at which a stream is known to have nothing any more.
    pub holes: BTreeMap<String, Ranges>,
}

impl Snapshot {
    /// What a stream is expected to hold, as far as its own retention lets it.
    pub fn expected(&self, stream: &str) -> Ranges {
        let received = self.streams.get(stream).cloned().unwrap_or_default();
        self.holes.get(stream).map_or_else(|| received.clone(), |holes| received.without(holes))
    }
}

/// Whether every leaf is as an append left it.
pub fn rows(checker: &Checker) -> Check {
    let detail = match checker.described.first() {
        Some(first) => format!("{} differences, the first at {first}", checker.differences),
        None if checker.known_since > 0 => format!(
            "{} leaves; {} were recorded by a release that did not know their event or version",
            checker.checked, checker.known_since
        ),
        None if checker.with_archived > 0 => format!(
            "{} leaves; {} contradict an earlier one that is archived, by their own account",
            checker.checked, checker.with_archived
        ),
        None => format!("{} leaves: dense, hashes and derived columns fit", checker.checked),
    };
    Check { name: "rows".into(), ok: checker.differences == 0, detail }
}

/// The stored tree at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeState {
    /// Its leaves.
    pub size: u64,
    /// Its right edge, as it is kept. `None` where that is not of its size.
    pub frontier: Option<Frontier>,
    /// The same, out of the tiles. `None` where they do not have it.
    pub from_tiles: Option<Frontier>,
    /// The right edge at the cut, out of the tiles. `None` where they do not have it.
    pub at_cut: Option<Frontier>,
    /// Hashes in all tiles.
    pub hashes: u64,
}

/// Whether the leaves in the database begin where the archived ones end, as it was signed. All that stands in the tiles of
/// leaves below the cut goes into its frontier.
pub fn cut(cut: &Cut, state: &TreeState) -> Check {
    let problem = cut.problem.clone().or_else(|| {
        (state.at_cut.as_ref() != Some(&cut.frontier))
            .then(|| format!("the tiles do not give the frontier of the cut at leaf {}", cut.leaf))
    });
    let ok = problem.is_none();
    let detail = problem.unwrap_or_else(|| match cut.leaf {
        0 => "every leaf is in the database".to_owned(),
        leaf => format!(
            "{leaf} leaves are archived: their frontier gives the root of the published checkpoint of that size"
        ),
    });
    Check { name: "cut".into(), ok, detail }
}

/// Whether the stored tree is the one over the leaves.
pub fn tree(checker: &Checker, cut: &Cut, state: &TreeState) -> Check {
    let grown = checker.tree.frontier();
    let size = state.size;
    let problem = if let Some(problem) = checker.tree.problem() {
        Some(problem.to_owned())
    } else if size < grown.size() {
        Some(format!("the tree has {size} leaves, the ledger {}", grown.size()))
    } else if state.frontier.is_none() || state.frontier != state.from_tiles {
        Some(format!("the tiles do not give the right edge of the tree at size {size}"))
    } else if grown.size() != checker.next.unsigned_abs() {
        Some(format!("the tree was grown over {} leaves only", grown.size()))
    } else if state.hashes != tree_check::hashes_of(size).saturating_sub(retention::hashes_gone(cut.leaf)) {
        let expected = tree_check::hashes_of(size).saturating_sub(retention::hashes_gone(cut.leaf));
        let from = if cut.leaf == 0 { String::new() } else { format!(" from leaf {} on", cut.leaf) };
        Some(format!("tiles have {} hashes, a tree of {size} leaves has {expected}{from}", state.hashes))
    } else {
        None
    };
    let ok = problem.is_none();
    let detail = problem.unwrap_or_else(|| {
        format!("{} hashes; root at size {}: {}", checker.tree.hashes(), grown.size(), hex::encode(grown.root()))
    });
    Check { name: "tree".into(), ok, detail }
}

/// Whether the checkpoints that were signed are of the tree over the leaves. `beyond` is the size of one that is
/// larger than the tree.
pub fn checkpoints(checker: &Checker, cut: &Cut, beyond: Option<u64>, size: u64) -> Check {
    let (compared, problem) = checker.tree.signed();
    let problem = problem.map(str::to_owned).or_else(|| {
        beyond.map(|signed| format!("a checkpoint of {signed} leaves was signed, the ledger has {size} only"))
    });
    let ok = problem.is_none();
    let detail = problem.unwrap_or_else(|| match cut.leaf {
        0 => format!("{compared} kept: signatures and roots fit"),
        leaf => format!("{compared} kept: signatures fit, and from {leaf} leaves on the roots"),
    });
    Check { name: "checkpoints".into(), ok, detail }
}

/// Whether the ledger's own counters say what its leaves say.
pub fn head(snapshot: &Snapshot, checker: &Checker) -> Check {
    let mut problems = Vec::new();
    let first = snapshot.cut.leaf;
    let expected = snapshot.size.checked_sub(1).filter(|last| *last >= first).map(|last| (first as i64, last as i64));
    if snapshot.size < first {
        problems.push(format!("{first} leaves are archived, the head says {} in all", snapshot.size));
    }
    if snapshot.bounds != expected {
        problems.push(format!("leaves go from and to {:?}, the head says {expected:?}", snapshot.bounds));
    }
    if (snapshot.invalid, snapshot.conflicts) != (checker.invalid, checker.conflicts) {
        problems.push(format!(
            "{} leaves are invalid and {} conflicts; the head says {} and {}",
            checker.invalid, checker.conflicts, snapshot.invalid, snapshot.conflicts
        ));
    }
    let names: BTreeSet<&String> = snapshot.producers.keys().chain(checker.producers.keys()).collect();
    let none = Ranges::default();
    for name in names {
        let (said, stand) =
            (snapshot.producers.get(name).unwrap_or(&none), checker.producers.get(name).unwrap_or(&none));
        if said != stand {
            problems.push(format!(
                "{} events of {name} stand as leaves, {} were received",
                stand.count(),
                said.count()
            ));
        }
    }
    for (name, positions) in &checker.streams {
        let received = snapshot.streams.get(name).unwrap_or(&none);
        let within = |(low, high): &(u64, u64)| received.iter().any(|(from, to)| from <= *low && *high <= to);
        if let Some((low, _)) = positions.iter().find(|range| !within(range)) {
            problems.push(format!("a leaf comes from {name} at or after {low}, where nothing was received"));
        }
    }
    let ok = problems.is_empty();
    let detail = if ok { format!("size {}", snapshot.size) } else { problems.join("; ") };
    Check { name: "head".into(), ok, detail }
}

/// Whether events 1 … n of every producer stand in the ledger, n by the producer's own account.
pub fn producers(assigned: &BTreeMap<String, u64>, stand: &BTreeMap<String, Ranges>) -> Vec<Producer> {
    let names: BTreeSet<&String> = assigned.keys().chain(stand.keys()).collect();
    let none = Ranges::default();
    let producer = |name: &String| {
        let ranges = stand.get(name).unwrap_or(&none);
        let (confirmed, recorded) = (ranges.contiguous(), ranges.count());
        let gap = ranges.highest() > confirmed;
        let own = name
            .rsplit_once('/')
            .is_some_and(|(source, _)| deltran_events::Domain::ALL.iter().any(|d| d.source() == source));
        let said = assigned.get(name).copied();
        let (ok, detail) = match said {
            Some(said) if confirmed < said => (false, format!("event {} is missing", confirmed + 1)),
            Some(said) if gap => {
                (false, format!("{said} were given out; event {} is missing, and later ones stand", confirmed + 1))
            }
            Some(_) => (true, String::new()),
            None if gap && own => (false, format!("event {} is missing", confirmed + 1)),
            None if gap => (true, "an outside publisher: its gaps are its own".to_owned()),
            None if own => (true, "not asked: contiguity only".to_owned()),
            None => (true, "an outside publisher".to_owned()),
        };
        Producer { name: name.clone(), assigned: said.unwrap_or(0), confirmed, recorded, ok, detail }
    };
    names.into_iter().map(producer).collect()
}

/// The check over all producers; `silent` are the places that did not answer.
pub fn producers_check(producers: &[Producer], silent: &[String]) -> Check {
    let bad: Vec<String> = producers.iter().filter(|p| !p.ok).map(|p| format!("{}: {}", p.name, p.detail)).collect();
    let ok = bad.is_empty() && silent.is_empty();
    let mut detail = if bad.is_empty() { format!("{} producers", producers.len()) } else { bad.join("; ") };
    for place in silent {
        detail.push_str(&format!("; no answer from {place}"));
    }
    Check { name: "producers".into(), ok, detail }
}

/// How many sequences within what a stream holds were received.
pub fn received_of(held: Held, received: &Ranges) -> u64 {
    if held.messages == 0 {
        return 0;
    }
    received.within(held.first, held.last).count()
}

/// A stream against what was received of it and not lost since; `held` is what the broker says, or why it says nothing.
pub fn stream(name: &str, held: &Result<Held, String>, received: &Ranges) -> Stream {
    match held {
        Err(why) => {
            Stream { name: name.into(), messages: 0, last_sequence: 0, recorded: 0, ok: false, detail: why.clone() }
        }
        Ok(held) => {
            let recorded = received_of(*held, received);
            let detail = match recorded.cmp(&held.messages) {
                std::cmp::Ordering::Equal => String::new(),
                std::cmp::Ordering::Less => format!("{} messages are not recorded", held.messages - recorded),
                std::cmp::Ordering::Greater => {
                    format!("the stream lost {} recorded messages", recorded - held.messages)
                }
            };
            let ok = recorded == held.messages;
            Stream { name: name.into(), messages: held.messages, last_sequence: held.last, recorded, ok, detail }
        }
    }
}

/// The check over all streams.
pub fn streams_check(streams: &[Stream]) -> Check {
    let bad: Vec<String> = streams.iter().filter(|s| !s.ok).map(|s| format!("{}: {}", s.name, s.detail)).collect();
    let messages: u64 = streams.iter().map(|s| s.messages).sum();
    let detail =
        if bad.is_empty() { format!("{} streams, {messages} messages", streams.len()) } else { bad.join("; ") };
    Check { name: "streams".into(), ok: bad.is_empty(), detail }
}

/// The token ledger's own invariants, and its transactions against their leaves. The ledger was counted
/// while the leaves went from the first to the second number.
pub fn ledger(says: &Result<LedgerSays, String>, leaves: (u64, u64)) -> Vec<Check> {
    let says = match says {
        Ok(says) => says,
        Err(why) => return vec![Check { name: "ledger".into(), ok: false, detail: format!("no answer: {why}") }],
    };
    let mut checks: Vec<Check> = says
        .invariants
        .iter()
        .map(|(name, ok, detail)| Check { name: format!("ledger {name}"), ok: *ok, detail: detail.clone() })
        .collect();
    if checks.is_empty() {
        checks.push(Check { name: "ledger".into(), ok: false, detail: "it reported no invariant".into() });
    }
    let (low, high) = leaves;
    let count = if low == high { low.to_string() } else { format!("{low} to {high}") };
    checks.push(Check {
        name: "ledger transactions".into(),
        ok: (low..=high).contains(&says.transactions),
        detail: format!("{} decided in the ledger, {count} stand as leaves", says.transactions),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[i64]) -> Ranges {
        Ranges::from_pairs(pairs).unwrap()
    }

    #[test]
    fn producers_must_stand_whole() {
        let assigned = BTreeMap::from([("token-engine/1".to_owned(), 10), ("risk-engine/1".to_owned(), 0)]);
        let ok = |stand: &[i64]| {
            producers(&assigned, &BTreeMap::from([("token-engine/1".to_owned(), ranges(stand))])).iter().all(|p| p.ok)
        };
        assert!(ok(&[1, 10]) && ok(&[1, 12]), "later events may have come meanwhile");
        assert!(!ok(&[1, 9]) && !ok(&[2, 10]) && !ok(&[1, 4, 6, 10]) && !ok(&[1, 10, 12, 12]) && !ok(&[]));
        let others = |name: &str, stand: &[i64]| {
            producers(&BTreeMap::new(), &BTreeMap::from([(name.to_owned(), ranges(stand))])).iter().all(|p| p.ok)
        };
        assert!(others("token-engine/1", &[1, 3]) && !others("token-engine/1", &[1, 3, 5, 5]));
        assert!(others("acme-feed/1", &[5, 9]), "what outsiders number is their matter");
        assert!(!producers_check(&[], &["10.0.0.5".into()]).ok);
    }

    #[test]
    fn streams_must_be_received_whole() {
        let held = |messages, first, last| Ok(Held { messages, first, last });
        let ok = |held: &Result<Held, String>, received: &[i64]| stream("RISK", held, &ranges(received)).ok;
        assert!(ok(&held(10, 1, 10), &[1, 10]) && ok(&held(3, 8, 10), &[1, 12]) && ok(&held(0, 11, 10), &[1, 10]));
        assert!(ok(&held(0, 0, 0), &[]));
        assert!(!ok(&held(10, 1, 10), &[1, 9]) && !ok(&held(10, 1, 10), &[2, 11]) && !ok(&held(9, 1, 10), &[1, 10]));
        assert!(!ok(&Err("no such stream".into()), &[]));
    }

    #[test]
    fn the_ledger_must_agree_with_its_leaves() {
        let says = |transactions| Ok(LedgerSays { invariants: vec![("L1".into(), true, String::new())], transactions });
        let ok = |says: &Result<LedgerSays, String>, leaves| ledger(says, leaves).iter().all(|c| c.ok);
        assert!(ok(&says(5), (5, 5)) && ok(&says(6), (5, 7)));
        assert!(!ok(&says(5), (4, 4)) && !ok(&says(8), (5, 7)) && !ok(&Err("away".into()), (0, 0)));
        assert!(!ok(&Ok(LedgerSays { invariants: vec![], transactions: 0 }), (0, 0)));
    }

    #[test]
    fn the_head_must_say_what_the_leaves_say() {
        let mut checker = Checker::default();
        checker.producers.insert("risk-engine/1".into(), ranges(&[1, 2]));
        checker.streams.insert("RISK".into(), ranges(&[4, 5]));
        let good = Snapshot {
            size: 2,
            bounds: Some((0, 1)),
            producers: checker.producers.clone(),
            streams: BTreeMap::from([("RISK".to_owned(), ranges(&[1, 9]))]),
            ..Snapshot::default()
        };
        assert!(head(&good, &checker).ok, "{}", head(&good, &checker).detail);
        for bad in [
            Snapshot { size: 3, ..good.clone() },
            Snapshot { bounds: Some((0, 5)), ..good.clone() },
            Snapshot { invalid: 1, ..good.clone() },
            Snapshot { producers: BTreeMap::new(), ..good.clone() },
            Snapshot { streams: BTreeMap::new(), ..good.clone() },
        ] {
            assert!(!head(&bad, &checker).ok);
        }
        assert!(head(&Snapshot::default(), &Checker::default()).ok);
    }
}
