use super::*;
use crate::config::Pattern;
use crate::policy::scene::{Proc, SECOND, Scene};
use crate::procfs::Resident;

const SELF: u32 = 4000;

/// A controller that has seen some ticks.
struct Watcher {
    scene: Scene,
    last: Option<(Tick, Vec<Decision>)>,
    earlier: Earlier,
}

impl Watcher {
    fn new() -> Self {
        Self { scene: Scene::new(2), last: None, earlier: Earlier::default() }
    }

    fn tick(&mut self, procs: &[Proc], gone: &[&Proc]) {
        let decisions = self.scene.tick(procs);
        let tick = Tick {
            now: self.scene.now,
            dt: SECOND,
            busy: 0.5,
            nodes: self.scene.nodes.clone(),
            domains: procs.iter().map(Proc::observe).collect(),
            gone: gone.iter().map(|proc| proc.id()).collect(),
        };
        self.earlier.keep(self.last.replace((tick, decisions)));
    }

    fn explain(&self, process: &Process) -> Explanation {
        let known = Known {
            last: self.last.as_ref(),
            earlier: &self.earlier,
            mode: Mode::Observe,
            config: &self.scene.config,
            watched_seconds: None,
            controller: SELF,
        };
        explain(&known, process)
    }
}

/// Runs on node 0, its memory is on node 1.
fn stranded(pid: u32) -> Proc {
    Proc::new(pid, 0, 1.0, &[0.0, 1e5])
}

fn process(pid: u32) -> Process {
    Process {
        id: PidRef { pid, start: 1 },
        comm: "redis-server".into(),
        cgroup: "/jobs/a".into(),
        kernel_thread: false,
        mems_allowed: Vec::new(),
        resident: Resident::default(),
        threads: 1,
        faults: crate::model::Faults::default(),
        calls: 0,
        ticks: 0,
    }
}

#[test]
fn one_that_ran_is_explained_by_what_its_last_decision_saw() {
    let mut watcher = Watcher::new();
    let procs = [stranded(3), stranded(7), stranded(9)];
    watcher.tick(&procs, &[]);
    watcher.tick(&procs, &[]);
    let said = watcher.explain(&process(7));
    let (tick, decisions) = watcher.last.as_ref().expect("two ticks");
    assert_eq!(said.state, State::Running);
    let last = said.last.as_ref().expect("it ran");
    assert_eq!((last.now, &last.domain), (tick.now, &tick.domains[1]));
    assert_eq!(last.decision, decisions[1]);
    assert_eq!(said.why, words::explain(&tick.domains[1], &decisions[1], &tick.nodes));
    assert_eq!((&said.nodes, &said.config), (&tick.nodes, &watcher.scene.config));
}

#[test]
fn one_that_sleeps_is_explained_by_the_tick_in_which_it_ran_last() {
    let mut watcher = Watcher::new();
    watcher.tick(&[stranded(3), stranded(7)], &[]);
    let then = watcher.last.clone().expect("a tick");
    for _ in 0..4 {
        watcher.tick(&[stranded(3)], &[]);
    }
    let said = watcher.explain(&process(7));
    assert_eq!(said.state, State::Idle);
    assert_eq!(said.last.as_ref().expect("it ran").decision, then.1[1]);
    assert!(said.why.contains("no CPU time for 4 s"), "{}", said.why);
    assert!(said.why.contains("The last decision was: redis-server (7): "), "{}", said.why);
}

#[test]
fn one_that_has_exited_leaves_nothing_to_its_successor() {
    let mut watcher = Watcher::new();
    watcher.tick(&[stranded(3), stranded(7)], &[]);
    watcher.tick(&[stranded(3)], &[&stranded(7)]);
    assert_eq!(watcher.earlier.0.len(), 2);
    let later = Process { id: PidRef { pid: 7, start: 2 }, ..process(7) };
    assert_eq!(watcher.explain(&later).state, State::Unseen);
    watcher.tick(&[stranded(3)], &[]);
    assert_eq!(watcher.earlier.0.keys().map(|id| id.pid).collect::<Vec<_>>(), [3]);
}

#[test]
fn who_was_never_looked_at_is_told_why() {
    let mut watcher = Watcher::new();
    watcher.scene.config.filter.include.push(Pattern::Comm("redis-server".into()));
    watcher.tick(&[stranded(3)], &[]);
    let check = |process: Process, state, words: &str| {
        let said = watcher.explain(&process);
        assert_eq!((said.state, &said.last), (state, &None));
        assert!(said.why.contains(words), "{}", said.why);
        assert_eq!(said.to_string(), format!("{}\nmode        observe", said.why));
    };
    check(process(8), State::Unseen, "no CPU time since the controller started");
    check(process(SELF), State::Controller, "the controller");
    check(
        Process { kernel_thread: true, comm: "kswapd0".into(), ..process(40) },
        State::KernelThread,
        "kswapd0 (40) is a kernel thread",
    );
    check(Process { comm: "other".into(), ..process(9) }, State::NotIncluded, "--include");
}

#[test]
fn the_text_begins_with_the_sentence_and_names_sources_and_the_model() {
    let mut watcher = Watcher::new();
    watcher.tick(&[stranded(7)], &[]);
    let said = watcher.explain(&process(7));
    let text = said.to_string();
    assert_eq!(text.lines().next(), Some(said.why.as_str()));
    let line = |name: &str| {
        let found = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        found.unwrap_or_else(|| panic!("no line {name} in {text}"))
    };
    assert!(line("loses").contains(" to ") && line("loses").contains("prior"), "{text}");
    assert!(line("price").contains(" to ") && line("price").contains("prior"), "{text}");
    assert!(line("model").contains("paid") && line("model").contains("clairvoyant"), "{text}");
    for name in ["mode", "verdict", "remote", "lost", "break-even", "rule"] {
        line(name);
    }
    assert!(!text.contains("No controller"), "{text}");
    let alone = Explanation { watched_seconds: Some(5), ..said };
    let second = alone.to_string().lines().nth(1).map(str::to_owned);
    assert_eq!(second.as_deref(), Some("No controller is running: watched for 5 s."));
}

#[test]
fn its_json_holds_all_of_it() {
    let mut watcher = Watcher::new();
    watcher.tick(&[stranded(7)], &[]);
    let said = watcher.explain(&process(7));
    let text = serde_json::to_string(&said).expect("plain data");
    let back: Explanation = serde_json::from_str(&text).expect("the same types");
    // The last digit of a double may get lost on the way.
    assert_eq!(back.to_string(), said.to_string());
    let domain = |explanation: &Explanation| explanation.last.clone().map(|last| last.domain);
    assert_eq!(domain(&back), domain(&said));
    assert_eq!((back.nodes, back.config), (said.nodes, said.config));
}
