#[expect(dead_code, reason = "called by the demo and the tests in virtual machines")]
mod prometheus;

fn main() {}
