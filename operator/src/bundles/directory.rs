//! A bundle in a folder of the operator's own machine: plain files beneath it, nothing that leads elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open};
use tenantry_planner::bundle::{FILE_LIMIT, SIZE_LIMIT, Sources};

const DEPTH_LIMIT: usize = 16;

/// Reads every file of the bundle.
pub async fn read(base: PathBuf, name: String) -> Result<Sources, String> {
    let reading = tokio::task::spawn_blocking(move || read_now(&base, &name));
    reading.await.map_err(|_| "reading broke off".to_owned())?
}

/// A text that changes when any file does.
pub async fn mark(base: PathBuf, name: String) -> String {
    let marking = tokio::task::spawn_blocking(move || match list(&base, &name) {
        Ok(files) => files.iter().fold(String::new(), |mut text, (path, (_, meta))| {
            let _ =
                write!(text, "{path}:{}:{}:{}.{};", meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
            text
        }),
        Err(problem) => problem,
    });
    marking.await.unwrap_or_default()
}

fn read_now(base: &Path, name: &str) -> Result<Sources, String> {
    let mut sources = Sources::new();
    let mut size = 0;
    for (path, (file, _)) in list(base, name)? {
        let mut content = Vec::new();
        let left = SIZE_LIMIT + 1 - size;
        // A symlink that was put in place of the file meanwhile is not followed.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open(&file, flags, Mode::empty())
            .map_err(std::io::Error::from)
            .and_then(|file| fs::File::from(file).take(left as u64).read_to_end(&mut content))
            .map_err(|error| format!("{path} can't be read: {error}"))?;
        size += content.len();
        if size > SIZE_LIMIT {
            return Err(format!("the files of folder {name} have more than {SIZE_LIMIT} bytes together"));
        }
        sources.insert(path, Arc::from(content));
    }
    Ok(sources)
}

type Listed = BTreeMap<String, (PathBuf, fs::Metadata)>;

fn list(base: &Path, name: &str) -> Result<Listed, String> {
    if name.contains('/') || name.starts_with('.') {
        return Err(format!("{name:?} is not a folder's plain name"));
    }
    let folder = base.join(name);
    let meta = fs::symlink_metadata(&folder)
        .map_err(|_| format!("there is no folder {name} in the operator's bundle directory"))?;
    if !meta.is_dir() {
        return Err(format!("{name} in the operator's bundle directory is not a folder"));
    }
    let mut files = Listed::new();
    walk(&folder, "", 0, &mut files)?;
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, depth: usize, files: &mut Listed) -> Result<(), String> {
    if depth > DEPTH_LIMIT {
        return Err(format!("{prefix} lies deeper than {DEPTH_LIMIT} folders"));
    }
    let entries =
        fs::read_dir(folder).map_err(|error| format!("folder {prefix:?} can't be read: {error}"))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("folder {prefix:?} can't be read: {error}"))?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| format!("a file name in folder {prefix:?} is not UTF-8"))?;
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let meta =
            fs::symlink_metadata(entry.path()).map_err(|error| format!("{path} can't be read: {error}"))?;
        if meta.is_dir() {
            walk(&entry.path(), &path, depth + 1, files)?;
        } else if meta.is_file() {
            files.insert(path, (entry.path(), meta));
        } else {
            return Err(format!("{path} is a symlink or a device; a bundle holds plain files only"));
        }
        if files.len() > FILE_LIMIT {
            return Err(format!("the folder holds more than {FILE_LIMIT} files"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_files_beneath_the_folder_are_read() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("hello/nginx")).unwrap();
        fs::write(base.path().join("hello/bundle.yaml"), "files: []").unwrap();
        fs::write(base.path().join("hello/nginx/site.conf"), "server {}").unwrap();
        let sources = read_now(base.path(), "hello").unwrap();
        assert_eq!(sources.keys().collect::<Vec<_>>(), ["bundle.yaml", "nginx/site.conf"]);
    }

    #[test]
    fn nothing_outside_the_folder_is_read() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("hello")).unwrap();
        fs::write(base.path().join("secret"), "x").unwrap();
        assert!(read_now(base.path(), "../hello").unwrap_err().contains("plain name"));
        assert!(read_now(base.path(), "missing").unwrap_err().contains("no folder"));
        std::os::unix::fs::symlink(base.path().join("secret"), base.path().join("hello/a")).unwrap();
        assert!(read_now(base.path(), "hello").unwrap_err().contains("symlink"));
    }

    #[test]
    fn p15_a_bundle_that_is_too_large_is_refused() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("big")).unwrap();
        fs::write(base.path().join("big/a"), vec![0; SIZE_LIMIT + 1]).unwrap();
        assert!(read_now(base.path(), "big").unwrap_err().contains("bytes together"));
    }
}
