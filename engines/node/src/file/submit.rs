//! A file of transactions on its way to the platform: a reader, a stream per payer, one tally.
//!
//! Everything between the parts is bounded, so that memory stays flat whatever the file's size. What was not answered is
//! sent again under its id, which is harmless.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deltran_api::token::v1::SettlementModel;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::csv::{BadHeader, Lines};
use super::lane::{Item, Lane, Progress};
use super::line;
use super::report::RefusedLine;
use super::tally::{Message, Tally};
use crate::client::Session;
use crate::problem::Problem;

/// Streams that are open at once; a payer whose stream has waited longest makes room for another.
const MAX_LANES: usize = 64;
/// Lines that travel together from the reader.
const CHUNK: usize = 256;

/// What to submit, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The CSV file.
    pub file: PathBuf,
    /// Transactions per message.
    pub batch: usize,
    /// Where to write refused lines.
    pub report: Option<PathBuf>,
    /// The model of lines that have none.
    pub model: SettlementModel,
    /// How long to go on without any answer.
    pub timeout: Duration,
}

/// A line as the reader hands it on.
type Parsed = Result<Item, RefusedLine>;

/// Submits a file and prints the summary.
///
/// # Errors
/// Where the file cannot be used, lines were refused, or the platform does not answer.
pub async fn submit_file(session: &Session, options: Options) -> Result<(), Problem> {
    let started = Instant::now();
    let (read_bytes, lines) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (parsed_tx, parsed) = mpsc::channel(8);
    let reader = tokio::task::spawn_blocking({
        let (options, read_bytes, lines) = (options.clone(), read_bytes.clone(), lines.clone());
        move || read(&options, &read_bytes, &lines, &parsed_tx)
    });

    let (tally_tx, tally_rx) = mpsc::channel(64);
    let tally = tokio::spawn(Tally::new(options.report.clone())?.run(tally_rx));
    let progress = Arc::new(Progress::new(options.timeout));
    let bar = tokio::spawn(draw(bar(session, &options)?, read_bytes, progress.clone()));
    let watchdog = tokio::spawn(progress.clone().watch());

    let dispatcher = Dispatcher {
        session: session.clone(),
        batch: options.batch,
        progress: progress.clone(),
        tally: tally_tx,
        permits: Arc::new(Semaphore::new(MAX_LANES)),
        lanes: BTreeMap::new(),
        running: JoinSet::new(),
        turn: 0,
    };
    let interrupt = tokio::signal::ctrl_c();
    let interrupted = tokio::select! {
        () = dispatcher.run(parsed) => false,
        _ = interrupt => {
            progress.stop.cancel();
            true
        }
    };
    watchdog.abort();
    bar.abort();
    let read = reader.await.map_err(|e| Problem::refused(format!("the reader broke off: {e}")))?;
    let mut summary = tally.await.map_err(|e| Problem::refused(format!("the tally broke off: {e}")))?;
    let named = options.file.display();
    if let Err(problem) = &read
        && summary.lines() == 0
    {
        return Err(problem.clone());
    }
    summary.elapsed = started.elapsed();
    let total = lines.load(Ordering::Relaxed);
    session.out.value_or(&summary.json(), || summary.text());
    read?;
    summary.report_written()?;
    let undecided = format!(
        "{} of {total} lines that were read are decided; run the same command again to continue, nothing is done twice",
        summary.lines()
    );
    if interrupted {
        return Err(Problem::refused(format!("{named}: interrupted: {undecided}")));
    }
    if let Some(why) = progress.gave_up() {
        let seconds = options.timeout.as_secs();
        return Err(Problem::unavailable(format!("{named}: no answer for {seconds} s ({why}): {undecided}")));
    }
    summary.verdict(&named.to_string())
}

/// Reads lines until the file ends or nobody wants them any more.
fn read(
    options: &Options,
    bytes: &AtomicU64,
    count: &AtomicU64,
    to: &mpsc::Sender<Vec<Parsed>>,
) -> Result<(), Problem> {
    let named = options.file.display();
    let refused = |e: &dyn std::fmt::Display| Problem::refused(format!("{named}: {e}"));
    let file = File::open(&options.file).map_err(|e| refused(&e))?;
    let mut lines = Lines::new(BufReader::with_capacity(256 * 1024, file));
    let header = match lines.next_line().map_err(|e| refused(&e))? {
        None => return Err(refused(&BadHeader::Empty)),
        Some((_, Err(bad))) => return Err(refused(&BadHeader::Line(bad))),
        Some((_, Ok(first))) => line::header(first).map_err(|e| refused(&e))?,
    };
    let mut chunk = Vec::with_capacity(CHUNK);
    loop {
        let next = lines.next_line().map_err(|e| refused(&e))?.map(|(number, text)| {
            let malformed = |end_to_end_id, message| RefusedLine {
                line: number,
                end_to_end_id,
                reason: "malformed".to_owned(),
                message,
            };
            match text {
                Err(bad) => Err(malformed(String::new(), bad.to_string())),
                Ok(text) => line::instruction(&header, text, options.model)
                    .map(|instruction| Item { line: number, instruction })
                    .map_err(|(id, why)| malformed(id, why)),
            }
        });
        let ended = next.is_none();
        count.fetch_add(u64::from(!ended), Ordering::Relaxed);
        chunk.extend(next);
        if chunk.len() == CHUNK || (ended && !chunk.is_empty()) {
            bytes.store(lines.bytes(), Ordering::Relaxed);
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
            if to.blocking_send(full).is_err() {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
    }
}

fn bar(session: &Session, options: &Options) -> Result<ProgressBar, Problem> {
    let named = options.file.display();
    let size = std::fs::metadata(&options.file).map_err(|e| Problem::refused(format!("{named}: {e}")))?.len();
    if session.out.json || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}  {eta} left");
    Ok(ProgressBar::new(size).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
}

/// Redraws the bar until it is aborted.
async fn draw(bar: ProgressBar, bytes: Arc<AtomicU64>, progress: Arc<Progress>) {
    let started = Instant::now();
    let bar = ClearOnDrop(bar);
    loop {
        let decided = progress.decided();
        let rate = u128::from(decided) * 1000 / started.elapsed().as_millis().max(1);
        bar.0.set_position(bytes.load(Ordering::Relaxed));
        bar.0.set_message(format!("{decided} decided, {rate}/s"));
        sleep(Duration::from_millis(200)).await;
    }
}

struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Deals lines out to the streams of their payers.
struct Dispatcher {
    session: Session,
    batch: usize,
    progress: Arc<Progress>,
    tally: mpsc::Sender<Message>,
    permits: Arc<Semaphore>,
    lanes: BTreeMap<String, Entrance>,
    running: JoinSet<()>,
    turn: u64,
}

/// The near end of a payer's stream.
struct Entrance {
    filling: Vec<Item>,
    to: mpsc::Sender<Vec<Item>>,
    last_used: u64,
}

impl Dispatcher {
    /// Returns when every line is decided, or it was given up.
    async fn run(mut self, mut parsed: mpsc::Receiver<Vec<Parsed>>) {
        let stop = self.progress.stop.clone();
        tokio::select! {
            () = self.deal(&mut parsed) => {}
            () = stop.cancelled() => {}
        }
        // Dropping the entrances ends the streams once all is answered.
        self.lanes.clear();
        while self.running.join_next().await.is_some() {}
    }

    async fn deal(&mut self, parsed: &mut mpsc::Receiver<Vec<Parsed>>) {
        while let Some(chunk) = parsed.recv().await {
            for item in chunk {
                match item {
                    Ok(item) => self.hand_on(item).await,
                    Err(refused) => {
                        self.progress.add_decided(1);
                        // The tally lives until every sender is gone.
                        let _ended = self.tally.send(Message::Malformed(refused)).await;
                    }
                }
            }
        }
        for entrance in std::mem::take(&mut self.lanes).into_values() {
            if !entrance.filling.is_empty() {
                let _given_up = entrance.to.send(entrance.filling).await;
            }
        }
    }

    async fn hand_on(&mut self, item: Item) {
        self.turn += 1;
        let payer = item.instruction.payer.clone();
        if !self.lanes.contains_key(&payer) {
            self.make_room().await;
            self.open(&payer);
        }
        let Some(entrance) = self.lanes.get_mut(&payer) else { return };
        entrance.last_used = self.turn;
        entrance.filling.push(item);
        if entrance.filling.len() >= self.batch {
            let full = std::mem::replace(&mut entrance.filling, Vec::with_capacity(self.batch));
            let _given_up = entrance.to.send(full).await;
        }
    }

    /// Lets the stream go that has waited longest, once there are as many as there may be.
    async fn make_room(&mut self) {
        if self.lanes.len() < MAX_LANES {
            return;
        }
        let oldest = self.lanes.iter().min_by_key(|(_, entrance)| entrance.last_used).map(|(payer, _)| payer.clone());
        if let Some(entrance) = oldest.and_then(|payer| self.lanes.remove(&payer))
            && !entrance.filling.is_empty()
        {
            let _given_up = entrance.to.send(entrance.filling).await;
        }
    }

    fn open(&mut self, payer: &str) {
        let (to, from) = mpsc::channel(1);
        let lane = Lane {
            session: self.session.clone(),
            payer: payer.to_owned(),
            progress: self.progress.clone(),
            tally: self.tally.clone(),
        };
        let permits = self.permits.clone();
        self.running.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire_owned().await;
            lane.run(from).await;
        });
        let entrance = Entrance { filling: Vec::with_capacity(self.batch), to, last_used: self.turn };
        self.lanes.insert(payer.to_owned(), entrance);
    }
}
