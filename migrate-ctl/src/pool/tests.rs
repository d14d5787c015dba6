use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Done, Job, Pool, THREADS};
use crate::model::PidRef;
use crate::placement::Ask;
use crate::procfs::Resident;
use crate::topology::Topology;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn what_is_asked_for_is_done_in_time() {
    let machine = Machine::new("in-time");
    let mut pool = machine.pool();
    let ids: Vec<PidRef> = (1..=20).map(|pid| machine.process(pid)).collect();
    let done = machine.ask(&mut pool, &ids, SOON);
    assert_eq!(done.len(), 20);
    assert!(done.iter().all(|done| done.stamp == 7 && done.placement.is_some()));
    assert!(pool.late().is_empty());
}

#[test]
fn whoever_lets_us_wait_is_named_and_delays_nobody() {
    let machine = Machine::new("one-stuck");
    let mut pool = machine.pool();
    let stuck = machine.stuck(1);
    let others = [machine.process(2), machine.process(3)];
    let began = Instant::now();
    let done = machine.ask(&mut pool, &[stuck, others[0], others[1]], Duration::from_millis(300));
    assert!(began.elapsed() < SOON);
    let read: BTreeSet<PidRef> = done.iter().map(|done| done.id).collect();
    assert_eq!(read, BTreeSet::from(others));
    assert!(pool.is_open(stuck));
    let late = pool.late();
    assert_eq!(late.len(), 1);
    assert!(late[0].id == stuck && late[0].being_read);
    // Nobody waits for it a second time.
    let began = Instant::now();
    assert_eq!(machine.ask(&mut pool, &others, SOON).len(), 2);
    assert!(began.elapsed() < SOON);
    machine.release(1);
    assert_eq!(pool.take(SOON, BTreeSet::from([stuck])).len(), 1);
    assert!(pool.late().is_empty());
}

#[test]
fn when_all_threads_are_taken_the_others_wait_by_name() {
    let machine = Machine::new("all-stuck");
    let mut pool = machine.pool();
    let pids = 1..=u32::try_from(THREADS).unwrap();
    let stuck: Vec<PidRef> = pids.clone().map(|pid| machine.stuck(pid)).collect();
    assert!(machine.ask(&mut pool, &stuck, Duration::from_millis(300)).is_empty());
    let queued = machine.process(100);
    let began = Instant::now();
    assert!(machine.ask(&mut pool, &[queued], Duration::from_millis(300)).is_empty());
    assert!(began.elapsed() < SOON);
    let late = pool.late();
    assert_eq!(late.iter().filter(|late| late.being_read).count(), THREADS);
    assert!(late.iter().any(|late| late.id == queued && !late.being_read));
    for pid in pids {
        machine.release(pid);
    }
    let everybody = stuck.into_iter().chain([queued]).collect();
    assert_eq!(pool.take(SOON, everybody).len(), THREADS + 1);
}

#[test]
fn a_number_that_went_to_another_process_says_nothing() {
    let machine = Machine::new("replaced");
    let mut pool = machine.pool();
    let PidRef { pid, start } = machine.process(1);
    let former = PidRef { pid, start: start - 1 };
    let done = machine.ask(&mut pool, &[former], SOON);
    assert!(done[0].placement.is_none() && done[0].mempolicy.is_none());
}

/// A folder of processes of one page each. One is stuck whose `maps` is a pipe that nobody writes
/// to: opening it waits, as reading does for a lock.
struct Machine {
    root: PathBuf,
}

impl Machine {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("migrate-pool-{}-{name}", std::process::id()));
        Self { root }
    }

    fn pool(&self) -> Pool {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let topology = Arc::new(Topology::read(&fixtures.join("two-node")).unwrap());
        Pool::start(&self.root, &topology).unwrap()
    }

    fn process(&self, pid: u32) -> PidRef {
        let folder = self.folder(pid);
        std::fs::write(folder.join("maps"), MAPS).unwrap();
        PidRef { pid, start: 4242 }
    }

    fn stuck(&self, pid: u32) -> PidRef {
        let pipe = self.folder(pid).join("maps");
        assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        PidRef { pid, start: 4242 }
    }

    fn release(&self, pid: u32) {
        std::fs::write(self.root.join(format!("proc/{pid}/maps")), MAPS).unwrap();
    }

    fn folder(&self, pid: u32) -> PathBuf {
        let folder = self.root.join(format!("proc/{pid}"));
        std::fs::create_dir_all(&folder).unwrap();
        let fields = ["0"; 16].join(" ");
        let after = ["0"; 30].join(" ");
        std::fs::write(folder.join("stat"), format!("{pid} (x) S {fields} 1 0 4242 {after}"))
            .unwrap();
        std::fs::write(folder.join("numa_maps"), "1000 default anon=1 N0=1\n").unwrap();
        let entry: u64 = (1 << 63) | (1 << 56) | 4096;
        let entries: Vec<u8> = [0, entry].iter().flat_map(|entry| entry.to_ne_bytes()).collect();
        std::fs::write(folder.join("pagemap"), entries).unwrap();
        folder
    }

    fn ask(&self, pool: &mut Pool, ids: &[PidRef], patience: Duration) -> Vec<Done> {
        for &id in ids {
            let resident = Resident { anonymous: 1, ..Resident::default() };
            let placement = Some(Ask { pid: id.pid, resident, ..Ask::default() });
            pool.submit(Job { id, placement, mempolicy: true, stamp: 7 });
        }
        pool.take(patience, ids.iter().copied().collect())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}

const MAPS: &str = "1000-2000 rw-p 00000000 00:00 0 [heap]\n";
