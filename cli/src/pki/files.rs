//! Certificates and keys as files.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PkiError;

/// Makes a folder that nobody else may look into; one that is there is taken as it is.
pub(super) fn make_folder(path: &Path) -> Result<(), PkiError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// Writes a file that is not there yet.
pub(super) fn write_new(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => PkiError::Exists(path.to_owned()),
        _ => PkiError::File { path: path.to_owned(), source },
    })
}

/// Writes a file in the place of the one that is there: a reader sees the old one or the new one.
pub(super) fn replace(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    write_new(&new, content, mode)?;
    std::fs::rename(&new, path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// Reads a file of PEM.
pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// Until when the certificate in a file is good.
pub fn expiry(path: &Path) -> Result<Timestamp, PkiError> {
    let pem = read(path)?;
    let malformed =
        || PkiError::Malformed { path: path.to_owned(), problem: "holds no certificate in PEM".to_owned() };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| malformed())?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| malformed())?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).map_err(|_| malformed())
}
