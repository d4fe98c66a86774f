//! Metrics and health over plain HTTP, on loopback by default.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::rights::Rights;

/// What the health endpoints answer from.
#[derive(Clone)]
pub struct Health {
    metrics: Arc<Metrics>,
    rights: Arc<Rights>,
    ready: Arc<AtomicBool>,
}

impl Health {
    /// Not ready yet.
    pub fn new(metrics: Arc<Metrics>, rights: Arc<Rights>) -> Self {
        Self { metrics, rights, ready: Arc::default() }
    }

    /// From now on `/readyz` says so.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Serves until the end.
    pub async fn serve(self, listener: TcpListener, end: impl Future<Output = ()> + Send + 'static) {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok" }))
            .route("/readyz", get(readyz))
            .with_state(self);
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(end).await {
            tracing::warn!("metrics and health are no longer served: {error}");
        }
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], health.metrics.text())
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    if let Some(missing) = health.rights.missing() {
        let told =
            format!("the operator lacks rights at the API server (deploy/rbac.yaml has them all): {missing}");
        return (StatusCode::SERVICE_UNAVAILABLE, told);
    }
    if health.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ok".to_owned())
    } else {
        let told = "not all resources have been listed yet, or another operator leads";
        (StatusCode::SERVICE_UNAVAILABLE, told.to_owned())
    }
}
