//! When a release counts as running.

use serde::{Deserialize, Serialize};
use tenantry_api::names::{Argv, LoopbackAddress, LoopbackUrl, ServiceName};

/// When a release counts as running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct VerifyPolicy {
    /// How long services may take to become healthy, in milliseconds; 1 s to 1 h.
    pub timeout_ms: u64,
    /// How long they must then stay so, in milliseconds; at most 10 min.
    pub stable_for_ms: u64,
    /// What must pass besides, in the order HTTP, TCP, commands.
    pub probes: Vec<Probe>,
}

impl VerifyPolicy {
    /// How long a release is watched at most.
    pub fn watched(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.timeout_ms.saturating_add(self.stable_for_ms))
    }
}

/// Something that must pass, from outside the service or inside its container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A request that must be answered as said.
    Http(ProbeHttp),
    /// A port that must take a connection.
    Tcp(ProbeTcp),
    /// A command that must end with 0.
    Exec(ProbeExec),
}

/// A request that must be answered as said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeHttp {
    /// Where.
    pub url: LoopbackUrl,
    /// The status code of a good answer.
    pub status: u16,
    /// A text in the first 64 KiB of a good answer's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// A port that must take a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeTcp {
    /// Where.
    pub address: LoopbackAddress,
}

/// A command that must end with 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeExec {
    /// In whose running containers.
    pub service: ServiceName,
    /// The program and its arguments.
    pub command: Argv,
}

/// A policy as it travels, stands in journals and enters a target's hash: a list for each kind. Kinds that came later
/// are left out where there are none, so that what was written before reads and hashes the same, and an agent that
/// does not know a kind refuses it by the field's name.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    timeout_ms: u64,
    stable_for_ms: u64,
    http: Vec<ProbeHttp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tcp: Vec<ProbeTcp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exec: Vec<ProbeExec>,
}

impl From<Written> for VerifyPolicy {
    fn from(written: Written) -> Self {
        let Written { timeout_ms, stable_for_ms, http, tcp, exec } = written;
        let http = http.into_iter().map(Probe::Http);
        let others = tcp.into_iter().map(Probe::Tcp).chain(exec.into_iter().map(Probe::Exec));
        Self { timeout_ms, stable_for_ms, probes: http.chain(others).collect() }
    }
}

impl From<VerifyPolicy> for Written {
    fn from(policy: VerifyPolicy) -> Self {
        let VerifyPolicy { timeout_ms, stable_for_ms, probes } = policy;
        let mut written =
            Self { timeout_ms, stable_for_ms, http: Vec::new(), tcp: Vec::new(), exec: Vec::new() };
        for probe in probes {
            match probe {
                Probe::Http(http) => written.http.push(http),
                Probe::Tcp(tcp) => written.tcp.push(tcp),
                Probe::Exec(exec) => written.exec.push(exec),
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a journal or baseline of an agent holds it that knew no other probes than HTTP.
    const BEFORE: &str = r#"{"timeoutMs":120000,"stableForMs":15000,"http":[{"url":"http://localhost:4000/api/health","status":200,"contains":"ok"}]}"#;

    fn read(text: &str) -> VerifyPolicy {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn p3_what_was_written_before_there_were_other_probes_reads_and_is_written_the_same() {
        let policy = read(BEFORE);
        let url = LoopbackUrl::parse("http://localhost:4000/api/health").unwrap();
        let http = ProbeHttp { url, status: 200, contains: Some("ok".to_owned()) };
        assert_eq!(policy.probes, [Probe::Http(http)]);
        assert_eq!((policy.timeout_ms, policy.stable_for_ms), (120_000, 15_000));
        // A target's hash covers these very bytes: others would begin an upgrade of every Tenant.
        assert_eq!(serde_json::to_string(&policy).unwrap(), BEFORE);
    }

    #[test]
    fn a_kind_that_an_agent_does_not_know_is_in_a_field_that_it_does_not_know() {
        let text = r#"{"timeoutMs":1000,"stableForMs":0,"http":[],"tcp":[{"address":"127.0.0.1:5432"}],"exec":[{"service":"db","command":["pg_isready","-q"]}]}"#;
        let policy = read(text);
        let address = LoopbackAddress::parse("127.0.0.1:5432").unwrap();
        let command = Argv::parse(vec!["pg_isready".to_owned(), "-q".to_owned()]).unwrap();
        let exec = ProbeExec { service: ServiceName::parse("db").unwrap(), command };
        assert_eq!(policy.probes, [Probe::Tcp(ProbeTcp { address }), Probe::Exec(exec)]);
        assert_eq!(serde_json::to_string(&policy).unwrap(), text);
        let unknown = r#"{"timeoutMs":1000,"stableForMs":0,"http":[],"grpc":[]}"#;
        let error = serde_json::from_str::<VerifyPolicy>(unknown).unwrap_err().to_string();
        assert!(error.contains("unknown field `grpc`"), "{error}");
    }
}
