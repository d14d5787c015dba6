//! What does a tick change? Each row that ran takes in what was seen of it.

use crate::config::{Config, Forecasting};
use crate::guards;
use crate::model::{
    Class, DomainObs, ExtentId, ExtentObs, Mempolicy, NodeMask, NodeObs, NodeVec, PidRef, Reason,
    Tick, each_node,
};
use crate::policy::cost::{Costs, Distances};
use crate::policy::lanes::{Lanes, walls};
use crate::policy::prices;
use crate::policy::residences::{Foretold, Residences};
use crate::table::case::Case;
use crate::table::prefetch::prefetch;
use crate::table::{Row, Table, horizon, secs, started};

impl Table {
    /// Takes a tick in, and shows each extent that ran in it, in their order, while its row is at
    /// hand. The table that is shown along with it is without its rows.
    pub(crate) fn tick(
        &mut self,
        config: &Config,
        tick: &Tick,
        mut look: impl FnMut(&Self, &Case<'_>),
    ) {
        self.begin(config, tick);
        self.forget(&tick.gone);
        let mut rows = std::mem::take(&mut self.rows);
        let (mut fresh, mut costs, mut walls) = (Vec::new(), Costs::default(), Lanes::default());
        let open = walls_of_all(&self.nodes, config);
        let mut see = |table: &mut Self, row: &mut Row, domain: &DomainObs, extent: &ExtentObs| {
            set_walls(&mut walls, &open, &extent.allowed, config);
            table.observe(row, config, (domain, extent), &mut costs, &walls);
            look(table, &Case { domain, extent, costs: &costs, walls: &walls, row });
        };
        debug_assert!(tick.is_in_order(), "observations by process, each once");
        let mut known = rows.iter_mut().peekable();
        let seen = tick
            .domains
            .iter()
            .flat_map(|domain| domain.extents.iter().map(move |extent| (domain, extent)));
        for (domain, extent) in seen {
            while known.next_if(|(id, _)| **id < extent.id).is_some() {}
            if let Some((_, row)) = known.next_if(|(id, _)| **id == extent.id) {
                if let Some((_, next)) = known.peek() {
                    prefetch(&**next);
                }
                see(self, row, domain, extent);
            } else {
                let mut row = Row { seen: self.now.saturating_sub(self.dt), ..Row::default() };
                see(self, &mut row, domain, extent);
                fresh.push((extent.id, row));
            }
        }
        rows.extend(fresh);
        self.rows = rows;
    }

    /// What is no row's.
    fn begin(&mut self, config: &Config, tick: &Tick) {
        self.seq = self.seq.saturating_add(std::mem::take(&mut self.ran));
        self.round += 1;
        self.asks.clear();
        self.checked.clear();
        self.scores.clear();
        if self.nodes.len() != tick.nodes.len() {
            self.rows.clear();
            self.moving.clear();
        }
        self.nodes.clone_from(&tick.nodes);
        self.distances = Distances::of(&tick.nodes);
        self.now = tick.now;
        self.dt = tick.dt;
        self.busy = tick.busy;
        self.prices.tick(tick.nodes.len(), &config.policy);
        self.reclaim.step(&tick.nodes, tick.now);
        let burst = config.policy.burst as f64;
        let grown = secs(tick.dt) * config.policy.pages_per_second as f64;
        self.tokens = Some(self.tokens.map_or(burst, |left| (left + grown).min(burst)));
        self.classes.learn();
    }

    /// Fills in what this tick costs.
    fn observe(
        &mut self,
        row: &mut Row,
        config: &Config,
        (domain, extent): (&DomainObs, &ExtentObs),
        costs: &mut Costs,
        walls: &Lanes,
    ) {
        let now = self.now;
        // Idle ticks bring no observation, but their time has passed.
        let seconds = secs(now.saturating_sub(row.seen).max(self.dt));
        row.seen = now;
        self.ran += 1;
        if !self.classes.is(row.class, &domain.cgroup) {
            row.class = self.classes.join(row.class, &domain.cgroup);
            row.foretold = Foretold::default();
        }
        row.signs.step(domain, extent, now, seconds);
        if extent.mempolicy != Mempolicy::Unknown {
            row.mempolicy = Some((now, extent.mempolicy));
        }
        row.waited = row.waited.saturating_add(domain.waited);
        if let Some(outcome) = row.over.take() {
            let cost = prices::cost(row.waited, outcome.caller, self.busy, &config.policy);
            self.prices.learn(&outcome, cost);
            row.watch(&outcome, cost, now.saturating_add(horizon(config)));
        }
        let shown = row.pace.as_ref().and_then(|pace| pace.boundness());
        let boundness = shown.unwrap_or(domain.boundness);
        let pricing = (&self.prices, &config.policy);
        costs.measure(domain, extent, boundness, &self.distances, pricing);
        (row.remote, row.huge) = (costs.remote_share(), costs.huge);
        if !costs.known {
            return;
        }
        row.work.step(costs, walls, self.is_moving(&extent.id));
        row.rates.step(costs, seconds);
        row.paid += costs.loss_as_placed;
        let class = self.classes.get(row.class);
        if let Some(stayed) = row.home.step(costs, walls, now, self.dt) {
            class.stayed(stayed, true);
            row.restart_pace();
            // It has gone elsewhere: nobody can tell what the move has brought.
            row.trial = None;
        }
        if domain.calls > 0 && row.pace.is_none() {
            row.pace = Some(Box::default());
        }
        if let Some(pace) = &mut row.pace {
            let place = (costs.slowness, row.remote);
            pace.step(seconds, (secs(domain.calls_cpu), domain.calls), place);
        }
        row.wait = row.forecast(config, (extent.id.domain, self.nodes.len()), costs, class);
        if let Some(checked) = row.check(self.round) {
            row.settle(config, now, checked.helped);
            self.checked.push(checked);
        }
        if let Some(score) = row.score(now) {
            self.feedback.record(&score);
            self.scores.push(score);
        }
    }

    /// Processes that have exited: their last residence has no end, but their life has.
    fn forget(&mut self, gone: &[PidRef]) {
        for id in gone {
            let class = |class| ExtentId { domain: *id, class };
            for extent in Class::ALL.map(class) {
                let Some(row) = self.rows.remove(&extent) else { continue };
                self.moving.remove(&extent);
                self.past.paid += row.paid;
                self.past.optimum += row.work.optimum();
                let class = self.classes.leave(row.class);
                class.lived(secs(self.now.saturating_sub(started(*id))));
                if row.home.node().is_some() {
                    class.stayed(row.home.age(row.seen), false);
                }
            }
        }
    }
}

impl Row {
    fn forecast(
        &mut self,
        config: &Config,
        (id, nodes): (PidRef, usize),
        costs: &Costs,
        class: &mut Residences,
    ) -> f64 {
        let Some(home) = self.home.node() else { return f64::INFINITY };
        let (gain, price) = (self.rates.gain(home), costs.price[usize::from(home.0)]);
        if gain <= 0.0 || price <= 0.0 {
            return f64::INFINITY;
        }
        match config.policy.forecast {
            Forecasting::Off => f64::INFINITY,
            Forecasting::Always(share) => share * price / gain,
            Forecasting::Learned => {
                let age = secs(self.home.since.saturating_sub(started(id)));
                class.wait(price / gain, nodes, age, &mut self.foretold)
            }
        }
    }
}

/// What stands before each node, whoever comes.
fn walls_of_all(nodes: &NodeVec<NodeObs>, config: &Config) -> Lanes {
    let slow = !guards::on(config, Reason::SlowNode);
    walls(nodes.values().map(|node| node.has_memory && (node.has_cpus || slow)))
}

/// The same for memory with this cpuset.
fn set_walls(walls: &mut Lanes, all: &Lanes, allowed: &NodeMask, config: &Config) {
    walls.copy(all);
    if guards::on(config, Reason::Cpuset) {
        for (node, wall) in each_node(all.len()).zip(walls.iter_mut()) {
            if allowed.get(node) != Some(&true) {
                *wall = f64::INFINITY;
            }
        }
    }
}
