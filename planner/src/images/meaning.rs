//! What compose says that a request would mean to a project: values, found out on a host.

use std::collections::BTreeMap;

use tenantry_api::names::{EnvKey, ServiceName};
use tenantry_protocol::{EnvObservation, ImageState, Manifest};

use super::settings;
use crate::model::Model;

/// What a request would mean to a project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meanings {
    /// Each patched variable.
    pub env: BTreeMap<EnvKey, Meaning>,
    /// Why an entry of `spec.images` can't be written, by its number.
    pub problems: BTreeMap<usize, String>,
}

/// What a patched variable means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// Whether it is absent, and the model is what it would be with the wanted value.
    pub by_default: bool,
    /// Services whose image depends on it; absent where compose did not answer.
    pub reaches: Option<Vec<ServiceName>>,
}

/// Whether a variable may reach an image; what was not found out is not held against it.
pub fn may_reach(services: Option<&[ServiceName]>) -> bool {
    services.is_none_or(|services| !services.is_empty())
}

impl Meanings {
    /// Adds what is known to what was read of `.env`.
    pub fn add_to_env(&self, observed: &mut EnvObservation) {
        for key in &mut observed.keys {
            if let Some(meaning) = self.env.get(&key.name) {
                key.by_default = meaning.by_default && !key.present;
                key.reaches.clone_from(&meaning.reaches);
            }
        }
    }

    /// How the images of a model stand to the manifest.
    pub fn image_states(&self, manifest: &Manifest, model: &Model) -> Vec<ImageState> {
        let mut states = settings::states(&manifest.images, model);
        for (at, problem) in &self.problems {
            if let Some(state) = states.get_mut(*at) {
                state.problem = Some(problem.clone());
            }
        }
        states
    }
}
