//! The way to an agent: who is accepted, and what is told of who is not.

// Unwraps say which preparation failed, as well as a message would.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rstest::rstest;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tenantry_api::names::Identity;
use tenantry_operator::agents::client::HttpsAgents;
use tenantry_operator::agents::trust::Trust;
use tenantry_operator::agents::{Agent, AgentError, Agents as _};
use tenantry_planner::decide::Unreached;
use tenantry_protocol::{ErrorCode, HostInfo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const NAME: &str = "n5.agent.tenantry.internal";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "test authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

struct Issued {
    cert: rcgen::Certificate,
    key: KeyPair,
}

fn issue(authority: &Authority, names: &[&str], years: std::ops::Range<i32>) -> Issued {
    let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    issue_for(authority, names, years, both)
}

fn issue_for(
    authority: &Authority,
    names: &[&str],
    years: std::ops::Range<i32>,
    purposes: Vec<ExtendedKeyUsagePurpose>,
) -> Issued {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    params.extended_key_usages = purposes;
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, authority).unwrap();
    Issued { cert, key }
}

/// What answers at the address.
struct Server {
    authority: Authority,
    client_authority: Authority,
    names: &'static [&'static str],
    years: std::ops::Range<i32>,
    answer: &'static str,
}

impl Server {
    fn good() -> Self {
        let authority = authority();
        Self {
            client_authority: authority_twin(&authority),
            authority,
            names: &[NAME],
            years: 2020..2090,
            answer: "",
        }
    }

    fn answering(answer: &'static str) -> Self {
        Self { answer, ..Self::good() }
    }
}

/// The same authority once more: the type cannot be cloned.
fn authority_twin(authority: &Authority) -> Authority {
    let key = KeyPair::from_pem(&authority.key().serialize_pem()).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "test authority");
    CertifiedIssuer::self_signed(params, key).unwrap()
}

fn info() -> String {
    let info = HostInfo {
        identity: Identity::parse("n5").unwrap(),
        agent_version: "0.1.0".to_owned(),
        capabilities: Vec::new(),
        docker_version: None,
        compose_version: None,
        disk_free_bytes: 1,
        disk_total_bytes: 2,
        max_operations: 4,
        policy_revision: None,
        problems: Vec::new(),
    };
    let body = serde_json::to_string(&info).unwrap();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Serves one answer to each connection until the test ends.
async fn serve(server: &Server) -> String {
    let leaf = issue(&server.authority, server.names, server.years.clone());
    let mut roots = RootCertStore::empty();
    roots.add(server.client_authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![leaf.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = if server.answer.is_empty() { info() } else { server.answer.to_owned() };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0_u8; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

/// What an operator with this certificate, which trusts this authority, reads from its files.
fn trust(authority: &Authority, own: &Issued) -> (Trust, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let trust = Trust::read(
        &file("ca.pem", &authority.pem()),
        &file("cert.pem", &own.cert.pem()),
        &file("key.pem", &own.key.serialize_pem()),
    );
    (trust.unwrap(), folder)
}

/// An operator with a certificate of this authority, which trusts this authority.
fn operator(authority: &Authority, years: std::ops::Range<i32>) -> (HttpsAgents, TempDir) {
    let own = issue(authority, &["o1.operator.tenantry.internal"], years);
    let (trust, folder) = trust(authority, &own);
    (HttpsAgents::new(trust), folder)
}

fn agent(agents: &HttpsAgents, address: &str) -> Arc<dyn Agent> {
    agents.at(&Identity::parse("n5").unwrap(), address).unwrap()
}

async fn fault(agents: &HttpsAgents, address: &str) -> (Unreached, String) {
    let answer = tokio::time::timeout(Duration::from_secs(30), agent(agents, address).host()).await.unwrap();
    match answer.unwrap_err() {
        AgentError::Unreached { why, text } => (why, text),
        refused @ AgentError::Refused(_) => panic!("{refused}"),
    }
}

#[tokio::test]
async fn p13_the_agent_of_the_name_is_reached_wherever_it_is() {
    let server = Server::good();
    let address = serve(&server).await;
    let (agents, _folder) = operator(&server.authority, 2020..2090);
    assert_eq!(agent(&agents, &address).host().await.unwrap().identity.as_str(), "n5");
    let by_name = address.replace("127.0.0.1", "localhost");
    assert_eq!(agent(&agents, &by_name).host().await.unwrap().identity.as_str(), "n5");
}

#[rstest]
#[case::another_hosts(&["n6.agent.tenantry.internal"], 2020..2090, Unreached::WrongAgent, "another host's agent")]
#[case::a_wildcard(&["*.agent.tenantry.internal"], 2020..2090, Unreached::WrongAgent, "another host's agent")]
#[case::two_names(&[NAME, "n6.agent.tenantry.internal"], 2020..2090, Unreached::WrongAgent, "another host's agent")]
#[case::expired(&[NAME], 2020..2021, Unreached::BadCertificate, "has expired")]
#[case::not_yet(&[NAME], 2080..2090, Unreached::BadCertificate, "not valid yet")]
#[tokio::test]
async fn p13_a_certificate_that_is_not_the_agents_is_refused_and_told(
    #[case] names: &'static [&'static str],
    #[case] years: std::ops::Range<i32>,
    #[case] why: Unreached,
    #[case] told: &str,
) {
    let server = Server { names, years, ..Server::good() };
    let address = serve(&server).await;
    let (agents, _folder) = operator(&server.authority, 2020..2090);
    let (seen, text) = fault(&agents, &address).await;
    assert_eq!(seen, why, "{text}");
    assert!(text.contains(told) && text.contains(&address), "{text}");
}

#[tokio::test]
async fn p13_an_agent_of_another_authority_is_refused_and_told() {
    let server = Server::good();
    let address = serve(&server).await;
    let (agents, _folder) = operator(&authority(), 2020..2090);
    let (why, text) = fault(&agents, &address).await;
    assert_eq!(why, Unreached::BadCertificate, "{text}");
    assert!(text.contains("another authority"), "{text}");
}

#[rstest]
#[case::of_another_authority(true, 2020..2090, "refuses the operator's certificate")]
#[case::expired(false, 2020..2021, "expired")]
#[tokio::test]
async fn an_operator_that_the_agent_refuses_says_so(
    #[case] foreign: bool,
    #[case] years: std::ops::Range<i32>,
    #[case] told: &str,
) {
    let mut server = Server::good();
    if foreign {
        server.client_authority = authority();
    }
    let address = serve(&server).await;
    let (agents, _folder) = operator(&server.authority, years);
    let (why, text) = fault(&agents, &address).await;
    assert_eq!(why, Unreached::BadCertificate, "{text}");
    assert!(text.contains(told), "{text}");
}

#[tokio::test]
async fn nobody_at_the_address_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (agents, _folder) = operator(&authority(), 2020..2090);
    let (why, text) = fault(&agents, &address).await;
    assert_eq!(why, Unreached::NoAnswer);
    assert!(text.contains("connection refused"), "{text}");
}

#[tokio::test]
async fn what_does_not_speak_tls_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
            let mut rest = [0_u8; 1024];
            let _ = stream.read(&mut rest).await;
        }
    });
    let (agents, _folder) = operator(&authority(), 2020..2090);
    let (why, text) = fault(&agents, &address).await;
    assert_eq!(why, Unreached::BadAnswer, "{text}");
}

#[rstest]
#[case::not_json("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")]
#[case::not_an_agents_refusal("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")]
#[case::a_redirect("HTTP/1.1 302 Found\r\nlocation: https://elsewhere/\r\ncontent-length: 0\r\n\r\n")]
#[tokio::test]
async fn an_answer_that_is_none_is_not_taken_for_one(#[case] answer: &'static str) {
    let server = Server::answering(answer);
    let address = serve(&server).await;
    let (agents, _folder) = operator(&server.authority, 2020..2090);
    let (why, text) = fault(&agents, &address).await;
    assert_eq!(why, Unreached::BadAnswer, "{text}");
}

#[tokio::test]
async fn an_agents_refusal_keeps_its_field_and_its_words() {
    let body = "{\"code\":\"policyRefused\",\"field\":\"place.directory\",\"message\":\"not allowed here\"}";
    let coded = serde_json::to_string(&ErrorCode::PolicyRefused).unwrap();
    let body = body.replace("\"policyRefused\"", &coded);
    let answer = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let server = Server::answering(answer.leak());
    let address = serve(&server).await;
    let (agents, _folder) = operator(&server.authority, 2020..2090);
    let error = agent(&agents, &address).host().await.unwrap_err();
    let AgentError::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.to_string(), "place.directory: not allowed here");
}

#[tokio::test]
async fn an_address_without_a_port_is_told_with_its_field() {
    let (agents, _folder) = operator(&authority(), 2020..2090);
    let Err(AgentError::Unreached { text, .. }) = agents.at(&Identity::parse("n5").unwrap(), "10.0.0.5")
    else {
        panic!("accepted");
    };
    assert!(text.contains("spec.connection.dial.address"), "{text}");
}

#[rstest]
#[case::as_it_should_be(true, true, 2020..2090, None)]
#[case::of_another_authority(false, true, 2020..2090, Some("did not issue it"))]
#[case::of_an_agent(true, false, 2020..2090, Some("it is an agent's"))]
#[case::that_has_expired(true, true, 2020..2021, Some("it has expired"))]
#[case::of_the_future(true, true, 2080..2090, Some("not valid yet"))]
fn an_operator_s_own_certificate(
    #[case] of_this_authority: bool,
    #[case] for_operators: bool,
    #[case] years: std::ops::Range<i32>,
    #[case] problem: Option<&str>,
) {
    let known = authority();
    let other = authority();
    let issuer = if of_this_authority { &known } else { &other };
    let purpose =
        if for_operators { ExtendedKeyUsagePurpose::ClientAuth } else { ExtendedKeyUsagePurpose::ServerAuth };
    let own = issue_for(issuer, &["o1.operator.tenantry.internal"], years, vec![purpose]);
    let (trust, _folder) = trust(&known, &own);
    let said = trust.check_own(UnixTime::now()).map_err(|error| error.to_string());
    match (said, problem) {
        (Ok(()), None) => {}
        (Err(said), Some(problem)) => {
            assert!(said.contains(problem), "{said}");
            assert!(said.contains("pki issue operator") || problem == "not valid yet", "{said}");
        }
        (said, problem) => panic!("{said:?} instead of {problem:?}"),
    }
}
