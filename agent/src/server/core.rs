//! The real thing behind the calls.

use std::sync::Arc;
use std::time::Duration;

use tenantry_api::names::{Identity, OperationId};
use tenantry_protocol::{
    AcceptRequest, Changes, ClaimRequest, ClaimResponse, HostInfo, ObserveRequest, ObserveResponse,
    OperateRequest, OperationStatus, ReleaseRequest, ResolveRequest, ResolveResponse,
};

use super::calls::{Answer, Calls};
use crate::calls::Agent;

impl Calls for Agent {
    fn host(&self) -> impl Future<Output = HostInfo> + Send {
        Agent::host(self)
    }

    fn changes(&self, after: &str, wait: Duration) -> impl Future<Output = Changes> + Send {
        Agent::changes(self, after, wait)
    }

    fn observe(&self, request: ObserveRequest) -> impl Answer<ObserveResponse> {
        Agent::observe(self, request)
    }

    fn resolve(&self, request: ResolveRequest) -> impl Answer<ResolveResponse> {
        Agent::resolve(self, request)
    }

    fn claim(&self, operator: &Identity, request: ClaimRequest) -> impl Answer<ClaimResponse> {
        Agent::claim(self, operator, request)
    }

    fn accept(&self, operator: &Identity, request: AcceptRequest) -> impl Answer<ClaimResponse> {
        Agent::accept(self, operator, request)
    }

    fn release(&self, operator: &Identity, request: ReleaseRequest) -> impl Answer<()> {
        Agent::release(self, operator, request)
    }

    fn operate(
        self: &Arc<Self>,
        operator: &Identity,
        id: OperationId,
        body: OperateRequest,
    ) -> impl Answer<OperationStatus> {
        Agent::operate(self, operator, id, body)
    }

    fn operation(&self, id: &OperationId, after: u64, wait: Duration) -> impl Answer<OperationStatus> {
        Agent::operation(self, id, after, wait)
    }
}
