//! Who may ask the running controller, and who may change it?
//!
//! HTTP/1 over a Unix socket, with the exporter's limits. Reading is for root and the members of
//! one group, acting for root alone; the kernel says who is at the other end of each connection.
//! Owns the socket and what is understood on it. The controller's task owns all state: it is
//! asked by a message and answers between two stages of its loop.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream as Caller;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::config::Mode;
use crate::explain::Explanation;
use crate::http::{self, Answer, Limits, Snapshots, text};
use crate::procfs::{self, Process};
use crate::status::Status;

mod peer;

pub use peer::{Peer, Rights, group_number};

/// Where a controller is asked, unless it was told otherwise.
pub const SOCKET: &str = "/run/migrate-ctl/control.sock";

/// Bytes of a request's body: a word.
const BODY: usize = 64;

/// Why there can be no control socket. Each is one line with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(
        "there is no group `{0}` in /etc/group; create it, or give --group another name or a number"
    )]
    UnknownGroup(String),
    #[error("cannot read /etc/group: {0}; give --group a number")]
    Groups(io::Error),
    #[error("somebody answers on {0} already; stop it, or choose another path with --socket")]
    InUse(PathBuf),
    #[error("{0} is no socket; remove it, or choose another path with --socket")]
    NoSocket(PathBuf),
    #[error(
        "cannot make the socket {path}: {source}; choose a path in a writable folder with --socket"
    )]
    Make { path: PathBuf, source: io::Error },
}

/// What the controller's task is asked to do.
pub enum Ask {
    /// Say why this process stays or moves.
    Explain(Box<Process>, oneshot::Sender<Explanation>),
    /// Stop or allow moves.
    Mode(Mode, oneshot::Sender<()>),
}

/// The socket's file. It is removed when this is dropped.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the socket; one that a killed controller has left is replaced.
pub fn bind(path: &Path, group: Option<u32>) -> Result<(UnixListener, Place), ControlError> {
    let failed = |source| ControlError::Make { path: path.to_path_buf(), source };
    make_folder(path).map_err(failed)?;
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    let place = Place(path.to_path_buf());
    // Until then the umask says who may connect; who that was is looked at all the same.
    if group.is_some() {
        chown(path, None, group).map_err(failed)?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
    Ok((listener, place))
}

/// One folder at most: a wrong path is not to become a tree.
fn make_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    match DirBuilder::new().mode(0o755).create(folder) {
        // Whatever the umask takes away: the group has to get through.
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// A socket on which nobody listens was left by a controller that was killed.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let failed = |source| ControlError::Make { path: path.to_path_buf(), source };
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !there.file_type().is_socket() {
        return Err(ControlError::NoSocket(path.to_path_buf()));
    }
    match Caller::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Ok(_) => Err(ControlError::InUse(path.to_path_buf())),
        Err(error) => Err(failed(error)),
    }
}

/// What all requests share.
#[derive(Clone)]
pub struct Desk {
    /// Where /proc is.
    pub root: PathBuf,
    pub snapshots: Snapshots,
    pub asks: mpsc::Sender<Ask>,
    /// Whose members may read.
    pub group: Option<u32>,
}

/// Answers until it is dropped; its connections end with it.
pub async fn serve(listener: UnixListener, desk: Desk, limits: Limits) {
    let desk = Arc::new(desk);
    http::each_connection(listener, limits, |stream| {
        let desk = Arc::clone(&desk);
        async move { connection(stream, &desk, limits).await }
    })
    .await;
}

async fn connection(stream: UnixStream, desk: &Desk, limits: Limits) {
    let peer = match Peer::of(&stream) {
        Ok(peer) => peer,
        Err(error) => {
            warn!(%error, "the kernel does not say who asks; not answered");
            return;
        }
    };
    http::connection(stream, limits, |request| answer(desk, &peer, request)).await;
}

async fn answer(desk: &Desk, peer: &Peer, request: Request<Incoming>) -> Answer {
    let rights = peer.rights(desk.group);
    if rights == Rights::None {
        return text(
            StatusCode::FORBIDDEN,
            format!(
                "user {} may not ask: be root, or a member of the group that the controller was \
                 started with (--group)\n",
                peer.user
            ),
        );
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (path.as_str(), path.strip_prefix("/explain/")) {
        ("/status", _) if method == Method::GET => status(desk),
        (_, Some(pid)) if method == Method::GET => explain(desk, pid).await,
        ("/mode", _) if method == Method::PUT => mode(desk, peer, rights, request).await,
        ("/status", _) | (_, Some(_)) => refuse_method("GET"),
        ("/mode", _) => refuse_method("PUT"),
        _ => text(StatusCode::NOT_FOUND, "there is /status, /explain/PID and /mode\n"),
    }
}

fn refuse_method(allowed: &'static str) -> Answer {
    let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed} works here\n"));
    refusal.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    refusal
}

fn status(desk: &Desk) -> Answer {
    let snapshot = desk.snapshots.borrow().clone();
    match snapshot {
        Some(snapshot) => json(&Status::of(&snapshot)),
        None => text(StatusCode::SERVICE_UNAVAILABLE, http::NOT_READY),
    }
}

async fn explain(desk: &Desk, pid: &str) -> Answer {
    let Ok(pid) = pid.parse::<u32>() else {
        return text(
            StatusCode::BAD_REQUEST,
            format!("`{}` is no process number\n", procfs::printable(pid)),
        );
    };
    if desk.snapshots.borrow().is_none() {
        return text(StatusCode::SERVICE_UNAVAILABLE, http::NOT_READY);
    }
    let root = desk.root.clone();
    let process = tokio::task::spawn_blocking(move || procfs::process(&root, pid)).await;
    let Ok(Some(process)) = process else {
        return text(StatusCode::NOT_FOUND, format!("there is no process {pid}\n"));
    };
    match ask(desk, |reply| Ask::Explain(Box::new(process), reply)).await {
        Some(explanation) => json(&explanation),
        None => stopping(),
    }
}

async fn mode(desk: &Desk, peer: &Peer, rights: Rights, request: Request<Incoming>) -> Answer {
    if rights != Rights::Act {
        let why = format!("user {} may not change the mode: be root\n", peer.user);
        return text(StatusCode::FORBIDDEN, why);
    }
    let Ok(body) = Limited::new(request.into_body(), BODY).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "a mode is one word\n");
    };
    let word = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
    let Ok(mode) = Mode::from_str(&word, false) else {
        return text(StatusCode::BAD_REQUEST, "the mode is observe or enforce\n");
    };
    if ask(desk, |reply| Ask::Mode(mode, reply)).await.is_none() {
        return stopping();
    }
    info!(mode = mode.name(), user = peer.user, pid = peer.pid, "mode set");
    text(StatusCode::OK, format!("{}\n", mode.name()))
}

/// None: the controller is stopping.
async fn ask<T>(desk: &Desk, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    desk.asks.send(ask(reply)).await.ok()?;
    answer.await.ok()
}

fn stopping() -> Answer {
    text(StatusCode::SERVICE_UNAVAILABLE, "the controller is stopping\n")
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => http::page(StatusCode::OK, "application/json", Bytes::from(body)),
        Err(error) => {
            warn!(%error, "an answer cannot be written as JSON");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written as JSON\n")
        }
    }
}
