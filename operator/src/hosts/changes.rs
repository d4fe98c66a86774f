//! What happens to containers is told by their hosts: one waiting call for each host, whatever the number of its tenants.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_api::names::TenantUid;
use tenantry_process::runtime::{Runtime, jittered};
use tenantry_protocol::Changed;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Hosts;
use crate::agents::Agent;
use crate::key::Key;

/// How long an agent is asked to wait for something to happen.
const WAIT: Duration = Duration::from_secs(50);
/// The shortest time between two calls: a container that ends again and again is looked at once in it.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait after a call that came to nothing. An agent of an older version has no such call at all.
const AGAIN: Duration = Duration::from_secs(15);

/// Told of a host's tenants that are to be looked at; of none: all are.
type Told = Box<dyn Fn(&Key, Option<&[TenantUid]>) + Send + Sync>;

/// Tells which tenants are to be looked at.
pub struct HostChanges {
    /// Time.
    pub runtime: Arc<dyn Runtime>,
    /// The hosts.
    pub hosts: Arc<Hosts>,
    /// Told when containers have changed; and by whoever asks hosts how they are, when one answers again or allows other things.
    pub changed: Told,
    /// The hosts that are being followed.
    pub followed: Mutex<HashSet<Key>>,
    /// What follows them.
    pub tasks: TaskTracker,
}

impl HostChanges {
    /// Follows a host that answers, unless it is followed already, until it is gone or the end.
    pub fn follow(self: &Arc<Self>, key: &Key, end: &CancellationToken) {
        if !self.followed.lock().insert(key.clone()) {
            return;
        }
        let (this, key, end) = (self.clone(), key.clone(), end.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = this.until_gone(&key) => {}
            }
            this.followed.lock().remove(&key);
        });
    }

    /// Asks for as long as there is such a host with an agent. What happened before the first answer is seen by looking at
    /// each tenant once, which an operator does when it starts and whenever a host answers again.
    async fn until_gone(&self, key: &Key) {
        let (mut agent, mut after) = (None::<Arc<dyn Agent>>, String::new());
        while let Some(Ok(current)) = self.hosts.route(key).map(|route| route.agent) {
            if agent.as_ref().is_none_or(|agent| !Arc::ptr_eq(agent, &current)) {
                after = String::new();
            }
            let pause = match current.changes(&after, WAIT).await {
                Ok(changes) => {
                    match changes.changed {
                        Changed::Unknown if after.is_empty() => {}
                        Changed::Unknown => (self.changed)(key, None),
                        Changed::These(tenants) if tenants.is_empty() => {}
                        Changed::These(tenants) => (self.changed)(key, Some(&tenants)),
                    }
                    after = changes.mark;
                    PAUSE
                }
                Err(error) => {
                    tracing::debug!(host = %key, "what changes on it is not told: {error}");
                    jittered(self.runtime.as_ref(), AGAIN)
                }
            };
            agent = Some(current);
            self.runtime.sleep(pause).await;
        }
    }
}
