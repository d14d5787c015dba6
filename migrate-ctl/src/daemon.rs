//! `migrate-ctl run`: the loop that joins the stages.
//!
//! One task owns all state. What blocks runs on a thread of its own: the
//! sampler on the blocking pool, moves on the mover's thread. Stages hand over
//! values; the tick below reads as the data flow.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::config::Config;
use crate::instance::{self, InstanceError, LOCK_FILE};
use crate::journal::{Fact, Journal};
use crate::ledger::Ledger;
use crate::model::{Decision, DomainObs, Input, NodeVec, Outcome, Tick, Verdict};
use crate::mover::{MoveCounter, Mover};
use crate::probes::{Probes, ProbesError};
use crate::sampler::Sampler;
use crate::snapshot::{HookState, HookVerdict, OwnCost, Snapshot};
use crate::table::{Table, absorb};
use crate::topology::{Topology, TopologyError};
use crate::{cgroups, http, own, policy, report, sys};

/// The summary comes after so many seconds: enough samples to say something.
const SUMMARY_AFTER: Duration = Duration::from_secs(6);

/// What `run` was asked to do.
pub struct Options {
    pub enforce: bool,
    pub listen: SocketAddr,
    pub tick: Duration,
    /// Signals whose probes stay off.
    pub without: Vec<String>,
    pub journal: Option<PathBuf>,
    pub config: Config,
}

/// Why the controller cannot run here. Each is one line with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "user {0} may not watch or move other users' processes; run it as root: sudo migrate-ctl run"
    )]
    NotRoot(u32),
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    Listen(#[from] http::HttpError),
    #[error(transparent)]
    Probes(#[from] ProbesError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error("cannot open the journal {path}: {source}; name a file in a writable folder")]
    Journal { path: PathBuf, source: std::io::Error },
    #[error("the mover cannot give up CAP_SYS_NICE: {0}; without that it must not move anything")]
    Mover(std::io::Error),
}

/// Runs until SIGINT or SIGTERM.
pub async fn run(options: Options, say: impl Fn(&str)) -> anyhow::Result<()> {
    let mut controller = Controller::start(options).await?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut clock = tokio::time::interval(controller.options.tick);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    clock.tick().await;
    let mut summary_due = true;
    loop {
        tokio::select! {
            _ = clock.tick() => controller.tick().await?,
            Some(outcome) = controller.outcomes.recv() => controller.absorb_outcome(&outcome),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
        if summary_due && controller.started.elapsed() >= SUMMARY_AFTER {
            summary_due = false;
            say(&controller.summary());
        }
    }
    if summary_due {
        say(&controller.summary());
    }
    say(&controller.stop().await);
    Ok(())
}

struct Controller {
    options: Options,
    /// Out of the daemon's hands only while a tick samples.
    sampler: Option<Sampler>,
    table: Table,
    ledger: Ledger,
    journal: Journal,
    /// None once it has stopped.
    mover: Option<Mover>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    hooks: Vec<HookVerdict>,
    published: watch::Sender<Option<Arc<Snapshot>>>,
    last: Option<(Tick, Vec<Decision>)>,
    cost: OwnCost,
    started: Instant,
    _instance: instance::Instance,
}

impl Controller {
    async fn start(options: Options) -> Result<Self, StartError> {
        let user = rustix::process::geteuid();
        if !user.is_root() {
            return Err(StartError::NotRoot(user.as_raw()));
        }
        let root = Path::new("/");
        let instance = instance::take(Path::new(LOCK_FILE))?;
        let listener = http::bind(options.listen).await?;
        let topology = Topology::read(root)?;
        let off: Vec<&str> = options.without.iter().map(String::as_str).collect();
        let cpus = topology.cpus().map(|(cpu, node)| (cpu, topology.id(node)));
        let mut probes = Probes::load(&off, cpus)?;
        let hooks = probes.verdicts().to_vec();
        for hook in &hooks {
            if hook.state != HookState::Attached {
                warn!(signal = hook.signal, hook = %hook.hook, state = ?hook.state, "hook not attached");
            }
        }
        let journal = Journal::open(options.journal.as_deref()).map_err(|source| {
            let path = options.journal.clone().unwrap_or_default();
            StartError::Journal { path, source }
        })?;
        let topology = Arc::new(topology);
        let counter = probes.own_moves().map(|moves| Box::new(moves) as Box<dyn MoveCounter>);
        let (mover, outcomes) = Mover::start(Arc::clone(&topology), counter, root.to_path_buf())
            .map_err(StartError::Mover)?;
        let boundness = options.config.policy.boundness;
        let sampler = Sampler::new(root, topology, Some(probes), boundness);
        let (published, snapshots) = watch::channel(None);
        tokio::spawn(http::serve(listener, snapshots, http::Limits::default()));
        if http::reachable_from_outside(options.listen) {
            warn!(listen = %options.listen, "/metrics can be read from other machines");
        }
        info!(listen = %options.listen, enforce = options.enforce, "controller started");
        let start_time_seconds =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Ok(Self {
            options,
            sampler: Some(sampler),
            table: Table::default(),
            ledger: Ledger::default(),
            journal,
            mover: Some(mover),
            outcomes,
            hooks,
            published,
            last: None,
            cost: OwnCost { start_time_seconds, ..OwnCost::default() },
            started: Instant::now(),
            _instance: instance,
        })
    }

    /// The data flow, one line a stage.
    async fn tick(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        if let Some(tick) = self.sample().await? {
            let input = Input::Tick(tick);
            absorb(&mut self.table, &self.options.config, &input);
            let decisions = policy::decide(&self.table, &self.options.config);
            let Input::Tick(tick) = input else { unreachable!("made above") };
            self.record(&tick, &decisions);
            self.act(&decisions);
            self.last = Some((tick, decisions));
        }
        self.account(began);
        self.publish();
        Ok(())
    }

    async fn sample(&mut self) -> anyhow::Result<Option<Tick>> {
        let wants = self.table.wants_mempolicy(&self.options.config);
        let mut sampler = self.sampler.take().context("the sampler is lost")?;
        let round = move || {
            let tick = sampler.tick(&wants);
            (sampler, tick)
        };
        let (sampler, tick) = tokio::task::spawn_blocking(round).await.context("sample")?;
        self.sampler = Some(sampler);
        match tick {
            Ok(tick) => Ok(Some(tick)),
            Err(error) => {
                self.cost.tick_errors += 1;
                warn!(error = format!("{error:#}"), "this tick saw nothing");
                Ok(None)
            }
        }
    }

    fn record(&mut self, tick: &Tick, decisions: &[Decision]) {
        for score in self.table.take_scores() {
            self.ledger.record_score(score.helped);
        }
        for decision in decisions {
            self.ledger.record_decision(decision);
            if let Some(domain) = domain_of(tick, decision) {
                self.journal.decision(decision, || policy::explain(domain, decision, &tick.nodes));
            }
        }
    }

    fn act(&mut self, decisions: &[Decision]) {
        if !self.options.enforce {
            return;
        }
        for decision in decisions {
            if let Verdict::Move(order) = &decision.verdict {
                info!(
                    pid = order.target.pid,
                    to = order.to.0,
                    pages = order.pages,
                    seq = order.seq,
                    "move ordered"
                );
                absorb(&mut self.table, &self.options.config, &Input::Ordered(order.clone()));
                self.journal.record(&Fact::Ordered { seq: order.seq, now: sys::boottime() });
                if let Some(mover) = &self.mover {
                    mover.submit(order.clone());
                }
            }
        }
    }

    fn absorb_outcome(&mut self, outcome: &Outcome) {
        info!(
            pid = outcome.target.pid,
            moved = outcome.moved(),
            end = outcome.end.name(),
            ms = outcome.duration / 1_000_000,
            "move ended"
        );
        absorb(&mut self.table, &self.options.config, &Input::Progress(outcome.clone()));
        if let Some(sampler) = &mut self.sampler {
            sampler.forget_placement(outcome.target);
        }
        self.ledger.record_outcome(outcome);
        self.journal.record(&Fact::Outcome(outcome));
    }

    fn account(&mut self, began: Instant) {
        let ourselves = own::read(Path::new("/"));
        self.cost = OwnCost {
            ticks: self.cost.ticks + 1,
            tick_seconds: began.elapsed().as_secs_f64(),
            cpu_seconds: ourselves.cpu_seconds,
            resident_bytes: ourselves.resident_bytes,
            open_fds: ourselves.open_fds,
            ..self.cost
        };
    }

    fn publish(&self) {
        let (Some(sampler), Some((tick, decisions))) = (&self.sampler, &self.last) else { return };
        let snapshot = Snapshot {
            mode: if self.options.enforce { "enforce" } else { "observe" },
            nodes: NodeVec::from_fn(tick.nodes.len(), |node| tick.nodes[node].id),
            totals: sampler.totals().clone(),
            migrations: sampler.migrations().to_vec(),
            probes: self.hooks.clone(),
            ledger: self.ledger.clone(),
            cgroups: cgroups::busiest(tick, decisions),
            cost: self.cost,
        };
        self.published.send_replace(Some(Arc::new(snapshot)));
    }

    fn summary(&self) -> String {
        let Some((tick, decisions)) = &self.last else {
            return "nothing was seen yet; nothing was moved".to_owned();
        };
        let decided: Vec<_> = decisions
            .iter()
            .filter_map(|decision| Some((domain_of(tick, decision)?, decision)))
            .collect();
        let lost = self.hooks.iter().filter(|hook| hook.state != HookState::Attached);
        let missing: BTreeSet<&str> = lost.map(|hook| hook.signal).collect();
        let missing: Vec<&str> = missing.into_iter().collect();
        report::summary(&report::Seen {
            nodes: &tick.nodes,
            decided: &decided,
            enforce: self.options.enforce,
            moved: self.ledger.pairs.values().map(|pair| pair.moved).sum(),
            missing: &missing,
        })
    }

    /// Lets the running move end, cancels what waits, and detaches every probe.
    async fn stop(mut self) -> String {
        let mover = self.mover.take();
        if tokio::task::spawn_blocking(move || drop(mover)).await.is_err() {
            warn!("the mover's thread has panicked");
        }
        while let Some(outcome) = self.outcomes.recv().await {
            self.absorb_outcome(&outcome);
        }
        // Dropping the sampler drops the probes, and with them every attachment.
        drop(self.sampler.take());
        let moves: u64 = self.ledger.ended.values().sum();
        let pages: u64 = self.ledger.pairs.values().map(|pair| pair.moved).sum();
        format!("stopped after {} ticks: {moves} moves, {pages} pages", self.cost.ticks)
    }
}

/// Both are in the order of their pids.
fn domain_of<'a>(tick: &'a Tick, decision: &Decision) -> Option<&'a DomainObs> {
    let wanted = decision.extent.domain;
    let found = tick.domains.binary_search_by(|domain| domain.id.cmp(&wanted)).ok()?;
    tick.domains.get(found)
}
