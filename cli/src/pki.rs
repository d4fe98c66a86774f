//! `tenantry pki`: an authority of one's own, and certificates for agents and operators.
//!
//! A certificate holds exactly one name, which is all that the other side goes by. Private keys are written with mode
//! 0600 and never overwritten.

mod authority;
mod files;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use tenantry_api::names::Identity;
use tenantry_protocol::{AGENT_DOMAIN, OPERATOR_DOMAIN};

use crate::output;

pub use authority::{Authority, PkiError};
pub use files::expiry;

/// How long an authority is good for.
const AUTHORITY_DAYS: u32 = 3650;

/// Make certificates for agents and operators
#[derive(Debug, Args)]
pub struct Pki {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority: the one thing that agents and operators trust
    Init {
        /// The folder for the authority and what it issues; made with mode 0700
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Issue a certificate to an agent or an operator
    Issue {
        /// To whom
        kind: Kind,
        /// Its name: an agent's identity as in `ComposeHost`, or an operator's as in agents' policy files
        name: String,
        /// The authority's folder; the certificate is written there too
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// How long it is good for
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(AUTHORITY_DAYS)))]
        days: u32,
    },
}

/// Who a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A host's agent.
    Agent,
    /// An operator.
    Operator,
}

impl Kind {
    /// The word in file names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Operator => "operator",
        }
    }

    /// The one name of the certificate for `name`.
    pub fn full_name(self, name: &Identity) -> String {
        match self {
            Self::Agent => format!("{name}.{AGENT_DOMAIN}"),
            Self::Operator => format!("{name}.{OPERATOR_DOMAIN}"),
        }
    }
}

/// Where a certificate and its key were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Issued {
    /// Where the certificate of `name` stands in the authority's folder.
    pub fn paths(dir: &Path, kind: Kind, name: &Identity) -> Self {
        let file = |end: &str| dir.join(format!("{}-{name}.{end}", kind.as_str()));
        Self { cert: file("crt"), key: file("key") }
    }
}

/// Runs `tenantry pki`.
pub fn run(pki: Pki) -> anyhow::Result<()> {
    match pki.command {
        Command::Init { dir } => {
            let authority = Authority::init(&dir, AUTHORITY_DAYS)?;
            let until = expiry(authority.cert())?;
            output::out(format!("Made an authority, good until {until}."));
            output::out(format!(
                "  certificate  {}  (every agent and operator gets a copy)",
                authority.cert().display()
            ));
            output::out(format!(
                "  private key  {}  (keep it here, and nowhere else)",
                dir.join("ca.key").display()
            ));
            output::out(format!("Next: tenantry pki issue agent NAME --dir {}", dir.display()));
        }
        Command::Issue { kind, name, dir, days } => {
            let name = Identity::parse(name)?;
            let authority = Authority::open(&dir)?;
            let issued = authority.issue(kind, &name, days)?;
            let until = expiry(&issued.cert)?;
            output::out(format!("Issued a certificate for {}, good until {until}.", kind.full_name(&name)));
            output::out(format!("  certificate  {}", issued.cert.display()));
            output::out(format!("  private key  {}", issued.key.display()));
            output::out(next(kind, &name, &authority));
        }
    }
    Ok(())
}

fn next(kind: Kind, name: &Identity, authority: &Authority) -> String {
    let ca = authority.cert().display();
    match kind {
        Kind::Agent => format!(
            "Next: copy both and {ca} to the host, name them under `tls` in its policy file beside `identity: {name}`, \
             and give the ComposeHost `identity: {name}`."
        ),
        Kind::Operator => format!(
            "Next: start tenantry-operator with --tls-ca {ca} and these two, and list {name} under `operators` in each \
             agent's policy file."
        ),
    }
}

#[cfg(test)]
mod tests;
