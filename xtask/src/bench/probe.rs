//! Asking the application again and again until the new version answers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The pause between two questions.
const STEP: Duration = Duration::from_millis(3);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(60);

/// What was seen of one upgrade.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// From the beginning to the new version's first answer.
    pub took: Duration,
    /// From the old version's last answer to the new version's first.
    pub silent: Duration,
}

/// Asks until `version` answers. `begun` is when the upgrade was asked for.
pub fn until(port: u16, version: &str, begun: Instant, within: Duration) -> Result<Seen> {
    let mut last_old = begun;
    loop {
        let answer = ask(port);
        let now = Instant::now();
        match answer {
            Some(answer) if answer == version => {
                return Ok(Seen { took: now - begun, silent: now - last_old });
            }
            Some(_) => last_old = now,
            None => {}
        }
        if now - begun > within {
            bail!("port {port} did not answer as {version} within {} s", within.as_secs());
        }
        std::thread::sleep(STEP);
    }
}

/// The version that answers, if one does.
fn ask(port: u16) -> Option<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.split(' ').nth(1) == Some("200")).then(|| body.trim().to_owned())
}
