//! Whom the operator trusts: agents' certificates of one authority, each for exactly one name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The operator's own certificate and the authority that agents' certificates must be of.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
    own: Arc<Own>,
}

/// What the operator shows, and what agents look at it with.
struct Own {
    chain: Vec<CertificateDer<'static>>,
    agents: Arc<dyn ClientCertVerifier>,
    cert: PathBuf,
    ca: PathBuf,
}

impl Trust {
    /// Reads PEM files.
    pub fn read(ca: &Path, cert: &Path, key: &Path) -> anyhow::Result<Self> {
        let certificates = |path: &Path| {
            let read: Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(path).and_then(std::iter::Iterator::collect);
            match read {
                Ok(found) if !found.is_empty() => Ok(found),
                Ok(_) => anyhow::bail!("{} holds no PEM certificate", path.display()),
                Err(error) => Err(error).with_context(|| format!("{} can't be used", path.display())),
            }
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(ca)? {
            roots.add(authority).with_context(|| format!("{} is not an authority's", ca.display()))?;
        }
        let own = certificates(cert)?;
        let private = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("{} holds no PEM private key", key.display()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(roots);
        let agents = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let chain = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ExactName { chain }))
            .with_client_auth_cert(own.clone(), private)
            .with_context(|| format!("{} is not the key of {}", key.display(), cert.display()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            own: Arc::new(Own { chain: own, agents, cert: cert.into(), ca: ca.into() }),
        })
    }

    /// Looks at the operator's own certificate as an agent with the same authority will.
    pub fn check_own(&self, now: UnixTime) -> anyhow::Result<()> {
        let Own { chain, agents, cert, ca } = &*self.own;
        let (first, rest) = chain.split_first().context("no certificate")?;
        let checked = agents.verify_client_cert(first, rest, now);
        checked
            .map(drop)
            .map_err(|error| anyhow::anyhow!("no agent will take {}: {}", cert.display(), why(&error, ca)))
    }

    /// The configuration of one client.
    pub(super) fn client_config(&self) -> ClientConfig {
        self.config.as_ref().clone()
    }
}

/// Why agents would not take an operator's certificate, and what helps.
fn why(error: &TlsError, ca: &Path) -> String {
    let TlsError::InvalidCertificate(error) = error else { return error.to_string() };
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the authority of {} did not issue it; issue one in that authority's folder: `tenantry pki issue operator NAME`",
            ca.display()
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is an agent's; issue an operator's: `tenantry pki issue operator NAME`".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired; issue a new one: `tenantry pki issue operator NAME`".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: is this machine's clock right?".to_owned()
        }
        other => TlsError::InvalidCertificate(other.clone()).to_string(),
    }
}

/// Checks the chain as usual, and that the certificate is for one name only: no wildcard, no second host.
#[derive(Debug)]
struct ExactName {
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for ExactName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verified =
            self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if is_only_for(end_entity, &server_name.to_str()) {
            Ok(verified)
        } else {
            Err(TlsError::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Whether a certificate's one and only name is this one.
fn is_only_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    match names.value.general_names.as_slice() {
        [GeneralName::DNSName(only)] => only.eq_ignore_ascii_case(name),
        _ => false,
    }
}
