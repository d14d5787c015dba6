//! Runs a Prometheus of our own on the host and asks it.
//!
//! Speaks HTTP by hand: three kinds of GET to a local server need no client library.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::paths::dies_with_us;

/// The job that [`Server`] scrapes under.
pub(super) const JOB: &str = "migrate";
/// A server that takes longer to start, or a target that is silent for longer, has failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// A Prometheus that scrapes one target every two seconds, until it is dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    dir: PathBuf,
}

impl Server {
    /// Starts `binary` (a path, or a name that is looked for in PATH) with all
    /// its files in a new folder below `parent`.
    pub(crate) fn start(binary: &Path, parent: &Path, target: SocketAddr) -> Result<Self> {
        let address = free_address()?;
        let dir = parent.join(format!("prometheus-{}", address.port()));
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let child = spawn(binary, &dir, address, target).inspect_err(|_| {
            // The error to report is the one that we have already.
            let _ = fs::remove_dir_all(&dir);
        })?;
        let mut server = Self { child, address, dir };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Waits until the target has been read so many times.
    pub(crate) fn wait_for_scrapes(&self, scrapes: u32) -> Result<()> {
        let query = format!("sum_over_time(up{{job=\"{JOB}\"}}[5m]) >= {scrapes}");
        let began = Instant::now();
        while self.query(&query)? == 0 {
            ensure!(
                began.elapsed() < PATIENCE,
                "prometheus has not scraped the target {scrapes} times in {} s: {}",
                PATIENCE.as_secs(),
                self.scrape_error().unwrap_or_else(|error| format!("{error:#}"))
            );
            sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Number of rows of an instant query.
    pub(crate) fn query(&self, query: &str) -> Result<usize> {
        let answer = self
            .api(&format!("/api/v1/query?query={}", url_encode(query)))
            .with_context(|| format!("query {query}"))?;
        let rows = answer["data"]["result"].as_array();
        rows.map(Vec::len).with_context(|| format!("query {query}: no rows in {answer}"))
    }

    /// Number of values of a label, asked as Grafana asks for `label_values(series, label)`.
    fn label_values(&self, series: &str, label: &str) -> Result<usize> {
        let path = format!("/api/v1/label/{label}/values?match[]={}", url_encode(series));
        let answer = self.api(&path).with_context(|| format!("values of {label} in {series}"))?;
        answer["data"].as_array().map(Vec::len).with_context(|| format!("no values in {answer}"))
    }

    pub(super) fn run(&self, query: &str) -> Result<usize> {
        let values = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        match values.and_then(|inside| inside.rsplit_once(',')) {
            Some((series, label)) => self.label_values(series, label.trim()),
            None => self.query(query),
        }
    }

    fn scrape_error(&self) -> Result<String> {
        let answer = self.api("/api/v1/targets")?;
        Ok(answer["data"]["activeTargets"][0]["lastError"].to_string())
    }

    fn api(&self, path: &str) -> Result<Value> {
        let (status, body) = http_get(self.address, path)?;
        let answer: Value = serde_json::from_str(&body)
            .with_context(|| format!("prometheus answered {status}: {body}"))?;
        ensure!(answer["status"] == "success", "prometheus answered {status}: {}", answer["error"]);
        Ok(answer)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            if http_get(self.address, "/-/ready").is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().context("look after prometheus")? {
                bail!("prometheus ended with {status}: {}", self.last_words());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "prometheus is not ready after {} s: {}",
                PATIENCE.as_secs(),
                self.last_words()
            );
            sleep(Duration::from_millis(100));
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        log.lines().next_back().unwrap_or("it said nothing").to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn spawn(binary: &Path, dir: &Path, address: SocketAddr, target: SocketAddr) -> Result<Child> {
    let config = dir.join("prometheus.yml");
    fs::write(&config, scrape_config(target))
        .with_context(|| format!("write {}", config.display()))?;
    let log = File::create(dir.join("log")).context("create the log of prometheus")?;
    dies_with_us(binary)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log of prometheus")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {} (Debian: apt-get install prometheus)", binary.display()))
}

fn scrape_config(target: SocketAddr) -> String {
    format!(
        "global:\n  scrape_interval: 2s\n  scrape_timeout: 2s\n\
         scrape_configs:\n  - job_name: {JOB}\n    static_configs:\n      - targets: ['{target}']\n"
    )
}

/// Free now; whoever takes it next fails by name if somebody was faster.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    listener.local_addr().context("find a free port")
}

/// One GET without keep-alive; version 1.0, so that the body comes in one piece.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let patience = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, patience)
        .with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(patience)).context("set a deadline")?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")
        .with_context(|| format!("ask {address} for {path}"))?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("read the answer of {address} to {path}"))?;
    let answer = String::from_utf8(answer)
        .with_context(|| format!("the answer of {address} to {path} is not text"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("{address} broke off its answer to {path}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("{address} answered {head:?} to {path}"))?;
    Ok((status, body.to_owned()))
}

fn url_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_reach_the_server_whole() {
        assert_eq!(
            url_encode("a{b=~\".+\"}[5s] + é"),
            "a%7Bb%3D~%22.%2B%22%7D%5B5s%5D%20%2B%20%C3%A9"
        );
    }
}
