//! The agent's policy file: written at the first start, then the user's own.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use tenantry_api::names::Directory;
use tenantry_planner::model::plain_path;
use tenantry_planner::policy::{AllowedMount, Feature};

use super::certificates::LOCAL;
use super::layout::Layout;

/// What the command line asks for.
pub struct Wanted<'a> {
    pub directories: &'a [Directory],
    pub registries: &'a [String],
    pub compose: &'a [Feature],
    pub mounts: &'a [AllowedMount],
    pub listen: Option<SocketAddr>,
}

/// A word of `--allow-compose`.
pub fn feature(text: &str) -> Result<Feature, String> {
    Feature::parse(text).ok_or_else(|| {
        let all: Vec<String> = Feature::ALL.iter().map(ToString::to_string).collect();
        format!("it is not a feature that can be allowed: these are {}", all.join(", "))
    })
}

/// A path of `--allow-mount`.
pub fn mount(text: &str) -> Result<AllowedMount, String> {
    let (path, read_only) = text.strip_suffix(":ro").map_or((text, false), |path| (path, true));
    let plain = plain_path(path);
    if plain == "/" {
        return Err(
            "/ itself is never allowed as a mount; --allow-compose HostFiles lets it be read".to_owned()
        );
    }
    if !plain.starts_with('/') || plain.contains([':', '\0']) || path.split('/').any(|part| part == "..") {
        return Err("write an absolute path, for example /mnt/media, or /mnt/media:ro".to_owned());
    }
    Ok(AllowedMount { path: plain, read_only })
}

/// Writes the policy file if there is none; else says, in a sentence each, what was asked for but is not in it.
pub fn ensure(layout: &Layout, wanted: &Wanted<'_>) -> anyhow::Result<Vec<String>> {
    let path = layout.policy();
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(not_applied(&path, &text, wanted)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_new(&path, &policy(wanted)?).with_context(|| path.display().to_string())?;
            Ok(Vec::new())
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

fn policy(wanted: &Wanted<'_>) -> anyhow::Result<String> {
    let listen = match wanted.listen {
        Some(address) => address,
        // A port that is free now is kept from then on, so that the agent is found at the same address after a restart.
        None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr())?,
    };
    let list = |names: Vec<String>| serde_json::to_string(&names); // JSON's lists are YAML's too
    let list_of = |names: Vec<&str>, default: &str| {
        let names = if names.is_empty() { vec![default] } else { names };
        list(names.into_iter().map(str::to_owned).collect())
    };
    let directories = list_of(wanted.directories.iter().map(Directory::as_str).collect(), "/srv")?;
    let registries = list_of(wanted.registries.iter().map(String::as_str).collect(), "*")?;
    let compose = list(wanted.compose.iter().map(ToString::to_string).collect())?;
    let mounts = list(wanted.mounts.iter().map(ToString::to_string).collect())?;
    let mut text = String::new();
    write!(
        text,
        "# What may be asked of this machine's agent, and by whom. Made by the first `tenantry up`, yours from then on:\n\
         # it is never overwritten. What `allow` says is read again when it changes, all else at the agent's next start.\n\
         identity: {LOCAL}\n\
         listen: {listen}\n\
         stateDir: agent\n\
         tls:\n  ca: pki/ca.crt\n  cert: pki/agent-{LOCAL}.crt\n  key: pki/agent-{LOCAL}.key\n\
         operators: [{LOCAL}]\n\
         allow:\n  \
           # Tenants may live at or below these directories.\n  \
           directories: {directories}\n  \
           # Images may come from these registries, as image references begin; \"*\" is any.\n  \
           registries: {registries}\n  \
           # What compose files may ask for beyond ordinary containers, by word.\n  \
           compose: {compose}\n  \
           # Host directories outside a tenant's own that containers may mount; with :ro they may only be read.\n  \
           mounts: {mounts}\n"
    )?;
    Ok(text)
}

/// A document of the policy file, as far as it is compared with what is wanted.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Present {
    listen: Option<SocketAddr>,
    allow: PresentAllow,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PresentAllow {
    directories: Vec<String>,
    registries: Vec<String>,
    compose: Vec<String>,
    mounts: Vec<String>,
}

impl Present {
    /// All documents of a file together. The agent itself says what is wrong with one that does not parse.
    fn read(text: &str) -> Option<Self> {
        let mut all = Self::default();
        for document in serde_saphyr::from_multiple::<Option<Self>>(text).ok()?.into_iter().flatten() {
            all.listen = all.listen.or(document.listen);
            all.allow.directories.extend(document.allow.directories);
            all.allow.registries.extend(document.allow.registries);
            all.allow.compose.extend(document.allow.compose);
            all.allow.mounts.extend(document.allow.mounts);
        }
        Some(all)
    }
}

fn not_applied(path: &Path, text: &str, wanted: &Wanted<'_>) -> Vec<String> {
    let Some(present) = Present::read(text) else { return Vec::new() };
    let allow = &present.allow;
    let texts = |all: &[Directory]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let wishes = [
        ("directory", "directories", texts(wanted.directories), &allow.directories),
        ("registry", "registries", wanted.registries.to_vec(), &allow.registries),
        ("compose", "compose", wanted.compose.iter().map(ToString::to_string).collect(), &allow.compose),
        ("mount", "mounts", wanted.mounts.iter().map(ToString::to_string).collect(), &allow.mounts),
    ];
    let mut missing = Vec::new();
    for (flag, list, names, present) in wishes {
        for name in names.iter().filter(|name| !present.contains(name)) {
            missing.push(format!("--allow-{flag} {name}: not listed under allow.{list}"));
        }
    }
    if let Some(address) =
        wanted.listen.filter(|address| present.listen.is_some_and(|other| other != *address))
    {
        let listens = present.listen.map(|listens| listens.to_string()).unwrap_or_default();
        missing.push(format!("--agent-listen {address}: listen is {listens}"));
    }
    let shown = path.display();
    missing
        .into_iter()
        .map(|what| format!("{what} in {shown}, which is yours since the first start: change it there."))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(text: &str) -> Directory {
        Directory::parse(text).unwrap()
    }

    #[test]
    fn the_first_start_writes_it_and_later_ones_only_say_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(folder.path()).unwrap();
        let (directories, registries) = ([directory("/srv/a: b")], ["localhost:5000".to_owned()]);
        let (compose, mounts) = ([Feature::DockerSocket], [mount("/mnt//media/:ro").unwrap()]);
        let wanted = Wanted {
            directories: &directories,
            registries: &registries,
            compose: &compose,
            mounts: &mounts,
            listen: None,
        };
        assert_eq!(ensure(&layout, &wanted).unwrap(), [""; 0]);
        let text = std::fs::read_to_string(layout.policy()).unwrap();
        let present = Present::read(&text).unwrap();
        assert_eq!(present.allow.directories, ["/srv/a: b"]);
        assert_eq!(present.allow.compose, ["DockerSocket"]);
        assert_eq!(present.allow.mounts, ["/mnt/media:ro"]);
        assert_ne!(present.listen.unwrap().port(), 0);
        assert_eq!(ensure(&layout, &wanted).unwrap(), [""; 0]);

        let other = [directory("/home/tenants")];
        let compose = [Feature::DockerSocket, Feature::Devices];
        let wanted = Wanted { directories: &other, compose: &compose, ..wanted };
        let missing = ensure(&layout, &wanted).unwrap();
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(
            missing[1].starts_with("--allow-compose Devices: not listed under allow.compose in "),
            "{missing:?}"
        );
        assert!(
            missing[0].contains("--allow-directory /home/tenants") && missing[0].contains("agent.yaml"),
            "{missing:?}"
        );
        assert_eq!(text, std::fs::read_to_string(layout.policy()).unwrap());
        // What a person has appended counts.
        let appended = format!("{text}--- {{allow: {{compose: [Devices], directories: [/home/tenants]}}}}\n");
        std::fs::write(layout.policy(), appended).unwrap();
        assert_eq!(ensure(&layout, &wanted).unwrap(), [""; 0]);
    }

    #[test]
    fn a_word_or_path_that_can_not_be_allowed_is_refused_with_what_can() {
        assert!(feature("dockersocket").unwrap_err().contains("DockerSocket"));
        for bad in ["mnt", "/", "/:ro", "/a/../b", "/a:b", ""] {
            assert!(mount(bad).is_err(), "{bad}");
        }
        assert_eq!(mount("/mnt/media/").unwrap().to_string(), "/mnt/media");
    }

    #[test]
    fn without_wishes_tenants_live_in_srv() {
        let text =
            policy(&Wanted { directories: &[], registries: &[], compose: &[], mounts: &[], listen: None })
                .unwrap();
        assert!(text.contains(r#"directories: ["/srv"]"#) && text.contains(r#"registries: ["*"]"#), "{text}");
    }
}
