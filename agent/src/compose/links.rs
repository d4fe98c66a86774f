//! Mounts that lead through symlinks. The engine mounts what is behind a link, so what is behind it is what a container
//! sees; compose's model has the link alone.

use std::collections::BTreeMap;
use std::path::Path;

use tenantry_planner::model::{Bind, Model, beneath};

/// Where mounts of the tenant's directory really lead that lead through links: their sources, and what is behind them.
pub type Links = BTreeMap<String, String>;

/// Adds to each service what is behind the links of its mounts, where that lies in the tenant's directory: what that is.
pub fn see_through(model: &mut Model, directory: &str) -> Links {
    let links = links(model, directory);
    for service in model.services.values_mut() {
        let behind = service.binds.iter().filter_map(|bind| links.get(&bind.source));
        let behind: Vec<Bind> = behind.map(|source| Bind { source: source.clone(), create: false }).collect();
        service.binds.extend(behind);
    }
    links
}

/// The same as [`see_through`] would find, of a model that it has changed or not.
pub fn links(model: &Model, directory: &str) -> Links {
    let Ok(real) = std::fs::canonicalize(directory) else { return Links::new() };
    let binds = model.services.values().flat_map(|service| &service.binds);
    let below = binds.filter(|bind| beneath(directory, &bind.source).is_some());
    let lead = |bind: &Bind| Some((bind.source.clone(), behind_links(directory, &real, &bind.source)?));
    below.filter_map(lead).collect()
}

/// Where a path really leads, if by a link, as a path below `directory`.
fn behind_links(directory: &str, real: &Path, source: &str) -> Option<String> {
    let leads = std::fs::canonicalize(source).ok()?;
    let within = leads.strip_prefix(real).ok()?.to_str()?;
    let leads = format!("{}/{within}", directory.trim_end_matches('/'));
    (leads.trim_end_matches('/') != source.trim_end_matches('/')).then_some(leads)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tenantry_api::names::RelativePath;
    use tenantry_planner::model::Mounted;

    use super::*;

    #[test]
    fn p19_a_file_behind_links_is_mounted_and_what_lies_elsewhere_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = std::fs::canonicalize(folder.path()).unwrap().join("shop");
        std::fs::create_dir_all(at.join("v1/d")).unwrap();
        for file in ["v1/conf", "v1/d/x"] {
            std::fs::write(at.join(file), "x").unwrap();
        }
        for (link, target) in
            [("now", "v1"), ("app.conf", "now/conf"), ("dir", "now/d"), ("out", "/etc/hostname")]
        {
            symlink(target, at.join(link)).unwrap();
        }
        let directory = at.display().to_string();
        let bind = |path: &str| serde_json::json!({"type": "bind", "source": at.join(path), "target": "/t"});
        let volumes: Vec<_> = ["app.conf", "dir", "out", "missing"].map(bind).into();
        let json =
            serde_json::json!({"name": "shop", "services": {"web": {"image": "x", "volumes": volumes}}});
        let mut model = Model::parse(json.to_string().as_bytes(), &directory, &directory).unwrap();
        let seen = see_through(&mut model, &directory);
        assert_eq!(links(&model, &directory), seen, "P19: it is known whether they still lead there");
        std::fs::remove_file(at.join("now")).unwrap();
        symlink("v2", at.join("now")).unwrap();
        assert_ne!(links(&model, &directory), seen);
        let web = model.services.values().next().unwrap();
        let mounts = |path: &str| web.mounts(&directory, &RelativePath::parse(path).unwrap());
        assert_eq!(mounts("v1/conf"), Some(Mounted::Singly));
        assert_eq!(mounts("v1/d/x"), Some(Mounted::InDirectory));
        assert_eq!(mounts("v1/other"), None);
        assert_eq!(web.binds.len(), 6, "{:?}", web.binds);
    }
}
