//! Runs the VM tests and prints one verdict line for each.
//!
//! With `--broken` each test that names what it depends on runs with that
//! switched off, and passes if it notices: by a claim that does not hold, not
//! by an error on the way.

use std::cell::{RefCell, RefMut};
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use migrate_ctl::probes::{Counts, Probes};
use migrate_ctl::topology::Topology;

use crate::controller::{Controller, Running};
use crate::tests;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The machine that the guest is
    #[arg(long, value_enum)]
    topology: Machine,
    /// Only tests whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Of a far machine: remote latency ÷ local latency
    #[arg(long, default_value_t = 1.0)]
    factor: f64,
    /// Also what depends on no kernel, and is tested on one of them only
    #[arg(long)]
    reference: bool,
    /// Switch off what each test depends on, and see it fail
    #[arg(long)]
    broken: bool,
    /// So many of the tests have passed before the emulator lost the guest
    #[arg(long, default_value_t = 0)]
    skip: usize,
}

/// The signal whose probes come and go: that patches the way of every fault, and the emulator is
/// lost the sooner the more faults there are. Only what is about it has it on.
pub(crate) const FAULT_TIME: &str = "fault_time";

/// Guests that tests are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Machine {
    One,
    Two,
    Four,
    Cpuless,
    Memoryless,
    /// Two nodes, each really slower from the other
    Far,
}

/// Nodes 0 and 1 with CPUs and memory.
pub(crate) const TWO_AND_MORE: &[Machine] = &[Machine::Two, Machine::Four];
/// And a machine with node 0 only.
pub(crate) const ONE_AND_MORE: &[Machine] = &[Machine::One, Machine::Two, Machine::Four];

/// One test.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    /// Each that it is run on.
    pub(crate) machines: &'static [Machine],
    pub(crate) off: Off,
    pub(crate) run: fn(&Lab) -> Result<()>,
}

/// What a test depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Off {
    /// Nothing that can be switched off.
    Nothing,
    /// The probes of this signal.
    Probe(&'static str),
    /// The guard of this name.
    Guard(&'static str),
    /// The mode: `enforce` instead of `observe`, or the other way round.
    Mode,
    /// The measurement of memory latency: a ratio is configured instead.
    Measurement,
}

/// What a test works with.
pub(crate) struct Lab {
    off: Option<Off>,
    /// Remote latency ÷ local latency, as the machine was told to have it.
    pub(crate) factor: f64,
    /// Loading takes the emulator five seconds, so that one test hands them on to the next.
    loaded: RefCell<Option<Probes>>,
}

/// A claim that does not hold.
#[derive(Debug)]
pub(crate) struct Violated(String);

impl Display for Violated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violated {}

/// Claims something; the message says what was found instead.
pub(crate) fn claim(holds: bool, found: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Violated(found()).into()) }
}

impl Lab {
    /// Whether what the test depends on is switched off.
    pub(crate) fn broken(&self) -> bool {
        self.off.is_some()
    }

    /// The same lab with this switched off.
    fn without(&mut self, off: Option<Off>) {
        if self.off != off {
            self.off = off;
            self.unload();
        }
    }

    /// Lets go of the probes: somebody else is to load his.
    fn unload(&self) {
        self.loaded.replace(None);
    }

    /// All probes, but those that are switched off and those that time faults. What they counted before is still there.
    pub(crate) fn probes(&self) -> Result<RefMut<'_, Probes>> {
        let mut loaded = self.loaded.borrow_mut();
        if loaded.is_none() {
            *loaded = Some(self.load(&[FAULT_TIME], u32::MAX)?);
        }
        RefMut::filter_map(loaded, Option::as_mut).ok().context("loaded above")
    }

    /// New ones, without these, and with so many entries in their maps.
    pub(crate) fn probes_with(&self, without: &[&str], most: u32) -> Result<Probes> {
        self.unload();
        self.load(without, most)
    }

    fn load(&self, without: &[&str], most: u32) -> Result<Probes> {
        let mut off = without.to_vec();
        if let Some(Off::Probe(signal)) = self.off {
            off.push(signal);
        }
        let topology = Topology::read(std::path::Path::new("/")).context("read the topology")?;
        Probes::load_with(&off, &topology, most).context("load the probes")
    }

    pub(crate) fn observe(&self, words: &str) -> Result<Controller> {
        self.controller(self.observing(), words)
    }

    pub(crate) fn enforce(&self, words: &str) -> Result<Controller> {
        self.controller(self.enforcing(), words)
    }

    /// The same with another ratio of memory latency than usual.
    pub(crate) fn enforce_at(&self, ratio: &str, words: &str) -> Result<Controller> {
        self.at(self.enforcing(), ratio, words)
    }

    pub(crate) fn observe_at(&self, ratio: &str, words: &str) -> Result<Controller> {
        self.at(self.observing(), ratio, words)
    }

    fn at(&self, mode: &str, ratio: &str, words: &str) -> Result<Controller> {
        self.unload();
        Controller::measuring(&format!("--latency-ratio {ratio} {}", self.words(mode, words)))
    }

    fn observing(&self) -> &'static str {
        if self.off == Some(Off::Mode) { "enforce" } else { "observe" }
    }

    fn enforcing(&self) -> &'static str {
        if self.off == Some(Off::Mode) { "observe" } else { "enforce" }
    }

    /// The controller in `enforce`, with the ratios of memory latency that it measures itself.
    pub(crate) fn measuring(&self, words: &str) -> Result<Controller> {
        self.unload();
        if self.off == Some(Off::Measurement) {
            self.enforce(words)
        } else {
            Controller::measuring(&format!("--mode enforce --without {FAULT_TIME} {words}"))
        }
    }

    /// An assessment of one process, for so many seconds from now on.
    pub(crate) fn assess(&self, pid: u32, seconds: u64) -> Result<Running> {
        self.unload();
        let words = format!("--include pid:{pid} --without {FAULT_TIME} --output json");
        Running::until_it_says(&format!("assess --for {seconds}s {words}"), "watching for")
    }

    fn controller(&self, mode: &str, words: &str) -> Result<Controller> {
        self.unload();
        Controller::start(&self.words(mode, words))
    }

    /// Those of `run`, and what is switched off.
    fn words(&self, mode: &str, words: &str) -> String {
        let off = match self.off {
            Some(Off::Probe(signal)) => format!("--without {signal}"),
            Some(Off::Guard(reason)) => format!("--guard-off {reason}"),
            Some(Off::Mode | Off::Measurement | Off::Nothing) | None => String::new(),
        };
        format!("--mode {mode} --without {FAULT_TIME} {words} {off}")
    }
}

/// What was counted between two readings.
pub(crate) fn counted(
    probes: &mut Probes,
    act: impl FnOnce() -> Result<()>,
) -> Result<(Counts, Counts)> {
    let before = probes.read().context("read the probes")?;
    act()?;
    Ok((before, probes.read().context("read the probes")?))
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let mut failed = 0;
    let mut lab = Lab { off: None, factor: args.factor, loaded: RefCell::new(None) };
    let wanted = |test: &Test| {
        test.machines.contains(&args.topology)
            && args.only.as_ref().is_none_or(|part| test.name.contains(part.as_str()))
            && !(args.broken && test.off == Off::Nothing)
    };
    for test in tests::all(args.reference).filter(wanted).skip(args.skip) {
        lab.without(args.broken.then_some(test.off));
        let passed = if args.broken { fails_when_broken(&test, &lab) } else { passes(&test, &lab) };
        if !passed {
            failed += 1;
            // Who knows in which state it left them.
            lab.unload();
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(test: &Test, lab: &Lab) -> bool {
    let began = Instant::now();
    let result = (test.run)(lab);
    if let Err(error) = &result {
        say(&format!("{}: {error:#}", test.name));
    }
    verdict(test.name, result.is_ok(), began)
}

fn fails_when_broken(test: &Test, lab: &Lab) -> bool {
    let began = Instant::now();
    let result = (test.run)(lab);
    let noticed = matches!(&result, Err(error) if error.is::<Violated>());
    match result {
        Ok(()) => say(&format!("{}: holds although {:?} is off", test.name, test.off)),
        Err(error) if noticed => say(&format!("{}: notices: {error:#}", test.name)),
        Err(error) => say(&format!("{}: breaks on the way: {error:#}", test.name)),
    }
    verdict(&format!("{}_fails_when_broken", test.name), noticed, began)
}

fn verdict(name: &str, good: bool, began: Instant) -> bool {
    let seconds = began.elapsed().as_secs_f64();
    say(&format!("test {name} ... {} ({seconds:.1} s)", if good { "ok" } else { "FAILED" }));
    good
}

/// A line for whoever reads the console.
pub(crate) fn say(line: &str) {
    let mut output = io::stdout().lock();
    // Without a console there is nobody to tell.
    let _ = writeln!(output, "{line}");
    let _ = output.flush();
}
