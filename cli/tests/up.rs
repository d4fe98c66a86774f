//! The tree of `tenantry up` around the real control plane: agent and operator are stand-ins, for what is looked at is
//! how programs are started, watched and ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const AGENT: &str = r#"#!/bin/sh
trap 'echo agent >> ENDED; exit 0' TERM
echo '{"ready":true,"listen":"127.0.0.1:1","metrics":"127.0.0.1:2"}'
while read -r line; do :; done
"#;
/// Says of the ComposeHost what an operator says once it has reached the agent.
const OPERATOR: &str = r#"#!/bin/sh
trap 'echo operator >> ENDED; exit 0' TERM
kubectl --kubeconfig "$2" patch composehost local --subresource=status --type=merge -p '{"status":{"conditions":
  [{"type":"Ready","status":"True","reason":"Answered","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}' >&2
echo '{"ready":true,"metrics":"127.0.0.1:3"}'
while read -r line; do :; done
"#;

struct Up {
    child: Child,
    folder: TempDir,
}

impl Up {
    fn start() -> Self {
        Self::start_with(&["--listen", "127.0.0.1:0"])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in [("tenantry-agent", AGENT), ("tenantry-operator", OPERATOR)] {
            let path = folder.path().join(name);
            let ended = folder.path().join("ended").display().to_string();
            std::fs::write(&path, script.replace("ENDED", &ended)).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let child = command(folder.path()).args(arguments).spawn().unwrap();
        Self { child, folder }
    }

    /// What the ready file says, once it says something that `good` takes.
    fn ready(&self, good: impl Fn(&Value) -> bool) -> Value {
        let file = self.folder.path().join("ready.json");
        let found = until(Duration::from_mins(1), || {
            let text = std::fs::read(&file).ok()?;
            serde_json::from_slice(&text).ok().filter(&good)
        });
        found.unwrap_or_else(|| panic!("not ready: {}", self.read("log")))
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        kill(u64::from(self.child.id()), signal);
    }

    fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until(Duration::from_secs(10), || child.try_wait().unwrap()).expect("it ends within 10 s")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path) -> Command {
    let standalone = std::env::var_os("TENANTRY_STANDALONE").map(PathBuf::from).expect(
        "TENANTRY_STANDALONE names the control plane's program: `cargo xtask test` builds it and sets this",
    );
    let log = std::fs::File::options().append(true).create(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command
        .args(["up", "--allow-directory", "/srv/tenants", "--state-dir"])
        .arg(folder.join("state"))
        .arg("--ready-file")
        .arg(folder.join("ready.json"))
        .arg("--bin-dir")
        .arg(folder)
        .arg("--standalone")
        .arg(standalone)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command
}

fn kill(pid: u64, signal: &str) {
    let killed = Command::new("/bin/sh").args(["-c", &format!("kill -{signal} {pid}")]).status().unwrap();
    assert!(killed.success(), "kill -{signal} {pid}");
}

fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A zombie that nobody has waited for yet has ended too.
fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn children(ready: &Value) -> Vec<u64> {
    ["agent", "operator", "controlPlane"].iter().map(|name| ready["pids"][name].as_u64().unwrap()).collect()
}

#[test]
fn a_program_that_dies_comes_back_and_all_end_in_order() {
    let mut up = Up::start();
    let first = up.ready(|_| true);
    assert!(up.read("state/agent.yaml").contains(r#"directories: ["/srv/tenants"]"#));

    let second =
        command(up.folder.path()).args(["--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).output().unwrap();
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success(), "{message}");
    assert!(message.contains(&format!("(process {})", up.child.id())), "{message}");

    let agent = first["pids"]["agent"].as_u64().unwrap();
    kill(agent, "KILL");
    let renewed = up.ready(|ready| ready["pids"]["agent"] != agent);
    assert_eq!(renewed["pids"]["controlPlane"], first["pids"]["controlPlane"]);
    assert!(up.read("log").contains("The agent ended by itself (signal: 9 (SIGKILL))"), "{}", up.read("log"));

    up.signal("TERM");
    assert!(up.ended().success(), "{}", up.read("log"));
    assert_eq!(up.read("ended"), "operator\nagent\n");
    assert!(!children(&renewed).into_iter().any(runs));
}

/// What an operator of a cluster writes each few seconds.
fn lease(kubeconfig: &str, holder: &str) {
    let now = String::from_utf8(Command::new("date").args(["-u", "+%FT%T.000000Z"]).output().unwrap().stdout);
    let manifest = format!(
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {{name: tenantry-operator, namespace: default}}\n\
         spec: {{holderIdentity: {holder}, leaseDurationSeconds: 4, renewTime: {:?}}}\n",
        now.unwrap().trim()
    );
    let mut apply = Command::new("kubectl");
    apply.args(["--kubeconfig", kubeconfig, "apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = apply.spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn beside_an_operator_that_leads_the_cluster_it_waits_and_says_for_whom() {
    let first = Up::start();
    let kubeconfig = first.ready(|_| true)["kubeconfig"].as_str().unwrap().to_owned();
    lease(&kubeconfig, "theirs-1");
    let second = Up::start_with(&["--kubeconfig", &kubeconfig]);
    let told =
        until(Duration::from_secs(20), || second.read("log").contains("theirs-1 (lease").then_some(()));
    assert!(told.is_some(), "{}", second.read("log"));
    assert!(!second.folder.path().join("ready.json").exists(), "it did not wait");
    // The lease runs out, for nobody renews it.
    second.ready(|_| true);
}

#[test]
fn a_tree_whose_root_is_killed_leaves_nobody_behind() {
    let up = Up::start();
    let pids = children(&up.ready(|_| true));
    assert!(pids.iter().all(|pid| runs(*pid)));
    up.signal("KILL");
    let gone = until(Duration::from_secs(10), || (!pids.iter().any(|pid| runs(*pid))).then_some(()));
    assert!(gone.is_some(), "still there: {:?}", pids.iter().filter(|pid| runs(**pid)).collect::<Vec<_>>());
}
