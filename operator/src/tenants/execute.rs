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
use super::gather::Asked;
use super::memory::News;
use super::pass::{Ending, PassError, Turn};
use crate::agents::{Agent, AgentError};
use crate::hosts::owed;

/// Contents up to this size are all sent; of more only those that differ on the host.
const SEND_ALL_BELOW: usize = 256 * 1024;

impl Tenants {
    /// Carries out a decision.
    pub(super) async fn execute(
        self: &Arc<Self>,
        turn: &mut Turn,
        decision: Decision,
    ) -> Result<Ending, PassError> {
        self.hold(turn, &decision).await?;
        if let Some(ending) = self.before_writing(turn, &decision).await {
            return Ok(ending);
        }
        if matches!(decision.finalizer, Finalizer::Remove | Finalizer::Abandon) {
            return self.let_go(turn, &decision).await;
        }
        let progress = self.record(turn, &decision).await?;
        let requeue = progress.map_or(decision.requeue, |wait| wait.min(decision.requeue));
        match &decision.effect {
            Some(Effect::Submit(submission)) => Ok(self.submit(turn, submission, requeue).await),
            Some(Effect::Follow { id, after }) => {
                self.follow(turn, id.clone(), *after);
                Ok(Ending::Done(requeue))
            }
            Some(Effect::Claim(_) | Effect::Accept(_) | Effect::Release | Effect::Resolve { .. }) | None => {
                self.settle_memory(turn, &decision);
                Ok(Ending::Done(requeue))
            }
        }
    }

    /// What comes before the status that speaks of it. An answer that changes the decision ends this round.
    async fn before_writing(&self, turn: &Turn, decision: &Decision) -> Option<Ending> {
        let effect = decision.effect.as_ref()?;
        if matches!(effect, Effect::Submit(_) | Effect::Follow { .. }) {
            return None;
        }
        let agent = match agent_of(turn) {
            Ok(agent) => agent,
            Err(error) => return Some(Ending::Decide(error.into())),
        };
        let result = match effect {
            Effect::Claim(request) => self.claim(turn, &agent, request).await,
            Effect::Accept(request) => self.accept(turn, &agent, request).await,
            Effect::Release => self.release(turn, &agent).await,
            Effect::Resolve { references } => {
                let request = ResolveRequest { references: references.clone() };
                let answer = agent.resolve(&request).await;
                self.count("resolve", &answer);
                match answer {
                    Ok(answer) => return Some(Ending::Resolved(answer)),
                    Err(error) => Err(error),
                }
            }
            Effect::Submit(_) | Effect::Follow { .. } => Ok(()),
        };
        result.err().map(|error| Ending::Decide(error.into()))
    }

    async fn claim(
        &self,
        turn: &Turn,
        agent: &Arc<dyn Agent>,
        request: &ClaimRequest,
    ) -> Result<(), AgentError> {
        let ClaimRequest { epoch, take_over, .. } = *request;
        let answer = agent.claim(request).await;
        self.count(if take_over { "takeover" } else { "claim" }, &answer);
        tracing::info!(tenant = %turn.key, epoch, take_over, ok = answer.is_ok(), "claimed");
        self.with_memory(&turn.key, |memory| memory.seen = None);
        answer.map(|_| ())
    }

    async fn accept(
        &self,
        turn: &Turn,
        agent: &Arc<dyn Agent>,
        request: &AcceptRequest,
    ) -> Result<(), AgentError> {
        let answer = agent.accept(request).await;
        self.count("accept", &answer);
        tracing::warn!(tenant = %turn.key, epoch = request.epoch, ok = answer.is_ok(), "a person accepts the host as it is");
        self.with_memory(&turn.key, |memory| memory.seen = None);
        answer.map(|_| ())
    }

    async fn release(&self, turn: &Turn, agent: &Arc<dyn Agent>) -> Result<(), AgentError> {
        let Some(tenant) = reference(turn) else { return Ok(()) };
        let answer = agent.release(&ReleaseRequest { tenant }).await;
        self.count("release", &answer);
        tracing::info!(tenant = %turn.key, ok = answer.is_ok(), "released");
        answer
    }

    /// Takes the finalizer off: the object goes.
    async fn let_go(&self, turn: &mut Turn, decision: &Decision) -> Result<Ending, PassError> {
        if decision.finalizer == Finalizer::Abandon
            && let Some(tenant) = reference(turn)
        {
            let host = turn.key.beside(&turn.subject.host);
            owed::owe(self.cluster.as_ref(), &self.metrics, &host, &tenant).await?;
        }
        self.cluster.publish(turn.tenant.as_ref(), "Delete", &decision.events).await;
        self.remove_finalizer(turn).await?;
        Ok(Ending::Gone)
    }

    async fn submit(self: &Arc<Self>, turn: &Turn, submission: &Submission, requeue: Duration) -> Ending {
        let agent = match agent_of(turn) {
            Ok(agent) => agent,
            Err(error) => return Ending::Decide(error.into()),
        };
        let contents = if submission.needs_contents() {
            match self.contents(turn).await {
                Ok(contents) => self.to_send(turn, &contents),
                Err(refusal) => return Ending::Decide(Asked::NotBegun(unrendered(&refusal))),
            }
        } else {
            Vec::new()
        };
        let (request, terms) = (submission.request(contents), &submission.terms);
        let answer = agent.operate(&submission.id, &request).await;
        self.count("operate", &answer);
        tracing::info!(
            tenant = %turn.key, operation = %submission.id, epoch = terms.epoch, target = terms.target_hash,
            again = submission.again, back_to = terms.rollback.as_ref().map(|rollback| rollback.to.as_str()), result = answer.as_ref().map_or_else(AgentError::category, |_| "ok"), "submitted"
        );
        match answer {
            Ok(status) => {
                let ended = matches!(status.state, OperationState::Ended { .. });
                let seq = status.seq;
                let news = News { id: submission.id.to_string(), status: Ok(Arc::new(status)) };
                self.with_memory(&turn.key, |memory| {
                    memory.news = Some(news);
                    memory.progress.reset();
                });
                self.follow(turn, submission.id.clone(), seq);
                Ending::Done(if ended { Duration::ZERO } else { requeue })
            }
            Err(AgentError::Refused(error)) => Ending::Decide(Asked::NotBegun(error)),
            Err(error) => Ending::Decide(error.into()),
        }
    }

    fn to_send(&self, turn: &Turn, contents: &[FileContent]) -> Vec<FileContent> {
        let size: usize = contents.iter().map(|file| file.content.0.len()).sum();
        if size <= SEND_ALL_BELOW {
            return contents.to_vec();
        }
        let seen = self.with_memory(&turn.key, |memory| memory.seen.clone());
        let same = |path| {
            seen.as_ref().is_some_and(|seen| {
                seen.observation.files.iter().any(|file| &file.path == path && file.state == FileState::Same)
            })
        };
        contents.iter().filter(|file| !same(&file.path)).cloned().collect()
    }

    /// Nothing is under way: what only an operation needs is let go.
    fn settle_memory(&self, turn: &Turn, decision: &Decision) {
        self.with_memory(&turn.key, |memory| {
            memory.news = None;
            memory.follower = None;
            let rests =
                matches!(decision.status.phase, Some(Phase::Ready | Phase::Degraded | Phase::Suspended));
            if let Some(prepared) = memory.prepared.as_mut().filter(|_| rests) {
                prepared.contents = None;
            }
        });
    }
}

/// The host's agent. Without a ComposeHost there is none, and nothing can be done.
fn agent_of(turn: &Turn) -> Result<Arc<dyn Agent>, AgentError> {
    match &turn.wanted.route {
        Some(route) => route.agent.clone(),
        None => {
            let text = format!("there is no ComposeHost {} any more", turn.subject.host);
            Err(AgentError::Unreached { why: Unreached::HostMissing, text })
        }
    }
}

fn unrendered(refusal: &Refusal) -> ApiError {
    ApiError { code: ErrorCode::Invalid, field: None, message: refusal.message.clone() }
}

fn reference(turn: &Turn) -> Option<TenantRef> {
    let uid = TenantUid::parse(turn.subject.uid.clone()).ok()?;
    Some(TenantRef { uid, namespace: turn.key.namespace.clone(), name: turn.key.name.clone() })
}
