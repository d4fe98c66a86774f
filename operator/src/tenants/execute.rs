//! Carrying out a decision: the only place that changes something on a host.

use std::sync::Arc;
use std::time::Duration;

use tenantry_api::names::TenantUid;
use tenantry_api::tenant_status::Phase;
use tenantry_planner::decide::{Decision, Effect, Finalizer, Submission, Unreached};
use tenantry_planner::target::Refusal;
use tenantry_protocol::{
    AcceptRequest, ApiError, ClaimRequest, ErrorCode, FileContent, FileState, OperationState, ReleaseRequest,
    ResolveRequest, TenantRef,
};

use super::Tenants;
use super::cache::News;
use super::observe::AgentAnswer;
use super::reconcile::{Attempt, Executed, ReconcileError};
use crate::agents::{Agent, AgentError};
use crate::hosts::pending_releases;

/// Contents up to this size are all sent; of more only those that differ on the host.
const SEND_ALL_BELOW: usize = 256 * 1024;

impl Tenants {
    /// Carries out a decision.
    pub(super) async fn execute(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        decision: Decision,
    ) -> Result<Executed, ReconcileError> {
        self.ensure_finalizer(attempt, &decision).await?;
        if let Some(ending) = self.before_writing(attempt, &decision).await {
            return Ok(ending);
        }
        if matches!(decision.finalizer, Finalizer::Remove | Finalizer::Abandon) {
            return self.finalize(attempt, &decision).await;
        }
        let progress = self.record(attempt, &decision).await?;
        let requeue = progress.map_or(decision.requeue, |wait| wait.min(decision.requeue));
        match &decision.effect {
            Some(Effect::Submit(submission)) => Ok(self.submit(attempt, submission, requeue).await),
            Some(Effect::Follow { id, after }) => {
                self.follow(attempt, id.clone(), *after);
                Ok(Executed::Done(requeue))
            }
            Some(Effect::Claim(_) | Effect::Accept(_) | Effect::Release | Effect::Resolve { .. }) | None => {
                self.drop_operation_cache(attempt, &decision);
                Ok(Executed::Done(requeue))
            }
        }
    }

    /// What comes before the status that speaks of it. An answer that changes the decision ends this round.
    async fn before_writing(&self, attempt: &Attempt, decision: &Decision) -> Option<Executed> {
        let effect = decision.effect.as_ref()?;
        if matches!(effect, Effect::Submit(_) | Effect::Follow { .. }) {
            return None;
        }
        let agent = match agent_of(attempt) {
            Ok(agent) => agent,
            Err(error) => return Some(Executed::Decide(error.into())),
        };
        let result = match effect {
            Effect::Claim(request) => self.claim(attempt, &agent, request).await,
            Effect::Accept(request) => self.accept(attempt, &agent, request).await,
            Effect::Release => self.release(attempt, &agent).await,
            Effect::Resolve { references } => {
                let request = ResolveRequest { references: references.clone() };
                let answer = agent.resolve(&request).await;
                self.count("resolve", &answer);
                match answer {
                    Ok(answer) => return Some(Executed::Resolved(answer)),
                    Err(error) => Err(error),
                }
            }
            Effect::Submit(_) | Effect::Follow { .. } => Ok(()),
        };
        result.err().map(|error| Executed::Decide(error.into()))
    }

    async fn claim(
        &self,
        attempt: &Attempt,
        agent: &Arc<dyn Agent>,
        request: &ClaimRequest,
    ) -> Result<(), AgentError> {
        let ClaimRequest { epoch, take_over, .. } = *request;
        let answer = agent.claim(request).await;
        self.count(if take_over { "takeover" } else { "claim" }, &answer);
        tracing::info!(tenant = %attempt.key, epoch, take_over, ok = answer.is_ok(), "claimed");
        self.with_cache(&attempt.key, |cache| cache.seen = None);
        answer.map(|_| ())
    }

    async fn accept(
        &self,
        attempt: &Attempt,
        agent: &Arc<dyn Agent>,
        request: &AcceptRequest,
    ) -> Result<(), AgentError> {
        let answer = agent.accept(request).await;
        self.count("accept", &answer);
        tracing::warn!(tenant = %attempt.key, epoch = request.epoch, ok = answer.is_ok(), "a person accepts the host as it is");
        self.with_cache(&attempt.key, |cache| cache.seen = None);
        answer.map(|_| ())
    }

    async fn release(&self, attempt: &Attempt, agent: &Arc<dyn Agent>) -> Result<(), AgentError> {
        let Some(tenant) = reference(attempt) else { return Ok(()) };
        let answer = agent.release(&ReleaseRequest { tenant }).await;
        self.count("release", &answer);
        tracing::info!(tenant = %attempt.key, ok = answer.is_ok(), "released");
        answer
    }

    /// Takes the finalizer off: the object goes.
    async fn finalize(&self, attempt: &mut Attempt, decision: &Decision) -> Result<Executed, ReconcileError> {
        if decision.finalizer == Finalizer::Abandon
            && let Some(tenant) = reference(attempt)
        {
            let host = attempt.key.beside(&attempt.subject.host);
            pending_releases::add(self.cluster.as_ref(), &self.metrics, &host, &tenant).await?;
        }
        self.cluster.publish(attempt.tenant.as_ref(), &decision.events).await;
        self.remove_finalizer(attempt).await?;
        Ok(Executed::Gone)
    }

    async fn submit(
        self: &Arc<Self>,
        attempt: &Attempt,
        submission: &Submission,
        requeue: Duration,
    ) -> Executed {
        let agent = match agent_of(attempt) {
            Ok(agent) => agent,
            Err(error) => return Executed::Decide(error.into()),
        };
        let contents = if submission.needs_contents() {
            match self.contents(attempt).await {
                Ok(contents) => self.to_send(attempt, &contents),
                Err(refusal) => return Executed::Decide(AgentAnswer::NotBegun(unrendered(&refusal))),
            }
        } else {
            Vec::new()
        };
        let (request, terms) = (submission.request(contents), &submission.terms);
        let answer = agent.operate(&submission.id, &request).await;
        self.count("operate", &answer);
        tracing::info!(
            tenant = %attempt.key, operation = %submission.id, epoch = terms.epoch, target = terms.target_hash,
            again = submission.again, back_to = terms.rollback.as_ref().map(|rollback| rollback.to.as_str()), result = answer.as_ref().map_or_else(AgentError::category, |_| "ok"), "submitted"
        );
        match answer {
            Ok(status) => {
                let ended = matches!(status.state, OperationState::Ended { .. });
                let seq = status.seq;
                let news = News { id: submission.id.to_string(), status: Ok(Arc::new(status)) };
                self.with_cache(&attempt.key, |cache| {
                    cache.news = Some(news);
                    cache.progress.reset();
                });
                self.follow(attempt, submission.id.clone(), seq);
                Executed::Done(if ended { Duration::ZERO } else { requeue })
            }
            Err(AgentError::Refused(error)) => Executed::Decide(AgentAnswer::NotBegun(error)),
            Err(error) => Executed::Decide(error.into()),
        }
    }

    fn to_send(&self, attempt: &Attempt, contents: &[FileContent]) -> Vec<FileContent> {
        let size: usize = contents.iter().map(|file| file.content.0.len()).sum();
        if size <= SEND_ALL_BELOW {
            return contents.to_vec();
        }
        let seen = self.with_cache(&attempt.key, |cache| cache.seen.clone());
        let same = |path| {
            seen.as_ref().is_some_and(|seen| {
                seen.observation.files.iter().any(|file| &file.path == path && file.state == FileState::Same)
            })
        };
        contents.iter().filter(|file| !same(&file.path)).cloned().collect()
    }

    /// Nothing is under way: what only an operation needs is let go.
    fn drop_operation_cache(&self, attempt: &Attempt, decision: &Decision) {
        self.with_cache(&attempt.key, |cache| {
            cache.news = None;
            cache.follower = None;
            let rests =
                matches!(decision.status.phase, Some(Phase::Ready | Phase::Degraded | Phase::Suspended));
            if let Some(prepared) = cache.prepared.as_mut().filter(|_| rests) {
                prepared.contents = None;
            }
        });
    }
}

/// The host's agent. Without a ComposeHost there is none, and nothing can be done.
fn agent_of(attempt: &Attempt) -> Result<Arc<dyn Agent>, AgentError> {
    let Some(route) = &attempt.wanted.route else {
        let text = format!("there is no ComposeHost {} any more", attempt.subject.host);
        return Err(AgentError::Unreached { why: Unreached::HostMissing, text });
    };
    route.agent.clone()
}

fn unrendered(refusal: &Refusal) -> ApiError {
    ApiError { code: ErrorCode::Invalid, field: None, message: refusal.message.clone() }
}

fn reference(attempt: &Attempt) -> Option<TenantRef> {
    let uid = TenantUid::parse(attempt.subject.uid.clone()).ok()?;
    Some(TenantRef { uid, namespace: attempt.key.namespace.clone(), name: attempt.key.name.clone() })
}
