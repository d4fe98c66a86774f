//! The API server over one loopback port, so that a request costs no program's start.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::host::Host;

/// A running `kubectl proxy`.
pub struct Api {
    proxy: Child,
    port: u16,
}

impl Api {
    /// Starts a proxy with the host's kubeconfig.
    pub fn start(host: &Host) -> Result<Self> {
        Self::proxy(host.kubectl(&["proxy", "--port=0"]))
    }

    /// Starts a proxy.
    pub fn proxy(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut proxy = command.spawn().context("kubectl could not be run")?;
        let mut line = String::new();
        let stdout = proxy.stdout.take().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let Some(port) = port else {
            let _ = proxy.kill();
            let _ = proxy.wait();
            bail!("kubectl proxy did not say where it listens: {line:?}");
        };
        Ok(Self { proxy, port })
    }

    /// Changes an object by a merge patch.
    pub fn patch(&self, path: &str, change: &serde_json::Value) -> Result<()> {
        self.request("PATCH", path, "application/merge-patch+json", &change.to_string()).map(drop)
    }

    /// Reads a path as text.
    pub fn get(&self, path: &str) -> Result<String> {
        self.request("GET", path, "application/json", "")
    }

    fn request(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // HTTP/1.0: the answer ends with the connection and is never chunked.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes())?;
        let mut answer = String::new();
        stream.take(64 << 20).read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{method} {path}: {status} {body}");
        Ok(body.to_owned())
    }

    /// How many requests that write anything of ours have been answered.
    pub fn writes(&self) -> Result<f64> {
        let metrics = self.get("/metrics")?;
        let verbs = ["APPLY", "PATCH", "POST", "PUT", "DELETE"];
        let wanted = |line: &str| {
            line.starts_with("apiserver_request_total{")
                && line.contains("group=\"tenantry.dev\"")
                && verbs.iter().any(|verb| line.contains(&format!("verb=\"{verb}\"")))
        };
        Ok(sum(&metrics, wanted))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

/// The sum of the values of the lines that are wanted.
pub fn sum(metrics: &str, wanted: impl Fn(&str) -> bool) -> f64 {
    let values = metrics.lines().filter(|line| wanted(line)).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_wanted_lines_are_added() {
        let metrics = "# HELP a\na{verb=\"PUT\"} 3\na{verb=\"GET\"} 5\na{verb=\"PUT\",code=\"409\"} 1\n";
        assert!((sum(metrics, |line| line.contains("PUT")) - 4.0).abs() < 1e-9);
    }
}
