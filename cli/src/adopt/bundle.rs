//! A `TemplateBundle` of a project's own compose files, for who wants to render them from now on: rendered at the release
//! that is deployed it is what is there, byte for byte.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tenantry_agent::survey::Project;
use tenantry_planner::images::proposal::{Moves, Proposal, WrittenAt};
use tenantry_planner::images::{Change, Written, image_scalars, replace};

use super::manifest::{For, bundled, name};

/// A tag that no file has, until the template's own words take its place.
const MARK: &str = "tenantry-adopt-release-mark";
const RELEASE: &str = "{{ imageTag }}";

/// Writes the bundle of a project beneath `out`, with the resources to apply; says where it is.
pub fn write(out: &Path, project: &Project, proposal: &Proposal, for_: For<'_>) -> anyhow::Result<PathBuf> {
    if matches!(proposal.moves, Moves::Nothing(_) | Moves::Digest) {
        bail!(
            "{}: no tag sets a release of it, so there is nothing that a bundle could render",
            project.place.project
        );
    }
    let bundle = name(project.place.project.as_str());
    let folder = out.join(&bundle);
    if folder.exists() {
        bail!("{} is there already: give --bundle-dir another folder", folder.display());
    }
    let mut document =
        "# The project's own compose files; what else is in its directory stays its own.\nfiles:\n"
            .to_owned();
    for path in &project.compose_files {
        let at = Path::new(project.place.directory.as_str()).join(path.as_str());
        let text = std::fs::read(&at).with_context(|| at.display().to_string())?;
        let mode = std::fs::metadata(&at)?.permissions().mode() & 0o777;
        let written = |service: &&tenantry_planner::images::proposal::FoundService| {
            proposal.services.contains(&service.name) && matches!(proposal.moves, Moves::Written)
        };
        let here = project.services.iter().filter(written).filter_map(|service| service.written.as_ref());
        let here: Vec<&WrittenAt> = here.filter(|written| written.path == *path).collect();
        let text = if here.is_empty() {
            text
        } else {
            template(&text, &here).with_context(|| at.display().to_string())?
        };
        let source = if here.is_empty() { path.to_string() } else { format!("{path}.tera") };
        let _ = writeln!(document, "  - {{source: {source}, mode: \"{mode:04o}\"}}");
        put(&folder.join(&source), &text)?;
    }
    put(&folder.join("bundle.yaml"), document.as_bytes())?;
    put(&folder.join("tenant.yaml"), bundled(project, proposal, &bundle, for_).as_bytes())?;
    Ok(folder)
}

fn put(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above).with_context(|| above.display().to_string())?;
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// A compose file as a template: the release stands where its tag was, and all else is what it was once it is rendered.
fn template(text: &[u8], tags: &[&WrittenAt]) -> anyhow::Result<Vec<u8>> {
    let mut edits = Vec::new();
    for (number, scalar) in image_scalars(text)?.into_iter().enumerate() {
        if tags.iter().any(|written| written.line == scalar.line && written.text == scalar.value) {
            let change = Change { new_tag: Some(MARK.to_owned()), ..Change::default() };
            edits.push((number, Written::parse(&scalar.value).with(&change)?));
        }
    }
    let marked = String::from_utf8(replace(text, &edits)?).context("a compose file is UTF-8")?;
    Ok(escaped(&marked).replace(MARK, RELEASE).into_bytes())
}

/// A text that a template gives out as it is.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{{").into_iter().chain(rest.find("{%")).chain(rest.find("{#")).min() {
        let (before, from) = rest.split_at(at);
        let (opening, after) = from.split_at(2);
        let _ = write!(escaped, "{before}{{{{ \"{opening}\" }}}}");
        rest = after;
    }
    escaped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tag_becomes_the_release_and_what_a_template_would_read_is_kept() {
        let text = "services:\n  web:\n    image: r/app:v1 # {{ mine }}\n    command: \"${#x} {%y\"\n  db: {image: db:v1}\n";
        let path = tenantry_api::names::RelativePath::parse("compose.yaml").unwrap();
        let at = WrittenAt { path, line: 3, text: "r/app:v1".to_owned() };
        let template = String::from_utf8(template(text.as_bytes(), &[&at]).unwrap()).unwrap();
        assert!(template.contains("image: r/app:{{ imageTag }} # {{ \"{{\" }} mine }}"), "{template}");
        assert!(
            template.contains("${{ \"{#\" }}x} {{ \"{%\" }}y") && template.contains("db:v1"),
            "{template}"
        );
        let back = template.replace("{{ imageTag }}", "v1");
        let back = ["{{", "{#", "{%"]
            .iter()
            .fold(back, |text, opening| text.replace(&format!("{{{{ \"{opening}\" }}}}"), opening));
        assert_eq!(back, text);
    }
}
