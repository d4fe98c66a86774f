//! What the operator counts. Every label is of a bounded set.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A kind of thing that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// A call and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallEnd {
    call: &'static str,
    result: &'static str,
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    result: &'static str,
}

/// How an upgrade ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// A Tenant's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

/// All metrics of the operator.
pub struct Metrics {
    registry: Mutex<Registry>,
    reconciles: Family<End, Histogram>,
    writes: Family<Kind, Counter>,
    calls: Family<CallEnd, Counter>,
    upgrades: Family<OutcomeLabel, Counter>,
    phases: Family<PhaseLabel, Gauge<i64, AtomicI64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let reconciles = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.001, 2.0, 15))) as fn() -> Histogram,
        );
        let (writes, calls, upgrades, phases) = Default::default();
        let mut registry = Registry::with_prefix("tenantry_operator");
        registry.register(
            "reconcile_duration_seconds",
            "How long a look at one Tenant took",
            reconciles.clone(),
        );
        registry.register("api_writes", "Writes to the API server", Family::clone(&writes));
        registry.register("agent_calls", "Calls to agents", Family::clone(&calls));
        registry.register("upgrades", "Ended upgrades", Family::clone(&upgrades));
        registry.register("tenants", "Tenants by phase", Family::clone(&phases));
        Self { registry: Mutex::new(registry), reconciles, writes, calls, upgrades, phases }
    }
}

impl Metrics {
    /// A Tenant was looked at.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&End { result }).observe(took.as_secs_f64());
    }

    /// Something was written to the API server.
    pub fn wrote(&self, kind: &'static str) {
        self.writes.get_or_create(&Kind { kind }).inc();
    }

    /// An agent was called.
    pub fn called(&self, call: &'static str, result: &'static str) {
        self.calls.get_or_create(&CallEnd { call, result }).inc();
    }

    /// An upgrade ended.
    pub fn upgraded(&self, outcome: &'static str) {
        self.upgrades.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// A Tenant left a phase and came into another; `None`: it is not there.
    pub fn moved(&self, from: Option<&'static str>, to: Option<&'static str>) {
        if from == to {
            return;
        }
        if let Some(phase) = from {
            self.phases.get_or_create(&PhaseLabel { phase }).dec();
        }
        if let Some(phase) = to {
            self.phases.get_or_create(&PhaseLabel { phase }).inc();
        }
    }

    /// The metrics as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock();
        // Writing to memory does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}
