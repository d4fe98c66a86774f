//! What the operator needs of an agent, and how a call to one can fail.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tenantry_api::names::{Identity, OperationId};
use tenantry_planner::decide::Unreached;
use tenantry_protocol::{
    AcceptRequest, ApiError, Changes, ClaimRequest, ClaimResponse, HostInfo, ObserveRequest, ObserveResponse,
    OperateRequest, OperationStatus, ReleaseRequest, ResolveRequest, ResolveResponse,
};

pub mod client;
mod fault;
pub mod trust;

/// Why a call to an agent has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The agent was not reached as itself.
    #[error("{text}")]
    Unreached {
        /// Why, in a word.
        why: Unreached,
        /// What happened, without a closing full stop.
        text: String,
    },
    /// It refused.
    #[error("{0}")]
    Refused(ApiError),
}

impl AgentError {
    /// A word of a bounded set, for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unreached { why, .. } => why.as_str(),
            Self::Refused(_) => "Refused",
        }
    }
}

/// An answer that is on its way. Every call ends in bounded time.
pub type Call<'a, T> = BoxFuture<'a, Result<T, AgentError>>;

/// One host's agent.
pub trait Agent: Send + Sync {
    /// What it says of itself.
    fn host(&self) -> Call<'_, HostInfo>;
    /// What has changed on its host since a mark, as soon as anything has or `wait` has passed.
    fn changes<'a>(&'a self, after: &'a str, wait: Duration) -> Call<'a, Changes>;
    /// What is on its host.
    fn observe<'a>(&'a self, request: &'a ObserveRequest) -> Call<'a, ObserveResponse>;
    /// Where references point now.
    fn resolve<'a>(&'a self, request: &'a ResolveRequest) -> Call<'a, ResolveResponse>;
    /// Takes over what is there.
    fn claim<'a>(&'a self, request: &'a ClaimRequest) -> Call<'a, ClaimResponse>;
    /// Takes what is there for the truth.
    fn accept<'a>(&'a self, request: &'a AcceptRequest) -> Call<'a, ClaimResponse>;
    /// Gives a claim back.
    fn release<'a>(&'a self, request: &'a ReleaseRequest) -> Call<'a, ()>;
    /// Begins an operation, or says how it stands.
    fn operate<'a>(&'a self, id: &'a OperationId, request: &'a OperateRequest) -> Call<'a, OperationStatus>;
    /// How an operation stands, as soon as its `seq` is above `after` or `wait` has passed.
    fn operation<'a>(&'a self, id: &'a OperationId, after: u64, wait: Duration) -> Call<'a, OperationStatus>;
}

/// Where agents are had from.
pub trait Agents: Send + Sync {
    /// The agent of this identity at this address.
    fn at(&self, identity: &Identity, address: &str) -> Result<Arc<dyn Agent>, AgentError>;
}
