//! `deltran bench screening`: names looked up in a list of many, without a database.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use deltran_compliance::domain::list::{self, Files, List, Source};
use deltran_compliance::domain::matcher::{Matcher, Subject};
use deltran_compliance::domain::screening::Thresholds;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::Setting;
use super::figure::{Figure, percentiles};
use super::load::{POOL, name};
use super::report::Report;
use crate::problem::Problem;

/// Of so many names that are looked up, one is like one of the list.
const LIKE_EVERY: usize = 50;
/// Matches that are asked for.
const MOST: usize = 20;

/// Measure screening
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Names of persons and companies, some of them like a listed one, are looked up one after the other on one core. \
The list is
made from syllables, with ordinary names among them; --lists takes real ones: sdn.csv with alt.csv and add.csv, and the UN's
consolidated.xml.

Examples:
  deltran bench screening
  deltran bench screening --lists /var/lists --count 100000"
)]
pub struct ScreeningBench {
    /// Names that are looked up in a run
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    count: u32,
    /// Names of the list
    #[arg(long, default_value_t = 17_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    names: u32,
    /// Folder of real lists
    #[arg(long, value_name = "DIR")]
    lists: Option<PathBuf>,
}

/// Measures.
///
/// # Errors
/// Where a list cannot be read.
pub fn run(args: &ScreeningBench, setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    let lists = match &args.lists {
        Some(folder) => read(folder)?,
        None => vec![parsed(Source::Operator, Files::from([file(Source::Operator, made(args.names, setting.seed))]))?],
    };
    let names: Vec<String> = lists
        .iter()
        .flat_map(|list| list.entries.iter().flat_map(|entry| entry.names.iter().map(|n| n.name.clone())))
        .collect();
    report.set("screening.count", args.count);
    report.set("screening.names", names.len() as u64);
    let matcher = Matcher::new(lists.into_iter().map(Arc::new).collect());
    let mut scratch = matcher.scratch();
    let mut rng = StdRng::seed_from_u64(setting.seed);
    let (mut rates, mut slow, mut found_in_all) = (Vec::new(), Vec::new(), 0u64);
    // The first round warms up.
    for run in 0..=setting.runs {
        let subjects: Vec<Subject> = (0..args.count as usize)
            .map(|n| {
                let name = match n % LIKE_EVERY {
                    0 => altered(&names[rng.random_range(0..names.len())]),
                    _ => name(rng.random_range(0..POOL)),
                };
                Subject { name, ..Subject::default() }
            })
            .collect();
        let mut times = Vec::with_capacity(subjects.len());
        for subject in &subjects {
            let started = Instant::now();
            let found = matcher.search(subject, Thresholds::default().review, MOST, &mut scratch);
            times.push(started.elapsed().as_secs_f64() * 1e6);
            found_in_all += u64::from(!found.is_empty());
        }
        if run > 0 {
            rates.push(times.len() as f64 * 1e6 / times.iter().sum::<f64>());
            let [p99] = percentiles(&mut times, [0.99]);
            slow.push(p99);
        }
    }
    let all = f64::from(args.count) * f64::from(setting.runs + 1);
    report.set("screening.held_percent", (found_in_all as f64 * 10_000.0 / all).round() / 100.0);
    report
        .add(Figure::rate("screening.names", "screening: names looked up, one core", "names/s", rates).target(5_000.0));
    report.add(Figure::cost("screening.p99", "screening: one name, p99", "µs", slow));
    Ok(())
}

fn file(source: Source, content: Vec<u8>) -> (String, Vec<u8>) {
    (source.files()[0].to_owned(), content)
}

fn parsed(source: Source, files: Files) -> Result<List, Problem> {
    list::parse(source, &files).map_err(|e| Problem::refused(format!("list {}: {e}", source.as_str())))
}

fn read(folder: &std::path::Path) -> Result<Vec<List>, Problem> {
    let content = |name: &str| std::fs::read(folder.join(name)).ok();
    let ofac: Files =
        Source::Ofac.files().iter().filter_map(|name| Some(((*name).to_owned(), content(name)?))).collect();
    let un = ["consolidated.xml", "UN_consolidated.xml"].into_iter().find_map(content);
    let mut lists = Vec::new();
    if !ofac.is_empty() {
        lists.push(parsed(Source::Ofac, ofac)?);
    }
    if let Some(un) = un {
        lists.push(parsed(Source::Un, Files::from([file(Source::Un, un)]))?);
    }
    if lists.is_empty() {
        return Err(Problem::refused(format!("{} holds neither sdn.csv nor consolidated.xml", folder.display())));
    }
    Ok(lists)
}

/// An operator's list of so many names; every fourth has an ordinary word.
fn made(count: u32, seed: u64) -> Vec<u8> {
    const SYLLABLES: [&str; 30] = [
        "ba", "bu", "cha", "da", "del", "dro", "fa", "gor", "ha", "il", "ja", "ka", "khe", "li", "ma", "mir", "na",
        "or", "pe", "qa", "ra", "sa", "shu", "ta", "tov", "ul", "va", "wa", "ya", "zo",
    ];
    let mut rng = StdRng::seed_from_u64(seed);
    let mut text = String::new();
    for n in 0..count {
        let words = 2 + rng.random_range(0..3usize);
        for word in 0..words {
            if word > 0 {
                text.push(' ');
            }
            if n % 4 == 0 && word + 1 == words {
                let ordinary = name(rng.random_range(0..POOL));
                text.push_str(ordinary.split(' ').next().unwrap_or("Ivan"));
                continue;
            }
            for _ in 0..2 + rng.random_range(0..2usize) {
                text.push_str(SYLLABLES[rng.random_range(0..SYLLABLES.len())]);
            }
        }
        text.push('\n');
    }
    text.into_bytes()
}

/// The name without its third letter.
fn altered(name: &str) -> String {
    name.chars().enumerate().filter(|(place, _)| *place != 2).map(|(_, letter)| letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_one() {
        let list = parsed(Source::Operator, Files::from([file(Source::Operator, made(2_000, 1))])).unwrap();
        assert!(list.entries.len() > 1_900, "{}", list.entries.len());
    }
}
