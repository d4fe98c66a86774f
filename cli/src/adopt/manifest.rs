//! The Tenant of a project that was found, as YAML for a person to read, keep and change.

use std::fmt::Write as _;

use serde_json::Value;
use tenantry_agent::survey::Project;
use tenantry_api::tenant::{EnvPatch, ImageSetting};
use tenantry_planner::images::proposal::{Moves, Other, Proposal};

/// The longest name of a Tenant.
const LONGEST: usize = 63;
/// How many of the other images are written into the manifest as comments.
const MAX_OTHERS: usize = 8;

/// Where a manifest is for.
#[derive(Clone, Copy, Debug)]
pub struct For<'a> {
    /// The ComposeHost.
    pub host: &'a str,
    /// The namespace, where it is to be written down.
    pub namespace: Option<&'a str>,
}

/// A Tenant's name for a project: its own as a DNS label.
pub fn name(project: &str) -> String {
    let label: String = project.chars().map(|c| if c == '_' { '-' } else { c }).take(LONGEST).collect();
    label.trim_matches('-').to_owned()
}

/// The manifest. Only what says something is in it.
pub fn manifest(project: &Project, proposal: &Proposal, for_: For<'_>) -> String {
    let mut text = head(project, for_, None);
    release(&mut text, proposal);
    let (patches, images) = others(&proposal.others);
    let beside = if proposal.patch.is_empty() { &[][..] } else { &patches };
    section(&mut text, "  env:\n    patch:", &proposal.patch, patch, beside);
    section(&mut text, "  images:", &proposal.images, image, &images);
    if proposal.images.is_empty() && !images.is_empty() {
        text.push_str(
            "  # Written out in the compose files and left alone; each could be set, too:\n  # images:\n",
        );
        for image in &images {
            let _ = writeln!(text, "  # {image}");
        }
    }
    if let Moves::Nothing(_) = proposal.moves {
        text.push_str("  # Nothing of it can be set by a tag yet: it is watched as it is.\n");
    }
    text
}

/// The bundle of this name, and a manifest that has it render the compose files.
pub fn bundled(project: &Project, proposal: &Proposal, bundle: &str, for_: For<'_>) -> String {
    let mut meta = vec![("name", bundle.to_owned())];
    meta.extend(for_.namespace.map(|namespace| ("namespace", namespace.to_owned())));
    let mut text = format!(
        "apiVersion: tenantry.dev/v1alpha1\nkind: TemplateBundle\nmetadata: {}\nspec:\n  source: {{directory: {{name: {bundle}}}}}\n---\n",
        flow(&meta)
    );
    text.push_str(&head(project, for_, Some(bundle)));
    release(&mut text, proposal);
    section(&mut text, "  env:\n    patch:", &proposal.patch, patch, &[]);
    text
}

/// All of a manifest that comes before the release.
fn head(project: &Project, for_: For<'_>, bundle: Option<&str>) -> String {
    let place = &project.place;
    let mut text = "apiVersion: tenantry.dev/v1alpha1\nkind: Tenant\n".to_owned();
    let mut meta = vec![("name", name(place.project.as_str()))];
    meta.extend(for_.namespace.map(|namespace| ("namespace", namespace.to_owned())));
    let _ = writeln!(text, "metadata: {}\nspec:", flow(&meta));
    let _ = writeln!(text, "  host: {}", scalar(for_.host));
    let _ = writeln!(text, "  project: {}", scalar(place.project.as_str()));
    let _ = writeln!(text, "  directory: {}", scalar(place.directory.as_str()));
    if let Some(chosen) = &place.compose {
        text.push_str("  compose:\n");
        let list = |items: Vec<&str>| items.into_iter().map(scalar).collect::<Vec<_>>().join(", ");
        if !chosen.files.is_empty() {
            let files = chosen.files.iter().map(tenantry_api::names::RelativePath::as_str);
            let _ = writeln!(text, "    files: [{}]", list(files.collect()));
        }
        if !chosen.profiles.is_empty() {
            let profiles = chosen.profiles.iter().map(String::as_str);
            let _ = writeln!(text, "    profiles: [{}]", list(profiles.collect()));
        }
    }
    if let Some(bundle) = bundle {
        let _ = writeln!(text, "  bundle: {}", scalar(bundle));
    }
    text
}

fn release(text: &mut String, proposal: &Proposal) {
    if let Some(tag) = &proposal.image_tag {
        let _ = writeln!(text, "  imageTag: {}  # the release: change this to upgrade", scalar(tag));
    }
}

fn section<T>(text: &mut String, head: &str, items: &[T], shown: impl Fn(&T) -> String, others: &[String]) {
    if items.is_empty() {
        return;
    }
    let indent = if head.contains('\n') { "      " } else { "    " };
    let _ = writeln!(text, "{head}");
    for item in items {
        let _ = writeln!(text, "{indent}- {}", shown(item));
    }
    if !others.is_empty() {
        let _ = writeln!(text, "{indent}# Left alone; each could be set, too:");
        for other in others {
            let _ = writeln!(text, "{indent}# {other}");
        }
    }
}

/// What could be set, too: variables, and images.
fn others(all: &[Other]) -> (Vec<String>, Vec<String>) {
    let (mut patches, mut images) = (Vec::new(), Vec::new());
    for other in all.iter().take(MAX_OTHERS) {
        match other {
            Other::Patch(one) => patches.push(format!("- {}", patch(one))),
            Other::Image(one) => images.push(format!("- {}", image(one))),
        }
    }
    if let Some(more) = all.len().checked_sub(MAX_OTHERS).filter(|more| *more > 0) {
        let last = if images.is_empty() { &mut patches } else { &mut images };
        last.push(format!("and {more} more, by the same words"));
    }
    (patches, images)
}

fn patch(patch: &EnvPatch) -> String {
    flow(&[("name", patch.name.clone()), ("value", patch.value.clone())])
}

fn image(image: &ImageSetting) -> String {
    let mut fields = vec![("name", image.name.clone())];
    fields.extend(image.new_tag.clone().map(|tag| ("newTag", tag)));
    fields.extend(image.digest.clone().map(|digest| ("digest", digest)));
    let text = flow(&fields);
    if image.services.is_empty() {
        return text;
    }
    let services: Vec<String> = image.services.iter().map(|service| scalar(service)).collect();
    format!("{}, services: [{}]}}", text.trim_end_matches('}'), services.join(", "))
}

fn flow(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}: {}", scalar(value))).collect();
    format!("{{{}}}", fields.join(", "))
}

/// A text as YAML, which is read back as that very text, also within `[…]` and `{…}`.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-$()".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '$');
    // "1e3" begins with a digit; what is left are words.
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if begins && text.chars().all(plain) && !words.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    // JSON's texts are YAML's, too.
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::a_word("main", "main")]
    #[case::a_number("1.10", "\"1.10\"")]
    #[case::a_switch("on", "\"on\"")]
    #[case::the_release("$(imageTag)", "$(imageTag)")]
    #[case::a_registry("localhost:5000/app", "\"localhost:5000/app\"")]
    #[case::spaces("/srv/my shop", "\"/srv/my shop\"")]
    #[case::quotes("a\"b", "\"a\\\"b\"")]
    fn a_text_is_read_back_as_it_is(#[case] text: &str, #[case] written: &str) {
        assert_eq!(scalar(text), written);
        let read: Value = serde_saphyr::from_str(&format!("[{{a: {written}}}]")).unwrap();
        assert_eq!(read[0]["a"], text);
    }

    #[rstest::rstest]
    #[case("shop", "shop")]
    #[case("my_shop-", "my-shop")]
    fn a_tenant_is_called_as_its_project(#[case] project: &str, #[case] tenant: &str) {
        assert_eq!(name(project), tenant);
    }
}
