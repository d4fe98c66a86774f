//! Planning: what would change on the host, computed from the host and a request, before anything changes.
//!
//! Here is no lock, no journal and no tag, and nothing of the tenant's is touched: see [`plan`]. An operation begins with a
//! plan and then reserves what it needs.

pub mod changes;
pub mod checks;
mod context;
pub mod data;
pub mod data_users;
mod error;
pub mod file_changes;
mod image_edits;
mod images;
mod orphans;
mod plan;
mod recreates;
pub mod stage;
pub mod terms;
pub mod way_back;

pub use context::RequestContext;
pub use error::StepError;
pub use plan::{Planned, plan};
pub use stage::StagedRelease;
