//! Why an agent was not reached as itself, told from the chain of errors beneath the HTTP client's.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError};
use tenantry_planner::decide::Unreached;

use super::AgentError;

/// Reads the causes of a failed request.
pub fn classify(error: &reqwest::Error, identity: &str, address: &str) -> AgentError {
    let at = format!("agent {identity} at {address}");
    let unreached = |why, text: String| AgentError::Unreached { why, text };
    if let Some((why, text)) =
        causes(error).find_map(|cause| tls_error(cause).map(|tls| tls_fault(tls, identity)))
    {
        return unreached(why, format!("{at}: {text}"));
    }
    if error.is_timeout() {
        return unreached(Unreached::Timeout, format!("{at} did not answer in time"));
    }
    if let Some(kind) = causes(error).find_map(io_kind) {
        let text = match kind {
            io::ErrorKind::ConnectionRefused => "connection refused",
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no route to the host",
            io::ErrorKind::NotFound => "the name is not known",
            io::ErrorKind::TimedOut => "the connection timed out",
            _ => "the connection broke off",
        };
        return unreached(Unreached::NoAnswer, format!("{at} does not answer: {text}"));
    }
    if error.is_decode() || error.is_body() {
        return unreached(Unreached::BadAnswer, format!("{at} answered something that is not an answer"));
    }
    if error.is_connect() {
        return unreached(Unreached::NoAnswer, format!("{at} does not answer"));
    }
    unreached(Unreached::NoAnswer, format!("{at} does not answer: the connection broke off"))
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let present = next?;
        next = present.source();
        Some(present)
    })
}

/// A TLS error, also where it travels inside an I/O error.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TlsError> {
    if let Some(tls) = error.downcast_ref::<TlsError>() {
        return Some(tls);
    }
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    tls_error(inner)
}

fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    error.downcast_ref::<io::Error>().map(io::Error::kind)
}

fn tls_fault(error: &TlsError, identity: &str) -> (Unreached, String) {
    use Unreached::{BadAnswer, BadCertificate, WrongAgent};
    match error {
        TlsError::InvalidCertificate(problem) => match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                (BadCertificate, "its certificate has expired".to_owned())
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                BadCertificate,
                "its certificate is not valid yet; see the clocks of both machines".to_owned(),
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                WrongAgent,
                format!("another host's agent answers there: its certificate is not for {identity}"),
            ),
            // A bad signature is what a new authority under the old one's name looks like.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                (BadCertificate, "its certificate is of another authority than --tls-ca".to_owned())
            }
            CertificateError::Revoked => (BadCertificate, "its certificate was revoked".to_owned()),
            _ => (BadCertificate, "its certificate is not one that can be accepted".to_owned()),
        },
        TlsError::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => {
                (BadCertificate, "it refuses the operator's certificate, which has expired".to_owned())
            }
            AlertDescription::UnknownCA => (
                BadCertificate,
                "it refuses the operator's certificate, which is of another authority".to_owned(),
            ),
            _ => (
                BadCertificate,
                "it refuses the operator's certificate; see `operators` in the agent's configuration"
                    .to_owned(),
            ),
        },
        TlsError::InvalidMessage(_) | TlsError::PeerMisbehaved(_) | TlsError::PeerIncompatible(_) => {
            (BadAnswer, "it does not speak TLS 1.3 as an agent does".to_owned())
        }
        _ => (BadCertificate, "no trusted connection could be made".to_owned()),
    }
}
