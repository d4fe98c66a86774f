//! What is allowed on this host, read again whenever a person has changed the policy file.
//!
//! The file is looked at when a call begins. One that can't be read any more, or that is not a policy, changes nothing: what
//! it said last counts on, and the host says so. Only `allow` counts while the agent runs; who may ask, and at which
//! address, counts from its next start.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::config::{Allow, Config, FileStamp};

/// How old the file's last change must be for a look from outside to tell all: two changes within one tick of the kernel's
/// clock (at most 10 ms) bear the same time.
const SETTLED: Duration = Duration::from_millis(50);

/// What is allowed on this host.
pub struct LocalPolicy {
    /// As the agent was started.
    started_with: Arc<Config>,
    now: Mutex<Now>,
}

struct Now {
    allow: Arc<Allow>,
    revision: String,
    /// What the file was like when it was last read; absent while it may have changed since without a trace.
    read_as: Option<FileStamp>,
    /// Why what the file says now does not count.
    problem: Option<String>,
}

impl LocalPolicy {
    /// The policy that the agent was started with.
    pub fn new(config: Arc<Config>) -> Self {
        let allow = Arc::new(config.allow.clone());
        // The file may have changed since the agent read it: the first call looks.
        let now = Now { revision: allow.revision(), allow, read_as: None, problem: None };
        Self { started_with: config, now: Mutex::new(now) }
    }

    /// What is allowed.
    pub fn allow(&self) -> Arc<Allow> {
        self.now.lock().allow.clone()
    }

    /// Names what is allowed: another name whenever that is another.
    pub fn revision(&self) -> String {
        self.now.lock().revision.clone()
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.started_with.file
    }

    /// Why what the file says now does not count, in a sentence.
    pub fn problem(&self) -> Option<String> {
        self.now.lock().problem.clone()
    }

    /// Reads the file again where it may have changed. A text that came from no file stays as it was.
    pub fn look(&self, at: Timestamp) {
        if self.started_with.read_as.is_none() {
            return;
        }
        let mut now = self.now.lock();
        let seen = FileStamp::of(self.file());
        if seen.is_some() && seen == now.read_as {
            return;
        }
        // A file that was changed this very moment is read once more with the next call.
        now.read_as = seen.filter(|seen| seen.is_older_than(SETTLED, at));
        match Config::load(self.file()) {
            Ok(config) => self.take(&mut now, config),
            Err(error) => {
                let problem = format!("{error}; what this file said before counts on until it can be read.");
                if now.problem.as_ref() != Some(&problem) {
                    tracing::warn!(file = %self.file().display(), "{problem}");
                }
                now.problem = Some(problem);
            }
        }
    }

    fn take(&self, now: &mut Now, config: Config) {
        now.problem = None;
        for field in self.needs_restart(&config) {
            tracing::warn!(file = %self.file().display(), field, "changed; this counts from the agent's next start");
        }
        let mut allow = config.allow;
        // Where the agent's own files are, and the engine's socket, is as it was at the start.
        let Config { allow: started, .. } = &*self.started_with;
        add(&mut allow.compose.private, &started.compose.private);
        add(&mut allow.compose.sockets, &started.compose.sockets);
        let revision = allow.revision();
        if now.revision != revision {
            tracing::info!(file = %self.file().display(), revision, "what is allowed on this host has changed");
        }
        (now.allow, now.revision) = (Arc::new(allow), revision);
    }

    fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let old = &*self.started_with;
        let changed = [
            ("identity", old.identity != new.identity),
            ("listen", old.listen != new.listen),
            ("metricsListen", old.metrics_listen != new.metrics_listen),
            ("stateDir", old.state_dir != new.state_dir),
            ("tls", old.tls != new.tls),
            ("operators", old.operators != new.operators),
            ("maxOperations", old.max_operations != new.max_operations),
            ("dockerHost", old.docker_host != new.docker_host),
        ];
        changed.into_iter().filter_map(|(field, changed)| changed.then_some(field)).collect()
    }
}

fn add(list: &mut Vec<String>, more: &[String]) {
    list.extend(more.iter().filter(|one| !list.contains(one)).cloned().collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tenantry_planner::policy::Feature;

    use super::*;

    const GOOD: &str = "identity: n5\nlisten: 127.0.0.1:1\nstateDir: state\n\
                        tls: {ca: a, cert: b, key: c}\noperators: [main]\nallow: {directories: [/srv], registries: ['*']}\n";

    struct File {
        folder: tempfile::TempDir,
        policy: LocalPolicy,
    }

    impl File {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), GOOD);
            let config = Config::load(&folder.path().join("agent.yaml")).unwrap();
            Self { folder, policy: LocalPolicy::new(Arc::new(config)) }
        }

        /// Whether two features are granted once the file says this.
        fn after(&self, text: &str) -> [bool; 2] {
            write(self.folder.path(), text);
            self.policy.look(Timestamp::now());
            let allow = self.policy.allow();
            [Feature::HostPid, Feature::HostIpc].map(|feature| allow.compose.features.contains(&feature))
        }
    }

    fn write(folder: &Path, text: &str) {
        let path = folder.join("agent.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    #[test]
    fn p13_what_is_allowed_follows_the_file_whenever_it_changes() {
        let file = File::new();
        let first = file.policy.revision();
        assert_eq!(file.after(&format!("{GOOD}--- {{allow: {{compose: [HostPid]}}}}\n")), [true, false]);
        assert_ne!(file.policy.revision(), first);
        // The same length within the same tick of the clock.
        assert_eq!(file.after(&format!("{GOOD}--- {{allow: {{compose: [HostIpc]}}}}\n")), [false, true]);
        assert_eq!(file.after(GOOD), [false, false]);
        assert_eq!(file.policy.revision(), first);
    }

    #[test]
    fn p13_a_file_that_is_no_policy_any_more_changes_nothing_and_is_told() {
        let file = File::new();
        let granted = format!("{GOOD}--- {{allow: {{compose: [HostPid]}}}}\n");
        assert_eq!(file.after(&granted), [true, false]);
        for broken in ["allow: {", &granted.replace("HostPid", "Everything"), ""] {
            assert_eq!(file.after(broken), [true, false], "{broken}");
            let problem = file.policy.problem().unwrap();
            assert!(problem.contains("agent.yaml") && problem.contains("counts on"), "{problem}");
        }
        std::fs::remove_file(file.folder.path().join("agent.yaml")).unwrap();
        file.policy.look(Timestamp::now());
        assert!(file.policy.problem().unwrap().contains("can't be read"));
        write(file.folder.path(), &granted);
        std::fs::set_permissions(file.folder.path().join("agent.yaml"), PermissionsExt::from_mode(0o666))
            .unwrap();
        file.policy.look(Timestamp::now());
        assert!(file.policy.problem().unwrap().contains("writable by its owner only"));
        assert_eq!(file.after(&granted), [true, false]);
        assert_eq!(file.policy.problem(), None);
    }

    #[test]
    fn p13_the_agents_own_files_stay_private_wherever_a_changed_file_puts_them() {
        let file = File::new();
        let before = file.policy.allow().compose.private.clone();
        file.after(&GOOD.replace("stateDir: state", "stateDir: elsewhere").replace("key: c", "key: d"));
        let now = file.policy.allow().compose.private.clone();
        assert!(before.iter().all(|path| now.contains(path)) && now.len() == 4, "{now:?}");
    }

    #[test]
    fn a_text_that_came_from_no_file_is_never_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.yaml");
        let policy = LocalPolicy::new(Arc::new(Config::parse(&path, GOOD).unwrap()));
        write(folder.path(), &GOOD.replace("/srv", "/home"));
        policy.look(Timestamp::now());
        assert_eq!(policy.allow().directories[0].as_str(), "/srv");
    }
}
