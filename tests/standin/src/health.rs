//! The `health` command: what a HEALTHCHECK runs in an image that has no shell.
//!
//! An engine starts a process in the container for each check, at a cost of some 80 ms of a processor: more than all that
//! the stand-in does. With `--watch` a check therefore stays and watches. Where the stand-in was not healthy, the check
//! ends as soon as it is, or after [`PATIENCE`]; where it was, as soon as it no longer is, or after [`HOLD`].

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::settings::Settings;
use crate::source::Source;

const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a check with `--watch` waits for the stand-in to become healthy.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a check with `--watch` watches one that stays healthy.
const HOLD: Duration = Duration::from_secs(30);
/// Between two questions of one check.
const PAUSE: Duration = Duration::from_millis(50);
/// Where it is told, and remembered, whether the stand-in is healthy.
pub const WATCHED: &str = "/watched";
/// What is answered there where the one before was told that it is healthy, too.
pub const STILL: &str = "still healthy\n";

/// Asks the stand-in of this container for `/health`.
pub fn check() -> Result<(), String> {
    ask(address()?, "/health").map(drop)
}

/// Watches the stand-in of this container for a while.
pub fn watch() -> Result<(), String> {
    let (address, begun) = (address()?, Instant::now());
    let mut was_healthy = false;
    loop {
        let patience = if was_healthy { Duration::ZERO } else { PATIENCE };
        match ask(address, WATCHED) {
            Ok(body) if body != STILL || begun.elapsed() >= HOLD => return Ok(()),
            Ok(_) => was_healthy = true,
            Err(problem) if begun.elapsed() >= patience => return Err(problem),
            Err(_) => {}
        }
        std::thread::sleep(PAUSE);
    }
}

fn address() -> Result<SocketAddr, String> {
    let mut address = Settings::parse(&Source::load()?)?.listen;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    Ok(address)
}

/// What is answered with 200 at a path; anything else is an error.
fn ask(address: SocketAddr, path: &str) -> Result<String, String> {
    let answer = get(address, path).map_err(|error| format!("{address} does not answer: {error}"))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("{address}{path} answers {status:?}"));
    }
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
