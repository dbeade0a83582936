//! `PlatformService`: what a process tells about the engines that run in it.

use std::fmt;
use std::str::FromStr;

use deltran_api::platform::v1::platform_service_server::{PlatformService, PlatformServiceServer};
use deltran_api::platform::v1::{
    BeyondEvent, EngineStatus, GetStatusRequest, GetStatusResponse, ListBeyondRequest, ListBeyondResponse, OutboxEvent,
    ReadOutboxRequest, ReadOutboxResponse,
};
use deltran_runtime::health::Health;
use deltran_runtime::{Db, DbError, Engine, Failure, wire};
use tonic::{Request, Response, Status};

use crate::outbox::{Outbox, restore};

/// Rows of an outbox read at once, and the size of their envelopes at which a page ends: an answer stays well below
/// the largest message of gRPC, 4 MiB.
const ROWS: i64 = 1000;
const PAGE_BYTES: usize = 1 << 20;

/// The service.
pub struct Platform {
    deployment: String,
    health: Health,
    engines: Vec<(Db, Outbox)>,
}

/// Where a page of what is beyond ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    engine: usize,
    number: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.engine, self.number)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(token: &str) -> Result<Self, String> {
        let parts = token.split_once('/').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (engine, number) = parts.ok_or_else(|| format!("{token:?} is no token of this list"))?;
        Ok(Self { engine, number })
    }
}

/// The service as an engine of its own without state.
pub fn engine(deployment: String, health: Health, engines: Vec<(Db, Outbox)>) -> Engine {
    let service = PlatformServiceServer::new(Platform { deployment, health, engines });
    Engine::new("platform", move |routes| {
        routes.add_service(service);
    })
}

impl Platform {
    async fn status_of(&self, db: &Db, outbox: &Outbox) -> Result<EngineStatus, DbError> {
        type Row = (i64, i64, i64, i64, i64, bool, bool);
        let (epoch, assigned, published, confirmed, acknowledged, repeated, waits): Row = sqlx::query_as(
            "SELECT c.epoch, c.assigned, m.published, m.confirmed, m.acknowledged, m.repeated, c.waits
             FROM outbox_counter c, outbox_mark m",
        )
        .fetch_one(db.pool())
        .await?;
        let problems = self.health.problems_of(db.engine());
        Ok(EngineStatus {
            engine: db.engine().to_owned(),
            ready: problems.is_empty(),
            problems,
            producer: outbox.producer(epoch),
            assigned: assigned as u64,
            published: published.max(0) as u64,
            confirmed: confirmed.max(0) as u64,
            stream: outbox.domain().stream().to_owned(),
            acknowledged: acknowledged as u64,
            repeated,
            earlier: confirmed.min(0).unsigned_abs(),
            waits,
        })
    }

    /// A page of what restored databases of engines of this process do not know of.
    async fn beyond(&self, request: &ListBeyondRequest) -> Result<ListBeyondResponse, Failure> {
        let page = wire::page::<Place>(request.page.as_ref())?;
        let after = page.after.unwrap_or_default();
        let mut answer = ListBeyondResponse::default();
        for (at, (db, outbox)) in self.engines.iter().enumerate().skip(after.engine) {
            let left = page.size - answer.events.len() as i64;
            let number = if at == after.engine { after.number } else { 0 };
            let rows = restore::beyond(db, number, left).await?;
            let last = rows.last().map(|(number, _)| *number);
            let stream = outbox.domain().stream();
            answer.events.extend(rows.into_iter().map(|(_, event)| BeyondEvent {
                engine: db.engine().to_owned(),
                producer: event.producer,
                producer_seq: event.producer_seq,
                event_id: event.event_id,
                subject: event.subject,
                correlation_id: event.correlation_id,
                participant_id: event.participant_id,
                stream: stream.to_owned(),
                stream_sequence: event.stream_sequence,
            }));
            if answer.events.len() as i64 == page.size {
                let place = Place { engine: at, number: last.unwrap_or(number) };
                answer.next_page_token = place.to_string();
                break;
            }
        }
        Ok(answer)
    }

    /// A page of the outbox of `producer`, which is the present one of an engine of this process.
    async fn page_of(&self, request: &ReadOutboxRequest) -> Result<ReadOutboxResponse, Failure> {
        let producer = wire::required_text("producer", &request.producer, 128)?;
        let after = i64::try_from(request.after).unwrap_or(i64::MAX);
        for (db, outbox) in &self.engines {
            let mut tx = db.begin().await?;
            sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                .execute(&mut *tx)
                .await
                .map_err(DbError::from)?;
            let (epoch, assigned, published): (i64, i64, i64) =
                sqlx::query_as("SELECT c.epoch, c.assigned, m.published FROM outbox_counter c, outbox_mark m")
                    .fetch_one(&mut *tx)
                    .await
                    .map_err(DbError::from)?;
            if outbox.producer(epoch) != producer {
                continue;
            }
            let rows: Vec<(i64, uuid::Uuid, String, Vec<u8>)> = sqlx::query_as(
                "SELECT seq, event_id, subject, envelope FROM outbox WHERE seq > $1 ORDER BY seq LIMIT $2",
            )
            .bind(after)
            .bind(ROWS)
            .fetch_all(&mut *tx)
            .await
            .map_err(DbError::from)?;
            tx.commit().await?;
            let mut size = 0;
            let within = |envelope: &[u8], size: &mut usize| {
                let first = *size == 0;
                *size += envelope.len() + 1;
                first || *size <= PAGE_BYTES
            };
            let events = rows
                .into_iter()
                .take_while(|(.., envelope)| within(envelope, &mut size))
                .map(|(seq, event_id, subject, envelope)| OutboxEvent {
                    producer_seq: seq as u64,
                    event_id: event_id.to_string(),
                    subject,
                    envelope,
                })
                .collect();
            return Ok(ReadOutboxResponse { events, assigned: assigned as u64, published: published.max(0) as u64 });
        }
        Err(Failure::not_found("outbox of producer", producer))
    }
}

#[tonic::async_trait]
impl PlatformService for Platform {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let mut engines = Vec::with_capacity(self.engines.len());
        for (db, outbox) in &self.engines {
            engines.push(self.status_of(db, outbox).await.map_err(Failure::from)?);
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(GetStatusResponse { version, deployment: self.deployment.clone(), engines }))
    }

    async fn read_outbox(&self, request: Request<ReadOutboxRequest>) -> Result<Response<ReadOutboxResponse>, Status> {
        Ok(Response::new(self.page_of(request.get_ref()).await?))
    }

    async fn list_beyond(&self, request: Request<ListBeyondRequest>) -> Result<Response<ListBeyondResponse>, Status> {
        Ok(Response::new(self.beyond(request.get_ref()).await?))
    }
}
