//! To come.
use anyhow::Result;
use std::process::ExitCode;
#[derive(clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    Ok(ExitCode::FAILURE)
}
