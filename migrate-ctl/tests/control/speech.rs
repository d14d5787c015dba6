//! What is understood, and the limits. Whoever runs these tests may at least read: root, or a
//! member of the group.

use std::time::{Duration, Instant};

use migrate_ctl::config::Mode;
use migrate_ctl::explain::{Explanation, State};
use migrate_ctl::http::Limits;
use migrate_ctl::status::Status;
use rustix::process::{getegid, geteuid};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::{Desktop, get, speak};

fn open(name: &str, limits: Limits) -> Desktop {
    super::open_with(name, Some(getegid().as_raw()), limits)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn status_is_that_of_the_snapshot() {
    let desktop = open("status", Limits::default());
    let answer = get(&desktop.socket(), "/status").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("content-type: application/json"), "{answer}");
    let status: Status = serde_json::from_str(body(&answer)).unwrap();
    let snapshot = desktop.publish.borrow().clone().unwrap();
    assert_eq!((status.mode.as_str(), status.ticks), (snapshot.mode, snapshot.cost.ticks));
    assert_eq!(status.nodes, snapshot.nodes);
    let moved: u64 = snapshot.ledger.pairs.values().map(|pair| pair.moved).sum();
    assert_eq!(status.moved_pages, moved);
    let text = status.to_string();
    assert!(text.contains(&format!("{moved} pages")), "{text}");
}

#[tokio::test]
async fn before_the_first_tick_nothing_is_known() {
    let desktop = open("early", Limits::default());
    desktop.publish.send_replace(None);
    for path in ["/status", "/explain/1"] {
        let answer = get(&desktop.socket(), path).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("first tick"), "{answer}");
    }
}

#[tokio::test]
async fn a_process_is_explained_by_the_controller() {
    let desktop = open("explain", Limits::default());
    let pid = std::process::id();
    let answer = get(&desktop.socket(), &format!("/explain/{pid}")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let explanation: Explanation = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!((explanation.id.pid, explanation.state), (pid, State::Unseen));
}

#[tokio::test]
async fn a_process_that_is_not_there_is_not_found() {
    let desktop = open("gone", Limits::default());
    // Above PID_MAX_LIMIT of the kernel.
    let answer = get(&desktop.socket(), "/explain/4194305").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("no process 4194305"), "{answer}");
    for word in ["x", "", "-1", "1/2", "99999999999", "%31"] {
        let answer = get(&desktop.socket(), &format!("/explain/{word}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{word}: {answer}");
    }
}

#[tokio::test]
async fn the_mode_goes_to_the_controller_for_root() {
    let mut desktop = open("switch", Limits::default());
    let put = |word: &str| {
        format!(
            "PUT /mode HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{word}",
            word.len()
        )
    };
    let answer = speak(&desktop.socket(), &put("enforce")).await;
    if !geteuid().is_root() {
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        return;
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(desktop.modes.recv().await, Some(Mode::Enforce));
    assert!(speak(&desktop.socket(), &put("observe\n")).await.starts_with("HTTP/1.1 200"));
    assert_eq!(desktop.modes.recv().await, Some(Mode::Observe));
    for bad in ["", "Enforce", "off", "\u{e9}"] {
        let answer = speak(&desktop.socket(), &put(bad)).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{bad}: {answer}");
    }
    let answer = speak(&desktop.socket(), &put(&"enforce ".repeat(20))).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(desktop.modes.try_recv().is_err(), "nothing of that was passed on");
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let desktop = open("methods", Limits::default());
    let cases = [("/status", "GET", "PUT"), ("/explain/1", "GET", "POST"), ("/mode", "PUT", "GET")];
    for (path, right, wrong) in cases {
        for method in [wrong, "DELETE", "HEAD"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = speak(&desktop.socket(), &request).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{method} {path}: {answer}");
            assert!(answer.contains(&format!("allow: {right}")), "{answer}");
        }
    }
    for path in ["/", "/metrics", "/explain", "/mode/", "/status/"] {
        assert!(get(&desktop.socket(), path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
}

#[tokio::test]
async fn a_half_sent_request_is_closed_at_the_deadline_of_the_head() {
    let head = Duration::from_millis(300);
    let desktop = open("half", Limits { head, ..Limits::default() });
    let began = Instant::now();
    speak(&desktop.socket(), "GET /status HTTP/1.1\r\nHost: loc").await;
    assert!(began.elapsed() >= head && began.elapsed() < head * 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_body_that_does_not_come_is_closed_at_the_deadline_of_the_connection() {
    let connection = Duration::from_millis(300);
    let desktop = open("body", Limits { connection, ..Limits::default() });
    let began = Instant::now();
    speak(&desktop.socket(), "PUT /mode HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\n")
        .await;
    // Without the right to act nobody waits for it.
    let waits = geteuid().is_root();
    assert!(!waits || began.elapsed() >= connection, "{:?}", began.elapsed());
    assert!(began.elapsed() < connection * 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let head = Duration::from_millis(300);
    let desktop = open("places", Limits { head, connections: 1, ..Limits::default() });
    let mut holder = UnixStream::connect(desktop.socket()).await.unwrap();
    holder.write_all(b"GET /").await.unwrap();
    let began = Instant::now();
    assert!(get(&desktop.socket(), "/status").await.starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() >= head / 2, "answered after {:?}", began.elapsed());
}
