//! Names of images without tag and digest, in the one form that the engine gives them.
//!
//! `redis`, `library/redis` and `index.docker.io/library/redis` are one image, `docker.io/library/redis`; a first part
//! with a dot or a port, and `localhost`, is a registry of its own.
//!
//! Caveat: the engine takes a first part in capitals (`Acme/app`) for a registry's host. No such host is reached, and
//! the agent refuses to pull from it, so it is no name here either.

use std::net::Ipv6Addr;

/// The registry that is meant where none is written.
const DEFAULT_HOST: &str = "docker.io";
/// What the engine also takes for it.
const OLD_DEFAULT_HOST: &str = "index.docker.io";
/// Where images of the default registry are that have one part only.
const OFFICIAL: &str = "library";
/// The longest name.
const LONGEST: usize = 255;
/// As many hexadecimal digits are an image's id.
const ID_LENGTH: usize = 64;

/// The one form of a name: registry and path in full. `None` where the engine takes it for no name.
pub fn normal_name(name: &str) -> Option<String> {
    let is_id = name.len() == ID_LENGTH && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if name.len() > LONGEST || is_id {
        return None;
    }
    let (host, path) = match name.split_once('/') {
        Some((OLD_DEFAULT_HOST, path)) => (DEFAULT_HOST, path),
        Some((host, path)) if host == "localhost" || host.contains(['.', ':']) => (host, path),
        _ => (DEFAULT_HOST, name),
    };
    if !is_host(host) || !path.split('/').all(is_part) {
        return None;
    }
    let is_official = host == DEFAULT_HOST && !path.contains('/');
    Some(if is_official { format!("{host}/{OFFICIAL}/{path}") } else { format!("{host}/{path}") })
}

/// Whether two names mean one image. What is no name means none, so it is not even the same as itself.
pub fn same_name(a: &str, b: &str) -> bool {
    normal_name(a).is_some_and(|a| normal_name(b) == Some(a))
}

/// Small letters and digits, held together by `.`, `_`, `__` or hyphens.
fn is_part(part: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let holds = |between: &str| {
        matches!(between, "" | "." | "_" | "__") || between.chars().all(|between| between == '-')
    };
    part.starts_with(is_word) && part.ends_with(is_word) && part.split(is_word).all(holds)
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_label = |label: &str| {
        let is_word = |c: char| c.is_ascii_alphanumeric();
        label.starts_with(is_word) && label.ends_with(is_word) && !label.contains(|c| !is_word(c) && c != '-')
    };
    let is_named = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.split('.').all(is_label),
    };
    let is_port =
        |port: &str| port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_named && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one_part_is_official("redis", "docker.io/library/redis")]
    #[case::the_official_part_may_be_written("library/redis", "docker.io/library/redis")]
    #[case::so_may_the_registry("docker.io/redis", "docker.io/library/redis")]
    #[case::or_both("docker.io/library/redis", "docker.io/library/redis")]
    #[case::the_old_registry_is_the_new("index.docker.io/library/redis", "docker.io/library/redis")]
    #[case::with_one_part_as_well("index.docker.io/redis", "docker.io/library/redis")]
    #[case::two_parts_are_of_the_default_registry("acme/app", "docker.io/acme/app")]
    #[case::three_parts_too("acme/team/app", "docker.io/acme/team/app")]
    #[case::the_default_registry_stays("docker.io/acme/app", "docker.io/acme/app")]
    #[case::localhost_is_a_registry("localhost/app", "localhost/app")]
    #[case::a_port_makes_a_registry("host:5000/app", "host:5000/app")]
    #[case::a_dot_makes_a_registry("ghcr.io/x/y", "ghcr.io/x/y")]
    #[case::an_address_is_a_registry("127.0.0.1:5000/app", "127.0.0.1:5000/app")]
    #[case::a_long_address_is_a_registry("[::1]:5000/app", "[::1]:5000/app")]
    #[case::a_host_may_have_capitals("GHCR.io/x", "GHCR.io/x")]
    #[case::parts_are_held_together("a-b/c__d/e--f.g_h", "docker.io/a-b/c__d/e--f.g_h")]
    fn a_name_has_one_form(#[case] name: &str, #[case] normal: &str) {
        assert_eq!(normal_name(name).as_deref(), Some(normal));
        assert_eq!(normal_name(normal).as_deref(), Some(normal), "the form of the form is itself");
        assert!(same_name(name, normal));
    }

    #[test]
    fn what_the_engine_takes_for_no_name_has_no_form_and_is_the_same_as_nothing() {
        let (long, id) = ("a".repeat(256), "0123456789abcdef".repeat(4));
        let bad = [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "Redis",
            "acme/App",
            "ghcr.io/Acme/app",
            "Acme/app",
            "a b",
            "a:v1",
            "a@b",
            "${A}",
            "$A",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a.b:x/c",
            "a.b:/c",
            "a.b:99999/c",
            "a.b:+1/c",
            "-.io/a",
            ".io/a",
            "[x]:1/a",
            "http://a/b",
            "../a",
            "é",
            "a\n",
            &long,
            &id,
        ];
        for name in bad {
            assert_eq!(normal_name(name), None, "{name:?}");
            assert!(!same_name(name, name), "{name:?}");
        }
    }

    #[test]
    fn other_images_are_not_the_same() {
        for (a, b) in
            [("redis", "acme/redis"), ("a.io/x", "b.io/x"), ("localhost/redis", "redis"), ("a/b", "a/c")]
        {
            assert!(!same_name(a, b), "{a} {b}");
        }
    }
}
