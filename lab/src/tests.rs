//! All VM tests, by subject.

mod assess;
mod benefit;
mod control;
mod counts;
mod dwell;
mod faces;
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

/// With what is tested on the reference kernel only, or without.
pub(crate) fn all(reference: bool) -> impl Iterator<Item = Test> {
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
        assess::TESTS,
        benefit::TESTS,
        placement::TESTS,
    ];
    let here = [
        guards::process::TESTS,
        guards::moves::TESTS,
        guards::feedback::TESTS,
        dwell::TESTS,
        faces::TESTS,
    ]
    .into_iter()
    .filter(move |_| reference);
    all.into_iter().chain(here).flatten().map(|test| Test { ..*test })
}
