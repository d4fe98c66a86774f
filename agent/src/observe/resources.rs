//! Networks, ports and volumes that are otherwise than the compose files say.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_api::names::ServiceName;
use tenantry_planner::compare::{Expected, volumes};
use tenantry_planner::model::Model;

use crate::engine::{Engine, EngineError, ProjectContainer};

/// All of them, a clause each.
pub async fn differences(
    engine: &dyn Engine,
    model: &Model,
    expected: &BTreeMap<ServiceName, Expected>,
    own: &[ProjectContainer],
) -> Result<Vec<String>, EngineError> {
    let lacking = |one: &ProjectContainer| {
        let (name, expected) = expected.get_key_value(one.container.service.as_str())?;
        Some(format!("{name} {}", expected.attached.as_ref()?.lacking(&one.container)?))
    };
    let mut all: Vec<String> = own.iter().filter_map(lacking).collect();
    all.dedup();
    let used: BTreeSet<&String> = model.services.values().flat_map(|service| &service.volumes).collect();
    for volume in used.into_iter().filter_map(|key| model.volumes.get(key)).filter(|volume| !volume.external)
    {
        // What compose does not compare it is content with.
        let Some(is) = engine.volume(&volume.name).await?.filter(|is| is.stored.noted) else { continue };
        let differs = volumes::difference(volume, &is.stored);
        all.extend(differs.map(|differs| format!("volume {} {differs}", volume.name)));
    }
    Ok(all)
}
