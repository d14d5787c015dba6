//! Nothing here depends on the calls' results: a container may forbid them,
//! and most machines have one node. The VM tests move for real.

use std::process::{Child, Command};

use super::*;

#[test]
fn ends_an_order_for_a_process_that_is_gone_as_vanished() {
    let target = Target::start();
    let gone = target.id();
    drop(target);
    assert_eq!(run(gone, None).end, End::Vanished);
}

#[test]
fn leaves_the_next_owner_of_a_number_alone() {
    let target = Target::start();
    let earlier = PidRef { start: target.id().start - 1, ..target.id() };
    let outcome = run(earlier, None);
    assert_eq!((outcome.end, outcome.legs.len()), (End::Replaced, 0));
}

#[test]
fn reports_what_the_probes_counted_on_its_thread() {
    let target = Target::start();
    let counts = OwnMove { moved: 90, failed: 7, refused: 3, put_back: 7, ..OwnMove::default() };
    let outcome = run(target.id(), Some(counts));
    assert_eq!((outcome.moved(), outcome.legs[0].failed), (90, 7));
    assert_eq!(outcome.left[..2], [(Why::Refused, 3), (Why::PutBack, 7)]);
}

#[test]
fn believes_the_probe_that_saw_the_target_die() {
    let target = Target::start();
    let counts = OwnMove { died_inside: 1, ..OwnMove::default() };
    assert_eq!(run(target.id(), Some(counts)).end, End::DiedDuring);
}

#[test]
fn does_not_carry_out_what_has_waited_too_long() {
    let target = Target::start();
    let (mover, mut outcomes) = Mover::start(two_nodes(), None, "/".into()).unwrap();
    mover.submit(Order { until: sys::boottime() - 1, ..order(1, target.id()) });
    assert_eq!(outcomes.blocking_recv().unwrap().end, End::Expired);
}

#[test]
fn cancels_what_is_queued_when_it_stops() {
    let target = Target::start();
    let (running, started) = mpsc::channel();
    let (mover, mut outcomes) =
        Mover::start(two_nodes(), Some(Box::new(Slow(running))), "/".into()).unwrap();
    for seq in 0..3 {
        mover.submit(order(seq, target.id()));
    }
    started.recv().unwrap();
    drop(mover);
    let ends: Vec<End> = std::iter::from_fn(|| outcomes.blocking_recv()).map(|o| o.end).collect();
    assert_ne!(ends[0], End::Cancelled);
    assert_eq!(ends[1..], [End::Cancelled, End::Cancelled]);
}

#[test]
fn moves_from_the_node_with_most_pages_first_and_never_from_the_target() {
    let order = Order {
        from: NodeVec::filled(4, true),
        to: Node(2),
        ..order(0, PidRef { pid: 1, start: 1 })
    };
    let pages = [5.0, 9.0, 99.0, 0.0];
    let there = NodeVec::from_fn(4, |node| {
        Est::exact(pages[usize::from(node.0)], crate::model::Source::Pagemap)
    });
    assert_eq!(sources(&order, Some(&there)), [Node(1), Node(0), Node(3)]);
    assert_eq!(sources(&order, None), [Node(0), Node(1), Node(3)]);
    assert_eq!(left_from(Node(1), Some(&there), Some(&NodeVec::filled(4, there[Node(0)]))), 4);
}

/// Answers with the same counts for every call.
struct Counts(OwnMove);

impl MoveCounter for Counts {
    fn begin(&mut self, tid: u32, target: u32) {
        assert_eq!(tid, sys::thread_id());
        assert!(!sys::has_cap(sys::CapabilitySet::SYS_NICE));
        self.0.target = target;
    }
    fn end(&mut self, _tid: u32) -> OwnMove {
        self.0
    }
}

/// Says when a call runs, and gives the other side time to stop the mover meanwhile.
struct Slow(mpsc::Sender<()>);

impl MoveCounter for Slow {
    fn begin(&mut self, _tid: u32, _target: u32) {
        self.0.send(()).unwrap();
    }
    fn end(&mut self, _tid: u32) -> OwnMove {
        thread::sleep(std::time::Duration::from_millis(500));
        OwnMove::default()
    }
}

struct Target(Child);

impl Target {
    fn start() -> Self {
        Self(Command::new("sleep").arg("60").spawn().unwrap())
    }

    fn id(&self) -> PidRef {
        let pid = self.0.id();
        PidRef { pid, start: start_of(Path::new("/"), pid).unwrap() }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Positions 0 and 1; a kernel with one node takes a mask with the other's bit in the source.
fn two_nodes() -> Arc<Topology> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    Arc::new(Topology::read(&fixtures.join("two-node")).unwrap())
}

fn order(seq: u64, target: PidRef) -> Order {
    let from = NodeVec::from_fn(2, |node| node == Node(1));
    Order {
        seq,
        target,
        from,
        to: Node(0),
        pages: 100,
        at_most: 100,
        until: Nanos::MAX,
        saves: Est::NOTHING,
        price: Est::NOTHING,
    }
}

fn run(target: PidRef, counts: Option<OwnMove>) -> Outcome {
    let counter = counts.map(|counts| Box::new(Counts(counts)) as Box<dyn MoveCounter>);
    let (mover, mut outcomes) = Mover::start(two_nodes(), counter, "/".into()).unwrap();
    mover.submit(order(1, target));
    let outcome = outcomes.blocking_recv().unwrap();
    drop(mover);
    outcome
}
