//! What patched variables mean to a project: which services' images depend on each, and whether an absent one is right by
//! default. Compose itself is asked, with the variable set to something that stands nowhere else.

use std::collections::BTreeMap;

use serde_json::Value;
use tenantry_api::names::{EnvKey, RelativePath, ServiceName};
use tenantry_planner::env::{EnvFile, patch};
use tenantry_planner::images::Written;
use tenantry_planner::images::meaning::Meaning;
use tenantry_protocol::EnvValue;

use super::copies::{Copies, Services, Texts};

/// The most variables that are asked about one by one.
pub(super) const ONE_BY_ONE: usize = 8;

/// What each variable means.
pub async fn env_meaning(copies: &Copies<'_>, wanted: &[EnvValue]) -> BTreeMap<EnvKey, Meaning> {
    let mut meanings: BTreeMap<EnvKey, Meaning> =
        wanted.iter().map(|value| (value.name.clone(), Meaning::default())).collect();
    for (key, services) in reaches(copies, wanted).await {
        meanings.entry(key).or_default().reaches = Some(services);
    }
    for key in by_default(copies, wanted).await {
        meanings.entry(key).or_default().by_default = true;
    }
    meanings
}

/// `.env` with each of these variables marked.
pub fn marked(text: &[u8], wanted: &[EnvValue]) -> Option<Vec<u8>> {
    patch(text, &marks(wanted)).ok().map(|patched| patched.bytes)
}

pub(super) fn marks(wanted: &[EnvValue]) -> Vec<EnvValue> {
    let mark = |at: usize| format!("0.0.0-tenantry-mark-{at}.end");
    wanted
        .iter()
        .enumerate()
        .map(|(at, value)| EnvValue { name: value.name.clone(), value: mark(at) })
        .collect()
}

/// Services whose image depends on each variable. Where compose can't read the project with all of them marked, for one is
/// a port, each is asked about by itself.
async fn reaches(copies: &Copies<'_>, wanted: &[EnvValue]) -> BTreeMap<EnvKey, Vec<ServiceName>> {
    let marked = marks(wanted);
    if let Some(found) = asked(copies, &marked).await {
        return found;
    }
    let mut found = BTreeMap::new();
    if marked.len() > 1 {
        for one in marked.chunks(1).take(ONE_BY_ONE) {
            found.extend(asked(copies, one).await.into_iter().flatten());
        }
    }
    found
}

async fn asked(copies: &Copies<'_>, marked: &[EnvValue]) -> Option<BTreeMap<EnvKey, Vec<ServiceName>>> {
    if marked.is_empty() {
        return Some(BTreeMap::new());
    }
    let model = copies.resolved(&with_env(copies, marked)?, Services::Selected).await.ok()?;
    let services = model["services"].as_object()?;
    let depends = |mark: &str| {
        let has = |service: &Value| service["image"].as_str().is_some_and(|image| counts(image, mark));
        let names = services.iter().filter(|(_, service)| has(service)).map(|(name, _)| name.as_str());
        names.filter_map(|name| ServiceName::parse(name).ok()).collect()
    };
    Some(marked.iter().map(|value| (value.name.clone(), depends(&value.value))).collect())
}

/// Whether a mark decides which image a reference is: beside a digest a tag decides nothing.
fn counts(reference: &str, mark: &str) -> bool {
    match reference.split_once('@') {
        Some((_, digest)) if digest.contains(mark) => true,
        Some((name, _)) => Written::parse(name).name.text.contains(mark),
        None => reference.contains(mark),
    }
}

/// Variables that are absent and whose default is the wanted value: the model is the same with it.
pub(super) async fn by_default(copies: &Copies<'_>, wanted: &[EnvValue]) -> Vec<EnvKey> {
    let Ok(env) = EnvFile::parse(copies.env()) else { return Vec::new() };
    let absent = wanted.iter().filter(|value| !env.key_state(value).present);
    let absent: Vec<EnvValue> = absent.take(ONE_BY_ONE).cloned().collect();
    if absent.is_empty() {
        return Vec::new();
    }
    let Ok(now) = copies.resolved(&Texts::new(), Services::Selected).await else { return Vec::new() };
    let mut found = Vec::new();
    for value in absent {
        let Some(with) = with_env(copies, std::slice::from_ref(&value)) else { continue };
        if copies.resolved(&with, Services::Selected).await.is_ok_and(|with| with == now) {
            found.push(value.name);
        }
    }
    found
}

/// `.env` with these set in it.
pub(super) fn with_env(copies: &Copies<'_>, values: &[EnvValue]) -> Option<Texts> {
    let patched = patch(copies.env(), values).ok()?;
    Some(Texts::from([(RelativePath::env_file(), patched.bytes)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::a_tag("r/app:0.0.0-m.end", true)]
    #[case::part_of_a_tag("r/app:v0.0.0-m.end-alpine", true)]
    #[case::a_name("r/0.0.0-m.end/app:v1", true)]
    #[case::a_tag_beside_a_digest("r/app:0.0.0-m.end@sha256:00", false)]
    #[case::a_digest("r/app@0.0.0-m.end", true)]
    #[case::a_name_beside_a_digest("r/0.0.0-m.end@sha256:00", true)]
    #[case::nothing("r/app:v1", false)]
    fn a_tag_beside_a_digest_decides_nothing(#[case] reference: &str, #[case] decides: bool) {
        assert_eq!(counts(reference, "0.0.0-m.end"), decides);
    }
}
