//! What runs inside the NUMA guest, besides the controller itself.

mod init;

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "lab: only the first process of a guest runs this");
    ExitCode::from(2)
}
