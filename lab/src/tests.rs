//! All VM tests, by subject.

mod control;
mod counts;
mod far;
mod faults;
mod guards;
mod input;
mod isolation;
mod killed;
mod latency;
mod machines;
mod migrations;
mod placement;
mod scans;
mod scheduling;

use crate::test::Test;

pub(crate) fn all() -> impl Iterator<Item = Test> {
    let all = [
        isolation::TESTS,
        faults::TESTS,
        migrations::TESTS,
        scans::TESTS,
        scheduling::TESTS,
        latency::TESTS,
        counts::TESTS,
        control::TESTS,
        guards::TESTS,
        killed::TESTS,
        machines::TESTS,
        input::TESTS,
        far::TESTS,
        placement::TESTS,
    ];
    all.into_iter().flatten().map(|test| Test { ..*test })
}
