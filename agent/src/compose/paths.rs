//! Paths as compose files name them: with variables, `~`, from `/` or relative; each as a path of the tenant's directory, or
//! of this host.

use std::collections::BTreeMap;
use std::fmt;

use tenantry_api::names::{NameError, RelativePath};
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

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Location {
    /// In the tenant's directory.
    Inside(RelativePath),
    /// Elsewhere on this host: its path from `/`.
    Outside(String),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inside(path) => path.fmt(f),
            Self::Outside(path) => path.fmt(f),
        }
    }
}

/// A folder that paths are seen from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Base {
    /// From `/`.
    pub path: String,
    /// Whether it was named so: compose reads what is seen from it there, and in no staged tree.
    pub from_root: bool,
}

/// A path that a compose file names.
pub(super) struct Resolved {
    /// From `/`.
    path: String,
    /// Whether compose reads it there, and in no staged tree.
    pub from_root: bool,
    /// Whether it climbs out of the tenant's directory by `..`.
    pub climbs: bool,
    /// Whether it climbs further than there are folders: from a staged tree it would lead to another place.
    above_root: bool,
}

impl Resolved {
    /// The folder that paths in this file are seen from, or that this one is.
    pub fn as_base(&self) -> Base {
        Base { path: self.path.clone(), from_root: self.from_root }
    }

    /// The folder above.
    pub fn parent(&self) -> Base {
        let parent = self.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        Base { path: parent.to_owned(), from_root: self.from_root }
    }
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

    /// The tenant's directory, seen as such.
    pub fn top(&self) -> Base {
        Base { path: self.directory.to_owned(), from_root: false }
    }

    /// Where a path from `/` is.
    pub fn location(&self, path: &str) -> Result<Location, NameError> {
        match beneath(self.directory, path) {
            Some(inside) => RelativePath::parse(inside).map(Location::Inside),
            None => Ok(Location::Outside(path.to_owned())),
        }
    }

    /// Where a file is that is written so in `by`, and how it was found.
    pub fn file(&self, base: &Base, named: &Named, by: &str) -> Result<(Location, Resolved), Explained> {
        let resolved = self.resolved(base, named, by)?;
        let refuse = |problem: &str| refused(named, by, problem);
        if resolved.path.chars().any(char::is_control) {
            return Err(refuse("has control characters in it"));
        }
        if resolved.above_root {
            return Err(refuse("climbs above /: write it from / on"));
        }
        let location = self.location(&resolved.path).map_err(|error| refuse(&error.to_string()))?;
        Ok((location, resolved))
    }

    /// The same for what compose reads only when it makes containers; `None` where that lies elsewhere on this host, which
    /// the host's policy judges by the resolved model.
    pub fn file_of_containers(
        &self,
        base: &Base,
        named: &Named,
        by: &str,
    ) -> Result<Option<RelativePath>, Explained> {
        let resolved = self.resolved(base, named, by)?;
        match self.location(&resolved.path).map_err(|error| refused(named, by, &error.to_string()))? {
            Location::Inside(path) => Ok(Some(path)),
            Location::Outside(_) => Ok(None),
        }
    }

    /// A file that must be in the tenant's directory.
    pub fn file_inside(&self, named: &Named, by: &str) -> Result<RelativePath, Explained> {
        let problem = match self.file(&self.top(), named, by)? {
            (Location::Inside(path), Resolved { climbs: false, .. }) => return Ok(path),
            (Location::Outside(_), Resolved { from_root: true, .. }) => {
                "is absolute, and not in the tenant's directory"
            }
            _ => "leaves the tenant's directory",
        };
        let directory = self.directory;
        let copy = format!("{problem}: it names files of {directory} alone; copy it there and name the copy");
        Err(refused(named, by, &copy))
    }

    /// A folder, and how it was found.
    pub fn folder(&self, base: &Base, named: &Named, by: &str) -> Result<Resolved, Explained> {
        let resolved = self.resolved(base, named, by)?;
        match beneath(self.directory, &resolved.path) {
            Some("") => Ok(resolved),
            _ => self.file(base, named, by).map(|(_, resolved)| resolved),
        }
    }

    /// Any path as written in a file whose paths are seen from `base`.
    fn resolved(&self, base: &Base, named: &Named, by: &str) -> Result<Resolved, Explained> {
        let refuse = |problem: &str| refused(named, by, problem);
        let written = self.interpolated(&named.path).map_err(|problem| refuse(&problem))?;
        // Git repositories, OCI artifacts, and whatever else a later compose may fetch.
        let remote = ["git@", "github.com/", "gitlab.com/", "bitbucket.org/"];
        if written.contains([':', '#']) || remote.iter().any(|start| written.starts_with(start)) {
            return Err(refuse("is not on this host: compose reads files of this host alone"));
        }
        let written = match (written.strip_prefix('~'), self.given.get("HOME")) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
            (Some(_), _) => return Err(refuse("names another user's home: name it plainly")),
            (None, _) => written,
        };
        if written.starts_with('/') {
            return Ok(Resolved {
                path: plain_path(&written),
                from_root: true,
                climbs: false,
                above_root: false,
            });
        }
        if written.starts_with('\\') {
            return Err(refuse("is no path of this host"));
        }
        let mut parts: Vec<&str> = base.path.split('/').filter(|part| !part.is_empty()).collect();
        let own = self.directory.split('/').filter(|part| !part.is_empty()).count();
        let (mut climbs, mut above_root) = (false, false);
        for part in written.split('/') {
            match part {
                ".." => {
                    above_root |= parts.pop().is_none();
                    climbs |= parts.len() < own;
                }
                "" | "." => {}
                other => parts.push(other),
            }
        }
        let path = format!("/{}", parts.join("/"));
        Ok(Resolved { path, from_root: base.from_root, climbs, above_root })
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

fn refused(named: &Named, by: &str, problem: &str) -> Explained {
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
    #[case("${OUT}", Ok("/srv/x"))]
    #[case("${URL}", Err("is not on this host"))]
    #[case("~/x", Ok("/root/x"))]
    #[case("~other/x", Err("another user's home"))]
    #[case("/srv/acme2/x", Ok("/srv/acme2/x"))]
    #[case("/srv/acme/../x", Ok("/srv/x"))]
    #[case("../../acme/x", Ok("x"))]
    #[case("../../../etc/x", Ok("/etc/x"))]
    #[case("../../../../etc/x", Err("climbs above /"))]
    #[case("../../a\nb", Err("control characters"))]
    #[case("../../acme/.tenantry/x", Err("agent's own folder"))]
    fn a_path_is_what_compose_makes_of_it(#[case] written: &str, #[case] expected: Result<&str, &str>) {
        let env = "ENVF=web.env\nEMPTY=\nLATER=later/${ENVF}\nOUT=../../x\nURL=https://example.org/x\n";
        let env = EnvFile::parse(env.as_bytes()).unwrap();
        let mut known = Surroundings::new("/srv/acme", Some(&env));
        known.given.insert("HOME".to_owned(), "/root".to_owned());
        let named = Named { key: "services.w.env_file".to_owned(), path: written.to_owned() };
        let base = Base { path: "/srv/acme/sub".to_owned(), from_root: false };
        match (known.file(&base, &named, "compose.yaml"), expected) {
            (Ok((found, _)), Ok(path)) => assert_eq!(found.to_string(), path),
            (Err(error), Err(says)) => assert!(error.message.contains(says), "{}", error.message),
            (Ok((found, _)), Err(_)) => panic!("{written} is {found}"),
            (Err(error), Ok(_)) => panic!("{}", error.message),
        }
    }

    #[test]
    fn a_path_that_climbs_out_says_so_even_where_it_comes_back() {
        let known = Surroundings::new("/srv/acme", None);
        let of = |written: &str| {
            let named = Named { key: "include[0]".to_owned(), path: written.to_owned() };
            let (_, found) = known.file(&known.top(), &named, "compose.yaml").unwrap();
            (found.climbs, found.from_root, known.file_inside(&named, "compose.yaml").is_ok())
        };
        assert_eq!(of("sub/../x"), (false, false, true));
        assert_eq!(of("/srv/acme/x"), (false, true, true));
        assert_eq!(of("../acme/x"), (true, false, false));
        assert_eq!(of("../x"), (true, false, false));
        assert_eq!(of("/srv/x"), (false, true, false));
    }
}
