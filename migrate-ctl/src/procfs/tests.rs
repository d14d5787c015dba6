use std::path::PathBuf;

use super::*;
use crate::model::Mempolicy;

#[test]
fn reads_a_process() {
    let redis = process(&root(), 100).unwrap();
    assert_eq!(
        redis,
        Process {
            id: PidRef { pid: 100, start: 4711 },
            comm: "redis-server".into(),
            cgroup: "/system.slice/redis.service".into(),
            kernel_thread: false,
            mems_allowed: vec![NodeId(0), NodeId(8)],
            resident: Resident { anonymous: 65_536, file: 1964, ..Resident::default() },
            threads: 5,
            faults: Faults { minor: 1, major: 3 },
            calls: 30,
            ticks: 250,
        }
    );
    assert_eq!(start_of(&root(), 100), Some(4711));
}

#[test]
fn reads_a_name_made_to_confuse_readers() {
    let evil = process(&root(), 101).unwrap();
    assert_eq!(evil.comm, "a) R 1\n(\u{fffd}");
    assert_eq!((evil.id.start, evil.threads), (815, 1));
}

#[test]
fn knows_a_kernel_thread_and_a_process_that_is_gone() {
    assert!(process(&root(), 2).unwrap().kernel_thread);
    assert_eq!(process(&root(), 999), None);
    assert_eq!(start_of(&root(), 999), None);
    assert_eq!(threads(&root(), 999), None);
}

#[test]
fn tells_the_living_from_the_exiting_and_from_their_successors() {
    let id = |pid, start| PidRef { pid, start };
    assert!(lives(&root(), id(100, 4711)));
    assert!(!lives(&root(), id(100, 4710)));
    assert!(!lives(&root(), id(102, 900)));
    assert!(!lives(&root(), id(999, 1)));
}

#[test]
fn lists_processes_and_nothing_else() {
    assert_eq!(processes(&root()).unwrap(), [2, 100, 101, 102]);
    assert!(processes(Path::new("/nowhere")).is_err(), "nobody has exited there");
}

#[test]
fn knows_what_each_thread_has_used() {
    let faults = |minor| Faults { minor, major: 3 };
    let thread = |tid, cpu, ticks, minor| Thread { tid, cpu, ticks, faults: faults(minor) };
    assert_eq!(threads(&root(), 100).unwrap(), [thread(100, 3, 250, 1), thread(105, 1, 7, 8)]);
}

#[test]
fn finds_a_policy_on_a_single_mapping() {
    assert_eq!(mempolicy(&root(), 100), Mempolicy::Default);
    assert_eq!(mempolicy(&root(), 101), Mempolicy::Explicit);
    // Empty, as for a kernel thread, and missing.
    assert_eq!(mempolicy(&root(), 2), Mempolicy::Unknown);
    assert_eq!(mempolicy(&root(), 999), Mempolicy::Unknown);
}

#[test]
fn takes_the_cgroup_from_where_the_processes_are_sorted() {
    assert_eq!(cgroup_path("0::/a:b\n"), "/a:b");
    assert_eq!(cgroup_path("4:memory:/box\n2:cpu,cpuacct:/c\n0::/\n"), "/box");
    assert_eq!(cgroup_path("4:memory:/\n2:cpu,cpuacct:/c\n"), "/c");
    assert_eq!(cgroup_path("3:memory:/\n0::/\n"), "/");
    assert_eq!(cgroup_path(""), "");
}

#[test]
fn prints_hostile_names_harmlessly() {
    assert_eq!(printable("redis-server"), "redis-server");
    assert_eq!(printable(b"a\nb\xff\x1b[2J"), "a\\u{a}b\u{fffd}\\u{1b}[2J");
    assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
    assert_eq!(printable("y".repeat(64)), "y".repeat(64));
    assert_eq!(printable("y".repeat(65)), format!("{}…", "y".repeat(61)));
    assert!(printable("\n".repeat(99)).len() <= 64);
    assert!(printable("€".repeat(99)).len() <= 64);
}

#[test]
fn reads_lists_as_the_kernel_prints_them() {
    assert_eq!(parse_list("0-2,8\n"), Some(vec![0, 1, 2, 8]));
    assert_eq!(parse_list("\n"), Some(vec![]));
    for bad in ["a", "3-1", "1-", "0-4294967295"] {
        assert_eq!(parse_list(bad), None, "{bad}");
    }
}

#[test]
fn reads_ourselves() {
    let own = process(Path::new("/"), std::process::id()).unwrap();
    assert!(own.resident.anonymous > 0 && own.threads > 0 && own.id.start > 0);
    assert!(!own.mems_allowed.is_empty());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/processes")
}
