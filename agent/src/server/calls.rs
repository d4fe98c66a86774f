//! What can be asked of an agent, without how it travels.

use std::sync::Arc;
use std::time::Duration;

use tenantry_api::names::{Identity, OperationId};
use tenantry_protocol::{
    AcceptRequest, ApiError, Changes, ClaimRequest, ClaimResponse, HostInfo, ObserveRequest, ObserveResponse,
    OperateRequest, OperationStatus, ReleaseRequest, ResolveRequest, ResolveResponse,
};

/// An answer that is waited for.
pub trait Answer<T>: Future<Output = Result<T, ApiError>> + Send {}
impl<T, F: Future<Output = Result<T, ApiError>> + Send> Answer<T> for F {}

/// The calls of the protocol. `operator` is who asks, by its certificate.
pub trait Calls: Send + Sync + 'static {
    /// What this agent says of itself and its machine.
    fn host(&self) -> impl Future<Output = HostInfo> + Send;
    /// What has changed since a mark, as soon as anything has or `wait` is over.
    fn changes(&self, after: &str, wait: Duration) -> impl Future<Output = Changes> + Send;
    /// What is on the host.
    fn observe(&self, request: ObserveRequest) -> impl Answer<ObserveResponse>;
    /// The digests that references point to now.
    fn resolve(&self, request: ResolveRequest) -> impl Answer<ResolveResponse>;
    /// Takes a directory and project that are already as wanted.
    fn claim(&self, operator: &Identity, request: ClaimRequest) -> impl Answer<ClaimResponse>;
    /// Takes the host's present state for the truth.
    fn accept(&self, operator: &Identity, request: AcceptRequest) -> impl Answer<ClaimResponse>;
    /// Gives a claim back.
    fn release(&self, operator: &Identity, request: ReleaseRequest) -> impl Answer<()>;
    /// Begins an operation, or tells how the one with this id stands.
    fn operate(
        self: &Arc<Self>,
        operator: &Identity,
        id: OperationId,
        body: OperateRequest,
    ) -> impl Answer<OperationStatus>;
    /// How an operation stands, as soon as its `seq` is above `after` or `wait` is over.
    fn operation(&self, id: &OperationId, after: u64, wait: Duration) -> impl Answer<OperationStatus>;
}
