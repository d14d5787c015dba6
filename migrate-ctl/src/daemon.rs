//! `migrate-ctl run`: the loop that joins the stages.
//!
//! One task owns all state. What blocks runs on a thread of its own: the
//! sampler on the blocking pool, moves on the mover's thread. Stages hand over
//! values; the tick below reads as the data flow.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::config::{Config, Mode, PolicyConfig};
use crate::control::{self, Ask, ControlError, Desk};
use crate::explain::Earlier;
use crate::instance::Instance;
use crate::journal::files::Journal;
use crate::journal::{Decided, Fact, Settings};
use crate::ledger::Ledger;
use crate::model::{Decision, Input, NodeVec, Order, Outcome, PidRef, Tick, Verdict};
use crate::mover::Mover;
use crate::sampler::Sampler;
use crate::snapshot::{HookState, HookVerdict, OwnCost, Snapshot};
use crate::start::{self, Watch, WatchError};
use crate::table::{Table, absorb};
use crate::{cgroups, http, latency, own, policy, report, sys};

mod answer;

use answer::settings;

/// The summary comes after so many seconds: enough samples to say something.
const SUMMARY_AFTER: Duration = Duration::from_secs(6);

/// A round of the sampler is not cut short when we stop; the kernel may be slow to answer it.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// The same with a move under way: the largest that is allowed takes a few seconds.
const MOVE_PATIENCE: Duration = Duration::from_secs(15);

/// Questions that wait for us; further callers wait in their connections.
const ASKS: usize = 8;

/// Whoever asks whether we are ready hears no once so many seconds and ten ticks brought nothing.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// What `run` was asked to do.
pub struct Options {
    pub mode: Mode,
    pub listen: SocketAddr,
    pub tick: Duration,
    /// Signals whose probes stay off.
    pub without: Vec<String>,
    pub journal: Option<PathBuf>,
    /// Where we are asked.
    pub socket: PathBuf,
    /// Whose members may ask, by name or number.
    pub group: Option<String>,
    /// Bytes that the journal may take.
    pub journal_limit: u64,
    pub config: Config,
    pub latency: latency::Wanted,
}

/// Why the controller cannot run here. Each is one line with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Listen(#[from] http::HttpError),
    #[error(transparent)]
    Control(#[from] ControlError),
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
    let mut summary = pin!(tokio::time::sleep(SUMMARY_AFTER));
    let mut summary_due = true;
    loop {
        tokio::select! {
            _ = clock.tick(), if !controller.samples() => controller.begin_tick(),
            // A round takes a while: signals, outcomes and questions do not wait for it.
            news = controller.news() => match news? {
                News::Sampled(sampled) => controller.tick(*sampled),
                News::Outcome(outcome) => controller.absorb_outcome(&outcome),
                News::Asked(ask) => controller.answer(ask),
            },
            () = &mut summary, if summary_due => {
                summary_due = false;
                say(&controller.summary());
            }
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    if summary_due {
        say(&controller.summary());
    }
    say(&controller.stop().await);
    Ok(())
}

/// The sampler after a round, and what it saw.
type Sampled = (Sampler, anyhow::Result<Tick>);

enum News {
    Sampled(Box<Sampled>),
    Outcome(Outcome),
    Asked(Ask),
}

struct Controller {
    options: Options,
    /// None while a tick samples.
    sampler: Option<Sampler>,
    sampling: Option<JoinHandle<Sampled>>,
    tick_began: Instant,
    /// Moved while a tick sampled: what it saw of them may be half of the way.
    moved_meanwhile: Vec<PidRef>,
    table: Table,
    ledger: Ledger,
    journal: Option<Journal>,
    /// None once it has stopped.
    mover: Option<Mover>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    hooks: Vec<HookVerdict>,
    published: watch::Sender<Option<Arc<Snapshot>>>,
    last: Option<(Tick, Vec<Decision>)>,
    /// What was seen before that of processes that have not run since.
    earlier: Earlier,
    asks: mpsc::Receiver<Ask>,
    /// The constants of the decision while we enforce.
    enforcing: PolicyConfig,
    cost: OwnCost,
    _socket: control::Place,
    _instance: Instance,
}

impl Controller {
    async fn start(mut options: Options) -> Result<Self, StartError> {
        let enforcing = options.config.policy.clone();
        options.config.policy = settings(options.mode, &enforcing);
        let instance = start::claim()?;
        let root = Path::new("/");
        let listener = http::bind(options.listen).await?;
        let group = options.group.as_deref().map(|name| control::group_number(root, name));
        let group = group.transpose()?;
        let (callers, socket) = control::bind(&options.socket, group)?;
        let Watch { sampler, topology, hooks, own_moves } =
            start::watch(&options.config, &options.without, options.latency)?;
        let journal = journal(&options)?;
        let (mover, outcomes) =
            Mover::start(topology, own_moves, root.to_path_buf()).map_err(StartError::Mover)?;
        let (published, snapshots) = watch::channel(None);
        let (asks, asked) = mpsc::channel(ASKS);
        let desk = Desk { root: root.to_path_buf(), snapshots: snapshots.clone(), asks, group };
        tokio::spawn(http::serve(listener, snapshots, http::Limits::default()));
        tokio::spawn(control::serve(callers, desk, http::Limits::default()));
        if http::reachable_from_outside(options.listen) {
            warn!(listen = %options.listen, "/metrics can be read from other machines");
        }
        info!(
            listen = %options.listen,
            socket = %options.socket.display(),
            mode = options.mode.name(),
            "controller started"
        );
        let start_time_seconds =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Ok(Self {
            options,
            sampler: Some(sampler),
            sampling: None,
            tick_began: Instant::now(),
            moved_meanwhile: Vec::new(),
            table: Table::default(),
            ledger: Ledger::default(),
            journal,
            mover: Some(mover),
            outcomes,
            hooks,
            published,
            last: None,
            earlier: Earlier::default(),
            asks: asked,
            enforcing,
            cost: OwnCost { start_time_seconds, ..OwnCost::default() },
            _socket: socket,
            _instance: instance,
        })
    }

    fn samples(&self) -> bool {
        self.sampling.is_some()
    }

    /// Starts a round of the sampler, which blocks, on a thread of its own.
    fn begin_tick(&mut self) {
        self.tick_began = Instant::now();
        let wants = self.table.wants_mempolicy(&self.options.config);
        let moving = self.table.moving();
        if let Some(mut sampler) = self.sampler.take() {
            self.sampling = Some(tokio::task::spawn_blocking(move || {
                let tick = sampler.tick(&wants, &moving);
                (sampler, tick)
            }));
        }
    }

    /// Ready when a round or a move has ended, or somebody asks.
    async fn news(&mut self) -> anyhow::Result<News> {
        let Self { sampling, outcomes, asks, .. } = self;
        let sampled = async {
            match sampling {
                Some(sampling) => sampling.await.context("sample"),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sampled = sampled => Ok(News::Sampled(Box::new(sampled?))),
            Some(outcome) = outcomes.recv() => Ok(News::Outcome(outcome)),
            Some(ask) = asks.recv() => Ok(News::Asked(ask)),
        }
    }

    /// The data flow, one line a stage.
    fn tick(&mut self, (sampler, tick): Sampled) {
        self.take_back(sampler);
        if let Some(tick) = self.seen(tick) {
            let input = Input::Tick(tick);
            self.write_down(&input);
            let Input::Tick(tick) = input else { unreachable!("made above") };
            let decisions = policy::decide(&mut self.table, &self.options.config, &tick);
            self.record(&decisions);
            self.act(&decisions);
            self.earlier.keep(self.last.replace((tick, decisions)));
        }
        self.account();
        self.publish();
    }

    fn take_back(&mut self, mut sampler: Sampler) {
        self.sampling = None;
        for id in self.moved_meanwhile.drain(..) {
            sampler.forget_placement(id);
        }
        self.sampler = Some(sampler);
    }

    fn seen(&mut self, tick: anyhow::Result<Tick>) -> Option<Tick> {
        tick.inspect_err(|error| {
            self.cost.tick_errors += 1;
            warn!(error = format!("{error:#}"), "this tick saw nothing");
        })
        .ok()
    }

    fn take_in(&mut self, input: &Input) {
        self.write_down(input);
        absorb(&mut self.table, &self.options.config, input);
    }

    /// Before it is taken in, so that nothing happens that the journal does not hold.
    fn write_down(&mut self, input: &Input) {
        let at = sys::boottime();
        if let Some(journal) = &mut self.journal {
            if matches!(input, Input::Tick(_)) {
                journal.make_room(at, &self.table);
            }
            journal.record(at, &Fact::Input { at, input: Cow::Borrowed(input) });
        }
    }

    fn record(&mut self, decisions: &[Decision]) {
        for checked in self.table.take_checked() {
            self.ledger.record_checked(checked.helped);
        }
        for score in self.table.take_scores() {
            info!(
                pid = score.target.pid,
                seq = score.seq,
                held_back = score.held_back,
                predicted = score.predicted.mid,
                realised = score.realised.mid,
                low = score.realised.low,
                high = score.realised.high,
                source = score.realised.source.name(),
                hit = score.hit(),
                "move scored"
            );
            self.ledger.record_score(&score);
            if let Some(journal) = &mut self.journal {
                journal.record(sys::boottime(), &Fact::Scored(score));
            }
        }
        for decision in decisions {
            self.ledger.record_decision(decision);
        }
        if let Some(journal) = &mut self.journal {
            journal.record(sys::boottime(), &Fact::Decided(Decided::of(decisions)));
        }
    }

    fn act(&mut self, decisions: &[Decision]) {
        if self.options.mode == Mode::Observe {
            return;
        }
        for decision in decisions {
            match &decision.verdict {
                Verdict::Stay => {}
                Verdict::Move(order) => self.order(order),
                Verdict::HoldBack(order) => self.hold_back(order),
            }
        }
    }

    fn order(&mut self, order: &Order) {
        let Order { seq, target, to, pages, .. } = order;
        info!(pid = target.pid, to = to.0, pages, seq, "move ordered");
        self.take_in(&Input::Ordered(order.clone()));
        if let Some(mover) = &self.mover {
            mover.submit(order.clone());
        }
    }

    fn hold_back(&mut self, order: &Order) {
        let Order { seq, target, to, pages, .. } = order;
        info!(pid = target.pid, to = to.0, pages, seq, "move held back, for comparison");
        self.take_in(&Input::HeldBack(order.clone()));
    }

    fn absorb_outcome(&mut self, outcome: &Outcome) {
        info!(
            pid = outcome.target.pid,
            moved = outcome.moved(),
            end = outcome.end.name(),
            ms = outcome.duration / 1_000_000,
            "move ended"
        );
        self.take_in(&Input::Progress(outcome.clone()));
        match &mut self.sampler {
            Some(sampler) => sampler.forget_placement(outcome.target),
            None => self.moved_meanwhile.push(outcome.target),
        }
        self.ledger.record_outcome(outcome);
    }

    fn account(&mut self) {
        let ourselves = own::read(Path::new("/"));
        self.cost = OwnCost {
            ticks: self.cost.ticks + 1,
            tick_seconds: self.tick_began.elapsed().as_secs_f64(),
            cpu_seconds: ourselves.cpu_seconds,
            resident_bytes: ourselves.resident_bytes,
            open_fds: ourselves.open_fds,
            ..self.cost
        };
    }

    fn publish(&self) {
        let (Some(sampler), Some((tick, decisions))) = (&self.sampler, &self.last) else { return };
        let snapshot = Snapshot {
            mode: self.options.mode.name(),
            nodes: NodeVec::from_fn(tick.nodes.len(), |node| tick.nodes[node].id),
            totals: sampler.totals().clone(),
            migrations: sampler.migrations().to_vec(),
            isolated: sampler.isolated().clone(),
            scans: sampler.scans().to_vec(),
            probes: self.hooks.clone(),
            ledger: self.ledger.clone(),
            learned: self.table.learned(&self.options.config.policy),
            cgroups: cgroups::busiest(tick, decisions),
            resident: sampler.resident(),
            late: sampler.late().to_vec(),
            journal: self.journal.as_ref().map(Journal::totals).unwrap_or_default(),
            cost: self.cost,
            good_until: Instant::now() + STALE_AFTER + 10 * self.options.tick,
        };
        self.published.send_replace(Some(Arc::new(snapshot)));
    }

    fn summary(&self) -> String {
        let Some((tick, decisions)) = &self.last else {
            return "nothing was seen yet; nothing was moved".to_owned();
        };
        let decided: Vec<_> = decisions
            .iter()
            .filter_map(|decision| Some((tick.domain(decision.extent.domain)?, decision)))
            .collect();
        let lost = self.hooks.iter().filter(|hook| hook.state != HookState::Attached);
        let missing: BTreeSet<&str> = lost.map(|hook| hook.signal).collect();
        let missing: Vec<&str> = missing.into_iter().collect();
        report::summary(&report::Seen {
            nodes: &tick.nodes,
            decided: &decided,
            enforce: self.options.mode == Mode::Enforce,
            moved: self.ledger.pairs.values().map(|pair| pair.moved).sum(),
            missing: &missing,
        })
    }

    /// Lets the running move end, cancels what waits, and detaches every probe.
    async fn stop(mut self) -> String {
        let mover = self.mover.take();
        let stopped = tokio::task::spawn_blocking(move || drop(mover));
        // The outcomes end when the mover has stopped.
        let ended = tokio::time::timeout(MOVE_PATIENCE, async {
            while let Some(outcome) = self.outcomes.recv().await {
                self.absorb_outcome(&outcome);
            }
            stopped.await
        });
        match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the mover's thread has panicked"),
            Err(_elapsed) => warn!(
                moving = ?self.table.moving().iter().map(|id| id.pid).collect::<Vec<_>>(),
                "a move does not end, perhaps behind the lock of its process; it goes with us"
            ),
        }
        // Dropping the sampler drops the probes, and with them every attachment. One that still
        // goes on ends with the process, and so do its probes; so does a thread of the pool that
        // waits for somebody's lock.
        if let Some(sampling) = self.sampling.take()
            && tokio::time::timeout(STOP_PATIENCE, sampling).await.is_err()
        {
            warn!("the sampler is not done; its probes go with us");
        }
        drop(self.sampler.take());
        let moves: u64 = self.ledger.ended.values().sum();
        let pages: u64 = self.ledger.pairs.values().map(|pair| pair.moved).sum();
        format!("stopped after {} ticks: {moves} moves, {pages} pages", self.cost.ticks)
    }
}

fn journal(options: &Options) -> Result<Option<Journal>, StartError> {
    let Some(path) = &options.journal else { return Ok(None) };
    let settings = Settings::new(options.mode.name(), &options.config);
    let journal = Journal::open(path, options.journal_limit, settings);
    journal.map(Some).map_err(|source| StartError::Journal { path: path.clone(), source })
}
