//! Does every query of the dashboard answer, in a real Prometheus that scrapes a real controller?

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::guests::REFERENCE;
use crate::guest::{self, End, Guest, Load, Rig};
use crate::paths::{root, say, target};
use crate::prometheus::{dashboard, server::Server};
use crate::{kernels, packages};

/// Seconds that the guest stays up once its controller is ready.
const SCENE: &str = "90";
/// Scrapes, one a second, before the queries: enough for every rate to have its points.
const SCRAPES: u32 = 45;
const READY: &str = "SCENE-READY";
const PORT: u16 = 9816;
const TIMEOUT: Duration = Duration::from_secs(600);

/// Boots a guest, scrapes it, and asks every query.
pub(super) fn check(rig: &Rig) -> Result<()> {
    let prometheus = packages::prometheus()?.prometheus;
    let kernel = kernels::find(REFERENCE)?;
    let words = ["/bin/lab", "scene", "--seconds", SCENE];
    let command = words.map(str::to_owned).to_vec();
    let load = Load { command, settings: &[("balancing", "1".to_owned())], redis: None };
    let port = free_port()?;
    let guest = rig.guest("test-dashboard", &kernel, &load)?;
    let guest = Guest { forward: Some((port, PORT)), timeout: TIMEOUT, ..guest };
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
            .and_then(|()| ask(&prometheus, port));
        let end =
            booted.join().map_err(|_panic| anyhow::anyhow!("the guest's thread panicked"))??;
        asked?;
        ensure!(end == End::Exit(0), "the scene ended with {end:?}");
        Ok(())
    })
}

fn ask(prometheus: &std::path::Path, port: u16) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let folder = target("guests");
    let server = Server::start(prometheus, &folder, address)?;
    server.wait_for_scrapes(SCRAPES)?;
    let file = root().join("dashboards/migrate.json");
    let json = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let answers = dashboard::check_dashboard(&server, &json, &[])?;
    say(format!("{} queries of the dashboard answered", answers.len()));
    Ok(())
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("name a free port")?.port())
}
