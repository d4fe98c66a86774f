//! The one name that a certificate is for.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate's one name, and until when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub name: String,
    /// The last second in which the certificate is valid, as Unix time.
    pub expires: i64,
}

/// Takes a certificate's one name: a single DNS name without wildcard, and no name of another kind.
pub fn name_of(certificate: &CertificateDer<'_>) -> Result<Name, &'static str> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "it can't be parsed")?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| "its names can't be parsed, or are given twice")?
        .ok_or("it holds no subject alternative name")?;
    let name = match names.value.general_names.as_slice() {
        [GeneralName::DNSName(name)] => *name,
        [_] => return Err("its name is not a DNS name"),
        _ => return Err("it holds more than one name"),
    };
    if name.contains('*') {
        return Err("its name holds a wildcard");
    }
    Ok(Name { name: name.to_ascii_lowercase(), expires: parsed.validity().not_after.timestamp() })
}
