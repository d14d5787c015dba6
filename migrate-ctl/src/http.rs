//! Who may ask, and what do they get?
//!
//! Serves the last snapshot over HTTP/1 for reading only: nothing here changes
//! anything. A root process must not be held up or fed by strangers, so each
//! connection carries one request, has a deadline, and there are few of them.
//! What a scrape says is `metrics`' business.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time;

use crate::metrics;
use crate::snapshot::Snapshot;

/// The newest snapshot; none before the first tick has ended.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// How long and how much one client may occupy us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the connection to the end of the request's head.
    pub head: Duration,
    /// From the connection to the end of the answer.
    pub connection: Duration,
    /// Connections at a time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Bytes of a request's head. hyper takes no less than 8192.
    pub head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(4),
            connection: Duration::from_secs(30),
            connections: 8,
            head_bytes: 16 * 1024,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(
        "listen on {0}: something listens there already; stop it, or choose another address with --listen"
    )]
    InUse(SocketAddr),
    #[error("listen on {address}: not possible here; choose another address with --listen")]
    Bind { address: SocketAddr, source: io::Error },
}

/// Takes the address, so that a conflict shows before anything else is started.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address).await.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            HttpError::InUse(address)
        } else {
            HttpError::Bind { address, source }
        }
    })
}

/// Whether other machines can read what we serve there: worth a warning, since
/// the names of cgroups tell what runs here.
pub fn reachable_from_outside(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Answers until it is dropped; its connections end with it.
pub async fn serve(listener: TcpListener, snapshots: Snapshots, limits: Limits) {
    // An address that cannot be read is treated as a local one: the stricter case.
    let outside = listener.local_addr().is_ok_and(reachable_from_outside);
    each_connection(listener, limits, |stream| {
        let site = Site { snapshots: snapshots.clone(), outside };
        connection(stream, limits, move |request| {
            let answer = answer(&site, &request);
            async { answer }
        })
    })
    .await;
}

/// What clients connect to: TCP to read, a Unix socket to control.
pub(crate) trait Listener {
    type Stream;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// Accepts so many at a time as the limits allow, and serves each on a task of its own.
pub(crate) async fn each_connection<L, F>(
    listener: L,
    limits: Limits,
    serve: impl Fn(L::Stream) -> F,
) where
    L: Listener,
    F: Future<Output = ()> + Send + 'static,
{
    let free = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            // Nobody closes the semaphore.
            return;
        };
        // Reaps those that have ended.
        while connections.try_join_next().is_some() {}
        match listener.next().await {
            Ok(stream) => {
                let served = serve(stream);
                connections.spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of descriptors, most likely: others must close some first.
                time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// One request and its answer, inside the limits.
pub(crate) async fn connection<S, F>(
    stream: S,
    limits: Limits,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes)
        // An idle connection would keep a place that others wait for.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match time::timeout(limits.connection, pin!(connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection ended early"),
        Err(_) => tracing::debug!("connection closed at its deadline"),
    }
}

/// What all requests of one listener share.
struct Site {
    snapshots: Snapshots,
    outside: bool,
}

pub(crate) type Answer = Response<Full<Bytes>>;

fn answer(site: &Site, request: &Request<Incoming>) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD work here\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    if !request.body().is_end_stream() {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "a request must not have a body here\n");
    }
    if let Some(refusal) = wrong_host(site, request) {
        return refusal;
    }
    match request.uri().path() {
        "/" => page(StatusCode::OK, "text/html; charset=utf-8", LANDING),
        "/metrics" => scrape(site),
        "/-/healthy" => text(StatusCode::OK, "healthy\n"),
        "/-/ready" => ready(site),
        _ => text(StatusCode::NOT_FOUND, "there is /, /metrics, /-/healthy and /-/ready\n"),
    }
}

const LANDING: &str = concat!(
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>migrate-ctl</title></head>\n",
    "<body><h1>migrate-ctl ",
    env!("CARGO_PKG_VERSION"),
    "</h1>\n<p>Moves a process's memory after its CPU, when that pays.</p>\n<ul>\n",
    "<li><a href=\"/metrics\">metrics</a></li>\n",
    "<li><a href=\"/-/healthy\">healthy</a></li>\n",
    "<li><a href=\"/-/ready\">ready</a></li>\n</ul></body></html>\n",
);

const STUCK: &str = "not ready: no tick has ended for long; a process may hold its memory's lock\n";
pub(crate) const NOT_READY: &str = "not ready: the first tick has not ended yet\n";

fn scrape(site: &Site) -> Answer {
    // Held no longer than the clone takes, so that a scrape never delays a tick.
    let snapshot = site.snapshots.borrow().clone();
    match snapshot {
        Some(snapshot) => page(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(&snapshot)),
        None => text(StatusCode::SERVICE_UNAVAILABLE, NOT_READY),
    }
}

fn ready(site: &Site) -> Answer {
    let good_until = site.snapshots.borrow().as_ref().map(|snapshot| snapshot.good_until);
    match good_until {
        Some(until) if Instant::now() < until => text(StatusCode::OK, "ready\n"),
        Some(_) => text(StatusCode::SERVICE_UNAVAILABLE, STUCK),
        None => text(StatusCode::SERVICE_UNAVAILABLE, NOT_READY),
    }
}

/// Refuses names that a web page could make a browser send here (DNS rebinding).
fn wrong_host(site: &Site, request: &Request<Incoming>) -> Option<Answer> {
    let mut names = request.headers().get_all(HOST).iter().map(HeaderValue::to_str).peekable();
    if names.peek().is_none() && request.version() == Version::HTTP_11 {
        return Some(text(StatusCode::BAD_REQUEST, "the Host header is missing\n"));
    }
    let in_uri = request.uri().authority().map(|name| Ok(name.as_str()));
    if site.outside || names.chain(in_uri).all(|name| name.is_ok_and(names_this_machine)) {
        return None;
    }
    let why = "unknown host: this serves its own machine, as 127.0.0.1, [::1] or localhost\n";
    Some(text(StatusCode::MISDIRECTED_REQUEST, why))
}

/// Any port will do: what comes through a forwarded one arrives with that one's number.
fn names_this_machine(name: &str) -> bool {
    let Ok(name) = name.parse::<Authority>() else {
        return false;
    };
    let host = name.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address
        .parse::<IpAddr>()
        .map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    page(status, "text/plain; charset=utf-8", body)
}

pub(crate) fn page(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
