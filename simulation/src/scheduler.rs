//! Tasks, a virtual clock, and one queue of what happens next. One seed, one order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::{Mutex, MutexGuard};

use crate::agent::Killed;
use crate::world::World;

/// The world, as every task sees it. Only one task runs at a time.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// A world to share.
    pub fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// The world, for as long as nothing is awaited.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock()
    }
}

/// Who a task belongs to, and dies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// An operator's process.
    Operator(usize),
    /// The agent's process.
    Agent,
    /// A `docker compose` process, which outlives the agent.
    Child,
    /// A person, and whatever else is never killed.
    Person,
}

/// A task.
pub type TaskId = u64;
/// What a task does.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Something that happens at its time.
pub type Happening = Box<dyn FnOnce(&mut World) + Send>;

/// What is waited for besides the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// An answer.
    Slot(u64),
    /// A compose process has ended.
    Child,
    /// Something happened to a container.
    Engine,
    /// The script's next line may be due.
    Script,
}

enum Event {
    Wake(Sleeper),
    Happen(Happening),
}

/// Who waits: a task as a whole, or a part of one, which alone is looked at then.
#[derive(Clone)]
enum Sleeper {
    Task(TaskId),
    Part(Waker),
}

impl Sleeper {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Task(one), Self::Task(other)) => one == other,
            (Self::Part(one), Self::Part(other)) => one.will_wake(other),
            _ => false,
        }
    }
}

/// What is to happen, in order of time; what is due at once, in an order that the seed decides.
#[derive(Default)]
pub struct Queue {
    /// Milliseconds since the beginning.
    pub now: u64,
    events: BTreeMap<(u64, u32, u64), Event>,
    numbers: u64,
    current: TaskId,
    /// What wakes the task that runs.
    waker: Option<Waker>,
    spawned: Vec<(TaskId, Owner, Work)>,
    killed: BTreeSet<Owner>,
    aborted: BTreeSet<TaskId>,
    waiting: BTreeMap<Topic, Vec<Sleeper>>,
    paused: BTreeMap<Owner, u64>,
    done: BTreeSet<TaskId>,
}

impl Queue {
    fn push(&mut self, at: u64, tie: u32, event: Event) {
        self.numbers += 1;
        self.events.insert((at.max(self.now), tie, self.numbers), event);
    }

    /// A number that was not given before.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Who waits where this waker comes from.
    fn sleeper(&self, waker: &Waker) -> Sleeper {
        let whole = self.waker.as_ref().is_some_and(|own| own.will_wake(waker));
        if whole { Sleeper::Task(self.current) } else { Sleeper::Part(waker.clone()) }
    }

    /// The task that runs.
    pub fn current(&self) -> TaskId {
        self.current
    }

    /// Has the owner's tasks stand still for a while, as by SIGSTOP.
    pub fn pause(&mut self, owner: Owner, until: u64) {
        self.paused.insert(owner, until);
    }

    /// When the last of those who stand still goes on.
    pub fn paused_until(&self) -> u64 {
        self.paused.values().copied().max().unwrap_or(0)
    }

    /// Drops every task of an owner, also the one that runs.
    pub fn kill(&mut self, owner: Owner) {
        self.killed.insert(owner);
    }

    /// Drops one task.
    pub fn abort(&mut self, task: TaskId) {
        self.aborted.insert(task);
    }

    /// Whether an owner is about to be dropped: its other futures do nothing any more.
    pub fn killed(&self, owner: Owner) -> bool {
        self.killed.contains(&owner)
    }

    /// Whether a task has ended.
    pub fn ended(&self, task: TaskId) -> bool {
        self.done.contains(&task)
    }
}

impl World {
    /// Something happens after a while.
    pub fn after(&mut self, ms: u64, happening: impl FnOnce(&mut Self) + Send + 'static) {
        let (at, tie) = (self.queue.now + ms, self.rng.u32(..));
        self.queue.push(at, tie, Event::Happen(Box::new(happening)));
    }

    /// A task begins.
    pub fn spawn(&mut self, owner: Owner, work: impl Future<Output = ()> + Send + 'static) -> TaskId {
        let id = self.queue.number();
        self.queue.spawned.push((id, owner, Box::pin(work)));
        id
    }

    /// Wakes whoever waits for this.
    pub fn notify(&mut self, topic: Topic) {
        for sleeper in self.queue.waiting.remove(&topic).unwrap_or_default() {
            self.wake(self.queue.now, sleeper);
        }
    }

    fn wake(&mut self, at: u64, sleeper: Sleeper) {
        let tie = self.rng.u32(..);
        self.queue.push(at, tie, Event::Wake(sleeper));
    }
}

/// Tasks that something else than time or a topic has woken: a channel, a notification, another future of theirs.
type Woken = Arc<Mutex<Vec<TaskId>>>;

/// Wakes one task.
struct TaskWaker {
    task: TaskId,
    woken: Woken,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.woken.lock().push(self.task);
    }
}

struct Task {
    owner: Owner,
    work: Work,
    waker: Waker,
}

/// Runs tasks until nothing is left to do, the end is reached, or a promise is broken.
pub struct Scheduler {
    shared: Shared,
    tasks: BTreeMap<TaskId, Task>,
    woken: Woken,
}

impl Scheduler {
    /// A scheduler for this world.
    pub fn new(shared: Shared) -> Self {
        Self { shared, tasks: BTreeMap::new(), woken: Woken::default() }
    }

    /// Lets one event happen; false when there is none before `end`.
    pub fn step(&mut self, end: u64) -> bool {
        self.settle();
        let event = {
            let mut world = self.shared.world();
            let Some((&key, _)) = world.queue.events.first_key_value() else { return false };
            if key.0 > end {
                return false;
            }
            world.queue.now = key.0;
            world.queue.events.remove(&key)
        };
        match event {
            None => return false,
            Some(Event::Happen(happening)) => happening(&mut self.shared.world()),
            Some(Event::Wake(Sleeper::Task(task))) => self.poll(task),
            Some(Event::Wake(Sleeper::Part(waker))) => waker.wake(),
        }
        self.settle();
        true
    }

    fn poll(&mut self, task: TaskId) {
        let Some(Task { owner, work, waker }) = self.tasks.get_mut(&task) else { return };
        {
            let mut world = self.shared.world();
            if let Some(until) =
                world.queue.paused.get(owner).copied().filter(|until| *until > world.queue.now)
            {
                world.wake(until, Sleeper::Task(task));
                return;
            }
            world.queue.current = task;
            world.queue.waker = Some(waker.clone());
        }
        let mut context = Context::from_waker(waker);
        let polled = AssertUnwindSafe(|| work.as_mut().poll(&mut context).is_ready());
        let over =
            std::panic::catch_unwind(polled).unwrap_or_else(|fault| match fault.downcast::<Killed>() {
                // The agent was killed in the middle of this: nobody goes on with it.
                Ok(_) => true,
                Err(fault) => std::panic::resume_unwind(fault),
            });
        if over {
            self.tasks.remove(&task);
            self.shared.world().queue.done.insert(task);
        }
    }

    fn settle(&mut self) {
        loop {
            let mut world = self.shared.world();
            let killed = std::mem::take(&mut world.queue.killed);
            let aborted = std::mem::take(&mut world.queue.aborted);
            let spawned = std::mem::take(&mut world.queue.spawned);
            let mut woken = std::mem::take(&mut *self.woken.lock());
            // In which order a channel wakes those who wait for it is not the seed's to decide.
            woken.sort_unstable();
            woken.dedup();
            for task in &woken {
                let now = world.queue.now;
                world.wake(now, Sleeper::Task(*task));
            }
            drop(world);
            if killed.is_empty() && aborted.is_empty() && spawned.is_empty() && woken.is_empty() {
                return;
            }
            // Dropped here, without the world: futures end in the middle of whatever they did.
            self.tasks.retain(|id, task| !killed.contains(&task.owner) && !aborted.contains(id));
            for (id, owner, work) in spawned {
                if !killed.contains(&owner) {
                    let waker = Waker::from(Arc::new(TaskWaker { task: id, woken: self.woken.clone() }));
                    self.tasks.insert(id, Task { owner, work, waker });
                    let mut world = self.shared.world();
                    let now = world.queue.now;
                    world.wake(now, Sleeper::Task(id));
                }
            }
        }
    }
}

/// Waits until `ready` gives something, woken by a topic, at the latest until a time.
pub async fn until<T>(
    shared: &Shared,
    topic: Topic,
    within: u64,
    mut ready: impl FnMut(&mut World) -> Option<T>,
) -> Option<T> {
    let mut deadline = None;
    std::future::poll_fn(move |context| {
        let mut world = shared.world();
        if let Some(found) = ready(&mut world) {
            return Poll::Ready(Some(found));
        }
        let sleeper = world.queue.sleeper(context.waker());
        let at = *deadline.get_or_insert_with(|| {
            let at = world.queue.now.saturating_add(within);
            world.wake(at, sleeper.clone());
            at
        });
        if world.queue.now >= at {
            return Poll::Ready(None);
        }
        let waiting = world.queue.waiting.entry(topic).or_default();
        if !waiting.iter().any(|other| other.is(&sleeper)) {
            waiting.push(sleeper);
        }
        Poll::Pending
    })
    .await
}

/// Lets time pass.
pub async fn sleep(shared: &Shared, ms: u64) {
    let mut deadline = None;
    std::future::poll_fn(move |context| {
        let mut world = shared.world();
        let at = *deadline.get_or_insert_with(|| {
            let (at, sleeper) = (world.queue.now.saturating_add(ms), world.queue.sleeper(context.waker()));
            world.wake(at, sleeper);
            at
        });
        if world.queue.now >= at { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Never goes on: whoever awaits it is about to be dropped.
pub async fn die() {
    std::future::pending::<()>().await;
}
