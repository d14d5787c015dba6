//! What the controller itself costs: its lines of /proc/self.

use std::fs;
use std::path::Path;

use rustix::param::clock_ticks_per_second;

/// The standard `process_` figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Own {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_fds: u64,
}

/// Reads them; what cannot be read is 0, since nothing depends on it.
pub fn read(root: &Path) -> Own {
    let proc = root.join("proc/self");
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    let open_fds = fs::read_dir(proc.join("fd")).map_or(0, |entries| entries.count() as u64);
    Own { cpu_seconds: cpu_seconds(&stat), resident_bytes: resident_bytes(&status), open_fds }
}

/// utime + stime, the 12th and 13th field after the command name.
fn cpu_seconds(stat: &str) -> f64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / clock_ticks_per_second() as f64
}

fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::{cpu_seconds, resident_bytes};
    use rustix::param::clock_ticks_per_second;

    #[test]
    fn the_name_of_a_process_cannot_shift_the_fields() {
        let stat = "1 (a) b (c) R 1 1 1 0 -1 4194560 1 2 3 4 300 200 5 6 20 0 1";
        assert_eq!(cpu_seconds(stat), 500.0 / clock_ticks_per_second() as f64);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t   2048 kB\n"), 2048 * 1024);
        assert_eq!(resident_bytes(""), 0);
    }
}
