//! P15: what reads bytes that somebody else may have written, fed with good input that was damaged at random: the
//! targets of `fuzz/`, without a fuzzer's instrumentation. `TENANTRY_FUZZ_SECONDS` makes each go on for longer.

use std::time::{Duration, Instant};

use serde_json::json;
use tenantry_agent::fuzzing;
use tenantry_api::names::{EnvKey, OperationId, RelativePath, TenantUid};
use tenantry_planner::env::{EnvFile, patch};
use tenantry_protocol::EnvValue;

/// A small generator of its own, so that a failure is the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }

    /// One of the seeds, damaged in up to eight places.
    fn damaged(&mut self, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(9) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => {
                    let word = words[self.below(words.len())].as_bytes().to_vec();
                    bytes.splice(at..at, word);
                }
                3 => {
                    let end = (at + self.below(20)).min(bytes.len());
                    bytes.drain(at..end);
                }
                4 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, part);
                }
                5 => bytes.insert(at, u8::try_from(self.below(256)).unwrap()),
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len() + 1);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        bytes
    }
}

/// Goes on for its time, at least a thousand rounds.
fn rounds(what: &str, seeds: &[Vec<u8>], words: &[&str], mut read: impl FnMut(&[u8])) {
    let seconds = std::env::var("TENANTRY_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let (began, mut random, mut count) = (Instant::now(), Random(seconds), 0_u64);
    while count < 1_000 || began.elapsed() < Duration::from_secs(seconds) {
        read(&random.damaged(seeds, words));
        count += 1;
    }
    println!("{what}: {count} inputs");
}

/// A line of a journal.
fn line(before: &str, json: &str) -> (Vec<u8>, String) {
    let mut sum = String::from(tenantry_agent::files::sha256(format!("{before} {json}").as_bytes()));
    sum.truncate(16);
    (format!("{} {sum} {json}\n", json.len()).into_bytes(), sum)
}

#[test]
fn p15_a_damaged_journal_is_read_as_far_as_it_is_whole() {
    let (mut journal, mut sum, mut seeds) = (Vec::new(), String::new(), Vec::new());
    for n in 0..6 {
        let (bytes, next) = line(&sum, &format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(n * 7)));
        journal.extend_from_slice(&bytes);
        sum = next;
        seeds.push(journal.clone());
    }
    rounds(
        "journal",
        &seeds,
        &["0 ", "\n", " ", "99999999 ", "18446744073709551615 ", "{}"],
        fuzzing::journal,
    );
}

#[test]
fn p7_a_strange_env_file_is_patched_exactly_or_refused() {
    let files = [
        "KEY=old\nA='b'\n",
        "export KEY=\"x\ny\" # c\r\nB=${KEY}\r\n",
        "\u{feff}# head\nKEY\nKEY = v\nC: d",
        "A='x\nKEY=no\n'\n",
    ];
    let values = ["", "v2", "a b", "it's", "say \"hi\"", "$X", "a\nb", "#", "\\"];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for file in files {
        seeds.extend(values.iter().map(|value| [value.as_bytes(), b"\xff", file.as_bytes()].concat()));
    }
    rounds(
        "env",
        &seeds,
        &["KEY=", "'", "\"", "\\", "${", "}", "#", "\r\n", "\n", "export ", "="],
        |bytes| {
            let mut parts = bytes.splitn(2, |byte| *byte == 0xff);
            let (Some(value), Some(file)) = (parts.next(), parts.next()) else { return };
            let Ok(value) = String::from_utf8(value.to_vec()) else { return };
            let wanted = EnvValue { name: EnvKey::parse("KEY").unwrap(), value };
            let Ok(patched) = patch(file, std::slice::from_ref(&wanted)) else { return };
            let before = EnvFile::parse(file).unwrap();
            let after = EnvFile::parse(&patched.bytes).expect("what was patched can be read");
            assert_eq!(after.get("KEY").and_then(|value| value.literal()), Some(wanted.value.as_str()));
            for key in before.keys().filter(|key| *key != "KEY") {
                assert!(before.get(key) == after.get(key), "{key} says something else: {bytes:?}");
            }
            let again = patch(&patched.bytes, std::slice::from_ref(&wanted)).unwrap();
            assert!(again.bytes == patched.bytes, "{bytes:?}");
        },
    );
}

#[test]
fn p15_a_damaged_request_is_decoded_or_refused() {
    let tenant = json!({"uid": "a1", "namespace": "n", "name": "t"});
    let place =
        json!({"project": "p", "directory": "/srv/p", "compose": {"files": ["a.yml"], "profiles": ["x"]}});
    let manifest = json!({
        "files": [{"path": "a/b", "sha256": "0".repeat(64), "size": 1, "mode": 420, "owner": {"uid": 1, "gid": 2}, "sensitive": false}],
        "env": {"ownership": "adopted", "patch": [{"name": "A", "value": "b"}]}, "protect": ["data/"], "jobs": ["j"],
        "onChange": [{"paths": ["a"], "services": ["s"], "signal": "SIGHUP"}],
    });
    let operate = json!({
        "tenant": tenant, "place": place, "epoch": 1, "targetHash": "sha256:1", "approach": "Release", "manifest": manifest,
        "contents": [{"path": "a/b", "content": "YQ=="}], "pinned": [{"reference": "r/a:v1", "digest": null, "problem": null}],
        "verify": {"timeoutMs": 1_000, "stableForMs": 1, "http": [{"url": "http://localhost/", "status": 200, "contains": "x"}]},
        "onFailure": "Rollback", "overwrite": false, "action": {"kind": "Rollback", "to": "x", "data": true},
        "snapshot": {"paths": ["a"], "volumes": ["v"], "consistency": "Live", "retain": 5}, "rollbackData": "Never",
        "release": {"imageTag": "v1", "bundleRevision": "sha256:2", "filesHash": "3"},
    });
    let seeds = [
        operate,
        json!({"tenant": tenant, "place": place, "manifest": manifest, "known": "x"}),
        json!({"tenant": tenant, "place": place, "manifest": manifest, "epoch": 1}),
        json!({"tenant": tenant}),
        json!({"references": ["localhost:5000/a/b:v1", "ghcr.io/a@sha256:0"]}),
    ];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_string().into_bytes()).collect();
    let words = [
        "..",
        "/",
        "\"",
        "null",
        "-1",
        "1e999",
        "18446744073709551616",
        "\\ud800",
        "[[[[",
        "\\u0000",
        "sha256:",
        "@",
    ];
    rounds("protocol", &seeds, &words, |bytes| {
        fuzzing::request(bytes);
        fuzzing::reference(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn p13_a_strange_compose_file_is_looked_through_or_refused() {
    let seeds = [
        "name: a\ninclude:\n  - a.yml\n  - {path: [b.yml], env_file: c.env}\nservices:\n  w: {image: x, env_file: [.env]}\n",
        "x-a: &a {env_file: .env, extends: {file: b.yml, service: y}}\nservices:\n  w:\n    <<: *a\n    volumes: !reset []\n",
        "services: {w: {provider: {type: x}}}\n---\nservices:\n  v:\n    label_file: |\n      a\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nservices: {}\n",
    ];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let words = [
        "*a",
        "&a ",
        "<<: ",
        "!!str ",
        "- ",
        ": ",
        "{",
        "[",
        "\n  ",
        "---\n",
        "? ",
        "|\n",
        "\"",
        "'",
        "#",
        "%TAG ! x\n",
        "\t",
    ];
    rounds("compose", &seeds, &words, fuzzing::compose_file);
}

#[test]
fn p9_a_damaged_archive_is_refused_and_touches_nothing_else() {
    struct Patient;
    impl tenantry_agent::snapshot::ProgressSink for Patient {
        fn progress(&self, _bytes: u64) {}
        fn called_off(&self) -> bool {
            false
        }
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("data/deep")).unwrap();
    std::fs::write(folder.path().join("data/deep/file"), "kept").unwrap();
    std::os::unix::fs::symlink("deep", folder.path().join("data/link")).unwrap();
    let tree =
        tenantry_agent::files::Tree::open(folder.path(), tenantry_agent::files::DiskIo::default()).unwrap();
    let (tenant, point) = (TenantUid::parse("a1").unwrap(), OperationId::parse("x").unwrap());
    let archive_dir = tenantry_agent::snapshot::ArchiveDir::open(&tree, &tenant, &point).unwrap();
    let part = archive_dir.keep(0, &RelativePath::parse("data").unwrap(), &Patient).unwrap().archive.unwrap();
    let manifest = std::fs::read(archive_dir.path().join(&part.manifest)).unwrap();
    let archive = std::fs::read(archive_dir.path().join(&part.archive)).unwrap();
    let length = u16::try_from(manifest.len()).unwrap().to_le_bytes();
    let seeds = [[length.as_slice(), &manifest, &archive].concat()];
    let words =
        ["../", "/etc/", "hex:2e2e", "\"to\":\"", "\n", "{\"end\":{}}\n", "9999999999", "deep/", "\0"];
    let at = tempfile::tempdir().unwrap();
    rounds("archive", &seeds, &words, |bytes| fuzzing::archive(at.path(), bytes));
}
