//! Does every query of the dashboard answer, in a real Prometheus that scrapes a real controller?
//! And is what it scrapes as documented?

use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::guests::REFERENCE;
use crate::guest::{self, End, Guest, Load, Rig};
use crate::kernels;
use crate::packages::{self, Prometheus};
use crate::paths::{root, say, target};
use crate::prometheus::server::{Server, free_address, http_get};
use crate::prometheus::{absent, check_exposition, check_families, dashboard, document};

/// Seconds that the guest stays up once its controller is ready.
const SCENE: &str = "120";
/// Scrapes, one in two seconds, before the queries: enough for every rate to have its points.
const SCRAPES: u32 = 25;
const NAME: &str = "test-dashboard";
const READY: &str = "SCENE-READY";
const PORT: u16 = 9816;
const TIMEOUT: Duration = Duration::from_secs(600);

/// Boots a guest, scrapes it, and asks every query. A guest that the emulator lost is booted
/// once more and counted.
pub(super) fn check(rig: &Rig, rebooted: &mut u32) -> Result<()> {
    let (mut end, mut asked) = scrape(rig)?;
    if end == End::Died {
        *rebooted += 1;
        let log = guest::keep_log(NAME)?;
        say(format!("the guest died, booting it again; log: {}", log.display()));
        (end, asked) = scrape(rig)?;
    }
    asked?;
    ensure!(end == End::Exit(0), "the scene ended with {end:?}");
    Ok(())
}

/// How the guest ended, and what came of asking while it was up.
fn scrape(rig: &Rig) -> Result<(End, Result<()>)> {
    let programs = packages::prometheus()?;
    let kernel = kernels::find(REFERENCE)?;
    let words = ["/bin/lab", "scene", "--seconds", SCENE];
    let command = words.map(str::to_owned).to_vec();
    let load =
        Load { command, settings: &[("balancing", "0".to_owned())], programs: None, far: None };
    let address = free_address()?;
    let guest = rig.guest(NAME, &kernel, &load)?;
    let guest = Guest { forward: Some((address.port(), PORT)), timeout: TIMEOUT, ..guest };
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        let booted = scope.spawn(move || {
            guest::boot(&guest, |line| {
                if line == READY {
                    // Nobody listens any more once the first has been heard.
                    let _ = ready.send(());
                }
            })
        });
        let asked = is_ready
            .recv()
            .context("the guest ended before its controller was ready")
            .and_then(|()| ask(&programs, address));
        let end =
            booted.join().map_err(|_panic| anyhow::anyhow!("the guest's thread panicked"))??;
        Ok((end, asked))
    })
}

fn ask(programs: &Prometheus, address: SocketAddr) -> Result<()> {
    let server = Server::start(&programs.prometheus, &target("guests"), address)?;
    server.wait_for_scrapes(SCRAPES)?;
    let file = root().join("dashboards/migrate.json");
    let json = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let (_, metrics) = http_get(address, "/metrics")?;
    let document = document()?;
    let absent = absent(&metrics, &document)?;
    let answered = dashboard::check_dashboard(&server, &json, &absent)?;
    say(format!("{answered} queries of the dashboard answered; not on this machine: {absent:?}"));
    check_exposition(&programs.promtool, &metrics)?;
    check_families(&metrics).map(drop)
}
