//! The authority and what it signs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use tenantry_api::names::Identity;

use super::files::{expiry, make_folder, read, replace, write_new};
use super::{Issued, Kind};

/// Clocks differ: a certificate is good from an hour before it was made.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(1);
/// The authority can sign names beneath this domain only, so that its key is of no use for anything else.
const DOMAIN: &str = "tenantry.internal";

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// It is there already.
    #[error("{} is there already: it is never overwritten. To replace it, move it away first", .0.display())]
    Exists(PathBuf),
    /// There is no authority.
    #[error("{} holds no authority: make one with `tenantry pki init --dir {}`", .0.display(), .0.display())]
    NoAuthority(PathBuf),
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The certificate would outlive the authority.
    #[error("the authority in {} is good until {until} only: ask for fewer days, or make a new authority", dir.display())]
    OutlivesAuthority {
        /// Its folder.
        dir: PathBuf,
        /// Its end.
        until: Timestamp,
    },
    /// Signing failed.
    #[error("could not sign: {0}")]
    Signing(#[from] rcgen::Error),
}

/// An authority with its key.
pub struct Authority {
    dir: PathBuf,
    cert: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one in `dir`.
    pub fn init(dir: &Path, days: u32) -> Result<Self, PkiError> {
        make_folder(dir)?;
        let (cert, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        refuse_existing(&[&cert, &key_path])?;
        let mut params = dated(CertificateParams::default(), days);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Tenantry authority");
        let permitted_subtrees = vec![GeneralSubtree::DnsName(DOMAIN.to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        write_new(&key_path, &key.serialize_pem(), 0o600)?;
        write_new(&cert, &pem, 0o644)?;
        Ok(Self { dir: dir.to_owned(), cert, issuer: Issuer::new(params, key) })
    }

    /// Opens the one in `dir`.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (cert, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        if !cert.exists() || !key_path.exists() {
            return Err(PkiError::NoAuthority(dir.to_owned()));
        }
        let malformed =
            |path: &Path, what: &str| PkiError::Malformed { path: path.to_owned(), problem: what.to_owned() };
        let key = KeyPair::from_pem(&read(&key_path)?)
            .map_err(|_| malformed(&key_path, "holds no private key in PEM"))?;
        let issuer = Issuer::from_ca_cert_pem(&read(&cert)?, key)
            .map_err(|_| malformed(&cert, "holds no authority's certificate in PEM"))?;
        Ok(Self { dir: dir.to_owned(), cert, issuer })
    }

    /// The authority's certificate.
    pub fn cert(&self) -> &Path {
        &self.cert
    }

    /// Issues a certificate to `name` for `days`, and writes it with its key beside the authority.
    pub fn issue(&self, kind: Kind, name: &Identity, days: u32) -> Result<Issued, PkiError> {
        let issued = Issued::paths(&self.dir, kind, name);
        refuse_existing(&[&issued.cert, &issued.key])?;
        let (cert, key) = self.sign(kind, name, days)?;
        write_new(&issued.key, &key, 0o600)?;
        write_new(&issued.cert, &cert, 0o644)?;
        Ok(issued)
    }

    /// Issues a certificate to `name` in the place of the one that is there, if there is one.
    pub(crate) fn renew(&self, kind: Kind, name: &Identity, days: u32) -> Result<Issued, PkiError> {
        let issued = Issued::paths(&self.dir, kind, name);
        let (cert, key) = self.sign(kind, name, days)?;
        replace(&issued.key, &key, 0o600)?;
        replace(&issued.cert, &cert, 0o644)?;
        Ok(issued)
    }

    /// A new certificate and key, as PEM.
    fn sign(&self, kind: Kind, name: &Identity, days: u32) -> Result<(String, String), PkiError> {
        let until = expiry(&self.cert)?;
        if from_now(days) > until {
            return Err(PkiError::OutlivesAuthority { dir: self.dir.clone(), until });
        }
        let full_name = kind.full_name(name);
        let mut params = dated(CertificateParams::new([full_name])?, days);
        params.distinguished_name.push(DnType::CommonName, format!("Tenantry {} {name}", kind.as_str()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match kind {
            Kind::Agent => ExtendedKeyUsagePurpose::ServerAuth,
            Kind::Operator => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

fn dated(mut params: CertificateParams, days: u32) -> CertificateParams {
    let at = |time: Timestamp| {
        let seconds = u64::try_from(time.as_second()).unwrap_or(0);
        date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    params.not_before = at(Timestamp::now() - CLOCK_SKEW);
    params.not_after = at(from_now(days));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn from_now(days: u32) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * i64::from(days))
}

fn refuse_existing(paths: &[&Path]) -> Result<(), PkiError> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(PkiError::Exists((*path).to_owned())),
        None => Ok(()),
    }
}
