//! A registry on loopback.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A registry on loopback that ends with this value.
pub struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    /// Starts Debian's `docker-registry` with its data in `directory`, on a free port or on `port`.
    pub fn start(directory: &Path, port: Option<u16>) -> Result<Self> {
        let port = match port {
            Some(port) => port,
            None => TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
        };
        std::fs::create_dir_all(directory.join("data"))?;
        let address = format!("127.0.0.1:{port}");
        let config = directory.join("registry.yml");
        std::fs::write(&config, configuration(&directory.join("data"), &address))?;
        let log = std::fs::File::create(directory.join("registry.log"))?;
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("docker-registry could not be started: is the package docker-registry installed?")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&address).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("the registry ended ({status}): see {}", directory.join("registry.log").display());
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                bail!("the registry did not listen on {address} within 20 s");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { child, address })
    }

    /// `host:port`. The engine takes loopback addresses without TLS.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(data: &Path, address: &str) -> String {
    format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {:?}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: {address:?}}}\n",
        data.display().to_string()
    )
}
