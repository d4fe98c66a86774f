//! Networks, and what a container has of them and of the host's ports.

use bollard::models::{ContainerInspectResponse, EndpointSettings, LocalNodeState, PortBinding};
use bollard::query_parameters::ListNetworksOptions;
use tenantry_planner::compare::{Attached, Binding, Endpoint, Network, NetworkKind, Networks};
use tenantry_planner::model::Model;

use super::{DockerEngine, Engine, EngineError};

/// Options of the bridge driver that may keep it from binding ports.
const GATEWAY_MODE: &str = "com.docker.network.bridge.gateway_mode";

impl DockerEngine {
    /// Every network that the engine shows.
    pub async fn networks(&self) -> Result<Vec<Network>, EngineError> {
        let ask =
            |docker: bollard::Docker| async move { docker.list_networks(None::<ListNetworksOptions>).await };
        let listed = self.read("list networks", ask).await?;
        Ok(listed.into_iter().map(understood).collect())
    }

    /// Whether the engine is part of a swarm, which shows a network of its own only once a container is on it.
    pub async fn is_in_swarm(&self) -> Result<bool, EngineError> {
        let info = self.read("tell about itself", |docker| async move { docker.info().await }).await?;
        let state = info.swarm.and_then(|swarm| swarm.local_node_state);
        Ok(state == Some(LocalNodeState::ACTIVE))
    }
}

/// The networks of an engine, as far as a model's services need to know them.
pub async fn networks_for(engine: &dyn Engine, model: &Model) -> Result<Networks, EngineError> {
    let mut networks = Networks { shown: engine.networks().await?, may_hide: false };
    let joined = model.services.values().flat_map(|service| &service.meant.networks);
    let missing = joined.filter(|one| one.external).any(|one| networks.called(&one.name).next().is_none());
    if missing {
        networks.may_hide = engine.is_in_swarm().await?;
    }
    Ok(networks)
}

fn understood(seen: bollard::models::Network) -> Network {
    let options = seen.options.unwrap_or_default();
    let routed = options.iter().any(|(name, value)| name.starts_with(GATEWAY_MODE) && value != "nat");
    let kind = match seen.driver.as_deref() {
        _ if seen.internal == Some(true) => NetworkKind::Internal,
        Some("bridge") if !routed => NetworkKind::Publishes,
        _ => NetworkKind::Other,
    };
    Network {
        id: seen.id.unwrap_or_default(),
        name: seen.name.unwrap_or_default(),
        kind,
        made: seen.created.and_then(|text| text.parse().ok()),
    }
}

/// What a container has, as the engine tells it.
pub(super) fn attached(seen: &ContainerInspectResponse) -> Attached {
    let settings = seen.network_settings.clone().unwrap_or_default();
    let endpoints = settings.networks.unwrap_or_default().into_iter().map(endpoint);
    let ports = settings.ports.unwrap_or_default().into_iter().flat_map(|(target, bindings)| {
        let bindings = bindings.unwrap_or_default().into_iter();
        bindings.filter_map(move |one| binding(&target, &one))
    });
    Attached { endpoints: endpoints.collect(), ports: ports.collect() }
}

fn endpoint((name, settings): (String, EndpointSettings)) -> Endpoint {
    let address = |text: Option<String>| text.and_then(|text| text.parse().ok());
    Endpoint {
        network: settings.network_id.unwrap_or_default(),
        name,
        ipv4: address(settings.ip_address),
        ipv6: address(settings.global_ipv6_address),
        aliases: settings.aliases.unwrap_or_default(),
    }
}

fn binding(target: &str, one: &PortBinding) -> Option<Binding> {
    let host_port = one.host_port.as_ref()?.parse().ok()?;
    let host_ip = one.host_ip.as_ref().and_then(|text| text.parse().ok());
    Some(Binding { target: target.to_owned(), host_ip, host_port })
}
