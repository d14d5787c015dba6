//! Other users at the socket, and what the client makes of it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use migrate_ctl::ask::{self, AskError};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{Folder, open};

const READERS: u32 = 54321;

/// Somebody who asks.
#[derive(Clone, Copy, Debug)]
struct User {
    user: u32,
    group: u32,
    others: &'static [u32],
}

type Answer = Result<String, AskError>;

/// Reads the status, then sets the mode: how each of them ends.
async fn asks(who: User, socket: PathBuf) -> (Answer, Answer) {
    aside(move || {
        become_user(who);
        (ask::get(&socket, "/status"), ask::put(&socket, "/mode", "enforce"))
    })
    .await
}

/// On a thread that ends with it, and its credentials with the thread.
async fn aside<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let ended = tokio::task::spawn_blocking(|| thread::spawn(act).join().unwrap());
    ended.await.unwrap()
}

/// The calling thread only; nobody but root can, and nobody else is asked to.
fn become_user(who: User) {
    if who.user == geteuid().as_raw() {
        return;
    }
    let groups: Vec<Gid> = who.others.iter().copied().map(Gid::from_raw).collect();
    let (group, user) = (Gid::from_raw(who.group), Uid::from_raw(who.user));
    set_thread_groups(&groups).unwrap();
    set_thread_res_gid(group, group, group).unwrap();
    set_thread_res_uid(user, user, user).unwrap();
}

/// The socket is open to all, so that only what the kernel says of the peer counts.
#[tokio::test]
async fn the_peer_decides_who_reads_and_who_acts() {
    let ours = User { user: geteuid().as_raw(), group: getegid().as_raw(), others: &[] };
    let stranger = User { user: 1000, group: 1000, others: &[] };
    let cases: Vec<(User, Option<u32>, bool, bool)> = if geteuid().is_root() {
        vec![
            (ours, None, true, true),
            (ours, Some(READERS), true, true),
            (stranger, None, false, false),
            (stranger, Some(READERS), false, false),
            (User { group: READERS, ..stranger }, Some(READERS), true, false),
            (User { others: &[7, READERS], ..stranger }, Some(READERS), true, false),
            (User { others: &[0, 7], ..stranger }, Some(READERS), false, false),
            (User { group: 0, ..stranger }, None, false, false),
        ]
    } else {
        vec![(ours, None, false, false), (ours, Some(ours.group), true, false)]
    };
    for (number, (who, group, reads, acts)) in cases.into_iter().enumerate() {
        let mut desktop = open(&format!("peer-{number}"), group);
        open_to_all(&desktop.socket());
        let (read, acted) = asks(who, desktop.socket()).await;
        check(&format!("{who:?} of {group:?} reads"), read, reads);
        check(&format!("{who:?} of {group:?} acts"), acted, acts);
        assert_eq!(desktop.modes.try_recv().is_ok(), acts, "{who:?} of {group:?}");
    }
}

fn open_to_all(socket: &Path) {
    std::fs::set_permissions(socket, Permissions::from_mode(0o666)).unwrap();
}

fn check(what: &str, result: Answer, allowed: bool) {
    match result {
        Ok(_) => assert!(allowed, "{what}"),
        Err(AskError::NotPermitted(why)) => {
            assert!(!allowed, "{what}: {why}");
            assert!(why.contains("be root"), "{what}: {why}");
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// By the mode of the file alone: it never comes to the controller.
#[tokio::test]
async fn a_stranger_does_not_even_get_in() {
    let desktop = open("closed", None);
    if geteuid().is_root() {
        let (read, _) = asks(User { user: 1000, group: 1000, others: &[] }, desktop.socket()).await;
        let Err(AskError::NotPermitted(why)) = read else { panic!("{read:?}") };
        assert!(why.contains("control.sock") && why.contains("--group"), "{why}");
    } else {
        // Its owner gets in, and is told by the controller.
        let socket = desktop.socket();
        let read = aside(move || ask::get(&socket, "/status")).await;
        assert!(matches!(read, Err(AskError::NotPermitted(_))), "{read:?}");
    }
}

#[test]
fn without_a_controller_the_client_says_so() {
    let folder = Folder::new("nobody");
    let none = ask::get(&folder.socket(), "/status").unwrap_err();
    assert!(matches!(none, AskError::NoController(_)), "{none}");
    std::fs::create_dir(folder.0.join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.socket()).unwrap());
    let stale = ask::get(&folder.socket(), "/status").unwrap_err();
    assert!(matches!(stale, AskError::NoController(_)), "{stale}");
    assert!(stale.to_string().contains("migrate-ctl run"), "{stale}");
}

#[tokio::test]
async fn the_client_tells_the_ends_apart() {
    let desktop = open("ends", Some(getegid().as_raw()));
    let asked = |path: &'static str| {
        let socket = desktop.socket();
        aside(move || ask::get(&socket, path))
    };
    assert!(asked("/status").await.unwrap().starts_with('{'));
    let gone = asked("/explain/4194305").await.unwrap_err();
    assert!(matches!(&gone, AskError::Gone(why) if why == "there is no process 4194305"), "{gone}");
    assert!(matches!(asked("/explain/x").await, Err(AskError::Refused(_))));
    desktop.publish.send_replace(None);
    assert!(matches!(asked("/status").await, Err(AskError::NotReady(_))));
}
