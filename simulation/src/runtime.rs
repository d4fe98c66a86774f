//! Virtual time, the seed's chance, and tasks that die with the process that began them.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tenantry_process::runtime::{Runtime, Task};

use crate::scheduler::{Owner, Shared, TaskId, sleep};

/// The longest that work which blocks waits for a thread, in milliseconds.
const THREAD_WAIT: u64 = 2;

/// What one process has of time, chance and tasks.
pub struct VirtualRuntime {
    shared: Shared,
    owner: Owner,
    began: Instant,
}

impl VirtualRuntime {
    /// That of a process that begins now.
    pub fn new(shared: &Shared, owner: Owner) -> Self {
        Self { shared: shared.clone(), owner, began: Instant::now() }
    }
}

impl Runtime for VirtualRuntime {
    fn now(&self) -> Timestamp {
        self.shared.world().timestamp()
    }

    fn instant(&self) -> Instant {
        self.began + Duration::from_millis(self.shared.world().now())
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        let shared = self.shared.clone();
        let ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Box::pin(async move { sleep(&shared, ms).await })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn Task> {
        let id = self.shared.world().spawn(self.owner, task);
        Box::new(VirtualTask { shared: self.shared.clone(), id })
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        let shared = self.shared.clone();
        self.shared.world().spawn(self.owner, async move {
            let wait = shared.world().rng.u64(0..=THREAD_WAIT);
            sleep(&shared, wait).await;
            work();
        });
    }

    fn random(&self) -> f64 {
        self.shared.world().rng.f64()
    }
}

struct VirtualTask {
    shared: Shared,
    id: TaskId,
}

impl Task for VirtualTask {
    fn abort(&self) {
        self.shared.world().queue.abort(self.id);
    }

    fn is_finished(&self) -> bool {
        self.shared.world().queue.ended(self.id)
    }
}
