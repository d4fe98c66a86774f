//! Programs and test programs: built and linted by one run of cargo, which says where they are.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::setup::programs;
use crate::shell;

/// The variable that tells cargo with what to compile our own crates, and what it is in a test run.
const LINTER: (&str, &str) = ("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");

/// A test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Its package and target, for example `tenantry-tests/scenarios`.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Its package's folder, where it runs.
    pub folder: PathBuf,
}

/// What one run of cargo built.
pub struct Built {
    /// Every test program.
    pub tests: Vec<Binary>,
    /// What compiler and Clippy warned of.
    pub warnings: Vec<String>,
}

/// Builds every target of the workspace, and lints it on the way: Clippy's driver is the compiler with more lints, so that
/// neither our crates nor what they depend on are compiled a second time for it. Also the folder of our own programs.
pub fn build() -> Result<(PathBuf, Built)> {
    shell::step("Building programs and tests, with Clippy", || {
        let arguments = ["build", "--locked", "--workspace", "--all-targets", "--message-format=json"];
        let output = shell::command("cargo", &arguments)
            .env(LINTER.0, LINTER.1)
            // A first build has nothing to go on from, and keeping account for the next one costs it a fifth.
            .env("CARGO_INCREMENTAL", "0")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cargo could not be run")?;
        let messages: Vec<Value> = String::from_utf8(output.stdout)?
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        // A library and its tests are warned of alike.
        let warnings: BTreeSet<String> = messages.iter().filter_map(warning).collect();
        let warnings: Vec<String> = warnings.into_iter().collect();
        ensure!(output.status.success(), "the workspace could not be built:\n{}", warnings.join("\n"));
        let tests: Vec<Binary> = messages.iter().filter_map(read).collect();
        ensure!(!tests.is_empty(), "cargo built no tests");
        Ok((programs::gather("debug")?, Built { tests, warnings }))
    })
}

/// What the compiler says in a message of cargo's, where it is a warning or an error.
fn warning(message: &Value) -> Option<String> {
    let said = &message["message"];
    let bad = matches!(said["level"].as_str()?, "warning" | "error");
    said["rendered"].as_str().filter(|_| bad).map(str::to_owned)
}

/// What a message of cargo's says of a test program; `None` where it is about something else.
fn read(message: &Value) -> Option<Binary> {
    let of_tests = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let path = message["executable"].as_str().filter(|_| of_tests)?;
    let folder = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    // `path+file:///…/agent#tenantry-agent@0.1.0`, or without a name where the folder has the package's.
    let id = message["package_id"].as_str()?;
    let (place, rest) = id.rsplit_once('#')?;
    let package = rest.split_once('@').map_or_else(|| place.rsplit('/').next(), |(name, _)| Some(name))?;
    let kind = message["target"]["kind"][0].as_str()?;
    let target = if kind == "lib" { "lib" } else { message["target"]["name"].as_str()? };
    Some(Binary { name: format!("{package}/{target}"), path: path.into(), folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_tests_are_told_from_all_else_that_cargo_says() {
        let artifact = |id: &str, kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","manifest_path":"/w/agent/Cargo.toml",
                "target":{{"kind":["{kind}"],"name":"it"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
            .replace('\n', "")
        };
        let named = "path+file:///w/agent#tenantry-agent@0.1.0";
        let message = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
        let found = |line: String| read(&message(&line)).map(|binary| binary.name);
        assert_eq!(found(artifact(named, "test", true, "\"/t/it-1\"")).as_deref(), Some("tenantry-agent/it"));
        assert_eq!(found(artifact(named, "lib", true, "\"/t/it-2\"")).as_deref(), Some("tenantry-agent/lib"));
        let unnamed = "path+file:///w/xtask#0.1.0";
        assert_eq!(found(artifact(unnamed, "bin", true, "\"/t/x\"")).as_deref(), Some("xtask/it"));
        assert_eq!(found(artifact(named, "bin", false, "\"/t/agent\"")), None);
        assert_eq!(found(artifact(named, "lib", true, "null")), None);
        assert_eq!(found(r#"{"reason":"build-finished","success":true}"#.to_owned()), None);
    }

    #[test]
    fn what_is_warned_of_is_told_from_notes() {
        let said = |level: &str| {
            let message = serde_json::json!({"level": level, "rendered": "a lint"});
            warning(&serde_json::json!({"reason": "compiler-message", "message": message}))
        };
        assert_eq!(said("warning").as_deref(), Some("a lint"));
        assert_eq!(said("error").as_deref(), Some("a lint"));
        assert_eq!(said("note"), None);
        assert_eq!(warning(&serde_json::json!({"reason": "build-finished", "success": true})), None);
    }
}
