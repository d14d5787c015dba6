//! What /proc says about processes.
//!
//! Every reader takes a root folder, reads a file once and never more than a
//! stated size, and returns nothing for a process that is gone. Names and
//! paths come from whoever runs the process: they are raw here; whatever
//! prints them calls [`printable`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

use crate::model::{Class, Faults, NodeId, Pages, PidRef};

mod numa_maps;

pub use numa_maps::{Kind, Mapping, NumaMaps, mempolicy, numa_maps};

/// More than the kernel writes into any file that [`read_text`] is for; zoneinfo is the largest.
const TEXT_LIMIT: u64 = 16 << 20;
/// `stat`, `status` and `cgroup` of one process: a cgroup path has up to 4,096 bytes.
const PROCESS_LIMIT: u64 = 64 << 10;
/// One line of `maps` or `numa_maps`: a path has up to 4,096 bytes, each escaped to four, and
/// 1,024 nodes take some 15 each.
const LINE_LIMIT: u64 = 64 << 10;
/// Threads that [`threads`] looks at.
const THREADS: usize = 4096;
/// Bytes of a name in labels and logs.
const PRINTABLE: usize = 64;
/// A kernel thread, in the flags of `stat` (include/linux/sched.h, `PF_KTHREAD`).
const PF_KTHREAD: u64 = 0x0020_0000;
/// The main thread is on its way out, in the same flags (`PF_EXITING`).
const PF_EXITING: u64 = 0x4;

/// One process at the moment of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub id: PidRef,
    /// As the process set it; invalid UTF-8 is replaced, nothing else.
    pub comm: String,
    /// Path in the unified hierarchy; where version 1 sorts the processes, in memory's or cpu's.
    pub cgroup: String,
    pub kernel_thread: bool,
    /// `Mems_allowed_list`: the nodes of its cpuset.
    pub mems_allowed: Vec<NodeId>,
    pub resident: Resident,
    pub threads: u32,
    /// Since it started, those of threads that have exited too.
    pub faults: Faults,
    /// `read(2)`, `write(2)` and their kin since it started; 0 where the kernel does not count.
    pub calls: u64,
    /// User and system time, in clock ticks, read just before `calls`.
    pub ticks: u64,
}

/// Resident pages of a process by class, as the kernel counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    pub anonymous: Pages,
    pub shared: Pages,
    pub file: Pages,
    pub hugetlb: Pages,
}

impl Resident {
    pub fn of(&self, class: Class) -> Pages {
        match class {
            Class::PrivateAnonymous => self.anonymous,
            Class::Shared => self.shared,
            Class::File => self.file,
            Class::Hugetlb => self.hugetlb,
        }
    }

    /// All that is not private anonymous.
    pub fn other(&self) -> Pages {
        self.shared + self.file + self.hugetlb
    }
}

/// What one thread has used since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    pub tid: u32,
    /// The CPU that it ran on last.
    pub cpu: u32,
    /// User and system time in clock ticks, 100 a second.
    pub ticks: u64,
    pub faults: Faults,
}

/// All process numbers, ascending.
///
/// # Errors
/// /proc cannot be read: nothing is known of anybody, least of all that they have exited.
pub fn processes(root: &Path) -> io::Result<Vec<u32>> {
    numbered(&root.join("proc"))
}

/// Our PID namespace where it is not the machine's own: pids mean others there.
pub fn foreign_pid_namespace(root: &Path) -> io::Result<Option<String>> {
    /// PROC_PID_INIT_INO of include/linux/proc_ns.h.
    const INITIAL: &str = "pid:[4026531836]";
    let namespace = std::fs::read_link(root.join("proc/self/ns/pid"))?;
    let namespace = namespace.to_string_lossy().into_owned();
    Ok((namespace != INITIAL).then_some(namespace))
}

/// None where there is no such process (any more).
pub fn process(root: &Path, pid: u32) -> Option<Process> {
    let folder = root.join(format!("proc/{pid}"));
    let stat = Stat::read(&folder.join("stat"))?;
    let calls = io_calls(&folder);
    let status = read_bounded(&folder.join("status"), PROCESS_LIMIT).ok()?;
    let status = String::from_utf8_lossy(&status);
    // Absent on kernels without cgroups.
    let cgroup = read_bounded(&folder.join("cgroup"), PROCESS_LIMIT).unwrap_or_default();
    let mems = field(&status, "Mems_allowed_list:").and_then(parse_list).unwrap_or_default();
    // A zombie and a kernel thread have no such lines.
    let pages = |key| -> Pages {
        let kib = field(&status, key).and_then(|value| value.split(' ').next()?.parse().ok());
        kib.unwrap_or(0) / 4
    };
    Some(Process {
        id: PidRef { pid, start: stat.start },
        comm: stat.comm,
        cgroup: cgroup_path(&String::from_utf8_lossy(&cgroup)),
        kernel_thread: stat.flags & PF_KTHREAD != 0,
        mems_allowed: mems
            .iter()
            .filter_map(|&node| u16::try_from(node).ok())
            .map(NodeId)
            .collect(),
        resident: Resident {
            anonymous: pages("RssAnon:"),
            shared: pages("RssShmem:"),
            file: pages("RssFile:"),
            hugetlb: pages("HugetlbPages:"),
        },
        threads: stat.threads,
        faults: stat.faults,
        calls,
        ticks: stat.ticks,
    })
}

/// Not everybody may read it, and a kernel without CONFIG_TASK_IO_ACCOUNTING has no such file.
fn io_calls(folder: &Path) -> u64 {
    let text = read_bounded(&folder.join("io"), PROCESS_LIMIT).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let count = |key| field(&text, key).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    count("syscr:").saturating_add(count("syscw:"))
}

/// When the process with this number started, in clock ticks since boot.
pub fn start_of(root: &Path, pid: u32) -> Option<u64> {
    Some(Stat::read(&root.join(format!("proc/{pid}/stat")))?.start)
}

/// Whether this very process lives: its main thread has not begun to exit and has not been
/// followed by another one of its number.
pub fn lives(root: &Path, id: PidRef) -> bool {
    Stat::read(&root.join(format!("proc/{}/stat", id.pid)))
        .is_some_and(|stat| stat.start == id.start && stat.flags & PF_EXITING == 0)
}

/// At most the first 4,096 threads of a process.
pub fn threads(root: &Path, pid: u32) -> Option<Vec<Thread>> {
    let folder = root.join(format!("proc/{pid}/task"));
    let threads: Vec<Thread> = numbered(&folder)
        .ok()?
        .into_iter()
        .take(THREADS)
        .filter_map(|tid| {
            let stat = Stat::read(&folder.join(format!("{tid}/stat")))?;
            Some(Thread { tid, cpu: stat.cpu, ticks: stat.ticks, faults: stat.faults })
        })
        .collect();
    (!threads.is_empty()).then_some(threads)
}

/// Fit for labels and logs: at most 64 bytes, no control or direction-changing characters, cut
/// text ends in `…`. Two names may become one, so that a label set must be summed after it.
pub fn printable(raw: impl AsRef<[u8]>) -> String {
    let text = String::from_utf8_lossy(raw.as_ref());
    let mut shown = String::new();
    for c in text.chars() {
        let safe = if is_graphic(c) { c.to_string() } else { c.escape_unicode().to_string() };
        if shown.len() + safe.len() > PRINTABLE {
            while shown.len() + '…'.len_utf8() > PRINTABLE {
                shown.pop();
            }
            shown.push('…');
            break;
        }
        shown.push_str(&safe);
    }
    shown
}

fn is_graphic(c: char) -> bool {
    let invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !invisible
}

/// A list as the kernel prints node and CPU sets: `0-3,8`, or nothing.
pub(crate) fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // Far more than any kernel's CPUs, so that no text can make us fill memory.
        if last < first || last > 1 << 16 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// A whole file of the kernel's own making.
pub(crate) fn read_text(file: &Path) -> io::Result<String> {
    let bytes = read_bounded(file, TEXT_LIMIT)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Line by line, with nothing in place of a line beyond the limit.
pub(crate) fn each_line(
    file: impl Read,
    mut found: impl FnMut(Option<&str>) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let size = reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line)?;
        let overlong = line.last() != Some(&b'\n') && size as u64 == LINE_LIMIT;
        let next = if size == 0 {
            return Ok(());
        } else if overlong {
            reader.skip_until(b'\n')?;
            found(None)
        } else {
            found(Some(&String::from_utf8_lossy(&line)))
        };
        if next.is_break() {
            return Ok(());
        }
    }
}

fn read_bounded(file: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn numbered(folder: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The value of a line of `status`. The name in that file has its line ends escaped, so that no
/// process can fake a line.
fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// The path of the line `0::`. Where that is the root and version 1 hierarchies are mounted too,
/// the processes are sorted there: then memory's path, else that of cpu.
fn cgroup_path(text: &str) -> String {
    let path_of = |wanted: &str| {
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            controllers.split(',').any(|controller| controller == wanted).then_some(path)
        })
    };
    let paths: Vec<&str> = ["", "memory", "cpu"].into_iter().filter_map(path_of).collect();
    let sorted = paths.iter().find(|path| **path != "/");
    sorted.or_else(|| paths.first()).map_or_else(String::new, |path| (*path).to_owned())
}

/// Page faults of all processes so far, dead ones too, by `/proc/vmstat`. Until 6.4 the kernel
/// counts a fault once more for each time that it is retried (`handle_mm_fault`, mm/memory.c).
pub fn all_faults(root: &Path) -> Option<Faults> {
    let vmstat = Vmstat::read(root)?;
    let (all, major) = (vmstat.get("pgfault")?, vmstat.get("pgmajfault")?);
    Some(Faults { minor: all.saturating_sub(major), major })
}

/// `/proc/vmstat` at one moment.
pub(crate) struct Vmstat(String);

impl Vmstat {
    pub(crate) fn read(root: &Path) -> Option<Self> {
        read_text(&root.join("proc/vmstat")).ok().map(Self)
    }

    pub(crate) fn get(&self, counter: &str) -> Option<u64> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == counter)?.1.trim().parse().ok()
    }
}

/// What we use of `/proc/PID/stat` and `/proc/PID/task/TID/stat`.
struct Stat {
    comm: String,
    flags: u64,
    faults: Faults,
    ticks: u64,
    threads: u32,
    start: u64,
    cpu: u32,
}

impl Stat {
    fn read(file: &Path) -> Option<Self> {
        Self::parse(&read_bounded(file, PROCESS_LIMIT).ok()?)
    }

    /// The name may hold anything, parentheses and line ends too: it ends at the last `)`.
    fn parse(stat: &[u8]) -> Option<Self> {
        let open = stat.iter().position(|&byte| byte == b'(')?;
        let close = stat.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Numbered as in proc(5), where the state after the name is field 3.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            comm: String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned(),
            flags: number(9)?,
            faults: Faults { minor: number(10)?, major: number(12)? },
            ticks: number(14)?.saturating_add(number(15)?),
            threads: u32::try_from(number(20)?).ok()?,
            start: number(22)?,
            cpu: u32::try_from(number(39)?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests;
