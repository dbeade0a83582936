//! `DeadLetterService`: what no consumer could process, and what is done about it.

use deltran_api::audit::v1 as pb;
use deltran_api::audit::v1::dead_letter_service_server::DeadLetterService;
use deltran_events::data::audit::{DeadLetterDropped, DeadLetterReplayed};
use deltran_messaging::{Broker, Door, Outgoing, dead_letter};
use deltran_runtime::{Caller, EngineContext, Failure, wire};
use tonic::{Request, Response, Status};

use super::note_access;
use crate::consume::correlation;
use crate::domain::letter::{self, LetterState, Outcome, Refused};
use crate::store::{LetterRow, Letters};

/// The longest reason of an operator, in characters.
const MAX_REASON: usize = 500;

/// The service.
pub struct DeadLetters {
    context: EngineContext,
    broker: Broker,
    door: Door,
    letters: Letters,
}

impl DeadLetters {
    /// The service.
    pub fn new(context: EngineContext, broker: Broker, door: Door) -> Self {
        let letters = Letters::new(context.db.clone());
        Self { context, broker, door, letters }
    }

    async fn list(&self, request: pb::ListDeadLettersRequest) -> Result<pb::ListDeadLettersResponse, Failure> {
        let page = wire::page::<u64>(request.page.as_ref())?;
        let state = match request.state.as_str() {
            "" => None,
            word => Some(LetterState::from_word(word).ok_or_else(|| {
                let words = LetterState::ALL.map(LetterState::as_str).join(", ");
                Failure::malformed("state", format!("{word:?} is no state: expected one of {words}"))
            })?),
        };
        let stream = wire::text("stream", &request.stream, 256)?;
        let stream = Some(stream.as_str()).filter(|s| !s.is_empty());
        let rows = self.letters.list(state, stream, page.after, page.size).await?;
        let next_page_token = wire::next_token(rows.len(), page.size, rows.last().map(|row| row.id));
        Ok(pb::ListDeadLettersResponse { dead_letters: rows.into_iter().map(encode).collect(), next_page_token })
    }

    async fn get(&self, request: Request<pb::GetDeadLetterRequest>) -> Result<pb::GetDeadLetterResponse, Failure> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().dead_letter_id;
        note_access(&self.context, &self.door, &caller, format!("GetDeadLetter dead_letter_id={id}")).await?;
        let row = self.letters.get(id).await?.ok_or_else(|| Failure::not_found("dead letter", id))?;
        Ok(pb::GetDeadLetterResponse { dead_letter: Some(encode(row)) })
    }

    /// Publishes first and notes then: where the process ends between the two, the letter stays as it was
    /// and the next call publishes under the same number again.
    async fn replay(&self, request: Request<pb::ReplayDeadLetterRequest>) -> Result<LetterRow, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (id, reason) = (request.dead_letter_id, wire::required_text("reason", &request.reason, MAX_REASON)?);
        let row = self.letters.get(id).await?.ok_or_else(|| Failure::not_found("dead letter", id))?;
        let number = letter::replay(row.state, row.replays, &row.origin.subject, row.payload.len())
            .map_err(|refused| refusal(id, &refused, row.state))?;
        // ---
        dead_letter::replay(&self.broker, id, number, &row.origin.subject, row.payload.into()).await.map_err(
            |error| {
                tracing::warn!(dead_letter_id = id, %error, "dead letter not replayed");
                Failure::unavailable("the broker did not acknowledge it: whether it was stored is unknown; try again")
            },
        )?;
        let mut tx = self.door.begin("dead_letter").await?;
        let mut row = Letters::lock(&mut tx, id).await?.ok_or_else(|| Failure::not_found("dead letter", id))?;
        if row.replays >= number {
            // Somebody else replayed it at the same time, under the same number: it was published once.
            return Ok(row);
        }
        Letters::decide(&mut tx, id, LetterState::Replayed, number, &caller.user).await?;
        let event = DeadLetterReplayed { dead_letter_id: id, decided_by: caller.user.clone(), reason };
        let outgoing = [Outgoing::new(event, correlation(id), caller.user.clone()).traced(caller.trace)];
        tx.commit(&outgoing).await?;
        (row.state, row.replays, row.decided_by) = (LetterState::Replayed, number, Some(caller.user));
        Ok(row)
    }

    async fn discard(&self, request: Request<pb::DropDeadLetterRequest>) -> Result<LetterRow, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (id, reason) = (request.dead_letter_id, wire::required_text("reason", &request.reason, MAX_REASON)?);
        let mut tx = self.door.begin("dead_letter").await?;
        let mut row = Letters::lock(&mut tx, id).await?.ok_or_else(|| Failure::not_found("dead letter", id))?;
        let state = match letter::discard(row.state).map_err(|refused| refusal(id, &refused, row.state))? {
            Outcome::Executed(state) => state,
            Outcome::AlreadyApplied => return Ok(row),
        };
        Letters::decide(&mut tx, id, state, row.replays, &caller.user).await?;
        let event = DeadLetterDropped { dead_letter_id: id, decided_by: caller.user.clone(), reason };
        let outgoing = [Outgoing::new(event, correlation(id), caller.user.clone()).traced(caller.trace)];
        tx.commit(&outgoing).await?;
        (row.state, row.decided_by) = (state, Some(caller.user));
        Ok(row)
    }
}

fn refusal(id: u64, refused: &Refused, state: LetterState) -> Failure {
    Failure::wrong_state(format!("dead letter {id}: {refused}"), state.as_str())
}

fn encode(row: LetterRow) -> pb::DeadLetter {
    pb::DeadLetter {
        dead_letter_id: row.id,
        stream: row.origin.stream,
        stream_sequence: row.origin.sequence,
        consumer: row.origin.consumer,
        subject: row.origin.subject,
        reason: row.origin.reason,
        attempts: row.origin.attempts,
        state: row.state.as_str().to_owned(),
        recorded_at: Some(wire::to_timestamp(row.recorded_at)),
        payload: row.payload,
        decided_by: row.decided_by.unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl DeadLetterService for DeadLetters {
    async fn list_dead_letters(
        &self,
        request: Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn get_dead_letter(
        &self,
        request: Request<pb::GetDeadLetterRequest>,
    ) -> Result<Response<pb::GetDeadLetterResponse>, Status> {
        Ok(Response::new(self.get(request).await?))
    }

    async fn replay_dead_letter(
        &self,
        request: Request<pb::ReplayDeadLetterRequest>,
    ) -> Result<Response<pb::ReplayDeadLetterResponse>, Status> {
        Ok(Response::new(pb::ReplayDeadLetterResponse { dead_letter: Some(encode(self.replay(request).await?)) }))
    }

    async fn drop_dead_letter(
        &self,
        request: Request<pb::DropDeadLetterRequest>,
    ) -> Result<Response<pb::DropDeadLetterResponse>, Status> {
        Ok(Response::new(pb::DropDeadLetterResponse { dead_letter: Some(encode(self.discard(request).await?)) }))
    }
}
