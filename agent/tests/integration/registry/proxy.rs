//! A way to the registry on which answers are twisted. Each request has a connection of its own, so that none is missed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of requests whose path contains this.
#[derive(Clone, Copy, Debug)]
pub enum Twist {
    /// They are answered as by a registry that counts.
    TooOften(&'static str),
    /// A byte in the middle of the answer is another.
    OtherBytes(&'static str),
}

impl Twist {
    const fn path(self) -> &'static str {
        match self {
            Self::TooOften(path) | Self::OtherBytes(path) => path,
        }
    }
}

/// A way to the registry.
pub struct Proxy {
    address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    twist: Mutex<Option<Twist>>,
    asked: AtomicBool,
}

impl Proxy {
    /// One that lets everything through, until it is told otherwise.
    pub async fn before(registry: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let all = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, registry) = (all.clone(), registry.clone());
                tokio::spawn(async move { state.pass(client, &registry).await });
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// What is done from now on. It begins anew whether anybody asked.
    pub fn twist(&self, twist: Option<Twist>) {
        if twist.is_some() {
            self.state.asked.store(false, Ordering::SeqCst);
        }
        *self.state.twist.lock().unwrap() = twist;
    }

    /// Whether anybody asked for what is twisted.
    pub fn was_asked(&self) -> bool {
        self.state.asked.load(Ordering::SeqCst)
    }
}

impl State {
    async fn pass(&self, mut client: TcpStream, registry: &str) -> Option<()> {
        let mut head: Vec<u8> = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            // An engine tries TLS first; the registry itself says that there is none.
            if head.first().is_some_and(|first| !first.is_ascii_uppercase()) {
                break;
            }
            if client.read_buf(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default();
        let reads = text.starts_with("GET ") || text.starts_with("HEAD ");
        let twist = self.twist.lock().unwrap().filter(|twist| reads && path.contains(twist.path()));
        let mut server = TcpStream::connect(registry).await.ok()?;
        match twist {
            Some(Twist::TooOften(_)) => {
                self.asked.store(true, Ordering::SeqCst);
                client.write_all(&too_often(&text)).await.ok()
            }
            Some(Twist::OtherBytes(_)) => {
                server.write_all(&alone(&text)).await.ok()?;
                let mut answer = Vec::new();
                server.read_to_end(&mut answer).await.ok()?;
                if twist_answer(&mut answer) {
                    self.asked.store(true, Ordering::SeqCst);
                }
                client.write_all(&answer).await.ok()
            }
            None if text.contains(" HTTP/1.1\r\n") => {
                server.write_all(&alone(&text)).await.ok()?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok().map(drop)
            }
            None => {
                server.write_all(&head).await.ok()?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok().map(drop)
            }
        }
    }
}

/// Changes a byte in the middle of an answer's body; false where there is none.
fn twist_answer(answer: &mut [u8]) -> bool {
    let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
    let body = &mut answer[head + 4..];
    // In JSON a digit is as good as another, elsewhere any byte.
    let json = body.first() == Some(&b'{');
    let digit = |byte: &u8| !json || byte.is_ascii_digit() && *byte != b'9' && *byte != b'0';
    let middle = body.len() / 2;
    match body.iter_mut().skip(middle).find(|byte| digit(byte)) {
        Some(byte) => {
            *byte = if json { b'9' } else { !*byte };
            true
        }
        None => false,
    }
}

/// The request, as the only one of its connection.
fn alone(text: &str) -> Vec<u8> {
    text.replacen("\r\n", "\r\nConnection: close\r\n", 1).into_bytes()
}

fn too_often(request: &str) -> Vec<u8> {
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#;
    let shown = if request.starts_with("HEAD ") { "" } else { body };
    format!(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{shown}",
        body.len()
    )
    .into_bytes()
}
