//! Stray processes: children of an agent that was killed, which still change the tenant's host.
//!
//! Such a stray has the tenant's lock as its standard input, and a lock lives as long as any of those who share it. So
//! the lock stays taken for as long as the child is there, and whoever holds the lock file there is the child: nobody
//! else is ever signalled.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

/// How long a child may take to end by itself once it was asked to.
const ASKED: Duration = Duration::from_secs(5);
/// How long it may take to be gone once it was killed: longer only where the kernel is stuck.
const KILLED: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
/// A child that was just forked holds its parent's locks until it becomes another program, also when the parent is gone.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// A process as `/proc` tells it.
struct Process {
    parent: i32,
    group: i32,
}

/// What frees a lock of those whom a killed agent has left behind.
pub trait StrayProcesses: fmt::Debug + Send + Sync {
    /// Takes a lock that is held, once whoever was left with it is ended; false where somebody else holds it.
    fn take_lock(&self, lock: &File) -> io::Result<bool>;
}

/// The processes of this machine.
#[derive(Debug)]
pub struct OwnProcesses;

impl StrayProcesses for OwnProcesses {
    fn take_lock(&self, lock: &File) -> io::Result<bool> {
        end_strays(lock)?;
        wait_for_lock(lock)
    }
}

/// Takes a lock; false while another has it.
pub(super) fn try_lock(lock: &File) -> io::Result<bool> {
    match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes a lock that whoever has it may be about to let go.
pub(super) fn wait_for_lock(lock: &File) -> io::Result<bool> {
    let deadline = Instant::now() + LOCK_WAIT;
    while !try_lock(lock)? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(LOCK_POLL);
    }
    Ok(true)
}

/// Ends the children that an earlier agent has left with this lock. True when there were some and all are gone.
fn end_strays(lock: &File) -> io::Result<bool> {
    let lock = lock.metadata()?;
    let groups = strays(&lock)?;
    if groups.is_empty() {
        return Ok(false);
    }
    for (signal, patience) in [(Signal::TERM, ASKED), (Signal::KILL, KILLED)] {
        for group in strays(&lock)? {
            tracing::warn!(group, ?signal, "ending a child that outlived an agent that was killed");
            if let Some(group) = Pid::from_raw(group) {
                let _ = rustix::process::kill_process_group(group, signal);
            }
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if strays(&lock)?.is_empty() {
                return Ok(true);
            }
            std::thread::sleep(POLL);
        }
    }
    tracing::error!(?groups, "a child that outlived an agent can't be ended");
    Ok(false)
}

/// The process groups of those who have the lock as their standard input, our own children aside.
fn strays(lock: &Metadata) -> io::Result<BTreeSet<i32>> {
    let (own, own_group) = (rustix::process::getpid().as_raw_pid(), rustix::process::getpgrp().as_raw_pid());
    let mut groups = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()).filter(|pid| *pid != own)
        else {
            continue;
        };
        let same = |input: Metadata| input.dev() == lock.dev() && input.ino() == lock.ino();
        if !std::fs::metadata(format!("/proc/{pid}/fd/0")).is_ok_and(same) {
            continue;
        }
        let Some(process) = read_process(pid) else { continue };
        // A child of this very process, or of such a child, is no stray: its operation waits for it.
        let ours =
            process.parent == own || read_process(process.group).is_some_and(|leader| leader.parent == own);
        if !tenantry_faults::Bug::LeaveTheChild.is_seeded()
            && !ours
            && process.group != own_group
            && process.group > 1
        {
            groups.insert(process.group);
        }
    }
    Ok(groups)
}

fn read_process(pid: i32) -> Option<Process> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything, brackets included.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
    let mut number = || fields.next().and_then(|field| field.parse().ok());
    Some(Process { parent: number()?, group: number()? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::{Command, Stdio};

    use super::*;

    /// A process whose parent is not this one: a shell starts it in a group of its own and ends.
    fn stray(lock: &File, script: &str) -> i32 {
        let text = format!("set -m; ({script}) <&3 >/dev/null 2>&1 & echo $!");
        let output = Command::new("bash")
            .args(["-c", &format!("exec 3<&0; {text}")])
            .stdin(lock.try_clone().unwrap())
            .process_group(0)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    fn alive(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|text| !text.contains(") Z ") && !text.contains(") X "))
    }

    #[test]
    fn p2_a_child_that_outlived_its_agent_is_ended_even_where_it_ignores_being_asked() {
        let folder = tempfile::tempdir().unwrap();
        let lock = File::create(folder.path().join("lock")).unwrap();
        assert!(!end_strays(&lock).unwrap(), "nobody is left behind");
        let stray = stray(&lock, "trap '' TERM; while :; do sleep 0.2; done");
        assert!(alive(stray));
        let began = Instant::now();
        assert!(end_strays(&lock).unwrap());
        assert!(!alive(stray));
        assert!(began.elapsed() < ASKED + KILLED, "{:?}", began.elapsed());
    }

    #[test]
    fn p2_only_who_has_the_lock_as_its_input_and_is_no_child_of_ours_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let lock = File::create(folder.path().join("lock")).unwrap();
        let other = File::create(folder.path().join("other")).unwrap();
        let stranger = stray(&other, "sleep 60");
        let mut own = Command::new("sleep")
            .arg("60")
            .stdin(lock.try_clone().unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        assert!(!end_strays(&lock).unwrap());
        assert!(alive(stranger));
        assert!(own.try_wait().unwrap().is_none());
        own.kill().unwrap();
        assert_eq!(own.wait().unwrap().signal(), Some(9));
        let gone = Pid::from_raw(stranger).unwrap();
        rustix::process::kill_process_group(gone, Signal::KILL).unwrap();
    }
}
