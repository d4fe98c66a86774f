//! Whether what services mount is there, where neither compose nor the engine makes it: without it the engine makes no
//! container, and starts none again, with others stopped already.

use std::io::ErrorKind;
use std::path::Path;

use tenantry_api::names::RelativePath;
use tenantry_planner::model::{Bind, Model, beneath};
use tenantry_protocol::{FailureCategory, Recreate};

use crate::planning::changes::{Becomes, Changes};
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;

/// Refuses a release that starts a service anew without what it mounts from the tenant's directory. What lies elsewhere an
/// agent need not see; and a service that runs on has what it had.
pub async fn check(
    context: &RequestContext,
    model: &Model,
    changes: &Changes,
    recreates: &[Recreate],
) -> Result<(), StepError> {
    let directory = context.directory();
    let anew =
        model.services.iter().filter(|(name, _)| recreates.iter().any(|one| one.service == name.as_str()));
    let needed = anew.flat_map(|(name, service)| {
        let needed = service.binds.iter().filter_map(|bind| needed(directory, bind, changes));
        needed.map(|path| (name.to_string(), path))
    });
    let needed: Vec<(String, RelativePath)> = needed.collect();
    let root = directory.to_owned();
    context
        .blocking(move || {
            let is_missing = |path: &RelativePath| {
                let found = std::fs::metadata(Path::new(&root).join(path.as_str()));
                found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
            };
            match needed.iter().find(|(_, path)| is_missing(path)) {
                None => Ok(()),
                Some((service, path)) => Err(missing(service, path)),
            }
        })
        .await
}

/// A path of the tenant's directory that must be there already, for nobody makes it.
fn needed(directory: &str, bind: &Bind, changes: &Changes) -> Option<RelativePath> {
    // `config` writes a dollar sign twice.
    let source = bind.source.replace("$$", "$");
    let path = beneath(directory, &source).filter(|_| !bind.create)?;
    let path = RelativePath::parse(path).ok()?;
    let written = |file: &RelativePath| matches!(changes.content(file), Becomes::Written(_));
    let below = |file: &RelativePath| {
        let rest = file.as_str().strip_prefix(path.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_made = changes.set.changes.iter().any(|change| below(change.path()) && written(change.path()));
    (!is_made).then_some(path)
}

fn missing(service: &str, path: &RelativePath) -> StepError {
    let message = format!(
        "services.{service} mounts {path}, which is not there, and without it the engine starts no container of {service}: put \
         it there, or take it out of the compose file"
    );
    StepError::new(FailureCategory::PathRefused, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Before, Change};

    #[test]
    fn what_nobody_makes_must_be_there_unless_the_release_writes_it() {
        let mut changes = Changes::default();
        let needs = |source: &str, create: bool, changes: &Changes| {
            let bind = Bind { source: source.to_owned(), create };
            needed("/d", &bind, changes).map(|path| path.to_string())
        };
        assert_eq!(needs("/d/a$$b", false, &changes).as_deref(), Some("a$b"));
        assert_eq!(needs("/d/made", true, &changes), None, "the engine makes it");
        assert_eq!(needs("/srv/elsewhere", false, &changes), None);
        let path = RelativePath::parse("conf/app").unwrap();
        changes.set.changes.push(Change::Delete { path, before: Before::Any });
        assert_eq!(needs("/d/conf/app", false, &changes).as_deref(), Some("conf/app"));
    }
}
