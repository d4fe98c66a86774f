//! Tricks of the file system: something else is where a plain file or folder should be.

use std::any::Any;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use serde_json::json;

use super::compose::compose;
use super::{Case, Expect, Input, Prepare};
use crate::hostile::host::{COMPOSE, Host, manage};

/// What is put in the way, by name; the path is the place.
type Trick = (&'static str, fn(&Host, &Path));

const TRICKS: [Trick; 9] = [
    ("a symlink to a file", |host, at| symlink(host.path("outside/secret"), at).unwrap()),
    ("a symlink to a folder", |host, at| symlink(host.path("outside"), at).unwrap()),
    ("a symlink to /", |_, at| symlink("/", at).unwrap()),
    ("a symlink to nowhere", |_, at| symlink("nowhere", at).unwrap()),
    ("a symlink to itself", |_, at| symlink(at, at).unwrap()),
    ("a symlink by /proc", |_, at| symlink("/proc/self/root/etc/passwd", at).unwrap()),
    ("a FIFO", |_, at| node(at, FileType::Fifo, 0)),
    ("a device", |_, at| node(at, FileType::CharacterDevice, rustix::fs::makedev(1, 3))),
    ("a socket", |_, at| drop(std::os::unix::net::UnixListener::bind(at).unwrap())),
];

fn node(at: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, at, kind, Mode::from_raw_mode(0o600), device).unwrap();
}

/// Puts back what was there when it is dropped.
struct PutBack {
    at: PathBuf,
    content: Option<Vec<u8>>,
}

impl Drop for PutBack {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.at).or_else(|_| std::fs::remove_dir_all(&self.at));
        if let Some(content) = &self.content {
            std::fs::write(&self.at, content).unwrap();
        }
    }
}

fn put(place: &'static str, trick: fn(&Host, &Path)) -> Prepare {
    Box::new(move |host| {
        let at = host.path("srv/acme").join(place);
        let content = std::fs::read(&at).ok();
        let _ = std::fs::remove_file(&at);
        trick(host, &at);
        Box::new(PutBack { at, content }) as Box<dyn Any>
    })
}

pub fn cases(host: &mut Host) -> Vec<Case> {
    let mut all = Vec::new();
    for (what, trick) in TRICKS {
        managed(host, what, trick, &mut all);
        read(host, what, trick, &mut all);
    }
    mounted(host, &mut all);
    others(host, &mut all);
    all
}

/// Where a managed file goes: at its own place, and where a folder above it should be.
fn managed(host: &mut Host, what: &str, trick: fn(&Host, &Path), all: &mut Vec<Case>) {
    for (place, path) in [
        ("conf/new.conf", "conf/new.conf"),
        ("above", "above/new.conf"),
        ("docker-compose.yml", "docker-compose.yml"),
    ] {
        let mut body = host.operation();
        manage(&mut body, path, COMPOSE.as_bytes());
        let expect = Expect::unseen("PathRefused", "");
        let name = format!("on disk: {what} at {place}, for {path}");
        all.push(Case {
            prepare: Some(put(place, trick)),
            ..Case::new(name, Input::Operation(body), expect)
        });
    }
}

/// What is only read: `.env`, an included file, an env file, an override.
fn read(host: &mut Host, what: &str, trick: fn(&Host, &Path), all: &mut Vec<Case>) {
    for (place, content) in [
        (".env", "services: {web: {image: registry.example/app:v1}}\n"),
        ("extra.env", "services: {web: {image: registry.example/app:v1, env_file: extra.env}}\n"),
        ("extra.yml", "include: [extra.yml]\nservices: {web: {image: registry.example/app:v1}}\n"),
        ("base.yml", "services: {web: {extends: {file: base.yml, service: x}}}\n"),
        ("docker-compose.override.yml", "services: {web: {image: registry.example/app:v1}}\n"),
    ] {
        let body = compose(host, content.as_bytes());
        let expect = Expect::unseen("PathRefused", "");
        let name = format!("on disk: {what} at {place}");
        all.push(Case {
            prepare: Some(put(place, trick)),
            ..Case::new(name, Input::Operation(body), expect)
        });
    }
}

/// Bind sources that lead out of the directory by a symlink, which dockerd would follow.
fn mounted(host: &mut Host, all: &mut Vec<Case>) {
    for (what, place, source) in [
        ("a symlink to /", "link", "./link"),
        ("a symlink to /", "link", "./link/etc"),
        ("a symlink to a folder", "link", "./link"),
        ("a symlink to a file", "link", "./link"),
        ("a symlink by /proc", "link", "./link"),
        ("a symlink to itself", "link", "./link"),
        ("a symlink to a folder", "link", "./link/new/deep"),
    ] {
        let trick = TRICKS.into_iter().find(|(name, _)| *name == what).unwrap().1;
        let content =
            format!("services: {{web: {{image: registry.example/app:v1, volumes: [\"{source}:/x\"]}}}}\n");
        let body = compose(host, content.as_bytes());
        let expect = Expect::resolved("PolicyRefused", "");
        let name = format!("on disk: {what}, mounted as {source}");
        all.push(Case {
            prepare: Some(put(place, trick)),
            ..Case::new(name, Input::Operation(body), expect)
        });
    }
    // dockerd would make what is missing below a protected path.
    for source in ["./data/new", "./data/new/deep", "./data/keep/new"] {
        let content =
            format!("services: {{web: {{image: registry.example/app:v1, volumes: [\"{source}:/x\"]}}}}\n");
        let body = compose(host, content.as_bytes());
        all.push(Case::new(
            format!("missing {source}"),
            Input::Operation(body),
            Expect::resolved("PathRefused", source.trim_start_matches("./")),
        ));
    }
}

fn others(host: &mut Host, all: &mut Vec<Case>) {
    // The directory itself is reached by a symlink.
    for (n, tail) in ["/one", "/two/deep", "/three/new/deep"].into_iter().enumerate() {
        let mut body = host.operation();
        body["tenant"]["uid"] = json!(format!("c{n}"));
        let at = host.path("linked").display().to_string();
        body["place"] = json!({"project": format!("hostile-linked{n}"), "directory": format!("{at}{tail}")});
        let prepare: Option<Prepare> = Some(Box::new(linked_at));
        let case = Case::new(
            format!("on disk: a linked directory{tail}"),
            Input::Operation(body),
            Expect::invalid("place.directory"),
        );
        all.push(Case { prepare, ..case });
    }
    // A folder where a file goes, and a file where a folder is needed.
    for (path, says) in [("conf", "folder"), (".env/x", "file"), ("docker-compose.yml/x", "file")] {
        let mut body = host.operation();
        body["manifest"]["files"] = json!([]);
        body["contents"] = json!([]);
        manage(&mut body, path, b"x");
        all.push(Case::new(
            format!("on disk: {path}"),
            Input::Operation(body),
            Expect::unseen("PathRefused", says),
        ));
    }
}

fn linked_at(host: &Host) -> Box<dyn Any> {
    let at = host.path("linked");
    symlink(host.path("outside"), &at).unwrap();
    Box::new(PutBack { at, content: None })
}
