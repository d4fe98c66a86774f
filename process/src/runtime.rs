//! The clock, randomness and background tasks of a process. Nothing else of this program reads a clock for a decision,
//! rolls dice or starts a task that outlives its caller, so that the simulation can put its own in place.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, select};
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// What a process has of time, chance and tasks.
pub trait Runtime: Send + Sync {
    /// The time of day, for statuses and decisions.
    fn now(&self) -> Timestamp;
    /// The monotonic time, for waits.
    fn instant(&self) -> Instant;
    /// Lets time pass.
    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()>;
    /// Runs a task beside the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn Task>;
    /// Runs what does not await on a thread where that holds up nobody.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>);
    /// A random number from 0 up to 1.
    fn random(&self) -> f64;
}

/// A task that was started.
pub trait Task: Send + Sync {
    /// Ends it where it stands.
    fn abort(&self);
    /// Whether it has ended.
    fn is_finished(&self) -> bool;
}

impl Task for AbortHandle {
    fn abort(&self) {
        Self::abort(self);
    }

    fn is_finished(&self) -> bool {
        Self::is_finished(self)
    }
}

/// The machine's clock, and tasks of tokio.
pub struct TokioRuntime;

impl Runtime for TokioRuntime {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(wait).boxed()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn Task> {
        Box::new(tokio::spawn(task).abort_handle())
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }

    fn random(&self) -> f64 {
        fastrand::f64()
    }
}

/// Work on another thread has no result: it panicked there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task broke off")]
pub struct BrokeOff;

/// Runs what does not await on another thread, and waits for its result.
pub async fn blocking<T: Send + 'static>(
    runtime: &dyn Runtime,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BrokeOff> {
    let (done, result) = oneshot::channel();
    runtime.spawn_blocking(Box::new(move || {
        // Nobody waits any more where the caller has given up.
        let _ = done.send(work());
    }));
    result.await.map_err(|_| BrokeOff)
}

/// Waits for something for a bounded time; `None` when that is over.
pub async fn timeout<F: Future>(runtime: &dyn Runtime, within: Duration, work: F) -> Option<F::Output> {
    match select(pin!(work), runtime.sleep(within)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// Spreads waits over 90 to 110 percent, so that a fleet is not looked at in one breath.
pub fn jittered(runtime: &dyn Runtime, wait: Duration) -> Duration {
    if wait < Duration::from_secs(2) { wait } else { wait.mul_f64(0.9 + 0.2 * runtime.random()) }
}
