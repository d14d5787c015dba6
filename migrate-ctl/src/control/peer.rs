//! Who is at the other end of a connection, and what may he do?

use std::path::Path;

use tokio::net::UnixStream;

use super::ControlError;
use crate::{procfs, sys};

/// Whoever connected, as the kernel noted it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub user: u32,
    pub group: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
    /// For the log; the number may have a new owner by now.
    pub pid: Option<i32>,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    None,
    Read,
    Act,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let peer = stream.peer_cred()?;
        let groups = sys::peer_groups(stream)?;
        Ok(Self { user: peer.uid(), group: peer.gid(), groups, pid: peer.pid() })
    }

    /// Root may do all; the members of one group may read.
    pub fn rights(&self, readers: Option<u32>) -> Rights {
        let member = |group| self.group == group || self.groups.contains(&group);
        if self.user == 0 {
            Rights::Act
        } else if readers.is_some_and(member) {
            Rights::Read
        } else {
            Rights::None
        }
    }
}

/// The number of a group that /etc/group names; a number stands for itself. Not by
/// `getgrnam(3)`: a static binary would load the machine's own libraries for it.
pub fn group_number(root: &Path, name: &str) -> Result<u32, ControlError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let file = procfs::read_text(&root.join("etc/group")).map_err(ControlError::Groups)?;
    // NAME:PASSWORD:NUMBER:MEMBERS, as in group(5).
    let number = file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    });
    number.ok_or_else(|| ControlError::UnknownGroup(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READERS: Option<u32> = Some(70);

    fn peer(user: u32, group: u32, groups: &[u32]) -> Peer {
        Peer { user, group, groups: groups.to_vec(), pid: None }
    }

    #[test]
    fn root_may_act_and_members_of_the_group_may_read() {
        assert_eq!(peer(0, 0, &[]).rights(None), Rights::Act);
        assert_eq!(peer(0, 5, &[]).rights(READERS), Rights::Act);
        assert_eq!(peer(1000, 70, &[]).rights(READERS), Rights::Read);
        assert_eq!(peer(1000, 100, &[4, 70]).rights(READERS), Rights::Read);
    }

    #[test]
    fn others_may_nothing_also_in_the_group_of_root() {
        assert_eq!(peer(1000, 100, &[4, 71]).rights(READERS), Rights::None);
        assert_eq!(peer(1000, 70, &[70]).rights(None), Rights::None);
        assert_eq!(peer(1000, 0, &[0]).rights(None), Rights::None);
        assert_eq!(peer(1000, 0, &[0]).rights(READERS), Rights::None);
    }

    #[test]
    fn a_group_is_found_by_its_whole_name_or_given_by_number() {
        let root = std::env::temp_dir().join(format!("migrate-groups-{}", std::process::id()));
        std::fs::create_dir_all(root.join("etc")).expect("a folder of ours");
        let text = "root:x:0:\nmigrate-old:x:7:\nmigrate:x:70:ann,bob\nbad:x:ten:\n";
        std::fs::write(root.join("etc/group"), text).expect("a file of ours");
        let of = |name| group_number(&root, name);
        assert_eq!(of("migrate").expect("it is there"), 70);
        assert_eq!(of("123").expect("a number"), 123);
        for unknown in ["migrat", "bad", "ann", ""] {
            let error = of(unknown).expect_err("no such group").to_string();
            assert!(
                error.contains(&format!("`{unknown}`")) && error.contains("create it"),
                "{error}"
            );
        }
        std::fs::remove_dir_all(&root).expect("ours to remove");
    }
}
