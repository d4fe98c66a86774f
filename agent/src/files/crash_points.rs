//! Names for the points at which a test kills the agent: what is done to which kind of file. They hold no id and no
//! number, so that they are the same in every run.

use std::path::Path;

use super::disk_io::Effect;

/// Folders whose entries are all of one kind.
const FOLDERS: [&str; 7] = ["stage", "tx", "restore", "journal", "requests", "aside", "tenants"];

/// What a point before or after an effect is called.
pub(super) fn name(path: &Path, effect: Effect<'_>, when: &str) -> String {
    let (doing, path) = match effect {
        Effect::MakeFolder => ("mkdir", path),
        Effect::Create => ("create", path),
        Effect::Append(_) => ("append", path),
        Effect::Truncate(_) => ("truncate", path),
        Effect::SetOwner(..) => ("chown", path),
        Effect::SetMode(_) => ("chmod", path),
        Effect::SyncFile | Effect::SyncFolder => ("fsync", path),
        Effect::Rename(to) => ("rename", to),
        Effect::Remove => ("remove", path),
        Effect::RemoveFolder => ("rmdir", path),
        Effect::Symlink(_) => ("symlink", path),
        Effect::Link(_) => ("link", path),
        Effect::SetTime => ("utimens", path),
        Effect::SetAttribute => ("setxattr", path),
        Effect::WriteAt(..) => ("write", path),
        Effect::Exchange(with) => ("exchange", with),
        Effect::SyncAll => ("syncfs", path),
    };
    format!("files.{doing}.{}.{when}", class(path))
}

/// The kind of a file: by the folder of ours that it is in, and by its own name where that is one of ours.
fn class(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    if let Some(data) = data(&parts) {
        return data;
    }
    let Some(at) = parts.iter().rposition(|part| FOLDERS.contains(part)) else {
        return match path.file_name().and_then(|name| name.to_str()) {
            Some(".env") => "env".to_owned(),
            Some(".tenantry") => "own".to_owned(),
            Some(".gitignore" | "lock") => "marker".to_owned(),
            Some(name) if name.starts_with(".tenantry-") => "beside".to_owned(),
            _ => "managed".to_owned(),
        };
    };
    let folder = parts[at];
    // The name below is an operation's or a tenant's; only its ending is ours.
    let kind = match parts.get(at + 1).map(|name| name.rsplit_once('.')) {
        Some(Some((_, kind @ ("new" | "undo")))) => format!("{folder}-{kind}"),
        _ => folder.to_owned(),
    };
    match &parts[at + 1..] {
        [] => format!("{kind}-all"),
        [_] => kind,
        [_, below @ ..] => format!("{kind}-{}", leaf(below)),
    }
}

/// Data that is unpacked beside the live: in our own folder, or in the one that a volume is in.
fn data(parts: &[&str]) -> Option<String> {
    let stage = |at: usize| match parts.get(at - 1) {
        Some(&"data") => at > 1 && parts[at - 2] == ".tenantry",
        _ => parts[at].starts_with(".tenantry-"),
    };
    let at = (1..parts.len()).find(|at| stage(*at))?;
    match &parts[at + 1..] {
        // Such a name is also that of a single file that waits beside the one that it is to replace.
        [] => (parts[at - 1] == "data").then(|| "unpacked".to_owned()),
        ["new" | "old"] => Some("unpacked-data".to_owned()),
        [known @ ("ready" | "moved")] => Some(format!("unpacked-{known}")),
        _ => Some("unpacked-content".to_owned()),
    }
}

fn leaf(below: &[&str]) -> &'static str {
    /// Names of ours; any other is a tenant's file.
    const OURS: [&str; 22] = [
        "COMMIT",
        "DONE",
        "plan",
        "beside",
        "index",
        "point",
        "files",
        "data",
        "README",
        "claim",
        "claim.new",
        "baseline",
        "baseline.new",
        "starts",
        "starts.new",
        "gone",
        "lock",
        "journal",
        "requests",
        "compose.log",
        "compose.log.1",
        ".env",
    ];
    match below {
        [only] => OURS.iter().find(|name| *name == only).copied().unwrap_or("content"),
        ["data", ..] => "archive",
        _ => "content",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, effect: Effect<'_>) -> String {
        name(Path::new(path), effect, "before")
    }

    #[test]
    fn a_name_says_what_is_done_to_which_kind_of_file_and_nothing_of_which_one() {
        let commit = Path::new("/srv/acme/.tenantry/tx/op-17.new/COMMIT");
        assert_eq!(of("/x/plan", Effect::Rename(commit)), "files.rename.tx-new-COMMIT.before");
        assert_eq!(
            of("/srv/acme/.tenantry/tx/op-17.undo/3", Effect::Append(b"x")),
            "files.append.tx-undo-content.before"
        );
        assert_eq!(of("/srv/acme/.tenantry/restore/op-17", Effect::SyncFolder), "files.fsync.restore.before");
        assert_eq!(of("/srv/acme/.tenantry/restore", Effect::SyncFolder), "files.fsync.restore-all.before");
        assert_eq!(
            of("/srv/acme/.tenantry/restore/op-17/files/a/b", Effect::Create),
            "files.create.restore-content.before"
        );
        assert_eq!(
            of("/srv/acme/.tenantry/restore/op-17/data/0.tar.zst", Effect::Append(b"x")),
            "files.append.restore-archive.before"
        );
        let uploads = Path::new("/srv/acme/uploads");
        assert_eq!(
            of("/srv/acme/.tenantry/data/op-17-0/new", Effect::Exchange(uploads)),
            "files.exchange.managed.before"
        );
        assert_eq!(of("/srv/acme/.tenantry/data/op-17-0", Effect::SyncFolder), "files.fsync.unpacked.before");
        assert_eq!(
            of("/srv/acme/.tenantry/data/op-17-0/new/a/b", Effect::SetTime),
            "files.utimens.unpacked-content.before"
        );
        assert_eq!(
            of("/volumes/acme_db/.tenantry-op-17-1/ready", Effect::SyncFile),
            "files.fsync.unpacked-ready.before"
        );
        assert_eq!(of("/srv/acme/.tenantry-op-17-0", Effect::Create), "files.create.beside.before");
        assert_eq!(of("/srv/acme/.env", Effect::Remove), "files.remove.env.before");
        assert_eq!(of("/srv/acme/conf.d/a.conf", Effect::SetMode(0o644)), "files.chmod.managed.before");
        assert_eq!(
            of("/state/tenants/0a-1b/claim.new", Effect::SyncFile),
            "files.fsync.tenants-claim.new.before"
        );
        assert_eq!(of("/state/tenants/0a-1b/journal/op-17", Effect::SyncFile), "files.fsync.journal.before");
    }
}
