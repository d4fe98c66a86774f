//! Ports that a release newly publishes: whether something else on this host holds them already.
//!
//! Caveat: where the engine forwards ports without a process that listens, or the agent runs in a network of its own,
//! nothing is seen here, and `docker compose up` finds out.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use tenantry_planner::model::{Model, Port};
use tenantry_protocol::FailureCategory;

use crate::planning::error::StepError;

/// Refuses a release whose new ports are taken. Ports that the previous release publishes are held by ourselves.
pub fn check(next: &Model, previous: Option<&Model>, runs: bool) -> Result<(), StepError> {
    if runs && previous.is_none() {
        return Ok(());
    }
    let own: Vec<&Port> = previous.iter().flat_map(|model| ports(model)).map(|(_, port)| port).collect();
    let ours = |port: &Port| {
        runs && own.iter().any(|own| (own.published, &own.protocol) == (port.published, &port.protocol))
    };
    for (service, port) in ports(next).filter(|(_, port)| port.published != 0 && !ours(port)) {
        if is_taken(port) {
            let message = format!(
                "services.{service}: port {}/{} of this host is taken by something else; end that, or publish another \
                 port",
                port.published, port.protocol
            );
            return Err(StepError::new(FailureCategory::PortInUse, message));
        }
    }
    Ok(())
}

fn ports(model: &Model) -> impl Iterator<Item = (&str, &Port)> {
    model
        .services
        .iter()
        .filter(|(_, service)| service.replicas > 0)
        .flat_map(|(name, service)| service.ports.iter().map(|port| (name.as_str(), port)))
}

fn is_taken(port: &Port) -> bool {
    let every = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let address = match &port.host_ip {
        None => every,
        Some(text) => match text.parse() {
            Ok(address) => address,
            Err(_) => return false,
        },
    };
    let bound = match port.protocol.as_str() {
        "tcp" => TcpListener::bind((address, port.published)).map(drop),
        "udp" => UdpSocket::bind((address, port.published)).map(drop),
        _ => return false,
    };
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(published: u16) -> Model {
        let text = format!(
            r#"{{"name":"a","services":{{"web":{{"image":"x","ports":[{{"target":80,"host_ip":"127.0.0.1","published":"{published}","protocol":"tcp","mode":"ingress"}}]}}}}}}"#
        );
        Model::parse(text.as_bytes(), "/d", "/d").unwrap()
    }

    #[test]
    fn p8_a_port_that_something_else_holds_is_named_before_anything_is_changed() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let wrong = check(&model(port), None, false).unwrap_err();
        assert_eq!(wrong.category, FailureCategory::PortInUse);
        assert!(
            wrong.message.contains("services.web") && wrong.message.contains(&port.to_string()),
            "{wrong:?}"
        );
        // The previous release holds it: compose gives it over.
        assert!(check(&model(port), Some(&model(port)), true).is_ok());
        // It is not ours while nothing of ours runs.
        assert!(check(&model(port), Some(&model(port)), false).is_err());
        drop(held);
        assert!(check(&model(port), None, false).is_ok());
    }
}
