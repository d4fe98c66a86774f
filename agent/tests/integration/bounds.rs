//! P15: every size, time, count and depth at the agent's door is bounded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::world::{AGENT, OPERATOR, World};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tenantry_agent::server::Limits;
use tenantry_protocol::{ApiError, ErrorCode};

const RELEASE: &str = r#"{"tenant": {"uid": "a1", "namespace": "fleet", "name": "acme"}}"#;
const CALLS: [(&str, &str); 6] = [
    ("POST", "/v1/observe"),
    ("POST", "/v1/resolve"),
    ("PUT", "/v1/claim"),
    ("PUT", "/v1/accept"),
    ("DELETE", "/v1/claim"),
    ("PUT", "/v1/operations/x"),
];

/// A client that speaks HTTP/1 only.
fn old(world: &World) -> reqwest::Client {
    let identity = world.authority.issue(&[OPERATOR], 2099);
    world.client_builder(Some(&identity)).http1_only().build().unwrap()
}

/// A connection on which anything can be said.
async fn raw(world: &World) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let identity = world.authority.issue(&[OPERATOR], 2099);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.authority.pem.as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(identity.0.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.1.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let name = AGENT.try_into().unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

async fn still_answers(world: &World) {
    assert_eq!(world.operator().get(world.url("/v1/host")).send().await.unwrap().status(), 200);
}

async fn refused(request: reqwest::RequestBuilder) -> (u16, ApiError) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn p15_json_without_end_is_refused_by_every_call_over_both_versions_of_http() {
    let world = World::new().await;
    let deep = format!(r#"{{"tenant": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for client in [world.operator(), old(&world)] {
        for (method, path) in CALLS {
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let (status, error) = refused(client.request(method, world.url(path)).body(deep.clone())).await;
            assert_eq!((status, error.code), (400, ErrorCode::Invalid), "{path}");
        }
    }
    assert_eq!(world.calls.asked(), 0);
    still_answers(&world).await;
}

#[tokio::test]
async fn p15_heads_that_are_too_long_or_have_too_many_lines_get_no_further() {
    let world = World::new().await;
    for client in [world.operator(), old(&world)] {
        let long = client.get(world.url("/v1/host")).header("x-long", "x".repeat(64 * 1024)).send().await;
        assert!(long.is_err() || long.unwrap().status().is_client_error());
        let mut many = client.get(world.url("/v1/host"));
        for n in 0..2_000 {
            many = many.header(format!("x-{n}"), "0123456789");
        }
        let many = many.send().await;
        assert!(many.is_err() || many.unwrap().status().is_client_error());
        let path = format!("/v1/operations/{}", "x".repeat(60_000));
        let path = client.get(world.url(&path)).send().await;
        assert!(path.is_err() || path.unwrap().status().is_client_error());
    }
    assert_eq!(world.calls.asked(), 0);
    still_answers(&world).await;
}

#[tokio::test]
async fn p15_a_head_that_never_ends_is_cut_off() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::with(Limits { head: Duration::from_millis(300), ..Limits::default() }).await;
    let mut stream = raw(&world).await;
    stream.write_all(b"GET /v1/host HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("the agent ends the connection").ok();
    assert!(began.elapsed() >= Duration::from_millis(250), "not before its time");
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    assert_eq!(world.calls.asked(), 0);
    still_answers(&world).await;
}

#[tokio::test]
async fn p15_a_call_that_does_not_end_is_answered_and_what_changes_something_goes_on() {
    let world = World::with(Limits { call: Duration::from_millis(200), ..Limits::default() }).await;
    let client = world.operator();
    let (status, error) = refused(client.delete(world.url("/v1/claim")).body(RELEASE)).await;
    assert_eq!((status, error.code), (503, ErrorCode::HostFault));
    assert!(error.message.contains("did not end within"), "{error}");
    world.calls.let_go.notify_one();
    tokio::time::timeout(Duration::from_secs(5), world.calls.finished.notified()).await.unwrap();
    assert_eq!(*world.calls.released_by.lock().unwrap(), ["main"]);
    still_answers(&world).await;
}

#[tokio::test]
async fn p15_waiting_is_bounded_apart_from_working() {
    let world = World::with(Limits { waits: 1, ..Limits::default() }).await;
    let client = world.operator();
    let held = tokio::spawn(client.get(world.url("/v1/operations/a?waitSeconds=60")).send());
    world.calls.begun.notified().await;
    let (status, error) = refused(client.get(world.url("/v1/operations/a?waitSeconds=1"))).await;
    assert_eq!((status, error.code), (503, ErrorCode::Overloaded));
    still_answers(&world).await;
    held.abort();
}

#[tokio::test]
async fn p15_names_and_lists_are_bounded_before_anything_is_looked_at() {
    let world = World::new().await;
    let client = world.operator();
    let observe = |name: &str, protect: Vec<String>| {
        serde_json::json!({
            "tenant": {"uid": "a1", "namespace": "fleet", "name": name},
            "place": {"project": "p", "directory": "/srv/p"},
            "manifest": {"files": [], "env": {"ownership": "adopted", "patch": []}, "protect": protect, "jobs": [], "onChange": []},
        })
        .to_string()
    };
    let many: Vec<String> = (0..5_000).map(|n| format!("p{n}")).collect();
    for (body, field) in [
        (observe("a\nlevel=error", vec![]), "tenant.name"),
        (observe(&"a".repeat(1_000), vec![]), "tenant.name"),
        (observe("a", many), "manifest.protect"),
    ] {
        let (status, error) = refused(client.post(world.url("/v1/observe")).body(body)).await;
        assert_eq!((status, error.field.as_deref()), (400, Some(field)));
    }
    let release = RELEASE.replace("acme", "a\\u001b[2J");
    let (_, error) = refused(client.delete(world.url("/v1/claim")).body(release)).await;
    assert_eq!(error.field.as_deref(), Some("tenant.name"));
    assert_eq!(world.calls.asked(), 0);
}
