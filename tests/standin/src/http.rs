//! As much of HTTP as the stand-in needs: one request a connection, answered in turn.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// A client that says nothing holds the others up for this long at most.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Longest request head that is read.
const HEAD_LIMIT: usize = 8 << 10;

/// An answer: status line's end, and body.
pub struct Answer {
    pub status: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK", body: body.into() }
    }

    pub fn unavailable(body: impl Into<Vec<u8>>) -> Self {
        Self { status: "503 Service Unavailable", body: body.into() }
    }

    pub fn not_found() -> Self {
        Self { status: "404 Not Found", body: b"not found\n".to_vec() }
    }
}

/// Answers requests for as long as the process lives. A client's error is the client's.
pub fn serve(listener: &TcpListener, mut answer: impl FnMut(&str) -> Answer) {
    for stream in listener.incoming().flatten() {
        let _ = exchange(stream, &mut answer);
    }
}

fn exchange(mut stream: TcpStream, answer: impl FnOnce(&str) -> Answer) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = Vec::with_capacity(512);
    let mut chunk = [0; 512];
    while head.len() < HEAD_LIMIT && !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            count => head.extend_from_slice(&chunk[..count]),
        }
    }
    let (head_only, answer) = match request(&head) {
        Some((method, path)) => (method == "HEAD", answer(path)),
        None => (false, Answer { status: "400 Bad Request", body: b"only GET and HEAD\n".to_vec() }),
    };
    let Answer { status, body } = answer;
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    if head_only { Ok(()) } else { stream.write_all(&body) }
}

/// Method and path, without a query, of a request that can be answered.
fn request(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let path = target.split('?').next()?;
    (matches!(method, "GET" | "HEAD") && path.starts_with('/') && version.starts_with("HTTP/1."))
        .then_some((method, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_read() {
        assert_eq!(request(b"GET /version?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"), Some(("GET", "/version")));
        assert_eq!(request(b"HEAD / HTTP/1.0\r\n\r\n"), Some(("HEAD", "/")));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bad in [
            &b""[..],
            b"GET\r\n",
            b"POST / HTTP/1.1\r\n",
            b"GET / HTTP/2\r\n",
            b"GET x HTTP/1.1\r\n",
            b"\xff / HTTP/1.1",
        ] {
            assert_eq!(request(bad), None, "{bad:?}");
        }
    }
}
