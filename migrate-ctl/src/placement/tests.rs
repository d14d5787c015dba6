use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::*;
use crate::model::Node;

/// First frames of the fixture's nodes: blocks of 128 MiB, 0 and 1 on node 0, 8 and 9 on node 1.
const ON_0: u64 = 4096;
const ON_1: u64 = 8 * 32_768;
/// Above the largest pid_max: no query of the kernel can answer for it.
const PID: u32 = 1 << 23;
/// As in the kernel's pagemap.
const PRESENT: u64 = 1 << 63;
const FILE_OR_SHARED: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;
const OWN: u64 = PRESENT | EXCLUSIVE;

const PAGES: u64 = 16_000;

#[test]
fn nineteen_intervals_in_twenty_hold_the_truth_whatever_the_layout() {
    type OnOne = fn(u64) -> bool;
    let layouts: [(&str, OnOne); 6] = [
        ("two-halves", |page| page >= 9_777),
        ("every-third", |page| page % 3 == 0),
        ("by-chance", |page| page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 == 0),
        ("blocks-of-64", |page| page / 64 % 2 == 0),
        ("islands-of-256", |page| page / 256 % 5 == 0),
        ("a-corner", |page| page < 100),
    ];
    for (name, on_one) in layouts {
        let entry = |page| OWN | if on_one(page) { ON_1 + page } else { ON_0 + page };
        let machine = Machine::new(name, entry);
        let truth = (0..PAGES).filter(|&page| on_one(page)).count() as f32;
        let seen: Vec<Est> = (0..200).map(|seed| machine.sample(seed).unwrap()[Node(1)]).collect();
        let hold = seen.iter().filter(|est| est.low <= truth && truth <= est.high).count();
        assert!(hold >= 186, "{name}: {hold} of 200 hold {truth}");
        let widest = seen.iter().map(|est| (est.high - est.low) / 2.0).fold(0.0, f32::max);
        assert!(widest <= 0.02 * PAGES as f32, "{name}: {widest}");
        assert!(seen.iter().all(|est| est.source == Source::Pagemap));
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
    let nodes = machine.resident(PAGES / 5, 3).unwrap().private;
    assert_eq!(nodes[Node(0)].mid, 3200.0);
    assert_eq!(nodes[Node(1)].mid, 0.0);
}

#[test]
fn shared_memory_and_files_stand_apart() {
    let machine = Machine::new("classes", |page| {
        OWN | if page < PAGES { ON_0 } else { FILE_OR_SHARED | ON_1 }
    });
    let resident = Resident { anonymous: PAGES, shared: 4096, ..Resident::default() };
    let ask = Ask { pid: PID, resident, all_classes: true, ..Ask::default() };
    let placement = place(&machine.root, &machine.topology, &ask).unwrap();
    assert_eq!(placement.private[Node(1)].mid, 0.0);
    let classes: Vec<(Class, f64, f64)> = placement
        .classes
        .iter()
        .map(|of| (of.class, of.base[Node(0)].round(), of.base[Node(1)].round()))
        .collect();
    assert_eq!(classes, [(Class::PrivateAnonymous, 16_000.0, 0.0), (Class::Shared, 0.0, 4096.0)]);
}

#[test]
fn where_little_is_resident_the_intervals_are_wider_and_hold() {
    type Layout = fn(u64) -> u64;
    let layouts: [(&str, Pages, Layout); 3] = [
        ("sparse-even", 320, |page| match page % 100 {
            0 => OWN | ON_0,
            50 => OWN | ON_1,
            _ => 0,
        }),
        ("sparse-halves", 320, |page| match page % 50 {
            0 if page < 8_000 => OWN | ON_0,
            0 => OWN | ON_1,
            _ => 0,
        }),
        ("sparse-islands", 1_280, |page| match page % 800 {
            0..64 if page % 1_600 < 800 => OWN | ON_0,
            0..64 => OWN | ON_1,
            _ => 0,
        }),
    ];
    for (name, resident, entry) in layouts {
        let machine = Machine::new(name, entry);
        let truth = resident as f32 / 2.0;
        let seen: Vec<Est> = (0..200)
            .map(|seed| machine.resident(resident, seed).unwrap().private)
            .filter(|private| !private.is_empty())
            .map(|private| private[Node(1)])
            .collect();
        let hold = seen.iter().filter(|est| est.low <= truth && truth <= est.high).count();
        assert!(seen.len() >= 190, "{name}: {} answers", seen.len());
        let half = |est: &Est| (est.high - est.low) / 2.0;
        let mean = seen.iter().map(half).sum::<f32>() / seen.len() as f32;
        assert!(
            hold * 100 >= seen.len() * 93,
            "{name}: {hold} of {} hold, half {mean}",
            seen.len()
        );
        println!("{name}: {hold} of {} hold {truth}, half {mean}", seen.len());
    }
}

#[test]
fn pages_that_were_not_found_may_be_anywhere() {
    // A third of what is resident, by the kernel, is in none of the mappings.
    let machine = Machine::new("unseen", |_| OWN | ON_0);
    let nodes = machine.resident(PAGES * 3 / 2, 1).unwrap().private;
    assert_eq!(nodes[Node(0)].mid, 24_000.0);
    assert!(nodes[Node(0)].low < 16_600.0, "{nodes:?}");
    assert!(nodes[Node(1)].high > 7_000.0, "{nodes:?}");
}

#[test]
fn touched_pages_lead_to_islands_that_no_draw_finds() {
    // 1,024 pages in 64 GiB.
    let far = 0x40_0000;
    let machine = Machine::at(
        "islands",
        far,
        1 << 24,
        |page| {
            let inside = page % (1 << 21) < 128;
            if inside { OWN | if page < 1 << 23 { ON_0 } else { ON_1 } } else { 0 }
        },
        (0..8).flat_map(|island| (0..128).map(move |page| (island << 21) + page)),
    );
    let resident = Resident { anonymous: 1024 + 4096, ..Resident::default() };
    let blind = Ask { pid: PID, resident, ..Ask::default() };
    let nothing = place(&machine.root, &machine.topology, &blind).unwrap();
    assert_eq!(nothing.private, NodeVec::default());
    let touched = (0..8).map(|island| far + (island << 21) + 5).collect();
    let resident = Resident { anonymous: 1024, ..Resident::default() };
    let led = place(&machine.root, &machine.topology, &Ask { touched, resident, ..blind }).unwrap();
    let half = led.private[Node(0)];
    assert!(half.low < 512.0 && 512.0 < half.high && half.high - half.low < 160.0, "{half:?}");
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
    let machine = Machine::new("ten", |page| if page % 1600 == 0 { OWN | ON_0 } else { 0 });
    assert_eq!(machine.sample(1), None);
}

/// A process of 16,000 pages in two mappings, and a shared one, on the two-node fixture.
struct Machine {
    root: PathBuf,
    topology: Topology,
}

impl Machine {
    fn new(name: &str, entry: impl Fn(u64) -> u64) -> Self {
        let maps = "00010000-01f50000 rw-p 00000000 00:00 0 [heap]\n\
                    02000000-03f40000 rw-p 00000000 00:00 0 \n\
                    04000000-05000000 rw-s 00000000 00:05 9 /memfd:x\n";
        let pages = (0x10..0x1f50).chain(0x2000..0x3f40).chain(0x4000..0x5000);
        Self::with(name, maps, pages.zip((0..).map(entry)))
    }

    /// One mapping, of which some pages have an entry.
    fn at(
        name: &str,
        first: u64,
        pages: u64,
        entry: impl Fn(u64) -> u64,
        there: impl Iterator<Item = u64>,
    ) -> Self {
        let end = first + pages;
        let maps = format!("{:x}-{:x} rw-p 00000000 00:00 0 \n", first << 12, end << 12);
        let last = std::iter::once((end - 1, 0));
        Self::with(name, &maps, there.map(|page| (first + page, entry(page))).chain(last))
    }

    fn with(name: &str, maps: &str, entries: impl Iterator<Item = (u64, u64)>) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let topology = Topology::read(&fixtures.join("two-node")).unwrap();
        let own = format!("migrate-placement-{}-{name}", std::process::id());
        let root = std::env::temp_dir().join(own);
        let folder = root.join(format!("proc/{PID}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("maps"), maps).unwrap();
        let pagemap = File::create(folder.join("pagemap")).unwrap();
        for (page, entry) in entries {
            pagemap.write_all_at(&entry.to_ne_bytes(), page * 8).unwrap();
        }
        Self { root, topology }
    }

    fn sample(&self, seed: u64) -> Option<NodeVec<Est>> {
        sample(&self.root, &self.topology, PID, PAGES, seed)
    }

    fn resident(&self, anonymous: Pages, seed: u64) -> Option<Placement> {
        let resident = Resident { anonymous, ..Resident::default() };
        let ask = Ask { pid: PID, resident, seed, ..Ask::default() };
        place(&self.root, &self.topology, &ask)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}
