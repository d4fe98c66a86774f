//! The layer that the power-cut tests record is complete: whatever a real agent is seen to change on a disk by the
//! kernel's own account, the layer had announced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tenantry_api::tenant::RollbackData;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::OperationState;

use crate::agent::{Agent, Seen, Started};
use crate::sandbox::{BAD, Sandbox};
use crate::workload::Workload;

/// What is written past the layer, and why that is right.
const EXCEPTIONS: [&str; 2] = [
    // What compose said, for people: nothing is read back from it and nothing is promised of it.
    "compose.log",
    // Copies of what compose reads, for questions to it: nobody relies on them, and they are gone when it has answered.
    "copies",
];
/// System calls that change a disk; not every strace knows all of them.
const TRACED: &str = "trace=?openat,?openat2,?open,?creat,?write,?pwrite64,?writev,?pwritev,?pwritev2,\
                      ?sendfile,?copy_file_range,?splice,?rename,?renameat,?renameat2,?unlink,\
                      ?unlinkat,?rmdir,?mkdir,?mkdirat,?mknod,?mknodat,?chmod,?fchmod,?fchmodat,\
                      ?fchmodat2,?chown,?fchown,?lchown,?fchownat,?truncate,?ftruncate,?fallocate,?fsync,\
                      ?fdatasync,?syncfs,?link,?linkat,?symlink,?symlinkat,?utimensat,?futimesat,?setxattr,\
                      ?lsetxattr,?fsetxattr,?removexattr,?fremovexattr";

/// A change: what kind, and the paths that it is of.
type Change = (String, Vec<PathBuf>);

/// Runs an upgrade and a rollback under strace and compares what the kernel saw with what was announced.
pub async fn every_change_is_announced(workload: Workload) -> Result<()> {
    let mut sandbox = Sandbox::new(workload, "strace").await?;
    let (trace, effects) = (sandbox.folder().join("strace.log"), sandbox.folder().join("effects.log"));
    let wrapper =
        ["strace", "-f", "-b", "execve", "-y", "-s", "0", "-e", TRACED, "-o", &trace.to_string_lossy()];
    let environment = [("TENANTRY_EFFECTS_LOG", effects.display().to_string())];
    let started = Agent::start_under(&wrapper, sandbox.folder(), &environment)?;
    let Started::Ready(mut agent) = started else { anyhow::bail!("no agent under strace") };
    for (tag, even, wanted) in [("v2", true, Outcome::Succeeded), (BAD, false, Outcome::RolledBack)] {
        let (id, mut request) = sandbox.request(tag, even, false)?;
        request.rollback_data = RollbackData::Always;
        let Seen::Ended(status) = agent.run(&id, &request).await? else { anyhow::bail!("the agent died") };
        let OperationState::Ended { outcome, .. } = &status.state else { anyhow::bail!("it still runs") };
        ensure!(*outcome == wanted, "{status:#?}");
    }
    agent.end_well()?;
    let volume = sandbox.volume().into_iter().map(Path::to_path_buf);
    let places: Vec<PathBuf> =
        [sandbox.state(), sandbox.project.directory.clone()].into_iter().chain(volume).collect();
    let seen = changes(&std::fs::read_to_string(&trace)?, &places);
    let announced = announced(&std::fs::read_to_string(&effects)?);
    let mut unannounced = Vec::new();
    for (change, count) in &seen {
        let told = announced.get(change).copied().unwrap_or_default();
        // One announced write may take several calls.
        let enough = if change.0 == "write" || change.0 == "pwrite" { told > 0 } else { told >= *count };
        let excepted =
            change.1.iter().all(|path| path.iter().any(|part| EXCEPTIONS.iter().any(|known| part == *known)));
        if !enough && !excepted {
            unannounced.push(format!("{change:?}: seen {count} times, announced {told} times"));
        }
    }
    ensure!(unannounced.is_empty(), "changes that were not announced:\n{}", unannounced.join("\n"));
    let total: usize = seen.values().sum();
    println!("{}: {total} changes seen by strace, each announced", workload.name());
    ensure!(total > 150, "only {total} changes were seen: is the trace understood?");
    // The other way round, so that a trace that is misread is noticed: renames are all there.
    let renames = |all: &BTreeMap<Change, usize>| -> usize {
        all.iter().filter(|((kind, _), _)| kind == "rename").map(|(_, count)| count).sum()
    };
    let within = announced.into_iter().filter(|((_, paths), _)| is_within(paths, &places)).collect();
    ensure!(
        renames(&seen) == renames(&within),
        "{} renames were seen, {} announced",
        renames(&seen),
        renames(&within)
    );
    Ok(())
}

fn is_within(paths: &[PathBuf], places: &[PathBuf]) -> bool {
    paths.iter().any(|path| places.iter().any(|place| path.starts_with(place)))
}

/// What the layer announced, counted.
fn announced(log: &str) -> BTreeMap<Change, usize> {
    let mut all = BTreeMap::new();
    for line in log.lines() {
        let mut parts = line.split('\t');
        let kind = parts.next().unwrap_or_default().to_owned();
        *all.entry((kind, parts.map(PathBuf::from).collect())).or_default() += 1;
    }
    all
}

/// The changes beneath some places that a trace tells of, counted.
fn changes(trace: &str, places: &[PathBuf]) -> BTreeMap<Change, usize> {
    let mut all = BTreeMap::new();
    for call in calls(trace) {
        if let Some(change) = change(&call).filter(|(_, paths)| is_within(paths, places)) {
            *all.entry(change).or_default() += 1;
        }
    }
    all
}

/// Whole calls: those that another thread's came in between are put together again.
fn calls(trace: &str) -> Vec<String> {
    let mut begun: BTreeMap<&str, String> = BTreeMap::new();
    let mut whole = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(head) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, head.trim_end().to_owned());
        } else if let Some((_, tail)) =
            call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"))
        {
            whole.push(begun.remove(thread).unwrap_or_default() + tail);
        } else {
            whole.push(call.to_owned());
        }
    }
    whole
}

/// What a call changed; `None` where it failed or changed nothing.
fn change(call: &str) -> Option<Change> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(" = "))?;
    if result.trim_start().starts_with('-') {
        return None;
    }
    let file = || Some(vec![descriptor(arguments)?]);
    let (kind, paths) = match name {
        "openat" | "openat2" | "open" | "creat" => {
            let makes = ["O_CREAT", "O_TRUNC"].iter().any(|flag| arguments.contains(flag));
            (if makes { "create" } else { return None }, vec![descriptor(result)?])
        }
        "write" | "writev" => ("write", file()?),
        "pwrite64" | "pwritev" | "pwritev2" => ("pwrite", file()?),
        "fchmod" => ("chmod", file()?),
        "fchown" => ("chown", file()?),
        "fchownat" => ("chown", named(arguments)),
        "ftruncate" => ("truncate", file()?),
        "fsync" | "fdatasync" => ("fsync", file()?),
        "syncfs" => ("syncfs", file()?),
        "fsetxattr" => ("setxattr", file()?),
        "utimensat" if arguments.contains(", NULL, ") => ("utimens", file()?),
        "utimensat" => ("utimens", named(arguments)),
        "mkdirat" => ("mkdir", named(arguments)),
        // The first is what it leads to.
        "symlinkat" => ("symlink", named(arguments).into_iter().skip(1).collect()),
        "unlinkat" if arguments.contains("AT_REMOVEDIR") => ("rmdir", named(arguments)),
        "unlinkat" => ("unlink", named(arguments)),
        "renameat2" if arguments.contains("RENAME_EXCHANGE") => ("exchange", named(arguments)),
        "renameat" | "renameat2" => ("rename", named(arguments)),
        "linkat" => ("link", named(arguments).into_iter().rev().collect()),
        // Any other way to change something is shown as it is, and so is never announced.
        other => (other, named(arguments)),
    };
    Some((kind.to_owned(), paths))
}

/// The path of the first descriptor in a text: `12</path>`.
fn descriptor(text: &str) -> Option<PathBuf> {
    let (_, rest) = text.split_once('<')?;
    let path = rest.split_once('>')?.0;
    Some(plain(path.strip_suffix(" (deleted)").unwrap_or(path)))
}

/// A path without the escapes that strace writes.
fn plain(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::new();
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let octal = |digit: &u8| (b'0'..=b'7').contains(digit);
        let mut code = 0_u32;
        let mut digits = 0;
        while let Some(digit) = rest.next_if(|digit| digits < 3 && octal(digit)) {
            code = code * 8 + u32::from(digit - b'0');
            digits += 1;
        }
        bytes.push(match (digits, rest.peek()) {
            (0, Some(b'n')) => b'\n',
            (0, Some(b't')) => b'\t',
            (0, Some(other)) => *other,
            _ => u8::try_from(code).unwrap_or(b'?'),
        });
        if digits == 0 {
            rest.next();
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Every quoted name, seen from the descriptor before it.
fn named(arguments: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut rest = arguments;
    while let Some((before, after)) = rest.split_once('"') {
        let Some((name, tail)) = after.split_once('"') else { break };
        let folder = before.rsplit_once('<').and_then(|(_, path)| Some(path.split_once('>')?.0));
        all.push(plain(folder.unwrap_or("/")).join(plain(name)));
        rest = tail;
    }
    all
}

/// The reading of a trace, tried on lines as strace writes them.
#[test]
fn a_trace_is_read_as_strace_writes_it() -> Result<()> {
    let trace = "7  mkdirat(5</s>, \"a\", 0700) = 0\n\
                 8  openat2(5</s>, \"f\", {flags=O_WRONLY|O_CREAT|O_EXCL, mode=0600}, 24 <unfinished ...>\n\
                 7  write(9</s/g>, \"\"..., 12) = 12\n\
                 8  <... openat2 resumed>) = 10</s/f>\n\
                 7  unlinkat(5</s>, \"gone\", 0) = -1 ENOENT (No such file or directory)\n\
                 7  renameat(5</s>, \"f\", 6</s/b>, \"f2\") = 0\n\
                 7  openat2(5</s>, \"f\", {flags=O_RDONLY|O_CLOEXEC, resolve=RESOLVE_BENEATH}, 24) = 11</s/f>\n\
                 7  fsync(9</elsewhere>) = 0\n\
                 7  truncate(\"/s/x\", 0) = 0\n";
    let found = changes(trace, &[PathBuf::from("/s")]);
    let change =
        |kind: &str, paths: &[&str]| ((kind.to_owned(), paths.iter().map(PathBuf::from).collect()), 1);
    let wanted: BTreeMap<Change, usize> = [
        change("create", &["/s/f"]),
        change("mkdir", &["/s/a"]),
        change("rename", &["/s/f", "/s/b/f2"]),
        change("truncate", &["/s/x"]),
        change("write", &["/s/g"]),
    ]
    .into();
    ensure!(found == wanted, "{found:#?}");
    let odd = plain("/s/a name with 'quotes' and \\303\\251\\n\\\\");
    ensure!(odd == Path::new("/s/a name with 'quotes' and \u{e9}\n\\"), "{odd:?}");
    descriptor("3</x (deleted)>").filter(|path| path == Path::new("/x")).context("a deleted file's path")?;
    Ok(())
}
