//! Replays of what was generated, and of what a controller wrote down.

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;

use crate::config::Config;
use crate::config::set::Setting;
use crate::contest::world::World;
use crate::journal::files::Journal;
use crate::journal::{Decided, Fact, Settings};
use crate::model::Input;
use crate::policy::decide;
use crate::replay::report::Report;
use crate::replay::source::{Plan, Source};
use crate::replay::{ReplayError, replay};
use crate::simulation::fleet::Fleet;
use crate::simulation::machines::Machine;
use crate::simulation::traces::{LAWS, Law};
use crate::table::{Table, absorb};

const ALL: [&str; 6] =
    ["migrate", "never", "at_once", "fixed_threshold", "work_function", "clairvoyant"];

#[test]
fn the_same_input_gives_the_same_output_byte_for_byte() {
    let text = || {
        let report = shown(&generated(&LAWS, 4, 600), &[]);
        (report.to_string(), serde_json::to_string(&report).unwrap())
    };
    assert_eq!(text(), text());
}

#[test]
fn what_was_generated_and_saved_replays_alike() {
    let path = file("saved");
    let source = generated(&LAWS, 2, 300);
    let Source::Fleet(plan) = &source else { unreachable!("made above") };
    plan.save(&path).unwrap();
    assert_eq!(shown(&Source::Journal(path.clone()), &[]), shown(&source, &[]));
    fs::remove_file(path).unwrap();
}

#[test]
fn nobody_beats_the_clairvoyant_and_at_once_never_waits() {
    let report = shown(&generated(&LAWS, 4, 900), &[]);
    assert!(report.policies.iter().all(|row| row.ratio.unwrap() > 1.0 - 1e-9), "{report}");
    assert_eq!(row(&report, "clairvoyant").ratio, Some(1.0));
    assert_eq!(row(&report, "never").moves, 0);
    assert!(row(&report, "at_once").moves > row(&report, "fixed_threshold").moves);
}

#[test]
fn stranded_for_good_all_but_never_move_once() {
    let report = shown(&generated(&[Law::Stay], 2, 299), &["hold_back=0"]);
    for name in ["migrate", "at_once", "work_function", "clairvoyant"] {
        assert!(row(&report, name).moves <= report.processes as u64, "{report}");
        assert!(row(&report, name).seconds < row(&report, "never").seconds, "{report}");
    }
}

/// Over two files, with moves, held back ones among them, and a change of the settings.
#[test]
fn recorded_decisions_come_out_again_in_both_files() {
    let path = file("both");
    record(&path, 400_000, 900);
    let before = PathBuf::from(format!("{}.1", path.display()));
    for file in [&path, &before] {
        let report = shown(&Source::Journal(file.clone()), &[]);
        let reproduced = report.reproduced.unwrap();
        assert!(reproduced.decisions > 100 && reproduced.exact, "{reproduced:?}");
        assert_eq!(reproduced.same, reproduced.decisions);
        fs::remove_file(file).unwrap();
    }
}

/// In the worlds of the others, the recorded moves were not made: never pays as if nobody had.
#[test]
fn recorded_moves_are_unmade() {
    let path = file("unmade");
    record(&path, 1 << 30, 600);
    let replayed = shown(&Source::Journal(path.clone()), &[]);
    fs::remove_file(path).unwrap();
    let never = shown(&generated(&LAWS, 2, 600), &[]);
    let [replayed, never] = [&replayed, &never].map(|report| row(report, "never").seconds);
    assert!((replayed / never - 1.0).abs() < 1e-3, "{replayed}, not {never}");
}

#[test]
fn a_change_of_the_settings_changes_our_row_and_no_decision_of_then() {
    let path = file("changed");
    record(&path, 1 << 30, 300);
    let source = Source::Journal(path.clone());
    let (plain, changed) =
        (shown(&source, &[]), shown(&source, &["credit_moves=0", "credit_rate=0"]));
    fs::remove_file(path).unwrap();
    assert_eq!(plain.reproduced, changed.reproduced);
    assert_ne!(row(&plain, "migrate"), row(&changed, "migrate"));
    assert_eq!(row(&plain, "never"), row(&changed, "never"));
}

#[test]
fn a_guard_costs_the_difference_to_a_run_without_it() {
    let source = generated(&[Law::Stay], 2, 600);
    let slow = ["pages_per_second=100", "burst=300000", "hold_back=0"];
    let report = shown(&source, &slow);
    let cost = report.guards.iter().find(|cost| cost.guard.name() == "rate_limit").unwrap();
    assert!(cost.spoke > 0 && cost.seconds > 0.0, "{report}");
    assert!(report.all_guards.unwrap() >= 0.5 * cost.seconds, "{report}");
}

#[test]
fn nothing_is_shown_of_nothing() {
    let empty = replay(&generated(&LAWS, 2, 0), &[], &ALL);
    assert!(matches!(empty, Err(ReplayError::Empty)));
}

fn generated(laws: &[Law], nodes: usize, ticks: usize) -> Source {
    let machine = Machine::uniform(nodes);
    Source::Fleet(Plan { laws: laws.to_vec(), seed: 7, machine, processes: 12, ticks })
}

fn shown(source: &Source, changes: &[&str]) -> Report {
    let changes: Vec<Setting> = changes.iter().map(|text| text.parse().unwrap()).collect();
    replay(source, &changes, &ALL).unwrap()
}

fn row<'a>(report: &'a Report, name: &str) -> &'a crate::replay::report::Row {
    report.policies.iter().find(|row| row.policy == name).unwrap()
}

/// A controller that enforces on a simulated machine; a move has ended a tick after its order.
fn record(path: &std::path::Path, limit: u64, ticks: usize) {
    let mut config = Config::default();
    let mut journal = Journal::open(path, limit, Settings::new("enforce", &config)).unwrap();
    let mut fleet = Fleet::new(7, 12, &Machine::uniform(2), None);
    let (mut table, mut world, mut ended) =
        (Table::default(), World::default(), Vec::<Input>::new());
    for number in 0..ticks {
        let mut tick = fleet.tick();
        world.show(&mut tick);
        let now = tick.now;
        journal.make_room(now, &table);
        if number == ticks / 2 {
            config.policy.hold_back = 0.5;
            journal.change(now, Settings::new("enforce", &config));
        }
        let take_in = |table: &mut Table, journal: &mut Journal, input: Input| {
            journal.record(now, &Fact::Input { at: now, input: Cow::Borrowed(&input) });
            absorb(table, &config, &input);
        };
        ended.drain(..).for_each(|input| take_in(&mut table, &mut journal, input));
        let told = Cow::Owned(Input::Tick(tick.clone()));
        journal.record(now, &Fact::Input { at: now, input: told });
        let decisions = decide(&mut table, &config, &tick);
        journal.record(now, &Fact::Decided(Decided::of(&decisions)));
        let told = world.carry_out(&decisions).into_iter();
        let (over, ordered): (Vec<_>, Vec<_>) =
            told.partition(|input| matches!(input, Input::Progress(_)));
        ordered.into_iter().for_each(|input| take_in(&mut table, &mut journal, input));
        ended = over;
    }
}

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("migrate-replay-{}-{name}", std::process::id()))
}
