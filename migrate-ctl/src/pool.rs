//! Reads that may wait for a lock of the process that they look into.
//!
//! `maps`, `pagemap` and `numa_maps` wait for its mmap_lock, which it may hold for as long as it
//! likes. So a few threads read for everybody, and whoever asks takes what is there in time. What
//! is late comes with a later tick. A process that lets us wait takes one thread at most; when it
//! has taken the last, the others wait by name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{Mempolicy, PidRef};
use crate::placement::{self, Ask, Placement};
use crate::procfs;
use crate::topology::Topology;

/// So many processes can keep us waiting before the others have to wait as well.
const THREADS: usize = 4;

/// Jobs that may be open: with all threads stuck there is no use in more.
const MOST_OPEN: usize = 1024;

/// What to read of one process.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: PidRef,
    pub(crate) placement: Option<Ask>,
    pub(crate) mempolicy: bool,
    /// Handed back as it is.
    pub(crate) stamp: u64,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) id: PidRef,
    pub(crate) stamp: u64,
    /// None: was not asked for, or the process is gone.
    pub(crate) placement: Option<Placement>,
    pub(crate) mempolicy: Option<Mempolicy>,
    /// Without the time in the queue.
    pub(crate) took: Duration,
}

/// A process that lets us wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) id: PidRef,
    pub(crate) since: Instant,
    /// False: it waits itself, for a thread.
    pub(crate) being_read: bool,
}

pub(crate) struct Pool {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    /// Submitted and not done yet.
    open: BTreeMap<PidRef, Instant>,
    being_read: Arc<Mutex<BTreeSet<PidRef>>>,
}

impl Pool {
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(root: &Path, topology: &Arc<Topology>) -> io::Result<Self> {
        let (jobs, waiting) = channel();
        let (results, done) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let being_read = Arc::new(Mutex::new(BTreeSet::new()));
        for _ in 0..THREADS {
            let worker = Worker {
                root: root.into(),
                topology: Arc::clone(topology),
                waiting: Arc::clone(&waiting),
                being_read: Arc::clone(&being_read),
                results: results.clone(),
            };
            // Nobody joins it: it may wait for a lock when we end, and then ends with us.
            std::thread::Builder::new().name("look".into()).spawn(move || worker.run())?;
        }
        Ok(Self { jobs, done, open: BTreeMap::new(), being_read })
    }

    /// Whether a job for it is not done yet.
    pub(crate) fn is_open(&self, id: PidRef) -> bool {
        self.open.contains_key(&id)
    }

    /// Whether nobody should submit any more until something is done.
    pub(crate) fn is_full(&self) -> bool {
        self.open.len() >= MOST_OPEN
    }

    /// One for each process: the caller asks [`Pool::is_open`] first.
    pub(crate) fn submit(&mut self, job: Job) {
        self.open.insert(job.id, Instant::now());
        // The threads take jobs for as long as we live.
        let _ = self.jobs.send(job);
    }

    /// What is done by the deadline: jobs that were late before are not waited for.
    pub(crate) fn take(
        &mut self,
        patience: Duration,
        mut waited_for: BTreeSet<PidRef>,
    ) -> Vec<Done> {
        let deadline = Instant::now() + patience;
        let mut all = Vec::new();
        loop {
            let left = match waited_for.is_empty() {
                true => Duration::ZERO,
                false => deadline.saturating_duration_since(Instant::now()),
            };
            match self.done.recv_timeout(left) {
                Ok(done) => {
                    self.open.remove(&done.id);
                    waited_for.remove(&done.id);
                    all.push(done);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return all,
            }
        }
    }

    /// Whose jobs are not done, by process.
    pub(crate) fn late(&self) -> Vec<Late> {
        let being_read = locked(&self.being_read);
        let late = self.open.iter();
        late.map(|(&id, &since)| Late { id, since, being_read: being_read.contains(&id) }).collect()
    }
}

struct Worker {
    root: Box<Path>,
    topology: Arc<Topology>,
    waiting: Arc<Mutex<Receiver<Job>>>,
    being_read: Arc<Mutex<BTreeSet<PidRef>>>,
    results: Sender<Done>,
}

impl Worker {
    fn run(&self) {
        loop {
            // The lock is held while nobody has work, and not while this one has.
            let next = locked(&self.waiting).recv();
            let Ok(job) = next else { return };
            let id = job.id;
            locked(&self.being_read).insert(id);
            let done = self.read(job);
            locked(&self.being_read).remove(&id);
            if self.results.send(done).is_err() {
                return;
            }
        }
    }

    fn read(&self, job: Job) -> Done {
        let began = Instant::now();
        // A number may have gone to somebody else while the job waited.
        let lives = || procfs::start_of(&self.root, job.id.pid) == Some(job.id.start);
        let placement = job
            .placement
            .filter(|_| lives())
            .and_then(|ask| placement::place(&self.root, &self.topology, &ask));
        let mempolicy = job.mempolicy.then(|| procfs::mempolicy(&self.root, job.id.pid));
        let still = lives();
        Done {
            id: job.id,
            stamp: job.stamp,
            placement: placement.filter(|_| still),
            mempolicy: mempolicy.filter(|_| still),
            took: began.elapsed(),
        }
    }
}

/// What a thread that has panicked left behind is whole: each change is one call.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
