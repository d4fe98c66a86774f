//! Who may ask an agent, and what a stranger or a careless operator can cost it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::world::{AGENT, Authority, OPERATOR, World, write_certificates, write_files};
use tenantry_agent::server::Limits;
use tenantry_agent::tls::Certificates;
use tenantry_protocol::{ApiError, BODY_LIMIT, ErrorCode, HostInfo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const RELEASE: &str = r#"{"tenant": {"uid": "a1", "namespace": "fleet", "name": "acme"}}"#;

/// The whole chain of an error: reqwest hides the cause from its own line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[tokio::test]
async fn the_operator_of_the_policy_file_is_answered_over_both_versions_of_http() {
    let world = World::new().await;
    let answer = world.operator().get(world.url("/v1/host")).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    let info: HostInfo = answer.json().await.unwrap();
    assert_eq!(info.identity.as_str(), "n5");

    let identity = world.authority.issue(&[OPERATOR], 2099);
    let old = world.client_builder(Some(&identity)).http1_only().build().unwrap();
    let answer = old.get(world.url("/v1/host")).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_11, 200));
}

#[tokio::test]
async fn p13_every_other_certificate_is_refused_before_anything_is_asked() {
    let world = World::new().await;
    let stranger = Authority::new();
    let issue = |names: &[&str]| Some(world.authority.issue(names, 2099));
    let cases = [
        ("no certificate", None, "CertificateRequired"),
        (
            "another authority",
            Some(stranger.issue(&[OPERATOR], 2099)),
            "UnknownCA|DecryptError|BadCertificate",
        ),
        ("expired", Some(world.authority.issue(&[OPERATOR], 2021)), "CertificateExpired"),
        ("another operator", issue(&["other.operator.tenantry.internal"]), "AccessDenied"),
        ("two names", issue(&[OPERATOR, "second.operator.tenantry.internal"]), "AccessDenied"),
        ("a wildcard", issue(&["*.operator.tenantry.internal"]), "AccessDenied"),
        ("an agent's", issue(&[AGENT]), "AccessDenied"),
        ("a name above", issue(&["main.operator.tenantry.internal.example"]), "AccessDenied"),
        ("an address", issue(&["127.0.0.1"]), "AccessDenied"),
        ("a common name alone", issue(&[]), "AccessDenied|BadCertificate"),
    ];
    for (case, identity, alerts) in cases {
        let client = world.client_builder(identity.as_ref()).build().unwrap();
        let error = client.get(world.url("/v1/host")).send().await.expect_err(case);
        let shown = chain(&error);
        assert!(alerts.split('|').any(|alert| shown.contains(alert)), "{case}: {shown}");
        assert_eq!(world.calls.asked(), 0, "{case}");
    }
    assert_eq!(world.operator().get(world.url("/v1/host")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn tls_below_1_3_is_refused() {
    let world = World::new().await;
    let identity = world.authority.issue(&[OPERATOR], 2099);
    let old = world
        .client_builder(Some(&identity))
        .tls_version_max(reqwest::tls::Version::TLS_1_2)
        .build()
        .unwrap();
    let error = old.get(world.url("/v1/host")).send().await.unwrap_err();
    assert!(chain(&error).contains("ProtocolVersion"), "{}", chain(&error));
}

#[tokio::test]
async fn an_agent_does_not_start_with_another_agents_certificate_or_an_open_key() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let config = Arc::new(write_files(folder.path(), &authority, "n6.agent.tenantry.internal"));
    let message = Certificates::load(config).err().unwrap().to_string();
    assert!(message.contains("it is for n6.agent.tenantry.internal, but this agent is n5"), "{message}");

    let config = Arc::new(write_files(folder.path(), &authority, AGENT));
    let key = folder.path().join("agent.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let message = Certificates::load(config).err().unwrap().to_string();
    assert!(
        message.contains("others may read the private key") && message.contains("chmod 600"),
        "{message}"
    );
}

#[tokio::test]
async fn changed_certificates_are_taken_and_bad_ones_are_not() {
    let world = World::new().await;
    let (old, url) = (world.operator(), world.url("/v1/host"));
    assert_eq!(old.get(&url).send().await.unwrap().status(), 200);

    write_certificates(world.folder.path(), "not a certificate", "nor this", "nor this");
    world.certificates.refresh();
    assert_eq!(old.get(&url).send().await.unwrap().status(), 200, "the old ones stay in use");

    let successor = Authority::new();
    let (cert, key) = successor.issue(&[AGENT], 2099);
    write_certificates(world.folder.path(), &successor.pem, &cert, &key);
    world.certificates.refresh();
    let known = reqwest::Certificate::from_pem(successor.pem.as_bytes()).unwrap();
    let identity = successor.issue(&[OPERATOR], 2099);
    let renewed = world.client_builder(Some(&identity)).tls_certs_only([known]).build().unwrap();
    assert_eq!(renewed.get(&url).send().await.unwrap().status(), 200);
    // The old connection is told to go; the next one can't be made any more.
    let deadline = Instant::now() + Duration::from_secs(5);
    while old.get(&url).send().await.is_ok() {
        assert!(Instant::now() < deadline, "a connection with the old certificates lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn p15_a_body_that_is_too_large_is_refused_whether_declared_or_not() {
    let world = World::new().await;
    let (client, url) = (world.operator(), world.url("/v1/observe"));
    let declared = client.post(&url).body(vec![b' '; BODY_LIMIT + 1]).send().await;
    // The refusal may come while the client still writes: then it sees the stream reset.
    if let Ok(answer) = declared {
        assert_eq!(answer.status(), 400);
        let error: ApiError = answer.json().await.unwrap();
        assert!(error.message.contains("larger than 32 MiB"), "{error}");
    }
    let chunk = Ok::<_, std::io::Error>(vec![b' '; 1024 * 1024]);
    let endless = futures::stream::iter(
        std::iter::repeat_with(move || {
            chunk.as_ref().map(Clone::clone).map_err(|_| std::io::Error::other(""))
        })
        .take(40),
    );
    if let Ok(answer) = client.post(&url).body(reqwest::Body::wrap_stream(endless)).send().await {
        assert_eq!(answer.status(), 400);
    }
    assert_eq!(world.calls.asked(), 0);
    assert_eq!(client.get(world.url("/v1/host")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn slow_strangers_and_slow_bodies_are_cut_off() {
    let brief = Duration::from_millis(200);
    let world =
        World::with(Limits { handshake: brief, body: brief, connections: 2, ..Limits::default() }).await;
    // Two strangers that say nothing take all connections; the operator still gets its turn.
    let mut strangers = Vec::new();
    for _ in 0..2 {
        strangers.push(tokio::net::TcpStream::connect(world.address).await.unwrap());
    }
    let client = world.operator();
    assert_eq!(client.get(world.url("/v1/host")).send().await.unwrap().status(), 200);
    let read = tokio::time::timeout(Duration::from_secs(5), strangers[0].read(&mut [0; 1])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "the stranger was cut off");

    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let slow =
        client.post(world.url("/v1/observe")).body(reqwest::Body::wrap_stream(never)).send().await.unwrap();
    assert_eq!(slow.status(), 400);
    let error: ApiError = slow.json().await.unwrap();
    assert!(error.message.contains("did not come within"), "{error}");
}

#[tokio::test]
async fn garbage_instead_of_tls_does_no_harm() {
    let world = World::new().await;
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/"));
    assert_eq!(world.operator().get(world.url("/v1/host")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn refusals_are_json_with_a_code_and_the_field() {
    let world = World::new().await;
    let client = world.operator();
    let refused = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<ApiError>().await.unwrap())
    };
    let (status, error) = refused(client.post(world.url("/v1/observe")).body(RELEASE)).await;
    assert_eq!((status, error.code), (400, ErrorCode::Invalid));
    assert!(error.message.contains("missing field `place`"), "{error}");

    let odd = r#"{"references": [], "extra": 1}"#;
    let (_, error) = refused(client.post(world.url("/v1/resolve")).body(odd)).await;
    assert!(error.message.contains("unknown field `extra`"), "{error}");

    let (status, error) = refused(client.get(world.url("/v1/operations/a%20b"))).await;
    assert_eq!((status, error.field.as_deref()), (400, Some("id")));
    let (_, error) = refused(client.get(world.url("/v1/operations/a?waitSeconds=61"))).await;
    assert_eq!(error.field.as_deref(), Some("waitSeconds"));
    assert_eq!(refused(client.get(world.url("/v1/operations/a?wait=1"))).await.0, 400);
    assert_eq!(refused(client.get(world.url("/v1/operations/a"))).await.0, 404);
    assert_eq!(refused(client.get(world.url("/v2/host"))).await.0, 404);
    assert_eq!(refused(client.put(world.url("/v1/host"))).await.0, 400);
}

#[tokio::test]
async fn a_change_goes_on_to_its_end_when_the_caller_hangs_up() {
    let world = World::new().await;
    let client =
        world.client_builder(Some(&world.authority.issue(&["second.operator.tenantry.internal"], 2099)));
    let call = client.build().unwrap().delete(world.url("/v1/claim")).body(RELEASE).send();
    let call = tokio::spawn(call);
    world.calls.begun.notified().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    world.calls.let_go.notify_one();
    tokio::time::timeout(Duration::from_secs(5), world.calls.finished.notified()).await.unwrap();
    assert_eq!(*world.calls.released_by.lock().unwrap(), ["second"]);
}

#[tokio::test]
async fn a_release_is_answered_with_204() {
    let world = World::new().await;
    world.calls.let_go.notify_one();
    let answer = world.operator().delete(world.url("/v1/claim")).body(RELEASE).send().await.unwrap();
    assert_eq!(answer.status(), 204);
}

#[tokio::test]
async fn the_end_answers_long_polls_at_once() {
    let world = World::new().await;
    let poll = world.operator().get(world.url("/v1/operations/a?waitSeconds=60")).send();
    let poll = tokio::spawn(poll);
    world.calls.begun.notified().await;
    let started = Instant::now();
    world.end.cancel();
    assert_eq!(poll.await.unwrap().unwrap().status(), 404, "as things stand, not cut off");
    world.served.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(tokio::net::TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn too_many_calls_at_once_are_refused_and_counted() {
    let world = World::with(Limits { calls: 1, ..Limits::default() }).await;
    let client = world.operator();
    let held = tokio::spawn(client.delete(world.url("/v1/claim")).body(RELEASE).send());
    world.calls.begun.notified().await;
    let answer = client.get(world.url("/v1/host")).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json::<ApiError>().await.unwrap().code, ErrorCode::Overloaded);
    world.calls.let_go.notify_one();
    assert_eq!(held.await.unwrap().unwrap().status(), 204);
    let host: HostInfo = client.get(world.url("/v1/host")).send().await.unwrap().json().await.unwrap();
    let text = world.metrics.render(&host);
    assert!(text.contains(r#"call="host",status="503"} 1"#), "{text}");
}
