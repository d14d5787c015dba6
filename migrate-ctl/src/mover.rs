//! Carries out orders: one `migrate_pages(2)` call for each source node.
//!
//! A thread of its own without CAP_SYS_NICE, so that the kernel itself keeps
//! it from shared pages and from nodes outside the target's cpuset. It decides
//! nothing and keeps nothing; every order ends in one [`Outcome`]. What
//! arrived comes from the probes on this thread, without probes from
//! placement before and after: the call's own result is no verdict.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::{io, thread};

use migrate_common::{Isolated, OwnMove};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::model::{
    End, Est, Leg, Nanos, Node, NodeVec, Order, Outcome, Pages, PidRef, Why, each_node,
};
use crate::placement::sample;
use crate::procfs::{lives, process, start_of};
use crate::sys::{self, Errno, Pinned};
use crate::topology::Topology;

pub mod by_hand;

/// 4 KiB pages of a huge page.
const HUGE_PAGE: Pages = 512;

/// Counts what happens on one thread between `begin` and `end`. The probes do.
pub trait MoveCounter: Send {
    fn begin(&mut self, tid: u32, target: u32);
    fn end(&mut self, tid: u32) -> OwnMove;
}

/// The thread that moves, and the way to it. Dropping it waits for the call that runs; what is
/// queued behind it ends as cancelled.
#[derive(Debug)]
pub struct Mover {
    orders: Option<mpsc::Sender<Order>>,
    outcomes: UnboundedSender<Outcome>,
    forbidden: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Mover {
    /// Outcomes come in the order of the orders; the receiver ends when the mover has stopped.
    ///
    /// # Errors
    /// There can be no thread, or it cannot get rid of CAP_SYS_NICE: then nothing may be moved.
    pub fn start(
        topology: Arc<Topology>,
        counter: Option<Box<dyn MoveCounter>>,
        root: PathBuf,
    ) -> io::Result<(Self, UnboundedReceiver<Outcome>)> {
        let (orders, queue) = mpsc::channel();
        let (outcomes, receiver) = unbounded_channel();
        let (ready, manners) = mpsc::channel();
        let forbidden = Arc::new(AtomicBool::new(false));
        let mut hands =
            Hands { topology, counter, root, forbidden: Arc::clone(&forbidden), tid: 0 };
        let results = outcomes.clone();
        let thread = thread::Builder::new().name("mover".into()).spawn(move || {
            let dropped = sys::drop_sys_nice();
            let refused = dropped.is_err();
            if ready.send(dropped).is_err() || refused {
                return;
            }
            hands.tid = sys::thread_id();
            for order in queue {
                // Nobody may be left to read it while we are stopping.
                let _ = results.send(hands.carry_out(&order));
            }
        })?;
        manners.recv().map_err(io::Error::other)??;
        Ok((Self { orders: Some(orders), outcomes, forbidden, thread: Some(thread) }, receiver))
    }

    /// Queues an order. If the thread has died, the order ends as cancelled.
    pub fn submit(&self, order: Order) {
        let lost = match &self.orders {
            Some(orders) => orders.send(order).err().map(|error| error.0),
            None => Some(order),
        };
        if let Some(order) = lost {
            let _ = self.outcomes.send(Outcome::of(&order, End::Cancelled));
        }
    }

    /// The call that runs ends, and whatever waits ends as cancelled.
    pub fn forbid(&self) {
        self.forbidden.store(true, Ordering::Relaxed);
    }

    /// Orders are carried out again.
    pub fn allow(&self) {
        self.forbidden.store(false, Ordering::Relaxed);
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.forbid();
        self.orders = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the mover's thread has panicked");
        }
    }
}

/// What the thread owns.
struct Hands {
    topology: Arc<Topology>,
    counter: Option<Box<dyn MoveCounter>>,
    root: PathBuf,
    forbidden: Arc<AtomicBool>,
    tid: u32,
}

impl Hands {
    fn carry_out(&mut self, order: &Order) -> Outcome {
        let (began, used) = (sys::boottime(), sys::thread_cpu_time());
        let mut outcome = Outcome::of(order, End::Done);
        outcome.end = self.try_to(order, &mut outcome);
        outcome.duration = sys::boottime().saturating_sub(began);
        outcome.caller = sys::thread_cpu_time().saturating_sub(used);
        outcome
    }

    fn try_to(&mut self, order: &Order, outcome: &mut Outcome) -> End {
        if self.forbidden.load(Ordering::Relaxed) {
            return End::Cancelled;
        }
        if sys::boottime() > order.until {
            return End::Expired;
        }
        let pinned = match pin(&self.root, order.target) {
            Ok(pinned) => pinned,
            Err(end) => return end,
        };
        let mut there = self.placement(order, 0);
        let mut sum = OwnMove::default();
        let mut end = End::Done;
        for from in sources(order, there.as_ref()) {
            if self.forbidden.load(Ordering::Relaxed) {
                end = End::Cancelled;
                break;
            }
            // The number may have a new owner by now. A process that dies after this look is
            // named by the probe, and its number is not given out again within microseconds.
            if sum.died_inside != 0 || is_gone(&self.root, order.target, &pinned) {
                end = End::Vanished;
                break;
            }
            let (result, counted, duration) = self.one_call(order, from);
            let after = self.placement(order, outcome.legs.len() as u64 + 1);
            let moved = match &counted {
                Some(counted) => counted.moved,
                None => left_from(from, there.as_ref(), after.as_ref()),
            };
            add(&mut sum, counted.unwrap_or_default());
            there = after;
            let failed = counted.map_or(0, |counted| counted.failed);
            let huge = counted.map_or(0, |counted| counted.huge.saturating_mul(HUGE_PAGE));
            outcome.legs.push(Leg { from, moved, huge, failed, duration });
            if let Err(errno) = result {
                end = refusal(errno);
                break;
            }
        }
        outcome.unmovable = unmovable(&sum);
        outcome.left = left_behind(order, &sum, there.as_ref());
        self.how_it_ended(order, &pinned, outcome.moved(), sum.died_inside != 0, end)
    }

    fn one_call(
        &mut self,
        order: &Order,
        from: Node,
    ) -> (Result<u64, Errno>, Option<OwnMove>, Nanos) {
        let (source, target) = (self.topology.id(from), self.topology.id(order.to));
        if let Some(counter) = &mut self.counter {
            counter.begin(self.tid, order.target.pid);
        }
        let began = sys::boottime();
        let result = sys::migrate_pages(order.target.pid, &[source], target);
        let duration = sys::boottime().saturating_sub(began);
        let counted = self.counter.as_mut().map(|counter| counter.end(self.tid));
        (result, counted, duration)
    }

    /// A death explains every refusal, but only one that we saw before any page moved is early.
    fn how_it_ended(
        &self,
        order: &Order,
        pinned: &Pinned,
        moved: Pages,
        died_inside: bool,
        end: End,
    ) -> End {
        let alive = !died_inside && !is_gone(&self.root, order.target, pinned);
        let early = moved == 0 && !died_inside;
        if alive || (early && end == End::Cancelled) {
            end
        } else if early && end != End::Done {
            End::Vanished
        } else if end == End::Done && !died_inside && self.counter.is_some() {
            // It died after the last call, or inside one with no probe to see it.
            End::Done
        } else {
            End::DiedDuring
        }
    }

    fn placement(&self, order: &Order, round: u64) -> Option<NodeVec<Est>> {
        let pid = order.target.pid;
        let rss = process(&self.root, pid).filter(|now| now.id == order.target)?.resident.anonymous;
        sample(&self.root, &self.topology, pid, rss, order.seq.wrapping_mul(64) + round)
    }
}

/// Makes sure that the number means the process that was ordered, and keeps hold of it: the
/// number itself is free again once the process has been reaped.
fn pin(root: &Path, target: PidRef) -> Result<Pinned, End> {
    let pinned = Pinned::open(target.pid)
        .map_err(|errno| if errno == Errno::SRCH { End::Vanished } else { End::Failed })?;
    match start_of(root, target.pid) {
        None => Err(End::Vanished),
        Some(start) if start != target.start => Err(End::Replaced),
        Some(_) if pinned.has_exited() == Ok(true) => Err(End::Vanished),
        Some(_) => Ok(pinned),
    }
}

/// The kernel takes the memory from an exiting process before it calls it exited.
fn is_gone(root: &Path, target: PidRef, pinned: &Pinned) -> bool {
    pinned.has_exited() != Ok(false) || !lives(root, target)
}

/// The nodes to move from, the one with most pages first.
fn sources(order: &Order, there: Option<&NodeVec<Est>>) -> Vec<Node> {
    let pages = |node: Node| there.map_or(0.0, |there| there[node].mid);
    let mut nodes: Vec<Node> =
        each_node(order.from.len()).filter(|&node| order.from[node] && node != order.to).collect();
    nodes.sort_by(|&a, &b| pages(b).total_cmp(&pages(a)).then(a.cmp(&b)));
    nodes
}

fn refusal(errno: Errno) -> End {
    match errno {
        Errno::SRCH => End::Vanished,
        Errno::PERM | Errno::ACCESS => End::NotPermitted,
        _ => End::Failed,
    }
}

/// Pages that a node has fewer than before, where nobody counted them.
fn left_from(node: Node, before: Option<&NodeVec<Est>>, after: Option<&NodeVec<Est>>) -> Pages {
    let (Some(before), Some(after)) = (before, after) else { return 0 };
    whole(before[node].mid - after[node].mid)
}

/// What the probes named, and what the sample is certain of beyond it. The probes count folios:
/// at least so many pages.
fn left_behind(order: &Order, sum: &OwnMove, there: Option<&NodeVec<Est>>) -> Vec<(Why, Pages)> {
    let still_there = there.map_or(0, |there| {
        let sources = there.iter().filter(|(node, _)| order.from[*node] && *node != order.to);
        sources.map(|(_, pages)| whole(pages.low)).sum()
    });
    let named = sum.refused.saturating_add(sum.put_back);
    let reasons = [
        (Why::Refused, sum.refused),
        (Why::PutBack, sum.put_back),
        (Why::Other, still_there.saturating_sub(named)),
    ];
    reasons.into_iter().filter(|(_, pages)| *pages > 0).collect()
}

fn unmovable(sum: &OwnMove) -> Option<f32> {
    let OwnMove { tried, refused, put_back, .. } = *sum;
    Isolated { tried, refused, put_back }.unmovable()
}

fn add(sum: &mut OwnMove, leg: OwnMove) {
    sum.died_inside |= leg.died_inside;
    sum.tried += leg.tried;
    sum.refused += leg.refused;
    sum.put_back += leg.put_back;
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and less than no pages is none"
)]
fn whole(pages: f32) -> Pages {
    pages.round() as Pages
}

#[cfg(test)]
mod tests;
