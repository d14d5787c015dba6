use std::borrow::Cow;
use std::convert::Infallible;

use migrate_common::Durations;

use super::{Assessment, FaultTime, GROUPS, Report, Span, Sums};
use crate::config::Config;
use crate::journal::{Fact, Settings};
use crate::model::{
    DomainObs, Est, HintObs, Input, MigratedObs, Nanos, Node, NodeVec, Pages, Source, Tick,
};
use crate::policy::scene::{Proc, SECOND, Scene};
use crate::table::Table;
use smallvec::smallvec;

const PAGES: f32 = 8192.0;

#[test]
fn where_memory_is_near_numa_does_not_matter() {
    let mut machine = Machine::new(2);
    machine.run(60, &[near(1)]);
    let report = machine.report();
    let total = &report.total.sums;
    assert_eq!((total.lost, total.recoverable, total.moves), Default::default());
    assert_eq!(total.cpu_seconds, 60.0);
    assert!(report.verdict.starts_with("NUMA does not matter here"), "{}", report.verdict);
}

#[test]
fn one_node_has_nothing_to_move() {
    let mut machine = Machine::new(1);
    machine.run(5, &[Proc::new(1, 0, 1.0, &[PAGES]).observe()]);
    assert!(machine.report().verdict.contains("one node with memory"));
}

#[test]
fn nothing_seen_says_nothing() {
    assert!(Machine::new(2).report().verdict.contains("nothing to say"));
}

/// Half of the time on local memory waits for memory, and all of it is twice as slow: a third of
/// the CPU time is lost. One move wins back all that comes after it.
#[test]
fn what_a_stranded_process_loses_comes_back_but_for_the_wait_and_the_price() {
    let mut machine = Machine::new(2);
    let stranded = bound(far(1), Est::exact(0.5, Source::Pace));
    machine.run(100, &[stranded]);
    let report = machine.report();
    let total = &report.total.sums;
    close(total.lost, Span { low: 100.0 / 3.0, mid: 100.0 / 3.0, high: 100.0 / 3.0 });
    assert_eq!((total.moves, total.pages), (1, 8192));
    // By the forecast: a first task of its cgroup is moved within seconds.
    let kept = total.recoverable.mid / total.lost.mid;
    let ticks = (100.0 * (1.0 - kept)).round();
    assert!((kept - (1.0 - ticks / 100.0)).abs() < 1e-9 && (1.0..10.0).contains(&ticks), "{kept}");
    let prior = Config::default().policy;
    let price = |page: f32| f64::from(page) * 8192.0 + prior.price_per_move;
    assert!((total.price.mid - price(prior.price_per_page.mid)).abs() < 1e-6);
    assert!((total.price.high - price(prior.price_per_page.high)).abs() < 1e-6);
    assert_eq!((total.prior_seconds, total.lost_width_by_priors), (0.0, 0.0));
    assert!(report.verdict.starts_with("NUMA matters here"), "{}", report.verdict);
}

#[test]
fn what_is_only_assumed_is_said_to_be() {
    let mut machine = Machine::new(2);
    machine.run(10, &[bound(far(1), Est { low: 0.1, mid: 0.3, high: 0.6, source: Source::Prior })]);
    let report = machine.report();
    let total = &report.total.sums;
    let lost = |b: f64| 10.0 * (1.0 - 1.0 / (1.0 + b));
    close(total.lost, Span { low: lost(0.1), mid: lost(0.3), high: lost(0.6) });
    assert_eq!(total.prior_seconds, 10.0);
    assert!((total.lost_width_by_priors - (lost(0.6) - lost(0.1))).abs() < 1e-6);
}

/// Its calls say how much it waits for memory: on memory that is twice as slow, a call takes 1.8
/// times as much CPU time.
#[test]
fn what_a_process_shows_of_itself_takes_the_place_of_the_prior() {
    let mut machine = Machine::new(2);
    machine.run(20, &[paced(900, near(1))]);
    machine.run(40, &[paced(500, far(1))]);
    let report = machine.report();
    let total = &report.total.sums;
    let truth = 40.0 * (1.0 - 1.0 / 1.8);
    assert!((total.recoverable.mid / truth - 1.0).abs() < 0.1, "{total:?}, not {truth}");
    assert!(total.prior_seconds < 25.0, "{total:?}");
    assert_eq!(total.moves, 1);
}

#[test]
fn threads_on_both_nodes_lose_what_no_move_wins_back() {
    let mut machine = Machine::new(2);
    let spread = Proc { cpu: vec![0.5, 0.5], ..Proc::new(1, 0, 1.0, &[PAGES / 2.0, PAGES / 2.0]) };
    machine.run(50, &[spread.observe()]);
    let report = machine.report();
    assert!(report.total.sums.lost.low > 1.0);
    assert_eq!(report.total.sums.moves, 0);
    assert!(report.verdict.starts_with("Nothing is to be gained"), "{}", report.verdict);
}

#[test]
fn whose_memory_could_not_be_looked_at_has_lost_nobody_knows_how_much() {
    let mut machine = Machine::new(2);
    let hidden = |mut domain: DomainObs, pages| {
        domain.extents[0].pages = pages;
        domain
    };
    let nothing = |value| NodeVec::filled(2, Est::exact(value, Source::Pagemap));
    let hidden = [
        hidden(far(1), NodeVec::default()),
        hidden(far(2), nothing(0.0)),
        hidden(far(3), nothing(f32::NAN)),
        DomainObs { extents: smallvec![], ..far(4) },
        near(5),
    ];
    machine.run(10, &hidden);
    let report = machine.report();
    let total = &report.total.sums;
    assert_eq!((total.cpu_seconds, total.unplaced_seconds), (50.0, 40.0));
    assert_eq!(total.lost, Span::default());
    assert!(report.verdict.contains("leaves out 80 %"), "{}", report.verdict);
}

#[test]
fn cgroups_are_bounded_and_nothing_is_left_out_of_the_sum() {
    let mut machine = Machine::new(2);
    for number in 0..2 * GROUPS {
        let cgroup = format!("/jobs/{number}").into();
        let pid = u32::try_from(number).unwrap() + 1;
        machine.run(1, &[DomainObs { cgroup, ..far(pid) }]);
    }
    let busiest = DomainObs { cgroup: "/jobs/7".into(), ..far(8) };
    machine.run(3, &[busiest]);
    assert_eq!(machine.assessment.groups.len(), GROUPS);
    let report = machine.report();
    assert_eq!(report.cgroups.len(), 16);
    assert_eq!(report.cgroups[0].cgroup, "/jobs/7");
    let shown: f64 = report.cgroups.iter().map(|group| group.sums.cpu_seconds).sum();
    assert_eq!(shown + report.other.sums.cpu_seconds, 2.0 * GROUPS as f64 + 3.0);
    assert_eq!(report.total.sums.cpu_seconds, 2.0 * GROUPS as f64 + 3.0);
}

/// It runs on node 1 for nine tenths of the time.
#[test]
fn pages_that_balancing_moves_to_and_fro_are_moved_back() {
    let mut machine = Machine::new(2);
    let mut tick = |cpu, memory, moved| {
        let process = Proc { cpu: vec![0.1, 0.9], ..Proc::new(1, 1, 1.0, &[PAGES, 0.0]) };
        machine.run(1, &[balanced(process.observe(), (cpu, memory), moved)]);
    };
    tick(1, 0, 300);
    tick(0, 1, 100);
    tick(0, 1, 300);
    tick(1, 1, 50);
    let report = machine.report();
    let balancing = report.total.sums.balancing;
    assert_eq!((balancing.hint_faults, balancing.pages_moved), (4 * 1000, 750));
    assert_eq!(balancing.pages_back, 300.0);
    // A page that comes to node 1 is nearer to eight tenths of the time. Where the last 50 went
    // no hint fault says.
    assert!((balancing.pages_nearer + 0.8 * 100.0).abs() < 1e-9, "{balancing:?}");
    assert_eq!(report.total.balancing_seconds, None);
    assert!(report.to_string().contains("is not known: no fault was timed"));
}

#[test]
fn hint_faults_cost_what_minor_faults_do() {
    let mut machine = Machine::new(2);
    machine.run(1, &[balanced(near(1), (1, 0), 0)]);
    let mut minor = Durations { calls: 12, nanos: 40_000, ..Durations::default() };
    // The durations of two were lost.
    minor.buckets[3] = 10;
    let report = machine.assessment.report(FaultTime::of(&minor));
    let seconds = report.total.balancing_seconds.unwrap();
    assert!((seconds - 1000.0 * 4e-6).abs() < 1e-12, "{seconds}");
    assert_eq!(FaultTime::of(&Durations::default()), None);
}

#[test]
fn who_has_exited_leaves_its_sums_and_nothing_else() {
    let mut machine = Machine::new(2);
    machine.run(3, &[far(1)]);
    let gone = vec![far(1).id];
    let tick = Tick { gone, ..machine.next(SECOND, &[]) };
    machine.assessment.absorb(&Input::Tick(tick));
    assert!(machine.assessment.flows.is_empty());
    assert_eq!(machine.report().total.sums.cpu_seconds, 3.0);
}

#[test]
fn programs_read_what_people_read() {
    let mut machine = Machine::new(2);
    machine.run(20, &[far(1)]);
    let report = machine.report();
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["cgroups"][0]["cgroup"], "/jobs/a");
    assert_eq!(json["cgroups"][0]["lost"]["mid"], report.total.sums.lost.mid);
    let text = report.to_string();
    let Sums { lost, .. } = report.total.sums;
    let shown = format!("{:.2} ({:.2} to {:.2})", lost.mid, lost.low, lost.high);
    for part in ["watched 20s; 2 nodes", "/jobs/a", &shown, &report.verdict] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn a_journal_says_what_watching_said() {
    let settings = Settings::new("observe", &Config::default());
    let mut facts =
        vec![Fact::Settings(Cow::Owned(settings)), Fact::Checkpoint(Cow::Owned(Table::default()))];
    let mut machine = Machine::new(2);
    for _ in 0..50 {
        let tick = machine.next(SECOND, &[far(1), near(2)]);
        let input = Input::Tick(tick);
        machine.assessment.absorb(&input);
        facts.push(Fact::Input { at: 0, input: Cow::Owned(input) });
    }
    let read = Assessment::of_facts(facts.into_iter().map(Ok::<_, Infallible>));
    let json = |report: &Report| serde_json::to_string(report).unwrap();
    assert_eq!(json(&read.unwrap()), json(&machine.report()));
    assert_eq!(machine.report().total.sums.moves, 1);
}

/// A machine that is assessed.
struct Machine {
    scene: Scene,
    assessment: Assessment,
}

impl Machine {
    fn new(nodes: usize) -> Self {
        Self { scene: Scene::new(nodes), assessment: Assessment::new(&Config::default()) }
    }

    /// So many ticks of a second.
    fn run(&mut self, ticks: u32, domains: &[DomainObs]) {
        for _ in 0..ticks {
            let tick = self.next(SECOND, domains);
            self.assessment.absorb(&Input::Tick(tick));
        }
    }

    fn next(&mut self, dt: Nanos, domains: &[DomainObs]) -> Tick {
        self.scene.now += dt;
        let nodes = self.scene.nodes.clone();
        let domains = domains.to_vec();
        Tick { now: self.scene.now, dt, busy: 0.5, nodes, domains, gone: vec![] }
    }

    fn report(&self) -> Report {
        self.assessment.report(None)
    }
}

/// Runs on node 1 all the time.
fn near(pid: u32) -> DomainObs {
    Proc::new(pid, 1, 1.0, &[0.0, PAGES]).observe()
}

fn far(pid: u32) -> DomainObs {
    Proc::new(pid, 1, 1.0, &[PAGES, 0.0]).observe()
}

fn bound(domain: DomainObs, boundness: Est) -> DomainObs {
    DomainObs { boundness, ..domain }
}

/// So many calls in its second of CPU time.
fn paced(calls: u64, domain: DomainObs) -> DomainObs {
    DomainObs { calls, calls_cpu: SECOND, ..domain }
}

/// A thousand hint faults of one kind, and what was moved then.
fn balanced(domain: DomainObs, (cpu, memory): (u16, u16), moved: Pages) -> DomainObs {
    let hints = HintObs { cpu: Node(cpu), memory: Node(memory), faults: 1000, pages: 1000 };
    let migrated =
        MigratedObs { reason: "numa_misplaced".to_owned(), caller: 0, pages: moved, failed: 0 };
    DomainObs { hints: vec![hints], migrated: vec![migrated], ..domain }
}

fn close(is: Span, wanted: Span) {
    let apart = [is.low - wanted.low, is.mid - wanted.mid, is.high - wanted.high];
    assert!(apart.iter().all(|apart| apart.abs() < 1e-5), "{is:?}, not {wanted:?}");
}
