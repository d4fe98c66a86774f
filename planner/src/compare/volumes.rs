//! A volume of the engine against what the compose files say of it (promise P19).
//!
//! Compose never changes a volume: where it differs, `docker compose up` asks on a terminal whether to remove it with its
//! data, and goes on with it as it is where there is none to answer.

use std::collections::BTreeMap;

use crate::model::NamedVolume;

/// Options that are told by their value; others may hold a password.
const TOLD: [&str; 2] = ["device", "type"];

/// A volume that the engine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// What stores it.
    pub driver: String,
    /// Options of its driver.
    pub options: BTreeMap<String, String>,
    /// Whether compose noted what it was made from, so that it will ask where that differs.
    pub noted: bool,
}

/// How a volume differs from what the compose files say, as the end of a sentence about it.
pub fn difference(meant: &NamedVolume, is: &Stored) -> Option<String> {
    if meant.external || tenantry_faults::Bug::KeepAnyVolume.is_seeded() {
        return None;
    }
    let driver = meant.driver.as_deref().filter(|driver| !driver.is_empty()).unwrap_or("local");
    if plain(driver) != plain(&is.driver) {
        return Some(format!("has driver {}, the compose files say {driver}", is.driver));
    }
    let names =
        TOLD.iter().copied().chain(meant.driver_opts.keys().chain(is.options.keys()).map(String::as_str));
    let mut differing = names.filter(|name| meant.driver_opts.get(*name) != is.options.get(*name));
    differing.next().map(|name| {
        if !TOLD.contains(&name) {
            return format!("has another driver option {name} than the compose files say");
        }
        let word = |text: Option<&String>| {
            text.map_or_else(|| format!("no {name}"), |text| format!("{name} {text}"))
        };
        let (is, meant) = (word(is.options.get(name)), word(meant.driver_opts.get(name)));
        format!("has {is}, the compose files say {meant}")
    })
}

/// How a volume would differ from a release that means to change it; `previous` is what is said of it now. What has
/// differed before, and what compose does not compare, goes on as before.
pub fn changed(meant: &NamedVolume, previous: Option<&NamedVolume>, is: &Stored) -> Option<String> {
    let says = |volume: &NamedVolume| (volume.driver.clone(), volume.driver_opts.clone());
    let means_to = match previous.filter(|previous| previous.name == meant.name && !previous.external) {
        Some(previous) => says(previous) != says(meant),
        None => is.noted,
    };
    difference(meant, is).filter(|_| means_to)
}

/// A plugin's name without the tag that says nothing.
fn plain(driver: &str) -> &str {
    driver.strip_suffix(":latest").unwrap_or(driver)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn options(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn bound(device: &str) -> NamedVolume {
        let driver_opts = options(&[("type", "none"), ("o", "bind"), ("device", device)]);
        NamedVolume { name: "acme_media".to_owned(), driver_opts, ..NamedVolume::default() }
    }

    fn stored(like: &NamedVolume) -> Stored {
        let driver = like.driver.clone().unwrap_or_else(|| "local".to_owned());
        Stored { driver, options: like.driver_opts.clone(), noted: true }
    }

    #[rstest]
    #[case::is_as_it_is_said(|_: &mut NamedVolume| {}, "")]
    #[case::of_the_default_driver_by_name(|v: &mut NamedVolume| v.driver = Some("local".into()), "")]
    #[case::of_another_device(|v: &mut NamedVolume| drop(v.driver_opts.insert("device".into(), "/b".into())), "has device /a, the compose files say device /b")]
    #[case::without_a_device(|v: &mut NamedVolume| v.driver_opts.clear(), "has device /a, the compose files say no device")]
    #[case::of_another_driver(|v: &mut NamedVolume| v.driver = Some("nfs".into()), "has driver local, the compose files say nfs")]
    #[case::with_an_option_that_may_be_a_password(|v: &mut NamedVolume| drop(v.driver_opts.insert("o".into(), "password=hunter2".into())), "has another driver option o than the compose files say")]
    #[case::that_is_another_s(|v: &mut NamedVolume| { v.external = true; v.driver_opts.clear(); }, "")]
    fn p12_p19_a_volume(#[case] change: impl Fn(&mut NamedVolume), #[case] wrong: &str) {
        let mut meant = bound("/a");
        let is = stored(&meant);
        change(&mut meant);
        assert_eq!(difference(&meant, &is).unwrap_or_default(), wrong);
    }

    #[rstest]
    #[case::that_the_release_changes("/b", Some("/a"), true, true)]
    #[case::that_the_release_changes_and_compose_does_not_compare("/b", Some("/a"), false, true)]
    #[case::that_differed_before("/b", Some("/b"), true, false)]
    #[case::that_the_release_brings_back("/a", Some("/b"), true, false)]
    #[case::that_is_new_to_the_release_and_there("/b", None, true, true)]
    #[case::that_a_person_has_made("/b", None, false, false)]
    fn p18_p19_a_release_is_refused_for_a_volume(
        #[case] next: &str,
        #[case] previous: Option<&str>,
        #[case] noted: bool,
        #[case] refused: bool,
    ) {
        let is = Stored { noted, ..stored(&bound("/a")) };
        assert_eq!(changed(&bound(next), previous.map(bound).as_ref(), &is).is_some(), refused);
    }
}
