//! All VM tests, by subject.

mod control;
mod counts;
mod input;
mod killed;
mod machines;

use crate::test::Test;

pub(crate) fn all() -> impl Iterator<Item = Test> {
    let all = [counts::TESTS, control::TESTS, killed::TESTS, machines::TESTS, input::TESTS];
    all.into_iter().flatten().map(|test| Test { ..*test })
}
