//! Is far memory really far, and does a guest that is not what it was told to be stop?

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::guests::{Guests, REFERENCE};
use super::tally::Tally;
use crate::guest::{self, End, Far, Flaw, Guest, Load};
use crate::kernels;

/// Remote latency ÷ local latency.
const FACTOR: f64 = 1.7;
const TIMEOUT: Duration = Duration::from_secs(120);

/// What the check at boot has to find.
const FLAWS: [(&str, Flaw, &str); 2] = [
    ("a_far_guest_whose_memory_is_near_is_void", Flaw::Near, "times as slow as local memory"),
    ("a_far_guest_whose_nodes_are_swapped_is_void", Flaw::Swapped, "of the misses are there"),
];

/// Boots a guest as told, in which the tests run, and one for each flaw.
pub(super) fn run(guests: &mut Guests, wanted: impl Fn(&str) -> bool, tally: &mut Tally) {
    let far = match guests.rig().and_then(|rig| rig.far(FACTOR)) {
        Ok(far) => far,
        Err(error) => return tally.fail("far guests", &format!("{error:#}")),
    };
    guests.run_far(FACTOR, &far, tally);
    for (name, flaw, reason) in FLAWS.into_iter().filter(|(name, _, _)| wanted(name)) {
        tally.record(name, is_void(guests, &far.flawed(flaw), reason));
    }
}

/// Boots a guest and wants it to be stopped for this reason.
fn is_void(guests: &mut Guests, far: &Far, reason: &str) -> Result<()> {
    let kernel = kernels::find(REFERENCE)?;
    // It never gets so far.
    let command = ["/bin/sleep", "100"].map(str::to_owned).to_vec();
    let load = Load { command, far: Some(far.clone()), ..Load::default() };
    let guest = guests.rig()?.guest("test-far-flawed", &kernel, &load)?;
    let guest = Guest { timeout: TIMEOUT, ..guest };
    let mut result = guest::boot(&guest, |_| ());
    if matches!(result, Ok(End::Died)) {
        guests.rebooted += 1;
        guest::keep_log(&guest.name)?;
        result = guest::boot(&guest, |_| ());
    }
    match result {
        Ok(end) => bail!("nobody noticed: {end:?}"),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains("void: ") && said.contains(reason), "another reason: {said}");
            Ok(())
        }
    }
}
