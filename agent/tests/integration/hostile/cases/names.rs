//! Names that could be read as flags, as commands or as another's.

use serde_json::json;

use super::{Case, Expect, Input, with};
use crate::hostile::host::Host;

const WORDS: [&str; 22] = [
    "",
    "-f",
    "--help",
    "--privileged",
    "$(id)",
    "`id`",
    "a b",
    "a\nb",
    "a\0b",
    "a/b",
    "../a",
    "a;id",
    "a|id",
    "a&b",
    "'a'",
    "\"a\"",
    "*",
    "\u{e9}",
    "\u{202e}a",
    "{{.ID}}",
    "%s%n",
    "a\u{0}",
];

pub fn cases(host: &mut Host) -> Vec<Case> {
    let mut all = Vec::new();
    let mut each = |host: &mut Host, pointer: &str, field: &str, more: &[&str]| {
        for word in WORDS.iter().chain(more) {
            let body = with(host, pointer, json!(word));
            all.push(Case::new(format!("{field} {word:?}"), Input::Operation(body), Expect::invalid(field)));
        }
    };
    let long = "a".repeat(400);
    each(host, "/place/project", "place.project", &["Upper", "_a", ".a", "a.b", &long]);
    each(host, "/tenant/uid", "tenant.uid", &["xyz", "A1G", "a1/../b2", &long]);
    each(host, "/tenant/name", "tenant.name", &[&long]);
    each(host, "/tenant/namespace", "tenant.namespace", &[&long]);
    each(host, "/manifest/jobs/0", "manifest.jobs[0]", &[".a", "_a", &long]);
    each(host, "/manifest/env/patch/0/name", "manifest.env", &["A=B", "1A", "a-b", "a.b", "export A", &long]);
    each(host, "/manifest/files/0/sha256", "manifest.files[0]", &[&"A".repeat(64), &"a".repeat(63)]);
    let digest = format!("sha256:{}", "A".repeat(64));
    for (member, more) in [
        ("name", vec!["Upper", "app:v1", "app@sha256:00", "../app", "${IMAGE}", &long]),
        ("newName", vec!["Upper", "app:v1", "http://registry/app", "${IMAGE}", &long]),
        ("newTag", vec![".a", "-a", "${TAG}", "v1 #", &long]),
        ("digest", vec!["sha256:", "md5:00", &digest, &long]),
    ] {
        // An image's name may have several parts.
        let is_good = |word: &&&str| **word == "a/b" && matches!(member, "name" | "newName");
        for word in WORDS.iter().chain(&more).filter(|word| !is_good(word)) {
            let mut image = json!({"name": "app", "newTag": "v1"});
            image[member] = json!(word);
            let body = with(host, "/manifest/images", json!([image]));
            let field = format!("manifest.images[0].{member}");
            let case =
                Case::new(format!("{field} {word:?}"), Input::Operation(body), Expect::invalid(&field));
            all.push(case);
        }
    }
    for word in WORDS.iter().filter(|word| !word.is_empty()) {
        let body = with(host, "/place/compose", json!({"files": [], "profiles": [word]}));
        let case = Case::new(
            format!("profile {word:?}"),
            Input::Operation(body),
            Expect::invalid("place.compose.profiles"),
        );
        all.push(case);
    }
    for volume in WORDS {
        let snapshot = json!({"paths": [], "volumes": [volume], "consistency": "Live", "retain": 5});
        let body = with(host, "/snapshot", snapshot);
        all.push(Case::new(
            format!("volume {volume:?}"),
            Input::Operation(body),
            Expect::invalid("snapshot.volumes[0]"),
        ));
    }
    ids(&mut all);
    references(host, &mut all);
    taken(host, &mut all);
    all
}

/// Ids in the path of a call.
fn ids(all: &mut Vec<Case>) {
    let long = "a".repeat(65);
    for id in
        ["-a", "a b", "a.b", "..", "a%00", "a%0ab", "%2e%2e%2fx", "$(id)", "a_b", "%C3%A9", "a%2Fb", &long]
    {
        let encoded = id.replace(' ', "%20");
        if id == ".." {
            continue;
        }
        for method in ["GET", "PUT"] {
            let call = Input::call(method, format!("/v1/operations/{encoded}"), "{}");
            all.push(Case::new(format!("{method} operation {id}"), call, Expect::invalid("id")));
        }
    }
}

/// Image references: in a question, and among those that are pinned.
fn references(host: &mut Host, all: &mut Vec<Case>) {
    let long = format!("registry.example/{}", "a".repeat(300));
    let tag = format!("registry.example/a:{}", "t".repeat(300));
    let bad = [
        "",
        " ",
        "--privileged",
        "-v/:/x",
        "registry.example/app: v1",
        "registry.example/APP:v1",
        "registry.example/app:",
        "registry.example/app@sha256:abc",
        "registry.example/app@md5:abc",
        "registry.example/../app:v1",
        "app:v1:v2",
        "registry.example//app:v1",
        "registry.example/app:v1\n",
        "registry.example/app:$(id)",
        "http://registry.example/app",
        "registry.example/app:-v1",
        "registry.example/app:v1@sha256:",
        "registry.example/app?x=y",
        "registry.example/a#b",
        &long,
        &tag,
    ];
    for reference in bad {
        let call = Input::call("POST", "/v1/resolve", json!({"references": [reference]}).to_string());
        let expect = Expect::Problem { says: "is no image reference".to_owned() };
        all.push(Case::new(format!("resolve {reference:.40}"), call, expect));
        let body = with(host, "/pinned", json!([{"reference": reference, "digest": null, "problem": null}]));
        all.push(Case::new(
            format!("pinned {reference:.40}"),
            Input::Operation(body),
            Expect::invalid("pinned[0].reference"),
        ));
    }
    for reference in [
        "evil.example/a:v1",
        "a",
        "library/a:v1",
        "localhost/a",
        "registry.example.evil/a:v1",
        "127.0.0.1:5055/a",
        "registry.example:81/a",
    ] {
        let call = Input::call("POST", "/v1/resolve", json!({"references": [reference]}).to_string());
        let expect = Expect::Problem { says: "not allowed by this host's policy".to_owned() };
        all.push(Case::new(format!("registry {reference}"), call, expect));
    }
    for digest in [
        "",
        "sha256:",
        "sha256:zz",
        "md5:abc",
        "abc",
        &format!("sha256:{}", "A".repeat(64)),
        &format!("sha512:{}", "a".repeat(64)),
    ] {
        let pinned = json!([{"reference": "registry.example/app:v1", "digest": digest, "problem": null}]);
        let body = with(host, "/pinned", pinned);
        all.push(Case::new(
            format!("digest {digest:.20}"),
            Input::Operation(body),
            Expect::invalid("pinned[0].digest"),
        ));
    }
    let many: Vec<String> = (0..300).map(|n| format!("registry.example/a:{n}")).collect();
    let call = Input::call("POST", "/v1/resolve", json!({"references": many}).to_string());
    all.push(Case::new("too many references", call, Expect::invalid("references")));
}

/// A directory or project that another tenant has.
fn taken(host: &mut Host, all: &mut Vec<Case>) {
    let held = || Expect::Refused { status: 409, code: "ClaimedByOther", field: "place".to_owned() };
    let acme = host.path("srv/acme");
    for (what, project, directory) in [
        ("directory", "other", acme.clone()),
        ("project", "hostile-acme", host.path("srv/other")),
        ("both", "hostile-acme", acme.clone()),
        ("a folder in it", "other", acme.join("conf")),
        ("the folder above it", "other", host.path("srv")),
    ] {
        let mut body = with(host, "/tenant/uid", json!("b2"));
        body["place"] = json!({"project": project, "directory": directory});
        all.push(Case::new(format!("taken {what}"), Input::Operation(body), held()));
    }
    for (what, project, directory) in
        [("project", "moved", acme.clone()), ("directory", "hostile-acme", host.path("srv/other"))]
    {
        let body = with(host, "/place", json!({"project": project, "directory": directory}));
        all.push(Case::new(format!("another {what}"), Input::Operation(body), Expect::invalid("place")));
    }
}
