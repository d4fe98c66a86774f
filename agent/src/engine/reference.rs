//! Image references: `[registry/]repository[:tag][@digest]`.

/// An image reference in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Registry and repository as written.
    pub repository: String,
    /// The tag; `latest` where neither tag nor digest is written.
    pub tag: Option<String>,
    /// The digest, where it is written.
    pub digest: Option<String>,
}

impl Reference {
    /// Takes a reference apart. `None` where it has no repository or strange characters.
    pub fn parse(text: &str) -> Option<Self> {
        let plain =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@' | '[' | ']');
        if text.len() > 512 || !text.chars().all(plain) {
            return None;
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (text, None),
        };
        // A colon before the last slash belongs to a registry's port.
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.to_owned())),
            _ => (name, None),
        };
        if repository.is_empty() || repository.starts_with(['-', '/']) || tag.as_deref() == Some("") {
            return None;
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Some(Self { repository: repository.to_owned(), tag, digest })
    }

    /// This repository at a digest.
    pub fn at(&self, digest: &str) -> String {
        format!("{}@{digest}", self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(String, Option<String>, Option<String>)> {
        Reference::parse(text).map(|reference| (reference.repository, reference.tag, reference.digest))
    }

    #[test]
    fn a_reference_is_taken_apart() {
        let some = |text: &str| Some(text.to_owned());
        let cases = [
            ("nginx", ("nginx", some("latest"), None)),
            ("localhost:5000/a/b", ("localhost:5000/a/b", some("latest"), None)),
            ("localhost:5000/a/b:v1", ("localhost:5000/a/b", some("v1"), None)),
            ("a@sha256:00", ("a", None, some("sha256:00"))),
            ("a:v1@sha256:00", ("a", some("v1"), some("sha256:00"))),
        ];
        for (text, (repository, tag, digest)) in cases {
            assert_eq!(parts(text), Some((repository.to_owned(), tag, digest)), "{text}");
        }
        for bad in ["", ":v1", "a:", "-x", "a b", "$(id)", "/a"] {
            assert_eq!(parts(bad), None, "{bad:?}");
        }
    }
}
