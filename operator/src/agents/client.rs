//! Agents over HTTPS: TLS 1.3 both ways, each agent by its exact name, every call and answer bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tenantry_api::names::{Identity, OperationId};
use tenantry_planner::decide::Unreached;
use tenantry_protocol::{
    AGENT_DOMAIN, AcceptRequest, ApiError, Changes, ClaimRequest, ClaimResponse, ErrorCode, HostInfo,
    ObserveRequest, ObserveResponse, OperateRequest, OperationStatus, PROTOCOL, ReleaseRequest,
    ResolveRequest, ResolveResponse,
};

use super::fault::classify;
use super::trust::Trust;
use super::{Agent, AgentError, Agents, Call};

/// The longest answer that is read, in bytes: an observation of 10,000 files is well below it.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const CALL_WITHIN: Duration = Duration::from_secs(30);
/// How much longer than the wait that was asked for a status call may take.
const WAIT_SLACK: Duration = Duration::from_secs(10);

/// Makes clients of agents.
pub struct HttpsAgents {
    trust: Trust,
}

impl HttpsAgents {
    /// Agents that are trusted so.
    pub fn new(trust: Trust) -> Self {
        Self { trust }
    }
}

impl Agents for HttpsAgents {
    fn at(&self, identity: &Identity, address: &str) -> Result<Arc<dyn Agent>, AgentError> {
        Ok(Arc::new(HttpsAgent::new(&self.trust, identity, address)?))
    }
}

struct HttpsAgent {
    client: Client,
    base: String,
    identity: Identity,
    address: String,
}

/// Every name is the one address that the ComposeHost gives: the certificate is checked against the agent's name.
struct Dial {
    address: String,
}

impl Resolve for Dial {
    fn resolve(&self, _: Name) -> Resolving {
        let address = self.address.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

impl HttpsAgent {
    fn new(trust: &Trust, identity: &Identity, address: &str) -> Result<Self, AgentError> {
        let unusable = |text: String| AgentError::Unreached { why: Unreached::NoAnswer, text };
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let port = port.ok_or_else(|| {
            unusable(format!("spec.connection.dial.address: {address:?} has no port; write host:port, for example 10.0.0.5:7443"))
        })?;
        let client = Client::builder()
            .tls_backend_preconfigured(trust.client_config())
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(Dial { address: address.to_owned() }))
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .http2_keep_alive_while_idle(false)
            .pool_idle_timeout(Duration::from_secs(150))
            .pool_max_idle_per_host(2)
            .build()
            .map_err(|error| unusable(format!("no client can be made for agent {identity}: {error}")))?;
        let base = format!("https://{identity}.{AGENT_DOMAIN}:{port}/{PROTOCOL}");
        Ok(Self { client, base, identity: identity.clone(), address: address.to_owned() })
    }

    fn bad_answer(&self, what: &str) -> AgentError {
        let text = format!("agent {} at {} {what}", self.identity, self.address);
        AgentError::Unreached { why: Unreached::BadAnswer, text }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        within: Duration,
    ) -> Result<(StatusCode, Vec<u8>), AgentError> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).timeout(within);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let fault = |error: &reqwest::Error| classify(error, self.identity.as_str(), &self.address);
        let mut response: Response = request.send().await.map_err(|error| fault(&error))?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| fault(&error))? {
            if answer.len() + part.len() > ANSWER_LIMIT {
                return Err(self.bad_answer("answered with more than 16 MiB"));
            }
            answer.extend_from_slice(&part);
        }
        Ok((status, answer))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        within: Duration,
    ) -> Result<T, AgentError> {
        let (status, answer) = self.exchange(method, path, body, within).await?;
        serde_json::from_slice(&answer)
            .map_err(|_| self.bad_answer(&format!("answered {status} with something that is not an answer")))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        within: Duration,
    ) -> Result<(StatusCode, Vec<u8>), AgentError> {
        let body = body.map(serde_json::to_vec).transpose();
        let body =
            body.map_err(|_| self.bad_answer("was to be asked something that can't be written as JSON"))?;
        let (status, answer) = self.send(method, path, body, within).await?;
        if status.is_success() {
            return Ok((status, answer));
        }
        let refusal: Option<ApiError> = serde_json::from_slice(&answer).ok();
        // A proxy's or a foreign server's 404 is not the agent's: only its own words count.
        match refusal {
            Some(refusal) if refusal.code.http_status() == status.as_u16() => {
                Err(AgentError::Refused(refusal))
            }
            Some(refusal) if refusal.code == ErrorCode::Invalid && status.is_client_error() => {
                Err(AgentError::Refused(refusal))
            }
            _ => Err(self.bad_answer(&format!("answered {status}, not as an agent does"))),
        }
    }
}

const NOTHING: Option<&()> = None;

impl Agent for HttpsAgent {
    fn host(&self) -> Call<'_, HostInfo> {
        async move {
            let info: HostInfo = self.call(Method::GET, "/host", NOTHING, Duration::from_secs(10)).await?;
            if info.identity != self.identity {
                let text = format!("the agent at {} says that it is {}", self.address, info.identity);
                return Err(AgentError::Unreached { why: Unreached::WrongAgent, text });
            }
            Ok(info)
        }
        .boxed()
    }

    fn changes<'a>(&'a self, after: &'a str, wait: Duration) -> Call<'a, Changes> {
        async move {
            if !after.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
                return Err(self.bad_answer("gave out a mark that is none"));
            }
            let path = format!("/changes?after={after}&waitSeconds={}", wait.as_secs());
            self.call(Method::GET, &path, NOTHING, wait + WAIT_SLACK).await
        }
        .boxed()
    }

    fn observe<'a>(&'a self, request: &'a ObserveRequest) -> Call<'a, ObserveResponse> {
        self.call(Method::POST, "/observe", Some(request), CALL_WITHIN).boxed()
    }

    fn resolve<'a>(&'a self, request: &'a ResolveRequest) -> Call<'a, ResolveResponse> {
        self.call(Method::POST, "/resolve", Some(request), CALL_WITHIN * 2).boxed()
    }

    fn claim<'a>(&'a self, request: &'a ClaimRequest) -> Call<'a, ClaimResponse> {
        self.call(Method::PUT, "/claim", Some(request), CALL_WITHIN).boxed()
    }

    fn accept<'a>(&'a self, request: &'a AcceptRequest) -> Call<'a, ClaimResponse> {
        self.call(Method::PUT, "/accept", Some(request), CALL_WITHIN).boxed()
    }

    fn release<'a>(&'a self, request: &'a ReleaseRequest) -> Call<'a, ()> {
        async move { self.exchange(Method::DELETE, "/claim", Some(request), CALL_WITHIN).await.map(|_| ()) }
            .boxed()
    }

    fn operate<'a>(&'a self, id: &'a OperationId, request: &'a OperateRequest) -> Call<'a, OperationStatus> {
        async move {
            let path = format!("/operations/{id}");
            let status: OperationStatus = self.call(Method::PUT, &path, Some(request), CALL_WITHIN).await?;
            self.checked(id, status)
        }
        .boxed()
    }

    fn operation<'a>(&'a self, id: &'a OperationId, after: u64, wait: Duration) -> Call<'a, OperationStatus> {
        async move {
            let path = format!("/operations/{id}?after={after}&waitSeconds={}", wait.as_secs());
            let status: OperationStatus = self.call(Method::GET, &path, NOTHING, wait + WAIT_SLACK).await?;
            self.checked(id, status)
        }
        .boxed()
    }
}

impl HttpsAgent {
    /// Another operation's result is no answer.
    fn checked(&self, id: &OperationId, status: OperationStatus) -> Result<OperationStatus, AgentError> {
        if status.id == *id {
            return Ok(status);
        }
        Err(self.bad_answer("answered with the status of another operation"))
    }
}
