//! How is the running controller asked? The other end of `control`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time;

/// The controller answers between two stages of a tick.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no controller answers on {0}; start one with `migrate-ctl run`, or name its --socket")]
    NoController(PathBuf),
    /// By the socket's mode, or by the controller.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    #[error("{0}")]
    Gone(String),
    #[error("{0}; try again in a second")]
    NotReady(String),
    #[error("the controller refuses: {0}")]
    Refused(String),
    #[error("ask the controller on {path}: {source}")]
    Broken { path: PathBuf, source: io::Error },
}

/// Reads one of its pages.
pub fn get(socket: &Path, path: &str) -> Result<String, AskError> {
    ask(socket, Method::GET, path, String::new())
}

/// Has it take a new value.
pub fn put(socket: &Path, path: &str, value: &str) -> Result<String, AskError> {
    ask(socket, Method::PUT, path, value.to_owned())
}

fn ask(socket: &Path, method: Method, path: &str, body: String) -> Result<String, AskError> {
    let broken = |source| AskError::Broken { path: socket.to_path_buf(), source };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let asked = runtime.block_on(async {
        let stream = UnixStream::connect(socket).await.map_err(|error| no_way(socket, error))?;
        let answered = time::timeout(PATIENCE, exchange(stream, method, path, body)).await;
        answered.unwrap_or_else(|elapsed| Err(elapsed.into())).map_err(broken)
    });
    let (status, text) = asked?;
    let why = text.trim_end().to_owned();
    match status {
        StatusCode::OK => Ok(text),
        StatusCode::FORBIDDEN => Err(AskError::NotPermitted(why)),
        StatusCode::NOT_FOUND => Err(AskError::Gone(why)),
        StatusCode::SERVICE_UNAVAILABLE => Err(AskError::NotReady(why)),
        _ => Err(AskError::Refused(why)),
    }
}

fn no_way(socket: &Path, error: io::Error) -> AskError {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound || kind == io::ErrorKind::ConnectionRefused {
        AskError::NoController(socket.to_path_buf())
    } else if kind == io::ErrorKind::PermissionDenied {
        AskError::NotPermitted(format!(
            "{} is for root and for the group that the controller was started with (--group)",
            socket.display()
        ))
    } else {
        AskError::Broken { path: socket.to_path_buf(), source: error }
    }
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: String,
) -> io::Result<(StatusCode, String)> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    // The connection carries the answer until it is complete.
    let (answer, _closed) = tokio::join!(answer, connection);
    answer
}
