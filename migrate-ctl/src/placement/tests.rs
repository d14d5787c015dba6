use std::path::PathBuf;

use super::*;

/// First frames of the fixture's nodes: blocks of 128 MiB, 0 and 1 on node 0, 8 and 9 on node 1.
const ON_0: u64 = 4096;
const ON_1: u64 = 8 * 32_768;
/// Above the largest pid_max: no query of the kernel can answer for it.
const PID: u32 = 1 << 23;

#[test]
fn finds_the_shares_within_their_intervals() {
    let machine = Machine::new("shares", |page| {
        if page < 12_000 { OWN | (ON_0 + page) } else { OWN | (ON_1 + page) }
    });
    for seed in 0..20 {
        let nodes = machine.sample(seed).unwrap();
        let (near, far) = (nodes[Node(0)], nodes[Node(1)]);
        assert!((near.mid - 12_000.0).abs() < 400.0, "seed {seed}: {near:?}");
        assert!(near.low < 12_000.0 && 12_000.0 < near.high, "seed {seed}: {near:?}");
        assert!((near.mid + far.mid - 16_000.0).abs() < 1.0, "seed {seed}");
        assert_eq!(far.source, Source::Pagemap);
    }
}

#[test]
fn gives_the_same_answer_for_the_same_seed() {
    let machine = Machine::new("seed", |page| OWN | if page % 3 == 0 { ON_0 } else { ON_1 });
    assert_eq!(machine.sample(7), machine.sample(7));
    assert_ne!(machine.sample(7), machine.sample(8));
}

#[test]
fn is_certain_of_nothing_but_the_sample() {
    let nodes = Machine::new("one-side", |_| OWN | ON_0).sample(1).unwrap();
    assert_eq!((nodes[Node(0)].mid, nodes[Node(0)].high), (16_000.0, 16_000.0));
    assert!(nodes[Node(0)].low > 15_800.0 && nodes[Node(0)].low < 16_000.0);
    assert!(nodes[Node(1)].high > 0.0 && nodes[Node(1)].low == 0.0);
}

#[test]
fn counts_only_pages_that_are_present_private_and_its_own() {
    let machine = Machine::new("mixed", |page| match page % 5 {
        0 => OWN | ON_0,
        1 => PRESENT | ON_1,
        2 => OWN | FILE_OR_SHARED | ON_1,
        3 => EXCLUSIVE | ON_1,
        _ => 0,
    });
    let nodes = machine.sample(3).unwrap();
    assert_eq!(nodes[Node(0)].mid, 16_000.0);
    assert_eq!(nodes[Node(1)].mid, 0.0);
}

#[test]
fn draws_more_where_little_is_resident() {
    // One page in fifty, of which every second is on node 1.
    let machine = Machine::new("sparse", |page| match page % 100 {
        0 => OWN | ON_0,
        50 => OWN | ON_1,
        _ => 0,
    });
    let nodes = machine.sample(5).unwrap();
    let width = nodes[Node(0)].high - nodes[Node(0)].low;
    // Ten hits, of one round, would leave more than half of the whole open.
    assert!(width < 8_000.0, "{nodes:?}");
}

#[test]
fn reads_every_page_of_a_small_process() {
    let areas = Areas { starts: vec![(0, 1000), (100, 5000)], pages: 300 };
    let mut drawn: Vec<u64> = areas.draw(&mut SplitMix64(1)).collect();
    drawn.dedup();
    assert_eq!(drawn.len(), 300);
    assert_eq!((drawn[0], drawn[99], drawn[100], drawn[299]), (1000, 1099, 5000, 5199));
}

#[test]
fn says_nothing_when_nothing_can_be_known() {
    // Hidden frames and nobody to ask.
    assert_eq!(Machine::new("hidden", |_| OWN).sample(1), None);
    assert_eq!(Machine::new("absent", |_| 0).sample(1), None);
    let machine = Machine::new("gone", |_| OWN | ON_0);
    assert_eq!(sample(&machine.root, &machine.topology, PID + 1, 1, 1), None);
}

#[test]
fn says_nothing_of_a_large_process_when_next_to_nothing_was_found() {
    // 16,000 resident pages, by the kernel, and ten of them in all that was drawn.
    let machine = Machine::new("sparse", |page| if page % 1600 == 0 { OWN | ON_0 } else { 0 });
    assert_eq!(machine.sample(1), None);
}

#[test]
fn takes_private_anonymous_mappings_only() {
    let taken = |line| private_anonymous(line).is_some();
    assert!(taken("1000-3000 rw-p 00000000 00:00 0 \n"));
    assert!(taken("1000-3000 rw-p 00000000 00:00 0    [heap]\n"));
    assert!(taken("1000-3000 r-xp 00000000 00:00 0    [anon:v8]\n"));
    assert!(!taken("1000-3000 ---p 00000000 00:00 0 \n"));
    assert!(!taken("1000-3000 rw-s 00000000 00:00 0 \n"));
    assert!(!taken("1000-3000 rw-p 00000000 08:01 77   /usr/lib/libc.so.6\n"));
    assert!(!taken("1000-3000 r-xp 00000000 00:00 0    [vdso]\n"));
    assert!(!taken("rubbish\n"));
}

/// A process of 16,000 pages in two mappings, on the two-node fixture.
struct Machine {
    root: PathBuf,
    topology: Topology,
}

impl Machine {
    fn new(name: &str, entry: impl Fn(u64) -> u64) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let topology = Topology::read(&fixtures.join("two-node")).unwrap();
        let own = format!("migrate-placement-{}-{name}", std::process::id());
        let root = std::env::temp_dir().join(own);
        let folder = root.join(format!("proc/{PID}"));
        std::fs::create_dir_all(&folder).unwrap();
        let maps = "00010000-01f50000 rw-p 00000000 00:00 0 [heap]\n\
                    02000000-03f40000 rw-p 00000000 00:00 0 \n\
                    04000000-05000000 rw-s 00000000 00:05 9 /memfd:x\n";
        std::fs::write(folder.join("maps"), maps).unwrap();
        let pages = (0x10..0x1f50).chain(0x2000..0x3f40);
        let entries = (0..).map(entry);
        let pagemap = File::create(folder.join("pagemap")).unwrap();
        for (page, entry) in pages.zip(entries) {
            pagemap.write_all_at(&entry.to_ne_bytes(), page * 8).unwrap();
        }
        Self { root, topology }
    }

    fn sample(&self, seed: u64) -> Option<NodeVec<Est>> {
        sample(&self.root, &self.topology, PID, 16_000, seed)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}
