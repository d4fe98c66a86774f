//! The tree's own authority and certificates: made at the first start, renewed a month before they end.

use jiff::{SignedDuration, Timestamp};
use tenantry_api::names::Identity;

use super::layout::Layout;
use crate::pki::{Authority, Issued, Kind, PkiError, expiry};

/// The name of this machine's agent, of its ComposeHost, and of the tree's operator.
pub const LOCAL: &str = "local";
const AUTHORITY_DAYS: u32 = 3650;
const DAYS: u32 = 365;
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What the operator is started with; the agent's policy file names its own.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority's certificate.
    pub ca: std::path::PathBuf,
    /// The operator's.
    pub operator: Issued,
}

/// Makes what is missing and renews what ends soon. Says whether something was renewed.
pub fn ensure(layout: &Layout, now: Timestamp) -> Result<(Certificates, bool), PkiError> {
    let dir = layout.pki();
    let authority = match Authority::open(&dir) {
        Err(PkiError::NoAuthority(_)) => Authority::init(&dir, AUTHORITY_DAYS)?,
        opened => opened?,
    };
    let name = local();
    let (operator, agent) =
        (Issued::paths(&dir, Kind::Operator, &name), Issued::paths(&dir, Kind::Agent, &name));
    let mut renewed = false;
    for (kind, issued) in [(Kind::Operator, &operator), (Kind::Agent, &agent)] {
        if !issued.cert.exists() || !issued.key.exists() {
            authority.renew(kind, &name, DAYS)?;
        } else if expiry(&issued.cert)? - RENEW_BEFORE < now {
            authority.renew(kind, &name, DAYS)?;
            renewed = true;
        }
    }
    Ok((Certificates { ca: authority.cert().to_owned(), operator }, renewed))
}

/// [`LOCAL`] as a name.
#[allow(clippy::expect_used)] // a constant that a test parses
pub fn local() -> Identity {
    Identity::parse(LOCAL).expect("`local` is a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_made_once_and_renewed_a_month_before_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(folder.path()).unwrap();
        let now = Timestamp::now();
        let (first, renewed) = ensure(&layout, now).unwrap();
        assert!(!renewed);
        let bytes = || std::fs::read(&first.operator.cert).unwrap();
        let before = bytes();
        assert!(!ensure(&layout, now).unwrap().1);
        assert_eq!(before, bytes());
        let day = SignedDuration::from_hours(24);
        assert!(!ensure(&layout, now + day * 330).unwrap().1);
        assert!(ensure(&layout, now + day * 336).unwrap().1);
        assert_ne!(before, bytes());
    }
}
