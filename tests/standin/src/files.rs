//! Mounted files that are only shown: read at the start and on SIGHUP, served as they were then. A test sees in them
//! whether a container has read a file as it is now. And files that a release spoils: overwritten at the start.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::source::Source;

/// The text of each file, by its path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Reads the files, and the files directly in the directories, that `STANDIN_FILES` names, separated by `:`.
pub fn read(source: &Source) -> Result<Files, String> {
    let mut files = Files::new();
    for path in source.get("STANDIN_FILES").unwrap_or_default().split(':').filter(|path| !path.is_empty()) {
        add(Path::new(path), &mut files)
            .map_err(|error| format!("STANDIN_FILES names {path}, which cannot be read: {error}"))?;
    }
    Ok(files)
}

/// Overwrites the files that `SPOILS` names, separated by `:`, with the version.
pub fn spoil(source: &Source, version: &str) -> Result<(), String> {
    for path in source.get("SPOILS").unwrap_or_default().split(':').filter(|path| !path.is_empty()) {
        fs::write(path, format!("spoiled by {version}\n"))
            .map_err(|error| format!("SPOILS names {path}, which cannot be written: {error}"))?;
    }
    Ok(())
}

fn add(path: &Path, files: &mut Files) -> std::io::Result<()> {
    if !path.is_dir() {
        files.insert(path.to_string_lossy().into_owned(), fs::read(path)?);
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_file() {
            files.insert(path.to_string_lossy().into_owned(), fs::read(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_are_read() {
        let root = std::env::temp_dir().join(format!("standin-files-{}", std::process::id()));
        fs::create_dir_all(root.join("dir/deeper")).unwrap();
        fs::write(root.join("single"), "one").unwrap();
        fs::write(root.join("dir/a"), "two").unwrap();
        let (single, dir) = (root.join("single"), root.join("dir"));
        let files =
            read(&Source::of(&[("STANDIN_FILES", &format!("{}:{}", single.display(), dir.display()))]));
        let missing = read(&Source::of(&[("STANDIN_FILES", "/does/not/exist")]));
        fs::remove_dir_all(&root).unwrap();
        let expected = [(single, "one"), (dir.join("a"), "two")]
            .map(|(path, text)| (path.to_string_lossy().into_owned(), text.as_bytes().to_vec()));
        assert_eq!(files.unwrap(), Files::from(expected));
        assert!(missing.unwrap_err().contains("/does/not/exist"));
    }

    #[test]
    fn what_a_release_spoils_is_overwritten() {
        let path = std::env::temp_dir().join(format!("standin-spoils-{}", std::process::id()));
        fs::write(&path, "precious").unwrap();
        let spoiled = spoil(&Source::of(&[("SPOILS", &path.display().to_string())]), "v9");
        let text = fs::read_to_string(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!((spoiled, text.unwrap()), (Ok(()), "spoiled by v9\n".to_owned()));
        assert!(
            spoil(&Source::of(&[("SPOILS", "/does/not/exist")]), "v9").unwrap_err().contains("/does/not")
        );
    }
}
