//! The operator: watches Tenants, asks agents, decides with the planner, and writes down what it sees.
//!
//! How a Tenant is reconciled is in [`tenants`]: observe, decide, execute, record. Nothing that matters is kept in
//! memory: an operation in flight is found again by the id in the Tenant's status.

pub mod agents;
pub mod arguments;
pub mod bundles;
pub mod cluster;
pub mod events;
pub mod health;
pub mod hosts;
pub mod key;
pub mod leader;
pub mod metrics;
pub mod operator;
pub mod queue;
pub mod rights;
pub mod startup;
pub mod stores;
pub mod tenants;
