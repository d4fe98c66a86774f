//! A server with a stand-in behind it, an authority, and certificates good and bad.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tenantry_agent::config::Config;
use tenantry_agent::metrics::Metrics;
use tenantry_agent::server::{self, Calls, Limits};
use tenantry_agent::tls::Certificates;
use tenantry_api::names::{Identity, OperationId};
use tenantry_protocol::*;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub const AGENT: &str = "n5.agent.tenantry.internal";
pub const OPERATOR: &str = "main.operator.tenantry.internal";

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `names`, valid until the end of `last_year`: PEM of certificate and key.
    pub fn issue(&self, names: &[&str], last_year: i32) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 12, 31);
        params.distinguished_name.push(DnType::CommonName, OPERATOR);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A server on a port of its own.
pub struct World {
    pub authority: Authority,
    pub address: SocketAddr,
    pub calls: Arc<StandIn>,
    pub end: CancellationToken,
    pub served: tokio::task::JoinHandle<()>,
    pub metrics: Arc<Metrics>,
    pub certificates: Arc<Certificates>,
    pub folder: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Self {
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        let config = Arc::new(write_files(folder.path(), &authority, AGENT));
        let certificates = Arc::new(Certificates::load(config).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, metrics, end) =
            (Arc::new(StandIn::default()), Arc::new(Metrics::default()), CancellationToken::new());
        let serving = server::serve(
            listener,
            certificates.clone(),
            calls.clone(),
            metrics.clone(),
            limits,
            end.clone(),
        );
        let served = tokio::spawn(serving);
        Self { authority, address, calls, end, served, metrics, certificates, folder }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{AGENT}:{}{path}", self.address.port())
    }

    /// A client that trusts this world's authority and shows `identity`.
    pub fn client_builder(&self, identity: Option<&(String, String)>) -> reqwest::ClientBuilder {
        let root = reqwest::Certificate::from_pem(self.authority.pem.as_bytes()).unwrap();
        let builder = reqwest::Client::builder()
            .tls_certs_only([root])
            .resolve(AGENT, self.address)
            .timeout(Duration::from_secs(10));
        match identity {
            None => builder,
            Some((cert, key)) => {
                builder.identity(reqwest::Identity::from_pem(format!("{cert}{key}").as_bytes()).unwrap())
            }
        }
    }

    /// The operator that the policy file names.
    pub fn operator(&self) -> reqwest::Client {
        let identity = self.authority.issue(&[OPERATOR], 2099);
        self.client_builder(Some(&identity)).build().unwrap()
    }
}

/// Writes certificates for `name` and a policy file for agent `n5`.
pub fn write_files(folder: &Path, authority: &Authority, name: &str) -> Config {
    let (cert, key) = authority.issue(&[name], 2099);
    write_certificates(folder, &authority.pem, &cert, &key);
    let text = "identity: n5\nlisten: 127.0.0.1:0\nstateDir: state\n\
        tls: {ca: ca.crt, cert: agent.crt, key: agent.key}\noperators: [main, second]\n\
        allow: {directories: [/srv], registries: ['*']}\n";
    Config::parse(&folder.join("agent.yaml"), text).unwrap()
}

/// Puts certificates and key where the policy file says, each by a rename as careful people do.
pub fn write_certificates(folder: &Path, ca: &str, cert: &str, key: &str) {
    use std::os::unix::fs::PermissionsExt;
    for (name, content) in [("ca.crt", ca), ("agent.crt", cert), ("agent.key", key)] {
        let new: PathBuf = folder.join(format!("{name}.new"));
        std::fs::write(&new, content).unwrap();
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::rename(&new, folder.join(name)).unwrap();
    }
}

/// What answers behind the server: counts, and holds a release until it is let go.
#[derive(Default)]
pub struct StandIn {
    pub asked: AtomicUsize,
    pub released_by: std::sync::Mutex<Vec<String>>,
    pub begun: Notify,
    pub let_go: Notify,
    pub finished: Notify,
}

impl StandIn {
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn refusal(code: ErrorCode) -> ApiError {
    ApiError { code, field: None, message: "the stand-in says no".to_owned() }
}

impl Calls for StandIn {
    async fn host(&self) -> HostInfo {
        self.asked.fetch_add(1, Ordering::SeqCst);
        HostInfo {
            identity: Identity::parse("n5").unwrap(),
            agent_version: "0".to_owned(),
            capabilities: vec![Capability::ImageOnly],
            docker_version: None,
            compose_version: None,
            disk_free_bytes: 1,
            disk_total_bytes: 2,
            max_operations: 4,
            policy_revision: None,
            problems: Vec::new(),
        }
    }
    async fn changes(&self, after: &str, wait: Duration) -> Changes {
        tokio::time::sleep(wait).await;
        Changes { mark: after.to_owned(), changed: Changed::These(Vec::new()) }
    }
    async fn observe(&self, _request: ObserveRequest) -> Result<ObserveResponse, ApiError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(ObserveResponse::Same)
    }
    async fn resolve(&self, request: ResolveRequest) -> Result<ResolveResponse, ApiError> {
        let answer = |reference: String| ResolvedReference { reference, digest: None, problem: None };
        Ok(ResolveResponse { references: request.references.into_iter().map(answer).collect() })
    }
    async fn claim(&self, _operator: &Identity, _request: ClaimRequest) -> Result<ClaimResponse, ApiError> {
        Err(refusal(ErrorCode::StaleEpoch))
    }
    async fn accept(&self, _operator: &Identity, _request: AcceptRequest) -> Result<ClaimResponse, ApiError> {
        Err(refusal(ErrorCode::StaleEpoch))
    }
    async fn release(&self, operator: &Identity, _request: ReleaseRequest) -> Result<(), ApiError> {
        let operator = operator.to_string();
        self.begun.notify_one();
        self.let_go.notified().await;
        self.released_by.lock().unwrap().push(operator);
        self.finished.notify_one();
        Ok(())
    }
    async fn operate(
        self: &Arc<Self>,
        _operator: &Identity,
        _id: OperationId,
        _body: OperateRequest,
    ) -> Result<OperationStatus, ApiError> {
        Err(refusal(ErrorCode::Busy))
    }
    async fn operation(
        &self,
        _id: &OperationId,
        _after: u64,
        wait: Duration,
    ) -> Result<OperationStatus, ApiError> {
        self.begun.notify_one();
        tokio::time::sleep(wait).await;
        Err(refusal(ErrorCode::NotFound))
    }
}
