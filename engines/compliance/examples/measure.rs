//! Measures the screening over real lists: `cargo run -p deltran-compliance --example measure -- FOLDER [names.txt…]`.
//!
//! The folder has sdn.csv with alt.csv and add.csv beside it, and UN_consolidated.xml or consolidated.xml. Every further
//! argument is a file of names, one a line, where wanted with a tab and the entry that it belongs to (`ofac:12345`): how
//! many of them are held, and find their entry, is printed. `--show` prints the names that are held and why, `--miss`
//! those that do not find their entry, and `--cold` searches each name with nothing remembered of those before it.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltran_compliance::domain::list::{self, Files, List, Source};
use deltran_compliance::domain::matcher::{Match, Matcher, Scratch, Subject};
use deltran_compliance::domain::screening::Thresholds;

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> Fallible<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let mut plain = args.iter().filter(|arg| !arg.starts_with("--"));
    let folder = plain.next().ok_or("usage: measure FOLDER [names.txt...] [--show] [--miss]")?;

    let started = Instant::now();
    let lists = read(Path::new(folder))?;
    let read_in = started.elapsed();
    let matcher = Matcher::new(lists.into_iter().map(Arc::new).collect());
    let loaded_in = started.elapsed();
    for list in matcher.lists() {
        println!("{:9} {:6} entries {:6} further names", list.source, list.names(), list.aliases());
    }
    println!("read in {} ms, ready to search in {} ms", read_in.as_millis(), loaded_in.as_millis());

    let mut scratch = Memory { kept: matcher.scratch(), cold: has("--cold") };
    itself(&matcher, &mut scratch);
    for file in plain {
        names(&matcher, &mut scratch, file, has("--show"), has("--miss"))?;
    }
    Ok(())
}

fn read(folder: &Path) -> Fallible<Vec<List>> {
    let mut lists = Vec::new();
    let mut ofac = Files::new();
    for name in Source::Ofac.files() {
        if let Ok(content) = std::fs::read(folder.join(name)) {
            ofac.insert((*name).to_owned(), content);
        }
    }
    if !ofac.is_empty() {
        lists.push(list::parse(Source::Ofac, &ofac)?);
    }
    for name in ["consolidated.xml", "UN_consolidated.xml"] {
        if let Ok(content) = std::fs::read(folder.join(name)) {
            let files = Files::from([(Source::Un.files()[0].to_owned(), content)]);
            lists.push(list::parse(Source::Un, &files)?);
        }
    }
    Ok(lists)
}

/// What searches share.
struct Memory {
    kept: Scratch,
    cold: bool,
}

fn search(matcher: &Matcher, memory: &mut Memory, name: &str) -> Vec<Match> {
    let subject = Subject { name: name.to_owned(), ..Subject::default() };
    if memory.cold {
        memory.kept = matcher.scratch();
    }
    matcher.search(&subject, Thresholds::default().review, 20, &mut memory.kept)
}

/// Every name of every list, looked up.
fn itself(matcher: &Matcher, scratch: &mut Memory) {
    let (mut all, mut top, mut certain) = (0u32, 0u32, 0u32);
    let mut took = Vec::new();
    let mut missed = Vec::new();
    for list in matcher.lists() {
        for entry in &list.entries {
            for listed in &entry.names {
                let started = Instant::now();
                let found = search(matcher, scratch, &listed.name);
                took.push(started.elapsed());
                all += 1;
                let best = found.first().map_or(0, |m| m.score);
                let own =
                    found.iter().find(|m| m.source == list.source && m.entry_id == entry.id).map_or(0, |m| m.score);
                certain += u32::from(own == 10_000);
                if own == best && own > 0 {
                    top += 1;
                } else if missed.len() < 20 {
                    missed.push(format!("{} {:?}: {own} against {best}", entry.id, listed.name));
                }
            }
        }
    }
    println!("names of the lists: {all}; with the top score themselves {top}, certain {certain}");
    missed.iter().for_each(|line| println!("  missed {line}"));
    times(&mut took);
}

fn names(matcher: &Matcher, scratch: &mut Memory, file: &str, show: bool, miss: bool) -> Fallible<()> {
    let text = std::fs::read_to_string(file)?;
    let thresholds = Thresholds::default();
    let (mut all, mut held, mut wanted, mut right) = (0u32, 0u32, 0u32, 0u32);
    let mut took = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let mut columns = line.split('\t');
        let (name, entry) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
        let started = Instant::now();
        let found = search(matcher, scratch, name);
        took.push(started.elapsed());
        all += 1;
        held += u32::from(!found.is_empty());
        wanted += u32::from(!entry.is_empty());
        let is_right = found.iter().any(|m| format!("{}:{}", m.source, m.entry_id) == entry);
        right += u32::from(is_right);
        if show && let Some(best) = found.first() {
            let decision = thresholds.decide(best).as_str();
            println!(
                "  {name:?} {} {decision}: {:?} ({}, {})",
                best.score,
                best.matched_name,
                best.quality.as_str(),
                best.entry_id
            );
            for pair in &best.pairs {
                println!(
                    "      {:20} {:20} {:12} {:6} {:6}",
                    pair.asked,
                    pair.listed,
                    pair.how.as_str(),
                    pair.score,
                    pair.weight
                );
            }
        }
        if miss && !is_right && !entry.is_empty() {
            println!("  not found {name:?} {entry}");
            let subject = Subject { name: name.to_owned(), ..Subject::default() };
            for best in matcher.search(&subject, 0, 2, &mut scratch.kept) {
                println!("    {} {:?} {}", best.score, best.matched_name, best.entry_id);
                for pair in &best.pairs {
                    println!(
                        "      {:20} {:20} {:12} {:6} {:6}",
                        pair.asked,
                        pair.listed,
                        pair.how.as_str(),
                        pair.score,
                        pair.weight
                    );
                }
            }
        }
    }
    println!("{file}: {all} names, {held} held; of {wanted} that belong to an entry {right} found it");
    times(&mut took);
    Ok(())
}

fn times(took: &mut [Duration]) {
    took.sort();
    let sum: Duration = took.iter().sum();
    let at = |percent: usize| {
        took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    println!(
        "  {:.0} names/s on one core, median {} us, p99 {} us, longest {} us",
        took.len() as f64 / sum.as_secs_f64().max(1e-9),
        at(50).as_micros(),
        at(99).as_micros(),
        took.last().copied().unwrap_or_default().as_micros()
    );
}
