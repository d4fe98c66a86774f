//! Certificates and key on disk.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::names::{Name, name_of};
use crate::config::TlsPaths;

/// Why certificates or key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{}: can't be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {problem}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// What the files hold.
pub(super) struct Files {
    pub roots: RootCertStore,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    cert_path: PathBuf,
}

impl Files {
    /// The name that the agent's own certificate is for.
    pub fn own_name(&self) -> Result<Name, TlsError> {
        let first = self.chain.first().ok_or("it holds no certificate");
        first.and_then(name_of).map_err(|problem| unusable(&self.cert_path, problem))
    }
}

/// Reads all three files.
pub(super) fn read(paths: &TlsPaths) -> Result<Files, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(&paths.ca)? {
        roots.add(root).map_err(|error| unusable(&paths.ca, error.to_string()))?;
    }
    check_private(&paths.key)?;
    let pem = read_file(&paths.key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| unusable(&paths.key, "holds no private key in PEM"))?;
    Ok(Files { roots, chain: certificates(&paths.cert)?, key, cert_path: paths.cert.clone() })
}

/// Tells one state of the three files from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([(u64, u64, i64, i64, i64); 3]);

impl Stamp {
    /// Their state now; `None` while one of them is missing.
    pub fn of(paths: &TlsPaths) -> Option<Self> {
        let one = |path: &Path| {
            let m = std::fs::metadata(path).ok()?;
            Some((m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime_nsec()))
        };
        Some(Self([one(&paths.ca)?, one(&paths.cert)?, one(&paths.key)?]))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read_file(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(unusable(path, "holds no certificate in PEM")),
        Ok(all) => Ok(all),
        Err(error) => Err(unusable(path, format!("is not PEM: {error}"))),
    }
}

fn check_private(path: &Path) -> Result<(), TlsError> {
    let metadata = std::fs::metadata(path).map_err(|source| unreadable(path, source))?;
    let for_others = metadata.mode() & 0o077;
    if for_others == 0 {
        return Ok(());
    }
    let problem = format!(
        "others may read the private key (mode {:o}): `chmod 600 {}`",
        metadata.mode() & 0o777,
        path.display()
    );
    Err(unusable(path, problem))
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: std::io::Error) -> TlsError {
    TlsError::Unreadable { path: path.to_owned(), source }
}

fn unusable(path: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::Unusable { path: path.to_owned(), problem: problem.into() }
}
