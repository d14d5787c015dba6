//! How much does the journal take: bytes and time for each process and tick, of a simulated fleet.
//!
//!     cargo run --release -p migrate-ctl --example journal -- 10000 /tmp/journal

use std::borrow::Cow;
use std::fs::File;
use std::time::Instant;

use anyhow::Context;
use migrate_ctl::config::Config;
use migrate_ctl::contest::world::World;
use migrate_ctl::journal::writer::Writer;
use migrate_ctl::journal::{Decided, Fact, Settings, reader};
use migrate_ctl::model::Input;
use migrate_ctl::policy::decide;
use migrate_ctl::simulation::fleet::Fleet;
use migrate_ctl::simulation::machines::Machine;
use migrate_ctl::table::{Table, absorb};

const NODES: usize = 8;
const TICKS: u32 = 200;

#[expect(clippy::print_stdout, reason = "it prints its result")]
fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let processes: usize = args.next().context("name the number of processes")?.parse()?;
    let path = args.next().context("name a file to write")?;
    let config = Config::default();
    let mut writer = Writer::begin(File::create(&path)?)?;
    writer.append(&Fact::Settings(Cow::Owned(Settings::new("enforce", &config))))?;
    let mut fleet = Fleet::new(1, processes, &Machine::uniform(NODES), None);
    let (mut table, mut world) = (Table::default(), World::default());
    let (begun, mut spent) = (writer.bytes(), std::time::Duration::ZERO);
    for _ in 0..TICKS {
        let mut tick = fleet.tick();
        world.show(&mut tick);
        let at = tick.now;
        let decisions = decide(&mut table, &config, &tick);
        let tick = Input::Tick(tick);
        let begin = Instant::now();
        writer.append(&Fact::Input { at, input: Cow::Borrowed(&tick) })?;
        writer.append(&Fact::Decided(Decided::of(&decisions)))?;
        spent += begin.elapsed();
        for input in world.carry_out(&decisions) {
            absorb(&mut table, &config, &input);
        }
    }
    let observed = processes as f64 * f64::from(TICKS);
    let bytes = writer.bytes() - begun;
    println!(
        "{processes} processes on {NODES} nodes, {TICKS} ticks: {:.1} bytes and {:.2} us for each \
         process and tick, {:.2} ms a tick",
        bytes as f64 / observed,
        spent.as_secs_f64() * 1e6 / observed,
        spent.as_secs_f64() * 1e3 / f64::from(TICKS)
    );
    let (before, begin) = (writer.bytes(), Instant::now());
    writer.append(&Fact::Checkpoint(Cow::Borrowed(&table)))?;
    println!(
        "a checkpoint: {} bytes, {:.1} ms",
        writer.bytes() - before,
        begin.elapsed().as_secs_f64() * 1e3
    );
    let begin = Instant::now();
    let facts = reader::read(path.as_ref())?.filter(Result::is_ok).count();
    println!("read: {facts} records in {:.2} s", begin.elapsed().as_secs_f64());
    Ok(())
}
