//! Requests that are no requests: malformed, too deep, too long, with fields of the wrong type or of no meaning.

use serde_json::{Value, json};

use super::{Case, Expect, Input, set, with};
use crate::hostile::host::Host;

const CALLS: [(&str, &str); 6] = [
    ("POST", "/v1/observe"),
    ("POST", "/v1/resolve"),
    ("PUT", "/v1/claim"),
    ("PUT", "/v1/accept"),
    ("DELETE", "/v1/claim"),
    ("PUT", "/v1/operations/x"),
];

pub fn cases(host: &mut Host) -> Vec<Case> {
    let mut all = Vec::new();
    for (method, path) in CALLS {
        for (what, body) in malformed() {
            let call = Input::call(method, path, body);
            all.push(Case::new(format!("{method} {path}: {what}"), call, Expect::invalid("")));
        }
    }
    unknown_fields(host, &mut all);
    wrong_types(host, &mut all);
    missing(host, &mut all);
    contradictions(host, &mut all);
    all
}

fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let deep = |open: &str, close: &str| open.repeat(50_000) + &close.repeat(50_000);
    vec![
        ("nothing", vec![]),
        ("no JSON", b"hello".to_vec()),
        ("null", b"null".to_vec()),
        ("a number", b"1".to_vec()),
        ("a text", b"\"x\"".to_vec()),
        ("a list", b"[]".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("cut short", b"{\"tenant\": {".to_vec()),
        ("more than one", b"{} {}".to_vec()),
        ("not UTF-8", b"{\"tenant\": \"\xff\xfe\"}".to_vec()),
        ("a BOM", b"\xef\xbb\xbf{}".to_vec()),
        ("UTF-16", b"{\0}\0".to_vec()),
        ("NULs", vec![0; 1_000]),
        ("deep lists", deep("[", "]").into_bytes()),
        ("deep objects", format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000)).into_bytes()),
        ("deep in a field", format!("{{\"tenant\": {}}}", deep("[", "]")).into_bytes()),
        ("a lone surrogate", b"{\"tenant\": \"\\ud800\"}".to_vec()),
        ("comments", b"{/* */}".to_vec()),
        ("NaN", b"{\"epoch\": NaN}".to_vec()),
        ("XML", b"<tenant/>".to_vec()),
    ]
}

/// At every level of the largest request.
fn unknown_fields(host: &mut Host, all: &mut Vec<Case>) {
    for pointer in [
        "/also",
        "/tenant/also",
        "/place/also",
        "/manifest/also",
        "/manifest/env/also",
        "/manifest/env/patch/0/also",
        "/manifest/files/0/also",
        "/contents/0/also",
        "/verify/also",
        "/privileged",
        "/manifest/files/0/Mode",
        "/Epoch",
        "/place/dir",
        "/allow",
        "/policy",
        "/manifest/allow",
        "/overwriteAll",
    ] {
        let body = with(host, pointer, json!(1));
        all.push(Case::new(format!("unknown {pointer}"), Input::Operation(body), Expect::invalid("")));
    }
    for (pointer, value) in [
        ("/release", json!({"imageTag": "v1", "also": 1})),
        ("/action", json!({"kind": "Upgrade", "also": 1})),
        ("/action", json!({"kind": "Delete"})),
        ("/action", json!({"kind": "Rollback"})),
        ("/action", json!({"kind": "Rollback", "to": "../x", "data": false})),
        ("/action", json!({"kind": "Rollback", "to": "-x", "data": false})),
        ("/snapshot", json!({"paths": [], "volumes": [], "consistency": "Never", "retain": 5})),
        ("/snapshot", json!({"paths": [], "volumes": [], "consistency": "Live", "retain": 5, "also": 1})),
        ("/rollbackData", json!("Sometimes")),
        ("/manifest/env", json!({"ownership": "mine"})),
        ("/release", json!({"imageTag": "a\nb"})),
        ("/release", json!({"imageTag": "v1", "bundleRevision": "x".repeat(300)})),
        ("/release", json!({"imageTag": "v1", "filesHash": "\u{1b}[2J"})),
    ] {
        let body = with(host, pointer, value.clone());
        all.push(Case::new(format!("{pointer} {value:.60}"), Input::Operation(body), Expect::invalid("")));
    }
    // `null` of a field that was never there stays distinct from it.
    let tenant = Host::tenant();
    for (method, path, mut body) in [
        ("DELETE", "/v1/claim", json!({"tenant": tenant})),
        ("POST", "/v1/resolve", json!({"references": []})),
        (
            "POST",
            "/v1/observe",
            json!({"tenant": tenant, "place": host.place(), "manifest": {"files": [], "env": {"ownership": "managed"}, "protect": [], "jobs": [], "onChange": []}}),
        ),
    ] {
        set(&mut body, "/also", json!(null));
        let call = Input::call(method, path, body.to_string());
        all.push(Case::new(format!("unknown in {path}"), call, Expect::invalid("also")));
    }
}

fn wrong_types(host: &mut Host, all: &mut Vec<Case>) {
    let fields = [
        "/tenant",
        "/tenant/uid",
        "/tenant/name",
        "/place",
        "/place/project",
        "/place/directory",
        "/targetHash",
        "/manifest",
        "/manifest/files",
        "/manifest/files/0",
        "/manifest/files/0/path",
        "/manifest/env",
        "/manifest/env/patch",
        "/manifest/protect",
        "/contents",
        "/contents/0/content",
        "/pinned",
        "/verify",
    ];
    for pointer in fields {
        for value in [json!(7), json!([[]]), json!({"": {}})] {
            let body = with(host, pointer, value.clone());
            all.push(Case::new(format!("{pointer} as {value}"), Input::Operation(body), Expect::invalid("")));
        }
    }
    for (what, content) in [
        ("no base64", "%%%"),
        ("base64 cut short", "YQ"),
        ("base64 with a newline", "YQ==\n"),
        ("another alphabet", "-_-_"),
    ] {
        let body = with(host, "/contents/0/content", json!(content));
        all.push(Case::new(what, Input::Operation(body), Expect::invalid("contents[0].content")));
    }
}

fn missing(host: &mut Host, all: &mut Vec<Case>) {
    for field in [
        "tenant",
        "place",
        "epoch",
        "targetHash",
        "approach",
        "manifest",
        "contents",
        "pinned",
        "verify",
        "onFailure",
        "overwrite",
    ] {
        let mut body = host.operation();
        body.as_object_mut().unwrap().remove(field);
        all.push(Case::new(format!("without {field}"), Input::Operation(body), Expect::invalid("")));
    }
    for field in ["files", "env", "protect", "jobs", "onChange"] {
        let mut body = host.operation();
        body["manifest"].as_object_mut().unwrap().remove(field);
        all.push(Case::new(
            format!("manifest without {field}"),
            Input::Operation(body),
            Expect::invalid("manifest"),
        ));
    }
}

fn contradictions(host: &mut Host, all: &mut Vec<Case>) {
    let other = "0".repeat(64);
    for (what, pointer, value, field) in [
        ("another hash", "/manifest/files/0/sha256", json!(other), "contents[0]"),
        ("another size", "/manifest/files/0/size", json!(1), "contents[0]"),
        ("a size without end", "/manifest/files/0/size", json!(u64::MAX), "contents[0]"),
        ("content of no file", "/contents/0/path", json!("elsewhere"), "contents[0]"),
        (
            "a managed .env that is not there",
            "/manifest/env",
            json!({"ownership": "managed"}),
            "manifest.env",
        ),
        ("an adopted .env that is managed", "/manifest/files/0/path", json!(".env"), "manifest.env"),
    ] {
        let body = with(host, pointer, value);
        all.push(Case::new(what, Input::Operation(body), Expect::invalid(field)));
    }
    let mut body = host.operation();
    let twice: Value = body["contents"][0].clone();
    body["contents"].as_array_mut().unwrap().push(twice);
    all.push(Case::new("content twice", Input::Operation(body), Expect::invalid("contents[1]")));
    let pin = json!({"reference": "registry.example/app:v1", "digest": null, "problem": null});
    let body = with(host, "/pinned", json!([pin, pin]));
    all.push(Case::new("pinned twice", Input::Operation(body), Expect::invalid("pinned[1].reference")));
}
