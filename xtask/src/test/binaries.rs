//! The test programs: built by one run of cargo, which says where they are.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::shell;

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

/// Builds every test program of the workspace.
pub fn build() -> Result<Vec<Binary>> {
    shell::step("Building the tests", || {
        let arguments =
            ["test", "--no-run", "--locked", "--workspace", "--message-format=json-render-diagnostics"];
        let mut command = shell::command("cargo", &arguments);
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cargo could not be run")?;
        ensure!(output.status.success(), "the tests could not be built: why is above");
        let said = String::from_utf8(output.stdout)?;
        let binaries: Vec<Binary> = said.lines().filter_map(read).collect();
        ensure!(!binaries.is_empty(), "cargo built no tests");
        Ok(binaries)
    })
}

/// What a message of cargo's says of a test program; `None` where it is about something else.
fn read(line: &str) -> Option<Binary> {
    let message: Value = serde_json::from_str(line).ok()?;
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
        let message = |id: &str, kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","manifest_path":"/w/agent/Cargo.toml",
                "target":{{"kind":["{kind}"],"name":"it"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
            .replace('\n', "")
        };
        let named = "path+file:///w/agent#tenantry-agent@0.1.0";
        let found = |line: String| read(&line).map(|binary| binary.name);
        assert_eq!(found(message(named, "test", true, "\"/t/it-1\"")).as_deref(), Some("tenantry-agent/it"));
        assert_eq!(found(message(named, "lib", true, "\"/t/it-2\"")).as_deref(), Some("tenantry-agent/lib"));
        let unnamed = "path+file:///w/xtask#0.1.0";
        assert_eq!(found(message(unnamed, "bin", true, "\"/t/x\"")).as_deref(), Some("xtask/it"));
        assert_eq!(found(message(named, "bin", false, "\"/t/agent\"")), None);
        assert_eq!(found(message(named, "lib", true, "null")), None);
        assert_eq!(read(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(read("   Compiling something"), None);
    }
}
