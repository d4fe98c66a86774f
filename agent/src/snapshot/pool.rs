//! Work side by side whose results come in the order of the work, with a bound on what is under way.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

use super::error::SnapshotError;

/// Takes work in.
pub(crate) struct Feed<J> {
    jobs: Sender<(u64, J)>,
    permits: Receiver<()>,
    next: u64,
}

impl<J> Feed<J> {
    /// Hands a job over, as soon as there is room. An error means that results are no longer taken: stop.
    pub fn send(&mut self, job: J) -> Result<(), SnapshotError> {
        self.permits.recv().map_err(|_| SnapshotError::CalledOff)?;
        self.jobs.send((self.next, job)).map_err(|_| SnapshotError::CalledOff)?;
        self.next += 1;
        Ok(())
    }
}

/// Runs `feed` here, a worker in each of `threads` threads, and `take` in a thread of its own, which is given the
/// results in the order in which the jobs were fed. The first error ends it all.
pub(crate) fn run<J, R, W>(
    threads: usize,
    worker: impl Fn() -> Result<W, SnapshotError> + Sync,
    feed: impl FnOnce(&mut Feed<J>) -> Result<(), SnapshotError>,
    mut take: impl FnMut(R) -> Result<(), SnapshotError> + Send,
) -> Result<(), SnapshotError>
where
    J: Send,
    R: Send,
    W: FnMut(J) -> Result<R, SnapshotError>,
{
    let (jobs, queue) = channel::<(u64, J)>();
    let (results, done) = channel::<(u64, Result<R, SnapshotError>)>();
    let (returned, permits) = channel();
    let queue = Mutex::new(queue);
    for _ in 0..=2 * threads {
        // The receiver is here.
        let _ = returned.send(());
    }
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (results, queue, worker) = (results.clone(), &queue, &worker);
            scope.spawn(move || work(queue, &results, worker));
        }
        drop(results);
        let taking = scope.spawn(move || {
            let mut early = BTreeMap::new();
            let mut next = 0;
            for (number, result) in done {
                early.insert(number, result);
                while let Some(result) = early.remove(&next) {
                    take(result?)?;
                    next += 1;
                    let _ = returned.send(());
                }
            }
            Ok(())
        });
        let mut into = Feed { jobs, permits, next: 0 };
        let all_fed = feed(&mut into);
        drop(into);
        let taken = taking.join().unwrap_or(Err(SnapshotError::CalledOff));
        taken.and(all_fed)
    })
}

fn work<J, R, W>(
    queue: &Mutex<Receiver<(u64, J)>>,
    results: &Sender<(u64, Result<R, SnapshotError>)>,
    worker: &impl Fn() -> Result<W, SnapshotError>,
) where
    W: FnMut(J) -> Result<R, SnapshotError>,
{
    let mut worker = match worker() {
        Ok(worker) => worker,
        Err(error) => {
            // Told in the place of the first job's result.
            let job = queue.lock().recv();
            if let Ok((number, _)) = job {
                let _ = results.send((number, Err(error)));
            }
            return;
        }
    };
    loop {
        let job = queue.lock().recv();
        let Ok((number, job)) = job else { return };
        if results.send((number, worker(job))).is_err() {
            return;
        }
    }
}
