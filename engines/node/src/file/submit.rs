//! A file of transactions on its way to the platform: a reader, a stream per payer, one tally.
//!
//! Everything between the parts is bounded, so that memory stays flat whatever the file's size. What was not answered is
//! sent again under its id, which is harmless.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deltran_api::token::v1::SettlementModel;
use indicatif::ProgressBar;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::lane::{Item, Lane, Progress};
use super::source::{self, Format, Parsed, Unusable};
use super::tally::{Message, Tally};
use crate::client::Session;
use crate::problem::Problem;

/// Streams that are open at once; a payer whose stream has waited longest makes room for another.
const MAX_LANES: usize = 64;
/// Items that wait for a message of their payer to be full. Where there are so many, the fullest message goes as it is:
/// with very many payers, that is better than a stream for each line.
const MAX_WAITING: usize = 32 * 1024;
/// Items that travel together from the reader.
const CHUNK: usize = 256;
/// How long a reader that is stopped may take to say how far it came.
const LAST_READ: Duration = Duration::from_secs(1);

/// What to submit, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file; `-` is standard input.
    pub file: PathBuf,
    /// Its format; told by its first byte where it is not given.
    pub format: Option<Format>,
    /// Transactions per message.
    pub batch: usize,
    /// Where to write refused lines.
    pub report: Option<PathBuf>,
    /// The model of items that have none.
    pub model: SettlementModel,
    /// How long to go on without any answer.
    pub timeout: Duration,
}

/// Submits a file and prints the summary.
///
/// # Errors
/// Where the file cannot be used, lines were refused, or the platform does not answer.
pub async fn submit_file(session: &Session, options: Options) -> Result<(), Problem> {
    let started = Instant::now();
    if let Some(report) = options.report.as_deref().filter(|report| same_file(report, &options.file)) {
        let why = "is the file that is submitted: the refused lines would overwrite it";
        return Err(Problem::refused(format!("--report {}: {why}", report.display())));
    }
    let (tally_tx, tally_rx) = mpsc::channel(64);
    let tally = tokio::spawn(Tally::new(options.report.clone())?.run(tally_rx));
    let reading = Arc::new(Reading::default());
    let (parsed_tx, parsed) = mpsc::channel(8);
    let reader = tokio::task::spawn_blocking({
        let (options, reading) = (options.clone(), reading.clone());
        move || read(&options, &reading, &parsed_tx)
    });

    let progress = Arc::new(Progress::new(options.timeout));
    let bar = tokio::spawn(draw(bar(session, &options), reading.clone(), progress.clone()));
    let watchdog = tokio::spawn(progress.clone().watch());

    let dispatcher = Dispatcher {
        session: session.clone(),
        batch: options.batch,
        progress: progress.clone(),
        tally: tally_tx,
        permits: Arc::new(Semaphore::new(MAX_LANES)),
        filling: BTreeMap::new(),
        waiting: 0,
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
    let read = match progress.stop.is_cancelled() {
        false => reader.await,
        // It may wait for ever for what nobody wants any more.
        true => timeout(LAST_READ, reader).await.unwrap_or(Ok(Ok(()))),
    };
    let read = read.map_err(|e| Problem::refused(format!("the reader broke off: {e}")))?;
    let mut summary = tally.await.map_err(|e| Problem::refused(format!("the tally broke off: {e}")))?;
    let named = options.file.display();
    if let Err(problem) = &read
        && summary.lines() == 0
    {
        return Err(problem.clone());
    }
    summary.elapsed = started.elapsed();
    summary.items = reading.format.get().copied().unwrap_or(Format::Csv).items();
    let total = reading.items.load(Ordering::Relaxed);
    session.out.value_or(&summary.json(), || summary.text());
    read?;
    summary.report_written()?;
    let undecided = format!(
        "{} of {total} {} that were read are decided; run the same command again to continue, nothing is done twice",
        summary.lines(),
        summary.items
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

/// Whether two names lead to one file that is there.
fn same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().filter(|m| m.is_file()).map(|m| (m.dev(), m.ino()));
    id(one).is_some_and(|one| Some(one) == id(other))
}

/// How far the reader has come.
#[derive(Default)]
struct Reading {
    bytes: AtomicU64,
    items: AtomicU64,
    checking: AtomicBool,
    format: OnceLock<Format>,
}

/// Reads items until the file ends or nobody wants them any more.
fn read(options: &Options, reading: &Reading, to: &mpsc::Sender<Vec<Parsed>>) -> Result<(), Problem> {
    let named = options.file.display();
    let refused = |e: Unusable| Problem::refused(format!("{named}: {e}"));
    let opened = source::open(&options.file, options.format, options.model, &mut |bytes| {
        reading.checking.store(true, Ordering::Relaxed);
        reading.bytes.store(bytes, Ordering::Relaxed);
        !to.is_closed()
    });
    let Some((format, mut source)) = opened.map_err(refused)? else { return Ok(()) };
    reading.format.get_or_init(|| format);
    reading.checking.store(false, Ordering::Relaxed);
    let mut chunk = Vec::with_capacity(CHUNK);
    loop {
        let next = source.next_item();
        let ended = !matches!(next, Ok(Some(_)));
        let broken = next.map(|item| chunk.extend(item)).err();
        reading.items.fetch_add(u64::from(!ended), Ordering::Relaxed);
        if chunk.len() == CHUNK || (ended && !chunk.is_empty()) {
            reading.bytes.store(source.bytes(), Ordering::Relaxed);
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
            if to.blocking_send(full).is_err() {
                return Ok(());
            }
        }
        if ended {
            return broken.map_or(Ok(()), |e| Err(refused(e)));
        }
    }
}

fn bar(session: &Session, options: &Options) -> ProgressBar {
    // What has no size, such as a pipe, has no share of it; a file that is not there is told by its reader.
    let size = std::fs::metadata(&options.file).map_or(0, |file| file.len());
    match size {
        0 => ProgressBar::hidden(),
        size => session.out.bar_like("{bar:40} {percent:>3} %  {msg}  {eta} left", size),
    }
}

/// Redraws the bar until it is aborted.
async fn draw(bar: ProgressBar, reading: Arc<Reading>, progress: Arc<Progress>) {
    let started = Instant::now();
    let bar = ClearOnDrop(bar);
    loop {
        let decided = progress.decided();
        let rate = u128::from(decided) * 1000 / started.elapsed().as_millis().max(1);
        bar.0.set_position(reading.bytes.load(Ordering::Relaxed));
        bar.0.set_message(match reading.checking.load(Ordering::Relaxed) {
            true => "checking the control totals".to_owned(),
            false => format!("{decided} decided, {rate}/s"),
        });
        sleep(Duration::from_millis(200)).await;
    }
}

struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Deals transactions out to the streams of their payers.
struct Dispatcher {
    session: Session,
    batch: usize,
    progress: Arc<Progress>,
    tally: mpsc::Sender<Message>,
    permits: Arc<Semaphore>,
    /// Messages that are not full yet, by payer.
    filling: BTreeMap<String, Vec<Item>>,
    /// Items in them.
    waiting: usize,
    lanes: BTreeMap<String, Entrance>,
    running: JoinSet<()>,
    turn: u64,
}

/// The near end of a payer's stream.
struct Entrance {
    to: mpsc::Sender<Vec<Item>>,
    last_used: u64,
}

impl Dispatcher {
    /// Returns when every item is decided, or it was given up.
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
        for (payer, items) in std::mem::take(&mut self.filling) {
            self.send(&payer, items).await;
        }
    }

    async fn hand_on(&mut self, item: Item) {
        let payer = item.instruction.payer.clone();
        let filling = self.filling.entry(payer.clone()).or_default();
        filling.push(item);
        self.waiting += 1;
        let goes = if filling.len() >= self.batch {
            Some(payer)
        } else if self.waiting >= MAX_WAITING {
            self.filling.iter().max_by_key(|(_, items)| items.len()).map(|(payer, _)| payer.clone())
        } else {
            None
        };
        if let Some((payer, items)) = goes.and_then(|payer| self.filling.remove_entry(&payer)) {
            self.waiting -= items.len();
            self.send(&payer, items).await;
        }
    }

    /// Sends a message over the stream of its payer.
    async fn send(&mut self, payer: &str, items: Vec<Item>) {
        self.turn += 1;
        if !self.lanes.contains_key(payer) {
            self.make_room();
            self.open(payer).await;
        }
        let Some(entrance) = self.lanes.get_mut(payer) else { return };
        entrance.last_used = self.turn;
        let _given_up = entrance.to.send(items).await;
    }

    /// Lets the stream go that has waited longest, once there are as many as there may be.
    fn make_room(&mut self) {
        if self.lanes.len() < MAX_LANES {
            return;
        }
        let oldest = self.lanes.iter().min_by_key(|(_, entrance)| entrance.last_used).map(|(payer, _)| payer.clone());
        oldest.and_then(|payer| self.lanes.remove(&payer));
    }

    /// Opens a stream once there is room for one: those that were let go end first, so that what waits stays bounded
    /// however many payers there are.
    async fn open(&mut self, payer: &str) {
        // The semaphore is never closed.
        let permit = self.permits.clone().acquire_owned().await;
        while self.running.try_join_next().is_some() {}
        let (to, from) = mpsc::channel(1);
        let lane = Lane {
            session: self.session.clone(),
            payer: payer.to_owned(),
            progress: self.progress.clone(),
            tally: self.tally.clone(),
        };
        self.running.spawn(async move {
            let _permit = permit;
            lane.run(from).await;
        });
        let entrance = Entrance { to, last_used: self.turn };
        self.lanes.insert(payer.to_owned(), entrance);
    }
}

#[cfg(test)]
mod tests {
    use deltran_api::token::v1::TransactionInstruction;
    use tokio::net::TcpListener;

    use super::super::source::Position;
    use super::*;
    use crate::client::ClientArgs;
    use crate::output::Output;

    /// A dispatcher of messages of 500, connected to somebody who never answers.
    async fn dispatcher() -> (Dispatcher, TcpListener) {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let args = ClientArgs::at(&format!("http://{}", silent.local_addr().unwrap()));
        let (tally, _told) = mpsc::channel(64);
        let dispatcher = Dispatcher {
            session: Session::open(&args, Output { json: true }).await.unwrap(),
            batch: 500,
            progress: Arc::new(Progress::new(Duration::from_secs(60))),
            tally,
            permits: Arc::new(Semaphore::new(MAX_LANES)),
            filling: BTreeMap::new(),
            waiting: 0,
            lanes: BTreeMap::new(),
            running: JoinSet::new(),
            turn: 0,
        };
        (dispatcher, silent)
    }

    fn item(n: usize, payers: usize) -> Item {
        let payer = format!("B{:03}AEXX", n % payers);
        let instruction = TransactionInstruction { payer, ..TransactionInstruction::default() };
        Item { position: Position { line: n as u64, transaction: None }, instruction }
    }

    /// Each line is another payer's, and nobody answers: reading stops while as many streams wait as there may be.
    #[tokio::test]
    async fn streams_that_wait_stay_bounded() {
        let (mut dispatcher, _silent) = dispatcher().await;
        let (to, mut parsed) = mpsc::channel(8);
        to.send((0..300).map(|n| Ok(item(n, 300))).collect::<Vec<Parsed>>()).await.unwrap();
        drop(to);
        tokio::select! {
            () = dispatcher.deal(&mut parsed) => panic!("everything was read, and nobody had answered"),
            () = async { for _ in 0..10_000 { tokio::task::yield_now().await } } => {}
        }
        assert_eq!(dispatcher.running.len(), MAX_LANES);
    }

    /// Payers take turns line by line, more of them than there are streams: nothing goes before a message is full, or
    /// before as many lines wait as may.
    #[tokio::test]
    async fn lines_of_very_many_payers_are_gathered() {
        let (mut dispatcher, _silent) = dispatcher().await;
        for n in 0..MAX_WAITING - 1 {
            dispatcher.hand_on(item(n, 900)).await;
        }
        assert_eq!((dispatcher.running.len(), dispatcher.waiting), (0, MAX_WAITING - 1));
        dispatcher.hand_on(item(MAX_WAITING - 1, 900)).await;
        assert_eq!(dispatcher.running.len(), 1);
        assert_eq!(dispatcher.waiting, MAX_WAITING - MAX_WAITING.div_ceil(900));
        let (mut few, _silent) = self::dispatcher().await;
        for n in 0..1_500 {
            few.hand_on(item(n, 3)).await;
        }
        assert_eq!((few.running.len(), few.waiting), (3, 0), "full messages go");
    }
}
