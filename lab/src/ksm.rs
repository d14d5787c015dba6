//! Lets the kernel merge equal pages, and waits until it has.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sys::Memory;

const FOLDER: &str = "/sys/kernel/mm/ksm";
/// ksmd meets a page twice before it merges it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Merges mappings with the same contents, page by page.
pub(crate) fn merge(mappings: &[&Memory]) -> Result<()> {
    for mapping in mappings {
        mapping.advise(libc::MADV_MERGEABLE).context("madvise(MERGEABLE)")?;
    }
    set("pages_to_scan", "5000")?;
    set("sleep_millisecs", "10")?;
    set("run", "1")?;
    let wanted: usize = mappings.iter().skip(1).map(|mapping| mapping.pages()).sum();
    let end = Instant::now() + PATIENCE;
    while sharing()? < wanted {
        if Instant::now() > end {
            bail!("ksmd merged {} of {wanted} pages in {PATIENCE:?}", sharing()?);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // ksmd itself would isolate and fault.
    set("run", "0")
}

fn sharing() -> Result<usize> {
    let path = format!("{FOLDER}/pages_sharing");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.trim().parse()?)
}

fn set(name: &str, value: &str) -> Result<()> {
    let path = format!("{FOLDER}/{name}");
    fs::write(&path, value).with_context(|| format!("write {value} to {path}"))
}
