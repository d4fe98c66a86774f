//! Where `spec.images` is to be written: the scalars of the compose files that the images of services come from.
//!
//! Compose has said which scalar each service's image comes from. What is decided here is whether it may be changed: all
//! that share a scalar, by an anchor or by `extends`, must want the same of it.

use std::collections::BTreeMap;

use serde_json::Value;
use tenantry_api::names::{RelativePath, ServiceName};
use tenantry_protocol::ImageSetting;

use super::settings::{meant_by, same_reference, wanted};
use crate::steps::ImageEdit;

/// A scalar of a compose file that an image can come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The file.
    pub path: RelativePath,
    /// Its number among the file's.
    pub number: usize,
    /// Its line.
    pub line: u32,
    /// What is written there, with the variables in it.
    pub text: String,
    /// Whether the file is rendered by a bundle.
    pub managed: bool,
    /// The line at which something that is no image uses the same text, too.
    pub also_at: Option<u32>,
}

/// A service's image, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The reference in the resolved model.
    pub reference: String,
    /// The scalar that it comes from, by its place in the list; absent where compose has said none.
    pub scalar: Option<usize>,
    /// Where it comes from outside of the tenant's directory: the file, from `/`, and the line.
    pub outside: Option<(String, u32)>,
    /// Whether the service is in a profile that is switched on.
    pub selected: bool,
}

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The changes, in the order of files and scalars.
    pub edits: Vec<ImageEdit>,
    /// The image that each service has afterwards whose image changes.
    pub becomes: BTreeMap<ServiceName, String>,
    /// Why an entry can't be written, by the entry's number.
    pub problems: BTreeMap<usize, String>,
}

impl Chosen {
    /// Whether what is written changes just these images, by compose's own models before and after, and nothing else.
    pub fn is_all(&self, before: &Value, after: Value) -> bool {
        if tenantry_faults::Bug::SetUnproven.is_seeded() {
            return true;
        }
        let mut meant = before.clone();
        for (service, image) in &self.becomes {
            meant["services"][service.as_str()]["image"] = Value::from(image.as_str());
        }
        without_extensions(meant) == without_extensions(after)
    }
}

/// A model without what compose carries along but gives no meaning: the place of an anchor, mostly.
fn without_extensions(mut model: Value) -> Value {
    let keep = |members: &mut serde_json::Map<String, Value>| members.retain(|key, _| !key.starts_with("x-"));
    if let Some(members) = model.as_object_mut() {
        keep(members);
    }
    let services = model["services"].as_object_mut().into_iter().flatten();
    services.filter_map(|(_, service)| service.as_object_mut()).for_each(keep);
    model
}

/// What is wanted of a scalar.
struct Wish {
    setting: usize,
    text: String,
    services: Vec<ServiceName>,
}

/// Chooses what is written.
pub fn choose(
    settings: &[ImageSetting],
    scalars: &[Scalar],
    services: &BTreeMap<ServiceName, Origin>,
) -> Chosen {
    let mut chosen = Chosen::default();
    let mut wishes: BTreeMap<usize, Wish> = BTreeMap::new();
    for (name, origin) in services {
        let Some(setting) = meant_by(settings, name, &origin.reference) else { continue };
        match wish(&settings[setting], name, origin, scalars) {
            Ok(Some((scalar, text, becomes))) => {
                let wish = Wish { setting, text, services: Vec::new() };
                let known = wishes.entry(scalar).or_insert(wish);
                known.services.push(name.clone());
                chosen.becomes.insert(name.clone(), becomes);
            }
            // What no profile switches on is changed where it can be; that it can't keeps nobody.
            Err(problem) if origin.selected => {
                chosen.problems.entry(setting).or_insert(problem);
            }
            Ok(None) | Err(_) => {}
        }
    }
    for (scalar, wish) in wishes {
        let Scalar { path, number, line, .. } = &scalars[scalar];
        let shares = |(name, origin): &(&ServiceName, &Origin)| {
            origin.scalar == Some(scalar) && !wish.services.contains(name)
        };
        let differs = |name: &ServiceName| {
            let meant = meant_by(settings, name, &services[name].reference);
            meant.is_none_or(|setting| {
                wanted(&settings[setting], &scalars[scalar].text) != Ok(wish.text.clone())
            })
        };
        let others = services.iter().filter(shares).map(|(name, _)| name).chain(&wish.services);
        let other = others.into_iter().find(|name| differs(name));
        if let Some(other) = other.filter(|_| !tenantry_faults::Bug::SetEveryMention.is_seeded()) {
            let problem = format!(
                "{path} line {line}: the image there is also that of {other}, of which something else is wanted; write \
                 the image of each of them out, or let spec.images mean both"
            );
            chosen.problems.entry(wish.setting).or_insert(problem);
            continue;
        }
        chosen.edits.push(ImageEdit { path: path.clone(), scalar: *number, text: wish.text });
    }
    chosen
}

/// The scalar that has to change for a service, what is written there, and what the service's image becomes. Nothing where
/// the image is as wanted.
fn wish(
    setting: &ImageSetting,
    name: &ServiceName,
    origin: &Origin,
    scalars: &[Scalar],
) -> Result<Option<(usize, String, String)>, String> {
    let becomes = wanted(setting, &origin.reference)
        .map_err(|problem| format!("services.{name}.image is {}: {problem}", origin.reference))?;
    if same_reference(&becomes, &origin.reference) {
        return Ok(None);
    }
    if let Some((path, line)) = &origin.outside {
        return Err(format!(
            "{path} line {line}: the file is outside of the tenant's directory: it is read and never written; say the \
             image of {name} in a compose file of the directory, or change it there by hand"
        ));
    }
    let Some(at) = origin.scalar else {
        let shared = scalars.iter().find(|one| one.also_at.is_some() && one.text == origin.reference);
        if let Some(Scalar { path, line, also_at: Some(also_at), .. }) = shared {
            return Err(format!(
                "{path} line {line}: the image there is also used for something else, at line {also_at}; write each by itself"
            ));
        }
        return Err(format!(
            "services.{name}.image is {}, but no line of the compose files says so by itself: write it out there",
            origin.reference
        ));
    };
    let Scalar { path, line, text, managed, .. } = &scalars[at];
    if *managed {
        return Err(format!("{path} line {line}: the file is rendered by spec.bundle; say the image there"));
    }
    let text = wanted(setting, text).map_err(|problem| format!("{path} line {line}: {problem}"))?;
    Ok(Some((at, text, becomes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, tag: &str, services: &[&str]) -> ImageSetting {
        let services = services.iter().map(|name| ServiceName::parse(*name).unwrap()).collect();
        ImageSetting {
            name: name.to_owned(),
            new_name: None,
            new_tag: Some(tag.to_owned()),
            digest: None,
            services,
        }
    }

    fn scalar(number: usize, text: &str) -> Scalar {
        let path = RelativePath::parse("compose.yaml").unwrap();
        let line = u32::try_from(number).unwrap() + 1;
        Scalar { path, number, line, text: text.to_owned(), managed: false, also_at: None }
    }

    fn origins(all: &[(&str, &str, Option<usize>)]) -> BTreeMap<ServiceName, Origin> {
        let origin = |(name, reference, scalar): &(&str, &str, Option<usize>)| {
            let origin =
                Origin { reference: (*reference).to_owned(), scalar: *scalar, outside: None, selected: true };
            (ServiceName::parse(*name).unwrap(), origin)
        };
        all.iter().map(origin).collect()
    }

    fn edits(chosen: &Chosen) -> Vec<(usize, &str)> {
        chosen.edits.iter().map(|edit| (edit.scalar, edit.text.as_str())).collect()
    }

    #[test]
    fn what_is_as_wanted_is_left_and_all_else_is_written_where_it_stands() {
        let scalars =
            [scalar(0, "r/app:v1"), scalar(1, "${REG}/app:v1"), scalar(2, "r/app:v2"), scalar(3, "db:1")];
        let services = origins(&[
            ("a", "r/app:v1", Some(0)),
            ("b", "r/app:v1", Some(1)),
            ("c", "r/app:v2", Some(2)),
            ("d", "db:1", Some(3)),
        ]);
        let chosen = choose(&[setting("r/app", "v2", &[])], &scalars, &services);
        assert_eq!(edits(&chosen), [(0, "r/app:v2"), (1, "${REG}/app:v2")]);
        let becomes: Vec<(&str, &str)> =
            chosen.becomes.iter().map(|(name, image)| (name.as_str(), image.as_str())).collect();
        assert_eq!(becomes, [("a", "r/app:v2"), ("b", "r/app:v2")]);
        assert!(chosen.problems.is_empty());
    }

    #[test]
    fn p7_a_place_that_several_share_is_written_only_where_all_want_the_same_of_it() {
        let scalars = [scalar(0, "r/app:v1")];
        let services = origins(&[("a", "r/app:v1", Some(0)), ("b", "r/app:v1", Some(0))]);
        let all = choose(&[setting("r/app", "v2", &[])], &scalars, &services);
        assert_eq!(edits(&all), [(0, "r/app:v2")]);
        let one = choose(&[setting("r/app", "v2", &["a"])], &scalars, &services);
        assert_eq!(edits(&one), []);
        assert!(one.problems[&0].contains("compose.yaml line 1") && one.problems[&0].contains("that of b"));
        let two = [setting("r/app", "v2", &["a"]), setting("r/app", "v3", &["b"])];
        assert_eq!(edits(&choose(&two, &scalars, &services)), []);
        let agree = [setting("r/app", "v2", &["a"]), setting("r/app", "v2", &["b"])];
        assert_eq!(edits(&choose(&agree, &scalars, &services)), [(0, "r/app:v2")]);
    }

    #[test]
    fn what_cannot_be_written_is_told_with_file_and_line_and_nothing_of_it_is_chosen() {
        let mut scalars = [scalar(0, "r/app:${TAG}"), scalar(1, "r/app:v1")];
        let variable = origins(&[("a", "r/app:v1", Some(0))]);
        let wanted = [setting("r/app", "v2", &[])];
        let chosen = choose(&wanted, &scalars, &variable);
        assert_eq!(edits(&chosen), []);
        assert!(chosen.problems[&0].contains("compose.yaml line 1: its tag comes from the variable TAG"));
        assert!(chosen.problems[&0].contains("env.patch"));
        scalars[1].also_at = Some(7);
        let elsewhere = origins(&[("a", "r/app:v1", None)]);
        assert!(choose(&wanted, &scalars, &elsewhere).problems[&0].contains("compose.yaml line 2"));
        scalars[1].also_at = None;
        let nowhere = origins(&[("a", "r/app:v1", None)]);
        assert!(choose(&wanted, &scalars, &nowhere).problems[&0].contains("services.a.image"));
        scalars[1].managed = true;
        let managed = origins(&[("a", "r/app:v1", Some(1))]);
        assert!(choose(&wanted, &scalars, &managed).problems[&0].contains("spec.bundle"));
        let mut outside = origins(&[("a", "r/app:v1", None)]);
        for one in outside.values_mut() {
            one.outside = Some(("/srv/base.yml".to_owned(), 3));
        }
        let chosen = choose(&wanted, &scalars, &outside);
        assert_eq!(edits(&chosen), []);
        assert!(
            chosen.problems[&0]
                .starts_with("/srv/base.yml line 3: the file is outside of the tenant's directory")
        );
    }

    #[test]
    fn p7_what_is_written_must_change_these_images_and_nothing_else() {
        let scalars = [scalar(0, "r/app:v1")];
        let services = origins(&[("a", "r/app:v1", Some(0))]);
        let chosen = choose(&[setting("r/app", "v2", &[])], &scalars, &services);
        let model = |image: &str, more: serde_json::Value| {
            serde_json::json!({"name": "p", "x-app": {"image": image},
                "services": {"a": {"image": image, "x-y": image}, "b": more}})
        };
        let before = model("r/app:v1", serde_json::json!({"image": "db:1"}));
        assert!(chosen.is_all(&before, model("r/app:v2", serde_json::json!({"image": "db:1"}))));
        for (image, more) in [
            ("r/app:v2", serde_json::json!({"image": "db:1", "environment": {"V": "v2"}})),
            ("r/app:v2", serde_json::json!({"image": "db:2"})),
            ("r/app:v3", serde_json::json!({"image": "db:1"})),
            ("r/app:v1", serde_json::json!({"image": "db:1"})),
        ] {
            assert!(!chosen.is_all(&before, model(image, more.clone())), "{image} {more}");
        }
    }

    #[test]
    fn a_service_that_no_profile_switches_on_keeps_nobody() {
        let scalars = [scalar(0, "r/app:${TAG}"), scalar(1, "r/app:v1"), scalar(2, "r/app:v1")];
        let mut services = origins(&[
            ("a", "r/app:v1", Some(1)),
            ("off", "r/app:v1", Some(0)),
            ("too", "r/app:v1", Some(2)),
        ]);
        for origin in services.values_mut().skip(1) {
            origin.selected = false;
        }
        let chosen = choose(&[setting("r/app", "v2", &[])], &scalars, &services);
        assert_eq!(edits(&chosen), [(1, "r/app:v2"), (2, "r/app:v2")]);
        assert!(chosen.problems.is_empty());
    }
}
