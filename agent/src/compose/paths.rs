//! Paths as compose files name them: with variables, `~`, from `/` or relative; each as a path of the tenant's directory.

use std::collections::BTreeMap;

use tenantry_api::names::RelativePath;
use tenantry_planner::env::{EnvFile, Unfilled, filled};
use tenantry_planner::model::{beneath, plain_path};
use tenantry_protocol::FailureCategory;

use super::Explained;
use super::scan::Named;

/// What compose knows when it reads a path.
pub(super) struct Surroundings<'a> {
    /// The tenant's directory.
    directory: &'a str,
    /// What `.env` says, with others put in where a value is made of them.
    env: BTreeMap<String, Result<String, Unfilled>>,
    /// What compose is run with; it wins over `.env`.
    given: BTreeMap<String, String>,
}

/// A path that a compose file names.
enum Resolved {
    /// In the tenant's directory.
    Inside {
        /// Beneath it; empty for the directory itself.
        path: String,
        /// Whether it was named from `/`: compose reads it in the tenant's directory itself, and in no staged tree.
        from_root: bool,
    },
    /// Elsewhere on this host, as the end of a sentence about it.
    Outside(&'static str),
}

impl<'a> Surroundings<'a> {
    pub fn new(directory: &'a str, env: Option<&EnvFile>) -> Self {
        let text = |value: std::ffi::OsString| value.into_string().ok();
        let given = super::login_variables()
            .into_iter()
            .filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        let own = [("PWD".to_owned(), directory.to_owned())];
        let given: BTreeMap<_, _> = given.chain(own).collect();
        Self { directory, env: env.map(|env| env.settled(&given)).unwrap_or_default(), given }
    }

    /// A file as written in a file that is read for `folder`, and whether it was named from `/`.
    pub fn file(
        &self,
        folder: &str,
        named: &Named,
        by: &RelativePath,
    ) -> Result<(RelativePath, bool), Explained> {
        let (path, from_root) = self.inside(folder, named, by)?;
        let path = RelativePath::parse(path).map_err(|error| refused(named, by, &error.to_string()))?;
        Ok((path, from_root))
    }

    /// The same for what compose reads only when it makes containers; `None` where that lies elsewhere on this host,
    /// which the host's policy judges by the resolved model.
    pub fn file_of_containers(
        &self,
        folder: &str,
        named: &Named,
        by: &RelativePath,
    ) -> Result<Option<RelativePath>, Explained> {
        match self.resolved(folder, named, by)? {
            Resolved::Outside(_) => Ok(None),
            Resolved::Inside { path, .. } => {
                RelativePath::parse(path).map(Some).map_err(|error| refused(named, by, &error.to_string()))
            }
        }
    }

    /// A folder, the same; `None` for the directory itself.
    pub fn folder(
        &self,
        folder: &str,
        named: &Named,
        by: &RelativePath,
    ) -> Result<Option<RelativePath>, Explained> {
        let (path, _) = self.inside(folder, named, by)?;
        let parsed = (!path.is_empty()).then(|| RelativePath::parse(path)).transpose();
        parsed.map_err(|error| refused(named, by, &error.to_string()))
    }

    /// A path that must be in the tenant's directory, and whether it was named from `/`.
    fn inside(&self, folder: &str, named: &Named, by: &RelativePath) -> Result<(String, bool), Explained> {
        match self.resolved(folder, named, by)? {
            Resolved::Inside { path, from_root } => Ok((path, from_root)),
            Resolved::Outside(problem) => Err(refused(
                named,
                by,
                &format!(
                    "{problem}: compose reads files of {} alone; copy it there and name the copy",
                    self.directory
                ),
            )),
        }
    }

    /// Any path as written in a file that is read for `folder`.
    fn resolved(&self, folder: &str, named: &Named, by: &RelativePath) -> Result<Resolved, Explained> {
        let refuse = |problem: &str| refused(named, by, problem);
        let written = self.interpolated(&named.path).map_err(|problem| refuse(&problem))?;
        // Git repositories, OCI artifacts, and whatever else a later compose may fetch.
        let remote = ["git@", "github.com/", "gitlab.com/", "bitbucket.org/"];
        if written.contains([':', '#']) || remote.iter().any(|start| written.starts_with(start)) {
            return Err(refuse(
                "is not on this host: the files that compose reads must lie in the tenant's directory",
            ));
        }
        let written = match (written.strip_prefix('~'), self.given.get("HOME")) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
            (Some(_), _) => return Err(refuse("names another user's home: name it plainly")),
            (None, _) => written,
        };
        if written.starts_with('/') {
            let plain = plain_path(&written);
            let inside = beneath(self.directory, &plain);
            return Ok(match inside {
                Some(inside) => Resolved::Inside { path: inside.to_owned(), from_root: true },
                None => Resolved::Outside("is absolute, and not in the tenant's directory"),
            });
        }
        if written.starts_with('\\') {
            return Err(refuse("is no path of this host"));
        }
        let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        for part in written.split('/') {
            match part {
                ".." if parts.pop().is_none() => {
                    return Ok(Resolved::Outside("leaves the tenant's directory"));
                }
                "" | "." | ".." => {}
                other => parts.push(other),
            }
        }
        Ok(Resolved::Inside { path: parts.join("/"), from_root: false })
    }

    /// A text with its variables put in.
    fn interpolated(&self, text: &str) -> Result<String, String> {
        let of_env = |name: &str| self.env.get(name)?.as_ref().ok();
        let known = |name: &str| self.given.get(name).or_else(|| of_env(name)).map(String::as_str);
        let written = filled(text, &known).map_err(|why| {
            format!("depends on variables: {why}; name the files that compose reads plainly")
        })?;
        if written.is_empty() {
            return Err("is empty: its variables are not set in .env".to_owned());
        }
        Ok(written)
    }

    /// A variable of `.env` that steers compose; `None` where it is empty.
    pub fn setting(&self, name: &str) -> Result<Option<String>, Explained> {
        let value = self.env.get(name).cloned().transpose().map_err(|why| {
            let problem = format!(".env: {name} depends on other variables: {why}; write its value out");
            Explained::new(FailureCategory::ComposeInvalid, problem)
        })?;
        Ok(value.filter(|text| !text.is_empty()))
    }
}

fn refused(named: &Named, by: &RelativePath, problem: &str) -> Explained {
    let Named { key, path } = named;
    let message = format!("{by}: {key}: {:?} {problem}", tenantry_api::conditions::bounded(path, 120));
    Explained::new(FailureCategory::PathRefused, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("a.env", Ok("sub/a.env"))]
    #[case("${ENVF}", Ok("sub/web.env"))]
    #[case("$ENVF", Ok("sub/web.env"))]
    #[case("x$$y", Ok("sub/x$y"))]
    #[case("${NONE:-b.env}", Ok("sub/b.env"))]
    #[case("${EMPTY:-b.env}", Ok("sub/b.env"))]
    #[case("${EMPTY-b}.env", Ok("sub/.env"))]
    #[case("${PWD}/c.env", Ok("c.env"))]
    #[case("/srv/acme//conf/../d.env", Ok("d.env"))]
    #[case("${LATER}", Ok("sub/later/web.env"))]
    #[case("${ENVF:+x}", Ok("sub/x"))]
    #[case("${NONE:-${ENVF}}", Ok("sub/web.env"))]
    #[case("${NONE:+y}${NONE:-${EMPTY:-b.env}}", Ok("sub/b.env"))]
    #[case("${NONE}", Err("is empty: its variables are not set in .env"))]
    #[case("${NONE:?set it}", Err("NONE is not set"))]
    #[case("${NONE", Err("no variable"))]
    #[case("${OUT}", Err("leaves the tenant's directory"))]
    #[case("${URL}", Err("is not on this host"))]
    #[case("~/x", Err("is absolute, and not in the tenant's directory"))]
    #[case("~other/x", Err("another user's home"))]
    #[case("/srv/acme2/x", Err("not in the tenant's directory"))]
    #[case("/srv/acme/../x", Err("not in the tenant's directory"))]
    fn a_path_is_what_compose_makes_of_it(#[case] written: &str, #[case] expected: Result<&str, &str>) {
        let env = "ENVF=web.env\nEMPTY=\nLATER=later/${ENVF}\nOUT=../../x\nURL=https://example.org/x\n";
        let env = EnvFile::parse(env.as_bytes()).unwrap();
        let known = Surroundings::new("/srv/acme", Some(&env));
        let named = Named { key: "services.w.env_file".to_owned(), path: written.to_owned() };
        let by = RelativePath::parse("compose.yaml").unwrap();
        match (known.inside("sub", &named, &by), expected) {
            (Ok((found, _)), Ok(path)) => assert_eq!(found, path),
            (Err(error), Err(says)) => assert!(error.message.contains(says), "{}", error.message),
            (Ok((found, _)), Err(_)) => panic!("{written} is {found}"),
            (Err(error), Ok(_)) => panic!("{}", error.message),
        }
    }
}
