//! What a probe may reach: this host's loopback, and a command in a container.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::NameError;

/// The host names that mean this machine and nothing else.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const MAX_URL: usize = 2_048;
/// The most words of a command, its program included.
const MAX_WORDS: usize = 32;
const MAX_WORD: usize = 1_024;

name!(
    /// An `http://` URL of this host's loopback: `localhost`, `127.0.0.1` or `[::1]`, at most 2,048 bytes.
    LoopbackUrl, url
);
name!(
    /// A host and port of this host's loopback: `localhost`, `127.0.0.1` or `[::1]`, and a port from 1.
    LoopbackAddress, address
);

/// The one rule for loopback: a host name that means this machine alone; gives what follows it.
fn after_loopback(authority: &str) -> Option<&str> {
    LOOPBACK.iter().find_map(|host| authority.strip_prefix(host))
}

fn port(text: &str) -> Option<u16> {
    let digits = text.strip_prefix(':')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

fn url(text: &str) -> Result<(), NameError> {
    if text.len() > MAX_URL {
        return Err(NameError::new("URL", text, format!("is longer than {MAX_URL} bytes")));
    }
    let authority = text.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or(rest));
    let local =
        authority.and_then(after_loopback).is_some_and(|rest| rest.is_empty() || port(rest).is_some());
    if local && !text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    let problem = "is not a plain http:// address of the host's loopback; write for example http://localhost:4000/health";
    Err(NameError::new("URL", text, problem))
}

fn address(text: &str) -> Result<(), NameError> {
    if after_loopback(text).and_then(port).is_some_and(|port| port > 0) {
        return Ok(());
    }
    let problem = "is not a host and port of the host's loopback; write for example 127.0.0.1:5432";
    Err(NameError::new("address", text, problem))
}

impl LoopbackAddress {
    /// The addresses to connect to, in this order. No resolver is asked what `localhost` is.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        let port = after_loopback(self.as_str()).and_then(port).unwrap_or_default();
        let (v4, v6) = ((Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into());
        match self.as_str().bytes().next() {
            Some(b'1') => vec![v4],
            Some(b'[') => vec![v6],
            _ => vec![v4, v6],
        }
    }
}

/// A program and its arguments, each as it is: no shell reads them. 1 to 32 words of at most 1,024 bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Argv(Vec<String>);

impl Argv {
    /// Checks words and takes them as a command. A refusal never quotes an argument, which may hold a secret.
    pub fn parse(words: Vec<String>) -> Result<Self, NameError> {
        let refuse = |shown: String, problem: &str| {
            Err(NameError { kind: "command", shown, problem: problem.to_owned() })
        };
        if words.first().is_none_or(String::is_empty) {
            let problem = "names no program: write the program and each argument by itself, for example [pg_isready, -q]";
            return refuse(format!("of {} words", words.len()), problem);
        }
        if words.len() > MAX_WORDS {
            return refuse(format!("of {} words", words.len()), "has more than 32 words");
        }
        for (at, word) in words.iter().enumerate() {
            if word.len() > MAX_WORD {
                return refuse(format!("word {at}"), "is longer than 1024 bytes");
            }
            if word.contains('\0') {
                return refuse(format!("word {at}"), "holds a NUL");
            }
        }
        Ok(Self(words))
    }

    /// The program and its arguments.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Argv {
    type Error = NameError;
    fn try_from(words: Vec<String>) -> Result<Self, NameError> {
        Self::parse(words)
    }
}

impl From<Argv> for Vec<String> {
    fn from(command: Argv) -> Self {
        command.0
    }
}

impl fmt::Debug for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Argv({} words)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p13_only_this_hosts_loopback_can_be_reached() {
        for good in [
            "http://localhost",
            "http://localhost/",
            "http://127.0.0.1:4000/api/health?deep=1",
            "http://[::1]:80/",
            "http://localhost:65535/@x",
        ] {
            assert!(LoopbackUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "http://",
            "https://localhost/",
            "localhost:80",
            "http://localhost.evil/",
            "http://localhost@evil/",
            "http://evil@localhost/",
            "http://localhost:80@evil/",
            "http://localhost\\@evil/",
            "http://localhost#@evil/",
            "http://localhost:+80/",
            "http://localhost:65536/",
            "http://localhost:/",
            "http://LOCALHOST/",
            "http://127.0.0.2/",
            "http://127.1/",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0/",
            "http://localhost/a b",
            "http://localhost/\0",
            "http://localhost/\r\nHost: evil",
        ] {
            let error = LoopbackUrl::parse(bad).unwrap_err().to_string();
            assert!(error.contains("http://localhost:4000/health"), "{bad:?}: {error}");
        }
        assert!(LoopbackUrl::parse(format!("http://localhost/{}", "x".repeat(2_048))).is_err());
    }

    #[test]
    fn p13_an_address_is_a_host_and_port_of_the_loopback() {
        let sockets = |text: &str| LoopbackAddress::parse(text).unwrap().sockets();
        assert_eq!(sockets("127.0.0.1:5432"), ["127.0.0.1:5432".parse().unwrap()]);
        assert_eq!(sockets("[::1]:1"), ["[::1]:1".parse().unwrap()]);
        assert_eq!(sockets("localhost:80"), ["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()]);
        for bad in [
            "",
            "localhost",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:+1",
            "127.0.0.1:-1",
            "127.0.0.1:65536",
            "127.0.0.1:80/",
            "127.0.0.1 :80",
            "127.0.0.1:80\n",
            "127.0.0.1:80\0",
            "127.0.0.2:80",
            "10.0.0.1:80",
            "0.0.0.0:80",
            "::1:80",
            "[::]:80",
            "example.org:80",
            "localhost.evil:80",
            "http://localhost:80",
            ":80",
        ] {
            let error = LoopbackAddress::parse(bad).unwrap_err().to_string();
            assert!(error.contains("write for example 127.0.0.1:5432"), "{bad:?}: {error}");
        }
        assert!(LoopbackAddress::parse("1".repeat(5_000)).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn p12_p15_a_command_is_a_bounded_list_of_words_that_a_refusal_does_not_quote() {
        let parse = |words: &[&str]| Argv::parse(words.iter().map(|&word| word.to_owned()).collect());
        for good in [&["pg_isready", "-q"][..], &["--privileged"], &["sh", "-c", "a; b", ""], &["x"; 32]] {
            assert_eq!(parse(good).unwrap().words(), good);
        }
        let long = "s3cret".repeat(1_000);
        for (bad, cause) in [
            (&[][..], "names no program"),
            (&["", "x"], "names no program"),
            (&["x"; 33], "more than 32"),
            (&["psql", &long], "word 1 is longer than 1024 bytes"),
            (&["psql", "s3cret\0"], "word 1 holds a NUL"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(cause) && !error.contains("s3cret"), "{error}");
        }
        assert_eq!(format!("{:?}", parse(&["psql", "s3cret"]).unwrap()), "Argv(2 words)");
    }
}
