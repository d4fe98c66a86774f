//! The door itself: calls that there are not, epochs of a deposed operator, replays, and certificates that are not
//! an operator's.

use serde_json::json;

use super::{Case, Expect, Input, with};
use crate::hostile::host::{Host, client};
use crate::world::{AGENT, Authority, OPERATOR};

pub fn cases(host: &mut Host) -> Vec<Case> {
    let mut all = Vec::new();
    let nothing = || Expect::Refused { status: 404, code: "NotFound", field: String::new() };
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/host",
        "/v1/hosts",
        "/v1/host/",
        "/v1/exec",
        "/v1/files",
        "/v1/files/etc/passwd",
        "/v1/operations",
        "/v1/operations/",
        "/v1/operations/a/b",
        "/v1/../etc/passwd",
        "//v1/host",
        "/V1/host",
        "/v1/claim/a",
        "/metrics",
        "/debug/pprof",
        "/containers/json",
        "/v1.41/containers/json",
        "/%2e%2e/x",
    ] {
        // The client itself takes `..` out of a path.
        if !path.contains("..") {
            all.push(Case::new(format!("GET {path}"), Input::call("GET", path, ""), nothing()));
        }
        all.push(Case::new(format!("PUT {path}"), Input::call("PUT", path, "{}"), nothing()));
    }
    for (method, path) in [
        ("PUT", "/v1/host"),
        ("POST", "/v1/host"),
        ("DELETE", "/v1/host"),
        ("PATCH", "/v1/host"),
        ("GET", "/v1/observe"),
        ("PUT", "/v1/observe"),
        ("GET", "/v1/claim"),
        ("POST", "/v1/claim"),
        ("DELETE", "/v1/operations/a"),
        ("POST", "/v1/operations/a"),
        ("PATCH", "/v1/operations/a"),
        ("GET", "/v1/resolve"),
        ("TRACE", "/v1/host"),
        ("OPTIONS", "/v1/host"),
        ("PROPFIND", "/v1/host"),
    ] {
        all.push(Case::new(format!("{method} {path}"), Input::call(method, path, "{}"), Expect::invalid("")));
    }
    for id in ["never", "a", "0", "x-1"] {
        let call = Input::call("GET", format!("/v1/operations/{id}"), "");
        all.push(Case::new(format!("unknown operation {id}"), call, nothing()));
    }
    stale(host, &mut all);
    all
}

/// A deposed operator, and a request that was recorded on the wire.
fn stale(host: &mut Host, all: &mut Vec<Case>) {
    let stale = || Expect::Refused { status: 409, code: "StaleEpoch", field: "epoch".to_owned() };
    for epoch in [1, 2] {
        let body = with(host, "/epoch", json!(epoch));
        let call = Input::call("PUT", format!("/v1/operations/stale-{epoch}"), body.to_string());
        // Epoch 1 was the first operation's, the others' are above it only once they were accepted.
        if epoch == 1 {
            all.push(Case::new("a stale epoch", call, stale()));
        }
    }
    let body = host.operation();
    let call = Input::call("PUT", "/v1/operations/first", body.to_string());
    let mismatch = Expect::Refused { status: 409, code: "OperationMismatch", field: String::new() };
    all.push(Case::new("an id again with another body", call, mismatch));
    let claim = json!({"tenant": Host::tenant(), "place": body["place"], "manifest": {"files": [], "env": {"ownership": "adopted", "patch": []}, "protect": [], "jobs": [], "onChange": []}, "epoch": 1});
    let call = Input::call("PUT", "/v1/claim", claim.to_string());
    all.push(Case::new("a claim under a stale epoch", call, stale()));
}

/// Connections that never get to ask anything; each is tried with three calls.
pub async fn connections(host: &Host) -> Vec<(&'static str, usize)> {
    let stranger = Authority::new();
    let issue = |names: &[&str]| Some(host.authority.issue(names, 2099));
    let identities = [
        ("none", None),
        ("another authority's", Some(stranger.issue(&[OPERATOR], 2099))),
        ("expired", Some(host.authority.issue(&[OPERATOR], 2021))),
        ("another operator's", issue(&["other.operator.tenantry.internal"])),
        ("two names", issue(&[OPERATOR, "main2.operator.tenantry.internal"])),
        ("a wildcard", issue(&["*.operator.tenantry.internal"])),
        ("the agent's own", issue(&[AGENT])),
        ("another host's agent", issue(&["n6.agent.tenantry.internal"])),
        ("a longer name", issue(&["main.operator.tenantry.internal.example"])),
        ("a name before", issue(&["x.main.operator.tenantry.internal"])),
        ("an address", issue(&["127.0.0.1"])),
        ("no name", issue(&[])),
        ("upper case", issue(&["MAIN.operator.tenantry.internal2"])),
    ];
    let (before, mut refused) = (host.look(), 0);
    for (what, identity) in &identities {
        let client = client(&host.authority, host.port, identity.as_ref());
        for path in ["/v1/host", "/v1/operations/first", "/v1/resolve"] {
            let asked = client.get(host.url(path)).send().await;
            assert!(asked.is_err(), "{what} certificate was let in");
            refused += 1;
        }
    }
    assert_eq!(before, host.look());
    vec![("certificates", refused)]
}
