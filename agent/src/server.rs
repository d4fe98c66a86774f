//! The agent's door: connections, their limits and their end. What is asked through it is in `routes`.

mod body;
mod calls;
mod core;
mod routes;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tenantry_api::names::Identity;
use tenantry_protocol::OPERATOR_DOMAIN;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::tls::{Certificates, name_of};
pub use calls::Calls;

/// How often the certificate files are looked at while nobody connects.
const REFRESH_INTERVAL: Duration = Duration::from_secs(15);
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// No call of the protocol has more than a few short headers.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// What is read of an HTTP/1 request before its head is complete.
const HTTP1_BUFFER: usize = 32 * 1024;
/// Calls of one connection at once: the most that can be worked on or wait, or nearly.
const MAX_STREAMS: u32 = 256;

/// What one operator, or a stranger, can cost the agent at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. An operator needs one; several replicas and a person's curl a few more.
    pub connections: usize,
    /// Calls that are worked on at once; long polls only wait and have a bound of their own.
    pub calls: usize,
    /// Long polls at once.
    pub waits: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long an HTTP/1 connection may take for a request's head, idle time between requests included.
    pub head: Duration,
    /// How long a request's body may take to come.
    pub body: Duration,
    /// How long a call may take in all, long polls aside. Compose may read for a minute, and the engine is asked too.
    pub call: Duration,
    /// How long calls under way may go on once the agent ends.
    pub grace: Duration,
    /// How long calls under way may go on once their connection's certificates were changed: longer than a long poll.
    pub grace_after_change: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            calls: 32,
            waits: 512,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            body: Duration::from_mins(1),
            call: Duration::from_mins(3),
            grace: Duration::from_secs(3),
            grace_after_change: Duration::from_secs(90),
        }
    }
}

/// What every connection needs.
struct Door {
    certificates: Arc<Certificates>,
    metrics: Arc<Metrics>,
    router: axum::Router,
    limits: Limits,
    end: CancellationToken,
}

/// The operator at the other end, by its certificate.
#[derive(Clone, Debug)]
struct Caller {
    operator: Identity,
}

/// Answers operators until `end`; then lets calls under way finish, within `limits.grace`.
pub async fn serve<C: Calls>(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    calls: Arc<C>,
    metrics: Arc<Metrics>,
    limits: Limits,
    end: CancellationToken,
) {
    metrics.certificate_expires(certificates.expires());
    let router = routes::router(calls, metrics.clone(), &limits, end.clone());
    let door = Arc::new(Door { certificates, metrics, router, limits, end });
    let tasks = TaskTracker::new();
    tokio::select! {
        () = door.end.cancelled() => {}
        () = accept(&listener, &door, &tasks) => {}
        () = keep_fresh(&door) => {}
    }
    drop(listener);
    tasks.close();
    if timeout(door.limits.grace, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "ended with calls still under way");
    }
}

async fn keep_fresh(door: &Door) {
    let mut tick = tokio::time::interval(REFRESH_INTERVAL);
    loop {
        tick.tick().await;
        door.certificates.refresh();
        door.metrics.certificate_expires(door.certificates.expires());
    }
}

async fn accept(listener: &TcpListener, door: &Arc<Door>, tasks: &TaskTracker) {
    let slots = Arc::new(Semaphore::new(door.limits.connections));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let door = door.clone();
                tasks.spawn(async move {
                    connection(&door, stream, peer).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of file descriptors, usually: accepting again at once would only spin.
                tracing::error!(%error, "can't accept connections at the moment");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn connection(door: &Door, stream: TcpStream, peer: SocketAddr) {
    door.certificates.refresh();
    let changes = door.certificates.changes();
    let acceptor = TlsAcceptor::from(door.certificates.server_config());
    let refuse = |cause: &'static str, detail: String| {
        door.metrics.connection_refused(cause);
        tracing::info!(%peer, cause, detail, "refused a connection");
    };
    if let Err(error) = stream.set_nodelay(true) {
        return refuse("Broken", error.to_string());
    }
    let stream = match timeout(door.limits.handshake, acceptor.accept(stream)).await {
        Err(_) => return refuse("Slow", format!("no handshake within {:?}", door.limits.handshake)),
        Ok(Err(error)) => return refuse("Handshake", error.to_string()),
        Ok(Ok(stream)) => stream,
    };
    match caller_of(&stream) {
        Ok((caller, until)) => converse(door, stream, caller, until, changes).await,
        Err(detail) => refuse("Name", detail),
    }
}

/// Who is at the other end, and when its certificate ends.
fn caller_of(stream: &TlsStream<TcpStream>) -> Result<(Caller, Instant), String> {
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let name = name_of(certificate.ok_or("no client certificate")?)?;
    let label = name.name.strip_suffix(OPERATOR_DOMAIN).and_then(|rest| rest.strip_suffix('.'));
    let operator =
        Identity::parse(label.ok_or("not an operator's name")?).map_err(|error| error.to_string())?;
    let left = name.expires.saturating_sub(jiff::Timestamp::now().as_second());
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0)).min(Duration::from_hours(24));
    Ok((Caller { operator }, Instant::now() + left))
}

async fn converse(
    door: &Door,
    stream: TlsStream<TcpStream>,
    caller: Caller,
    until: Instant,
    mut changes: tokio::sync::watch::Receiver<u64>,
) {
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let router = door.router.clone();
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(caller.clone());
        tower::ServiceExt::oneshot(router.clone(), request)
    });
    let builder = http_builder(http2, door.limits.head);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let grace = tokio::select! {
        done = connection.as_mut() => return log_end(done),
        () = door.end.cancelled() => door.limits.grace,
        _ = changes.changed() => door.limits.grace_after_change,
        () = tokio::time::sleep_until(until) => door.limits.grace_after_change,
    };
    connection.as_mut().graceful_shutdown();
    if let Ok(done) = timeout(grace, connection).await {
        log_end(done);
    }
}

fn http_builder(http2: bool, head: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_headers(MAX_HEADERS)
        .max_buf_size(HTTP1_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES);
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
