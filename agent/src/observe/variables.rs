//! The variables that a project's images depend on, and what each of them is to each image. Compose itself is asked, with
//! the variables set to something that stands nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_api::names::{EnvKey, ServiceName};
use tenantry_planner::env::{EnvFile, Value};
use tenantry_planner::images::proposal::FoundVariable;
use tenantry_planner::images::variable::{Settable, Use};
use tenantry_planner::images::{Tag, Written};
use tenantry_protocol::EnvValue;

use super::copies::Copies;
use super::env_meaning::{ONE_BY_ONE as DEFAULTS_AT_ONCE, by_default, marks, with_env};
use super::images::Origins;

/// The most variables that are looked at.
const MOST: usize = 64;
/// The most variables that are asked about one by one.
const ONE_BY_ONE: usize = 16;

/// The variables that versions of images depend on.
pub async fn variables(copies: &Copies<'_>, origins: &Origins) -> Vec<FoundVariable> {
    let Ok(env) = EnvFile::parse(copies.env()) else { return Vec::new() };
    let names = candidates(origins, &env);
    if names.is_empty() {
        return Vec::new();
    }
    let mut uses = asked(copies, origins, &names).await;
    // One of them keeps compose from reading the project, or several stand in one image: each by itself, then.
    let open: Vec<EnvKey> = match &uses {
        None => names.clone(),
        Some(uses) => names.iter().filter(|name| uses.get(*name).is_none_or(is_unclear)).cloned().collect(),
    };
    if names.len() > 1 {
        for name in open.iter().take(ONE_BY_ONE) {
            let found = asked(copies, origins, std::slice::from_ref(name)).await;
            uses.get_or_insert_default().extend(found.into_iter().flatten());
        }
    }
    let found: BTreeMap<EnvKey, BTreeMap<ServiceName, Use>> =
        uses.unwrap_or_default().into_iter().filter(|(_, uses)| !uses.is_empty()).collect();
    let same = the_same_everywhere(copies, &env, &found).await;
    found
        .into_iter()
        .map(|(name, uses)| {
            let settable = match env.get(name.as_str()) {
                Some(value) if value.literal().is_some() => Settable::AsItIs,
                Some(Value::Dynamic(_) | Value::Literal(_)) => Settable::MadeOfOthers,
                None | Some(Value::Inherited) if same.contains(&name) => Settable::AsItIs,
                None | Some(Value::Inherited) => Settable::OtherwiseElsewhere,
            };
            FoundVariable { name, settable, uses }
        })
        .collect()
}

/// The variables that `.env` does not set and that it could: with the value that each has for its images, everything else
/// stays as it is, too.
async fn the_same_everywhere(
    copies: &Copies<'_>,
    env: &EnvFile,
    found: &BTreeMap<EnvKey, BTreeMap<ServiceName, Use>>,
) -> BTreeSet<EnvKey> {
    let absent =
        found.iter().filter(|(name, _)| matches!(env.get(name.as_str()), None | Some(Value::Inherited)));
    let held = |(name, uses): (&EnvKey, &BTreeMap<ServiceName, Use>)| {
        Some(EnvValue { name: name.clone(), value: uses.values().find_map(Use::value)? })
    };
    let absent: Vec<EnvValue> = absent.filter_map(held).collect();
    let mut same = BTreeSet::new();
    for some in absent.chunks(DEFAULTS_AT_ONCE) {
        same.extend(by_default(copies, some).await);
    }
    same
}

/// Whether a variable could be more to an image than was seen beside other marks.
fn is_unclear(uses: &BTreeMap<ServiceName, Use>) -> bool {
    uses.is_empty() || uses.values().any(|how| *how == Use::Other)
}

/// The variables that stand where a version can come from, and, where `.env` makes those of others, those that sound like
/// it.
fn candidates(origins: &Origins, env: &EnvFile) -> Vec<EnvKey> {
    let mut names = BTreeSet::new();
    let texts = origins.scalars.iter().map(|scalar| &scalar.text);
    for text in texts.chain(origins.outside.iter().map(|scalar| &scalar.text)) {
        let written = Written::parse(text);
        match written.tag {
            Tag::Written(part) => names.extend(part.variables),
            Tag::Hidden { variables } => names.extend(variables),
            Tag::Absent => {}
        }
        names.extend(written.digest.into_iter().flat_map(|part| part.variables));
    }
    let derived = |name: &String| env.get(name).is_some_and(|value| value.literal().is_none());
    if names.iter().any(derived) {
        let sounds = |name: &&str| {
            ["TAG", "VERSION", "RELEASE", "IMAGE"].iter().any(|word| name.to_ascii_uppercase().contains(word))
        };
        names.extend(env.keys().filter(sounds).map(str::to_owned));
    }
    names.into_iter().filter_map(|name| EnvKey::parse(name).ok()).take(MOST).collect()
}

/// What each variable is to each service's image; `None` where compose can't read the project with all of them marked.
async fn asked(
    copies: &Copies<'_>,
    origins: &Origins,
    names: &[EnvKey],
) -> Option<BTreeMap<EnvKey, BTreeMap<ServiceName, Use>>> {
    let wanted: Vec<EnvValue> =
        names.iter().map(|name| EnvValue { name: name.clone(), value: String::new() }).collect();
    let marked = marks(&wanted);
    let model = copies.resolved(&with_env(copies, &marked)?, origins.of).await.ok()?;
    let image = |service: &ServiceName| model["services"][service.as_str()]["image"].as_str();
    let selected = origins.services.iter().filter(|(_, origin)| origin.selected);
    let images: Vec<(&ServiceName, &str, &str)> = selected
        .filter_map(|(service, origin)| Some((service, image(service)?, origin.reference.as_str())))
        .collect();
    let of = |mark: &EnvValue| {
        let uses = images.iter().filter_map(|(service, marked, reference)| {
            Some(((*service).clone(), Use::of(&mark.value, marked, reference)?))
        });
        (mark.name.clone(), uses.collect())
    };
    Some(marked.iter().map(of).collect())
}
