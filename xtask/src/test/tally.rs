//! What passed and what failed so far?

use std::fmt;

use anyhow::Result;

use crate::paths::say;

/// Counts of the last line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u32,
    pub(super) failed: usize,
    /// A line of each, told once more at the end, where it is looked for.
    pub(super) failures: Vec<String>,
}

impl Tally {
    /// Prints and counts a check of the host.
    pub(super) fn record(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                say(format!("ok      {name}"));
            }
            Err(error) => self.fail(name, &format!("{error:#}")),
        }
    }

    /// Prints and counts a failure.
    pub(super) fn fail(&mut self, name: &str, why: &str) {
        say(format!("FAILED  {name}: {why}"));
        self.failed += 1;
        self.failures.push(format!("{name}: {}", why.lines().next().unwrap_or_default()));
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Passed and failed of cargo's line at the end of a set of tests.
pub(super) fn summary(line: &str) -> Option<(u32, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ");
    let passed = counts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = counts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some((passed, failed))
}

/// Whether the guest's test passed, from its line `test NAME ... ok` or `test NAME ... FAILED`.
///
/// What follows on the line is the reason, and the kernel may have written before it.
pub(super) fn verdict(line: &str) -> Option<bool> {
    let (_, test) = line.split_once("test ")?;
    let (name, verdict) = test.split_once(" ... ")?;
    if name.is_empty() || name.contains(' ') {
        return None;
    }
    match verdict.split([' ', ':', '(']).next() {
        Some("ok") => Some(true),
        Some("FAILED") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_summary_is_counted_whether_it_passed_or_not() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(summary(line), Some((12, 0)));
        assert_eq!(summary("test result: FAILED. 3 passed; 2 failed; 0 ignored"), Some((3, 2)));
        assert_eq!(summary("test mover::x ... ok"), None);
    }

    #[test]
    fn a_guests_line_is_a_verdict_only_with_one_name() {
        assert_eq!(verdict("test moves_home ... ok"), Some(true));
        assert_eq!(verdict("test moves_home ... FAILED: 3 pages stayed"), Some(false));
        assert_eq!(verdict("[  3.1] noise test moves_home ... ok"), Some(true));
        assert_eq!(verdict("this test was long ... ok"), None);
        assert_eq!(verdict("test moves_home ... okay"), None);
    }
}
