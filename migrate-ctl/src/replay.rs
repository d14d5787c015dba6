//! `migrate-ctl replay`: the same inputs once more, through the same code and through other policies.
//!
//! Says whether the recorded decisions come out again, what each policy would
//! have cost, and what each guard did. Pure but for the reading of the source
//! and the threads that run one world each.

pub mod report;
pub mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Config;
use crate::config::set::{SetError, Setting};
use crate::contest::field::{Games, Ours};
use crate::contest::past::{Past, Seen};
use crate::journal::reader::JournalError;
use crate::journal::{Decided, Fact, Settings};
use crate::model::{Decision, Input, PidRef, Reason};
use crate::plain::{Plain, Spent};
use crate::table::Table;
use report::{GuardCost, Report, Reproduced, Row};
use source::Source;

/// Our policy's name in tables.
pub const OURS: &str = "migrate";

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Set(#[from] SetError),
    #[error("there is no tick in it; let `migrate-ctl run --journal` see one at least")]
    Empty,
}

/// Replays a source with these changes of the policy's settings, and shows these policies.
pub fn replay(source: &Source, changes: &[Setting], shown: &[&str]) -> Result<Report, ReplayError> {
    let plain = Plain::ALL.into_iter().filter(|plain| shown.contains(&plain.name()));
    let mut first = First::new(plain);
    let torn = tell(source, changes, &[], &mut |stage, event| first.hear(stage, event))?;
    let recorded = first.recorded.take().filter(|_| first.ticks > 0).ok_or(ReplayError::Empty)?;
    let ours = first.ours.filter(|_| shown.contains(&OURS));
    let mut report = Report {
        recorded,
        ticks: first.ticks,
        seconds: first.seconds,
        processes: first.processes.len(),
        torn,
        reproduced: first.reproduced,
        policies: Vec::new(),
        guards: Vec::new(),
        all_guards: None,
    };
    let optimum = first.best.spent().seconds;
    if let Some(ours) = ours {
        report.policies.push(Row::new(OURS, ours.spent(), optimum));
        let (guards, all) = guards(source, changes, &ours)?;
        (report.guards, report.all_guards) = (guards, Some(all));
    }
    report.policies.extend(first.plain.iter().map(|(plain, games)| {
        let games = if *plain == Plain::Clairvoyant { &first.best } else { games };
        Row::new(plain.name(), games.spent(), optimum)
    }));
    Ok(report)
}

/// What each guard that spoke has cost, and all of them together.
fn guards(
    source: &Source,
    changes: &[Setting],
    ours: &Ours,
) -> Result<(Vec<GuardCost>, f64), ReplayError> {
    let with = ours.spent().seconds;
    let mut off: Vec<Vec<Reason>> = ours.spoke.keys().map(|&guard| vec![guard]).collect();
    off.push(Reason::ALL.to_vec());
    let costs = each(&off, |off| Ok(with - without(source, changes, off)?.seconds));
    let mut costs = costs.into_iter().collect::<Result<Vec<f64>, ReplayError>>()?;
    let all = costs.pop().unwrap_or(0.0);
    let guard = |((&guard, &spoke), seconds)| GuardCost { guard, spoke, seconds };
    Ok((ours.spoke.iter().zip(costs).map(guard).collect(), all))
}

/// Our policy without these guards.
fn without(source: &Source, changes: &[Setting], off: &[Reason]) -> Result<Spent, ReplayError> {
    let mut ours = None;
    tell(source, changes, off, &mut |stage, event| match event {
        Event::Begin(table) => ours = Some(Ours::new(table.clone())),
        Event::Tick(seen) => {
            if let Some(ours) = &mut ours {
                ours.play(seen, &stage.past, &stage.config);
            }
        }
        Event::Other(input) => {
            if let Some(ours) = &mut ours {
                ours.hear(input, &stage.config);
            }
        }
        Event::Decided(_) => {}
    })?;
    Ok(ours.map(|ours| ours.spent()).unwrap_or_default())
}

/// Runs these jobs on all CPUs; the results are in the order of the jobs.
fn each<J: Sync, T: Send + Sync>(jobs: &[J], run: impl Fn(&J) -> T + Sync) -> Vec<T> {
    let results: Vec<OnceLock<T>> = jobs.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (Some(job), Some(result)) = (jobs.get(number), results.get(number)) else { break };
            // Nobody else has taken this number.
            let _ = result.set(run(job));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// The recorded run at one point, and the settings to replay it with.
struct Stage {
    recorded: Settings,
    config: Config,
    past: Past,
}

enum Event<'a> {
    /// What the record begins with.
    Begin(&'a Table),
    Tick(&'a Seen),
    Other(&'a Input),
    Decided(&'a Decided),
}

/// Tells a source's story; says whether its end is torn.
fn tell(
    source: &Source,
    changes: &[Setting],
    off: &[Reason],
    hear: &mut dyn FnMut(&Stage, Event<'_>),
) -> Result<bool, ReplayError> {
    let mut stage: Option<Stage> = None;
    let mut failed = None;
    let torn = source.tell(&mut |fact| match (fact, &mut stage) {
        (Fact::Settings(settings), there) => {
            let settings = settings.into_owned();
            let config = changed(&settings.config, changes, off);
            let config = config.unwrap_or_else(|error| {
                failed = Some(error);
                settings.config.clone()
            });
            match there {
                Some(stage) => (stage.recorded, stage.config) = (settings, config),
                None => {
                    let past = Past::new(Table::default());
                    let begun = stage.insert(Stage { recorded: settings, config, past });
                    hear(begun, Event::Begin(&Table::default()));
                }
            }
        }
        // Nothing can be made of what comes before the settings, and scores come out again.
        (_, None) | (Fact::Scored(_), _) => {}
        (Fact::Checkpoint(table), Some(stage)) => {
            let table = table.into_owned();
            hear(stage, Event::Begin(&table));
            stage.past = Past::new(table);
        }
        (Fact::Input { input, .. }, Some(stage)) => {
            match stage.past.take_in(&input, &stage.recorded.config, &stage.config) {
                Some(seen) => hear(stage, Event::Tick(&seen)),
                None => hear(stage, Event::Other(&input)),
            }
        }
        (Fact::Decided(decided), Some(stage)) => hear(stage, Event::Decided(&decided)),
    })?;
    failed.map_or(Ok(torn), |error| Err(error.into()))
}

fn changed(config: &Config, changes: &[Setting], off: &[Reason]) -> Result<Config, SetError> {
    let mut config = config.clone();
    for change in changes {
        change.change(&mut config.policy)?;
    }
    config.guards_off.extend(off.iter().map(|guard| guard.name().to_owned()));
    Ok(config)
}

/// All that one pass can tell.
struct First {
    recorded: Option<Settings>,
    ticks: u64,
    seconds: f64,
    processes: BTreeSet<PidRef>,
    reproduced: Option<Reproduced>,
    ours: Option<Ours>,
    /// The clairvoyant, whom all are held against.
    best: Games,
    plain: Vec<(Plain, Games)>,
}

impl First {
    fn new(plain: impl Iterator<Item = Plain>) -> Self {
        Self {
            recorded: None,
            ticks: 0,
            seconds: 0.0,
            processes: BTreeSet::new(),
            reproduced: None,
            ours: None,
            best: Games::new(Plain::Clairvoyant),
            plain: plain.map(|plain| (plain, Games::new(plain))).collect(),
        }
    }

    fn hear(&mut self, stage: &Stage, event: Event<'_>) {
        match event {
            Event::Begin(table) => {
                self.recorded = Some(stage.recorded.clone());
                self.ours = Some(Ours::new(table.clone()));
            }
            Event::Tick(seen) => self.tick(stage, seen),
            Event::Other(input) => {
                if let Some(ours) = &mut self.ours {
                    ours.hear(input, &stage.config);
                }
            }
            Event::Decided(then) => {
                let sum = Reproduced { exact: true, ..Reproduced::default() };
                self.reproduced.get_or_insert(sum).compare(then, &stage.past.decided);
            }
        }
    }

    fn tick(&mut self, stage: &Stage, seen: &Seen) {
        self.ticks += 1;
        self.seconds += seen.seconds;
        self.processes.extend(seen.tick.domains.iter().map(|domain| domain.id));
        let gamma = stage.config.policy.gamma;
        self.best.play(seen, gamma);
        let plain = self.plain.iter_mut().filter(|(plain, _)| *plain != Plain::Clairvoyant);
        plain.for_each(|(_, games)| games.play(seen, gamma));
        if let Some(ours) = &mut self.ours {
            ours.play(seen, &stage.past, &stage.config);
        }
    }
}

impl Reproduced {
    fn compare(&mut self, then: &Decided, again: &[Decision]) {
        let decisions = then.count.max(again.len() as u64);
        self.decisions += decisions;
        if *then == Decided::of(again) {
            self.same += decisions;
            return;
        }
        self.exact = false;
        let told: BTreeMap<_, _> = then.told.iter().map(|then| (then.extent, then)).collect();
        let same = |again: &&Decision| match told.get(&again.extent) {
            Some(then) => then.verdict == again.verdict && then.reason == again.reason,
            None => again.reason == Reason::Settled,
        };
        self.same += again.iter().filter(same).count() as u64;
    }
}

#[cfg(test)]
mod tests;
