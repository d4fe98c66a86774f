//! By what an image tag is to reach an image: what a release that reaches nothing is recognised by.

use tenantry_api::names::EnvKey;
use tenantry_api::tenant::TenantSpec;

use super::{Refusal, RefusalReason};

/// What an image tag is written as in values.
pub(super) const IMAGE_TAG: &str = "$(imageTag)";

/// By what the image tag is to reach an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagUse {
    /// Keys of an adopted `.env` that are made of the tag.
    keys: Vec<EnvKey>,
    /// Whether an entry of `spec.images` is.
    images: bool,
    /// Whether the files of a bundle are.
    bundle: bool,
    /// Whether the spec gives the tag.
    given: bool,
}

impl TagUse {
    /// What a spec says.
    pub fn of(spec: &TenantSpec) -> Self {
        let patch = spec.env.patch.iter().filter(|entry| is_used(&entry.value));
        Self {
            keys: patch.filter_map(|entry| EnvKey::parse(&entry.name).ok()).collect(),
            images: spec.images.iter().any(|image| image.new_tag.as_deref().is_some_and(is_used)),
            bundle: spec.bundle.is_some(),
            given: spec.image_tag.is_some(),
        }
    }

    /// The keys, where nothing else is made of the tag: then one of them has to reach an image. What a bundle writes by
    /// itself is not seen from here, nor is what `spec.images` says, which answers for itself.
    pub fn only_keys(&self) -> &[EnvKey] {
        if self.images || self.bundle { &[] } else { &self.keys }
    }

    /// Takes note of whether what a bundle was rendered to mentions the tag.
    pub(super) fn is_rendered(&mut self, mentions: bool) {
        self.bundle = mentions;
    }

    /// Whether the spec gives the tag: it is no more than a name of what `spec.images` says otherwise.
    pub fn is_given(&self) -> bool {
        self.given
    }

    /// Whether nothing at all is made of the tag.
    pub fn is_unused(&self) -> bool {
        self.keys.is_empty() && !self.images && !self.bundle
    }

    /// Refuses a spec that uses a tag which it does not say.
    pub(super) fn is_said(&self, spec: &TenantSpec) -> Result<(), Refusal> {
        let needed = !self.is_unused() || spec.images.is_empty();
        if spec.image_tag.is_some() || !needed {
            return Ok(());
        }
        let message = "spec.imageTag: is not set; it may be left out only without a bundle, where spec.images says every \
                       tag itself.";
        Err(Refusal::new(RefusalReason::InvalidSpec, message))
    }
}

/// Whether a value is made of the image tag; `$$(` is a literal `$(`.
fn is_used(value: &str) -> bool {
    value.replace("$$(", "").contains(IMAGE_TAG)
}
