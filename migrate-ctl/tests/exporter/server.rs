//! The sockets: who is answered, who is not, and for how long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use migrate_ctl::http::{self, Limits, Snapshots};
use migrate_ctl::metrics::render;
use migrate_ctl::snapshot::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::sample;

const LOCAL: &str = "127.0.0.1:0";

#[tokio::test]
async fn ready_comes_with_the_first_snapshot_and_healthy_before_it() {
    let (publish, snapshots) = watch::channel(None);
    let address = start(LOCAL, snapshots, Limits::default()).await;
    assert!(get(address, "/-/healthy").await.starts_with("HTTP/1.1 200"));
    let waiting = get(address, "/-/ready").await;
    assert!(waiting.starts_with("HTTP/1.1 503"), "{waiting}");
    assert!(waiting.contains("first tick"), "{waiting}");
    assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 503"));

    publish.send_replace(Some(Arc::new(sample::snapshot(1))));
    assert!(get(address, "/-/ready").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_scrape_is_the_rendered_snapshot() {
    let address = start(LOCAL, published(), Limits::default()).await;
    let answer = get(address, "/metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(body, render(&sample::snapshot(2)));
}

#[tokio::test]
async fn a_newer_snapshot_replaces_the_older_one() {
    let (publish, snapshots) = watch::channel(Some(Arc::new(sample::snapshot(1))));
    let address = start(LOCAL, snapshots, Limits::default()).await;
    assert!(get(address, "/metrics").await.contains("\nmigrate_ticks_total 1\n"));
    publish.send_replace(Some(Arc::new(sample::snapshot(2))));
    assert!(get(address, "/metrics").await.contains("\nmigrate_ticks_total 2\n"));
}

#[tokio::test]
async fn the_landing_page_names_the_version_and_links_the_rest() {
    let address = start(LOCAL, published(), Limits::default()).await;
    let page = get(address, "/").await;
    for part in [env!("CARGO_PKG_VERSION"), "/metrics", "/-/healthy", "/-/ready"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let address = start(LOCAL, published(), Limits::default()).await;
    for path in ["/metrics/", "/etc/passwd", "/-/reload", "/favicon.ico"] {
        assert!(get(address, path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let address = start(LOCAL, published(), Limits::default()).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "MOVE"] {
        for path in ["/", "/metrics", "/-/ready", "/-/quit"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = ask(address, &request).await;
            // hyper itself refuses a CONNECT that names no host.
            let refused = answer.starts_with("HTTP/1.1 405") || answer.starts_with("HTTP/1.1 400");
            assert!(refused, "{method} {path}: {answer}");
        }
    }
    let answer = ask(address, "POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(answer.contains("allow: GET, HEAD"), "{answer}");
}

#[tokio::test]
async fn nothing_of_the_control_socket_is_here() {
    let address = start(LOCAL, published(), Limits::default()).await;
    for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"] {
        for path in ["/status", "/explain/1", "/explain/", "/mode"] {
            let body = "Content-Length: 7\r\n\r\nenforce";
            let end = if method == "PUT" || method == "POST" { body } else { "\r\n" };
            let answer =
                ask(address, &format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{end}"))
                    .await;
            let status = answer.get(9..12);
            assert!(matches!(status, Some("404" | "405")), "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn head_answers_without_the_body() {
    let address = start(LOCAL, published(), Limits::default()).await;
    let answer = ask(address, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let length = render(&sample::snapshot(2)).len();
    assert!(answer.contains(&format!("content-length: {length}")), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_request_with_a_body_is_refused_without_waiting_for_it() {
    let address = start(LOCAL, published(), Limits::default()).await;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n";
    assert!(ask(address, request).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_local_listener_knows_only_local_names() {
    let address = start(LOCAL, published(), Limits::default()).await;
    let port = address.port();
    let good = ["127.0.0.1", "localhost", "LocalHost", "[::1]", "127.0.0.1:1", "[::1]:9816"];
    for host in good.into_iter().map(str::to_owned).chain([format!("localhost:{port}")]) {
        assert!(with_host(address, &host).await.starts_with("HTTP/1.1 200"), "{host}");
    }
    for host in
        ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1", "", "\u{e9}"]
    {
        assert!(with_host(address, host).await.starts_with("HTTP/1.1 421"), "{host}");
    }
    let absolute = "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert!(ask(address, absolute).await.starts_with("HTTP/1.1 421"));
    let twice = "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n";
    assert!(ask(address, twice).await.starts_with("HTTP/1.1 421"));
    assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    // Not sent by browsers, handy by hand.
    assert!(ask(address, "GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200"));
}

#[tokio::test]
async fn a_listener_for_others_takes_any_name() {
    let address = start("0.0.0.0:0", published(), Limits::default()).await;
    let local = SocketAddr::from(([127, 0, 0, 1], address.port()));
    assert!(with_host(local, "node7.example:9816").await.starts_with("HTTP/1.1 200"));
    assert!(http::reachable_from_outside(address));
    assert!(!http::reachable_from_outside(local));
    assert!(!http::reachable_from_outside("[::1]:9816".parse().unwrap()));
}

#[tokio::test]
async fn a_half_sent_request_is_closed_at_the_deadline_of_the_head() {
    let head = Duration::from_millis(300);
    let address = start(LOCAL, published(), Limits { head, ..Limits::default() }).await;
    let began = Instant::now();
    ask(address, "GET /metrics HTTP/1.1\r\nHost: loc").await;
    assert!(began.elapsed() >= head, "closed after {:?}", began.elapsed());
    assert!(began.elapsed() < head * 5, "closed after {:?}", began.elapsed());
    let real = Limits::default().head.as_secs();
    assert!((3..=5).contains(&real), "{real}");
}

#[tokio::test]
async fn silence_is_closed_at_the_deadline_of_the_connection_at_the_latest() {
    let connection = Duration::from_millis(300);
    let limits = Limits { connection, head: Duration::from_secs(60), ..Limits::default() };
    let address = start(LOCAL, published(), limits).await;
    let began = Instant::now();
    assert_eq!(ask(address, "").await, "");
    assert!(began.elapsed() >= connection && began.elapsed() < connection * 5);
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let address = start(LOCAL, published(), Limits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let line = format!("X-Filler: {}\r\n", "a".repeat(1000));
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let sent = timeout(Duration::from_secs(3), async {
        let mut sent = 0;
        // Closing makes a later write fail; a megabyte is more than any socket buffers unread.
        while sent < 100 << 20 && stream.write_all(line.as_bytes()).await.is_ok() {
            sent += line.len();
        }
        sent
    });
    assert!(sent.await.is_ok_and(|sent| sent < 100 << 20));
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let head = Duration::from_millis(300);
    let limits = Limits { head, connections: 1, ..Limits::default() };
    let address = start(LOCAL, published(), limits).await;
    let mut holder = TcpStream::connect(address).await.unwrap();
    holder.write_all(b"GET /").await.unwrap();
    let began = Instant::now();
    assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() >= head / 2, "answered after {:?}", began.elapsed());
}

#[tokio::test]
async fn parallel_scrapes_all_see_the_whole_text() {
    let address = start(LOCAL, published(), Limits::default()).await;
    let scrapes: Vec<_> =
        (0..32).map(|_| tokio::spawn(async move { get(address, "/metrics").await })).collect();
    let text = render(&sample::snapshot(2));
    for scrape in scrapes {
        assert!(scrape.await.unwrap().ends_with(&text));
    }
}

#[tokio::test]
async fn a_taken_port_is_one_line_with_the_address_and_the_remedy() {
    let first = http::bind(LOCAL.parse().unwrap()).await.unwrap();
    let address = first.local_addr().unwrap();
    let error = http::bind(address).await.unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1);
    for part in [address.to_string().as_str(), "listens there already", "--listen"] {
        assert!(error.contains(part), "{part} is missing in {error:?}");
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_one_line_with_the_remedy() {
    let error = http::bind("192.0.2.1:9816".parse().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("192.0.2.1:9816") && error.contains("--listen"), "{error}");
}

async fn start(address: &str, snapshots: Snapshots, limits: Limits) -> SocketAddr {
    let listener = http::bind(address.parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(http::serve(listener, snapshots, limits));
    address
}

fn published() -> Snapshots {
    watch::channel(Some(Arc::<Snapshot>::new(sample::snapshot(2)))).1
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
}

async fn with_host(address: SocketAddr, host: &str) -> String {
    ask(address, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
}

/// Sends the bytes and reads until the server closes.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("the server closes").unwrap_or(0);
    String::from_utf8(answer).unwrap()
}
