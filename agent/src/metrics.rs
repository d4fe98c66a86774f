//! What is counted, and where it is served: `/metrics`, `/healthz` and `/readyz` over plain HTTP, on loopback by default.
//!
//! Labels are words of bounded sets only: never a tenant's name, a path or an error's text.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{FailureCategory, HostInfo, OperationPhase};

use crate::files::Seconds;

/// Upper bounds of phase durations in seconds: a `.env` write takes milliseconds, a pull minutes.
const PHASE_SECONDS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0];
/// Upper bounds of answer times in seconds: an unchanged observation takes about a millisecond.
const CALL_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 60.0];

/// Everything that the agent counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ready: AtomicBool,
    operations: Family<Ended, Counter>,
    phases: Family<Word, Histogram>,
    observations: Family<Word, Counter>,
    calls: Family<Call, Histogram>,
    refused_connections: Family<Word, Counter>,
    engine_up: Gauge,
    problems: Gauge,
    disk_free: Gauge<f64, AtomicU64>,
    disk_total: Gauge<f64, AtomicU64>,
    certificate_expiry: Gauge,
    disk_changes: Seconds,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tenantry_agent"),
            ready: AtomicBool::new(false),
            operations: Family::default(),
            phases: Family::new_with_constructor(|| Histogram::new(PHASE_SECONDS)),
            observations: Family::default(),
            calls: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
            refused_connections: Family::default(),
            engine_up: Gauge::default(),
            problems: Gauge::default(),
            disk_free: Gauge::default(),
            disk_total: Gauge::default(),
            certificate_expiry: Gauge::default(),
            disk_changes: Seconds::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// An operation ended: how, and the kind of failure where it failed.
    pub fn operation_ended(&self, outcome: Outcome, category: Option<FailureCategory>) {
        let category = category.map_or("None", FailureCategory::as_str);
        self.operations.get_or_create(&Ended { outcome: outcome.as_str(), category }).inc();
    }

    /// A phase of an operation ended after `duration`.
    pub fn phase_ended(&self, phase: OperationPhase, duration: Duration) {
        self.phases
            .get_or_create(&Word { key: "phase", word: phase_word(phase) })
            .observe(duration.as_secs_f64());
    }

    /// An observation was answered: from the cache, or by reading the host again.
    pub fn observed(&self, cached: bool) {
        let word = if cached { "hit" } else { "read" };
        self.observations.get_or_create(&Word { key: "cache", word }).inc();
    }

    /// A call of an operator was answered with `status` after `duration`.
    pub(crate) fn call_answered(&self, call: &'static str, status: u16, duration: Duration) {
        self.calls.get_or_create(&Call { call, status }).observe(duration.as_secs_f64());
    }

    /// A connection was refused before any call.
    pub(crate) fn connection_refused(&self, word: &'static str) {
        self.refused_connections.get_or_create(&Word { key: "cause", word }).inc();
    }

    /// The agent's own certificate is good until this Unix time.
    pub(crate) fn certificate_expires(&self, unix_seconds: i64) {
        self.certificate_expiry.set(unix_seconds);
    }

    /// From now on `/readyz` says yes, or no longer does.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Where the time is added up that changes to disks take.
    pub fn disk_changes(&self) -> Seconds {
        self.disk_changes.clone()
    }

    /// Whether calls are answered.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Everything in the text format, with the host as it is now.
    #[allow(clippy::cast_precision_loss)] // bytes of a disk, for a graph
    pub fn render(&self, host: &HostInfo) -> String {
        self.engine_up.set(i64::from(host.docker_version.is_some()));
        self.problems.set(i64::try_from(host.problems.len()).unwrap_or(i64::MAX));
        self.disk_free.set(host.disk_free_bytes as f64);
        self.disk_total.set(host.disk_total_bytes as f64);
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(std::fmt::Error) => String::new(), // a String takes whatever is written
        }
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("operations", "Operations ended, by outcome and kind of failure", self.operations.clone());
        let help = "How long phases of operations took";
        r.register_with_unit("phase_duration", help, Unit::Seconds, self.phases.clone());
        let help = "Observations answered, from the cache or by reading the host";
        r.register("observations", help, self.observations.clone());
        let help = "Time spent on changing files: journals, records, staging, commits, restore points, and making them durable";
        r.register_with_unit("disk_changes", help, Unit::Seconds, self.disk_changes.clone());
        let help = "How long operators' calls took, by call and status code; long polls include the wait";
        r.register_with_unit("call_duration", help, Unit::Seconds, self.calls.clone());
        let help = "Connections refused before any call, by cause";
        r.register("refused_connections", help, self.refused_connections.clone());
        r.register("engine_up", "1 while the Docker engine answers", self.engine_up.clone());
        let help = "How many things keep the host from working; the log and the ComposeHost name them";
        r.register("problems", help, self.problems.clone());
        let help = "Free space where the engine keeps its data";
        r.register_with_unit("disk_free", help, Unit::Bytes, self.disk_free.clone());
        let help = "All space where the engine keeps its data";
        r.register_with_unit("disk_total", help, Unit::Bytes, self.disk_total.clone());
        let help = "When the agent's own certificate ends, in seconds since 1970";
        r.register_with_unit("certificate_expiry_time", help, Unit::Seconds, self.certificate_expiry.clone());
    }
}

/// Serves metrics and health until `end` is over. `host` says how the host is at the time of a request.
pub async fn serve<H>(
    listener: tokio::net::TcpListener,
    metrics: Arc<Metrics>,
    host: impl Fn() -> H + Clone + Send + Sync + 'static,
    end: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()>
where
    H: Future<Output = HostInfo> + Send + 'static,
{
    use axum::routing::get;
    use http::{StatusCode, header::CONTENT_TYPE};

    let ready = metrics.clone();
    let scraped = move || {
        let (metrics, host) = (metrics.clone(), host.clone());
        async move {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], metrics.render(&host().await))
        }
    };
    let readyz = move || {
        let answer = if ready.is_ready() {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: the agent is starting or ending\n")
        };
        std::future::ready(answer)
    };
    let router = axum::Router::new()
        .route("/metrics", get(scraped))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz));
    axum::serve(listener, router).with_graceful_shutdown(end).await
}

const fn phase_word(phase: OperationPhase) -> &'static str {
    match phase {
        OperationPhase::Preflight => "Preflight",
        OperationPhase::Pull => "Pull",
        OperationPhase::Snapshot => "Snapshot",
        OperationPhase::Write => "Write",
        OperationPhase::Start => "Start",
        OperationPhase::Verify => "Verify",
        OperationPhase::Rollback => "Rollback",
        OperationPhase::Finish => "Finish",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ended {
    outcome: &'static str,
    category: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Word {
    key: &'static str,
    word: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Call {
    call: &'static str,
    status: u16,
}

impl EncodeLabelSet for Ended {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        ("outcome", self.outcome).encode(encoder.encode_label())?;
        ("category", self.category).encode(encoder.encode_label())
    }
}

impl EncodeLabelSet for Word {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        (self.key, self.word).encode(encoder.encode_label())
    }
}

impl EncodeLabelSet for Call {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        ("call", self.call).encode(encoder.encode_label())?;
        ("status", u32::from(self.status)).encode(encoder.encode_label())
    }
}

#[cfg(test)]
mod tests {
    use tenantry_api::names::Identity;

    use super::*;

    #[test]
    fn counts_are_shown_with_labels_of_bounded_words() {
        let metrics = Metrics::default();
        metrics.operation_ended(Outcome::Succeeded, None);
        metrics.operation_ended(Outcome::RolledBack, Some(FailureCategory::Unhealthy));
        metrics.phase_ended(OperationPhase::Pull, Duration::from_millis(300));
        metrics.observed(true);
        metrics.call_answered("observe", 200, Duration::from_millis(1));
        let host = HostInfo {
            identity: Identity::parse("n5").unwrap(),
            agent_version: "0.1.0".into(),
            capabilities: Vec::new(),
            docker_version: None,
            compose_version: None,
            disk_free_bytes: 7,
            disk_total_bytes: 9,
            max_operations: 4,
            policy_revision: None,
            problems: vec!["Docker does not answer".into()],
        };
        let text = metrics.render(&host);
        for line in [
            r#"tenantry_agent_operations_total{outcome="Succeeded",category="None"} 1"#,
            r#"tenantry_agent_operations_total{outcome="RolledBack",category="Unhealthy"} 1"#,
            r#"tenantry_agent_phase_duration_seconds_bucket{le="0.5",phase="Pull"} 1"#,
            r#"tenantry_agent_observations_total{cache="hit"} 1"#,
            r#"tenantry_agent_call_duration_seconds_count{call="observe",status="200"} 1"#,
            "tenantry_agent_engine_up 0",
            "tenantry_agent_problems 1",
            "tenantry_agent_disk_free_bytes 7",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("does not answer"));
    }
}
