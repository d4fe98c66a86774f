//! Image references: `[registry/]repository[:tag][@digest]`.

/// The longest reference: name, tag and digest at their longest.
const LONGEST: usize = 512;

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
    /// Takes a reference apart, by the grammar that the engine and registries share. `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
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
        let good = is_repository(repository)
            && tag.as_deref().is_none_or(is_tag)
            && digest.as_deref().is_none_or(is_digest);
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        good.then(|| Self { repository: repository.to_owned(), tag, digest })
    }

    /// This repository at a digest.
    pub fn at(&self, digest: &str) -> String {
        format!("{}@{digest}", self.repository)
    }
}

/// `[host[:port]/]component/…`, at most 255 characters.
fn is_repository(text: &str) -> bool {
    let path = match text.split_once('/') {
        Some((host, path)) if host == "localhost" || host.contains(['.', ':']) => {
            if !is_host(host) {
                return false;
            }
            path
        }
        _ => text,
    };
    text.len() <= 255 && path.split('/').all(is_component)
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let joined = text.split(word).filter(|between| !between.is_empty());
    let joins =
        |between: &str| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-');
    text.starts_with(word) && text.ends_with(word) && joined.into_iter().all(joins)
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let named = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            name.split('.').all(|label| !label.is_empty() && !label.starts_with('-'))
                && name.chars().all(plain)
        }
    };
    named && port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(word) && text.len() <= 128 && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(text: &str) -> bool {
    let hex = |digits: &str| digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match text.split_once(':') {
        Some(("sha256", digits)) => digits.len() == 64 && hex(digits),
        Some(("sha512", digits)) => digits.len() == 128 && hex(digits),
        _ => false,
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
        let digest = format!("sha256:{}", "0".repeat(64));
        let (plain, tagged) = (format!("a@{digest}"), format!("a:v1@{digest}"));
        let cases = [
            ("nginx", ("nginx", some("latest"), None)),
            ("localhost:5000/a/b", ("localhost:5000/a/b", some("latest"), None)),
            ("localhost:5000/a/b:v1", ("localhost:5000/a/b", some("v1"), None)),
            ("[::1]:5000/a:v1", ("[::1]:5000/a", some("v1"), None)),
            ("GHCR.io/a-b/c__d/e--f.g:V_1.2-x", ("GHCR.io/a-b/c__d/e--f.g", some("V_1.2-x"), None)),
            (&plain, ("a", None, some(&digest))),
            (&tagged, ("a", some("v1"), some(&digest))),
        ];
        for (text, (repository, tag, digest)) in cases {
            assert_eq!(parts(text), Some((repository.to_owned(), tag, digest)), "{text}");
        }
    }

    #[test]
    fn p13_what_the_engine_would_take_for_something_else_is_no_reference() {
        let (long, tag) = ("a".repeat(256), format!("a:{}", "t".repeat(129)));
        for bad in [
            "",
            ":v1",
            "a:",
            "-x",
            "a b",
            "$(id)",
            "/a",
            "a/",
            "a//b",
            "../a",
            "A/b",
            "ghcr.io/A",
            "a:-v1",
            "a:v1:v2",
            "a@",
            "a@sha256:00",
            "a@md5:0",
            "a:v1@",
            "http://a/b",
            "a.b:x/c",
            "a..b",
            "a___b",
            "a-",
            ".a/b",
            "-.io/a",
            "a?b",
            "ghcr.io:99999/a",
            "[x]/a",
            &long,
            &tag,
        ] {
            assert_eq!(parts(bad), None, "{bad:?}");
        }
    }
}
