//! Where the inputs of a replay come from: a journal, or processes that never were.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::journal::reader::{self, JournalError};
use crate::journal::writer::Writer;
use crate::journal::{Fact, Settings};
use crate::model::Input;
use crate::simulation::fleet::Fleet;
use crate::simulation::machines::Machine;
use crate::simulation::traces::Law;

/// Tells the same facts each time that it is asked.
#[derive(Clone, Debug)]
pub enum Source {
    Journal(PathBuf),
    Fleet(Plan),
}

/// A simulated machine and its processes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// At least one.
    pub laws: Vec<Law>,
    pub seed: u64,
    pub machine: Machine,
    pub processes: usize,
    pub ticks: usize,
}

impl Source {
    /// Says whether the end is torn.
    pub(super) fn tell(&self, hear: &mut dyn FnMut(Fact<'static>)) -> Result<bool, JournalError> {
        match self {
            Self::Journal(path) => {
                let mut reader = reader::read(path)?;
                for fact in &mut reader {
                    hear(fact?);
                }
                Ok(reader.torn())
            }
            Self::Fleet(plan) => {
                plan.facts().for_each(hear);
                Ok(false)
            }
        }
    }
}

impl Plan {
    /// As a journal, to be replayed once more.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut writer = Writer::begin(File::create(path)?)?;
        self.facts().try_for_each(|fact| writer.append(&fact))
    }

    fn facts(&self) -> impl Iterator<Item = Fact<'static>> {
        let settings = Settings::new("generated", &Config::default());
        let laws = self.laws.clone();
        let mut fleet = Fleet::by(laws, self.seed, self.processes, &self.machine);
        let ticks = (0..self.ticks).map(move |_| {
            let tick = fleet.tick();
            Fact::Input { at: tick.now, input: Cow::Owned(Input::Tick(tick)) }
        });
        std::iter::once(Fact::Settings(Cow::Owned(settings))).chain(ticks)
    }
}
