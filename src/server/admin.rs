//! Metrics, probes, and the call that has the configuration read again: plain text, on a port of its own.
//!
//! Whoever reaches the port may read. To change anything takes the token of `listen.reload_token`, and even then the
//! request says nothing but *when*: what is loaded is the file that the process was started with. Without a token in
//! the configuration the call does not exist.

use super::reload::{Ask, Reloaded, Unanswered};
use crate::{gate::Gate, scheme::signature::after_auth_scheme, secret::Secret, telemetry::Held};
use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::net::TcpListener;

/// What the listener shows and may ask for.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    pub(super) gate: Arc<Gate>,
    pub(super) ready: Arc<AtomicBool>,
    /// Of the configuration in force.
    pub(super) reload_token: Arc<ArcSwapOption<Secret>>,
    pub(super) ask: Ask,
}

/// Binds the listener and serves it as long as the runtime lives; returns the address it got.
pub(super) async fn bind(address: SocketAddr, admin: Admin) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on `{address}`"))?;
    let bound = listener.local_addr()?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router(admin)).await {
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
        .route("/reload", any(reload))
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

/// The body is never read, so that none is too long: the connection ends with the answer.
async fn reload(State(admin): State<Admin>, method: Method, headers: HeaderMap) -> Response {
    let Some(token) = admin.reload_token.load_full() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if method != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response();
    }
    if !shown(&headers).is_some_and(|shown| token.matches(shown)) {
        tracing::info!("a reload was asked for without the token");
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response();
    }
    match admin.ask.reload().await.as_deref() {
        Ok(Reloaded::Applied) => "reloaded\n".into_response(),
        Ok(Reloaded::Refused(problems)) => {
            let lines: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
            (StatusCode::UNPROCESSABLE_ENTITY, lines).into_response()
        }
        Ok(Reloaded::Failed) => (StatusCode::INTERNAL_SERVER_ERROR, "the reload failed\n").into_response(),
        Err(Unanswered::Crowded) => {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], "too many wait for a reload\n")
                .into_response()
        }
        Err(Unanswered::Stopping) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
    }
}

/// The token that a request shows. Two are none.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (first, further) = (values.next()?, values.next());
    further.is_none().then(|| after_auth_scheme(first.as_bytes(), "Bearer")).flatten()
}
