//! Declared data: what a tenant keeps in a folder and in a volume, and what it may be at any moment (P9).

use std::collections::BTreeMap;
use std::fs::{File, FileTimes, Permissions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};

/// What a release that fails overwrites in each part.
pub const SPOILED: [&str; 2] = ["photo", "many/03"];
/// What it puts there.
const SPOIL: &[u8] = b"spoiled by bad\n";
/// A second name of the first of them.
const SAME: &str = "odd/same";

/// A file, folder or link: all of it that is the tenant's.
#[derive(Clone, PartialEq, Eq)]
struct Facts {
    /// With the kind of file, as the system gives it.
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    names: u64,
    content: Vec<u8>,
}

/// One thing, and which thing it is.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    facts: Facts,
    /// Inode, and when it was last changed in any way.
    identity: (u64, i64, i64),
}

/// Everything at and below a folder, by its path in it.
#[derive(Clone, PartialEq, Eq)]
struct Tree(BTreeMap<PathBuf, Seen>);

/// Every part that is declared, or would be, by its name.
#[derive(Clone)]
pub struct Data(BTreeMap<&'static str, Tree>);

/// What becomes of declared data in an operation.
pub enum Fate {
    /// Nothing, not even another inode.
    Untouched,
    /// The release spoils it, and the way back brings it back.
    Spoiled,
    /// A person goes back to what it was then.
    GoneBack(Data),
}

/// How far an operation is, as far as that matters to data.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The release was judged to have failed.
    pub failed: bool,
    /// Nothing uses the data any more.
    pub stopped: bool,
    /// It is being brought back, or was.
    pub restoring: bool,
}

impl Data {
    /// As it is now.
    pub fn of(parts: &[(&'static str, PathBuf)]) -> Result<Self> {
        let tree = |(name, at): &(&'static str, PathBuf)| Ok((*name, Tree::of(at)?));
        parts.iter().map(tree).collect::<Result<_>>().map(Self)
    }

    /// What must hold while the agent is dead: each part is wholly one thing or wholly the other.
    pub fn check_while_dead(&self, before: &Self, fate: &Fate, at: Progress) -> Result<()> {
        for (name, now) in &self.0 {
            let live = before.part(name)?;
            match fate {
                Fate::Spoiled if at.failed && !at.restoring => now
                    .is_spoiled(live, at.stopped)
                    .and_then(|spoiled| if spoiled { Ok(()) } else { bail!("it should be spoiled by now") }),
                Fate::Spoiled => now.is_spoiled(live, at.restoring).map(drop),
                Fate::GoneBack(kept) if at.restoring => {
                    now.is(live).or_else(|other| now.is(kept.part(name)?).context(other))
                }
                Fate::Untouched | Fate::GoneBack(_) => now.is_untouched(live),
            }
            .with_context(|| format!("P9: {name} while the agent is dead, {at:?}"))?;
        }
        Ok(())
    }

    /// What must hold when the operation has ended as it should.
    pub fn check_ended(&self, before: &Self, fate: &Fate) -> Result<()> {
        for (name, now) in &self.0 {
            match fate {
                Fate::Untouched => now.is_untouched(before.part(name)?),
                Fate::Spoiled => now.is(before.part(name)?),
                Fate::GoneBack(kept) => now.is(kept.part(name)?),
            }
            .with_context(|| format!("P9: {name} when the operation has ended"))?;
        }
        Ok(())
    }

    fn part(&self, name: &str) -> Result<&Tree> {
        self.0.get(name).with_context(|| format!("{name} was not looked at"))
    }
}

impl Tree {
    fn of(top: &Path) -> Result<Self> {
        let mut all = BTreeMap::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let at = top.join(&path);
            let meta = at.symlink_metadata().with_context(|| at.display().to_string())?;
            let content = if meta.is_file() {
                std::fs::read(&at)?
            } else if meta.is_symlink() {
                std::fs::read_link(&at)?.into_os_string().into_encoded_bytes()
            } else {
                for entry in std::fs::read_dir(&at)? {
                    pending.push(path.join(entry?.file_name()));
                }
                Vec::new()
            };
            let facts = Facts {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                modified: (meta.mtime(), meta.mtime_nsec()),
                // A folder's count is what some file systems make of the folders in it.
                names: if meta.is_dir() { 0 } else { meta.nlink() },
                content,
            };
            all.insert(path, Seen { facts, identity: (meta.ino(), meta.ctime(), meta.ctime_nsec()) });
        }
        Ok(Self(all))
    }

    /// The very same things, unchanged.
    fn is_untouched(&self, other: &Self) -> Result<()> {
        self.is(other)?;
        for (path, seen) in &self.0 {
            let was = other.0.get(path).map(|other| other.identity);
            ensure!(
                was == Some(seen.identity),
                "{} was touched: {:?}, {was:?}",
                path.display(),
                seen.identity
            );
        }
        Ok(())
    }

    /// The same to whoever reads it.
    fn is(&self, other: &Self) -> Result<()> {
        for path in self.0.keys().chain(other.0.keys()) {
            let facts = |tree: &Self| tree.0.get(path).map(|seen| seen.facts.clone());
            let (now, wanted) = (facts(self), facts(other));
            ensure!(now == wanted, "{} is {}, not {}", path.display(), told(now), told(wanted));
        }
        Ok(())
    }

    /// Whether it is as the release that fails leaves it, or still as before; `wholly`: nothing in between.
    fn is_spoiled(&self, before: &Self, wholly: bool) -> Result<bool> {
        let mut spoiled = Vec::new();
        for path in self.0.keys().chain(before.0.keys()) {
            let (now, was) = (self.0.get(path), before.0.get(path));
            let Some((now, was)) = now.zip(was) else { bail!("{} came or went", path.display()) };
            let may = SPOILED.iter().chain(&[SAME]).any(|name| path == Path::new(name));
            let plain = now.facts == was.facts;
            // As long as the release runs it may be about to write.
            let text = &now.facts.content;
            let spoil = if wholly { text == SPOIL } else { SPOIL.starts_with(text) };
            ensure!(
                plain || may && spoil && now.facts.mode == was.facts.mode,
                "{} is {}",
                path.display(),
                told(Some(now.facts.clone()))
            );
            spoiled.extend(may.then_some(!plain));
        }
        ensure!(!spoiled.is_empty(), "there is nothing that could be spoiled");
        let all = spoiled.iter().all(|one| *one);
        ensure!(!wholly || all || spoiled.iter().all(|one| !*one), "some of it is spoiled, and some is not");
        Ok(all)
    }
}

fn told(facts: Option<Facts>) -> String {
    let Some(Facts { mode, owner, modified, names, content }) = facts else { return "missing".to_owned() };
    let shown = String::from_utf8_lossy(&content[..content.len().min(40)]).into_owned();
    format!("{mode:o} {owner:?} of {modified:?}, {names} names, {} bytes {shown:?}", content.len())
}

/// Some megabytes that are as odd as people's data: holes, links, odd modes, owners and times.
pub fn fill(top: &Path, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    for folder in ["many", "odd/sticky", "odd/private", "empty"] {
        std::fs::create_dir_all(top.join(folder))?;
    }
    let mut noise = vec![0; 3 << 20];
    random.fill(&mut noise);
    put(top, "big.bin", &noise, 0o600)?;
    put(top, "photo", &b"a line of a picture\n".repeat(30_000), 0o644)?;
    for n in 0..40 {
        put(top, &format!("many/{n:02}"), format!("{n} of {seed}\n").repeat(n * 7).as_bytes(), 0o644)?;
    }
    put(top, "odd/a name with 'quotes' and \u{e9}", b"odd", 0o664)?;
    put(top, "odd/setuid", b"#!/bin/false\n", 0o4755)?;
    put(top, "odd/none", b"nobody reads this", 0o000)?;
    put(top, "odd/private/key", b"key\n", 0o400)?;
    let holes = File::create(top.join("holes.img"))?;
    holes.set_len(2 << 20)?;
    holes.write_all_at(b"at the end", (2 << 20) - 10)?;
    std::fs::hard_link(top.join("photo"), top.join(SAME))?;
    symlink("../photo", top.join("odd/link"))?;
    symlink("/nowhere/at all", top.join("odd/dangling"))?;
    lchown(top.join("odd/link"), Some(33), Some(33))?;
    for (path, user, group) in [("many/07", 1000, 1000), ("odd/private", 999, 1001), ("odd/none", 65534, 1)] {
        chown(top.join(path), Some(user), Some(group))?;
    }
    for (path, mode) in [("odd/sticky", 0o1777), ("odd/private", 0o700), ("", 0o2770), ("odd/setuid", 0o4755)]
    {
        std::fs::set_permissions(top.join(path), Permissions::from_mode(mode))?;
    }
    let long_ago = UNIX_EPOCH + Duration::new(1_000_000_007, 123_456_789);
    for path in ["big.bin", "many", "empty"] {
        File::open(top.join(path))?.set_times(FileTimes::new().set_modified(long_ago))?;
    }
    Ok(())
}

fn put(top: &Path, path: &str, content: &[u8], mode: u32) -> Result<()> {
    let at = top.join(path);
    std::fs::write(&at, content)?;
    Ok(std::fs::set_permissions(&at, Permissions::from_mode(mode))?)
}

/// What people write while a release runs: after it, no file needs to be as it was.
pub fn write_since(top: &Path, seed: u64) -> Result<()> {
    let big = File::options().write(true).open(top.join("big.bin"))?;
    big.write_all_at(format!("written since, {seed}").as_bytes(), 1 << 20)?;
    put(top, "photo", format!("another picture {seed}").as_bytes(), 0o640)?;
    std::fs::remove_file(top.join("many/11"))?;
    std::fs::create_dir(top.join("new"))?;
    put(top, "new/one", b"new\n", 0o644)?;
    std::fs::remove_file(top.join("odd/link"))?;
    symlink("../many/12", top.join("odd/link"))?;
    chown(top.join("many/12"), Some(1234), Some(1234))?;
    Ok(std::fs::set_permissions(top.join("odd/none"), Permissions::from_mode(0o444))?)
}
