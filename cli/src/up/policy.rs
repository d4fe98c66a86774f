//! The agent's policy file: written at the first start, then the user's own.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use tenantry_api::names::Directory;

use super::certificates::LOCAL;
use super::layout::Layout;

/// What the command line asks for.
pub struct Wanted<'a> {
    pub directories: &'a [Directory],
    pub registries: &'a [String],
    pub listen: Option<SocketAddr>,
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
    let list_of = |names: Vec<&str>, default: &str| {
        let names = if names.is_empty() { vec![default] } else { names };
        serde_json::to_string(&names) // JSON's lists are YAML's too
    };
    let directories = list_of(wanted.directories.iter().map(Directory::as_str).collect(), "/srv")?;
    let registries = list_of(wanted.registries.iter().map(String::as_str).collect(), "*")?;
    let mut text = String::new();
    write!(
        text,
        "# What may be asked of this machine's agent, and by whom. Made by the first `tenantry up`, yours from then on:\n\
         # it is never overwritten. Changes count from the agent's next start.\n\
         identity: {LOCAL}\n\
         listen: {listen}\n\
         stateDir: agent\n\
         tls:\n  ca: pki/ca.crt\n  cert: pki/agent-{LOCAL}.crt\n  key: pki/agent-{LOCAL}.key\n\
         operators: [{LOCAL}]\n\
         allow:\n  \
           # Tenants may live at or below these directories.\n  \
           directories: {directories}\n  \
           # Images may come from these registries, as image references begin; \"*\" is any.\n  \
           registries: {registries}\n"
    )?;
    Ok(text)
}

#[derive(Deserialize)]
struct Present {
    listen: SocketAddr,
    allow: PresentAllow,
}

#[derive(Deserialize)]
struct PresentAllow {
    directories: Vec<String>,
    registries: Vec<String>,
}

fn not_applied(path: &Path, text: &str, wanted: &Wanted<'_>) -> Vec<String> {
    // The agent itself says what is wrong with a file that does not parse.
    let Ok(present) = serde_saphyr::from_str::<Present>(text) else { return Vec::new() };
    let mut missing = Vec::new();
    let directories = wanted.directories.iter().map(Directory::as_str);
    for name in directories.filter(|name| !present.allow.directories.iter().any(|d| d == name)) {
        missing.push(format!("--allow-directory {name}: not listed under allow.directories"));
    }
    for name in wanted.registries.iter().filter(|name| !present.allow.registries.contains(name)) {
        missing.push(format!("--allow-registry {name}: not listed under allow.registries"));
    }
    if let Some(address) = wanted.listen.filter(|address| *address != present.listen) {
        missing.push(format!("--agent-listen {address}: listen is {}", present.listen));
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
        let wanted = Wanted { directories: &directories, registries: &registries, listen: None };
        assert_eq!(ensure(&layout, &wanted).unwrap(), [""; 0]);
        let text = std::fs::read_to_string(layout.policy()).unwrap();
        let present: Present = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(present.allow.directories, ["/srv/a: b"]);
        assert_ne!(present.listen.port(), 0);
        assert_eq!(ensure(&layout, &wanted).unwrap(), [""; 0]);

        let other = [directory("/home/tenants")];
        let wanted = Wanted { directories: &other, registries: &registries, listen: None };
        let missing = ensure(&layout, &wanted).unwrap();
        assert_eq!(missing.len(), 1);
        assert!(
            missing[0].contains("--allow-directory /home/tenants") && missing[0].contains("agent.yaml"),
            "{missing:?}"
        );
        assert_eq!(text, std::fs::read_to_string(layout.policy()).unwrap());
    }

    #[test]
    fn without_wishes_tenants_live_in_srv() {
        let text = policy(&Wanted { directories: &[], registries: &[], listen: None }).unwrap();
        assert!(text.contains(r#"directories: ["/srv"]"#) && text.contains(r#"registries: ["*"]"#), "{text}");
    }
}
