//! Whether what is wanted reaches any image: a target that changes nothing is never called deployed (P17).

use tenantry_api::names::{EnvKey, ServiceName};
use tenantry_protocol::{EnvKeyState, ImageSetting, ImageState, Observation};

use super::SHOWN;
use crate::images::meaning::may_reach;
use crate::target::{Desired, Refusal, RefusalReason};
use crate::text::{clause, listed};

/// Refuses a target of which the host's own model shows that it reaches no image, saying what was looked for and what is
/// there. Where the files on the host are not the target's yet, the agent looks at those that it would write.
pub(super) fn reaches(desired: &Desired, observation: &Observation) -> Result<(), Refusal> {
    let as_wanted = observation.files.iter().all(|file| file.state.has_wanted_content());
    if !as_wanted || observation.services.is_empty() || tenantry_faults::Bug::ReachAnything.is_seeded() {
        return Ok(());
    }
    let settings = desired.manifest.images.iter().enumerate();
    for ((at, setting), state) in settings.zip(&observation.images) {
        image(at, setting, state, observation)?;
    }
    tag(desired, observation)
}

fn image(
    at: usize,
    setting: &ImageSetting,
    state: &ImageState,
    observation: &Observation,
) -> Result<(), Refusal> {
    if let Some(problem) = &state.problem {
        return refuse(format!("spec.images[{at}] ({}): {}.", setting.name, clause(problem)));
    }
    if !state.services.is_empty() {
        return Ok(());
    }
    let of = if setting.services.is_empty() {
        "no service".to_owned()
    } else {
        let names: Vec<&str> = setting.services.iter().map(ServiceName::as_str).collect();
        format!("none of the services {}", listed(&names, SHOWN))
    };
    refuse(format!(
        "spec.images[{at}].name: {of} has the image {}. The compose files say {}.",
        setting.name,
        images(observation)
    ))
}

fn tag(desired: &Desired, observation: &Observation) -> Result<(), Refusal> {
    let (intent, tag) = (&desired.intent, &desired.intent.image_tag);
    // What a bundle makes of its own files is a release, whatever its tag is called.
    if intent.bundle.is_none() && intent.tag_use.is_unused() && intent.tag_use.is_given() {
        return refuse(format!(
            "spec.imageTag: nothing is made of {tag}; use $(imageTag) in spec.env.patch or spec.images, or leave imageTag \
             out. The compose files say {}.",
            images(observation)
        ));
    }
    let keys = intent.tag_use.only_keys();
    let state = |name: &EnvKey| observation.env.keys.iter().find(|state| state.name == *name);
    let known: Vec<&EnvKeyState> = keys.iter().filter_map(state).collect();
    let reaches = |state: &&EnvKeyState| may_reach(state.reaches.as_deref());
    if keys.is_empty() || known.len() < keys.len() || known.iter().any(reaches) {
        return Ok(());
    }
    let names: Vec<&str> = keys.iter().map(EnvKey::as_str).collect();
    refuse(format!(
        "spec.imageTag: {tag} would reach no image: no service's image depends on {}, which spec.env.patch sets. The \
         compose files say {}.{} Patch the variable that they use, or name the images in spec.images.",
        listed(&names, SHOWN),
        images(observation),
        digest_wins(observation),
    ))
}

/// What the compose files say, a clause.
fn images(observation: &Observation) -> String {
    let image =
        |service: &tenantry_protocol::ServiceObservation| format!("{}: {}", service.name, service.image_ref);
    let all: Vec<String> = observation.services.iter().map(image).collect();
    listed(&all, SHOWN)
}

fn digest_wins(observation: &Observation) -> String {
    let pinned = observation.services.iter().filter(|service| service.image_ref.contains('@'));
    let names: Vec<&str> = pinned.map(|service| service.name.as_str()).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(" A digest wins over the tag beside it, as in {}.", listed(&names, SHOWN))
}

fn refuse(message: String) -> Result<(), Refusal> {
    Err(Refusal::new(RefusalReason::ReachesNothing, message))
}
