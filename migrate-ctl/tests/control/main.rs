//! The control socket as its callers meet it: who is answered, what they may
//! do, and for how long they may take.
//!
//! Credentials belong to threads, so that one process can be several users: root where the tests
//! run as root, as they do in CI. Elsewhere there is one user, and the tests hold for that one.

#![expect(clippy::unwrap_used, reason = "helpers of tests stand outside of test functions")]

#[path = "../exporter/sample/mod.rs"]
mod sample;

mod socket;
mod speech;
mod users;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use migrate_ctl::config::{Config, Mode};
use migrate_ctl::control::{self, Ask, Desk, Place};
use migrate_ctl::explain::{Earlier, Known, explain};
use migrate_ctl::http::Limits;
use migrate_ctl::snapshot::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// A folder of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("migrate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("run/control.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A controller that has done nothing but listen, and the modes that it was told.
struct Desktop {
    folder: Folder,
    _place: Place,
    publish: watch::Sender<Option<Arc<Snapshot>>>,
    modes: mpsc::UnboundedReceiver<Mode>,
}

impl Desktop {
    fn socket(&self) -> PathBuf {
        self.folder.socket()
    }
}

fn open(name: &str, group: Option<u32>) -> Desktop {
    open_with(name, group, Limits::default())
}

fn open_with(name: &str, group: Option<u32>, limits: Limits) -> Desktop {
    let folder = Folder::new(name);
    let (listener, place) = control::bind(&folder.socket(), group).unwrap();
    let (publish, snapshots) = watch::channel(Some(Arc::new(sample::snapshot(2))));
    let (asks, asked) = mpsc::channel(8);
    let (tell, modes) = mpsc::unbounded_channel();
    tokio::spawn(answer(asked, tell));
    let desk = Desk { root: PathBuf::from("/"), snapshots, asks, group };
    tokio::spawn(control::serve(listener, desk, limits));
    Desktop { folder, _place: place, publish, modes }
}

/// The part of the daemon's loop that is about questions.
async fn answer(mut asked: mpsc::Receiver<Ask>, modes: mpsc::UnboundedSender<Mode>) {
    let (config, earlier) = (Config::default(), Earlier::default());
    while let Some(ask) = asked.recv().await {
        match ask {
            Ask::Explain(process, reply) => {
                let known = Known {
                    last: None,
                    earlier: &earlier,
                    mode: Mode::Observe,
                    config: &config,
                    watched_seconds: None,
                    controller: 0,
                };
                let _ = reply.send(explain(&known, &process));
            }
            Ask::Mode(mode, reply) => {
                modes.send(mode).unwrap();
                let _ = reply.send(());
            }
        }
    }
}

/// Sends the bytes and reads until the server closes.
async fn speak(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("the server closes").unwrap_or(0);
    String::from_utf8(answer).unwrap()
}

async fn get(socket: &Path, path: &str) -> String {
    speak(socket, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
}
