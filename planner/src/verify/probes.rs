//! Which probes a host lets a release be verified by.

use std::collections::BTreeMap;

use tenantry_api::names::ServiceName;
use tenantry_protocol::{FailureCategory, Probe};

use crate::compare::{Expected, Lifetime};
use crate::model::{Model, Service};
use crate::policy::Verification;

/// How many services a message names.
const SHOWN: usize = 8;

/// What probes are made among.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// What the host's policy grants.
    pub granted: &'a [Verification],
    /// The services of the release.
    pub expected: &'a BTreeMap<ServiceName, Expected>,
    /// The service that the agent itself runs as, where it is one of the project's.
    pub agent: Option<&'a str>,
}

/// Each probe with the field of the spec that it comes from, for example `verify.exec[0]`.
pub fn named_probes(probes: &[Probe]) -> Vec<(String, &Probe)> {
    let (mut http, mut tcp, mut exec) = (0_usize, 0_usize, 0_usize);
    let mut name = |probe: &Probe| {
        let (kind, next) = match probe {
            Probe::Http(_) => ("http", &mut http),
            Probe::Tcp(_) => ("tcp", &mut tcp),
            Probe::Exec(_) => ("exec", &mut exec),
        };
        *next += 1;
        format!("verify.{kind}[{}]", *next - 1)
    };
    probes.iter().map(|probe| (name(probe), probe)).collect()
}

/// The services that probes ask: by name, or by a port that they publish; none where none of that tells.
pub fn probed_services(probes: &[Probe], model: &Model) -> Vec<String> {
    let mut ports = Vec::new();
    let mut named: Vec<String> = Vec::new();
    for probe in probes {
        match probe {
            Probe::Http(http) => ports.extend(port_of(http.url.as_str())),
            Probe::Tcp(tcp) => ports.extend(port_of(tcp.address.as_str())),
            Probe::Exec(exec) => named.push(exec.service.to_string()),
        }
    }
    let publishes = |service: &Service| service.ports.iter().any(|port| ports.contains(&port.published));
    let by_port = model.services.iter().filter(|(_, service)| publishes(service));
    named.extend(by_port.map(|(name, _)| name.to_string()));
    named
}

/// The port of `http://127.0.0.1:8080/x` or `localhost:8080`.
fn port_of(address: &str) -> Option<u16> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split('/').next()?;
    let digits = host.rsplit_once(':').map(|(_, digits)| digits);
    digits.map_or(Some(80), |digits| digits.parse().ok())
}

/// Whether every probe may be made and can pass at all; otherwise what is wrong with the first that may or can not, in
/// a sentence that names its field (P13).
pub fn permitted(probes: &[Probe], among: &Surroundings<'_>) -> Result<(), (FailureCategory, String)> {
    for (field, probe) in named_probes(probes) {
        let Probe::Exec(exec) = probe else { continue };
        let service = &exec.service;
        if !among.granted.contains(&Verification::Exec) {
            let problem = format!(
                "{field}: commands in a container, here of {service}, are what this host's policy does not allow; a person \
                 can add {} to allow.verify in the agent's policy file, which lets operators run any command in the \
                 containers of its tenants",
                Verification::Exec
            );
            return Err((FailureCategory::PolicyRefused, problem));
        }
        if among.agent == Some(service.as_str()) {
            let problem =
                format!("{field}: {service} is the agent itself, in whose container nobody runs a command");
            return Err((FailureCategory::PolicyRefused, problem));
        }
        let problem = match among.expected.get(service) {
            None => format!("the release has no service {service}; it has {}", names(among.expected)),
            Some(expected) if expected.lifetime == Lifetime::Ends => {
                format!(
                    "{service} runs once and ends, so that no command can be run in it; name another service"
                )
            }
            Some(expected) if expected.replicas == 0 => {
                format!(
                    "{service} has no containers, so that no command can be run in it; name another service"
                )
            }
            Some(_) => continue,
        };
        return Err((FailureCategory::ProbeFailed, format!("{field}: {problem}")));
    }
    Ok(())
}

fn names(expected: &BTreeMap<ServiceName, Expected>) -> String {
    let shown: Vec<&str> = expected.keys().take(SHOWN).map(ServiceName::as_str).collect();
    let more = expected.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tenantry_api::names::{Argv, LoopbackAddress};
    use tenantry_protocol::{ProbeExec, ProbeTcp};

    use super::*;

    fn exec(service: &str) -> Probe {
        let command = Argv::parse(vec!["--privileged".to_owned()]).unwrap();
        Probe::Exec(ProbeExec { service: ServiceName::parse(service).unwrap(), command })
    }

    fn tcp() -> Probe {
        Probe::Tcp(ProbeTcp { address: LoopbackAddress::parse("[::1]:80").unwrap() })
    }

    fn judged(probe: Probe, granted: &[Verification]) -> Result<(), (FailureCategory, String)> {
        let service = |name, lifetime, replicas| {
            let expected = Expected { lifetime, replicas, image_id: None, attached: None };
            (ServiceName::parse(name).unwrap(), expected)
        };
        let services = [
            service("agent", Lifetime::RunsOn, 1),
            service("db", Lifetime::RunsOn, 1),
            service("migrate", Lifetime::Ends, 1),
            service("spare", Lifetime::RunsOn, 0),
        ];
        let expected = BTreeMap::from(services);
        permitted(&[tcp(), probe], &Surroundings { granted, expected: &expected, agent: Some("agent") })
    }

    #[rstest]
    #[case::in_an_unknown_service("dbb", &[Verification::Exec], FailureCategory::ProbeFailed, "verify.exec[0]: the release has no service dbb; it has agent, db, migrate, spare")]
    #[case::in_a_one_shot("migrate", &[Verification::Exec], FailureCategory::ProbeFailed, "verify.exec[0]: migrate runs once")]
    #[case::in_no_container("spare", &[Verification::Exec], FailureCategory::ProbeFailed, "verify.exec[0]: spare has no containers")]
    #[case::in_the_agent_itself("agent", &[Verification::Exec], FailureCategory::PolicyRefused, "verify.exec[0]: agent is the agent itself")]
    #[case::without_the_word("db", &[], FailureCategory::PolicyRefused, "add Exec to allow.verify in the agent's policy file")]
    fn p13_a_command_is_refused(
        #[case] service: &str,
        #[case] granted: &[Verification],
        #[case] category: FailureCategory,
        #[case] says: &str,
    ) {
        let (found, text) = judged(exec(service), granted).unwrap_err();
        assert!(found == category && text.contains(says), "{found:?}: {text}");
    }

    #[test]
    fn what_is_granted_and_can_pass_is_permitted() {
        assert_eq!(judged(exec("db"), &[Verification::Exec]), Ok(()));
        assert_eq!(judged(tcp(), &[]), Ok(()), "a look from outside needs no word");
    }

    #[test]
    fn each_kind_is_counted_by_itself_as_the_spec_lists_it() {
        let probes = [tcp(), tcp(), exec("db"), exec("web")];
        let names: Vec<String> = named_probes(&probes).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["verify.tcp[0]", "verify.tcp[1]", "verify.exec[0]", "verify.exec[1]"]);
    }
}
