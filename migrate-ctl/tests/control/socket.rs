//! The file: its mode, its owner, and what was there before.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use migrate_ctl::control::{self, ControlError};
use rustix::process::{getegid, geteuid};

use super::{Folder, get, open};

/// One that we may give a file to: root may give it to any.
fn other_group() -> u32 {
    if geteuid().is_root() { 54321 } else { getegid().as_raw() }
}

#[tokio::test]
async fn it_is_for_its_owner_and_its_group_in_a_folder_that_all_may_enter() {
    let group = other_group();
    let desktop = open("mode", Some(group));
    let there = std::fs::metadata(desktop.socket()).unwrap();
    assert_eq!(there.permissions().mode() & 0o7777, 0o660);
    assert_eq!((there.uid(), there.gid()), (geteuid().as_raw(), group));
    let folder = std::fs::metadata(desktop.socket().parent().unwrap()).unwrap();
    assert_eq!(folder.permissions().mode() & 0o7777, 0o755);
}

#[tokio::test]
async fn without_a_group_it_stays_with_that_of_its_owner() {
    let desktop = open("own", None);
    let there = std::fs::metadata(desktop.socket()).unwrap();
    assert_eq!(there.permissions().mode() & 0o7777, 0o660);
    assert_eq!(there.gid(), getegid().as_raw());
}

#[tokio::test]
async fn it_goes_with_a_controller_that_ends() {
    let folder = Folder::new("end");
    let (listener, place) = control::bind(&folder.socket(), None).unwrap();
    assert!(folder.socket().exists());
    drop((listener, place));
    assert!(!folder.socket().exists());
}

#[tokio::test]
async fn one_that_a_killed_controller_left_is_replaced() {
    let folder = Folder::new("stale");
    std::fs::create_dir(folder.0.join("run")).unwrap();
    drop(UnixListener::bind(folder.socket()).unwrap());
    assert!(folder.socket().exists(), "std removes no socket");
    let (_listener, _place) = control::bind(&folder.socket(), None).unwrap();
    let mode = std::fs::metadata(folder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
}

#[tokio::test]
async fn one_that_answers_is_left_alone_and_named() {
    let desktop = open("live", None);
    let error = control::bind(&desktop.socket(), None).unwrap_err();
    assert!(matches!(error, ControlError::InUse(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("control.sock") && text.contains("--socket"), "{text}");
    assert!(get(&desktop.socket(), "/none").await.starts_with("HTTP/1.1 4"), "it answers on");
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone_and_named() {
    let folder = Folder::new("file");
    std::fs::create_dir(folder.0.join("run")).unwrap();
    std::fs::write(folder.socket(), "precious").unwrap();
    let error = control::bind(&folder.socket(), None).unwrap_err();
    assert!(matches!(error, ControlError::NoSocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(folder.socket()).unwrap(), "precious");
    let link = folder.0.join("run/link.sock");
    std::os::unix::fs::symlink(folder.socket(), &link).unwrap();
    let error = control::bind(&link, None).unwrap_err();
    assert!(matches!(error, ControlError::NoSocket(_)), "{error}");
}

#[tokio::test]
async fn a_wrong_folder_is_one_line_with_the_remedy() {
    let folder = Folder::new("deep");
    let error = control::bind(&folder.0.join("a/b/control.sock"), None).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1);
    assert!(error.contains("a/b/control.sock") && error.contains("--socket"), "{error}");
    assert!(!folder.0.join("a").exists());
}
