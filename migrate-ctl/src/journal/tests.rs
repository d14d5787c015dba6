//! What a journal keeps, whatever becomes of its file.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::{any, prop, proptest};
use proptest::test_runner::Config as Runs;

use crate::config::Config;
use crate::contest::world::World;
use crate::journal::files::Journal;
use crate::journal::reader::{JournalError, read};
use crate::journal::view::{View, What};
use crate::journal::{Decided, Fact, Settings, format};
use crate::model::{Input, Nanos, Tick};
use crate::policy;
use crate::simulation::fleet::Fleet;
use crate::simulation::machines::Machine;
use crate::table::{Table, absorb};

#[test]
fn what_was_written_is_read_in_its_order() {
    let folder = Folder::new("order");
    let written = run(&folder.file(), 1 << 30, 300);
    let (facts, torn) = whole(&folder.file());
    assert!(!torn);
    assert!(matches!(facts[0], Fact::Settings(_)) && matches!(facts[1], Fact::Checkpoint(_)));
    assert_eq!(bytes(&facts[2..]), bytes(&written));
}

#[test]
fn a_kill_at_any_byte_costs_at_most_the_last_record() {
    let folder = Folder::new("kill");
    run(&folder.file(), 1 << 30, 2);
    let file = fs::read(folder.file()).unwrap();
    let (all, _) = whole(&folder.file());
    // After each record the file was this long.
    let ends: Vec<usize> = lengths(&all);
    assert_eq!(*ends.last().unwrap(), file.len());
    let cut = folder.path("cut");
    for length in 0..file.len() {
        fs::write(&cut, &file[..length]).unwrap();
        let (facts, _) = whole(&cut);
        let written = ends.iter().filter(|&&end| end <= length).count();
        assert!(facts.len() >= written, "{} of {written} at {length}", facts.len());
        assert_eq!(bytes(&facts), bytes(&all[..facts.len()]));
    }
}

#[test]
fn each_file_stays_below_half_of_the_limit_and_begins_with_all_that_is_known() {
    const LIMIT: u64 = 200_000;
    let folder = Folder::new("limit");
    let written = run(&folder.file(), LIMIT, 1_600);
    for path in [folder.file(), folder.path("journal.1")] {
        assert!(fs::metadata(&path).unwrap().len() <= LIMIT / 2, "{path:?}");
        let (facts, torn) = whole(&path);
        assert!(!torn && facts.len() > 10);
        let Fact::Checkpoint(table) = &facts[1] else { panic!("{:?}", facts[1]) };
        assert!(!table.rows.is_empty());
    }
    let (before, after) = (whole(&folder.path("journal.1")).0, whole(&folder.file()).0);
    let both: Vec<_> = before.into_iter().skip(2).chain(after.into_iter().skip(2)).collect();
    assert_eq!(bytes(&both), bytes(&written[written.len() - both.len()..]));
}

#[test]
fn what_had_the_name_before_is_kept_once() {
    let folder = Folder::new("again");
    fs::write(folder.file(), "before").unwrap();
    open(&folder.file(), 1 << 30);
    assert_eq!(fs::read(folder.path("journal.1")).unwrap(), b"before");
    assert_eq!(whole(&folder.file()).0.len(), 2);
}

#[test]
fn what_is_no_regular_file_is_left_alone() {
    let error = Journal::open(Path::new("/dev/null"), 1 << 30, settings()).unwrap_err();
    assert!(error.to_string().contains("no regular file"), "{error}");
}

#[test]
fn another_version_is_named_with_what_to_do() {
    let folder = Folder::new("version");
    fs::write(folder.file(), "migrate journal 4000\nwhatever").unwrap();
    let error = read(&folder.file()).unwrap_err();
    assert!(matches!(&error, JournalError::Version { found, .. } if found == "4000"));
    let (text, wanted) = (error.to_string(), format!("reads version {}", format::VERSION));
    for part in [folder.file().to_str().unwrap(), "version 4000", &wanted, "that wrote it"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_is_no_journal_is_not_taken_for_one() {
    let folder = Folder::new("strange");
    for other in [&b"{\"decision\":{}}\n"[..], b"\x7fELF", b"migrate journal x\n", b"\xff\xfe\n"] {
        fs::write(folder.file(), other).unwrap();
        assert!(matches!(read(&folder.file()), Err(JournalError::NoJournal(_))), "{other:?}");
    }
    let missing = read(&folder.path("missing")).unwrap_err();
    assert!(matches!(missing, JournalError::Read { .. }), "{missing}");
}

#[test]
fn each_decision_and_each_move_has_its_sentence() {
    let folder = Folder::new("words");
    run(&folder.file(), 1 << 30, 400);
    let mut view = View::default();
    let facts = read(&folder.file()).unwrap().map(Result::unwrap);
    let entries: Vec<_> = facts.flat_map(|fact| view.entries(fact)).collect();
    let ended = entries.iter().filter(|entry| matches!(entry.what, What::Outcome(_)));
    assert!(ended.count() > 0);
    for entry in entries.iter().filter(|entry| entry.pid().is_some()) {
        assert!(entry.why.starts_with("simulated (") && entry.why.ends_with('.'), "{}", entry.why);
    }
}

/// Errors are fine, and so are other facts; panics are not.
#[test]
fn no_bytes_break_the_reader() {
    let folder = Folder::new("fuzz");
    run(&folder.file(), 1 << 30, 2);
    let file = fs::read(folder.file()).unwrap();
    let bad = folder.path("bad");
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    proptest!(Runs::with_cases(300), |(flips in flips)| {
        let mut bytes = file.clone();
        for (at, value) in flips {
            bytes[at.index(file.len())] = value;
        }
        fs::write(&bad, bytes).unwrap();
        let _ = read(&bad).map(Iterator::count);
    });
    proptest!(Runs::with_cases(300), |(bytes in prop::collection::vec(any::<u8>(), 0..200))| {
        let _ = format::fact(&framed(&bytes));
        fs::write(&bad, [format::first_line().as_bytes(), &bytes].concat()).unwrap();
        let _ = read(&bad).map(Iterator::count);
    });
}

#[test]
fn a_tick_whose_processes_are_out_of_order_is_refused() {
    let mut tick = Fleet::new(1, 3, &Machine::uniform(2), None).tick();
    let read = |tick: &Tick| {
        let fact = fact(0, &Input::Tick(tick.clone()));
        format::fact(&framed(&postcard::to_stdvec(&fact).unwrap())).map(|fact| fact.is_some())
    };
    assert_eq!(read(&tick), Ok(true));
    tick.domains.swap(0, 1);
    assert_eq!(read(&tick), Err("the processes of a tick are out of order"));
    tick.domains[0] = tick.domains[1].clone();
    assert!(read(&tick).is_err(), "twice the same");
}

/// A payload with the length and check sum that belong to it.
fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..], &crc32fast::hash(payload).to_le_bytes(), payload].concat()
}

/// A controller that enforces, in a simulated machine; gives what it wrote after the beginning.
fn run(path: &Path, limit: u64, ticks: usize) -> Vec<Fact<'static>> {
    let (config, mut journal) = (Config::default(), open(path, limit));
    let (mut fleet, mut world) = (Fleet::new(1, 10, &Machine::uniform(2), None), World::default());
    let (mut table, mut written) = (Table::default(), Vec::new());
    for _ in 0..ticks {
        let mut tick = fleet.tick();
        world.show(&mut tick);
        let now = tick.now;
        journal.make_room(now, &table);
        let mut keep = |fact: Fact<'static>| {
            journal.record(now, &fact);
            written.push(fact);
        };
        keep(fact(now, &Input::Tick(tick.clone())));
        let decisions = policy::decide(&mut table, &config, &tick);
        keep(Fact::Decided(Decided::of(&decisions)));
        for input in world.carry_out(&decisions) {
            keep(fact(now, &input));
            absorb(&mut table, &config, &input);
        }
    }
    written
}

fn fact(at: Nanos, input: &Input) -> Fact<'static> {
    Fact::Input { at, input: Cow::Owned(input.clone()) }
}

fn open(path: &Path, limit: u64) -> Journal {
    Journal::open(path, limit, settings()).unwrap()
}

fn settings() -> Settings {
    Settings::new("enforce", &Config::default())
}

/// All facts of an undamaged file, and whether its end is torn.
fn whole(path: &Path) -> (Vec<Fact<'static>>, bool) {
    let mut reader = read(path).unwrap();
    let facts = reader.by_ref().map(Result::unwrap).collect();
    (facts, reader.torn())
}

fn bytes(facts: &[Fact<'_>]) -> Vec<Vec<u8>> {
    facts.iter().map(|fact| format::record(fact).unwrap()).collect()
}

/// How long a file is after each of its records.
fn lengths(facts: &[Fact<'_>]) -> Vec<usize> {
    let folder = Folder::new("lengths");
    let mut writer =
        super::writer::Writer::begin(fs::File::create(folder.file()).unwrap()).unwrap();
    let length = |fact| {
        writer.append(fact).unwrap();
        usize::try_from(writer.bytes()).unwrap()
    };
    facts.iter().map(length).collect()
}

/// A folder of this test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let own = format!("migrate-journal-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(own);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.path("journal")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
