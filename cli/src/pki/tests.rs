use std::os::unix::fs::PermissionsExt;

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::*;

fn name(text: &str) -> Identity {
    Identity::parse(text).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn first(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[test]
fn keys_are_for_the_owner_alone_and_a_year_is_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("pki");
    let authority = Authority::init(&dir, AUTHORITY_DAYS).unwrap();
    let issued = authority.issue(Kind::Agent, &name("n5"), 365).unwrap();
    assert_eq!((mode(&dir), mode(&dir.join("ca.key")), mode(&issued.key)), (0o700, 0o600, 0o600));
    assert_eq!(issued.cert, dir.join("agent-n5.crt"));
    let days = (expiry(&issued.cert).unwrap() - jiff::Timestamp::now()).get_seconds() / 86_400;
    assert!((364..=365).contains(&days), "{days}");
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(folder.path(), 30).unwrap();
    let before = std::fs::read(folder.path().join("ca.key")).unwrap();
    let message = Authority::init(folder.path(), 30).err().unwrap().to_string();
    assert!(message.contains("ca.crt is there already"), "{message}");
    let issued = authority.issue(Kind::Operator, &name("main"), 10).unwrap();
    assert!(matches!(authority.issue(Kind::Operator, &name("main"), 10), Err(PkiError::Exists(_))));
    // A key without its certificate may be somebody's work in progress: it is not overwritten either.
    std::fs::remove_file(&issued.cert).unwrap();
    assert!(
        matches!(authority.issue(Kind::Operator, &name("main"), 10), Err(PkiError::Exists(path)) if path == issued.key)
    );
    assert_eq!(before, std::fs::read(folder.path().join("ca.key")).unwrap());
}

#[test]
fn a_certificate_does_not_outlive_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(folder.path(), 30).unwrap();
    let message = authority.issue(Kind::Agent, &name("n5"), 31).err().unwrap().to_string();
    assert!(message.contains("ask for fewer days"), "{message}");
    assert!(!folder.path().join("agent-n5.key").exists());
}

#[test]
fn without_an_authority_the_message_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let message = Authority::open(folder.path()).err().unwrap().to_string();
    assert!(message.contains("tenantry pki init --dir"), "{message}");
    std::fs::write(folder.path().join("ca.crt"), "x").unwrap();
    std::fs::write(folder.path().join("ca.key"), "x").unwrap();
    let message = Authority::open(folder.path()).err().unwrap().to_string();
    assert!(message.contains("ca.key: holds no private key"), "{message}");
}

#[test]
fn an_authority_read_from_disk_signs_what_rustls_takes() {
    let folder = tempfile::tempdir().unwrap();
    drop(Authority::init(folder.path(), 30).unwrap());
    let authority = Authority::open(folder.path()).unwrap();
    let operator = first(&authority.issue(Kind::Operator, &name("main"), 10).unwrap().cert);
    let agent = first(&authority.issue(Kind::Agent, &name("n5"), 10).unwrap().cert);

    let mut roots = RootCertStore::empty();
    roots.add(first(authority.cert())).unwrap();
    let roots = std::sync::Arc::new(roots);
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    clients.verify_client_cert(&operator, &[], UnixTime::now()).unwrap();
    let refused = clients.verify_client_cert(&agent, &[], UnixTime::now()).unwrap_err();
    assert!(format!("{refused:?}").contains("InvalidPurpose"), "an agent's is not for a client: {refused:?}");

    let servers =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots, provider).build().unwrap();
    let named = |text: &str| rustls_pki_types::ServerName::try_from(text.to_owned()).unwrap();
    let verify = |text: &str| servers.verify_server_cert(&agent, &[], &named(text), &[], UnixTime::now());
    verify("n5.agent.tenantry.internal").unwrap();
    assert!(verify("n6.agent.tenantry.internal").is_err());
}
