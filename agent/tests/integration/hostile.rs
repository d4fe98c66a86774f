//! P13, P15, P1: what a compromised operator can send is refused at the layer that it should be refused at, and leaves
//! nothing behind: no panic, no change on disk, nothing run, nothing told.
//!
//! The agent is a real process behind its real door; compose is the real one, counted; the engine is the real one, to
//! be looked at only.

mod archives;
mod cases;
mod host;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::Ordering;

use cases::{Case, Expect, Input};
use host::{CANARY, Host};
use serde_json::Value;

/// How many distinct cases there must be.
const WANTED: usize = 650;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_bad_input_is_refused_where_it_should_be_and_changes_nothing() {
    let mut host = Host::start();
    // Nothing is wrong with what the cases begin from: it is refused by the engine alone.
    let first = host.operation();
    run(&mut host, Case::new("first", Input::Operation(first), Expect::pull()), "first").await.unwrap();
    host.changes.store(0, Ordering::SeqCst);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut distinct = std::collections::BTreeSet::new();
    for (row, cases) in cases::all(&mut host) {
        for (n, case) in cases.into_iter().enumerate() {
            assert!(distinct.insert(case.input.key(&case.name)), "{row}: {} is there twice", case.name);
            let name = format!("{row}-{n} ({})", case.name);
            if let Err(problem) = run(&mut host, case, &format!("{row}-{n}")).await {
                wrong.push(format!("{name}: {problem}"));
            }
            *counts.entry(row).or_default() += 1;
        }
    }
    for (row, count) in cases::endpoints::connections(&host).await {
        *counts.entry(row).or_default() += count;
    }
    let total: usize = counts.values().sum();
    assert!(wrong.is_empty(), "{} of {total} went wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!("{total} bad inputs refused: {counts:?}");
    assert!(total >= WANTED, "only {total}");
    let log = host.log();
    assert!(!log.contains("panicked") && !log.contains(CANARY), "{log}");
    assert_eq!(host.changes.load(Ordering::SeqCst), 0, "the engine was asked to change something");
    assert!(host.is_alive());
    p12_no_secret_in_what_the_agent_keeps(&host);
}

/// What went another way than it should have, in words.
type Told = Result<(), String>;

fn told(good: bool, what: &str, seen: impl std::fmt::Display) -> Told {
    if good { Ok(()) } else { Err(format!("{what}: {seen}")) }
}

async fn run(host: &mut Host, case: Case, id: &str) -> Told {
    let prepared = case.prepare.as_ref().map(|prepare| prepare(host));
    let (before, runs) = (host.look(), host.runs());
    let answer = match &case.input {
        Input::Call { method, path, body } => host.call(method, path, body.clone()).await,
        Input::Operation(body) => {
            host.call("PUT", &format!("/v1/operations/{id}"), body.to_string().into_bytes()).await
        }
    };
    let refused = match &case.expect {
        Expect::Refused { status, code, field } => {
            let said = &answer.body["field"].as_str().unwrap_or_default();
            let words = answer.body["message"].as_str().is_some_and(|message| !message.is_empty());
            let good =
                answer.status == *status && answer.body["code"] == *code && said.starts_with(field.as_str());
            told(good && words, &format!("wanted {status} {code} of {field:?}"), &answer.text)
        }
        Expect::Problem { says } => {
            told(answer.status == 200 && answer.text.contains(says.as_str()), says, &answer.text)
        }
        Expect::Ended { category, during, says, composed } => {
            told(answer.status == 200, "not accepted", &answer.text)?;
            let ended = host.ended(id).await;
            let (state, failure) = (&ended["state"], &ended["state"]["failure"]);
            let good = state["outcome"] == "Aborted"
                && failure["category"] == *category
                && failure["during"] == *during;
            let words = failure["message"].as_str().is_some_and(|message| message.contains(says.as_str()));
            told(good && words, &format!("wanted {category} in {during} that says {says:?}"), state)?;
            told(*composed || host.runs() == runs, "compose was run", "")
        }
    };
    let same = same(&before, &host.look());
    drop(prepared);
    told(host.is_alive(), "the agent", "is gone")?;
    refused.and(same)
}

fn same(before: &host::Seen, after: &host::Seen) -> Told {
    for (path, seen) in before {
        let now = after.get(path).map_or("nothing", |now| now.0.as_str());
        told(now == seen.0, &format!("{} was {}", path.display(), seen.0), now)?;
        told(after[path].1 == seen.1, "another content", path.display())?;
    }
    let new = after.keys().find(|path| !before.contains_key(*path));
    told(new.is_none(), "new", new.map(|path| path.display().to_string()).unwrap_or_default())
}

/// Secrets may be in the requests of operations in flight and in compose's own log, for nobody's eyes but root's.
fn p12_no_secret_in_what_the_agent_keeps(host: &Host) {
    let mut open = vec![host.path("state"), host.path("srv/acme/.tenantry")];
    let mut looked = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let mode = std::fs::symlink_metadata(&path).unwrap().mode();
        let content = std::fs::read(&path).unwrap();
        let secret = content.windows(CANARY.len()).any(|part| part == CANARY.as_bytes());
        assert_eq!(mode & 0o077, 0, "{} may be read by others", path.display());
        assert!(!secret, "{} holds a secret", path.display());
        looked += 1;
    }
    assert!(looked > 10, "only {looked} files of the agent's were looked at");
}

/// The text of a JSON value for comparing cases.
fn text(value: &Value) -> String {
    value.to_string()
}
