//! Images that compose files write out, and what they become.

use tenantry_api::names::{ImageTag, ServiceName};
use tenantry_api::tenant::{ImageSetting as Written, TenantSpec};
use tenantry_protocol::ImageSetting;

use super::{Refusal, RefusalReason, expand, field};
use crate::images::name::{normal_name, same_name};

pub(super) fn parse(spec: &TenantSpec, tag: &ImageTag) -> Result<Vec<ImageSetting>, Refusal> {
    let mut all: Vec<ImageSetting> = Vec::with_capacity(spec.images.len());
    for (at, written) in spec.images.iter().enumerate() {
        let one = setting(at, written, tag)?;
        if let Some((other, names)) = clash(&all, &one) {
            return Err(refuse(
                at,
                &format!(
                    "{names} is also what spec.images[{other}] is about, in the same services; say each image once, or tell \
                 them apart by services."
                ),
            ));
        }
        all.push(one);
    }
    Ok(all)
}

fn setting(at: usize, written: &Written, tag: &ImageTag) -> Result<ImageSetting, Refusal> {
    let name = |member: &str, name: &str| {
        normal_name(name).ok_or_else(|| {
            refuse(at, &format!("{member}: {name:?} is no image's name; write it without tag and digest, for example ghcr.io/acme/app."))
        })
    };
    let Written { name: own, new_name, new_tag, digest, services } = written;
    if new_name.is_none() && new_tag.is_none() && digest.is_none() {
        return Err(refuse(at, "says nothing of what becomes of the image; set newTag, digest or newName."));
    }
    name("name", own)?;
    let new_tag = match new_tag {
        None => None,
        Some(text) => {
            let said = expand(text, tag).map_err(|problem| refuse(at, &format!("newTag: {problem}.")))?;
            let said = field(format!("images[{at}].newTag"), ImageTag::parse(said))?;
            Some(said.to_string())
        }
    };
    if let Some(new) = new_name {
        name("newName", new)?;
    }
    let service = |name: &String| field(format!("images[{at}].services"), ServiceName::parse(name));
    Ok(ImageSetting {
        name: own.clone(),
        new_name: new_name.clone(),
        new_tag,
        digest: digest.clone(),
        services: services.iter().map(service).collect::<Result<_, _>>()?,
    })
}

/// An earlier entry that could be meant for the same services: an image is found by the name that it has, and, once it
/// was changed, by the name that it got.
fn clash<'a>(earlier: &[ImageSetting], one: &'a ImageSetting) -> Option<(usize, &'a str)> {
    let overlaps = |other: &ImageSetting| {
        let either_all = other.services.is_empty() || one.services.is_empty();
        either_all || other.services.iter().any(|service| one.services.contains(service))
    };
    let names = |one: &'a ImageSetting| std::iter::once(&one.name).chain(&one.new_name);
    earlier.iter().enumerate().filter(|(_, other)| overlaps(other)).find_map(|(at, other)| {
        let known = |name: &&'a String| {
            std::iter::once(&other.name).chain(&other.new_name).any(|known| same_name(known, name))
        };
        Some((at, names(one).find(known)?.as_str()))
    })
}

fn refuse(at: usize, problem: &str) -> Refusal {
    Refusal::new(RefusalReason::InvalidSpec, format!("spec.images[{at}]: {problem}"))
}
