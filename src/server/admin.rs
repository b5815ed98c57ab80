//! Metrics and probes. Read-only, plain text, on a port of its own.

use crate::{ext_authz::Gate, telemetry::Held};
use anyhow::Context as _;
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::net::TcpListener;

#[derive(Clone)]
struct Admin {
    gate: Arc<Gate>,
    ready: Arc<AtomicBool>,
}

/// Binds the listener and serves it as long as the runtime lives; returns the address it got.
pub(super) async fn bind(address: SocketAddr, gate: Arc<Gate>, ready: Arc<AtomicBool>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on `{address}`"))?;
    let bound = listener.local_addr()?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router(Admin { gate, ready })).await {
            tracing::error!(%error, "the admin listener failed");
        }
    });
    Ok(bound)
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .with_state(admin)
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let text = {
        let Gate { telemetry, store, budget, .. } = &*admin.gate;
        telemetry.render(&Held {
            leases: store.lease_count(),
            claims: store.claim_count(),
            body_bytes: budget.spent(),
            store_up: store.is_up(),
        })
    };
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
