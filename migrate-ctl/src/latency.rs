//! How much slower is each node's memory than the local one? Firmware's
//! distances are no measurement, and mostly exaggerate.
//!
//! A thread of its own visits each node that has CPUs and follows a chain of
//! pointers through memory of each node. Every line is flushed first, so that
//! no cache answers. A round takes less than a tenth of a millisecond for each
//! pair of nodes. Nothing here decides anything.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::model::{Est, Node, NodeObs, NodeVec, Source, each_node};
use crate::sys::{self, NodeMemory};
use crate::topology::Topology;

/// Bytes of a chain, every second line of which is visited twice: 50 us at 100 ns each. Few pages,
/// so that the TLBs of a virtual machine and of the machine below hold them, whose misses differ by
/// as much as 3 between two pieces of equally distant memory: 8 pages are well within them, and 32
/// are not.
const BYTES: usize = 1 << 15;
/// Chains on each node, in turns: what is peculiar to one piece of memory shows as spread.
const CHAINS: usize = 8;
/// Memory of two equally distant nodes differs by as much, through the size and colour of the pages
/// behind it: 0.93 to 1.09 in emulated guests, the same in every round. No interval is narrower.
const RESOLUTION: f32 = 0.05;
/// Rounds at the start, one right after the other.
const FIRST: usize = 16;
/// Between two rounds from then on.
const PAUSE: Duration = Duration::from_secs(10);
/// Rounds that count: ten minutes.
const KEPT: usize = 60;
/// Fewer rounds give no 95 % interval of a median.
const FEWEST: usize = 6;

/// Latency from each node's CPUs to each node's memory ÷ local latency; none for pairs without
/// CPUs or memory, or without local memory.
pub type Ratios = NodeVec<NodeVec<Option<Est>>>;

/// Which ratios the user wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    Measured,
    /// The firmware's distances ÷ 10.
    Firmware,
    /// Of every other node's memory.
    Configured(f32),
}

/// Where the ratios come from.
pub enum Latency {
    /// Nothing could be measured, or the user wants these.
    Firmware,
    /// The user says how much slower every other node's memory is.
    Configured(f32),
    Measured(Meter),
}

impl Latency {
    /// Replaces the firmware's ratios, where something better is known.
    pub fn fill(&self, nodes: &mut NodeVec<NodeObs>) {
        let measured = match self {
            Self::Firmware => return,
            Self::Configured(ratio) => {
                for (cpu, memory) in pairs(nodes.len()).filter(|(cpu, memory)| cpu != memory) {
                    nodes[cpu].latency[memory] = Est::exact(*ratio, Source::Configured);
                }
                return;
            }
            Self::Measured(meter) => meter.ratios(),
        };
        let Some(measured) = measured else { return };
        for (cpu, memory) in pairs(nodes.len()) {
            if let Some(ratio) = measured[cpu][memory] {
                nodes[cpu].latency[memory] = ratio;
            }
        }
    }
}

fn pairs(nodes: usize) -> impl Iterator<Item = (Node, Node)> {
    each_node(nodes).flat_map(move |cpu| each_node(nodes).map(move |memory| (cpu, memory)))
}

/// What has been measured so far.
pub struct Meter {
    ratios: Arc<Mutex<Option<Ratios>>>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    /// # Errors
    /// There can be no thread or no memory on a node.
    pub fn start(topology: Arc<Topology>) -> io::Result<Self> {
        let mut bench = Bench::new(&topology)?;
        let ratios = Arc::new(Mutex::new(None));
        let (stop, stopped) = mpsc::channel();
        let shared = Arc::clone(&ratios);
        let thread = thread::Builder::new().name("latency".into()).spawn(move || {
            bench.first_rounds();
            loop {
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = bench.ratios();
                if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                bench.round();
            }
        })?;
        Ok(Self { ratios, stop: Some(stop), thread: Some(thread) })
    }

    /// None until the first rounds are over.
    pub fn ratios(&self) -> Option<Ratios> {
        self.ratios.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that measures latency has panicked");
        }
    }
}

/// Measures once, on a thread of its own: the caller's stays where it may run.
///
/// # Errors
/// There is no memory on a node, or no thread.
pub fn measure(topology: &Topology) -> io::Result<Option<Ratios>> {
    let mut bench = Bench::new(topology)?;
    let rounds = thread::Builder::new().name("latency".into()).spawn(move || {
        bench.first_rounds();
        bench.ratios()
    })?;
    rounds.join().map_err(|_panic| io::Error::other("the thread that measures has panicked"))
}

/// The memory, and what the last rounds took.
struct Bench {
    /// CPUs of each node; not those that are kept for somebody.
    cpus: NodeVec<Vec<u32>>,
    memory: NodeVec<Vec<Chain>>,
    /// ns a line, by the node of the CPU and of the memory.
    rounds: VecDeque<NodeVec<NodeVec<Option<f64>>>>,
}

impl Bench {
    fn new(topology: &Topology) -> io::Result<Self> {
        let mut memory = NodeVec::from_fn(topology.len(), |_| Vec::new());
        for node in each_node(topology.len()).filter(|&node| topology.has_memory(node)) {
            for _ in 0..CHAINS {
                memory[node].push(Chain::new(NodeMemory::on(topology.id(node), BYTES)?));
            }
        }
        let cpus = NodeVec::from_fn(topology.len(), |node| topology.common_cpus(node).collect());
        Ok(Self { cpus, memory, rounds: VecDeque::new() })
    }

    fn first_rounds(&mut self) {
        for _ in 0..FIRST {
            self.round();
        }
    }

    fn round(&mut self) {
        let took = NodeVec::from_fn(self.cpus.len(), |node| self.visit(node));
        self.rounds.push_back(took);
        if self.rounds.len() > KEPT {
            // As many as make all turns, so that the order of what follows stays.
            self.rounds.drain(..2 * CHAINS);
        }
    }

    /// From this node's CPUs; nothing where it has none, or none that we may run on.
    fn visit(&self, node: Node) -> NodeVec<Option<f64>> {
        let mut took = NodeVec::filled(self.cpus.len(), None);
        if self.cpus[node].is_empty() || sys::run_on(&self.cpus[node]).is_err() {
            return took;
        }
        let turn = self.rounds.len() / 2 % CHAINS;
        let memories: Vec<(Node, &Chain)> =
            self.memory.iter().filter_map(|(at, chains)| Some((at, chains.get(turn)?))).collect();
        // What comes first on a CPU that we have just come to would look slow; and what the
        // machine does to the order of two must not favour one of them.
        if let Some((_, first)) = memories.first() {
            first.nanos_a_line();
        }
        let turned = self.rounds.len() % 2 == 1;
        for index in 0..memories.len() {
            let (at, chain) = memories[if turned { memories.len() - 1 - index } else { index }];
            took[at] = Some(chain.nanos_a_line());
        }
        took
    }

    fn ratios(&self) -> Option<Ratios> {
        if self.rounds.len() < FEWEST {
            return None;
        }
        let nodes = self.cpus.len();
        Some(NodeVec::from_fn(nodes, |cpu| {
            NodeVec::from_fn(nodes, |memory| self.ratio(cpu, memory))
        }))
    }

    /// Each round's remote time is held against the local time of the same round: what else the
    /// machine does then slows both.
    fn ratio(&self, cpu: Node, memory: Node) -> Option<Est> {
        let of_round = |round: &NodeVec<NodeVec<Option<f64>>>| {
            let (there, here) = (round[cpu][memory]?, round[cpu][cpu]?);
            (here > 0.0).then(|| there / here)
        };
        let est = median(self.rounds.iter().filter_map(of_round).collect())?;
        if cpu == memory {
            return Some(est);
        }
        let (low, high) = (est.low * (1.0 - RESOLUTION), est.high * (1.0 + RESOLUTION));
        Some(Est { low, high, ..est })
    }
}

/// The median and its 95 % interval, from the ranks that the binomial law gives; no shape of the
/// distribution is assumed.
fn median(mut values: Vec<f64>) -> Option<Est> {
    if values.len() < FEWEST {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let half = Est::WIDTH * n.sqrt() / 2.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks between 0 and the number of values"
    )]
    let at = |rank: f64| values[(rank.max(0.0) as usize).min(values.len() - 1)] as f32;
    let (low, high) = (at((n / 2.0 - half).floor()), at((n / 2.0 + half).ceil()));
    Some(Est { low, mid: at(n / 2.0), high, source: Source::Measured })
}

/// Lines of one node's memory in an order that nobody can guess.
struct Chain {
    memory: NodeMemory,
    /// First word of each line that is visited, in this order.
    order: Vec<usize>,
}

impl Chain {
    fn new(mut memory: NodeMemory) -> Self {
        // Two lines: processors fetch a line's neighbour along.
        const WORDS_A_LINE: usize = 16;
        let words = memory.words();
        let lines = words.len() / WORDS_A_LINE;
        // An odd step visits every line of a power of two; this one jumps about.
        let step = (0x9e37_79b1_usize % lines) | 1;
        let order: Vec<usize> = (0..lines).map(|i| (i * step) % lines * WORDS_A_LINE).collect();
        for (at, next) in order.iter().zip(order.iter().cycle().skip(1)) {
            words[*at] = *next as u64;
        }
        Self { memory, order }
    }

    /// The first round is for the TLB: what is measured is memory, not the way to it.
    fn nanos_a_line(&self) -> f64 {
        std::hint::black_box(self.memory.follow(self.order[0], self.order.len()));
        self.memory.flush(&self.order);
        let began = sys::boottime();
        let last = self.memory.follow(self.order[0], self.order.len());
        let took = sys::boottime().saturating_sub(began);
        std::hint::black_box(last);
        took as f64 / self.order.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_median_holds_it_and_ignores_outliers() {
        let mut values: Vec<f64> = (0..40).map(|i| 1.0 + f64::from(i) / 100.0).collect();
        values.extend([1000.0, 2000.0]);
        let est = median(values).unwrap();
        assert!(est.low < est.mid && est.mid < est.high && est.high < 1.4, "{est:?}");
        assert_eq!(median(vec![1.0; 5]), None);
        assert_eq!(median(vec![1.0; 6]).map(|est| (est.low, est.high)), Some((1.0, 1.0)));
    }

    #[test]
    fn a_configured_ratio_is_that_of_every_other_node() {
        let ratios = || NodeVec::filled(2, Est::exact(3.1, Source::Firmware));
        let node = NodeObs {
            id: crate::model::NodeId(0),
            has_cpus: true,
            has_memory: true,
            free: 0,
            high_watermark: 0,
            inactive_file: 0,
            reclaimed: 0,
            latency: ratios(),
        };
        let mut nodes = NodeVec::filled(2, node);
        Latency::Configured(1.7).fill(&mut nodes);
        assert_eq!(nodes[Node(0)].latency[Node(1)], Est::exact(1.7, Source::Configured));
        assert_eq!(nodes[Node(0)].latency[Node(0)], Est::exact(3.1, Source::Firmware));
    }

    #[test]
    fn a_chain_visits_each_of_its_lines_once() {
        let chain = Chain::new(NodeMemory::anywhere(BYTES).unwrap());
        let mut seen = chain.order.clone();
        seen.sort_unstable();
        seen.dedup();
        let lines = chain.order.len();
        assert_eq!((seen.len(), lines), (lines, BYTES / 128));
        assert_eq!(chain.memory.follow(chain.order[0], lines), chain.order[0] as u64);
        assert!(chain.nanos_a_line() > 0.0);
    }

    #[test]
    fn this_machine_is_as_near_to_itself_as_it_is() {
        let topology = Topology::read(std::path::Path::new("/")).unwrap();
        let ratios = measure(&topology).unwrap().unwrap();
        for node in each_node(topology.len()) {
            let own = ratios[node][node];
            assert!(own.is_none_or(|own| own.mid == 1.0), "{own:?}");
        }
    }
}
