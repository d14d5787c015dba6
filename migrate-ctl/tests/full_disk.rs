//! A journal on a disk that is full.
//!
//! The limit on the size of files makes a write fail as a full disk does. It is
//! a process's own, so that the test runs itself once more below a shell that
//! sets it.

#![expect(clippy::unwrap_used, reason = "helpers of tests stand outside of test functions")]

use std::borrow::Cow;
use std::path::PathBuf;
use std::process::Command;

use migrate_ctl::config::Config;
use migrate_ctl::journal::files::Journal;
use migrate_ctl::journal::{Fact, Settings, reader};
use migrate_ctl::model::{Input, Nanos, Tick};
use migrate_ctl::simulation::fleet::Fleet;
use migrate_ctl::simulation::machines::Machine;
use migrate_ctl::table::Table;

const FOLDER: &str = "JOURNAL_BELOW_THE_LIMIT";
const SECOND: Nanos = 1_000_000_000;

#[test]
fn a_full_disk_is_said_costs_records_and_is_tried_again() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return fill(&PathBuf::from(folder));
    }
    let folder = std::env::temp_dir().join(format!("migrate-full-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    // 64 blocks of 1 KiB, or of half of that.
    let limited = r#"trap "" XFSZ; ulimit -f 64; exec "$0" --nocapture"#;
    let ran = Command::new("sh")
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, &folder)
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    assert!(ran.status.success(), "{said}");
    assert_eq!(said.matches("the journal cannot be written").count(), 1, "{said}");
    assert_eq!(said.matches("the journal goes on").count(), 1, "{said}");
}

/// Writes until nothing fits any more, and on, and once more after a minute.
fn fill(folder: &std::path::Path) {
    tracing_subscriber::fmt().with_ansi(false).init();
    let path = folder.join("journal");
    let settings = Settings::new("observe", &Config::default());
    let mut journal = Journal::open(&path, 1 << 30, settings).unwrap();
    let mut fleet = Fleet::new(1, 200, &Machine::uniform(2), None);
    let (mut now, mut ticks) = (fleet.tick().now, 0);
    while journal.totals().lost_records < 10 {
        now += SECOND;
        record(&mut journal, now, fleet.tick());
        ticks += 1;
        assert!(ticks < 10_000, "the disk is never full");
    }
    let mut left = reader::read(&path).unwrap();
    assert_eq!(left.by_ref().filter(Result::is_ok).count(), 2 + ticks - 10);

    now += 60 * SECOND;
    record(&mut journal, now, fleet.tick());
    assert_eq!(journal.totals().lost_records, 10);
    assert_eq!(reader::read(&path).unwrap().filter(Result::is_ok).count(), 3);
    let before = folder.join("journal.1");
    assert_eq!(reader::read(&before).unwrap().filter(Result::is_ok).count(), 2 + ticks - 10);
}

fn record(journal: &mut Journal, now: Nanos, tick: Tick) {
    journal.make_room(now, &Table::default());
    let input = Cow::Owned(Input::Tick(tick));
    journal.record(now, &Fact::Input { at: now, input });
}
