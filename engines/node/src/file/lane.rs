//! The stream of one payer: messages under way, answers to them, and a new stream where one broke.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltran_api::token::v1::submit_item::Result as Decided;
use deltran_api::token::v1::{
    SubmitItem, SubmitTransactionsRequest, SubmitTransactionsResponse, TransactionInstruction, TransactionState,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::report::RefusedLine;
use super::source::Position;
use super::tally::{Answers, Message};
use crate::client::Session;
use crate::problem::Problem;

/// Messages of one payer under way at once: one is worked on while the next waits.
const WINDOW: usize = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// A transaction with the place in the file that asked for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Where it stands.
    pub position: Position,
    /// What it asks for.
    pub instruction: TransactionInstruction,
}

/// How far all streams have come, and when to give up.
pub struct Progress {
    timeout: Duration,
    decided: AtomicU64,
    under_way: AtomicU64,
    last: Mutex<Last>,
    /// Cancelled when it is given up or interrupted.
    pub stop: CancellationToken,
}

struct Last {
    progress: Instant,
    trouble: Option<String>,
    gave_up: Option<String>,
}

impl Progress {
    /// Gives up after so long without an answer.
    pub fn new(timeout: Duration) -> Self {
        let last = Last { progress: Instant::now(), trouble: None, gave_up: None };
        Self {
            timeout,
            decided: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            last: Mutex::new(last),
            stop: CancellationToken::new(),
        }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines that are decided.
    pub fn decided(&self) -> u64 {
        self.decided.load(Ordering::Relaxed)
    }

    /// So many more lines are decided.
    pub fn add_decided(&self, lines: u64) {
        self.decided.fetch_add(lines, Ordering::Relaxed);
        self.last().progress = Instant::now();
    }

    fn sent(&self, messages: u64) {
        // What begins after a pause has its whole time.
        if self.under_way.fetch_add(messages, Ordering::Relaxed) == 0 {
            self.last().progress = Instant::now();
        }
    }

    fn answered(&self, messages: u64) {
        self.under_way.fetch_sub(messages, Ordering::Relaxed);
    }

    fn trouble(&self, what: String) {
        self.last().trouble = Some(what);
    }

    /// Why it was given up, if it was.
    pub fn gave_up(&self) -> Option<String> {
        self.last().gave_up.clone()
    }

    /// Gives up when something is under way and nothing is answered for too long.
    pub async fn watch(self: Arc<Self>) {
        loop {
            sleep(Duration::from_millis(200)).await;
            let mut last = self.last();
            if self.under_way.load(Ordering::Relaxed) > 0 && last.progress.elapsed() > self.timeout {
                let why = last.trouble.clone().unwrap_or_else(|| "the platform is connected, but silent".to_owned());
                last.gave_up = Some(why);
                self.stop.cancel();
                return;
            }
        }
    }
}

/// The stream of one payer.
pub struct Lane {
    /// The way to the platform.
    pub session: Session,
    /// Who pays, and calls.
    pub payer: String,
    /// Shared with all other streams.
    pub progress: Arc<Progress>,
    /// Where answers are counted.
    pub tally: mpsc::Sender<Message>,
}

/// What is under way in one stream.
struct UnderWay {
    messages: BTreeMap<u64, Vec<Item>>,
    next: u64,
    /// To be sent again, after a pause.
    again: Vec<Item>,
    input_open: bool,
    pause: Duration,
}

/// How a stream came to its end.
enum End {
    /// Everything is answered and no more will come.
    Done,
    /// It broke; what was under way is sent again.
    Broken(Status),
}

impl Lane {
    /// Returns when every transaction from `input` is decided, or it was given up.
    pub async fn run(self, mut input: mpsc::Receiver<Vec<Item>>) {
        let stop = self.progress.stop.clone();
        tokio::select! {
            () = self.streams(&mut input) => {}
            () = stop.cancelled() => {}
        }
    }

    async fn streams(&self, input: &mut mpsc::Receiver<Vec<Item>>) {
        let mut state =
            UnderWay { messages: BTreeMap::new(), next: 1, again: Vec::new(), input_open: true, pause: FIRST_PAUSE };
        loop {
            if state.messages.is_empty() {
                match input.recv().await {
                    Some(items) => state.add(items, &self.progress),
                    None => return,
                };
            }
            match self.stream(&mut state, input).await {
                End::Done => return,
                End::Broken(status) if may_pass(&status) => {
                    self.progress.trouble(Problem::from(status).message);
                    sleep(state.pause).await;
                    state.pause = (state.pause * 2).min(LAST_PAUSE);
                }
                End::Broken(status) => {
                    // Asking again would give the same answer.
                    let problem = Problem::from(status);
                    let mut answers = Answers::default();
                    self.progress.answered(state.messages.len() as u64);
                    for item in std::mem::take(&mut state.messages).into_values().flatten() {
                        answers.refused.push(refused(&item, &problem.reason, &problem.message));
                    }
                    self.count(answers).await;
                }
            }
        }
    }

    /// One stream until it ends.
    async fn stream(&self, state: &mut UnderWay, input: &mut mpsc::Receiver<Vec<Item>>) -> End {
        let caller = match self.session.bank(&self.payer) {
            Ok(caller) => caller.patient(),
            Err(problem) => return End::Broken(Status::invalid_argument(problem.message)),
        };
        let (to, requests) = mpsc::channel(WINDOW + 1);
        for (sequence, items) in &state.messages {
            // There is room for all that may be under way.
            let _full = to.try_send(request(*sequence, items));
        }
        let mut client = self.session.token(caller);
        let mut answers: Streaming<SubmitTransactionsResponse> =
            match client.submit_transactions(ReceiverStream::new(requests)).await {
                Ok(answers) => answers.into_inner(),
                Err(status) => return End::Broken(status),
            };
        loop {
            if state.messages.is_empty() && !state.input_open {
                return End::Done;
            }
            tokio::select! {
                items = input.recv(), if state.input_open && state.messages.len() < WINDOW => match items {
                    Some(items) => {
                        let sequence = state.add(items, &self.progress);
                        if let Some(items) = state.messages.get(&sequence) {
                            // A stream that is gone says so in its answers.
                            let _gone = to.send(request(sequence, items)).await;
                        }
                    }
                    None => state.input_open = false,
                },
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        self.take(state, answer).await;
                        if !state.again.is_empty() {
                            sleep(state.pause).await;
                            state.pause = (state.pause * 2).min(LAST_PAUSE);
                            let again = std::mem::take(&mut state.again);
                            let sequence = state.add(again, &self.progress);
                            if let Some(items) = state.messages.get(&sequence) {
                                let _gone = to.send(request(sequence, items)).await;
                            }
                        }
                    }
                    Ok(None) => return End::Broken(Status::unavailable("the platform ended the stream")),
                    Err(status) => return End::Broken(status),
                },
            }
        }
    }

    /// Counts the answers of one message; what is not decided is to be sent again.
    async fn take(&self, state: &mut UnderWay, answer: SubmitTransactionsResponse) {
        let Some(items) = state.messages.remove(&answer.sequence) else { return };
        self.progress.answered(1);
        let mut answers = Answers::default();
        let mut results = answer.items.into_iter();
        for item in items {
            match judge(&item, results.next()) {
                Verdict::Accepted { replayed, held } => {
                    answers.accepted += 1;
                    answers.held += u64::from(held);
                    answers.replayed += u64::from(replayed);
                }
                Verdict::Refused { line, replayed } => {
                    answers.replayed += u64::from(replayed);
                    answers.refused.push(line);
                }
                Verdict::Again(why) => {
                    self.progress.trouble(why);
                    state.again.push(item);
                }
            }
        }
        if answers.lines() > 0 {
            state.pause = FIRST_PAUSE;
            self.count(answers).await;
        }
    }

    async fn count(&self, answers: Answers) {
        self.progress.add_decided(answers.lines());
        // The tally lives until every sender is gone.
        let _ended = self.tally.send(Message::Answers(answers)).await;
    }
}

impl UnderWay {
    fn add(&mut self, items: Vec<Item>, progress: &Progress) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.messages.insert(sequence, items);
        progress.sent(1);
        sequence
    }
}

fn request(sequence: u64, items: &[Item]) -> SubmitTransactionsRequest {
    let transactions = items.iter().map(|item| item.instruction.clone()).collect();
    SubmitTransactionsRequest { sequence, transactions }
}

/// Whether asking again can help: the way is broken, or the platform is at its limits.
fn may_pass(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::AlreadyExists
    )
}

/// What an answer says about a line.
#[derive(Debug, PartialEq)]
enum Verdict {
    Accepted { replayed: bool, held: bool },
    Refused { line: RefusedLine, replayed: bool },
    Again(String),
}

fn judge(item: &Item, answer: Option<SubmitItem>) -> Verdict {
    let Some(answer) = answer else { return Verdict::Again("an answer lacks transactions".to_owned()) };
    let replayed = answer.replayed;
    match answer.result {
        Some(Decided::Outcome(outcome)) => match (outcome.state(), outcome.refusal) {
            (TransactionState::Rejected, refusal) => {
                let refusal = refusal.unwrap_or_default();
                Verdict::Refused { line: refused(item, &refusal.code, &refusal.message), replayed }
            }
            (state, _) => Verdict::Accepted { replayed, held: state == TransactionState::Held },
        },
        Some(Decided::Error(error)) if matches!(error.code.as_str(), "unavailable" | "overloaded" | "internal") => {
            Verdict::Again(error.message)
        }
        Some(Decided::Error(error)) => Verdict::Refused { line: refused(item, &error.code, &error.message), replayed },
        None => Verdict::Again("an answer is empty".to_owned()),
    }
}

fn refused(item: &Item, reason: &str, message: &str) -> RefusedLine {
    RefusedLine {
        line: item.position.line,
        end_to_end_id: item.instruction.end_to_end_id.clone(),
        reason: reason.to_owned(),
        message: item.position.says(message),
    }
}

#[cfg(test)]
mod tests {
    use deltran_api::common::v1::Refusal;
    use deltran_api::token::v1::TransactionOutcome;

    use super::*;

    fn item() -> Item {
        let instruction = TransactionInstruction { end_to_end_id: "E1".into(), ..TransactionInstruction::default() };
        Item { position: Position { line: 7, transaction: None }, instruction }
    }

    fn answer(result: Option<Decided>) -> Option<SubmitItem> {
        Some(SubmitItem { transaction_id: "t".into(), replayed: true, result })
    }

    fn outcome(state: TransactionState, refusal: Option<Refusal>) -> Option<Decided> {
        Some(Decided::Outcome(TransactionOutcome { state: state.into(), refusal, ..TransactionOutcome::default() }))
    }

    fn refusal(code: &str) -> Refusal {
        Refusal { code: code.into(), message: "why".into(), ..Refusal::default() }
    }

    #[test]
    fn every_kind_of_answer_is_told_apart() {
        let accepted = |held| Verdict::Accepted { replayed: true, held };
        let line = |code: &str| RefusedLine {
            line: 7,
            end_to_end_id: "E1".into(),
            reason: code.into(),
            message: "why".into(),
        };
        let refused = |code| Verdict::Refused { line: line(code), replayed: true };
        assert_eq!(judge(&item(), answer(outcome(TransactionState::Committed, None))), accepted(false));
        assert_eq!(judge(&item(), answer(outcome(TransactionState::Held, None))), accepted(true));
        assert_eq!(judge(&item(), answer(outcome(TransactionState::Rejected, Some(refusal("cap"))))), refused("cap"));
        assert_eq!(judge(&item(), answer(Some(Decided::Error(refusal("conflict"))))), refused("conflict"));
        for passing in ["unavailable", "overloaded", "internal"] {
            let verdict = judge(&item(), answer(Some(Decided::Error(refusal(passing)))));
            assert_eq!(verdict, Verdict::Again("why".into()), "{passing}");
        }
        assert!(matches!(judge(&item(), None), Verdict::Again(_)));
        assert!(matches!(judge(&item(), answer(None)), Verdict::Again(_)));
    }

    #[test]
    fn a_refusal_names_the_transaction_of_a_message() {
        let item = Item { position: Position { line: 7, transaction: Some(3) }, ..item() };
        let line = super::refused(&item, "cap", "why");
        assert_eq!(line.message, "/Document/FIToFICstmrCdtTrf/CdtTrfTxInf[3]: why");
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
        for code in [Code::Unavailable, Code::Unknown, Code::Internal, Code::ResourceExhausted, Code::Cancelled] {
            assert!(may_pass(&Status::new(code, "")), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::PermissionDenied, Code::Unauthenticated, Code::Unimplemented] {
            assert!(!may_pass(&Status::new(code, "")), "{code:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_given_up_only_while_something_is_under_way() {
        let progress = Arc::new(Progress::new(Duration::from_secs(60)));
        let watch = tokio::spawn(progress.clone().watch());
        sleep(Duration::from_secs(300)).await;
        assert_eq!(progress.gave_up(), None);
        progress.sent(1);
        sleep(Duration::from_secs(59)).await;
        assert_eq!(progress.gave_up(), None);
        sleep(Duration::from_secs(2)).await;
        assert!(progress.gave_up().is_some());
        assert!(progress.stop.is_cancelled());
        watch.await.unwrap();
    }
}
