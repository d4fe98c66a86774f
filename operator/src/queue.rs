//! What is to be looked at, and when: each key at most once at a time, the earliest request wins.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::select;
use parking_lot::Mutex;
use tokio::sync::Notify;

use tenantry_process::runtime::Runtime;

/// A queue of keys with due times.
pub struct Queue<K> {
    runtime: Arc<dyn Runtime>,
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    entries: HashMap<K, Entry>,
    due: BTreeSet<(Instant, u64, K)>,
    counter: u64,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    /// When it is due, and its place among those that are due then.
    due: Option<(Instant, u64)>,
    running: bool,
    /// Asked for while it ran.
    again: Option<Instant>,
}

impl<K: Clone + Ord + Hash + Eq> Queue<K> {
    /// An empty queue.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        let state = State { entries: HashMap::new(), due: BTreeSet::new(), counter: 0 };
        Self { runtime, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Asks that a key be looked at now.
    pub fn now(&self, key: K) {
        self.at(key, self.runtime.instant());
    }

    /// Asks that a key be looked at after a while, or earlier where that was asked for already.
    pub fn after(&self, key: K, wait: Duration) {
        self.at(key, self.runtime.instant() + wait);
    }

    fn at(&self, key: K, when: Instant) {
        self.state.lock().put(key, when);
        self.changed.notify_one();
    }

    /// The next key that is due. It is not given out again before [`Queue::done`].
    pub async fn next(&self) -> K {
        loop {
            let wait = {
                let mut state = self.state.lock();
                match state.take(self.runtime.instant()) {
                    Ok(key) => {
                        if !state.due.is_empty() {
                            self.changed.notify_one();
                        }
                        return key;
                    }
                    Err(next) => next,
                }
            };
            match wait {
                Some(when) => {
                    let until = self.runtime.sleep(when.saturating_duration_since(self.runtime.instant()));
                    select(pin!(self.changed.notified()), until).await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// A key has been looked at; `again` is when it is looked at next, `None` never by itself.
    pub fn done(&self, key: &K, again: Option<Duration>) {
        let mut state = self.state.lock();
        let entry = state.entries.remove(key).unwrap_or_default();
        let requested = again.map(|wait| self.runtime.instant() + wait);
        let when = entry.again.into_iter().chain(requested).min();
        if let Some(when) = when {
            state.put(key.clone(), when);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Clone + Ord + Hash + Eq> State<K> {
    fn put(&mut self, key: K, when: Instant) {
        self.counter += 1;
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.running {
            entry.again = Some(entry.again.map_or(when, |earlier| earlier.min(when)));
            return;
        }
        if let Some((earlier, place)) = entry.due {
            if earlier <= when {
                return;
            }
            self.due.remove(&(earlier, place, key.clone()));
        }
        entry.due = Some((when, self.counter));
        self.due.insert((when, self.counter, key));
    }

    /// A key that is due, or when the next one will be.
    fn take(&mut self, now: Instant) -> Result<K, Option<Instant>> {
        let Some((when, place, key)) = self.due.first().cloned() else { return Err(None) };
        if when > now {
            return Err(Some(when));
        }
        self.due.remove(&(when, place, key.clone()));
        let entry = self.entries.entry(key.clone()).or_default();
        *entry = Entry { due: None, running: true, again: None };
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenantry_process::runtime::TokioRuntime;

    fn queue() -> Queue<&'static str> {
        Queue::new(Arc::new(TokioRuntime))
    }

    #[tokio::test]
    async fn the_earliest_request_for_a_key_wins() {
        let queue = queue();
        queue.after("a", Duration::from_hours(1));
        queue.after("a", Duration::from_millis(20));
        queue.after("a", Duration::from_mins(30));
        let begun = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert!(begun.elapsed() >= Duration::from_millis(20), "before its time");
        queue.done(&"a", None);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_key_is_never_given_out_twice_at_a_time() {
        let queue = queue();
        queue.now("a");
        assert_eq!(queue.next().await, "a");
        queue.now("a");
        let second = tokio::time::timeout(Duration::from_millis(50), queue.next()).await;
        assert!(second.is_err(), "given out while it runs");
        queue.done(&"a", Some(Duration::from_hours(1)));
        let again = tokio::time::timeout(Duration::from_secs(10), queue.next()).await;
        assert_eq!(again, Ok("a"), "what was asked for meanwhile was forgotten");
    }

    #[tokio::test]
    async fn keys_come_in_the_order_in_which_they_are_due() {
        let queue = queue();
        queue.after("late", Duration::from_millis(60));
        queue.after("soon", Duration::from_millis(20));
        assert_eq!(queue.next().await, "soon");
        assert_eq!(queue.next().await, "late");
    }
}
