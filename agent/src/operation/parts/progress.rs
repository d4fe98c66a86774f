//! How far copying data is, for whoever watches the operation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tenantry_process::runtime::Runtime;
use tenantry_protocol::Progress;

use crate::operation::context::OperationContext;
use crate::snapshot::ProgressSink;

/// How often watchers are told of progress.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Tells watchers how far the work is.
pub struct CopyProgress {
    runtime: Arc<dyn Runtime>,
    status: tokio::sync::watch::Sender<tenantry_protocol::OperationStatus>,
    total: u64,
    so_far: Mutex<(u64, Instant)>,
}

impl CopyProgress {
    /// Of so many bytes in all.
    pub fn new(operation: &OperationContext, total: u64) -> Self {
        let runtime = operation.host.runtime.clone();
        let so_far = Mutex::new((0, runtime.instant()));
        Self { runtime, status: operation.status.clone(), total, so_far }
    }
}

impl ProgressSink for CopyProgress {
    fn progress(&self, bytes: u64) {
        let now = self.runtime.instant();
        let mut so_far = self.so_far.lock();
        so_far.0 += bytes;
        if now.saturating_duration_since(so_far.1) < TELL_EVERY {
            return;
        }
        so_far.1 = now;
        let progress =
            Progress { bytes_done: so_far.0.min(self.total), bytes_total: self.total, ..Progress::default() };
        drop(so_far);
        self.status.send_modify(|status| {
            status.progress = Some(progress);
            status.seq += 1;
        });
    }

    /// An operation is never called off from without.
    fn called_off(&self) -> bool {
        false
    }
}
