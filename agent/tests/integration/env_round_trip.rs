//! P7: compose's own parser reads back exactly what was written to `.env`, and we read what it reads.
//!
//! Needs the compose plugin (`docker compose`), but no engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use tenantry_api::names::EnvKey;
use tenantry_planner::env::{self, EnvFile, Value};
use tenantry_protocol::EnvValue;

/// A small generator of its own, so that a failure is the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.next() % from.len()]
    }

    fn text(&mut self, letters: &[&str], longest: usize) -> String {
        (0..self.next() % (longest + 1)).map(|_| self.pick(letters)).collect()
    }
}

/// What compose reads for each key, through a service's environment.
fn as_compose_reads(directory: &Path, file: &[u8], keys: &[String]) -> BTreeMap<String, String> {
    std::fs::write(directory.join(".env"), file).unwrap();
    let mut probe = "services:\n  probe:\n    image: probe\n    environment:\n".to_owned();
    for key in keys {
        probe.extend(["      ", key, ": \"${", key, "}\"\n"]);
    }
    std::fs::write(directory.join("compose.yml"), probe).unwrap();
    let output = Command::new("docker")
        .args([
            "compose",
            "-p",
            "probe",
            "-f",
            "compose.yml",
            "--env-file",
            ".env",
            "config",
            "--format",
            "json",
        ])
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .output()
        .expect("this test needs the docker client with its compose plugin");
    assert!(
        output.status.success(),
        "compose can't read the file: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let model: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let environment = model["services"]["probe"]["environment"].as_object().unwrap();
    // `config` doubles every `$`, so that its output can be read again.
    environment.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap().replace("$$", "$"))).collect()
}

const NASTY: [&str; 44] = [
    "",
    " ",
    "v2.10.3",
    "a b",
    " a",
    "a ",
    "\ta\t",
    "#",
    "#a",
    "a#b",
    "a #b",
    "a\t#b",
    "'",
    "\"",
    "'a'",
    "\"a\"",
    "it's",
    "say \"hi\"",
    "both ' and \"",
    "$",
    "$$",
    "$A",
    "${A}",
    "${A:-b}",
    "$5",
    "a$",
    "$(imageTag)",
    "\\",
    "\\\\",
    "a\\",
    "\\n",
    "\\$A",
    "\\'",
    "\\\"",
    "a\nb",
    "\n",
    "a\r\nb",
    "\r",
    "=",
    "A=B",
    "export X=1",
    "\u{feff}x",
    "ü€𝄞",
    "a\u{a0}",
];

const LETTERS: [&str; 24] = [
    "a", "B", "7", " ", "\t", "'", "\"", "\\", "$", "{", "}", "#", "=", ":", "\n", "\r", "`", "!", "ü",
    "\u{a0}", "\u{2003}", "0", "n", "-",
];

/// How the key stands in the file before; `None`: not at all.
const BEFORE: [Option<&str>; 12] = [
    None,
    Some("{}=old\n"),
    Some("{}=old # comment\r\n"),
    Some("{}='old'\n"),
    Some("{}='old' # comment\n"),
    Some("{}=\"old\"\r\n"),
    Some("{}=\"o\nld\" # comment\n"),
    Some("export {}=old\n"),
    Some("  {} = old  \n"),
    Some("{}: old\n"),
    Some("{}=\n"),
    Some("{}= # comment\n{}=twice\n"),
];

#[test]
fn p7_compose_reads_back_exactly_what_was_written() {
    let mut random = Random(7);
    let mut file = "\u{feff}# head\nOTHER='a\nK0=not this\n'\r\n".to_owned();
    let mut values = Vec::new();
    let mut add = |value: String, before: Option<&str>| {
        let key = format!("K{}", values.len());
        file.push_str(&before.unwrap_or_default().replace("{}", &key));
        values.push(EnvValue { name: EnvKey::parse(key).unwrap(), value });
    };
    for value in NASTY {
        for before in BEFORE {
            add(value.to_owned(), before);
        }
    }
    for round in 0..600 {
        add(random.text(&LETTERS, 12), BEFORE[round % BEFORE.len()]);
    }
    // Without a final newline, so that the appended keys must begin with one.
    file.push_str("LAST=x");

    let patched = env::patch(file.as_bytes(), &values).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut keys: Vec<String> = values.iter().map(|value| value.name.to_string()).collect();
    keys.extend(["OTHER", "LAST"].map(str::to_owned));
    let read = as_compose_reads(directory.path(), &patched.bytes, &keys);
    for value in &values {
        assert_eq!(read[value.name.as_str()], value.value, "{}", value.name);
    }
    assert_eq!((read["OTHER"].as_str(), read["LAST"].as_str()), ("a\nK0=not this\n", "x"));
    assert!(values.len() > 1_000 && patched.appended.len() > 80, "{} values", values.len());
}

#[test]
fn values_are_read_as_compose_reads_them() {
    let mut random = Random(11);
    let within: Vec<&str> =
        LETTERS.iter().copied().filter(|letter| !["'", "\"", "\n"].contains(letter)).collect();
    let mut file = String::new();
    let mut keys = Vec::new();
    for round in 0..1_200 {
        let key = format!("K{round}");
        let text = random.text(&within, 10);
        // An odd backslash would escape the closing quote.
        let text = text.trim_end_matches('\\');
        let escapes =
            random.text(&["\\n", "\\t", "\\\\", "\\\"", "\\$", "\\0101", "\\012", "\\q", "\\'", "x", " "], 6);
        let ending = random.pick(&["\n", "\r\n", " # comment\n", "  \n"]);
        let line = match round % 4 {
            0 => format!("{key}={text}{ending}"),
            1 => format!("{key}='{text}'{ending}"),
            2 => format!("{key}=\"{text}\"{ending}"),
            _ => format!("export {key} = \"{escapes}\"{ending}"),
        };
        // `${` without its end is an error of the whole file.
        if !line.contains("${") {
            file.push_str(&line);
            keys.push(key);
        }
    }
    let ours = EnvFile::parse(file.as_bytes()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let read = as_compose_reads(directory.path(), file.as_bytes(), &keys);
    let mut literal = 0;
    for key in &keys {
        if let Some(Value::Literal(bytes)) = ours.get(key) {
            let line = file
                .lines()
                .find(|line| line.contains(&format!("{key}=")) || line.contains(&format!("{key} =")))
                .unwrap();
            assert_eq!(String::from_utf8_lossy(bytes), read[key], "{line:?}");
            literal += 1;
        }
    }
    assert!(literal > 800, "only {literal} values are literal");
}
