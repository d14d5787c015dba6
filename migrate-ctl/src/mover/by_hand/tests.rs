use std::path::PathBuf;

use super::*;

#[test]
fn tells_apart_why_pages_stayed() {
    let before = maps_of(vec![
        mapping(1, Kind::Anonymous, 100, 1),
        mapping(2, Kind::File, 40, 9),
        mapping(3, Kind::File, 5, 1),
        mapping(4, Kind::Anonymous, 50, 2),
    ]);
    let after = maps_of(vec![
        mapping(1, Kind::Anonymous, 3, 1),
        mapping(2, Kind::File, 40, 9),
        mapping(3, Kind::File, 5, 1),
        mapping(4, Kind::Anonymous, 20, 2),
        mapping(5, Kind::Anonymous, 7, 1),
    ]);
    let asked = |shared| stayed(&before, &after, NodeId(0), shared);
    let kept = Stayed { shared: 60, file: 5, refused_or_pinned: 3, arrived_since: 7 };
    assert_eq!(asked(false), kept);
    assert_eq!(asked(true), Stayed { shared: 0, refused_or_pinned: 63, ..kept });
}

#[test]
fn names_what_a_shared_move_takes_along() {
    let libc = |start, pages, mapmax| Mapping {
        name: "/lib/libc.so.6".into(),
        ..mapping(start, Kind::File, pages, mapmax)
    };
    let maps = maps_of(vec![libc(1, 10, 4), libc(2, 5, 9), mapping(3, Kind::Anonymous, 40, 2)]);
    let names = dragged(&maps, NodeId(0));
    assert_eq!((names[0].name.as_str(), names[0].pages), ("anonymous memory", 40));
    assert_eq!(
        (names[1].name.as_str(), names[1].pages, names[1].processes),
        ("/lib/libc.so.6", 15, 9)
    );
    assert!(dragged(&maps, NodeId(1)).is_empty());
}

#[test]
fn refuses_nodes_that_make_no_sense_and_lists_those_that_do() {
    let said = |name: &str, from, to| {
        let error = by_hand(&root(name), &topology(name), 1, NodeId(from), NodeId(to), false);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), HandErrorKind::BadInput);
        error.to_string()
    };
    assert_eq!(said("sparse", 0, 1), "node 1 does not exist: choose from 0, 8");
    assert_eq!(said("memory-less", 0, 1), "node 1 has no memory: choose from 0");
    assert_eq!(said("two-node", 1, 1), "pages are to go from node 1 to itself: name two nodes");
}

#[test]
fn refuses_processes_that_cannot_be_moved() {
    let fixture = root("processes");
    let error = |pid, to| target(&fixture, pid, NodeId(to)).unwrap_err();
    assert_eq!(error(999, 0).kind(), HandErrorKind::Gone);
    assert!(error(999, 0).to_string().contains("process 999"));
    assert_eq!(error(2, 0).kind(), HandErrorKind::BadInput);
    assert!(error(2, 0).to_string().contains("2 (kthreadd) is a kernel thread"));
    // Its cpuset has nodes 0 and 8.
    assert_eq!(error(100, 1).kind(), HandErrorKind::NotPermitted);
    assert!(error(100, 1).to_string().contains("allows nodes 0, 8, not 1"));
}

#[test]
fn refuses_a_node_that_is_full() {
    let check = |pages| {
        let maps = maps_of(vec![mapping(1, Kind::Anonymous, pages, 1)]);
        check_room(&root("two-node"), &topology("two-node"), &maps, NodeId(0), NodeId(1), false)
    };
    // 75,000 free, 700 below the watermark, and half of 2,500 inactive.
    assert!(check(75_550).is_ok());
    let error = check(75_551).unwrap_err();
    assert_eq!(error.kind(), HandErrorKind::NothingMoved);
    assert!(error.to_string().contains("room for 75550 pages and 75551"), "{error}");
}

#[test]
fn reports_in_a_few_lines() {
    let text = report().to_string();
    assert_eq!(
        text,
        "process 7 (redis), node 0 to node 8\n\
         moved: 512 pages (2.0 MiB) in 0.250 s\n\
         stayed on node 0: 40 in shared mappings (--shared moves them), 2 refused or pinned\n\
         node 0: 554 pages before, 42 after\n\
         node 8: 0 pages before, 512 after\n\
         whole machine meanwhile: 512 pages migrated, 2 failed\n\
         note: policy bind:0 on 1 mapping(s): new pages obey it\n"
    );
}

#[test]
fn is_complete_only_if_all_that_could_move_did() {
    let mut report = report();
    assert!(!report.complete());
    report.stayed.refused_or_pinned = 0;
    assert!(report.complete());
    report.moved = 0;
    assert!(!report.complete());
}

fn report() -> HandReport {
    HandReport {
        pid: 7,
        comm: "redis".into(),
        from: NodeId(0),
        to: NodeId(8),
        shared: false,
        dragged: Vec::new(),
        moved: 512,
        stayed: Stayed { shared: 40, refused_or_pinned: 2, ..Stayed::default() },
        nodes: vec![
            NodePages { node: NodeId(0), before: 554, after: 42 },
            NodePages { node: NodeId(8), before: 0, after: 512 },
        ],
        kernel: Some(KernelCount { migrated: 512, failed: 2 }),
        policies: BTreeMap::from([("bind:0".into(), 1)]),
        duration: 250_000_000,
    }
}

fn maps_of(mappings: Vec<Mapping>) -> NumaMaps {
    NumaMaps { mappings, unknown: 0 }
}

/// All its pages are on node 0.
fn mapping(start: u64, kind: Kind, pages: Pages, mapmax: u64) -> Mapping {
    Mapping {
        start,
        policy: "default".into(),
        kind,
        name: String::new(),
        pages: vec![(NodeId(0), pages)],
        page_kib: 4,
        anon: pages,
        dirty: pages,
        mapmax,
    }
}

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn topology(name: &str) -> Topology {
    Topology::read(&root(name)).unwrap()
}
