//! Hosts: the way to each one's agent, and what the agent says of itself.

use std::collections::HashMap;
use std::sync::Arc;

use kube::runtime::reflector::Store;
use parking_lot::Mutex;
use tenantry_api::ComposeHost;
use tenantry_api::names::Identity;
use tenantry_planner::decide::Unreached;

use crate::agents::{Agent, AgentError, Agents};
use crate::key::Key;

pub mod changes;
pub mod pending_releases;
pub mod status;

/// The way to a host's agent.
#[derive(Clone)]
pub struct Route {
    /// Who the agent must be.
    pub identity: String,
    /// Where it is.
    pub address: String,
    /// The agent, or why there can't be one.
    pub agent: Result<Arc<dyn Agent>, AgentError>,
}

/// All hosts.
pub struct Hosts {
    store: Store<ComposeHost>,
    agents: Arc<dyn Agents>,
    known: Mutex<HashMap<Key, Route>>,
}

impl Hosts {
    /// The hosts of a store, with agents from there.
    pub fn new(store: Store<ComposeHost>, agents: Arc<dyn Agents>) -> Self {
        Self { store, agents, known: Mutex::default() }
    }

    /// The way to a host's agent; `None` where there is no such ComposeHost.
    pub fn route(&self, key: &Key) -> Option<Route> {
        let Some(host) = self.store.get(&key.reference()) else {
            self.known.lock().remove(key);
            return None;
        };
        let (identity, address) = (&host.spec.identity, &host.spec.connection.dial.address);
        let mut known = self.known.lock();
        if let Some(route) =
            known.get(key).filter(|route| route.identity == *identity && route.address == *address)
        {
            return Some(route.clone());
        }
        let agent = Identity::parse(identity)
            .map_err(|error| AgentError::Unreached {
                why: Unreached::BadAnswer,
                text: format!("ComposeHost {}: spec.identity: {error}", key.name),
            })
            .and_then(|identity| self.agents.at(&identity, address));
        let route = Route { identity: identity.clone(), address: address.clone(), agent };
        known.insert(key.clone(), route.clone());
        Some(route)
    }

    /// The ComposeHost itself.
    pub fn get(&self, key: &Key) -> Option<Arc<ComposeHost>> {
        self.store.get(&key.reference())
    }
}
