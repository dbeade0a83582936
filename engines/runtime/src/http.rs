//! The operator's HTTP door: `/healthz`, `/readyz`, `/metrics`.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::health::Health;
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
