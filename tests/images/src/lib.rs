//! A registry on loopback and the stand-in application's images in it, for scenarios, quickstart and benchmarks.
//!
//! Nothing can be pulled from elsewhere, so every image is made here: the static stand-in binary `FROM scratch`, with
//! variables that say how it behaves.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
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

/// The stand-in application as an image.
#[derive(Clone, Debug, Default)]
pub struct Image {
    variables: Vec<(String, String)>,
    healthcheck: bool,
    unique: Option<usize>,
}

impl Image {
    /// An image whose application answers with `version`.
    pub fn version(version: &str) -> Self {
        Self::default().with("VERSION", version)
    }

    /// Sets a variable: see the stand-in's own documentation.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the image a healthcheck of its own, each second.
    #[must_use]
    pub fn healthcheck(mut self) -> Self {
        self.healthcheck = true;
        self
    }

    /// Adds this many random bytes, so that no layer of it is on any host yet.
    #[must_use]
    pub fn unique(mut self, bytes: usize) -> Self {
        self.unique = Some(bytes);
        self
    }

    /// Makes the image under `reference`, local only.
    pub fn build(&self, standin: &Path, reference: &str) -> Result<()> {
        let archive = self.archive(standin)?;
        let mut command = Command::new("docker");
        command.arg("import").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        for (name, value) in &self.variables {
            command.arg("--change").arg(format!("ENV {name}=\"{value}\""));
        }
        command.args(["--change", "EXPOSE 8080", "--change", "ENTRYPOINT [\"/standin\"]"]);
        if self.healthcheck {
            let check = "HEALTHCHECK --interval=200ms --timeout=1m --retries=4 CMD [\"/standin\",\"health\",\"--watch\"]";
            command.args(["--change", check]);
        }
        let mut child = command.args(["-", reference]).spawn().context("docker could not be run")?;
        let fed = child.stdin.take().context("no standard input")?.write_all(&archive);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("docker import of {reference} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(fed?)
    }

    /// Makes the image, pushes it, and removes the local copy: the next one who wants it must pull.
    pub fn publish(&self, standin: &Path, reference: &str) -> Result<()> {
        self.build(standin, reference)?;
        docker(&["push", "--quiet", reference])?;
        docker(&["rmi", "--force", reference])
    }

    fn archive(&self, standin: &Path) -> Result<Vec<u8>> {
        let folder = standin.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        let name = standin.file_name().context("the stand-in has a file name")?;
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--owner=0", "--group=0", "--mtime=@0", "-C"]).arg(folder);
        tar.args(["-cf", "-"]).arg(name);
        let scratch = tempfile::tempdir()?;
        if let Some(bytes) = self.unique {
            let mut random = vec![0; bytes];
            std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
            std::fs::write(scratch.path().join("stamp"), random)?;
            tar.arg("-C").arg(scratch.path()).arg("stamp");
        }
        let output = tar.stderr(Stdio::inherit()).output().context("tar could not be run")?;
        if !output.status.success() {
            bail!("tar of the stand-in at {} failed", standin.display());
        }
        Ok(output.stdout)
    }
}

/// Runs a docker command that must succeed.
pub fn docker(arguments: &[&str]) -> Result<()> {
    let output = Command::new("docker").args(arguments).output().context("docker could not be run")?;
    if !output.status.success() {
        bail!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
