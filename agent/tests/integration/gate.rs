//! A gate before an engine or a registry: it lets everything through, nothing any more, or nobody in.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

/// What becomes of what comes to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It goes through.
    Open,
    /// Connections are taken and kept, and nothing comes or goes.
    Hung,
    /// Connections are cut, and new ones too.
    Shut,
}

/// When the gate changes by itself.
#[derive(Clone, Debug)]
enum Trigger {
    /// As soon as a client says this; that is not let through.
    Said(&'static str, Way),
    /// As soon as so many bytes have come back.
    Came(u64, Way),
}

/// A gate.
#[derive(Clone)]
pub struct Gate {
    way: Arc<watch::Sender<Way>>,
    trigger: Arc<Mutex<Option<Trigger>>>,
    came: Arc<Mutex<u64>>,
}

impl Gate {
    fn new() -> Self {
        Self { way: Arc::new(watch::Sender::new(Way::Open)), trigger: Arc::default(), came: Arc::default() }
    }

    /// A gate before a unix socket; gives the socket's own path, too.
    pub fn before_socket(folder: &Path, real: &str) -> (Self, PathBuf) {
        let (gate, path, real) = (Self::new(), folder.join("gate.sock"), real.to_owned());
        let listener = UnixListener::bind(&path).unwrap();
        let all = gate.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (gate, real) = (all.clone(), real.clone());
                tokio::spawn(async move {
                    if let Ok(server) = UnixStream::connect(real).await {
                        gate.pass(client.into_split(), server.into_split()).await;
                    }
                });
            }
        });
        (gate, path)
    }

    /// A gate before a TCP address; gives its own address, too.
    pub async fn before_address(real: String) -> (Self, String) {
        let gate = Self::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let all = gate.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (gate, real) = (all.clone(), real.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(real).await {
                        gate.pass(client.into_split(), server.into_split()).await;
                    }
                });
            }
        });
        (gate, address)
    }

    /// Changes the gate.
    pub fn turn(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Changes the gate as soon as a client says `text`.
    pub fn turn_at(&self, text: &'static str, way: Way) {
        *self.trigger.lock().unwrap() = Some(Trigger::Said(text, way));
    }

    /// Changes the gate as soon as so many bytes have come back from now on.
    pub fn turn_after(&self, bytes: u64, way: Way) {
        *self.came.lock().unwrap() = 0;
        *self.trigger.lock().unwrap() = Some(Trigger::Came(bytes, way));
    }

    /// Waits until the gate has changed by itself.
    pub async fn turned(&self) {
        self.way.subscribe().wait_for(|way| *way != Way::Open).await.unwrap();
    }

    async fn pass(
        &self,
        client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
        server: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    ) {
        let mut way = self.way.subscribe();
        tokio::select! {
            () = async { tokio::join!(self.copy(client.0, server.1, true), self.copy(server.0, client.1, false)); } => {}
            _ = way.wait_for(|way| *way == Way::Shut) => {}
        }
    }

    async fn copy(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, asks: bool) {
        let mut way = self.way.subscribe();
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read) = from.read(&mut buffer).await {
            if read == 0 {
                break;
            }
            self.watch(&buffer[..read], asks);
            if way.wait_for(|way| *way != Way::Hung).await.is_err()
                || to.write_all(&buffer[..read]).await.is_err()
            {
                break;
            }
        }
        let _ = to.shutdown().await;
    }

    fn watch(&self, bytes: &[u8], asks: bool) {
        let mut trigger = self.trigger.lock().unwrap();
        let turned = match &*trigger {
            Some(Trigger::Said(text, way)) if asks && String::from_utf8_lossy(bytes).contains(text) => {
                Some(*way)
            }
            Some(Trigger::Came(limit, way)) if !asks => {
                let mut came = self.came.lock().unwrap();
                *came += bytes.len() as u64;
                Some(*way).filter(|_| *came > *limit)
            }
            _ => None,
        };
        if let Some(way) = turned {
            *trigger = None;
            drop(trigger);
            self.turn(way);
        }
    }
}
