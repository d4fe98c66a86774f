//! Who is at the other end: TLS 1.3 only, a certificate on both sides, and names that match exactly.
//!
//! An operator's certificate must be signed by the authority of the policy file, be valid now, and hold exactly one name,
//! which must be that of an operator in the policy file. Certificates on disk are read again when they change; then,
//! and when a client's certificate ends, connections that were made with the old ones are ended too.

mod files;
mod names;

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use crate::config::Config;
use files::Stamp;
pub use files::TlsError;
pub use names::{Name, name_of};

/// The server's side of TLS as the files on disk say at the moment.
pub struct Certificates {
    config: Arc<Config>,
    current: RwLock<Current>,
    changed: watch::Sender<u64>,
}

struct Current {
    server: Arc<ServerConfig>,
    stamp: Option<Stamp>,
    refused: Option<Stamp>,
    expires: i64,
}

impl Certificates {
    /// Reads the files that the policy file names, and checks that the certificate is for this agent.
    pub fn load(config: Arc<Config>) -> Result<Self, TlsError> {
        let stamp = Stamp::of(&config.tls);
        let (server, expires) = server_config(&config)?;
        let current = RwLock::new(Current { server, stamp, refused: None, expires });
        Ok(Self { config, current, changed: watch::Sender::new(0) })
    }

    /// What a new handshake is to use.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.read(|current| current.server.clone())
    }

    /// Whether the agent's own certificate still holds.
    pub fn check_time(&self, now: i64) -> Result<(), TlsError> {
        let expires = self.expires();
        if now <= expires {
            return Ok(());
        }
        let problem = format!(
            "it has expired on {}, and no operator talks to this agent: issue a new one (`tenantry pki issue agent {}`)",
            shown(expires),
            self.config.identity
        );
        Err(TlsError::Unusable { path: self.config.tls.cert.clone(), problem })
    }

    /// When the agent's own certificate ends, as Unix time.
    pub fn expires(&self) -> i64 {
        self.read(|current| current.expires)
    }

    /// Changes whenever other certificates are in use.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Looks whether the files have changed, and takes them if they are good. Costs three `stat` calls when they have not.
    pub fn refresh(&self) {
        let stamp = Stamp::of(&self.config.tls);
        if self.read(|current| stamp == current.stamp || (stamp.is_some() && stamp == current.refused)) {
            return;
        }
        let loaded = server_config(&self.config);
        let mut current = self.current.write();
        match loaded {
            Ok((server, expires)) => {
                *current = Current { server, stamp, refused: None, expires };
                drop(current);
                self.changed.send_modify(|generation| *generation += 1);
                tracing::info!(expires = %shown(expires), "took the certificates that were changed on disk");
            }
            Err(error) => {
                current.refused = stamp;
                tracing::warn!(%error, "the certificates on disk changed but can't be used: going on with the old ones");
            }
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Current) -> T) -> T {
        look(&self.current.read())
    }
}

/// A Unix time for people.
pub fn shown(unix_seconds: i64) -> String {
    jiff::Timestamp::from_second(unix_seconds).map_or_else(|_| "never".to_owned(), |time| time.to_string())
}

fn server_config(config: &Config) -> Result<(Arc<ServerConfig>, i64), TlsError> {
    let files = files::read(&config.tls)?;
    let own = files.own_name()?;
    if own.name != config.agent_name() {
        let problem = format!(
            "it is for {}, but this agent is {}: issue one for {:?} (`tenantry pki issue agent {}`)",
            own.name,
            config.agent_name(),
            config.agent_name(),
            config.identity
        );
        return Err(TlsError::Unusable { path: config.tls.cert.clone(), problem });
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chained = WebPkiClientVerifier::builder_with_provider(Arc::new(files.roots), provider.clone())
        .build()
        .map_err(|error| TlsError::Unusable { path: config.tls.ca.clone(), problem: error.to_string() })?;
    let unusable = |error: rustls::Error| TlsError::Unusable {
        path: config.tls.key.clone(),
        problem: error.to_string(),
    };
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(ExactOperators { chained, allowed: config.operator_names() }))
        .with_single_cert(files.chain, files.key)
        .map_err(unusable)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would pass by the certificate check: each connection shows its certificate.
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok((Arc::new(server), own.expires))
}

/// Chain and dates as webpki checks them, and then exactly one name, which is on the list.
#[derive(Debug)]
struct ExactOperators {
    chained: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

impl ClientCertVerifier for ExactOperators {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chained.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chained.verify_client_cert(end_entity, intermediates, now)?;
        match name_of(end_entity) {
            Ok(name)
                if self.allowed.contains(&name.name) || tenantry_faults::Bug::AnyOperator.is_seeded() =>
            {
                Ok(verified)
            }
            Ok(name) => {
                tracing::warn!(name = %name.name, allowed = ?self.allowed, "refused a client whose certificate is good but for another name");
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Err(problem) => {
                tracing::warn!(
                    problem,
                    "refused a client whose certificate is good but not for exactly one name"
                );
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chained.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chained.supported_verify_schemes()
    }
}
