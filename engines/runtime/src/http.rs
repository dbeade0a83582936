//! The HTTP door: `/healthz`, `/readyz`, `/metrics`, and what engines add to it.

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::error::{Failure, FailureKind};
use crate::health::Health;
use crate::identity::Caller;
use crate::metrics::Metrics;

/// The router of the operator's pages.
pub fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state((health, metrics))
}

async fn ready(State((health, _)): State<(Health, Metrics)>) -> Response {
    let problems = health.problems();
    let (code, word) =
        if problems.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    (code, axum::Json(serde_json::json!({"status": word, "problems": problems}))).into_response()
}

async fn scrape(State((_, metrics)): State<(Health, Metrics)>) -> Response {
    match metrics.encode() {
        Ok(text) => ([("content-type", "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A page that takes a caller is for callers that say who they are, by the same headers as on gRPC.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Self::from_headers(&parts.headers)
    }
}

/// The HTTP form of a failure: a status, and a body of code, message and details.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.kind {
            FailureKind::Malformed => StatusCode::BAD_REQUEST,
            FailureKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            FailureKind::Unauthorised => StatusCode::FORBIDDEN,
            FailureKind::NotFound => StatusCode::NOT_FOUND,
            FailureKind::Conflict | FailureKind::WrongState => StatusCode::CONFLICT,
            FailureKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            FailureKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            FailureKind::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            FailureKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = serde_json::json!({"code": self.reason, "message": self.message, "details": self.details});
        (status, axum::Json(body)).into_response()
    }
}
