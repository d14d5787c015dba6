//! How long does a miss take, and how is that time passed?

use std::arch::x86_64::_rdtsc;
use std::hint::spin_loop;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the rate of the time stamp counter is measured.
const CALIBRATION: Duration = Duration::from_millis(20);

/// Costs of misses in ticks of the host's time stamp counter.
pub(crate) struct Delay {
    local: u64,
    /// On top of it, where the memory is on another node.
    remote: u64,
}

impl Delay {
    /// `local`: a miss to the CPU's own node; one to another takes `factor` times as long.
    pub(crate) fn new(local: Duration, factor: f64) -> Self {
        let per_nano = ticks_per_nano();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and as cast to integers saturate nothing can wrap"
        )]
        let ticks = |nanos: f64| (nanos * per_nano) as u64;
        let local = local.as_nanos() as f64;
        Self { local: ticks(local), remote: ticks(local * (factor - 1.0)) }
    }

    /// Lets a miss take its time, `last` being when the one before on this CPU was over; returns
    /// when this one was.
    ///
    /// What the emulator itself has needed since then counts towards the local cost, or its own
    /// slowness would blur the ratio of the two. What a remote miss costs more is added whole.
    pub(crate) fn pass(&self, last: u64, remote: bool) -> u64 {
        let began = now();
        let wait = self.wait(began.saturating_sub(last), remote);
        while now().wrapping_sub(began) < wait {
            spin_loop();
        }
        began + wait
    }

    fn wait(&self, since: u64, remote: bool) -> u64 {
        self.local.saturating_sub(since) + if remote { self.remote } else { 0 }
    }
}

fn now() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and no host that runs QEMU forbids it.
    unsafe { _rdtsc() }
}

fn ticks_per_nano() -> f64 {
    let (began, ticks) = (Instant::now(), now());
    sleep(CALIBRATION);
    now().wrapping_sub(ticks) as f64 / began.elapsed().as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emulators_own_time_is_a_part_of_the_local_cost_only() {
        let delay = Delay { local: 1000, remote: 700 };
        assert_eq!(delay.wait(0, false), 1000);
        assert_eq!(delay.wait(400, false), 600);
        assert_eq!(delay.wait(400, true), 1300);
        assert_eq!(delay.wait(5000, false), 0);
        assert_eq!(delay.wait(5000, true), 700);
    }

    #[test]
    fn a_delay_takes_as_long_as_it_says() {
        let delay = Delay::new(Duration::from_millis(2), 3.0);
        let began = Instant::now();
        delay.pass(now(), true);
        let took = began.elapsed();
        assert!(took >= Duration::from_micros(5900), "{took:?}");
    }
}
