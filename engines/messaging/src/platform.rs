//! `PlatformService`: what a process tells about the engines that run in it.

use deltran_api::platform::v1::platform_service_server::{PlatformService, PlatformServiceServer};
use deltran_api::platform::v1::{EngineStatus, GetStatusRequest, GetStatusResponse};
use deltran_runtime::health::Health;
use deltran_runtime::{Db, DbError, Engine, Failure};
use tonic::{Request, Response, Status};

use crate::outbox::Outbox;

/// The service.
pub struct Platform {
    deployment: String,
    health: Health,
    engines: Vec<(Db, Outbox)>,
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
        let (epoch, assigned, published, confirmed): (i64, i64, i64, i64) =
            sqlx::query_as("SELECT c.epoch, c.assigned, m.published, m.confirmed FROM outbox_counter c, outbox_mark m")
                .fetch_one(db.pool())
                .await?;
        let problems = self.health.problems_of(db.engine());
        Ok(EngineStatus {
            engine: db.engine().to_owned(),
            ready: problems.is_empty(),
            problems,
            producer: outbox.producer(epoch),
            assigned: assigned as u64,
            published: published as u64,
            confirmed: confirmed as u64,
        })
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
}
