//! The mappings of a process by what backs them, from `/proc/PID/maps`.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use super::ground::{Ground, Run};
use crate::model::Class;
use crate::procfs::each_line;
use crate::sys::{self, FileSystem, PAGE_SIZE};

/// Twice the kernel's default for `vm.max_map_count`, about.
const AREAS: usize = 1 << 17;

/// All of one process that can hold pages.
pub(super) struct Areas {
    /// By address.
    all: Vec<Area>,
    /// There are no others.
    pub(super) whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) run: Run,
    pub(super) class: Class,
}

impl Areas {
    /// Those of all classes, or private anonymous ones only. None: gone, or not ours to read.
    pub(super) fn read(root: &Path, pid: u32, all_classes: bool) -> Option<Self> {
        let folder = root.join(format!("proc/{pid}"));
        let maps = File::open(folder.join("maps")).ok()?;
        let mounts = if all_classes { mounts(&folder) } else { BTreeMap::new() };
        let mut backing = Backing { folder: &folder, mounts, known: BTreeMap::new() };
        let mut all = Vec::new();
        each_line(maps, |line| {
            let line = line.and_then(parse).filter(|line| all_classes || line.of_no_file);
            all.extend(line.and_then(|line| backing.area(&line)));
            if all.len() < AREAS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .ok()?;
        let whole = all.len() < AREAS;
        Some(Self { all, whole })
    }

    pub(super) fn ground(&self, class: Class) -> Ground {
        let of_class = self.all.iter().filter(|area| area.class == class);
        Ground::new(of_class.map(|area| area.run).collect())
    }

    /// The first page of the mapping that holds a page.
    pub(super) fn start_of(&self, page: u64) -> Option<u64> {
        let after = self.all.partition_point(|area| area.run.first <= page);
        Some(self.all.get(after.checked_sub(1)?)?.run.first)
    }
}

/// What we use of a line.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    run: Run,
    private: bool,
    /// Device and inode.
    file: (&'a str, &'a str),
    of_no_file: bool,
    name: &'a str,
}

/// None: cannot be read, or no memory of the process's own, as `[vdso]`, or a mere reservation.
fn parse(line: &str) -> Option<Line<'_>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?.as_bytes();
    let file = (words.nth(1)?, words.next()?);
    let of_no_file = file.1 == "0";
    let name = words.next().unwrap_or("");
    let ours = !of_no_file
        || matches!(name, "" | "[heap]")
        || name.starts_with("[stack")
        || name.starts_with("[anon");
    let page = |address| Some(u64::from_str_radix(address, 16).ok()? / PAGE_SIZE);
    let run = Run { first: page(start)?, end: page(end)? };
    let private = permissions.get(3) == Some(&b'p');
    let reserved = of_no_file && permissions.starts_with(b"---");
    (ours && !reserved && run.first < run.end).then_some(Line {
        run,
        private,
        file,
        of_no_file,
        name,
    })
}

/// What the files of a process's mappings lie on, each asked for once.
struct Backing<'a> {
    folder: &'a Path,
    /// By device: whether the file system lies in memory.
    mounts: BTreeMap<String, bool>,
    known: BTreeMap<(String, String), FileSystem>,
}

impl Backing<'_> {
    fn area(&mut self, line: &Line<'_>) -> Option<Area> {
        let class = if line.of_no_file {
            line.private.then_some(Class::PrivateAnonymous)?
        } else {
            match self.of(line) {
                FileSystem::Memory => Class::Shared,
                FileSystem::HugePages => Class::Hugetlb,
                FileSystem::Other => Class::File,
            }
        };
        Some(Area { run: line.run, class })
    }

    fn of(&mut self, line: &Line<'_>) -> FileSystem {
        let file = (line.file.0.to_owned(), line.file.1.to_owned());
        if let Some(&known) = self.known.get(&file) {
            return known;
        }
        let named = by_name(line.name);
        // The kernel's own mounts, as that of memfd, are in nobody's list.
        let listed = self.mounts.get(line.file.0).copied();
        let found = if listed.unwrap_or(named != FileSystem::Other) {
            let Run { first, end } = line.run;
            let link = format!("map_files/{:x}-{:x}", first * PAGE_SIZE, end * PAGE_SIZE);
            // Without the right to follow the link the name must do.
            sys::file_system(&self.folder.join(link)).unwrap_or(named)
        } else {
            // Nobody is asked: the answer may have to come over a network.
            FileSystem::Other
        };
        self.known.insert(file, found);
        found
    }
}

/// The devices of the file systems that the process sees, and whether asking one of them for
/// something costs nothing but memory.
fn mounts(folder: &Path) -> BTreeMap<String, bool> {
    const IN_MEMORY: [&str; 4] = ["tmpfs", "devtmpfs", "hugetlbfs", "rootfs"];
    let mut mounts = BTreeMap::new();
    let Ok(file) = File::open(folder.join("mountinfo")) else { return mounts };
    // What could not be read is taken for a mount of the kernel's own: the names then tell.
    let _ = each_line(file, |line| {
        let parts = line.and_then(|line| line.split_once(" - "));
        if let Some((mount, kind)) = parts
            && let Some(device) = mount.split(' ').nth(2)
            && let Some(kind) = kind.split(' ').next()
        {
            // `maps` writes both numbers with two hexadecimal digits at least.
            let numbers = device.split_once(':');
            let number = |text: &str| text.parse::<u32>().ok();
            if let Some((major, minor)) = numbers.and_then(|(a, b)| Some((number(a)?, number(b)?)))
            {
                mounts.insert(format!("{major:02x}:{minor:02x}"), IN_MEMORY.contains(&kind));
            }
        }
        ControlFlow::Continue(())
    });
    mounts
}

fn by_name(name: &str) -> FileSystem {
    const MEMORY: [&str; 4] = ["/memfd:", "/dev/shm/", "/SYSV", "/dev/zero"];
    if name.starts_with("/anon_hugepage") {
        FileSystem::HugePages
    } else if MEMORY.iter().any(|memory| name.starts_with(memory)) {
        FileSystem::Memory
    } else {
        FileSystem::Other
    }
}

#[cfg(test)]
mod tests {
    use super::{Backing, Class, Path, mounts, parse};
    use std::collections::BTreeMap;

    #[test]
    fn knows_which_file_systems_lie_in_memory() {
        let folder = std::env::temp_dir().join(format!("mounts-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let text = "21 1 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw\n\
                    22 1 259:17 / / rw,relatime - ext4 /dev/nvme0n1p1 rw\n\
                    23 1 0:300 / /home rw - nfs4 server:/home rw\n\
                    rubbish\n";
        std::fs::write(folder.join("mountinfo"), text).unwrap();
        let found = mounts(&folder);
        let _ = std::fs::remove_dir_all(&folder);
        let expected = [("00:05", true), ("00:12c", false), ("103:11", false)];
        let expected: BTreeMap<_, _> =
            expected.iter().map(|&(device, memory)| (device.to_owned(), memory)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn tells_what_backs_a_mapping() {
        for (line, class) in [
            ("1000-3000 rw-p 00000000 00:00 0 \n", Some(Class::PrivateAnonymous)),
            ("1000-3000 rw-p 00000000 00:00 0    [heap]\n", Some(Class::PrivateAnonymous)),
            ("1000-3000 r-xp 00000000 00:00 0    [anon:v8]\n", Some(Class::PrivateAnonymous)),
            ("1000-3000 ---p 00000000 00:00 0 \n", None),
            ("1000-3000 r-xp 00000000 00:00 0    [vdso]\n", None),
            ("1000-3000 rw-s 00000000 00:01 9    /memfd:x (deleted)\n", Some(Class::Shared)),
            ("1000-3000 rw-s 00000000 00:02 9    /SYSV00000000 (deleted)\n", Some(Class::Shared)),
            ("1000-3000 rw-s 0 00:0f 9    /anon_hugepage (deleted)\n", Some(Class::Hugetlb)),
            ("1000-3000 rw-p 00000000 08:01 77   /usr/lib/libc.so.6\n", Some(Class::File)),
            ("1000-3000 rw-s 00000000 08:01 78   /var/lib/data\n", Some(Class::File)),
            ("rubbish\n", None),
        ] {
            let (folder, mounts) = (Path::new("/nowhere"), BTreeMap::new());
            let mut backing = Backing { folder, mounts, known: BTreeMap::new() };
            let area = parse(line).and_then(|line| backing.area(&line));
            assert_eq!(area.map(|area| area.class), class, "{line}");
        }
    }
}
