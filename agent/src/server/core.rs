//! The real thing behind the calls.

use std::sync::Arc;
use std::time::Duration;

use tenantry_api::names::{Identity, OperationId};
use tenantry_protocol::{
    AcceptRequest, ClaimRequest, ClaimResponse, HostInfo, ObserveRequest, ObserveResponse, OperateRequest,
    OperationStatus, ReleaseRequest, ResolveRequest, ResolveResponse,
};

use super::calls::{Answer, Calls};
use crate::core::Core;

impl Calls for Core {
    fn host(&self) -> impl Future<Output = HostInfo> + Send {
        Core::host(self)
    }

    fn observe(&self, request: ObserveRequest) -> impl Answer<ObserveResponse> {
        Core::observe(self, request)
    }

    fn resolve(&self, request: ResolveRequest) -> impl Answer<ResolveResponse> {
        Core::resolve(self, request)
    }

    fn claim(&self, operator: &Identity, request: ClaimRequest) -> impl Answer<ClaimResponse> {
        Core::claim(self, operator, request)
    }

    fn accept(&self, operator: &Identity, request: AcceptRequest) -> impl Answer<ClaimResponse> {
        Core::accept(self, operator, request)
    }

    fn release(&self, operator: &Identity, request: ReleaseRequest) -> impl Answer<()> {
        Core::release(self, operator, request)
    }

    fn operate(
        self: &Arc<Self>,
        operator: &Identity,
        id: OperationId,
        body: OperateRequest,
    ) -> impl Answer<OperationStatus> {
        Core::operate(self, operator, id, body)
    }

    fn operation(&self, id: &OperationId, after: u64, wait: Duration) -> impl Answer<OperationStatus> {
        Core::operation(self, id, after, wait)
    }
}
