//! Waiting for news of an operation in flight, beside the reconciliations: none of them holds a call open.

use std::sync::Arc;
use std::time::Duration;

use tenantry_api::names::OperationId;
use tenantry_protocol::{ErrorCode, OperationState, OperationStatus};

use super::Tenants;
use super::cache::{Follower, News};
use super::reconcile::Attempt;
use crate::agents::{Agent, AgentError};
use crate::key::Key;
use tenantry_process::runtime::jittered;

/// How long one call waits for news.
const WAIT: Duration = Duration::from_secs(30);
/// How many failed calls in a row are borne before the host counts as unreachable.
const BORNE: u32 = 3;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Tenants {
    /// Sees to it that somebody waits for news of this operation.
    pub(super) fn follow(self: &Arc<Self>, attempt: &Attempt, id: OperationId, after: u64) {
        let Some(route) = &attempt.wanted.route else { return };
        let Ok(agent) = &route.agent else { return };
        let of = (id.to_string(), route.address.clone());
        let followed = self.with_cache(&attempt.key, |cache| {
            cache.follower.as_ref().is_some_and(|follower| follower.of == of && !follower.task.is_finished())
        });
        if followed {
            return;
        }
        let follow =
            Follow { tenants: self.clone(), key: attempt.key.clone(), agent: agent.clone(), id, after };
        let task = self.runtime.spawn(Box::pin(follow.run()));
        self.with_cache(&attempt.key, |cache| cache.follower = Some(Follower { of, task }));
    }
}

struct Follow {
    tenants: Arc<Tenants>,
    key: Key,
    agent: Arc<dyn Agent>,
    id: OperationId,
    after: u64,
}

impl Follow {
    async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let answer = self.agent.operation(&self.id, self.after, WAIT).await;
            self.tenants.count("operation", &answer);
            match answer {
                Ok(status) => {
                    let recovered = failures > BORNE;
                    failures = 0;
                    if self.heard(status, recovered) {
                        return;
                    }
                }
                Err(AgentError::Refused(error)) if error.code == ErrorCode::NotFound => {
                    self.tell(Err(AgentError::Refused(error)));
                    return;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures > BORNE {
                        self.tell(Err(error));
                    }
                    let pause = Duration::from_millis(200) * 2_u32.saturating_pow(failures.min(8));
                    let runtime = self.tenants.runtime.as_ref();
                    runtime.sleep(jittered(runtime, pause.min(LONGEST_PAUSE))).await;
                }
            }
        }
    }

    /// Takes over what was heard; true when the operation has ended.
    fn heard(&mut self, status: OperationStatus, recovered: bool) -> bool {
        let ended = matches!(status.state, OperationState::Ended { .. });
        if status.seq > self.after || ended || recovered {
            self.after = self.after.max(status.seq);
            self.tell(Ok(Arc::new(status)));
        }
        ended
    }

    fn tell(&self, status: Result<Arc<OperationStatus>, AgentError>) {
        let news = News { id: self.id.to_string(), status };
        self.tenants.with_cache(&self.key, |cache| cache.news = Some(news));
        self.tenants.queue.now(self.key.clone());
    }
}
