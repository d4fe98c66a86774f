//! Which services an entry of `spec.images` means, and how their images stand to it.

use tenantry_api::names::ServiceName;
use tenantry_protocol::{ImageSetting, ImageState, Pending};

use super::name::same_name;
use super::written::{CannotChange, Change, Tag, Written};
use crate::model::Model;

/// Which entry means a service with this image: it has the name, or the one that it gets; of two entries that could mean
/// the same service none gets this far.
pub fn meant_by(settings: &[ImageSetting], service: &ServiceName, reference: &str) -> Option<usize> {
    let written = Written::parse(reference);
    let known = |setting: &ImageSetting| {
        std::iter::once(&setting.name)
            .chain(&setting.new_name)
            .any(|name| same_name(name, &written.name.text))
    };
    let here = |setting: &ImageSetting| setting.services.is_empty() || setting.services.contains(service);
    settings.iter().position(|setting| here(setting) && known(setting))
}

/// An image reference, as written or as resolved, as an entry wants it.
pub fn wanted(setting: &ImageSetting, reference: &str) -> Result<String, CannotChange> {
    let ImageSetting { name: _, new_name, new_tag, digest, services: _ } = setting;
    let written = Written::parse(reference);
    // A name that is the same to the engine stays as it is written.
    let new_name = new_name.clone().filter(|new| !same_name(new, &written.name.text));
    written.with(&Change { new_name, new_tag: new_tag.clone(), digest: digest.clone() })
}

/// Whether two references mean the same to the engine.
pub fn same_reference(one: &str, other: &str) -> bool {
    let (one, other) = (Written::parse(one), Written::parse(other));
    version(&one) == version(&other) && same_name(&one.name.text, &other.name.text)
}

/// Tag and digest as the engine completes them.
fn version(written: &Written) -> (Option<&str>, Option<&str>) {
    let digest = written.digest.as_ref().map(|digest| digest.text.as_str());
    match &written.tag {
        Tag::Written(tag) => (Some(&tag.text), digest),
        Tag::Absent | Tag::Hidden { .. } => (digest.is_none().then_some("latest"), digest),
    }
}

/// How the images of a model stand to each entry.
pub fn states(settings: &[ImageSetting], model: &Model) -> Vec<ImageState> {
    let mut states = vec![ImageState::default(); settings.len()];
    for (name, service) in &model.services {
        let Some(at) = meant_by(settings, name, &service.image) else { continue };
        let (state, now) = (&mut states[at], &service.image);
        state.services.push(name.clone());
        match wanted(&settings[at], now) {
            Ok(wanted) if same_reference(&wanted, now) => {}
            Ok(wanted) => state.pending.push(Pending { service: name.clone(), now: now.clone(), wanted }),
            Err(problem) => state.problem = Some(format!("services.{name}.image is {now}: {problem}")),
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, new_name: Option<&str>, new_tag: Option<&str>, services: &[&str]) -> ImageSetting {
        ImageSetting {
            name: name.to_owned(),
            new_name: new_name.map(str::to_owned),
            new_tag: new_tag.map(str::to_owned),
            digest: None,
            services: services.iter().map(|name| ServiceName::parse(*name).unwrap()).collect(),
        }
    }

    #[rstest::rstest]
    #[case::by_the_name_in_full("docker.io/library/redis:7", "cache", Some(0))]
    #[case::with_a_digest("redis:7@sha256:00", "cache", Some(0))]
    #[case::in_a_service_that_is_not_named("redis:7", "queue", None)]
    #[case::by_the_name_that_it_has_got("r.example/app:2", "web", Some(1))]
    #[case::by_the_name_that_it_had("acme/app", "web", Some(1))]
    #[case::another_registry_s("r.example/redis:7", "cache", None)]
    #[case::no_reference("${REDIS", "cache", None)]
    fn an_entry_means_a_service(#[case] image: &str, #[case] service: &str, #[case] meant: Option<usize>) {
        let settings = [
            setting("library/redis", None, Some("7.4"), &["cache"]),
            setting("acme/app", Some("r.example/app"), Some("2"), &[]),
        ];
        assert_eq!(meant_by(&settings, &ServiceName::parse(service).unwrap(), image), meant);
    }

    #[rstest::rstest]
    #[case::as_it_is_written("redis:7", "redis:7", true)]
    #[case::completed("redis", "docker.io/library/redis:latest", true)]
    #[case::another_tag("redis:7", "redis:7.4", false)]
    #[case::a_digest_more("redis:7", "redis:7@sha256:00", false)]
    #[case::a_tag_less("redis:7@sha256:00", "redis@sha256:00", false)]
    fn references_are_compared_as_the_engine_reads_them(
        #[case] one: &str,
        #[case] other: &str,
        #[case] same: bool,
    ) {
        assert_eq!(same_reference(one, other), same);
    }
}
