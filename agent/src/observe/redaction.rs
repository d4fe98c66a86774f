//! What is known to be secret of a project, so that its words can be told without (P12). Where a file that may hold secrets
//! can't be read, the words are withheld.

use std::path::Path;

use tenantry_api::names::RelativePath;
use tenantry_planner::redact::Redactor;
use tenantry_process::runtime::{Runtime, blocking};

use crate::compose::Discovered;
use crate::files::{DiskIo, FILE_LIMIT, FilesError, Tree, read_real};

/// The longest content of one secret that is looked for.
const SECRET_LIMIT: u64 = 64 * 1024;

/// Knows the values in the files that compose reads in a directory, staged or not.
pub async fn redactor(runtime: &dyn Runtime, directory: &Path, discovered: &Discovered) -> Redactor {
    let (directory, discovered) = (directory.to_owned(), discovered.clone());
    let read = blocking(runtime, move || of_inputs(&directory, &discovered));
    read.await.unwrap_or_else(|_| {
        let mut redactor = Redactor::default();
        redactor.withhold("what compose reads");
        redactor
    })
}

fn of_inputs(directory: &Path, discovered: &Discovered) -> Redactor {
    let mut redactor = Redactor::default();
    add_env_file(&mut redactor, directory, &directory.join(".env"));
    for path in &discovered.inputs {
        let file = directory.join(path.as_str());
        if !discovered.compose_files.contains(path) {
            add_env_file(&mut redactor, directory, &file);
        } else if let Some(text) = known(&mut redactor, directory, &file, FILE_LIMIT) {
            redactor.add_assignments(&text);
        }
    }
    for file in &discovered.outside.files {
        let Some(text) = &file.text else { continue };
        if file.compose { redactor.add_assignments(text) } else { redactor.add_env_file(text) }
    }
    redactor
}

/// Adds the values of a file like `.env`, if it is there.
pub fn add_env_file(redactor: &mut Redactor, directory: &Path, file: &Path) {
    if let Some(bytes) = known(redactor, directory, file, FILE_LIMIT) {
        redactor.add_env_file(&bytes);
    }
}

/// Adds the content of a file that a container sees as a secret.
pub fn add_secret_file(redactor: &mut Redactor, directory: &Path, file: &Path) {
    let content = known(redactor, directory, file, SECRET_LIMIT);
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    if let (Some(name), Some(content)) = (name, content) {
        redactor.add_secret(&name, &content);
    }
}

/// What is in a file, if it is there; one that can't be read has the words withheld.
fn known(redactor: &mut Redactor, directory: &Path, file: &Path, limit: u64) -> Option<Vec<u8>> {
    match read(directory, file, limit) {
        Ok(content) => content,
        Err(FilesError::NoDirectory(_)) => None,
        Err(problem) => {
            let shown = file.strip_prefix(directory).unwrap_or(file).display().to_string();
            tracing::warn!(file = shown, problem = %problem, "a service's words are withheld");
            redactor.withhold(&shown);
            None
        }
    }
}

/// Follows only symlinks that stay in the tenant's directory, and none outside of it.
fn read(directory: &Path, file: &Path, limit: u64) -> Result<Option<Vec<u8>>, FilesError> {
    if let Some(path) = file.strip_prefix(directory).ok().and_then(Path::to_str)
        && let Ok(path) = RelativePath::parse(path)
    {
        return Tree::open(directory, DiskIo::default())?.read_followed(&path, limit);
    }
    read_real(file, limit)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::files::tests::scratch;

    fn told(directory: &Path, add: impl Fn(&mut Redactor, &Path)) -> String {
        let mut redactor = Redactor::default();
        add(&mut redactor, directory);
        redactor.redact("token canary-12345")
    }

    fn of_env(directory: &Path) -> String {
        told(directory, |redactor, at| add_env_file(redactor, at, &at.join(".env")))
    }

    fn of_secret(directory: &Path) -> String {
        told(directory, |redactor, at| add_secret_file(redactor, at, &at.join("secret")))
    }

    #[test]
    fn p12_what_is_read_is_masked_and_what_is_not_there_has_no_values() {
        let scratch = scratch();
        let at = scratch.path();
        assert_eq!(of_env(at), "token canary-12345");
        assert_eq!(of_env(&at.join("gone")), "token canary-12345");
        std::fs::write(at.join("shared.env"), "TOKEN=canary-12345\n").unwrap();
        symlink("shared.env", at.join(".env")).unwrap();
        assert_eq!(of_env(at), "token ${TOKEN}", "a symlink that stays in the directory is followed");
        std::fs::write(at.join("secret"), "canary-12345\n").unwrap();
        assert_eq!(of_secret(at), "token ${secret}");
    }

    #[test]
    fn p12_what_can_not_be_read_withholds_the_words() {
        let (scratch, elsewhere) = (scratch(), scratch());
        let at = scratch.path();
        std::fs::write(elsewhere.path().join("env"), "TOKEN=canary-12345\n").unwrap();
        symlink(elsewhere.path().join("env"), at.join(".env")).unwrap();
        assert!(of_env(at).starts_with("(withheld: .env can't be read"), "{}", of_env(at));

        std::fs::remove_file(at.join(".env")).unwrap();
        std::fs::create_dir(at.join(".env")).unwrap();
        assert!(of_env(at).starts_with("(withheld: .env "), "{}", of_env(at));

        let long = usize::try_from(SECRET_LIMIT).unwrap() + 1;
        std::fs::write(at.join("secret"), "x".repeat(long)).unwrap();
        assert!(of_secret(at).starts_with("(withheld: secret "), "{}", of_secret(at));
    }
}
