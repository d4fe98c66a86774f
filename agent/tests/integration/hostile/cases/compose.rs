//! Compose files that compose must never see: looked through before it is run.

use serde_json::json;

use super::{Case, Expect, Input, with};
use crate::hostile::host::{Host, manage};

/// Paths that the files a compose file names must not have, and what is said of them.
const PATHS: [(&str, &str); 24] = [
    ("/etc/shadow", "is absolute"),
    ("../other/docker-compose.yml", "leaves"),
    ("../../outside/secret", "leaves"),
    ("conf/../../x.yml", "leaves"),
    ("~/x.yml", "is absolute"),
    ("https://example.org/x.yml", "not on this host"),
    ("http://169.254.169.254/x", "not on this host"),
    ("oci://example.org/x", "not on this host"),
    ("git@github.com:a/b.git", "not on this host"),
    ("github.com/a/b", "not on this host"),
    ("https://github.com/a/b.git#main:x", "not on this host"),
    ("ssh://git@example.org/a", "not on this host"),
    ("file:///etc/shadow", "not on this host"),
    ("git://example.org/a", "not on this host"),
    ("${X}/x.yml", "is absolute"),
    ("$X", "is empty"),
    ("${X:-/etc/shadow}", "is absolute"),
    ("${X:-../x}", "leaves"),
    ("${X:-https://example.org/x.yml}", "not on this host"),
    ("conf/${X:?no}$$x", "depends on variables"),
    (".tenantry/stage/x.yml", "agent's own folder"),
    ("./.tenantry/x", "agent's own folder"),
    ("a\\u0000b", "control"),
    ("a\\nb", "control"),
];

/// What is said of a file of the host that the policy does not name.
const NOT_GRANTED: &str = "is not in the tenant's directory";

pub fn cases(host: &mut Host) -> Vec<Case> {
    let mut all = Vec::new();
    let forms: [(&str, &str); 8] = [
        ("include[0]", "include: [\"{}\"]\nservices: {web: {image: x}}\n"),
        ("include[0].path[1]", "include: [{path: [ok.yml, \"{}\"]}]\nservices: {web: {image: x}}\n"),
        ("include[0].env_file", "include: [{path: ok.yml, env_file: \"{}\"}]\nservices: {web: {image: x}}\n"),
        ("services.web.extends.file", "services: {web: {image: x, extends: {file: \"{}\", service: y}}}\n"),
        ("services.web.env_file", "services: {web: {image: x, env_file: \"{}\"}}\n"),
        (
            "services.web.env_file[1]",
            "services: {web: {image: x, env_file: [a.env, {path: \"{}\", required: false}]}}\n",
        ),
        ("services.web.label_file", "services: {web: {image: x, label_file: \"{}\"}}\n"),
        ("services.web.env_file", "x-all: &all {image: x, env_file: \"{}\"}\nservices: {web: {<<: *all}}\n"),
    ];
    for (key, form) in forms {
        for (path, says) in PATHS {
            let content = form.replace("{}", path);
            let body = compose(host, content.as_bytes());
            // Files of the host are the policy's affair; of these compose reads some only when it makes containers.
            let of_containers = key.contains("env_file") && key.starts_with("services");
            let expect = match is_elsewhere(says) {
                true if of_containers => Expect::resolved("PolicyRefused", NOT_GRANTED),
                true => Expect::unseen("PolicyRefused", NOT_GRANTED),
                false => Expect::unseen("PathRefused", says),
            };
            all.push(Case::new(format!("{key} {path} {form:.5}"), Input::Operation(body), expect));
        }
    }
    unreadable(host, &mut all);
    included(host, &mut all);
    chosen(host, &mut all);
    all
}

/// A request whose compose file is this.
pub fn compose(host: &mut Host, content: &[u8]) -> serde_json::Value {
    let mut body = host.operation();
    manage(&mut body, "docker-compose.yml", content);
    body
}

fn unreadable(host: &mut Host, all: &mut Vec<Case>) {
    let line = |n: i32| format!("a{n}: &a{n} [{}]\n", [format!("*a{}", n - 1).as_str(); 9].join(","));
    let bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned() + &(1..12).map(line).collect::<String>();
    let merge = |n: i32| format!("a{n}: &a{n} {{x: [*a{0}, *a{0}, *a{0}], <<: *a{0}}}\n", n - 1);
    let merges = "a0: &a0 {k: v}\n".to_owned() + &(1..30).map(merge).collect::<String>();
    let many =
        |n: usize| (0..n).fold("services:\n".to_owned(), |all, n| all + &format!("  s{n}: {{image: x}}\n"));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a bomb of aliases", bomb.into_bytes()),
        ("a bomb of merges", merges.into_bytes()),
        ("10,000 services", many(10_000).into_bytes()),
        ("1,001 services", many(1_001).into_bytes()),
        ("deep lists", "[".repeat(200_000).into_bytes()),
        ("deep mappings", "{a: ".repeat(200_000).into_bytes()),
        ("2 MiB", format!("# {}\nservices: {{}}\n", "x".repeat(2 * 1024 * 1024)).into_bytes()),
        ("not UTF-8", b"services: {web: {image: \xff}}".to_vec()),
        ("UTF-16", "services: {web: {image: x}}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        (
            "UTF-16 with a BOM",
            "\u{feff}include: [/etc/shadow]".encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
        ("never closed", b"services: {web: {image: x}".to_vec()),
        ("a tab", b"services:\n\tweb:\n\t\timage: x\n".to_vec()),
        ("a key twice", b"services: {}\nservices: {web: {image: x}}\n".to_vec()),
        ("a service twice", b"services:\n  web: {image: x}\n  web: {image: y}\n".to_vec()),
        ("an alias of nothing", b"services: {web: *nothing}\n".to_vec()),
        ("an alias of itself", b"a: &a [*a]\nservices: {web: {image: x}}\n".to_vec()),
        ("a list", b"- services\n".to_vec()),
        ("a text", b"services\n".to_vec()),
        ("NULs", b"services: {web: {image: \"x\0y\"}}\0".to_vec()),
        ("a provider", b"services: {web: {provider: {type: sh, options: {c: id}}}}\n".to_vec()),
        (
            "a provider by merge",
            b"x: &x {provider: {type: sh}}\nservices: {web: {<<: *x, image: y}}\n".to_vec(),
        ),
        (
            "a provider in another document",
            b"services: {a: {image: x}}\n---\nservices: {web: {provider: {type: sh}}}\n".to_vec(),
        ),
        ("a model of a service", b"services: {web: {image: x, models: [m]}}\n".to_vec()),
        ("models", b"models: {m: {model: ai/x}}\nservices: {web: {image: x}}\n".to_vec()),
        ("include as a text", b"include: /etc/shadow\nservices: {web: {image: x}}\n".to_vec()),
        ("include as a mapping", b"include: {path: /etc/shadow}\nservices: {web: {image: x}}\n".to_vec()),
        (
            "a project directory of another kind",
            b"include: [{path: a.yml, project_directory: [x]}]\nservices: {web: {image: x}}\n".to_vec(),
        ),
        (
            "an env_file of another kind",
            b"services: {web: {image: x, env_file: [{file: /etc/shadow}]}}\n".to_vec(),
        ),
        ("an env_file that is a number", b"services: {web: {image: x, env_file: 5}}\n".to_vec()),
    ];
    for (what, content) in cases {
        let body = compose(host, &content);
        all.push(Case::new(
            what,
            Input::Operation(body),
            Expect::unseen("ComposeInvalid", "docker-compose.yml"),
        ));
    }
    // Of a folder alone nothing is read; that the file in the directory is not there is all that is wrong.
    for (folder, expect) in [
        ("/", Expect::resolved("ComposeInvalid", "a.yml")),
        ("..", Expect::resolved("ComposeInvalid", "a.yml")),
        ("../x", Expect::resolved("ComposeInvalid", "a.yml")),
        (".tenantry", Expect::unseen("PathRefused", "agent's own folder")),
    ] {
        let content = format!(
            "include: [{{path: a.yml, project_directory: {folder}}}]\nservices: {{web: {{image: x}}}}\n"
        );
        let body = compose(host, content.as_bytes());
        all.push(Case::new(format!("a project directory {folder}"), Input::Operation(body), expect));
    }
    let body = compose(host, b"services: {a: {image: x}}\n---\ninclude: [/etc/shadow]\n");
    all.push(Case::new(
        "another document",
        Input::Operation(body),
        Expect::unseen("PolicyRefused", NOT_GRANTED),
    ));
}

/// Whether a path is one of this host, outside of the tenant's directory.
fn is_elsewhere(says: &str) -> bool {
    matches!(says, "is absolute" | "leaves")
}

/// What an included or extended file names is looked through in its turn.
fn included(host: &mut Host, all: &mut Vec<Case>) {
    for (what, first, second, category) in [
        (
            "include",
            "include: [sub/a.yml]\nservices: {b: {image: x}}\n",
            "include: [../../x.yml]\n",
            "PolicyRefused",
        ),
        (
            "extends",
            "services: {web: {extends: {file: sub/a.yml, service: y}}}\n",
            "services: {y: {image: x, label_file: /etc/shadow}}\n",
            "PolicyRefused",
        ),
        (
            "include, extends",
            "include: [sub/a.yml]\nservices: {b: {image: x}}\n",
            "services: {y: {extends: {file: ../../../x, service: z}}}\n",
            "PolicyRefused",
        ),
        (
            "include, provider",
            "include: [sub/a.yml]\nservices: {b: {image: x}}\n",
            "services: {y: {provider: {type: sh}}}\n",
            "ComposeInvalid",
        ),
        (
            "extends, bomb",
            "services: {web: {extends: {file: sub/a.yml, service: y}}}\n",
            "services: [",
            "ComposeInvalid",
        ),
        (
            "include, remote",
            "include: [sub/a.yml]\nservices: {b: {image: x}}\n",
            "include: ['https://example.org/x']\n",
            "PathRefused",
        ),
        (
            "include, env",
            "include: [sub/a.yml]\nservices: {b: {image: x}}\n",
            "services: {y: {image: x, label_file: ../../.env}}\n",
            "PolicyRefused",
        ),
    ] {
        let mut body = compose(host, first.as_bytes());
        manage(&mut body, "sub/a.yml", second.as_bytes());
        all.push(Case::new(what, Input::Operation(body), Expect::unseen(category, "sub/a.yml")));
    }
    let mut body = compose(host, b"include: [i0.yml]\nservices: {b: {image: x}}\n");
    for n in 0..100 {
        manage(&mut body, &format!("i{n}.yml"), format!("include: [i{}.yml]\n", n + 1).as_bytes());
    }
    all.push(Case::new(
        "a chain of includes",
        Input::Operation(body),
        Expect::unseen("ComposeInvalid", "more than 64"),
    ));
    let files: Vec<String> = (0..100).map(|n| format!("e{n}.env")).collect();
    let body =
        compose(host, format!("services: {{b: {{image: x, env_file: {}}}}}\n", json!(files)).as_bytes());
    all.push(Case::new(
        "100 env files",
        Input::Operation(body),
        Expect::unseen("ComposeInvalid", "more than 64"),
    ));
}

/// Files that the Tenant chooses and that are not there or not plain.
fn chosen(host: &mut Host, all: &mut Vec<Case>) {
    for file in ["nowhere.yml", "conf", "conf/nowhere.yml"] {
        let body = with(host, "/place/compose", json!({"files": [file], "profiles": []}));
        let category = if file == "conf" { "PathRefused" } else { "ComposeInvalid" };
        all.push(Case::new(format!("chosen {file}"), Input::Operation(body), Expect::unseen(category, file)));
    }
}
