//! The calls of the protocol as HTTP: each is bounded, counted, and logged if it changes something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post, put};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenantry_api::names::OperationId;
use tenantry_protocol::{
    AcceptRequest, ApiError, ClaimRequest, ErrorCode, MAX_WAIT_SECONDS, ObserveRequest, OperateRequest,
    ReleaseRequest, TenantRef,
};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::body::{Room, decode, error, invalid};
use super::calls::Calls;
use super::{Caller, Limits};
use crate::calls::validate::bounds;
use crate::metrics::Metrics;

struct Shared<C> {
    calls: Arc<C>,
    metrics: Arc<Metrics>,
    end: CancellationToken,
    limit: Duration,
    working: Semaphore,
    waiting: Semaphore,
    room: Room,
}

type App<C> = State<Arc<Shared<C>>>;
type Outcome<T> = Result<T, ApiError>;

/// All calls.
pub(super) fn router<C: Calls>(
    calls: Arc<C>,
    metrics: Arc<Metrics>,
    limits: &Limits,
    end: CancellationToken,
) -> Router {
    let shared = Shared {
        calls,
        metrics,
        end,
        limit: limits.call,
        working: Semaphore::new(limits.calls),
        waiting: Semaphore::new(limits.waits),
        room: Room::new(limits.body),
    };
    Router::new()
        .route("/v1/host", get(host::<C>))
        .route("/v1/changes", get(changes::<C>))
        .route("/v1/observe", post(observe::<C>))
        .route("/v1/resolve", post(resolve::<C>))
        .route("/v1/claim", put(claim::<C>).delete(release::<C>))
        .route("/v1/accept", put(accept::<C>))
        .route("/v1/operations/{id}", put(operate::<C>).get(operation::<C>))
        .fallback(|| async { refusal(&error(ErrorCode::NotFound, "the protocol v1 has no such call")) })
        .method_not_allowed_fallback(|| async {
            refusal(&invalid("the protocol v1 has no such method for this call"))
        })
        .with_state(Arc::new(shared))
}

async fn host<C: Calls>(State(shared): App<C>) -> Response {
    shared.answer("host", async { Ok(shared.calls.host().await) }).await
}

async fn changes<C: Calls>(State(shared): App<C>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let outcome = match Wait::<String>::of(&request) {
        Err(error) => Err(error),
        Ok(Wait { after, wait_seconds }) => {
            let (calls, after) = (&shared.calls, &after);
            shared.wait(wait_seconds, |wait| async move { Ok(calls.changes(after, wait).await) }).await
        }
    };
    shared.respond("changes", started, outcome)
}

async fn observe<C: Calls>(State(shared): App<C>, request: Request) -> Response {
    let answered = shared.answer("observe", async {
        let body: ObserveRequest = decode(request, &shared.room).await?;
        bounds::about(&body.tenant, &body.place, &body.manifest)?;
        shared.calls.observe(body).await
    });
    answered.await
}

async fn resolve<C: Calls>(State(shared): App<C>, request: Request) -> Response {
    shared.answer("resolve", async { shared.calls.resolve(decode(request, &shared.room).await?).await }).await
}

async fn claim<C: Calls>(
    State(shared): App<C>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut line = Line::new("claim", &caller);
    let answered = shared.answer("claim", async {
        let body: ClaimRequest = decode(request, &shared.room).await?;
        bounds::about(&body.tenant, &body.place, &body.manifest)?;
        line.is_about(&body.tenant, Some(body.epoch));
        let calls = shared.calls.clone();
        let work = async move { calls.claim(&caller.operator, body).await };
        line.written(to_its_end(work).await)
    });
    answered.await
}

async fn accept<C: Calls>(
    State(shared): App<C>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut line = Line::new("accept", &caller);
    let answered = shared.answer("accept", async {
        let body: AcceptRequest = decode(request, &shared.room).await?;
        bounds::about(&body.tenant, &body.place, &body.manifest)?;
        line.is_about(&body.tenant, Some(body.epoch));
        let calls = shared.calls.clone();
        let work = async move { calls.accept(&caller.operator, body).await };
        line.written(to_its_end(work).await)
    });
    answered.await
}

async fn release<C: Calls>(
    State(shared): App<C>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut line = Line::new("release", &caller);
    let answered = shared.answer("release", async {
        let body: ReleaseRequest = decode(request, &shared.room).await?;
        bounds::tenant(&body.tenant)?;
        line.is_about(&body.tenant, None);
        let calls = shared.calls.clone();
        let work = async move { calls.release(&caller.operator, body).await };
        line.written(to_its_end(work).await)
    });
    let response: Response = answered.await;
    if response.status() == StatusCode::OK { StatusCode::NO_CONTENT.into_response() } else { response }
}

async fn operate<C: Calls>(
    State(shared): App<C>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let mut line = Line::new("operate", &caller);
    let answered = shared.answer("operate", async {
        let id = operation_id(id)?;
        line.operation = Some(id.clone());
        let body: OperateRequest = decode(request, &shared.room).await?;
        bounds::tenant(&body.tenant)?;
        line.is_about(&body.tenant, Some(body.epoch));
        let calls = shared.calls.clone();
        let work = async move { calls.operate(&caller.operator, id, body).await };
        line.written(to_its_end(work).await)
    });
    answered.await
}

/// What a call that waits for news says: after what, and for how long.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Wait<A: Default> {
    after: A,
    wait_seconds: u64,
}

impl<A: Default + DeserializeOwned> Wait<A> {
    fn of(request: &Request<Body>) -> Outcome<Self> {
        let parsed = axum::extract::Query::<Self>::try_from_uri(request.uri());
        let wait = parsed.map_err(|error| invalid(error.body_text()))?.0;
        if wait.wait_seconds > MAX_WAIT_SECONDS {
            let message = format!("{} is more than {MAX_WAIT_SECONDS}", wait.wait_seconds);
            return Err(ApiError {
                code: ErrorCode::Invalid,
                field: Some("waitSeconds".to_owned()),
                message,
            });
        }
        Ok(wait)
    }
}

async fn operation<C: Calls>(
    State(shared): App<C>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let started = Instant::now();
    let asked = operation_id(id).and_then(|id| Ok((id, Wait::<u64>::of(&request)?)));
    let outcome = match asked {
        Err(error) => Err(error),
        Ok((id, Wait { after, wait_seconds })) => {
            shared.wait(wait_seconds, |wait| shared.calls.operation(&id, after, wait)).await
        }
    };
    shared.respond("operation", started, outcome)
}

fn operation_id(text: String) -> Outcome<OperationId> {
    let refused = |error: tenantry_api::names::NameError| ApiError {
        code: ErrorCode::Invalid,
        field: Some("id".to_owned()),
        message: error.to_string(),
    };
    OperationId::parse(text).map_err(refused)
}

impl<C: Calls> Shared<C> {
    /// Works on a call, if not too many are being worked on, and answers it.
    async fn answer<T: Serialize>(
        &self,
        call: &'static str,
        work: impl Future<Output = Outcome<T>>,
    ) -> Response {
        let started = Instant::now();
        let outcome = match self.working.try_acquire() {
            Ok(_slot) => timeout(self.limit, work).await.unwrap_or_else(|_| Err(self.too_slow())),
            Err(_) => Err(overloaded()),
        };
        self.respond(call, started, outcome)
    }

    fn too_slow(&self) -> ApiError {
        let message = format!(
            "the call did not end within {} s: this host's disk or engine does not keep up",
            self.limit.as_secs()
        );
        error(ErrorCode::HostFault, message)
    }

    /// Waits for news, but not beyond the agent's own end.
    async fn wait<T, F: Future<Output = Outcome<T>>>(
        &self,
        seconds: u64,
        ask: impl Fn(Duration) -> F,
    ) -> Outcome<T> {
        let Ok(_slot) = self.waiting.try_acquire() else { return Err(overloaded()) };
        tokio::select! {
            news = ask(Duration::from_secs(seconds)) => news,
            () = self.end.cancelled() => ask(Duration::ZERO).await,
        }
    }

    fn respond<T: Serialize>(&self, call: &'static str, started: Instant, outcome: Outcome<T>) -> Response {
        let response = match outcome {
            Ok(answer) => Json(answer).into_response(),
            Err(error) => refusal(&error),
        };
        self.metrics.call_answered(call, response.status().as_u16(), started.elapsed());
        response
    }
}

fn overloaded() -> ApiError {
    error(ErrorCode::Overloaded, "the agent works on too many calls at once: try again later")
}

fn refusal(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(error)).into_response()
}

/// Work that changes something goes on to its end, also when the caller hangs up in the middle.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Outcome<T>> + Send + 'static,
) -> Outcome<T> {
    tokio::spawn(work).await.unwrap_or_else(|fault| {
        tracing::error!(%fault, "a call met a fault of the agent's own");
        Err(error(ErrorCode::HostFault, "the agent met a fault of its own: its log says more"))
    })
}

/// The log's line about a call that changes something.
struct Line {
    call: &'static str,
    operator: String,
    tenant: String,
    uid: String,
    epoch: Option<u64>,
    operation: Option<OperationId>,
    started: Instant,
}

impl Line {
    fn new(call: &'static str, caller: &Caller) -> Self {
        let operator = caller.operator.to_string();
        let (tenant, uid) = (String::new(), String::new());
        Self { call, operator, tenant, uid, epoch: None, operation: None, started: Instant::now() }
    }

    fn is_about(&mut self, tenant: &TenantRef, epoch: Option<u64>) {
        self.tenant = format!("{}/{}", tenant.namespace, tenant.name);
        self.uid = tenant.uid.to_string();
        self.epoch = epoch;
    }

    fn written<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        let operation = self.operation.as_ref().map(OperationId::as_str);
        let milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Self { call, operator, tenant, uid, epoch, .. } = self;
        match &outcome {
            Ok(_) => {
                tracing::info!(call, operator, tenant, uid, epoch, operation, milliseconds, "accepted");
            }
            Err(error) => {
                let (code, field) = (error.code, error.field.as_deref());
                let message = &error.message;
                tracing::warn!(
                    call,
                    operator,
                    tenant,
                    uid,
                    epoch,
                    operation,
                    milliseconds,
                    ?code,
                    field,
                    message,
                    "refused"
                );
            }
        }
        outcome
    }
}
